/** Realms, names, passwords, and an Ed25519 that takes one encoding of one thing only. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import {
  concat,
  equalBytes,
  fromBase64url,
  fromHex,
  fromUtf8,
  hex,
  toBase64url,
  utf8,
} from '../../../server/browser/src/wire/bytes.ts';
import {
  AccountKeys,
  aliasOf,
  checkPassword,
  fingerprint,
  fingerprintOf,
  loginDigest,
  publicKeyOk,
  randomBytes,
  realmOf,
  requireCrypto,
  SigningKey,
  usernameOf,
  verify,
} from '../../../server/browser/src/wire/keys.ts';
import { identity } from './vectors.ts';

const withCode = (code: string) => (error: unknown) => error instanceof BVError && error.code === code;

// -- bytes -----------------------------------------------------------------------------------------------------------

test('base64url goes both ways, and is canonical or refused', () => {
  for (let size = 0; size < 70; size++) {
    const data = randomBytes(size);
    const text = toBase64url(data);
    assert.match(text, /^[\w-]*$/);
    assert.deepEqual(fromBase64url(text), data);
  }
  assert.equal(toBase64url(Uint8Array.of(0xfb, 0xff)), '-_8');
  for (const text of ['A', 'AB', 'AAB', 'AA==', 'AA=', '+_8', '-/8', ' AA', 'AA\n', 'é', '\u0100A', 'AAAAA']) {
    assert.equal(fromBase64url(text), null, text);
  }
});

test('text and hexadecimal digits go both ways', () => {
  const text = '\ufeffé水\u{1f511}\0';
  assert.equal(fromUtf8(utf8(text)), text);
  assert.equal(hex(utf8('\ufeffé')), 'efbbbfc3a9');
  assert.deepEqual(fromHex('efbbbf00'), Uint8Array.of(0xef, 0xbb, 0xbf, 0));
  assert.throws(() => fromUtf8(Uint8Array.of(0xff)), TypeError);
  assert.deepEqual(concat(fromHex('01'), [2], new Uint8Array()), Uint8Array.of(1, 2));
  assert.ok(equalBytes(fromHex('0102'), Uint8Array.of(1, 2)));
  assert.ok(!equalBytes(fromHex('0102'), Uint8Array.of(1, 3)));
  assert.ok(!equalBytes(fromHex('0102'), Uint8Array.of(1)));
});

// -- names -----------------------------------------------------------------------------------------------------------

test('names', () => {
  for (const { text, name } of identity.names) {
    for (const rule of [usernameOf, aliasOf]) {
      if (name === null) assert.throws(() => rule(text), withCode('bad_name'), text);
      else assert.equal(rule(text), name);
    }
  }
});

test('realms', () => {
  for (const { host, realm } of identity.realms) {
    if (realm === null) assert.throws(() => realmOf(host), TypeError, host);
    else assert.equal(realmOf(host), realm);
    if (realm !== null) assert.equal(realmOf(realm), realm);
  }
});

// -- passwords -------------------------------------------------------------------------------------------------------

test('everything that comes out of a password', async () => {
  for (const { password, realm, username, ...wanted } of identity.passwords) {
    const keys = await AccountKeys.derive(password, realm, username);
    const { login, key: publicKey, fingerprint } = keys;
    assert.deepEqual({ login, loginDigest: await loginDigest(login), publicKey, fingerprint }, wanted);
    assert.deepEqual(keys.publicKey, fromHex(publicKey));
    // Whoever writes keys to a log writes no secret.
    assert.ok(!JSON.stringify(keys).includes(login));
  }
});

test('a password gives the same keys however it is typed', async () => {
  const typed = await AccountKeys.derive('caf\u00e9 \ufb01ve', 'LOCALHOST:8008', 'Admin');
  const other = await AccountKeys.derive('cafe\u0301 five', '127.0.0.1', 'admin');
  assert.deepEqual([typed.key, typed.login], [other.key, other.login]);
});

test('no keys come out of what is no password', async () => {
  for (const password of ['', 'x'.repeat(1025), '\u0378', '\udfff', '\ud800 ']) {
    await assert.rejects(AccountKeys.derive(password, 'localhost', 'bob'), withCode('weak_password'));
  }
  await assert.rejects(AccountKeys.derive('password', 'a b', 'bob'), TypeError);
  await assert.rejects(AccountKeys.derive('password', 'localhost', '12'), withCode('bad_name'));
});

test('new passwords', () => {
  for (const { password, ok } of identity.newPasswords) {
    if (ok) checkPassword(password);
    else assert.throws(() => checkPassword(password), withCode('weak_password'), password);
  }
  assert.throws(() => checkPassword('lone \ud800 surrogate'), withCode('weak_password'));
  // Characters are counted as people do, not in halves.
  assert.throws(() => checkPassword('\u{1f511}\u{1f512}\u{1f513}\u{1f50f}\u{1f510}'), /at least 10/);
});

test('a page without cryptography says what to do', async () => {
  const real = Object.getOwnPropertyDescriptor(globalThis, 'crypto')!;
  Object.defineProperty(globalThis, 'crypto', { value: {}, configurable: true });
  try {
    assert.throws(requireCrypto, (error: Error) => withCode('config')(error) && /https/.test(error.message));
    await assert.rejects(AccountKeys.derive('password', 'localhost', 'bob'), withCode('config'));
    const importKey = () => Promise.reject(new DOMException('Unrecognized name', 'NotSupportedError'));
    Object.defineProperty(globalThis, 'crypto', { value: { subtle: { importKey } }, configurable: true });
    await assert.rejects(SigningKey.fromSeed(new Uint8Array(32)), /no Ed25519/);
  } finally {
    Object.defineProperty(globalThis, 'crypto', real);
  }
});

// -- fingerprints ----------------------------------------------------------------------------------------------------

test('people', async () => {
  for (const { seed, publicKey, fingerprint: print } of Object.values(identity.people)) {
    const keys = await SigningKey.fromSeed(fromHex(seed));
    assert.deepEqual([keys.key, keys.fingerprint], [publicKey, print]);
    assert.equal(await fingerprint(publicKey), print);
    assert.equal(fingerprintOf(print.toUpperCase().replaceAll('-', ' ')), print);
  }
});

test('what is no fingerprint is refused', () => {
  for (const text of ['', 'abcd', 'abcd-'.repeat(6) + 'abcd', '0'.repeat(24), 'é'.repeat(24)]) {
    assert.throws(() => fingerprintOf(text), TypeError);
  }
});

// -- Ed25519 ---------------------------------------------------------------------------------------------------------

test('public keys', () => {
  for (const { name, key, ok } of identity.publicKeys) assert.equal(publicKeyOk(fromHex(key)), ok, name);
});

test('signatures', async () => {
  for (const { name, key, text, signature, ok } of identity.signatures) {
    assert.equal(await verify(key, fromHex(signature), fromHex(text)), ok, name);
  }
});

test('every bit of key, signature and text counts', async () => {
  const keys = await SigningKey.fromSeed(fromHex(identity.people.alice.seed));
  const text = utf8('some text');
  const parts = [keys.publicKey, await keys.sign(text), text];
  const fits = (changed: typeof parts) => verify(hex(changed[0]!), changed[1]!, changed[2]!);
  assert.ok(await fits(parts));
  for (const [index, part] of parts.entries()) {
    for (let bit = 0; bit < part.length * 8; bit++) {
      const flipped = part.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      assert.ok(!(await fits(parts.with(index, flipped))), `part ${index}, bit ${bit}`);
    }
  }
});

test('a key that is no point verifies nothing', async () => {
  const { key, signature, text } = identity.signatures[0]!;
  assert.ok(await verify(key, fromHex(signature), fromHex(text)));
  const offCurve = '02' + '00'.repeat(31);
  assert.ok(!(await verify(offCurve, fromHex(signature), fromHex(text))));
});

test('a private key cannot be read out again', async () => {
  const keys = await SigningKey.fromSeed(fromHex(identity.people.alice.seed));
  assert.deepEqual(Object.keys(keys).sort(), ['fingerprint', 'key']);
  assert.ok(!JSON.stringify(keys).includes(identity.people.alice.seed));
});
