/**
 * The items of streams, on their way out and in, and the credit that bounds them (docs/protocol.md, "Streams").
 *
 * An item costs its length and {@link ITEM_COST}, all of it when it begins: an item that was begun can always be
 * finished, so two streams never wait for each other's credit in the middle of an item.
 */

import type { Bytes } from './bytes.ts';
import { END, HEADER_SIZE, MAX_CREDIT, PART, RAW } from './frame_types.ts';
import { broken, encode, encodeCredit, header, itemHead } from './frames.ts';
import type { MemoryShare } from './memory.ts';

/** What an item costs besides its bytes: the memory for keeping track of it. */
export const ITEM_COST = 64;
/** Credit for what was taken is given back in pieces of this size, so that few frames do it; less is kept back. */
const CREDIT_PIECE = 2 ** 18;
/** The same for the link. Less, so that a first item of any length can go though the link's reserve is kept. */
const LINK_PIECE = 2 ** 17;
/**
 * What a stream of which nothing was read yet sends, if its first item is not longer, and the credit that it leaves the
 * link: an item of 256 KiB of a stream that is read can always go.
 */
const UNREAD = 65_536;
const RESERVE = 2 ** 18 + 2 ** 16;
/** By how much the credit of a link grows at a time. */
const GROWTH = 2 ** 20;

export type Item = readonly [body: Uint8Array, raw: boolean];

/** A stream of ours. */
export class OutgoingItems {
  /** Id of its call; 0 until it has begun. */
  call: number;
  /** What the other side still takes. */
  credit: number;
  /** Bytes of items that wait for credit or room. */
  queued = 0;
  /** There are no more items. */
  ended = false;
  /** The end has left. */
  finished = false;
  /** Grows with each frame that leaves. */
  moved = 0;
  /** The producer's to use. */
  context: unknown = null;
  readonly #firstCredit: number;
  /** Somebody takes the items: credit has come back. */
  #isRead = false;
  #items: Item[] = [];
  /** The rest of the item that has begun. */
  #part: Uint8Array | null = null;
  #last: Uint8Array | null = null;

  constructor(call: number, credit: number) {
    this.call = call;
    this.credit = this.#firstCredit = credit;
  }

  /** Whether there is something to send. */
  get waits(): boolean {
    return !!this.#part || this.#items.length > 0 || (this.ended && !this.finished);
  }

  /** Bytes that the frame at the end has. */
  get endSize(): number {
    return this.#last?.length ?? HEADER_SIZE;
  }

  push(item: Item): void {
    this.#items.push(item);
    this.queued += item[0].length;
  }

  /** There are no more items; `frame` takes the place of END after the last. */
  end(frame: Uint8Array | null = null): void {
    this.ended = true;
    this.#last = frame;
  }

  /** Send nothing more. */
  clear(): void {
    this.#items = [];
    this.#part = null;
    this.queued = 0;
    this.ended = this.finished = true;
  }

  /**
   * Whether a frame can go now.
   *
   * Credit is not the only thing that counts: streams that nobody reads must not use up the credit of the link for
   * those that are read. The consumer of one may wait for the end of another, as a handler waits for its slot.
   *
   * - A stream of which nothing was read yet sends its first items only, and leaves the link some credit.
   * - One that is read, and has taken more than the other side may keep back, leaves the link as much as it has taken.
   */
  mayMove(linkCredit: number): boolean {
    if (this.#part) return true;
    const next = this.#items[0];
    if (!next) return this.ended && !this.finished;
    const cost = next[0].length + ITEM_COST;
    if (cost > this.credit || cost > linkCredit) return false;
    const taken = this.#firstCredit - this.credit;
    if (this.#isRead) return taken <= CREDIT_PIECE || taken + cost <= linkCredit - cost;
    return !(taken && taken + cost > UNREAD) && linkCredit - cost >= RESERVE;
  }

  /**
   * Put the next frame, of at most `space` bytes, into a message; only after {@link mayMove}. Gives the length of the
   * frame, and what it takes of the link's credit.
   */
  move(space: number, message: Uint8Array[]): [size: number, cost: number] {
    this.moved++;
    if (this.#part) {
      const rest = this.#part;
      const size = Math.min(space - HEADER_SIZE, rest.length);
      message.push(header(PART, this.call, size), rest.subarray(0, size));
      this.#part = size < rest.length ? rest.subarray(size) : null;
      this.queued -= size;
      return [HEADER_SIZE + size, 0];
    }
    const item = this.#items.shift();
    if (!item) {
      this.finished = true;
      message.push(this.#last ?? encode(END, this.call)); // the id is known by now
      return [this.endSize, 0];
    }
    const [body, raw] = item;
    const { length } = body;
    const size = Math.min(space - HEADER_SIZE - 4, length);
    message.push(itemHead(this.call, length, size, raw ? RAW : 0), body.subarray(0, size));
    if (size < length) this.#part = body.subarray(size);
    this.queued -= size;
    const cost = length + ITEM_COST;
    this.credit -= cost;
    return [HEADER_SIZE + 4 + size, cost];
  }

  /** The other side takes so many bytes more. */
  grant(credit: number): void {
    this.credit = added(this.credit, credit);
    this.#isRead = true;
  }
}

/** The sum of two credits, which has a limit. */
export function added(credit: number, more: number): number {
  if (credit + more > MAX_CREDIT) throw broken('too much credit');
  return credit + more;
}

/** A stream of the other side: its items that nobody has taken yet. */
export class IncomingItems {
  readonly call: number;
  /** What the other side may still send. */
  credit: number;
  /** No more items come. */
  ended = false;
  /** Its items are wanted, and its sender still goes by its credit. */
  open = true;
  /** The rest of it was dropped. */
  dropped = false;
  /** The consumer's to use. */
  context: unknown = null;
  readonly #link: LinkCredit;
  #items: Item[] = [];
  /** The item that has begun, what of it has come, and whether it is raw. */
  #part: Bytes | null = null;
  #received = 0;
  #raw = false;
  /** Cost of items that were taken and for which no credit was given back yet, and of those not taken. */
  #taken = 0;
  #unread = 0;
  /** Credit was given back, which tells the other side that somebody takes the items: the first time at once. */
  #isTaken = false;

  constructor(call: number, credit: number, link: LinkCredit) {
    this.call = call;
    this.credit = credit;
    this.#link = link;
  }

  /** How many items are there. */
  get length(): number {
    return this.#items.length;
  }

  /** An ITEM frame. */
  begin(length: number, first: Uint8Array, raw: boolean): void {
    this.#checkBetween();
    const cost = length + ITEM_COST;
    if (cost > this.credit) throw broken('an item beyond the credit of its stream');
    this.#link.charge(cost);
    this.credit -= cost;
    if (!this.open) {
      this.#link.giveBack(cost); // dropped, while its call goes on
      return;
    }
    this.#unread += cost;
    this.#part = new Uint8Array(length);
    this.#received = 0;
    this.#raw = raw;
    this.#fill(first);
  }

  /** A PART frame. */
  add(data: Uint8Array): void {
    if (!this.open) return;
    if (!this.#part || this.#received + data.length > this.#part.length) {
      throw broken('part out of order');
    }
    this.#fill(data);
  }

  /** An END frame. */
  end(): void {
    this.#checkBetween();
    this.ended = true;
  }

  /** No more comes, not even the rest of an item that has begun; the items that are there stay. */
  breakOff(): void {
    this.open = false;
    if (this.#part) {
      const cost = this.#part.length + ITEM_COST;
      this.#part = null;
      this.#unread -= cost;
      this.#link.giveBack(cost);
    }
  }

  /** The next item; only if there is one. Credit for it is given back. */
  take(): Item {
    const item = this.#items.shift()!;
    const cost = item[0].length + ITEM_COST;
    this.#unread -= cost;
    this.#link.giveBack(cost);
    this.#taken += cost;
    if (this.open && !this.ended && (this.#taken >= CREDIT_PIECE || !this.#isTaken)) {
      this.#isTaken = true;
      this.#link.send(encodeCredit(this.call, this.#taken));
      this.credit += this.#taken;
      this.#taken = 0;
    }
    return item;
  }

  /** Nobody wants the rest. */
  drop(): void {
    this.ended = this.dropped = true;
    this.open = false;
    this.#items = [];
    this.#part = null;
    if (this.#unread) this.#link.giveBack(this.#unread);
    this.#unread = 0;
  }

  #checkBetween(): void {
    if (this.open && (this.#part || this.ended)) throw broken('item or end out of order');
  }

  #fill(data: Uint8Array): void {
    const part = this.#part!;
    part.set(data, this.#received);
    this.#received += data.length;
    if (this.#received === part.length) {
      this.#items.push([part, this.#raw]);
      this.#part = null;
    }
  }
}

/** What all streams of the other side together may send, on one link. */
export class LinkCredit {
  readonly send: (frame: Bytes) => void;
  readonly #first: number;
  readonly #most: number;
  readonly #share: MemoryShare;
  #credit: number;
  #size: number;
  #taken = 0;

  /** `first`: the credit to begin with; `most`: what it may grow to, from `share`. */
  constructor(first: number, most: number, share: MemoryShare, send: (frame: Bytes) => void) {
    this.#first = this.#credit = this.#size = first;
    this.#most = most;
    this.#share = share;
    this.send = send;
  }

  /** An item begins. */
  charge(cost: number): void {
    if (cost > this.#credit) throw broken('an item beyond the credit of the link');
    this.#credit -= cost;
    const mayGrow = this.#credit < Math.floor((this.#size * 3) / 4) && this.#size + GROWTH <= this.#most;
    if (mayGrow && this.#share.takeSpare(GROWTH)) {
      this.#size += GROWTH;
      this.#grant(GROWTH);
    }
  }

  /** An item was taken, or dropped. */
  giveBack(cost: number): void {
    this.#taken += cost;
    if (this.#size > this.#first && this.#credit + this.#taken === this.#size) {
      // Nothing is unread: what it has grown by is for other links.
      const surplus = Math.min(this.#taken, this.#size - this.#first);
      this.#taken -= surplus;
      this.#size -= surplus;
      this.#share.giveSpare(surplus);
    }
    if (this.#taken >= LINK_PIECE) {
      const taken = this.#taken;
      this.#taken = 0;
      this.#grant(taken);
    }
  }

  #grant(credit: number): void {
    this.#credit += credit;
    this.send(encodeCredit(0, credit));
  }
}
