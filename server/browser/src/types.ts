/**
 * The public types of the library: what `$BV` is, and what its parts give and take.
 *
 * Durations are milliseconds, as everywhere in a browser; only `retryAfter` of an error is in seconds, as in HTTP.
 */

/** What JSON can say. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** What travels between peers: any JSON value, or bytes. */
export type Value = Json | Uint8Array;

/** What may be given where a value is asked for: bytes in any of their forms. A `Blob` is read when it is sent. */
export type Sendable = unknown;

/** A stream of values to send. A `Blob` is cut into pieces. */
export type Items = AsyncIterable<Sendable> | Iterable<Sendable> | ReadableStream | Blob;

/** A peer that is online: the alias that one has for its account (`Us` for one's own), and its peer id. */
export interface PeerInfo {
  readonly name: string;
  readonly id: string;
}

/** An account that one trusts. */
export interface ContactInfo {
  readonly name: string;
  /** The fingerprint of its key, to compare by another way; empty while `problem` says why it is not used. */
  readonly fingerprint: string;
  /** The code of the error that keeps it from being used, like `contact_conflict`; null if all is well. */
  readonly problem: string | null;
}

/** Why something failed. `code` is one of docs/errors.md, the same in every language. */
export interface BVErrorInfo extends Error {
  readonly code: string;
  /** Seconds after which trying again makes sense, if the other side said so. */
  readonly retryAfter?: number;
  /** The name of the call in the log of the peer that served it. */
  readonly callId?: string;
  /** The peer id that it concerns. */
  readonly peer?: string;
}

/** How a call is made. */
export interface CallOptions {
  /** Milliseconds until it fails with `deadline`; setting up a link counts. Default 30 000. */
  timeout?: number;
  /** Ends the call; it then fails with `cancelled`, and the handler is told. */
  signal?: AbortSignal;
  /** Hold the link for a while after the call. Default true. */
  keepAlive?: boolean;
  /** Sent after the request. */
  items?: Items;
}

/** How one peer of a target is called. */
export interface UnaryOptions extends CallOptions {
  /** To run it twice does no more than to run it once: if its link is lost it is made again, once, within its time. */
  idempotent?: boolean;
}

/** How all peers of a target are called. */
export interface CallAllOptions extends Omit<UnaryOptions, 'items'> {
  /** How many peers are asked at the same time. Default: all. */
  concurrency?: number;
  /** End after so many good answers, and cancel the other calls. Default: all. */
  first?: number;
}

/** What one of many peers answered: `error` is null, or `response` is undefined. */
export interface Result {
  readonly peer: PeerInfo;
  readonly response: Value | undefined;
  readonly error: BVErrorInfo | null;
}

/** The way to a peer. */
export interface PathInfo {
  /** Kinds of the two candidates in use: host, srflx, prflx or relay. */
  readonly local: string;
  readonly remote: string;
  /** `IPv4`, `IPv6`, or empty where the browser does not tell. */
  readonly family: string;
  /** The transport to our TURN server (udp, tcp, tls) if the local candidate is `relay`. */
  readonly relay: string;
}

/** What a ping found. */
export interface PingResult {
  readonly peer: PeerInfo;
  /** Milliseconds. */
  readonly roundTrip: number;
  readonly path: PathInfo | null;
}

/** A module that a peer serves, as it describes it. */
export interface ModuleInfo {
  readonly name: string;
  readonly doc: string;
  /** Whether it answers with a stream. */
  readonly stream: boolean;
  /** JSON Schemas; that of a streamed response is the item's. */
  readonly request: Json;
  readonly response: Json;
}

/** Everyone, an alias or one peer. Whom it means is looked up at each call. */
export interface Target {
  /** `*`, `Us`, an alias or a peer id. */
  readonly query: string;
  /** The peers that it means just now. */
  peers(): PeerInfo[];
  /**
   * Call a module of every peer of the target, and be called back with each response; errors go to `onError`, else to
   * the console.
   */
  message(
    module: string,
    request?: Sendable,
    keepAlive?: boolean,
    callback?: ((response: any) => void) | null,
    onError?: (error: BVErrorInfo) => void,
  ): void;
  /** Call a module of one peer of the target: one that is connected already, else any. */
  call(module: string, request?: Sendable, options?: UnaryOptions): Promise<any>;
  /** Call a module of every peer of the target; results come as they arrive. Nobody to ask gives none. */
  callAll(module: string, request?: Sendable, options?: CallAllOptions): AsyncIterableIterator<Result>;
  /** Call a module of one peer that answers with a stream. Leaving the loop cancels the call. */
  stream(module: string, request?: Sendable, options?: CallOptions): AsyncIterableIterator<any>;
  /** What one peer of the target serves to this account. */
  modules(options?: { timeout?: number }): Promise<ModuleInfo[]>;
  /** Measure the way to one peer of the target. */
  ping(options?: { timeout?: number }): Promise<PingResult>;
}

/** A call that a module serves. */
export interface Call {
  readonly request: any;
  /** Who calls: the alias comes from the verified link, never from the request. */
  readonly caller: PeerInfo & { readonly fingerprint: string };
  readonly callId: string;
  /** The moment (`Date.now()`) at which the caller gives up. */
  readonly deadline: number;
  /** Aborted when the caller gives up, is gone, or its time is over. */
  readonly signal: AbortSignal;
  /** What the caller sends after its request, or null. */
  readonly items: AsyncIterableIterator<any> | null;
  /** Answer. The first answer counts. */
  callback(response?: Sendable): void;
  /** Answer with an error. */
  fail(error: Error | string): void;
}

/**
 * Serves a module. It answers by `e.callback(...)`, by what it returns, by what the promise that it returns comes to,
 * or with a stream if that is an iterator (an async generator, say). What it throws is answered `handler_failed`.
 */
export type Handler = (e: Call) => unknown;

/** How a module is served. */
export interface ModuleOptions {
  /** Aliases that may call it. Default `["*"]`: everyone trusted. */
  allow?: string[];
  /** Calls at once; more wait. Default 64. */
  concurrency?: number;
  doc?: string;
  /** JSON Schemas, for those who look at what is served; they are not checked here. */
  request?: Json;
  response?: Json;
  stream?: boolean;
}

/** A link, or one that is being set up. */
export interface LinkInfo {
  readonly peer: PeerInfo;
  /** As in docs/operations.md, "The life of a link". */
  readonly state: string;
  /** Milliseconds in that state. */
  readonly since: number;
  /** Milliseconds; null before the first ping. */
  readonly roundTrip: number | null;
  /** Calls under way. */
  readonly calls: number;
  readonly dialled: boolean;
}

/** How to connect. */
export interface ConnectOptions {
  /** Only if the server's realm is not the host that one dials. */
  realm?: string;
  /** Whether others see this tab. Default true. */
  visible?: boolean;
  pool?: PoolOptions;
  ice?: { servers?: RTCIceServer[]; policy?: 'all' | 'relay' };
  rpc?: { timeout?: number; maxBody?: number };
  /** Fingerprints of keys never to talk to, whatever the server says. */
  refuse?: string[];
}

export interface PoolOptions {
  /** Links at once that this tab made. Default 64. */
  maxOutgoing?: number;
  /** Links at once that others made. Default 256. */
  maxIncoming?: number;
  connectTimeout?: number;
  idleTimeout?: number;
  heartbeat?: number;
}

export interface Events {
  /** The tab is logged in. */
  connect: () => void;
  /** The discovery server is lost; links stay, and the tab comes back by itself. With an error if it does not. */
  disconnect: (error?: BVErrorInfo) => void;
  peerconnect: (peer: PeerInfo) => void;
  peerdisconnect: (id: string) => void;
  newuser: (alias: string) => void;
  /** Trust with an account has ended. */
  userremove: (alias: string) => void;
  /** A notice for the account's people: a conflict of contacts, a token that somebody tried again. */
  notice: (error: BVErrorInfo) => void;
  /** A link has another state. */
  link: (link: LinkInfo) => void;
}

/** A tab as a peer. */
export interface BoneValue {
  /**
   * Log in and stay online. `host` is a host with or without port, or a ws:// or wss:// address; empty means the
   * page's own. The promise is kept at the first login, and broken if the server refuses it for good.
   */
  connect(host: string, username: string, password: string, options?: ConnectOptions): Promise<void>;
  /** Log off: drain all links and close. */
  disconnect(): Promise<void>;
  on<K extends keyof Events>(event: K, listener: Events[K]): void;
  off<K extends keyof Events>(event: K, listener: Events[K]): void;
  get(query: string): Target;
  /** The same as `get("*").message(...)`. */
  get(
    module: string,
    request: Sendable,
    keepAlive?: boolean,
    callback?: ((response: any) => void) | null,
    onError?: (error: BVErrorInfo) => void,
  ): void;
  /** Serve a module; null as the handler ends that. */
  module(name: string, handler: Handler | null, options?: ModuleOptions): void;
  /** One's own peer id; empty before the first login. */
  getId(): string;
  readonly online: boolean;
  /** One's own account, and the fingerprint of its key; empty before `connect`. */
  readonly username: string;
  readonly fingerprint: string;
  /** The peers that are online. */
  peers(): PeerInfo[];
  contacts(): ContactInfo[];
  links(): LinkInfo[];
  /** Make a token for somebody that one will call `alias`. */
  requestToken(alias: string, callback?: (data: { token: string }) => void): Promise<{ token: string }>;
  /** Use a token that somebody gave one; that account is called `alias` from now on. */
  claimToken(alias: string, token: string): Promise<ContactInfo>;
  /** End trust: links are cut on both sides. */
  removeUser(alias: string): Promise<void>;
  /** Make an account. The password is checked here: the server never sees it. */
  register(host: string, username: string, password: string, options?: { realm?: string }): Promise<void>;
  /**
   * Change the password, and with it the account's key; contacts follow by themselves. All sessions of the account end,
   * this one, too: connect again with the new password.
   */
  changePassword(password: string): Promise<void>;
  /** Another peer in the same page, apart from this one. */
  create(): BoneValue;
  /** The class of all errors: what a handler throws of it is answered with its code. */
  readonly BVError: new (code: string, message?: string, extra?: { retryAfter?: number }) => BVErrorInfo;
  readonly version: string;
}
