/**
 * From a JSON Schema to the fields of a form.
 *
 * A schema comes from another peer and may be anything. What pydantic writes becomes fields; every part that is not
 * understood, nests too deep, refers to itself or is too much becomes one field for JSON. Nothing of it is run: a
 * `pattern` is shown, not tried, for a bad one could hold the page up for ever.
 */

import type { Json } from '../../src/types.ts';

/** How deep fields may nest, how many a form may have, and how many choices a field. */
const MAX_DEPTH = 8;
const MAX_FIELDS = 300;
const MAX_CHOICES = 200;
/** Letters of a title or a description, and of the JSON of a default, a constant, the choices. */
const MAX_TEXT = 600;
const MAX_JSON = 10_000;

type Schema = { [key: string]: Json };

interface Common {
  title: string;
  help: string;
  /** The default. */
  preset?: Json | undefined;
  /** Left empty, it is null. */
  nullable?: boolean;
}

export interface Member {
  name: string;
  required: boolean;
  field: Field;
}

export type Field = Common &
  (
    | { kind: 'json' | 'null' | 'flag' | 'bytes' }
    | { kind: 'fixed'; value: Json }
    | { kind: 'choice'; options: Json[] }
    | { kind: 'text'; format: string; pattern: string; least: number; most: number }
    | { kind: 'number'; whole: boolean; min: number; max: number; above: number; below: number }
    | { kind: 'list'; item: Field; least: number; most: number }
    | { kind: 'object'; members: Member[] }
    | { kind: 'union'; options: Field[] }
  );

/** The form of a request. `bytes` stands for a request that is raw bytes: only a whole request can be. */
export function fieldOf(schema: Json): Field {
  return new Reader(schema).read(schema, 0, []);
}

/** Whether the form is more than one field for JSON. */
export function hasForm(field: Field): boolean {
  return field.kind !== 'json';
}

class Reader {
  #root: Json;
  #left = MAX_FIELDS;

  constructor(root: Json) {
    this.#root = root;
  }

  /** Read a part. `refs` are the references that led here, each of which may be followed once. */
  read(given: Json, depth: number, refs: string[]): Field {
    const resolved = this.#resolve(given, refs);
    if (!resolved || depth > MAX_DEPTH || --this.#left < 0) return { kind: 'json', ...commonOf(asSchema(given)) };
    const [schema, followed] = resolved;
    return { ...commonOf(schema), ...this.#shape(schema, depth, followed) } as Field;
  }

  #shape(schema: Schema, depth: number, refs: string[]): object {
    const options = own(schema, 'anyOf') ?? own(schema, 'oneOf');
    if (Array.isArray(options)) return this.#union(schema, options, depth, refs);
    const fixed = own(schema, 'const');
    if (fixed !== undefined) return isSmall(fixed) ? { kind: 'fixed', value: fixed } : { kind: 'json' };
    const choices = own(schema, 'enum');
    if (Array.isArray(choices)) {
      const isFit = choices.length && choices.length <= MAX_CHOICES && isSmall(choices);
      return isFit ? { kind: 'choice', options: choices } : { kind: 'json' };
    }
    const type = own(schema, 'type');
    if (Array.isArray(type))
      return this.#union(
        schema,
        type.map((one) => ({ ...schema, type: one, title: one })),
        depth,
        refs,
      );
    if (type === 'null') return { kind: 'null' };
    if (type === 'boolean') return { kind: 'flag' };
    if (type === 'string') return textShape(schema, depth);
    if (type === 'integer' || type === 'number') return numberShape(schema, type === 'integer');
    if (type === 'array') return this.#list(schema, depth, refs);
    if (type === 'object') return this.#object(schema, depth, refs);
    return { kind: 'json' };
  }

  /** One of several; with null among them and one other, that other, which may be left empty. */
  #union(schema: Schema, options: Json[], depth: number, refs: string[]): object {
    if (options.length > MAX_CHOICES) return { kind: 'json' };
    const fields = options.map((option) => this.read(option, depth + 1, refs));
    const others = fields.filter(({ kind }) => kind !== 'null');
    const [only] = others;
    if (others.length === 1 && only) {
      if (fields.length === 1) return merged(only, schema);
      const preset = own(schema, 'default');
      if (isScalar(only) && (preset === undefined || preset === null))
        return { ...merged(only, schema), nullable: true };
    }
    return { kind: 'union', options: fields };
  }

  #list(schema: Schema, depth: number, refs: string[]): object {
    const items = own(schema, 'items');
    if (own(schema, 'prefixItems') || !isObject(items)) return { kind: 'json' };
    const item = this.read(items, depth + 1, refs);
    return { kind: 'list', item, least: bound(schema, 'minItems', 0), most: bound(schema, 'maxItems', Infinity) };
  }

  #object(schema: Schema, depth: number, refs: string[]): object {
    const properties = own(schema, 'properties');
    if (!isObject(properties))
      return { kind: own(schema, 'additionalProperties') === false ? 'object' : 'json', members: [] };
    const entries = Object.entries(properties);
    if (entries.length > this.#left) return { kind: 'json' };
    const required = own(schema, 'required');
    const members = entries.map(([name, value]) => ({
      name,
      required: Array.isArray(required) && required.includes(name),
      field: this.read(value, depth + 1, refs),
    }));
    return { kind: 'object', members };
  }

  /** Follow `$ref` and a single `allOf`; what stands beside them goes before. Null if that leads nowhere. */
  #resolve(given: Json, refs: string[]): [Schema, string[]] | null {
    let schema = asSchema(given);
    for (;;) {
      const ref = own(schema, '$ref');
      const all = own(schema, 'allOf');
      let next: Json | undefined;
      if (typeof ref === 'string' && !refs.includes(ref) && refs.length < MAX_DEPTH) {
        next = this.#lookUp(ref);
        refs = [...refs, ref];
      } else if (ref === undefined && Array.isArray(all) && all.length === 1) {
        next = all[0];
      } else {
        return ref === undefined && all === undefined ? [schema, refs] : null;
      }
      if (!isObject(next)) return null;
      const { $ref: _ref, allOf: _all, ...beside } = schema;
      schema = { ...next, ...beside };
    }
  }

  #lookUp(ref: string): Json | undefined {
    if (!ref.startsWith('#')) return undefined;
    let at: Json | undefined = this.#root;
    for (const step of ref.split('/').slice(1, 20)) {
      at = isObject(at) ? own(at, step.replaceAll('~1', '/').replaceAll('~0', '~')) : undefined;
    }
    return at;
  }
}

/** A field that is one control, which can be left empty. */
export function isScalar({ kind }: Field): boolean {
  return kind === 'text' || kind === 'number' || kind === 'flag' || kind === 'choice' || kind === 'json';
}

function textShape(schema: Schema, depth: number): object {
  const format = textOf(schema, 'format');
  if (format === 'binary' && depth === 0) return { kind: 'bytes' };
  const [least, most] = [bound(schema, 'minLength', 0), bound(schema, 'maxLength', Infinity)];
  return { kind: 'text', format, pattern: textOf(schema, 'pattern'), least, most };
}

function numberShape(schema: Schema, whole: boolean): object {
  return {
    kind: 'number',
    whole,
    min: bound(schema, 'minimum', -Infinity),
    max: bound(schema, 'maximum', Infinity),
    above: bound(schema, 'exclusiveMinimum', -Infinity),
    below: bound(schema, 'exclusiveMaximum', Infinity),
  };
}

function merged(field: Field, outer: Schema): Field {
  const { title, help, preset } = commonOf(outer);
  return { ...field, title: title || field.title, help: help || field.help, preset: preset ?? field.preset };
}

function commonOf(schema: Schema): Common {
  const preset = own(schema, 'default');
  const isFit = preset !== undefined && isSmall(preset);
  return { title: textOf(schema, 'title'), help: textOf(schema, 'description'), preset: isFit ? preset : undefined };
}

function isSmall(value: Json): boolean {
  return JSON.stringify(value).length <= MAX_JSON;
}

function textOf(schema: Schema, key: string): string {
  const value = own(schema, key);
  return typeof value === 'string' ? value.slice(0, MAX_TEXT) : '';
}

function bound(schema: Schema, key: string, otherwise: number): number {
  const value = own(schema, key);
  return typeof value === 'number' ? value : otherwise;
}

function own(schema: Schema, key: string): Json | undefined {
  return Object.hasOwn(schema, key) ? schema[key] : undefined;
}

function isObject(value: Json | undefined): value is Schema {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function asSchema(value: Json): Schema {
  return isObject(value) ? value : {};
}
