/** What the console makes of addresses, sizes, times, tokens, answers and of who comes and goes. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { adviceOn, problemText } from '../../../server/browser/console/logic/explain.ts';
import {
  bytesText,
  clip,
  countText,
  fileName,
  millisText,
  pathText,
  sentence,
  spanText,
} from '../../../server/browser/console/logic/format.ts';
import { makePassword } from '../../../server/browser/console/logic/password.ts';
import { groupPeers, linkText, presenceText } from '../../../server/browser/console/logic/presence.ts';
import { href, parseRoute, type Route } from '../../../server/browser/console/logic/route.ts';
import { cleanToken, tokenExpiry } from '../../../server/browser/console/logic/token.ts';
import { show, SHOWN } from '../../../server/browser/console/logic/values.ts';
import type { Json, LinkInfo } from '../../../server/browser/src/types.ts';

test('sizes and times', () => {
  assert.deepEqual([0, 532, 1536, 10_485_760, 5e12].map(bytesText), ['0 B', '532 B', '1.5 KiB', '10 MiB', '4.5 TiB']);
  assert.deepEqual([0.4217, 12.34, 123.4, 1250, 61_000].map(millisText), [
    '0.42 ms',
    '12.3 ms',
    '123 ms',
    '1.25 s',
    '1 min 1 s',
  ]);
  assert.deepEqual([-5, 59, 3600, 86_399, 90_061].map(spanText), ['0 s', '59 s', '1 h', '23 h 59 min', '1 d 1 h']);
  assert.equal(countText(1, 'peer'), '1 peer');
  assert.equal(countText(0, 'peer'), '0 peers');
});

test('paths', () => {
  assert.equal(pathText(null), '');
  assert.equal(pathText({ local: 'host', remote: 'srflx', family: 'IPv6', relay: '' }), 'host to srflx, IPv6');
  assert.equal(pathText({ local: 'relay', remote: 'host', family: '', relay: 'udp' }), 'relay (udp) to host');
});

test('texts are cut between letters', () => {
  assert.equal(clip('abc', 3), 'abc');
  assert.equal(clip('abcd', 3), 'abc');
  assert.equal(clip('ab\u{1f980}', 3), 'ab');
  assert.equal(sentence('no such file'), 'No such file.');
  assert.equal(sentence('Really?'), 'Really?');
  assert.equal(sentence('bv.modules failed'), 'bv.modules failed.');
  assert.equal(fileName('a/b/c.txt'), 'c.txt');
  assert.equal(fileName('a/'), 'file');
});

test('every place has an address', () => {
  const places: Route[] = [
    { screen: 'peers' },
    { screen: 'trust' },
    { screen: 'account' },
    { screen: 'peer', id: '123' },
    { screen: 'module', id: '123', module: 'My.Echo.Module' },
    { screen: 'module', id: '123', module: 'a/b?c#d %' },
    { screen: 'files', id: '123', module: 'Files', path: '' },
    { screen: 'files', id: '123', module: 'Team.Files', path: 'docs/a b/100%' },
  ];
  for (const place of places) assert.deepEqual(parseRoute(href(place)), place);
  assert.deepEqual(parseRoute(''), { screen: 'peers' });
  assert.deepEqual(parseRoute('#/peers/123/modules'), { screen: 'peer', id: '123' });
  for (const bad of ['#/nowhere', '#/trust/x', '#/peers/1/modules/a/b', '#/peers/1/x/y', '#/peers/%']) {
    assert.deepEqual(parseRoute(bad), { screen: 'unknown' }, bad);
  }
});

test('a token tells when it expires', () => {
  const raw = new Uint8Array(57).fill(7);
  new DataView(raw.buffer).setUint32(49, 4_000_000_000);
  const text = `bv1_${btoa(String.fromCharCode(...raw))
    .replaceAll('+', '-')
    .replaceAll('/', '_')}`;
  assert.equal(tokenExpiry(text), 4_000_000_000_000);
  assert.equal(tokenExpiry(cleanToken(` ${text.slice(0, 30)}\n${text.slice(30)} `)), 4_000_000_000_000);
  for (const bad of ['', 'bv1_', text.slice(1), `${text}A`, text.replace('_', '-')])
    assert.equal(tokenExpiry(bad), null);
});

test('a password that is made is long, and new each time', () => {
  const made = new Set(Array.from({ length: 50 }, makePassword));
  assert.equal(made.size, 50);
  for (const password of made) assert.match(password, /^([a-km-np-z2-9]{4}-){4}[a-km-np-z2-9]{4}$/);
});

test('peers are shown by alias, one’s own account first', () => {
  const contact = (name: string) => ({ name, fingerprint: 'x', problem: null });
  const peers = [
    { name: 'bob', id: '30' },
    { name: 'Us', id: '7' },
    { name: 'bob', id: '4' },
  ];
  const told = (text: string) =>
    groupPeers([contact('zoe'), contact('bob')], peers, text).map(({ name, peers: ids }) => [
      name,
      ids.map(({ id }) => id),
    ]);
  assert.deepEqual(told(''), [
    ['Us', ['7']],
    ['bob', ['4', '30']],
    ['zoe', []],
  ]);
  assert.deepEqual(told(' BOB '), [['bob', ['4', '30']]]);
  assert.deepEqual(told('30'), [['bob', ['30']]]);
  assert.deepEqual(told('nobody'), []);
});

test('who comes and goes is told in one sentence each, or in one for many', () => {
  const many = Array.from({ length: 4 }, (_, index) => ({ name: 'bob', id: String(index) }));
  assert.equal(presenceText([], []), '');
  assert.equal(presenceText(many.slice(0, 1), []), 'bob 0 came online.');
  assert.equal(presenceText(many, many.slice(0, 2)), '4 peers came online. bob 0 went offline. bob 1 went offline.');
});

test('states of a link', () => {
  const link = (state: string): LinkInfo => ({
    peer: { name: 'bob', id: '1' },
    state,
    since: 0,
    roundTrip: null,
    calls: 0,
    dialled: true,
  });
  assert.deepEqual(linkText(undefined), { text: 'no link', tone: 'none' });
  assert.deepEqual(linkText(link('open')), { text: 'linked', tone: 'good' });
  assert.deepEqual(linkText(link('checking')), { text: 'trying paths', tone: 'busy' });
  for (const state of ['failed', 'lost', 'closed']) assert.equal(linkText(link(state)).tone, 'none');
});

test('answers are shown within bounds', () => {
  assert.deepEqual(show({ a: 1 }), { text: '{\n  "a": 1\n}', size: 12, cut: false, bytes: null });
  assert.equal(show(undefined).text, 'null');
  const long = show('x'.repeat(10_000_000));
  assert.equal(long.text.length, SHOWN);
  assert.deepEqual([long.cut, long.size], [true, 10_000_002]);
  // Set out in lines, each of these numbers would have a hundred spaces in front.
  let deep: Json = Array.from({ length: 150_000 }, () => 1);
  for (let level = 0; level < 50; level++) deep = [deep];
  assert.equal(show(deep).size, 300_101);
  const bytes = new Uint8Array(5);
  assert.deepEqual(show(bytes), { text: '', size: 5, cut: false, bytes });
});

test('advice is only given for codes that are known', () => {
  assert.match(adviceOn('token_expired'), /new token/);
  assert.equal(adviceOn('constructor'), '');
  assert.equal(adviceOn('x'), '');
  assert.match(problemText('identity_mismatch'), /nobody/);
  assert.match(problemText('toString'), /could not be verified/);
});
