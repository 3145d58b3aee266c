/** Who is there, and how to tell. */

import type { ContactInfo, LinkInfo, PeerInfo } from '../../src/types.ts';

/** The account of oneself, among aliases. */
export const US = 'Us';

/** An account and its peers that are online. */
export interface Group {
  name: string;
  /** Null for one's own account. */
  contact: ContactInfo | null;
  peers: PeerInfo[];
}

/** All accounts that one can talk to, one's own first, those whose name or peer has the text in it. */
export function groupPeers(contacts: ContactInfo[], peers: PeerInfo[], text = ''): Group[] {
  const wanted = text.trim().toLowerCase();
  const groups = new Map<string, Group>([[US, { name: US, contact: null, peers: [] }]]);
  const sorted = contacts.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const contact of sorted)
    if (contact.name !== US) groups.set(contact.name, { name: contact.name, contact, peers: [] });
  for (const peer of peers) groups.get(peer.name)?.peers.push(peer);
  for (const group of groups.values()) {
    const { name } = group;
    group.peers = group.peers
      .filter(({ id }) => name.toLowerCase().includes(wanted) || id.includes(wanted))
      .sort((a, b) => a.id.length - b.id.length || (a.id < b.id ? -1 : 1));
  }
  return [...groups.values()].filter(({ name, peers: left }) => left.length || name.toLowerCase().includes(wanted));
}

/** What a screen reader says when peers come and go. */
export function presenceText(came: PeerInfo[], went: PeerInfo[]): string {
  const tell = (peers: PeerInfo[], what: string): string[] => {
    if (peers.length > 3) return [`${peers.length} peers ${what}.`];
    return peers.map(({ name, id }) => `${name} ${id} ${what}.`);
  };
  return [...tell(came, 'came online'), ...tell(went, 'went offline')].join(' ');
}

const STAGES: Record<string, string> = {
  open: 'linked',
  draining: 'link is ending',
  queue: 'waiting to connect',
  gathering: 'finding addresses',
  relay: 'asking for a link',
  answer: 'waiting for an answer',
  checking: 'trying paths',
  dtls: 'encrypting',
  proof: 'proving identity',
};

/** The state of a link for people; `tone` is what it looks like. */
export function linkText(link: LinkInfo | undefined): { text: string; tone: 'good' | 'busy' | 'none' } {
  const text = link && STAGES[link.state];
  if (!link || !text) return { text: 'no link', tone: 'none' };
  return { text, tone: link.state === 'open' ? 'good' : 'busy' };
}
