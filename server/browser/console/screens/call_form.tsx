import { useRef, useState } from 'preact/hooks';
import type { Sendable } from '../../src/types.ts';
import { draftOf, emptyDraft, readDraft } from '../logic/draft.ts';
import { hasForm, type Field } from '../logic/schema.ts';
import { US } from '../logic/presence.ts';
import { useStore } from '../parts/hooks.ts';
import { FieldView } from '../parts/field_view.tsx';
import { TextField } from '../parts/text_field.tsx';

export interface CallWish {
  request: Sendable;
  /** Milliseconds. */
  timeout: number;
  everyone: boolean;
}

interface Props {
  field: Field;
  stream: boolean;
  /** The alias of the peer. */
  name: string;
  busy: boolean;
  onCall: (wish: CallWish) => void;
  onCancel: () => void;
}

const JSON_FIELD: Field = { kind: 'json', title: '', help: '' };

/** The request, as a form or as JSON, and how it is asked. */
export function CallForm({ field, stream, name, busy, onCall, onCancel }: Props) {
  const store = useStore();
  const form = useRef<HTMLFormElement>(null);
  const [raw, setRaw] = useState(!hasForm(field));
  const [draft, setDraft] = useState(() => emptyDraft(field));
  const [json, setJson] = useState(() => ({
    ...emptyDraft(JSON_FIELD),
    text: field.preset === undefined ? '' : JSON.stringify(field.preset, null, 2),
  }));
  const [problems, setProblems] = useState(new Map<string, string>());
  const [file, setFile] = useState<File | null>(null);
  const [everyone, setEveryone] = useState(false);
  const [seconds, setSeconds] = useState('30');
  const peers = store.peers.filter((one) => one.name === name).length;
  const wanted = raw ? JSON_FIELD : field;
  const entered = raw ? json : draft;

  /** Take along what was entered, as far as the other side can say it. */
  const turn = (toRaw: boolean): void => {
    setProblems(new Map());
    const { value, problems: wrong } = readDraft(wanted, entered);
    if (toRaw) {
      if (value !== undefined && !wrong.size) setJson({ ...json, text: JSON.stringify(value, null, 2) });
    } else if (json.text.trim()) {
      const taken = value === undefined ? null : draftOf(field, value);
      if (!taken)
        return setProblems(
          new Map([['0', wrong.get('0') ?? 'The form cannot say this. Change it, or call it as JSON.']]),
        );
      setDraft(taken);
    }
    setRaw(toRaw);
  };

  const submit = (event: Event): void => {
    event.preventDefault();
    const timeout = Number(seconds) * 1000;
    const { value, problems: wrong } =
      !raw && field.kind === 'bytes'
        ? bytesOf(file)
        : readDraft(wanted, raw && !json.text.trim() ? { ...json, text: 'null' } : entered);
    if (!(timeout > 0 && timeout < 2 ** 31)) wrong.set('timeout', 'A number of seconds above 0 is needed.');
    setProblems(wrong);
    if (wrong.size) queueMicrotask(() => requestAnimationFrame(() => focusProblem(form.current)));
    else onCall({ request: value, timeout, everyone: everyone && !stream });
  };

  return (
    <form ref={form} class="card call" onSubmit={submit} noValidate aria-label="Call">
      {hasForm(field) && (
        <fieldset class="choices">
          <legend class="unseen">Request as</legend>
          <Radio name="as" label="Form" checked={!raw} onChoose={() => turn(false)} />
          <Radio name="as" label="JSON" checked={raw} onChoose={() => turn(true)} />
        </fieldset>
      )}
      {!raw && field.kind === 'bytes' ? (
        <label class="field">
          <span>File to send as the request</span>
          <input
            type="file"
            aria-invalid={problems.has('0')}
            onChange={(event) => setFile(event.currentTarget.files?.[0] ?? null)}
          />
          {problems.has('0') && <span class="problem">{problems.get('0')}</span>}
        </label>
      ) : (
        <FieldView
          key={raw}
          field={wanted}
          draft={entered}
          onDraft={raw ? setJson : setDraft}
          name="Request"
          required
          at="0"
          problems={problems}
        />
      )}
      <div class="tools">
        <TextField label="Timeout in seconds" value={seconds} onText={setSeconds} problem={problems.get('timeout')} />
        {!stream && peers > 1 && (
          <fieldset class="choices">
            <legend class="unseen">Ask</legend>
            <Radio name="who" label="This peer" checked={!everyone} onChoose={() => setEveryone(false)} />
            <Radio
              name="who"
              label={name === US ? `All ${peers} peers of mine` : `All ${peers} peers of ${name}`}
              checked={everyone}
              onChoose={() => setEveryone(true)}
            />
          </fieldset>
        )}
        <p class="buttons">
          {busy && !stream && (
            <button type="button" onClick={onCancel}>
              Cancel
            </button>
          )}
          <button class="main">{stream ? 'Watch' : 'Call'}</button>
        </p>
      </div>
    </form>
  );
}

function bytesOf(file: File | null): { value: Sendable; problems: Map<string, string> } {
  return { value: file, problems: new Map(file ? [] : [['0', 'Choose a file: this module takes bytes.']]) };
}

function focusProblem(form: HTMLFormElement | null): void {
  form?.querySelector<HTMLElement>('[aria-invalid=true], [data-problem]')?.focus();
}

function Radio({
  name,
  label,
  checked,
  onChoose,
}: {
  name: string;
  label: string;
  checked: boolean;
  onChoose: () => void;
}) {
  return (
    <label>
      <input type="radio" name={name} checked={checked} onChange={onChoose} />
      <span>{label}</span>
    </label>
  );
}
