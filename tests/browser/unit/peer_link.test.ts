/** Calls over a link in memory: answers, failures, cancelling, holding, draining, the end. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { CallMoved } from '../../../server/browser/src/peer_link.ts';
import { REQUEST } from '../../../server/browser/src/wire/frame_types.ts';
import { encode, encodeHold, split } from '../../../server/browser/src/wire/frames.ts';
import { call, linked, pair, quietly, slowly, stream, until, type End } from './linked.ts';

const echo = ({ bob }: { bob: End }): void => bob.host.serve('Echo', ({ request }) => request);
const fails = (code: string) => (error: unknown) => error instanceof BVError && error.code === code;

test('values and bytes of any size go both ways', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    alice.host.serve('Echo', ({ request }) => request);
    const bytes = crypto.getRandomValues(new Uint8Array(65_536));
    const large = new Uint8Array(3_000_000).map((_, index) => bytes[index % 65_521]!);
    for (const end of [alice, bob]) {
      for (const value of [null, 'text', { a: [1, 2, { b: 'ä'.repeat(20_000) }] }, bytes, new Uint8Array(), large]) {
        assert.deepEqual(await call(end, 'Echo', value), value);
      }
    }
    assert.deepEqual(await call(alice, 'Echo', new Blob([bytes])), bytes);
    assert.equal(await call(alice, 'Echo'), null);
    assert.equal(alice.host.counters.calls_made, 8);
    assert.equal(bob.host.counters.calls_served, 8);
  }));

test('frames of one turn share a message, and a lone call goes at once', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    await until(() => alice.pipe.buffered === 0 && bob.pipe.buffered === 0);
    alice.pipe.sent.length = 0;
    const lone = alice.link.call('Echo', new TextEncoder().encode('1'), false, { timeout: 5 });
    assert.equal(alice.pipe.sent.length, 1);
    await lone;
    alice.pipe.sent.length = 0;
    bob.pipe.sent.length = 0;
    await Promise.all(Array.from({ length: 20 }, (_, index) => call(alice, 'Echo', index)));
    const requests = alice.pipe.sent.flatMap((message) => split(message)).filter(({ type }) => type === REQUEST);
    assert.equal(requests.length, 20);
    assert.ok(alice.pipe.sent.length <= 3, `${alice.pipe.sent.length} messages`);
    assert.ok(bob.pipe.sent.length <= 4, `${bob.pipe.sent.length} messages`);
  }));

test('a link that no call has used yet can be told apart: the pool leaves it alone for a moment', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    for (const { link } of [alice, bob]) assert.equal(link.usedAt, link.openedAt);
    await new Promise((done) => setTimeout(done, 5));
    await call(alice, 'Echo', 1);
    for (const { link } of [alice, bob]) assert.ok(link.usedAt > link.openedAt);
  }));

test('whether what waits gets away can be watched', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    await until(() => alice.pipe.buffered === 0);
    const nothingWaits = alice.link.watchLeaving();
    await call(alice, 'Echo', 1);
    assert.equal(nothingWaits(), false, 'what never had to wait shows nothing');
    alice.pipe.held = true;
    const held = call(alice, 'Echo', 2);
    await until(() => alice.pipe.buffered > 0);
    const leaves = alice.link.watchLeaving();
    const more = call(alice, 'Echo', 3);
    await new Promise((done) => setTimeout(done, 5));
    assert.equal(leaves(), false);
    alice.pipe.letGo();
    assert.deepEqual(await Promise.all([held, more]), [2, 3]);
    assert.equal(leaves(), true);
  }));

test('a small call overtakes a long body', () =>
  linked(async (alice, bob) => {
    const order: number[] = [];
    bob.host.serve('Size', ({ request }) => {
      order.push(request.length);
      return request.length;
    });
    const long = call(alice, 'Size', new Uint8Array(4_000_000));
    const small = call(alice, 'Size', new Uint8Array(3));
    assert.deepEqual(await Promise.all([long, small]), [4_000_000, 3]);
    assert.deepEqual(order, [3, 4_000_000]);
  }));

test('a call of ours that serves a call of theirs', () =>
  linked(async (alice, bob) => {
    alice.host.serve('Name', () => 'alice');
    bob.host.serve('Ask', async () => `hello ${await call(bob, 'Name')}`);
    assert.equal(await call(alice, 'Ask'), 'hello alice');
  }));

test('an error tells who it comes from', () =>
  linked(async (alice) => {
    await assert.rejects(call(alice, 'Nobody'), (error: any) => {
      assert.equal(error.code, 'no_module');
      assert.equal(error.peer, '2');
      return true;
    });
  }));

test('a call has its time, and the handler is told', () =>
  linked(async (alice, bob) => {
    let signal: AbortSignal | undefined;
    bob.host.serve('Never', (e) => {
      signal = e.signal;
      return new Promise(() => {});
    });
    await assert.rejects(call(alice, 'Never', null, { timeout: 0.1 }), fails('deadline'));
    await until(() => signal!.aborted);
    assert.equal(alice.link.active, 0);
    await until(() => bob.link.active === 0);
  }));

test('an aborted call is cancelled on both sides', () =>
  linked(async (alice, bob) => {
    let signal: AbortSignal | undefined;
    bob.host.serve('Wait', (e) => void (signal = e.signal));
    const abort = new AbortController();
    const waiting = call(alice, 'Wait', null, { signal: abort.signal });
    await until(() => signal);
    abort.abort();
    await assert.rejects(waiting, fails('cancelled'));
    await until(() => signal!.aborted);
    assert.equal((signal!.reason as BVError).code, 'cancelled');
    await assert.rejects(call(alice, 'Wait', null, { signal: abort.signal }), fails('cancelled'));
  }));

test('a request that is too long for the other side is not sent, and neither is such a response', () =>
  linked(
    async (alice, bob) => {
      bob.host.serve('Long', () => 'x'.repeat(3000));
      await assert.rejects(call(alice, 'Long', 'x'.repeat(3000)), fails('too_large'));
      await assert.rejects(call(alice, 'Long'), fails('too_large'));
    },
    { settings: { maxBody: 2000 } },
    { settings: { maxBody: 1000 } },
  ));

test('more calls than the other side takes wait for each other', () =>
  linked(
    async (alice, bob) => {
      const slow = slowly();
      bob.host.serve('Slow', slow.handler);
      await Promise.all(Array.from({ length: 10 }, () => call(alice, 'Slow')));
      assert.equal(slow.most, 3);
    },
    {},
    { settings: { maxCalls: 3 } },
  ));

test('a ping measures the round trip, and has its time', () =>
  linked(async (alice, bob) => {
    assert.ok((await alice.link.ping(5)) >= 0);
    assert.ok(alice.link.roundTrip! >= 0);
    bob.pipe.held = true;
    await assert.rejects(alice.link.ping(0.05), fails('deadline'));
    alice.link.doubt();
    assert.ok(alice.link.doubted);
    bob.pipe.letGo();
    await until(() => !alice.link.doubted);
    alice.link.close();
    await assert.rejects(alice.link.ping(5), fails('link_lost'));
  }));

// -- the beginning and the end ----------------------------------------------------------------------------------------

test('nothing but hello is sent before the other side is proved', async () => {
  let prove: ((right: boolean) => void) | undefined;
  const [alice, bob] = pair({ accepts: () => new Promise((done) => (prove = done)) });
  await bob.link.prove();
  bob.link.doubt();
  await until(() => prove !== undefined && bob.pipe.buffered === 0);
  assert.ok(!alice.link.usable && !alice.link.proved);
  await assert.rejects(call(alice, 'Echo'), CallMoved);
  assert.equal(alice.pipe.sent.length, 1);
  assert.equal(alice.life.state, 'proof');
  prove!(true);
  await alice.link.prove();
  assert.ok(alice.link.usable && alice.link.proved);
  assert.equal(alice.life.state, 'open');
  await until(() => !bob.link.doubted);
  alice.link.close();
  bob.link.close();
});

test('a wrong proof ends the link', async () => {
  const lines = await quietly(async () => {
    const [alice, bob] = pair({ accepts: async () => false });
    await assert.rejects(alice.link.prove(), fails('identity_mismatch'));
    assert.equal(alice.link.ended, 'identity_mismatch');
    assert.equal(alice.life.state, 'failed');
    await bob.link.gone;
  });
  assert.ok(lines.some((line) => line.includes('identity_mismatch')));
});

test('a proof that cannot be looked at is a wrong one', () =>
  quietly(async () => {
    const [alice, bob] = pair({ accepts: () => Promise.reject(new Error('no crypto')) });
    await assert.rejects(alice.link.prove(), fails('identity_mismatch'));
    await bob.link.gone;
  }).then(() => {}));

test('a malformed message ends the link with protocol_error, calls under way included', () =>
  quietly(() =>
    linked(async (alice, bob) => {
      bob.host.serve('Wait', () => {});
      const waiting = call(alice, 'Wait');
      await until(() => bob.link.active === 1);
      bob.pipe.send(encode(0x7f));
      await assert.rejects(waiting, fails('protocol_error'));
      assert.equal(alice.link.ended, 'protocol_error');
      assert.equal((await alice.link.gone).code, 'protocol_error');
      assert.equal(alice.life.state, 'closed');
      assert.equal((await bob.link.gone).code, 'link_lost');
      assert.equal(alice.closed, 1);
      assert.equal(bob.closed, 1);
    }),
  ).then(() => {}));

test('a link that ends takes its calls with it, and each gets an error of its own', () =>
  linked(async (alice, bob) => {
    let signal: AbortSignal | undefined;
    bob.host.serve('Wait', (e) => void (signal = e.signal));
    const waiting = [call(alice, 'Wait'), call(alice, 'Wait')];
    await until(() => bob.link.active === 2);
    bob.link.close();
    const [one, other] = (await Promise.allSettled(waiting)).map((result: any) => result.reason);
    assert.equal(one.code, 'link_lost');
    assert.equal(one.peer, '2');
    assert.ok(one !== other);
    assert.ok(signal!.aborted);
    assert.equal(alice.link.ended, 'closed_by_peer');
    assert.equal(bob.link.ended, 'closed');
    await assert.rejects(call(alice, 'Wait'), CallMoved);
    bob.link.close();
    assert.equal(bob.closed, 1);
  }));

test('a drained link finishes its calls, gives back what was not begun, and closes', () =>
  linked(async (alice, bob) => {
    let answer!: (value: unknown) => void;
    bob.host.serve('Wait', (e) => void (answer = e.callback));
    const begun = call(alice, 'Wait');
    await until(() => answer);
    alice.pipe.held = true;
    const crossing = call(alice, 'Wait');
    bob.link.drain('stopping');
    await assert.rejects(crossing, CallMoved);
    alice.pipe.letGo();
    assert.equal(alice.life.state, 'draining');
    assert.ok(!alice.link.usable);
    answer('done');
    assert.equal(await begun, 'done');
    await Promise.all([alice.link.gone, bob.link.gone]);
    assert.ok(['drained', 'closed_by_peer'].includes(alice.link.ended), alice.link.ended);
    assert.equal(bob.life.state, 'closed');
  }));

// -- holding ----------------------------------------------------------------------------------------------------------

test('a link that no side holds ends when nothing uses it', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    await call(alice, 'Echo', 1, { keepAlive: false });
    await Promise.all([alice.link.gone, bob.link.gone]);
    assert.equal(alice.link.ended, 'drained');
    assert.ok(alice.idle >= 1);
  }));

test('a call that keeps it alive holds it for a while', () =>
  linked(
    async (alice, bob) => {
      echo({ bob });
      await call(alice, 'Echo', 1);
      await call(alice, 'Echo', 1, { keepAlive: false });
      assert.ok(alice.link.wantedUntil > 0 && alice.link.isWanted);
      await new Promise((done) => setTimeout(done, 50));
      assert.ok(alice.link.usable);
      await alice.link.gone;
      assert.equal(alice.link.missedUntil, 0);
    },
    { idleTimeout: 0.2 },
  ));

test('a link may be held without end', () =>
  linked(
    async (alice, bob) => {
      echo({ bob });
      await call(alice, 'Echo', 1);
      await new Promise((done) => setTimeout(done, 20));
      assert.ok(alice.link.usable && alice.link.wantedUntil === Infinity);
    },
    { idleTimeout: Infinity },
  ));

test('a link that was dialled and never used is held no longer than others', () =>
  linked(async (alice) => assert.equal((await alice.link.gone).code, 'link_lost'), { idleTimeout: 0.05 }));

test('a hold that is kept over from another link', () =>
  linked(
    async (alice, bob) => {
      bob.link.keep(performance.now() / 1000 + 0.3);
      await until(() => alice.link.isWanted && bob.link.wantedUntil > 0);
      await until(() => !alice.link.usable);
    },
    { idleTimeout: 0.05 },
    { idleTimeout: 1 },
  ));

// -- a remote peer that does not keep up ------------------------------------------------------------------------------

test('what is not taken holds up new calls, which have their time', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    await call(alice, 'Echo', 1);
    alice.pipe.held = true;
    const sending = Promise.all(Array.from({ length: 1100 }, () => call(alice, 'Echo', 'x'.repeat(4090))));
    await until(() => alice.host.counters.limited['send_buffer'] === 1);
    await assert.rejects(call(alice, 'Echo', 1, { timeout: 0.05 }), fails('deadline'));
    const signal = AbortSignal.timeout(20);
    await assert.rejects(call(alice, 'Echo', 1, { signal }), fails('cancelled'));
    alice.pipe.letGo();
    assert.equal((await sending).length, 1100);
    assert.equal(await call(alice, 'Echo', 1), 1);
  }));

test('a hold that comes twice changes nothing', () =>
  linked(async (alice, bob) => {
    echo({ bob });
    bob.pipe.send(encodeHold(true));
    bob.pipe.send(encodeHold(true));
    assert.equal(await call(alice, 'Echo', 1, { keepAlive: false }), 1);
    assert.ok(alice.link.usable);
  }));

test('a stream is left at once when its signal aborts', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Count', async function* () {
      for (let number = 0; ; number++) yield number;
    });
    const abort = new AbortController();
    const items = await stream(alice, 'Count', null, { signal: abort.signal });
    assert.deepEqual(await items.next(), { done: false, value: 0 });
    abort.abort();
    await assert.rejects(async () => {
      for await (const _ of items);
    }, fails('cancelled'));
    await until(() => bob.link.active === 0);
  }));
