/** A tab as a peer: builds all parts, wires them, and is what pages see as `$BV`. */

import { builtinModules, MAX_REMOVALS, removalRequest } from './builtin.ts';
import { Calls } from './calling.ts';
import { addressOf, DiscoveryClient } from './discovery.ts';
import { BVError } from './errors.ts';
import { Host } from './host.ts';
import { encodeValue } from './items.ts';
import { Links } from './links.ts';
import type { PeerLink } from './peer_link.ts';
import { register } from './registration.ts';
import { CallTarget } from './target.ts';
import { Trust } from './trust.ts';
import type {
  BoneValue, BVErrorInfo, ConnectOptions, ContactInfo, Events, Handler, LinkInfo, ModuleOptions, PeerInfo, Sendable,
} from './types.ts';
import { hex } from './wire/bytes.ts';
import { ContactBook, OWN_NAME } from './wire/contacts.ts';
import { Introductions } from './wire/introductions.ts';
import { AccountKeys, fingerprintOf, randomBytes, realmOf, requireCrypto, usernameOf } from './wire/keys.ts';
import { Session } from './wire/session.ts';
import type { Event } from './wire/session_events.ts';

declare const BV_VERSION: string;

/** Put in by the bundler; the sources run unbuilt in tests. */
export const version = typeof BV_VERSION === 'string' ? BV_VERSION : '0';
/** Seconds that a peer which leaves gives to calls under way. */
const DRAIN = 2;
/** Bytes of the longest body that is taken, unless the page says otherwise. */
const DEFAULT_MAX_BODY = 8 * 2 ** 20;
/** The largest number in any option: a timer of more ms would go off at once. */
const MAX_OPTION = 2 ** 31 - 1;

/** What there is from `connect` to `disconnect`. */
interface Online {
  readonly keys: AccountKeys;
  readonly contacts: ContactBook;
  readonly session: Session;
  readonly client: DiscoveryClient;
  readonly trust: Trust;
  readonly links: Links;
}

export class Peer implements BoneValue {
  readonly version = version;
  readonly BVError = BVError;
  username = '';
  #id = '';
  #online: Online | null = null;
  /** Whether `connect` was called, and `disconnect` not since; a number for each time. */
  #turn = 0;
  #connected = false;
  /** Since `connect` was called: whether the tab was online, and whether it was said that the server is away. */
  #wasOnline = false;
  #offlineTold = false;
  #leaving: Promise<unknown> = Promise.resolve();
  readonly #listeners = new Map<string, Set<(...values: any[]) => void>>();
  readonly #host: Host;
  readonly #calls = new Calls((error) => this.#refused(error, error.peer!));

  constructor() {
    this.#host = new Host({ agent: `bonevalue.js/${version}` });
    builtinModules(this.#host, {
      links: () => this.#online?.links.describe() ?? [],
      removed: (blob, signature) => this.#removedElsewhere(blob, signature),
      stats: () => this.#stats(),
    });
  }

  // -- life ----------------------------------------------------------------------------------------------------------

  async connect(host: string, username: string, password: string, options: ConnectOptions = {}): Promise<void> {
    if (this.#connected) throw new TypeError('connected already: call disconnect() first');
    this.#connected = true;
    const turn = ++this.#turn;
    try {
      requireCrypto();
      if (!globalThis.RTCPeerConnection) throw new BVError('config', 'there is no WebRTC here, or it is turned off');
      checkOptions(options);
      const { url, host: dialled } = addressOf(host);
      const realm = realmOf(options.realm ?? dialled);
      this.username = usernameOf(username);
      const keys = await AccountKeys.derive(password, realm, this.username);
      await this.#leaving; // links of another account may still be finishing their calls
      const refuse = new Set((options.refuse ?? []).map(fingerprintOf));
      if (turn !== this.#turn) throw new BVError('cancelled', 'disconnected before the login');
      await this.#run(turn, url, realm, keys, new ContactBook(keys, refuse), options);
    } catch (error) {
      if (turn === this.#turn) void this.#end();
      throw error;
    }
  }

  /** Log in; what comes later is told by events. */
  #run(
    turn: number,
    url: string,
    realm: string,
    keys: AccountKeys,
    contacts: ContactBook,
    options: ConnectOptions,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      const { visible = true, pool, rpc } = options;
      const session = new Session(this.username, realm, keys, contacts, { visible, agent: this.#host.settings.agent });
      const client = new DiscoveryClient(url, session, (event) => {
        if (turn !== this.#turn) return;
        if (event.type === 'wentOnline') resolve();
        this.#on(event);
      });
      this.#host.settings.maxBody = rpc?.maxBody ?? DEFAULT_MAX_BODY;
      this.#host.settings.heartbeat = (pool?.heartbeat ?? 5000) / 1000;
      this.#calls.defaultTimeout = (rpc?.timeout ?? 30_000) / 1000;
      const links = new Links({
        host: this.#host,
        introductions: new Introductions(keys, contacts, hex(randomBytes(16))),
        contacts,
        client,
        peers: session.peers,
        settings: options,
        report: (error, about) => this.#refused(error, about),
        onLink: (info) => this.#emit('link', info),
        onAdded: (link) => this.#passOn(link),
      });
      const trust = new Trust(keys, contacts, session, client);
      this.#online = { keys, contacts, session, client, trust, links };
      this.#calls.use(links.pool, session.peers);
      globalThis.addEventListener?.('pagehide', this.#leave);
      client.run().then(
        () => reject(new BVError('cancelled', 'disconnected before the login')),
        (error) => {
          reject(error);
          if (turn !== this.#turn) return;
          if (this.#wasOnline) this.#emit('disconnect', error);
          void this.#end();
        },
      );
    });
  }

  async disconnect(): Promise<void> {
    const client = this.#online?.client;
    const wasOnline = this.online;
    const left = this.#end();
    this.#leaving = Promise.allSettled([client?.close(), left]);
    await this.#leaving;
    if (wasOnline) this.#emit('disconnect');
  }

  /** The page is going away: whoever is linked should not have to find out by a silence. */
  readonly #leave = (): void => this.#online?.links.closeAll();

  /** Let go of everything; gives when the links have ended. */
  async #end(): Promise<void> {
    const links = this.#online?.links;
    this.#turn++;
    this.#connected = this.#wasOnline = this.#offlineTold = false;
    this.#online = null;
    this.#calls.use(null, new Map());
    globalThis.removeEventListener?.('pagehide', this.#leave);
    await links?.stop(DRAIN);
  }

  get online(): boolean {
    return this.#online?.session.state === 'online';
  }

  get fingerprint(): string {
    return this.#online?.keys.fingerprint ?? '';
  }

  getId(): string {
    return this.#id;
  }

  // -- events --------------------------------------------------------------------------------------------------------

  on<K extends keyof Events>(event: K, listener: Events[K]): void {
    if (typeof listener !== 'function') throw new TypeError('a listener is a function');
    if (!EVENTS.has(event)) throw new TypeError(`there is no event "${event}"`);
    const listeners = this.#listeners.get(event);
    if (listeners) listeners.add(listener);
    else this.#listeners.set(event, new Set([listener]));
  }

  off<K extends keyof Events>(event: K, listener: Events[K]): void {
    this.#listeners.get(event)?.delete(listener);
  }

  #emit<K extends keyof Events>(event: K, ...values: Parameters<Events[K]>): void {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(...values);
      } catch (error) {
        reportError(error);
      }
    }
  }

  #on(event: Event): void {
    const links = this.#online?.links;
    if (!links) return;
    switch (event.type) {
      case 'wentOnline':
        this.#id = event.peerId;
        this.#wasOnline = true;
        this.#offlineTold = false;
        links.wentOnline(event.peerId);
        return this.#emit('connect');
      case 'wentOffline':
        links.wentOffline();
        if (event.retryIn !== null) this.#emit('disconnect'); // else it is told with the error that ended it
        return;
      case 'attemptFailed':
        return void this.#attemptFailed(event.error);
      case 'peerConnected':
        links.peerCame(event.id);
        return this.#emit('peerconnect', { name: event.name, id: event.id });
      case 'peerReturned':
        return links.peerReturned(event.id);
      case 'peerDisconnected':
        links.peerLeft(event.id);
        return this.#emit('peerdisconnect', event.id);
      case 'userAdded':
        return this.#emit('newuser', event.name);
      case 'userRemoved':
        // Without proof it is only the server's word, and links stay.
        if (event.proven && event.key) {
          links.cut(event.key, event.name);
          for (const link of links.pool.links()) this.#passOn(link);
        }
        return this.#emit('userremove', event.name);
      case 'keyChanged':
        return links.keyChanged(event.name, event.oldKey);
      case 'contactRefused':
        return this.#refused(event.error, event.name);
      case 'noticeReceived':
        return this.#emit('notice', new BVError(event.code, event.message));
      case 'iceServersChanged':
        return links.handedOut(event.servers, event.lifetimes);
      case 'requestReceived':
        return links.requested(event.request);
      case 'responseReceived':
        return links.responded(event.response);
      case 'candidateReceived':
        return links.candidate(event.candidate);
    }
  }

  async #attemptFailed(error: BVErrorInfo): Promise<void> {
    // One line when it begins, and not one a try; none where trying again is of no use.
    if (this.#offlineTold) return;
    this.#offlineTold = true;
    const refusal = await this.#online?.client.refusal;
    if (!refusal && this.#offlineTold) console.warn(`BoneValue: ${error.message}; trying again`);
  }

  #refused(error: BVErrorInfo, about: string): void {
    console.warn(`BoneValue: ${about}: ${error.code}: ${error.message}`);
    this.#emit('notice', error);
  }

  // -- whom to call, and what to serve -------------------------------------------------------------------------------

  get(query: string): CallTarget;
  get(
    module: string,
    request: Sendable,
    keepAlive?: boolean,
    callback?: ((response: any) => void) | null,
    onError?: (error: BVErrorInfo) => void,
  ): void;
  get(query: string, ...message: [request?: Sendable, ...rest: any[]]): CallTarget | void {
    if (message.length) return this.get('*').message(query, ...message);
    return new CallTarget(this.#calls, query);
  }

  module(name: string, handler: Handler | null, options?: ModuleOptions): void {
    if (name.startsWith('bv.')) throw new TypeError('names that begin with bv. are kept for the platform');
    this.#host.serve(name, handler, options);
  }

  peers(): PeerInfo[] {
    return this.#calls.resolve('*');
  }

  links(): LinkInfo[] {
    return this.#online?.links.info() ?? [];
  }

  // -- accounts and trust --------------------------------------------------------------------------------------------

  contacts(): ContactInfo[] {
    return this.#online?.trust.contacts() ?? [];
  }

  async requestToken(alias: string, callback?: (data: { token: string }) => void): Promise<{ token: string }> {
    const data = { token: await this.#trust().requestToken(alias) };
    callback?.(data);
    return data;
  }

  async claimToken(alias: string, token: string): Promise<ContactInfo> {
    return this.#trust().claimToken(alias, token);
  }

  async removeUser(alias: string): Promise<void> {
    await this.#trust().removeUser(alias);
  }

  async changePassword(password: string): Promise<void> {
    await this.#trust().changePassword(password);
  }

  async register(host: string, username: string, password: string, options: { realm?: string } = {}): Promise<void> {
    requireCrypto();
    const { url, host: dialled } = addressOf(host);
    await register(url, usernameOf(username), password, realmOf(options.realm ?? dialled));
  }

  create(): BoneValue {
    return new Peer();
  }

  #trust(): Trust {
    if (!this.#online) throw new BVError('unavailable', 'not connected: call connect() first');
    return this.#online.trust;
  }

  // -- for the platform's own modules --------------------------------------------------------------------------------

  /** Another peer of this account knows of a removal; the server may have kept it from us. */
  async #removedElsewhere(blob: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>): Promise<void> {
    const key = await this.#online?.client.removed(null, { blob, signatures: [signature] });
    if (key) this.#online?.links.cut(key, 'a former contact');
  }

  /** Let another peer of this account know which trust has ended: the server may keep it from that one. */
  #passOn(link: PeerLink): void {
    const removals = this.#online?.contacts.removals() ?? [];
    if (!removals.length || !link.usable || link.remote.name !== OWN_NAME) return;
    const request = removalRequest(removals.slice(-MAX_REMOVALS));
    this.#calls.callPeer(link.remote, 'bv.removals', encodeValue(request), { keepAlive: false }).catch(() => {});
  }

  #stats(): { counters: unknown; gauges: Record<string, number> } {
    const links = this.#online?.links.pool.links() ?? [];
    return {
      counters: { ...this.#host.counters },
      gauges: {
        online: Number(this.online),
        links: links.length,
        calls: links.reduce((sum, link) => sum + link.active, 0),
        send_buffer_bytes: links.reduce((sum, link) => sum + link.sendBuffer, 0),
      },
    };
  }
}

/** Raise TypeError for a number that makes no sense, before it makes none somewhere deep. */
function checkOptions({ pool, rpc }: ConnectOptions): void {
  for (const [key, value] of Object.entries({ ...pool, ...rpc })) {
    if (value !== undefined && !(typeof value === 'number' && value > 0 && value <= MAX_OPTION)) {
      throw new TypeError(`${key} is a number from 1 to ${MAX_OPTION}`);
    }
  }
}

const EVENTS: ReadonlySet<string> = new Set<keyof Events>([
  'connect', 'disconnect', 'peerconnect', 'peerdisconnect', 'newuser', 'userremove', 'notice', 'link',
]);
