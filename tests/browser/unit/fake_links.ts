/** Links that only have a state, for what looks after links. */

import { BVError } from '../../../server/browser/src/errors.ts';
import { LinkLife } from '../../../server/browser/src/life.ts';
import type { PeerLink } from '../../../server/browser/src/peer_link.ts';
import { Pool, type PoolSettings } from '../../../server/browser/src/pool.ts';
import { now } from '../../../server/browser/src/timing.ts';

export class FakeLink {
  readonly remote;
  readonly offerer: boolean;
  readonly openedAt = now();
  usedAt = this.openedAt;
  usable = true;
  doubted = false;
  proved = true;
  isWanted = true;
  wantedUntil = 0;
  missedUntil = 0;
  active = 0;
  ended = '';
  /** Why it was drained. */
  drained = '';
  keptUntil = 0;
  /** Whether it answers to pings, and how many there were. */
  answers = true;
  pings = 0;
  /** Bytes that have got away, and how many get away while it is pinged, each time. */
  left = 0;
  toLeave: number[] = [];
  onGone: (link: FakeLink) => void = () => {};
  readonly #gone = Promise.withResolvers<BVError>();

  constructor(id: string, offerer = true, key = `key of ${id}`, name = 'bob') {
    this.remote = { id, name, key, fingerprint: '' };
    this.offerer = offerer;
  }

  get gone(): Promise<BVError> {
    return this.#gone.promise;
  }

  drain(reason: string): void {
    this.usable = false;
    this.drained ||= reason;
    if (!this.active) this.#end(new BVError('link_lost', reason), 'drained');
  }

  close(error = new BVError('link_lost', 'closed')): void {
    this.#end(error, 'closed');
  }

  lose(reason: string): void {
    this.#end(new BVError('link_lost', reason), 'lost');
  }

  keep(until: number): void {
    this.keptUntil = until;
  }

  doubt(): void {
    this.doubted = true;
  }

  async ping(seconds: number): Promise<number> {
    this.pings++;
    this.left += this.toLeave.shift() ?? 0;
    if (this.answers) return 0.01;
    await new Promise((done) => setTimeout(done, seconds * 1000));
    throw new BVError('deadline', 'no answer');
  }

  watchLeaving(): () => boolean {
    const { left } = this;
    return () => this.left > left;
  }

  /** A call on it has ended. */
  used(): void {
    this.usedAt = now();
    this.active = 0;
  }

  #end(error: BVError, why: string): void {
    if (this.ended) return;
    this.ended = why;
    this.usable = false;
    this.active = 0;
    this.#gone.resolve(error);
    queueMicrotask(() => this.onGone(this));
  }

  get real(): PeerLink {
    return this as unknown as PeerLink;
  }
}

/** A pool, and whoever answers when it dials. */
export class FakePool {
  readonly pool: Pool;
  /** The peers that were dialled, in order, and what is to become of those that are being dialled. */
  readonly dialled: string[] = [];
  readonly dials = new Map<string, { life: LinkLife; signal: AbortSignal; result: PromiseWithResolvers<PeerLink> }>();
  /** Seconds that each of them was given. */
  readonly given: number[] = [];
  readonly added: FakeLink[] = [];
  readonly replaced: FakeLink[] = [];
  /** Whether dialling succeeds by itself. */
  answers = true;

  constructor(settings: Partial<PoolSettings> = {}) {
    this.pool = new Pool({
      dial: (peerId, life, seconds, signal) => this.#dial(peerId, life, seconds, signal),
      maxOutgoing: 64,
      maxIncoming: 256,
      patience: 20,
      onAdded: (link) => this.added.push(link as unknown as FakeLink),
      onReplaced: (link) => this.replaced.push(link as unknown as FakeLink),
      onLife: () => {},
      check: () => {},
      ready: async () => {},
      ...settings,
    });
    this.pool.ownId = '500';
  }

  async #dial(peerId: string, life: LinkLife, seconds: number, signal: AbortSignal): Promise<PeerLink> {
    this.dialled.push(peerId);
    this.given.push(seconds);
    life.to('gathering');
    life.to('relay');
    if (this.answers) return this.made(peerId).real;
    const result = Promise.withResolvers<PeerLink>();
    this.dials.set(peerId, { life, signal, result });
    signal.addEventListener('abort', () => result.reject(signal.reason));
    try {
      return await result.promise;
    } finally {
      this.dials.delete(peerId);
    }
  }

  /** A link of ours to that peer. */
  made(peerId: string, offerer = true, key?: string): FakeLink {
    const link = new FakeLink(peerId, offerer, key);
    link.onGone = () => this.pool.remove(link.real);
    return link;
  }

  /** A link that the other side dialled. */
  taken(peerId: string, key?: string): FakeLink {
    const link = this.made(peerId, false, key);
    this.pool.add(link.real);
    return link;
  }

  async link(peerId: string, signal?: AbortSignal): Promise<FakeLink> {
    return (await this.pool.link(peerId, signal)) as unknown as FakeLink;
  }
}
