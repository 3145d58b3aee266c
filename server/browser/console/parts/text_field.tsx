import type { ComponentChildren } from 'preact';
import { useId } from 'preact/hooks';

interface Props {
  label: string;
  value: string;
  onText: (value: string) => void;
  hint?: ComponentChildren;
  /** What is wrong with it; stands in place of the hint. */
  problem?: string | undefined;
  /** Beside the control. */
  children?: ComponentChildren;
  type?: 'text' | 'password' | 'search';
  /** Whether it is read letter by letter, as names and tokens are. */
  exact?: boolean;
  required?: boolean;
  maxLength?: number;
  autoComplete?: 'off' | 'username' | 'current-password' | 'new-password';
  placeholder?: string;
}

/** A line of text with its label above and a hint below. */
export function TextField(props: Props) {
  const { label, value, onText, hint, problem, children, type = 'text', exact = false, ...rest } = props;
  const id = useId();
  const said = problem ?? hint;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <div class="row">
        <input
          id={id}
          type={type as 'text'}
          class={exact ? 'mono' : ''}
          autoCapitalize="none"
          spellcheck={false}
          value={value}
          onInput={(event) => onText(event.currentTarget.value)}
          aria-describedby={said ? `${id}-said` : undefined}
          aria-invalid={problem !== undefined}
          autoComplete="off"
          {...rest}
        />
        {children}
      </div>
      {said && (
        <p class={problem === undefined ? 'hint' : 'problem'} id={`${id}-said`}>
          {said}
        </p>
      )}
    </div>
  );
}
