/**
 * Links over WebRTC data channels, made by the browser.
 *
 * A connection has one pre-negotiated, ordered, reliable channel (docs/protocol.md, "From an offer to a link"). Its
 * description leaves with the candidates that are found at once; a STUN or TURN server that is slow, or dead, costs no
 * time: what comes of it is sent after. There is one end for link and connection together: whatever notices something
 * first ends the link, and that closes the RTCPeerConnection. A page may have some 500 of them, and Chromium does not
 * collect one that was not closed.
 */

import { BVError } from './errors.ts';
import { LinkBase, LOW_WATER, MAX_RECEIVED, MAX_SENT } from './link.ts';
import type { Connection, IceConfig, Link, Stage, Tried } from './link.ts';
import { later } from './timing.ts';
import type { PathInfo } from './types.ts';
import type { Bytes } from './wire/bytes.ts';

/** Longest session description in characters, most candidates that are taken from one peer for one connection. */
const MAX_DESCRIPTION = 16_384;
const MAX_CANDIDATES = 32;
/**
 * The description leaves when no candidate came for so many ms: those of this host come at once, what servers give is
 * sent after, and Chromium takes 100 ms to say that nothing more will come;
 */
const QUIET = 25;
/** when there is none after so many: checks that the other side sends may still find us; */
const NONE = 1500;
/** and in any case after so many. */
const LONGEST = 4000;

/** RFC 8839 section 5.1; component 1 is all there is. */
const CANDIDATE = /^candidate:[\w+/]{1,32} 1 udp \d{1,10} (\S{1,253}) \d{1,5} typ (host|srflx|relay)( |$)/i;

/** Addresses in the one way of writing them: browsers take others as well, like 2130706433 for 127.0.0.1. */
const IPV4 = /^((25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(\.(?=.)|$)){4}$/;
const IPV6 = /^[\da-f:]*:[\da-f:]*$/i;
/** mDNS names, for addresses that a browser does not tell. */
const NAME = /^[\da-f-]{1,63}\.local$/i;
/** Loopback, unspecified, IPv4 in IPv6, link-local, multicast, broadcast. */
const FORBIDDEN = /^(0|127|169\.254|22[4-9]|2[3-5]\d)\.|^0*:|^fe[89ab]|^ff/i;

/**
 * The kind and the address of a candidate of a remote peer; null if it must not, or cannot, be used. A peer may name
 * addresses that it has no business with, so that this machine sends packets there.
 */
export function readCandidate(text: string): [kind: string, address: string] | null {
  const [, address = '', kind = ''] = (text.length <= 512 && CANDIDATE.exec(text)) || [];
  const isMeant = NAME.test(address) || ((IPV4.test(address) || IPV6.test(address)) && !FORBIDDEN.test(address));
  return isMeant ? [kind.toLowerCase(), address] : null;
}

/** The servers of a list that this browser takes: one that it does not understand would make it refuse them all. */
export function understood(servers: readonly RTCIceServer[]): RTCIceServer[] {
  return servers.filter((server) => {
    try {
      new RTCPeerConnection({ iceServers: [server] }).close();
      return true;
    } catch (error) {
      const { name, message } = error as Error;
      if (!/^(Syntax|InvalidAccess|NotSupported|Type)Error$/.test(name)) return true; // too many connections, say
      console.warn(`BoneValue: ICE server ${server.urls} is left out: ${message}`);
      return false;
    }
  });
}

/** The path that a report of `getStats` tells of; null before there is one. */
export function readPath(stats: ReadonlyMap<string, any>): PathInfo | null {
  const all = [...stats.values()];
  const chosen = all.find(({ type }) => type === 'transport')?.selectedCandidatePairId;
  const pair = stats.get(chosen) ?? all.find(({ selected }) => selected); // Firefox marks it, and long had no transport
  const local = stats.get(pair?.localCandidateId);
  const remote = stats.get(pair?.remoteCandidateId);
  if (!local || !remote) return null;
  const addresses = `${local.address} ${remote.address}`; // of which browsers hide some, or give a name in their place
  return {
    local: local.candidateType,
    remote: remote.candidateType,
    family: addresses.includes(':') ? 'IPv6' : /\d( |$)/.test(addresses) ? 'IPv4' : '',
    relay: (local.candidateType === 'relay' && local.relayProtocol) || '',
  };
}

/** A data channel as a link. */
class RtcLink extends LinkBase {
  readonly #channel: RTCDataChannel;
  protected readonly release: () => void;

  constructor(channel: RTCDataChannel, release: () => void, noticed: () => void) {
    super();
    this.#channel = channel;
    this.release = release;
    channel.binaryType = 'arraybuffer';
    this.lowWater = LOW_WATER;
    channel.onmessage = ({ data }) => this.receive(data);
    channel.onbufferedamountlow = () => this.onDrained();
    channel.onclose = noticed;
  }

  get buffered(): number {
    return this.#channel.bufferedAmount;
  }

  get lowWater(): number {
    return this.#channel.bufferedAmountLowThreshold;
  }

  set lowWater(size: number) {
    this.#channel.bufferedAmountLowThreshold = size;
  }

  protected transmit(message: Bytes): void {
    try {
      this.#channel.send(message);
    } catch {
      throw new BVError('link_lost', 'the link is closing'); // why is not yet known
    }
  }
}

export class RtcConnection implements Connection {
  stage: Stage = 'idle';
  onStage: (stage: Stage) => void = () => {};
  onCandidate: ((text: string) => void) | null = null;
  onTrouble: () => void = () => {};
  readonly #pc: RTCPeerConnection;
  readonly #link: RtcLink;
  readonly #ice: IceConfig;
  readonly #opened = later<Link>();
  readonly #gathered = later<void>();
  /** Kind and address of each candidate. */
  readonly #ours: string[][] = [];
  readonly #theirs: string[][] = [];
  readonly #servers = new Map<string, string>();
  #early: string[] = [];
  #described = false;
  #failure = '';

  constructor(ice: IceConfig) {
    this.#ice = ice;
    const iceTransportPolicy = ice.relayOnly ? 'relay' : 'all';
    const pc = new RTCPeerConnection({ iceServers: [...ice.servers], iceTransportPolicy });
    this.#pc = pc;
    const channel = pc.createDataChannel('bv', { negotiated: true, id: 0, protocol: 'bv.rpc.1' });
    this.#link = new RtcLink(
      channel,
      () => this.#ended(),
      () => this.#noticed(),
    );
    channel.onopen = () => this.#channelOpened();
    pc.ondatachannel = () => this.#link.end('protocol_error');
    pc.onconnectionstatechange = () => {
      if (/failed|closed/.test(pc.connectionState)) this.#noticed();
    };
    pc.oniceconnectionstatechange = () => this.#pathChanged();
    pc.onicecandidateerror = ({ url, errorCode, errorText }) =>
      this.#servers.set(url, errorCode === 701 ? 'no answer' : `${errorCode} ${errorText}`.trim());
  }

  async createOffer(): Promise<string> {
    this.#go('gathering');
    return this.#describe('waiting');
  }

  async acceptOffer(sdp: string): Promise<string> {
    this.#go('gathering');
    await this.#apply('offer', sdp);
    return this.#describe('checking');
  }

  async acceptAnswer(sdp: string): Promise<void> {
    this.#go('checking');
    await this.#apply('answer', sdp);
  }

  opened(): Promise<Link> {
    return this.#opened.promise;
  }

  addCandidate(text: string): void {
    if (this.#theirs.length >= MAX_CANDIDATES) return;
    const read = readCandidate(text);
    if (!read) return;
    this.#theirs.push(read);
    if (this.#pc.remoteDescription) this.#add(text);
    else this.#early.push(text);
  }

  async path(): Promise<PathInfo | null> {
    return readPath(new Map<string, any>(await this.#pc.getStats()));
  }

  tried(): Tried {
    const [ours, theirs] = [this.#ours, this.#theirs];
    const families = theirs.flatMap(familiesOf);
    return {
      ours: kinds(ours),
      theirs: kinds(theirs),
      servers: Array.from(this.#servers, ([url, why]) => `${url}: ${why}`),
      relayOnly: this.#ice.relayOnly,
      familiesMeet: !ours.length || !theirs.length || ours.flatMap(familiesOf).some((one) => families.includes(one)),
    };
  }

  close(): void {
    this.#link.close();
  }

  // -- descriptions --------------------------------------------------------------------------------------------------

  async #describe(stage: Stage): Promise<string> {
    const pc = this.#pc;
    const done = (): void => this.#gathered.resolve();
    const longest = setTimeout(done, LONGEST);
    let quiet = setTimeout(done, this.#ice.relayOnly ? LONGEST : NONE);
    pc.onicecandidate = ({ candidate }) => {
      if (!candidate) return done();
      const { candidate: text, type, address, protocol } = candidate;
      if (!text || protocol === 'tcp') return;
      this.#ours.push([type ?? '', address ?? '']);
      if (this.#described) return this.onCandidate?.(text);
      clearTimeout(quiet);
      quiet = setTimeout(done, QUIET);
    };
    try {
      await pc.setLocalDescription();
      await this.#gathered.promise;
    } catch (error) {
      throw this.#fail(`gathering failed: ${(error as Error).message}`);
    } finally {
      clearTimeout(longest);
      clearTimeout(quiet);
    }
    if (this.#ice.relayOnly && !this.#ours.length) {
      // The browser takes longer than we do to say so.
      for (const url of this.#ice.servers.flatMap(({ urls }) => urls)) {
        if (url.startsWith('turn') && !this.#servers.size) this.#servers.set(url, 'no answer');
      }
      throw this.#fail('only a relay may be used, and no TURN server gave one');
    }
    this.#described = true;
    this.#go(stage);
    this.#pathChanged();
    return pc
      .localDescription!.sdp.replace(/^a=candidate:\S+ \d+ tcp .*\r\n/gim, '') // nobody on the other side takes them
      .replace(/^(a=max-message-size:).*/m, `$1${MAX_RECEIVED}`); // the browser offers to take more than we do
  }

  async #apply(type: RTCSdpType, text: string): Promise<void> {
    const limit = Number(/^a=max-message-size:(.*)/m.exec(text)?.[1] ?? 0);
    if (text.length > MAX_DESCRIPTION || !(limit === 0 || limit >= MAX_SENT)) {
      throw new BVError(
        'protocol_error',
        `a session description of ${text.length} characters, for messages of ${limit} bytes`,
      );
    }
    const candidates: string[] = [];
    const sdp = text.replace(/^a=((candidate:.*)|end-of-candidates)\r?\n/gm, (_, line: string) => {
      candidates.push(line);
      return '';
    });
    try {
      await this.#pc.setRemoteDescription({ type, sdp });
    } catch (error) {
      if (this.#failure) throw this.#fail('');
      throw new BVError('protocol_error', `the session description makes no sense: ${(error as Error).message}`);
    }
    for (const early of this.#early.splice(0)) this.#add(early);
    candidates.forEach((candidate) => this.addCandidate(candidate));
  }

  #add(candidate: string): void {
    this.#pc.addIceCandidate({ candidate, sdpMLineIndex: 0 }).catch(() => {}); // closed, or not taken
  }

  // -- states --------------------------------------------------------------------------------------------------------

  #go(stage: Stage): void {
    if (this.#failure) throw this.#fail('');
    this.stage = stage;
    this.onStage(stage);
  }

  #pathChanged(): void {
    const state = this.#pc.iceConnectionState;
    if (this.stage === 'checking' && /connected|completed/.test(state)) this.#go('dtls');
    if (this.stage === 'open' && state === 'disconnected') this.onTrouble();
  }

  #channelOpened(): void {
    if (this.#failure) return;
    this.#go('open');
    this.#opened.resolve(this.#link);
  }

  /** Something has ended; that the path is broken shows in the state of ICE. */
  #noticed(): void {
    this.#link.end(/failed|disconnected/.test(this.#pc.iceConnectionState) ? 'lost' : 'closed_by_peer');
  }

  #fail(failure: string): BVError {
    this.#failure ||= failure;
    this.#link.close();
    return new BVError('connect_failed', this.#failure);
  }

  #ended(): void {
    const pc = this.#pc;
    this.#failure ||=
      pc.iceConnectionState === 'failed'
        ? 'no path to the peer was found'
        : `the connection ended (${this.#link.closed})`;
    this.stage = 'ended';
    pc.onconnectionstatechange = pc.oniceconnectionstatechange = pc.onicecandidate = null;
    pc.close();
    this.#gathered.reject(new Error(this.#failure));
    this.#opened.reject(new BVError('connect_failed', this.#failure));
    this.onStage('ended');
  }
}

const kinds = (candidates: string[][]): string[] => [...new Set(candidates.map(([kind]) => kind!))].sort();

/** The families of an address; a name, or nothing, hides one that may be of either. */
const familiesOf = ([, address]: string[]): number[] =>
  address!.includes(':') ? [6] : /\d$/.test(address!) ? [4] : [4, 6];
