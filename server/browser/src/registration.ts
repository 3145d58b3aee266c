/** Making an account over the network. */

import { closeCode, originRefusal, unreachable } from './discovery.ts';
import { BVError } from './errors.ts';
import { sign } from './wire/blobs.ts';
import { hex } from './wire/bytes.ts';
import { AccountKeys, checkPassword, loginDigest, usernameOf } from './wire/keys.ts';
import { checkGreeting, failureError, partingOf } from './wire/refusals.ts';
import { decode, encode, type Hello } from './wire/signals.ts';

/** Seconds for all of it. */
const TIMEOUT = 20;

/**
 * Make an account. The password stays here; the server gets login secret and public key.
 *
 * @param url where the server is, `ws://` or `wss://`.
 * @param realm the realm that the password is bound to; a server of another one is shown nothing.
 * @throws BVError `server_unreachable`, `realm_mismatch`, `registration_closed`, `weak_password`, `name_taken`, ...
 */
export async function register(url: string, username: string, password: string, realm: string): Promise<void> {
  const name = usernameOf(username);
  checkPassword(password);
  const keys = await AccountKeys.derive(password, realm, name);
  const socket = new WebSocket(url);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const late = new BVError('server_unreachable', `the discovery server did not answer within ${TIMEOUT} s`);
  const timer = setTimeout(reject, TIMEOUT * 1000, late);
  let opened = false;
  socket.onopen = () => (opened = true);
  socket.onclose = async (event) => {
    if (opened) reject(partingOf(closeCode(event), event.reason).error);
    else reject((await originRefusal(url)) ?? new BVError('server_unreachable', unreachable(url)));
  };
  const take = async (message: unknown): Promise<void> => {
    const { type, data } = decode(String(message));
    if (type === 'error') throw failureError(data);
    if (type === 'registered') resolve();
    else if (type === 'hello') socket.send(await request(keys, name, realm, data));
    else throw new BVError('protocol_error', `the discovery server sent ${type} instead of registered`);
  };
  socket.onmessage = ({ data }) => void take(data).catch(reject);
  try {
    await promise;
  } finally {
    clearTimeout(timer);
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
}

/** The message that asks for the account, signed over the greeting's challenge. */
async function request(keys: AccountKeys, username: string, realm: string, hello: Hello): Promise<string> {
  checkGreeting(hello, realm);
  if (hello.registration === 'closed') {
    throw new BVError('registration_closed', 'this server takes no new accounts over the network: ask its operator');
  }
  const { key: publicKey, login } = keys;
  const { blob, signatures } = await sign(
    {
      kind: 'register',
      realm,
      challenge: hex(hello.challenge),
      username,
      publicKey,
      loginDigest: await loginDigest(login),
    },
    keys,
  );
  return encode('register', { username, login, publicKey: keys.publicKey, blob, signature: signatures[0]! });
}
