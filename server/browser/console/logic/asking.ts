/** A call under way, to one peer or to all of an alias, and what came of it. */

import type { BVErrorInfo, PeerInfo, Sendable, Target, Value } from '../../src/types.ts';
import { blobOf, show, type Shown } from './values.ts';

/** Answers that are kept, and bytes of them that can be saved. */
const KEPT = 500;
const KEPT_BYTES = 64 * 2 ** 20;

export interface Answer {
  /** Null for the one peer that was asked. */
  peer: PeerInfo | null;
  shown: Shown | null;
  /** The whole, to be saved; null if there is too much. */
  blob: Blob | null;
  error: BVErrorInfo | null;
  /** Milliseconds. */
  took: number;
}

/** What to ask: `everyone` asks all peers of the target. */
export interface Question {
  target: Target;
  module: string;
  request: Sendable;
  /** Milliseconds. */
  timeout: number;
  everyone: boolean;
}

export class Asking {
  answers: Answer[] = [];
  good = 0;
  total = 0;
  /** How many peers were asked. */
  readonly asked: number;
  readonly everyone: boolean;
  state: 'running' | 'over' | 'cancelled' = 'running';
  took = 0;

  #abort = new AbortController();
  #size = 0;
  #started = performance.now();
  #changed: () => void;

  constructor(question: Question, changed: () => void) {
    this.#changed = changed;
    this.everyone = question.everyone;
    this.asked = question.everyone ? question.target.peers().length : 1;
    void this.#run(question);
  }

  cancel(): void {
    if (this.state === 'running') this.#end('cancelled');
    this.#abort.abort();
  }

  async #run({ target, module, request, timeout, everyone }: Question): Promise<void> {
    const options = { timeout, signal: this.#abort.signal };
    try {
      if (!everyone) this.#add(null, (await target.call(module, request, options)) as Value, null);
      else
        for await (const { peer, response, error } of target.callAll(module, request, options))
          this.#add(peer, response, error);
    } catch (error) {
      this.#add(null, undefined, error as BVErrorInfo);
    }
    if (this.state === 'running') this.#end('over');
  }

  #add(peer: PeerInfo | null, response: Value | undefined, error: BVErrorInfo | null): void {
    if (this.state !== 'running') return;
    this.total++;
    if (!error) this.good++;
    if (this.answers.length < KEPT)
      this.answers.push({ peer, ...this.#ready(response, error), error, took: this.#elapsed() });
    this.#changed();
  }

  #ready(response: Value | undefined, error: BVErrorInfo | null): { shown: Shown | null; blob: Blob | null } {
    if (error) return { shown: null, blob: null };
    const blob = blobOf(response);
    this.#size += blob.size;
    return { shown: show(response), blob: this.#size > KEPT_BYTES ? null : blob };
  }

  #end(state: Asking['state']): void {
    this.state = state;
    this.took = this.#elapsed();
    this.#changed();
  }

  #elapsed(): number {
    return performance.now() - this.#started;
  }
}
