"""
Peers behind NATs and firewalls: what they reach each other by, how soon, and what they are told where nothing works.

The discovery server answers STUN itself and hands out credentials for coturn; the peers' files say nothing of either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.lab import Caller, Coturn, Host, Kind, Lab
from tests.support.lab.modules import COUNT, COUNT_MODULE

SECRET = "a secret of the lab that only two servers know"
#: How often each pair of peers connects anew.
DIALS = 5
#: Kinds of candidates of a path that goes straight from one peer to the other.
DIRECT = {"host", "srflx", "prflx"}


@pytest.fixture(scope="module")
def turn(lab: Lab) -> Coturn:
    """coturn, and a discovery server that hands out credentials for it, for two accounts that trust each other."""
    turn = lab.coturn(secret=SECRET)
    urls = [turn.url("udp"), turn.url("tcp"), turn.url("tls")]
    lab.discovery("alice", "bob", turn={"urls": urls, "secret": SECRET})
    one, other = lab.host("alice", "open"), lab.host("bob", "open")
    one.write()
    other.write()
    lab.befriend(one, other)
    return turn


@dataclass
class Pair:
    """A caller of alice's and a daemon of bob's, each behind a box of its own."""

    alice: Caller
    bob: Host

    def first_calls(self) -> list[float]:
        """Seconds that each of some calls took; every one needs a new link, for no link is kept."""
        options: dict[str, Any] = {"keep_alive": False, "timeout": 30}
        outcomes = [self.alice.call("bob", COUNT_MODULE, {"n": n}, **options) for n in range(DIALS)]
        assert [outcome.succeeded() for outcome in outcomes] == [{"n": n, "for": "alice"} for n in range(DIALS)]
        return [outcome.seconds for outcome in outcomes]

    def path(self) -> dict[str, str]:
        """The way from alice to bob."""
        path = self.alice.ping("bob").succeeded()["path"]
        assert isinstance(path, dict)
        return path

    def failure(self) -> dict[str, Any]:
        """Of a call for which there is no way, with the seconds that it took."""
        outcome = self.alice.call("bob", COUNT_MODULE, {"n": 0}, timeout=60)
        assert outcome.code == "connect_failed", outcome
        assert outcome.error is not None
        return {**outcome.error, "seconds": outcome.seconds}


@pytest.fixture
def pair(lab: Lab, turn: Coturn, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The pair behind boxes of the two kinds that the test's parameter names."""
    yield from make_pair(lab, *request.param)


def make_pair(lab: Lab, one: Kind, other: Kind, **sections: Any) -> Iterator[Pair]:
    number = len(list(lab.folder.iterdir()))
    bob = lab.host(f"b{number}", other, account="bob")
    daemon = bob.daemon(modules=[bob.module("count", COUNT) + ".Count"], **sections)
    alice = lab.host(f"a{number}", one, account="alice").caller(**sections)
    yield Pair(alice, bob)
    alice.close()
    daemon.stop()


def behind(*kinds: Kind) -> pytest.MarkDecorator:
    """The test's parameter for :func:`pair`."""
    return pytest.mark.parametrize("pair", [kinds], ids=["-".join(kinds)], indirect=True)


# -- straight ----------------------------------------------------------------------------------------------------------


@behind("open", "open")
def test_open(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 3
    path = pair.path()
    assert (path["local"], path["remote"], path["family"]) == ("host", "host", "IPv4")


@behind("cone", "cone")
def test_two_cones_meet_by_the_discovery_servers_own_stun(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 3
    path = pair.path()
    assert {path["local"], path["remote"]} <= DIRECT
    assert path["relay"] == ""


@behind("symmetric", "full_cone")
def test_symmetric_and_full_cone_meet(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 3
    assert pair.path()["relay"] == ""


# -- by TURN -----------------------------------------------------------------------------------------------------------


@behind("symmetric", "symmetric")
def test_two_symmetric_ones_meet_by_turn(pair: Pair, turn: Coturn) -> None:
    assert max(pair.first_calls()) <= 6
    path = pair.path()
    assert "relay" in (path["local"], path["remote"])
    assert turn.allocations() > 0


@behind("udp_blocked", "cone")
def test_without_udp_turn_goes_over_tcp(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 12
    path = pair.path()
    assert (path["local"], path["relay"]) == ("relay", "tcp")


@behind("cone", "udp_blocked")
def test_without_udp_at_the_other_end_too(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 12
    assert pair.path()["remote"] in {"relay", "prflx"}


@behind("udp_blocked", "udp_blocked")
def test_both_without_udp_meet_by_two_relays(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 12
    assert pair.path()["relay"] == "tcp"


@behind("tls_only", "cone")
def test_where_only_tls_gets_out_turn_goes_over_it(pair: Pair) -> None:
    assert max(pair.first_calls()) <= 12
    path = pair.path()
    assert (path["local"], path["relay"]) == ("relay", "tls")


def test_policy_relay_shows_no_address(lab: Lab, turn: Coturn) -> None:
    for pair in make_pair(lab, "cone", "cone", ice={"policy": "relay"}):
        assert max(pair.first_calls()) <= 6
        path = pair.path()
        assert path["local"] == "relay"
        assert path["remote"] == "relay"


# -- what to say where nothing works -----------------------------------------------------------------------------------


@behind("all_blocked", "cone")
def test_where_all_is_blocked_the_error_says_what_was_tried(pair: Pair, turn: Coturn) -> None:
    failure = pair.failure()
    assert failure["seconds"] <= 25
    report = failure["report"]
    assert report["phase"] == "checking"
    assert set(report["ours"]) == {"host"}
    assert set(report["theirs"]) >= {"host", "srflx", "relay"}
    outcomes = {server["url"]: server["outcome"] for server in report["servers"]}
    assert set(outcomes) >= {turn.url("udp"), turn.url("tcp"), turn.url("tls")}
    assert set(outcomes.values()).isdisjoint({"ok"})
    assert_for_people(failure)


@behind("symmetric", "symmetric")
def test_where_turn_is_down_the_error_says_so(pair: Pair, turn: Coturn) -> None:
    turn.stop()
    try:
        failure = pair.failure()
    finally:
        turn.start()
    assert failure["seconds"] <= 25
    report = failure["report"]
    assert report["phase"] == "checking"
    assert set(report["ours"]) == {"host", "srflx"}
    outcomes = {server["url"]: server["outcome"] for server in report["servers"]}
    assert all(outcomes[turn.url(transport)] != "ok" for transport in ("udp", "tcp", "tls"))
    assert any(url.startswith("stun:") and outcome == "ok" for url, outcome in outcomes.items())
    assert_for_people(failure)
    assert "TURN" in report["advice"]


def assert_for_people(failure: dict[str, Any]) -> None:
    """The text of the error is one line that has what the report has."""
    text, report = failure["message"], failure["report"]
    assert "\n" not in text
    assert all(kind in text for kind in (*report["ours"], *report["theirs"]))
    assert report["advice"].endswith(".")
    assert report["advice"] in text
    assert all(each["url"] in text for each in report["servers"] if each["outcome"] != "ok")


# -- servers that are gone ---------------------------------------------------------------------------------------------


@behind("cone", "cone")
def test_a_turn_server_that_is_gone_costs_little(pair: Pair, turn: Coturn) -> None:
    turn.stop()
    try:
        assert max(pair.first_calls()) <= 3
    finally:
        turn.start()


@behind("symmetric", "symmetric")
def test_a_turn_server_that_comes_back_is_used_again(pair: Pair, turn: Coturn) -> None:
    pair.first_calls()
    turn.stop()
    turn.start()
    assert max(pair.first_calls()) <= 6
