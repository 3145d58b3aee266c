/** What a `Session` reports: one shape a fact. Keys of accounts are in hexadecimal digits, durations in seconds. */

import type { BVError } from '../errors.ts';
import type { IceServer, PeerCandidate, PeerRequest, PeerResponse } from './signals.ts';

/** What becomes of who is there. */
export type PresenceEvent =
  /** A peer came online, or was there already when we came. */
  | { type: 'peerConnected'; name: string; id: string }
  /** A peer that was online all the time has another socket: what it was asked on the old one may be lost. */
  | { type: 'peerReturned'; id: string }
  /** A peer has gone, or its account no longer trusts us. */
  | { type: 'peerDisconnected'; id: string; name: string };

/** What becomes of whom one may talk to. */
export type RosterEvent =
  | PresenceEvent
  /** Another account now trusts us, and proves it (the API's event `newuser`). */
  | { type: 'userAdded'; name: string }
  /**
   * The trust with an account has ended, says the server; it may say so first, and prove it in a second event. `key` is
   * null if it never was a verified contact; only if it is `proven` are live links to `key` cut.
   */
  | { type: 'userRemoved'; name: string; key: string | null; proven: boolean }
  /** An alias stands for another key from now on, and that is proved: links to the old one are to be cut. */
  | { type: 'keyChanged'; name: string; oldKey: string }
  /** What the server says about a contact does not hold; nothing of it is used. */
  | { type: 'contactRefused'; name: string; error: BVError };

/** All that a session reports. */
export type Event =
  | RosterEvent
  /**
   * We are logged in and all lists are there; the differences to what was known follow. `resumed`: it is the id that we
   * had before.
   */
  | { type: 'wentOnline'; peerId: string; resumed: boolean }
  /** We were online and no longer are. Live links are not touched. `retryIn` is null if `ended` follows. */
  | { type: 'wentOffline'; reason: string; retryIn: number | null }
  /** We were not online, tried to be, and failed; another attempt follows. */
  | { type: 'attemptFailed'; error: BVError; retryIn: number }
  /** It is over for good (login refused, wrong realm, replaced, ...). The last event there is. */
  | { type: 'ended'; error: BVError }
  /**
   * The ICE servers to use from now on: until the first, none. Those of a login come before `wentOnline`, those that
   * were asked for before the reply. `lifetimes`: for each the seconds from now for which its credential holds, by the
   * server's clock; null for ever.
   */
  | { type: 'iceServersChanged'; servers: IceServer[]; lifetimes: (number | null)[] }
  /** The server has something to tell a person: an `error` that answers no request. */
  | { type: 'noticeReceived'; code: string; message: string }
  /** A peer wants a connection. Its `from` is set, by the server, as in the two that follow: nothing is proved yet. */
  | { type: 'requestReceived'; request: PeerRequest }
  /** A peer answers our request for a connection. */
  | { type: 'responseReceived'; response: PeerResponse }
  /** One more ICE candidate of a peer. */
  | { type: 'candidateReceived'; candidate: PeerCandidate }
  /** The server carried out a request of ours. */
  | { type: 'replied'; ref: string; data: unknown }
  /** It did not, or the connection was lost before it said so (`unavailable`). */
  | { type: 'refused'; ref: string; error: BVError };
