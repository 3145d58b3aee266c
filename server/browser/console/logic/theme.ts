/** Light or dark: as the system has it, unless one says otherwise. It is all that the console stores. */

export type Theme = 'automatic' | 'light' | 'dark';

const KEY = 'bonevalue.theme';
const NEXT: Record<Theme, Theme> = { automatic: 'light', light: 'dark', dark: 'automatic' };

export function storedTheme(): Theme {
  try {
    const stored = localStorage.getItem(KEY);
    return stored === 'light' || stored === 'dark' ? stored : 'automatic';
  } catch {
    return 'automatic'; // storage is forbidden here
  }
}

export function applyTheme(theme: Theme): void {
  document.documentElement.dataset.theme = theme;
  try {
    if (theme === 'automatic') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // It then lasts as long as the page.
  }
}

export function nextTheme(theme: Theme): Theme {
  return NEXT[theme];
}
