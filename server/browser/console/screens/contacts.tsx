import { useState } from 'preact/hooks';
import { adviceOn, problemText } from '../logic/explain.ts';
import { groupPeers, US } from '../logic/presence.ts';
import { Dialog } from '../parts/dialog.tsx';
import { ErrorBox } from '../parts/error_box.tsx';
import { Fingerprint } from '../parts/fingerprint.tsx';
import { useAction, useStore } from '../parts/hooks.ts';

/** The accounts that are trusted, with their keys. */
export function ContactsTable() {
  const store = useStore();
  const [ending, setEnding] = useState('');
  const groups = groupPeers(store.contacts, store.peers).filter(({ name }) => name !== US);
  if (!groups.length)
    return <p class="empty">Nobody yet. Request a token for somebody, or claim one that you were given.</p>;
  return (
    <div class="card flush">
      <table aria-label="Contacts" class="contacts">
        <thead>
          <tr>
            <th scope="col">Alias</th>
            <th scope="col">Fingerprint</th>
            <th scope="col">
              <span class="unseen">What to do</span>
            </th>
          </tr>
        </thead>
        <tbody>
          {groups.map(({ name, contact, peers }) => (
            <tr key={name}>
              <th scope="row">
                {name}
                <span class="note">{peers.length ? `${peers.length} online` : 'nobody online'}</span>
              </th>
              <td>
                {contact?.problem ? (
                  <p class="problem">
                    {problemText(contact.problem)} It is not used. {adviceOn(contact.problem)}{' '}
                    <code>{contact.problem}</code>
                  </p>
                ) : (
                  <Fingerprint value={contact?.fingerprint ?? ''} whose={`${name}’s`} />
                )}
              </td>
              <td class="number">
                <button
                  type="button"
                  class="small danger"
                  aria-label={`End trust with ${name}`}
                  onClick={() => setEnding(name)}
                >
                  End trust
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {ending && <EndTrust name={ending} onClose={() => setEnding('')} />}
    </div>
  );
}

function EndTrust({ name, onClose }: { name: string; onClose: () => void }) {
  const store = useStore();
  const { run, busy, error } = useAction(async () => {
    await store.bv.removeUser(name);
    store.notify(`Trust with ${name} has ended.`);
    onClose();
  });
  return (
    <Dialog title={`End trust with ${name}?`} onClose={onClose}>
      <p>
        All links between you are cut now, on both sides, and neither sees the other any more. To make trust again takes
        a new token.
      </p>
      <ErrorBox error={error} />
      <p class="buttons">
        <button type="button" onClick={onClose}>
          Keep trust
        </button>
        <button type="button" class="main danger" disabled={busy} onClick={() => void run()}>
          End trust
        </button>
      </p>
    </Dialog>
  );
}
