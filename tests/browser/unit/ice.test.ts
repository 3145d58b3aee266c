/** The STUN and TURN servers of a tab: whose credentials are used, and when new ones are asked for. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Ice } from '../../../server/browser/src/ice.ts';
import type { ConnectOptions } from '../../../server/browser/src/types.ts';
import { FakeClock } from './fake_clock.ts';

const OWN = { urls: 'turn:own', username: 'me', credential: 'own secret' };
const STUN = { urls: 'stun:a' };
const handed = (credential = 'first') => ({ urls: ['turn:a', 'turns:a'], username: '9:alice', credential });

class World {
  asked = 0;
  /** What the discovery server hands out when it is asked; null if it does not answer. */
  next: [RTCIceServer, number | null] | null = null;
  readonly clock: FakeClock;
  readonly ice: Ice;

  constructor(clock: FakeClock, settings?: ConnectOptions['ice']) {
    const understood = (servers: readonly RTCIceServer[]) => servers.filter(({ urls }) => urls !== 'odd:a');
    this.clock = clock;
    this.ice = new Ice(settings, () => this.#refresh(), understood);
  }

  async #refresh(): Promise<void> {
    this.asked++;
    if (!this.next) return new Promise(() => {});
    this.ice.handedOut([this.next[0]], [this.next[1]]);
  }

  /** What a connection is made with, while time goes on. */
  async servers(): Promise<RTCIceServer[]> {
    const config = this.ice.config();
    await this.clock.advance(2.1);
    return (await config).servers as RTCIceServer[];
  }
}

const timed = (name: string, run: (world: World) => Promise<void>, settings?: ConnectOptions['ice']): void =>
  void test(name, () => FakeClock.run((clock) => run(new World(clock, settings))));

timed(
  'those of the page come first, then what was handed out and the browser takes',
  async ({ ice }) => {
    assert.deepEqual(await ice.config(), { servers: [OWN], relayOnly: true });
    ice.handedOut([handed(), { urls: 'odd:a' }, STUN], [null, null, null]);
    assert.deepEqual((await ice.config()).servers, [OWN, handed(), STUN]);
  },
  { servers: [OWN], policy: 'relay' },
);

timed('only credentials that hold are used, and not in their last seconds', async (world) => {
  world.ice.handedOut([handed(), STUN], [100, null]);
  await world.clock.advance(94.9);
  assert.deepEqual((await world.ice.config()).servers, [handed(), STUN]);
  assert.equal(world.asked, 0);
  await world.clock.advance(0.2);
  assert.deepEqual(await world.servers(), [STUN]);
});

timed('one that holds for a moment is used for nine tenths of it', async (world) => {
  world.ice.handedOut([handed()], [10]);
  await world.clock.advance(8.9);
  assert.deepEqual((await world.ice.config()).servers, [handed()]);
  await world.clock.advance(0.2);
  assert.deepEqual(await world.servers(), []);
});

timed('new ones are asked for when a connection needs them, not more often than every ten seconds', async (world) => {
  world.ice.handedOut([handed()], [100]);
  await world.clock.advance(100);
  assert.equal(world.asked, 0);
  const both = [world.servers(), world.ice.config()];
  await world.clock.advance(2.1);
  await Promise.all(both);
  assert.deepEqual(await world.servers(), []);
  assert.equal(world.asked, 1, 'one question for all who need the answer');
  await world.clock.advance(10);
  world.next = [handed('second'), 3600];
  assert.deepEqual(await world.servers(), [handed('second')]);
  assert.equal(world.asked, 2);
  assert.deepEqual((await world.ice.config()).servers, [handed('second')]);
  assert.equal(world.asked, 2);
});

timed('a credential runs out while the machine sleeps', async (world) => {
  world.ice.handedOut([handed()], [1]);
  await world.clock.advance(1);
  await world.servers(); // asked for in vain, a moment before
  world.ice.handedOut([handed()], [3600]);
  world.clock.slept = 7200;
  world.next = [handed('second'), 3600];
  assert.deepEqual(await world.servers(), [handed('second')]);
  world.clock.slept = 0; // somebody has set the clock back: then it holds by the other one
  assert.deepEqual((await world.ice.config()).servers, [handed('second')]);
  assert.equal(world.asked, 2);
});
