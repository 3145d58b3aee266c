/**
 * All links of one peer: one a remote peer, within limits.
 *
 * Whoever wants to call asks {@link Pool.link}. It gives the link that is there, joins the attempt that is under way,
 * or begins one as soon as there is a slot, first come first served. Slots are taken by attempts and by links that this
 * side dialled, until they are gone; so many attempts are made at once, and a peer that could not be reached is left
 * alone for a while. While others wait, links that nothing uses are drained, the longest unused first. The links that
 * others dial have places of their own (admission.ts).
 *
 * A link that is doubted gets no new calls: whoever asks for one gets another link, and only when that one is proved
 * does the old one give way.
 */

import { Admission, remove } from './admission.ts';
import { BVError } from './errors.ts';
import { DOING, LinkLife } from './life.ts';
import type { PeerLink } from './peer_link.ts';
import { later, now, orGivenUp, settles, sleep } from './timing.ts';
import { Backoff } from './wire/pacing.ts';

/** Links that this side sets up at once: handshakes take processor time, and have deadlines. */
const MAX_DIALLING = 8;
/** Two links that came about within this time, each dialled by another side, came from dialling at once; seconds. */
export const GLARE_WINDOW = 5;
/** Seconds in which a link is not evicted that is new, or that another side dialled and used: a call may be coming. */
const SETTLING = 1;
/** Seconds that the other side has to confirm the end of a link with no calls on it, when this peer stops. */
const LAST_WORD = 2;
/** Seconds, about, for which a peer is left alone that could not be reached: the first time, and at most. */
const [FIRST_PAUSE, LONGEST_PAUSE] = [0.5, 10];
/** What is worth another try when it comes with the time to wait: somebody was too busy just now, or has moved. */
const PUT_OFF = /^(busy|link_limit|connect_failed)$/;
/** The part of the time for a link that its last try must have. */
const LEAST = 1 / 4;
/** Seconds after which it is tried again when the other side let go of a new link at once. */
const SECOND_TRY = 0.5;
/** Seconds after which an attempt whose peer does not answer does not count as one that is made. */
const STALLED = 2;
/** So many peers that could not be reached are remembered; one more takes the place of the first. */
const MAX_PAUSES = 1024;
/** Links of one peer that may drain at once. */
const MAX_DRAINING = 3;

/** Somebody wants a link to a peer; `task` gets a slot and dials. */
interface Attempt {
  readonly peerId: string;
  readonly link: PromiseWithResolvers<PeerLink>;
  readonly stop: AbortController;
  task: Promise<void>;
  waiters: number;
  isDialling: boolean;
  life: LinkLife;
  /** What came of it. */
  made: PeerLink | null;
  /** Why the last try came to nothing. */
  error: BVError | null;
}

/** A peer that could not be reached: until when it is left alone. */
interface Pause {
  readonly backoff: Backoff;
  readonly over: PromiseWithResolvers<void>;
  until: number;
  error: BVError;
}

export interface PoolSettings {
  /**
   * Makes a proved link to the peer of that id within so many seconds; writes into the life that it is given how far it
   * has come.
   */
  dial(peerId: string, life: LinkLife, timeout: number, signal: AbortSignal): Promise<PeerLink>;
  /** Links and attempts of ours. */
  readonly maxOutgoing: number;
  /** Links that others dialled. */
  readonly maxIncoming: number;
  /**
   * Seconds in which a link must come about. Pauses, and tries that the other side or the server puts off for a moment,
   * are among them; the wait for a slot is not.
   */
  readonly patience: number;
  /** Told of every link that has been proved. */
  onAdded(link: PeerLink): void;
  /** Told of every link in whose place another was proved, while it is being drained. */
  onReplaced(link: PeerLink): void;
  /** Told of every step of every life. */
  onLife(life: LinkLife): void;
  /** Throws if no link to that peer is to be tried now. */
  check(peerId: string): void;
  /**
   * Waits, for so many seconds at most, until a link to that peer can be tried at all; throws if that is not to be
   * expected soon.
   */
  ready(peerId: string, seconds: number): Promise<void>;
}

const stopping = (): BVError => new BVError('unavailable', 'this peer is stopping');

/** Whether a link is about to be gone, with no call that keeps it. */
const isGoing = (link: PeerLink): boolean => !link.usable && !link.active;

export class Pool {
  /** Our own peer id, which settles what happens when both sides dial at once. */
  ownId = '0';
  /** Links and attempts, from the wish to the end. */
  readonly lives = new Set<LinkLife>();
  readonly #settings: PoolSettings;
  readonly #admission: Admission;
  readonly #pauses = new Map<string, Pause>();
  readonly #links = new Map<string, PeerLink>();
  readonly #all = new Set<PeerLink>();
  readonly #attempts = new Map<string, Attempt>();
  readonly #queue: PromiseWithResolvers<void>[] = [];
  #dialling = 0;
  #stopping = false;

  constructor(settings: PoolSettings) {
    this.#settings = settings;
    const incoming = (): number => this.#count((link) => !link.offerer);
    this.#admission = new Admission(settings.maxIncoming, incoming, (count) => this.#makeRoom(count));
  }

  // -- what others ask -----------------------------------------------------------------------------------------------

  /** The link over which a call would go now, null if one would have to be made. */
  current(peerId: string): PeerLink | null {
    const link = this.#links.get(peerId);
    return link?.usable && !link.doubted ? link : null;
  }

  /** Every link, those that are being drained too. */
  links(): PeerLink[] {
    return [...this.#all];
  }

  /** What our attempt to reach a peer is at, and what came of the try before, in words; empty if there is none. */
  progress(peerId: string): string {
    const { life, error } = this.#attempts.get(peerId) ?? {};
    return life ? `it was ${DOING[life.phase]}${error ? `; the last try: ${error.message}` : ''}` : '';
  }

  /** Something has changed: leave that peer, or nobody, alone any longer for not having been reached before. */
  retryNow(peerId?: string): void {
    for (const each of peerId ? [peerId] : [...this.#pauses.keys()]) {
      this.#pauses.get(each)?.over.resolve();
      this.#pauses.delete(each);
    }
  }

  /** Whether an attempt of ours to reach that peer is under way, past the queue. */
  isDialling(peerId: string): boolean {
    const attempt = this.#attempts.get(peerId);
    return !!attempt?.isDialling && !attempt.stop.signal.aborted;
  }

  /** Wait for the end of our attempt, but not for long; whether it, or the other side, made a link meanwhile. */
  async dialled(peerId: string, seconds: number): Promise<boolean> {
    const attempt = this.#attempts.get(peerId);
    if (attempt) await settles(attempt.task, seconds);
    return !!attempt?.made;
  }

  /**
   * A usable link to that peer.
   *
   * @param signal gives up; the attempt too, if nobody else waits for it. Its reason is thrown.
   * @throws BVError `connect_failed` and the like: none came about; `rate_limited`: the account of that peer broke the
   * rules of a link a moment ago; `unavailable`: this peer is stopping.
   */
  async link(peerId: string, signal?: AbortSignal): Promise<PeerLink> {
    for (;;) {
      const link = this.current(peerId);
      if (link) return link;
      const attempt = this.#attempts.get(peerId) ?? this.#begin(peerId);
      if (attempt.stop.signal.aborted) {
        // It only tidies up: whoever joined it now would get its failure, or a link that is dead already.
        await orGivenUp(attempt.task, signal);
        continue;
      }
      attempt.waiters++;
      try {
        return await orGivenUp(attempt.link.promise, signal);
      } finally {
        if (!--attempt.waiters) this.#unwanted(attempt);
      }
    }
  }

  // -- links that come and go ----------------------------------------------------------------------------------------

  /**
   * Take a place for a link that the other side dials; {@link release} gives it back, with the link or without. The
   * first one that meets an attempt of ours takes that one's place.
   *
   * @throws BVError `link_limit`: there is none.
   */
  async reserve(peerId: string, name: string, key: string, signal: AbortSignal): Promise<LinkLife> {
    const life = this.#live(peerId, name, false);
    try {
      const meetsOurs = this.isDialling(peerId) && !this.#admission.holds(peerId);
      const replaces = this.#count((link) => link.remote.id === peerId && !link.offerer);
      await this.#admission.enter(life, key, replaces, meetsOurs, signal);
    } catch (error) {
      life.end('failed');
      throw error;
    }
    return life;
  }

  /** Give back a place of {@link reserve}. */
  release(life: LinkLife): void {
    if (life.isSettingUp) life.end('failed');
    this.#admission.leave(life);
  }

  /** A link has been proved, whoever dialled. */
  add(added: PeerLink): void {
    if (added.ended) return;
    if (this.#stopping) return added.close(stopping());
    const { id } = added.remote;
    let link = added;
    this.#all.add(added);
    this.retryNow(id);
    const old = this.#links.get(id);
    if (!added.usable) {
      // The other side has let go of it already: both dialled at once, and its own link is on its way.
    } else if (old?.usable && !old.doubted && this.#settles(old, added)) {
      added.drain('duplicate');
      link = old;
    } else {
      this.#links.set(id, added);
      if (old) {
        old.drain('replaced');
        this.#settings.onReplaced(old);
      }
      // A peer has few links that drain beside its current one; else it could keep many, by a stream on each.
      const draining = this.#filter((each) => each.remote.id === id && !each.usable);
      draining.sort((one, other) => one.openedAt - other.openedAt);
      for (const each of draining.slice(0, -MAX_DRAINING)) {
        each.close(new BVError('link_lost', 'the peer opened another link'));
      }
    }
    const attempt = this.#attempts.get(id);
    if (attempt && !attempt.made && link.usable) {
      // Whoever dialled, the first proved link ends the attempt; and the attempt ends its dialling.
      attempt.made = link;
      attempt.link.resolve(link);
      attempt.stop.abort(new BVError('cancelled', 'there is a link'));
    }
    this.#settings.onAdded(added);
  }

  /** A link is gone. */
  remove(link: PeerLink): void {
    this.#all.delete(link);
    if (this.#links.get(link.remote.id) === link) this.#links.delete(link.remote.id);
    this.#admit();
    this.#admission.admit();
  }

  /** Nothing uses a link just now, it seems. */
  idle(link: PeerLink): void {
    if (this.#isFull && link.offerer && link.usable && !link.active) link.drain('evicted');
    this.#admission.admit();
  }

  /**
   * Close all links to an account at once; gives their number.
   *
   * @param name our alias for it: a link from before it changed its key is known by that only.
   * @param key its key: another peer of our account may have heard of the end first, under no name.
   */
  cut(name: string, key: string, error: BVError): number {
    const cut = this.#filter(({ remote }) => remote.key === key || remote.name === name);
    for (const link of cut) link.close(error);
    return cut.length;
  }

  /** Drain all links, make no new ones, and close after so many seconds what is still there. */
  async stop(seconds: number): Promise<void> {
    this.#stopping = true;
    this.#admission.stop(stopping());
    const attempts = [...this.#attempts.values()];
    for (const { stop } of attempts) stop.abort(stopping());
    for (const link of this.links()) link.drain('stopping');
    const lastWord = Math.min(seconds, LAST_WORD);
    await this.#allGone(lastWord);
    // The calls of these are done, and the other side does not confirm it.
    for (const link of this.#filter((each) => !each.active)) link.close();
    await this.#allGone(seconds - lastWord);
    for (const link of this.links()) link.close();
    await Promise.all(attempts.map(({ task }) => task));
  }

  async #allGone(seconds: number): Promise<void> {
    const gone = this.links().map((link) => link.gone);
    if (gone.length) await settles(Promise.all(gone), seconds);
  }

  // -- attempts ------------------------------------------------------------------------------------------------------

  #begin(peerId: string): Attempt {
    if (this.#stopping) throw stopping();
    this.#settings.check(peerId);
    const attempt: Attempt = {
      peerId,
      link: later(),
      stop: new AbortController(),
      task: Promise.resolve(),
      waiters: 0,
      isDialling: false,
      life: this.#live(peerId, '', true),
      made: null,
      error: null,
    };
    this.#attempts.set(peerId, attempt);
    attempt.task = this.#attempt(attempt).then(
      () => void this.#attempts.delete(peerId),
      (fault: unknown) => {
        this.#attempts.delete(peerId);
        attempt.link.reject(fault);
      },
    );
    return attempt;
  }

  /** The last one who waited has the link, or has gone. */
  #unwanted(attempt: Attempt): void {
    const { made, stop } = attempt;
    if (!made) stop.abort(new BVError('unavailable', 'the attempt to reach the peer was given up'));
    // Who has it calls in this very turn; if that was its wish no more, the slot goes to the next in the queue.
    else setTimeout(() => this.idle(made));
  }

  /** Try until there is a link, or there is no point in it. */
  async #attempt(attempt: Attempt): Promise<void> {
    const { signal } = attempt.stop;
    const backoff = new Backoff(Math.random, FIRST_PAUSE, LONGEST_PAUSE);
    const { patience } = this.#settings;
    let giveUpAt = now() + patience;
    // A try that begins later has too little time.
    const lastTryAt = (): number => giveUpAt - patience * LEAST;
    for (;;) {
      try {
        await orGivenUp(this.#settings.ready(attempt.peerId, lastTryAt() - now()), signal);
        await this.#pause(attempt, lastTryAt());
        const queued = now();
        await this.#slot(signal);
        giveUpAt += now() - queued;
        await this.#try(attempt, giveUpAt - now());
      } catch (error) {
        const { code = '', retryAfter } = error as Partial<BVError>;
        attempt.life.end('failed');
        if (signal.aborted || retryAfter === undefined || !PUT_OFF.test(code)) throw error;
        attempt.error = error as BVError;
      }
      if (attempt.made) return;
      // Somebody was too busy just now, or the other side's link, which won, is about to come about.
      const wait = backoff.next(attempt.error ? attempt.error.retryAfter : SECOND_TRY);
      if (now() + wait > lastTryAt()) {
        throw (
          attempt.error ?? new BVError('connect_failed', 'the other side lets go of each link as soon as it is there')
        );
      }
      await sleep(wait, signal);
      attempt.life = this.#live(attempt.peerId, '', true);
    }
  }

  /** Dial, in a slot that is given back. */
  async #try(attempt: Attempt, timeout: number): Promise<void> {
    const { peerId, life, stop } = attempt;
    attempt.isDialling = true;
    try {
      this.add(await this.#settings.dial(peerId, life, timeout, stop.signal));
    } catch (error) {
      const { code, retryAfter } = error as BVError;
      if (/^(connect_failed|deadline)$/.test(code) && retryAfter === undefined) this.#failed(peerId, error as BVError);
      throw error;
    } finally {
      attempt.isDialling = false;
      this.#dialling--;
      this.#admit();
    }
  }

  #live(peerId: string, name: string, dialled: boolean): LinkLife {
    const life = new LinkLife(peerId, name, dialled, () => {
      if (life.isOver) this.lives.delete(life);
      this.#settings.onLife(life);
    });
    this.lives.add(life);
    return life;
  }

  /** A peer could not be reached: the next try has to wait. */
  #failed(peerId: string, error: BVError): void {
    const backoff = this.#pauses.get(peerId)?.backoff ?? new Backoff(Math.random, FIRST_PAUSE, LONGEST_PAUSE);
    this.#pauses.set(peerId, { backoff, over: later(), until: now() + backoff.next(), error });
    if (this.#pauses.size > MAX_PAUSES) this.retryNow(this.#pauses.keys().next().value);
  }

  /** Wait until the peer's pause is over, or until that moment. */
  async #pause(attempt: Attempt, longest: number): Promise<void> {
    const pause = this.#pauses.get(attempt.peerId);
    if (!pause) return;
    attempt.error = pause.error;
    await orGivenUp(settles(pause.over.promise, Math.min(pause.until, longest) - now()), attempt.stop.signal);
  }

  /** Wait for a place among the outgoing links, which counts as dialling from then on. */
  async #slot(signal: AbortSignal): Promise<void> {
    if (!this.#queue.length && this.#hasSlot) {
      this.#dialling++;
      return;
    }
    const slot = later<void>();
    this.#queue.push(slot);
    this.#evict();
    // By then, those who only wait for an answer do not count any more.
    const stalled = setTimeout(() => this.#admit(), STALLED * 1000);
    try {
      await orGivenUp(slot.promise, signal);
    } catch (error) {
      if (!remove(this.#queue, slot)) {
        this.#dialling--; // it was granted at the same moment
        this.#admit();
      }
      throw error;
    } finally {
      clearTimeout(stalled);
    }
  }

  #filter(is: (link: PeerLink) => boolean): PeerLink[] {
    return this.links().filter(is);
  }

  #count(is: (link: PeerLink) => boolean): number {
    return this.#filter(is).length;
  }

  /** A link that is doubted gives way to another, which needs its place before. */
  get #outgoing(): number {
    return this.#dialling + this.#count((link) => link.offerer && !link.doubted);
  }

  get #hasSlot(): boolean {
    // Those whose peers do not answer cost nothing, and must not keep the others waiting.
    const stalled = [...this.#attempts.values()].filter(
      ({ isDialling, life }) => isDialling && /^(relay|answer)$/.test(life.state) && now() - life.since >= STALLED,
    );
    return this.#dialling - stalled.length < MAX_DIALLING && this.#outgoing < this.#settings.maxOutgoing;
  }

  /** Whether somebody waits for one of our links to go. */
  get #isFull(): boolean {
    return this.#queue.length > 0 && this.#outgoing >= this.#settings.maxOutgoing;
  }

  #admit(): void {
    while (this.#queue.length && this.#hasSlot) {
      this.#dialling++;
      this.#queue.shift()!.resolve();
    }
    this.#evict();
  }

  /** Let our links go, the longest unused first, as many as attempts wait for their slots. */
  #evict(): void {
    if (!this.#isFull) return;
    const ours = this.#filter((link) => link.offerer);
    const wanted = Math.min(this.#queue.length, MAX_DIALLING) - ours.filter(isGoing).length;
    // Not one that has just come: who asked for it is about to call.
    const idle = ours.filter((link) => link.usedAt !== link.openedAt || link.openedAt < now() - SETTLING);
    this.#release(idle, wanted, () => 0);
  }

  /**
   * Let links go that other sides dialled and nothing uses, so that so many are going; whether any is. Those of the
   * account that has the most go first, the longest unused of them: whoever opens many makes room for the others.
   */
  #makeRoom(count: number): boolean {
    const theirs = this.#filter((link) => !link.offerer);
    const going = theirs.filter(isGoing).length;
    const idle = theirs.filter((link) => link.usedAt < now() - SETTLING);
    const ofAccount = ({ remote }: PeerLink): number => theirs.filter((link) => link.remote.key === remote.key).length;
    return this.#release(idle, count - going, ofAccount) + going > 0;
  }

  /** Drain so many of these links, as far as nothing uses them; how many it were. */
  #release(links: PeerLink[], count: number, rank: (link: PeerLink) => number): number {
    const leaving = links
      .filter((link) => link.usable && !link.active)
      .map((link) => ({ link, rank: rank(link) }))
      .sort((one, other) => other.rank - one.rank || one.link.usedAt - other.link.usedAt)
      .slice(0, Math.max(0, count));
    for (const { link } of leaving) link.drain('evicted');
    return leaving.length;
  }

  /** Whether `old` stays: both sides dialled at once, and the numerically smaller id's offer wins. */
  #settles(old: PeerLink, { offerer, openedAt }: PeerLink): boolean {
    if (old.offerer === offerer || openedAt - old.openedAt > GLARE_WINDOW) return false;
    return old.offerer === Number(this.ownId) < Number(old.remote.id);
  }
}
