import { useState } from 'preact/hooks';
import { ErrorBox } from '../parts/error_box.tsx';
import { Heading } from '../parts/heading.tsx';
import { useStore, useSubmit } from '../parts/hooks.ts';
import { PasswordField } from '../parts/password_field.tsx';
import { ServerOptions } from '../parts/server_options.tsx';
import { TextField } from '../parts/text_field.tsx';

export function SignInForm() {
  const store = useStore();
  const [username, setUsername] = useState('');
  const [password, setPassword] = useState('');
  const [realm, setRealm] = useState('');
  const [visible, setVisible] = useState(false);
  const { submit, busy, error } = useSubmit(() =>
    store.signIn(username.trim(), password, { visible, ...(realm && { realm }) }),
  );
  return (
    <form onSubmit={submit}>
      <Heading title="Sign in" />
      <TextField
        label="Username"
        value={username}
        onText={setUsername}
        exact
        required
        maxLength={32}
        autoComplete="username"
      />
      <PasswordField label="Password" value={password} onText={setPassword} />
      <ServerOptions realm={realm} onRealm={setRealm} visible={visible} onVisible={setVisible} />
      <ErrorBox error={error} />
      <p class="buttons">
        <button class="main" disabled={busy}>
          {busy ? 'Signing in…' : 'Sign in'}
        </button>
        {store.phase === 'connecting' && (
          <button type="button" onClick={() => void store.signOut()}>
            Cancel
          </button>
        )}
      </p>
    </form>
  );
}
