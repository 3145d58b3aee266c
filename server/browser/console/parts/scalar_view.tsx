/** One control of a form that was made from a schema. */

import { useId } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { clip, sentence } from '../logic/format.ts';
import type { Field } from '../logic/schema.ts';
import type { FieldProps } from './field_view.tsx';

export function ScalarView(props: FieldProps) {
  const { field, name, required, at, problems } = props;
  const id = useId();
  const problem = problems.get(at);
  const hint = hintOf(field);
  return (
    <div class={`field ${isCheck(props) ? 'check-field' : ''}`}>
      <label for={id}>
        {name}
        {!required && <span class="optional"> optional</span>}
      </label>
      <Control
        {...props}
        id={id}
        describedBy={`${hint ? `${id}-hint` : ''} ${problem ? `${id}-problem` : ''}`.trim() || undefined}
      />
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {problem && (
        <p class="problem" id={`${id}-problem`}>
          {problem}
        </p>
      )}
    </div>
  );
}

type ControlProps = FieldProps & { id: string; describedBy: string | undefined };

/** Whether a flag has only two states: then it is a box to tick. */
function isCheck({ field, draft, required }: FieldProps): boolean {
  return (
    field.kind === 'flag' && draft.chosen >= 0 && (typeof field.preset === 'boolean' || (required && !field.nullable))
  );
}

function Control(props: ControlProps): ComponentChildren {
  const { field, draft, onDraft, required, id, describedBy, problems, at } = props;
  const common = { id, 'aria-describedby': describedBy, 'aria-invalid': problems.has(at) };
  const text = { ...common, value: draft.text, autoComplete: 'off', spellcheck: false } as const;
  const enter = (value: string): void => onDraft({ ...draft, text: value });
  const empty = !required ? 'not sent' : field.nullable ? 'null' : '';
  switch (field.kind) {
    case 'fixed':
    case 'null':
      return (
        <output id={id} class="mono">
          {clip(JSON.stringify(field.kind === 'fixed' ? field.value : null), 200)}
        </output>
      );
    case 'flag':
      if (isCheck(props)) {
        return (
          <input
            type="checkbox"
            {...common}
            checked={draft.chosen === 1}
            onChange={() => onDraft({ ...draft, chosen: 1 - draft.chosen })}
          />
        );
      }
      return <Choice {...props} options={['no', 'yes']} empty={empty} />;
    case 'choice':
      return (
        <Choice
          {...props}
          options={field.options.map((one) => (typeof one === 'string' ? one : JSON.stringify(one)))}
          empty={empty}
        />
      );
    case 'number':
      return (
        <input
          type="text"
          inputMode={field.whole ? 'numeric' : 'decimal'}
          class="mono"
          placeholder={empty}
          {...text}
          onInput={(e) => enter(e.currentTarget.value)}
        />
      );
    case 'text':
      if (field.most > 200 && !field.format) {
        return (
          <textarea rows={1} class="grow" placeholder={empty} {...text} onInput={(e) => enter(e.currentTarget.value)} />
        );
      }
      return (
        <input
          type="text"
          placeholder={placeholderOf(field.format) || empty}
          {...text}
          onInput={(e) => enter(e.currentTarget.value)}
        />
      );
    default:
      return (
        <textarea
          rows={3}
          class="mono"
          placeholder={empty || 'JSON'}
          {...text}
          onInput={(e) => enter(e.currentTarget.value)}
        />
      );
  }
}

function Choice({
  draft,
  onDraft,
  id,
  describedBy,
  options,
  empty,
  problems,
  at,
}: ControlProps & { options: string[]; empty: string }) {
  return (
    <select
      id={id}
      aria-describedby={describedBy}
      aria-invalid={problems.has(at)}
      value={draft.chosen}
      onChange={(event) => onDraft({ ...draft, chosen: Number(event.currentTarget.value) })}
    >
      {(empty || draft.chosen < 0) && <option value={-1}>{empty || 'choose'}</option>}
      {options.map((option, index) => (
        <option value={index}>{clip(option, 200)}</option>
      ))}
    </select>
  );
}

const FORMATS: Record<string, string> = {
  'date-time': '2030-01-31T12:00:00Z',
  date: '2030-01-31',
  time: '12:00:00',
  duration: 'PT1H30M',
  uuid: '00000000-0000-0000-0000-000000000000',
  email: 'name@example.org',
  uri: 'https://example.org/',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
};

function placeholderOf(format: string): string {
  return Object.hasOwn(FORMATS, format) ? (FORMATS[format] ?? '') : '';
}

/** What the schema says about a value. */
function hintOf(field: Field): string {
  const facts = [field.help];
  if (field.kind === 'number') {
    const { whole, min, max, above, below } = field;
    const bounds = [
      [min, 'at least'],
      [above, 'more than'],
      [max, 'at most'],
      [below, 'less than'],
    ] as const;
    const told = bounds.filter(([value]) => Number.isFinite(value)).map(([value, words]) => `${words} ${value}`);
    if (whole) told.unshift('whole number');
    if (told.length) facts.push(sentence(told.join(', ')));
  }
  if (field.kind === 'text') {
    if (field.least > 1) facts.push(`At least ${field.least} characters.`);
    if (Number.isFinite(field.most)) facts.push(`At most ${field.most} characters.`);
    if (field.format) facts.push(`Format: ${field.format}.`);
    if (field.pattern) facts.push(`Pattern: ${field.pattern}`);
  }
  if (field.kind === 'json') facts.push('As JSON.');
  if (field.preset !== undefined) facts.push(`Default: ${clip(JSON.stringify(field.preset), 200)}`);
  return facts.filter(Boolean).join(' ');
}
