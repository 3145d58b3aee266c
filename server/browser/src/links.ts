/** The links of one peer, and all that makes, heals and ends them: pool, dialler, ICE servers, penalties, healing. */

import { Penalties } from './admission.ts';
import { describeLink } from './builtin.ts';
import { Dialler, type Signalling } from './dialler.ts';
import { BVError } from './errors.ts';
import { Healing } from './healing.ts';
import type { Host } from './host.ts';
import { Ice } from './ice.ts';
import type { LinkLife } from './life.ts';
import type { Engine } from './link.ts';
import { PeerLink } from './peer_link.ts';
import { Pool } from './pool.ts';
import { RtcConnection, understood } from './rtc.ts';
import { later, now, settles } from './timing.ts';
import type { ConnectOptions, LinkInfo } from './types.ts';
import type { Introductions, KnownKeys } from './wire/introductions.ts';
import { Bucket } from './wire/pacing.ts';
import type { IceServer, PeerCandidate, PeerRequest, PeerResponse } from './wire/signals.ts';

/** Seconds for which a new link waits for a discovery server that was there a moment ago. */
const OFFLINE_PATIENCE = 5;
/** ms between looks at the clock; if one comes later than this by as much again, the machine was asleep. */
const TICK = 5000;
/** The ends of a link that are its remote peer's fault. */
const AT_FAULT = /^(protocol_error|abuse|slow)$/;

export interface LinksSettings {
  /** Serves the calls that come over the links. */
  readonly host: Host;
  readonly introductions: Introductions;
  readonly contacts: KnownKeys;
  /** The way through the discovery server. */
  readonly client: Signalling & { request(type: 'requestIceServers', data: {}): Promise<unknown>; doubt(): void };
  /** The peers that are online, id to name: a view that changes with them. */
  readonly peers: ReadonlyMap<string, string>;
  readonly settings: ConnectOptions;
  /** Told of every refusal that concerns identity, and whom it is about. */
  report(error: BVError, about: string): void;
  /** Told of every step of every link. */
  onLink(info: LinkInfo): void;
  /** Told of every link that has been proved. */
  onAdded(link: PeerLink): void;
  /** Makes connections; the default is the browser's WebRTC. */
  readonly engine?: Engine;
}

export class Links {
  readonly pool: Pool;
  readonly #settings: LinksSettings;
  readonly #dialler: Dialler;
  readonly #healing: Healing;
  readonly #ice: Ice;
  readonly #penalties = new Penalties();
  readonly #stop = new AbortController();
  readonly #looks = new Bucket(0.2, 2);
  #online = later<void>();
  #offlineSince = now(); // the first login is expected any moment

  constructor(settings: LinksSettings) {
    const { client, contacts, peers, engine, settings: options } = settings;
    const { maxOutgoing = 64, maxIncoming = 256, connectTimeout = 20_000, idleTimeout = 60_000 } = options.pool ?? {};
    const timeout = connectTimeout / 1000;
    this.#settings = settings;
    // The answer comes as an event, too.
    const refresh = (): Promise<unknown> => client.request('requestIceServers', {});
    this.#ice = new Ice(options.ice, refresh, engine ? (servers) => [...servers] : understood);
    const nameOf = (peerId: string): string => {
      const name = peers.get(peerId);
      if (name === undefined) throw new BVError('peer_offline', `peer ${peerId} is not online`);
      return name;
    };
    this.pool = new Pool({
      dial: async (peerId, life, seconds, signal) =>
        this.#dialler.dial(peerId, nameOf(peerId), life, seconds, signal),
      maxOutgoing,
      maxIncoming,
      patience: timeout,
      onAdded: (link) => this.#added(link),
      onReplaced: (link) => void this.#healing.replaced(link),
      onLife: (life) => settings.onLink(this.#info(life)),
      check: (peerId) => this.#penalties.check(contacts.keyOf(peers.get(peerId) ?? '')),
      ready: async (peerId, longest) => {
        await this.#waitForServer(longest);
        nameOf(peerId);
      },
    });
    this.#healing = new Healing(this.pool);
    this.#dialler = new Dialler({
      engine: engine ?? ((ice) => new RtcConnection(ice)),
      introductions: settings.introductions,
      signalling: client,
      ice: () => this.#ice.config(),
      makeLink: (channel, connection, remote, proof, life, offerer) => {
        const link = new PeerLink(channel, connection, remote, proof, life, {
          offerer,
          host: settings.host,
          idleTimeout: idleTimeout / 1000,
          onClosed: (closed) => this.#closed(closed),
          onIdle: (idle) => this.pool.idle(idle),
        });
        connection.onTrouble = () => void this.#healing.examine(link);
        return link;
      },
      report: (error, peerId) => settings.report(error, peerId),
      timeout,
      penalties: this.#penalties,
    });
    this.#watch();
  }

  /** Drain all links and make no new ones; close after so many seconds what is still there. */
  async stop(drain: number): Promise<void> {
    this.#stop.abort();
    this.#healing.stop();
    await this.pool.stop(drain);
  }

  /** The page is going away: close all links at once. */
  closeAll(): void {
    for (const link of this.pool.links()) link.close();
  }

  /** Every link, and every attempt to make one. */
  info(): LinkInfo[] {
    return Array.from(this.pool.lives, (life) => this.#info(life));
  }

  /** The same as `bv.links` tells it to other peers of the account: in seconds, and with the path. */
  describe(): Promise<unknown[]> {
    const nothing = { fingerprint: null, path: null, roundTrip: null, calls: 0, agent: '', doubted: false };
    const rows = Array.from(this.pool.lives, (life) => {
      if (life.link && !life.isSettingUp) return describeLink(life.link);
      const { peer, dialled, state, since } = this.#info(life);
      return { peer, dialled, state, seconds: since / 1000, ...nothing };
    });
    return Promise.all(rows);
  }

  // -- what happens --------------------------------------------------------------------------------------------------

  /** The discovery server knows this peer by that id. */
  wentOnline(peerId: string): void {
    this.#settings.introductions.peerId = this.pool.ownId = peerId;
    this.#offlineSince = Infinity;
    this.#online.resolve();
    void this.#dialler.askAgain();
    this.#healing.retryNow();
  }

  /** The discovery server cannot be reached: links stay, new ones have to wait. */
  wentOffline(): void {
    if (this.#offlineSince < Infinity) return;
    this.#offlineSince = now();
    this.#online = later();
  }

  /** A peer is online. */
  peerCame(peerId: string): void {
    this.#healing.peerCame(peerId);
  }

  /** A peer is on another socket: what it was asked on the old one may be lost. */
  peerReturned(peerId: string): void {
    void this.#dialler.askAgain(peerId);
  }

  /** A peer is offline, says the server; its links may know better. */
  peerLeft(peerId: string): void {
    this.#healing.peerLeft(peerId);
  }

  /** This machine may have other addresses. */
  networkChanged(): void {
    for (const peerId of this.#dialler.networkChanged()) void this.#healing.bringBack(peerId);
    this.#healing.networkChanged();
  }

  /** Another peer wants a link. */
  requested(request: PeerRequest): void {
    const name = this.#settings.peers.get(request.from ?? '') ?? null;
    void this.#dialler.answer(request, name, this.pool.ownId, this.pool);
  }

  /** Another peer has answered a request of ours. */
  responded(response: PeerResponse): void {
    this.#dialler.receiveResponse(response);
  }

  /** Another peer knows a further way to itself. */
  candidate(candidate: PeerCandidate): void {
    this.#dialler.receiveCandidate(candidate);
  }

  /** The discovery server has told its servers, and for how many seconds each is good. */
  handedOut(servers: readonly IceServer[], lifetimes: readonly (number | null)[]): void {
    this.#ice.handedOut(servers, lifetimes);
  }

  /** The trust with an account has ended. */
  cut(key: string, name: string): void {
    this.pool.cut(name, key, new BVError('not_trusted', `the trust with ${name} has ended`));
  }

  /** An account has another key. Whoever holds the old one may be the reason for the change. */
  keyChanged(name: string, oldKey: string): void {
    this.pool.cut(name, oldKey, new BVError('link_lost', `${name} has another key: links of the old one end`));
  }

  // -- links that come and go ----------------------------------------------------------------------------------------

  #added(link: PeerLink): void {
    const { id, name, key } = link.remote;
    this.#dialler.linked(id);
    if (this.#settings.contacts.keyOf(name) === key) return this.#settings.onAdded(link);
    link.close(new BVError('not_trusted', `the trust with ${name} has ended`)); // since it proved itself
  }

  #closed(link: PeerLink): void {
    this.pool.remove(link);
    if (link.proved && AT_FAULT.test(link.ended)) this.#penalties.punish(link.remote.key);
    if (link.ended === 'lost') {
      // The reason may be on this side: then nothing that is done about it would come through either.
      if (this.#settings.peers.has(link.remote.id)) this.#settings.client.doubt();
      this.#healing.lost(link);
    }
    link.connection.close();
  }

  #info({ peerId: id, name, state, since, link, dialled }: LinkLife): LinkInfo {
    const roundTrip = link?.roundTrip ?? null;
    return {
      peer: { name: name || (this.#settings.peers.get(id) ?? ''), id },
      state,
      since: (now() - since) * 1000,
      roundTrip: roundTrip === null ? null : roundTrip * 1000,
      calls: link?.active ?? 0,
      dialled,
    };
  }

  /** Be sure that the discovery server can be asked. */
  async #waitForServer(longest: number): Promise<void> {
    const patience = Math.min(this.#offlineSince + OFFLINE_PATIENCE - now(), longest);
    if (await settles(this.#online.promise, patience)) return;
    const why = 'no new link: the discovery server is not connected; it is tried again, and links that are there go on';
    throw new BVError('unavailable', why);
  }

  /** Notice that the network may be another, and that the machine was asleep. */
  #watch(): void {
    const { signal } = this.#stop;
    const changed = (): void => this.networkChanged();
    globalThis.addEventListener?.('online', changed, { signal });
    globalThis.addEventListener?.('pageshow', ({ persisted }) => persisted && changed(), { signal });
    globalThis.document?.addEventListener('resume', changed, { signal });
    // This tells of every change of speed as well: links are asked, what is being set up goes on.
    (globalThis.navigator as { connection?: EventTarget }).connection?.addEventListener(
      'change',
      () => this.#looks.take(now()) || this.#healing.networkChanged(),
      { signal },
    );
    let before = Date.now();
    const ticks = setInterval(() => {
      const slept = Date.now() - before > 2 * TICK;
      before = Date.now();
      // The clock of a hidden tab is slow as well.
      if (slept) globalThis.document?.hidden ? this.#healing.networkChanged() : changed();
    }, TICK);
    signal.addEventListener('abort', () => clearInterval(ticks));
  }
}
