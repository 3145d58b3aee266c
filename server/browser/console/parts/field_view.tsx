/** The controls of a form that was made from a schema. All text in it comes from another peer. */

import { useId } from 'preact/hooks';
import type { ComponentChildren } from 'preact';
import { emptyDraft, MAX_ENTRIES, type Draft } from '../logic/draft.ts';
import { clip } from '../logic/format.ts';
import { isScalar, type Field } from '../logic/schema.ts';
import { Icon } from './icon.tsx';
import { ScalarView } from './scalar_view.tsx';

export interface FieldProps {
  field: Field;
  draft: Draft;
  onDraft: (draft: Draft) => void;
  /** Its name among its neighbours. */
  name: string;
  required: boolean;
  /** Its place, as in `0.2`; and what is wrong, by place. */
  at: string;
  problems: Map<string, string>;
}

export function FieldView(props: FieldProps) {
  const { field } = props;
  if (isScalar(field) || field.kind === 'fixed' || field.kind === 'null') return <ScalarView {...props} />;
  return <GroupView {...props} />;
}

/** A field with fields in it. */
function GroupView(props: FieldProps) {
  const { field, draft, onDraft, name, required, at, problems } = props;
  const id = useId();
  const problem = problems.get(at);
  return (
    <fieldset class="group" aria-describedby={field.help || problem ? id : undefined}>
      <legend>
        {name}
        {!required && <span class="optional"> optional</span>}
      </legend>
      <p
        id={id}
        class={problem ? 'problem' : 'hint'}
        data-problem={problem ? at : undefined}
        tabIndex={problem ? -1 : undefined}
      >
        {problem ?? field.help}
      </p>
      {!required && (
        <label class="check">
          <input
            type="checkbox"
            checked={draft.included}
            onChange={() => onDraft({ ...draft, included: !draft.included })}
          />
          Send {name}
        </label>
      )}
      {!draft.included && field.preset !== undefined && (
        <p class="hint">
          Not sent: the peer then takes <code>{clip(JSON.stringify(field.preset), 200)}</code>.
        </p>
      )}
      {draft.included && <Parts {...props} />}
    </fieldset>
  );
}

function Parts({ field, draft, onDraft, name, at, problems }: FieldProps): ComponentChildren {
  const setPart = (index: number) => (part: Draft) => onDraft({ ...draft, parts: draft.parts.with(index, part) });
  const view = (inner: Field, index: number, label: string, needed = true): ComponentChildren => (
    <FieldView
      key={draft.parts[index]!.key}
      field={inner}
      draft={draft.parts[index]!}
      onDraft={setPart(index)}
      name={label}
      required={needed}
      at={`${at}.${index}`}
      problems={problems}
    />
  );
  if (field.kind === 'object')
    return field.members.map((member, index) => view(member.field, index, member.name, member.required));
  if (field.kind === 'union') {
    const labels = field.options.map(
      (option, index) => option.title || (option.kind === 'null' ? 'null' : `${option.kind} ${index + 1}`),
    );
    const chosen = field.options[draft.chosen];
    return (
      <>
        <label class="field">
          <span>Kind of {name}</span>
          <select
            value={draft.chosen}
            onChange={(event) => onDraft({ ...draft, chosen: Number(event.currentTarget.value) })}
          >
            {labels.map((label, index) => (
              <option value={index}>{label}</option>
            ))}
          </select>
        </label>
        {chosen && view(chosen, draft.chosen, labels[draft.chosen]!)}
      </>
    );
  }
  if (field.kind !== 'list') return null;
  const most = Math.min(field.most, MAX_ENTRIES);
  return (
    <>
      {draft.parts.map((part, index) => (
        <div class="entry" key={part.key}>
          {view(field.item, index, `${name} ${index + 1}`)}
          <button
            type="button"
            class="plain"
            aria-label={`Remove ${name} ${index + 1}`}
            onClick={() => onDraft({ ...draft, parts: draft.parts.toSpliced(index, 1) })}
          >
            <Icon name="close" />
          </button>
        </div>
      ))}
      <button
        type="button"
        class="small"
        disabled={draft.parts.length >= most}
        onClick={() => onDraft({ ...draft, parts: [...draft.parts, emptyDraft(field.item)] })}
      >
        <Icon name="plus" />
        Add to {name}
      </button>
    </>
  );
}
