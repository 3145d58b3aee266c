/** What it means when a discovery server is not the right one, says no, or goes away. */

import { BVError } from '../errors.ts';
import type { Failure, Goodbye, Hello } from './signals.ts';

/** The version of the discovery protocol that this program speaks. */
const VERSION = 1;
/** Longest text from outside that is shown to anybody, in characters. */
const MAX_TEXT = 300;

/** The close codes of the discovery server (docs/errors.md); whoever closes a socket may have others. */
const CLOSED_BECAUSE: Record<number, string> = {
  4001: 'going_away',
  4002: 'too_many_peers',
  4003: 'unavailable',
  4004: 'login_timeout',
  4005: 'slow',
  4029: 'rate_limited',
  4500: 'protocol_error',
  4501: 'login_refused',
  4502: 'bad_message',
  4503: 'replaced',
  4504: 'session_ended',
};

/** Text from outside, cut to 300 characters, without anything that a terminal or a log would act upon. */
export const plain = (text: string): string => text.slice(0, MAX_TEXT).replace(/(?! )[\p{C}\p{Z}]/gu, '?');

/** The error that a failure from outside stands for. */
export const failureError = ({ code, message, retryAfter }: Failure): BVError =>
  new BVError(plain(code).slice(0, 64), plain(message) || undefined, retryAfter === undefined ? {} : { retryAfter });

/**
 * Whether anything derived from a password that is bound to `realm` may be shown to the server that says this.
 *
 * @throws BVError `realm_mismatch`: the server is of another realm; `protocol_error`: it speaks another version.
 */
export function checkGreeting({ version, realm: theirs, challenge }: Hello, realm: string): void {
  if (version !== VERSION || challenge.length !== 32) {
    const ours = `version ${version} of the protocol, we ${VERSION}`;
    throw new BVError('protocol_error', `the discovery server speaks ${ours}`);
  }
  if (theirs !== realm) {
    const said = plain(theirs);
    throw new BVError(
      'realm_mismatch',
      `the discovery server says that its realm is "${said}", but the password is bound to "${realm}": if it is the ` +
        `right server, give {realm: "${said}"}. Nothing secret was sent`,
    );
  }
}

/** Why a connection to the server is over. */
export interface Parting {
  error: BVError;
  /** There is no coming back. */
  final: boolean;
  /** Seconds. */
  retryAfter: number | undefined;
}

/**
 * What to make of a closed socket.
 *
 * @param code the server's close code, null if it sent none; 4500 to 4999 mean for good.
 * @param reason the text that came with it, or why the socket broke.
 * @param goodbye what the server said before, if it did.
 * @param failure why it refused the login, if only the close code tells whether to come back.
 */
export function partingOf(code: number | null, reason: string, goodbye?: Goodbye, failure?: BVError): Parting {
  let final = code !== null && code >= 4500 && code < 5000;
  let retryAfter = failure?.retryAfter;
  let kind = CLOSED_BECAUSE[code ?? 0] ?? (final ? 'internal' : 'server_unreachable');
  if (goodbye) {
    ({ reason, reconnectAfter: retryAfter } = goodbye);
    final ||= retryAfter === undefined;
    kind = Object.values(CLOSED_BECAUSE).find((known) => known === reason) ?? 'going_away';
  }
  const why = plain(reason) || (code === null ? 'without a word' : `code ${code}`);
  const error = failure ?? new BVError(kind, `the discovery server closed the connection: ${why}`);
  return { error, final, retryAfter };
}
