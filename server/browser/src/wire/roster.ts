/**
 * Whom an account may talk to, and which of their peers are online: aliases, contacts and presence kept together.
 *
 * The server's word makes an alias and its peers *known*; only certificates make it *proved* (the contact book's part).
 * What is known but not proved is shown, with what is wrong with it, and gets no connection.
 */

import { BVError } from '../errors.ts';
import type { SignedBlob } from './blobs.ts';
import { dropOldest } from './collections.ts';
import { OWN_NAME, type ContactBook, type Verdict } from './contacts.ts';
import type { Contact } from './evidence.ts';
import { aliasOf } from './keys.ts';
import { Presence } from './presence.ts';
import type { RosterEvent } from './session_events.ts';
import type { PeerEntry, Requests, ServerMessages } from './signals.ts';

/** Most aliases of an account, `Us` included. */
const MAX_ALIASES = 10_001;
/** Most online peers of all aliases. */
const MAX_PEERS = 262_144;

const bad = (what: string): BVError => new BVError('bad_message', what);

/** Digits would pass for a peer id and `*` for everyone: the server may not invent names. */
function checkAlias(name: string): string {
  let canonical;
  try {
    canonical = name === OWN_NAME ? name : aliasOf(name);
  } catch (error) {
    throw bad((error as Error).message);
  }
  if (canonical !== name) throw bad('an alias that is not in lower case');
  return name;
}

function checkCount(count: number, most: number): void {
  if (count > most) throw bad(`more than ${most} entries`);
}

/** The server's lists, as far as their pages have come. Every method throws `bad_message` for what cannot be. */
export class Snapshot {
  readonly names = new Set<string>();
  readonly contacts: Contact[] = [];
  readonly peers = new Map<string, string>();
  complete = false;
  #contactsFollow = false;

  /** Take aliases. */
  addNames(page: string[]): void {
    for (const name of [OWN_NAME, ...page.map(checkAlias)]) this.names.add(name);
    checkCount(this.names.size, MAX_ALIASES);
  }

  /** Take a page of what the server knows of the aliases' accounts. */
  addContacts({ contacts, more }: ServerMessages['contacts']): void {
    this.contacts.push(...contacts);
    this.#contactsFollow = more;
    checkCount(this.contacts.length, MAX_ALIASES);
  }

  /** Take a page of online peers; the last one completes the snapshot. */
  addPeers({ peers, more }: ServerMessages['peerList']): void {
    if (!this.names.size || this.#contactsFollow) throw bad('peerList before userList and contacts are complete');
    for (const { id, name } of peers) this.peers.set(id, name);
    checkCount(this.peers.size, MAX_PEERS);
    this.complete = !more;
  }
}

/** Everybody whom one account may talk to. What is asynchronous is one after the other: whoever calls sees to it. */
export class Roster {
  /** The aliases of which the server says something that does not hold, and what is wrong with it. */
  refused = new Map<string, BVError>();
  /** All aliases, in the server's order. */
  aliases: Set<string> = new Set();
  readonly #contacts: ContactBook;
  #events: RosterEvent[] = [];
  #pins: Requests['updateContact'][] = [];
  readonly #presence = new Presence((change) => this.#events.push(change));
  /** Who went without proof, key to alias, so that a later proof still cuts the links. */
  readonly #unproven = new Map<string, string>();

  /** @param contacts the account's contact book, kept up to date from here. */
  constructor(contacts: ContactBook) {
    this.#contacts = contacts;
  }

  /** Online peers, id to alias. */
  get peers(): ReadonlyMap<string, string> {
    return this.#presence.peers;
  }

  /** What there is to report, once. */
  events(): RosterEvent[] {
    return this.#events.splice(0);
  }

  /** What there is to send to the server, once: our signature in place of longer chains. */
  pins(): Requests['updateContact'][] {
    return this.#pins.splice(0);
  }

  /** When to call {@link handleTimer}, or null. */
  timer(): number | null {
    return this.#presence.timer();
  }

  /** It may be time to give somebody up. */
  handleTimer(now: number): void {
    this.#presence.handleTimer(now);
  }

  // -- what the server says -------------------------------------------------------------------------------------------

  /** Take complete lists. What differs from what was known is reported; a first list of aliases is no news. */
  async replace(snapshot: Snapshot, now: number, nowMs: number): Promise<void> {
    const book = this.#contacts;
    const { names } = snapshot;
    const known = this.aliases;
    this.aliases = names;
    const before = Array.from(known, (name) => [name, book.keyOf(name)] as const);
    this.#review(await book.replace(snapshot.contacts.filter(({ name }) => names.has(name)), nowMs));
    for (const [name, key] of before) {
      if (names.has(name)) this.#compare(name, key);
      else this.#forget(name, key, false);
    }
    for (const name of names) {
      if (known.size && !known.has(name) && book.keyOf(name)) this.#events.push({ type: 'userAdded', name });
    }
    this.#presence.replace(new Map([...snapshot.peers].filter(([, name]) => names.has(name))), now);
  }

  /** An account trusts us, or a contact's certificates changed. */
  async add({ name, contact }: ServerMessages['userAdd'], nowMs: number): Promise<void> {
    checkAlias(name);
    if (name === OWN_NAME || contact.name !== name) throw bad('userAdd of one alias with the contact of another');
    const oldKey = this.#contacts.keyOf(name);
    const wasProved = this.aliases.has(name) && oldKey;
    if (!this.aliases.has(name)) checkCount(this.aliases.size + 1, MAX_ALIASES);
    this.aliases.add(name);
    this.#review([await this.#contacts.receive(contact, nowMs)]);
    this.#compare(name, oldKey);
    if (!wasProved && this.#contacts.keyOf(name)) this.#events.push({ type: 'userAdded', name });
  }

  /** Trust with an account has ended, proven or not. */
  async remove({ name, remove }: ServerMessages['userRemove'], nowMs: number): Promise<void> {
    if (name === OWN_NAME) throw bad('userRemove of our own account');
    if (!this.aliases.delete(name)) {
      if (remove) await this.takeRemoval(remove, nowMs);
      return;
    }
    let key = this.#contacts.keyOf(name);
    let proven = false;
    try {
      if (remove) {
        key = await this.#contacts.remove(name, remove, nowMs);
        proven = true;
      }
    } catch (error) {
      this.#events.push({ type: 'contactRefused', name, error: asOurs(error) });
    }
    if (!proven) await this.#contacts.discard(name);
    this.#review([]);
    this.#forget(name, key, proven);
  }

  /**
   * Trust with somebody has ended, whom only the proof names: another process of ours knows of it, or the server tells
   * it late, or of an alias that we do not have.
   *
   * @returns the key that links must not have any more; null if it proves nothing.
   */
  async takeRemoval(remove: SignedBlob, nowMs: number): Promise<string | null> {
    const book = this.#contacts;
    const before = Array.from(this.aliases, (name) => [name, book.keyOf(name)] as const);
    let key: string;
    try {
      key = await book.remove(null, remove, nowMs);
    } catch (error) {
      asOurs(error);
      return null;
    }
    const ended = before.flatMap(([name, known]) => (known === key && !book.keyOf(name) ? [name] : []));
    for (const name of ended) {
      this.aliases.delete(name);
      await book.discard(name);
    }
    this.#review([]);
    const late = this.#unproven.get(key);
    this.#unproven.delete(key);
    // Trusted again since, it has nothing to fear.
    if (late && !book.nameOf(key)) this.#events.push({ type: 'userRemoved', name: late, key, proven: true });
    for (const name of ended) this.#forget(name, key, true);
    return key;
  }

  /** A peer is online. One of an alias that is not known is nobody to us. */
  appear({ name, id }: PeerEntry): void {
    if (this.aliases.has(name)) {
      checkCount(this.peers.size + 1, MAX_PEERS);
      this.#presence.appear(name, id);
    }
  }

  /** A peer has gone. */
  vanish(id: string): void {
    this.#presence.vanish(id);
  }

  // -- contacts -------------------------------------------------------------------------------------------------------

  /**
   * The book has changed: report what is newly wrong, and pass on the pins that it made. What was shown of one contact
   * may speak against others too, so all are looked at.
   */
  #review(verdicts: Verdict[]): void {
    const before = this.refused;
    this.refused = new Map();
    for (const { name, problem, pin } of [...this.#contacts.verdicts(), ...verdicts]) {
      if (problem && !this.refused.has(name)) {
        this.refused.set(name, problem);
        const known = before.get(name);
        if (known?.code !== problem.code || known.message !== problem.message) {
          this.#events.push({ type: 'contactRefused', name, error: problem });
        }
      }
      if (pin) this.#pins.push({ pin: pin.blob, signature: pin.signatures[0]! });
    }
  }

  /** Report it if the alias had a key, and now has another. */
  #compare(name: string, oldKey: string | null | undefined): void {
    const key = this.#contacts.keyOf(name);
    if (oldKey && key && key !== oldKey) this.#events.push({ type: 'keyChanged', name, oldKey });
  }

  #forget(name: string, key: string | null | undefined, proven: boolean): void {
    this.#presence.vanishAll(name);
    this.#events.push({ type: 'userRemoved', name, key: key ?? null, proven });
    if (key && !proven) {
      this.#unproven.set(key, name);
      dropOldest(this.#unproven, MAX_ALIASES);
    }
  }
}

/** An error that was foreseen; any other is a fault of ours, and goes on. */
function asOurs(error: unknown): BVError {
  if (error instanceof BVError) return error;
  throw error;
}
