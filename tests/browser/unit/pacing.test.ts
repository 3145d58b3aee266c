/** How often: delays, hurries, buckets. */

import { test } from 'node:test';
import assert from 'node:assert/strict';

import { Backoff, Bucket, MAX_HINT, Retry } from '../../../server/browser/src/wire/pacing.ts';

test('delays grow within their bounds', () => {
  for (const chance of [0, 0.5, 0.999]) {
    const backoff = new Backoff(() => chance);
    assert.ok(backoff.next() <= 2);
    let base = 2;
    for (let attempt = 0; attempt < 12; attempt++) {
      base = Math.min(base * 1.6, 40);
      const delay = backoff.next();
      assert.ok(Math.abs(delay - base * (0.5 + chance)) < 1e-9 && delay <= 60);
    }
    backoff.reset();
    assert.ok(backoff.next() <= 2);
  }
});

test('a hint is honoured and bounded', () => {
  for (const hint of [0, 5, 100, 1e9, -3]) {
    const delay = new Backoff(() => 0.25).next(hint);
    assert.equal(delay, Math.max(0.5, Math.min(Math.max(hint, 0), MAX_HINT) + 0.5));
  }
});

test('a bucket gives its burst at once, then its rate, and names the moment to ask again', () => {
  const bucket = new Bucket(2, 3);
  assert.deepEqual([1, 2, 3].map(() => bucket.take(10)), [0, 0, 0]);
  assert.equal(bucket.take(10), 0.5);
  assert.equal(bucket.moment(), 10.5);
  assert.equal(bucket.take(10.5), 0);
  assert.equal(bucket.wait(5), 0.5); // time that runs backwards fills nothing
  assert.equal(bucket.take(100, 3), 0);
  assert.equal(bucket.take(100, 2), 1);
});

test('no schedule gets more than burst and rate allow', () => {
  const bucket = new Bucket(3, 5);
  let [now, taken] = [0, 0];
  for (let step = 0; step < 2000; step++) {
    now += (step * 7919) % 100 / 400;
    if (!bucket.take(now)) taken++;
    assert.ok(taken <= 5 + 3 * now + 1e-3);
  }
});

test('who hurries is due at once and begins anew, but there is a measure', () => {
  const retry = new Retry(() => 0.5);
  for (let attempt = 0; attempt < 5; attempt++) retry.after(0);
  assert.ok(retry.hurry(0) && retry.at === 0);
  assert.equal(retry.after(0), 1);
  assert.deepEqual([1, 2, 3, 4].map(() => retry.hurry(0)), [true, true, true, false]);
  assert.ok(retry.hurry(5));
});

test('who is asked for patience does not hurry', () => {
  const retry = new Retry(() => 0.5);
  assert.equal(retry.after(0, 20, true), 21);
  assert.ok(!retry.hurry(20.9) && retry.hurry(21));
  assert.equal(retry.after(30, undefined, true), 0);
});
