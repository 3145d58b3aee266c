/**
 * Tokens: one-time text by which two accounts come to trust each other (docs/protocol-identity.md, "Tokens").
 *
 * The inviter's client makes the token and gives the server only the public half of the token key, inside a signed
 * invite. So the server can neither redeem a token nor change who made it, and whoever claims it learns the
 * inviter's key from the text itself.
 */

import { BVError } from '../errors.ts';
import { sign, type SignedBlob } from './blobs.ts';
import { concat, equalBytes, fromBase64url, fromHex, hex, toBase64url, type Bytes } from './bytes.ts';
import { expand, publicKeyOk, sha256, SigningKey } from './keys.ts';

const PREFIX = 'bv1_';
/** Version 1, inviter key 32, seed 16, expiry 4, check 4: 57 bytes. */
const SIZE = 80;

/** A token. */
export interface Token {
  inviterKey: string;
  /** Seconds since 1970. */
  expires: number;
  /** What one gives to the other, over a channel that nobody else reads or edits. */
  text: string;
  /** The token key: whoever holds the text can sign with it. */
  keys: SigningKey;
}

const check = async (raw: Bytes): Promise<Bytes> => (await sha256(raw)).slice(0, 4);

/** The token of all but the check of its bytes. */
async function tokenOf(raw: Bytes): Promise<Token> {
  return {
    inviterKey: hex(raw.slice(1, 33)),
    expires: Number('0x' + hex(raw.slice(49))),
    text: PREFIX + toBase64url(concat(raw, await check(raw))),
    keys: await SigningKey.fromSeed(await expand(raw.slice(33, 49), 'token')),
  };
}

/**
 * A new token.
 *
 * @param inviterKey public key of the account that gives it.
 * @param seed 16 random bytes.
 * @param expires seconds since 1970.
 * @throws TypeError: a key, seed or time that a token cannot hold.
 */
export async function makeToken(inviterKey: string, seed: Bytes, expires: number): Promise<Token> {
  const key = fromHex(inviterKey);
  if (!publicKeyOk(key) || seed.length !== 16 || expires >>> 0 !== expires) throw new TypeError('no such token');
  return tokenOf(concat([1], key, seed, fromHex(expires.toString(16).padStart(8, '0'))));
}

/**
 * The token of a text, with white space round it or not.
 *
 * @throws BVError `token_invalid`: it is not one, or mistyped; the message says which.
 */
export async function parseToken(text: string): Promise<Token> {
  const invalid = (why: string) => new BVError('token_invalid', `this is not a token: ${why}`);
  const plain = text.trim();
  if (!plain.startsWith(PREFIX)) throw invalid(`a token begins with ${PREFIX}`);
  if (plain.length !== SIZE) throw invalid(`it has ${plain.length} characters instead of ${SIZE}: copy all of it`);
  const whole = fromBase64url(plain.slice(PREFIX.length));
  const raw = whole?.slice(0, -4);
  if (!raw || !equalBytes(await check(raw), whole!.slice(-4))) throw invalid('it is mistyped');
  if (raw[0] !== 1) throw invalid(`it is of version ${raw[0]}`);
  if (!publicKeyOk(raw.slice(1, 33))) throw invalid('it holds no usable key');
  return tokenOf(raw);
}

/** The invite blob that the server keeps until the token is claimed. */
export const invite = (keys: SigningKey, token: Token, alias: string, issued: number): Promise<SignedBlob> =>
  sign(
    { kind: 'invite', inviterKey: keys.key, tokenKey: token.keys.key, alias, issued, expires: token.expires * 1000 },
    keys,
  );

/**
 * Claim a token: prove to hold it, and trust its inviter under an alias.
 *
 * @returns the redeem, signed by token and claimer, and the pin of the inviter.
 * @throws BVError `already_trusted`: the token is of one's own account; `token_expired`: its time is over, by this
 * clock.
 */
export async function redeem(
  keys: SigningKey,
  claimerUsername: string,
  { inviterKey, expires, keys: tokenKeys }: Token,
  alias: string,
  issued: number,
): Promise<{ redeem: SignedBlob; pin: SignedBlob }> {
  if (inviterKey === keys.key) throw new BVError('already_trusted', "the token is of one's own account");
  if (issued >= expires * 1000) throw new BVError('token_expired', 'the time of this token is over: ask for a new one');
  const claimerKey = keys.key;
  return {
    redeem: await sign(
      { kind: 'redeem', tokenKey: tokenKeys.key, inviterKey, claimerKey, claimerUsername, issued },
      tokenKeys,
      keys,
    ),
    pin: await sign({ kind: 'pin', ownerKey: claimerKey, contactKey: inviterKey, alias, issued }, keys),
  };
}
