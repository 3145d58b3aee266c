/**
 * The states of a session with the discovery server, every way from one to the next, and what may come in each.
 *
 *     offline --started--> connecting --opened--> greeting --greeted--> loggingIn          | retryDue
 *                              |                     |                     | admitted      |
 *                              |                     |                     v               |
 *                              |                     |                  syncing            |
 *                              |                     |                     | synced        |
 *                              |                     |                     v               |
 *                              +------- lost --------+------- lost ----- online --lost--> waiting
 *
 * `ended` (by the server, for good) and `stopped` (by us) lead to closed, which nothing leaves.
 */

import type { ServerMessages } from './signals.ts';

/** Where a session stands. */
export type State = 'offline' | 'connecting' | 'greeting' | 'loggingIn' | 'syncing' | 'online' | 'waiting' | 'closed';
/** What moves it from one state to the next. */
export type Fact = 'started' | 'opened' | 'greeted' | 'admitted' | 'synced' | 'lost' | 'retryDue' | 'ended' | 'stopped';

const LEAVING = { lost: 'waiting', ended: 'closed', stopped: 'closed' } as const;

/** Every transition that there is. A fact that is not in its state's row is a fault of ours. */
export const TRANSITIONS: Record<State, Partial<Record<Fact, State>>> = {
  offline: { started: 'connecting', stopped: 'closed' },
  connecting: { opened: 'greeting', lost: 'waiting', stopped: 'closed' },
  greeting: { greeted: 'loggingIn', ...LEAVING },
  loggingIn: { admitted: 'syncing', ...LEAVING },
  syncing: { synced: 'online', ...LEAVING },
  online: LEAVING,
  waiting: { retryDue: 'connecting', stopped: 'closed' },
  closed: { stopped: 'closed' },
};

/** What is about the world as it changes; it makes sense only beside complete lists. */
export const LIVE = /^(user(Add|Remove)|peer(Connect|Disconnect|Request|Response|Candidate))$/;

/** What the server may send in each state; in the states that are not here there is no socket. `LIVE` is apart. */
export const ACCEPTED: { [S in State]?: RegExp } = {
  greeting: /^(error|goodbye|hello)$/,
  loggingIn: /^(error|goodbye|setPeerId)$/,
  syncing: /^(error|goodbye|iceServers|userList|contacts|peerList)$/,
  online: /^(error|goodbye|iceServers|done|token(Response|Claimed))$/,
};

/** What the server replies to our requests, if it does not refuse; to all others, `done`. */
export const REPLIES: { [type: string]: keyof ServerMessages } = {
  requestIceServers: 'iceServers',
  requestToken: 'tokenResponse',
  claimToken: 'tokenClaimed',
};
