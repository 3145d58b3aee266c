/** How handlers answer, who may call them, and how many at once. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { builtinModules, describeLink, removalRequest } from '../../../server/browser/src/builtin.ts';
import { BVError } from '../../../server/browser/src/errors.ts';
import { FairSlots } from '../../../server/browser/src/slots.ts';
import type { Call } from '../../../server/browser/src/types.ts';
import { call, linked, quietly, slowly, until } from './linked.ts';

const fails = (code: string, message?: RegExp) => (error: any) => {
  assert.equal(error.code, code);
  if (message) assert.match(error.message, message);
  return true;
};

test('all the ways to answer', () =>
  linked(async (alice, bob) => {
    const handlers: Record<string, [(e: Call) => unknown, unknown]> = {
      'by callback': [(e) => e.callback(e.request + 1), 2],
      'by a late callback': [({ request, callback }) => void setTimeout(() => callback(request + 1)), 2],
      'by what it returns': [(e) => e.request + 1, 2],
      'by what its promise comes to': [async (e) => e.request + 1, 2],
      'by a promise of nothing': [async () => {}, null],
      'by a callback of nothing': [(e) => e.callback(), null],
      'by a callback in a promise': [async (e) => e.callback('first'), 'first'],
      'by null': [() => null, null],
      'by false': [() => false, false],
      'by a blob': [() => new Blob(['ab']), new Uint8Array([97, 98])],
      'twice, where the first counts': [(e) => (e.callback('first'), e.callback('second')), 'first'],
      'by both, where the callback was first': [(e) => (e.callback('first'), 'second'), 'first'],
    };
    for (const [name, [handler, expected]] of Object.entries(handlers)) {
      bob.host.serve(name, handler);
      assert.deepEqual(await call(alice, name, 1), expected, name);
    }
    assert.equal(bob.host.counters.calls_served, Object.keys(handlers).length);
  }));

test('a handler sees who calls, until when, and has a name for the call', () =>
  linked(async (alice, bob) => {
    let seen: Call | undefined;
    bob.host.serve('Look', (e) => ((seen = e), e.callId));
    const callId = await call(alice, 'Look', { from: 'me' }, { timeout: 7 });
    assert.deepEqual(seen!.request, { from: 'me' });
    assert.equal(seen!.caller.name, 'alice');
    assert.equal(seen!.caller.id, '1');
    assert.equal(seen!.caller.fingerprint, 'fingerprint of alice');
    assert.match(callId, /^[0-9a-f]{12}$/);
    assert.equal(seen!.items, null);
    assert.ok(Math.abs(seen!.deadline - Date.now() - 7000) < 3000);
    assert.equal(seen!.signal.aborted, false);
  }));

test('what a handler throws is for its own console, but for what it says to the caller', async () => {
  const lines = await quietly(() =>
    linked(async (alice, bob) => {
      const thrown: Record<string, [unknown, string, RegExp]> = {
        'an error': [new Error('secret'), 'handler_failed', /^an error failed; its log has it under [0-9a-f]{12}$/],
        'a text': ['secret', 'handler_failed', /under/],
        nothing: [undefined, 'handler_failed', /under/],
        busy: [new BVError('busy', 'come back', { retryAfter: 3 }), 'busy', /come back/],
        'any error with such a code': [Object.assign(new Error('no'), { code: 'denied' }), 'denied', /^no$/],
        'one that only a link can say': [new BVError('link_lost', 'secret'), 'handler_failed', /under/],
        'one of another peer': [new BVError('busy', 'secret', { peer: '9' }), 'handler_failed', /under/],
      };
      for (const [name, [error, code, message]] of Object.entries(thrown)) {
        bob.host.serve(name, () => {
          throw error;
        });
        await assert.rejects(call(alice, name), fails(code, message), name);
        bob.host.serve(name, () => Promise.reject(error));
        await assert.rejects(call(alice, name), fails(code, message), name);
      }
      await assert.rejects(call(alice, 'busy'), { retryAfter: 3 });
      bob.host.serve('fails with a text', (e) => e.fail('not today'));
      await assert.rejects(call(alice, 'fails with a text'), fails('handler_failed', /^not today$/));
      bob.host.serve('fails with an error', (e) => e.fail(new BVError('unavailable', 'later')));
      await assert.rejects(call(alice, 'fails with an error'), fails('unavailable', /later/));
      bob.host.serve('cannot be sent', () => () => 1);
      await assert.rejects(call(alice, 'cannot be sent'), fails('handler_failed'));
      assert.equal(bob.host.counters.refused['busy'], 3);
    }),
  );
  assert.ok(lines.some((line) => /an error failed, call [0-9a-f]{12} from alice\/1.*secret/.test(line)));
});

test('an error that makes no sense is one all the same', () =>
  quietly(() =>
    linked(async (alice, bob) => {
      const odd: unknown[] = [
        { code: Symbol('busy') },
        { code: 'busy', message: Object.create(null) },
        Object.defineProperty({}, 'code', { get: () => assert.ok(false, 'not for you') }),
      ];
      for (const error of odd) {
        bob.host.serve('Odd', () => Promise.reject(error));
        await assert.rejects(call(alice, 'Odd'), fails('handler_failed'));
      }
      for (const retryAfter of [-1, NaN, Infinity, '5']) {
        bob.host.serve('Odd', () => {
          throw Object.assign(new Error('later'), { code: 'busy', retryAfter });
        });
        await assert.rejects(call(alice, 'Odd'), (error: any) => error.code === 'busy' && !('retryAfter' in error));
      }
      assert.ok(alice.link.usable);
    }),
  ).then(() => {}));

test('who floods the console with failures does not', async () => {
  const lines = await quietly(() =>
    linked(async (alice, bob) => {
      bob.host.serve('Fails', () => {
        throw new Error('again');
      });
      for (let round = 0; round < 3; round++) {
        await Promise.allSettled(Array.from({ length: 100 }, () => call(alice, 'Fails')));
      }
    }),
  );
  assert.equal(lines.length, 100);
});

test('a request that is no JSON is a bad one', () =>
  linked(async (alice, bob) => {
    let ran = false;
    bob.host.serve('Echo', () => (ran = true));
    for (const body of ['{', '['.repeat(70) + ']'.repeat(70)]) {
      const wrong = alice.link.call('Echo', new TextEncoder().encode(body), false, { timeout: 5 });
      await assert.rejects(wrong, fails('bad_request'));
    }
    assert.equal(ran, false);
  }));

test('a module is for those whom it allows, under the names that the link has proved', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Private', () => 1, { allow: ['carol'] });
    await assert.rejects(call(alice, 'Private', { name: 'carol' }), fails('denied'));
    bob.host.serve('Private', () => 1, { allow: ['carol', 'alice'] });
    assert.equal(await call(alice, 'Private'), 1);
    bob.host.serve('Private', null);
    await assert.rejects(call(alice, 'Private'), fails('no_module'));
  }));

test('what cannot be served', () =>
  linked(async (_, { host }) => {
    assert.throws(() => host.serve('', () => 1), TypeError);
    assert.throws(() => host.serve('ä'.repeat(101), () => 1), TypeError);
    assert.throws(() => host.serve('M', 'text' as any), TypeError);
    assert.throws(() => host.serve('M', () => 1, { concurrency: 0 }), TypeError);
    assert.throws(() => host.serve('M', () => 1, { allow: 'bob' as any }), TypeError);
  }));

test('so many calls run at once, and the others wait', () =>
  linked(async (alice, bob) => {
    const slow = slowly();
    bob.host.serve('Slow', slow.handler, { concurrency: 3 });
    await Promise.all(Array.from({ length: 12 }, () => call(alice, 'Slow')));
    assert.equal(slow.most, 3);
    assert.equal(bob.host.counters.limited['concurrency'], 9);
  }));

test('a module may take as many calls as there are', () =>
  linked(async (alice, bob) => {
    let running = 0;
    bob.host.serve('Together', async () => {
      running++;
      await until(() => running === 10);
    }, { concurrency: Infinity });
    await Promise.all(Array.from({ length: 10 }, () => call(alice, 'Together')));
  }));

test('a call that gives up while it waits is never run, and one that runs keeps its slot', () =>
  linked(async (alice, bob) => {
    const finish: (() => void)[] = [];
    bob.host.serve('Slow', () => new Promise<void>((done) => finish.push(done)), { concurrency: 1 });
    await assert.rejects(call(alice, 'Slow', null, { timeout: 0.1 }), fails('deadline'));
    await assert.rejects(call(alice, 'Slow', null, { timeout: 0.1 }), fails('deadline'));
    await until(() => bob.link.active === 0);
    assert.equal(finish.length, 1);
    const third = call(alice, 'Slow');
    finish[0]!();
    await until(() => finish.length === 2);
    finish[1]!();
    assert.equal(await third, null);
  }));

test('a handler that answers by callback has its slot only until its call has ended', () =>
  linked(async (alice, bob) => {
    bob.host.serve('Silent', () => {}, { concurrency: 1 });
    for (let round = 0; round < 3; round++) {
      await assert.rejects(call(alice, 'Silent', null, { timeout: 0.06 }), fails('deadline'));
    }
    assert.equal(bob.host.counters.limited['concurrency'], undefined);
  }));

// -- slots ------------------------------------------------------------------------------------------------------------

test('each caller has its turn, and the last slots are for those who have none', () => {
  const slots = new FairSlots<string>(4);
  assert.deepEqual([1, 2, 3, 4].map(() => slots.take('flood')), [true, true, true, false]);
  for (let number = 0; number < 5; number++) assert.equal(slots.wait('flood', `flood ${number}`), null);
  assert.equal(slots.take('other'), true);
  assert.equal(slots.wait('other', 'other 0'), null);
  assert.deepEqual(slots.giveBack('flood'), []); // what is left is the reserve
  assert.deepEqual(slots.giveBack('flood'), ['flood 0']);
  assert.deepEqual(slots.giveBack('flood'), ['other 0']);
  assert.deepEqual(slots.giveBack('flood'), ['flood 1']);
  slots.leave('flood', 'flood 2');
  assert.deepEqual(slots.giveBack('other'), ['flood 3']);
});

test('too many who wait: the longest queue gives way', () => {
  const slots = new FairSlots<number>(1);
  assert.ok(slots.take('flood'));
  for (let number = 0; number < 1024; number++) assert.equal(slots.wait('flood', number), null);
  assert.equal(slots.wait('flood', -1), -1);
  assert.equal(slots.wait('other', 5000), 1023);
  assert.deepEqual(slots.giveBack('flood'), [0]);
  assert.deepEqual(slots.giveBack('flood'), [5000]);
});

test('no slot is lost, whatever happens', () => {
  const slots = new FairSlots<{ caller: string }>(8);
  const running: string[] = [];
  const waiting: { caller: string }[] = [];
  let state = 1;
  const draw = (most: number): number => (state = (state * 48_271) % 2_147_483_647) % most;
  for (let round = 0; round < 20_000; round++) {
    const caller = `caller ${draw(draw(5) + 1)}`;
    if (draw(2)) {
      if (slots.take(caller)) running.push(caller);
      else {
        const waiter = { caller };
        waiting.push(waiter);
        assert.equal(slots.wait(caller, waiter), null);
      }
    } else if (draw(4) === 0 && waiting.length) {
      const [gone] = waiting.splice(draw(waiting.length), 1);
      slots.leave(gone!.caller, gone!);
    } else if (running.length) {
      const [over] = running.splice(draw(running.length), 1);
      for (const next of slots.giveBack(over!)) {
        waiting.splice(waiting.indexOf(next), 1);
        running.push(next.caller);
      }
    }
    assert.ok(running.length <= 8);
    while (waiting.length > 500) {
      const gone = waiting.pop()!;
      slots.leave(gone.caller, gone);
    }
  }
  while (running.length) for (const next of slots.giveBack(running.pop()!)) running.push(next.caller);
  for (let slot = 0; slot < 8; slot++) assert.ok(slots.take(`new ${slot}`));
});

// -- the platform's own modules ---------------------------------------------------------------------------------------

test('a peer tells what it serves, to each what it may call', () =>
  linked(async (alice, bob) => {
    builtinModules(bob.host, { links: () => [], removed: async () => {}, stats: () => ({}) });
    bob.host.serve('Open', () => 1, { doc: 'Does it.', request: { type: 'null' }, stream: true });
    bob.host.serve('Hidden', () => 1, { allow: ['carol'] });
    const modules = await call(alice, 'bv.modules');
    assert.deepEqual(modules.map(({ name }: { name: string }) => name), ['Open', 'bv.modules']);
    const request = { type: 'null' };
    assert.deepEqual(modules[0], { name: 'Open', doc: 'Does it.', stream: true, request, response: null });
    for (const own of ['bv.links', 'bv.stats', 'bv.removals']) await assert.rejects(call(alice, own), fails('denied'));
  }));

test('removals are taken in one by one', () =>
  linked(async (_, { host, link }) => {
    const taken: string[] = [];
    builtinModules(host, {
      links: () => [],
      stats: () => ({}),
      removed: async (blob, signature) => {
        if (blob[0] === 0) throw new BVError('identity_mismatch', 'not proved');
        taken.push(`${blob} ${signature}`);
      },
    });
    const { handler, allow } = host.modules.get('bv.removals')!;
    assert.deepEqual([...allow], ['Us']);
    const signatures = [Uint8Array.of(9)];
    const request = removalRequest([0, 1, 2].map((each) => ({ blob: Uint8Array.of(each), signatures })));
    assert.equal(await handler({ request } as Call), undefined);
    assert.deepEqual(taken, ['1 9', '2 9']);
    const tooMany = Array(257).fill({ blob: 'AA', signature: 'AA' });
    for (const removals of [undefined, 1, [1], [{ blob: '?', signature: '' }], tooMany]) {
      const wrong = removals && { removals };
      await assert.rejects(async () => handler({ request: wrong } as Call), fails('bad_request'));
    }
    const row = (await describeLink(link)) as Record<string, unknown>;
    assert.deepEqual(Object.keys(row).sort(), [
      'agent', 'calls', 'dialled', 'doubted', 'fingerprint', 'path', 'peer', 'roundTrip', 'seconds', 'state',
    ]);
  }));
