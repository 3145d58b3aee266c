/** Whom a call is for: everyone, an alias, one peer; and the ways to call them. */

import type { Calls, Encoded } from './calling.ts';
import { BVError } from './errors.ts';
import { encodeValue } from './items.ts';
import type {
  BVErrorInfo, CallAllOptions, CallOptions, Json, ModuleInfo, PeerInfo, PingResult, Result, Sendable, Target,
  UnaryOptions, Value,
} from './types.ts';
import { byName } from './wire/collections.ts';

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
      (({ code, message }: BVErrorInfo, peer?: PeerInfo) =>
        console.warn(`BoneValue: ${module}${peer ? ` of ${peer.name}/${peer.id}` : ''}: ${code}: ${message}`));
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
    checkSignal(options.signal);
    return this.#calls.callPeer(this.#calls.choose(this.query), module, encodeValue(request), options);
  }

  callAll(module: string, request?: Sendable, options: CallAllOptions = {}): AsyncIterableIterator<Result> {
    const { concurrency = Infinity, first = Infinity } = options;
    if (!(concurrency >= 1 && first >= 1)) throw new TypeError('concurrency and first are at least 1');
    const encoded = encodeNow(request);
    return cancellable(options.signal, (signal, left) => {
      const ask = (peer: PeerInfo) => this.#calls.callPeer(peer, module, encoded, { ...options, signal });
      return this.#results(ask, concurrency, first, left);
    });
  }

  stream(module: string, request?: Sendable, options: CallOptions = {}): AsyncIterableIterator<any> {
    const calls = this.#calls;
    const choose = (): PeerInfo => calls.choose(this.query);
    const encoded = encodeNow(request);
    return cancellable(options.signal, async function* (signal) {
      const items = await calls.openStream(choose(), module, encoded, { ...options, signal });
      try {
        yield* items;
      } finally {
        items.close();
      }
    });
  }

  /** What all peers answer, in the order in which they do; `left` is aborted when nobody looks any more. */
  async *#results(
    call: (peer: PeerInfo) => Promise<Value>,
    concurrency: number,
    wanted: number,
    left: AbortSignal,
  ): AsyncGenerator<Result> {
    const waiting = this.peers();
    const ended: (Result | { readonly raised: unknown })[] = [];
    let underWay = 0;
    let wake = (): void => {};
    const ask = (): void => {
      const peer = wanted > 0 && !left.aborted ? waiting.shift() : undefined;
      if (!peer) return;
      underWay++;
      call(peer).then(
        (response) => done({ peer, response, error: null }),
        (error) => done(error instanceof BVError ? { peer, response: undefined, error } : { raised: error }),
      );
    };
    const done = (result: (typeof ended)[number]): void => {
      underWay--;
      if (wanted > 0) {
        ended.push(result);
        if ('error' in result && !result.error) wanted--;
        ask();
      }
      wake();
    };
    for (let n = 0; n < concurrency && waiting.length; n++) ask();
    while (!left.aborted && (ended.length || (underWay && wanted > 0))) {
      const result = ended.shift();
      if (!result) await new Promise<void>((resolve) => (wake = resolve));
      else if ('raised' in result) throw result.raised;
      else yield result;
    }
  }

  async modules(options: { timeout?: number } = {}): Promise<ModuleInfo[]> {
    const peer = this.#calls.choose(this.query);
    const answer = await this.#calls.callPeer(peer, 'bv.modules', encodeValue(null), { ...options, idempotent: true });
    if (!Array.isArray(answer) || answer.length > MAX_MODULES || !answer.every(isDescription)) {
      throw new BVError('protocol_error', 'what the peer says of its modules makes no sense', { peer: peer.id });
    }
    return (answer as { name: string }[])
      .map((described) => ({ doc: '', stream: false, request: null, response: null, ...described }))
      .sort(byName);
  }

  async ping(options: { timeout?: number } = {}): Promise<PingResult> {
    return this.#calls.pingPeer(this.#calls.choose(this.query), options.timeout);
  }
}

/**
 * A generator whose calls end at once when nobody looks any more: `return()` of a plain one would wait for what it is
 * waiting for. `run` gets a signal for its calls, and one for just that.
 */
function cancellable<T>(
  given: AbortSignal | undefined,
  run: (signal: AbortSignal, left: AbortSignal) => AsyncGenerator<T>,
): AsyncIterableIterator<T> {
  checkSignal(given);
  const giveUp = new AbortController();
  const left = giveUp.signal;
  const generator = run(given ? AbortSignal.any([given, left]) : left, left);
  const over = { done: true, value: undefined } as const;
  return {
    async next() {
      try {
        const result = await generator.next();
        if (result.done) giveUp.abort(); // all are answered that were wanted: the others are not
        return left.aborted ? over : result;
      } catch (error) {
        if (left.aborted) return over;
        giveUp.abort();
        throw error;
      }
    },
    async return() {
      giveUp.abort();
      await generator.return(undefined);
      return over;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** JavaScript takes anything, an AbortController above all. Told by what it has: it may be one of another frame. */
function checkSignal(signal: AbortSignal | undefined): void {
  if (signal && typeof signal.throwIfAborted !== 'function') throw new TypeError('signal is an AbortSignal');
}

/** A request as it is at this moment; what is wrong with it shows when somebody is asked. */
function encodeNow(request: Sendable): Encoded {
  const encoded = encodeValue(request);
  encoded.catch(() => {});
  return encoded;
}

function isDescription(value: Json): boolean {
  const { name, doc = '', stream = false } = (value ?? {}) as Record<string, Json>;
  return typeof name === 'string' && typeof doc === 'string' && typeof stream === 'boolean';
}
