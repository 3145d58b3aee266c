/**
 * A link to one remote peer: pumps a {@link CallTable} and settles the calls on it.
 *
 * One pump, in one order: what came in is fed to the table, its events are carried out, and at the end of the turn of
 * the event loop everything that the table has to send goes out together, in as few messages as it fits.
 */

import { BVError } from './errors.ts';
import { Flow } from './flow.ts';
import { Holding } from './holding.ts';
import type { Host } from './host.ts';
import { handOver, ReceivedItems, singleItem, type Source } from './items.ts';
import type { LinkLife } from './life.ts';
import { answerTo, Asker, CallMoved, type How, type Outlet } from './link_calls.ts';
import type { Connection, Link } from './link.ts';
import { later, now, orGivenUp, settles } from './timing.ts';
import type { Value } from './types.ts';
import { CallTable } from './wire/calls.ts';
import { RAW, STREAM, TAKES_STREAM } from './wire/frame_types.ts';
import { decodeBody } from './wire/frames.ts';
import { INLINE_BODY, type Event, type OutgoingCall, type ReceivedCall } from './wire/link_core.ts';
import type { Item, OutgoingItems } from './wire/streams.ts';

export { CallMoved };

/** Who is at the other end, as verified by its key; nothing here comes from what was sent. */
export interface Remote {
  /** Our alias for the account, `Us` for our own. */
  readonly name: string;
  readonly id: string;
  /** The account's public key, in hex. */
  readonly key: string;
  readonly fingerprint: string;
}

/** The two `confirm` signatures of a connection. */
export interface Proof {
  readonly mine: Uint8Array;
  accepts(signature: Uint8Array<ArrayBuffer>): Promise<boolean>;
}

export interface PeerLinkOptions {
  /** This side dialled. */
  readonly offerer: boolean;
  /** Serves the calls of the remote peer. */
  readonly host: Host;
  /** Seconds for which a hold lasts after its last use. */
  readonly idleTimeout: number;
  /** Called once, when the link is gone. */
  readonly onClosed: (link: PeerLink) => void;
  /** Called when the last call under way has ended. */
  readonly onIdle: (link: PeerLink) => void;
}

export class PeerLink {
  readonly remote: Remote;
  readonly offerer: boolean;
  readonly connection: Connection;
  readonly life: LinkLife;
  readonly openedAt = now();
  /** Once it has ended: until when this side would have wanted it, see `wantedUntil`. */
  missedUntil = 0;
  /** What the remote peer says it is (its version). */
  agent = '';
  /** Whether the other side has proved who it is. */
  proved = false;
  /** Why the link has ended: how its channel closed, `drained`, or the code of an error; empty while it has not. */
  ended = '';
  readonly #link: Link;
  readonly #host: Host;
  readonly #options: PeerLinkOptions;
  readonly #proof: Proof;
  readonly #table: CallTable;
  readonly #flow: Flow;
  readonly #proving = later<void>();
  readonly #gone = later<BVError>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerDue = Infinity;
  readonly #outlet: Outlet;
  readonly #holding: Holding;
  readonly #pongs = new Map<number, PromiseWithResolvers<number>>();
  /** The ping that ends the doubt about the path, 0 if there is none. */
  #doubt = 0;

  constructor(
    link: Link,
    connection: Connection,
    remote: Remote,
    proof: Proof,
    life: LinkLife,
    options: PeerLinkOptions,
  ) {
    const { offerer, host, idleTimeout } = options;
    this.remote = remote;
    this.offerer = offerer;
    this.connection = connection;
    this.life = life;
    this.#link = link;
    this.#host = host;
    this.#options = options;
    this.#proof = proof;
    this.#table = new CallTable(offerer, proof.mine, host.settings, now(), host.memory, host.tally);
    this.#flow = new Flow(
      link,
      this.#table,
      () => host.tally('limited', 'send_buffer'),
      () => this.#nowIdle(),
      (error) => this.#violated(error),
    );
    this.#outlet = {
      table: this.#table,
      flow: this.#flow,
      put: this.#put,
      taken: this.#taken,
      carryOut: () => this.#carryOut(),
      nowIdle: () => this.#nowIdle(),
    };
    this.#holding = new Holding(this.#table, this.openedAt, idleTimeout, () => this.#carryOut());
    link.onMessage = (message) => this.#pump(() => this.#table.receive(message, now()));
    link.onClosed = (reason) => this.#lost(reason);
    this.#flow.wake();
    this.#arm();
  }

  // -- state ----------------------------------------------------------------------------------------------------------

  /** Resolved with the reason when the link has ended. */
  get gone(): Promise<BVError> {
    return this.#gone.promise;
  }

  /** Whether a new call may go over it. */
  get usable(): boolean {
    return this.#table.accepting;
  }

  /** Until when this side wants the link kept, in monotonic seconds; 0 if no call of ours asked for that. */
  get wantedUntil(): number {
    return this.#holding.until;
  }

  /** When a call ended on it last, in monotonic seconds. */
  get usedAt(): number {
    return this.#holding.usedAt;
  }

  /** Whether either side holds the link, or calls are under way. */
  get isWanted(): boolean {
    return this.#table.localHold || this.#table.remoteHold || this.active > 0;
  }

  /** How many calls are under way, both directions together. */
  get active(): number {
    return this.#table.active;
  }

  /** The path may be broken: until the other side has answered, new calls are better made over another link. */
  get doubted(): boolean {
    return this.#doubt > 0;
  }

  /** Round trip of the last ping, in seconds; null before the first. */
  get roundTrip(): number | null {
    return this.#table.roundTrip;
  }

  /** Bytes that wait to be sent. */
  get sendBuffer(): number {
    return this.#flow.buffered;
  }

  /** Whether what waits to be sent gets away, from now until it is asked. */
  watchLeaving(): () => boolean {
    return this.#flow.watchLeaving();
  }

  /** Wait until the other side has proved who it is; `identity_mismatch`, `link_lost`. */
  prove(): Promise<void> {
    return this.#proving.promise;
  }

  // -- calls of ours --------------------------------------------------------------------------------------------------

  /** Call a module of the remote peer; `body` and `raw` are the request as `encodeValue` gives it. */
  async call(module: string, body: Uint8Array, raw: boolean, how: How): Promise<Value> {
    const [answer, isRaw] = await this.#ask(module, body, raw, how, 0);
    try {
      return decodeBody(answer, isRaw);
    } catch (error) {
      throw this.#notJson(module, (error as Error).message);
    }
  }

  /** Call a module that answers with a stream, which must begin in time; a plain response is a stream of one item. */
  async openStream(module: string, body: Uint8Array, raw: boolean, how: How): Promise<ReceivedItems> {
    const answer = await this.#ask(module, body, raw, how, TAKES_STREAM);
    return answer instanceof ReceivedItems ? answer : this.#itemsOf(module, singleItem(answer), null);
  }

  async #ask(module: string, body: Uint8Array, raw: boolean, how: How, takesStream: number): Promise<any> {
    const { items, signal } = how;
    let { timeout } = how;
    if (!this.#flow.isClear) timeout = await this.#untilClear(timeout, signal);
    const cancelled = (): BVError => this.#about('cancelled', 'the call was cancelled');
    if (signal?.aborted) throw cancelled();

    const asker = new Asker(() => {
      signal?.removeEventListener('abort', abort);
      queueMicrotask(() => this.#used());
    });
    const flags = (raw ? RAW : 0) | (items ? STREAM : 0) | takesStream;
    const call = this.#begin(module, body, flags, timeout, how.keepAlive !== false, asker);
    const giveUp = (error: unknown): void => {
      this.#table.cancel(call, now());
      this.#flow.wake();
      asker.failed(error);
    };
    const abort = (): void => giveUp(cancelled());
    signal?.addEventListener('abort', abort);
    if (items) {
      // As fast as the remote peer takes them.
      handOver(items, (item) => this.#put(call.items!, item), asker.ending).then(
        () => {
          this.#table.endItems(call);
          this.#flow.wake();
        },
        (error) => {
          if (!asker.isOver) giveUp(error); // what the iterator throws is for whoever made the call
        },
      );
    }
    return asker.answer;
  }

  /** Wait while too much is to be sent; gives what is left of the time. */
  async #untilClear(timeout: number, signal = new AbortController().signal): Promise<number> {
    const deadline = now() + timeout;
    const clear = settles(this.#flow.untilClear(), timeout);
    if (await orGivenUp(clear, signal).catch(() => true)) return deadline - now();
    throw this.#about('deadline', "the peer did not read what it was sent within the call's time");
  }

  #begin(
    module: string,
    body: Uint8Array,
    flags: number,
    timeout: number,
    keepAlive: boolean,
    asker: Asker,
  ): OutgoingCall {
    const table = this.#table;
    const flow = this.#flow;
    if (!table.accepting) throw new CallMoved();
    let call;
    try {
      call = table.call(module, body, flags, timeout, now(), asker);
    } catch (error) {
      throw error instanceof BVError ? error.about(this.remote.id) : error;
    }
    this.#host.counters.calls_made++;
    if (keepAlive) this.#holding.want();
    // A lone call is sent at once: it does not wait for others of this turn.
    if (this.active === 1) flow.flush();
    else flow.wakeForPacket();
    if (call.deadline < this.#timerDue) this.#arm();
    if (body.length > INLINE_BODY) flow.gauge();
    return call;
  }

  #itemsOf(module: string, source: Source, closed: (() => void) | null): ReceivedItems {
    return new ReceivedItems(source, this.#taken, closed, (problem) => this.#notJson(module, problem));
  }

  #notJson(module: string, problem: string): BVError {
    return this.#about('protocol_error', `what ${module} answers is not JSON: ${problem}`);
  }

  #about(code: string, message: string): BVError {
    return new BVError(code, message, { peer: this.remote.id });
  }

  readonly #put = (stream: OutgoingItems, item: Item): Promise<void> | null => {
    this.#host.counters.items_sent++;
    return this.#flow.put(stream, item);
  };

  /** So many items were taken, or the rest is not wanted: there may be credit to send. */
  readonly #taken = (items: number): void => {
    this.#host.counters.items_received += items;
    if (this.#table.waiting) this.#flow.wake();
  };

  // -- calls of the remote peer ---------------------------------------------------------------------------------------

  #received(call: ReceivedCall): void {
    if (call.deadline < this.#timerDue) this.#arm();
    call.context = this.#host.start(call, this.remote, answerTo(call, this.#outlet));
  }

  // -- round trip -----------------------------------------------------------------------------------------------------

  /** Measure the round trip now; both in seconds. `deadline`: no answer came in time. */
  async ping(timeout: number): Promise<number> {
    if (this.ended) throw await this.gone;
    const pong = later<number>();
    const number = this.#table.ping(now());
    this.#pongs.set(number, pong);
    this.#flow.wake();
    const late = (): void => pong.reject(this.#about('deadline', `no answer to a ping within ${timeout} s`));
    const timer = setTimeout(late, timeout * 1000);
    try {
      return await pong.promise;
    } finally {
      clearTimeout(timer);
      this.#pongs.delete(number);
    }
  }

  /**
   * The path may be broken. What comes from the other side does not show the contrary: it may still reach us while
   * nothing that we send reaches it. The answer to a ping from now on does.
   */
  doubt(): void {
    if (this.ended) return;
    this.#doubt = this.#table.ping(now());
    this.#flow.wake();
  }

  // -- end ------------------------------------------------------------------------------------------------------------

  /** Accept and make no new calls, finish those under way, then close. */
  drain(reason: string): void {
    this.#table.goaway(reason, now());
    this.#carryOut();
  }

  /** Close at once; calls under way fail with `error`. */
  close(error: BVError = new BVError('link_lost', 'the link was closed')): void {
    this.#end(error, error.code === 'link_lost' ? 'closed' : error.code);
  }

  /** The remote peer is gone, or out of reach: end the link at once, as one that is lost. */
  lose(why: string): void {
    this.#violated(new BVError('link_lost', why));
  }

  // -- the pump -------------------------------------------------------------------------------------------------------

  #pump(step: () => void): void {
    try {
      step();
    } catch (error) {
      // Nothing that comes from outside may do more than end its link.
      this.#violated(error instanceof BVError ? error : new BVError('protocol_error', String(error)));
      return;
    }
    this.#carryOut();
  }

  #violated(error: BVError): void {
    const { code, message } = error;
    const lost = code === 'link_lost';
    if (!lost) console.warn(`BoneValue: link to ${this.remote.name}/${this.remote.id} closed: ${code}: ${message}`);
    const why = lost ? (this.#isDrained ? 'drained' : 'lost') : code;
    this.#end(code === 'slow' ? new BVError('link_lost', message) : error, why);
  }

  #lost(reason: string): void {
    const drained = this.#isDrained;
    const text = drained ? 'the link was drained' : `the link to the peer ended: ${reason}`;
    this.#end(new BVError('link_lost', text), drained ? 'drained' : reason);
  }

  /** Whether nothing is lost with it: it was to end anyway, and no calls are on it. */
  get #isDrained(): boolean {
    return this.#table.state === 'draining' && !this.active;
  }

  #end(error: BVError, why: string): void {
    if (this.ended) return;
    this.missedUntil = this.wantedUntil;
    this.ended = why;
    this.#table.close(error);
    this.#flow.close();
    clearTimeout(this.#timer);
    this.#holding.close();
    this.#gone.resolve(error);
    this.#proving.reject(error);
    for (const event of this.#table.events()) this.#on(event);
    for (const pong of this.#pongs.values()) pong.reject(error.about(this.remote.id));
    this.#link.close();
    this.life.end(why === 'lost' ? 'lost' : 'closed');
    this.#options.onClosed(this);
  }

  #carryOut(): void {
    const table = this.#table;
    for (const event of table.events()) this.#on(event);
    if (this.ended) return;
    if (table.quiet) table.goaway('idle', now());
    if (table.state === 'draining' && this.life.state === 'open') this.life.to('draining');
    if (table.hasOutput) this.#flow.wake();
    this.#arm();
  }

  #on(event: Event): void {
    switch (event.type) {
      case 'proof':
        this.#proof.accepts(event.signature).then(
          (right) => this.#pump(() => this.#table.proved(right, now())),
          (error) => this.#violated(new BVError('identity_mismatch', String(error))),
        );
        return;
      case 'opened':
        this.agent = event.agent;
        this.proved = true;
        this.life.to('open');
        this.#flow.measure();
        this.#proving.resolve();
        return;
      case 'received':
        return this.#received(event.call);
      case 'cancelled':
        return event.call.context?.cancel(event.error);
      case 'answered':
        return event.call.context.answered(event.body, event.raw);
      case 'begun':
        return this.#begun(event.call);
      case 'items':
        return (event.items.context as (() => void) | null)?.();
      case 'failed':
        return event.call.context.failed(event.error.about(this.remote.id)); // one that ended the link is for many
      case 'returned':
        return event.call.context.failed(new CallMoved());
      case 'pong': {
        const { number, roundTrip } = event;
        this.#flow.roundTrip(number, roundTrip);
        if (number >= this.#doubt) this.#doubt = 0;
        this.#pongs.get(number)?.resolve(roundTrip);
        return;
      }
      case 'drained':
        this.#end(new BVError('link_lost', 'the link was drained'), 'drained');
    }
  }

  /** The answer to a call of ours is a stream. */
  #begun(call: OutgoingCall): void {
    const asker: Asker = call.context;
    const source = call.received!;
    const received = this.#itemsOf(new TextDecoder().decode(call.module), source, () => {
      this.#table.cancel(call, now());
      this.#flow.wake();
      asker.over();
    });
    source.context = (): void => {
      received.arrived();
      if (source.ended) asker.over();
    };
    asker.begun(received);
  }

  // -- timers ---------------------------------------------------------------------------------------------------------

  #arm(): void {
    const due = this.#table.timer();
    // Only moved forward: a timer that comes too early finds nothing due, and is armed anew.
    if (due >= this.#timerDue || this.ended) return;
    clearTimeout(this.#timer);
    this.#timerDue = due;
    this.#timer = setTimeout(() => {
      this.#timerDue = Infinity;
      this.#pump(() => this.#table.handleTimer(now()));
    }, Math.max(0, due - now()) * 1000);
  }

  // -- holding --------------------------------------------------------------------------------------------------------

  /** The last call under way has ended. */
  #nowIdle(): void {
    this.#holding.idle();
    this.#carryOut();
    if (!this.ended) this.#options.onIdle(this);
  }

  /** A call of ours has ended: hold the link for some time, or let it go if no call wanted it kept. */
  #used(): void {
    if (this.ended) return;
    this.#holding.used();
    if (!this.active) this.#nowIdle();
  }

  /** Hold it as a call of ours would, until that moment (monotonic seconds) if it is not used. */
  keep(until: number): void {
    if (this.ended) return;
    this.#holding.keep(until);
    this.#flow.wake();
  }
}
