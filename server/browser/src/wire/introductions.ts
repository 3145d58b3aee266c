/**
 * How two peers make sure of each other over a server that neither believes (docs/protocol-identity.md, "Connections").
 *
 * Three steps. The caller signs an *offer*, the callee an *answer*; each names both keys, both peer ids and the
 * session description, so neither can be delivered to somebody else, mixed with another, or changed. These two alone do
 * not stop a third account, trusted by both, that passes one's session description off as its own. So each side sends,
 * first thing inside the encrypted channel, a signature over its role and both hashes, the *confirm*. The third account
 * can sign one, but is not in the channel to send it; whoever is in the channel signed another offer or answer.
 *
 * Checks are made in this order, and only what passes all of them is remembered or handed to the browser: form, a
 * contact's key, signature, keys, peer ids, instance, clock, replay, what is known of the peer id, the session
 * description. While a signature is verified other things happen; so trust is looked at again behind it, and from
 * there on all is done in one step.
 */

import { BVError } from '../errors.ts';
import {
  CLOCK_WINDOW,
  checkClock,
  decode,
  digest,
  encode,
  open,
  sign,
  type Answer,
  type Confirm,
  type Offer,
} from './blobs.ts';
import { hex, type Bytes } from './bytes.ts';
import { dropOldest } from './collections.ts';
import { mismatch } from './evidence.ts';
import { verify, type SigningKey } from './keys.ts';

/** How long a session is remembered, in ms: an offer passes the clock check for no longer. */
const MEMORY = 2 * CLOCK_WINDOW;
/** Most sessions remembered, in all and of one key; a full memory refuses. */
const MAX_SESSIONS = 65_536;
const MAX_SESSIONS_PER_KEY = 4_096;
/** Seconds after which to ask a full memory again. */
const FULL = 10;
/** Most peer ids whose key and instance are remembered; the one not heard of for longest goes first. */
const MAX_PEERS = 16_384;

/** What must be known of contacts here; a ContactBook is one. */
export interface KnownKeys {
  /** The key of a verified contact, one's own for `Us`. */
  keyOf(name: string): string | undefined;
  /** The alias of a verified contact's key, `Us` for one's own. */
  nameOf(key: string): string | undefined;
}

/** An offer that we made. It takes one answer: forget it with the first that verifies. */
export interface OutgoingOffer {
  session: string;
  blob: Bytes;
  signature: Bytes;
  offerHash: string;
  /** Alias and key of whom we call. */
  name: string;
  toKey: string;
  fromPeer: string;
  toPeer: string;
}

/** An offer that was verified; `sdp` may go to the browser. */
export interface IncomingOffer {
  session: string;
  offerHash: string;
  /** Alias and key of who calls. */
  name: string;
  key: string;
  fromPeer: string;
  toPeer: string;
  fromInstance: string;
  sdp: string;
}

/** What makes a channel authenticated: our `confirm`, and the check of theirs. */
export interface Proof {
  /** Alias and key of the other side; certain only once {@link accepts} said yes. */
  name: string;
  key: string;
  /** Our signature, to send as the first thing in the channel. */
  mine: Bytes;
  /**
   * Whether this, the first thing that came through the channel, is the other side's signature.
   *
   * Also no if trust ended, or the alias changed, since the offer.
   */
  accepts(signature: Bytes): Promise<boolean>;
}

/**
 * Whether a session description is of the one form that we use: data only, bound to one certificate by SHA-256.
 *
 * Only printable ASCII in lines, so that every parser sees the same lines in it.
 *
 * @throws BVError `protocol_error`: it is not.
 */
export function checkSdp(sdp: string): void {
  const text = '\n' + sdp.replaceAll('\r\n', '\n');
  // Parsers differ in what they make of spaces and capitals: what looks like one of these lines must be one.
  const loose = text.replaceAll(' ', '').toLowerCase();
  const count = (where: string, line: string) => where.split('\n' + line).length - 1;
  const prints = [...text.matchAll(/^a=fingerprint:sha-(256|384|512) ([\dA-Fa-f]{2}(?::[\dA-Fa-f]{2})*)$/gm)];
  if (
    !/^(?:[ -~]*\r?\n)+$/.test(sdp) ||
    count(loose, 'm=') !== 1 ||
    count(text, 'm=application ') !== 1 ||
    count(loose, 'a=fingerprint') !== prints.length ||
    prints.some(([, bits, digits]) => digits!.length !== (+bits! / 8) * 3 - 1) ||
    prints.filter(([, bits]) => bits === '256').length !== 1
  ) {
    throw new BVError('protocol_error', 'not a session description of one data section with one SHA-256 fingerprint');
  }
}

/** The session that a message says it is of, to find its place or to refuse it; nothing is verified. */
export function sessionOf(message: { offer?: Bytes; answer?: Bytes; session?: Bytes }): string | null {
  try {
    if (message.offer) return decode(message.offer, 'offer').session;
    if (message.answer) return decode(message.answer, 'answer').session;
  } catch {
    return null;
  }
  return message.session?.length === 16 ? hex(message.session) : null;
}

const checkOwn = (sdp: string): void => {
  try {
    checkSdp(sdp);
  } catch (error) {
    throw new TypeError((error as BVError).message);
  }
};

/** The signing side of making connections; one object a peer. */
export class Introductions {
  readonly #keys: SigningKey;
  readonly #contacts: KnownKeys;
  readonly #instance: string;
  /** Our peer id, as soon as the server gave one. */
  peerId = '';
  /** Until when each is remembered, the oldest first; and how many of each key. */
  readonly #sessions = new Map<string, number>();
  readonly #sessionsOf = new Map<string, number>();
  /** Key and instance of each peer id, the one not heard of for longest first. */
  readonly #peers = new Map<string, { key: string; instance: string }>();

  /**
   * @param keys one's own.
   * @param contacts who else may be talked to.
   * @param instance 16 random bytes, new in each page.
   */
  constructor(keys: SigningKey, contacts: KnownKeys, instance: string) {
    this.#keys = keys;
    this.#contacts = contacts;
    this.#instance = instance;
  }

  // -- calling -------------------------------------------------------------------------------------------------------

  /**
   * Sign an offer.
   *
   * @param session 16 random bytes.
   * @param toPeer the peer id to call.
   * @param name the alias that it belongs to, or `Us`.
   * @param sdp our session description, gathered.
   * @param nowMs the time, in ms since 1970.
   * @throws BVError `not_trusted`: the alias is no verified contact; `identity_mismatch`: the peer id is known to be of
   * another account.
   */
  async makeOffer(session: string, toPeer: string, name: string, sdp: string, nowMs: number): Promise<OutgoingOffer> {
    const toKey = this.#contacts.keyOf(name);
    if (!toKey) throw new BVError('not_trusted', `${name} is not a verified contact`);
    if ((this.#peers.get(toPeer)?.key ?? toKey) !== toKey) {
      throw mismatch(`the server says that peer ${toPeer} is ${name}, and it is not`);
    }
    checkOwn(sdp);
    const sent = { session, fromPeer: this.peerId, toPeer, toKey };
    const offer: Offer = { kind: 'offer', ...sent, issued: nowMs, ...this.#from(), sdp };
    const { blob, signatures } = await sign(offer, this.#keys);
    return { ...sent, name, blob, signature: signatures[0]!, offerHash: await digest(blob) };
  }

  /**
   * Check the answer to an offer of ours.
   *
   * @returns the session description for the browser, and the proof to exchange in the channel.
   * @throws BVError `identity_mismatch`: it is not the callee's answer to this offer; `not_trusted`: trust with the
   * callee ended meanwhile; `clock_skew`: the clocks differ by more than five minutes; `protocol_error`: malformed.
   */
  async receiveAnswer(
    outgoing: OutgoingOffer,
    fromPeer: string,
    blob: Bytes,
    signature: Bytes,
    nowMs: number,
  ): Promise<{ sdp: string; proof: Proof }> {
    const { name, toKey: key, offerHash } = outgoing;
    this.#checkTrust(name, key);
    const answer = await open('answer', { blob, signatures: [signature] }, key);
    const proof = await this.#proof('caller', name, key, offerHash, blob);
    this.#checkTrust(name, key);
    if (
      answer.session !== outgoing.session ||
      answer.offerHash !== offerHash ||
      answer.fromPeer !== fromPeer ||
      fromPeer !== outgoing.toPeer ||
      answer.toPeer !== outgoing.fromPeer ||
      !this.#isToUs(answer)
    ) {
      throw mismatch(`the answer of ${name} is not to this offer`);
    }
    checkClock(answer.issued, nowMs, `the answer of ${name}`);
    this.#checkPeer(answer);
    checkSdp(answer.sdp);
    this.#rememberPeer(answer);
    return { sdp: answer.sdp, proof };
  }

  // -- being called --------------------------------------------------------------------------------------------------

  /**
   * Check an offer.
   *
   * @param fromPeer the peer id that the server says it is from.
   * @param presenceName the alias that the server gave for that id; null for a peer that it never showed.
   * @throws BVError `not_trusted`: the key that it names is no verified contact's; `identity_mismatch`: it is not that
   * contact's offer to this peer, or was seen before; `clock_skew`: the clocks differ by more than five minutes;
   * `busy`: too many offers in ten minutes to remember them; `protocol_error`: malformed.
   */
  async receiveOffer(
    fromPeer: string,
    presenceName: string | null,
    blob: Bytes,
    signature: Bytes,
    nowMs: number,
  ): Promise<IncomingOffer> {
    const key = decode(blob, 'offer').fromKey;
    const name = this.#contacts.nameOf(key);
    if (!name) throw new BVError('not_trusted', `peer ${fromPeer} is not of a verified contact`);
    const offer = await open('offer', { blob, signatures: [signature] }, key);
    const offerHash = await digest(blob);
    this.#checkTrust(name, key);
    if ((presenceName ?? name) !== name) {
      throw mismatch(`the server says that peer ${fromPeer} is ${presenceName}, and it is ${name}`);
    }
    if (offer.toPeer !== this.peerId || offer.fromPeer !== fromPeer || !this.#isToUs(offer)) {
      throw mismatch(`the offer of ${name} is from or to another peer`);
    }
    checkClock(offer.issued, nowMs, `the offer of ${name}`);
    const { session, toPeer, fromInstance, sdp } = offer;
    this.#checkSession(key, session, nowMs);
    this.#checkPeer(offer);
    checkSdp(sdp);
    this.#sessions.set(key + session, nowMs + MEMORY);
    this.#sessionsOf.set(key, (this.#sessionsOf.get(key) ?? 0) + 1);
    this.#rememberPeer(offer);
    return { session, offerHash, name, key, fromPeer, toPeer, fromInstance, sdp };
  }

  /**
   * Sign the answer to a verified offer.
   *
   * @returns the answer, its signature, and the proof to exchange in the channel.
   * @throws BVError `not_trusted`: trust with the caller ended meanwhile.
   */
  async makeAnswer(
    { session, offerHash, name, key, fromPeer, toPeer }: IncomingOffer,
    sdp: string,
    nowMs: number,
  ): Promise<{ blob: Bytes; signature: Bytes; proof: Proof }> {
    this.#checkTrust(name, key);
    checkOwn(sdp);
    const sent = { session, offerHash, toKey: key, fromPeer: toPeer, toPeer: fromPeer };
    const answer: Answer = { kind: 'answer', ...sent, issued: nowMs, ...this.#from(), sdp };
    const { blob, signatures } = await sign(answer, this.#keys);
    return { blob, signature: signatures[0]!, proof: await this.#proof('callee', name, key, offerHash, blob) };
  }

  // -- parts ---------------------------------------------------------------------------------------------------------

  #from() {
    return { fromKey: this.#keys.key, fromInstance: this.#instance };
  }

  async #proof(role: Confirm['role'], name: string, key: string, offerHash: string, answer: Bytes): Promise<Proof> {
    const hashes = { kind: 'confirm', offerHash, answerHash: await digest(answer) } as const;
    const theirs = encode({ ...hashes, role: role === 'caller' ? 'callee' : 'caller' });
    const { signatures } = await sign({ ...hashes, role }, this.#keys);
    const isTrusted = () => this.#contacts.nameOf(key) === name;
    return {
      name,
      key,
      mine: signatures[0]!,
      accepts: async (signature) => isTrusted() && (await verify(key, signature, theirs)) && isTrusted(),
    };
  }

  #isToUs({ toKey, fromInstance }: Offer | Answer): boolean {
    return toKey === this.#keys.key && fromInstance !== this.#instance;
  }

  #checkTrust(name: string, key: string): void {
    if (this.#contacts.nameOf(key) !== name) {
      throw new BVError('not_trusted', `${name} is not a verified contact`);
    }
  }

  #checkSession(key: string, session: string, nowMs: number): void {
    for (const [old, until] of this.#sessions) {
      if (until >= nowMs) break;
      this.#sessions.delete(old);
      const whose = old.slice(0, 64);
      const left = this.#sessionsOf.get(whose)! - 1;
      if (left) this.#sessionsOf.set(whose, left);
      else this.#sessionsOf.delete(whose);
    }
    if (this.#sessions.has(key + session)) throw mismatch('the offer was seen before');
    if (this.#sessions.size >= MAX_SESSIONS || (this.#sessionsOf.get(key) ?? 0) >= MAX_SESSIONS_PER_KEY) {
      throw new BVError('busy', 'too many offers in ten minutes', { retryAfter: FULL });
    }
  }

  #checkPeer({ fromPeer, fromKey, fromInstance }: Offer | Answer): void {
    const known = this.#peers.get(fromPeer);
    if (known && (known.key !== fromKey || known.instance !== fromInstance)) {
      throw mismatch(`peer ${fromPeer} was another one before`);
    }
  }

  #rememberPeer({ fromPeer, fromKey: key, fromInstance: instance }: Offer | Answer): void {
    this.#peers.delete(fromPeer);
    this.#peers.set(fromPeer, { key, instance });
    dropOldest(this.#peers, MAX_PEERS);
  }
}
