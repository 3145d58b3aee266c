/**
 * Whom an account trusts, proved from its own key (docs/protocol-identity.md, "Contacts").
 *
 * The discovery server keeps all certificates and hands them out. It is believed in nothing: {@link ContactBook}
 * takes what it shows as evidence and asks what follows from one's own signatures. Trust begins with a statement of
 * one's own key: a pin, or an invite with the redeem of who held its token. `rotate` blobs lead on from its key to the
 * one that the contact has now. A contact is usable if such a chain exists, ends in the key that the server names,
 * bears the name that the server gives it, and nothing else that was ever proved in this page speaks against it.
 *
 * The server can withhold, repeat, reorder and mix what was really signed. Why that does not help it, rule by rule,
 * stands at the head of runtime/bonevalue/wire/contacts.py, which decides in the same way. What is left to it is to
 * show nothing, and after a reload of the page to show an old state that was once true; `refuse` is the remedy.
 */

import { BVError } from '../errors.ts';
import { sign, type SignedBlob } from './blobs.ts';
import { byName } from './collections.ts';
import {
  Ledger,
  mismatch,
  openEntry,
  openRemoval,
  type Contact,
  type Evidence,
  type Newest,
  type Removal,
} from './evidence.ts';
import type { SigningKey } from './keys.ts';

/** The alias of one's own account. */
export const OWN_NAME = 'Us';
/** Most contacts that a book holds. */
const MAX_CONTACTS = 10_000;
/** Most removals by keys that were never contacts in this page that a book remembers. */
const MAX_REMOVALS = 4_096;

/** A contact that is proved. */
export interface VerifiedContact {
  name: string;
  key: string;
  fingerprint: string;
  /** What the contact called itself when it claimed our token; null if we claimed its token, or it is long ago. */
  username: string | null;
  /** When we trusted it, in ms since 1970. */
  since: number;
}

/** What one entry of the server came to: a contact, or the problem with it. */
export interface Verdict {
  name: string;
  contact?: VerifiedContact;
  problem?: BVError;
  /** To send as `updateContact`: it replaces a longer chain. */
  pin?: SignedBlob;
}

const conflict = (why: string): BVError => new BVError('contact_conflict', why);

/** The name is the server's word, and goes to people. */
const problemOf = (name: string, { code, message }: BVError): Verdict => ({
  name,
  problem: new BVError(code, `${name.replace(/[^ -~]/g, '?')}: ${message}`),
});

const contradicts = ({ issued, said }: Newest, since: number, ours: string): boolean =>
  issued >= since && (said.size > 1 || !said.has(ours));

/** Dated like the trust, not like this pin: it must not outlive a removal that came in between. */
const pinOf = ({ key, name, since }: VerifiedContact, keys: SigningKey): Promise<SignedBlob> =>
  sign({ kind: 'pin', ownerKey: keys.key, contactKey: key, alias: name, issued: since }, keys);

/**
 * The verified contacts of one account, in memory.
 *
 * What takes something in is done in the order of the calls. It looks at signatures first; then all changes in one
 * step, so what is asked in between is answered as before.
 */
export class ContactBook {
  readonly #keys: SigningKey;
  readonly #refuse: ReadonlySet<string>;
  readonly #ledger: Ledger;
  // What the server shows now, and what follows from it.
  #shown: Evidence[] = [];
  #verdicts = new Map<string, Verdict>();
  #names = new Map<string, string>();
  readonly #removals = new Map<string, Removal & { remove: SignedBlob }>();
  #turn: Promise<unknown> = Promise.resolve();

  /**
   * @param keys the account's own.
   * @param refuse fingerprints never to talk to, in canonical form.
   */
  constructor(keys: SigningKey, refuse: ReadonlySet<string> = new Set()) {
    this.#keys = keys;
    this.#refuse = refuse;
    this.#ledger = new Ledger(keys.key);
  }

  // -- asking --------------------------------------------------------------------------------------------------------

  /** One's own public key. */
  get publicKey(): string {
    return this.#keys.key;
  }

  /** The verified contact of that alias. */
  contact(name: string): VerifiedContact | undefined {
    return this.#verdicts.get(name)?.contact;
  }

  /** The alias of a verified contact's key; `Us` for one's own. */
  nameOf(key: string): string | undefined {
    return key === this.publicKey ? OWN_NAME : this.#names.get(key);
  }

  /** The key of a verified contact; one's own for `Us`. */
  keyOf(name: string): string | undefined {
    return name === OWN_NAME ? this.publicKey : this.contact(name)?.key;
  }

  /** The aliases of all verified contacts, sorted, without `Us`. */
  names(): string[] {
    return [...this.#names.values()].sort();
  }

  /** What there is to say of each alias that the server names now, sorted; without pins to send. */
  verdicts(): Verdict[] {
    return [...this.#verdicts.values()].sort(byName);
  }

  /** The removals in force, to be passed on to other programs of one's own account. */
  removals(): SignedBlob[] {
    return [...this.#removals.values()].filter((removal) => !this.#isOver(removal)).map(({ remove }) => remove);
  }

  // -- what the server shows -----------------------------------------------------------------------------------------

  /** Take the server's whole list, after a login. One verdict an entry; what is not in it is gone. */
  replace(entries: Contact[], nowMs: number): Promise<Verdict[]> {
    return this.#inTurn(async () => {
      const opened = await this.#open(entries.slice(0, MAX_CONTACTS));
      this.#shown = opened.map((entry) => this.#ledger.learn(entry, nowMs));
      this.#settle();
      const told = await Promise.all(this.#shown.map((evidence) => this.#told(evidence)));
      return [...told, ...entries.slice(MAX_CONTACTS).map(surplus)];
    });
  }

  /**
   * Take one entry, of a `userAdd`; it replaces what was shown under its name.
   *
   * It may speak against other contacts too: these are then not usable either, see {@link verdicts}.
   */
  receive(entry: Contact, nowMs: number): Promise<Verdict> {
    return this.#inTurn(async () => {
      const others = this.#without(entry.name);
      if (others.length >= MAX_CONTACTS) return surplus(entry);
      const [opened] = await this.#open([entry]);
      const evidence = this.#ledger.learn(opened!, nowMs);
      this.#shown = [...others, evidence];
      this.#settle();
      return this.#told(evidence);
    });
  }

  /** The server says that the contact is gone, without proof: it is not usable, and its live links stay. */
  discard(name: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#shown = this.#without(name);
      this.#settle();
    });
  }

  /**
   * Take a removal: by a contact, or by another program of one's own account.
   *
   * @param name the alias that the server says it is about; null if it came from a program of one's own.
   * @returns the key of the account with which trust ended, as it is now.
   * @throws BVError `identity_mismatch`: it is not a valid removal of that contact, or trust was made anew since; live
   * links stay. `busy`: it is valid, but of nobody known, and no more of these are remembered.
   */
  remove(name: string | null, remove: SignedBlob, nowMs: number): Promise<string> {
    return this.#inTurn(async () => {
      const removal = await openRemoval(remove, this.publicKey, nowMs);
      const { other, until } = removal;
      const key = this.#ledger.last(other);
      if ((name === null ? key : (this.keyOf(name) ?? key)) !== key) throw mismatch('the removal is of somebody else');
      const known = this.#removals.get(other);
      if (!known && this.#removals.size >= MAX_REMOVALS && !this.#ledger.mentions(other)) {
        throw new BVError('busy', 'too many removals of unknown accounts');
      }
      if (!known || known.until < until) this.#removals.set(other, { ...removal, remove });
      this.#ledger.void(other, { until, code: 'not_trusted', why: 'trust was ended' });
      const isOver = this.#isOver(removal);
      if (!isOver) this.#shown = this.#without(name);
      this.#settle();
      if (isOver) throw mismatch('the removal is older than the trust');
      return key;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #open(entries: Contact[]) {
    return Promise.all(entries.map((entry) => openEntry(entry, this.publicKey)));
  }

  #without(name: string | null): Evidence[] {
    return this.#shown.filter((evidence) => evidence.name !== name);
  }

  /** Whether trust was made anew since a removal. */
  #isOver({ other, until }: Removal): boolean {
    return (this.#ledger.newestOfKeys().get(this.#ledger.last(other))?.issued ?? -1) > until;
  }

  // -- what follows --------------------------------------------------------------------------------------------------

  /** Judge everything that is shown now by everything that was ever proved. */
  #settle(): void {
    const proved: VerifiedContact[] = [];
    const problems = new Map<string, BVError>();
    const times = new Map<string, number>();
    const owners = new Map<string, Set<string>>();
    for (const evidence of this.#shown) {
      const { name, key } = evidence;
      times.set(name, (times.get(name) ?? 0) + 1);
      const found = this.#prove(evidence);
      if (found instanceof BVError) {
        problems.set(name, found);
      } else {
        proved.push(found);
        owners.set(key, (owners.get(key) ?? new Set()).add(name));
      }
    }
    const aliases = this.#ledger.newestOfAliases();
    const keys = this.#ledger.newestOfKeys();
    for (const { name, key, since } of proved) {
      const others = [...owners.get(key)!].sort();
      if (times.get(name)! > 1) problems.set(name, conflict('the server shows it twice'));
      else if (others.length > 1) {
        problems.set(name, conflict(`${others.join(' and ')} are one account`));
      } else if (contradicts(aliases.get(name)!, since, key) || contradicts(keys.get(key)!, since, name)) {
        problems.set(name, conflict('something newer says otherwise'));
      }
    }
    this.#verdicts = new Map(proved.map((contact) => [contact.name, { name: contact.name, contact }]));
    for (const [name, problem] of problems) this.#verdicts.set(name, problemOf(name, problem));
    this.#names = new Map(proved.filter(({ name }) => !problems.has(name)).map(({ name, key }) => [key, name]));
  }

  /** The contact that an entry proves by itself, or what is wrong with it. */
  #prove({ name, key, fingerprint, statements, problem }: Evidence): VerifiedContact | BVError {
    if (problem) return problem;
    const ledger = this.#ledger;
    const live = statements.filter((word) => !ledger.voidOf(word));
    if (!live.length) {
      const reason = statements[0] && ledger.voidOf(statements[0]);
      return reason ? new BVError(reason.code, reason.why) : mismatch('nothing that we signed proves its key');
    }
    const lines = live.map((word) => ledger.lineage(word.key));
    const flaw = lines.map((line) => ledger.flawOf(line)).find(Boolean);
    if (flaw) return new BVError('identity_conflict', flaw);
    if (live.some((word) => word.alias !== name)) return conflict('its certificates are for another alias');
    const end = lines[0]!.at(-1)!;
    if (lines.some((line) => line.at(-1) !== end)) return conflict('its certificates are for different keys');
    const keys = lines.flat();
    if (keys.includes(this.publicKey)) return conflict('its key is our own');
    if (keys.some((each) => this.#refuse.has(ledger.prints.get(each)!))) {
      return new BVError('not_trusted', 'its key is refused');
    }
    if (end !== key) {
      const proved = `what we signed leads to ${ledger.prints.get(end)}`;
      return mismatch(`the server says its key is ${fingerprint}, and ${proved}: not adopted`);
    }
    const username = live.find((word) => word.username)?.username ?? null;
    return { name, key, fingerprint, username, since: Math.max(...live.map((word) => word.issued)) };
  }

  /** The verdict on an entry, with the pin that shall replace its chain. */
  async #told({ name, statements }: Evidence): Promise<Verdict> {
    const verdict = this.#verdicts.get(name)!;
    const { contact } = verdict;
    const isPinned = ({ pin, key, issued }: Evidence['statements'][0]) =>
      pin && key === contact!.key && issued === contact!.since;
    return !contact || statements.some(isPinned) ? verdict : { ...verdict, pin: await pinOf(contact, this.#keys) };
  }

  // -- signing -------------------------------------------------------------------------------------------------------

  /**
   * The blob that ends trust with a contact; also with one that was trusted and has a problem.
   *
   * @throws BVError `not_trusted`: this account signed nothing for that alias.
   */
  async makeRemove(name: string, nowMs: number): Promise<SignedBlob> {
    const contact = this.contact(name);
    const shown = this.#shown.filter((evidence) => evidence.name === name);
    const words = shown.flatMap(({ statements }) => statements).filter(({ alias }) => alias === name);
    if (!contact && !words.length) throw new BVError('not_trusted', `${name} is no contact of this account`);
    // What the server says, if our own word leads there: else it could have us part with somebody else.
    const reached = words.flatMap((word) => this.#ledger.lineage(word.key));
    const removedKey = contact?.key ?? shown.find(({ key }) => reached.includes(key))?.key ?? reached[0]!;
    const issued = Math.max(nowMs, contact?.since ?? 0, ...(contact ? [] : words.map((word) => word.issued)));
    return sign({ kind: 'remove', removerKey: this.publicKey, removedKey, issued }, this.#keys);
  }

  /**
   * Change one's own key.
   *
   * @returns the `rotate` blob, signed by old and new key, and a pin of every verified contact, signed by the new key.
   * Whoever is not a verified contact now is none afterwards.
   */
  async rotate(newKeys: SigningKey, issued: number): Promise<{ rotate: SignedBlob; pins: SignedBlob[] }> {
    const contacts = this.verdicts().flatMap(({ contact }) => contact ?? []);
    const rotate = { kind: 'rotate', oldKey: this.publicKey, newKey: newKeys.key, issued } as const;
    return {
      rotate: await sign(rotate, this.#keys, newKeys),
      pins: await Promise.all(contacts.map((contact) => pinOf(contact, newKeys))),
    };
  }
}

const surplus = ({ name }: { name: string }): Verdict =>
  problemOf(name, new BVError('too_many_trusted', `more than ${MAX_CONTACTS} contacts`));
