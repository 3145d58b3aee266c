/**
 * Room for the links that others dial: how many there may be, how many may be set up at once, who waits, and which
 * accounts are kept away.
 *
 * Whoever comes while too many are being set up waits for a place. The account that has the fewest places goes first,
 * so that one that sends many requests delays only itself.
 */

import { BVError } from './errors.ts';
import type { LinkLife } from './life.ts';
import { later, now, orGivenUp, settles } from './timing.ts';
import { Bucket } from './wire/pacing.ts';

/** Links that others dial and that are not proved yet, at most; and those of them that one account may have. */
const MAX_UNPROVED = 16;
const MAX_UNPROVED_PER_ACCOUNT = 8;
/** Requests that wait for one of those places, of all and of one account. */
const MAX_WAITING = 256;
const MAX_WAITING_PER_ACCOUNT = 128;
/** Longest wait in seconds: who dialled has given up by then, or soon will. */
const PATIENCE = 15;
/** Seconds after which one that found no place may come back. */
const COME_BACK = 1;
/** Seconds for which an account is kept away after its first, second and every further offence. */
const BACK_OFF = [1, 5, 30];
/** Seconds without an offence after which all earlier ones are forgotten. */
const FORGIVEN_AFTER = 600;

/** Take an object out of a list; whether it was in it. */
export function remove<T>(list: T[], item: T): boolean {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
  return index >= 0;
}

const full = (why: string, retryAfter?: number): BVError =>
  new BVError('link_limit', why, retryAfter === undefined ? {} : { retryAfter });

interface Waiter {
  readonly life: LinkLife;
  readonly key: string;
  /** How many links of that peer the new one takes the place of. */
  readonly replaces: number;
  readonly placed: PromiseWithResolvers<void>;
}

export class Admission {
  /** The lives that hold a place, each with its account's key. */
  readonly #places = new Map<LinkLife, string>();
  readonly #waiting: Waiter[] = [];
  readonly #paces = new Map<string, Bucket>();
  readonly #maxLinks: number;
  readonly #proved: () => number;
  readonly #makeRoom: (count: number) => boolean;
  #stopped: BVError | null = null;

  /**
   * @param maxLinks links that others may hold, those being set up among them.
   * @param proved how many there are that are proved.
   * @param makeRoom sees to it that so many of those are going, as far as they are not in use; whether any is.
   */
  constructor(maxLinks: number, proved: () => number, makeRoom: (count: number) => boolean) {
    this.#maxLinks = maxLinks;
    this.#proved = proved;
    this.#makeRoom = makeRoom;
  }

  /** Whether a link that this peer dialled is being set up. */
  holds(peerId: string): boolean {
    return [...this.#places.keys()].some((life) => life.peerId === peerId);
  }

  /**
   * Take a place, when there is one; {@link leave} gives it back.
   *
   * @param key that of the account that dials.
   * @param atOnce it takes the place of an attempt of ours and needs none of its own.
   * @throws BVError `link_limit`: there is none; with `retryAfter` if there may be one soon.
   */
  async enter(life: LinkLife, key: string, replaces: number, atOnce: boolean, signal: AbortSignal): Promise<void> {
    if (this.#stopped) throw this.#stopped;
    const waiter: Waiter = { life, key, replaces, placed: later() };
    if (!atOnce) {
      let pace = this.#paces.get(key);
      if (!pace) this.#paces.set(key, (pace = new Bucket(5, 64)));
      const wait = pace.take(now());
      if (wait) throw full('this account opens too many links in too short a time', wait);
      if (this.#waiting.length || !this.#hasPlace(waiter)) return this.#wait(waiter, signal);
    }
    this.#places.set(life, key);
  }

  /** Give back a place. */
  leave(life: LinkLife): void {
    if (this.#places.delete(life)) this.admit();
  }

  /** There may be places: let those in who wait. */
  admit(): void {
    for (;;) {
      const [next] = this.#waiting
        .filter((waiter) => this.#hasPlace(waiter))
        .sort((one, other) => this.#held(one.key) - this.#held(other.key));
      if (!next) break;
      remove(this.#waiting, next);
      this.#places.set(next.life, next.key); // here, not when the other goes on: nobody may slip in between
      next.placed.resolve();
    }
    if (this.#missing > 0) this.#makeRoom(this.#missing);
  }

  /** Let nobody in any more. */
  stop(error: BVError): void {
    this.#stopped = error;
    for (const { placed } of this.#waiting.splice(0)) placed.reject(error);
  }

  async #wait(waiter: Waiter, signal: AbortSignal): Promise<void> {
    const all = this.#waiting.length;
    const own = this.#waiting.filter(({ key }) => key === waiter.key).length;
    const tooMany = full('too many links to this peer are being set up', COME_BACK);
    // Whoever has none waiting gets in: many requests of a few accounts keep nobody else out.
    if (own && (own >= MAX_WAITING_PER_ACCOUNT || all >= MAX_WAITING)) throw tooMany;
    this.#waiting.push(waiter);
    try {
      if (this.#missing > 0 && !this.#makeRoom(this.#missing)) {
        throw full(`this peer holds ${this.#maxLinks} links that others opened`);
      }
      this.admit();
      if (!(await orGivenUp(settles(waiter.placed.promise, PATIENCE), signal))) throw tooMany;
      await waiter.placed.promise;
    } catch (error) {
      if (!remove(this.#waiting, waiter)) this.leave(waiter.life); // it got its place in that very moment
      throw error;
    }
  }

  /** How many links would have to go for all who wait. */
  get #missing(): number {
    const waiting = this.#waiting.length;
    return Math.min(waiting, this.#proved() + this.#places.size + waiting - this.#maxLinks);
  }

  #held(key: string): number {
    return [...this.#places.values()].filter((other) => other === key).length;
  }

  #hasPlace({ key, replaces }: Waiter): boolean {
    const here = this.#places.size;
    return (
      here < MAX_UNPROVED &&
      this.#held(key) < MAX_UNPROVED_PER_ACCOUNT &&
      this.#proved() - replaces + here < this.#maxLinks
    );
  }
}

/** The accounts that are kept away because their peers broke the rules of a proved link, by their keys. */
export class Penalties {
  readonly #records = new Map<string, { offences: number; last: number; until: number }>();

  /** Keep an account away for having closed a link by its fault. */
  punish(key: string): void {
    const last = now();
    const offences = (this.#record(key)?.offences ?? 0) + 1;
    const until = last + BACK_OFF[Math.min(offences, BACK_OFF.length) - 1]!;
    this.#records.set(key, { offences, last, until });
  }

  /** Let an account pass that is not kept away; `rate_limited` says for how long still it is. */
  check(key: string | undefined): void {
    const left = ((key && this.#record(key)?.until) || 0) - now();
    if (left <= 0) return;
    // Never so little that it comes a moment too early.
    const retryAfter = Math.ceil(left * 1000) / 1000;
    const why = `the last link of this account was closed by its fault: no new one for ${left.toFixed(1)} s`;
    throw new BVError('rate_limited', why, { retryAfter });
  }

  #record(key: string) {
    const record = this.#records.get(key);
    if (record && now() - record.last < FORGIVEN_AFTER) return record;
    this.#records.delete(key);
    return undefined;
  }
}
