/** A call of ours on a link, as those see it who wait for its answer. */

import { ReceivedItems } from './items.ts';
import type { Items } from './types.ts';

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
  readonly #ending = new AbortController();
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

  /** Aborted when the call has ended. */
  get ending(): AbortSignal {
    return this.#ending.signal;
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
    if (this.ending.aborted) return;
    this.#ending.abort();
    this.#onOver();
  }
}
