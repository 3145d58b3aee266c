/** What a peer serves: runs the handler of each call, and turns what comes out of it into an answer. */

import { BVError } from './errors.ts';
import { encodeValue, handOver, isStream, type ReceivedItems } from './items.ts';
import type { Remote } from './peer_link.ts';
import { FairSlots } from './slots.ts';
import { later, now } from './timing.ts';
import type { Call, Handler, Items, Json, ModuleOptions, Sendable } from './types.ts';
import { hex } from './wire/bytes.ts';
import { decodeBody, encodeName } from './wire/frames.ts';
import { randomBytes } from './wire/keys.ts';
import { DEFAULT_SETTINGS, type LinkSettings, type ReceivedCall, type Tally } from './wire/link_core.ts';
import { MemoryBudget } from './wire/memory.ts';
import type { Item } from './wire/streams.ts';

/** Bytes that all links together may hold of what has come in and is not complete, or not taken. */
const MEMORY = 64 * 2 ** 20;
const DEFAULT_CONCURRENCY = 64;
/** More than all links together may have under way. */
const MAX_CONCURRENCY = 2 ** 20;
/**
 * Codes of errors that a handler may throw for its caller to see. Any other, and one that came from a call of the
 * handler's own, is `handler_failed`: the caller cannot do anything about it.
 */
const SPOKEN = /^(bad_request|busy|denied|handler_failed|rate_limited|too_large|unavailable)$/;
/** Failures of handlers that are logged in ten seconds. */
const MAX_LOGGED = 100;

/** Where the answer to one call goes, on the link that the call came over. */
export interface Answering {
  /** Whether the caller takes a stream for an answer. */
  readonly takesStream: boolean;
  /** What the caller sends after its request; null if it sends nothing. */
  readonly items: ReceivedItems | null;
  /** What to await before anything is made for a caller that does not read its answers. */
  blocked(): Promise<void> | null;
  /** The one response. */
  reply(body: Uint8Array, raw: boolean): void;
  /** The call ends with an error; without effect if it has ended. */
  fail(error: BVError): void;
  /** The answer is a stream; gives what takes an item, and gives what to await before the next one. */
  begin(): (item: Item) => Promise<void> | null;
  /** The stream is complete. */
  end(): void;
}

/** One module as a peer serves it. */
export interface Served {
  readonly name: string;
  readonly handler: Handler;
  readonly allow: ReadonlySet<string>;
  readonly doc: string;
  readonly stream: boolean;
  readonly request: Json;
  readonly response: Json;
  readonly slots: FairSlots<PromiseWithResolvers<void>>;
}

export const admits = ({ allow }: Served, { name }: { name: string }): boolean => allow.has('*') || allow.has(name);

/** What a peer has counted, by the names of docs/operations.md. */
export interface Counters {
  calls_made: number;
  calls_served: number;
  items_sent: number;
  items_received: number;
  /** How often each limit took effect, and calls of others that ended with an error, by its code. */
  limited: Record<string, number>;
  refused: Record<string, number>;
}

/** The modules that a peer serves, and what its links have in common. */
export class Host {
  readonly settings: LinkSettings;
  readonly memory = new MemoryBudget(MEMORY);
  readonly modules = new Map<string, Served>();
  readonly counters: Counters = {
    calls_made: 0, calls_served: 0, items_sent: 0, items_received: 0, limited: {}, refused: {},
  };
  #logged = 0;
  #loggedSince = 0;

  constructor(settings: Partial<LinkSettings> = {}) {
    this.settings = { ...DEFAULT_SETTINGS, ...settings };
  }

  readonly tally: Tally = (kind, reason) => {
    const counts = this.counters[kind];
    counts[reason] = (counts[reason] ?? 0) + 1;
  };

  /** Serve a module, in place of one that has its name; null ends that. */
  serve(name: string, handler: Handler | null, options: ModuleOptions = {}): void {
    const { allow = ['*'], concurrency = DEFAULT_CONCURRENCY, doc = '', stream = false } = options;
    const { request = null, response = null } = options;
    encodeName(name);
    if (!handler) this.modules.delete(name);
    else if (typeof handler !== 'function') throw new TypeError('a handler is a function');
    else if (!(concurrency >= 1)) throw new TypeError('concurrency is at least 1');
    else if (!Array.isArray(allow)) throw new TypeError('allow is a list of aliases');
    else {
      const slots = new FairSlots<PromiseWithResolvers<void>>(Math.min(Math.floor(concurrency), MAX_CONCURRENCY));
      this.modules.set(name, { name, handler, allow: new Set(allow), doc, stream, request, response, slots });
    }
  }

  /** Run the handler of a call and answer it, from the end of this turn on. */
  start(call: ReceivedCall, caller: Remote, answer: Answering): Job {
    const job = new Job(call, caller, answer);
    queueMicrotask(() => this.#serve(job));
    return job;
  }

  async #serve(job: Job): Promise<void> {
    const { answer, call, caller } = job;
    const module = this.modules.get(call.module);
    if (!module) {
      answer.fail(new BVError('no_module', `no module "${call.module}" here`));
      return;
    }
    try {
      const blocked = answer.blocked();
      if (blocked) await blocked;
      if (!admits(module, caller)) throw new BVError('denied', `${module.name} is not open to this account`);
      if (module.stream && !answer.takesStream) throw job.takesNoStream();
      if (!module.slots.take(caller.id)) await this.#turn(module, job);
      await job.run(module);
      this.counters.calls_served++;
    } catch (error) {
      if (!job.over) answer.fail(this.#spoken(job, error));
    }
  }

  /** Wait for a slot. */
  async #turn({ name, slots }: Served, { caller: { id }, signal }: Job): Promise<void> {
    const turn = later<void>();
    const evicted = slots.wait(id, turn);
    if (evicted !== turn) this.tally('limited', 'concurrency');
    if (evicted) {
      this.tally('limited', 'queue');
      evicted.reject(new BVError('busy', `too many calls wait for ${name} already`));
    }
    const leave = (): void => {
      slots.leave(id, turn);
      turn.reject(signal.reason);
    };
    signal.addEventListener('abort', leave);
    if (signal.aborted) leave();
    await turn.promise;
  }

  /** What the caller is told of an error; what it need not know is for the console. */
  #spoken({ call, caller, callId }: Job, error: any): BVError {
    try {
      const { code, peer, message, retryAfter } = Object(error);
      if (SPOKEN.test(code) && peer === undefined) return new BVError(code, String(message), { callId, retryAfter });
    } catch {
      // One that cannot even be looked at says nothing.
    }
    if (now() - this.#loggedSince > 10) {
      this.#loggedSince = now();
      this.#logged = 0;
    }
    if (this.#logged++ < MAX_LOGGED) {
      console.error(`BoneValue: ${call.module} failed, call ${callId} from ${caller.name}/${caller.id}`, error);
    }
    return new BVError('handler_failed', `${call.module} failed; its log has it under ${callId}`, { callId });
  }
}

/** One call that is being served. */
class Job {
  readonly call: ReceivedCall;
  readonly caller: Remote;
  readonly answer: Answering;
  /** Why nobody wants the answer any more. */
  over: BVError | null = null;
  /** Made when somebody asks for it: most handlers do not. */
  #ending: AbortController | null = null;
  /** What the handler gives to `callback` or `fail`, or why it is over. */
  readonly #answered = later<Sendable>();
  #callId = '';

  constructor(call: ReceivedCall, caller: Remote, answer: Answering) {
    this.call = call;
    this.caller = caller;
    this.answer = answer;
  }

  /** The name of the call in the log. */
  get callId(): string {
    return (this.#callId ||= hex(randomBytes(6)));
  }

  /** Aborted when nobody wants the answer any more. */
  get signal(): AbortSignal {
    if (!this.#ending) {
      this.#ending = new AbortController();
      if (this.over) this.#ending.abort(this.over);
    }
    return this.#ending.signal;
  }

  /** Nobody wants the answer any more. */
  cancel(error: BVError): void {
    this.over = error;
    this.#ending?.abort(error);
    this.#answered.reject(error);
  }

  /** Run the handler, and send what comes of it. */
  async run({ handler, slots }: Served): Promise<void> {
    const { call, caller, answer } = this;
    let result: unknown;
    try {
      if (this.over) throw this.over; // in the moment in which it got its slot
      // Decoded only now: what waits for a slot takes no more memory than its bytes.
      const given = this.#given(decode(call));
      result = handler(given);
      const answered = this.#answered.promise;
      const value = await (result === undefined ? answered : Promise.race([answered, result]));
      if (isStream(value)) {
        if (!answer.takesStream) {
          await (value as AsyncIterator<unknown>).return?.();
          throw this.takesNoStream();
        }
        await handOver(value as Items, answer.begin(), this.signal);
        answer.end();
      } else {
        const [body, raw] = await encodeValue(value);
        const blocked = answer.blocked();
        if (blocked) await blocked; // with its slot: a caller that does not read gets no further answers made
        answer.reply(body, raw);
      }
    } finally {
      // A handler cannot be ended from outside: it keeps its slot until it returns, whatever becomes of the call.
      void Promise.allSettled([result]).then(() => {
        for (const turn of slots.giveBack(caller.id)) turn.resolve();
      });
    }
  }

  takesNoStream(): BVError {
    return new BVError('bad_request', `${this.call.module} answers with a stream: use stream()`);
  }

  /** What the handler sees of the call. */
  #given(request: unknown): Call {
    const { call, caller, answer } = this;
    const { resolve, reject } = this.#answered;
    const job = this;
    return {
      request,
      caller,
      get callId() {
        return job.callId;
      },
      deadline: Math.round(Date.now() + (call.deadline - now()) * 1000),
      get signal() {
        return job.signal;
      },
      items: answer.items,
      callback: (response) => resolve(response),
      fail: (error) => reject(typeof error === 'string' ? new BVError('handler_failed', error) : error),
    };
  }
}

function decode({ body, raw }: ReceivedCall): unknown {
  try {
    return decodeBody(body, raw);
  } catch (error) {
    throw new BVError('bad_request', `the request is not JSON: ${(error as Error).message}`);
  }
}
