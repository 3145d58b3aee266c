/** The calls of this side on one link: begun, answered, failed, given back. */

import { BVError } from '../errors.ts';
import { IncomingBody } from './bodies.ts';
import { CANCEL, RAW, STREAM, TAKES_STREAM } from './frame_types.ts';
import {
  broken, decodeError, decodeSized, EMPTY, encode, encodeName, encodeRequest, type ErrorBody, type Frame,
} from './frames.ts';
import { INLINE_BODY, type LinkCore, type OutgoingCall } from './link_core.ts';
import { plain } from './refusals.ts';
import { IncomingItems, OutgoingItems } from './streams.ts';

/** Ids are four bytes; a link that comes near the end of them is drained. */
const LAST_CALL_ID = 0xffff_ff00;
/** What a callee may say of a call; other codes are about something that only this side can find out. */
const SPOKEN = new Set(
  ('no_target no_module bad_request denied busy deadline cancelled too_large handler_failed peer_offline ' +
    'rate_limited unavailable').split(' '),
);

export class CallsMade {
  readonly #core: LinkCore;
  #nextId: number;
  readonly #begun = new Map<number, OutgoingCall>();
  readonly #queued = new Set<OutgoingCall>();
  /** The link takes new calls. */
  #open = true;

  constructor(core: LinkCore) {
    this.#core = core;
    this.#nextId = core.offerer ? 1 : 2;
  }

  get size(): number {
    return this.#begun.size + this.#queued.size;
  }

  call(module: string, body: Uint8Array, flags: number, timeout: number, now: number, context: unknown): OutgoingCall {
    const { remote, settings, deadlines } = this.#core;
    const name = encodeName(module);
    if (body.length > remote.body) {
      throw new BVError('too_large', `the request has ${body.length} bytes; this peer takes ${remote.body}`);
    }
    const deadline = now + Math.min(timeout, settings.maxTimeout);
    const items = flags & STREAM ? new OutgoingItems(0, remote.stream) : null;
    const call = {
      id: 0, module: name, body, flags, deadline, grain: 0, context, answer: null, items, received: null,
    };
    call.grain = deadlines.add(deadline, call);
    if (this.#begun.size < remote.calls) this.#begin(call, now);
    else this.#queued.add(call);
    return call;
  }

  #begin(call: OutgoingCall, now: number): void {
    const { outbox, drain } = this.#core;
    const { module, body, deadline, flags, items } = call;
    const id = (call.id = this.#nextId);
    this.#nextId += 2;
    this.#begun.set(id, call);
    call.body = EMPTY;
    const inline = body.length <= INLINE_BODY;
    outbox.push(encodeRequest(id, module, deadline - now, body.length, inline ? body : EMPTY, flags));
    if (!inline) outbox.pushBody(id, body, true);
    if (items) {
      items.call = id;
      outbox.open(items);
      if (items.waits) outbox.stir(items);
    }
    if (this.#nextId > LAST_CALL_ID) drain('out of call ids', now);
  }

  endItems({ items }: OutgoingCall): void {
    if (items && !items.ended) {
      items.end();
      this.#core.outbox.stir(items);
    }
  }

  /** The time of a call is over. */
  expire(call: OutgoingCall, now: number): void {
    this.#abandon(call, new BVError('deadline', "no answer within the call's time"), now);
  }

  /** The other side has begun none after `last`, and takes no new ones. */
  giveBack(last: number): void {
    const returned = [...this.#begun.values()].filter(({ id }) => id > last);
    if (returned.some(({ answer, received }) => answer || received)) {
      throw broken('goaway below a call whose answer has begun');
    }
    for (const call of returned) {
      this.#begun.delete(call.id);
      this.#core.outbox.discard(call.id);
      this.#returned(call);
    }
  }

  /** Begin no more calls: what waits is given back. */
  stop(): void {
    this.#open = false;
    for (const call of this.#queued) this.#returned(call);
    this.#queued.clear();
  }

  /** The link is gone. */
  close(error: BVError): void {
    this.stop();
    for (const call of this.#begun.values()) {
      call.received?.breakOff();
      this.#core.events.push({ type: 'failed', call, error });
    }
    this.#begun.clear();
  }

  /** Take a call out of the table; false if it was not in it. `cancel` tells the other side. */
  forget(call: OutgoingCall, now: number, cancel = false): boolean {
    const { outbox, deadlines, remote, drained } = this.#core;
    const { id } = call;
    if (id) {
      if (!this.#begun.delete(id)) return false;
      outbox.discard(id);
      // Before the next one begins: the other side counts them in this order.
      if (cancel) outbox.push(encode(CANCEL, id));
    } else {
      if (!this.#queued.delete(call)) return false;
      call.items?.clear();
    }
    deadlines.withdraw(call.grain, call);
    this.#dropAnswer(call);
    call.received?.breakOff();
    for (const next of this.#queued) {
      if (this.#begun.size >= remote.calls) break;
      this.#queued.delete(next);
      this.#begin(next, now);
    }
    if (!this.#open) drained(now);
    return true;
  }

  #returned(call: OutgoingCall): void {
    this.#core.deadlines.withdraw(call.grain, call);
    this.#dropAnswer(call);
    call.items?.clear();
    this.#core.events.push({ type: 'returned', call });
  }

  #dropAnswer(call: OutgoingCall): void {
    if (call.answer) this.#core.unfinishedResponses.release(call.answer);
    call.answer = null;
  }

  #abandon(call: OutgoingCall, error: BVError, now: number): void {
    if (this.forget(call, now, true)) this.#core.events.push({ type: 'failed', call, error });
  }

  // -- what the other side sends --------------------------------------------------------------------------------------

  /** Whether a call id is one of this side's. */
  owns(id: number): boolean {
    return id % 2 === this.#nextId % 2;
  }

  /** The call that a frame is about; undefined if it has ended. */
  find(id: number): OutgoingCall | undefined {
    const call = this.#begun.get(id);
    if (!call && (!this.owns(id) || id >= this.#nextId)) throw broken(`a frame for call ${id}, which was never made`);
    return call;
  }

  response({ call: id, flags, payload }: Frame, now: number): void {
    const [length, first] = decodeSized(payload);
    const call = this.find(id);
    if (!call) return;
    if (call.answer || call.received) throw broken('a second response to one call');
    const { deadlines, limits, credit, events } = this.#core;
    if (flags & STREAM) {
      if (length || flags & RAW || !(call.flags & TAKES_STREAM)) throw broken('malformed stream');
      deadlines.withdraw(call.grain, call);
      call.received = new IncomingItems(id, limits.stream, credit);
      events.push({ type: 'begun', call });
    } else {
      call.answer = new IncomingBody(length, (flags & RAW) > 0);
      this.#take(call, first, now);
    }
  }

  /** A BODY frame of a response. */
  body({ call: id, payload }: Frame, now: number): void {
    const call = this.find(id);
    if (!call) return;
    if (!call.answer) throw broken('a body before its response');
    this.#take(call, payload, now);
  }

  error({ call: id, payload }: Frame, now: number): void {
    const body = decodeError(payload);
    const call = this.find(id);
    if (!call) return;
    this.forget(call, now);
    this.#core.events.push({ type: 'failed', call, error: spoken(body) });
  }

  /** The stream of answers that a frame is about; undefined if its call has ended. */
  items(id: number): IncomingItems | undefined {
    const call = this.find(id);
    if (call && !call.received) throw broken('items before the response of their call');
    return call?.received ?? undefined;
  }

  /** The stream of answers has ended, and its call with it. */
  ended(id: number, now: number): void {
    this.forget(this.#begun.get(id)!, now);
  }

  #take(call: OutgoingCall, data: Uint8Array, now: number): void {
    const { settings, unfinishedResponses, events } = this.#core;
    const answer = call.answer!;
    const { length, raw } = answer;
    if (length > settings.maxBody) {
      const text = `the response has ${length} bytes; this side takes ${settings.maxBody}`;
      this.#abandon(call, new BVError('too_large', text), now);
    } else if (!unfinishedResponses.add(answer, data)) {
      this.#abandon(call, new BVError('busy', 'too many unfinished bodies on this link'), now);
    } else if (answer.received === length) {
      this.forget(call, now);
      events.push({ type: 'answered', call, body: answer.data, raw });
    }
  }
}

/** The error that the callee speaks of. */
function spoken({ code: said, message, ...extra }: ErrorBody): BVError {
  const code = plain(said);
  const text = plain(message);
  return new BVError(code, SPOKEN.has(code) ? text || code : `${code}${text && `: ${text}`}`, extra);
}
