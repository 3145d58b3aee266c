import { useState } from 'preact/hooks';
import { countText } from '../logic/format.ts';
import { problemText } from '../logic/explain.ts';
import { groupPeers, US, type Group } from '../logic/presence.ts';
import { Heading } from '../parts/heading.tsx';
import { useStore } from '../parts/hooks.ts';
import { PeerRow } from './peer_row.tsx';
import { TextField } from '../parts/text_field.tsx';

/** Rows that are drawn; the filter finds the others. */
const MAX_ROWS = 300;

/** Everyone who is online, by alias. */
export function PeersScreen() {
  const store = useStore();
  const [text, setText] = useState('');
  const [measuring, setMeasuring] = useState(true);
  const groups = groupPeers(store.contacts, store.peers, text);
  let rows = MAX_ROWS;
  const hidden = Math.max(0, groups.reduce((sum, { peers }) => sum + peers.length, 0) - MAX_ROWS);
  return (
    <>
      <div class="title">
        <Heading title="Peers" />
        <p>{countText(store.peers.length, 'peer')} online</p>
      </div>
      <div class="tools">
        <TextField label="Filter by alias or peer id" type="search" value={text} onText={setText} />
        <label class="check">
          <input type="checkbox" checked={measuring} onChange={() => setMeasuring(!measuring)} />
          Measure the way to each
        </label>
      </div>
      <div class="card flush">
        <table class="peers" aria-label="Peers">
          <thead>
            <tr>
              <th scope="col">Peer</th>
              <th scope="col" class="wide">
                Link
              </th>
              <th scope="col" class="wide">
                Path
              </th>
              <th scope="col" class="number">
                Round trip
              </th>
              <th scope="col">
                <span class="unseen">Plot of the round trip</span>
              </th>
            </tr>
          </thead>
          {groups.map((group) => {
            const shown = group.peers.slice(0, Math.max(0, rows));
            rows -= shown.length;
            return (
              <tbody key={group.name}>
                <GroupHead group={group} />
                {shown.map((peer) => (
                  <PeerRow key={peer.id} peer={peer} measuring={measuring} />
                ))}
              </tbody>
            );
          })}
        </table>
      </div>
      {hidden > 0 && <p class="hint">{countText(hidden, 'more peer')} not shown: use the filter.</p>}
      {!groups.length && <p class="hint">Nobody of that name.</p>}
      {store.contacts.length === 0 && (
        <p class="empty">
          You trust nobody yet. <a href="#/trust">Request or claim a token</a> to reach another account.
        </p>
      )}
    </>
  );
}

function GroupHead({ group: { name, contact, peers } }: { group: Group }) {
  return (
    <tr class="head">
      <th scope="rowgroup" colSpan={5}>
        {name}
        <span class="note">
          {contact?.problem
            ? `Not used. ${problemText(contact.problem)} See Trust.`
            : peers.length
              ? `${name === US ? 'your own account, ' : ''}${peers.length} online`
              : name === US
                ? 'no other peer of your own account online'
                : 'nobody online'}
        </span>
      </th>
    </tr>
  );
}
