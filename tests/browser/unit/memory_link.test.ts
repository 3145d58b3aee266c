/** What every link owes its user, whatever carries it: shown with links in memory. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MAX_RECEIVED, MAX_SENT, MAX_UNDELIVERED } from '../../../server/browser/src/link.ts';
import { FakeClock } from './fake_clock.ts';
import { MemoryNetwork } from './memory_link.ts';

const timed = (name: string, run: (clock: FakeClock) => Promise<void>): void =>
  void test(name, () => FakeClock.run(run));

timed('messages arrive whole and in order, also those that come before anybody listens', async (clock) => {
  const [ours, theirs] = new MemoryNetwork().pair();
  ours.send(Uint8Array.of(1));
  ours.send(Uint8Array.of(2, 2));
  await clock.advance(1);
  const heard: number[][] = [];
  theirs.onMessage = (message) => heard.push([...message]);
  assert.deepEqual(heard, [], 'never from inside a method');
  ours.send(new Uint8Array(MAX_SENT));
  await clock.advance(1);
  assert.deepEqual(heard.slice(0, 2), [[1], [2, 2]]);
  assert.equal(heard[2]!.length, MAX_SENT);
});

timed('the end is told once, behind what came before it, and also to who asks late', async (clock) => {
  const [ours, theirs] = new MemoryNetwork().pair();
  const told: string[] = [];
  ours.onClosed = (reason) => told.push(`ours ${reason}`);
  theirs.onMessage = () => told.push('message');
  ours.send(Uint8Array.of(1));
  ours.close();
  assert.deepEqual(told, [], 'never from inside a method');
  await clock.advance(1);
  theirs.onClosed = (reason) => told.push(`theirs ${reason}`);
  theirs.close();
  await clock.advance(1);
  assert.deepEqual(told, ['ours closed', 'message', 'theirs closed_by_peer']);
});

timed('what must not be sent is not, and a link that has ended takes nothing', async () => {
  const [ours] = new MemoryNetwork().pair();
  assert.throws(() => ours.send(new Uint8Array()), TypeError);
  assert.throws(() => ours.send(new Uint8Array(MAX_SENT + 1)), TypeError);
  ours.close();
  assert.throws(() => ours.send(Uint8Array.of(1)), /the link is closed/);
});

timed('a text, an empty and a too long message end the link', async (clock) => {
  for (const message of ['text', new ArrayBuffer(0), new ArrayBuffer(MAX_RECEIVED + 1), null]) {
    const [ours] = new MemoryNetwork().pair();
    const [told, heard]: unknown[][] = [[], []];
    ours.onClosed = (reason) => told!.push(reason);
    ours.onMessage = (data) => heard!.push(data);
    ours.receive(message);
    await clock.settle();
    assert.deepEqual([told, heard], [['protocol_error'], []]);
  }
  const [ours] = new MemoryNetwork().pair();
  ours.receive(new ArrayBuffer(MAX_RECEIVED));
  assert.equal(ours.closed, null);
});

timed('what nobody takes is held up to a limit', async () => {
  const [ours] = new MemoryNetwork().pair();
  for (let held = 0; held <= MAX_UNDELIVERED && !ours.closed; held += MAX_RECEIVED)
    ours.receive(new ArrayBuffer(MAX_RECEIVED));
  assert.equal(ours.closed, 'abuse');
});

timed('onDrained is told when enough has left', async (clock) => {
  const network = new MemoryNetwork();
  const [ours] = network.pair();
  ours.lowWater = 1000;
  let drained = 0;
  ours.onDrained = () => drained++;
  network.silent = true;
  for (let count = 0; count < 3; count++) ours.send(new Uint8Array(600));
  await clock.advance(1);
  assert.equal(ours.buffered, 1800);
  network.silent = false;
  assert.deepEqual([drained, ours.buffered], [1, 0]);
});
