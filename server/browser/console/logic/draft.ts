/** What somebody has entered into a form so far, and the value that it comes to. */

import type { Json } from '../../src/types.ts';
import type { Field } from './schema.ts';
import { isScalar } from './schema.ts';

/** What was entered into a field. All kinds of fields share this one form, and use the parts that they need. */
export interface Draft {
  /** Tells the entries of a list apart. */
  readonly key: number;
  /** Whether a list, an object or a union that may be left out is sent. */
  readonly included: boolean;
  /** Of texts, numbers and JSON. */
  readonly text: string;
  /** Index of the option of a choice or union, 0 or 1 of a flag; -1 while there is none. */
  readonly chosen: number;
  /** Of the entries of a list, the members of an object, the options of a union. */
  readonly parts: readonly Draft[];
}

/** Entries that a list in a form may have; what needs more goes as JSON. */
export const MAX_ENTRIES = 200;

let keys = 0;

function draft(given: Partial<Draft>): Draft {
  return { key: ++keys, included: true, text: '', chosen: -1, parts: [], ...given };
}

/** The draft to begin with: defaults are filled in where that is the same as to leave them out. */
export function emptyDraft(field: Field, required = true): Draft {
  const preset = isScalar(field) && field.preset !== undefined ? draftOf(field, field.preset) : null;
  if (preset && preset.text.length < 200) return preset;
  switch (field.kind) {
    case 'flag':
      return draft({ chosen: required && !field.nullable ? 0 : -1 });
    case 'list':
      return draft({
        included: required,
        parts: Array.from({ length: Math.min(field.least, MAX_ENTRIES) }, () => emptyDraft(field.item)),
      });
    case 'object':
      return draft({ included: required, parts: field.members.map((one) => emptyDraft(one.field, one.required)) });
    case 'union':
      return draft({ included: required, chosen: 0, parts: field.options.map((option) => emptyDraft(option)) });
    case 'fixed':
      return draft({ included: required || field.preset !== undefined });
    default:
      return draft({ included: required });
  }
}

/** The draft that gives this value; null if the form cannot say it. */
export function draftOf(field: Field, value: Json): Draft | null {
  if (value === null && field.nullable) return draft({});
  switch (field.kind) {
    case 'json':
      return draft({ text: JSON.stringify(value, null, 2) });
    case 'null':
      return value === null ? draft({}) : null;
    case 'fixed':
      return same(value, field.value) ? draft({}) : null;
    case 'flag':
      return typeof value === 'boolean' ? draft({ chosen: Number(value) }) : null;
    case 'choice': {
      const chosen = field.options.findIndex((option) => same(option, value));
      return chosen < 0 ? null : draft({ chosen });
    }
    case 'text':
      return typeof value === 'string' ? draft({ text: value }) : null;
    case 'number':
      return typeof value === 'number' ? draft({ text: String(value) }) : null;
    case 'list': {
      if (!Array.isArray(value) || value.length > MAX_ENTRIES) return null;
      const parts = value.map((entry) => draftOf(field.item, entry));
      return parts.every((part) => part !== null) ? draft({ parts }) : null;
    }
    case 'object':
      return objectDraft(field, value);
    case 'union': {
      const parts = field.options.map((option) => draftOf(option, value));
      const chosen = parts.findIndex((part) => part !== null);
      return chosen < 0 ? null : draft({ chosen, parts: field.options.map((one, i) => parts[i] ?? emptyDraft(one)) });
    }
    case 'bytes':
      return null;
  }
}

function objectDraft(field: Field & { kind: 'object' }, value: Json): Draft | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return null;
  const names = new Set(field.members.map(({ name }) => name));
  if (Object.keys(value).some((name) => !names.has(name))) return null;
  const parts = field.members.map(({ name, required, field: inner }) => {
    const entry = Object.hasOwn(value, name) ? value[name] : undefined;
    if (entry === undefined)
      return required ? null : { ...emptyDraft({ ...inner, preset: undefined }, false), included: false };
    return draftOf(inner, entry);
  });
  return parts.every((part) => part !== null) ? draft({ parts }) : null;
}

/** What a form comes to. */
export interface Reading {
  value: Json | undefined;
  /** What is wrong, by the place of the field: its indexes from the top, as in `0.2`. */
  problems: Map<string, string>;
}

/** Read a form. */
export function readDraft(field: Field, entered: Draft): Reading {
  const problems = new Map<string, string>();
  return { value: read(field, entered, true, '0', problems), problems };
}

/** Whether leaving this field empty leaves it out; then it is not sent. */
function isEmpty(field: Field, { text, chosen, included }: Draft): boolean {
  if (field.kind === 'flag' || field.kind === 'choice') return chosen < 0;
  if (field.kind === 'text') return text === '';
  return isScalar(field) ? text.trim() === '' : !included;
}

function read(
  field: Field,
  given: Draft,
  required: boolean,
  at: string,
  problems: Map<string, string>,
): Json | undefined {
  const fail = (problem: string): undefined => void problems.set(at, problem);
  if (isEmpty(field, given)) {
    if (!required) return undefined;
    if (field.nullable) return null;
  }
  const part = (inner: Field, index: number): Json | undefined => {
    const entered = given.parts[index];
    return entered && read(inner, entered, true, `${at}.${index}`, problems);
  };
  switch (field.kind) {
    case 'fixed':
      return field.value;
    case 'null':
      return null;
    case 'flag':
      return given.chosen < 0 ? fail('Choose yes or no.') : given.chosen === 1;
    case 'choice':
      return given.chosen < 0 ? fail('Choose one.') : field.options[given.chosen];
    case 'text':
      return textProblem(field, given.text, fail);
    case 'number':
      return numberOf(field, given.text, fail);
    case 'json':
      return jsonOf(given.text, fail);
    case 'list': {
      const { least, most } = field;
      if (given.parts.length < least) return fail(`At least ${least} needed.`);
      if (given.parts.length > most) return fail(`At most ${most} allowed.`);
      return given.parts.map((_, index) => part(field.item, index) ?? null);
    }
    case 'object': {
      const entries = field.members.map(({ name, field: inner, required: needed }, index) => {
        const entered = given.parts[index];
        return [name, entered && read(inner, entered, needed, `${at}.${index}`, problems)] as const;
      });
      return Object.fromEntries(entries.filter((entry): entry is [string, Json] => entry[1] !== undefined));
    }
    case 'union': {
      const option = field.options[given.chosen];
      return option ? part(option, given.chosen) : fail('Choose one.');
    }
    case 'bytes':
      return undefined;
  }
}

type Fail = (problem: string) => undefined;

function textProblem({ least, most }: Field & { kind: 'text' }, text: string, fail: Fail): Json | undefined {
  const length = [...text].length;
  if (length < least) return fail(least === 1 ? 'Must not be empty.' : `At least ${least} characters needed.`);
  return length > most ? fail(`At most ${most} characters allowed.`) : text;
}

function numberOf(field: Field & { kind: 'number' }, text: string, fail: Fail): Json | undefined {
  const { whole, min, max, above, below } = field;
  const number = Number(text);
  if (text.trim() === '' || !Number.isFinite(number))
    return fail(whole ? 'A whole number is needed.' : 'A number is needed.');
  if (whole && !Number.isSafeInteger(number)) {
    return fail(Number.isInteger(number) ? 'Too large for a number in a browser.' : 'A whole number is needed.');
  }
  if (number < min) return fail(`At least ${min}.`);
  if (number > max) return fail(`At most ${max}.`);
  if (number <= above) return fail(`Must be more than ${above}.`);
  return number >= below ? fail(`Must be less than ${below}.`) : number;
}

function jsonOf(text: string, fail: Fail): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch (error) {
    return fail(`This is not JSON: ${error instanceof Error ? error.message : error}`);
  }
}

function same(a: Json, b: Json): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
