/**
 * From a connection request to a proved link, on both sides.
 *
 * Who dials signs an offer, sends it through the discovery server, checks the signed answer, waits for the channel and
 * for the other side's proof inside it. Who is dialled checks the offer, signs an answer, and waits likewise. The
 * server between them can delay or drop any of it, and change none of it unnoticed.
 *
 * When both dial at once, the offer of the numerically smaller peer id wins: its sender passes over the other's offer,
 * and the other answers it. The attempt that loses ends when the winner's link is proved (pool.ts).
 */

import type { Penalties } from './admission.ts';
import { adviceFor } from './advice.ts';
import { BVError } from './errors.ts';
import { DOING, type LinkLife } from './life.ts';
import type { Connection, Engine, IceConfig, Link } from './link.ts';
import type { PeerLink, Remote } from './peer_link.ts';
import { later, milliseconds, now, orGivenUp, settles } from './timing.ts';
import { fromHex, hex, type Bytes } from './wire/bytes.ts';
import {
  sessionOf,
  type IncomingOffer,
  type Introductions,
  type OutgoingOffer,
  type Proof,
} from './wire/introductions.ts';
import { fingerprint, randomBytes } from './wire/keys.ts';
import { Bucket, MAX_HINT } from './wire/pacing.ts';
import { failureError } from './wire/refusals.ts';
import type { PeerCandidate, PeerRequest, PeerResponse, Requests } from './wire/signals.ts';

/** Seconds for which the side whose offer wins waits for what becomes of it: had it arrived, it would be answered. */
const GLARE_TIME = 2;
/** Seconds that a proof has to come when the attempt is over. */
const LAST_CHANCE = 1;
/** Seconds after which to dial anew when the other side let go of a link that was all but made. */
const LET_GO = 0.5;
/** Longest text of a refusal that is sent. */
const MAX_REASON = 500;
/** Offers of ours whose answers may come late: so many are remembered after we gave them up. */
const MAX_GIVEN_UP = 1024;
/** Candidates of one connection that wait for it to be made. */
const MAX_EARLY = 32;
const NOTHING: Bytes = new Uint8Array();

/** The way through the discovery server. */
export interface Signalling {
  request(type: 'peerRequest', data: Requests['peerRequest'], timeout: number): Promise<unknown>;
  /** Throws `unavailable` when offline. */
  send<T extends 'peerResponse' | 'peerCandidate'>(type: T, data: Requests[T]): void;
}

/** Room for the links that others dial: the pool. */
export interface Places {
  isDialling(peerId: string): boolean;
  dialled(peerId: string, seconds: number): Promise<boolean>;
  current(peerId: string): PeerLink | null;
  reserve(peerId: string, name: string, key: string, signal: AbortSignal): Promise<LinkLife>;
  release(life: LinkLife): void;
  add(link: PeerLink): void;
}

/** What the dialler works with. */
export interface DiallerSettings {
  readonly engine: Engine;
  readonly introductions: Introductions;
  readonly signalling: Signalling;
  /** The servers and policy to use for the next connection. */
  ice(): Promise<IceConfig>;
  /** Puts calls on an open channel. */
  makeLink(
    link: Link,
    connection: Connection,
    remote: Remote,
    proof: Proof,
    life: LinkLife,
    offerer: boolean,
  ): PeerLink;
  /** Told of refusals that concern identity, and of the peer that they are about. */
  report(error: BVError, peerId: string): void;
  /** Seconds in which a link must come about. */
  readonly timeout: number;
  readonly penalties: Penalties;
}

/** A connection that is being set up, found by the peer and the session. */
interface SetUp {
  readonly peer: string;
  /** In hexadecimal digits. */
  session: string;
  connection: Connection | null;
  /** Candidates of theirs that came before there was a connection; those of ours that the description has not. */
  readonly early: string[];
  readonly late: string[];
  /** Whether our description is on its way. */
  isTold: boolean;
  dial?: Dial;
}

/** What we offered, and the answer that is awaited. */
interface Dial {
  /** The offer that counts: if it was made anew, an answer to an earlier one is too late. */
  outgoing: OutgoingOffer;
  readonly name: string;
  readonly sdp: string;
  readonly response: PromiseWithResolvers<PeerResponse>;
  isOver: boolean;
}

/** 16 bytes that name one connection being set up. */
const newSession = (): string => hex(randomBytes(16));

const newSetUp = (peer: string, session: string): SetUp => ({
  peer,
  session,
  connection: null,
  early: [],
  late: [],
  isTold: false,
});

const keyOf = (peer: string, session: string | null): string => `${peer} ${session}`;

/**
 * What is said to an offer that lost to a link or to a later offer. Without an answer or a refusal the server counts it
 * for a while, and lets few such offers pass.
 */
const passedOver = (): BVError => new BVError('connect_failed', 'another attempt came first', { retryAfter: LET_GO });

export class Dialler {
  readonly #settings: DiallerSettings;
  readonly #setUps = new Map<string, SetUp>();
  /** What ends each of them, and the peer that dials us in it. */
  readonly #stops = new Map<AbortController, string>();
  /** The peers that have answered us, whose links are not there yet. */
  readonly #answered = new Set<string>();
  readonly #givenUp = new Set<string>();
  /** The peers that we are answering just now. */
  readonly #answers = new Map<string, { stop: AbortController; done: PromiseWithResolvers<void> }>();
  readonly #reports = new Bucket(10, 100);

  constructor(settings: DiallerSettings) {
    this.#settings = settings;
  }

  // -- dialling ------------------------------------------------------------------------------------------------------

  /**
   * A proved link to a peer.
   *
   * @param name our alias for its account, as presence has it.
   * @param life is told how far it has come.
   * @param timeout seconds in which it must come about.
   * @param signal gives it up: then its reason is thrown.
   * @throws BVError `connect_failed` tells the phase, what was tried, and what to do; `peer_offline`: the server knows
   * no such peer, or it does not trust this account; `rate_limited`: that peer keeps this account away for a while.
   */
  async dial(peerId: string, name: string, life: LinkLife, timeout: number, signal: AbortSignal): Promise<PeerLink> {
    life.name = name;
    const setUp = newSetUp(peerId, newSession());
    this.#setUps.set(keyOf(peerId, setUp.session), setUp);
    const run = (connection: Connection, stop: AbortSignal) => this.#dial(setUp, name, life, connection, stop);
    try {
      return await this.#run(setUp, `no link to ${name}/${peerId}`, life, timeout, signal, run);
    } catch (error) {
      this.#note(error, peerId);
      throw error;
    } finally {
      this.#forget(setUp);
    }
  }

  async #dial(
    setUp: SetUp,
    name: string,
    life: LinkLife,
    connection: Connection,
    signal: AbortSignal,
  ): Promise<PeerLink> {
    const { introductions } = this.#settings;
    const { peer } = setUp;
    const sdp = await orGivenUp(connection.createOffer(), signal);
    const outgoing = await orGivenUp(introductions.makeOffer(setUp.session, peer, name, sdp, Date.now()), signal);
    const dial: Dial = { outgoing, name, sdp, response: later(), isOver: false };
    setUp.dial = dial;
    let response;
    try {
      life.to('relay');
      response = await orGivenUp(this.#ask(setUp, life), signal);
    } catch (error) {
      this.#giveUp(setUp);
      throw error;
    } finally {
      dial.isOver = true;
    }
    if (response.error) throw refusal(response.error, `${name}/${peer}`);
    const { answer = NOTHING, signature = NOTHING } = response;
    const accepted = introductions.receiveAnswer(dial.outgoing, peer, answer, signature, Date.now());
    const { sdp: theirs, proof } = await orGivenUp(accepted, signal);
    this.#answered.add(peer);
    try {
      const remote = await this.#remote(name, peer, proof.key);
      await orGivenUp(connection.acceptAnswer(theirs), signal);
      return await this.#prove(connection, remote, proof, life, true, signal);
    } finally {
      this.#answered.delete(peer);
    }
  }

  /** Send the offer; the answer comes as a message of its own, what the server says of the offer as a reply. */
  #ask(setUp: SetUp, life: LinkLife): Promise<PeerResponse> {
    const { signalling, timeout } = this.#settings;
    const { outgoing, response } = setUp.dial!;
    const relayed = signalling.request('peerRequest', requestOf(outgoing), timeout).then(
      () => {
        if (life.state === 'relay') life.to('answer');
      },
      (error: BVError) => {
        // No word of it, or the connection to the server was lost: once that is back, it is asked again.
        if (!/^(deadline|unavailable)$/.test(error.code)) throw error;
      },
    );
    this.#announce(setUp);
    return Promise.race([response.promise, relayed.then(() => response.promise)]);
  }

  #giveUp({ peer, session }: SetUp): void {
    this.#givenUp.add(keyOf(peer, session));
    if (this.#givenUp.size > MAX_GIVEN_UP) this.#givenUp.delete(this.#givenUp.values().next().value!);
  }

  /**
   * A peer may not have got what it was asked: whoever waits for its answer makes another offer, of the same. Another,
   * because it takes each offer once. If it has the earlier one as well, it gives that one up.
   *
   * @param peerId the peer; absent for all, because their answers may be lost.
   */
  async askAgain(peerId?: string): Promise<void> {
    const { introductions, signalling, timeout } = this.#settings;
    for (const setUp of [...this.#setUps.values()]) {
      const { peer, dial } = setUp;
      if (!dial || dial.isOver || (peerId && peerId !== peer)) continue;
      const session = newSession();
      try {
        const outgoing = await introductions.makeOffer(session, peer, dial.name, dial.sdp, Date.now());
        if (dial.isOver) continue;
        this.#giveUp(setUp);
        this.#forget(setUp);
        setUp.session = session;
        this.#setUps.set(keyOf(peer, session), setUp);
        dial.outgoing = outgoing;
        signalling.request('peerRequest', requestOf(outgoing), timeout).catch(() => {}); // its answer tells
        this.#announce(setUp);
      } catch {
        // Not trusted any more: time will tell.
      }
    }
  }

  /**
   * An answer or refusal came for an offer of ours.
   *
   * A late one is passed over. An answer to an offer that we never made, made to somebody else, or had answered
   * already, is reported: no honest server brings such a thing.
   */
  receiveResponse(response: PeerResponse): void {
    const sender = response.from ?? '';
    const key = keyOf(sender, sessionOf(response));
    const dial = this.#setUps.get(key)?.dial;
    if (dial && !dial.isOver) {
      dial.isOver = true;
      dial.response.resolve(response);
    } else if (response.answer && !this.#givenUp.has(key)) {
      const why = 'an answer came to nothing that this peer asked: somebody misdirects it';
      this.#note(new BVError('identity_mismatch', why), sender);
    }
  }

  // -- being dialled -------------------------------------------------------------------------------------------------

  /**
   * Answer a connection request, or refuse it. The proved link is added to `places`. Whatever goes wrong is reported
   * and told to the other side; nothing is thrown.
   *
   * @param presenceName alias of the sender as presence has it, null if presence does not know the peer.
   * @param ownId our own peer id, which settles simultaneous dialling.
   */
  async answer(request: PeerRequest, presenceName: string | null, ownId: string, places: Places): Promise<void> {
    const { introductions, penalties } = this.#settings;
    const sender = request.from ?? '';
    const session = sessionOf(request);
    const key = keyOf(sender, session);
    const setUp = newSetUp(sender, session ?? '');
    if (!this.#setUps.has(key)) this.#setUps.set(key, setUp); // its candidates may be close behind it
    const mine = { stop: new AbortController(), done: later<void>() };
    try {
      const { offer, signature } = request;
      const incoming = await introductions.receiveOffer(sender, presenceName, offer, signature, Date.now());
      penalties.check(incoming.key); // before anything is done for it
      const earlier = this.#answers.get(sender);
      this.#answers.set(sender, mine);
      // A peer makes one attempt at a time: it has given up the one before, whatever became of it.
      earlier?.stop.abort(passedOver());
      await earlier?.done.promise;
      const { signal } = mine.stop;
      // If it dials us after it has answered, it has given that up: the network may have changed under it.
      const isOurs = Number(ownId) < Number(sender) && places.isDialling(sender) && !this.#answered.has(sender);
      // Without a link by then, it has not got ours.
      if (isOurs && (await orGivenUp(places.dialled(sender, GLARE_TIME), signal))) throw passedOver();
      const life = await places.reserve(sender, incoming.name, incoming.key, signal);
      try {
        await this.#accept(setUp, incoming, life, signal, (link) => {
          if (this.#answers.get(sender) === mine) this.#answers.delete(sender);
          places.add(link);
        });
      } finally {
        places.release(life);
      }
    } catch (error) {
      const { code, retryAfter } = error as BVError;
      // Not for a repetition of an offer that is being answered.
      const isOwn = this.#setUps.get(key) === setUp;
      if (session && isOwn && !setUp.isTold) this.#refuse(sender, session, error as BVError);
      // What both sides dialled at once is no news if the other link won.
      if (code !== 'connect_failed' || (retryAfter === undefined && !places.current(sender))) this.#note(error, sender);
    } finally {
      this.#forget(setUp);
      if (this.#answers.get(sender) === mine) this.#answers.delete(sender);
      mine.done.resolve();
    }
  }

  #accept(
    setUp: SetUp,
    incoming: IncomingOffer,
    life: LinkLife,
    signal: AbortSignal,
    add: (link: PeerLink) => void,
  ): Promise<void> {
    const { introductions, signalling, timeout } = this.#settings;
    const { name, key, fromPeer: peer } = incoming;
    return this.#run(setUp, `no link from ${name}/${peer}`, life, timeout, signal, async (connection, stop) => {
      for (const candidate of setUp.early.splice(0)) connection.addCandidate(candidate);
      const sdp = await orGivenUp(connection.acceptOffer(incoming.sdp), stop);
      const made = introductions.makeAnswer(incoming, sdp, Date.now());
      const { blob: answer, signature, proof } = await orGivenUp(made, stop);
      const remote = await this.#remote(name, peer, key);
      signalling.send('peerResponse', { to: peer, answer, signature });
      this.#announce(setUp);
      return this.#prove(connection, remote, proof, life, false, stop);
    }).then(add);
  }

  /** There is a link with a peer: what else it has asked for at the same time leads nowhere any more. */
  linked(peerId: string): void {
    this.#answers.get(peerId)?.stop.abort(passedOver());
  }

  /** A further way to reach the peer of a connection that is being set up; one that fits none is passed over. */
  receiveCandidate({ from = '', session, candidate }: PeerCandidate): void {
    const setUp = this.#setUps.get(keyOf(from, hex(session)));
    if (setUp?.connection) setUp.connection.addCandidate(candidate);
    else if (setUp && setUp.early.length < MAX_EARLY) setUp.early.push(candidate);
  }

  // -- both ----------------------------------------------------------------------------------------------------------

  /**
   * Addresses of this machine may be gone, and with them what was to be made of them: end all that is being set up.
   *
   * What we dial is tried anew by whoever wants it. Gives the peers that were dialling us: they have our answers and
   * would wait in vain.
   */
  networkChanged(): string[] {
    const moved = new BVError('connect_failed', 'the network of this machine changed meanwhile', { retryAfter: 0 });
    for (const stop of this.#stops.keys()) stop.abort(moved);
    return [...this.#stops.values()].filter(Boolean);
  }

  /** Make a connection and, within so many seconds, a link of it. If that fails, the connection is closed. */
  async #run(
    setUp: SetUp,
    what: string,
    life: LinkLife,
    timeout: number,
    signal: AbortSignal,
    run: (connection: Connection, signal: AbortSignal) => Promise<PeerLink>,
  ): Promise<PeerLink> {
    const { engine, ice } = this.#settings;
    const stop = new AbortController();
    const late = new BVError('connect_failed');
    const timer = setTimeout(() => stop.abort(late), milliseconds(timeout));
    this.#stops.set(stop, life.dialled ? '' : setUp.peer);
    const either = AbortSignal.any([signal, stop.signal]);
    let connection: Connection | null = null;
    life.to('gathering');
    try {
      connection = engine(await orGivenUp(ice(), either));
      setUp.connection = connection;
      connection.onStage = (stage) => {
        // What else the engine tells of, we know from what we do ourselves.
        if (/^(checking|dtls)$/.test(stage) && life.isSettingUp) life.to(stage as 'checking');
      };
      connection.onCandidate = (candidate) => {
        setUp.late.push(candidate);
        if (setUp.isTold) this.#announce(setUp, [candidate]);
      };
      return await run(connection, either);
    } catch (error) {
      connection?.close();
      if (signal.aborted) throw signal.reason;
      // What the browser throws has no code that anybody knows: it has too many connections, say.
      const { code, message, retryAfter } =
        error instanceof BVError ? error : new BVError('connect_failed', String(error));
      if (!/^(connect_failed|link_lost|protocol_error)$/.test(code)) throw error;
      const { phase } = life;
      const why =
        error === late
          ? ` within ${Number(timeout.toPrecision(3))} s; it was ${DOING[phase]}`
          : ` while ${DOING[phase]}: ${message}`;
      // Soon again if the other side let go of a link that was all but made: both may have dialled at once.
      const wait = phase === 'proof' && code === 'link_lost' ? LET_GO : retryAfter;
      const extra = wait === undefined ? {} : { retryAfter: wait };
      throw new BVError('connect_failed', what + why + adviceFor(phase, connection?.tried()), extra);
    } finally {
      clearTimeout(timer);
      this.#stops.delete(stop);
    }
  }

  #forget(setUp: SetUp): void {
    const key = keyOf(setUp.peer, setUp.session);
    if (this.#setUps.get(key) === setUp) this.#setUps.delete(key);
  }

  async #remote(name: string, id: string, key: string): Promise<Remote> {
    return { name, id, key, fingerprint: await fingerprint(key) };
  }

  async #prove(
    connection: Connection,
    remote: Remote,
    proof: Proof,
    life: LinkLife,
    offerer: boolean,
    signal: AbortSignal,
  ): Promise<PeerLink> {
    const channel = await orGivenUp(connection.opened(), signal);
    life.to('proof');
    const link = this.#settings.makeLink(channel, connection, remote, proof, life, offerer);
    life.link = link;
    const proved = link.prove();
    try {
      await orGivenUp(proved, signal);
    } catch (error) {
      // Our hello is out, and the other side may be calling already: the pool settles which link stays.
      if (!signal.aborted || !(await settles(proved, LAST_CHANCE))) {
        link.close();
        throw error;
      }
      await proved;
    }
    return link;
  }

  /** Our description is on its way: so are the candidates that it does not have. */
  #announce(setUp: SetUp, candidates = setUp.late): void {
    setUp.isTold = true;
    for (const candidate of candidates) {
      try {
        const { peer: to, session } = setUp;
        this.#settings.signalling.send('peerCandidate', { to, session: fromHex(session), candidate });
      } catch {
        // Offline: it may do without.
      }
    }
  }

  #refuse(
    to: string,
    session: string,
    { code = 'connect_failed', message, retryAfter }: Partial<BVError> & Error,
  ): void {
    const why = code === 'connect_failed' ? `the other side failed: ${message}` : message;
    const error = { code, message: why.slice(0, MAX_REASON), ...(retryAfter !== undefined && { retryAfter }) };
    try {
      this.#settings.signalling.send('peerResponse', { to, session: fromHex(session), error });
    } catch {
      // Offline: it will find out.
    }
  }

  /** Somebody refused, or was refused, for what concerns identity. */
  #note(error: unknown, peerId: string): void {
    const { code } = error as BVError;
    const isNews = /^(identity_mismatch|not_trusted|clock_skew|protocol_error)$/.test(code);
    if (isNews && !this.#reports.take(now())) this.#settings.report(error as BVError, peerId);
  }
}

const requestOf = ({ toPeer: to, blob: offer, signature }: OutgoingOffer) => ({ to, offer, signature });

/** The error for a refusal that came, unsigned, through the server: never one that accuses anybody. */
function refusal(failure: NonNullable<PeerResponse['error']>, peer: string): BVError {
  const { code, message, retryAfter } = failureError(failure);
  const passedOn =
    /^(connect_failed|link_lost|link_limit|not_trusted|clock_skew|peer_offline|rate_limited|unavailable)$/;
  return new BVError(
    passedOn.test(code) ? code : 'connect_failed',
    `${peer} refused: ${message || code}`,
    retryAfter === undefined ? {} : { retryAfter: Math.min(Math.max(retryAfter, 0), MAX_HINT) },
  );
}
