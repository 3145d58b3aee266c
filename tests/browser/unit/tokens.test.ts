/** Token text, and what both sides sign with it. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { open } from '../../../server/browser/src/wire/blobs.ts';
import { concat, fromHex, hex, toBase64url, utf8, type Bytes } from '../../../server/browser/src/wire/bytes.ts';
import { randomBytes, sha256, SigningKey } from '../../../server/browser/src/wire/keys.ts';
import { invite, makeToken, parseToken, redeem } from '../../../server/browser/src/wire/tokens.ts';
import { identity } from './vectors.ts';

const NOW = 1_800_000_000_000;
const invalid = (error: unknown) => error instanceof BVError && error.code === 'token_invalid';
const person = (name: keyof typeof identity.people) => SigningKey.fromSeed(fromHex(identity.people[name].seed));

const ALICE = await person('alice');
const BOB = await person('bob');
const GOOD = identity.tokens.good[0]!;
const TOKEN = await makeToken(GOOD.inviterKey, fromHex(GOOD.seed), GOOD.expires);

test('tokens', async () => {
  for (const { inviterKey, seed, expires, text, tokenKey } of identity.tokens.good) {
    for (const token of [
      await makeToken(inviterKey, fromHex(seed), expires),
      await parseToken(text),
      await parseToken(`  ${text}\n`),
    ]) {
      assert.deepEqual([token.inviterKey, token.expires, token.text], [inviterKey, expires, text]);
      assert.equal(token.keys.key, tokenKey);
    }
  }
  for (const text of identity.tokens.bad) await assert.rejects(parseToken(text), invalid, text);
});

test('no bit of a token can be flipped', async () => {
  for (let bit = 0; bit < TOKEN.text.length * 8; bit++) {
    const raw = utf8(TOKEN.text);
    raw[bit >> 3]! ^= 1 << (bit & 7);
    await assert.rejects(parseToken(String.fromCharCode(...raw)), invalid, `bit ${bit}`);
  }
});

test('no two characters of a token can be swapped', async () => {
  const letters = [...TOKEN.text];
  for (const [place, letter] of letters.slice(1).entries()) {
    const swapped = letters.with(place, letter).with(place + 1, letters[place]!).join('');
    if (swapped !== TOKEN.text) await assert.rejects(parseToken(swapped), invalid, swapped);
  }
});

const textOf = async (raw: Bytes) => 'bv1_' + toBase64url(concat(raw, (await sha256(raw)).slice(0, 4)));

test('what is no token is refused with a reason', async () => {
  const { text } = TOKEN;
  const rest = new Uint8Array(20);
  for (const [wrong, says] of [
    ['', /begins with bv1_/],
    [text.toUpperCase(), /begins with bv1_/],
    [text.slice(0, -1), /79 characters instead of 80/],
    [text + 'A', /81 characters/],
    [`${text.slice(0, 40)} ${text.slice(40)}`, /81 characters/],
    [`${text.slice(0, 40)}!${text.slice(41)}`, /mistyped/],
    [`${text.slice(0, 40)}é${text.slice(41)}`, /mistyped/],
    [await textOf(concat([2], ALICE.publicKey, rest)), /version 2/],
    [await textOf(concat([1], new Uint8Array(32), rest)), /no usable key/],
    [await textOf(concat([1], fromHex('ff'.repeat(32)), rest)), /no usable key/],
  ] as const) {
    await assert.rejects(parseToken(wrong), invalid, wrong);
    await assert.rejects(parseToken(wrong), says, wrong);
  }
});

test('any token that can be made can be read, and no other', async () => {
  for (const expires of [0, 1, 0xffff_ffff]) {
    const token = await makeToken(ALICE.key, randomBytes(16), expires);
    assert.equal(token.text.length, 80);
    assert.equal((await parseToken(token.text)).keys.key, token.keys.key);
  }
  for (const [key, seed, expires] of [
    ['00'.repeat(32), 16, 0],
    [ALICE.key, 15, 0],
    [ALICE.key, 16, 2 ** 32],
    [ALICE.key, 16, -1],
    [ALICE.key, 16, 1.5],
  ] as const) {
    await assert.rejects(makeToken(key, new Uint8Array(seed), expires), TypeError);
  }
});

test('a token that is written to a log shows its text only where it is asked for', () => {
  assert.deepEqual(Object.keys(TOKEN).sort(), ['expires', 'inviterKey', 'keys', 'text']);
});

test('an invite says what the token says', async () => {
  const signed = await invite(ALICE, TOKEN, 'bob', NOW);
  const opened = await open('invite', signed, ALICE.key);
  const { key: inviterKey } = ALICE;
  const [tokenKey, expires] = [TOKEN.keys.key, TOKEN.expires * 1000];
  assert.deepEqual(opened, { kind: 'invite', inviterKey, tokenKey, alias: 'bob', issued: NOW, expires });
  assert.ok(!hex(signed.blob).includes(GOOD.seed));
});

test('a redemption is signed by token and claimer', async () => {
  const done = await redeem(BOB, 'robert', TOKEN, 'alice', NOW);
  const [tokenKey, inviterKey, claimerKey] = [TOKEN.keys.key, ALICE.key, BOB.key];
  assert.deepEqual(await open('redeem', done.redeem, tokenKey, claimerKey), {
    kind: 'redeem',
    tokenKey,
    inviterKey,
    claimerKey,
    claimerUsername: 'robert',
    issued: NOW,
  });
  assert.deepEqual(await open('pin', done.pin, claimerKey), {
    kind: 'pin',
    ownerKey: claimerKey,
    contactKey: inviterKey,
    alias: 'alice',
    issued: NOW,
  });
  assert.ok(!hex(concat(done.redeem.blob, done.pin.blob)).includes(GOOD.seed));
});

test("one's own token is not claimed, nor one after its time", async () => {
  const withCode = (code: string) => (error: unknown) => error instanceof BVError && error.code === code;
  const fails = (keys: SigningKey, now: number, code: string) =>
    assert.rejects(redeem(keys, 'x', TOKEN, 'y', now), withCode(code));
  await fails(ALICE, NOW, 'already_trusted');
  await fails(BOB, TOKEN.expires * 1000, 'token_expired');
  await redeem(BOB, 'x', TOKEN, 'y', TOKEN.expires * 1000 - 1);
});
