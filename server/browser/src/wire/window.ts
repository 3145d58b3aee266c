/** How much of what is long may be in flight at once. */

import { MAX_SENT_MESSAGE } from './frame_types.ts';

/**
 * Bytes between which the window lies. A small call waits for what is in flight: with the least that is some
 * milliseconds, and still more than a fast path holds. It begins in between, until the path has been measured.
 */
const MIN_WINDOW = 40_960;
const FIRST_WINDOW = 131_072;
const MAX_WINDOW = 1_048_576;
/** Twice what the path holds, so that a path that could carry more shows it. */
const GAIN = 2;
/** Rates are kept for so many samples; the best of them is what the path can carry. */
const SAMPLES = 8;

/**
 * Sizes the window to what the path holds: its best rate times its round trip while it is empty.
 *
 * That is the idea of BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016) without its probing,
 * which the congestion control of SCTP below does. Feed it with the totals of bytes sent and of those that have left,
 * each time either changes.
 */
export class BulkWindow {
  /** Bytes that may be in flight. */
  size = FIRST_WINDOW;
  #roundTrip = Infinity;
  #rates: number[] = [];
  /** Total sent, total that has left and time at the start of the sample under way. */
  #sample: [target: number, start: number, began: number] | null = null;

  /** Bytes in flight at which it is filled up again: soon, but not before there is room for a whole message. */
  get refill(): number {
    return Math.min(Math.floor((this.size * 3) / 4), this.size - MAX_SENT_MESSAGE);
  }

  /** A ping was answered; seconds. The shortest is that of the empty path. */
  measured(roundTrip: number): void {
    this.#roundTrip = Math.min(this.#roundTrip, Math.max(roundTrip, 1e-6));
  }

  /** Nothing is in flight: what comes next begins a new sample, and the path may have become another. */
  idle(): void {
    this.#sample = null;
  }

  /** Something was sent, or has left; `now` in seconds. */
  progress(sent: number, left: number, now: number): void {
    if (!this.#sample) {
      this.#sample = [sent, left, now];
      return;
    }
    const [target, start, began] = this.#sample;
    if (left < target || now <= began) return;
    this.#rates = [...this.#rates.slice(1 - SAMPLES), (left - start) / (now - began)];
    this.#sample = [sent, left, now];
    if (this.#roundTrip < Infinity) {
      const holds = Math.max(...this.#rates) * this.#roundTrip;
      this.size = Math.round(Math.min(Math.max(GAIN * holds, MIN_WINDOW), MAX_WINDOW));
    }
  }
}
