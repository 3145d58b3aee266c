/** Values and the items of streams: as pages give and take them, and as bytes on a link. */

import { BVError } from './errors.ts';
import type { Items, Sendable } from './types.ts';
import type { Bytes } from './wire/bytes.ts';
import { decodeBody, encodeBody } from './wire/frames.ts';
import type { Item } from './wire/streams.ts';

/** Bytes of the pieces into which files are cut: short enough to go even while others do not read their streams. */
const PIECE = 2 ** 17;

/** The body of a value: its bytes, and whether they are raw rather than JSON. A Blob is read. */
export async function encodeValue(value: Sendable): Promise<[body: Bytes, raw: boolean]> {
  return encodeBody(value instanceof Blob ? await value.arrayBuffer() : value);
}

/** Whether a value is an iterator, so that it stands for a stream. Lists are values, and so are texts. */
export const isStream = (value: any): boolean =>
  !!(value?.[Symbol.asyncIterator] || value?.getReader || typeof value?.next === 'function');

/** The same, if it can be sent item by item. Texts and bytes are one value, not their letters or numbers. */
export function checkItems(items: any): Items {
  const isIterable = items instanceof Blob || isStream(items) || (Object(items) === items && Symbol.iterator in items);
  if (!isIterable || ArrayBuffer.isView(items)) throw new TypeError('items are something that can be iterated over');
  return items;
}

/** An iterator over items of any kind. */
export function iteratorOf(items: Items): AsyncIterator<Sendable> {
  const source: any = checkItems(items);
  if (source instanceof Blob) return pieces(source);
  if (source.getReader) return read(source);
  if (source[Symbol.asyncIterator]) return source[Symbol.asyncIterator]();
  return source[Symbol.iterator] ? each(source) : source;
}

async function* each(items: Iterable<Sendable>): AsyncGenerator<Sendable> {
  yield* items;
}

async function* pieces(blob: Blob): AsyncGenerator<Blob> {
  for (let at = 0; at < blob.size; at += PIECE) yield blob.slice(at, at + PIECE);
}

/** Of bytes, the browser decides how many it gives at once; and not every one can iterate over a stream of its own. */
async function* read(stream: ReadableStream): AsyncGenerator<Sendable> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (value instanceof Uint8Array) yield* pieces(new Blob([value as BlobPart]));
      else yield value;
    }
  } finally {
    await reader.cancel();
  }
}

/**
 * Encode each item and hand it over. The iterator is closed, however it ends; at once when the signal says that nobody
 * wants the items any more.
 *
 * @param put what it gives, if anything, is awaited before the next item is asked for.
 */
export async function handOver(
  items: Items,
  put: (item: Item) => Promise<void> | null,
  over: AbortSignal,
): Promise<void> {
  const source = iteratorOf(items);
  let closing: Promise<unknown> | undefined;
  let goOn = (): void => {};
  const close = (): void => {
    closing ??= (async () => source.return?.())();
    closing.catch(() => {});
    goOn();
  };
  over.addEventListener('abort', close);
  try {
    while (!over.aborted) {
      const { done, value } = await source.next();
      if (done || over.aborted) break;
      const slow = put(await encodeValue(value));
      if (slow) {
        await new Promise<void>((done) => {
          goOn = done;
          slow.then(done);
        });
      }
    }
  } catch (error) {
    close();
    await closing?.catch(() => {}); // what went wrong first is what is told
    throw error;
  } finally {
    over.removeEventListener('abort', close);
  }
  close();
  await closing;
}

/** Where items arrive. */
export interface Source {
  readonly ended: boolean;
  readonly dropped: boolean;
  readonly length: number;
  take(): Item;
  drop(): void;
}

/** A stream of one item, which is there already: what a plain response is to who asked for a stream. */
export function singleItem(item: Item): Source {
  const items = [item];
  return {
    ended: true,
    dropped: false,
    get length() {
      return items.length;
    },
    take: () => items.pop()!,
    drop: () => void items.pop(),
  };
}

/**
 * What the other side sends, item by item: JSON values and bytes. To be iterated over once, by one consumer. Taking an
 * item lets the other side send more.
 */
export class ReceivedItems implements AsyncIterableIterator<any> {
  #source: Source | null;
  readonly #taken: (items: number) => void;
  #closed: (() => void) | null;
  readonly #malformed: (problem: string) => BVError;
  /** Why it breaks off: an array, because anything may be thrown. */
  #error: [unknown] | null = null;
  #wake: (() => void) | null = null;

  /**
   * @param taken called with the number of items that were taken or 0, when there may be credit to send.
   * @param closed called if the consumer gives up before the end.
   * @param malformed makes the error for an item that is no JSON, from what is wrong with it.
   */
  constructor(
    source: Source,
    taken: (items: number) => void,
    closed: (() => void) | null,
    malformed: (problem: string) => BVError,
  ) {
    this.#source = source;
    this.#taken = taken;
    this.#closed = closed;
    this.#malformed = malformed;
  }

  /** There are items, or the end. */
  arrived(): void {
    this.#wake?.();
  }

  /** The stream breaks off, after the items that have arrived. */
  fail(error: unknown): void {
    this.#error = [error];
    this.#closed = null;
    this.arrived();
  }

  /** No more items are wanted. Any number of times. */
  close(): void {
    const source = this.#source;
    const closed = this.#closed;
    this.#source = this.#closed = null;
    if (source) {
      const over = source.ended;
      source.drop();
      this.#taken(0);
      if (!over) closed?.();
    }
    this.arrived();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async return(): Promise<IteratorResult<any>> {
    this.close();
    return { done: true, value: undefined };
  }

  async next(): Promise<IteratorResult<any>> {
    for (let source; (source = this.#source); ) {
      if (source.length) {
        const [body, raw] = source.take();
        this.#taken(1);
        try {
          return { done: false, value: decodeBody(body, raw) };
        } catch (error) {
          this.close();
          throw this.#malformed((error as Error).message);
        }
      }
      if (this.#error) {
        this.close();
        throw this.#error[0];
      }
      if (source.ended) {
        const { dropped } = source;
        this.close();
        if (dropped) throw new BVError('cancelled', 'the call of these items has ended');
        break;
      }
      if (this.#wake) throw new TypeError('a stream has one consumer at a time');
      await new Promise<void>((wake) => (this.#wake = wake));
      this.#wake = null;
    }
    return { done: true, value: undefined };
  }
}
