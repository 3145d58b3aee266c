/** What is taken of the candidates of a remote peer: only addresses that a well-meaning peer could have. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readCandidate } from '../../../server/browser/src/rtc.ts';

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
