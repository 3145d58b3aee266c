/** What the console knows, with a library that is made up. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Store } from '../../../server/browser/console/logic/store.ts';
import type { BVErrorInfo, BoneValue, PeerInfo } from '../../../server/browser/src/types.ts';

/** As much of the library as the store uses; `create` gives further ones, which are kept in `made`. */
class Library {
  static made: Library[] = [];
  listeners = new Map<string, ((...values: unknown[]) => void)[]>();
  online = false;
  username = '';
  password = '';
  present: PeerInfo[] = [];
  asked = 0;
  /** What `connect` and `changePassword` do before they are done. */
  static connecting: () => Promise<void> = async () => {};
  static changing: (library: Library) => Promise<void> = async () => {};

  create(): Library {
    const made = new Library();
    Library.made.push(made);
    return made;
  }

  on(event: string, listener: (...values: unknown[]) => void): void {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  emit(event: string, ...values: unknown[]): void {
    for (const listener of this.listeners.get(event) ?? []) listener(...values);
  }

  async connect(_host: string, username: string, password: string): Promise<void> {
    await Library.connecting();
    Object.assign(this, { username, password, online: true });
  }

  async disconnect(): Promise<void> {
    this.online = false;
  }

  async changePassword(): Promise<void> {
    await Library.changing(this);
  }

  peers(): PeerInfo[] {
    return this.present;
  }

  contacts(): [] {
    return [];
  }

  links(): [] {
    return [];
  }

  get(): object {
    const modules = async (): Promise<unknown> => {
      this.asked++;
      return [
        { name: 'bv.modules' },
        { name: 'B', doc: 7, stream: 'yes' },
        { doc: 'no name' },
        null,
        { name: 'A', stream: true },
      ];
    };
    return { modules };
  }
}

function refusal(code: string): BVErrorInfo {
  return Object.assign(new Error(code), { code });
}

async function signedIn(): Promise<{ store: Store; library: Library }> {
  Object.assign(Library, { made: [], connecting: async () => {}, changing: async () => {} });
  const store = new Store(new Library() as unknown as BoneValue);
  await store.signIn('alice', 'secret', { visible: false });
  return { store, library: Library.made[0]! };
}

/** Until the changes so far are drawn. */
function drawn(store: Store): Promise<void> {
  return new Promise((resolve) => {
    const end = store.subscribe(() => {
      end();
      resolve();
    });
    store.changed();
  });
}

test('signing in, and out', async () => {
  const { store, library } = await signedIn();
  assert.deepEqual([store.phase, store.bv.username, store.ended], ['in', 'alice', null]);
  await store.signOut();
  assert.deepEqual([store.phase, library.online], ['out', false]);
});

test('a sign-in that is refused says why', async () => {
  const { store } = await signedIn();
  await store.signOut();
  Library.connecting = async () => {
    throw refusal('login_refused');
  };
  await assert.rejects(store.signIn('alice', 'wrong', {}), /login_refused/);
  assert.equal(store.phase, 'out');
});

test('a sign-in that was cancelled is no fault', async () => {
  const { store } = await signedIn();
  await store.signOut();
  const waiting = Promise.withResolvers<void>();
  Library.connecting = () => waiting.promise;
  const signing = store.signIn('alice', 'secret', {});
  assert.equal(store.phase, 'connecting');
  await store.signOut();
  waiting.reject(refusal('cancelled'));
  await signing;
  assert.equal(store.phase, 'out');
});

test('a session that ends for good leads back to signing in, one that is lost for a while does not', async () => {
  const { store, library } = await signedIn();
  library.emit('disconnect');
  assert.equal(store.phase, 'in');
  library.emit('disconnect', refusal('session_ended'));
  assert.deepEqual([store.phase, store.ended?.code], ['out', 'session_ended']);
});

test('what an earlier session says is passed over', async () => {
  const { store, library } = await signedIn();
  await store.signOut();
  await store.signIn('bob', 'secret', {});
  library.emit('notice', refusal('token_used'));
  library.emit('disconnect', refusal('session_ended'));
  assert.deepEqual([store.phase, store.notices], ['in', []]);
});

test('who comes and goes is announced, and remembered by name', async () => {
  const { store, library } = await signedIn();
  library.present = [{ name: 'bob', id: '7' }];
  library.emit('peerconnect', library.present[0]);
  await drawn(store);
  assert.deepEqual([store.announcement, store.peers.length], ['bob 7 came online.', 1]);
  library.present = [];
  library.emit('peerdisconnect', '7');
  await drawn(store);
  assert.deepEqual([store.announcement, store.nameOf('7')], ['bob 7 went offline.', 'bob']);
});

test('of notices the last few are kept', async () => {
  const { store } = await signedIn();
  for (let number = 1; number <= 8; number++) store.notify(`number ${number}`);
  assert.deepEqual([store.notices.length, store.notices[0]!.text], [5, 'number 4']);
  store.dismiss(store.notices[0]!.key);
  assert.equal(store.notices[0]!.text, 'number 5');
});

test('a peer is asked once what it serves, and what makes no sense of it is left out', async () => {
  const { store, library } = await signedIn();
  const modules = await store.modules('7');
  assert.deepEqual(
    modules.map(({ name, doc, stream, request }) => [name, doc, stream, request]),
    [
      ['A', '', true, null],
      ['B', '', false, null],
      ['bv.modules', '', false, null],
    ],
  );
  await store.modules('7');
  assert.equal(library.asked, 1);
  await store.modules('7', true);
  assert.equal(library.asked, 2);
  library.emit('peerdisconnect', '7');
  await store.modules('7');
  assert.equal(library.asked, 3);
});

test('after a change of password the session is begun anew', async () => {
  const { store, library } = await signedIn();
  Library.changing = async (changing) => changing.emit('disconnect', refusal('session_ended'));
  await store.changePassword('new secret');
  assert.deepEqual([store.phase, store.ended, library.online], ['in', null, false]);
  assert.equal(Library.made[1]!.password, 'new secret');
  assert.match(store.notices[0]!.text, /password is changed/);
});

test('a change of password that is refused changes nothing', async () => {
  const { store, library } = await signedIn();
  Library.changing = async () => {
    throw refusal('weak_password');
  };
  await assert.rejects(store.changePassword('x'), /weak_password/);
  assert.deepEqual([store.phase, store.bv], ['in', library as unknown as BoneValue]);
});

test('if the session ends before the change of password is known to be done, one has to sign in', async () => {
  const { store } = await signedIn();
  Library.changing = async (changing) => {
    changing.emit('disconnect', refusal('session_ended'));
    throw refusal('unavailable');
  };
  await assert.rejects(store.changePassword('new secret'), /unavailable/);
  assert.deepEqual([store.phase, store.ended?.code], ['out', 'session_ended']);
});
