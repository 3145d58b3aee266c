/**
 * What one side of a link has to send, in the order in which it goes out.
 *
 * Small frames go first, all of them. The bodies that are too long for one frame, and the streams, share what room is
 * left: each in its turn fills what is left of one message. So they never hold up a small call by more than what is
 * already in flight.
 */

import { concat, type Bytes } from './bytes.ts';
import { BODY, HEADER_SIZE, MAX_SENT_MESSAGE } from './frame_types.ts';
import { header } from './frames.ts';
import { added, OutgoingItems, type Item } from './streams.ts';

/** Bodies up to this length do not wait for longer ones, which may wait for handlers that call back with these. */
const SHORT_BODY = 65_536;
/** Room under which nothing is begun in a message: a fragment so short would be mostly header. */
const LEAST_SPACE = 256;

/** A body on its way out. */
interface Body {
  readonly call: number;
  readonly data: Uint8Array;
  readonly lane: Lane;
  position: number;
}

/**
 * The bodies of requests, or those of responses. Each kind counts for itself: what answers a call must never wait for
 * the memory that the requests take, which is free only once they are answered.
 */
class Lane {
  /** Bytes of bodies that the other side holds unfinished at most. */
  budget = 0;
  /** Bytes of those that it holds, or will when all that has begun is there. */
  committed = 0;
  /** Bytes of bodies that wait or are on their way, each whole until its last fragment has left. */
  held = 0;
  /** Bodies for which the other side has no memory yet, short ones apart: they go before the others. */
  readonly #short = new Map<number, Body>();
  readonly #long = new Map<number, Body>();

  /** Whether there are bodies for which the other side has no memory yet. */
  get waiting(): boolean {
    return this.#short.size + this.#long.size > 0;
  }

  has(call: number): boolean {
    return this.#short.has(call) || this.#long.has(call);
  }

  add(call: number, data: Uint8Array): void {
    const bodies = data.length <= SHORT_BODY ? this.#short : this.#long;
    bodies.set(call, { call, data, lane: this, position: 0 });
    this.held += data.length;
  }

  /** Its call has ended; without effect if it does not wait. */
  remove(call: number): void {
    for (const bodies of [this.#short, this.#long]) {
      this.held -= bodies.get(call)?.data.length ?? 0;
      bodies.delete(call);
    }
  }

  /** Start every body for which the other side has memory. An eighth of it is for short ones. */
  admit(moving: Map<number, Body | OutgoingItems>): void {
    for (const bodies of [this.#short, this.#long]) {
      const budget = bodies === this.#short ? this.budget : Math.floor((this.budget * 7) / 8);
      for (const [call, body] of bodies) {
        const { length } = body.data;
        if (this.committed && this.committed + length > budget) break;
        bodies.delete(call);
        moving.set(call, body);
        this.committed += length;
      }
    }
  }
}

/** Frames, bodies and streams to be sent; {@link messages} packs them. */
export class Outbox {
  /** What the other side takes of all streams together; set from its hello, and by its credits. */
  linkCredit = 0;
  /** Bytes of frames that wait, long bodies and streams not counted. */
  waiting = 0;
  /** Bytes of items that wait, all streams together. */
  queued = 0;
  /** Set once the link is gone: nothing is taken any more. */
  #closed = false;
  #urgent: Uint8Array[] = [];
  readonly #requests = new Lane();
  readonly #responses = new Lane();
  /** Whose turn it is, by call: bodies and streams that can move. */
  readonly #moving = new Map<number, Body | OutgoingItems>();
  readonly #streams = new Map<number, OutgoingItems>();
  /** Streams that wait for the credit of the link. */
  readonly #shortOfCredit = new Set<OutgoingItems>();
  #finished: number[] = [];
  #moved: OutgoingItems[] = [];
  /** Requests that have left whole: the other side holds them until their calls end. */
  readonly #there = new Map<number, number>();

  /** Whether there is anything to send. */
  get hasOutput(): boolean {
    return this.#urgent.length > 0 || this.hasBulk;
  }

  /** Whether a body or a stream has its turn as soon as there is room. */
  get canMove(): boolean {
    return this.#moving.size > 0;
  }

  /** Whether a body or a stream waits for room. */
  get hasBulk(): boolean {
    return this.canMove || this.#requests.waiting || this.#responses.waiting;
  }

  /** Bytes of long responses that wait or are on their way out. */
  get heldAnswers(): number {
    return this.#responses.held;
  }

  /** The other side holds so many bytes of unfinished bodies, of requests and of responses each. */
  setBudget(incomplete: number): void {
    this.#requests.budget = this.#responses.budget = incomplete;
  }

  /** Send a frame as soon as there is a turn. */
  push(frame: Uint8Array): void {
    if (this.#closed) return;
    this.waiting += frame.length;
    this.#urgent.push(frame);
  }

  /** Send a body in fragments, after the frame that announced it. */
  pushBody(call: number, data: Uint8Array, isRequest: boolean): void {
    (isRequest ? this.#requests : this.#responses).add(call, data);
  }

  /** Send a stream, after the frame that announced it and the body of its request. */
  open(stream: OutgoingItems): void {
    this.#streams.set(stream.call, stream);
    this.queued += stream.queued;
  }

  /** Send one more item of a stream; without effect on one that has been discarded. */
  pushItem(stream: OutgoingItems, item: Item): void {
    if (stream.ended) return;
    stream.push(item);
    if (this.#streams.get(stream.call) === stream) {
      // Else its call waits to begin, and it is counted then.
      this.queued += item[0].length;
      this.stir(stream);
    }
  }

  /** A stream has something to send, or has got credit. */
  stir(stream: OutgoingItems): void {
    const { call } = stream;
    if (this.#streams.get(call) === stream && !this.#moving.has(call) && !this.#requests.has(call)) {
      this.#moving.set(call, stream);
    }
  }

  /** The other side takes so many bytes more, all streams together. */
  grant(credit: number): void {
    this.linkCredit = added(this.linkCredit, credit);
    for (const stream of this.#shortOfCredit) this.stir(stream);
    this.#shortOfCredit.clear();
  }

  /** Take out the calls whose bodies or streams have left whole. */
  finished(): number[] {
    const finished = this.#finished;
    this.#finished = [];
    return finished;
  }

  /** Take out the streams of which something has left. */
  moved(): OutgoingItems[] {
    const moved = this.#moved;
    this.#moved = [];
    return moved;
  }

  /** The call has ended: send no more of its body and its stream. */
  discard(call: number): void {
    this.#requests.committed -= this.#there.get(call) ?? 0;
    this.#there.delete(call);
    const stream = this.#streams.get(call);
    if (stream) {
      this.#streams.delete(call);
      this.#shortOfCredit.delete(stream);
      this.queued -= stream.queued;
      stream.clear();
    }
    this.#requests.remove(call);
    this.#responses.remove(call);
    const moving = this.#moving.get(call);
    this.#moving.delete(call);
    if (moving && !(moving instanceof OutgoingItems)) {
      moving.lane.committed -= moving.data.length;
      moving.lane.held -= moving.data.length;
    }
  }

  /** Forget everything, for good. */
  close(): void {
    for (const call of [...this.#streams.keys(), ...this.#moving.keys()]) this.discard(call);
    this.#closed = true;
    this.#urgent = [];
    this.waiting = this.#responses.held = 0;
  }

  /**
   * Take out what may be sent now, packed into as few messages as it fits. `room`: bytes of bodies and streams that may
   * be added to what is in flight; small frames go whatever it is.
   */
  messages(room: number): Bytes[] {
    const packed: Bytes[] = [];
    let message: Uint8Array[] = [];
    let size = 0;
    const pack = (): void => {
      packed.push(concat(...message));
      message = [];
      size = 0;
    };
    for (const frame of this.#urgent) {
      if (size + frame.length > MAX_SENT_MESSAGE) pack();
      message.push(frame);
      size += frame.length;
    }
    this.#urgent = [];
    this.waiting = 0;
    while (room > 0 && this.hasBulk) {
      if (MAX_SENT_MESSAGE - size < LEAST_SPACE) pack();
      const used = this.#turn(MAX_SENT_MESSAGE - size, message);
      if (used === null) break;
      if (!used) pack(); // what comes next does not fit
      size += used;
      room -= used;
    }
    if (message.length) pack();
    return packed;
  }

  /** Let the next one fill the space; gives the bytes used, 0 if it needs more space, null if nothing can move. */
  #turn(space: number, message: Uint8Array[]): number | null {
    this.#responses.admit(this.#moving);
    this.#requests.admit(this.#moving);
    for (const [call, source] of this.#moving) {
      this.#moving.delete(call);
      const used =
        source instanceof OutgoingItems
          ? this.#moveStream(source, space, message)
          : this.#moveBody(source, space, message);
      if (used || this.#moving.has(call)) return used;
    }
    return null;
  }

  #moveBody(body: Body, space: number, message: Uint8Array[]): number {
    const { call, data, lane, position } = body;
    const end = (body.position = Math.min(position + space - HEADER_SIZE, data.length));
    message.push(header(BODY, call, end - position), data.subarray(position, end));
    if (end < data.length) this.#moving.set(call, body);
    else {
      lane.held -= data.length;
      if (lane === this.#requests) this.#there.set(call, data.length);
      else {
        lane.committed -= data.length;
        this.#finished.push(call);
      }
      const stream = this.#streams.get(call);
      if (stream) this.stir(stream); // it had to wait for the body
    }
    return HEADER_SIZE + end - position;
  }

  #moveStream(stream: OutgoingItems, space: number, message: Uint8Array[]): number {
    const { call, queued } = stream;
    let used = 0;
    while (stream.mayMove(this.linkCredit)) {
      if (space - used < Math.max(LEAST_SPACE, stream.endSize)) {
        this.#moving.set(call, stream);
        break;
      }
      const [size, cost] = stream.move(space - used, message);
      this.linkCredit -= cost;
      used += size;
    }
    this.queued -= queued - stream.queued;
    if (used) this.#moved.push(stream);
    if (stream.finished) {
      this.#streams.delete(call);
      this.#finished.push(call);
    } else if (stream.waits && !this.#moving.has(call)) this.#shortOfCredit.add(stream);
    return used;
  }
}
