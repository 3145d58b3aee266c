import { useState } from 'preact/hooks';
import { applyTheme, nextTheme, storedTheme } from '../logic/theme.ts';
import { Icon } from './icon.tsx';

/** Automatic, light, dark, and round again. */
export function ThemeButton() {
  const [theme, setTheme] = useState(storedTheme);
  const turn = (): void => {
    const next = nextTheme(theme);
    applyTheme(next);
    setTheme(next);
  };
  return (
    <button type="button" class="plain" aria-label={`Theme: ${theme}`} title={`Theme: ${theme}`} onClick={turn}>
      <Icon name={theme} />
    </button>
  );
}
