/** Files on their way to or from the module of docs/files.md. */

import type { BVErrorInfo, Json, ModuleInfo, Target, Value } from '../../src/types.ts';
import type { Sink } from './saving.ts';
import { Sha256 } from './sha256.ts';

/** Bytes of a piece that is sent. */
const PIECE = 256 * 1024;

/** An entry of a folder. */
export interface Entry {
  name: string;
  kind: string;
  size: number;
  /** Milliseconds since 1970. */
  modified: number;
}

/** Entries of a folder that are taken, and letters of a name. */
const MAX_ENTRIES = 5000;
const MAX_NAME = 1024;

/** Whether a module speaks as docs/files.md says, whatever it is called. */
export function servesFiles({ request, stream }: ModuleInfo): boolean {
  const ops = at(at(at(request, 'discriminator'), 'mapping'), 'list');
  return stream && at(at(request, 'discriminator'), 'propertyName') === 'op' && ops !== undefined;
}

/** What is in a folder: folders first, then by name. `more` is set if there was more than one can look at. */
export async function listFolder(
  target: Target,
  module: string,
  path: string,
  signal: AbortSignal,
): Promise<{ entries: Entry[]; more: boolean }> {
  const entries: Entry[] = [];
  for await (const item of target.stream(module, { op: 'list', path }, { signal })) {
    if (entries.length === MAX_ENTRIES) return { entries, more: true };
    const [name, kind] = [at(item, 'name'), at(item, 'kind')];
    if (typeof name !== 'string' || typeof kind !== 'string' || name.length > MAX_NAME) continue;
    entries.push({ name, kind, size: Number(at(item, 'size')) || 0, modified: Number(at(item, 'modified')) * 1000 });
  }
  const rank = ({ kind }: Entry): number => (kind === 'folder' ? 0 : 1);
  entries.sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
  return { entries, more: false };
}

export class Transfer {
  readonly key = crypto.randomUUID();
  state: 'running' | 'done' | 'failed' | 'cancelled' = 'running';
  done = 0;
  size: number;
  error: BVErrorInfo | Error | null = null;
  readonly started = performance.now();
  took = 0;
  readonly name: string;
  readonly direction: 'down' | 'up';
  /** Kept when it has ended, well or not. */
  readonly ended: Promise<void>;

  #abort = new AbortController();
  #changed: () => void;

  constructor(
    name: string,
    direction: 'down' | 'up',
    size: number,
    changed: () => void,
    run: (own: Transfer, signal: AbortSignal) => Promise<void>,
  ) {
    this.name = name;
    this.direction = direction;
    this.size = size;
    this.#changed = changed;
    this.ended = this.#run(run);
  }

  cancel(): void {
    if (this.state === 'running') this.#end('cancelled');
    this.#abort.abort();
  }

  /** So many bytes are through. */
  progress(done: number): void {
    this.done = done;
    this.#changed();
  }

  async #run(run: (own: Transfer, signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await run(this, this.#abort.signal);
      if (this.state === 'running') this.#end('done');
    } catch (error) {
      if (this.state !== 'running') return;
      this.error = error as Error;
      this.#end('failed');
    }
  }

  #end(state: Transfer['state']): void {
    this.state = state;
    this.took = performance.now() - this.started;
    this.#changed();
  }
}

/** Fetch a file into a sink. It is only kept if it is whole and its SHA-256 is that of the original. */
export async function fetchFile(
  target: Target,
  module: string,
  path: string,
  sink: Sink,
  own: Transfer,
  signal: AbortSignal,
): Promise<void> {
  const hash = new Sha256();
  let done = 0;
  let whole: Value = null;
  try {
    for await (const item of target.stream(module, { op: 'read', path }, { signal }) as AsyncIterable<Value>) {
      if (item instanceof Uint8Array) {
        hash.update(item);
        await sink.write(item);
        own.progress((done += item.length));
      } else {
        const size = at(item, 'size');
        if (typeof size === 'number') own.size = size;
        whole = item;
      }
    }
    if (signal.aborted) throw signal.reason;
    if (at(whole, 'sha256') !== hash.hex() || at(whole, 'size') !== done)
      throw new Error('The file came damaged. Fetch it again.');
    await sink.close();
  } catch (error) {
    await sink.abort().catch(() => {});
    throw error;
  }
}

/** Send a file into a folder. What is there of an interrupted copy of the same file is not sent again. */
export async function sendFile(
  target: Target,
  module: string,
  folder: string,
  file: File,
  own: Transfer,
  signal: AbortSignal,
): Promise<void> {
  const kept = Promise.withResolvers<Value>();
  const request = { op: 'write', path: folder || '.', name: file.name, size: file.size };
  let number = 0;
  let last: Value = null;
  kept.promise.catch(() => {});
  try {
    for await (const item of target.stream(module, request, { signal, items: pieces(file, kept.promise, own) })) {
      if (++number === 2) kept.resolve(item);
      last = item;
    }
    if (signal.aborted) throw signal.reason;
    if (at(last, 'sha256') === undefined)
      throw new Error('The peer did not say that the file is whole. Send it again.');
  } catch (error) {
    kept.reject(error);
    throw error;
  } finally {
    // Without an answer the pieces would wait for ever.
    kept.reject(new Error('over'));
  }
}

async function* pieces(file: File, kept: Promise<Value>, own: Transfer): AsyncGenerator<Uint8Array | Json> {
  const there = await kept;
  let [hash, begin] = await sameBeginning(file, Number(at(there, 'offset')), at(there, 'sha256'));
  yield { offset: begin };
  own.progress(begin);
  for (; begin < file.size; begin += PIECE) {
    const piece = await bytesOf(file, begin);
    hash.update(piece);
    yield piece;
    own.progress(Math.min(begin + PIECE, file.size));
  }
  yield { sha256: hash.hex() };
}

/** The hash of the beginning that the peer has already, and its length; 0 if it is another. */
async function sameBeginning(file: File, offset: number, sha256: unknown): Promise<[Sha256, number]> {
  const hash = new Sha256();
  if (!(offset > 0 && offset <= file.size)) return [hash, 0];
  for (let begin = 0; begin < offset; begin += PIECE)
    hash.update(await bytesOf(file, begin, Math.min(begin + PIECE, offset)));
  return hash.hex() === sha256 ? [hash, offset] : [new Sha256(), 0];
}

async function bytesOf(file: File, begin: number, end = begin + PIECE): Promise<Uint8Array> {
  return new Uint8Array(await file.slice(begin, end).arrayBuffer());
}

/** A field of something that came from a peer, if it has that. */
function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key)
    ? (value as Record<string, unknown>)[key]
    : undefined;
}
