/** Whom one may talk to: what the transcripts of sessions do not show, because it is large or seldom. */

import { test } from 'node:test';
import assert from 'node:assert/strict';

import { fromHex } from '../../../server/browser/src/wire/bytes.ts';
import { sign } from '../../../server/browser/src/wire/blobs.ts';
import { ContactBook } from '../../../server/browser/src/wire/contacts.ts';
import type { Contact } from '../../../server/browser/src/wire/evidence.ts';
import { SigningKey } from '../../../server/browser/src/wire/keys.ts';
import { Roster, Snapshot } from '../../../server/browser/src/wire/roster.ts';
import { identity } from './vectors.ts';

const NOW = 1_800_000_000_000;
const [ALICE, BOB] = await Promise.all(
  (['alice', 'bob'] as const).map((name) => SigningKey.fromSeed(fromHex(identity.people[name].seed))),
) as [SigningKey, SigningKey];

async function contact(name: string, { key, publicKey }: SigningKey): Promise<Contact> {
  const pin = await sign({ kind: 'pin', ownerKey: ALICE.key, contactKey: key, alias: name, issued: NOW - 1000 }, ALICE);
  return { name, publicKey, certificates: [pin] };
}

function snapshot(contacts: Contact[], peers: Iterable<[string, string]> = []): Snapshot {
  const lists = new Snapshot();
  lists.addNames(contacts.map(({ name }) => name));
  lists.addContacts({ contacts, more: false });
  lists.addPeers({ peers: Array.from(peers, ([id, name]) => ({ id, name })), more: false });
  return lists;
}

test('a server may not invent names, nor more of them than an account can have', () => {
  const names = (page: string[]) => () => new Snapshot().addNames(page);
  for (const wrong of ['12345', '*', 'Bob', 'us', '', 'a b', 'x'.repeat(33)]) {
    assert.throws(names([wrong]), { code: 'bad_message' });
  }
  const many = Array.from({ length: 10_001 }, (_, number) => `n${number}`);
  assert.throws(names(many), { code: 'bad_message' });
  names(many.slice(1))();
});

test('a page is the last one only if it says so', () => {
  const lists = new Snapshot();
  assert.throws(() => lists.addPeers({ peers: [], more: false }), { code: 'bad_message' });
  lists.addNames([]);
  lists.addContacts({ contacts: [], more: true });
  assert.throws(() => lists.addPeers({ peers: [], more: false }), { code: 'bad_message' });
  lists.addContacts({ contacts: [], more: false });
  lists.addPeers({ peers: [], more: true });
  assert.ok(!lists.complete);
  lists.addPeers({ peers: [], more: false });
  assert.ok(lists.complete);
});

test('a hundred thousand peers come and go', async () => {
  const roster = new Roster(new ContactBook(ALICE));
  const bob = await contact('bob', BOB);
  const peers = Array.from({ length: 200_000 }, (_, number): [string, string] => [String(number), 'bob']);
  await roster.replace(snapshot([bob], peers), 0, NOW);
  assert.equal(roster.events().length, peers.length);
  await roster.remove({ name: 'bob' }, NOW);
  assert.equal(roster.events().length, peers.length + 1);
  assert.equal(roster.peers.size, 0);
});

test('more peers than there can be are refused', async () => {
  const roster = new Roster(new ContactBook(ALICE));
  const peers = Array.from({ length: 262_144 }, (_, number): [string, string] => [String(number), 'Us']);
  await roster.replace(snapshot([], peers), 0, NOW);
  assert.throws(() => roster.appear({ name: 'Us', id: '999999' }), { code: 'bad_message' });
});

test('who goes without proof is cut off when the proof comes, unless trusted again', async () => {
  const remove = await sign({ kind: 'remove', removerKey: BOB.key, removedKey: ALICE.key, issued: NOW - 100 }, BOB);
  for (const again of [false, true]) {
    const roster = new Roster(new ContactBook(ALICE));
    await roster.replace(snapshot([await contact('bob', BOB)]), 0, NOW);
    await roster.remove({ name: 'bob' }, NOW);
    assert.deepEqual(roster.events(), [{ type: 'userRemoved', name: 'bob', key: BOB.key, proven: false }]);
    if (again) {
      const anew = await contact('bob', BOB);
      const terms = { kind: 'pin', ownerKey: ALICE.key, contactKey: BOB.key, alias: 'bob', issued: NOW } as const;
      await roster.add({ name: 'bob', contact: { ...anew, certificates: [await sign(terms, ALICE)] } }, NOW);
      roster.events();
    }
    await roster.takeRemoval(remove, NOW);
    const cut = roster.events().filter(({ type }) => type === 'userRemoved');
    assert.deepEqual(cut, again ? [] : [{ type: 'userRemoved', name: 'bob', key: BOB.key, proven: true }]);
  }
});

test('a fault of ours is no refusal', async () => {
  const book = new ContactBook(ALICE);
  book.remove = () => Promise.reject(new RangeError('a fault'));
  const roster = new Roster(book);
  await assert.rejects(roster.takeRemoval({ blob: new Uint8Array(1), signatures: [] }, NOW), RangeError);
});
