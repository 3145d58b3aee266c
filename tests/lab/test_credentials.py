"""TURN credentials that end: they are replaced in time, and where that is too late, once and silently."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGCONT, SIGSTOP

import pytest

from tests.support.lab import Caller, Coturn, Host, Lab
from tests.support.lab.modules import COUNT, COUNT_MODULE


@pytest.fixture(scope="module")
def friends(lab: Lab) -> tuple[Host, Host]:
    """Two hosts behind symmetric NATs, whose accounts trust each other."""
    lab.discovery("alice", "bob")
    alice, bob = lab.host("alice", "symmetric"), lab.host("bob", "symmetric")
    alice.write()
    bob.write(modules=[bob.module("count", COUNT) + ".Count"])
    lab.befriend(alice, bob)
    return alice, bob


@contextmanager
def peers(
    lab: Lab, friends: tuple[Host, Host], *, lifetime: float, ahead: float = 0.0
) -> Iterator[tuple[Caller, Coturn]]:
    """A caller that reaches bob only by TURN, with credentials of that lifetime; coturn's clock may be ahead."""
    turn = lab.coturn(ahead=ahead)
    lab.discovery("alice", "bob", turn=turn.role("udp", lifetime=lifetime))
    alice, bob = friends
    daemon, caller = bob.start(), alice.caller()
    yield caller, turn
    caller.close()
    daemon.stop()
    turn.stop()


def refused(turn: Coturn) -> set[str]:
    """The usernames that coturn has refused."""
    return set(re.findall(r"Cannot find credentials of user <([^>]+)>", turn.output))


def used(turn: Coturn) -> set[str]:
    """The usernames with which it has made allocations."""
    return set(re.findall(r"user <([^>]+)>: incoming packet ALLOCATE processed, success", turn.output))


def account(username: str) -> str:
    """Whose it is, as the server that made it calls the account."""
    return username.partition(":")[2]


def test_one_that_turn_takes_for_expired_is_replaced_once_and_silently(lab: Lab, friends: tuple[Host, Host]) -> None:
    """coturn takes a credential for six of its thirty seconds; another is sent only after fifteen."""
    with peers(lab, friends, lifetime=30, ahead=24) as (alice, turn):
        time.sleep(8)  # what this waits for is time itself
        outcome = alice.call("bob", COUNT_MODULE, {"n": 1})
        assert outcome.succeeded() == {"n": 1, "for": "alice"}
        assert outcome.seconds <= 6
        assert {account(name) for name in refused(turn)} == {account(name) for name in used(turn)}
        assert len(refused(turn)) == len(used(turn)) == 2  # of two accounts, one each
        assert refused(turn).isdisjoint(used(turn))
        assert "[warning" not in alice.log.read_text()


def test_one_that_ended_while_the_peer_was_frozen_is_not_used(lab: Lab, friends: tuple[Host, Host]) -> None:
    with peers(lab, friends, lifetime=4) as (alice, turn):
        alice.call("bob", COUNT_MODULE, {"n": 0}, keep_alive=False).succeeded()
        alice.signal(SIGSTOP)
        time.sleep(5)
        call = alice.begin("call", target="bob", module=COUNT_MODULE, request={"n": 1})
        alice.signal(SIGCONT)
        outcome = call.result(30)
        assert outcome.succeeded() == {"n": 1, "for": "alice"}
        assert outcome.seconds <= 6
        assert refused(turn) == set()


@pytest.mark.timeout(60)
def test_calls_go_on_for_many_lifetimes(lab: Lab, friends: tuple[Host, Host]) -> None:
    with peers(lab, friends, lifetime=2) as (alice, turn):
        until = time.monotonic() + 8
        n = 0
        while time.monotonic() < until:
            assert alice.call("bob", COUNT_MODULE, {"n": n}, keep_alive=False).succeeded()["n"] == n
            n += 1
            time.sleep(0.5)  # the server lets one peer ask another for a link once a second, twenty times sooner
        assert refused(turn) == set()
        assert len(used(turn)) >= 6
