/** Two peers with a link between them in memory, for tests of what goes over it. */

import { Host } from '../../../server/browser/src/host.ts';
import { LinkLife } from '../../../server/browser/src/life.ts';
import type { Connection } from '../../../server/browser/src/link.ts';
import { PeerLink, type Remote } from '../../../server/browser/src/peer_link.ts';
import { encodeValue } from '../../../server/browser/src/items.ts';
import type { Bytes } from '../../../server/browser/src/wire/bytes.ts';
import type { LinkSettings } from '../../../server/browser/src/wire/link_core.ts';
import { MemoryLink, MemoryNetwork } from './memory_link.ts';

/** One end of a link that keeps what was sent, and lets nothing out while it is held. */
class Pipe extends MemoryLink {
  held = false;
  readonly sent: Bytes[] = [];
  #waiting: Bytes[] = [];

  protected override transmit(message: Bytes): void {
    this.sent.push(message);
    if (this.held) {
      this.#waiting.push(message);
      this.buffered += message.length;
    } else super.transmit(message);
  }

  letGo(): void {
    this.held = false;
    for (const message of this.#waiting.splice(0)) {
      this.buffered -= message.length;
      super.transmit(message);
    }
  }
}

export interface End {
  readonly link: PeerLink;
  readonly host: Host;
  readonly pipe: Pipe;
  readonly life: LinkLife;
  /** How often it told that it was idle, and closed. */
  idle: number;
  closed: number;
}

export interface Setup {
  readonly settings?: Partial<LinkSettings>;
  readonly idleTimeout?: number;
  /** What this side finds of the other's proof. */
  readonly accepts?: (signature: Uint8Array) => Promise<boolean>;
}

const REMOTES: Remote[] = ['alice', 'bob'].map((name, index) => ({
  name,
  id: String(index + 1),
  key: String(index).repeat(64),
  fingerprint: `fingerprint of ${name}`,
}));
const PROOFS = [new Uint8Array(64).fill(1), new Uint8Array(64).fill(2)];

/** Both ends; the first, alice's, dialled. */
export function pair(...setups: Setup[]): [alice: End, bob: End] {
  const network = new MemoryNetwork();
  const pipes = [new Pipe(network), new Pipe(network)] as const;
  pipes[0].peer = pipes[1];
  pipes[1].peer = pipes[0];
  const ends = pipes.map((pipe, side) => {
    const { settings = {}, idleTimeout = 60, accepts } = setups[side] ?? {};
    const host = new Host(settings);
    const expected = String(PROOFS[1 - side]);
    const proof = {
      mine: PROOFS[side]!,
      accepts: accepts ?? (async (signature: Uint8Array) => String(signature) === expected),
    };
    const remote = REMOTES[1 - side]!;
    const life = new LinkLife(remote.id, remote.name, side === 0);
    for (const state of ['gathering', 'checking', 'proof'] as const) life.to(state);
    const connection = { path: async () => null } as unknown as Connection;
    const end = { host, pipe, life, idle: 0, closed: 0 } as unknown as { -readonly [K in keyof End]: End[K] };
    end.link = new PeerLink(pipe, connection, remote, proof, life, {
      offerer: side === 0,
      host,
      idleTimeout,
      onIdle: () => end.idle++,
      onClosed: () => end.closed++,
    });
    return end;
  });
  return ends as unknown as [End, End];
}

/** The same, when both have proved who they are; given up at the end of the test. */
export async function linked(run: (alice: End, bob: End) => Promise<void>, ...setups: Setup[]): Promise<void> {
  const [alice, bob] = pair(...setups);
  try {
    await Promise.all([alice.link.prove(), bob.link.prove()]);
    await run(alice, bob);
  } finally {
    alice.link.close();
    bob.link.close();
  }
}

/** Call a module of the other side with a value. */
export async function call({ link }: End, module: string, request?: unknown, how: object = {}): Promise<any> {
  return link.call(module, ...(await encodeValue(request)), { timeout: 30, ...how });
}

/** Call a module that answers with a stream. */
export async function stream({ link }: End, module: string, request?: unknown, how: object = {}) {
  return link.openStream(module, ...(await encodeValue(request)), { timeout: 30, ...how });
}

/** A handler that takes a moment; `most` tells how many calls it had at once. */
export function slowly(): { handler: () => Promise<void>; most: number } {
  let running = 0;
  const slow = {
    most: 0,
    handler: async () => {
      slow.most = Math.max(slow.most, ++running);
      await new Promise((done) => setTimeout(done, 2));
      running--;
    },
  };
  return slow;
}

/** Wait until something holds, fifteen seconds at most. */
export async function until(holds: () => unknown): Promise<void> {
  for (const end = performance.now() + 15_000; !holds(); ) {
    if (performance.now() > end) throw new Error(`not within 15 s: ${holds}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

/** Run without what the console is told; gives that. */
export async function quietly(run: () => Promise<void>): Promise<string[]> {
  const lines: string[] = [];
  const { warn, error } = console;
  console.warn = console.error = (...words: unknown[]) => void lines.push(words.join(' '));
  try {
    await run();
  } finally {
    Object.assign(console, { warn, error });
  }
  return lines;
}
