import { useState } from 'preact/hooks';
import { ErrorBox } from '../parts/error_box.tsx';
import { Fingerprint } from '../parts/fingerprint.tsx';
import { Heading } from '../parts/heading.tsx';
import { useStore, useSubmit } from '../parts/hooks.ts';
import { PasswordField } from '../parts/password_field.tsx';

/** One's own account. */
export function AccountScreen() {
  const store = useStore();
  const { bv } = store;
  return (
    <>
      <Heading title="Account" />
      <section class="card" aria-label="You">
        <dl class="facts-grid">
          <div>
            <dt>Username</dt>
            <dd class="mono">{bv.username}</dd>
          </div>
          <div>
            <dt>Server</dt>
            <dd class="mono">{location.host}</dd>
          </div>
          <div>
            <dt>Peer id of this tab</dt>
            <dd class="mono">{bv.getId()}</dd>
          </div>
          <div class="whole">
            <dt>Fingerprint</dt>
            <dd>
              <Fingerprint value={bv.fingerprint} whose="own" />
            </dd>
          </div>
        </dl>
        <p class="buttons">
          <button type="button" onClick={() => void store.signOut()}>
            Sign out of this tab
          </button>
        </p>
      </section>
      <PasswordForm />
      <p class="hint">
        Library {bv.version}. Passwords and keys are in the memory of this tab only; of what you do here, only the theme
        is stored.
      </p>
    </>
  );
}

function PasswordForm() {
  const store = useStore();
  const [password, setPassword] = useState('');
  const { submit, busy, error } = useSubmit(async () => {
    await store.changePassword(password);
    setPassword('');
  });
  return (
    <section class="card" aria-label="Change password">
      <h2>Change password</h2>
      <p>
        Your key changes with it. Contacts follow by themselves; tokens that nobody has claimed yet become worthless,
        and your other programs must be given the new password.
      </p>
      <form onSubmit={submit}>
        <input type="text" hidden autoComplete="username" value={store.bv.username} readOnly />
        <PasswordField label="New password" value={password} onText={setPassword} fresh />
        <ErrorBox error={error} />
        <button class="main" disabled={busy}>
          {busy ? 'Changing…' : 'Change password'}
        </button>
      </form>
    </section>
  );
}
