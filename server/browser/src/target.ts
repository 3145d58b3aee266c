/** Whom a call is for: everyone, an alias, one peer; and the ways to call them. */

import type { Calls } from './calling.ts';
import { BVError } from './errors.ts';
import type {
  BVErrorInfo, CallAllOptions, CallOptions, Json, ModuleInfo, PeerInfo, PingResult, Result, Sendable, Target,
  UnaryOptions,
} from './types.ts';

/** Most modules that are believed of a peer. */
const MAX_MODULES = 10_000;

export class CallTarget implements Target {
  readonly query: string;
  readonly #calls: Calls;

  constructor(calls: Calls, query: string) {
    this.query = String(query);
    this.#calls = calls;
  }

  peers(): PeerInfo[] {
    return this.#calls.resolve(this.query);
  }

  message(
    module: string,
    request?: Sendable,
    keepAlive = true,
    callback?: ((response: any) => void) | null,
    onError?: (error: BVErrorInfo) => void,
  ): void {
    const failed =
      onError ??
      ((error: BVErrorInfo, peer?: PeerInfo) =>
        console.warn(`BoneValue: ${module}${peer ? ` of ${peer.name}/${peer.id}` : ''}: ${error.code}: ${error.message}`));
    void (async () => {
      for await (const { peer, response, error } of this.callAll(module, request, { keepAlive })) {
        try {
          if (error) failed(error, peer);
          else callback?.(response);
        } catch (raised) {
          reportError(raised); // as an event listener's: for the page's own handlers, and no reason to stop
        }
      }
    })().catch(reportError);
  }

  async call(module: string, request?: Sendable, options: UnaryOptions = {}): Promise<any> {
    if (options.items && options.idempotent) throw new TypeError('items cannot be sent again: not idempotent');
    return this.#calls.callPeer(this.#calls.choose(this.query), module, request, options);
  }

  async *callAll(module: string, request?: Sendable, options: CallAllOptions = {}): AsyncGenerator<Result> {
    const waiting = this.peers();
    const { concurrency = waiting.length, first = Infinity } = options;
    if (waiting.length && !(concurrency >= 1 && first >= 1)) throw new TypeError('concurrency and first are at least 1');
    const giveUp = new AbortController();
    const signal = options.signal ? AbortSignal.any([options.signal, giveUp.signal]) : giveUp.signal;
    const ended: (Result | { readonly raised: unknown })[] = [];
    let wanted = first;
    let underWay = 0;
    let wake = (): void => {};

    const ask = (): void => {
      const peer = wanted > 0 ? waiting.shift() : undefined;
      if (!peer) return;
      underWay++;
      this.#calls.callPeer(peer, module, request, { ...options, signal }).then(
        (response) => done({ peer, response, error: null }, 1),
        (error) => done(error instanceof BVError ? { peer, response: undefined, error } : { raised: error }, 0),
      );
    };
    const done = (result: (typeof ended)[number], good: number): void => {
      underWay--;
      if (wanted <= 0) return;
      ended.push(result);
      wanted -= good;
      ask();
      wake();
    };

    try {
      for (let n = 0; n < concurrency && waiting.length; n++) ask();
      while (ended.length || (underWay && wanted > 0)) {
        const result = ended.shift();
        if (!result) await new Promise<void>((resolve) => (wake = resolve));
        else if ('raised' in result) throw result.raised;
        else yield result;
      }
    } finally {
      wanted = 0;
      giveUp.abort();
    }
  }

  async *stream(module: string, request?: Sendable, options: CallOptions = {}): AsyncGenerator<any> {
    const items = await this.#calls.openStream(this.#calls.choose(this.query), module, request, options);
    try {
      yield* items;
    } finally {
      items.close();
    }
  }

  async modules(options: { timeout?: number } = {}): Promise<ModuleInfo[]> {
    const peer = this.#calls.choose(this.query);
    const answer = await this.#calls.callPeer(peer, 'bv.modules', null, { ...options, idempotent: true });
    if (!Array.isArray(answer) || answer.length > MAX_MODULES || !answer.every(isDescription)) {
      throw new BVError('protocol_error', 'what the peer says of its modules makes no sense', { peer: peer.id });
    }
    return (answer as { name: string }[])
      .map((described) => ({ doc: '', stream: false, request: null, response: null, ...described }))
      .sort((one, other) => (one.name < other.name ? -1 : 1));
  }

  async ping(options: { timeout?: number } = {}): Promise<PingResult> {
    return this.#calls.pingPeer(this.#calls.choose(this.query), options.timeout);
  }
}

function isDescription(value: Json): boolean {
  const { name, doc = '', stream = false } = (value ?? {}) as Record<string, Json>;
  return typeof name === 'string' && typeof doc === 'string' && typeof stream === 'boolean';
}
