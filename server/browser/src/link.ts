/**
 * A link: a message pipe to one remote peer, and what makes one.
 *
 * - an {@link Engine} makes connections;
 * - a {@link Connection} is one attempt to reach a peer: offer and answer, candidates, then a link;
 * - a {@link Link} carries messages, reliably and in order, until it closes.
 *
 * rtc.ts is the engine for real; tests have one in memory. {@link LinkBase} has what both owe their user.
 */

import { BVError } from './errors.ts';
import type { PathInfo } from './types.ts';
import type { Bytes } from './wire/bytes.ts';

/** Longest message in bytes that may be sent: every engine and browser takes it in one piece. */
export const MAX_SENT = 16_384;
/** Longest message in bytes that is taken from the remote peer; a longer one closes the link. */
export const MAX_RECEIVED = 65_536;
/** Bytes received and not yet given to `onMessage` at which a link is closed: the credits of a link, and slack. */
export const MAX_UNDELIVERED = 5 * 1_048_576;
/** Default of {@link Link.lowWater} in bytes. */
export const LOW_WATER = 65_536;

/**
 * Why a link ended, as `onClosed` is told: this side closed it; the remote peer closed it in good order; the path broke
 * or the remote peer vanished; it broke the rules of the channel; it made this side hold more than it may.
 */
export type CloseReason = 'closed' | 'closed_by_peer' | 'lost' | 'protocol_error' | 'abuse';

/** How far a connection has come. */
export type Stage =
  | 'idle'
  /** Finding out our candidates. */
  | 'gathering'
  /** The offer is made; its answer has not come. */
  | 'waiting'
  /** Looking for a path between the candidates of both sides. */
  | 'checking'
  /** There is a path; shaking hands on it, and opening the channel. */
  | 'dtls'
  | 'open'
  | 'ended';

/** How to find a path. */
export interface IceConfig {
  /** The STUN and TURN servers to use, in order. */
  readonly servers: readonly RTCIceServer[];
  /** Whether only a relay may be used. */
  readonly relayOnly: boolean;
}

/** What an attempt has tried so far. */
export interface Tried {
  /** The kinds of our candidates, each once: host, srflx, relay. */
  readonly ours: string[];
  /** Those of the remote peer; empty as long as its description has not come. */
  readonly theirs: string[];
  /** The STUN and TURN servers that were of no use, each `url: why`. */
  readonly servers: string[];
  readonly relayOnly: boolean;
  /** Whether any candidate of ours is of the same family, IPv4 or IPv6, as one of theirs. */
  readonly familiesMeet: boolean;
}

/** A reliable, ordered message pipe to one remote peer. The handlers may be set at any time. */
export interface Link {
  /** Called with each message of the remote peer, in order; those that come before it is set are kept. */
  onMessage: ((message: Bytes) => void) | null;
  /** Called exactly once, never from inside a method of the link; nothing is called after it. */
  onClosed: ((reason: CloseReason) => void) | null;
  /** Called each time `buffered` falls to `lowWater` or under it. */
  onDrained: () => void;
  /** Bytes; see `onDrained`. */
  lowWater: number;
  /** Bytes handed over that the engine still holds. */
  readonly buffered: number;
  /** Why the link ended, null while it is open. */
  readonly closed: CloseReason | null;
  /** Hand over a message of 1 to `MAX_SENT` bytes; throws `link_lost` if the link is closed. */
  send(message: Bytes): void;
  /** End the link at once; what is buffered may be lost. Any number of times. */
  close(): void;
}

/**
 * One attempt to reach one peer, and what holds the link's resources afterwards.
 *
 * The caller makes an offer and accepts the answer; the callee accepts the offer, which gives the answer. Both then
 * wait for `opened`. Its owner must `close` it in the end, however it went: then all that waits for it fails.
 */
export interface Connection {
  readonly stage: Stage;
  /** Called with each new stage. */
  onStage: (stage: Stage) => void;
  /** Called with each candidate of ours that was found after our description was made, for the remote peer. */
  onCandidate: ((text: string) => void) | null;
  /** Called when nothing comes from the remote peer for a moment: the path may be broken, or not. */
  onTrouble: () => void;
  /** Our session description; `connect_failed` if there is no way to be reached. */
  createOffer(): Promise<string>;
  /** Take the caller's session description, gives ours; `protocol_error` if it makes no sense. */
  acceptOffer(sdp: string): Promise<string>;
  /** Take the callee's session description; `protocol_error` if it makes no sense. */
  acceptAnswer(sdp: string): Promise<void>;
  /** Wait for the link, without a bound; `connect_failed` if the attempt has failed, or was closed. */
  opened(): Promise<Link>;
  /** Take one more candidate of the remote peer, `candidate:...`; one that may not be used is passed over. */
  addCandidate(text: string): void;
  /** The path in use, null if there is none. */
  path(): Promise<PathInfo | null>;
  /** What has been tried; at any time, also after the end. */
  tried(): Tried;
  close(): void;
}

/** Makes connections, not yet started. */
export type Engine = (ice: IceConfig) => Connection;

/** The part of a link that is the same in every engine: handlers that are set late, limits, and one end. */
export abstract class LinkBase implements Link {
  onDrained: () => void = () => {};
  abstract lowWater: number;
  abstract readonly buffered: number;
  closed: CloseReason | null = null;
  #onMessage: ((message: Bytes) => void) | null = null;
  #onClosed: ((reason: CloseReason) => void) | null = null;
  #told = false;
  #early: Bytes[] = [];
  #earlyBytes = 0;

  /** Give a message to the engine. */
  protected abstract transmit(message: Bytes): void;
  /** Give up the engine's resources; called once, when the link ends. */
  protected abstract release(): void;

  set onMessage(handler: ((message: Bytes) => void) | null) {
    this.#onMessage = handler;
    if (this.#early.length) queueMicrotask(() => this.#deliver());
  }

  set onClosed(handler: ((reason: CloseReason) => void) | null) {
    this.#onClosed = handler;
    if (this.closed) queueMicrotask(() => this.#tell());
  }

  send(message: Bytes): void {
    if (this.closed) throw new BVError('link_lost', `the link is ${this.closed}`);
    if (!message.length || message.length > MAX_SENT) throw new TypeError(`a message of ${message.length} bytes`);
    this.transmit(message);
  }

  close(): void {
    this.#early = [];
    this.end('closed');
  }

  /** A message has come from the remote peer. */
  receive(message: unknown): void {
    if (this.closed) return;
    const size = message instanceof ArrayBuffer ? message.byteLength : 0;
    if (!size || size > MAX_RECEIVED) return this.end('protocol_error');
    this.#early.push(new Uint8Array(message as ArrayBuffer));
    this.#earlyBytes += size;
    this.#deliver();
    if (this.#earlyBytes > MAX_UNDELIVERED) this.end('abuse');
  }

  /** The link has ended; only the first reason counts. What came before the remote peer's end is delivered. */
  end(reason: CloseReason): void {
    if (this.closed) return;
    this.closed = reason;
    if (reason !== 'closed_by_peer' && reason !== 'lost') this.#early = [];
    this.release();
    queueMicrotask(() => this.#tell());
  }

  #deliver(): void {
    let message;
    while (this.#onMessage && (message = this.#early.shift())) {
      this.#earlyBytes -= message.length;
      this.#onMessage(message);
    }
  }

  #tell(): void {
    if (!this.closed || !this.#onClosed || this.#told) return;
    this.#told = true;
    this.#deliver();
    this.#onClosed(this.closed);
  }
}
