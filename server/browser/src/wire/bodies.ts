/** Bodies that come in over several frames, and how much of them a link may hold unfinished. */

import { broken } from './frames.ts';
import type { MemoryShare } from './memory.ts';

/** Bodies longer than this count towards what a link may hold; shorter ones are bounded by the number of calls. */
export const LONG = 4096;

/** A body that is coming in. */
export class IncomingBody {
  readonly length: number;
  readonly raw: boolean;
  received = 0;
  /** It takes part in the limit of unfinished ones. */
  counted = false;
  /** What has come: one buffer, so that tiny pieces take no more memory than large ones. */
  data = new Uint8Array();

  constructor(length: number, raw: boolean) {
    this.length = length;
    this.raw = raw;
  }
}

/** The limit of unfinished bodies on one link: `limit` bytes of them together, taken from `share`, too. */
export class BodyBudget {
  readonly #limit: number;
  readonly #share: MemoryShare;
  readonly #limited: (limit: string) => void;
  #taken = 0;

  constructor(limit: number, share: MemoryShare, limited: (limit: string) => void) {
    this.#limit = limit;
    this.#share = share;
    this.#limited = limited;
  }

  /** Add bytes to a body; false if there is no memory left for it. A long one counts whole from its first byte on. */
  add(body: IncomingBody, data: Uint8Array): boolean {
    const { length, received } = body;
    body.received += data.length;
    if (body.received > length) throw broken('a body is longer than declared');
    if (!data.length) return true;
    if (length > LONG && !body.counted) {
      const full = this.#taken + length > this.#limit ? 'incomplete' : this.#share.take(length) ? '' : 'memory';
      if (full) {
        this.#limited(full);
        return false;
      }
      this.#taken += length;
      body.counted = true;
    }
    if (!received) body.data = new Uint8Array(length);
    body.data.set(data, received);
    return true;
  }

  /** The body is complete, or no longer wanted. */
  release(body: IncomingBody): void {
    if (body.counted) {
      this.#taken -= body.length;
      this.#share.give(body.length);
      body.counted = false;
    }
  }
}
