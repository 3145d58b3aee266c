/**
 * Who somebody is: realm, name, and the keys that come out of a password (docs/protocol-identity.md, "Keys").
 *
 * Keys are texts of 64 hexadecimal digits here and in all that builds on this: unlike byte arrays they compare with
 * `===` and index a Map. What WebCrypto holds of a private key cannot be read out again, not even by us.
 */

import { BVError } from '../errors.ts';
import { concat, fromBase64url, fromHex, hex, toBase64url, utf8, type Bytes } from './bytes.ts';

// -- WebCrypto -------------------------------------------------------------------------------------------------------

/**
 * The browser's cryptography.
 *
 * @throws BVError `config`: the page may not use it.
 */
export function requireCrypto(): SubtleCrypto {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) throw new BVError('config', 'browsers have cryptography for secure pages only: use https or localhost');
  return subtle;
}

/** Bytes that nobody can guess. */
export const randomBytes = (size: number): Bytes => crypto.getRandomValues(new Uint8Array(size));

export const sha256 = async (data: Bytes): Promise<Bytes> =>
  new Uint8Array(await requireCrypto().digest('SHA-256', data));

/** 32 bytes that follow from a secret and tell nothing of it. */
async function derive(secret: Bytes, name: string, rest: object): Promise<Bytes> {
  const subtle = requireCrypto();
  const key = await subtle.importKey('raw', secret, name, false, ['deriveBits']);
  return new Uint8Array(await subtle.deriveBits({ name, hash: 'SHA-256', ...rest }, key, 256));
}

/** HKDF-SHA-256 without salt (RFC 5869): another secret of 32 bytes for another purpose. */
export const expand = (secret: Bytes, info: string): Promise<Bytes> =>
  derive(secret, 'HKDF', { salt: new Uint8Array(), info: utf8('bonevalue/1/' + info) });

// -- names -----------------------------------------------------------------------------------------------------------

function canonicalName(text: string, what: string): string {
  const name = text.toLowerCase();
  // On the text as it came: a Kelvin sign becomes a plain k.
  if (!/^[\w.-]{1,32}$/.test(text) || /^(\d+|us)$/.test(name)) {
    throw new BVError('bad_name', `${what}: 1 to 32 of a-z 0-9 _ . -, not only digits, and not "us"`);
  }
  return name;
}

/**
 * The canonical form of a username.
 *
 * @throws BVError `bad_name`: it is not 1 to 32 of `a-z 0-9 _ . -`, or all digits, or `us`.
 */
export const usernameOf = (text: string): string => canonicalName(text, 'username');

/** The canonical form of an alias; the rule is that of usernames. */
export const aliasOf = (text: string): string => canonicalName(text, 'alias');

/**
 * The realm of a host as typed: `Example.COM.:8008` gives `example.com`, any loopback address `localhost`.
 *
 * Nothing is resolved. A realm gives itself. Letters beyond ASCII become what the browser makes of them (UTS 46), which
 * for some 900 rare ones that are younger than Unicode 3.2 is not what IDNA 2003 says: then the login ends with
 * `realm_mismatch`, and one writes `xn--...`.
 *
 * @param text host, `host:port`, IPv6 address, or `[IPv6 address]:port`.
 * @throws TypeError: it is not a host.
 */
export function realmOf(text: string): string {
  const bracketed = /^\[([^\]]*)\](:\d{1,5})?$/.exec(text);
  const host = bracketed?.[1] ?? text.replace(/:\d{1,5}$/, '');
  try {
    return bracketed || text.split(':').length > 2 ? realmOfIPv6(bracketed ? host : text) : realmOfName(host);
  } catch {
    throw new TypeError(`not a host: ${text.slice(0, 64)}`);
  }
}

function realmOfIPv6(host: string): string {
  // URL would take white space out, and browsers differ on octets that begin with a zero.
  if (!/^[\da-f:.]+$/i.test(host) || /[:.]0\d+\.|\.0\d+$/.test(host)) throw 0;
  const address = new URL(`http://[${host}]`).hostname.slice(1, -1);
  return address === '::1' ? 'localhost' : address;
}

function realmOfName(host: string): string {
  const name = host
    .split(/[.\u3002\uff0e\uff61]/)
    .map(toAscii)
    .join('.')
    .toLowerCase()
    .replace(/\.$/, '');
  const labels = name.split('.');
  if (/^(\d+|0x.*)$/.test(labels.at(-1)!)) {
    // What browsers take as an IPv4 address, in whatever form, or refuse.
    if (labels.length !== 4 || !labels.every((label) => /^(0|[1-9]\d{0,2})$/.test(label) && +label < 256)) throw 0;
    return labels[0] === '127' ? 'localhost' : name;
  }
  if (name.length > 253 || !labels.every((label) => /^(?!-)[a-z\d_-]{1,63}(?<!-)$/.test(label))) throw 0;
  return name;
}

/** A label in ASCII. IDNA 2003 and 2008 differ on four characters: nobody could tell which realm is meant. */
function toAscii(label: string): string {
  if (/^[\0-\x7f]*$/.test(label)) return label;
  if (!/^[\w\x80-\uffff-]+$/.test(label) || /[\xdf\u03c2\u200c\u200d]/.test(label)) throw 0;
  // The x behind it keeps URL from taking digits of other scripts as an IPv4 address.
  const ascii = new URL(`http://${label}.x`).hostname.slice(0, -2);
  if (!ascii) throw 0;
  return ascii;
}

// -- passwords -------------------------------------------------------------------------------------------------------

/** As in keys.py: one or two of these, with digits and signs round them or for letters of them, are no password. */
const COMMON = new Set(
  (
    'access admin administrator amigos america angel apple arsenal asdf asdfgh asdfghjkl baby babygirl bailey ' +
    'banana barcelona baseball basketball batman bitcoin blink bonevalue butterfly changeme charlie cheese ' +
    'chelsea chocolate computer cookie correcthorsebatterystaple dallas daniel database default demo dragon eagle ' +
    'eminem enter facebook family flower football forever freedom friend friends fuckyou ginger google guest ' +
    'hallo hannah harley hello hockey hunter internet iloveyou jennifer jessica jordan joshua killer letmein ' +
    'linkedin liverpool login london love lovely loveyou maggie manager manchester maple master matrix matthew ' +
    'merlin michael michelle microsoft monkey mustang my mynameis naruto nicole ninja orange pass passw passwd ' +
    'password passwort pepper pokemon princess private purple qazwsx qazwsxedc qwer qwert qwerty qwertyuiop ' +
    'qwertz qwertzuiop raspberry robert root samantha samsung secret security server service shadow soccer ' +
    'spiderman startrek starwars summer sunshine super superman superuser support system temp temporary test ' +
    'tester testing the this thomas tigger trustno ubuntu user username vagrant welcome whatever william winter ' +
    'wireless yellow you your zaq zaqxsw zxcvbn zxcvbnm'
  ).split(' '),
);
const RUNS =
  'abcdefghijklmnopqrstuvwxyz 01234567890123456789 qwertyuiopasdfghjklzxcvbnm qwertzuiopasdfghjklyxcvbnm ' +
  '1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p 1q2w3e4r5t6y7u8i9o0p 1a2b3c4d5e6f7g8h9i0j';
/** Signs that stand for letters, each above its letter. */
const SIGNS = '01345789@$!|';
const LETTERS = 'oieastbgasil';

const weak = (why: string): BVError => new BVError('weak_password', `the password ${why}`);

/**
 * NFKC of what is not assigned yet changes the day it is: the key would be lost. What is assigned keeps its form for
 * ever, so two programs whose Unicode is not of the same version come to the same keys, or one of them refuses.
 */
function normalPassword(password: string): string {
  const size = [...password].length;
  if (size < 1 || size > 1024) throw weak('needs 1 to 1024 characters');
  if (/[\p{Cn}\p{Cs}]/u.test(password)) throw weak('has a character that Unicode, as this browser knows it, has not');
  return password.normalize('NFKC');
}

/**
 * Refuse what is too weak for a new password.
 *
 * The server never sees a password, so this runs where it is typed. It stops the first million guesses, no more;
 * docs/security.md says why more is wanted.
 *
 * @throws BVError `weak_password`: under 10 characters, over 1024, of few different ones, or a common one.
 */
export function checkPassword(password: string): void {
  const plain = normalPassword(password).toLowerCase();
  const characters = [...plain];
  if (characters.length < 10) throw weak('needs at least 10 characters');
  if (new Set(characters).size < 5) throw weak('has too few different characters');
  const core = plain.replace(/^[ -@[-`{-~]+|[ -@[-`{-~]+$/g, '');
  const words = [plain, core].flatMap((word) => [word, [...word].reverse().join('')]);
  if (RUNS.split(' ').some((run) => words.some((word) => run.includes(word)))) {
    throw weak('is a run of neighbouring keys');
  }
  if ((plain + plain).indexOf(plain, 1) < plain.length) throw weak('is a repetition');
  const spelt = core.replace(/./g, (sign) => LETTERS[SIGNS.indexOf(sign)] ?? sign);
  if (isCommon(core) || isCommon(spelt)) throw weak('is a common one');
}

function isCommon(core: string): boolean {
  const letters = core.replace(/[ -@[-`{-~]/g, '');
  const isWord = (from: number, to?: number) => COMMON.has(letters.slice(from, to));
  return isWord(0) || Array.from(letters).some((_, cut) => isWord(0, cut) && isWord(cut));
}

// -- Ed25519 ---------------------------------------------------------------------------------------------------------

const P = 2n ** 255n - 19n;
const L = 2n ** 252n + 27742317777372353535851937790883648493n;
/** The y of the four points of order 8; with 0, 1 and -1 these are all points of small order. */
const Y8 = 0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n;

const littleEndian = (raw: Uint8Array): bigint => BigInt('0x' + hex(raw.toReversed()));

/** Whether these are 32 bytes that encode y canonically, and no point of small order. */
export function publicKeyOk(raw: Uint8Array): boolean {
  if (raw.length !== 32) return false;
  const y = BigInt.asUintN(255, littleEndian(raw));
  return y < P && ![0n, 1n, P - 1n, Y8, P - Y8].includes(y);
}

/**
 * Whether the signature over the blob is the key's; false for anything wrong with any of them.
 *
 * Ed25519 is taken strictly, here and not by the browser: else two encodings could stand for one identity, or a key
 * fit everything.
 */
export async function verify(key: string, signature: Bytes, blob: Bytes): Promise<boolean> {
  const raw = fromHex(key);
  if (signature.length !== 64 || !publicKeyOk(raw) || !publicKeyOk(signature.slice(0, 32))) return false;
  if (littleEndian(signature.slice(32)) >= L) return false;
  try {
    const subtle = requireCrypto();
    return await subtle.verify(
      'Ed25519',
      await subtle.importKey('raw', raw, 'Ed25519', true, ['verify']),
      signature,
      blob,
    );
  } catch {
    return false;
  }
}

/** Six groups of four. */
const grouped = (text: string): string => text.replace(/.{4}(?=.)/g, '$&-');

/** A public key for people to compare: 120 bits, `abcd-efgh-ijkl-mnop-qrst-uvwx`. */
export async function fingerprint(key: string): Promise<string> {
  const hash = await sha256(concat(utf8('bonevalue/1/fingerprint'), fromHex(key)));
  const digits = BigInt('0x' + hex(hash.slice(0, 15))).toString(32);
  // toString() counts on from 9 to a; base32 (RFC 4648) begins with a, and 2 to 7 come last.
  return grouped(
    digits.padStart(24, '0').replace(/./g, (digit) => 'abcdefghijklmnopqrstuvwxyz234567'[parseInt(digit, 32)]!),
  );
}

/**
 * The canonical form of a fingerprint that somebody typed; case, spaces and dashes do not matter.
 *
 * @throws TypeError: it is not a fingerprint.
 */
export function fingerprintOf(text: string): string {
  const plain = text.replace(/[\s-]/g, '').toLowerCase();
  if (!/^[a-z2-7]{24}$/.test(plain)) throw new TypeError(`not a key fingerprint: ${text.slice(0, 64)}`);
  return grouped(plain);
}

/** What makes a signing key. */
interface Pair {
  key: string;
  fingerprint: string;
  signer: CryptoKey;
}

async function pairOf(seed: Bytes): Promise<Pair> {
  const subtle = requireCrypto();
  // RFC 8410, section 7: what stands before the seed in PKCS #8.
  const wrapped = concat(fromHex('302e020100300506032b657004220420'), seed);
  const load = (extractable: boolean) => subtle.importKey('pkcs8', wrapped, 'Ed25519', extractable, ['sign']);
  const signer = await load(false).catch((error) => {
    throw error.name === 'NotSupportedError' ? new BVError('config', 'this browser has no Ed25519: update it') : error;
  });
  // WebCrypto tells the public half only of a key that it would give away whole: of this one, dropped at once.
  const { x } = await subtle.exportKey('jwk', await load(true));
  const key = hex(fromBase64url(x!)!);
  return { key, fingerprint: await fingerprint(key), signer };
}

/** An Ed25519 key pair. */
export class SigningKey {
  /** The public half in hexadecimal digits, and for people to compare. */
  readonly key: string;
  readonly fingerprint: string;
  readonly #signer: CryptoKey;

  constructor(pair: Pair) {
    this.key = pair.key;
    this.fingerprint = pair.fingerprint;
    this.#signer = pair.signer;
  }

  /** The key pair of a 32-byte seed. */
  static async fromSeed(seed: Bytes): Promise<SigningKey> {
    return new SigningKey(await pairOf(seed));
  }

  /** The public half. */
  get publicKey(): Bytes {
    return fromHex(this.key);
  }

  /** The 64-byte signature over a blob. */
  async sign(blob: Bytes): Promise<Bytes> {
    return new Uint8Array(await requireCrypto().sign('Ed25519', this.#signer, blob));
  }
}

/** What the password of an account gives: the signing key, and the secret for the server. */
export class AccountKeys extends SigningKey {
  readonly #login: string;

  constructor(pair: Pair, login: string) {
    super(pair);
    this.#login = login;
  }

  /** The login secret, 43 characters of base64url. */
  get login(): string {
    return this.#login;
  }

  /**
   * The keys of an account. Takes a good part of a second on purpose.
   *
   * @throws BVError `weak_password`: the password is empty, over 1024 characters, or has unassigned code points;
   * `bad_name`: the username breaks its rule; `config`: the page or the browser has not the cryptography for it.
   * @throws TypeError: the realm is not one.
   */
  static async derive(password: string, realm: string, username: string): Promise<AccountKeys> {
    const salt = utf8(`bonevalue/1/${realmOf(realm)}/${usernameOf(username)}`);
    return AccountKeys.fromStretched(
      await derive(utf8(normalPassword(password)), 'PBKDF2', { salt, iterations: 600_000 }),
    );
  }

  /** The keys of what PBKDF2 gave: 32 bytes, as secret as the password. */
  static async fromStretched(stretched: Bytes): Promise<AccountKeys> {
    return new AccountKeys(
      await pairOf(await expand(stretched, 'identity')),
      toBase64url(await expand(stretched, 'login')),
    );
  }
}

/** What a `register` blob says of the login secret: SHA-256 of its 43 characters. */
export const loginDigest = async (login: string): Promise<string> => hex(await sha256(utf8(login)));
