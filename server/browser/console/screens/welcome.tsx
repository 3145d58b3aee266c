import { useState } from 'preact/hooks';
import { ErrorBox } from '../parts/error_box.tsx';
import { Icon } from '../parts/icon.tsx';
import { useStore } from '../parts/hooks.ts';
import { ThemeButton } from '../parts/theme_button.tsx';
import { RegisterForm } from './register_form.tsx';
import { SignInForm } from './sign_in_form.tsx';

/** For whoever is not signed in. */
export function WelcomeScreen() {
  const store = useStore();
  const [making, setMaking] = useState(false);
  return (
    <main class="welcome">
      <div class="card">
        <p class="brand">
          <Icon name="logo" />
          <span>BoneValue</span>
          <code>{location.host}</code>
          <ThemeButton />
        </p>
        {store.ended && <ErrorBox error={store.ended} />}
        {making ? <RegisterForm /> : <SignInForm />}
        <hr />
        {store.phase === 'out' && (
          <p>
            {making ? 'You have an account? ' : 'New here? '}
            <button type="button" class="link" onClick={() => setMaking(!making)}>
              {making ? 'Go to sign-in' : 'Make an account'}
            </button>
          </p>
        )}
        <p class="hint">
          Your password stays in the memory of this tab: reloading the page signs you out. Whatever you then do goes
          from this tab to your peers directly, encrypted.
        </p>
      </div>
    </main>
  );
}
