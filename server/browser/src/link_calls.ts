/** The two ends of a call on a link: what waits for the answer to ours, and where the answer to another's goes. */

import { BVError } from './errors.ts';
import type { Flow } from './flow.ts';
import type { Answering } from './host.ts';
import { ReceivedItems } from './items.ts';
import { now } from './timing.ts';
import type { Items } from './types.ts';
import type { CallTable } from './wire/calls.ts';
import { INLINE_BODY, type ReceivedCall } from './wire/link_core.ts';
import type { Item, OutgoingItems } from './wire/streams.ts';

/** The remote peer drains the link and did not begin the call: it may go over a new one. */
export class CallMoved extends Error {}

/** How a call is made over a link. */
export interface How {
  /** Seconds until it must be answered, or a stream of answers must have begun. */
  readonly timeout: number;
  /** Keep the link for a while after the call. */
  readonly keepAlive?: boolean;
  /** Sent after the request. */
  readonly items?: Items;
  /** Ends the call. */
  readonly signal?: AbortSignal;
}

/** Who waits for the answer to a call: the `context` of the call. */
export class Asker {
  readonly #answer = Promise.withResolvers<any>();
  /** Made for those calls that have items: it would be a good part of what a small call costs. */
  #ending: AbortController | null = null;
  #isOver = false;
  readonly #onOver: () => void;
  #received: ReceivedItems | null = null;

  /** @param onOver called once, when the call has ended. */
  constructor(onOver: () => void) {
    this.#onOver = onOver;
  }

  /** The body of the answer and whether it is raw, or its items. */
  get answer(): Promise<any> {
    return this.#answer.promise;
  }

  /** Whether the call has ended. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Aborted when the call ends; to be asked for before. */
  get ending(): AbortSignal {
    return (this.#ending ??= new AbortController()).signal;
  }

  answered(body: Uint8Array, raw: boolean): void {
    this.over();
    this.#answer.resolve([body, raw]);
  }

  /** The answer is a stream. */
  begun(items: ReceivedItems): void {
    this.#received = items;
    this.#answer.resolve(items);
  }

  failed(error: unknown): void {
    this.over();
    this.#received?.fail(error);
    this.#answer.reject(error); // without effect once the answer has begun
  }

  over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#ending?.abort();
    this.#onOver();
  }
}

/** What the answers to the calls of a link need of it. */
export interface Outlet {
  readonly table: CallTable;
  readonly flow: Flow;
  /** Send an item; gives what to await before the next one. */
  put(stream: OutgoingItems, item: Item): Promise<void> | null;
  /** So many items were taken. */
  taken(items: number): void;
  /** Look at what has happened to the table. */
  carryOut(): void;
  /** The last call under way has ended. */
  nowIdle(): void;
}

/** Where the answer to a call that came over a link goes. */
export function answerTo(call: ReceivedCall, { table, flow, put, taken, carryOut, nowIdle }: Outlet): Answering {
  let items: ReceivedItems | null = null;
  if (call.items) {
    const malformed = (problem: string): BVError => new BVError('bad_request', `an item is not JSON: ${problem}`);
    const received = (items = new ReceivedItems(call.items, taken, null, malformed));
    call.items.context = (): void => received.arrived();
  }
  return {
    takesStream: call.takesStream,
    items,
    blocked: () => (flow.isClear ? null : flow.untilClear()),
    reply(body, raw) {
      table.reply(call, body, raw, now());
      if (!table.active) {
        flow.flush(); // nothing else can join it
        nowIdle();
        return;
      }
      flow.wakeForPacket();
      if (items) carryOut(); // whoever still waits for its items learns that there are no more
      if (body.length > INLINE_BODY) flow.gauge();
    },
    fail(error) {
      table.fail(call, error, now());
      if (table.active) carryOut();
      else nowIdle();
    },
    begin() {
      const stream = table.begin(call, now());
      flow.wake();
      return (item) => put(stream, item);
    },
    end() {
      table.end(call);
      flow.wake();
    },
  };
}
