/** What to do about an attempt to connect that came to nothing, in one sentence, from the facts of the attempt. */

import type { State } from './life.ts';
import type { Tried } from './link.ts';

const ADVICE: Partial<Record<State, string>> = {
  relay: 'The discovery server did not take the request in time: look into its log.',
  answer: 'The other peer did not answer: it may be frozen, overloaded, or just gone.',
  dtls: 'Packets arrive, but the handshake did not end: look for a VPN on the way that loses long ones.',
  proof: 'The other peer did not prove who it is in time: it may be overloaded; look into its log.',
};

/** The facts in one line, and the sentence. */
export function adviceFor(phase: State, tried: Tried | undefined): string {
  if (!tried) return ADVICE[phase] ?? '';
  const { ours, theirs, servers } = tried;
  const kinds = `ours: ${ours.join(', ') || 'none'}; theirs: ${theirs.join(', ') || 'none'}`;
  const facts = (ours.length || theirs.length ? [kinds, ...servers] : servers).join('; ');
  return `${facts && ` (${facts})`}. ${ADVICE[phase] ?? path(tried)}`;
}

function path({ ours, theirs, servers, relayOnly, familiesMeet }: Tried): string {
  const turn = 'set discovery.turn on the discovery server, or ice.servers here (docs/nat.md)';
  const dead = servers.find((server) => /^turns?:/.test(server));
  const hasOwn = ours.includes('relay');
  if (dead && !hasOwn) return `There is no relay on this side: check ${dead}.`;
  if (relayOnly && !hasOwn) return `Only a relay may be used: ${turn}.`;
  if (!theirs.length && ours.length) return 'The other peer told no address: run `bv doctor` there.';
  if (!familiesMeet) return `One side has only IPv4 and the other only IPv6: ${turn}.`;
  if (hasOwn || theirs.includes('relay')) return 'Not even a relay got through: look into the log of the TURN server.';
  return `There is no direct way between the two networks: ${turn}.`;
}
