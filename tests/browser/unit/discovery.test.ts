/** The pump of a session, over a socket and a clock that do what the test says. */

import { test } from 'node:test';
import assert from 'node:assert/strict';

import { addressOf, DiscoveryClient } from '../../../server/browser/src/discovery.ts';
import { fromHex } from '../../../server/browser/src/wire/bytes.ts';
import { ContactBook } from '../../../server/browser/src/wire/contacts.ts';
import { AccountKeys } from '../../../server/browser/src/wire/keys.ts';
import { Session } from '../../../server/browser/src/wire/session.ts';
import type { Event } from '../../../server/browser/src/wire/session_events.ts';
import { FakeClock } from './fake_clock.ts';
import { session as vectors } from './vectors.ts';

const URL_ = 'ws://127.0.0.1:8008';
const KEYS = await AccountKeys.fromStretched(fromHex(vectors.stretched));
const HELLO = vectors.transcripts[0]!.steps.find((step: any) => step.text?.includes('"hello"')) as { text: string };
const WELCOME = [
  '{"type":"setPeerId","data":{"peerId":"100","ticket":"t"}}',
  '{"type":"iceServers","data":[]}',
  '{"type":"userList","data":["Us"]}',
  '{"type":"contacts","data":{"contacts":[]}}',
];

class FakeSocket {
  static readonly OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = 0;
  bufferedAmount = 0;
  readonly sent: any[] = [];
  closedWith: number | null = null;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readonly url: string;

  constructor(url: string) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(code: number): void {
    this.closedWith = code;
    this.readyState = 3;
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.();
  }

  tell(...texts: unknown[]): void {
    for (const data of texts) this.onmessage?.({ data });
  }

  lose(code = 1006, reason = ''): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  saidOf(type: string): any[] {
    return this.sent.filter((message) => message.type === type);
  }
}

/** A client, what it reports, and the page that it is in. */
class Scene {
  readonly events: Event[] = [];
  readonly session = new Session('alice', vectors.realm, KEYS, new ContactBook(KEYS), { jitter: () => 0.5 });
  readonly client: DiscoveryClient;
  readonly clock: FakeClock;
  readonly page = new EventTarget();
  heard: (event: Event) => void = () => {};
  over: Promise<unknown> = Promise.resolve();

  constructor(clock: FakeClock) {
    this.clock = clock;
    this.client = new DiscoveryClient(URL_, this.session, (event) => {
      this.events.push(event);
      this.heard(event);
    });
  }

  get socket(): FakeSocket {
    return FakeSocket.all.at(-1)!;
  }

  async start(): Promise<FakeSocket> {
    this.over = this.client.run().then(() => 'over', (error) => error);
    await this.until(() => FakeSocket.all.length);
    return this.socket;
  }

  /** The server takes the client in, on the socket that is there. */
  async admit(peers = ''): Promise<FakeSocket> {
    const { socket } = this;
    socket.open();
    socket.tell(HELLO.text);
    await this.until(() => socket.saidOf('login').length);
    socket.tell(...WELCOME, `{"type":"peerList","data":{"peers":[${peers}]}}`);
    await this.until(() => this.session.state === 'online');
    return socket;
  }

  async online(): Promise<FakeSocket> {
    await this.start();
    return this.admit();
  }

  /** What is signed and verified takes its own time: wait for it. */
  async until(condition: () => unknown): Promise<void> {
    for (let turn = 0; !condition(); turn++) {
      if (turn === 2000) throw new Error(`still not so: ${condition}`);
      await this.clock.settle();
    }
  }
}

/** A test in a page of its own, with a clock of its own. */
function scene(name: string, run: (scene: Scene) => Promise<void>): void {
  test(name, () =>
    FakeClock.run(async (clock) => {
      const scene = new Scene(clock);
      const { WebSocket, addEventListener, fetch } = globalThis;
      FakeSocket.all = [];
      Object.assign(globalThis, {
        WebSocket: FakeSocket,
        addEventListener: scene.page.addEventListener.bind(scene.page),
        fetch: async () => ({ json: async () => ({ allowed: true }) }),
      });
      try {
        await run(scene);
        await scene.client.close();
        await scene.over;
      } finally {
        Object.assign(globalThis, { WebSocket, addEventListener, fetch });
      }
    }),
  );
}

test('addresses', () => {
  const page = { protocol: 'https:', host: 'example.org:8443' };
  const url = (text: string): string => addressOf(text, page).url;
  assert.deepEqual(addressOf('', page), { url: 'wss://example.org:8443', host: 'example.org' });
  assert.equal(addressOf('', { protocol: 'http:', host: '127.0.0.1:8008' }).url, 'ws://127.0.0.1:8008');
  assert.equal(url('example.net'), 'wss://example.net');
  assert.equal(url('wss://example.net:444/bv'), 'wss://example.net:444/bv');
  assert.equal(url('WSS://example.net'), 'wss://example.net');
  assert.equal(url('localhost'), 'ws://localhost');
  assert.deepEqual(addressOf('[::1]:8008', page), { url: 'ws://[::1]:8008', host: '[::1]' });
  const schemes = ['http://example.org', 'ws://example.org', 'wss://'];
  for (const wrong of [...schemes, 'wss://example.org:99999', 'user@example.org', 'a b', 'x/\n']) {
    assert.throws(() => url(wrong), { code: 'config' });
  }
});

scene('logs in, hands on what is said, and logs off', async (scene) => {
  const socket = await scene.online();
  assert.equal(socket.url, URL_);
  assert.deepEqual(scene.events.map(({ type }) => type), ['wentOnline']);
  socket.tell('{"type":"peerConnect","data":{"name":"Us","id":"7"}}');
  await scene.until(() => scene.session.peers.has('7'));
  await scene.client.close();
  assert.equal(socket.closedWith, 1000);
  assert.equal(await scene.over, 'over');
  assert.deepEqual(scene.events.map(({ type }) => type), ['wentOnline', 'peerConnected', 'wentOffline']);
});

scene('takes messages strictly in their order, whatever verifying them takes', async (scene) => {
  const { steps } = vectors.transcripts.find(({ name }) => name === 'trust')! as { steps: any[] };
  const texts = steps.filter((step) => step.text?.includes('"carol"')).map((step) => step.text as string);
  const wanted = steps.filter((step) => step.text?.includes('"carol"')).flatMap((step) => step.events ?? []);
  const socket = await scene.online();
  scene.events.length = 0;
  socket.tell(...texts);
  await scene.until(() => scene.events.length === wanted.length);
  assert.deepEqual(scene.events.map(({ type }) => type), wanted.map(({ type }) => type));
});

scene('answers, refusals and silence of the server come back to who asked', async (scene) => {
  await assert.rejects(scene.client.request('requestIceServers', {}), { code: 'unavailable' });
  const socket = await scene.online();
  const told = scene.client.request('requestIceServers', {});
  const refused = scene.client.request('updateContact', { pin: new Uint8Array(1), signature: new Uint8Array(1) });
  const late = scene.client.request('requestIceServers', {}, 5);
  const lost = scene.client.request('requestIceServers', {});
  const [first, second] = socket.sent.slice(-4);
  socket.tell(`{"type":"error","data":{"code":"not_trusted","message":"no"},"ref":"${second.ref}"}`);
  await assert.rejects(refused, { code: 'not_trusted', message: 'no' });
  socket.tell(`{"type":"iceServers","data":[{"urls":["stun:a"]}],"ref":"${first.ref}"}`);
  assert.deepEqual(await told, [{ urls: ['stun:a'] }]);
  const deadline = assert.rejects(late, { code: 'deadline' });
  await scene.clock.advance(5);
  await deadline;
  const gone = assert.rejects(lost, { code: 'unavailable' });
  socket.lose();
  await gone;
  assert.deepEqual(scene.events.map(({ type }) => type), ['wentOnline', 'iceServersChanged', 'wentOffline']);
});

scene('comes back with the same id after a delay', async (scene) => {
  const socket = await scene.online();
  socket.lose(4003, 'busy');
  await scene.until(() => scene.session.state === 'waiting');
  await scene.clock.advance(0.9);
  assert.equal(FakeSocket.all.length, 1);
  await scene.clock.advance(0.2);
  assert.equal(FakeSocket.all.length, 2);
  const again = await scene.admit();
  assert.deepEqual(again.saidOf('login')[0].data.resume, { peerId: '100', ticket: 't' });
});

scene('is told that there is no coming back', async (scene) => {
  const socket = await scene.online();
  socket.lose(4504, 'session_ended');
  assert.equal(((await scene.over) as { code: string }).code, 'session_ended');
  assert.deepEqual(scene.events.map(({ type }) => type), ['wentOnline', 'wentOffline', 'ended']);
  await scene.clock.advance(100);
  assert.equal(FakeSocket.all.length, 1);
});

scene('gives up a socket that does not open', async (scene) => {
  const socket = await scene.start();
  await scene.clock.advance(9.9);
  assert.equal(socket.closedWith, null);
  await scene.clock.advance(0.2);
  assert.equal(socket.closedWith, 4000);
  await scene.clock.advance(2);
  assert.equal(FakeSocket.all.length, 2);
  assert.deepEqual(scene.events.map(({ type }) => type), ['attemptFailed']);
});

scene('asks once why it is not let in, and gives up if it is for its origin', async (scene) => {
  let asked = '';
  const fetch = async (url: URL): Promise<object> => {
    asked = String(url);
    return { json: async () => ({ allowed: false }) };
  };
  // Outside of a browser there is no page; in one, to set its location would leave it.
  Object.assign(globalThis, { fetch }, !globalThis.location && { location: { origin: 'https://page.example' } });
  const socket = await scene.start();
  socket.lose();
  assert.equal(((await scene.over) as { code: string }).code, 'origin_refused');
  assert.equal(asked, 'http://127.0.0.1:8008/origin');
});

// -- is the server there ----------------------------------------------------------------------------------------------

scene('asks a silent server, and leaves it within 45 s if it stays silent', async (scene) => {
  const socket = await scene.online();
  await scene.clock.advance(19);
  assert.equal(socket.saidOf('ping').length, 0);
  await scene.clock.advance(2);
  assert.deepEqual(socket.saidOf('ping'), [{ type: 'ping', data: {} }]);
  await scene.clock.advance(13);
  assert.equal(scene.session.state, 'online');
  await scene.clock.advance(1.5);
  assert.equal(scene.session.state, 'waiting');
  assert.equal(socket.closedWith, 4000);
  assert.equal(scene.events.at(-1)!.type, 'wentOffline');
});

scene('stays with a server that answers, and asks nothing while it speaks', async (scene) => {
  const socket = await scene.online();
  for (let minute = 0; minute < 3; minute++) {
    await scene.clock.advance(20.5);
    socket.tell('{"type":"done","data":{}}');
    for (let turn = 0; turn < 4; turn++) {
      await scene.clock.advance(15);
      socket.tell('{"type":"peerDisconnect","data":"1"}');
    }
  }
  assert.equal(scene.session.state, 'online');
  assert.equal(socket.saidOf('ping').length, 3);
});

scene('takes a late timer for no proof that the server is gone', async (scene) => {
  const socket = await scene.online();
  await scene.clock.advance(21);
  scene.clock.now += 600; // the page was frozen: what the server said is still to come
  await scene.clock.advance(0);
  assert.equal(scene.session.state, 'online');
  assert.equal(socket.saidOf('ping').length, 2);
  socket.tell('{"type":"done","data":{}}', '{"type":"done","data":{}}');
  await scene.clock.advance(19);
  assert.equal(scene.session.state, 'online');
});

scene('notices a dead server also where timers come once a minute', async (scene) => {
  const socket = await scene.online();
  for (let minute = 0; minute < 3; minute++) {
    scene.clock.now += 60;
    await scene.clock.advance(0);
  }
  assert.equal(scene.session.state, 'waiting');
  assert.equal(socket.saidOf('ping').length, 2);
});

scene('asks at once when the network may have changed, and then hurries', async (scene) => {
  const socket = await scene.online();
  await scene.clock.advance(5);
  scene.page.dispatchEvent(new globalThis.Event('online'));
  scene.page.dispatchEvent(Object.assign(new globalThis.Event('pageshow'), { persisted: true }));
  await scene.until(() => socket.saidOf('ping').length);
  await scene.clock.advance(3.1);
  assert.equal(FakeSocket.all.length, 2);
  assert.equal(socket.saidOf('ping').length, 1);
  assert.equal(scene.session.state, 'connecting');
});

scene('a network that is back is tried at once, also while a socket is being opened', async (scene) => {
  const socket = await scene.online();
  socket.lose();
  await scene.until(() => scene.session.state === 'waiting');
  for (const count of [2, 3]) {
    scene.page.dispatchEvent(new globalThis.Event('online'));
    await scene.clock.advance(0);
    assert.equal(FakeSocket.all.length, count);
  }
  assert.deepEqual(FakeSocket.all.slice(1).map(({ closedWith }) => closedWith), [4000, null]);
});

scene('a ping goes before what waits to be sent', async (scene) => {
  const socket = await scene.online();
  const candidate = { to: '7', session: new Uint8Array(16), candidate: 'x' };
  for (let number = 0; number < 400; number++) scene.client.send('peerCandidate', candidate);
  const before = socket.sent.length;
  scene.client.doubt();
  await scene.clock.advance(0.1);
  assert.equal(socket.sent[before].type, 'ping');
  await scene.clock.advance(1);
  const sent = socket.sent.length;
  assert.ok(sent > before + 12 && sent < before + 24, `${sent - before} in about a second`);
});

// -- what goes wrong --------------------------------------------------------------------------------------------------

scene('waits with what a slow server does not take', async (scene) => {
  const socket = await scene.online();
  socket.bufferedAmount = 2 ** 20;
  const sent = socket.sent.length;
  scene.client.send('peerCandidate', { to: '7', session: new Uint8Array(16), candidate: 'x' });
  await scene.clock.advance(3);
  assert.equal(socket.sent.length, sent);
  socket.bufferedAmount = 0;
  await scene.clock.advance(1);
  assert.equal(socket.sent.length, sent + 1);
});

scene('leaves a server that says more than it can take in', async (scene) => {
  const socket = await scene.online();
  const long = `{"type":"peerDisconnect","data":"${'x'.repeat(2 ** 20)}"}`;
  for (let number = 0; number < 17; number++) socket.tell(long);
  assert.equal(socket.closedWith, 4000);
  await scene.until(() => scene.session.state === 'waiting');
  assert.equal(FakeSocket.all.length, 1);
});

scene('a page that is shown for the first time changes nothing', async (scene) => {
  const socket = await scene.start();
  scene.page.dispatchEvent(Object.assign(new globalThis.Event('pageshow'), { persisted: false }));
  await scene.clock.advance(0);
  assert.equal(scene.socket, socket);
});

scene('leaves a server that breaks the protocol, by binary frames too', async (scene) => {
  for (const wrong of ['no JSON', new ArrayBuffer(3), '{"type":"setPeerId","data":{"peerId":"1","ticket":""}}']) {
    const before = FakeSocket.all.length;
    if (!before) await scene.start();
    while (FakeSocket.all.length === before) await scene.clock.advance(1);
    const socket = await scene.admit();
    socket.tell(wrong, '{"type":"peerConnect","data":{"name":"Us","id":"7"}}');
    await scene.until(() => scene.session.state === 'waiting');
    assert.equal(socket.closedWith, 4000);
    assert.match((scene.events.at(-1) as { reason: string }).reason, /broke the protocol/);
    assert.equal(scene.session.peers.size, 0);
  }
});

scene('what a listener does comes after what it was told of, and its faults are reported', async (scene) => {
  const reported: unknown[] = [];
  const { reportError } = globalThis;
  globalThis.reportError = (fault) => reported.push(fault);
  try {
    const asked: string[] = [];
    const depths: number[] = [];
    let depth = 0;
    scene.heard = ({ type }) => {
      asked.push(type);
      depths.push(depth++);
      const candidate = { to: '7', session: new Uint8Array(16), candidate: 'x' };
      if (type === 'wentOnline') scene.client.send('peerCandidate', candidate);
      depth--;
      throw new Error('a fault of the page');
    };
    await scene.start();
    const socket = await scene.admit('{"name":"Us","id":"7"}');
    await scene.until(() => asked.length === 2);
    assert.deepEqual(asked, ['wentOnline', 'peerConnected']);
    assert.deepEqual(depths, [0, 0]);
    assert.equal(socket.saidOf('peerCandidate').length, 1);
    assert.equal(reported.length, 2);
    scene.heard = () => {};
  } finally {
    globalThis.reportError = reportError;
  }
});

scene('a log-off while the login is under way', async (scene) => {
  const socket = await scene.start();
  socket.open();
  socket.tell(HELLO.text);
  await scene.client.close();
  assert.equal(await scene.over, 'over');
  assert.equal(socket.closedWith, 1000);
  await scene.clock.advance(60);
  assert.equal(FakeSocket.all.length, 1);
});
