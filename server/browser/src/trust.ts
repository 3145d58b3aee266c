/** Making, ending and carrying over trust between accounts, through the discovery server and proved without it. */

import type { DiscoveryClient } from './discovery.ts';
import { BVError } from './errors.ts';
import type { ContactInfo } from './types.ts';
import { byName } from './wire/collections.ts';
import type { ContactBook } from './wire/contacts.ts';
import { AccountKeys, aliasOf, checkPassword, randomBytes } from './wire/keys.ts';
import type { Session } from './wire/session.ts';
import { invite, makeToken, parseToken, redeem } from './wire/tokens.ts';

/** Pins in one message to the server. */
const PINS_A_MESSAGE = 100;

/** The trust of one account. */
export class Trust {
  readonly #keys: AccountKeys;
  readonly #contacts: ContactBook;
  readonly #session: Session;
  readonly #discovery: DiscoveryClient;

  /**
   * @param contacts whom the account trusts, proved; kept up to date by `session`.
   * @param session the session with the discovery server.
   * @param discovery asks the server.
   */
  constructor(keys: AccountKeys, contacts: ContactBook, session: Session, discovery: DiscoveryClient) {
    this.#keys = keys;
    this.#contacts = contacts;
    this.#session = session;
    this.#discovery = discovery;
  }

  /** Every alias with its fingerprint, or with what is wrong with it. */
  contacts(): ContactInfo[] {
    const known = this.#contacts.names().map((name) => this.#known(name));
    const refused = Array.from(this.#session.refused, ([name, { code }]) => ({ name, fingerprint: '', problem: code }));
    return [...known, ...refused].sort(byName);
  }

  #known(name: string): ContactInfo {
    return { name, fingerprint: this.#contacts.contact(name)!.fingerprint, problem: null };
  }

  /**
   * A token that makes whoever claims it known here as `alias`. Pass it on in secret: it works once.
   *
   * @throws BVError `bad_name`, `alias_taken`, `too_many_tokens`, `unavailable`, ...
   */
  async requestToken(alias: string): Promise<string> {
    const name = aliasOf(alias);
    const nowMs = Date.now();
    const expires = Math.floor(nowMs / 1000) + (this.#session.greeting?.tokenLifetime ?? 0);
    const token = await makeToken(this.#keys.key, randomBytes(16), expires);
    const { blob, signatures } = await invite(this.#keys, token, name, nowMs);
    await this.#discovery.request('requestToken', { name, invite: blob, signature: signatures[0]! });
    return token.text;
  }

  /**
   * Trust whoever made this token, as `alias`; gives the fingerprint to compare.
   *
   * @throws BVError `token_invalid`, `token_expired`, `token_used`, `alias_taken`, `unavailable`, ...;
   *   `identity_mismatch`: the server took the token and shows another account for it.
   */
  async claimToken(alias: string, text: string): Promise<ContactInfo> {
    const name = aliasOf(alias);
    const token = await parseToken(text);
    const claim = await redeem(this.#keys, this.#session.username, token, name, Date.now());
    await this.#discovery.request('claimToken', {
      name,
      redeem: claim.redeem.blob,
      signatures: claim.redeem.signatures,
      pin: claim.pin.blob,
      signature: claim.pin.signatures[0]!,
    });
    // The contact itself came before the reply, which is handed out after it was verified.
    if (this.#contacts.keyOf(name) !== token.inviterKey) {
      throw new BVError('identity_mismatch', `the server took the token, but nothing proves that ${name} made it`);
    }
    return this.#known(name);
  }

  /**
   * End the trust with an alias, also one that is refused. Links to it are cut.
   *
   * @throws BVError `not_trusted`: there is no such contact; `unavailable`.
   */
  async removeUser(alias: string): Promise<void> {
    const name = aliasOf(alias);
    const remove = await this.#contacts.makeRemove(name, Date.now());
    await this.#discovery.request('removeUser', { name, remove: remove.blob, signature: remove.signatures[0]! });
    // An honest server has said so before it replied; a dishonest one need not be waited for.
    await this.#discovery.removed(name, remove);
  }

  /**
   * Change the account's password, and with it its key; contacts follow by themselves. Every peer of the account, this
   * one too, is logged out and needs the new password. Unclaimed tokens end.
   *
   * @throws BVError `weak_password`, `unavailable`, ...
   */
  async changePassword(password: string): Promise<void> {
    checkPassword(password);
    const { realm, username } = this.#session;
    const newKeys = await AccountKeys.derive(password, realm, username);
    const { rotate, pins } = await this.#contacts.rotate(newKeys, Date.now());
    while (pins.length > PINS_A_MESSAGE) {
      await this.#discovery.request('stagePins', { pins: pins.splice(0, PINS_A_MESSAGE) });
    }
    const change = {
      login: this.#keys.login,
      newLogin: newKeys.login,
      rotate: rotate.blob,
      signatures: rotate.signatures,
      pins,
    };
    await this.#discovery.request('changePassword', change, 30);
  }
}
