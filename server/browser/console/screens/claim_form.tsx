import { useState } from 'preact/hooks';
import { dateText } from '../logic/format.ts';
import { cleanToken, tokenExpiry } from '../logic/token.ts';
import { ErrorBox } from '../parts/error_box.tsx';
import { Fingerprint } from '../parts/fingerprint.tsx';
import { useStore, useSubmit } from '../parts/hooks.ts';
import { TextField } from '../parts/text_field.tsx';
import type { ContactInfo } from '../../src/types.ts';

/** Uses a token that one was given. */
export function ClaimForm() {
  const store = useStore();
  const [alias, setAlias] = useState('');
  const [token, setToken] = useState('');
  const [claimed, setClaimed] = useState<ContactInfo | null>(null);
  const { submit, busy, error } = useSubmit(async () => {
    setClaimed(null);
    setClaimed(await store.bv.claimToken(alias.trim().toLowerCase(), token));
    setAlias('');
    setToken('');
  });
  const expiry = tokenExpiry(token);
  return (
    <section class="card" aria-label="Claim a token">
      <h2>Claim a token</h2>
      <form onSubmit={submit}>
        <TextField
          label="Alias"
          value={alias}
          onText={setAlias}
          exact
          required
          maxLength={32}
          hint="What you will call whoever gave you the token. Only you see it."
        />
        <TextField
          label="Token"
          value={token}
          onText={(text) => setToken(cleanToken(text))}
          exact
          required
          placeholder="bv1_…"
          hint={
            token &&
            (expiry === null
              ? 'A token begins with bv1_ and has 80 characters: is all of it there?'
              : `Expires ${dateText(expiry)}`)
          }
        />
        <ErrorBox error={error} />
        <button class="main" disabled={busy}>
          Claim token
        </button>
      </form>
      <div role="status">
        {claimed && (
          <div class="box good">
            <div>
              <p>
                You and {claimed.name} trust each other now. Compare {claimed.name}’s fingerprint with them, by phone
                say:
              </p>
              <Fingerprint value={claimed.fingerprint} whose={`${claimed.name}’s`} />
            </div>
          </div>
        )}
      </div>
    </section>
  );
}
