/** Links that come back, and those that are replaced before they break. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { Healing } from '../../../server/browser/src/healing.ts';
import { FakeClock } from './fake_clock.ts';
import { FakePool, type FakeLink } from './fake_links.ts';
import { until, Wire } from './wire.ts';

interface World {
  readonly clock: FakeClock;
  readonly fakes: FakePool;
  readonly healing: Healing;
  /** A link that this side wanted for so many seconds more, and that is lost. */
  lose(peerId: string, seconds: number, offerer?: boolean): FakeLink;
}

function timed(name: string, run: (world: World) => Promise<void>): void {
  test(name, () =>
    FakeClock.run(async (clock) => {
      const fakes = new FakePool();
      const healing = new Healing(fakes.pool);
      const lose = (peerId: string, seconds: number, offerer = true): FakeLink => {
        const link = fakes.made(peerId, offerer);
        link.missedUntil = clock.now + seconds;
        healing.lost(link.real);
        return link;
      };
      await run({ clock, fakes, healing, lose });
      healing.stop();
      await clock.advance(20);
    }),
  );
}

/** What is dialled fails, until a test says otherwise. */
function failing(fakes: FakePool, code: string, retryAfter?: number): void {
  fakes.pool.link = async (peerId) => {
    fakes.dialled.push(peerId);
    throw new BVError(code, code, retryAfter === undefined ? {} : { retryAfter });
  };
}

timed('a link that is lost while it is wanted comes back, and is held for as long', async ({ clock, fakes, lose }) => {
  const lost = lose('7', 30);
  await clock.advance(0.1);
  assert.deepEqual(fakes.dialled, ['7']);
  assert.equal(fakes.added[0]!.keptUntil, lost.missedUntil);
});

timed('one that nobody here wants does not', async ({ clock, fakes, healing, lose }) => {
  lose('7', 0);
  const unproved = fakes.made('8');
  unproved.proved = false;
  unproved.missedUntil = clock.now + 30;
  healing.lost(unproved.real);
  await clock.advance(10);
  assert.deepEqual(fakes.dialled, []);
});

timed('the side that was dialled lets the other go first', async ({ clock, fakes, lose }) => {
  lose('7', 30, false);
  await clock.advance(1.4);
  assert.deepEqual(fakes.dialled, []);
  await clock.advance(1.7);
  assert.deepEqual(fakes.dialled, ['7']);
});

timed('it is tried until the time is over for which the link would have been kept', async ({ clock, fakes, lose }) => {
  failing(fakes, 'connect_failed');
  lose('7', 60);
  await clock.advance(59);
  const tries = fakes.dialled.length;
  assert.ok(tries > 5 && tries < 40, `${tries} tries`);
  await clock.advance(2);
  const atEnd = fakes.dialled.length;
  await clock.advance(60);
  assert.equal(fakes.dialled.length, atEnd);
});

timed('a time to wait that is longer than the link is wanted is cut to it', async ({ clock, fakes, healing, lose }) => {
  failing(fakes, 'rate_limited', 3600);
  lose('7', 5);
  await clock.advance(6);
  const tries = fakes.dialled.length;
  healing.retryNow();
  await clock.advance(1);
  assert.equal(fakes.dialled.length, tries, 'that is over');
});

timed('a peer that is not trusted any more is left alone', async ({ clock, fakes, lose }) => {
  failing(fakes, 'not_trusted');
  lose('7', 60);
  await clock.advance(60);
  assert.deepEqual(fakes.dialled, ['7']);
});

timed('one peer is brought back once at a time', async ({ clock, fakes, healing, lose }) => {
  failing(fakes, 'connect_failed', 1000);
  lose('7', 60);
  lose('7', 60);
  void healing.bringBack('7');
  await clock.advance(1);
  assert.deepEqual(fakes.dialled, ['7']);
});

timed('when something has changed it is tried at once', async ({ clock, fakes, healing, lose }) => {
  failing(fakes, 'unavailable', 1000);
  lose('7', 60);
  await clock.advance(10);
  assert.equal(fakes.dialled.length, 1);
  healing.retryNow();
  await clock.settle();
  assert.equal(fakes.dialled.length, 2);
});

timed('a network that changes leaves links alone that answer', async ({ clock, fakes, healing }) => {
  const link = fakes.taken('7');
  healing.networkChanged();
  healing.networkChanged();
  await clock.advance(30);
  assert.deepEqual([link.doubted, link.pings, fakes.dialled], [false, 1, []]);
});

timed(
  'a link that does not answer is replaced, and only when another is proved it goes',
  async ({ clock, fakes, healing }) => {
    const link = fakes.taken('7');
    link.active = 1;
    await clock.advance(10);
    link.answers = false;
    fakes.answers = false;
    healing.networkChanged();
    await clock.advance(2.9);
    assert.equal(link.doubted, false);
    await clock.advance(0.2);
    assert.equal(link.doubted, true);
    assert.deepEqual(fakes.dialled, ['7']);
    assert.equal(link.usable, true);
    fakes.dials.get('7')!.result.resolve(fakes.made('7').real);
    await clock.settle();
    assert.equal(link.drained, 'replaced');
  },
);

timed('a young link is replaced when it cannot be taken for dialling at once', async ({ clock, fakes, healing }) => {
  const link = fakes.taken('7');
  link.answers = false;
  healing.networkChanged();
  await clock.advance(4.9);
  assert.deepEqual(fakes.dialled, []);
  await clock.advance(0.2);
  assert.deepEqual(fakes.dialled, ['7']);
});

timed('one that is heard again meanwhile stays', async ({ clock, fakes, healing }) => {
  const link = fakes.taken('7');
  link.answers = false;
  void healing.examine(link.real);
  await clock.advance(4);
  link.doubted = false;
  await clock.advance(10);
  assert.deepEqual([fakes.dialled, link.usable], [[], true]);
});

timed('links that nobody wants, or that are going, are not looked after', async ({ clock, fakes, healing }) => {
  const [unwanted, going] = [fakes.taken('7'), fakes.taken('8')];
  unwanted.isWanted = false;
  going.active = 1;
  going.drain('idle');
  healing.networkChanged();
  await clock.advance(10);
  assert.deepEqual([unwanted.pings, going.pings], [0, 0]);
});

timed('a link that was replaced goes on only if it answers', async ({ clock, fakes, healing }) => {
  const [silent, heard] = [fakes.made('7'), fakes.made('8')];
  for (const link of [silent, heard]) link.active = 1;
  silent.answers = false;
  void healing.replaced(silent.real);
  void healing.replaced(heard.real);
  await clock.advance(5);
  assert.deepEqual([silent.ended, heard.ended], ['closed', '']);
});

timed('stopping ends all of it', async ({ clock, fakes, healing, lose }) => {
  failing(fakes, 'connect_failed', 1);
  lose('7', 600);
  lose('8', 600, false);
  await clock.advance(0.1);
  healing.stop();
  await clock.advance(60);
  assert.deepEqual(fakes.dialled, ['7']);
});

// -- with links that carry calls --------------------------------------------------------------------------------------

test('a link whose path breaks comes back by itself, with one link in the end', () =>
  Wire.run(async (wire) => {
    const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
    await alice.call(bob, 1);
    const [before] = alice.links.pool.links();
    const never = bob.call(alice, null, 'Never');
    await until(() => before!.active === 1);
    wire.network.cut();
    assert.equal(await never.catch((error: BVError) => error.code), 'link_lost');
    await until(() => alice.links.pool.current('2') !== null);
    assert.ok(alice.doubts > 0, 'the reason may be on this side');
    assert.deepEqual(await bob.call(alice, 2), ['bob', 2]);
    await until(() => [alice, bob].every((node) => node.links.pool.links().length === 1));
  }));

/** Two nodes, and alice's link to bob, on which she gets no answer to a ping any more. */
async function deaf(wire: Wire) {
  const [alice, bob] = [wire.node('alice', 1), wire.node('bob', 2)];
  await alice.call(bob, 1);
  const [before] = alice.links.pool.links();
  before!.ping = async () => {
    throw new BVError('deadline');
  };
  return { alice, bob, before };
}

test('a link that stays silent is replaced, and calls go on', () =>
  Wire.run(async (wire) => {
    const { alice, bob, before } = await deaf(wire);
    (before as { openedAt: number }).openedAt -= 10;
    alice.links.networkChanged();
    await until(() => alice.links.pool.current('2') !== null && alice.links.pool.current('2') !== before);
    assert.deepEqual(await alice.call(bob, 2), ['alice', 2]);
    await until(() => before!.ended !== '');
  }));

timed('a peer that left the server keeps a link on which it answers', async ({ clock, fakes, healing }) => {
  const link = fakes.taken('7');
  for (let i = 0; i < 100; i++) healing.peerLeft('7');
  await clock.advance(20);
  assert.deepEqual([link.pings, link.ended], [1, ''], 'and is asked once at a time');
  healing.peerLeft('7');
  await clock.advance(1);
  assert.equal(link.pings, 2);
});

timed('a page that stood still for a while asks once more', async ({ clock, fakes, healing }) => {
  const link = fakes.taken('7');
  link.answers = false;
  healing.peerLeft('7');
  await clock.advance(1.4);
  link.answers = true; // but the first answer came too late
  await clock.advance(2);
  assert.deepEqual([link.pings, link.ended], [2, '']);
});

timed('a peer that is back is dialled at once', async ({ clock, fakes, healing, lose }) => {
  failing(fakes, 'peer_offline', 60); // which the next try waits for
  lose('7', 600);
  lose('8', 600);
  await clock.advance(30);
  assert.deepEqual(fakes.dialled, ['7', '8']);
  healing.peerCame('7');
  await clock.advance(0.01);
  assert.deepEqual(fakes.dialled, ['7', '8', '7']);
});

timed('a peer that left and does not answer is lost', async ({ clock, fakes, healing }) => {
  const [link, other] = [fakes.taken('7'), fakes.taken('8')];
  link.answers = other.answers = false;
  healing.peerLeft('7');
  await clock.advance(2.9);
  assert.equal(link.ended, '');
  await clock.advance(0.2);
  assert.equal(link.ended, 'lost');
  assert.match((await link.gone).message, /has left/);
  assert.deepEqual([other.pings, other.ended], [0, '']);
});

for (const [toLeave, stays] of [
  [[5, 0], false],
  [[0, 5], true],
] as const) {
  const name = stays ? 'a ping may wait behind what leaves meanwhile' : 'but what was let out before is no answer';
  timed(name, async ({ clock, fakes, healing }) => {
    const [asked, replaced] = [fakes.taken('7'), fakes.taken('8')];
    for (const link of [asked, replaced]) [link.answers, link.toLeave] = [false, [...toLeave]];
    healing.peerLeft('7');
    void healing.replaced(replaced.real);
    await clock.advance(20);
    assert.deepEqual([asked.pings, asked.ended], [2, stays ? '' : 'lost']);
    assert.deepEqual([replaced.pings, replaced.ended], [2, stays ? '' : 'closed']);
  });
}

timed('one that is examined already can be lost all the same', async ({ clock, fakes, healing }) => {
  const link = fakes.taken('7');
  failing(fakes, 'connect_failed');
  link.answers = false;
  healing.networkChanged();
  await clock.advance(1);
  healing.peerLeft('7');
  await clock.advance(3.1);
  assert.equal(link.ended, 'lost');
});

test('a link that ends because its peer left counts as lost, and comes back if it is wanted', () =>
  Wire.run(async (wire) => {
    const { alice, before } = await deaf(wire);
    alice.links.peerLeft('2');
    await until(() => before!.ended === 'lost');
    assert.equal(before!.life.state, 'lost');
    await until(() => alice.links.pool.current('2') !== null);
  }));
