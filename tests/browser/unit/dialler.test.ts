/** From a connection request to a proved link, on both sides, and all that can happen between. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { sessionOf } from '../../../server/browser/src/wire/introductions.ts';
import { until, Wire, type Message } from './wire.ts';

const wired = (name: string, run: (wire: Wire) => Promise<void>): void => void test(name, () => Wire.run(run));
const SHORT = { pool: { connectTimeout: 300 } };
const bytes = (...values: number[]): Uint8Array<ArrayBuffer> => Uint8Array.from(values);

wired('a link comes about, and both know whom they talk to', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  assert.deepEqual(await alice.call(bob, 7), ['alice', 7]);
  assert.deepEqual(await bob.call(alice, 8), ['bob', 8]);
  const steps = (node: string[]): string => node.map((state) => state.split(' ')[1]).join(' ');
  assert.equal(steps(alice.states), 'gathering relay answer checking dtls proof open');
  assert.equal(steps(bob.states), 'gathering checking dtls proof open');
  const [link] = alice.links.pool.links();
  assert.equal(link!.remote.name, 'bob');
  assert.match(link!.remote.fingerprint, /^\w{4}(-\w{4})+$/);
  assert.equal(alice.links.info()[0]!.state, 'open');
  const [row] = (await bob.links.describe()) as [{ peer: unknown; dialled: boolean; path: { local: string } }];
  assert.deepEqual([row.peer, row.dialled, row.path.local], [{ name: 'alice', id: '1' }, false, 'host']);
});

test('dialling at once ends with one link, and no call is lost', async () => {
  for (let turn = 0; turn < 15; turn++) {
    await Wire.run(async (wire) => {
      wire.delay = () => (Math.random() < 0.5 ? 0 : Math.random() * 30);
      wire.network.delay = (turn % 5) / 500;
      const [alice, bob] = [wire.node('alice', turn % 2 ? 1 : 20), wire.node('bob', 10)];
      const answers = await Promise.all(
        Array.from({ length: 6 }, (_, number) => [alice.call(bob, number), bob.call(alice, number)]).flat(),
      );
      assert.deepEqual(
        answers,
        Array.from({ length: 6 }, (_, number) => [
          ['alice', number],
          ['bob', number],
        ]).flat(),
      );
      const counts = (): number[] => [alice, bob].map((node) => node.links.pool.links().length);
      await until(() => counts().every((count) => count === 1));
      const [ours, theirs] = [alice, bob].map((node) => node.links.pool.links()[0]!);
      assert.ok(ours!.usable && theirs!.usable && ours!.offerer !== theirs!.offerer);
      assert.deepEqual([alice.refused, bob.refused], [[], []]);
    });
  }
});

wired('the offer of the smaller id wins', async (wire) => {
  const [alice, bob] = [wire.node('alice', 9), wire.node('bob', 10)];
  wire.delay = () => 20;
  await Promise.all([alice.call(bob, 1), bob.call(alice, 2)]);
  await until(() => alice.links.pool.links().length === 1);
  assert.equal(alice.links.pool.links()[0]!.offerer, true);
});

wired('whatever becomes of an offer, something is said to it', async (wire) => {
  // The server lets few offers of a pair pass to which nothing was said, for half a minute.
  const [alice, bob] = [wire.node('alice', 9), wire.node('bob', 10)];
  const open = new Map<string, string>();
  let asked = 0;
  wire.bend = (message) => {
    if (message.type === 'peerRequest') {
      asked++;
      open.set(sessionOf(message)!, message.to);
    } else if (message.type === 'peerResponse' && open.get(sessionOf(message)!) === message.from) {
      open.delete(sessionOf(message)!);
    }
    return message;
  };
  wire.delay = () => 20;
  for (let turn = 0; turn < 5; turn++) {
    await Promise.all([alice.call(bob, 1), bob.call(alice, 2)]); // both dial, and one of the offers loses
    for (const { links } of [alice, bob]) links.closeAll();
    await until(() => [alice, bob].every(({ links }) => links.pool.links().length === 0));
  }
  const dialling = alice.link(bob);
  const before = asked;
  for (let number = 1; number <= 3; number++) {
    await until(() => asked >= before + number);
    alice.links.peerReturned(bob.id); // another offer takes the place of the one before
  }
  assert.equal((await dialling).usable, true);
  await until(() => open.size === 0);
  assert.equal(asked, 5 * 2 + 4);
  assert.deepEqual([alice.refused, bob.refused], [[], []]);
});

wired('an offer of ours that is lost does not keep us from answering theirs', async (wire) => {
  const [alice, bob] = [wire.node('alice', 9), wire.node('bob', 10)];
  wire.bend = (message) => (message.type === 'peerRequest' && message.from === '9' ? null : message);
  const wanted = alice.link(bob);
  assert.deepEqual(await bob.call(alice, 2), ['bob', 2]);
  assert.equal((await wanted).offerer, false);
});

wired('an answer that never comes is connect_failed, with the phase, what was tried and what to do', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1, SHORT), wire.node('bob', 2)];
  wire.bend = (message) => (message.type === 'peerResponse' ? null : message);
  const { code, message } = await alice.failure(bob);
  assert.equal(code, 'connect_failed');
  assert.match(message, /^no link to bob\/2 within 0\.[0-3]\d* s; it was waiting for the other peer's answer /);
  assert.match(message, / \(ours: host; theirs: none\)\. The/);
  assert.deepEqual(alice.states.at(-1), '2 failed');
  assert.ok(wire.network.connections.slice(0, 1).every(({ stage }) => stage === 'ended'));
});

wired('a path that is not found is connect_failed while checking', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1, SHORT), wire.node('bob', 2, SHORT)];
  wire.network.isBroken = true;
  const { message } = await alice.failure(bob);
  assert.match(
    message,
    /it was looking for a path \(ours: host; theirs: host\)\. There is no direct way between the two networks: set /,
  );
  await until(() => wire.network.connections.every(({ stage }) => stage === 'ended'));
});

wired('a callee that cannot answer says so at once', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.bend = (message) => {
    wire.network.hasAddress = message.type !== 'peerRequest';
    return message;
  };
  const { code, message } = await alice.failure(bob);
  assert.equal(code, 'connect_failed');
  assert.match(message, /bob\/2 refused: the other side failed: .* while gathering candidates: there is no address/);
  assert.equal(bob.states.at(-1), '1 failed');
});

wired('a browser that makes no more connections is connect_failed', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.network.refusal = new DOMException('Cannot create so many PeerConnections', 'UnknownError');
  const error = await alice.failure(bob);
  assert.equal(error.code, 'connect_failed');
  assert.match(error.message, /so many PeerConnections/);
});

wired('what the server refuses is told at once', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.refusal = new BVError('peer_offline', 'no such peer');
  assert.equal((await alice.failure(bob)).code, 'peer_offline');
  alice.peers.delete('2');
  assert.equal((await alice.failure(bob)).code, 'peer_offline');
});

wired('a peer that may not have got the offer gets another, and an earlier answer is too late', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  const held: Message[] = [];
  wire.bend = (message) => {
    if (message.type !== 'peerResponse' || held.length) return message;
    held.push(message);
    return null;
  };
  const wanted = alice.call(bob, 5);
  await until(() => held.length === 1);
  wire.bend = (message) => {
    if (message.type === 'peerRequest') setTimeout(() => alice.receive(held[0]!)); // the earlier one comes after all
    return message;
  };
  alice.links.peerReturned('2');
  assert.deepEqual(await wanted, ['alice', 5]);
  assert.deepEqual(alice.refused, []);
});

wired('a connection to the server that is lost meanwhile does not end an attempt', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.refusal = new BVError('unavailable', 'offline');
  const wanted = alice.call(bob, 6);
  await until(() => alice.states.at(-1) === '2 relay');
  alice.links.wentOffline();
  wire.refusal = null;
  alice.links.wentOnline('1');
  assert.deepEqual(await wanted, ['alice', 6]);
});

for (const [code, sent, expected] of [
  ['link_limit', 0.05, 'link_limit'],
  ['rate_limited', 7, 'rate_limited'],
  ['identity_mismatch', undefined, 'connect_failed'],
  ['login_refused', undefined, 'connect_failed'],
] as const) {
  wired(`a refusal with ${code} is ${expected} here`, async (wire) => {
    const [alice, bob] = [wire.node('alice', 1, SHORT), wire.node('bob', 2)];
    wire.bend = (message) => {
      if (message.type !== 'peerRequest') return message;
      const error = { code, message: 'full\x1b[31m\nall is well', ...(sent !== undefined && { retryAfter: sent }) };
      const session = Uint8Array.from(sessionOf(message)!.match(/../g)!, (pair) => parseInt(pair, 16));
      setTimeout(() => alice.receive({ type: 'peerResponse', to: '1', from: '2', session, error }));
      return null;
    };
    const error = await alice.failure(bob);
    assert.equal(error.code, expected);
    assert.equal(error.retryAfter, sent);
    assert.match(error.message, /bob\/2 refused: full\?\[31m\?all is well/);
    assert.deepEqual(alice.refused, []);
  });
}

wired('a stranger is refused and reported', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  bob.trusts = (name) => name !== 'alice';
  assert.equal((await alice.failure(bob)).code, 'not_trusted');
  assert.deepEqual(bob.refused, ['not_trusted']);
});

wired('whoever is no contact is not dialled', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  alice.trusts = (name) => name !== 'bob';
  assert.equal((await alice.failure(bob)).code, 'not_trusted');
});

for (const type of ['peerRequest', 'peerResponse'] as const) {
  wired(`a bent signature in a ${type} is refused and reported`, async (wire) => {
    const [alice, bob] = [wire.node('alice', 1, SHORT), wire.node('bob', 2)];
    wire.bend = (message) => {
      if (message.type !== type || !('signature' in message) || !message.signature) return message;
      const signature = message.signature.slice();
      signature[5]! ^= 1;
      return { ...message, signature } as Message;
    };
    const error = await alice.failure(bob);
    const [who, code] = type === 'peerRequest' ? [bob, 'connect_failed'] : [alice, 'identity_mismatch'];
    assert.equal(error.code, code);
    assert.deepEqual(who.refused, ['identity_mismatch']);
  });
}

wired('an answer to nothing is reported, one that is late is not', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1, SHORT), wire.node('bob', 2)];
  alice.receive({ type: 'peerResponse', to: '1', from: '2', answer: bytes(1), signature: bytes() });
  assert.deepEqual(alice.refused, ['identity_mismatch']);
  const kept: Message[] = [];
  wire.bend = (message) => {
    if (message.type !== 'peerResponse') return message;
    kept.push(message);
    return null;
  };
  await alice.failure(bob);
  alice.receive(kept[0]!);
  assert.equal(alice.refused.length, 1);
  alice.receive({ ...kept[0]!, from: '3' });
  assert.equal(alice.refused.length, 2);
  alice.receive({ type: 'peerResponse', to: '1', from: '2' });
  alice.receive({ type: 'peerResponse', to: '1', from: '2', session: bytes(...Array(16).fill(0)) });
  assert.equal(alice.refused.length, 2, 'a refusal of nothing does no harm');
});

wired('an offer that comes twice is reported and answered once', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.bend = (message) => {
    if (message.type === 'peerRequest') setTimeout(() => bob.receive(message), 30);
    return message;
  };
  assert.deepEqual(await alice.call(bob, 1), ['alice', 1]);
  await until(() => bob.refused.length === 1);
  assert.deepEqual(bob.refused, ['identity_mismatch']);
  assert.deepEqual(await alice.call(bob, 2), ['alice', 2]);
});

wired('a later offer of a peer takes the place of its earlier one', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  let lost = 1;
  wire.bend = (message) => (message.type === 'peerResponse' && lost-- > 0 ? null : message);
  const given = new AbortController();
  const first = alice.failure(bob, given.signal);
  await until(() => lost === 0);
  given.abort(new BVError('cancelled'));
  assert.equal((await first).code, 'cancelled');
  assert.deepEqual(await alice.call(bob, 3), ['alice', 3]);
  assert.ok(bob.states.filter((state) => state === '1 failed').length === 1);
});

wired('candidates that come ahead of a connection, and behind an answer, are tried', async (wire) => {
  const text = 'candidate:1 1 udp 1 192.0.2.9 9 typ relay';
  wire.network.delay = 0.05;
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.bend = (message) => {
    const session = message.type !== 'peerCandidate' && sessionOf(message);
    if (session) {
      const raw = Uint8Array.from(session.match(/../g)!, (pair) => parseInt(pair, 16));
      const [to, from] = [message.to, message.from!];
      const follow = (): void =>
        wire.nodes.get(to)!.receive({ type: 'peerCandidate', to, from, session: raw, candidate: text });
      setTimeout(() => setTimeout(follow, message.type === 'peerRequest' ? 0 : 20));
    }
    return message;
  };
  await alice.call(bob, 1);
  assert.deepEqual(
    wire.network.connections.map(({ candidates }) => candidates),
    [[text], [text]],
  );
});

wired('candidates that are found late are sent behind the description, again with another offer', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  const sent: string[] = [];
  wire.bend = (message) => {
    sent.push(`${message.from} ${message.type}`);
    return message.type === 'peerResponse' && sent.length < 6 ? null : message;
  };
  const wanted = alice.call(bob, 1);
  await until(() => wire.network.connections.length === 2 && sent.includes('2 peerResponse'));
  for (const connection of wire.network.connections) connection.onCandidate!('candidate:late');
  assert.deepEqual(sent.splice(0), ['1 peerRequest', '2 peerResponse', '1 peerCandidate', '2 peerCandidate']);
  wire.bend = (message) => (sent.push(`${message.from} ${message.type}`), message);
  alice.links.peerReturned('2');
  await wanted;
  assert.deepEqual(sent.slice(0, 2), ['1 peerRequest', '1 peerCandidate']);
});

wired('an account whose peer broke the rules is kept away for a moment', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  await alice.call(bob, 1);
  for (const link of wire.network.links) link.receive('a text');
  await until(() => !alice.links.pool.links().length && !bob.links.pool.links().length);
  const error = await alice.failure(bob);
  assert.equal(error.code, 'rate_limited');
  assert.ok(error.retryAfter! > 0 && error.retryAfter! <= 1);
});

wired('what is being made when the network changes is made anew', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  let lost = true;
  wire.bend = (message) => (message.type === 'peerResponse' && lost ? null : message);
  const wanted = alice.call(bob, 4);
  await until(() => alice.states.at(-1) === '2 answer');
  lost = false;
  alice.links.networkChanged();
  assert.deepEqual(await wanted, ['alice', 4]);
});

wired('whoever moves while it is dialled dials the other side', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1, SHORT), wire.node('bob', 2)];
  wire.bend = (message) => (message.type === 'peerResponse' ? null : message);
  const wanted = alice.link(bob).catch(() => null); // it gets that one, or gives up before
  await until(() => bob.states.at(-1) === '1 checking');
  wire.bend = (message) => message;
  bob.links.networkChanged();
  await until(() => bob.links.pool.current('1') !== null);
  await wanted;
});

wired('giving up closes the connection', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  wire.bend = () => null;
  const given = new AbortController();
  const failed = alice.failure(bob, given.signal);
  await until(() => alice.states.at(-1) === '2 answer');
  given.abort(new BVError('cancelled'));
  assert.equal((await failed).code, 'cancelled');
  await until(() => wire.network.connections[0]!.stage === 'ended');
  assert.equal(alice.states.at(-1), '2 failed');
});

wired('trust that ends ends the links', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  await alice.call(bob, 1);
  bob.trusts = (name) => name !== 'alice';
  bob.links.cut(bob.links.pool.links()[0]!.remote.key, 'alice');
  await until(() => !alice.links.pool.links().length);
  assert.equal((await alice.failure(bob)).code, 'not_trusted');
});

wired('while the server is away no link is begun, and for no longer than some seconds waited for', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  alice.links.wentOffline();
  const wanted = alice.call(bob, 9);
  await new Promise((done) => setTimeout(done, 20));
  assert.equal(alice.states.length, 0);
  alice.links.wentOnline('1');
  assert.deepEqual(await wanted, ['alice', 9]);
});

wired('links are closed at once when the page goes away', async (wire) => {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  await alice.call(bob, 1);
  alice.links.closeAll();
  assert.deepEqual(alice.links.pool.links(), []);
  await until(() => !bob.links.pool.links().length);
  assert.equal(bob.states.at(-1), '1 closed');
});
