import { useState } from 'preact/hooks';
import { ErrorBox } from '../parts/error_box.tsx';
import { Heading } from '../parts/heading.tsx';
import { useStore, useSubmit } from '../parts/hooks.ts';
import { PasswordField } from '../parts/password_field.tsx';
import { ServerOptions } from '../parts/server_options.tsx';
import { TextField } from '../parts/text_field.tsx';

/** Makes an account, and signs in with it. */
export function RegisterForm() {
  const store = useStore();
  const [username, setUsername] = useState('');
  const [password, setPassword] = useState('');
  const [realm, setRealm] = useState('');
  const { submit, busy, error } = useSubmit(async () => {
    const options = realm ? { realm } : {};
    await store.register(username.trim(), password, options);
    await store.signIn(username.trim(), password, { ...options, visible: false });
  });
  return (
    <form onSubmit={submit}>
      <Heading title="Make an account" />
      <TextField
        label="Username"
        value={username}
        onText={setUsername}
        exact
        required
        maxLength={32}
        autoComplete="username"
        hint="1 to 32 of a-z, 0-9, _ . and -; not only digits. Others call you by an alias of their own."
      />
      <PasswordField label="Password" value={password} onText={setPassword} fresh />
      <ServerOptions realm={realm} onRealm={setRealm} />
      <ErrorBox error={error} />
      <p class="buttons">
        <button class="main" disabled={busy}>
          {busy ? 'Registering…' : 'Register'}
        </button>
      </p>
    </form>
  );
}
