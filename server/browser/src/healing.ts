/**
 * Links that heal: those that were lost are made anew, those that may be broken are replaced before they break.
 *
 * WebRTC could move a connection to another path, but other peers cannot, so a new one is made beside it. Whoever wants
 * a link (holds it, or has calls on it) brings it back. If both sides do, who dialled before goes first; and should
 * both dial at once, the pool settles it.
 */

import { BVError } from './errors.ts';
import type { PeerLink } from './peer_link.ts';
import { GLARE_WINDOW, type Pool } from './pool.ts';
import { later, now, orGivenUp, settles, sleep } from './timing.ts';
import { Backoff } from './wire/pacing.ts';

/** Seconds that a link has to answer when it is examined. */
const PROBE = 3;
/** Seconds for which the side that was dialled waits for the other one to dial again. */
const YIELD = 1.5;
/** Longest first delay between two attempts to bring a link back, and longest of all, in seconds. */
const [FIRST_RETRY, LONGEST_RETRY] = [0.5, 10];

/**
 * Whether what is sent reaches the other side, and its answers reach us; that something comes is no answer. A ping may
 * wait behind much else; but if that leaves meanwhile, and not only what was let out when the path broke, it gets
 * through.
 */
async function answers(link: PeerLink): Promise<boolean> {
  let leaves = (): boolean => false;
  // If this page stands still, it spoils one of them.
  for (let half = 0; half < 2; half++) {
    leaves = link.watchLeaving();
    const answer = link.ping(PROBE / 2).then(
      () => true,
      () => false,
    );
    if (await answer) return true;
  }
  return leaves();
}

async function endIfSilent(link: PeerLink, why: string): Promise<void> {
  if (!(await answers(link))) link.close(new BVError('link_lost', `${why}, and nothing gets through on this link`));
}

export class Healing {
  readonly #pool: Pool;
  /** The peers whose links are being brought back. */
  readonly #healing = new Set<string>();
  /** The links that are examined, and those that are asked whether their peer is still there. */
  readonly #examined = new Set<PeerLink>();
  readonly #asked = new Set<PeerLink>();
  readonly #stop = new AbortController();
  /** By peer, what ends the wait for the next try: it may succeed sooner if something changes. */
  readonly #changes = new Map<string, PromiseWithResolvers<void>>();

  constructor(pool: Pool) {
    this.#pool = pool;
  }

  stop(): void {
    this.#stop.abort(new BVError('unavailable', 'this peer is stopping'));
  }

  /** A link was lost; if this side wanted it, it comes back. */
  lost(link: PeerLink): void {
    const headStart = link.offerer ? 0 : YIELD * (1 + Math.random());
    if (link.proved && now() < link.missedUntil) this.bringBack(link.remote.id, link.missedUntil, headStart);
  }

  /**
   * Another link has taken the place of one that drains. The other side may have made it because it has moved: then the
   * calls on the old one should not wait for it to be silent long enough.
   */
  async replaced(link: PeerLink): Promise<void> {
    await endIfSilent(link, 'another link took its place');
  }

  /**
   * The server says that a peer is offline. It may have lost no more than the server: a link on which it answers stays.
   * Else its calls need not wait until it has been silent for long enough.
   */
  peerLeft(peerId: string): void {
    for (const link of this.#pool.links()) if (link.remote.id === peerId) void this.#ask(link);
  }

  /** Make a link with a peer, until that moment, after so many seconds. */
  async bringBack(peerId: string, until = now() + LONGEST_RETRY, headStart = 0): Promise<void> {
    if (this.#healing.has(peerId)) return;
    this.#healing.add(peerId);
    await settles(sleep(headStart, this.#stop.signal), headStart + 1);
    await this.#redial(peerId, until);
    this.#healing.delete(peerId);
  }

  /** The server is reached again, or the network has changed: what failed before may succeed now. */
  retryNow(): void {
    this.#pool.retryNow();
    for (const peerId of [...this.#changes.keys()]) this.#wake(peerId);
  }

  /** A peer is online: it may be reached now. */
  peerCame(peerId: string): void {
    this.#pool.retryNow(peerId);
    this.#wake(peerId);
  }

  #wake(peerId: string): void {
    this.#changes.get(peerId)?.resolve();
    this.#changes.delete(peerId);
  }

  /** The network may have changed, or this machine was asleep: look after all links. */
  networkChanged(): void {
    this.retryNow();
    for (const link of this.#pool.links()) void this.examine(link);
  }

  /** Replace a link if its path is broken. */
  async examine(link: PeerLink): Promise<void> {
    if (!link.usable || !link.isWanted || link.doubted || this.#examined.has(link)) return;
    this.#examined.add(link);
    if (!(await answers(link)) && !link.ended) {
      link.doubt();
      // Until then, another link would look as if both sides had dialled at once, and might be the one that goes.
      const wait = Math.max(0, link.openedAt + GLARE_WINDOW - now());
      await settles(sleep(wait, this.#stop.signal), wait + 1);
      if (link.doubted && !link.ended) {
        await this.#redial(link.remote.id, Math.max(link.wantedUntil, now() + LONGEST_RETRY));
      }
    }
    this.#examined.delete(link);
  }

  async #ask(link: PeerLink): Promise<void> {
    if (!link.usable || this.#asked.has(link)) return;
    this.#asked.add(link);
    if (!(await answers(link))) link.lose('the server says that the peer has left, and it does not answer');
    this.#asked.delete(link);
  }

  /** Try until there is a link, or the time is over for which one is wanted. */
  async #redial(peerId: string, until: number): Promise<void> {
    const { signal } = this.#stop;
    const backoff = new Backoff(Math.random, FIRST_RETRY, LONGEST_RETRY);
    while (now() < until && !signal.aborted) {
      const change = this.#changes.get(peerId) ?? later();
      this.#changes.set(peerId, change);
      try {
        (await this.#pool.link(peerId, signal)).keep(until);
        break;
      } catch (error) {
        const { code, retryAfter } = error as BVError;
        if (/^(not_trusted|identity_mismatch)$/.test(code)) break;
        const wait = Math.min(backoff.next(retryAfter), until - now());
        if (await settles(orGivenUp(change.promise, signal), wait)) backoff.reset();
      }
    }
    this.#changes.delete(peerId);
  }
}
