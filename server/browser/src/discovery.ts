/**
 * The pump between a `Session` and a WebSocket to the discovery server.
 *
 * All decisions are the session's: what to send, whether to keep the socket, when to come back. Here are the socket,
 * the clock and the browser's events. What happens is taken one after the other, each wholly before the next, and then
 * the order is always the same: hand out the events, open or close the socket, send, arm the timer.
 *
 * *Is the server still there?* A page can neither send the pings of WebSocket nor see those of the server. So it asks
 * with a message when nothing has come for a while, and an unanswered one costs the socket: within 35 s where timers
 * are on time. In a background tab they may come a minute late, after a sleep of the machine much later; whatever the
 * server said meanwhile may then still be on its way to us. A timer that is late therefore never proves a loss: it asks
 * once more.
 */

import { BVError } from './errors.ts';
import { now as clock } from './timing.ts';
import type { SignedBlob } from './wire/blobs.ts';
import { realmOf } from './wire/keys.ts';
import type { Session } from './wire/session.ts';
import type { Event } from './wire/session_events.ts';
import type { Nothing, Replies, Requests } from './wire/signals.ts';

/** Seconds for opening a socket; without a word before we ask; for the answer; and for one that should come quickly. */
const OPEN_TIMEOUT = 10;
const QUIET = 20;
const ANSWER_TIMEOUT = 15;
const PROBE_TIMEOUT = 3;
/** Seconds that a timer may be late for it to count as on time. */
const LATE = 1;
/** Milliseconds to learn why a socket did not open. */
const WHY_TIMEOUT = 5000;
/** Characters that came and are not taken yet: the lists of a large account are read at once, and then verified. */
const MAX_WAITING = 2 ** 24;
/** Bytes that the browser may keep for a server that reads slowly; what is more waits in the session. */
const MAX_BUFFERED = 2 ** 18;
/** How a socket is closed that we gave up but will replace: not a log-off, so that nobody is told of it meanwhile. */
const GIVEN_UP = 4000;
const LOGGED_OFF = 1000;

/** Where a discovery server is: the URL of its WebSocket, and the host as it was typed. */
export interface Address {
  url: string;
  host: string;
}

/**
 * The address of `wss://host[:port][/path]`; a bare host means `wss://`, a bare loopback host `ws://`, and nothing the
 * server that the page came from.
 *
 * @throws BVError `config`: it is none, or would be unencrypted beyond this machine.
 */
export function addressOf(text: string, page: { protocol: string; host: string } = globalThis.location): Address {
  const typed = text || `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}`;
  const [, scheme, host, port = '', path = ''] =
    /^(?:(wss?):\/\/)?(\[[\da-f:.]+\]|[^\s/?#@:[\]]+)(:\d{1,5})?(\/[!-~]*)?$/i.exec(typed) ?? [];
  if (!host || +port.slice(1) > 65_535) {
    throw new BVError('config', `"${typed}" is no server address: write wss://example.org`);
  }
  const isLoopback = realmOf(host) === 'localhost';
  const url = `${scheme?.toLowerCase() ?? (isLoopback ? 'ws' : 'wss')}://${host}${port}${path}`;
  if (!isLoopback && !url.startsWith('wss')) throw new BVError('config', `${url} would be unencrypted: use wss://`);
  return { url, host };
}

/** The code of a close frame; null if there was none, or none in it. */
export const closeCode = ({ code }: { code: number }): number | null => (code === 1005 || code === 1006 ? null : code);

export const unreachable = (url: string): string => `cannot reach the discovery server at ${url}`;

/** A browser does not tell a page why a socket never opened: this asks whether it was for the origin of the page. */
export async function originRefusal(url: string): Promise<BVError | null> {
  const asked = new URL('/origin', url.replace(/^ws/, 'http'));
  const answer = await fetch(asked, { signal: AbortSignal.timeout(WHY_TIMEOUT) })
    .then((response) => response.json())
    .catch(() => null);
  if (answer?.allowed !== false) return null;
  const who = `pages of ${location.origin}`;
  return new BVError('origin_refused', `the server does not take ${who}: its operator adds it to discovery.origins`);
}

/** Keeps a session connected. */
export class DiscoveryClient {
  readonly session: Session;
  /** Whether it is for the page's origin that the server was not reached: asked the first time that it was not. */
  refusal: Promise<BVError | null> | null = null;
  readonly #url: string;
  readonly #onEvent: (event: Event) => void;
  readonly #answers = new Map<string, PromiseWithResolvers<any>>();
  readonly #end = Promise.withResolvers<void>();
  readonly #listening = new AbortController();
  #socket: WebSocket | null = null;
  /** What happens, in turn: settled when all of it is done. */
  #turn: Promise<unknown> = Promise.resolve();
  #handingOut = false;
  #error: unknown;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Characters that came and are not taken yet. */
  #waiting = 0;
  /** When to look whether the server is there, and how often we have asked since it was last heard. */
  #lookAt = 0;
  #asked = 0;
  /** Whether we ask because our own network may have changed. */
  #probing = false;

  /**
   * @param url where the server is, `ws://` or `wss://`.
   * @param session a new session.
   * @param onEvent is given every event but the answers to {@link request}, in order.
   */
  constructor(url: string, session: Session, onEvent: (event: Event) => void) {
    this.session = session;
    this.#url = url;
    this.#onEvent = onEvent;
  }

  /**
   * Connect, and reconnect, until {@link close}. Once only.
   *
   * @throws BVError there is no coming back; it is the error of `ended`.
   */
  run(): Promise<void> {
    const { signal } = this.#listening;
    const changed = (): void => this.networkChanged();
    // A page that was hidden or frozen, or a machine that slept: who knows what became of the socket.
    globalThis.addEventListener?.('online', changed, { signal });
    globalThis.addEventListener?.('pageshow', ({ persisted }) => persisted && changed(), { signal });
    globalThis.document?.addEventListener('resume', changed, { signal });
    globalThis.document?.addEventListener('visibilitychange', () => document.hidden || changed(), { signal });
    this.#do(() => this.session.state === 'offline' && this.session.start());
    return this.#end.promise;
  }

  /** Log off. More than once does no harm. */
  async close(): Promise<void> {
    await this.#do(() => this.session.stop());
  }

  /**
   * Ask the server for something, and get the data of its reply.
   *
   * @param timeout seconds.
   * @throws BVError `unavailable`: we are offline, or the connection was lost before the answer came; `deadline`: no
   *   answer in time; else the server refused.
   */
  async request<T extends keyof Requests>(
    type: T,
    data: Requests[T],
    timeout = 10,
  ): Promise<T extends keyof Replies ? Replies[T] : Nothing> {
    const ref = this.session.request(type, data);
    const answer = Promise.withResolvers<any>();
    this.#answers.set(ref, answer);
    const late = new BVError('deadline', `the discovery server did not answer within ${timeout} s`);
    const timer = setTimeout(answer.reject, timeout * 1000, late);
    this.#pump();
    try {
      return await answer.promise;
    } finally {
      clearTimeout(timer);
      this.#answers.delete(ref);
      this.session.forget(ref);
    }
  }

  /**
   * Send something whose answer is of no interest.
   *
   * @throws BVError `unavailable`: we are offline; `busy`, `too_large`.
   */
  send<T extends keyof Requests>(type: T, data: Requests[T]): void {
    this.session.send(type, data);
    this.#pump();
  }

  /** Our own network may be another: try again at once, and ask where there is a socket that may be dead. */
  networkChanged(): void {
    this.doubt();
    void this.#do(() => {
      // A socket that is being opened may wait for what went with the old network: the pump begins anew.
      if (this.session.hurry(clock())) this.#drop();
    });
  }

  /** Something suggests that we are cut off: ask at once whether the server is still there. */
  doubt(): void {
    void this.#do(() => {
      if (this.session.state === 'online' && !this.#probing) {
        this.#probing = true;
        this.#asked = 0;
        this.#ask(PROBE_TIMEOUT);
      }
    });
  }

  /** Trust has ended, not by the server's word: see `Session.removed`. */
  removed(name: string | null, remove: SignedBlob): Promise<string | null> {
    return this.#do(() => this.session.removed(name, remove, Date.now()));
  }

  // -- the pump -------------------------------------------------------------------------------------------------------

  /** Do something after all that happened before, and then what follows from it. */
  async #do<T>(action: () => T | Promise<T>): Promise<T> {
    const before = this.#turn;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#turn = promise;
    await before;
    try {
      return await action();
    } catch (fault) {
      this.#fail(fault);
      throw fault;
    } finally {
      this.#pump();
      resolve();
    }
  }

  /** A fault of ours must not be lost, nor leave a session that looks alive. */
  #fail(fault: unknown): void {
    this.#error = fault;
    this.session.stop();
  }

  /** Something happened: hand out the events, and do what the session's new state asks for. */
  #pump(): void {
    this.#handOut();
    const { session } = this;
    if (!session.wantsSocket) this.#drop();
    else if (!this.#socket && session.state === 'connecting') this.#open();
    clearTimeout(this.#timer);
    const moments = [session.timer(), this.#socket && this.#lookAt, this.#write()].filter((moment) => moment !== null);
    if (moments.length) {
      const wait = Math.max(0, Math.min(...moments) - clock());
      this.#timer = setTimeout(() => void this.#do(() => this.#look()), wait * 1000);
    }
    if (session.state === 'closed') {
      this.#listening.abort();
      if (this.#error) this.#end.reject(this.#error);
      else this.#end.resolve();
    }
  }

  #handOut(): void {
    if (this.#handingOut) return; // who is told of an event caused others: they come after those before them
    this.#handingOut = true;
    for (let events; (events = this.session.events()).length; ) {
      for (const event of events) this.#tell(event);
    }
    this.#handingOut = false;
  }

  #tell(event: Event): void {
    if (event.type === 'replied') return this.#answers.get(event.ref)?.resolve(event.data);
    if (event.type === 'refused') return this.#answers.get(event.ref)?.reject(event.error);
    if (event.type === 'ended') this.#error = event.error;
    try {
      this.#onEvent(event);
    } catch (fault) {
      reportError(fault); // of whoever was told
    }
  }

  /** Send what the session has to send; gives when there will be more, or null. */
  #write(): number | null {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN) return null;
    const now = clock();
    if (socket.bufferedAmount > MAX_BUFFERED) return now + 1;
    for (const text of this.session.dataToSend(now)) socket.send(text);
    return this.session.sendTimer();
  }

  // -- the socket -----------------------------------------------------------------------------------------------------

  #open(): void {
    let socket: WebSocket;
    try {
      socket = this.#socket = new WebSocket(this.#url);
    } catch (error) {
      return this.#fail(new BVError('config', `${this.#url}: ${(error as Error).message}`));
    }
    this.#lookAt = clock() + OPEN_TIMEOUT;
    socket.onopen = () => {
      this.#heard();
      void this.#do(() => socket === this.#socket && this.session.opened(clock()));
    };
    socket.onmessage = ({ data }) => {
      this.#heard();
      const [now, nowMs] = [clock(), Date.now()];
      const size = typeof data === 'string' ? data.length : 0;
      this.#waiting += size;
      void this.#do(() => {
        this.#waiting -= size;
        return socket === this.#socket ? this.session.receive(data, now, nowMs) : undefined;
      });
      if (this.#waiting > MAX_WAITING) this.#abandon('it says more than we can take in', false);
    };
    socket.onclose = (event) => {
      void this.#do(() => {
        if (socket !== this.#socket) return;
        if (this.session.state === 'connecting') this.#unreachable();
        else this.session.closed(closeCode(event), event.reason || 'the connection broke', clock());
      });
    };
  }

  /** The session does not want the socket any more, or it is gone. */
  #drop(): void {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(this.session.state === 'closed' ? LOGGED_OFF : GIVEN_UP);
  }

  #unreachable(): void {
    this.session.unreachable(unreachable(this.#url), clock());
    if (this.refusal) return;
    this.refusal = originRefusal(this.#url);
    void this.refusal.then((error) => error && this.#do(() => this.#fail(error)));
  }

  /** Leave a socket that is dead. */
  #abandon(reason: string, hurry: boolean): void {
    this.#drop();
    void this.#do(() => this.session.abandoned(reason, clock(), hurry));
  }

  // -- is the server there --------------------------------------------------------------------------------------------

  #heard(): void {
    this.#lookAt = clock() + QUIET;
    this.#asked = 0;
    this.#probing = false;
  }

  #ask(patience: number): void {
    this.#asked++;
    this.#lookAt = clock() + patience;
    this.session.ping();
  }

  /** The timer came. */
  #look(): void {
    const { session } = this;
    const now = clock();
    session.handleTimer(now);
    if (!this.#socket || now < this.#lookAt) return;
    const isLate = now > this.#lookAt + LATE;
    if (session.state === 'connecting') this.#unreachable();
    else if (session.state !== 'online') this.#heard(); // its own timer runs
    else if (!this.#asked || (isLate && this.#asked < 2)) this.#ask(this.#asked ? PROBE_TIMEOUT : ANSWER_TIMEOUT);
    else session.abandoned('the server does not answer any more', now, this.#probing);
  }
}
