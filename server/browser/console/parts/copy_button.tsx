import { useEffect, useState } from 'preact/hooks';
import { Icon } from './icon.tsx';

/** Copies a text, and says so for a moment. `what` names it, as in “Copy token”. */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const [state, setState] = useState('');
  useEffect(() => {
    if (!state) return;
    const timer = setTimeout(() => setState(''), 3000);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = (): void => {
    navigator.clipboard.writeText(text).then(
      () => setState('Copied'),
      () => setState('Select it and press Ctrl+C'),
    );
  };
  const done = state === 'Copied';
  const label = done ? 'Copied' : 'Copy';
  return (
    <span class="copy">
      <button type="button" class="small" onClick={copy} aria-label={`${label} ${what}`}>
        <Icon name={done ? 'check' : 'copy'} />
        {label}
      </button>
      <span role="status" class={done ? 'unseen' : ''}>
        {state}
      </span>
    </span>
  );
}
