/**
 * One link's calls, both directions of them, without any I/O.
 *
 * A {@link CallTable} is fed with the messages of the link and with what this side wants, and gives back messages and
 * events. It knows no clock: `now` is an argument, in seconds of any monotonic clock.
 *
 *     proving --- other side's hello proved ---> open --- goaway sent or received ---> draining
 *        |                                        |                                       |
 *        +------------------ malformed, silent, closed: closed ---------------------------+
 *
 * In `proving` nothing but our own hello is sent, and nothing but the other's is looked at: its proof ties this very
 * channel to the offer and answer that both accounts signed. To verify it takes a moment (WebCrypto), during which what
 * else comes is kept. In `draining` no new calls are accepted; when the last one is finished a ping goes out whose pong
 * shows that everything sent has arrived (`drained`), because a WebRTC engine may lose what was sent right before it is
 * closed.
 *
 * Call ids count up on each side, odd ones for the offerer. Hence an id that is not in the table is either one that has
 * ended, whose late frames are dropped, or one that was never given, which is a protocol error.
 */

import { BVError } from '../errors.ts';
import type { Bytes } from './bytes.ts';
import { CallsMade } from './calls_made.ts';
import { CallsReceived } from './calls_received.ts';
import {
  BODY, CANCEL, CREDIT, END, ERROR, GOAWAY, HELLO, HOLD, ITEM, MAX_ITEM, PART, PING, PONG, RAW, REQUEST, RESPONSE,
} from './frame_types.ts';
import {
  broken, decodeCredit, decodeGoaway, decodeHello, decodeHelloBody, decodeHold, decodeSized, encode, encodeGoaway,
  encodeHello, encodeHold, FLAGS, split, type Frame,
} from './frames.ts';
import { Heartbeat } from './heartbeat.ts';
import {
  LinkCore, type Event, type LinkSettings, type OutgoingCall, type ReceivedCall, type Tally,
} from './link_core.ts';
import { MemoryBudget } from './memory.ts';
import { ITEM_COST, type IncomingItems, type Item, type OutgoingItems } from './streams.ts';

/** Seconds in which the other side's hello must have come, and its proof be found right. */
const PROOF_TIMEOUT = 10;
/** Seconds in which the last ping of a drained link must be answered. */
const DRAIN_TIMEOUT = 10;
/** Bytes that are kept while the other side's proof is looked at: more than a path brings in that time. */
const MAX_KEPT = 2 ** 22;

export type LinkState = 'proving' | 'open' | 'draining' | 'closed';

export class CallTable {
  state: LinkState = 'proving';
  /**
   * Whether the other side, and whether this side, wants the link kept while it is idle. Who dialled holds at first, so
   * that the link is there for the call that it was made for.
   */
  remoteHold: boolean;
  localHold: boolean;
  readonly #core: LinkCore;
  readonly #made: CallsMade;
  readonly #received: CallsReceived;
  readonly #heartbeat: Heartbeat;
  /** The JSON of the other side's hello, while its proof is looked at, and what has come after it. */
  #hello: Uint8Array | null = null;
  #kept: Uint8Array[] = [];
  #keptSize = 0;
  #goawayReceived = false;
  /** The ping after everything else, 0 if it was not sent yet, and when it must have been answered. */
  #fence = 0;
  #fenceDue = Infinity;
  readonly #proofDue: number;

  /** `signature`: our proof. */
  constructor(
    offerer: boolean,
    signature: Uint8Array,
    settings: LinkSettings,
    now: number,
    memory: MemoryBudget,
    tally: Tally,
  ) {
    const core = (this.#core = new LinkCore(offerer, settings, memory, tally));
    core.drained = (now) => this.#checkDrained(now);
    core.drain = (reason, now) => this.goaway(reason, now);
    this.remoteHold = !offerer;
    this.localHold = offerer;
    this.#made = new CallsMade(core);
    this.#received = new CallsReceived(core);
    this.#heartbeat = new Heartbeat(settings.heartbeat, now, !offerer);
    this.#proofDue = now + PROOF_TIMEOUT;
    core.outbox.push(encodeHello(signature, core.limits, settings.agent));
  }

  // -- what this side wants -------------------------------------------------------------------------------------------

  /** Whether a new call of ours may go over this link. */
  get accepting(): boolean {
    return this.state === 'open';
  }

  /** Round trip of the last ping, in seconds; null before the first. */
  get roundTrip(): number | null {
    return this.#heartbeat.roundTrip;
  }

  /** How many calls are under way, both directions together. */
  get active(): number {
    return this.#made.size + this.#received.size;
  }

  /** Whether the link is open, nothing uses it and neither side holds it. */
  get quiet(): boolean {
    return this.accepting && !(this.localHold || this.remoteHold || this.active);
  }

  /**
   * Call a module of the other side; `timeout` in seconds. With STREAM in `flags` items follow ({@link pushItem} with
   * the call's `items`, {@link endItems}); with TAKES_STREAM the answer may be a stream, too.
   */
  call(module: string, body: Uint8Array, flags: number, timeout: number, now: number, context?: unknown): OutgoingCall {
    if (!this.accepting) throw new TypeError(`a call on a link that is ${this.state}`);
    return this.#made.call(module, body, flags, timeout, now, context);
  }

  /** The answer is no longer wanted; without effect on a call that has ended. */
  cancel(call: OutgoingCall, now: number): void {
    this.#made.forget(call, now, true);
    call.received?.drop();
  }

  /** The stream after a request of ours is complete. */
  endItems(call: OutgoingCall): void {
    this.#made.endItems(call);
  }

  /** Send one more item of a stream; without effect if its call has ended. `stream.queued` tells what waits. */
  pushItem(stream: OutgoingItems, item: Item): void {
    const { length } = item[0];
    if (length > MAX_ITEM) throw new BVError('too_large', `an item of ${length} bytes; at most ${MAX_ITEM} may be`);
    this.#core.outbox.pushItem(stream, item);
  }

  /** Answer a received call; without effect if it was cancelled meanwhile. */
  reply(call: ReceivedCall, body: Uint8Array, raw: boolean, now: number): void {
    this.#received.reply(call, body, raw, now);
  }

  /** End a received call with an error, after what items it has; without effect if it was cancelled meanwhile. */
  fail(call: ReceivedCall, error: BVError, now: number): void {
    this.#received.fail(call, error, now);
  }

  /** Answer a received call that takes one with a stream: {@link pushItem}, then {@link end} or {@link fail}. */
  begin(call: ReceivedCall, now: number): OutgoingItems {
    return this.#received.begin(call, now);
  }

  /** The stream that answers a received call is complete. */
  end(call: ReceivedCall): void {
    this.#received.end(call);
  }

  /** Tell the other side whether this one wants the link kept while it is idle. */
  hold(holding: boolean): void {
    if (holding !== this.localHold && this.accepting) {
      this.localHold = holding;
      this.#core.outbox.push(encodeHold(holding));
    }
  }

  /** Measure the round trip: gives the number that the `pong` will have. */
  ping(now: number): number {
    const number = this.#heartbeat.ping(now);
    this.#core.outbox.push(encode(PING, 0, 0, [0, number]));
    return number;
  }

  /** The other side's engine has taken something: a sign of life, and time for what is still to arrive. */
  acknowledged(now: number): void {
    this.#heartbeat.heardAt = now;
    if (this.#fence) this.#fenceDue = now + DRAIN_TIMEOUT;
  }

  /** Accept no further calls and send none; those under way are finished. */
  goaway(reason: string, now: number): void {
    if (!this.accepting) return;
    this.state = 'draining';
    this.#core.outbox.push(encodeGoaway(this.#received.last, reason));
    this.#received.stop();
    this.#made.stop();
    this.#checkDrained(now);
  }

  /** The link is gone: our calls fail, or are given back if they were not sent; received ones are cancelled. */
  close(error: BVError): void {
    if (this.state === 'closed') return;
    this.state = 'closed';
    this.#made.close(error);
    this.#received.close(error);
    this.#core.outbox.close();
    this.#core.memory.close();
    this.#kept = [];
  }

  // -- what comes in and goes out -------------------------------------------------------------------------------------

  /** Take in one message of the other side. What is thrown is why the link must be closed. */
  receive(message: Uint8Array, now: number): void {
    if (this.state === 'closed') return;
    this.#heartbeat.heardAt = now;
    if (this.#hello) return this.#keep(message);
    for (const frame of split(message)) {
      if (this.state !== 'proving') this.#take(frame, now);
      else {
        this.#receiveHello(frame);
        const { payload } = frame;
        return this.#keep(message.subarray(payload.byteOffset - message.byteOffset + payload.length));
      }
    }
  }

  /** Bytes, not frames: many small ones would take many times as much. */
  #keep(message: Uint8Array): void {
    if ((this.#keptSize += message.length) > MAX_KEPT) throw broken('too much before the proof');
    if (message.length) this.#kept.push(message);
  }

  /** The other side's proof was verified. */
  proved(right: boolean, now: number): void {
    if (this.state !== 'proving' || !this.#hello) return;
    if (!right) {
      throw new BVError('identity_mismatch', 'the other end is not the peer that signed the offer or answer');
    }
    const { limits, agent } = decodeHelloBody(this.#hello);
    this.#core.setRemote(limits);
    this.state = 'open';
    this.#hello = null;
    this.#core.events.push({ type: 'opened', agent });
    const kept = this.#kept;
    this.#kept = [];
    for (const message of kept) this.receive(message, now);
  }

  /** Take out the messages to send now; `room`: bytes of bodies and streams that may join what is in flight. */
  dataToSend(room: number, now: number): Bytes[] {
    if (this.state === 'closed') return [];
    const { outbox } = this.#core;
    const messages = outbox.messages(room);
    for (const id of outbox.finished()) if (!this.#made.owns(id)) this.#received.sent(id, now);
    this.#checkDrained(now);
    return this.#fence ? [...messages, ...outbox.messages(0)] : messages;
  }

  /** Take out our streams of which something has left: their producers may go on. */
  moved(): OutgoingItems[] {
    return this.#core.outbox.moved();
  }

  /** Bytes of frames that wait to be sent, long bodies and streams not counted. */
  get waiting(): number {
    return this.#core.outbox.waiting;
  }

  /**
   * Bytes that wait to be sent, long responses too.
   *
   * Our requests do not count: if they kept us from answering the other side's, and its requests kept it from answering
   * ours, both would wait for ever. Nor do items: their producers wait, each for itself.
   */
  get backlog(): number {
    return this.waiting + this.#core.outbox.heldAnswers;
  }

  /** Bytes of items that wait to be sent. */
  get queuedItems(): number {
    return this.#core.outbox.queued;
  }

  get hasOutput(): boolean {
    return this.#core.outbox.hasOutput;
  }

  /** Whether a long body or a stream waits for nothing but room in flight, as of the last {@link dataToSend}. */
  get canMove(): boolean {
    return this.#core.outbox.canMove;
  }

  /** Whether long bodies or streams wait for room in flight. */
  get hasBulk(): boolean {
    return this.#core.outbox.hasBulk;
  }

  /** Take out what has happened. */
  events(): Event[] {
    const { events } = this.#core;
    if (events.length) this.#core.events = [];
    return events;
  }

  /** When {@link handleTimer} is next due; Infinity if never. */
  timer(): number {
    if (this.state === 'closed') return Infinity;
    if (this.state === 'proving') return this.#proofDue;
    return Math.min(this.#heartbeat.due(), this.#fenceDue, this.#core.deadlines.next());
  }

  /** Do what is due: end calls whose time is over, ping. What is thrown is why the link must be closed. */
  handleTimer(now: number): void {
    if (this.state === 'closed') return;
    if (this.state === 'proving') {
      if (now >= this.#proofDue) throw lost(`the other side did not prove itself within ${PROOF_TIMEOUT} s`);
      return;
    }
    for (const call of this.#core.deadlines.pop(now)) {
      if ('delivered' in call) this.#received.expire(call, now);
      else this.#made.expire(call, now);
    }
    if (now >= this.#fenceDue) throw lost(`no answer within ${DRAIN_TIMEOUT} s, so that the link could end`);
    if (this.#heartbeat.beat(now)) this.ping(now);
  }

  // -- frames ---------------------------------------------------------------------------------------------------------

  #receiveHello({ type, flags, call, payload }: Frame): void {
    if (type !== HELLO || flags || call) throw broken('the first frame must be hello');
    const [signature, body] = decodeHello(payload);
    this.#hello = body;
    this.#core.events.push({ type: 'proof', signature });
  }

  #take(frame: Frame, now: number): void {
    const { type, flags, call, payload } = frame;
    if (flags & ~FLAGS.get(type)!) throw broken(`frame ${type}: flags ${flags}`);
    if (type !== CREDIT && type >= REQUEST !== call > 0) throw broken(`frame ${type}: call ${call}`);
    const { outbox, events } = this.#core;
    const made = this.#made;
    const received = this.#received;
    const calls = made.owns(call) ? made : received;
    switch (type) {
      case REQUEST:
        return received.request(frame, now);
      case RESPONSE:
        return made.response(frame, now);
      case ERROR:
        return made.error(frame, now);
      case BODY:
        if (!payload.length) throw broken('empty body');
        return calls.body(frame, now);
      case CANCEL:
        if (payload.length || calls === made) throw broken('malformed cancel');
        return received.cancel(call, now);
      case ITEM:
      case PART:
      case END:
        return this.#receiveItems(frame, calls.items(call), now);
      case CREDIT:
        return this.#receiveCredit(call, decodeCredit(payload));
      case PING:
        checkPing(payload);
        return outbox.push(encode(PONG, 0, 0, [], payload));
      case PONG: {
        const view = checkPing(payload);
        const number = view.getUint32(0) * 2 ** 32 + view.getUint32(4);
        const roundTrip = this.#heartbeat.pong(number, now);
        if (roundTrip !== null) events.push({ type: 'pong', number, roundTrip });
        if (number === this.#fence) events.push({ type: 'drained' });
        return;
      }
      case HOLD: {
        const holding = decodeHold(payload);
        if (holding !== this.remoteHold) events.push({ type: 'hold', holding });
        this.remoteHold = holding;
        return;
      }
      case GOAWAY: {
        const [last, reason] = decodeGoaway(payload);
        if (this.#goawayReceived) throw broken('a second goaway');
        this.#goawayReceived = true;
        made.giveBack(last);
        this.goaway(reason, now);
        return this.#checkDrained(now);
      }
      default:
        throw broken('a second hello');
    }
  }

  #receiveItems({ type, flags, call, payload }: Frame, stream: IncomingItems | undefined, now: number): void {
    const before = stream?.length;
    if (type === ITEM) {
      const [length, first] = decodeSized(payload, MAX_ITEM);
      if (stream) stream.begin(length, first, (flags & RAW) > 0);
      else {
        // Nobody will take it.
        this.#core.credit.charge(length + ITEM_COST);
        this.#core.credit.giveBack(length + ITEM_COST);
      }
    } else if (type === PART) {
      if (!payload.length) throw broken('empty part');
      stream?.add(payload);
    } else {
      if (payload.length) throw broken('malformed end');
      stream?.end();
    }
    if (!stream) return;
    if (type === END || (!before && stream.length)) this.#core.events.push({ type: 'items', items: stream });
    if (type === END && this.#made.owns(call)) this.#made.ended(call, now);
  }

  #receiveCredit(call: number, credit: number): void {
    const { outbox } = this.#core;
    if (!call) {
      outbox.grant(credit);
      return;
    }
    const made = this.#made.owns(call);
    const found = made ? this.#made.find(call) : this.#received.find(call);
    if (!found) return;
    const stream = made ? (found as OutgoingCall).items : (found as ReceivedCall).answer;
    if (!stream) throw broken(`credit for call ${call}`);
    stream.grant(credit);
    outbox.stir(stream);
  }

  #checkDrained(now: number): void {
    if (this.state === 'draining' && !this.#fence && !this.active && !this.hasBulk) {
      this.#fence = this.ping(now);
      this.#fenceDue = now + DRAIN_TIMEOUT;
    }
  }
}

function checkPing(payload: Uint8Array): DataView {
  if (payload.length !== 8) throw broken('malformed ping');
  return new DataView(payload.buffer, payload.byteOffset, 8);
}

const lost = (why: string): BVError => new BVError('link_lost', why);
