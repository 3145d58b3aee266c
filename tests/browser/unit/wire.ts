/** Peers without a discovery server: all that makes links, over links in memory, and a wire for the signals. */

import { BVError } from '../../../server/browser/src/errors.ts';
import { Host } from '../../../server/browser/src/host.ts';
import { encodeValue } from '../../../server/browser/src/items.ts';
import { Links } from '../../../server/browser/src/links.ts';
import { CallMoved, type PeerLink } from '../../../server/browser/src/peer_link.ts';
import type { ConnectOptions, Value } from '../../../server/browser/src/types.ts';
import { fromHex, hex } from '../../../server/browser/src/wire/bytes.ts';
import { Introductions } from '../../../server/browser/src/wire/introductions.ts';
import { randomBytes, SigningKey } from '../../../server/browser/src/wire/keys.ts';
import type { PeerCandidate, PeerRequest, PeerResponse } from '../../../server/browser/src/wire/signals.ts';
import { MemoryNetwork } from './memory_link.ts';
import { identity } from './vectors.ts';

type Name = 'alice' | 'bob' | 'carol';
export type Message =
  | ({ type: 'peerRequest' } & PeerRequest)
  | ({ type: 'peerResponse' } & PeerResponse)
  | ({ type: 'peerCandidate' } & PeerCandidate);

const KEYS = Object.fromEntries(
  await Promise.all(
    (['alice', 'bob', 'carol'] as const).map(async (name) => [
      name,
      await SigningKey.fromSeed(fromHex(identity.people[name].seed)),
    ]),
  ),
) as Record<Name, SigningKey>;

/** Ask again until it is so; fails after some seconds. */
export async function until(condition: () => boolean, what = String(condition)): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`still not so: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

export class Wire {
  readonly network = new MemoryNetwork();
  readonly nodes = new Map<string, Node>();
  /** ms that a signal takes. */
  delay = (): number => 0;
  /** What becomes of a signal on its way; null if it is lost. */
  bend: (message: Message) => Message | null = (message) => message;
  /** How the server refuses requests. */
  refusal: BVError | null = null;
  /** Whether the server says that it has passed a request on. */
  saysDone = true;

  node(name: Name, id: number, settings: ConnectOptions = {}): Node {
    const node = new Node(this, name, String(id), settings);
    this.nodes.set(node.id, node);
    for (const one of this.nodes.values()) {
      for (const other of this.nodes.values()) if (one !== other) one.peers.set(other.id, other.name);
    }
    return node;
  }

  carry(sender: Node, message: Message): void {
    const bent = this.bend({ ...message, from: sender.id });
    if (bent) setTimeout(() => this.nodes.get(bent.to)?.receive(bent), this.delay());
  }

  /** The end of a test. */
  async stop(): Promise<void> {
    await Promise.all(Array.from(this.nodes.values(), (node) => node.links.stop(0)));
  }

  /** Run a test with a wire of its own. */
  static async run(test: (wire: Wire) => Promise<void>): Promise<void> {
    const wire = new Wire();
    try {
      await test(wire);
    } finally {
      await wire.stop();
    }
  }
}

export class Node {
  readonly name: Name;
  readonly id: string;
  readonly host = new Host();
  readonly links: Links;
  /** Who is online, id to name. */
  readonly peers = new Map<string, string>();
  /** Codes of what was refused for reasons of identity. */
  readonly refused: string[] = [];
  /** The states of links, in the order in which they came about. */
  readonly states: string[] = [];
  /** How often the discovery connection was doubted. */
  doubts = 0;
  /** Whether somebody is a contact. */
  trusts = (_name: string): boolean => true;

  constructor(wire: Wire, name: Name, id: string, settings: ConnectOptions) {
    this.name = name;
    this.id = id;
    const names = Object.keys(KEYS) as Name[];
    const alias = (other: Name): string => (other === name ? 'Us' : other);
    const contacts = {
      keyOf: (asked: string) => {
        const found = names.find((other) => alias(other) === asked);
        return found && this.trusts(asked) ? KEYS[found].key : undefined;
      },
      nameOf: (key: string) => {
        const found = names.find((other) => KEYS[other].key === key);
        return found && this.trusts(alias(found)) ? alias(found) : undefined;
      },
    };
    const introductions = new Introductions(KEYS[name], contacts, hex(randomBytes(16)));
    this.host.serve('Echo', ({ caller, request }) => [caller.name, request]);
    this.host.serve('Never', () => new Promise(() => {}));
    this.links = new Links({
      host: this.host,
      introductions,
      contacts,
      client: {
        request: async (type: string, data: any) => {
          if (wire.refusal) throw wire.refusal;
          if (type !== 'peerRequest') return [];
          wire.carry(this, { type, ...data });
          return wire.saysDone ? {} : new Promise(() => {});
        },
        send: (type, data: any) => wire.carry(this, { type, ...data }),
        doubt: () => this.doubts++,
      },
      peers: this.peers,
      settings,
      report: (error) => this.refused.push(error.code),
      onLink: ({ peer, state }) => this.states.push(`${peer.id} ${state}`),
      onAdded: () => {},
      engine: wire.network.engine,
    });
    this.links.wentOnline(id);
  }

  receive(message: Message): void {
    if (message.type === 'peerRequest') this.links.requested(message);
    else if (message.type === 'peerResponse') this.links.responded(message);
    else this.links.candidate(message);
  }

  link(other: Node, signal?: AbortSignal): Promise<PeerLink> {
    return this.links.pool.link(other.id, signal);
  }

  async call(other: Node, request: unknown, module = 'Echo'): Promise<Value> {
    const [body, raw] = await encodeValue(request);
    for (;;) {
      const link = await this.link(other);
      try {
        return await link.call(module, body, raw, { timeout: 10, keepAlive: true });
      } catch (error) {
        if (!(error instanceof CallMoved)) throw error;
      }
    }
  }

  /** Why no link to a peer comes about. */
  async failure(other: Node, signal?: AbortSignal): Promise<BVError> {
    try {
      await this.link(other, signal);
    } catch (error) {
      if (error instanceof BVError) return error;
      throw error;
    }
    throw new Error(`${this.name} got a link to ${other.name}`);
  }
}
