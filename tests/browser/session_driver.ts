/**
 * A session of the browser library outside of a browser, driven by another process: a line of JSON in is a request,
 * `{"id", "do", ...}`; lines out are `{"id", "value"}` or `{"id", "error"}` for each of them, and `{"event"}`.
 */

import { createInterface } from 'node:readline';

import { addressOf, DiscoveryClient } from '../../server/browser/src/discovery.ts';
import { register } from '../../server/browser/src/registration.ts';
import { Trust } from '../../server/browser/src/trust.ts';
import { ContactBook } from '../../server/browser/src/wire/contacts.ts';
import { AccountKeys, realmOf } from '../../server/browser/src/wire/keys.ts';
import { Session } from '../../server/browser/src/wire/session.ts';

type Command = { id: number; do: string } & Record<string, any>;

let client: DiscoveryClient;
let session: Session;
let trust: Trust;

const bytes = (_: string, value: unknown): unknown =>
  value instanceof Uint8Array ? Buffer.from(value).toString('base64url') : errorOf(value);

const errorOf = (value: unknown): unknown =>
  value instanceof Error ? { code: (value as { code?: string }).code, message: value.message } : value;

const say = (line: object): void => console.log(JSON.stringify(line, bytes));

const commands: Record<string, (command: Command) => unknown> = {
  register({ host, username, password }) {
    const address = addressOf(host);
    return register(address.url, username, password, realmOf(address.host));
  },
  async connect({ host, username, password, realm }) {
    const address = addressOf(host);
    const bound = realmOf(realm ?? address.host);
    const keys = await AccountKeys.derive(password, bound, username);
    const contacts = new ContactBook(keys);
    session = new Session(username, bound, keys, contacts, { agent: 'test' });
    client = new DiscoveryClient(address.url, session, (event) => say({ event }));
    trust = new Trust(keys, contacts, session, client);
    client.run().then(
      () => say({ event: { type: 'over' } }),
      (error) => say({ event: { type: 'over', error } }),
    );
  },
  state: () => ({ state: session.state, id: session.peerId, aliases: session.aliases, peers: [...session.peers] }),
  request: ({ type, data }) => client.request(type, data),
  changed: () => client.networkChanged(),
  contacts: () => trust.contacts(),
  token: ({ alias }) => trust.requestToken(alias),
  claim: ({ alias, token }) => trust.claimToken(alias, token),
  remove: ({ alias }) => trust.removeUser(alias),
  password: ({ password }) => trust.changePassword(password),
  close: () => client.close(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const command: Command = JSON.parse(line);
  void (async () => {
    try {
      say({ id: command.id, value: (await commands[command.do]!(command)) ?? null });
    } catch (error) {
      say({ id: command.id, error });
    }
  })();
}
process.exit(0);
