/** From a JSON Schema to a form, and from what was entered to the request. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { draftOf, emptyDraft, readDraft, type Draft } from '../../../server/browser/console/logic/draft.ts';
import { fieldOf, hasForm, type Field } from '../../../server/browser/console/logic/schema.ts';
import type { Json } from '../../../server/browser/src/types.ts';

// What pydantic writes for a model with a bit of everything.
const READING: Json = {
  $defs: {
    Place: {
      properties: {
        room: { description: 'Name of the room.', minLength: 1, title: 'Room', type: 'string' },
        floor: { default: 0, maximum: 120, minimum: -3, title: 'Floor', type: 'integer' },
      },
      required: ['room'],
      title: 'Place',
      type: 'object',
    },
    Unit: { enum: ['C', 'F'], title: 'Unit', type: 'string' },
  },
  description: 'What to measure.',
  properties: {
    kind: { const: 'reading', title: 'Kind', type: 'string' },
    place: { $ref: '#/$defs/Place', description: 'Where.' },
    unit: { $ref: '#/$defs/Unit', default: 'C' },
    precise: { default: false, title: 'Precise', type: 'boolean' },
    since: { anyOf: [{ format: 'date-time', type: 'string' }, { type: 'null' }], default: null, title: 'Since' },
    who: { anyOf: [{ type: 'string' }, { type: 'null' }], title: 'Who' },
    tags: { items: { type: 'string' }, maxItems: 2, minItems: 1, title: 'Tags', type: 'array' },
    limit: { anyOf: [{ exclusiveMinimum: 0, type: 'number' }, { type: 'string' }], default: 'none', title: 'Limit' },
    extra: { additionalProperties: { type: 'integer' }, title: 'Extra', type: 'object' },
  },
  required: ['kind', 'place', 'who', 'tags'],
  title: 'Reading',
  type: 'object',
};

function member(field: Field, name: string): Field {
  assert.ok(field.kind === 'object');
  const found = field.members.find((one) => one.name === name);
  assert.ok(found, name);
  return found.field;
}

/** Enter something into a member of an object. */
function enter(field: Field, draft: Draft, name: string, given: Partial<Draft>): Draft {
  assert.ok(field.kind === 'object');
  const index = field.members.findIndex((one) => one.name === name);
  return { ...draft, parts: draft.parts.with(index, { ...draft.parts[index]!, ...given }) };
}

test('a pydantic model becomes fields', () => {
  const form = fieldOf(READING);
  assert.ok(form.kind === 'object');
  assert.equal(form.help, 'What to measure.');
  assert.deepEqual(
    form.members.map(({ name, required, field }) => [name, required, field.kind, field.nullable ?? false]),
    [
      ['kind', true, 'fixed', false],
      ['place', true, 'object', false],
      ['unit', false, 'choice', false],
      ['precise', false, 'flag', false],
      ['since', false, 'text', true],
      ['who', true, 'text', true],
      ['tags', true, 'list', false],
      ['limit', false, 'union', false],
      ['extra', false, 'json', false],
    ],
  );
  const place = member(form, 'place');
  assert.equal(place.help, 'Where.');
  const floor = member(place, 'floor');
  assert.ok(floor.kind === 'number');
  assert.deepEqual([floor.whole, floor.min, floor.max, floor.preset], [true, -3, 120, 0]);
  const since = member(form, 'since');
  assert.ok(since.kind === 'text');
  assert.equal(since.format, 'date-time');
});

test('what was entered becomes the request; what was left empty is left out, or null', () => {
  const form = fieldOf(READING);
  let draft = emptyDraft(form);
  const place = member(form, 'place');
  assert.ok(form.kind === 'object');
  const at = form.members.findIndex(({ name }) => name === 'place');
  const room = enter(place, draft.parts[at]!, 'room', { text: 'attic' });
  draft = enter(form, draft, 'place', room);
  const tags = member(form, 'tags');
  assert.ok(tags.kind === 'list');
  draft = enter(form, draft, 'tags', { parts: [{ ...emptyDraft(tags.item), text: 'a' }] });
  draft = enter(form, draft, 'extra', { text: '{"a": 1}' });
  const { value, problems } = readDraft(form, draft);
  assert.equal(problems.size, 0);
  assert.deepEqual(value, {
    kind: 'reading',
    place: { room: 'attic', floor: 0 },
    unit: 'C',
    precise: false,
    who: null,
    tags: ['a'],
    extra: { a: 1 },
  });
});

test('what does not fit is told with its place', () => {
  const form = fieldOf(READING);
  const draft = enter(form, emptyDraft(form), 'extra', { text: '{' });
  const { problems } = readDraft(form, draft);
  assert.deepEqual([...problems.keys()].toSorted(), ['0.1.0', '0.8']);
  assert.equal(problems.get('0.1.0'), 'Must not be empty.');
  assert.match(problems.get('0.8')!, /^This is not JSON/);
});

test('a request goes from JSON into the form and back', () => {
  const form = fieldOf(READING);
  const request = { kind: 'reading', place: { room: 'attic' }, who: 'me', tags: ['x', 'y'], limit: 2.5, since: null };
  const draft = draftOf(form, request);
  assert.ok(draft);
  const { since: _, ...sent } = request; // null is the default there, so that it may be left out
  assert.deepEqual(readDraft(form, draft).value, sent);
});

test('JSON that the form cannot say is not taken', () => {
  const form = fieldOf(READING);
  const good = { kind: 'reading', place: { room: 'attic' }, who: null, tags: ['x'] };
  assert.ok(draftOf(form, good));
  for (const bad of [
    null,
    [],
    { ...good, more: 1 },
    { ...good, kind: 'other' },
    { ...good, tags: [1] },
    { ...good, place: {} },
  ]) {
    assert.equal(draftOf(form, bad), null);
  }
});

test('numbers are checked', () => {
  const problem = (schema: Json, text: string): string | undefined => {
    const form = fieldOf(schema);
    return readDraft(form, { ...emptyDraft(form), text }).problems.get('0');
  };
  const whole = { type: 'integer', minimum: 1, maximum: 9 };
  assert.equal(problem(whole, '9'), undefined);
  assert.equal(problem(whole, '10'), 'At most 9.');
  assert.equal(problem(whole, '0'), 'At least 1.');
  for (const text of ['', '1.5', 'x', '0x', 'Infinity'])
    assert.equal(problem(whole, text), 'A whole number is needed.');
  assert.equal(problem({ type: 'integer' }, '9007199254740993'), 'Too large for a number in a browser.');
  assert.equal(problem({ type: 'number', exclusiveMinimum: 0 }, '0'), 'Must be more than 0.');
  assert.equal(problem({ type: 'number', exclusiveMaximum: 1 }, '1'), 'Must be less than 1.');
  assert.equal(problem({ type: 'number' }, '1e-3'), undefined);
});

test('a request of bytes is a file; anything goes as JSON', () => {
  assert.equal(fieldOf({ type: 'string', format: 'binary' }).kind, 'bytes');
  for (const schema of [
    null,
    {},
    true,
    [],
    { type: 'object' },
    { type: 'array', prefixItems: [] },
    { not: {} },
  ] as Json[]) {
    assert.equal(hasForm(fieldOf(schema)), false);
  }
});

test('a union by discriminator offers its kinds by name', () => {
  const form = fieldOf({
    $defs: {
      List: {
        title: 'List',
        type: 'object',
        properties: { op: { const: 'list' }, path: { default: '', type: 'string' } },
        required: ['op'],
      },
      Read: {
        title: 'Read',
        type: 'object',
        properties: { op: { const: 'read' }, path: { type: 'string' } },
        required: ['op', 'path'],
      },
    },
    discriminator: { mapping: { list: '#/$defs/List', read: '#/$defs/Read' }, propertyName: 'op' },
    oneOf: [{ $ref: '#/$defs/List' }, { $ref: '#/$defs/Read' }],
  });
  assert.ok(form.kind === 'union');
  assert.deepEqual(
    form.options.map(({ title }) => title),
    ['List', 'Read'],
  );
  assert.deepEqual(readDraft(form, emptyDraft(form)).value, { op: 'list' });
  const draft = draftOf(form, { op: 'read', path: 'a' });
  assert.equal(draft?.chosen, 1);
  assert.deepEqual(readDraft(form, draft!).value, { op: 'read', path: 'a' });
});

test('a schema that refers to itself ends in a field for JSON', () => {
  const tree = fieldOf({
    $ref: '#/$defs/Node',
    $defs: {
      Node: {
        type: 'object',
        properties: { name: { type: 'string' }, children: { type: 'array', items: { $ref: '#/$defs/Node' } } },
      },
    },
  });
  const children = member(tree, 'children');
  assert.ok(children.kind === 'list');
  assert.equal(children.item.kind, 'json');
  const circle: Json = { $ref: '#/$defs/A', $defs: { A: { $ref: '#/$defs/B' }, B: { $ref: '#/$defs/A' } } };
  assert.equal(fieldOf(circle).kind, 'json');
  assert.equal(fieldOf({ $ref: '#/nowhere' }).kind, 'json');
  assert.equal(fieldOf({ $ref: 'https://example.org/schema' }).kind, 'json');
  assert.equal(fieldOf({ $ref: '#/__proto__/constructor' }).kind, 'json');
});

test('a hostile schema stays small', () => {
  const count = (field: Field): number => {
    if (field.kind === 'object') return 1 + field.members.reduce((sum, one) => sum + count(one.field), 0);
    if (field.kind === 'union') return 1 + field.options.reduce((sum, one) => sum + count(one), 0);
    return 1 + (field.kind === 'list' ? count(field.item) : 0);
  };
  // Each level has ten of the next: ten million fields, if they were all made.
  const $defs: { [name: string]: Json } = { L7: { type: 'string' } };
  for (let level = 6; level >= 0; level--) {
    const properties = Object.fromEntries(
      Array.from({ length: 10 }, (_, index) => [`p${index}`, { $ref: `#/$defs/L${level + 1}` }]),
    );
    $defs[`L${level}`] = { type: 'object', properties };
  }
  assert.ok(count(fieldOf({ $ref: '#/$defs/L0', $defs })) <= 3100);
  let deep: Json = { type: 'string' };
  for (let level = 0; level < 10_000; level++) deep = { type: 'array', items: deep };
  assert.ok(count(fieldOf(deep)) < 20);
  const wide = {
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: 5000 }, (_, index) => [`p${index}`, {}])),
  };
  assert.equal(fieldOf(wide).kind, 'json');
  assert.equal(fieldOf({ enum: Array.from({ length: 5000 }, (_, index) => index) }).kind, 'json');
  const long = 'x'.repeat(100_000);
  assert.equal(fieldOf({ enum: [long] }).kind, 'json');
  assert.equal(fieldOf({ const: long }).kind, 'json');
  assert.equal(fieldOf({ type: 'string', default: long }).preset, undefined);
  const title = fieldOf({ type: 'string', title: 'x'.repeat(100_000), description: 7, minLength: 'many' });
  assert.ok(title.title.length < 1000 && title.help === '');
});

test('a member may be called as it likes', () => {
  const form = fieldOf(
    JSON.parse(
      '{"type": "object", "properties": {"__proto__": {"type": "string"}, "constructor": {"type": "string"}}}',
    ) as Json,
  );
  const draft = draftOf(form, JSON.parse('{"__proto__": "a"}') as Json);
  assert.ok(draft);
  assert.equal(JSON.stringify(readDraft(form, draft).value), '{"__proto__":"a"}');
});

test('parts that may be left out are, until they are wanted', () => {
  const form = fieldOf({
    type: 'object',
    properties: {
      list: { type: 'array', items: { type: 'integer' }, default: [1] },
      inner: { type: 'object', properties: {} },
      flag: { type: 'boolean' },
    },
  });
  const draft = emptyDraft(form);
  assert.deepEqual(readDraft(form, draft).value, {});
  const wanted = enter(form, enter(form, draft, 'list', { included: true }), 'flag', { chosen: 1 });
  assert.deepEqual(readDraft(form, wanted).value, { list: [], flag: true });
});
