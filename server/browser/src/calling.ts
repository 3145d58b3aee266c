/**
 * Calls of ours: whom a query means, a link to that peer, and the call over it, made again where that is safe.
 *
 * A call that was not begun, because its link was being drained, always moves to a new one. A call that was sent and
 * lost its link may have been run: only one that is `idempotent` is made again, and only once.
 */

import { BVError } from './errors.ts';
import { checkItems, iteratorOf, type ReceivedItems } from './items.ts';
import { CallMoved, type PeerLink } from './peer_link.ts';
import { now } from './timing.ts';
import type { Items, PeerInfo, PingResult, Sendable, UnaryOptions, Value } from './types.ts';

/** What is needed of the pool. */
export interface LinkPool {
  ownId: string;
  current(peerId: string): PeerLink | null;
  /** The attempt is given up when the last of those who wait for it has gone. */
  link(peerId: string, signal: AbortSignal): Promise<PeerLink>;
  progress(peerId: string): string;
}

/** A request as {@link encodeValue} gives it. */
export type Encoded = Promise<[Uint8Array, boolean]>;

const DIGITS = /^\d+$/;
/** Seconds that a call may have at most. */
const MAX_TIMEOUT = 600;

export class Calls {
  /** The peers that may be called just now, id to name: a view that changes with them. */
  online: ReadonlyMap<string, string> = new Map();
  /** Seconds that a call has if nothing else is said. */
  defaultTimeout = 30;
  #pool: LinkPool | null = null;
  readonly #report: (error: BVError) => void;

  constructor(report: (error: BVError) => void) {
    this.#report = report;
  }

  /** Begin, with the links of a new session; end, with none. */
  use(pool: LinkPool | null, online: ReadonlyMap<string, string>): void {
    this.#pool = pool;
    this.online = online;
  }

  resolve(query: string): PeerInfo[] {
    if (DIGITS.test(query)) {
      const name = this.online.get(query) ?? this.#pool?.current(query)?.remote.name;
      return name === undefined ? [] : [{ name, id: query }];
    }
    const wanted = query.toLowerCase();
    return Array.from(this.online, ([id, name]) => ({ name, id })).filter(
      ({ name }) => query === '*' || name.toLowerCase() === wanted,
    );
  }

  choose(query: string): PeerInfo {
    if (!this.#pool) throw new BVError('unavailable', 'not connected: call connect() first');
    const peers = this.resolve(query);
    const peer = peers.find(({ id }) => this.#pool?.current(id)) ?? peers[0];
    if (!peer) throw new BVError('no_target', `nobody is online under "${query}"`);
    return peer;
  }

  /** `request` is encoded, once for all who are asked. */
  callPeer(peer: PeerInfo, module: string, request: Encoded, options: UnaryOptions): Promise<Value> {
    let { idempotent } = options;
    return this.#over(peer, request, options, async (link, body, raw, how) => {
      for (;;) {
        try {
          return await link.call(module, body, raw, how());
        } catch (error) {
          // A module may claim the code as well; only whose link has ended was lost.
          if (!idempotent || !(error instanceof BVError) || error.code !== 'link_lost' || !link.ended) throw error;
          idempotent = false;
          link = await this.#linkAgain(peer, how(), error);
        }
      }
    });
  }

  openStream(peer: PeerInfo, module: string, request: Encoded, options: UnaryOptions): Promise<ReceivedItems> {
    return this.#over(peer, request, options, (link, body, raw, how) => link.openStream(module, body, raw, how()));
  }

  async pingPeer(peer: PeerInfo, timeout?: number): Promise<PingResult> {
    const how = this.#time(timeout === undefined ? {} : { timeout });
    const link = await this.#link(peer, how());
    const roundTrip = 1000 * (await link.ping(how().timeout));
    return { peer, roundTrip, path: await link.connection.path() };
  }

  /** Do something over a link to a peer, and over another if the first did not begin it. */
  async #over<T>(
    peer: PeerInfo,
    request: Encoded,
    options: UnaryOptions,
    run: (link: PeerLink, body: Uint8Array, raw: boolean, how: () => How) => Promise<T>,
  ): Promise<T> {
    const items = options.items && new SentItems(options.items);
    const how = this.#time(options, items);
    const [body, raw] = await request;
    for (;;) {
      const link = await this.#link(peer, how());
      try {
        return await run(link, body, raw, how);
      } catch (error) {
        if (!(error instanceof CallMoved)) throw error;
        if (items?.begun) {
          throw new BVError('link_lost', 'the peer let go of the link before it took the call, whose items are gone', {
            peer: peer.id,
          });
        }
      }
    }
  }

  /** How a call is made from now on: with the time that is left. */
  #time(options: UnaryOptions, items?: AsyncIterable<Sendable>): () => How {
    const { signal, keepAlive = true, timeout } = options;
    const seconds = timeout === undefined ? this.defaultTimeout : timeout / 1000;
    if (!(seconds > 0)) throw new TypeError('a timeout is more than 0 ms');
    const deadline = now() + Math.min(seconds, MAX_TIMEOUT);
    return () => ({
      timeout: Math.max(0, deadline - now()),
      keepAlive,
      ...(items && { items }),
      ...(signal && { signal }),
    });
  }

  async #link(peer: PeerInfo, { timeout, signal }: How): Promise<PeerLink> {
    const pool = this.#pool;
    if (!pool) throw new BVError('unavailable', 'disconnected');
    if (signal?.aborted) throw cancelled(peer);
    if (peer.id === pool.ownId) throw new BVError('no_target', 'a peer does not call itself');
    const current = pool.current(peer.id);
    const link = current ?? (await within(pool, peer, timeout, signal));
    if (signal?.aborted) throw cancelled(peer);
    if (link.remote.name !== peer.name) {
      // Presence is the server's word; only the link has proof. What is meant for one must not go to another.
      const who = `the server says that peer ${peer.id} is ${peer.name}: it is ${link.remote.name}`;
      const error = new BVError('identity_mismatch', who, { peer: peer.id });
      this.#report(error);
      throw error;
    }
    return link;
  }

  /** A link for a call that has lost its own: if there is none, that is still what became of the call. */
  async #linkAgain(peer: PeerInfo, how: How, lost: BVError): Promise<PeerLink> {
    try {
      return await this.#link(peer, how);
    } catch (error) {
      if (!(error instanceof BVError) || /^(deadline|cancelled|identity_mismatch)$/.test(error.code)) throw error;
      throw new BVError('link_lost', `${lost.message}; no new link: ${error.message}`, { peer: peer.id });
    }
  }
}

interface How {
  /** Seconds left. */
  timeout: number;
  keepAlive: boolean;
  items?: Items;
  signal?: AbortSignal;
}

function cancelled({ id }: PeerInfo): BVError {
  return new BVError('cancelled', 'the call was cancelled', { peer: id });
}

/** Wait for a link no longer than the call may. */
async function within(pool: LinkPool, peer: PeerInfo, seconds: number, signal?: AbortSignal): Promise<PeerLink> {
  const late = AbortSignal.timeout(seconds * 1000);
  const end = signal ? AbortSignal.any([late, signal]) : late;
  try {
    return await pool.link(peer.id, end);
  } catch (error) {
    if (signal?.aborted) throw cancelled(peer);
    if (late.aborted) {
      const progress = pool.progress(peer.id);
      const why = `no link to ${peer.name}/${peer.id} within the call's time${progress && '; '}${progress}`;
      throw new BVError('deadline', why, { peer: peer.id });
    }
    // Others may wait for the same attempt: each gets an error of its own.
    throw error instanceof BVError ? error.about(peer.id) : error;
  }
}

/** The items of a call, and whether any may have been taken. */
class SentItems implements AsyncIterable<Sendable> {
  begun = false;
  readonly #items: Items;

  constructor(items: Items) {
    this.#items = checkItems(items);
  }

  [Symbol.asyncIterator](): AsyncIterator<Sendable> {
    this.begun = true;
    return iteratorOf(this.#items);
  }
}
