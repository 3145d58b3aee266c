/** The calls of the other side on one link: received, answered, cancelled. */

import { BVError } from '../errors.ts';
import { IncomingBody } from './bodies.ts';
import { RAW, STREAM, TAKES_STREAM } from './frame_types.ts';
import { broken, decodeRequest, EMPTY, encodeError, encodeResponse, type Frame } from './frames.ts';
import { INLINE_BODY, type LinkCore, type ReceivedCall } from './link_core.ts';
import { IncomingItems, OutgoingItems } from './streams.ts';

/** Longest text of an error that is sent. */
const MAX_ERROR_TEXT = 1000;
/** Seconds for which the caller may take nothing of a stream that has something to send. */
const STREAM_PATIENCE = 600;

export class CallsReceived {
  readonly #core: LinkCore;
  /** Id of the last call that was accepted. */
  last = 0;
  readonly #calls = new Map<number, ReceivedCall>();
  /** New calls are accepted. */
  #open = true;

  constructor(core: LinkCore) {
    this.#core = core;
  }

  get size(): number {
    return this.#calls.size;
  }

  /** Accept no more calls. */
  stop(): void {
    this.#open = false;
  }

  /** The link is gone. */
  close(error: BVError): void {
    for (const call of this.#calls.values()) {
      this.#drop(call.items);
      this.#cancelled(call, error);
    }
    this.#calls.clear();
  }

  // -- what this side answers -----------------------------------------------------------------------------------------

  reply(call: ReceivedCall, body: Uint8Array, raw: boolean, now: number): void {
    const { remote, outbox } = this.#core;
    const { length } = body;
    if (length > remote.body) {
      const text = `the response has ${length} bytes; the caller takes ${remote.body}`;
      this.fail(call, new BVError('too_large', text), now);
      return;
    }
    if (call.replied || !this.#has(call)) return;
    const inline = length <= INLINE_BODY;
    outbox.push(encodeResponse(call.call, length, inline ? body : EMPTY, raw ? RAW : 0));
    if (inline) this.#finish(call, now);
    else {
      call.replied = true; // under way, with its deadline, until the whole answer has left
      outbox.pushBody(call.call, body, false);
    }
  }

  fail(call: ReceivedCall, error: BVError, now: number): void {
    if (call.answer) this.end(call, error);
    else if (this.#has(call)) {
      this.#core.outbox.push(this.#error(call.call, error)); // before the ping that may follow the last call
      this.#finish(call, now);
    }
  }

  begin(call: ReceivedCall, now: number): OutgoingItems {
    const { remote, outbox } = this.#core;
    const stream = (call.answer = new OutgoingItems(call.call, remote.stream));
    if (this.#has(call)) {
      outbox.push(encodeResponse(call.call, 0, EMPTY, STREAM));
      outbox.open(stream);
      this.#core.deadlines.withdraw(call.grain, call);
      this.#due(call, now + STREAM_PATIENCE);
    } else stream.clear();
    return stream;
  }

  end(call: ReceivedCall, error?: BVError): void {
    const stream = call.answer;
    if (stream && !stream.ended) {
      call.replied = true;
      stream.end(error && this.#error(call.call, error));
      this.#core.outbox.stir(stream);
    }
  }

  /** The whole answer of a call has left. */
  sent(id: number, now: number): void {
    const call = this.#calls.get(id);
    if (call) this.#finish(call, now);
  }

  /** The time of a call is over. */
  expire(call: ReceivedCall, now: number): void {
    const stream = call.answer;
    if (stream && (!stream.waits || stream.moved !== call.moved)) {
      call.moved = stream.moved;
      this.#due(call, now + STREAM_PATIENCE);
    } else if (this.#has(call)) {
      const error = stream
        ? new BVError('slow', `the caller has taken nothing for ${STREAM_PATIENCE} s`)
        : new BVError('deadline', "the call's time was over");
      this.#core.outbox.push(this.#error(call.call, error));
      this.#finish(call, now);
      this.#cancelled(call, error);
    }
  }

  // -- what the other side sends --------------------------------------------------------------------------------------

  request({ call: id, flags, payload }: Frame, now: number): void {
    const core = this.#core;
    const { maxBody, maxCalls, maxTimeout } = core.settings;
    const { module, ms, length, first } = decodeRequest(payload);
    if (id % 2 !== +!core.offerer || id <= this.last) throw broken(`call id ${id} out of order`);
    if (!this.#open) return; // the other side takes it back when it reads our goaway
    this.last = id;
    const refuse = (limit: string, code: string, text: string): void => {
      core.tally('limited', limit);
      core.outbox.push(this.#error(id, new BVError(code, text)));
    };
    if (length > maxBody) {
      refuse('max_body', 'too_large', `the request has ${length} bytes; this peer takes ${maxBody}`);
      return;
    }
    if (this.#calls.size >= maxCalls) {
      refuse('max_calls', 'busy', `${maxCalls} calls are under way already`);
      return;
    }
    if (ms > maxTimeout * 1000) core.tally('limited', 'max_timeout');
    const raw = (flags & RAW) > 0;
    const call: ReceivedCall = {
      call: id, module, body: EMPTY, raw, deadline: 0, grain: 0, takesStream: (flags & TAKES_STREAM) > 0, context: null,
      items: flags & STREAM ? new IncomingItems(id, core.limits.stream, core.credit) : null,
      incoming: new IncomingBody(length, raw), delivered: false, replied: false, answer: null, moved: 0,
    };
    this.#calls.set(id, call);
    this.#due(call, now + Math.min(ms / 1000, maxTimeout));
    this.#take(call, first, now);
  }

  /** A BODY frame of a request. */
  body({ call: id, payload }: Frame, now: number): void {
    const call = this.find(id);
    if (!call) return;
    if (call.delivered) throw broken('a body is longer than declared');
    this.#take(call, payload, now);
  }

  /** A CANCEL frame. */
  cancel(id: number, now: number): void {
    const call = this.find(id);
    if (call && this.#finish(call, now)) {
      this.#cancelled(call, new BVError('cancelled', 'the caller cancelled the call'));
    }
  }

  /** The call that a frame is about; undefined if it has ended, or was not begun. */
  find(id: number): ReceivedCall | undefined {
    const call = this.#calls.get(id);
    if (!call && id > this.last && this.#open) throw broken(`a frame for call ${id}, which was never made`);
    return call;
  }

  /** The stream that a frame is about; undefined if its call has ended, or was not begun. */
  items(id: number): IncomingItems | undefined {
    const call = this.find(id);
    if (call && !(call.items && call.delivered)) throw broken('items out of order');
    return call?.items ?? undefined;
  }

  #has(call: ReceivedCall): boolean {
    return this.#calls.get(call.call) === call;
  }

  #due(call: ReceivedCall, deadline: number): void {
    call.deadline = deadline;
    call.grain = this.#core.deadlines.add(deadline, call);
  }

  #take(call: ReceivedCall, data: Uint8Array, now: number): void {
    const body = call.incoming!;
    if (!this.#core.unfinishedRequests.add(body, data)) {
      this.fail(call, new BVError('busy', 'too many unfinished bodies on this link, or in this process'), now);
    } else if (body.received === body.length) {
      call.body = body.data;
      body.data = EMPTY;
      call.delivered = true;
      this.#core.events.push({ type: 'received', call });
    }
  }

  #cancelled(call: ReceivedCall, error: BVError): void {
    if (call.delivered && !call.replied) this.#core.events.push({ type: 'cancelled', call, error });
  }

  /** Take a call out of the table; false if it was not in it. */
  #finish(call: ReceivedCall, now: number): boolean {
    const { deadlines, outbox, unfinishedRequests, drained } = this.#core;
    if (!this.#has(call)) return false;
    this.#calls.delete(call.call);
    deadlines.withdraw(call.grain, call);
    outbox.discard(call.call);
    unfinishedRequests.release(call.incoming!);
    this.#drop(call.items);
    if (!this.#open) drained(now);
    return true;
  }

  #drop(items: IncomingItems | null): void {
    if (!items || items.dropped) return;
    items.drop();
    this.#core.events.push({ type: 'items', items }); // whoever waits for more does so in vain
  }

  /** The frame that ends a call with an error, counted. */
  #error(id: number, { code, message, callId, retryAfter }: BVError): Uint8Array {
    this.#core.tally('refused', code);
    return encodeError(id, {
      code,
      message: message.slice(0, MAX_ERROR_TEXT).toWellFormed(),
      ...(callId && { callId }),
      // A handler may have thrown anything, and what is malformed would cost the link.
      ...(Number.isFinite(retryAfter) && retryAfter! >= 0 && { retryAfter: retryAfter! }),
    });
  }
}
