import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { dateText, spanText } from '../logic/format.ts';
import { tokenExpiry } from '../logic/token.ts';
import { CopyButton } from '../parts/copy_button.tsx';
import { ErrorBox } from '../parts/error_box.tsx';
import { useStore, useSubmit } from '../parts/hooks.ts';
import { TextField } from '../parts/text_field.tsx';

/** Makes a token for somebody. */
export function TokenForm() {
  const store = useStore();
  const [alias, setAlias] = useState('');
  const [made, setMade] = useState<{ alias: string; token: string } | null>(null);
  const { submit, busy, error } = useSubmit(async () => {
    const name = alias.trim().toLowerCase();
    const { token } = await store.bv.requestToken(name);
    setMade({ alias: name, token });
    setAlias('');
  });
  return (
    <section class="card" aria-label="Request a token">
      <h2>Request a token</h2>
      <form onSubmit={submit}>
        <TextField
          label="Alias"
          value={alias}
          onText={setAlias}
          exact
          required
          maxLength={32}
          hint="What you will call whoever gets the token. Only you see it."
        />
        <ErrorBox error={error} />
        <button class="main" disabled={busy}>
          Request token
        </button>
      </form>
      {made && <Token {...made} key={made.token} />}
    </section>
  );
}

function Token({ alias, token }: { alias: string; token: string }) {
  const id = useId();
  const ref = useRef<HTMLTextAreaElement>(null);
  useEffect(() => ref.current!.focus(), []);
  const expiry = tokenExpiry(token) ?? 0;
  return (
    <div class="token">
      <label for={id}>Token for {alias}</label>
      <textarea
        id={id}
        ref={ref}
        class="mono"
        readOnly
        rows={3}
        value={token}
        onFocus={(event) => event.currentTarget.select()}
      />
      <p class="buttons">
        <CopyButton text={token} what="token" />
        <span class="note">
          Expires {dateText(expiry)}, in {spanText((expiry - Date.now()) / 1000)}
        </span>
      </p>
      <p class="hint">
        Give it to {alias} over a channel that nobody else reads. They claim it under “Claim a token” in their console,
        or with <code>bv token claim ALIAS TOKEN</code>. It works once. You need not stay online.
      </p>
    </div>
  );
}
