/** What to do about an error, by its code; the codes are those of docs/errors.md. */

const ADVICE: Record<string, string> = {
  already_trusted: 'There is nothing to do. To give the account another name, end trust and make it anew.',
  alias_taken: 'Choose another name, or end trust with the account that has this one.',
  bad_name: 'Use 1 to 32 of a-z, 0-9, _ . and -; not only digits, and not “us”.',
  bad_request: 'Compare the request with the schema of the module.',
  busy: 'Wait a moment and try again.',
  clock_skew: 'Set the clock of the machine that is wrong; both should take their time from the network.',
  config: 'Open this page by https:// (or http://localhost), in a current browser.',
  connect_failed: 'Try again. If it stays so, run “bv doctor” beside the daemon: it says what is in the way.',
  contact_conflict:
    'Do not go on. End trust with this contact, and make it anew with a token that you hand over yourself.',
  deadline: 'Give it more time, or find out what keeps the peer busy.',
  denied: 'The owner of that peer must list your alias under “allow” of the module.',
  handler_failed: 'Ask the owner of that peer: its log has the details under the call id.',
  identity_conflict: 'Do not go on. Ask the owner what happened to the account, then make trust anew.',
  identity_mismatch:
    'Do not go on. Somebody in between may be lying: compare fingerprints with the owner in another way.',
  link_limit: 'Wait until other links of that peer have ended.',
  link_lost: 'Whether the call ran is unknown. Look before you repeat it.',
  login_refused: 'Enter both again. A lock ends by itself.',
  name_taken: 'Choose another username.',
  no_module: 'Look at the list of modules again: the peer may have been started with other settings.',
  no_target: 'Wait until the peer is back, or choose another.',
  not_trusted: 'Make trust with a token.',
  origin_refused:
    'Open the console at an address that the server knows, or have its operator list this one under “origins”.',
  peer_offline: 'Wait until the peer is back, or choose another.',
  rate_limited: 'Wait a moment and try again.',
  realm_mismatch: 'Enter the realm that the message names under “Server options”, if you know that it is right.',
  registration_closed: 'Ask the operator of this server for an account.',
  server_unreachable: 'Check your network. It is tried again by itself.',
  session_ended: 'Sign in with the current password.',
  replaced: 'Sign in again to go on here.',
  token_expired: 'Ask for a new token.',
  token_invalid: 'Copy the whole text, from “bv1_” on. If that does not help, ask for a new token.',
  token_used: 'If that was not you, tell whoever gave you the token: somebody else has read it.',
  too_large: 'Send less, or use a stream.',
  too_many_peers: 'Stop other programs of this account, then sign in again.',
  too_many_tokens: 'Wait until earlier tokens have been claimed or are out of date.',
  too_many_trusted: 'End trust with accounts that you no longer need.',
  unavailable: 'Wait a moment and try again.',
  weak_password: 'Choose a longer one, or have one made for you.',
};

/** What to do about it; empty for a code that is not known. */
export function adviceOn(code: string): string {
  return Object.hasOwn(ADVICE, code) ? (ADVICE[code] ?? '') : '';
}

/** What keeps a contact from being used. */
const PROBLEMS: Record<string, string> = {
  contact_conflict: 'The server’s papers for this contact contradict each other or yours.',
  identity_conflict: 'The changes of this contact’s key fork or run in a circle.',
  identity_mismatch: 'The server shows a key for this contact that nobody you trust has signed.',
  not_trusted: 'Trust with this contact has ended.',
};

/** Why a contact is not used, in a sentence. */
export function problemText(code: string): string {
  return Object.hasOwn(PROBLEMS, code) ? (PROBLEMS[code] ?? '') : 'This contact could not be verified.';
}
