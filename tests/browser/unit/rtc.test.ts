/** What is taken of the candidates of a remote peer, and what browsers' reports say of the path that was found. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readCandidate, readPath } from '../../../server/browser/src/rtc.ts';

const candidate = (address: string, kind = 'host', transport = 'udp'): string =>
  `candidate:842163049 1 ${transport} 1677729535 ${address} 46154 typ ${kind} generation 0`;

test('addresses that a peer may have are taken', () => {
  for (const address of [
    '10.99.0.1',
    '192.168.1.20',
    '203.0.113.7',
    '8.8.8.8',
    '1.2.3.4',
    '100.64.0.1',
    '223.255.255.254',
    '12.7.0.1',
    '2001:db8::1',
    'fd00::1',
    'fe00::1',
    '8eab76a4-eadd-4a91-b400-ed855207cad8.local',
  ]) {
    assert.deepEqual(readCandidate(candidate(address)), ['host', address]);
  }
  assert.deepEqual(readCandidate(candidate('8.8.8.8', 'srflx', 'UDP')), ['srflx', '8.8.8.8']);
  assert.deepEqual(readCandidate(candidate('8.8.8.8', 'RELAY')), ['relay', '8.8.8.8']);
});

test('addresses that it has no business with are not, however they are written', () => {
  for (const address of [
    '127.0.0.1',
    '127.9.9.9',
    '0.0.0.0',
    '0.1.2.3',
    '169.254.1.1',
    '224.0.0.1',
    '239.255.255.255',
    '255.255.255.255',
    '2130706433',
    '017700000001',
    '0177.0.0.1',
    '0x7f.0.0.1',
    '0x7f000001',
    '127.1',
    '127.0.1',
    '2852039166',
    '010.0.0.1',
    '1.2.3',
    '1.2.3.4.',
    '1.2.3.4.5',
    '256.1.1.1',
    '1.2.3.400',
    '１.2.3.4',
    '.1.2.3.4',
    '1..2.3',
    '::1',
    '::',
    '0:0:0:0:0:0:0:1',
    '0000::0001',
    '::ffff:127.0.0.1',
    '::ffff:7f00:1',
    '0:0:0:0:0:ffff:7f00:1',
    'fe80::1',
    'FEBF::1',
    'ff02::1',
    'fe80::1%eth0',
    '::127.0.0.1',
    '::7f00:1',
    '0:0::7f00:1',
    'localhost',
    'example.org',
    'x.local',
    'a.b.local',
    '[::1]',
    '127。0。0。1',
    '-',
  ]) {
    assert.equal(readCandidate(candidate(address)), null, address);
  }
});

test('what is no candidate of the kind that is used is not taken', () => {
  for (const text of [
    '',
    'candidate:',
    candidate('8.8.8.8', 'prflx'),
    candidate('8.8.8.8', 'host', 'tcp'),
    candidate('8.8.8.8', 'hosts'),
    candidate('8.8.8.8').replace(' 1 udp', ' 2 udp'),
    `a=${candidate('8.8.8.8')}`,
    ` ${candidate('8.8.8.8')}`,
    candidate('8.8.8.8').padEnd(513, 'x'),
    candidate('8.8.8.8').replace(' 46154', ''),
  ]) {
    assert.equal(readCandidate(text), null, text);
  }
});

/** What `getStats` reports of a connection with two candidates and more than one pair of them. */
function report(local: object, remote: object, marks: { transport?: object; pair?: object }): Map<string, object> {
  const pair = { type: 'candidate-pair', localCandidateId: 'l', remoteCandidateId: 'r' };
  return new Map<string, object>([
    ['other', { ...pair, localCandidateId: 'l2' }],
    ['l', { type: 'local-candidate', candidateType: 'host', ...local }],
    ['r', { type: 'remote-candidate', candidateType: 'srflx', ...remote }],
    ['p', { ...pair, ...marks.pair }],
    ...(marks.transport ? [['t', { type: 'transport', ...marks.transport }] as [string, object]] : []),
  ]);
}

const CHROMIUM = { transport: { selectedCandidatePairId: 'p' } };
/** Before it had transports, and to this day beside them. */
const FIREFOX = { pair: { selected: true } };

test('the path is read from the reports of all browsers', () => {
  const path = { local: 'host', remote: 'srflx', family: 'IPv4', relay: '' };
  for (const marks of [CHROMIUM, FIREFOX, { transport: {}, ...FIREFOX }]) {
    assert.deepEqual(readPath(report({ address: '10.0.0.1' }, { address: '203.0.113.7' }, marks)), path);
  }
  const unknown = { transport: { selectedCandidatePairId: 'x' } };
  for (const marks of [{}, { transport: {} }, { pair: { selected: false } }, unknown]) {
    assert.equal(readPath(report({ address: '10.0.0.1' }, { address: '203.0.113.7' }, marks)), null);
  }
  const relayed = { candidateType: 'relay', relayProtocol: 'tls', address: '2001:db8::1' };
  assert.deepEqual(readPath(report(relayed, { address: '2001:db8::2' }, CHROMIUM)), {
    local: 'relay',
    remote: 'srflx',
    family: 'IPv6',
    relay: 'tls',
  });
});

test('the family is known from one address, if the other is hidden', () => {
  const [name, other] = ['8eab76a4-eadd-4a91-b400-ed855207cad8.local', '0a0a0a0a-0000-4000-8000-000000000001.local'];
  const familyOf = (local: object, remote: object): unknown => readPath(report(local, remote, CHROMIUM))?.family;
  for (const hidden of [{}, { address: '' }, { address: name }]) {
    assert.equal(familyOf(hidden, { address: '10.0.0.1' }), 'IPv4');
    assert.equal(familyOf({ address: '10.0.0.1' }, hidden), 'IPv4');
    assert.equal(familyOf(hidden, { address: '2001:db8::1' }), 'IPv6');
    assert.equal(familyOf({ address: '2001:db8::1' }, hidden), 'IPv6');
    assert.equal(familyOf(hidden, { address: other }), '');
  }
});
