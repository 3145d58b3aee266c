/**
 * What the certificates that a server shows really prove, and what was ever proved in the life of this page.
 *
 * Entries are read in two steps. {@link openEntry} checks signatures, which takes turns of the event loop, and knows
 * nothing. Then a {@link Ledger} learns, at once, what is proved; it says nothing about who is trusted. Facts only add
 * up, so it does not matter in what order they come, how often, or spread over how many messages. What follows from
 * them is in contacts.ts, whose head tells the whole reasoning.
 */

import { BVError } from '../errors.ts';
import { decode, isSignedBy, signersOf, type Blob, type BlobOf, type Invite, type SignedBlob } from './blobs.ts';
import { hex, type Bytes } from './bytes.ts';
import { fingerprint } from './keys.ts';

/** Most key changes that are remembered; those beyond prove nothing. */
const MAX_ROTATIONS = 16_384;

/** What the server knows of one contact: to be proved from one's own key. */
export interface Contact {
  name: string;
  publicKey: Bytes;
  certificates: SignedBlob[];
}

/** Our own word: since `issued` this key has this alias. */
export interface Statement {
  alias: string;
  key: string;
  issued: number;
  /** Whether it is a pin; else an invite and its redeem, which tells the username. */
  pin: boolean;
  username: string | null;
}

/** An entry whose signatures were checked. */
export interface OpenedEntry {
  name: string;
  key: string;
  /** Each certificate, and whether it is one to be looked at that all signed whom it names. */
  certificates: { value: Blob; signed: boolean }[];
  /** Fingerprints of the keys in it. */
  prints: Map<string, string>;
  /** What is malformed. */
  problem?: string;
}

/** What one entry shows: statements, or what is wrong with it. */
export interface Evidence {
  name: string;
  key: string;
  fingerprint: string;
  statements: Statement[];
  problem?: BVError;
}

/** A valid removal: the account that it parts from ours, and until when it voids statements about it. */
export interface Removal {
  other: string;
  until: number;
}

/** Statements about a key up to this time count no more, and why. */
export interface Void {
  until: number;
  code: string;
  why: string;
}

/** When we last said something of an alias (or key), and which keys (or aliases) we said then. */
export interface Newest {
  issued: number;
  said: Set<string>;
}

export const mismatch = (why: string): BVError => new BVError('identity_mismatch', why);

/** The keys that a certificate may lead to. */
const keysIn = (value: Blob): string[] =>
  value.kind === 'pin'
    ? [value.contactKey]
    : value.kind === 'redeem'
      ? [value.claimerKey]
      : value.kind === 'rotate'
        ? [value.newKey]
        : [];

/** Check the signatures of what an entry shows to the account of this key. Never rejects: `problem` tells. */
export async function openEntry({ name, publicKey, certificates }: Contact, ownKey: string): Promise<OpenedEntry> {
  const key = hex(publicKey);
  const opened: OpenedEntry = { name, key, certificates: [], prints: new Map() };
  const keys = [key];
  try {
    const values = certificates.map(({ blob }) => decode(blob));
    opened.certificates = await Promise.all(
      values.map(async (value, index) => {
        keys.push(...keysIn(value));
        return { value, signed: concerns(value, ownKey) && (await isSignedBy(certificates[index]!, signersOf(value))) };
      }),
    );
  } catch (error) {
    opened.problem = (error as BVError).message;
  }
  await Promise.all(keys.map(async (each) => opened.prints.set(each, await fingerprint(each))));
  return opened;
}

const concerns = (value: Blob, ownKey: string): boolean =>
  value.kind === 'redeem' ||
  value.kind === 'rotate' ||
  (value.kind === 'pin' ? value.ownerKey : value.kind === 'invite' && value.inviterKey) === ownKey;

/**
 * Check a removal. One by somebody else is dated no later than now: nobody can end trust that is yet to be made.
 *
 * @throws BVError `identity_mismatch`: malformed, not signed by who it says, or not between this account and another.
 */
export async function openRemoval(remove: SignedBlob, ownKey: string, nowMs: number): Promise<Removal> {
  let value;
  try {
    value = decode(remove.blob, 'remove');
  } catch (error) {
    throw mismatch((error as BVError).message);
  }
  const { removerKey, removedKey, issued } = value;
  const isOurs = removerKey === ownKey;
  if (!(await isSignedBy(remove, [removerKey])) || isOurs === (removedKey === ownKey)) {
    throw mismatch('the removal is forged, or not of this account');
  }
  return isOurs ? { other: removedKey, until: issued } : { other: removerKey, until: Math.min(issued, nowMs) };
}

/** The facts of the contacts of the account with this key; only what it signed begins trust. */
export class Ledger {
  readonly #ownKey: string;
  readonly #statements = new Map<string, Statement>();
  readonly #successor = new Map<string, string>();
  readonly #forked = new Set<string>();
  readonly #claimer = new Map<string, string>();
  readonly #voids = new Map<string, Void>();
  /** The fingerprint of each key that a statement ever led to. */
  readonly prints = new Map<string, string>();

  constructor(ownKey: string) {
    this.#ownKey = ownKey;
  }

  // -- asking --------------------------------------------------------------------------------------------------------

  /** The key and those that it was changed to, in order, each once. */
  lineage(key: string): string[] {
    const line = new Set<string>();
    for (let later: string | undefined = key; later && !line.has(later); later = this.#successor.get(later)) {
      line.add(later);
    }
    return [...line];
  }

  /** What the key was changed to in the end. */
  last(key: string): string {
    return this.lineage(key).at(-1)!;
  }

  /** What is wrong with the changes of a key that shall be used; undefined if nothing. */
  flawOf(line: string[]): string | undefined {
    if (line.some((key) => this.#forked.has(key))) return 'its key was changed to two different ones';
    return this.#successor.has(line.at(-1)!) ? 'its key changes run in a circle: an old password?' : undefined;
  }

  /** Why a statement counts no more, if so: something speaks against any key that it leads to. */
  voidOf({ key, issued }: Statement): Void | undefined {
    return this.lineage(key)
      .map((each) => this.#voids.get(each))
      .find((known) => known && known.until >= issued);
  }

  /** Whether a statement ever led to this key or to one that it was changed to. */
  mentions(key: string): boolean {
    const line = this.lineage(key);
    return [...this.#statements.values()].some((word) => this.lineage(word.key).some((each) => line.includes(each)));
  }

  /** Our newest word on each alias: the keys that it had, as they are now. */
  newestOfAliases(): Map<string, Newest> {
    return this.#newest((word) => [word.alias, this.last(word.key)]);
  }

  /** Our newest word on each key, as it is now: the aliases that it had. */
  newestOfKeys(): Map<string, Newest> {
    return this.#newest((word) => [this.last(word.key), word.alias]);
  }

  #newest(view: (word: Statement) => [subject: string, said: string]): Map<string, Newest> {
    const result = new Map<string, Newest>();
    for (const word of this.#statements.values()) {
      const [subject, said] = view(word);
      const known = result.get(subject);
      if (!known || known.issued < word.issued) result.set(subject, { issued: word.issued, said: new Set([said]) });
      else if (known.issued === word.issued) known.said.add(said);
    }
    return result;
  }

  // -- reading -------------------------------------------------------------------------------------------------------

  /** Learn what an entry proves. Never throws: the evidence tells the problem. */
  learn(entry: OpenedEntry, nowMs: number): Evidence {
    const { name, key, prints } = entry;
    const evidence: Evidence = { name, key, fingerprint: prints.get(key)!, statements: [] };
    try {
      if (entry.problem) throw mismatch(entry.problem);
      const statements = [...this.#pins(entry), ...this.#redeems(entry, nowMs)];
      for (const word of statements) {
        this.#statements.set(JSON.stringify(Object.values(word)), word);
        this.prints.set(word.key, prints.get(word.key)!);
      }
      this.#rotations(entry, statements, nowMs);
      evidence.statements = statements;
    } catch (error) {
      evidence.problem = mismatch(`forged: ${(error as BVError).message}`);
    }
    return evidence;
  }

  *#signed<K extends Blob['kind']>(
    { certificates }: OpenedEntry,
    kind: K,
    concerns: (value: BlobOf<K>) => boolean,
  ): Generator<BlobOf<K>> {
    for (const { value, signed } of certificates) {
      if (value.kind !== kind || !concerns(value as BlobOf<K>)) continue;
      if (!signed) throw mismatch(`${kind} not signed by whom it names`);
      yield value as BlobOf<K>;
    }
  }

  *#pins(entry: OpenedEntry): Generator<Statement> {
    for (const pin of this.#signed(entry, 'pin', ({ ownerKey }) => ownerKey === this.#ownKey)) {
      yield { alias: pin.alias, key: pin.contactKey, issued: pin.issued, pin: true, username: null };
    }
  }

  *#redeems(entry: OpenedEntry, nowMs: number): Generator<Statement> {
    const invites = new Map<string, Invite>();
    for (const invite of this.#signed(entry, 'invite', ({ inviterKey }) => inviterKey === this.#ownKey)) {
      invites.set(invite.tokenKey, invite);
    }
    for (const redeem of this.#signed(entry, 'redeem', ({ tokenKey }) => invites.has(tokenKey))) {
      const invite = invites.get(redeem.tokenKey)!;
      if (redeem.inviterKey !== this.#ownKey || redeem.issued >= invite.expires) {
        throw mismatch('its token was claimed too late, or elsewhere');
      }
      this.#learnClaim(invite, redeem.claimerKey, nowMs);
      const { claimerKey: key, claimerUsername: username } = redeem;
      yield { alias: invite.alias, key, issued: invite.issued, pin: false, username };
    }
  }

  /** Learn the key changes that lead on from these statements; others prove nothing. */
  #rotations(entry: OpenedEntry, statements: Statement[], nowMs: number): void {
    const reached = new Set(statements.flatMap((word) => this.lineage(word.key)));
    const read = new Set<Blob>();
    for (let before = -1; before < read.size; ) {
      before = read.size;
      // Step by step away from the statements: of two changes of one key all programs learn the same one first.
      const near = new Set(reached);
      for (const rotate of this.#signed(entry, 'rotate', (next) => near.has(next.oldKey) && !read.has(next))) {
        read.add(rotate);
        this.#learnRotation(rotate.oldKey, rotate.newKey, entry.prints, nowMs);
        for (const later of this.lineage(rotate.newKey)) reached.add(later);
      }
    }
  }

  // -- learning: facts that only add up ------------------------------------------------------------------------------

  /** Let statements about a key, and the keys that it was changed to, count no more up to a time. */
  void(key: string, reason: Void): void {
    for (const later of this.lineage(key)) {
      if ((this.#voids.get(later)?.until ?? -1) < reason.until) this.#voids.set(later, reason);
    }
  }

  #learnClaim(invite: Invite, claimer: string, nowMs: number): void {
    const first = this.#claimer.get(invite.tokenKey) ?? claimer;
    this.#claimer.set(invite.tokenKey, first);
    if (first !== claimer) {
      const why = 'two accounts claimed its token: remove the contact, give a new token';
      this.#disown([first, claimer], 'contact_conflict', why, Math.max(nowMs, invite.issued));
    }
  }

  #learnRotation(old: string, later: string, prints: Map<string, string>, nowMs: number): void {
    const known = this.#successor.get(old);
    if (!known) {
      if (this.#successor.size >= MAX_ROTATIONS) return;
      this.#successor.set(old, later);
      this.prints.set(later, prints.get(later)!);
      const reason = this.#voids.get(old);
      if (reason) this.void(later, reason);
    } else if (known !== later && !this.#forked.has(old)) {
      this.#forked.add(old);
      const why = 'its key was changed to two different ones: ask which is theirs, remove it, trust anew';
      this.#disown([old, later], 'identity_conflict', why, nowMs);
    }
  }

  /** Void all that was said of these keys so far, also what a program of ours said whose clock is ahead. */
  #disown(keys: string[], code: string, why: string, nowMs: number): void {
    const lines = new Set(keys.flatMap((key) => this.lineage(key)));
    const words = [...this.#statements.values()].filter((word) => lines.has(word.key));
    const until = words.reduce((latest, word) => Math.max(latest, word.issued), nowMs);
    for (const key of keys) this.void(key, { until, code, why });
  }
}
