import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';
import { useFocus } from './hooks.ts';

/** The heading of a screen; `title` is that of the page as well. */
export function Heading({ title, children }: { title: string; children?: ComponentChildren }) {
  const ref = useFocus();
  useEffect(() => {
    document.title = `${title} · BoneValue console`;
  }, [title]);
  return (
    <h1 ref={ref} tabIndex={-1}>
      {children ?? title}
    </h1>
  );
}
