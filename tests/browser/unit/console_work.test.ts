/** Calls, streams and files of the console, with a peer that is made up. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Asking } from '../../../server/browser/console/logic/asking.ts';
import { Sha256 } from '../../../server/browser/console/logic/sha256.ts';
import {
  fetchFile,
  listFolder,
  sendFile,
  servesFiles,
  Transfer,
} from '../../../server/browser/console/logic/transfers.ts';
import { KEPT, Watching } from '../../../server/browser/console/logic/watching.ts';
import type { ModuleInfo, Target, Value } from '../../../server/browser/src/types.ts';

const FILE = Uint8Array.from({ length: 700_001 }, (_, index) => (index * 31) & 0xff);
const HASH = new Sha256().update(FILE).hex();

/** A target of which only the given methods are there. */
function target(parts: object): Target {
  return parts as Target;
}

/** Kept when `done` is true; it looks after each change. */
function until(begin: (changed: () => void) => () => boolean): Promise<void> {
  return new Promise((resolve) => {
    let done = (): boolean => false;
    const look = (): void => {
      if (done()) resolve();
    };
    done = begin(look);
    look();
  });
}

async function hexOf(data: Uint8Array): Promise<string> {
  const hash = await crypto.subtle.digest('SHA-256', data as BufferSource);
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

test('SHA-256 piece by piece is that of the whole', async () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]) {
    const data = FILE.subarray(0, length);
    const hash = new Sha256();
    for (let at = 0; at < length; at += 37) hash.update(data.subarray(at, Math.min(at + 37, length)));
    const before = hash.hex();
    assert.equal(before, await hexOf(data), String(length));
    assert.equal(hash.update(data).hex(), await hexOf(Uint8Array.from([...data, ...data])));
  }
  assert.equal(HASH, await hexOf(FILE));
});

test('the module for files is known by what it takes', () => {
  const module = { name: 'Team.Files', doc: '', stream: true, response: null };
  const request = { discriminator: { propertyName: 'op', mapping: { list: '#/$defs/List' } } };
  assert.equal(servesFiles({ ...module, request }), true);
  assert.equal(servesFiles({ ...module, request, stream: false }), false);
  for (const other of [null, {}, { discriminator: 'op' }, { discriminator: { propertyName: 'op' } }]) {
    assert.equal(servesFiles({ ...module, request: other } as ModuleInfo), false);
  }
});

test('a folder is listed in order, without what is no entry', async () => {
  async function* stream(): AsyncGenerator<Value> {
    yield { name: 'b', kind: 'file', size: 1, modified: 2 };
    yield { name: 'a', kind: 'file', size: 1, modified: 2 };
    yield 'nonsense';
    yield { name: 7, kind: 'file' };
    yield { name: 'x'.repeat(100_000), kind: 'file' };
    yield { name: 'z', kind: 'folder', size: 0, modified: 2 };
  }
  const { entries, more } = await listFolder(target({ stream }), 'Files', '', new AbortController().signal);
  assert.deepEqual(
    entries.map(({ name }) => name),
    ['z', 'a', 'b'],
  );
  assert.equal(entries[0]!.modified, 2000);
  assert.equal(more, false);
});

/** Fetch a file of which the peer says that it has this hash. */
async function fetched(sha256: string): Promise<{ transfer: Transfer; saved: Uint8Array[]; ended: string }> {
  const saved: Uint8Array[] = [];
  let ended = '';
  const sink = {
    write: async (data: Uint8Array) => void saved.push(data),
    close: async () => void (ended = 'closed'),
    abort: async () => void (ended = 'aborted'),
  };
  async function* stream(): AsyncGenerator<Value> {
    yield { path: 'a', size: FILE.length, modified: 1 };
    yield { offset: 0 };
    yield FILE.subarray(0, 400_000);
    yield FILE.subarray(400_000);
    yield { size: FILE.length, sha256 };
  }
  const transfer = new Transfer(
    'a',
    'down',
    0,
    () => {},
    (own, signal) => fetchFile(target({ stream }), 'Files', 'a', sink, own, signal),
  );
  await transfer.ended;
  return { transfer, saved, ended };
}

test('a file that comes is kept if it is whole', async () => {
  const { transfer, saved, ended } = await fetched(HASH);
  assert.deepEqual([transfer.state, transfer.done, transfer.size, ended], ['done', FILE.length, FILE.length, 'closed']);
  assert.equal(saved.length, 2);
});

test('a file that comes damaged is thrown away', async () => {
  const { transfer, ended } = await fetched('0'.repeat(64));
  assert.deepEqual([transfer.state, ended], ['failed', 'aborted']);
  assert.match(transfer.error!.message, /damaged/);
});

/** Send a file to a peer that has so many bytes of it. */
async function sent(offset: number, sha256: string): Promise<{ transfer: Transfer; items: Value[] }> {
  const items: Value[] = [];
  async function* stream(
    _name: string,
    request: unknown,
    options: { items: AsyncIterable<Value> },
  ): AsyncGenerator<Value> {
    assert.deepEqual(request, { op: 'write', path: 'docs', name: 'a.bin', size: FILE.length });
    yield { path: 'docs/a.bin' };
    yield { offset, sha256 };
    for await (const item of options.items) items.push(item);
    yield { written: FILE.length };
    yield { size: FILE.length, sha256: HASH };
  }
  const file = new File([FILE], 'a.bin');
  const transfer = new Transfer(
    'a.bin',
    'up',
    file.size,
    () => {},
    (own, signal) => sendFile(target({ stream }), 'Files', 'docs', file, own, signal),
  );
  await transfer.ended;
  return { transfer, items };
}

test('a file is sent in pieces, with its hash', async () => {
  const { transfer, items } = await sent(0, '');
  assert.deepEqual([transfer.state, transfer.done], ['done', FILE.length]);
  assert.deepEqual(items.at(0), { offset: 0 });
  assert.deepEqual(items.at(-1), { sha256: HASH });
  const bytes = items.slice(1, -1) as Uint8Array[];
  assert.ok(bytes.every(({ length }) => length <= 524_288));
  assert.equal(
    bytes.reduce((sum, { length }) => sum + length, 0),
    FILE.length,
  );
});

test('what the peer has already is not sent again, if it is the same', async () => {
  const half = await sent(300_000, new Sha256().update(FILE.subarray(0, 300_000)).hex());
  assert.deepEqual(half.items.at(0), { offset: 300_000 });
  assert.deepEqual(half.items.at(-1), { sha256: HASH });
  const other = await sent(300_000, HASH);
  assert.deepEqual(other.items.at(0), { offset: 0 });
  const longer = await sent(10 ** 9, HASH);
  assert.deepEqual(longer.items.at(0), { offset: 0 });
});

test('a peer that refuses a file ends its copy', async () => {
  async function* stream(): AsyncGenerator<Value> {
    throw new Error('these files are for reading only');
  }
  const transfer = new Transfer(
    'a',
    'up',
    1,
    () => {},
    (own, signal) => sendFile(target({ stream }), 'Files', '', new File([FILE], 'a'), own, signal),
  );
  await transfer.ended;
  assert.deepEqual([transfer.state, transfer.error?.message], ['failed', 'these files are for reading only']);
});

test('a copy that is cancelled says so, whatever comes after', async () => {
  const transfer = new Transfer(
    'a',
    'down',
    1,
    () => {},
    (_own, signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('x')))),
  );
  transfer.cancel();
  await transfer.ended;
  assert.deepEqual([transfer.state, transfer.error], ['cancelled', null]);
});

test('of a stream only the newest items are kept, all are counted', async () => {
  async function* stream(): AsyncGenerator<Value> {
    for (let number = 1; number <= KEPT + 50; number++) yield number;
  }
  let watching!: Watching;
  await until((changed) => {
    watching = new Watching(stream(), new AbortController(), changed);
    return () => watching.state === 'ended';
  });
  assert.deepEqual([watching.count, watching.items.length], [KEPT + 50, KEPT]);
  assert.deepEqual([watching.items[0]!.number, watching.items.at(-1)!.shown.text], [51, String(KEPT + 50)]);
});

test('of a stream of large items few are kept', async () => {
  async function* stream(): AsyncGenerator<Value> {
    for (let number = 0; number < 30; number++) yield new Uint8Array(500_000);
  }
  let watching!: Watching;
  await until((changed) => {
    watching = new Watching(stream(), new AbortController(), changed);
    return () => watching.state === 'ended';
  });
  assert.equal(watching.count, 30);
  assert.ok(watching.items.length < 10);
});

test('a stream that is paused takes no more; stopped, it ends the call', async () => {
  let given = 0;
  let left = false;
  async function* stream(): AsyncGenerator<Value> {
    try {
      for (;;) yield ++given;
    } finally {
      left = true;
    }
  }
  const abort = new AbortController();
  let watching!: Watching;
  await until((changed) => {
    watching = new Watching(stream(), abort, () => {
      if (watching.count === 3) watching.pause();
      changed();
    });
    return () => watching.state === 'paused';
  });
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(given, 3);
  watching.resume();
  watching.stop();
  assert.equal(watching.state, 'stopped');
  assert.equal(abort.signal.aborted, true);
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual([watching.count, left], [3, true]);
});

test('an item that was on its way when somebody paused is shown when they go on', async () => {
  let send!: (value: Value) => void;
  async function* stream(): AsyncGenerator<Value> {
    for (;;) yield await new Promise<Value>((resolve) => (send = resolve));
  }
  let watching!: Watching;
  await until((changed) => {
    watching = new Watching(stream(), new AbortController(), changed);
    setTimeout(() => send(1));
    return () => watching.count === 1;
  });
  await new Promise((resolve) => setTimeout(resolve));
  watching.pause();
  send(2);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(watching.count, 1);
  watching.resume();
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(watching.count, 2);
  watching.stop();
});

test('a stream that fails keeps what came before', async () => {
  async function* stream(): AsyncGenerator<Value> {
    yield 1;
    throw new Error('the link is lost');
  }
  let watching!: Watching;
  await until((changed) => {
    watching = new Watching(stream(), new AbortController(), changed);
    return () => watching.state === 'failed';
  });
  assert.deepEqual([watching.count, watching.error?.message], [1, 'the link is lost']);
});

test('all peers are asked, and each answer told', async () => {
  const [one, two] = [
    { name: 'bob', id: '1' },
    { name: 'bob', id: '2' },
  ];
  async function* callAll(): AsyncGenerator<object> {
    yield { peer: one, response: 'yes', error: null };
    yield { peer: two, response: undefined, error: new Error('busy') };
  }
  let asking!: Asking;
  await until((changed) => {
    asking = new Asking(
      {
        target: target({ callAll, peers: () => [one, two] }),
        module: 'M',
        request: null,
        timeout: 1000,
        everyone: true,
      },
      changed,
    );
    return () => asking.state === 'over';
  });
  assert.deepEqual([asking.good, asking.total, asking.asked], [1, 2, 2]);
  assert.deepEqual(
    asking.answers.map(({ peer, shown, error }) => [peer?.id, shown?.text, error?.message]),
    [
      ['1', '"yes"', undefined],
      ['2', undefined, 'busy'],
    ],
  );
});

test('a call that is cancelled is told to be, and its error is not shown', async () => {
  const call = (_module: string, _request: Value, { signal }: { signal: AbortSignal }): Promise<Value> =>
    new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('cancelled'))));
  const asking = new Asking(
    { target: target({ call, peers: () => [] }), module: 'M', request: null, timeout: 1000, everyone: false },
    () => {},
  );
  asking.cancel();
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual([asking.state, asking.answers], ['cancelled', []]);
});
