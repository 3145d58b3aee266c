import { test } from 'node:test';
import assert from 'node:assert/strict';

import { BVError } from '../../../server/browser/src/errors.ts';
import { fromBase64url, fromHex, toBase64url } from '../../../server/browser/src/wire/bytes.ts';
import { ContactBook } from '../../../server/browser/src/wire/contacts.ts';
import { AccountKeys } from '../../../server/browser/src/wire/keys.ts';
import { Session } from '../../../server/browser/src/wire/session.ts';
import { session as vectors } from './vectors.ts';

type Step = Record<string, any>;

/** A value as the vectors have it: bytes as base64url, errors without texts for people. */
function plain(value: unknown): any {
  return JSON.parse(
    JSON.stringify(value, (_, item) => {
      if (item instanceof Uint8Array) return toBase64url(item);
      if (item instanceof BVError) return { code: item.code, retryAfter: item.retryAfter };
      return item;
    }),
  );
}

function described(event: object): Step {
  const { reason, ...shown } = plain(event);
  if (shown.type === 'wentOffline') assert.equal(typeof reason, 'string');
  return shown;
}

/** What is said, with the defaults left out that Python leaves out. */
function said(text: string): Step {
  const message = JSON.parse(text);
  if (message.data.visible === true) delete message.data.visible;
  return message;
}

const MOMENTS = new Set(['timer', 'sendTimer', 'retryIn', 'retryAfter', 'lifetimes']);

/** Moments are sums of fractions, which may be a hair apart. */
function rounded(value: any, isMoment = false): any {
  if (typeof value === 'number') return isMoment ? Math.round(value * 1e6) / 1e6 : value;
  if (Array.isArray(value)) return value.map((item) => rounded(item, isMoment));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, rounded(item, MOMENTS.has(name))]));
}

async function act(session: Session, step: Step): Promise<unknown> {
  const { now, code, reason, hurry, type, data } = step;
  switch (step.do) {
    case 'start':
    case 'stop':
      return session[step.do as 'start' | 'stop']();
    case 'opened':
      return session.opened(now);
    case 'unreachable':
      return session.unreachable('no route', now);
    case 'closed':
      return session.closed(code, reason, now);
    case 'abandoned':
      return session.abandoned('silent', now, hurry);
    case 'hurry':
      return session.hurry(now);
    case 'timer':
      return session.handleTimer(now);
    case 'receive':
      return session.receive(step.text, now, vectors.nowMs);
    case 'request':
      return session.request(type, data);
    case 'send':
      return session.send(type, data);
    case 'forget':
      return session.forget(step.ref);
    case 'removed': {
      const { blob, signatures } = step.remove;
      const remove = { blob: fromBase64url(blob)!, signatures: signatures.map(fromBase64url) };
      return (await session.removed(step.name, remove, vectors.nowMs)) ?? undefined;
    }
  }
  throw new Error(`nobody knows how to do ${step.do}`);
}

async function replay(transcript: (typeof vectors.transcripts)[number]): Promise<void> {
  const keys = await AccountKeys.fromStretched(fromHex(vectors.stretched));
  const { chance, visible } = transcript;
  const options = { jitter: () => chance, visible, agent: 'vectors' };
  const session = new Session('alice', vectors.realm, keys, new ContactBook(keys), options);
  let shown: Step = { state: 'offline', peers: {}, aliases: [], refused: {}, timer: null };
  for (const [number, wanted] of (transcript.steps as Step[]).entries()) {
    const { sent, events, fails, gives, sendTimer, state, peers, aliases, refused, timer, ...step } = wanted;
    const found: Step = { ...step };
    try {
      const given = await act(session, step);
      if (given !== undefined) found.gives = given;
    } catch (error) {
      if (!(error instanceof BVError)) throw error;
      found.fails = error.code;
    }
    const messages = session.dataToSend(step.now).map(said);
    const reported = session.events().map(described);
    if (messages.length) found.sent = messages;
    if (reported.length) found.events = reported;
    const now: Step = {
      state: session.state,
      peers: Object.fromEntries(session.peers),
      aliases: session.aliases,
      refused: Object.fromEntries(Array.from(session.refused, ([name, error]) => [name, error.code])),
      timer: session.timer(),
    };
    for (const [name, value] of Object.entries(now)) {
      if (JSON.stringify(value) !== JSON.stringify(shown[name])) found[name] = value;
    }
    shown = now;
    if (session.sendTimer() !== null) found.sendTimer = session.sendTimer();
    assert.deepEqual(rounded(found), rounded(wanted), `${transcript.name}, step ${number}`);
  }
}

for (const transcript of vectors.transcripts) {
  test(`as in Python: ${transcript.name}`, () => replay(transcript));
}

// -- what is too large for a transcript -------------------------------------------------------------------------------

const HELLO = (vectors.transcripts[0]!.steps as Step[]).find(({ text }) => text?.includes('"hello"'))!.text as string;

async function syncing(): Promise<Session> {
  const keys = await AccountKeys.fromStretched(fromHex(vectors.stretched));
  const session = new Session('alice', vectors.realm, keys, new ContactBook(keys), { jitter: () => 0.5 });
  session.start();
  session.opened(0);
  await session.receive(HELLO, 0, vectors.nowMs);
  await session.receive('{"type":"setPeerId","data":{"peerId":"100","ticket":"t"}}', 0, vectors.nowMs);
  return session;
}

const LISTS = [
  '{"type":"userList","data":["Us"]}',
  '{"type":"contacts","data":{"contacts":[]}}',
  '{"type":"peerList","data":{"peers":[]}}',
];

test('what waits for the lists is bounded, and comes after them', async () => {
  const came = (id: number): string => `{"type":"peerConnect","data":{"name":"Us","id":"${id}"}}`;
  const session = await syncing();
  for (let id = 0; id < 1024; id++) await session.receive(came(id), 0, vectors.nowMs);
  for (const text of LISTS) await session.receive(text, 0, vectors.nowMs);
  assert.equal(session.state, 'online');
  assert.equal(session.peers.size, 1023); // one of them is our own id
  const other = await syncing();
  for (let id = 0; id <= 1024; id++) await other.receive(came(id), 0, vectors.nowMs);
  assert.equal(other.state, 'waiting');
});

test('a hundred and fifty thousand peers are news', async () => {
  const session = await syncing();
  for (const text of LISTS.slice(0, 2)) await session.receive(text, 0, vectors.nowMs);
  for (let page = 0; page < 75; page++) {
    const peers = Array.from({ length: 2000 }, (_, number) => ({ name: 'Us', id: String(page * 2000 + number) }));
    const text = JSON.stringify({ type: 'peerList', data: { peers, more: page < 74 } });
    await session.receive(text, 0, vectors.nowMs);
  }
  assert.equal(session.events().length, 150_000); // we are online, and one of them is our own id
});

test('what can be asked and sent at once is bounded', async () => {
  const session = await syncing();
  for (const text of LISTS) await session.receive(text, 0, vectors.nowMs);
  session.dataToSend(0);
  const refs = Array.from({ length: 1024 }, () => session.request('requestIceServers', {}));
  assert.equal(new Set(refs).size, 1024);
  assert.throws(() => session.request('requestIceServers', {}), { code: 'busy' });
  for (const ref of refs) session.forget(ref);
  assert.throws(() => session.send('requestIceServers', {}), { code: 'busy' });
  session.dataToSend(0);
  session.send('requestIceServers', {});
});

test('a fault of ours is not taken for one of the server', async () => {
  const session = await syncing();
  await session.receive(LISTS[0], 0, vectors.nowMs);
  await session.receive(LISTS[1], 0, vectors.nowMs);
  const { replace } = ContactBook.prototype;
  ContactBook.prototype.replace = () => Promise.reject(new RangeError('a fault'));
  try {
    await assert.rejects(session.receive(LISTS[2], 0, vectors.nowMs), RangeError);
  } finally {
    ContactBook.prototype.replace = replace;
  }
});
