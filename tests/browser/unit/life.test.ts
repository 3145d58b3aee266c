/** The table of a link's life. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { DOING, LinkLife, TRANSITIONS, type State } from '../../../server/browser/src/life.ts';

const STATES = Object.keys(TRANSITIONS) as State[];

/** How to come to each state. */
const WAYS: Record<State, State[]> = {
  queue: [],
  gathering: ['gathering'],
  relay: ['gathering', 'relay'],
  answer: ['gathering', 'relay', 'answer'],
  checking: ['gathering', 'checking'],
  dtls: ['gathering', 'checking', 'dtls'],
  proof: ['gathering', 'checking', 'dtls', 'proof'],
  open: ['gathering', 'checking', 'proof', 'open'],
  draining: ['gathering', 'checking', 'proof', 'open', 'draining'],
  failed: ['failed'],
  lost: ['gathering', 'checking', 'proof', 'open', 'lost'],
  closed: ['gathering', 'checking', 'proof', 'open', 'closed'],
};

function lived(state: State): LinkLife {
  const life = new LinkLife('7', 'bob', true);
  for (const step of WAYS[state]) life.to(step);
  return life;
}

test('every transition is in the table or a mistake of ours', () => {
  for (const from of STATES) {
    for (const to of STATES) {
      const life = lived(from);
      if (TRANSITIONS[from].split(' ').includes(to)) {
        life.to(to);
        assert.equal(life.state, to);
      } else {
        assert.throws(() => life.to(to), TypeError);
        assert.equal(life.state, from);
      }
    }
  }
});

test('an attempt ends failed, a link as it is said, and only once', () => {
  for (const state of STATES) {
    const life = lived(state);
    const isOver = life.isOver;
    life.end('lost');
    assert.equal(life.state, isOver ? state : state in DOING ? 'failed' : 'lost');
    life.end('closed');
    assert.equal(life.isOver, true);
  }
});

test('how far it came while it was set up stays known', () => {
  const life = lived('answer');
  life.end('failed');
  assert.deepEqual([life.state, life.phase], ['failed', 'answer']);
});

test('every step is told', () => {
  const told: State[] = [];
  const life = new LinkLife('7', '', false, (each) => told.push(each.state));
  for (const step of WAYS.closed) life.to(step);
  assert.deepEqual(told, WAYS.closed);
});
