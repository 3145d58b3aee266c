/**
 * The platform's own modules, that every peer serves: `bv.modules`, `bv.links`, `bv.stats` and `bv.removals`.
 *
 * All but `bv.modules` are for the peers of one's own account only.
 */

import { BVError } from './errors.ts';
import { admits, type Host } from './host.ts';
import type { PeerLink } from './peer_link.ts';
import { now } from './timing.ts';
import { fromBase64url, toBase64url, type Bytes } from './wire/bytes.ts';
import { byName } from './wire/collections.ts';

/** Most removals in one call. */
export const MAX_REMOVALS = 256;

export interface BuiltinSources {
  /** All links of this peer, and those that are on their way, as {@link describeLink} gives them. */
  links(): unknown;
  /** Take in a removal that another peer of this account knows of; `identity_mismatch` if it is not proved. */
  removed(blob: Bytes, signature: Bytes): Promise<void>;
  /** What this peer has counted, and what it is at. */
  stats(): unknown;
}

/** Serve them. */
export function builtinModules(host: Host, { links, removed, stats }: BuiltinSources): void {
  const own = { allow: ['Us'] };
  host.serve('bv.modules', ({ caller }) =>
    [...host.modules.values()]
      .filter((module) => admits(module, caller))
      .map(({ name, doc, stream, request, response }) => ({ name, doc, stream, request, response }))
      .sort(byName),
    { doc: 'The modules of this peer that the caller may call, by name.' },
  );
  host.serve('bv.links', () => links(), { ...own, doc: 'The links of this peer, and the attempts to make one.' });
  host.serve('bv.stats', () => stats(), { ...own, doc: 'What this peer has counted, and what it is at.' });
  host.serve('bv.removals', async ({ request }) => {
    const removals = request?.removals;
    if (!Array.isArray(removals) || removals.length > MAX_REMOVALS) throw notRemovals();
    for (const removal of removals) {
      const [blob, signature] = [removal?.blob, removal?.signature].map((text) => fromBase64url(String(text)));
      if (!blob || !signature) throw notRemovals();
      try {
        await removed(blob, signature);
      } catch (error) {
        // One that is not proved, or older than trust made anew, says nothing about the others.
        if (!(error instanceof BVError) || error.code !== 'identity_mismatch') throw error;
      }
    }
  }, { ...own, doc: 'Take in the ends of trust that the caller, a peer of the same account, knows of.' });
}

const notRemovals = (): BVError => new BVError('bad_request', 'not a list of removals');

/** The request to `bv.removals` that passes these on. */
export const removalRequest = (removals: { blob: Bytes; signatures: Bytes[] }[]): unknown => ({
  removals: removals.map(({ blob, signatures }) => ({
    blob: toBase64url(blob),
    signature: toBase64url(signatures[0]!),
  })),
});

/** A link as `bv.links` tells of it, in seconds; of an attempt to make one there is only its life. */
export async function describeLink(link: PeerLink): Promise<unknown> {
  const { remote, life, roundTrip, active: calls, agent, doubted } = link;
  const { name, id, fingerprint } = remote;
  const { dialled, state, since } = life;
  const path = await link.connection.path();
  const seconds = now() - since;
  return { peer: { name, id }, dialled, state, seconds, fingerprint, path, roundTrip, calls, agent, doubted };
}
