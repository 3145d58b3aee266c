/** Measures the way to one peer for as long as somebody looks. */

import type { BVErrorInfo, BoneValue, PathInfo } from '../../src/types.ts';

/** Milliseconds from the end of a ping to the next, and from one that failed. */
const PAUSE = 2000;
const REST = 8000;
/** Milliseconds that an answer may take. */
const PATIENCE = 10_000;
/** How many measurements are kept. */
export const SAMPLES = 60;

export class Monitor {
  /** Milliseconds, the newest last; null where no answer came. */
  samples: (number | null)[] = [];
  path: PathInfo | null = null;
  error: BVErrorInfo | null = null;

  #bv: BoneValue;
  #id: string;
  #watchers = new Set<() => void>();
  #timer = 0;
  #pinging = false;

  constructor(bv: BoneValue, id: string) {
    this.#bv = bv;
    this.#id = id;
  }

  /** The newest measurement that was answered. */
  get roundTrip(): number | null {
    return this.samples.findLast((sample) => sample !== null) ?? null;
  }

  /** Measure, and call back after each, until what this returns is called. */
  watch(changed: () => void): () => void {
    this.#watchers.add(changed);
    this.#plan(0);
    return () => {
      this.#watchers.delete(changed);
      if (!this.#watchers.size) clearTimeout(this.#timer);
    };
  }

  #plan(delay: number): void {
    clearTimeout(this.#timer);
    if (this.#watchers.size) this.#timer = setTimeout(() => void this.#ping(), delay);
  }

  async #ping(): Promise<void> {
    if (this.#pinging) return;
    if (document.hidden) return this.#plan(PAUSE);
    this.#pinging = true;
    try {
      const { roundTrip, path } = await this.#bv.get(this.#id).ping({ timeout: PATIENCE });
      this.#add(roundTrip);
      this.path = path;
      this.error = null;
    } catch (error) {
      this.#add(null);
      this.error = error as BVErrorInfo;
    } finally {
      this.#pinging = false;
    }
    for (const changed of this.#watchers) changed();
    this.#plan(this.error ? REST : PAUSE);
  }

  #add(sample: number | null): void {
    this.samples = [...this.samples, sample].slice(-SAMPLES);
  }
}
