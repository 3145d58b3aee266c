/**
 * How often: when to come back to a server, and token buckets for what we send. Time is an argument (monotonic
 * seconds).
 */

/** Longest wait in seconds that a server may ask for. */
export const MAX_HINT = 3600;

const FACTOR = 1.6;
const SPREAD = 0.5;
/** So that a bucket that filled in small steps, or is asked at the moment that it named, is not short by a hair. */
const ROUNDING = 1e-6;

/**
 * Delays between attempts: random within the first, then 1.6 times longer each, give or take a half. Without the random
 * part, all the clients of a restarted server would come back in the same instant.
 */
export class Backoff {
  readonly #jitter: () => number;
  readonly #first: number;
  readonly #longest: number;
  #base = 0;

  /**
   * @param jitter gives a random number from 0 up to 1.
   * @param first longest first delay in seconds.
   * @param longest no delay of ours is longer, the random part included.
   */
  constructor(jitter: () => number, first = 2, longest = 60) {
    this.#jitter = jitter;
    this.#first = first;
    this.#longest = longest;
  }

  /** An attempt succeeded: the next delay is a first one again. */
  reset(): void {
    this.#base = 0;
  }

  /**
   * The seconds to wait before the next attempt.
   *
   * @param hint what the server asked for. We never come earlier, and spread out after it.
   */
  next(hint?: number | undefined): number {
    const chance = this.#jitter();
    let delay = this.#first * chance;
    if (this.#base) {
      this.#base = Math.min(this.#base * FACTOR, this.#longest / (1 + SPREAD));
      delay = this.#base * (1 - SPREAD + 2 * SPREAD * chance);
    } else {
      this.#base = this.#first;
    }
    if (hint === undefined) return delay;
    return Math.max(delay, Math.min(Math.max(hint, 0), MAX_HINT) + this.#first * chance);
  }
}

/** A token bucket, full at first: so many a second in the long run, and so many at once after a quiet time. */
export class Bucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #level: number;
  #at = 0;

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = this.#level = burst;
  }

  /** Seconds until `cost` could be taken: 0 for now. */
  wait(now: number, cost = 1): number {
    this.#level = Math.min(this.#burst, this.#level + Math.max(0, now - this.#at) * this.#perSecond);
    this.#at = now;
    const missing = cost - this.#level;
    return missing > ROUNDING ? missing / this.#perSecond : 0;
  }

  /** Take `cost` and give 0, or take nothing and give the seconds until it is there. */
  take(now: number, cost = 1): number {
    const wait = this.wait(now, cost);
    if (!wait) this.#level -= cost;
    return wait;
  }

  /** When one may be taken, as of the last look. */
  moment(): number {
    return this.#at + this.wait(this.#at);
  }
}

/** When the next attempt to reach a server is due. */
export class Retry {
  /** When it is due. */
  at = 0;
  readonly #backoff: Backoff;
  /** Retries without waiting. A cable with a loose contact must not become a flood of logins. */
  readonly #hurries = new Bucket(0.2, 4);
  #notBefore = 0;

  constructor(jitter: () => number) {
    this.#backoff = new Backoff(jitter);
  }

  /** The server was there: the next delay is a first one again. */
  reset(): void {
    this.#backoff.reset();
  }

  /**
   * An attempt, or what came of it, is over.
   *
   * @param hint seconds that the server asked for.
   * @param hurry whether to {@link hurry}, if we may.
   * @returns the seconds until the next.
   */
  after(now: number, hint?: number | undefined, hurry = false): number {
    const delay = this.#backoff.next(hint);
    this.at = now + delay;
    this.#notBefore = hint === undefined ? now : this.at;
    return hurry && this.hurry(now) ? 0 : delay;
  }

  /**
   * What was in the way may be gone: try at once, whether or not it helps, and begin with short delays again.
   *
   * @returns whether it is so: not if the server asked for patience, or after too much hurry of late.
   */
  hurry(now: number): boolean {
    if (now < this.#notBefore || this.#hurries.take(now)) return false;
    this.reset();
    this.at = now;
    return true;
  }
}
