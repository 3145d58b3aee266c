/** When to ping a link, and when its silence means that it is lost. */

import { BVError } from '../errors.ts';
import { dropOldest } from './collections.ts';
import { broken } from './frames.ts';

/** Beats of silence after which a link counts as lost. */
const MISSED_BEATS = 3;
/** Pings whose answers are awaited at most; the oldest is given up for a newer one. */
const MAX_UNANSWERED = 64;

/** The pings of one side of a link. Anything that is heard counts as a sign of life. Times are in seconds. */
export class Heartbeat {
  /** Of the last ping; null before the first. */
  roundTrip: number | null = null;
  /** When something was heard last. */
  heardAt: number;
  readonly #interval: number;
  readonly #pingAfter: number;
  #pingedAt: number;
  #number = 0;
  readonly #unanswered = new Map<number, number>();

  /**
   * `second`: ping half as late again. If the two sides differ in that, one of them hears the other's pings and need
   * not send any: an idle link costs half.
   */
  constructor(interval: number, now: number, second: boolean) {
    this.heardAt = this.#pingedAt = now;
    this.#interval = interval;
    this.#pingAfter = second ? interval * 1.5 : interval;
  }

  /** When {@link beat} wants to be called. */
  due(): number {
    return Math.min(this.#pingDue(), this.#lossDue());
  }

  /** Tell whether to ping now; throws `link_lost` if nothing was heard for three beats. */
  beat(now: number): boolean {
    if (now < this.#lossDue()) return now >= this.#pingDue();
    // Called a whole beat late, this very page was frozen or busy, and what the other side sent may still be unread:
    // that says nothing about the link, so it gets another round.
    if (now - this.due() < this.#interval) {
      throw new BVError('link_lost', `nothing was heard from the peer for ${Math.round(now - this.heardAt)} s`);
    }
    this.heardAt = now;
    return true;
  }

  /** Number of the ping that is sent now. */
  ping(now: number): number {
    this.#pingedAt = now;
    this.#unanswered.set(++this.#number, now);
    dropOldest(this.#unanswered, MAX_UNANSWERED);
    return this.#number;
  }

  /** A ping was answered: gives its round trip, null if it was answered before or long ago. */
  pong(number: number, now: number): number | null {
    if (!(number > 0 && number <= this.#number)) throw broken('pong without its ping');
    const sent = this.#unanswered.get(number);
    if (sent === undefined) return null;
    this.#unanswered.delete(number);
    return (this.roundTrip = now - sent);
  }

  #pingDue(): number {
    return Math.max(this.heardAt, this.#pingedAt) + this.#pingAfter;
  }

  #lossDue(): number {
    return this.heardAt + MISSED_BEATS * this.#interval;
  }
}
