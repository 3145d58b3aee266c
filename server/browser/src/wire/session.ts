/**
 * A peer's session with the discovery server: login, presence, relayed messages, and when to come back.
 *
 * Sans-I/O: a {@link Session} is told what happened and what time it is, and is asked what to send, what to report and
 * when it wants to be woken. `discovery.ts` pumps one over a WebSocket.
 *
 * The states are those of `session_states.ts`. In `greeting` the server speaks first; if its realm is not the one that
 * our password is bound to, this is the end, and nothing derived from the password has been sent. In `syncing` we have
 * a peer id, and the lists come in, in pages; what else the server sends meanwhile waits until they are complete. Being
 * away, `waiting`, is a state like the others, in which presence stays as it was.
 *
 * Whatever the server sends out of turn or malformed costs it the socket: the lists of the next connection put things
 * right. Signatures are checked asynchronously, so `receive` and `removed` give promises. While one is pending, nothing
 * but `request`, `send` and `forget` may be called: the pump sees to it.
 */

import { BVError } from '../errors.ts';
import { sign, type SignedBlob } from './blobs.ts';
import { hex, utf8 } from './bytes.ts';
import type { ContactBook } from './contacts.ts';
import type { AccountKeys } from './keys.ts';
import { Bucket, Retry } from './pacing.ts';
import { checkGreeting, failureError, partingOf, plain } from './refusals.ts';
import { Roster, Snapshot } from './roster.ts';
import type { Event } from './session_events.ts';
import { ACCEPTED, LIVE, REPLIES, TRANSITIONS, type Fact, type State } from './session_states.ts';
import {
  MAX_MESSAGE, decode, encode,
  type ClientMessages, type Failure, type Goodbye, type Hello, type IceServer, type Requests, type ServerMessages,
  type Signal,
} from './signals.ts';

/** Seconds from an open socket to being online. */
const ESTABLISH_TIMEOUT = 30;
/**
 * Seconds that a session must have lasted for the next retry to be a first one again: a server that takes us in only to
 * drop us is not hammered.
 */
const LASTING = 10;
/** Most requests whose answers are awaited, most messages that wait to be sent, or for the lists to be complete. */
const MAX_PENDING = 1024;
/** Longest ticket that we give back. */
const MAX_TICKET = 128;

/** What belongs to one connection to the server and is forgotten with it. */
class Connection {
  /** When the greeting came, whose time of day it tells. */
  greetedAt = 0;
  resumed = false;
  snapshot = new Snapshot();
  /** What came before the snapshot was complete and makes sense only beside it. */
  backlog: Signal[] = [];
  /** The requests that await an answer: ref to the type of their reply. */
  readonly pending = new Map<string, keyof ServerMessages>();
  readonly outbox: string[] = [];
  /** Pins for the server to keep; whatever else we have to send goes first. */
  readonly pins: string[] = [];
  /** Our messages a second, and at once; a server begins to refuse at 20 and 256. */
  readonly pace = new Bucket(16, 200);
  goodbye?: Goodbye;
  /** Why the login failed, if only the close code can tell whether to come back. */
  failure?: BVError;
  readonly deadline: number;

  constructor(deadline = 0) {
    this.deadline = deadline;
  }
}

/** What a session may be told about itself. */
export interface SessionOptions {
  /** Gives a random number from 0 up to 1, for the delays between attempts. */
  jitter?: () => number;
  /** Whether others are told of this peer. */
  visible?: boolean;
  /** Name and version of the program, for the operator. */
  agent?: string;
}

/** One account's session with one discovery server, over any number of connections. */
export class Session {
  /** The account, in lower case. */
  readonly username: string;
  /** The realm that the password was bound to. */
  readonly realm: string;
  /** Our own id; while we are offline the last one, which we ask for again. */
  peerId: string | null = null;
  /** What the server last said of itself. */
  greeting: Hello | null = null;
  readonly #keys: AccountKeys;
  readonly #options: Required<SessionOptions>;
  readonly #roster: Roster;
  readonly #retry: Retry;
  #state: State = 'offline';
  #connection = new Connection();
  #events: Event[] = [];
  #lastRef = 0;
  #iceServers = '[]';
  #ticket = '';
  #onlineSince = 0;

  constructor(username: string, realm: string, keys: AccountKeys, contacts: ContactBook, options: SessionOptions = {}) {
    this.username = username;
    this.realm = realm;
    this.#keys = keys;
    this.#options = { jitter: Math.random, visible: true, agent: '', ...options };
    this.#roster = new Roster(contacts);
    this.#retry = new Retry(this.#options.jitter);
  }

  // -- what is so -----------------------------------------------------------------------------------------------------

  /** Where the session stands. */
  get state(): State {
    return this.#state;
  }

  /** Whether the pump should open a socket, or keep the one that it has. */
  get wantsSocket(): boolean {
    return this.#state === 'connecting' || this.#state in ACCEPTED;
  }

  /** All aliases, `Us` first; they stay while we are offline. */
  get aliases(): string[] {
    return [...this.#roster.aliases];
  }

  /** The aliases of which the server says something that does not hold, and what is wrong with it. */
  get refused(): ReadonlyMap<string, BVError> {
    return this.#roster.refused;
  }

  /** The online peers, id to alias, without ourselves; they stay while we are offline. */
  get peers(): ReadonlyMap<string, string> {
    return this.#roster.peers;
  }

  // -- what the user wants --------------------------------------------------------------------------------------------

  /**
   * Ask the server for something.
   *
   * @returns the ref with which `replied` or `refused` will come, one of them for certain.
   * @throws BVError `unavailable`: we are not online; `busy`: too much is waiting already; `too_large`.
   */
  request<T extends keyof Requests>(type: T, data: Requests[T]): string {
    const { pending } = this.#connection;
    if (pending.size >= MAX_PENDING) throw new BVError('busy', 'too many unanswered requests to the discovery server');
    const ref = String(++this.#lastRef);
    this.send(type, data, ref);
    pending.set(ref, REPLIES[type] ?? 'done');
    return ref;
  }

  /** Nobody waits for this answer any more. */
  forget(ref: string): void {
    this.#connection.pending.delete(ref);
  }

  /** Send something whose answer is of no interest. Throws as {@link request} does. */
  send<T extends keyof Requests>(type: T, data: Requests[T], ref?: string): void {
    if (this.#state !== 'online') throw new BVError('unavailable', 'not connected to the discovery server');
    const { outbox } = this.#connection;
    if (outbox.length >= MAX_PENDING) throw new BVError('busy', 'too much waits for the discovery server already');
    const text = encode(type, data as ClientMessages[T], ref);
    if (utf8(text).length > MAX_MESSAGE) throw new BVError('too_large', 'too long a message for the discovery server');
    outbox.push(text);
  }

  /** Ask whether the server is there: the reply says no more than that. It goes before whatever waits. */
  ping(): void {
    this.#connection.outbox.unshift(encode('ping', {}));
  }

  /**
   * Trust has ended here, whatever the server makes of it.
   *
   * @param name the alias with which we ended it; null if another process of our account did.
   * @param remove the proof.
   * @param nowMs the time of day, in milliseconds since 1970.
   * @returns the key that links must not have any more, if it was another process and the proof is one.
   */
  async removed(name: string | null, remove: SignedBlob, nowMs: number): Promise<string | null> {
    let key = null;
    if (name === null) key = await this.#roster.takeRemoval(remove, nowMs);
    else await this.#roster.remove({ name, remove }, nowMs);
    this.#collect();
    return key;
  }

  // -- what happened --------------------------------------------------------------------------------------------------

  /** Come online. */
  start(): void {
    this.#step('started');
  }

  /** Go offline for good. */
  stop(): void {
    this.#leave('stopped', 'we logged off');
  }

  /** The socket that we wanted is open. */
  opened(now: number): void {
    this.#step('opened');
    this.#connection = new Connection(now + ESTABLISH_TIMEOUT);
  }

  /** The socket that we wanted could not be opened. */
  unreachable(reason: string, now: number): void {
    this.#lost(new BVError('server_unreachable', reason), now);
  }

  /**
   * The socket is closed.
   *
   * @param code the server's close code, null if it sent none.
   * @param reason the text that came with it, or why the socket broke.
   */
  closed(code: number | null, reason: string, now: number): void {
    if (!(this.#state in ACCEPTED)) return; // it was us who gave it up
    const { goodbye, failure } = this.#connection;
    const { error, final, retryAfter } = partingOf(code, reason, goodbye, failure);
    if (final) this.#end(error);
    else this.#lost(error, now, retryAfter);
  }

  /** The socket is of no use any more; `hurry` if that is a matter of our own network: the next comes at once. */
  abandoned(reason: string, now: number, hurry = false): void {
    if (this.#state in ACCEPTED) this.#lost(new BVError('server_unreachable', reason), now, undefined, hurry);
  }

  /** What kept us from the server may be gone. Whether an attempt that is to come, or under way, begins now. */
  hurry(now: number): boolean {
    return /^(waiting|connecting)$/.test(this.#state) && this.#retry.hurry(now);
  }

  /**
   * A message came.
   *
   * @param message the frame, as it came: anything but a text is refused.
   * @param now the time that the timer uses, in seconds.
   * @param nowMs the time of day, in milliseconds since 1970, for certificates.
   */
  async receive(message: unknown, now: number, nowMs: number): Promise<void> {
    if (!(this.#state in ACCEPTED)) return; // from a socket that we have given up
    try {
      if (typeof message !== 'string') throw new BVError('bad_message', 'a binary frame');
      await this.#take(decode(message), now, nowMs);
    } catch (error) {
      if (!(error instanceof BVError)) throw error;
      if (error.code === 'unknown_type') return; // what a newer server says
      const reason = `the discovery server broke the protocol: ${plain(error.message)}`;
      this.#lost(new BVError('protocol_error', reason), now);
    }
  }

  // -- what follows ---------------------------------------------------------------------------------------------------

  /** What to send now; {@link sendTimer} tells when there will be more. */
  dataToSend(now: number): string[] {
    const { outbox, pins, pace } = this.#connection;
    const messages: string[] = [];
    for (;;) {
      const queue = outbox.length ? outbox : pins;
      if (!queue.length || pace.take(now)) return messages;
      messages.push(queue.shift()!);
    }
  }

  /** What there is to report, once. */
  events(): Event[] {
    return this.#events.splice(0);
  }

  /** When {@link dataToSend} will have more, as of its last call; null for not before something happens. */
  sendTimer(): number | null {
    const { outbox, pins, pace } = this.#connection;
    return outbox.length || pins.length ? pace.moment() : null;
  }

  /** When to call {@link handleTimer}, or null. */
  timer(): number | null {
    if (this.#state === 'waiting') return this.#retry.at;
    if (this.#state === 'online') return this.#roster.timer();
    return this.#state in ACCEPTED ? this.#connection.deadline : null;
  }

  /** It may be time for something. */
  handleTimer(now: number): void {
    if (this.#state === 'waiting') {
      if (now >= this.#retry.at) this.#step('retryDue');
    } else if (this.#state === 'online') {
      this.#roster.handleTimer(now);
      this.#collect();
    } else if (this.#state in ACCEPTED && now >= this.#connection.deadline) {
      const reason = `the discovery server let ${ESTABLISH_TIMEOUT} s pass (${this.#state})`;
      this.#lost(new BVError('server_unreachable', reason), now);
    }
  }

  // -- states ---------------------------------------------------------------------------------------------------------

  /** The only place where the state changes. */
  #step(fact: Fact): void {
    const next = TRANSITIONS[this.#state][fact];
    if (!next) throw new TypeError(`a session cannot be told ${fact} while it is ${this.#state}`);
    this.#state = next;
  }

  /** The attempt or the connection is over, and there will be another. */
  #lost(error: BVError, now: number, hint?: number, hurry?: boolean): void {
    const wasOnline = this.#state === 'online';
    if (wasOnline && now - this.#onlineSince >= LASTING) this.#retry.reset();
    this.#step('lost');
    const retryIn = this.#retry.after(now, hint, hurry);
    this.#events.push(
      wasOnline ? { type: 'wentOffline', reason: error.message, retryIn } : { type: 'attemptFailed', error, retryIn },
    );
    this.#refusePending();
  }

  /** The connection is over, and there will be no other. */
  #end(error: BVError): void {
    this.#leave('ended', error.message);
    this.#events.push({ type: 'ended', error });
  }

  /** We are offline for good. */
  #leave(fact: Fact, reason: string): void {
    if (this.#state === 'online') this.#events.push({ type: 'wentOffline', reason, retryIn: null });
    this.#step(fact);
    this.#refusePending();
  }

  /** The connection is gone, and whatever belonged to it. */
  #refusePending(): void {
    const lost = this.#connection;
    this.#connection = new Connection();
    for (const ref of lost.pending.keys()) {
      const text = 'the connection to the discovery server was lost; whether it did what was asked is not known';
      this.#events.push({ type: 'refused', ref, error: new BVError('unavailable', text) });
    }
  }

  // -- messages -------------------------------------------------------------------------------------------------------

  async #take(signal: Signal, now: number, nowMs: number): Promise<void> {
    const isLive = LIVE.test(signal.type);
    const isSyncing = this.#state === 'syncing';
    if (!(isLive ? isSyncing || this.#state === 'online' : ACCEPTED[this.#state]!.test(signal.type))) {
      throw new BVError('bad_message', `${signal.type} while ${this.#state}`);
    }
    if (isSyncing && isLive) {
      if (this.#connection.backlog.push(signal) > MAX_PENDING) {
        throw new BVError('bad_message', `more than ${MAX_PENDING} messages before the lists are complete`);
      }
    } else {
      await this.#handle(signal, now, nowMs);
      this.#collect();
    }
  }

  /** Take over what the roster has to report and to send. */
  #collect(): void {
    for (const event of this.#roster.events()) this.#events.push(event); // too many for push(...), it may be
    this.#connection.pins.push(...this.#roster.pins().map((pin) => encode('updateContact', pin)));
  }

  async #handle(signal: Signal, now: number, nowMs: number): Promise<void> {
    const connection = this.#connection;
    switch (signal.type) {
      case 'error':
        return this.#onFailure(signal.data, signal.ref, now);
      case 'goodbye':
        connection.goodbye = signal.data;
        return;
      case 'hello':
        return this.#onHello(signal.data, now);
      case 'setPeerId':
        return this.#onSetPeerId(signal.data);
      case 'iceServers':
        this.#onIceServers(signal.data, now);
        return this.#onReply(signal);
      case 'userList':
        return connection.snapshot.addNames(signal.data);
      case 'contacts':
        return connection.snapshot.addContacts(signal.data);
      case 'peerList':
        connection.snapshot.addPeers(signal.data);
        return connection.snapshot.complete ? this.#synced(now, nowMs) : undefined;
      case 'userAdd':
        return this.#roster.add(signal.data, nowMs);
      case 'userRemove':
        return this.#roster.remove(signal.data, nowMs);
      case 'peerConnect':
        return signal.data.id === this.peerId ? undefined : this.#roster.appear(signal.data);
      case 'peerDisconnect':
        return this.#roster.vanish(signal.data);
      case 'peerRequest':
      case 'peerResponse':
      case 'peerCandidate':
        return this.#onRelayed(signal);
      default:
        return this.#onReply(signal);
    }
  }

  #onFailure(failure: Failure, ref: string | undefined, now: number): void {
    const error = failureError(failure);
    if (/^(syncing|online)$/.test(this.#state)) {
      const { code, message } = error;
      if (ref === undefined) this.#events.push({ type: 'noticeReceived', code, message });
      else if (this.#connection.pending.delete(ref)) this.#events.push({ type: 'refused', ref, error });
    } else if (/^(busy|unavailable|rate_limited|too_many_peers)$/.test(error.code)) {
      this.#lost(error, now, error.retryAfter);
    } else if (/^(login_refused|bad_message|session_ended)$/.test(error.code)) {
      this.#end(error);
    } else {
      this.#connection.failure = error; // the close code tells whether to come back
    }
  }

  async #onHello(hello: Hello, now: number): Promise<void> {
    this.greeting = hello;
    this.#connection.greetedAt = now;
    try {
      checkGreeting(hello, this.realm);
    } catch (error) {
      return this.#end(error as BVError);
    }
    const { username, realm, peerId } = this;
    const { visible, agent } = this.#options;
    const publicKey = this.#keys.key;
    const { blob, signatures } = await sign(
      { kind: 'login', realm, challenge: hex(hello.challenge), username, publicKey },
      this.#keys,
    );
    const resume = peerId === null ? undefined : { peerId, ticket: this.#ticket };
    this.#step('greeted');
    this.#connection.outbox.push(
      encode('login', { username, blob, signature: signatures[0]!, resume, visible, agent }),
    );
  }

  #onSetPeerId({ peerId, ticket }: ServerMessages['setPeerId']): void {
    if (ticket.length > MAX_TICKET) throw new BVError('bad_message', 'a ticket that is too long');
    this.#connection.resumed = peerId === this.peerId;
    this.peerId = peerId;
    this.#ticket = ticket;
    this.#step('admitted');
  }

  #onIceServers(servers: IceServer[], now: number): void {
    const told = JSON.stringify(servers);
    if (told === this.#iceServers) return;
    this.#iceServers = told;
    // For how many seconds a credential holds: by the clock that it was made by, not by ours, which may be off.
    const serverTime = this.greeting!.time / 1000 + now - this.#connection.greetedAt;
    const lifetimes = servers.map(({ expires }) =>
      expires === undefined ? null : Math.max(0, expires / 1000 - serverTime),
    );
    this.#events.push({ type: 'iceServersChanged', servers, lifetimes });
  }

  async #synced(now: number, nowMs: number): Promise<void> {
    const connection = this.#connection;
    const { snapshot, backlog, resumed } = connection;
    const peerId = this.peerId!;
    this.#step('synced');
    this.#onlineSince = now;
    this.#events.push({ type: 'wentOnline', peerId, resumed });
    connection.snapshot = new Snapshot();
    connection.backlog = [];
    snapshot.peers.delete(peerId);
    await this.#roster.replace(snapshot, now, nowMs);
    this.#collect();
    for (const waiting of backlog) await this.#take(waiting, now, nowMs);
  }

  #onRelayed(signal: Signal & { type: `peer${'Request' | 'Response' | 'Candidate'}` }): void {
    if (signal.data.from === undefined) throw new BVError('bad_message', `${signal.type} from nobody`);
    if (signal.type === 'peerRequest') this.#events.push({ type: 'requestReceived', request: signal.data });
    else if (signal.type === 'peerResponse') this.#events.push({ type: 'responseReceived', response: signal.data });
    else this.#events.push({ type: 'candidateReceived', candidate: signal.data });
  }

  #onReply({ type, data, ref = '' }: Signal): void {
    const { pending } = this.#connection;
    const expected = pending.get(ref);
    if (!expected) return; // nobody waits for it any more
    if (type !== expected) throw new BVError('bad_message', `${type} in reply to what ${expected} replies to`);
    pending.delete(ref);
    this.#events.push({ type: 'replied', ref, data });
  }
}
