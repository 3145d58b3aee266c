import { test } from 'node:test';
import assert from 'node:assert/strict';

import { BVError } from '../../../server/browser/src/errors.ts';
import { toBase64url } from '../../../server/browser/src/wire/bytes.ts';
import { decode, encode, MAX_MESSAGE } from '../../../server/browser/src/wire/signals.ts';
import { signals } from './vectors.ts';

/** A value with bytes as base64url, as the vectors have it. */
const plain = (value: unknown): any =>
  JSON.parse(JSON.stringify(value, (_, item) => (item instanceof Uint8Array ? toBase64url(item) : item)));

function judged(text: string): object {
  try {
    const { type, data, ref = null } = decode(text);
    return { text, type, data: plain(data), ref };
  } catch (error) {
    assert.ok(error instanceof BVError, `${text.slice(0, 200)} raised ${error}`);
    return { text, fails: error.code };
  }
}

test('every message comes to the same as in Python', () => {
  assert.ok(signals.length > 250);
  for (const vector of signals) assert.deepEqual(judged(vector.text), vector);
});

test('a message is as long as it may be, and not longer', () => {
  const of = (size: number): string => {
    const rest = '{"type":"done","data":{"a":""}}';
    return rest.replace('""', `"${'x'.repeat(size - rest.length)}"`);
  };
  assert.equal(decode(of(MAX_MESSAGE)).type, 'done');
  assert.throws(() => decode(of(MAX_MESSAGE + 1)), { code: 'bad_message' });
});

test('what is nested without end is refused', () => {
  for (const deep of ['['.repeat(60_000), '{"a":'.repeat(12_000), `${'['.repeat(30_000)}${']'.repeat(30_000)}`]) {
    assert.throws(() => decode(deep), { code: 'bad_message' });
  }
});

test('bytes stand as base64url in what we say, and what is absent is left out', () => {
  const text = encode('peerResponse', { to: '7', answer: Uint8Array.of(251, 255), signature: new Uint8Array(0) }, '3');
  const data = { to: '7', answer: '-_8', signature: '' };
  assert.deepEqual(JSON.parse(text), { type: 'peerResponse', data, ref: '3' });
  assert.deepEqual(JSON.parse(encode('requestIceServers', {})), { type: 'requestIceServers', data: {} });
});
