/**
 * Who runs next: the slots of a module, given to its callers in turn.
 *
 * Slots go to whoever comes first while there are free ones. After that each caller has a queue of its own, and every
 * slot that is given back goes to the next caller in the round: one that floods the module makes its own queue longer,
 * and nobody else's. The queues together are bounded, and it is the longest that has to give way.
 *
 * The last slots are a reserve for callers that have none: a caller can hold its slots for good, with streams that it
 * does not read, but never all that there are.
 */

/** Calls that wait for a module whose slots are all taken. */
const MAX_WAITING = 1024;

export class FairSlots<Waiter> {
  #free: number;
  /** How many of them go only to callers that have none. */
  readonly #reserve: number;
  #waiting = 0;
  /** The waiters of each caller, oldest first; the callers in the order of their turns. */
  readonly #queues = new Map<string, Set<Waiter>>();
  /** How many slots each caller has, of those that have any. */
  readonly #held = new Map<string, number>();

  constructor(size: number) {
    this.#free = size;
    this.#reserve = size < 4 ? 0 : Math.max(Math.floor(size / 8), 1);
  }

  /** Take a slot for `caller` if one is free that it may have. */
  take(caller: string): boolean {
    const held = this.#held.get(caller) ?? 0;
    if (this.#free <= (held ? this.#reserve : 0)) return false;
    this.#free--;
    this.#held.set(caller, held + 1);
    return true;
  }

  /** Give back a slot that `caller` has; gives those who wait no longer, each with a slot now. */
  giveBack(caller: string): Waiter[] {
    const held = this.#held.get(caller)! - 1;
    if (held) this.#held.set(caller, held);
    else this.#held.delete(caller);
    this.#free++;
    const next: Waiter[] = [];
    for (const [name, [waiter]] of this.#queues) {
      if (this.take(name)) {
        this.leave(name, waiter!);
        next.push(waiter!);
        const rest = this.#queues.get(name);
        if (this.#queues.delete(name)) this.#queues.set(name, rest!); // behind all others
      }
      if (!this.#free) break;
    }
    return next;
  }

  /**
   * Join the queue of `caller`. Gives who must go because too many wait, and is in no queue: the newest of the longest
   * queue, or `waiter` itself if its own would be the longest.
   */
  wait(caller: string, waiter: Waiter): Waiter | null {
    let evicted: Waiter | null = null;
    const queue = this.#queues.get(caller) ?? new Set();
    if (this.#waiting >= MAX_WAITING) {
      const [fullest, longest] = [...this.#queues].reduce((one, other) => (other[1].size > one[1].size ? other : one));
      if (queue.size >= longest.size) return waiter;
      evicted = [...longest].at(-1)!;
      this.leave(fullest, evicted);
    }
    queue.add(waiter);
    this.#queues.set(caller, queue);
    this.#waiting++;
    return evicted;
  }

  /** Wait no longer; does nothing for one that does not wait. */
  leave(caller: string, waiter: Waiter): void {
    const queue = this.#queues.get(caller);
    if (!queue?.delete(waiter)) return;
    this.#waiting--;
    if (!queue.size) this.#queues.delete(caller);
  }
}
