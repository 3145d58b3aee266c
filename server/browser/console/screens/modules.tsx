import { useState } from 'preact/hooks';
import { href } from '../logic/route.ts';
import { ErrorBox } from '../parts/error_box.tsx';
import { Icon } from '../parts/icon.tsx';
import { TextField } from '../parts/text_field.tsx';
import { ModulePanel } from './module.tsx';
import type { Modules } from './use_modules.ts';

/** From how many on there is a filter. */
const MANY = 12;

interface Props {
  id: string;
  name: string;
  modules: Modules;
  /** Name of the module that is looked at; empty for none. */
  chosen: string;
}

/** The modules of a peer beside the one that is looked at. On a narrow screen it is one or the other. */
export function ModulesPanel({ id, name, modules, chosen }: Props) {
  const [text, setText] = useState('');
  const list = modules.list ?? [];
  const wanted = text.trim().toLowerCase();
  const shown = list.filter((one) => one.name.toLowerCase().includes(wanted));
  const module = list.find((one) => one.name === chosen);
  return (
    <div class={`split ${chosen ? 'chosen' : ''}`}>
      <nav class="side" aria-label="Modules">
        {list.length > MANY && <TextField label="Filter modules" type="search" value={text} onText={setText} />}
        <ul>
          {shown.map((one) => (
            <li key={one.name} class={one.name === chosen ? 'current' : ''}>
              <a
                class="mono"
                href={href({ screen: 'module', id, module: one.name })}
                aria-current={one.name === chosen ? 'page' : undefined}
              >
                {one.name}
              </a>
              {one.stream && <span class="badge">stream</span>}
              <span class="note">{one.doc.split('\n', 1)[0]!.slice(0, 120)}</span>
            </li>
          ))}
        </ul>
        <button type="button" class="small" onClick={modules.ask}>
          <Icon name="refresh" />
          Ask for modules again
        </button>
      </nav>
      <div class="detail">
        <ErrorBox error={modules.error} />
        {!modules.list && !modules.error && <p role="status">Asking what this peer serves…</p>}
        {modules.list?.length === 0 && <p class="empty">This peer serves nothing to you.</p>}
        {module && <ModulePanel key={module.name} id={id} name={name} module={module} />}
        {chosen && modules.list && !module && <p class="box">This peer serves no module “{chosen}” to you.</p>}
        {!chosen && list.length > 0 && <p class="empty hint">Choose a module to call it.</p>}
      </div>
    </div>
  );
}
