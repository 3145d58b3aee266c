/** Whether this side holds a link while nothing uses it, and for how long. */

import { milliseconds, now } from './timing.ts';
import type { CallTable } from './wire/calls.ts';

export class Holding {
  /** When a call ended last, in monotonic seconds; when the link was opened if none has. */
  usedAt: number;
  readonly #table: CallTable;
  readonly #idleTimeout: number;
  readonly #onLetGo: () => void;
  /** Whether a call of ours wanted the link kept; the hold that comes with dialling alone ends with its first use. */
  #kept = false;
  #wasUsed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /**
   * @param openedAt when the link was opened.
   * @param idleTimeout seconds for which a hold lasts after its last use.
   * @param onLetGo called when the link is no longer held.
   */
  constructor(table: CallTable, openedAt: number, idleTimeout: number, onLetGo: () => void) {
    this.usedAt = openedAt;
    this.#table = table;
    this.#idleTimeout = idleTimeout;
    this.#onLetGo = onLetGo;
    if (table.localHold) this.#lookIn(idleTimeout);
  }

  /** Until when this side wants the link kept; 0 if no call of ours asked for that. */
  get until(): number {
    return this.#kept ? this.#idleTimeout + (this.#table.active ? now() : this.usedAt) : 0;
  }

  /** A call of ours wants the link kept. */
  want(): void {
    this.#kept = true;
    this.#table.hold(true);
  }

  /** A call of ours has ended. */
  used(): void {
    this.#wasUsed = true;
    if (this.#kept && !this.#timer) this.#lookIn(this.#idleTimeout);
  }

  /** The last call under way has ended. */
  idle(): void {
    this.usedAt = now();
    if (this.#wasUsed && !this.#kept) this.#table.hold(false);
  }

  /** Hold it as a call of ours would, until that moment if it is not used. */
  keep(until: number): void {
    this.want();
    this.usedAt = Math.min(now(), until - this.#idleTimeout);
    if (!this.#timer) this.#lookIn(this.#idleTimeout / 10);
  }

  /** The link is gone. */
  close(): void {
    clearTimeout(this.#timer);
  }

  #lookIn(seconds: number): void {
    this.#timer = setTimeout(() => this.#look(), milliseconds(seconds));
  }

  #look(): void {
    this.#timer = undefined;
    const left = this.usedAt + this.#idleTimeout - now();
    if (this.#table.active || left > 0) {
      this.#lookIn(Math.max(left, this.#idleTimeout / 10, 0.05));
      return;
    }
    this.#kept = false;
    this.#table.hold(false);
    this.#onLetGo();
  }
}
