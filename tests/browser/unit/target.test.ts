/** The ways to call several peers and to read a stream, over calls that a test answers by hand. */

import { test } from 'node:test';
import assert from 'node:assert/strict';

import type { Calls } from '../../../server/browser/src/calling.ts';
import { BVError } from '../../../server/browser/src/errors.ts';
import { CallTarget } from '../../../server/browser/src/target.ts';
import type { PeerInfo } from '../../../server/browser/src/types.ts';

interface Asked {
  readonly id: string;
  readonly signal: AbortSignal;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** Peers 1 to `count`, and what they were asked. */
function peers(count: number): { target: CallTarget; asked: Asked[]; closed: () => number } {
  const asked: Asked[] = [];
  let closed = 0;
  const ask = ({ id }: PeerInfo, _module: string, _request: unknown, { signal }: { signal: AbortSignal }) =>
    new Promise((resolve, reject) => {
      signal.addEventListener('abort', () => reject(new BVError('cancelled', 'the call was cancelled')));
      asked.push({ id, signal, resolve, reject });
    });
  const online = Array.from({ length: count }, (_, n) => ({ name: 'bob', id: String(n + 1) }));
  const calls = {
    resolve: () => [...online],
    choose: () => online[0],
    callPeer: ask,
    openStream: async (...request: Parameters<typeof ask>) => {
      const items = (await ask(...request)) as AsyncIterable<unknown>;
      return Object.assign(items, { close: () => closed++ });
    },
  };
  return { target: new CallTarget(calls as unknown as Calls, 'bob'), asked, closed: () => closed };
}

const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

test('results come in the order in which they do, errors among them', async () => {
  const { target, asked } = peers(3);
  const results = target.callAll('Echo');
  const first = results.next();
  await turn();
  asked[2]!.resolve('c');
  assert.deepEqual((await first).value, { peer: { name: 'bob', id: '3' }, response: 'c', error: null });
  asked[0]!.reject(new BVError('denied', 'no'));
  const second = (await results.next()).value;
  assert.equal(second.error.code, 'denied');
  assert.equal(second.response, undefined);
  asked[1]!.resolve(undefined);
  assert.equal((await results.next()).value.peer.id, '2');
  assert.deepEqual(await results.next(), { done: true, value: undefined });
});

test('nobody is asked before the first result is waited for', async () => {
  const { target, asked } = peers(2);
  const results = target.callAll('Echo');
  await turn();
  assert.equal(asked.length, 0);
  await results.return!();
  assert.deepEqual(await results.next(), { done: true, value: undefined });
  assert.equal(asked.length, 0);
});

test('no more are asked at once than was said', async () => {
  const { target, asked } = peers(3);
  const results = target.callAll('Echo', null, { concurrency: 2 });
  const first = results.next();
  await turn();
  assert.equal(asked.length, 2);
  asked[1]!.resolve(1);
  await first;
  assert.equal(asked.length, 3);
  await results.return!();
});

test('after so many good answers the other calls are cancelled', async () => {
  const { target, asked } = peers(3);
  const seen: unknown[] = [];
  const all = (async () => {
    for await (const { response, error } of target.callAll('Echo', null, { first: 1 })) {
      seen.push(error?.code ?? response);
    }
  })();
  await turn();
  asked[0]!.reject(new BVError('busy', 'no'));
  await turn();
  asked[1]!.resolve('yes');
  await all;
  assert.deepEqual(seen, ['busy', 'yes']);
  assert.ok(asked[2]!.signal.aborted);
});

test('what is wrong with the call itself is thrown', async () => {
  const { target, asked } = peers(2);
  const first = target.callAll('Echo').next();
  await turn();
  asked[0]!.reject(new TypeError('no JSON'));
  await assert.rejects(first, TypeError);
  assert.ok(asked[1]!.signal.aborted);
});

test('numbers that make no sense are refused at once', () => {
  const { target } = peers(2);
  for (const options of [{ concurrency: 0 }, { first: 0 }, { first: NaN }]) {
    assert.throws(() => target.callAll('Echo', null, options), TypeError);
  }
});

test('a signal that is none is refused at once, and nobody is asked', async () => {
  const { target, asked } = peers(2);
  const options = { signal: new AbortController() as unknown as AbortSignal };
  await assert.rejects(target.call('Echo', null, options), /signal is an AbortSignal/);
  assert.throws(() => target.callAll('Echo', null, options), /signal is an AbortSignal/);
  assert.throws(() => target.stream('Echo', null, options), /signal is an AbortSignal/);
  await turn();
  assert.equal(asked.length, 0);
});

test('whoever leaves while it waits for a result does not wait', async () => {
  const { target, asked } = peers(2);
  const results = target.callAll('Echo');
  const next = results.next();
  await turn();
  assert.deepEqual(await results.return!(), { done: true, value: undefined });
  assert.deepEqual(await next, { done: true, value: undefined });
  assert.ok(asked.every(({ signal }) => signal.aborted));
});

test('one\'s own signal ends each call, and each says so', async () => {
  const { target } = peers(2);
  const own = new AbortController();
  const codes: unknown[] = [];
  const all = (async () => {
    for await (const { error } of target.callAll('Echo', null, { signal: own.signal })) codes.push(error?.code);
  })();
  await turn();
  own.abort();
  await all;
  assert.deepEqual(codes, ['cancelled', 'cancelled']);
});

test('a stream is read, and closed at its end', async () => {
  const { target, asked, closed } = peers(1);
  const items = target.stream('Tail');
  const first = items.next();
  await turn();
  asked[0]!.resolve((async function* () { yield 1; yield 2; })());
  assert.equal((await first).value, 1);
  assert.equal((await items.next()).value, 2);
  assert.deepEqual(await items.next(), { done: true, value: undefined });
  assert.equal(closed(), 1);
});

test('a stream that is left before it has begun is cancelled', async () => {
  const { target, asked } = peers(1);
  const items = target.stream('Tail');
  const next = items.next();
  await turn();
  await items.return!();
  assert.deepEqual(await next, { done: true, value: undefined });
  assert.ok(asked[0]!.signal.aborted);
});

test('a stream that breaks off throws once, and is over', async () => {
  const { target, asked } = peers(1);
  const items = target.stream('Tail');
  const next = items.next();
  await turn();
  asked[0]!.reject(new BVError('no_module', 'none'));
  await assert.rejects(next, (error: BVError) => error.code === 'no_module');
  assert.deepEqual(await items.next(), { done: true, value: undefined });
});

test('a request is encoded once for all, as it was when the call was made', async () => {
  const bodies: unknown[] = [];
  const calls = {
    resolve: () => [{ name: 'bob', id: '1' }, { name: 'bob', id: '2' }],
    callPeer: async (_peer: PeerInfo, _module: string, encoded: Promise<[Uint8Array, boolean]>) => {
      bodies.push((await encoded)[0]);
    },
  };
  const request = { n: 1 };
  for await (const _ of new CallTarget(calls as unknown as Calls, 'bob').callAll('Echo', request, { concurrency: 1 })) {
    request.n = 2;
  }
  assert.equal(bodies.length, 2);
  assert.ok(bodies[0] === bodies[1]);
  assert.equal(new TextDecoder().decode(bodies[0] as Uint8Array), '{"n":1}');
});
