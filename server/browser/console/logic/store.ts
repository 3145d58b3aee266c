/** What the console knows: one's own account, who is there, what is under way. Components follow its changes. */

import type {
  BVErrorInfo,
  BoneValue,
  ConnectOptions,
  ContactInfo,
  Json,
  LinkInfo,
  ModuleInfo,
  PeerInfo,
} from '../../src/types.ts';
import { clip } from './format.ts';
import { Monitor } from './monitor.ts';
import { presenceText } from './presence.ts';
import { Transfer } from './transfers.ts';

/** Milliseconds in which changes are drawn together. */
const TOGETHER = 60;
const MAX_NOTICES = 5;
const MAX_MODULES = 1000;
/** Letters of a module's name, as the protocol has it, and of its description. */
const MAX_NAME = 200;
const MAX_DOC = 5000;
/** Peers that are gone whose alias is remembered. */
const MAX_REMEMBERED = 1000;

export interface Notice {
  key: number;
  text: string;
  error: BVErrorInfo | null;
}

export class Store {
  bv: BoneValue;
  phase: 'out' | 'connecting' | 'in' = 'out';
  /** Why one is signed out, if that was not asked for. */
  ended: BVErrorInfo | null = null;
  peers: PeerInfo[] = [];
  contacts: ContactInfo[] = [];
  links = new Map<string, LinkInfo>();
  notices: Notice[] = [];
  /** Who came and went just now, for screen readers. */
  announcement = '';
  transfers: Transfer[] = [];

  #root: BoneValue;
  #options: ConnectOptions = {};
  /** The password is being changed; and the end of the session that came of it. */
  #renewing = false;
  #lost: BVErrorInfo | null = null;
  #watchers = new Set<() => void>();
  #timer = 0;
  #keys = 0;
  #names = new Map<string, string>();
  #came: PeerInfo[] = [];
  #went: PeerInfo[] = [];
  #monitors = new Map<string, Monitor>();
  #modules = new Map<string, Promise<ModuleInfo[]>>();

  constructor(root: BoneValue) {
    this.#root = this.bv = root;
  }

  subscribe(watcher: () => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  /** Something has changed: draw it soon. */
  readonly changed = (): void => {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      this.#refresh();
      for (const watcher of this.#watchers) watcher();
    }, TOGETHER);
  };

  async signIn(username: string, password: string, options: ConnectOptions): Promise<void> {
    this.phase = 'connecting';
    this.#options = options;
    await this.#connect(username, password);
  }

  async #connect(username: string, password: string): Promise<void> {
    const options = this.#options;
    const bv = this.#root.create();
    this.#forget();
    this.bv = bv;
    this.ended = null;
    this.#listen(bv);
    this.changed();
    try {
      await bv.connect('', username, password, options);
      if (this.bv === bv) this.phase = 'in';
    } catch (error) {
      if (this.bv !== bv) return; // signed out meanwhile
      this.phase = 'out';
      throw error;
    } finally {
      this.changed();
    }
  }

  register(username: string, password: string, options: { realm?: string }): Promise<void> {
    return this.#root.register('', username, password, options);
  }

  async signOut(): Promise<void> {
    const bv = this.bv;
    for (const transfer of this.transfers) transfer.cancel();
    this.phase = 'out';
    this.bv = this.#root;
    this.#forget();
    this.changed();
    await bv.disconnect();
  }

  /** Change the password. The server then ends all sessions of the account, this one too: it is begun anew. */
  async changePassword(password: string): Promise<void> {
    const { bv } = this;
    this.#renewing = true;
    try {
      await bv.changePassword(password);
    } catch (error) {
      if (this.#lost) this.#end(this.#lost);
      throw error;
    } finally {
      this.#renewing = false;
    }
    // What stands in the way of the new session is shown where one signs in.
    await this.#connect(bv.username, password).catch((error: BVErrorInfo) => (this.ended = error));
    await bv.disconnect();
    this.notify('Your password is changed. Give it to your other programs, too.');
  }

  /** Tell about something that no button was pressed for. */
  notify(text: string, error: BVErrorInfo | null = null): void {
    this.notices = [...this.notices, { key: ++this.#keys, text, error }].slice(-MAX_NOTICES);
    this.changed();
  }

  dismiss(key: number): void {
    this.notices = this.notices.filter((notice) => notice.key !== key);
    this.changed();
  }

  /** The alias of a peer, also if it has just gone. Empty if it was never seen. */
  nameOf(id: string): string {
    return this.#names.get(id) ?? '';
  }

  monitor(id: string): Monitor {
    let monitor = this.#monitors.get(id);
    if (!monitor) this.#monitors.set(id, (monitor = new Monitor(this.bv, id)));
    return monitor;
  }

  /** What a peer serves; it is asked once, until `again`. */
  modules(id: string, again = false): Promise<ModuleInfo[]> {
    let asked = again ? undefined : this.#modules.get(id);
    if (!asked) {
      asked = this.bv.get(id).modules().then(checkModules);
      this.#modules.set(id, asked);
      asked.catch(() => this.#modules.delete(id));
    }
    return asked;
  }

  /** Begin to copy a file. */
  transfer(
    name: string,
    direction: 'down' | 'up',
    size: number,
    run: (own: Transfer, signal: AbortSignal) => Promise<void>,
  ): Transfer {
    const transfer = new Transfer(name, direction, size, this.changed, run);
    this.transfers = [transfer, ...this.transfers];
    this.changed();
    return transfer;
  }

  dismissTransfers(): void {
    this.transfers = this.transfers.filter(({ state }) => state === 'running');
    this.changed();
  }

  #listen(bv: BoneValue): void {
    const changed = (): void => {
      if (this.bv === bv) this.changed();
    };
    bv.on('connect', changed);
    bv.on('link', changed);
    bv.on('newuser', changed);
    bv.on('userremove', changed);
    bv.on('notice', (error) => this.bv === bv && this.notify('', error));
    bv.on('peerconnect', (peer) => {
      this.#came.push(peer);
      this.#modules.delete(peer.id);
      changed();
    });
    bv.on('peerdisconnect', (id) => {
      this.#went.push({ id, name: this.nameOf(id) });
      this.#modules.delete(id);
      changed();
    });
    bv.on('disconnect', (error) => {
      if (this.bv !== bv) return;
      if (error && this.#renewing) this.#lost = error;
      else if (error && this.phase === 'in') this.#end(error);
      this.changed();
    });
  }

  #end(error: BVErrorInfo): void {
    this.phase = 'out';
    this.ended = error;
    this.#forget();
  }

  #refresh(): void {
    this.peers = this.bv.peers();
    this.contacts = this.bv.contacts();
    this.links = new Map(this.bv.links().map((link) => [link.peer.id, link]));
    for (const { id, name } of this.peers) this.#names.set(id, name);
    for (const id of this.#names.keys()) {
      if (this.#names.size <= MAX_REMEMBERED + this.peers.length) break;
      this.#names.delete(id);
    }
    const text = presenceText(this.#came, this.#went);
    if (text) this.announcement = text;
    for (const { id } of this.#went) this.#monitors.delete(id);
    this.#came = [];
    this.#went = [];
  }

  #forget(): void {
    this.#lost = null;
    this.notices = [];
    this.transfers = [];
    this.announcement = '';
    this.#monitors.clear();
    this.#modules.clear();
    this.#names.clear();
  }
}

/** A list of modules as a peer should have sent it; what is not so is left out. */
function checkModules(modules: ModuleInfo[]): ModuleInfo[] {
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  const json = (value: Json | undefined): Json => value ?? null;
  return (Array.isArray(modules) ? modules : [])
    .filter((module) => module && text(module.name) && module.name.length <= MAX_NAME)
    .slice(0, MAX_MODULES)
    .map(({ name, doc, stream, request, response }) => ({
      name,
      doc: clip(text(doc), MAX_DOC),
      stream: stream === true,
      request: json(request),
      response: json(response),
    }))
    .sort((a, b) => Number(isOfPlatform(a)) - Number(isOfPlatform(b)) || (a.name < b.name ? -1 : 1));
}

function isOfPlatform({ name }: ModuleInfo): boolean {
  return name.startsWith('bv.');
}
