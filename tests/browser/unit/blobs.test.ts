/** Everything that is signed: one encoding each, and nothing else decodes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import {
  CLOCK_WINDOW,
  checkClock,
  decode,
  digest,
  encode,
  open,
  sign,
  signersOf,
  type Blob,
} from '../../../server/browser/src/wire/blobs.ts';
import { concat, fromHex, hex } from '../../../server/browser/src/wire/bytes.ts';
import { randomBytes, SigningKey } from '../../../server/browser/src/wire/keys.ts';
import { identity } from './vectors.ts';

type Name = keyof typeof identity.people;

const NOW = 1_800_000_000_000;
const withCode = (code: string) => (error: unknown) => error instanceof BVError && error.code === code;
const camel = (name: string) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

const PEOPLE = Object.fromEntries(
  await Promise.all(
    Object.entries(identity.people).map(async ([name, { seed }]) => [name, await SigningKey.fromSeed(fromHex(seed))]),
  ),
) as Record<Name, SigningKey>;

/** The vectors, with fields named as here. */
const BLOBS = identity.blobs.map(({ kind, fields, ...rest }) => ({
  ...rest,
  raw: fromHex(rest.hex),
  keys: rest.signers.map((name) => PEOPLE[name as Name]),
  value: {
    kind,
    ...Object.fromEntries(Object.entries(fields).map(([name, value]) => [camel(name), value])),
  } as unknown as Blob,
}));

test('every kind, from bytes to fields and back, digested, signed and opened', async () => {
  assert.equal(BLOBS.length, 11);
  for (const { raw, value, keys, sha256, signatures } of BLOBS) {
    const signed = { blob: raw, signatures: signatures.map(fromHex) };
    const names = keys.map((key) => key.key);
    assert.deepEqual(await open(value.kind, signed, ...names), value);
    assert.deepEqual(decode(raw), value);
    assert.deepEqual(encode(value), raw);
    assert.equal(await digest(raw), sha256);
    assert.deepEqual(await sign(value, ...keys), signed);
    if (value.kind !== 'confirm') assert.deepEqual(signersOf(value), names);
  }
});

test('malformed blobs', () => {
  for (const { name, hex } of identity.malformed) {
    assert.throws(() => decode(fromHex(hex)), withCode('protocol_error'), name);
  }
});

test('a blob of one kind is none of another', async () => {
  for (const { raw, value, keys, signatures } of BLOBS) {
    const signed = { blob: raw, signatures: signatures.map(fromHex) };
    for (const other of BLOBS) {
      if (other.value.kind === value.kind) continue;
      assert.throws(() => decode(raw, other.value.kind), withCode('protocol_error'));
      const opened = open(other.value.kind, signed, ...keys.map((key) => key.key));
      await assert.rejects(opened, withCode('protocol_error'));
    }
  }
});

test('a blob is cut, or has something behind it, anywhere: refused', () => {
  for (const { raw } of BLOBS) {
    for (let size = 0; size < raw.length; size += 5) {
      assert.throws(() => decode(raw.slice(0, size)), withCode('protocol_error'));
    }
    for (const tail of [[0], [0, 0, 0, 0], [0, 0, 0, 1, 7]]) {
      assert.throws(() => decode(concat(raw, tail)), withCode('protocol_error'));
    }
  }
});

test('any garbage is refused in a typed way', () => {
  for (let size = 0; size < 200; size++) {
    assert.throws(() => decode(randomBytes(size)), withCode('protocol_error'));
  }
  assert.throws(() => decode(fromHex('00000000'.repeat(17))), withCode('protocol_error'));
});

test('a signature is that of the key that it ought to be from, and of whom the blob names', async () => {
  const { carol, mallory } = PEOPLE;
  for (const { raw, value, keys, signatures } of BLOBS) {
    const blob = raw;
    const names = keys.map((key) => key.key);
    const given = signatures.map(fromHex);
    const refused = (wrong: typeof given, ...who: string[]) =>
      assert.rejects(open(value.kind, { blob, signatures: wrong }, ...who), withCode('identity_mismatch'));
    await refused([], ...names);
    await refused([...given, given[0]!], ...names);
    await refused(given.with(0, await mallory.sign(raw)), ...names);
    await refused(given.with(0, given[0]!.slice(1)), ...names);
    await refused(given, ...names.with(0, carol.key));
    if (given.length === 2) await refused(given.toReversed(), ...names);
    // Truly signed by carol, but not hers to sign.
    const others = await Promise.all(keys.map(() => carol.sign(raw)));
    if (value.kind !== 'confirm') await refused(others, ...keys.map(() => carol.key));
  }
});

test('our own code cannot make a wrong field', () => {
  for (const { value } of BLOBS) {
    for (const [name, content] of Object.entries(value)) {
      if (name === 'kind') continue;
      const bad = typeof content === 'number' ? [-1, 2 ** 53, 0.5, NaN] : ['', 'x'.repeat(16_385), 'A0', 'Ä'];
      for (const wrong of name === 'sdp' ? ['x'.repeat(16_385)] : bad) {
        assert.throws(() => encode({ ...value, [name]: wrong } as Blob), `${value.kind}.${name}: ${wrong}`);
      }
    }
  }
});

test('times up to 2^53 - 1', () => {
  const { value } = BLOBS.find(({ value }) => value.kind === 'remove')!;
  for (const issued of [0, 2 ** 32, 2 ** 53 - 1]) {
    const dated = { ...value, issued } as Blob;
    assert.deepEqual(decode(encode(dated)), dated);
  }
});

test('a text that is not UTF-8, or begins with a byte order mark, is as it is or refused', () => {
  const { value } = BLOBS.find(({ value }) => value.kind === 'offer')!;
  const marked = { ...value, sdp: '\ufeffv=0\n' } as Blob;
  assert.deepEqual(decode(encode(marked)), marked);
  const raw = encode({ ...value, sdp: 'v=0' } as Blob);
  assert.throws(() => decode(fromHex(hex(raw).replace(/763d30$/, '76ff30'))), withCode('protocol_error'));
});

test('the clock may differ by five minutes both ways', () => {
  for (const issued of [NOW - CLOCK_WINDOW, NOW, NOW + CLOCK_WINDOW]) checkClock(issued, NOW, 'it');
  for (const issued of [NOW - CLOCK_WINDOW - 1, NOW + CLOCK_WINDOW + 1, 0, 2 ** 53 - 1]) {
    assert.throws(() => checkClock(issued, NOW, 'it'), withCode('clock_skew'));
  }
  const both = /it was signed at 2027-01-15T08:06.* says 2027-01-15T08:00/;
  assert.throws(() => checkClock(NOW + 360_000, NOW, 'it'), both);
});
