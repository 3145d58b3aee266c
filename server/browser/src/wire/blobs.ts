/**
 * Everything that is signed, to the byte (docs/protocol-identity.md, "Blobs").
 *
 * A blob is a sequence of fields, each behind its length in 4 bytes; the first is the domain string of its kind, so
 * that a signature over one kind never passes for another. Keys, hashes and ids are hexadecimal digits here.
 *
 * {@link open} is the way in for what came from outside: it verifies the raw bytes under keys that the caller knows,
 * and only then interprets them.
 */

import { BVError } from '../errors.ts';
import { concat, equalBytes, fromHex, fromUtf8, hex, utf8, type Bytes } from './bytes.ts';
import { aliasOf, publicKeyOk, realmOf, sha256, verify, type SigningKey } from './keys.ts';

/** Longest session description, in bytes. */
export const MAX_SDP = 16 * 1024;
/** How far two clocks may differ, in ms. */
export const CLOCK_WINDOW = 5 * 60 * 1000;

/** The account logs in on the socket whose greeting had this challenge. */
export interface LoginBlob {
  kind: 'login';
  realm: string;
  challenge: string;
  username: string;
  publicKey: string;
}

/** A new account proves that it holds its key, and binds its login secret to it. */
export interface RegisterBlob {
  kind: 'register';
  realm: string;
  challenge: string;
  username: string;
  publicKey: string;
  loginDigest: string;
}

/** Whoever proves to hold the token key shall be trusted under this alias. */
export interface Invite {
  kind: 'invite';
  inviterKey: string;
  tokenKey: string;
  alias: string;
  issued: number;
  expires: number;
}

/** The holder of the token key is the claimer; signed by both keys. */
export interface Redeem {
  kind: 'redeem';
  tokenKey: string;
  inviterKey: string;
  claimerKey: string;
  claimerUsername: string;
  issued: number;
}

/** The owner trusts this key under this alias. `issued` is when the trust was made, also in a pin made later. */
export interface Pin {
  kind: 'pin';
  ownerKey: string;
  contactKey: string;
  alias: string;
  issued: number;
}

/** Trust between the two ends; certificates issued until then are void. */
export interface Remove {
  kind: 'remove';
  removerKey: string;
  removedKey: string;
  issued: number;
}

/** The account of the old key goes on with the new one; signed by both. */
export interface Rotate {
  kind: 'rotate';
  oldKey: string;
  newKey: string;
  issued: number;
}

/** A connection request from one peer to one peer. */
export interface Offer {
  kind: 'offer';
  session: string;
  issued: number;
  fromKey: string;
  toKey: string;
  fromPeer: string;
  toPeer: string;
  fromInstance: string;
  sdp: string;
}

/** The answer to one offer. */
export interface Answer extends Omit<Offer, 'kind'> {
  kind: 'answer';
  offerHash: string;
}

/** Inside the channel: this side saw that offer and that answer. Both sides can make the bytes, so none travel. */
export interface Confirm {
  kind: 'confirm';
  role: 'caller' | 'callee';
  offerHash: string;
  answerHash: string;
}

export type Blob = LoginBlob | RegisterBlob | Invite | Redeem | Pin | Remove | Rotate | Offer | Answer | Confirm;
type Kind = Blob['kind'];
/** The blob of a kind. */
export type BlobOf<K extends Kind> = Extract<Blob, { kind: K }>;

/** A blob and its signatures, in the order of the signers. */
export interface SignedBlob {
  blob: Bytes;
  signatures: Bytes[];
}

/** The fields of each kind in their order, `name:codec`; a `signer` is a key that must have signed. */
const LAYOUTS: Record<Kind, string> = {
  login: 'realm:realm challenge:32 username:alias publicKey:signer',
  register: 'realm:realm challenge:32 username:alias publicKey:signer loginDigest:32',
  invite: 'inviterKey:signer tokenKey:key alias:alias issued:time expires:time',
  redeem: 'tokenKey:signer inviterKey:key claimerKey:signer claimerUsername:alias issued:time',
  pin: 'ownerKey:signer contactKey:key alias:alias issued:time',
  remove: 'removerKey:signer removedKey:key issued:time',
  rotate: 'oldKey:signer newKey:signer issued:time',
  offer: 'session:16 issued:time fromKey:signer toKey:key fromPeer:peer toPeer:peer fromInstance:16 sdp:sdp',
  answer:
    'session:16 offerHash:32 issued:time fromKey:signer toKey:key fromPeer:peer toPeer:peer fromInstance:16 sdp:sdp',
  confirm: 'role:role offerHash:32 answerHash:32',
};

const DOMAIN = 'bonevalue/1/';
const fieldsOf = (kind: string): string[][] => LAYOUTS[kind as Kind].split(' ').map((field) => field.split(':'));

// -- codecs: how one field stands in a blob --------------------------------------------------------------------------

const u64 = (value: number | bigint): Bytes => {
  const raw = new Uint8Array(8);
  new DataView(raw.buffer).setBigUint64(0, BigInt(value));
  return raw;
};

const pack = (codec: string, value: string | number): Bytes =>
  typeof value === 'number' ? u64(value) : /^(\d+|key|signer)$/.test(codec) ? fromHex(value) : utf8(value);

/** The value of a field, or null if it is none. */
function unpack(codec: string, raw: Bytes): string | number | null {
  if (+codec) return raw.length === +codec ? hex(raw) : null;
  if (codec === 'key' || codec === 'signer') return publicKeyOk(raw) ? hex(raw) : null;
  if (codec === 'time') {
    // Up to 2^53 - 1: what every language counts exactly, and 285 000 years.
    const value = raw.length === 8 ? Number('0x' + hex(raw)) : NaN;
    return Number.isSafeInteger(value) ? value : null;
  }
  const text = fromUtf8(raw);
  const fits =
    codec === 'sdp'
      ? raw.length <= MAX_SDP
      : codec === 'peer'
        ? /^\d{1,15}$/.test(text)
        : codec === 'role'
          ? /^calle[re]$/.test(text)
          : text === (codec === 'realm' ? realmOf(text) : aliasOf(text));
  return fits ? text : null;
}

// -- blobs -----------------------------------------------------------------------------------------------------------

const refuse = (why: string): BVError => new BVError('protocol_error', `signed blob: ${why}`);

/**
 * The fields of a blob, the domain string first.
 *
 * @throws BVError `protocol_error`: a length runs past the end, or there are too many fields.
 */
function split(blob: Bytes): Bytes[] {
  const parts: Bytes[] = [];
  for (let start = 0; start < blob.length; ) {
    const end = start + 4 + Number('0x' + hex(blob.slice(start, start + 4)));
    if (end > blob.length || parts.length === 16) throw refuse('cut short, or something behind it');
    parts.push(blob.slice(start + 4, end));
    start = end;
  }
  return parts;
}

/**
 * The value of a blob, of any kind if none is given. It says nothing about who signed it: see {@link open}.
 *
 * @throws BVError `protocol_error`: it is not exactly a blob of that kind.
 */
export function decode<K extends Kind = Kind>(blob: Bytes, kind?: K): BlobOf<K> {
  const [domain = new Uint8Array(), ...parts] = split(blob);
  const found = (Object.keys(LAYOUTS) as Kind[]).find((name) => equalBytes(domain, utf8(DOMAIN + name)));
  if (!found || (kind && found !== kind)) throw refuse(`not a ${kind ?? 'known kind'}`);
  const fields = fieldsOf(found);
  if (parts.length !== fields.length) throw refuse(`${found}: not its fields`);
  const value: Record<string, string | number> = { kind: found };
  fields.forEach(([name, codec], index) => {
    let content = null;
    try {
      content = unpack(codec!, parts[index]!);
    } catch {
      // refused below
    }
    if (content === null) throw refuse(`${found}.${name}`);
    value[name!] = content;
  });
  return value as unknown as BlobOf<K>;
}

/**
 * The bytes that are signed.
 *
 * @throws TypeError: a field holds what it may not.
 */
export function encode(value: Blob): Bytes {
  const fields = fieldsOf(value.kind).map(([name, codec]) => pack(codec!, (value as Record<string, any>)[name!]));
  const blob = concat(
    ...[utf8(DOMAIN + value.kind), ...fields].flatMap((part) => [u64(part.length).slice(4), part]),
  );
  try {
    decode(blob);
  } catch (error) {
    throw new TypeError((error as BVError).message);
  }
  return blob;
}

/** The keys of those who must have signed a blob, as it names them. */
export const signersOf = (value: Blob): string[] =>
  fieldsOf(value.kind)
    .filter(([, codec]) => codec === 'signer')
    .map(([name]) => (value as Record<string, any>)[name!]);

/** Encode a blob and sign it with these keys, in this order. */
export async function sign(value: Blob, ...keys: SigningKey[]): Promise<SignedBlob> {
  const blob = encode(value);
  return { blob, signatures: await Promise.all(keys.map((key) => key.sign(blob))) };
}

/** Whether the signatures are those of these keys, in this order. */
export const isSignedBy = async ({ blob, signatures }: SignedBlob, keys: string[]): Promise<boolean> =>
  signatures.length === keys.length &&
  (await Promise.all(keys.map((key, index) => verify(key, signatures[index]!, blob)))).every(Boolean);

/**
 * Verify, then decode.
 *
 * @param keys who must have signed, known from elsewhere, in the order of the signatures.
 * @throws BVError `identity_mismatch`: a signature is not that key's, or the blob names another signer;
 * `protocol_error`: it is not exactly a blob of this kind.
 */
export async function open<K extends Kind>(kind: K, signed: SignedBlob, ...keys: string[]): Promise<BlobOf<K>> {
  if (await isSignedBy(signed, keys)) {
    const value = decode(signed.blob, kind);
    const signers = signersOf(value);
    if (!signers.length || signers.join() === keys.join()) return value;
  }
  throw new BVError('identity_mismatch', `the ${kind} is not signed by whom it should be from`);
}

/** SHA-256 of a blob, as answers and confirms name it. */
export const digest = async (blob: Bytes): Promise<string> => hex(await sha256(blob));

const moment = (ms: number): string => (ms < 8e15 ? new Date(ms).toISOString() : `${ms} ms after 1970`);

/**
 * Refuse what was not signed within five minutes of our clock.
 *
 * @throws BVError `clock_skew`, naming both times.
 */
export function checkClock(issued: number, nowMs: number, what: string): void {
  if (Math.abs(issued - nowMs) > CLOCK_WINDOW) {
    const times = `${moment(issued)}, and this clock says ${moment(nowMs)}`;
    throw new BVError('clock_skew', `${what} was signed at ${times}: set the clocks`);
  }
}
