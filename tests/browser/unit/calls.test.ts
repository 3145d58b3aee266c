/** The protocol of a link, held to what the Python tables do: tests/vectors/links.json. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { BVError } from '../../../server/browser/src/errors.ts';
import { concat, equalBytes, fromHex, fromUtf8, hex, utf8 } from '../../../server/browser/src/wire/bytes.ts';
import { CallTable } from '../../../server/browser/src/wire/calls.ts';
import { ERROR } from '../../../server/browser/src/wire/frame_types.ts';
import { encode, encodeHold, split } from '../../../server/browser/src/wire/frames.ts';
import {
  DEFAULT_SETTINGS, type Event, type OutgoingCall, type ReceivedCall,
} from '../../../server/browser/src/wire/link_core.ts';
import { MemoryBudget } from '../../../server/browser/src/wire/memory.ts';
import type { IncomingItems, OutgoingItems } from '../../../server/browser/src/wire/streams.ts';
import { links } from './vectors.ts';

const PROOFS = [new Uint8Array(64).fill(1), new Uint8Array(64).fill(2)];

/** Bytes as transcripts write them: runs of 16 and more short. */
function short(data: Uint8Array): string {
  let text = '';
  for (let at = 0; at < data.length; ) {
    let end = at + 1;
    while (data[end] === data[at]) end++;
    const digits = hex(data.subarray(at, at + 1));
    text += end - at < 16 ? digits.repeat(end - at) : `[${digits}*${end - at}]`;
    at = end;
  }
  return text;
}

function long(text: string): Uint8Array<ArrayBuffer> {
  const parts = [...text.matchAll(/\[(..)\*(\d+)\]|[^[]+/g)];
  return concat(
    ...parts.map(([digits, repeated, count]) =>
      repeated ? new Uint8Array(Number(count)).fill(parseInt(repeated, 16)) : fromHex(digits),
    ),
  );
}

/** A message as transcripts write it: its errors without their texts. */
function written(message: Uint8Array): string {
  const parts = split(message).map(({ type, call, flags, payload }) => {
    if (type === ERROR) {
      const { message: _, ...said } = JSON.parse(fromUtf8(payload));
      payload = utf8(`{${Object.keys(said).sort().map((key) => `"${key}": ${number(said[key])}`).join(', ')}}`);
    }
    return short(encode(type, call, flags, [], payload));
  });
  return parts.join('');
}

/** As Python writes it, where 2.0 is no whole number. */
const number = (value: unknown): string =>
  JSON.stringify(value) + (typeof value === 'number' && Number.isInteger(value) ? '.0' : '');

/** One side of a transcript. */
class Side {
  readonly table: CallTable;
  readonly made = new Map<string, OutgoingCall>();
  readonly received = new Map<number, ReceivedCall>();
  readonly expected: Uint8Array;
  inbox: Uint8Array[] = [];

  constructor(side: number, settings: object, memory: number) {
    this.expected = PROOFS[1 - side]!;
    this.table = new CallTable(
      side === 0, PROOFS[side]!, { ...DEFAULT_SETTINGS, ...settings }, 1000, new MemoryBudget(memory), () => {},
    );
  }

  outgoing(of: string | number): OutgoingItems {
    return (typeof of === 'string' ? this.made.get(of)!.items : this.received.get(of)!.answer)!;
  }

  incoming(of: string | number): IncomingItems {
    return (typeof of === 'string' ? this.made.get(of)!.received : this.received.get(of)!.items)!;
  }

  /** An event in the words of transcripts. */
  told(event: Event): unknown[] {
    switch (event.type) {
      case 'received': {
        const { call, module, body, raw, takesStream, items, deadline } = event.call;
        this.received.set(call, event.call);
        return [event.type, call, module, short(body), raw, takesStream, items !== null, deadline];
      }
      case 'opened':
        return [event.type, event.agent];
      case 'cancelled':
        return [event.type, event.call.call, event.error.code];
      case 'answered':
        return [event.type, event.call.context, short(event.body), event.raw];
      case 'begun':
      case 'returned':
        return [event.type, event.call.context];
      case 'items':
        return [event.type, event.items.call, event.items.length, event.items.ended, event.items.dropped];
      case 'failed': {
        const { code, callId = null, retryAfter = null } = event.error;
        return [event.type, event.call.context, code, callId, retryAfter];
      }
      case 'hold':
        return [event.type, event.holding];
      case 'pong':
        return [event.type, event.number, event.roundTrip];
      default:
        return [event.type];
    }
  }

  /** Take in a message, and verify the proof in it at once. */
  receive(message: Uint8Array, at: number): Event[] {
    this.table.receive(message, at);
    const events = this.table.events();
    const proof = events.find((event) => event.type === 'proof');
    if (proof === undefined) return events;
    this.table.proved(equalBytes(proof.signature, this.expected), at);
    return events.filter((event) => event !== proof);
  }

  seen(): unknown[] {
    const { table } = this;
    const due = table.timer();
    return [
      table.state, table.active, table.waiting, table.backlog, table.queuedItems, table.hasOutput, table.canMove,
      table.quiet, due === Infinity ? null : due,
    ];
  }
}

/** Do one step; gives what comes of it, in the words of the transcript. */
function play(step: any, side: Side, other: Side): object {
  const { at, do: what, name, of, call, raw } = step;
  const { table } = side;
  const outcome: any = {};
  const body = 'body' in step ? long(step.body) : new Uint8Array();
  let events: Event[] = [];
  try {
    switch (what) {
      case 'call':
        side.made.set(name, table.call(step.module, body, step.flags, step.timeout, at, name));
        break;
      case 'cancel':
        table.cancel(side.made.get(name)!, at);
        break;
      case 'endItems':
        table.endItems(side.made.get(name)!);
        break;
      case 'push':
        table.pushItem(side.outgoing(of), [body, raw]);
        break;
      case 'take': {
        const [item, isRaw] = side.incoming(of).take();
        outcome.item = [short(item), isRaw];
        break;
      }
      case 'drop':
        side.incoming(of).drop();
        break;
      case 'reply':
        table.reply(side.received.get(call)!, body, raw, at);
        break;
      case 'fail': {
        const { code, callId, retryAfter } = step;
        const extra = { ...(callId && { callId }), ...(retryAfter && { retryAfter }) };
        table.fail(side.received.get(call)!, new BVError(code, 'no', extra), at);
        break;
      }
      case 'begin':
        table.begin(side.received.get(call)!, at);
        break;
      case 'end':
        table.end(side.received.get(call)!);
        break;
      case 'hold':
        table.hold(step.holding);
        break;
      case 'ping':
        table.ping(at);
        break;
      case 'goaway':
        table.goaway(step.reason, at);
        break;
      case 'close':
        table.close(new BVError('link_lost'));
        break;
      case 'acknowledged':
        table.acknowledged(at);
        break;
      case 'timer':
        table.handleTimer(at);
        break;
      case 'inject':
        events = side.receive(long(step.message), at);
        break;
      case 'deliver':
        events = side.receive(side.inbox.shift()!, at);
        break;
      case 'send': {
        const messages = table.dataToSend(step.room, at);
        for (const message of messages) assert.ok(message.length <= 16_384);
        other.inbox.push(...messages);
        if (messages.length) outcome.messages = messages.map(written);
        break;
      }
      case 'look':
        outcome.seen = side.seen();
        break;
      default:
        assert.ok(false, `a step of an unknown kind: ${what}`);
    }
  } catch (error) {
    if (!(error instanceof BVError)) throw error;
    outcome.fails = error.code;
  }
  const told = [...events, ...table.events()].map((event) => side.told(event));
  if (told.length) outcome.events = told;
  return outcome;
}

/** What a step says that comes of it. */
function wanted({ messages, events, fails, item, seen }: any): object {
  const all = Object.entries({ messages, events, fails, item, seen });
  return Object.fromEntries(all.filter(([, value]) => value !== undefined));
}

for (const { name, settings, memory, steps } of links as any[]) {
  test(`transcript: ${name}`, () => {
    const sides = [0, 1].map((side) => new Side(side, settings[side], memory)) as [Side, Side];
    steps.forEach((step: any, index: number) => {
      const outcome = play(step, sides[step.side]!, sides[1 - step.side]!);
      assert.deepEqual(outcome, wanted(step), `step ${index}: ${JSON.stringify(step).slice(0, 300)}`);
    });
  });
}

// -- what Python does not have ----------------------------------------------------------------------------------------

function proving(): { table: CallTable; hello: Uint8Array } {
  const other = new CallTable(false, PROOFS[1]!, DEFAULT_SETTINGS, 1000, new MemoryBudget(0), () => {});
  const [hello] = other.dataToSend(0, 1000);
  const table = new CallTable(true, PROOFS[0]!, DEFAULT_SETTINGS, 1000, new MemoryBudget(0), () => {});
  return { table, hello: hello! };
}

test('what comes while the proof is looked at counts once it is right, in its order', () => {
  const { table, hello } = proving();
  table.receive(hello, 1000);
  table.receive(encodeHold(true), 1000);
  table.receive(encodeHold(false), 1000);
  assert.deepEqual(table.events().map(({ type }) => type), ['proof']);
  table.proved(true, 1001);
  assert.deepEqual(table.events().map(({ type }) => type), ['opened', 'hold', 'hold']);
});

test('what comes after a wrong proof is never looked at', () => {
  const { table, hello } = proving();
  table.receive(hello, 1000);
  table.receive(encodeHold(true), 1000);
  assert.throws(() => table.proved(false, 1000), { code: 'identity_mismatch' });
  assert.deepEqual(table.events().map(({ type }) => type), ['proof']);
});

test('what is kept while the proof is looked at has a bound', () => {
  const { table, hello } = proving();
  table.receive(hello, 1000);
  const message = encode(0x12, 2, 0, [], new Uint8Array(16_000));
  assert.throws(() => {
    for (let sent = 0; sent < 2 ** 23; sent += message.length) table.receive(message, 1000);
  }, { code: 'protocol_error' });
});

test('a proof that is not looked at in time ends the link, and one after the end changes nothing', () => {
  const { table, hello } = proving();
  table.receive(hello, 1000);
  assert.throws(() => table.handleTimer(1010), { code: 'link_lost' });
  table.close(new BVError('link_lost'));
  table.proved(true, 1011);
  assert.equal(table.state, 'closed');
});
