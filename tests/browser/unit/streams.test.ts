/** Streams over a link in memory: both ways, with credit, and however they end. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { checkItems, type ReceivedItems } from '../../../server/browser/src/items.ts';
import type { Handler } from '../../../server/browser/src/types.ts';
import { call, linked, quietly, stream, until, type End } from './linked.ts';

const fails = (code: string) => (error: unknown) => error instanceof BVError && error.code === code;

async function all(items: AsyncIterable<any>): Promise<any[]> {
  const found = [];
  for await (const item of items) found.push(item);
  return found;
}

/** Serve a module that counts up; tells how it ended. */
function counting(end: End, most = Infinity): { ended: string; sent: number } {
  const state = { ended: '', sent: 0 };
  end.host.serve('Count', async function* () {
    try {
      for (; state.sent < most; state.sent++) yield state.sent;
      state.ended = 'whole';
    } finally {
      state.ended ||= 'left';
    }
  });
  return state;
}

test('an answer in items, values and bytes of any size', () =>
  linked(async (alice, bob) => {
    const large = new Uint8Array(524_288).fill(7);
    const sent = [1, null, 'two', { three: [3] }, new Uint8Array(), new Uint8Array([4, 5]), large, 'x'.repeat(100_000)];
    bob.host.serve('Each', async function* () {
      yield* sent;
    });
    assert.deepEqual(await all(await stream(alice, 'Each')), sent);
    assert.equal(bob.host.counters.items_sent, sent.length);
    assert.equal(alice.host.counters.items_received, sent.length);
    await until(() => alice.link.active === 0 && bob.link.active === 0);
  }));

test('what stands for a stream, and what is a value', () =>
  linked(async (alice, bob) => {
    const given: Record<string, Handler> = {
      generator: function* () {
        yield 1;
        yield 2;
      },
      promised: async () => [1, 2].values(),
      iterator: () => [1, 2].values(),
      readable: () => new Blob([new Uint8Array([1, 2])]).stream(),
      'by callback': (e) => void setTimeout(() => e.callback([1, 2].values())),
      list: () => [1, 2],
      text: () => 'ab',
    };
    for (const [name, handler] of Object.entries(given)) bob.host.serve(name, handler);
    for (const name of ['generator', 'promised', 'iterator', 'by callback']) {
      assert.deepEqual(await all(await stream(alice, name)), [1, 2]);
      await assert.rejects(call(alice, name), fails('bad_request'));
    }
    assert.deepEqual(await all(await stream(alice, 'readable')), [new Uint8Array([1, 2])]);
    assert.deepEqual(await call(alice, 'list'), [1, 2]);
    assert.equal(await call(alice, 'text'), 'ab');
    assert.deepEqual(await all(await stream(alice, 'list')), [[1, 2]]);
  }));

test('items after a request, of every kind', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Sum', async ({ items }) => {
      let sum = 0;
      for await (const item of items!) sum += typeof item === 'number' ? item : item.length;
      return sum;
    });
    async function* later() {
      for (const item of [1, 2, 3]) yield item;
    }
    const blob = new Blob([new Uint8Array(1_000_000)]);
    assert.equal(await call(alice, 'Sum', null, { items: [1, 2, 3] }), 6);
    assert.equal(await call(alice, 'Sum', null, { items: later() }), 6);
    assert.equal(await call(alice, 'Sum', null, { items: [new Blob(['abc']), 'de'] }), 5);
    assert.equal(await call(alice, 'Sum', null, { items: blob }), 1_000_000);
    assert.equal(await call(alice, 'Sum', null, { items: blob.stream() }), 1_000_000);
    assert.equal(await call(alice, 'Sum', null, { items: [] }), 0);
    assert.equal(await call(alice, 'Sum', new Uint8Array(100_000), { items: [5] }), 5);
  }));

test('a stream each way at once', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Double', async function* ({ items }) {
      for await (const item of items!) yield item * 2;
    });
    const numbers = Array.from({ length: 3000 }, (_, index) => index);
    const doubled = await all(await stream(alice, 'Double', null, { items: numbers }));
    assert.deepEqual(doubled, numbers.map((each) => each * 2));
  }));

test('many megabytes pass, and never much of them at once', () =>
  linked(async (alice, bob) => {
    const piece = new Uint8Array(100_000);
    bob.host.serve('Much', async function* () {
      for (let number = 0; number < 100; number++) yield piece;
    });
    let bytes = 0;
    let most = 0;
    for await (const item of await stream(alice, 'Much')) {
      bytes += item.length;
      most = Math.max(most, bob.link.sendBuffer);
    }
    assert.equal(bytes, 10_000_000);
    assert.ok(most < 1_000_000, `${most} bytes waited`);
    alice.link.close();
    assert.equal(alice.host.memory.taken, 0);
  }));

test('a reader that does not read stops the writer', () =>
  linked(async (alice, bob) => {
    const state = { sent: 0 };
    bob.host.serve('Fast', async function* () {
      for (;; state.sent++) yield new Uint8Array(10_000);
    });
    const items = await stream(alice, 'Fast');
    let before = -1;
    await until(() => before === (before = state.sent) && before > 0);
    assert.ok(state.sent < 20, `${state.sent} items`); // what nobody reads sends 64 KiB, and so much waits
    for (let number = 0; number < 500; number++) await items.next();
    assert.ok(state.sent >= 500);
    items.close();
    await until(() => bob.link.active === 0);
    assert.equal(await call(alice, 'Nobody').catch((error) => error.code), 'no_module');
  }));

test('a stream that nobody reads holds up no other', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Fast', async function* () {
      for (;;) yield new Uint8Array(50_000);
    });
    const unread = await Promise.all(Array.from({ length: 30 }, () => stream(alice, 'Fast')));
    const read = await stream(alice, 'Fast');
    for (let number = 0; number < 100; number++) assert.equal((await read.next()).done, false);
    for (const items of [...unread, read]) items.close();
    await until(() => bob.link.active === 0);
  }));

test('leaving the loop ends the handler', () =>
  linked(async (alice, bob) => {
    const state = counting(bob);
    for await (const item of await stream(alice, 'Count')) if (item === 5) break;
    await until(() => state.ended);
    assert.equal(state.ended, 'left');
    assert.equal(alice.link.active, 0);
    await until(() => bob.link.active === 0);
  }));

test('a handler that waits for something is told that nobody reads any more', () =>
  linked(async (alice, bob) => {
    let told = false;
    bob.host.serve('Ticks', ({ signal }) => ({
      next: () =>
        new Promise((_, reject) => {
          signal.addEventListener('abort', () => {
            told = true;
            reject(signal.reason);
          });
        }),
      [Symbol.asyncIterator]() {
        return this;
      },
    }));
    const items = await stream(alice, 'Ticks');
    const waiting = items.next();
    await until(() => bob.link.active === 1);
    items.close();
    assert.equal((await waiting).done, true);
    await until(() => told && bob.link.active === 0);
  }));

test('an error after some items comes after them', () =>
  quietly(() =>
    linked(async (alice, bob) => {
      bob.host.serve('Breaks', async function* () {
        yield 1;
        yield 2;
        throw new BVError('unavailable', 'no more');
      });
      const found: unknown[] = [];
      await assert.rejects(async () => {
        for await (const item of await stream(alice, 'Breaks')) found.push(item);
      }, fails('unavailable'));
      assert.deepEqual(found, [1, 2]);
    }),
  ).then(() => {}));

test('items that cannot be sent end the call, on both sides', () =>
  quietly(() =>
    linked(async (alice, bob) => {
      bob.host.serve('Wrong', async function* () {
        yield 1;
        yield () => 1;
      });
      bob.host.serve('Long', async function* () {
        yield new Uint8Array(600_000);
      });
      bob.host.serve('Wait', () => {});
      await assert.rejects(async () => all(await stream(alice, 'Wrong')), fails('handler_failed'));
      await assert.rejects(async () => all(await stream(alice, 'Long')), fails('too_large'));
      await assert.rejects(call(alice, 'Wait', null, { items: [1n] }), TypeError);
      for (const items of [new Error('what?'), 5, null, 'text', new Uint8Array(3), new ArrayBuffer(3)]) {
        assert.throws(() => checkItems(items), TypeError);
      }
      await assert.rejects(call(alice, 'Wait', null, { items: 'text' }), TypeError);
      async function* broken() {
        yield 1;
        throw new RangeError('enough');
      }
      await assert.rejects(call(alice, 'Wait', null, { items: broken() }), RangeError);
      await until(() => alice.link.active === 0 && bob.link.active === 0);
    }),
  ).then(() => {}));

test('what the iterator of a call throws is what the call fails with, whatever it is', () =>
  quietly(() =>
    linked(async (alice, bob) => {
      bob.host.serve('Wait', () => {});
      bob.host.serve('Echo', async function* ({ items }) {
        yield* items!;
      });
      const throwing = (error: unknown, last: unknown = error) => ({
        next: () => Promise.reject(error),
        return: () => {
          throw last;
        },
        [Symbol.asyncIterator]() {
          return this;
        },
      });
      const thrown = async (run: () => Promise<unknown>) => run().then(() => ['nothing'], (error) => [error]);
      assert.deepEqual(await thrown(() => call(alice, 'Wait', null, { items: throwing('first', 'last') })), ['first']);
      assert.deepEqual(await thrown(() => call(alice, 'Wait', null, { items: throwing(undefined) })), [undefined]);
      let goOn = (): void => {};
      async function* breaking() {
        yield 1;
        await new Promise<void>((done) => (goOn = done));
        throw null;
      }
      const items = await stream(alice, 'Echo', null, { items: breaking() });
      await items.next();
      goOn();
      assert.deepEqual(await thrown(() => all(items)), [null]);
      await until(() => bob.link.active === 0);
    }),
  ).then(() => {}));

test('the end of the call ends its items', () =>
  linked(async (alice, bob) => {
    let closed = 0;
    const items = () => ({
      next: () => new Promise<never>(() => {}),
      return: async () => (closed++, { done: true as const, value: undefined }),
      [Symbol.asyncIterator]() {
        return this;
      },
    });
    let seen: ReceivedItems | undefined;
    bob.host.serve('First', (e) => ((seen = e.items as ReceivedItems), 'enough'));
    assert.equal(await call(alice, 'First', null, { items: items() }), 'enough');
    await until(() => closed === 1);
    await assert.rejects(seen!.next(), fails('cancelled'));
    const abort = new AbortController();
    bob.host.serve('Wait', () => {});
    const waiting = call(alice, 'Wait', null, { items: items(), signal: abort.signal });
    await until(() => bob.link.active === 1);
    abort.abort();
    await assert.rejects(waiting, fails('cancelled'));
    await until(() => closed === 2);
  }));

test('an endless list of items stops when its call ends', () =>
  linked(async (alice, bob) => {
    let sent = 0;
    function* endless() {
      for (;;) yield sent++;
    }
    bob.host.serve('Three', async ({ items }) => {
      const found = [];
      for await (const item of items!) if (found.push(item) === 3) break;
      return found;
    });
    assert.deepEqual(await call(alice, 'Three', null, { items: endless() }), [0, 1, 2]);
    let before = -1;
    await until(() => before === (before = sent));
    assert.equal(alice.link.active, 0);
  }));

test('a link that ends breaks streams off after the items that have come', () =>
  linked(async (alice, bob) => {
    const state = counting(bob);
    const items = await stream(alice, 'Count');
    await items.next();
    bob.link.close();
    await alice.link.gone;
    await assert.rejects(() => all(items), fails('link_lost'));
    await until(() => state.ended);
    assert.equal((await items.next()).done, true);
  }));

test('a stream has one consumer', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Quiet', async function* () {
      await new Promise(() => {});
    });
    const items = await stream(alice, 'Quiet');
    const waiting = items.next();
    await assert.rejects(items.next(), TypeError);
    items.close();
    assert.equal((await waiting).done, true);
  }));

test('a stream must begin in time, and may then go on', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Slow', async function* () {
      for (const item of [1, 2]) {
        yield item;
        await new Promise((done) => setTimeout(done, 300));
      }
    });
    bob.host.serve('Never', () => {});
    assert.deepEqual(await all(await stream(alice, 'Slow', null, { timeout: 0.2 })), [1, 2]);
    await assert.rejects(stream(alice, 'Never', null, { timeout: 0.1 }), fails('deadline'));
  }));
