import { createContext } from 'preact';
import { useContext, useEffect, useReducer, useRef, useState } from 'preact/hooks';
import type { RefObject } from 'preact';
import type { BVErrorInfo } from '../../src/types.ts';
import type { Monitor } from '../logic/monitor.ts';
import { parseRoute, type Route } from '../logic/route.ts';
import type { Store } from '../logic/store.ts';

export const StoreContext = createContext<Store>(null as unknown as Store);

/** Draw again. */
export function useRedraw(): () => void {
  return useReducer((count: number) => count + 1, 0)[1] as () => void;
}

/** Draw again soon: many calls in a short time are drawn once. */
export function useLazyRedraw(): () => void {
  const redraw = useRedraw();
  const timer = useRef(0);
  return () => {
    timer.current ||= setTimeout(() => {
      timer.current = 0;
      redraw();
    }, 50);
  };
}

/** The store; the component is drawn again at each change. */
export function useStore(): Store {
  const store = useContext(StoreContext);
  const redraw = useRedraw();
  useEffect(() => store.subscribe(redraw), [store]);
  return store;
}

/** Where one is. */
export function useRoute(): Route {
  const redraw = useRedraw();
  useEffect(() => {
    addEventListener('hashchange', redraw);
    return () => removeEventListener('hashchange', redraw);
  }, []);
  return parseRoute(location.hash);
}

export interface Action<A extends unknown[]> {
  run: (...args: A) => Promise<void>;
  busy: boolean;
  error: BVErrorInfo | null;
}

/** Something that takes time and may fail. While it runs, it is not begun again. */
export function useAction<A extends unknown[]>(work: (...args: A) => Promise<void>): Action<A> {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<BVErrorInfo | null>(null);
  const run = async (...args: A): Promise<void> => {
    if (busy) return;
    setBusy(true);
    setError(null);
    try {
      await work(...args);
    } catch (problem) {
      setError(problem as BVErrorInfo);
    } finally {
      setBusy(false);
    }
  };
  return { run, busy, error };
}

/** The action of a form, which leaves the page where it is. */
export function useSubmit(work: () => Promise<void>): Action<[]> & { submit: (event: Event) => void } {
  const action = useAction(work);
  const submit = (event: Event): void => {
    event.preventDefault();
    void action.run();
  };
  return { ...action, submit };
}

/** Measure a peer while the component is there. */
export function useMonitor(monitor: Monitor, active = true): Monitor {
  const redraw = useRedraw();
  useEffect(() => (active ? monitor.watch(redraw) : undefined), [monitor, active]);
  return monitor;
}

/** Whether an element is on the screen. */
export function useOnScreen(ref: RefObject<Element | null>): boolean {
  const [visible, setVisible] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver((entries) => setVisible(entries.at(-1)!.isIntersecting));
    observer.observe(ref.current!);
    return () => observer.disconnect();
  }, []);
  return visible;
}

/** A ref to the heading of something new on the page, which gets the focus: there a screen reader goes on. */
export function useFocus(): RefObject<HTMLHeadingElement | null> {
  const ref = useRef<HTMLHeadingElement>(null);
  useEffect(() => ref.current!.focus(), []);
  return ref;
}
