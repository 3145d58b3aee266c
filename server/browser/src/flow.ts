/**
 * What goes out on a link: handed to the engine in batches, as fast as the remote peer takes it.
 *
 * Whatever a turn of the event loop has made goes out together at its end, in as few messages as it fits. Long bodies
 * and streams are let out by a window that follows the path. When the remote peer takes less than it is sent, nothing
 * more is handed over, then nothing more is begun, and in the end the link is given up.
 */

import { BVError } from './errors.ts';
import type { Link } from './link.ts';
import { now } from './timing.ts';
import type { CallTable } from './wire/calls.ts';
import type { Item, OutgoingItems } from './wire/streams.ts';
import { BulkWindow } from './wire/window.ts';

/** Bytes on a link that wait to be sent, beyond which it waits. */
const LIMIT = 4 * 2 ** 20;
/** Seconds without any progress after which a link is given up, and between two looks at it. */
const STALL_TIMEOUT = 30;
const STALL_CHECK = 0.5;
/** Seconds between two looks after which it was this page that stood still: hidden ones are called once a second. */
const LATE = 3;
/** Bytes of a stream that wait to be sent, beyond which its producer waits. */
const STREAM_QUEUE = 65_536;
/** Bytes of small frames that are sent without waiting for the end of the turn: about what two packets carry. */
const PACKET = 2_400;
/** Seconds after which the round trip is measured again when something long begins to be sent. */
const MEASURE_AGAIN = 1;

export class Flow {
  readonly #link: Link;
  readonly #table: CallTable;
  readonly #limited: () => void;
  readonly #onIdle: () => void;
  readonly #onStalled: (error: BVError) => void;
  #closed = false;
  #flushScheduled = false;
  readonly #window = new BulkWindow();
  /** The ping that went over the empty path, and when. */
  #measuring = 0;
  #measuredAt = -Infinity;
  #sent = 0;
  /** Bytes that had left when that was last looked at, since when it has been so many, and that last look. */
  #left = 0;
  #leftAt = 0;
  #lookedAt = 0;
  #looking: ReturnType<typeof setTimeout> | undefined;
  /** Whether new work may be taken on, and who waits for that. */
  #isClear = true;
  #waiters: (() => void)[] = [];

  /**
   * @param limited called when too much waits to be sent.
   * @param onIdle called when the last answer has left and no call is under way any more.
   * @param onStalled called when the link is to be given up.
   */
  constructor(
    link: Link,
    table: CallTable,
    limited: () => void,
    onIdle: () => void,
    onStalled: (error: BVError) => void,
  ) {
    this.#link = link;
    this.#table = table;
    this.#limited = limited;
    this.#onIdle = onIdle;
    this.#onStalled = onStalled;
    this.#setLowWater();
    link.onDrained = () => this.wake();
  }

  /** Bytes that wait to be sent. */
  get buffered(): number {
    return this.#link.buffered + this.#table.backlog + this.#table.queuedItems;
  }

  /** The link is gone: nothing more goes out, and nobody need wait. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#looking);
    this.#setClear();
  }

  /** Ping over the empty path: what that takes is its round trip. */
  measure(): void {
    this.#measuredAt = now();
    this.#measuring = this.#table.ping(this.#measuredAt);
  }

  /** The ping of that number was answered. */
  roundTrip(number: number, seconds: number): void {
    if (number === this.#measuring) this.#window.measured(seconds);
  }

  // -- sending --------------------------------------------------------------------------------------------------------

  /** Send what there is at the end of this turn of the event loop. */
  wake(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(() => this.flush());
  }

  /** Something small is to be sent. A full packet goes at once: the remote peer works on it meanwhile. */
  wakeForPacket(): void {
    if (this.#table.waiting >= PACKET) this.flush();
    else this.wake();
  }

  /** Send one more item of a stream; gives what to await before the next one while the remote peer does not keep up. */
  put(stream: OutgoingItems, item: Item): Promise<void> | null {
    if (stream.ended) throw new BVError('link_lost', 'the call is over, nobody takes its items');
    this.#table.pushItem(stream, item);
    this.wake();
    if (stream.queued <= STREAM_QUEUE && this.#isClear) return null;
    return new Promise((goOn) => (stream.context = goOn));
  }

  /** Send what there is. */
  flush(): void {
    this.#flushScheduled = false;
    if (this.#closed) return;
    const link = this.#link;
    const table = this.#table;
    if (link.buffered > LIMIT) {
      if (table.waiting <= LIMIT) this.gauge();
      else this.#onStalled(new BVError('slow', 'the peer makes more calls than it reads answers'));
      return;
    }
    const { hasBulk } = table;
    if (hasBulk && !link.buffered && now() - this.#measuredAt > MEASURE_AGAIN) this.measure();
    try {
      for (const message of table.dataToSend(this.#window.size - link.buffered, now())) {
        link.send(message);
        this.#sent += message.length;
      }
    } catch {
      return; // it has closed, and whoever holds it will be told
    }
    this.gauge();
    if (!this.#looking && link.buffered) {
      this.#lookedAt = this.#leftAt = now();
      this.#left = this.#sent - link.buffered;
      this.#lookAgain();
    }
    if (hasBulk) this.#afterBulk();
  }

  /** Long bodies and streams have moved. */
  #afterBulk(): void {
    const link = this.#link;
    const table = this.#table;
    for (const stream of table.moved()) {
      if (stream.queued <= STREAM_QUEUE / 2) {
        (stream.context as (() => void) | null)?.();
        stream.context = null;
      }
    }
    this.#window.progress(this.#sent, this.#sent - link.buffered, now());
    this.#setLowWater();
    // A link whose buffer was empty, and stayed so, has no reason to say that it has drained.
    if (table.canMove && link.buffered <= link.lowWater) this.wake();
    else if (!table.hasBulk && !link.buffered) this.#window.idle();
    if (!table.active) this.#onIdle();
  }

  #setLowWater(): void {
    this.#link.lowWater = this.#window.refill;
  }

  /**
   * Whether what waits to be sent gets away, from now until it is asked. While something waits, what leaves shows that
   * the remote peer acknowledges: it is let out only as that comes.
   */
  watchLeaving(): () => boolean {
    const link = this.#link;
    const left = this.#sent - link.buffered;
    return link.buffered ? () => this.#sent - link.buffered > left : () => false;
  }

  // -- a remote peer that does not keep up ----------------------------------------------------------------------------

  /** Whether new work may be taken on. */
  get isClear(): boolean {
    return this.#isClear;
  }

  /** Wait until new work may be taken on. */
  async untilClear(): Promise<void> {
    while (!this.#isClear) await new Promise<void>((done) => this.#waiters.push(done));
  }

  /** Something long was added, or has left. */
  gauge(): void {
    if (this.#link.buffered + this.#table.backlog <= LIMIT || this.#closed) this.#setClear();
    else if (this.#isClear) {
      this.#isClear = false;
      this.#limited();
    }
  }

  #setClear(): void {
    this.#isClear = true;
    for (const done of this.#waiters.splice(0)) done();
  }

  /** Look whether what is to be sent gets away; over and over, as long as there is something. */
  #look(): void {
    this.#looking = undefined;
    const { buffered } = this.#link;
    if (!buffered) return;
    const left = this.#sent - buffered;
    const time = now();
    const late = time - this.#lookedAt > LATE;
    this.#lookedAt = time;
    if (left !== this.#left) this.#table.acknowledged(time);
    if (left !== this.#left || late) {
      this.#left = left;
      this.#leftAt = time;
    } else if (time - this.#leftAt > STALL_TIMEOUT) {
      this.#onStalled(new BVError('slow', `the peer has taken nothing for ${STALL_TIMEOUT} s`));
      return;
    }
    this.#lookAgain();
    this.wake();
  }

  #lookAgain(): void {
    this.#looking = setTimeout(() => this.#look(), STALL_CHECK * 1000);
  }
}
