import { useEffect, useState } from 'preact/hooks';
import type { BVErrorInfo, ModuleInfo } from '../../src/types.ts';
import { useStore } from '../parts/hooks.ts';

export interface Modules {
  /** Null while it is not known. */
  list: ModuleInfo[] | null;
  error: BVErrorInfo | null;
  ask: () => void;
}

/** What a peer serves. */
export function useModules(id: string): Modules {
  const store = useStore();
  const [list, setList] = useState<ModuleInfo[] | null>(null);
  const [error, setError] = useState<BVErrorInfo | null>(null);
  const load = (again: boolean): (() => void) => {
    let wanted = true;
    setError(null);
    store.modules(id, again).then(
      (found) => wanted && setList(found),
      (problem) => wanted && setError(problem as BVErrorInfo),
    );
    return () => (wanted = false);
  };
  useEffect(() => load(false), [id]);
  return { list, error, ask: () => load(true) };
}
