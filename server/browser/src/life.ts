/**
 * The life of a link, from the wish for one to its end, as states in one table.
 *
 * Pool, dialler and link write into the same {@link LinkLife}, each what it knows, so that whoever asks is told one
 * story. The states are those of docs/operations.md, "The life of a link".
 */

import type { PeerLink } from './peer_link.ts';
import { now } from './timing.ts';

export type State =
  | 'queue' | 'gathering' | 'relay' | 'answer' | 'checking' | 'dtls' | 'proof'
  | 'open' | 'draining' | 'failed' | 'lost' | 'closed';

/** What a link that is being set up is doing, in words that complete "it was ...". */
export const DOING: Readonly<Partial<Record<State, string>>> = {
  queue: 'waiting for its turn',
  gathering: 'gathering candidates',
  relay: 'handing the request to the discovery server',
  answer: "waiting for the other peer's answer",
  checking: 'looking for a path',
  dtls: 'shaking hands',
  proof: "waiting for the other side's proof",
};

/**
 * Every transition that there is. Who dials goes through all states in order; who is dialled has neither `relay` nor
 * `answer`. An engine whose checks succeed at once may skip one of those that follow.
 */
export const TRANSITIONS: Readonly<Record<State, string>> = {
  queue: 'gathering failed',
  gathering: 'relay checking failed',
  relay: 'answer checking failed',
  answer: 'checking failed',
  checking: 'dtls proof failed',
  dtls: 'proof failed',
  proof: 'open failed',
  open: 'draining lost closed',
  draining: 'lost closed',
  failed: '',
  lost: '',
  closed: '',
};

/** One link, or the attempt to make one. */
export class LinkLife {
  readonly peerId: string;
  /** Our alias for its account; empty until it is known. */
  name: string;
  /** Whether this side wants it; else the other side dials. */
  readonly dialled: boolean;
  state: State = 'queue';
  /** How far it came while it was set up. */
  phase: State = 'queue';
  /** The moment at which it came into this state. */
  since = now();
  /** The link itself, as soon as its channel is open. */
  link: PeerLink | null = null;
  readonly #onChange: (life: LinkLife) => void;

  /** @param onChange told of every new state. */
  constructor(peerId: string, name: string, dialled: boolean, onChange: (life: LinkLife) => void = () => {}) {
    this.peerId = peerId;
    this.name = name;
    this.dialled = dialled;
    this.#onChange = onChange;
  }

  /** Whether the link is gone, or never came about. */
  get isOver(): boolean {
    return !TRANSITIONS[this.state];
  }

  /** Whether it is on its way, with no link yet. */
  get isSettingUp(): boolean {
    return this.state in DOING;
  }

  /** It is in another state now; a TypeError if the table does not have that transition. */
  to(state: State): void {
    if (!TRANSITIONS[this.state].split(' ').includes(state)) throw new TypeError(`link: ${this.state} -> ${state}`);
    this.state = state;
    this.since = now();
    if (this.isSettingUp) this.phase = state;
    this.#onChange(this);
  }

  /** It is over; nothing if it was already. An attempt ends `failed`, whatever is said. */
  end(state: 'failed' | 'lost' | 'closed'): void {
    if (!this.isOver) this.to(this.isSettingUp ? 'failed' : state);
  }
}
