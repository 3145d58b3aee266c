/** What both directions of calls on a link share: settings, events, and the parts that they use. */

import { BVError } from '../errors.ts';
import { BodyBudget, LONG } from './bodies.ts';
import { Deadlines } from './deadlines.ts';
import { MIN_CREDIT } from './frame_types.ts';
import type { HelloLimits } from './frames.ts';
import { MemoryBudget, MemoryShare } from './memory.ts';
import { Outbox } from './outbox.ts';
import { LinkCredit, type IncomingItems, type OutgoingItems } from './streams.ts';
import type { IncomingBody } from './bodies.ts';

/** Bodies up to this length travel inside the frame that announces them: none of them is long. */
export const INLINE_BODY = LONG;

/** What this side takes; sizes in bytes, times in seconds. */
export interface LinkSettings {
  maxBody: number;
  /** Calls of the other side at once. */
  maxCalls: number;
  /** Longest time that a call may be given; a longer one is cut to it. */
  maxTimeout: number;
  /** Bodies that are not complete yet, of all requests together, and of all responses. */
  maxIncomplete: number;
  /** Items that nobody has taken yet, of one stream and of all. */
  streamCredit: number;
  linkCredit: number;
  heartbeat: number;
  /** Program and version. */
  agent: string;
}

export const DEFAULT_SETTINGS: Readonly<LinkSettings> = {
  maxBody: 8 * 2 ** 20,
  maxCalls: 1024,
  maxTimeout: 600,
  maxIncomplete: 16 * 2 ** 20,
  streamCredit: 2 ** 20,
  linkCredit: 4 * 2 ** 20,
  heartbeat: 5,
  agent: '',
};

/** Counts what a link turns away: `limited` by the limit that took effect, `refused` by the code of the error. */
export type Tally = (kind: 'limited' | 'refused', reason: string) => void;

/** A call of ours. `context` is the caller's to use. */
export interface OutgoingCall {
  /** 0 until it has begun. */
  id: number;
  readonly module: Uint8Array;
  body: Uint8Array;
  readonly flags: number;
  readonly deadline: number;
  readonly grain: number;
  readonly context: any;
  /** The response, while it comes in. */
  answer: IncomingBody | null;
  /** Our items, if they follow the request. */
  items: OutgoingItems | null;
  /** The items of the answer, once it has begun, if it is a stream. */
  received: IncomingItems | null;
}

/** A call of the other side; reported once its whole body is there, to be ended by `reply`, `fail` or `end`. */
export interface ReceivedCall {
  /** Its id on this link. */
  readonly call: number;
  readonly module: string;
  body: Uint8Array;
  /** The body is bytes rather than JSON. */
  readonly raw: boolean;
  /** When it ends, in seconds of the clock that the table is given. */
  deadline: number;
  grain: number;
  /** The answer may be a stream. */
  readonly takesStream: boolean;
  /** What the caller sends after its request, null if it sends nothing. */
  items: IncomingItems | null;
  /** Whoever serves the call may use it. */
  context: any;
  /** The body, while it comes in over several frames. */
  incoming: IncomingBody | null;
  /** It was reported. */
  delivered: boolean;
  /** The answer is given, and on its way. */
  replied: boolean;
  /** Our items, if the answer is a stream, and how far they were when that was last looked at. */
  answer: OutgoingItems | null;
  moved: number;
}

/** What happens on a link. */
export type Event =
  /** The other side's signature, to be verified: then `proved`. */
  | { readonly type: 'proof'; readonly signature: Uint8Array<ArrayBuffer> }
  /** The other side is who it should be, and calls may go. */
  | { readonly type: 'opened'; readonly agent: string }
  | { readonly type: 'received'; readonly call: ReceivedCall }
  /** The other side, or its deadline, ended a received call; nothing can be replied any more. */
  | { readonly type: 'cancelled'; readonly call: ReceivedCall; readonly error: BVError }
  /** One of our calls has its answer. */
  | { readonly type: 'answered'; readonly call: OutgoingCall; readonly body: Uint8Array; readonly raw: boolean }
  /** The answer to one of our calls is a stream: `call.received`. */
  | { readonly type: 'begun'; readonly call: OutgoingCall }
  /** A stream of the other side that had no items has some, or has ended. */
  | { readonly type: 'items'; readonly items: IncomingItems }
  /** One of our calls failed; a stream of the answer breaks off after the items that have come. */
  | { readonly type: 'failed'; readonly call: OutgoingCall; readonly error: BVError }
  /** One of our calls came after the other side's last: it was not begun, and may safely go over a new link. */
  | { readonly type: 'returned'; readonly call: OutgoingCall }
  /** The other side holds the link, or lets it go. */
  | { readonly type: 'hold'; readonly holding: boolean }
  /** The ping of that number was answered; seconds. */
  | { readonly type: 'pong'; readonly number: number; readonly roundTrip: number }
  /** Nothing is under way any more and all that was sent has arrived: the link can be closed. */
  | { readonly type: 'drained' };

/** The parts of one link that its calls in both directions use. */
export class LinkCore {
  readonly offerer: boolean;
  readonly settings: LinkSettings;
  /** What this side takes, and what the other does: nothing before its hello. */
  readonly limits: HelloLimits;
  remote: HelloLimits = { body: 0, calls: 1, incomplete: 0, stream: MIN_CREDIT, link: MIN_CREDIT };
  readonly outbox = new Outbox();
  events: Event[] = [];
  readonly deadlines = new Deadlines<OutgoingCall | ReceivedCall>();
  readonly memory: MemoryShare;
  readonly unfinishedRequests: BodyBudget;
  readonly unfinishedResponses: BodyBudget;
  readonly credit: LinkCredit;
  readonly tally: Tally;
  /** To be called when a call has ended after the link began to drain, and when the link can take no more calls. */
  drained: (now: number) => void = () => {};
  drain: (reason: string, now: number) => void = () => {};

  constructor(offerer: boolean, settings: LinkSettings, memory: MemoryBudget, tally: Tally) {
    const { maxBody, maxCalls, maxIncomplete, streamCredit, linkCredit } = settings;
    const incomplete = Math.max(maxIncomplete, maxBody);
    this.offerer = offerer;
    this.settings = settings;
    this.limits = { body: maxBody, calls: maxCalls, incomplete, stream: streamCredit, link: MIN_CREDIT };
    this.memory = new MemoryShare(memory);
    this.tally = tally;
    const limited = (limit: string): void => tally('limited', limit);
    this.unfinishedRequests = new BodyBudget(incomplete, this.memory, limited);
    this.unfinishedResponses = new BodyBudget(incomplete, this.memory, limited);
    this.credit = new LinkCredit(MIN_CREDIT, linkCredit, this.memory, (frame) => this.outbox.push(frame));
  }

  /** The other side has said what it takes. */
  setRemote(limits: HelloLimits): void {
    this.remote = limits;
    this.outbox.setBudget(limits.incomplete);
    this.outbox.linkCredit = limits.link;
  }
}
