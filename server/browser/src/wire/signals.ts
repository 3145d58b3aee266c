/**
 * The JSON messages between a peer and the discovery server (docs/protocol-discovery.md).
 *
 * One type a message, and for those that the server sends one check of their data: {@link decode} takes anything from
 * outside and gives a {@link Signal} or throws a `BVError` with the code `bad_message` or `unknown_type`.
 */

import { BVError } from '../errors.ts';
import type { SignedBlob } from './blobs.ts';
import { fromBase64url, toBase64url, type Bytes } from './bytes.ts';
import type { Contact } from './evidence.ts';

/** Longest message in bytes, in either direction. */
export const MAX_MESSAGE = 65_536;
/** Deepest nesting of a message. */
const MAX_DEPTH = 8;
/** Most keys of one object. */
const MAX_KEYS = 64;

// -- what is said -----------------------------------------------------------------------------------------------------

/** Nothing but that it is so. */
export type Nothing = Record<never, never>;

/** One online peer: the alias of its account, and its id. */
export interface PeerEntry {
  name: string;
  id: string;
}

/** First message on every socket. `time` in ms since 1970, `tokenLifetime` in seconds, a year at most. */
export interface Hello {
  version: number;
  realm: string;
  challenge: Bytes;
  time: number;
  registration: 'open' | 'closed';
  tokenLifetime: number;
}

/** An entry of RTCIceServer; `expires` in ms since 1970 by the server's clock, absent for never. */
export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
  expires?: number;
}

/** A request failed, or something to tell a person. `retryAfter` in seconds. */
export interface Failure {
  code: string;
  message: string;
  retryAfter?: number;
}

/** The server closes on purpose; `reconnectAfter` in seconds, absent for do not. */
export interface Goodbye {
  reason: string;
  reconnectAfter?: number;
}

interface Relayed {
  to: string;
  /** Set by the server. */
  from?: string;
}

/** A connection request: a signed `offer` blob. */
export interface PeerRequest extends Relayed {
  offer: Bytes;
  signature: Bytes;
}

/** The answer to a connection request: a signed `answer` blob, or the `session` and why not. */
export interface PeerResponse extends Relayed {
  answer?: Bytes;
  signature?: Bytes;
  session?: Bytes;
  error?: Failure;
}

/** One more ICE candidate of a pending session. */
export interface PeerCandidate extends Relayed {
  session: Bytes;
  candidate: string;
}

/** What is passed on from peer to peer. */
interface RelayedMessages {
  peerRequest: PeerRequest;
  peerResponse: PeerResponse;
  peerCandidate: PeerCandidate;
}

/** What the server says: type to data. */
export interface ServerMessages extends RelayedMessages {
  hello: Hello;
  registered: { username: string };
  setPeerId: { peerId: string; ticket: string };
  iceServers: IceServer[];
  userList: string[];
  contacts: { contacts: Contact[]; more: boolean };
  peerList: { peers: PeerEntry[]; more: boolean };
  userAdd: { name: string; contact: Contact };
  userRemove: { name: string; remove?: SignedBlob };
  peerConnect: PeerEntry;
  peerDisconnect: string;
  error: Failure;
  goodbye: Goodbye;
  tokenResponse: { expires: number };
  tokenClaimed: { name: string };
  done: Nothing;
}

/** What we ask the server for and it replies to: type to data. */
export interface Requests extends RelayedMessages {
  requestIceServers: Nothing;
  requestToken: { name: string; invite: Bytes; signature: Bytes };
  claimToken: { name: string; redeem: Bytes; signatures: Bytes[]; pin: Bytes; signature: Bytes };
  updateContact: { pin: Bytes; signature: Bytes };
  removeUser: { name: string; remove: Bytes; signature: Bytes };
  stagePins: { pins: SignedBlob[] };
  changePassword: { login: string; newLogin: string; rotate: Bytes; signatures: Bytes[]; pins: SignedBlob[] };
}

/** What the server replies to these; to all others, `done`. */
export interface Replies {
  requestIceServers: IceServer[];
  requestToken: { expires: number };
  claimToken: { name: string };
}

/** What we say: type to data. */
export interface ClientMessages extends Requests {
  ping: Nothing;
  register: { username: string; login: string; publicKey: Bytes; blob: Bytes; signature: Bytes };
  login: {
    username: string;
    blob: Bytes;
    signature: Bytes;
    resume?: { peerId: string; ticket: string } | undefined;
    visible: boolean;
    agent: string;
  };
}

/** A message of the server, checked. */
export type Signal = {
  [T in keyof ServerMessages]: { type: T; data: ServerMessages[T]; ref?: string };
}[keyof ServerMessages];

// -- checks -----------------------------------------------------------------------------------------------------------

/** Gives the value that stands for what came, or throws. What is absent is undefined. */
type Check<T> = (value: unknown) => T;

function need(holds: boolean, what: string): asserts holds {
  if (!holds) throw new BVError('bad_message', what);
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const text =
  (most = Infinity): Check<string> =>
  (value) => {
    need(typeof value === 'string' && value.length <= most, 'not a text, or too long');
    return value;
  };

const number: Check<number> = (value) => {
  need(typeof value === 'number', 'not a number');
  return value;
};

const integer =
  (most = Infinity): Check<number> =>
  (value) => {
    const given = value as number;
    need(Number.isInteger(given) && (most === Infinity || (given >= 0 && given <= most)), 'not such a number');
    return given;
  };

const bytes: Check<Bytes> = (value) => {
  const found = typeof value === 'string' && fromBase64url(value);
  need(!!found, 'not base64url');
  return found;
};

const peerId: Check<string> = (value) => {
  need(typeof value === 'string' && /^\d{1,15}$/.test(value), 'not a peer id');
  return value;
};

const list =
  <T>(item: Check<T>, most = Infinity, least = 0): Check<T[]> =>
  (value) => {
    need(Array.isArray(value) && value.length <= most && value.length >= least, 'not a list, or too long');
    return value.map(item);
  };

/** May be absent, or null. */
const optional =
  <T>(check: Check<T>): Check<T | undefined> =>
  (value) =>
    value === undefined || value === null ? undefined : check(value);

/** May be absent, for a default. */
const defaultTo =
  <T>(check: Check<T>, value: T): Check<T> =>
  (given) =>
    given === undefined ? value : check(given);

const flag = defaultTo<boolean>((value) => {
  need(typeof value === 'boolean', 'not true or false');
  return value;
}, false);

/** An object with these fields; others are ignored. */
const object =
  <T extends object>(fields: { [K in keyof T]-?: Check<T[K] | undefined> }): Check<T> =>
  (value) => {
    need(isObject(value), 'not an object');
    const result: Record<string, unknown> = {};
    for (const [name, check] of Object.entries<Check<unknown>>(fields)) {
      const item = check(value[name]);
      if (item !== undefined) result[name] = item;
    }
    return result as T;
  };

const name = text(64);
const moment = integer(2 ** 53);
const none: Bytes = new Uint8Array(0);
const relayed = { to: peerId, from: optional(peerId) };
const entry = object<PeerEntry>({ name, id: peerId });
const signed = object<SignedBlob>({ blob: bytes, signatures: list(bytes, 2, 1) });
const contact = object<Contact>({ name, publicKey: bytes, certificates: list(signed, 64) });
const failure = object<Failure>({ code: text(), message: defaultTo(text(), ''), retryAfter: optional(number) });

/** The data of every message that the server may send. */
const CHECKS: { [T in keyof ServerMessages]: Check<ServerMessages[T]> } = {
  hello: object<Hello>({
    version: integer(),
    realm: text(),
    challenge: bytes,
    time: moment,
    registration: (value) => {
      need(value === 'open' || value === 'closed', 'not open or closed');
      return value;
    },
    tokenLifetime: integer(31_536_000),
  }),
  registered: object({ username: text() }),
  setPeerId: object({ peerId, ticket: text() }),
  iceServers: list(
    object<IceServer>({
      urls: list(text(512), 16),
      username: optional(text(512)),
      credential: optional(text(4096)),
      expires: optional(moment),
    }),
    32,
  ),
  userList: list(text()),
  contacts: object({ contacts: list(contact), more: flag }),
  peerList: object({ peers: list(entry), more: flag }),
  userAdd: object({ name, contact }),
  userRemove: object<ServerMessages['userRemove']>({ name, remove: optional(signed) }),
  peerConnect: entry,
  peerDisconnect: peerId,
  error: failure,
  goodbye: object<Goodbye>({ reason: text(), reconnectAfter: optional(number) }),
  tokenResponse: object({ expires: integer() }),
  tokenClaimed: object({ name }),
  done: object<Nothing>({}),
  peerRequest: object<PeerRequest>({ ...relayed, offer: defaultTo(bytes, none), signature: defaultTo(bytes, none) }),
  peerResponse: object<PeerResponse>({
    ...relayed,
    answer: optional(bytes),
    signature: optional(bytes),
    session: optional(bytes),
    error: optional(failure),
  }),
  peerCandidate: object<PeerCandidate>({
    ...relayed,
    session: defaultTo(bytes, none),
    candidate: defaultTo(text(1024), ''),
  }),
};

/** The data of those messages that are one bare value: nothing stands for them. */
const BARE = /^(iceServers|userList|peerDisconnect)$/;

const envelope = object<{ type: string; data: unknown; ref: string | undefined }>({
  type: text(),
  data: (value) => value,
  ref: optional(text(64)),
});

/** Refuse what is nested too deep, and text with half a surrogate pair; gives the number of all keys. */
function countKeys(value: unknown, left: number): number {
  need(left >= 0, 'nested too deep');
  if (typeof value === 'string') need(value.isWellFormed(), 'half a character');
  if (typeof value !== 'object' || value === null) return 0;
  const keys = Array.isArray(value) ? 0 : Object.keys(value).length;
  need(keys <= MAX_KEYS, 'too many keys');
  return Object.values(value).reduce((sum: number, item) => sum + countKeys(item, left - 1), keys);
}

function parse(message: string): unknown {
  need(message.length <= MAX_MESSAGE, 'too long');
  let value: unknown;
  try {
    value = JSON.parse(message);
  } catch {
    need(false, 'not JSON');
  }
  // Of a key that stands twice JSON.parse tells nothing, but outside of strings there is one colon for each key.
  const colons = message.replace(/"(?:[^"\\]|\\.)*"/g, '').split(':').length - 1;
  need(countKeys(value, MAX_DEPTH) === colons, 'a key stands twice');
  return value;
}

/** The text frame of a message; `ref` is given if an answer is wanted. */
export function encode<T extends keyof ClientMessages>(type: T, data: ClientMessages[T], ref?: string): string {
  return JSON.stringify({ type, data, ref }, (_, value) =>
    value instanceof Uint8Array ? toBase64url(value) : value,
  );
}

/**
 * Check and take apart one text frame of the server.
 *
 * @throws BVError `bad_message`: not JSON, too large or deep, a key twice, or not of the form of its type;
 *   `unknown_type`: well-formed, but of a type that a server does not send.
 */
export function decode(message: string): Signal {
  const { type, data, ref } = envelope(parse(message));
  if (!Object.hasOwn(CHECKS, type)) throw new BVError('unknown_type', `unknown type ${type.slice(0, 32)}`);
  try {
    const check: Check<unknown> = CHECKS[type as keyof ServerMessages];
    return { type, data: check(BARE.test(type) ? data : (data ?? {})), ...(ref !== undefined && { ref }) } as Signal;
  } catch (error) {
    throw new BVError('bad_message', `${type}: ${(error as Error).message}`);
  }
}
