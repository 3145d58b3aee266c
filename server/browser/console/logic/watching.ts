/** A stream that is being watched: the newest items, however many come. */

import type { BVErrorInfo, Value } from '../../src/types.ts';
import { show, type Shown } from './values.ts';

/** Items that are kept, and what they may come to together: letters and bytes. */
export const KEPT = 200;
const KEPT_SIZE = 4 * 2 ** 20;
/** Letters that are shown of one item. */
const ITEM_SHOWN = 2000;

export interface Item {
  number: number;
  /** Milliseconds since the beginning. */
  at: number;
  shown: Shown;
}

export class Watching {
  /** The newest items, the newest last. */
  items: Item[] = [];
  count = 0;
  state: 'running' | 'paused' | 'ended' | 'stopped' | 'failed' = 'running';
  error: BVErrorInfo | null = null;
  readonly started = performance.now();
  /** Milliseconds that it took, when it has ended. */
  took = 0;

  #changed: () => void;
  #abort: AbortController;
  #resume: (() => void) | null = null;
  #size = 0;

  /**
   * Begin to read.
   *
   * @param abort ends the call.
   * @param changed called when there is something new.
   */
  constructor(stream: AsyncIterable<Value>, abort: AbortController, changed: () => void) {
    this.#changed = changed;
    this.#abort = abort;
    void this.#read(stream);
  }

  get isOver(): boolean {
    return this.state !== 'running' && this.state !== 'paused';
  }

  /** Take no more for now: the sender then has to wait. */
  pause(): void {
    if (this.state === 'running') this.#enter('paused');
  }

  resume(): void {
    if (this.state !== 'paused') return;
    this.#enter('running');
    this.#resume?.();
  }

  stop(): void {
    if (this.isOver) return;
    this.#enter('stopped');
    this.#abort.abort();
    this.#resume?.();
  }

  async #read(stream: AsyncIterable<Value>): Promise<void> {
    try {
      for await (const value of stream) {
        // One that was already on its way when somebody paused is shown when they go on, and not before.
        await this.#going();
        if (this.isOver) return;
        this.#add(value);
        await this.#going();
        if (this.isOver) return;
      }
      if (!this.isOver) this.#enter('ended');
    } catch (error) {
      if (this.isOver) return;
      this.error = error as BVErrorInfo;
      this.#enter('failed');
    }
  }

  /** Wait while it is paused. */
  async #going(): Promise<void> {
    while (this.state === 'paused') await new Promise<void>((resolve) => (this.#resume = resolve));
  }

  #add(value: Value): void {
    const shown = show(value, ITEM_SHOWN, false);
    this.items.push({ number: ++this.count, at: performance.now() - this.started, shown });
    this.#size += weight(shown);
    while (this.items.length > KEPT || (this.#size > KEPT_SIZE && this.items.length > 1)) {
      this.#size -= weight(this.items.shift()!.shown);
    }
    this.#changed();
  }

  #enter(state: Watching['state']): void {
    this.state = state;
    this.took = performance.now() - this.started;
    this.#changed();
  }
}

function weight({ text, bytes }: Shown): number {
  return text.length + (bytes?.length ?? 0);
}
