/**
 * Which peers are online, as far as the server tells (docs/protocol-discovery.md, "Presence").
 *
 * The server's lists are snapshots. {@link Presence} compares each of them with what it knew, and reports the
 * differences and nothing else. A known peer that is missing after a reconnect may only not be back yet, because it was
 * the server that restarted: it is held for {@link HOLD} seconds before it counts as gone.
 */

import type { PresenceEvent } from './session_events.ts';

/** Seconds for which a known peer may be missing from the list after a reconnect before it counts as gone. */
export const HOLD = 15;

/**
 * The online peers, each under the alias of its account. While the server is away nothing happens to them: time for
 * those who are held counts from the list that they are missing from.
 */
export class Presence {
  /** Peer id to alias, held ones included. */
  readonly peers = new Map<string, string>();
  readonly #report: (change: PresenceEvent) => void;
  #held = new Set<string>();
  #heldUntil = 0;

  /** @param report is given every change. */
  constructor(report: (change: PresenceEvent) => void) {
    this.#report = report;
  }

  /** Take a whole list (peer id to alias): who is new appears, who is missing is held. */
  replace(listed: ReadonlyMap<string, string>, now: number): void {
    for (const [id, name] of listed) {
      if (this.peers.get(id) !== name) this.appear(name, id);
    }
    this.#held = new Set([...this.peers.keys()].filter((id) => !listed.has(id)));
    this.#heldUntil = now + HOLD;
  }

  /** A peer is online: new, or, if it was known under this alias, on another socket. */
  appear(name: string, id: string): void {
    this.#held.delete(id);
    if (this.peers.get(id) === name) {
      this.#report({ type: 'peerReturned', id });
    } else {
      this.vanish(id);
      this.peers.set(id, name);
      this.#report({ type: 'peerConnected', name, id });
    }
  }

  /** A peer has gone; news only if it was known. */
  vanish(id: string): void {
    this.#held.delete(id);
    const name = this.peers.get(id);
    if (this.peers.delete(id)) this.#report({ type: 'peerDisconnected', id, name: name! });
  }

  /** An alias has gone, and its peers with it. */
  vanishAll(name: string): void {
    for (const [id, known] of [...this.peers]) {
      if (known === name) this.vanish(id);
    }
  }

  /** When the held count as gone; null if nobody is held. */
  timer(): number | null {
    return this.#held.size ? this.#heldUntil : null;
  }

  /** The held have gone, if their time is over. */
  handleTimer(now: number): void {
    if (now >= this.#heldUntil) {
      for (const id of [...this.#held].sort()) this.vanish(id);
    }
  }
}
