/** The frames of a link: golden bytes, and whatever a hostile peer may send. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { fromHex, hex, utf8 } from '../../../server/browser/src/wire/bytes.ts';
import {
  CREDIT, ERROR, GOAWAY, HELLO, HOLD, ITEM, MAX_ITEM, REQUEST, RESPONSE,
} from '../../../server/browser/src/wire/frame_types.ts';
import * as wire from '../../../server/browser/src/wire/frames.ts';
import { frames as vectors } from './vectors.ts';

const PROOF = Uint8Array.from({ length: 64 }, (_, index) => index);

/** The frame that a vector describes. */
function encode(type: number, call: number, fields: any): Uint8Array {
  const { flags, length, module, ms, first = '' } = fields;
  switch (type) {
    case HELLO:
      return wire.encodeHello(PROOF, fields.limits, fields.agent);
    case GOAWAY:
      return wire.encodeGoaway(fields.last, fields.reason);
    case HOLD:
      return wire.encodeHold(fields.holding);
    case REQUEST:
      return wire.encodeRequest(call, utf8(module), ms / 1000, length, fromHex(first), flags);
    case RESPONSE:
      return wire.encodeResponse(call, length, fromHex(first), flags);
    case ITEM: {
      const bytes = fromHex(first);
      return Uint8Array.of(...wire.itemHead(call, length, bytes.length, flags), ...bytes);
    }
    case CREDIT:
      return wire.encodeCredit(call, fields.credit);
    case ERROR:
      return wire.encodeError(call, fields);
    default:
      return wire.encode(type, call, 0, [], fromHex(fields.payload));
  }
}

/** What a payload says, in the words of the vectors. */
function decode({ type, flags, payload }: wire.Frame): unknown {
  switch (type) {
    case HELLO: {
      const [, body] = wire.decodeHello(payload);
      return { ...wire.decodeHelloBody(body), features: [] };
    }
    case GOAWAY: {
      const [last, reason] = wire.decodeGoaway(payload);
      return { last, reason };
    }
    case HOLD:
      return { holding: wire.decodeHold(payload) };
    case REQUEST: {
      const { module, ms, length, first } = wire.decodeRequest(payload);
      return { module, ms, length, first: hex(first), flags };
    }
    case RESPONSE:
    case ITEM: {
      const [length, first] = wire.decodeSized(payload, type === ITEM ? MAX_ITEM : Infinity);
      return { length, first: hex(first), flags };
    }
    case CREDIT:
      return { credit: wire.decodeCredit(payload) };
    case ERROR:
      return wire.decodeError(payload);
    default:
      return { payload: hex(payload) };
  }
}

const isProtocolError = (error: unknown): boolean => error instanceof BVError && error.code === 'protocol_error';

for (const { name, type, call, fields, hex: bytes } of vectors.frames) {
  test(`golden bytes: ${name}`, () => {
    assert.equal(hex(encode(type, call, fields)), bytes);
    const [frame, ...others] = wire.split(fromHex(bytes));
    assert.equal(others.length, 0);
    assert.equal(frame!.type, type);
    assert.equal(frame!.call, call);
    assert.deepEqual(decode(frame!), fields);
  });
}

for (const { name, hex: bytes } of vectors.malformed) {
  test(`malformed: ${name}`, () => {
    assert.throws(() => wire.split(fromHex(bytes)).map(decode), isProtocolError);
  });
}

test('many frames share a message, and unknown extensions are skipped', () => {
  const hold = wire.encodeHold(true);
  const extension = Uint8Array.of(0x80, 0xff, 0, 2, 0, 0, 0, 9, 1, 2);
  const found = wire.split(Uint8Array.of(...hold, ...extension, ...hold));
  assert.deepEqual(found.map(({ type }) => type), [HOLD, HOLD]);
});

test('a message is taken wherever it lies in its buffer', () => {
  const hold = wire.encodeHold(true);
  const buffer = Uint8Array.of(9, 9, 9, ...hold, 9);
  const [frame] = wire.split(buffer.subarray(3, 3 + hold.length));
  assert.equal(wire.decodeHold(frame!.payload), true);
});

test('a message has a size', () => {
  assert.throws(() => wire.split(new Uint8Array()), isProtocolError);
  assert.throws(() => wire.split(new Uint8Array(65_537).fill(0x80)), isProtocolError);
});

/** Numbers that look random and are always the same (Marsaglia, "Xorshift RNGs", 2003). */
function dice(seed: number): (most: number) => number {
  let state = seed;
  return (most) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % most;
  };
}

test('any bytes give frames or a protocol error', () => {
  const draw = dice(7);
  const types = [...wire.FLAGS.keys()];
  for (let round = 0; round < 4000; round++) {
    const payload = Uint8Array.from({ length: draw(80) }, () => draw(256));
    const message = round % 2 ? payload : wire.encode(types[draw(types.length)]!, draw(9), 0, [], payload);
    try {
      wire.split(message).map(decode);
    } catch (error) {
      assert.ok(isProtocolError(error), String(error));
    }
  }
});

// -- bodies -----------------------------------------------------------------------------------------------------------

const body = (value: unknown): string => new TextDecoder().decode(wire.encodeBody(value)[0]);
const value = (json: string): unknown => wire.decodeBody(utf8(json), false);

test('a body comes back as it went', () => {
  for (const each of [null, true, 0, -1.5, 'ä€😀', [], {}, { a: [1, { b: 'c' }] }, '\\ud800 in words', '\\\\ud']) {
    assert.deepEqual(wire.decodeBody(...wire.encodeBody(each)), each);
  }
});

test('what JSON has no word for', () => {
  assert.equal(body(undefined), 'null');
  assert.equal(body(NaN), 'null');
  assert.equal(body([Infinity, undefined]), '[null,null]');
  assert.equal(body(new Date(0)), '"1970-01-01T00:00:00.000Z"');
  const ring: unknown[] = [];
  ring.push(ring);
  for (const wrong of [() => 1, Symbol('x'), 1n, '\ud800', { a: 'x\udfff' }, { '\ud83d': 1 }, ring]) {
    assert.throws(() => wire.encodeBody(wrong), TypeError);
  }
});

test('bytes in all their forms are raw, and a copy', () => {
  const bytes = Uint8Array.of(1, 2, 3, 4);
  for (const [given, expected] of [
    [bytes, [1, 2, 3, 4]],
    [bytes.buffer, [1, 2, 3, 4]],
    [bytes.subarray(1, 3), [2, 3]],
    [new DataView(bytes.buffer, 2), [3, 4]],
    [new Uint16Array(bytes.buffer), [1, 2, 3, 4]],
  ] as const) {
    const [sent, raw] = wire.encodeBody(given);
    assert.equal(raw, true);
    assert.deepEqual([...sent], [...expected]);
    assert.ok(sent.buffer !== bytes.buffer);
  }
});

test('JSON is 64 deep at most, and texts do not count', () => {
  for (const [open, close] of [['[', ']'], ['{"a":', '}']] as const) {
    value(open.repeat(64) + '1' + close.repeat(64));
    assert.throws(() => value(open.repeat(65) + '1' + close.repeat(65)), RangeError);
  }
  const text = '"\\' + '['.repeat(500);
  assert.deepEqual(value(JSON.stringify([text, text])), [text, text]);
});

test('what nests deeper is not sent', () => {
  const nested = (depth: number): unknown => (depth ? [nested(depth - 1)] : 1);
  wire.encodeBody(nested(64));
  assert.throws(() => wire.encodeBody(nested(65)), RangeError);
});

test('JSON has 262,144 brackets at most, those in texts too', () => {
  assert.equal(value(`"${'['.repeat(2 ** 18)}"`), '['.repeat(2 ** 18));
  assert.throws(() => value(`"${'['.repeat(2 ** 18 + 1)}"`), RangeError);
  assert.throws(() => value(`[${'[],'.repeat(2 ** 18)}0]`), RangeError);
});

test('what is no JSON is refused', () => {
  for (const wrong of ['', '{', '[1,]', 'NaN', '-Infinity', "'a'", '01', '\ufeff1', '1 2', '"\t"', '"\\', '"\\"']) {
    assert.throws(() => value(wrong), SyntaxError);
  }
  for (const wrong of [[0xff], [0x22, 0xc0, 0x80, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22]]) {
    assert.throws(() => wire.decodeBody(Uint8Array.from(wrong), false), TypeError);
  }
});

test('of a key that stands twice the last counts, and none is special', () => {
  assert.deepEqual(value('{"a":1,"a":2}'), { a: 2 });
  const odd = value('{"__proto__":{"code":"busy"}}') as Record<string, unknown>;
  assert.equal(Object.getPrototypeOf(odd), Object.prototype);
  assert.throws(() => wire.decodeError(utf8('{"__proto__":{"code":"busy"}}')), isProtocolError);
});
