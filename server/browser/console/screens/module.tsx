import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { Json, ModuleInfo } from '../../src/types.ts';
import { Asking } from '../logic/asking.ts';
import { href } from '../logic/route.ts';
import { fieldOf } from '../logic/schema.ts';
import { show } from '../logic/values.ts';
import { Watching } from '../logic/watching.ts';
import { useFocus, useLazyRedraw, useStore } from '../parts/hooks.ts';
import { Icon } from '../parts/icon.tsx';
import { AnswerPanel } from './answer.tsx';
import { CallForm, type CallWish } from './call_form.tsx';
import { StreamPanel } from './stream.tsx';

/** A module: what it says of itself, a form to call it, what came of that. */
export function ModulePanel({ id, name, module }: { id: string; name: string; module: ModuleInfo }) {
  const store = useStore();
  const heading = useFocus();
  const redraw = useLazyRedraw();
  const schema = JSON.stringify(module.request);
  const field = useMemo(() => fieldOf(module.request ?? {}), [schema]);
  const [run, setRun] = useState<Asking | Watching | null>(null);
  const latest = useRef(run);
  latest.current = run;
  useEffect(() => () => stop(latest.current), []);

  const begin = ({ request, timeout, everyone }: CallWish): void => {
    stop(run);
    const target = store.bv.get(everyone ? name : id);
    if (!module.stream) return setRun(new Asking({ target, module: module.name, request, timeout, everyone }, redraw));
    const abort = new AbortController();
    setRun(new Watching(target.stream(module.name, request, { timeout, signal: abort.signal }), abort, redraw));
  };

  return (
    <article class="module">
      <a class="back narrow" href={href({ screen: 'peer', id })}>
        <Icon name="back" />
        All modules
      </a>
      <h2 ref={heading} tabIndex={-1}>
        <span class="mono">{module.name}</span>
        {module.stream && <span class="badge">stream</span>}
      </h2>
      {module.doc && <p class="doc">{module.doc}</p>}
      <div class="schemas">
        <SchemaView title="Request schema" schema={module.request} />
        <SchemaView title={module.stream ? 'Item schema' : 'Response schema'} schema={module.response} />
      </div>
      {/* What was entered fits one schema only; asked again, the peer may have another. */}
      <CallForm
        key={schema}
        field={field}
        stream={module.stream}
        name={name}
        busy={isRunning(run)}
        onCall={begin}
        onCancel={() => stop(run)}
      />
      {run instanceof Asking && <AnswerPanel asking={run} name={module.name} />}
      {run instanceof Watching && <StreamPanel watching={run} name={module.name} />}
    </article>
  );
}

function isRunning(run: Asking | Watching | null): boolean {
  return run instanceof Watching ? !run.isOver : run?.state === 'running';
}

function stop(run: Asking | Watching | null): void {
  if (run instanceof Watching) run.stop();
  else run?.cancel();
}

function SchemaView({ title, schema }: { title: string; schema: Json }) {
  const text = useMemo(() => show(schema).text, [schema]);
  if (schema === null) return null;
  return (
    <details>
      <summary>{title}</summary>
      <pre tabIndex={0}>{text}</pre>
    </details>
  );
}
