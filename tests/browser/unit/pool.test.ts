/** The pool: one link a peer, limits, queue, who makes room, and what happens when both sides dial at once. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import type { LinkLife } from '../../../server/browser/src/life.ts';
import { FakeClock } from './fake_clock.ts';
import { FakePool, type FakeLink } from './fake_links.ts';

const failed = (code: string, retryAfter?: number): BVError =>
  new BVError(code, `it is ${code}`, retryAfter === undefined ? {} : { retryAfter });
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'none',
    (error: BVError) => error.code,
  );
const never = new AbortController().signal;

/** A test by a clock of its own. */
function timed(name: string, run: (clock: FakeClock) => Promise<void>): void {
  test(name, () => FakeClock.run(run));
}

timed('a link is made once and shared', async (clock) => {
  const world = new FakePool();
  const [one, other] = await Promise.all([world.link('7'), world.link('7')]);
  assert.equal(one, other);
  assert.equal(await world.link('7'), one);
  assert.deepEqual(world.dialled, ['7']);
  assert.deepEqual(world.added, [one]);
  await clock.settle();
  assert.equal(world.pool.current('7'), one.real);
});

timed('a failure reaches all who wait, and the next try waits for a moment', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  const codes = [codeOf(world.link('7')), codeOf(world.link('7'))];
  await clock.settle();
  world.dials.get('7')!.result.reject(failed('connect_failed'));
  assert.deepEqual(await Promise.all(codes), ['connect_failed', 'connect_failed']);
  world.answers = true;
  const next = world.link('7');
  await clock.settle();
  assert.match(world.pool.progress('7'), /waiting for its turn; the last try: it is connect_failed/);
  await clock.advance(0.6);
  await next;
  assert.deepEqual(world.dialled, ['7', '7']);
});

timed('the pause after a failure gets longer, and ends when the peer comes anew', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  for (let turn = 0; turn < 12; turn++) {
    const code = codeOf(world.link('7'));
    await clock.advance(11);
    world.dials.get('7')!.result.reject(failed('connect_failed'));
    assert.equal(await code, 'connect_failed');
  }
  world.answers = true;
  const next = world.link('7');
  await clock.advance(1);
  assert.equal(world.dialled.length, 12, 'it is left alone');
  world.pool.retryNow('7');
  await next;
});

timed('no more than maxOutgoing at once, first come first served', async (clock) => {
  const world = new FakePool({ maxOutgoing: 2 });
  const links = [await world.link('1'), await world.link('2')];
  for (const link of links) link.active = 1;
  const [third, fourth] = [world.link('3'), world.link('4')];
  await clock.advance(5);
  assert.deepEqual(world.dialled, ['1', '2']);
  links[0]!.close();
  await third;
  assert.deepEqual(world.dialled, ['1', '2', '3']);
  links[1]!.close();
  await fourth;
});

timed('links that nothing uses make room, the longest unused first', async (clock) => {
  const world = new FakePool({ maxOutgoing: 3 });
  const links: FakeLink[] = [];
  for (const id of ['1', '2', '3']) {
    links.push(await world.link(id));
    await clock.advance(2);
  }
  links[0]!.used();
  await world.link('4');
  assert.deepEqual(
    links.map((link) => link.drained),
    ['', 'evicted', ''],
  );
});

timed('a broadcast to more peers than there are slots reaches all', async (clock) => {
  const world = new FakePool({ maxOutgoing: 4 });
  const ids = Array.from({ length: 40 }, (_, index) => String(index + 1));
  let most = 0;
  const calls = Promise.all(
    ids.map(async (id) => {
      const link = await world.link(id);
      link.active = 1;
      most = Math.max(most, world.pool.links().length);
      await new Promise((done) => setTimeout(done, 100));
      link.used();
      link.drain('idle'); // keepAlive=false: nobody holds it
    }),
  );
  await clock.advance(5);
  await calls;
  assert.ok(most <= 4, `${most} links at once`);
  assert.equal(new Set(world.dialled).size, 40);
});

timed('held links that nothing uses go one after the other for those who wait', async (clock) => {
  const world = new FakePool({ maxOutgoing: 2 });
  const ids = Array.from({ length: 6 }, (_, index) => String(index + 1));
  const calls = Promise.all(
    ids.map(async (id) => {
      const link = await world.link(id);
      link.active = 1;
      await new Promise((done) => setTimeout(done, 100));
      link.used();
      world.pool.idle(link.real);
    }),
  );
  await clock.advance(5);
  await calls;
  assert.equal(new Set(world.dialled).size, 6);
});

timed('a new link is not evicted before whoever asked for it can call', async (clock) => {
  const world = new FakePool({ maxOutgoing: 1 });
  const holder = new AbortController();
  const first = world.link('1', holder.signal);
  const second = world.link('2');
  const link = await first;
  assert.equal(link.drained, '');
  link.active = 1;
  await clock.advance(0.5);
  assert.deepEqual(world.dialled, ['1']);
  link.used();
  world.pool.idle(link.real);
  await second;
});

timed('eight are set up at once', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  for (let id = 1; id <= 10; id++) world.link(String(id)).catch(() => {});
  await clock.settle();
  assert.equal(world.dialled.length, 8);
  world.dials.get('3')!.result.resolve(world.made('3').real);
  await clock.settle();
  assert.deepEqual(world.dialled.slice(8), ['9']);
});

timed('peers that do not answer do not keep the others waiting', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  for (let id = 1; id <= 8; id++) world.link(String(id)).catch(() => {});
  await clock.settle();
  world.answers = true;
  const ninth = world.link('9');
  await clock.advance(1.5);
  assert.equal(world.dialled.length, 8);
  await clock.advance(1);
  await ninth;
});

timed('an attempt is given up with the last who waits for it', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  const [one, other] = [new AbortController(), new AbortController()];
  const codes = [one, other].map(({ signal }) => codeOf(world.link('7', signal)));
  await clock.settle();
  const { signal } = world.dials.get('7')!;
  one.abort(failed('cancelled'));
  assert.equal(await codes[0], 'cancelled');
  assert.equal(signal.aborted, false);
  other.abort(failed('cancelled'));
  await codes[1];
  await clock.settle();
  assert.equal(signal.aborted, true);
  world.answers = true;
  await world.link('7');
  assert.deepEqual(world.dialled, ['7', '7']);
});

timed('who gives up in the queue leaves it', async (clock) => {
  const world = new FakePool({ maxOutgoing: 1 });
  const link = await world.link('1');
  link.active = 1;
  const given = new AbortController();
  const second = codeOf(world.link('2', given.signal));
  const third = world.link('3');
  await clock.settle();
  given.abort(failed('cancelled'));
  assert.equal(await second, 'cancelled');
  await clock.settle();
  link.close();
  await third;
  assert.deepEqual(world.dialled, ['1', '3']);
});

timed('a slot that is granted as its waiter leaves is not lost', async (clock) => {
  const world = new FakePool({ maxOutgoing: 1 });
  const link = await world.link('1');
  link.active = 1;
  const given = new AbortController();
  const second = codeOf(world.link('2', given.signal));
  await clock.settle();
  const third = world.link('3');
  await clock.settle();
  given.abort(failed('cancelled'));
  link.close();
  assert.equal(await second, 'cancelled');
  await clock.settle();
  await third;
  assert.deepEqual(world.dialled, ['1', '3']);
});

timed('a link that the other side dialled ends the attempt that waits', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  const wanted = world.link('7');
  await clock.settle();
  const { signal } = world.dials.get('7')!;
  const link = world.taken('7');
  assert.equal(await wanted, link);
  assert.equal(signal.aborted, true);
  await clock.settle();
  assert.equal(world.dials.size, 0);
  assert.equal(world.pool.isDialling('7'), false);
});

timed('whoever asks to be asked again is, until the time is over', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  const code = codeOf(world.link('7'));
  for (let turn = 0; turn < 3; turn++) {
    await clock.settle();
    world.dials.get('7')!.result.reject(failed('link_limit', 1));
    await clock.advance(10);
  }
  assert.equal(world.dialled.length >= 3, true);
  world.dials.get('7')?.result.reject(failed('link_limit', 1));
  await clock.advance(20);
  assert.equal(await code, 'link_limit');
});

timed('pauses are part of the time for a link, the wait for a slot is not', async (clock) => {
  const world = new FakePool({ patience: 8, maxOutgoing: 1 });
  world.answers = false;
  for (let turn = 0; turn < 12; turn++) {
    const code = codeOf(world.link('7'));
    await clock.advance(7);
    world.dials.get('7')!.result.reject(failed('connect_failed'));
    assert.equal(await code, 'connect_failed');
  }
  assert.equal(world.given[0], 8);
  assert.ok(world.given.every((seconds) => seconds >= 2 && seconds <= 8), `${world.given}`);
  assert.ok(world.given.at(-1)! < 8);

  const first = world.link('8');
  await clock.settle();
  const second = world.link('9');
  await clock.advance(30);
  assert.deepEqual(world.dialled.slice(12), ['8']);
  world.dials.get('8')!.result.reject(failed('peer_offline'));
  assert.equal(await codeOf(first), 'peer_offline');
  await clock.settle();
  assert.deepEqual([world.dialled.at(-1), world.given.at(-1)], ['9', 8]);
  world.dials.get('9')!.result.reject(failed('peer_offline'));
  assert.equal(await codeOf(second), 'peer_offline');
});

timed('a network that changed is no failure of the peer: it is dialled at once', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  const link = world.link('7');
  await clock.settle();
  world.answers = true;
  world.dials.get('7')!.result.reject(failed('connect_failed', 0));
  await clock.advance(0.6);
  await link;
});

timed('nothing is tried that is not to be tried now', async () => {
  const world = new FakePool({
    check: () => {
      throw failed('rate_limited', 3);
    },
  });
  assert.equal(await codeOf(world.link('7')), 'rate_limited');
  assert.deepEqual(world.dialled, []);
});

timed('an attempt waits until the server can be asked', async (clock) => {
  const ready = Promise.withResolvers<void>();
  const given: unknown[] = [];
  const world = new FakePool({
    ready: (peerId, seconds) => {
      given.push([peerId, seconds]);
      return ready.promise;
    },
  });
  const link = world.link('7');
  await clock.advance(3);
  assert.deepEqual([world.dialled, given], [[], [['7', 15]]], 'a quarter is left for the try');
  ready.resolve();
  await link;
});

// -- two links with one peer ------------------------------------------------------------------------------------------

for (const [peer, winner] of [
  ['400', 'theirs'],
  ['600', 'ours'],
] as const) {
  for (const first of ['ours', 'theirs'] as const) {
    timed(`both dialled at once, ${peer} and we are 500, ${first} came first: ${winner} stays`, async (clock) => {
      const world = new FakePool();
      const links = { ours: world.made(peer, true), theirs: world.made(peer, false) };
      const second = first === 'ours' ? 'theirs' : 'ours';
      world.pool.add(links[first].real);
      await clock.advance(1);
      const late = world.made(peer, second === 'ours');
      links[second] = late;
      world.pool.add(late.real);
      assert.equal(world.pool.current(peer), links[winner].real);
      const loser = links[winner === 'ours' ? 'theirs' : 'ours'];
      assert.equal(loser.drained, loser === late ? 'duplicate' : 'replaced');
      assert.equal(world.added.length, 2);
    });
  }
}

timed('a proved link replaces the one before, unless they came from dialling at once', async (clock) => {
  const world = new FakePool();
  const old = world.taken('600');
  await clock.advance(6);
  const ours = await (async () => {
    const link = world.made('600');
    world.pool.add(link.real);
    return link;
  })();
  assert.equal(old.drained, 'replaced');
  const again = world.made('600');
  world.pool.add(again.real);
  assert.equal(ours.drained, 'replaced');
  assert.deepEqual(world.replaced, [old, ours]);
});

timed('a link that the other side let go of at once gives way to its own', async (clock) => {
  const world = new FakePool();
  world.answers = false;
  const wanted = world.link('400');
  await clock.settle();
  const ours = world.made('400');
  ours.active = 1; // so that it is still there when it is added
  ours.drain('duplicate');
  world.dials.get('400')!.result.resolve(ours.real);
  await clock.settle();
  const theirs = world.taken('400');
  assert.equal(await wanted, theirs);
});

timed('a doubted link gets no new calls, and stays until another is proved', async (clock) => {
  const world = new FakePool({ maxOutgoing: 1 });
  const old = await world.link('7');
  old.active = 1;
  await clock.advance(6);
  old.doubted = true;
  world.answers = false;
  const next = world.link('7');
  await clock.settle();
  assert.deepEqual(world.dialled, ['7', '7'], 'its successor needs no slot of its own');
  assert.equal(old.usable, true);
  const made = world.made('7');
  world.dials.get('7')!.result.resolve(made.real);
  assert.equal(await next, made);
  assert.equal(old.drained, 'replaced');
});

timed('one peer cannot keep many links by a stream on each', async (clock) => {
  const world = new FakePool();
  const links: FakeLink[] = [];
  for (let turn = 0; turn < 6; turn++) {
    const link = world.made('600');
    link.active = 1;
    world.pool.add(link.real);
    links.push(link);
    await clock.advance(10);
  }
  assert.deepEqual(
    links.map((link) => link.ended),
    ['closed', 'closed', '', '', '', ''],
  );
});

timed('removed trust cuts all links of that account, by key or by name', async (clock) => {
  const world = new FakePool();
  const [one, other, third] = [world.taken('1', 'x'), world.taken('2', 'x'), world.taken('3', 'y')];
  assert.equal(world.pool.cut('nobody', 'x', failed('not_trusted')), 2);
  assert.deepEqual(
    [one, other, third].map((link) => link.ended),
    ['closed', 'closed', ''],
  );
  await clock.settle();
  assert.equal(world.pool.cut('bob', 'z', failed('link_lost')), 1);
});

// -- links that others dial -------------------------------------------------------------------------------------------

/** Ask for a place; `life` is there when it was given. */
function asks(world: FakePool, peerId: string, key: string, signal = never) {
  const wish: { life?: LinkLife; code?: string } = {};
  world.pool.reserve(peerId, 'bob', key, signal).then(
    (life) => (wish.life = life),
    (error: BVError) => (wish.code = error.code),
  );
  return wish;
}

timed('sixteen are set up at once, eight of one account; the others wait, accounts in turn', async (clock) => {
  const world = new FakePool();
  const wishes = Array.from({ length: 30 }, (_, index) => asks(world, `${index + 1}`, 'a'));
  await clock.settle();
  assert.equal(wishes.filter(({ life }) => life).length, 8);
  const others = Array.from({ length: 10 }, (_, index) => asks(world, `${index + 100}`, 'b'));
  await clock.settle();
  assert.equal(others.filter(({ life }) => life).length, 8);
  const third = asks(world, '200', 'c');
  await clock.settle();
  assert.equal(third.life, undefined);
  world.pool.release(wishes[0]!.life!);
  await clock.settle();
  assert.ok(third.life, 'who has no place goes before those who have many');
  assert.equal(wishes[0]!.life!.state, 'failed');
});

timed('nobody waits for a place for ever, and whoever leaves takes none', async (clock) => {
  const world = new FakePool();
  const placed = Array.from({ length: 8 }, (_, index) => asks(world, `${index + 1}`, 'a'));
  const left = new AbortController();
  const [leaves, waits, stays] = [asks(world, '20', 'a', left.signal), asks(world, '21', 'a'), asks(world, '22', 'a')];
  await clock.settle();
  left.abort(failed('cancelled'));
  await clock.settle();
  assert.equal(leaves.code, 'cancelled');
  world.pool.release(placed[0]!.life!);
  await clock.settle();
  assert.ok(waits.life);
  await clock.advance(16);
  assert.equal(stays.code, 'link_limit');
});

timed('one account opens only so many links in a time', async (clock) => {
  const world = new FakePool();
  for (let turn = 0; turn < 64; turn++) {
    const wish = asks(world, String(turn), 'a');
    await clock.settle();
    world.pool.release(wish.life!);
  }
  const more = asks(world, '100', 'a');
  const other = asks(world, '101', 'b');
  await clock.settle();
  assert.equal(more.code, 'link_limit');
  assert.ok(other.life);
});

timed('links that others dialled have a limit, and idle ones of the account with the most make room', async (clock) => {
  const world = new FakePool({ maxIncoming: 3 });
  const links = [world.taken('1', 'x'), world.taken('2', 'y'), world.taken('3', 'x')];
  for (const link of links) link.active = 1;
  const refused = asks(world, '4', 'z');
  await clock.settle();
  assert.equal(refused.code, 'link_limit');
  for (const link of links) link.used();
  await clock.advance(2);
  links[0]!.used();
  const taken = asks(world, '4', 'z');
  await clock.settle();
  assert.ok(taken.life);
  assert.deepEqual(
    links.map((link) => link.drained),
    ['', '', 'evicted'],
  );
});

timed('an offer that meets our attempt needs no place of its own', async (clock) => {
  const world = new FakePool({ maxIncoming: 1 });
  world.taken('1').active = 1;
  world.answers = false;
  world.link('7').catch(() => {});
  await clock.settle();
  const meets = asks(world, '7', 'z');
  await clock.settle();
  assert.ok(meets.life);
});

// -- the end ----------------------------------------------------------------------------------------------------------

timed('stopping drains, then closes, and makes no new links', async (clock) => {
  const world = new FakePool();
  const [idle, busy] = [await world.link('1'), await world.link('2')];
  busy.active = 1;
  world.answers = false;
  const code = codeOf(world.link('3'));
  await clock.settle();
  const stopped = world.pool.stop(10);
  await clock.advance(3);
  assert.equal(await code, 'unavailable');
  assert.equal(idle.ended, 'drained');
  assert.equal(busy.ended, '');
  assert.equal(await codeOf(world.link('4')), 'unavailable');
  await clock.advance(8);
  await stopped;
  assert.equal(busy.ended, 'closed');
  const late = world.taken('5');
  assert.equal(late.ended, 'closed');
});
