import { useState } from 'preact/hooks';
import { makePassword } from '../logic/password.ts';
import { CopyButton } from './copy_button.tsx';
import { TextField } from './text_field.tsx';

interface Props {
  label: string;
  value: string;
  onText: (value: string) => void;
  /** Whether it is a new one, which may be made for the user. */
  fresh?: boolean;
}

/** A password, hidden unless asked for. */
export function PasswordField({ label, value, onText, fresh = false }: Props) {
  const [seen, setSeen] = useState(false);
  const make = (): void => {
    onText(makePassword());
    setSeen(true);
  };
  return (
    <>
      <TextField
        label={label}
        type={seen ? 'text' : 'password'}
        exact={seen}
        autoComplete={fresh ? 'new-password' : 'current-password'}
        maxLength={1024}
        required
        value={value}
        onText={onText}
        hint={
          fresh &&
          'At least 10 characters, no common ones. The server never sees it, and nobody can restore it: keep it safe.'
        }
      >
        <button type="button" class="small" onClick={() => setSeen(!seen)}>
          {seen ? 'Hide' : 'Show'}
          <span class="unseen"> password</span>
        </button>
      </TextField>
      {fresh && (
        <p class="buttons">
          <button type="button" class="small" onClick={make}>
            Make one for me
          </button>
          {seen && value && <CopyButton text={value} what="password" />}
        </p>
      )}
    </>
  );
}
