/** Offers, answers and confirms: who is at the other end, whatever the server and third accounts do in between. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import {
  CLOCK_WINDOW,
  digest,
  encode,
  sign,
  type Answer,
  type Offer,
} from '../../../server/browser/src/wire/blobs.ts';
import { fromHex, utf8, type Bytes } from '../../../server/browser/src/wire/bytes.ts';
import { ContactBook } from '../../../server/browser/src/wire/contacts.ts';
import {
  checkSdp,
  Introductions,
  sessionOf,
  type IncomingOffer,
  type OutgoingOffer,
  type Proof,
} from '../../../server/browser/src/wire/introductions.ts';
import { randomBytes, SigningKey } from '../../../server/browser/src/wire/keys.ts';
import { identity } from './vectors.ts';

const NOW = 1_800_000_000_000;
const MINUTE = 60_000;
const MEMORY = 2 * CLOCK_WINDOW;
const SESSION = '5e'.repeat(16);
const SDP = identity.sessionDescriptions[0]!.sdp;
/** Session descriptions that can be told apart. */
const [SDP_A, SDP_B] = [SDP.replace('AB', '0A'), SDP.replace('AB', '0B')];

type Name = 'alice' | 'bob' | 'carol';
const person = (name: keyof typeof identity.people) => SigningKey.fromSeed(fromHex(identity.people[name].seed));
const NAMES: Record<Name, SigningKey> = {
  alice: await person('alice'),
  bob: await person('bob'),
  carol: await person('carol'),
};
const { alice: ALICE, bob: BOB, carol: CAROL } = NAMES;
const MALLORY = await person('mallory');

const fails = (code: string, text = /./) => (error: unknown) =>
  error instanceof BVError && error.code === code && text.test(error.message);

const instanceOf = async (text: string) => (await digest(utf8(text))).slice(0, 32);

/** One page of an account that trusts all others of NAMES. */
class Side {
  readonly keys: SigningKey;
  readonly book: ContactBook;
  readonly introductions: Introductions;
  readonly peerId: string;

  constructor(keys: SigningKey, book: ContactBook, instance: string, peerId: string) {
    this.keys = keys;
    this.book = book;
    this.peerId = peerId;
    this.introductions = new Introductions(keys, book, instance);
    this.introductions.peerId = peerId;
  }

  static async of(name: Name, peerId: string, instance = ''): Promise<Side> {
    const keys = NAMES[name];
    const book = new ContactBook(keys);
    for (const [alias, { key, publicKey }] of Object.entries(NAMES)) {
      if (alias === name) continue;
      const pin = await sign({ kind: 'pin', ownerKey: keys.key, contactKey: key, alias, issued: NOW }, keys);
      await book.receive({ name: alias, publicKey, certificates: [pin] }, NOW);
    }
    return new Side(keys, book, await instanceOf(`${name} ${peerId} ${instance}`), peerId);
  }

  offer(to: string, name: string, sdp = SDP_A, session = SESSION): Promise<OutgoingOffer> {
    return this.introductions.makeOffer(session, to, name, sdp, NOW);
  }

  take(sender: string, name: string | null, { blob, signature }: OutgoingOffer, now = NOW): Promise<IncomingOffer> {
    return this.introductions.receiveOffer(sender, name, blob, signature, now);
  }
}

const both = () => Promise.all([Side.of('alice', '1'), Side.of('bob', '2')]);

/** The whole exchange, with nobody in between. */
async function agree(caller: Side, callee: Side, calleeName: string, callerName: string): Promise<[Proof, Proof]> {
  const outgoing = await caller.offer(callee.peerId, calleeName);
  const incoming = await callee.take(caller.peerId, callerName, outgoing);
  const { blob, signature, proof } = await callee.introductions.makeAnswer(incoming, SDP_B, NOW);
  const { introductions } = caller;
  const taken = await introductions.receiveAnswer(outgoing, callee.peerId, blob, signature, NOW);
  assert.deepEqual([incoming.sdp, taken.sdp], [SDP_A, SDP_B]);
  return [taken.proof, proof];
}

// -- the way it should be --------------------------------------------------------------------------------------------

test('two that trust each other prove it', async () => {
  const [ours, theirs] = await agree(...(await both()), 'bob', 'alice');
  assert.ok(await ours.accepts(theirs.mine));
  assert.ok(await theirs.accepts(ours.mine));
  assert.deepEqual([ours.name, ours.key, theirs.name, theirs.key], ['bob', BOB.key, 'alice', ALICE.key]);
});

test('two pages of one account prove it', async () => {
  const [ours, theirs] = await agree(await Side.of('alice', '1'), await Side.of('alice', '9'), 'Us', 'Us');
  assert.ok(await ours.accepts(theirs.mine));
  assert.ok(await theirs.accepts(ours.mine));
  // The same key signs both, so the role in it matters: neither side's own proof, sent back, is taken.
  assert.ok(!(await ours.accepts(ours.mine)));
  assert.ok(!(await theirs.accepts(theirs.mine)));
});

test('a caller that is in no list is known by its key', async () => {
  const [alice, bob] = await both();
  assert.equal((await bob.take('1', null, await alice.offer('2', 'bob'))).name, 'alice');
});

test('no bit of a proof can be flipped', async () => {
  const [ours, theirs] = await agree(...(await both()), 'bob', 'alice');
  for (let bit = 0; bit < 512; bit++) {
    const flipped = theirs.mine.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    assert.ok(!(await ours.accepts(flipped)), `bit ${bit}`);
  }
  for (const wrong of [theirs.mine.slice(1), randomBytes(0), new Uint8Array(64), ours.mine]) {
    assert.ok(!(await ours.accepts(wrong)));
  }
});

test('a proof is of no use once trust has ended, also while it is checked', async () => {
  const [alice, bob] = await both();
  const [ours, theirs] = await agree(alice, bob, 'bob', 'alice');
  await alice.book.discard('bob');
  assert.ok(!(await ours.accepts(theirs.mine)));
  assert.ok(await theirs.accepts(ours.mine));
  let isTrusted = true;
  const contacts = { keyOf: () => BOB.key, nameOf: () => (isTrusted ? 'bob' : undefined) };
  const introductions = new Introductions(ALICE, contacts, '00'.repeat(16));
  introductions.peerId = '1';
  const outgoing = await introductions.makeOffer(SESSION, '2', 'bob', SDP_A, NOW);
  const { proof } = await introductions.receiveAnswer(outgoing, '2', ...(await answerWith(outgoing)), NOW);
  const confirm = await sign({ kind: 'confirm', role: 'callee', ...(await hashes(outgoing)) }, BOB);
  assert.ok(await proof.accepts(confirm.signatures[0]!));
  const accepted = proof.accepts(confirm.signatures[0]!);
  isTrusted = false;
  assert.ok(!(await accepted));
});

// -- a third account that both trust ---------------------------------------------------------------------------------

test('a third account cannot pass a connection off as its own', async () => {
  // Alice calls carol, and carol, an honest contact of both, calls bob with alice's session description and answers
  // alice with bob's. The channel that comes about is between alice and bob.
  const [alice, bob] = await both();
  const carol = await Side.of('carol', '3');
  const toCarol = await alice.offer('3', 'carol');
  const atCarol = await carol.take('1', 'alice', toCarol);
  const toBob = await carol.offer('2', 'bob', atCarol.sdp, '01'.repeat(16));
  const atBob = await bob.take('3', 'carol', toBob);
  assert.equal(atBob.sdp, SDP_A);
  const bobs = await bob.introductions.makeAnswer(atBob, SDP_B, NOW);
  const { sdp } = await carol.introductions.receiveAnswer(toBob, '2', bobs.blob, bobs.signature, NOW);
  const carols = await carol.introductions.makeAnswer(atCarol, sdp, NOW);
  const alices = await alice.introductions.receiveAnswer(toCarol, '3', carols.blob, carols.signature, NOW);
  assert.equal(alices.sdp, SDP_B);
  // Every signature was true, and alice believes to talk to carol, bob likewise. In the channel, the lie comes out.
  assert.ok(!(await bobs.proof.accepts(alices.proof.mine)));
  assert.ok(!(await alices.proof.accepts(bobs.proof.mine)));
  // Carol could sign for either of them, but is not in the channel.
  assert.ok(await alices.proof.accepts(carols.proof.mine));
});

test('a proof of another connection is refused', async () => {
  const [alice, bob] = await both();
  const [ours, theirs] = await agree(alice, bob, 'bob', 'alice');
  const outgoing = await alice.offer('2', 'bob', SDP_A, '02'.repeat(16));
  const incoming = await bob.take('1', 'alice', outgoing);
  const second = await bob.introductions.makeAnswer(incoming, SDP_B, NOW);
  const first = await alice.introductions.receiveAnswer(outgoing, '2', second.blob, second.signature, NOW);
  assert.ok(await first.proof.accepts(second.proof.mine));
  assert.ok(!(await ours.accepts(second.proof.mine)));
  assert.ok(!(await first.proof.accepts(theirs.mine)));
});

test('a confirm names role and both hashes', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  const incoming = await bob.take('1', 'alice', outgoing);
  const { blob, proof } = await bob.introductions.makeAnswer(incoming, SDP_B, NOW);
  const confirm = (role: 'caller' | 'callee', answerHash: string) =>
    encode({ kind: 'confirm', role, offerHash: outgoing.offerHash, answerHash });
  const answerHash = await digest(blob);
  assert.deepEqual(proof.mine, await BOB.sign(confirm('callee', answerHash)));
  assert.ok(await proof.accepts(await ALICE.sign(confirm('caller', answerHash))));
  assert.ok(!(await proof.accepts(await ALICE.sign(confirm('callee', answerHash)))));
  assert.ok(!(await proof.accepts(await ALICE.sign(confirm('caller', outgoing.offerHash)))));
});

// -- offers ----------------------------------------------------------------------------------------------------------

/** Alice's offer to bob, changed and signed by alice. */
async function offerWith(changes: Partial<Offer> = {}): Promise<[Bytes, Bytes]> {
  const offer: Offer = {
    kind: 'offer',
    session: SESSION,
    issued: NOW,
    fromKey: ALICE.key,
    toKey: BOB.key,
    fromPeer: '1',
    toPeer: '2',
    fromInstance: await instanceOf('alice 1 '),
    sdp: SDP_A,
    ...changes,
  };
  const { blob, signatures } = await sign(offer, ALICE);
  return [blob, signatures[0]!];
}

test('an offer is checked in every field', async () => {
  const cases: [Partial<Offer>, string | null][] = [
    [{}, null],
    [{ toKey: CAROL.key }, 'identity_mismatch'],
    [{ toKey: ALICE.key }, 'identity_mismatch'],
    [{ fromKey: CAROL.key }, 'identity_mismatch'],
    [{ fromKey: MALLORY.key }, 'not_trusted'],
    [{ fromPeer: '3' }, 'identity_mismatch'],
    [{ toPeer: '3' }, 'identity_mismatch'],
    [{ toPeer: '02' }, 'identity_mismatch'],
    [{ fromInstance: await instanceOf('bob 2 ') }, 'identity_mismatch'],
    [{ issued: NOW - CLOCK_WINDOW }, null],
    [{ issued: NOW + CLOCK_WINDOW }, null],
    [{ issued: NOW - CLOCK_WINDOW - 1 }, 'clock_skew'],
    [{ issued: NOW + CLOCK_WINDOW + 1 }, 'clock_skew'],
    [{ sdp: '' }, 'protocol_error'],
    [{ sdp: SDP_A + SDP_A }, 'protocol_error'],
  ];
  for (const [changes, code] of cases) {
    const { introductions } = await Side.of('bob', '2');
    const taken = introductions.receiveOffer('1', 'alice', ...(await offerWith(changes)), NOW);
    if (code === null) {
      assert.equal((await taken).key, ALICE.key);
      continue;
    }
    await assert.rejects(taken, fails(code), JSON.stringify(changes));
    // And nothing is remembered of it: the true one, with the same session and peer id, is taken.
    await introductions.receiveOffer('1', 'alice', ...(await offerWith()), NOW);
  }
});

test('an offer by nobody we know, or of another than presence says, is refused', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  for (const name of ['carol', 'Us', 'mallory', '']) {
    await assert.rejects(bob.take('1', name, outgoing), fails('identity_mismatch', /it is alice/));
  }
  await assert.rejects(bob.take('7', 'alice', outgoing), fails('identity_mismatch'));
  await bob.book.discard('alice');
  await assert.rejects(bob.take('1', null, outgoing), fails('not_trusted'));
});

test('an offer for somebody else is refused', async () => {
  const outgoing = await (await Side.of('alice', '1')).offer('2', 'bob');
  for (const other of [await Side.of('carol', '2'), await Side.of('bob', '8')]) {
    await assert.rejects(other.take('1', 'alice', outgoing), fails('identity_mismatch'));
  }
});

test('our own offer is refused', async () => {
  // Reflected by the server, to the same page under the peer id that it called.
  const alice = await Side.of('alice', '1');
  const outgoing = await alice.offer('9', 'Us');
  for (const peerId of ['9', '1']) {
    alice.introductions.peerId = peerId;
    await assert.rejects(alice.take('1', 'Us', outgoing), fails('identity_mismatch'));
  }
});

test('no bit of an offer or answer can be flipped', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  const incoming = await bob.take('1', 'alice', outgoing);
  const answer = await bob.introductions.makeAnswer(incoming, SDP_B, NOW);
  const fresh = await Side.of('bob', '2');
  const offered = (blob: Bytes, signature: Bytes): Promise<unknown> =>
    fresh.introductions.receiveOffer('1', 'alice', blob, signature, NOW);
  const answered = (blob: Bytes, signature: Bytes): Promise<unknown> =>
    alice.introductions.receiveAnswer(outgoing, '2', blob, signature, NOW);
  const cases = new Map([[offered, outgoing as { blob: Bytes; signature: Bytes }], [answered, answer]]);
  for (const [receive, one] of cases) {
    for (const part of ['blob', 'signature'] as const) {
      for (let bit = 0; bit < one[part].length * 8; bit += part === 'blob' ? 3 : 1) {
        const changed = { ...one, [part]: one[part].slice() };
        changed[part][bit >> 3]! ^= 1 << (bit & 7);
        await assert.rejects(receive(changed.blob, changed.signature), BVError, `${part}, bit ${bit}`);
      }
    }
    await receive(one.blob, one.signature);
  }
});

// -- replay ----------------------------------------------------------------------------------------------------------

test('an offer is taken once', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  await bob.take('1', 'alice', outgoing);
  for (const later of [0, MINUTE, CLOCK_WINDOW]) {
    await assert.rejects(bob.take('1', 'alice', outgoing, NOW + later), fails('identity_mismatch', /seen before/));
  }
  // Nor another offer of the same session.
  const other = await alice.offer('2', 'bob', SDP_B);
  await assert.rejects(bob.take('1', 'alice', other), fails('identity_mismatch', /seen before/));
});

test('an offer that comes twice at once is taken once', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  const results = await Promise.allSettled([1, 2, 3].map(() => bob.take('1', 'alice', outgoing)));
  assert.deepEqual(results.map(({ status }) => status).sort(), ['fulfilled', 'rejected', 'rejected']);
});

test('an offer is not taken from whom we ceased to trust while it was checked', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  let isTrusted = true;
  const contacts = { keyOf: () => ALICE.key, nameOf: () => (isTrusted ? 'alice' : undefined) };
  const introductions = new Introductions(BOB, contacts, '00'.repeat(16));
  introductions.peerId = bob.peerId;
  const taken = introductions.receiveOffer('1', 'alice', outgoing.blob, outgoing.signature, NOW);
  isTrusted = false;
  await assert.rejects(taken, fails('not_trusted'));
});

test('no offer is ever taken twice whatever the clocks', async () => {
  // An offer is fresh for ten minutes at most: from five minutes before its date to five after.
  const { introductions } = await Side.of('bob', '2');
  const [blob, signature] = await offerWith({ issued: NOW + CLOCK_WINDOW });
  await introductions.receiveOffer('1', 'alice', blob, signature, NOW);
  for (let now = NOW; now < NOW + 3 * MEMORY; now += MINUTE) {
    await assert.rejects(introductions.receiveOffer('1', 'alice', blob, signature, now), BVError);
  }
});

test('the session of another account is another session', async () => {
  const [alice, bob] = await both();
  await bob.take('1', 'alice', await alice.offer('2', 'bob'));
  await bob.take('3', 'carol', await (await Side.of('carol', '3')).offer('2', 'bob'));
});

test('sessions are forgotten when their time is over, not before; and a full memory refuses', async () => {
  const { introductions } = await Side.of('bob', '2');
  const take = async (session: string, now = NOW) =>
    introductions.receiveOffer('1', 'alice', ...(await offerWith({ session, issued: now })), now);
  const name = (number: number) => number.toString(16).padStart(32, '0');
  await Promise.all(Array.from({ length: 4_096 }, (_, number) => take(name(number))));
  await assert.rejects(take(name(5_000)), fails('busy'));
  // One contact cannot fill it for others.
  const { blob, signature } = await (await Side.of('carol', '3')).offer('2', 'bob');
  await introductions.receiveOffer('3', 'carol', blob, signature, NOW);
  await assert.rejects(take(name(7), NOW + MEMORY), fails('identity_mismatch', /seen before/));
  await take(name(7), NOW + MEMORY + 1);
});

// -- answers ---------------------------------------------------------------------------------------------------------

/** Bob's answer to alice's offer, changed and signed by whom we like. */
async function answerWith(
  { offerHash }: OutgoingOffer,
  changes: Partial<Answer> = {},
  signer = BOB,
): Promise<[Bytes, Bytes]> {
  const answer: Answer = {
    kind: 'answer',
    session: SESSION,
    offerHash,
    issued: NOW,
    fromKey: BOB.key,
    toKey: ALICE.key,
    fromPeer: '2',
    toPeer: '1',
    fromInstance: await instanceOf('bob 2 '),
    sdp: SDP_B,
    ...changes,
  };
  const { blob, signatures } = await sign(answer, signer);
  return [blob, signatures[0]!];
}

const hashes = async (outgoing: OutgoingOffer) => ({
  offerHash: outgoing.offerHash,
  answerHash: await digest((await answerWith(outgoing))[0]),
});

test('an answer is checked in every field', async () => {
  const cases: [Partial<Answer>, string | null, SigningKey?][] = [
    [{}, null],
    [{ session: '0e'.repeat(16) }, 'identity_mismatch'],
    [{ offerHash: '0e'.repeat(32) }, 'identity_mismatch'],
    [{ fromKey: CAROL.key }, 'identity_mismatch'],
    [{ fromKey: CAROL.key }, 'identity_mismatch', CAROL],
    [{}, 'identity_mismatch', MALLORY],
    [{}, 'identity_mismatch', ALICE],
    [{ toKey: CAROL.key }, 'identity_mismatch'],
    [{ fromPeer: '3' }, 'identity_mismatch'],
    [{ toPeer: '3' }, 'identity_mismatch'],
    [{ fromInstance: await instanceOf('alice 1 ') }, 'identity_mismatch'],
    [{ issued: NOW - CLOCK_WINDOW }, null],
    [{ issued: NOW + CLOCK_WINDOW }, null],
    [{ issued: NOW - CLOCK_WINDOW - 1 }, 'clock_skew'],
    [{ issued: NOW + CLOCK_WINDOW + 1 }, 'clock_skew'],
    [{ sdp: SDP_B.replace('sha-256', 'sha-1') }, 'protocol_error'],
  ];
  for (const [changes, code, signer] of cases) {
    const alice = await Side.of('alice', '1');
    const outgoing = await alice.offer('2', 'bob');
    const take = async (...signed: [Bytes, Bytes]) => alice.introductions.receiveAnswer(outgoing, '2', ...signed, NOW);
    const taken = take(...(await answerWith(outgoing, changes, signer)));
    if (code === null) {
      assert.equal((await taken).sdp, SDP_B);
      continue;
    }
    await assert.rejects(taken, fails(code), JSON.stringify(changes));
    await take(...(await answerWith(outgoing)));
  }
});

test('an answer from another peer than was called, or to another offer, is refused', async () => {
  const { introductions, ...alice } = await Side.of('alice', '1');
  const outgoing = await introductions.makeOffer(SESSION, '2', 'bob', SDP_A, NOW);
  assert.equal(outgoing.fromPeer, alice.peerId);
  for (const changes of [{}, { fromPeer: '3' }]) {
    const taken = introductions.receiveAnswer(outgoing, '3', ...(await answerWith(outgoing, changes)), NOW);
    await assert.rejects(taken, fails('identity_mismatch'));
  }
  const second = await introductions.makeOffer('0f'.repeat(16), '2', 'bob', SDP_A, NOW);
  const mixed = introductions.receiveAnswer(second, '2', ...(await answerWith(outgoing)), NOW);
  await assert.rejects(mixed, fails('identity_mismatch'));
});

test('an offer is no answer', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  const { blob, signature } = await bob.offer('1', 'alice');
  const taken = alice.introductions.receiveAnswer(outgoing, '2', blob, signature, NOW);
  await assert.rejects(taken, fails('protocol_error'));
});

test('nothing goes on when trust ends in between', async () => {
  const [alice, bob] = await both();
  const outgoing = await alice.offer('2', 'bob');
  const incoming = await bob.take('1', 'alice', outgoing);
  await alice.book.discard('bob');
  await bob.book.discard('alice');
  const answered = alice.introductions.receiveAnswer(outgoing, '2', ...(await answerWith(outgoing)), NOW);
  await assert.rejects(answered, fails('not_trusted'));
  await assert.rejects(bob.introductions.makeAnswer(incoming, SDP_B, NOW), fails('not_trusted'));
  await assert.rejects(alice.offer('2', 'bob'), fails('not_trusted'));
});

// -- peer ids --------------------------------------------------------------------------------------------------------

test('a peer id never changes its account, nor its instance', async () => {
  const bob = await Side.of('bob', '2');
  await bob.take('5', 'alice', await (await Side.of('alice', '5')).offer('2', 'bob'));
  const asCarol = await (await Side.of('carol', '5')).offer('2', 'bob');
  await assert.rejects(bob.take('5', 'carol', asCarol), fails('identity_mismatch', /another one before/));
  await assert.rejects(bob.offer('5', 'carol'), fails('identity_mismatch', /it is not/));
  await bob.offer('5', 'alice');
  const restarted = await (await Side.of('alice', '5', 'second life')).offer('2', 'bob', SDP_A, '03'.repeat(16));
  await assert.rejects(bob.take('5', 'alice', restarted), fails('identity_mismatch', /another one before/));
});

test('an answer counts for the peer id as an offer does', async () => {
  const alice = await Side.of('alice', '1');
  const outgoing = await alice.offer('2', 'bob');
  await alice.introductions.receiveAnswer(outgoing, '2', ...(await answerWith(outgoing)), NOW);
  for (const [name, sender] of [
    ['carol', await Side.of('carol', '2')],
    ['bob', await Side.of('bob', '2', 'second life')],
  ] as const) {
    const taken = alice.take('2', name, await sender.offer('1', 'alice'));
    await assert.rejects(taken, fails('identity_mismatch', /another one before/));
  }
});

// -- session descriptions --------------------------------------------------------------------------------------------

test('session descriptions', async () => {
  const alice = await Side.of('alice', '1');
  for (const { sdp, ok } of identity.sessionDescriptions) {
    if (ok) {
      checkSdp(sdp);
    } else {
      assert.throws(() => checkSdp(sdp), fails('protocol_error'), sdp);
      await assert.rejects(alice.offer('2', 'bob', sdp), TypeError);
    }
  }
});

test('a long session description is checked in no time', () => {
  // The pattern must not go over a line again and again: then this would not end.
  const size = 16_384;
  for (const sdp of ['a'.repeat(size), '\n'.repeat(size) + '\0', 'a\r'.repeat(size / 2), ' '.repeat(size) + '\n\n\0']) {
    assert.throws(() => checkSdp(sdp), fails('protocol_error'));
  }
});

// -- anything --------------------------------------------------------------------------------------------------------

test('any garbage is refused in a typed way', async () => {
  const alice = await Side.of('alice', '1');
  const outgoing = await alice.offer('2', 'bob');
  for (let size = 0; size < 300; size += 7) {
    const [blob, signature] = [randomBytes(size), randomBytes(size % 70)];
    await assert.rejects(
      alice.introductions.receiveOffer('2', null, blob, signature, NOW),
      fails('protocol_error'),
    );
    await assert.rejects(alice.introductions.receiveAnswer(outgoing, '2', blob, signature, NOW), BVError);
  }
});

test('the session that a message is of', async () => {
  const outgoing = await (await Side.of('alice', '1')).offer('2', 'bob');
  const [answer] = await answerWith(outgoing);
  const session = fromHex(SESSION);
  assert.equal(sessionOf({ offer: outgoing.blob }), SESSION);
  assert.equal(sessionOf({ answer }), SESSION);
  assert.equal(sessionOf({ session }), SESSION);
  const junk = utf8('junk');
  for (const nothing of [{ answer: junk, session }, {}, { offer: answer }, { session: junk }]) {
    assert.equal(sessionOf(nothing), null);
  }
});
