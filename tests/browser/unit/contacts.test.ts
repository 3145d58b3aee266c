/** Whom an account trusts: held to every list and every step that the Python is held to. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { sign, type SignedBlob } from '../../../server/browser/src/wire/blobs.ts';
import { fromHex, hex } from '../../../server/browser/src/wire/bytes.ts';
import { ContactBook, type Verdict } from '../../../server/browser/src/wire/contacts.ts';
import { Ledger, openEntry, openRemoval, type Contact } from '../../../server/browser/src/wire/evidence.ts';
import { randomBytes, SigningKey } from '../../../server/browser/src/wire/keys.ts';
import { contacts as vectors, identity } from './vectors.ts';

const NOW = 1_800_000_000_000;

const person = (name: keyof typeof identity.people): Promise<SigningKey> =>
  SigningKey.fromSeed(fromHex(identity.people[name].seed));

const ALICE = await person('alice');
const [BOB, CAROL, LATER] = [identity.people.bob, identity.people.carol, identity.people['bob later']].map(
  (one) => one.publicKey,
) as [string, string, string];

const signedBlob = (one: { blob: string; signatures: string[] }): SignedBlob => ({
  blob: fromHex(one.blob),
  signatures: one.signatures.map(fromHex),
});

const CERTIFICATES = vectors.certificates.map(signedBlob);

/** What of an error travels. */
const codeOf = (error: unknown): string => {
  assert.ok(error instanceof BVError, String(error));
  return error.code;
};

const pin = (contactKey: string, alias = 'bob', issued = NOW): Promise<SignedBlob> =>
  sign({ kind: 'pin', ownerKey: ALICE.key, contactKey, alias, issued }, ALICE);

const entry = (name: string, key: string, ...certificates: SignedBlob[]): Contact => ({
  name,
  publicKey: fromHex(key),
  certificates,
});

// -- the vectors -----------------------------------------------------------------------------------------------------

test('lists of contacts, each to a book that knows nothing else', async () => {
  for (const { name, own, now, contacts, verdicts } of identity.chains) {
    const book = new ContactBook(await person(own as keyof typeof identity.people));
    const entries = contacts.map((shown) =>
      entry(shown.name, shown.publicKey, ...shown.certificates.map(signedBlob)),
    );
    const found = await book.replace(entries, now);
    assert.deepEqual(
      found.map(({ contact, problem, pin }) => ({
        key: contact?.key ?? null,
        problem: problem?.code ?? null,
        pin: pin ? hex(pin.blob) : null,
      })),
      verdicts,
      name,
    );
  }
});

const told = ({ name, contact, problem, pin }: Verdict) => ({
  name,
  key: contact?.key ?? null,
  username: contact?.username ?? null,
  since: contact?.since ?? null,
  problem: problem?.code ?? null,
  pin: pin !== undefined,
});

interface Step {
  do: string;
  name?: string | null;
  entries?: { name: string; publicKey: string; certificates: number[] }[];
  certificate?: number;
  to?: string;
  now?: number;
}

async function take(book: ContactBook, step: Step): Promise<unknown> {
  const name = step.name ?? '';
  const now = step.now ?? NaN;
  const entries = (step.entries ?? []).map((shown) =>
    entry(shown.name, shown.publicKey, ...shown.certificates.map((number) => CERTIFICATES[number]!)),
  );
  switch (step.do) {
    case 'receive':
      return [told(await book.receive(entries[0]!, now))];
    case 'replace':
      return (await book.replace(entries, now)).map(told);
    case 'discard':
      await book.discard(name);
      return null;
    case 'remove':
      return book.remove(step.name ?? null, CERTIFICATES[step.certificate!]!, now);
    case 'makeRemove':
      return hex((await book.makeRemove(name, now)).blob);
    case 'rotate': {
      const { rotate, pins } = await book.rotate(await person(step.to as keyof typeof identity.people), now);
      return [rotate, ...pins].map(({ blob }) => hex(blob));
    }
  }
  throw new TypeError(step.do);
}

for (const { name, refuse, steps } of vectors.scenarios) {
  test(name, async () => {
    const book = new ContactBook(ALICE, new Set(refuse));
    for (const [number, { result, error, then, ...step }] of steps.entries()) {
      let found: unknown = null;
      let failed: string | null = null;
      try {
        found = await take(book, step as Step);
      } catch (problem) {
        failed = codeOf(problem);
      }
      const where = `step ${number}`;
      assert.deepEqual([found, failed], [result, error], where);
      const contacts = Object.fromEntries(book.names().map((known) => [known, book.keyOf(known)]));
      assert.deepEqual(contacts, then.contacts, where);
      assert.deepEqual(
        book.verdicts().map(({ name, problem }) => [name, problem?.code ?? null]),
        then.verdicts,
        where,
      );
      const removals = book.removals().map((one) => CERTIFICATES.indexOf(one));
      assert.deepEqual(removals.sort(), then.removals.toSorted(), where);
      for (const [known, key] of Object.entries(contacts)) assert.equal(book.nameOf(key!), known, where);
    }
  });
}

// -- what the vectors do not show ------------------------------------------------------------------------------------

test('a contact tells its fingerprint, and a problem both', async () => {
  const book = new ContactBook(ALICE);
  await book.receive(entry('bob', BOB, await pin(BOB)), NOW);
  assert.equal(book.contact('bob')!.fingerprint, identity.people.bob.fingerprint);
  assert.equal(book.contact('Us'), undefined);
  assert.deepEqual([book.keyOf('Us'), book.nameOf(ALICE.key)], [ALICE.key, 'Us']);
  const { problem } = await book.receive(entry('bob', CAROL, await pin(BOB)), NOW);
  for (const { fingerprint } of [identity.people.bob, identity.people.carol]) {
    assert.match(problem!.message, new RegExp(fingerprint));
  }
});

test('what a name does to a terminal or a page, it does not do in a problem', async () => {
  const { problem } = await new ContactBook(ALICE).receive(entry('\x1b[2J\u202e', BOB, await pin(BOB)), NOW);
  assert.match(problem!.message, /^[ -~]+$/);
});

test('no bit of a chain can be flipped', async () => {
  const named = (text: string) => CERTIFICATES[vectors.certificates.findIndex(({ name }) => name === text)]!;
  const chain = [
    named('invite of token as bob by alice, 0 ms'),
    named('redeem of token of alice by bob, 60000 ms'),
    named('rotate of bob to bob later, 0 ms'),
  ];
  const codes = new Set<string | undefined>();
  assert.equal((await new ContactBook(ALICE).receive(entry('bob', LATER, ...chain), NOW)).problem, undefined);
  for (const [which, { blob, signatures }] of chain.entries()) {
    for (let bit = 0; bit < blob.length * 8; bit += 3) {
      const flipped = blob.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      const shown = entry('bob', LATER, ...chain.with(which, { blob: flipped, signatures }));
      codes.add((await new ContactBook(ALICE).receive(shown, NOW)).problem?.code);
    }
  }
  assert.deepEqual([...codes], ['identity_mismatch']);
});

test('any garbage is a verdict, and no removal', async () => {
  const book = new ContactBook(ALICE);
  for (let size = 0; size < 60; size += 3) {
    const garbage = { blob: randomBytes(size), signatures: [randomBytes(64), randomBytes(size)].slice(size % 2) };
    const shown = { name: 'bob', publicKey: randomBytes(size), certificates: [garbage] };
    assert.equal((await book.receive(shown, NOW)).contact, undefined);
    await assert.rejects(book.remove('bob', garbage, NOW), BVError);
  }
});

test('what is taken in is taken in the order of the calls, whatever takes longer', async () => {
  const book = new ContactBook(ALICE);
  const [bobs, carols] = [await pin(BOB), await pin(CAROL, 'carol')];
  const remove = await sign({ kind: 'remove', removerKey: ALICE.key, removedKey: CAROL, issued: NOW }, ALICE);
  const forged = { ...remove, signatures: [remove.signatures[0]!.slice(1)] };
  const results = await Promise.allSettled([
    book.replace([entry('bob', BOB, bobs), entry('carol', CAROL, carols)], NOW),
    book.remove('bob', forged, NOW),
    book.remove('carol', remove, NOW),
    book.discard('bob'),
    book.receive(entry('bob', BOB, bobs), NOW),
  ]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled', 'fulfilled'],
  );
  assert.deepEqual(book.names(), ['bob']);
});

test('what is asked while something is looked at is answered as before', async () => {
  const book = new ContactBook(ALICE);
  await book.replace([entry('bob', BOB, await pin(BOB)), entry('carol', CAROL, await pin(CAROL, 'carol'))], NOW);
  const states = new Set<string>();
  let isDone = false;
  const change = book
    .replace([entry('bob', LATER, await pin(LATER, 'bob', NOW + 1)), entry('carol', CAROL)], NOW)
    .then(() => (isDone = true));
  while (!isDone) {
    states.add(JSON.stringify([book.names(), book.keyOf('bob'), book.verdicts().length, book.nameOf(BOB) ?? '']));
    await new Promise((resolve) => setTimeout(resolve));
  }
  await change;
  states.add(JSON.stringify([book.names(), book.keyOf('bob'), book.verdicts().length, book.nameOf(BOB) ?? '']));
  assert.deepEqual(
    [...states],
    [JSON.stringify([['bob', 'carol'], BOB, 2, 'bob']), JSON.stringify([['bob'], LATER, 2, ''])],
  );
});

test('a book holds so many contacts, and remembers so many removals of the unknown', async () => {
  const book = new ContactBook(ALICE);
  const many = Array.from({ length: 10_001 }, (_, number) => entry(`name-${number}`, BOB));
  const verdicts = await book.replace(many, NOW);
  assert.deepEqual(
    [verdicts.length, verdicts[9_999]!.problem?.code, verdicts[10_000]!.problem?.code],
    [10_001, 'identity_mismatch', 'too_many_trusted'],
  );
  assert.equal((await book.receive(entry('one-more', BOB), NOW)).problem?.code, 'too_many_trusted');
  assert.equal((await book.receive(many[5]!, NOW)).problem?.code, 'identity_mismatch');
});

// -- the ledger ------------------------------------------------------------------------------------------------------

const learn = async (ledger: Ledger, shown: Contact) => ledger.learn(await openEntry(shown, ALICE.key), NOW);

test('rotations that lead on from nothing are not kept, and circles end', async () => {
  const [bob, later] = [await person('bob'), await person('bob later')];
  const rotate = (from: SigningKey, to: SigningKey) =>
    sign({ kind: 'rotate', oldKey: from.key, newKey: to.key, issued: NOW }, from, to);
  const ledger = new Ledger(ALICE.key);
  await learn(ledger, entry('bob', BOB, await rotate(bob, later)));
  await learn(ledger, entry('carol', CAROL, await pin(CAROL, 'carol'), await rotate(bob, later)));
  assert.deepEqual(ledger.lineage(BOB), [BOB]);
  assert.equal(ledger.prints.get(LATER), undefined);
  assert.ok(!ledger.mentions(BOB));
  await learn(ledger, entry('bob', BOB, await pin(BOB), await rotate(bob, later), await rotate(later, bob)));
  assert.deepEqual(ledger.lineage(BOB), [BOB, LATER]);
  assert.match(ledger.flawOf(ledger.lineage(LATER))!, /circle/);
  assert.ok(ledger.mentions(LATER));
  assert.equal(ledger.prints.get(LATER), identity.people['bob later'].fingerprint);
});

test('the latest void counts', () => {
  const ledger = new Ledger(ALICE.key);
  const word = { alias: 'bob', key: BOB, issued: NOW, pin: true, username: null };
  for (const [until, isVoid] of new Map([[NOW - 1, false], [NOW, true], [NOW - 2, true]])) {
    ledger.void(BOB, { until, code: 'not_trusted', why: 'ended' });
    assert.equal(ledger.voidOf(word) !== undefined, isVoid);
  }
});

test('a removal tells whom it parts', async () => {
  const bob = await person('bob');
  const remove = (by: SigningKey, of: string) =>
    sign({ kind: 'remove', removerKey: by.key, removedKey: of, issued: NOW + 9 }, by);
  assert.deepEqual(await openRemoval(await remove(ALICE, BOB), ALICE.key, NOW), { other: BOB, until: NOW + 9 });
  assert.deepEqual(await openRemoval(await remove(bob, ALICE.key), ALICE.key, NOW), { other: BOB, until: NOW });
});
