/** The deadlines of many calls, of which nearly all are withdrawn before they are due. */

/** Deadlines this close together are due together, in seconds. */
const GRAIN = 0.05;

/**
 * Items by due time, rounded up to a grain of 50 ms.
 *
 * Calls share few distinct grains, so that a set a grain makes adding and withdrawing cheap, and nothing of a finished
 * call is left behind.
 */
export class Deadlines<T> {
  readonly #sets = new Map<number, Set<T>>();
  /** The grains, rising. */
  readonly #due: number[] = [];

  /** `item` is due at `deadline`; gives its grain, to withdraw it with. */
  add(deadline: number, item: T): number {
    const grain = Math.ceil(deadline / GRAIN);
    const items = this.#sets.get(grain);
    if (items) items.add(item);
    else {
      this.#sets.set(grain, new Set([item]));
      this.#due.splice(this.#due.findLastIndex((other) => other < grain) + 1, 0, grain);
    }
    return grain;
  }

  /** `item` is no longer due. */
  withdraw(grain: number, item: T): void {
    this.#sets.get(grain)?.delete(item);
  }

  /** When the next item is due, Infinity if there is none. */
  next(): number {
    const due = this.#due;
    while (due.length && !this.#sets.get(due[0]!)!.size) this.#sets.delete(due.shift()!);
    return due.length ? due[0]! * GRAIN : Infinity;
  }

  /** Take out all items that are due. */
  pop(now: number): T[] {
    const items: T[] = [];
    while (this.#due.length && this.#due[0]! * GRAIN <= now) {
      const grain = this.#due.shift()!;
      items.push(...this.#sets.get(grain)!);
      this.#sets.delete(grain);
    }
    return items;
  }
}
