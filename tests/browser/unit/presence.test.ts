/** Online peers: only differences are reported, and who is missing after a reconnect is held for a while. */

import { test } from 'node:test';
import assert from 'node:assert/strict';

import { HOLD, Presence } from '../../../server/browser/src/wire/presence.ts';
import type { PresenceEvent } from '../../../server/browser/src/wire/session_events.ts';

/** A presence, and what it has reported since one last looked. */
function observed(): [Presence, () => PresenceEvent[]] {
  const changes: PresenceEvent[] = [];
  return [new Presence((change) => changes.push(change)), () => changes.splice(0)];
}

const list = (peers: Record<string, string>): Map<string, string> => new Map(Object.entries(peers));

test('a first list reports everybody, later ones only differences', () => {
  const [presence, changes] = observed();
  presence.replace(list({ 1: 'bob', 2: 'Us' }), 0);
  assert.deepEqual(changes(), [
    { type: 'peerConnected', name: 'bob', id: '1' },
    { type: 'peerConnected', name: 'Us', id: '2' },
  ]);
  assert.equal(presence.timer(), null);
  presence.replace(list({ 1: 'bob', 2: 'Us' }), 0);
  presence.vanish('3');
  assert.deepEqual(changes(), []);
  presence.appear('bob', '1');
  assert.deepEqual(changes(), [{ type: 'peerReturned', id: '1' }]);
});

test('who is missing is held and then gone, and who comes back in time was never away', () => {
  const [presence, changes] = observed();
  presence.replace(list({ 1: 'bob', 2: 'bob', 3: 'Us' }), 0);
  changes();
  presence.replace(list({ 1: 'bob' }), 100);
  assert.deepEqual(changes(), []);
  assert.equal(presence.peers.size, 3);
  assert.equal(presence.timer(), 100 + HOLD);
  presence.handleTimer(100 + HOLD - 0.01);
  presence.appear('bob', '2');
  assert.deepEqual(changes(), [{ type: 'peerReturned', id: '2' }]);
  presence.handleTimer(100 + HOLD);
  assert.deepEqual(changes(), [{ type: 'peerDisconnected', id: '3', name: 'Us' }]);
  assert.equal(presence.timer(), null);
});

test('another loss starts the time anew', () => {
  const [presence] = observed();
  presence.replace(list({ 1: 'bob' }), 0);
  presence.replace(list({}), 10);
  presence.replace(list({}), 20);
  assert.equal(presence.timer(), 20 + HOLD);
});

test('an id under another alias is another peer, and an alias goes with all its peers', () => {
  const [presence, changes] = observed();
  presence.replace(list({ 1: 'bob', 2: 'carol', 3: 'bob' }), 0);
  changes();
  presence.appear('carol', '1');
  assert.deepEqual(changes(), [
    { type: 'peerDisconnected', id: '1', name: 'bob' },
    { type: 'peerConnected', name: 'carol', id: '1' },
  ]);
  presence.vanishAll('carol');
  assert.deepEqual([...presence.peers], [['3', 'bob']]);
});

test('the reports always add up to what is known', () => {
  let seed = 1;
  const below = (most: number): number => (seed = (seed * 48_271) % 2_147_483_647) % most;
  const [id, name] = [() => String(below(4)), () => ['bob', 'carol'][below(2)]!];
  for (let run = 0; run < 200; run++) {
    const [presence, changes] = observed();
    const seen = new Map<string, string>();
    let now = 0;
    for (let step = 0; step < 30; step++) {
      const what = below(5);
      if (what === 0) presence.replace(new Map(Array.from({ length: below(5) }, () => [id(), name()])), now);
      else if (what === 1) presence.handleTimer((now += below(20)));
      else if (what === 2) presence.vanish(id());
      else if (what === 3) presence.vanishAll(name());
      else presence.appear(name(), id());
      for (const change of changes()) {
        if (change.type === 'peerReturned') assert.ok(what === 4 && seen.has(change.id));
        else if (change.type === 'peerConnected') assert.ok(!seen.has(change.id) && seen.set(change.id, change.name));
        else assert.ok(seen.get(change.id) === change.name && seen.delete(change.id));
      }
      assert.deepEqual(new Map([...seen].sort()), new Map([...presence.peers].sort()));
    }
  }
});
