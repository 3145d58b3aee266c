/**
 * Links inside one page or process, with the weather of a network: delay, silence, and a cable that is cut.
 *
 * Connections of one {@link MemoryNetwork} find each other by a number in their descriptions. While it is `silent`,
 * nothing arrives and nobody is told; what was sent arrives when that is over.
 */

import { BVError } from '../../../server/browser/src/errors.ts';
import {
  LinkBase,
  type Connection,
  type Engine,
  type Link,
  type Stage,
  type Tried,
} from '../../../server/browser/src/link.ts';
import { later } from '../../../server/browser/src/timing.ts';
import type { PathInfo } from '../../../server/browser/src/types.ts';
import type { Bytes } from '../../../server/browser/src/wire/bytes.ts';

const description = (number: number): string =>
  [
    'v=0',
    `o=- ${number} ${number} IN IP4 0.0.0.0`,
    's=-',
    't=0 0',
    'm=application 9 UDP/DTLS/SCTP webrtc-datachannel',
    'c=IN IP4 0.0.0.0',
    `a=fingerprint:sha-256 ${Array(32).fill('0A').join(':')}`,
    '',
  ].join('\r\n');

export class MemoryNetwork {
  /** Seconds that a message takes one way. */
  delay = 0;
  /** Whether this machine has an address. */
  hasAddress = true;
  /** Whether nobody finds anybody. */
  isBroken = false;
  readonly links = new Set<MemoryLink>();
  readonly connections: MemoryConnection[] = [];
  #silent = false;

  /** What making a connection throws. */
  refusal: Error | null = null;

  readonly engine: Engine = () => {
    if (this.refusal) throw this.refusal;
    const connection = new MemoryConnection(this, this.connections.length);
    this.connections.push(connection);
    return connection;
  };

  get silent(): boolean {
    return this.#silent;
  }

  set silent(silent: boolean) {
    this.#silent = silent;
    for (const link of silent ? [] : this.links) link.arrive();
  }

  /** End every link; both sides notice at once. */
  cut(): void {
    for (const link of [...this.links]) link.end('lost');
  }

  /** Two ends of a link, without the way to it. */
  pair(): [MemoryLink, MemoryLink] {
    const [one, other] = [new MemoryLink(this), new MemoryLink(this)];
    one.peer = other;
    other.peer = one;
    return [one, other];
  }
}

export class MemoryLink extends LinkBase {
  lowWater = 65_536;
  buffered = 0;
  peer!: MemoryLink;
  readonly #network: MemoryNetwork;
  /** What is under way to this end. */
  readonly #coming: Bytes[] = [];
  /** What leaves this end, one step a timer. */
  readonly #leaving: (() => void)[] = [];

  constructor(network: MemoryNetwork) {
    super();
    this.#network = network;
    network.links.add(this);
  }

  /** Take what has come, if anything gets through. */
  arrive(): void {
    while (!this.#network.silent && this.#coming.length) {
      const message = this.#coming.shift()!;
      this.peer.acknowledged(message.length);
      this.receive(message.buffer);
    }
  }

  /** The other side has so many more bytes. */
  acknowledged(size: number): void {
    const wasHigh = this.buffered > this.lowWater;
    this.buffered -= size;
    if (wasHigh && this.buffered <= this.lowWater) this.onDrained();
  }

  protected transmit(message: Bytes): void {
    this.buffered += message.length;
    const copy = message.slice();
    this.#afterDelay(() => {
      this.peer.#coming.push(copy);
      this.peer.arrive();
    });
  }

  protected release(): void {
    this.#network.links.delete(this);
    // The end comes behind what was sent; a silent network brings neither.
    this.#afterDelay(() => this.#network.silent || this.peer.end(this.closed === 'lost' ? 'lost' : 'closed_by_peer'));
  }

  /** In the order in which it was sent, which timers do not keep: a browser lets those that were set by timers wait. */
  #afterDelay(step: () => void): void {
    this.#leaving.push(step);
    setTimeout(() => this.#leaving.shift()!(), this.#network.delay * 1000);
  }
}

export class MemoryConnection implements Connection {
  stage: Stage = 'idle';
  onStage: (stage: Stage) => void = () => {};
  onCandidate: ((text: string) => void) | null = null;
  onTrouble: () => void = () => {};
  /** Candidates of the other side, as they came. */
  readonly candidates: string[] = [];
  readonly #network: MemoryNetwork;
  readonly #number: number;
  readonly #opened = later<Link>();
  #link: MemoryLink | null = null;
  #theirs: string[] = [];

  constructor(network: MemoryNetwork, number: number) {
    this.#network = network;
    this.#number = number;
  }

  async createOffer(): Promise<string> {
    await this.#gather();
    this.#go('waiting');
    return description(this.#number);
  }

  async acceptOffer(sdp: string): Promise<string> {
    await this.#gather();
    this.#other(sdp);
    this.#go('checking');
    return description(this.#number);
  }

  async acceptAnswer(sdp: string): Promise<void> {
    const other = this.#other(sdp);
    this.#go('checking');
    if (this.#network.isBroken) return;
    const [ours, theirs] = this.#network.pair();
    setTimeout(() => {
      this.#open(ours);
      other.#open(theirs);
    }, 2000 * this.#network.delay);
  }

  opened(): Promise<Link> {
    return this.#opened.promise;
  }

  addCandidate(text: string): void {
    this.candidates.push(text);
  }

  async path(): Promise<PathInfo | null> {
    return this.stage === 'open' ? { local: 'host', remote: 'host', family: '', relay: '' } : null;
  }

  tried(): Tried {
    return { ours: ['host'], theirs: this.#theirs, servers: [], relayOnly: false, familiesMeet: true };
  }

  close(): void {
    if (this.stage === 'ended') return;
    this.#go('ended');
    this.#opened.reject(new BVError('connect_failed', 'the connection was closed'));
    this.#link?.close();
  }

  async #gather(): Promise<void> {
    this.#go('gathering');
    await Promise.resolve();
    if (!this.#network.hasAddress) throw new BVError('connect_failed', 'there is no address');
  }

  #other(sdp: string): MemoryConnection {
    const other = this.#network.connections[Number(/^o=- (\d+)/m.exec(sdp)?.[1])];
    if (!other) throw new BVError('protocol_error', 'the session description makes no sense');
    this.#theirs = ['host'];
    return other;
  }

  #open(link: MemoryLink): void {
    if (this.stage !== 'checking') return link.close();
    this.#link = link;
    this.#go('dtls');
    this.#go('open');
    this.#opened.resolve(link);
  }

  #go(stage: Stage): void {
    if (this.stage === 'ended') throw new BVError('connect_failed', 'the connection was closed');
    this.stage = stage;
    this.onStage(stage);
  }
}
