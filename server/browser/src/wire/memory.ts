/** How much memory all links of a peer may take together for what has come in and is not yet taken. */

/** Bytes that links share. */
export class MemoryBudget {
  readonly limit: number;
  taken = 0;

  constructor(limit: number) {
    this.limit = limit;
  }
}

/**
 * What one link has of a {@link MemoryBudget}.
 *
 * It gets more only while it has no more than what is left for all others. So one link may have half of all, two a
 * third each, and there is always some for the next (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
 * Shared-Memory Packet Switches", 1998).
 */
export class MemoryShare {
  readonly #budget: MemoryBudget;
  #closed = false;
  #taken = 0;
  #spare = 0;

  constructor(budget: MemoryBudget) {
    this.#budget = budget;
  }

  /** Take so many bytes more; false if the link has to do without. */
  take(size: number): boolean {
    const { limit, taken } = this.#budget;
    if (this.#closed || this.#taken + size > limit - taken - size) return false;
    this.#add(size, 0);
    return true;
  }

  /** Take bytes that are not needed, and may be kept for long: of the half that is left when all have their part. */
  takeSpare(size: number): boolean {
    const { limit, taken } = this.#budget;
    if (this.#closed || taken + size > limit / 2) return false;
    this.#add(0, size);
    return true;
  }

  /** Give bytes back; without effect once everything was. */
  give(size: number): void {
    if (!this.#closed) this.#add(-size, 0);
  }

  giveSpare(size: number): void {
    if (!this.#closed) this.#add(0, -size);
  }

  /** Give everything back, for good. */
  close(): void {
    this.#add(-this.#taken, -this.#spare);
    this.#closed = true;
  }

  #add(size: number, spare: number): void {
    this.#taken += size;
    this.#spare += spare;
    this.#budget.taken += size + spare;
  }
}
