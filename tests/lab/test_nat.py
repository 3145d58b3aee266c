"""
Peers behind NATs and firewalls: what they reach each other by, how soon, and what they are told where nothing works.

R19 of the targets; ``benchmarks/nat.py`` measures its figures with more calls. The discovery server answers STUN itself
and hands out credentials for coturn; the peers' files say nothing of either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.lab import Coturn, Kind, Lab, Outcome
from tests.support.lab.pairs import Pair, acquaint, pair_behind

#: How often each pair of peers connects anew.
DIALS = 5
#: Seconds in which a link must come about where none can. The error comes then at the latest, and by default, which is
#: 20 s, within 25.
CONNECT_TIMEOUT = 6.0
#: Kinds of candidates of a path that goes straight from one peer to the other.
DIRECT = {"host", "srflx", "prflx"}


@pytest.fixture(scope="module")
def turn(lab: Lab) -> Coturn:
    """coturn, beside a discovery server that hands out credentials for it."""
    return acquaint(lab)


@pytest.fixture
def pair(lab: Lab, turn: Coturn, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A caller and a daemon, behind boxes of the two kinds that the test's parameter names."""
    with pair_behind(lab, *request.param) as pair:
        yield pair


@pytest.fixture
def impatient_pair(lab: Lab, turn: Coturn, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The same, with less time for a connection than is the default, so that the tests need not wait so long."""
    with pair_behind(lab, *request.param, pool={"connect_timeout": CONNECT_TIMEOUT}) as pair:
        yield pair


def behind(*kinds: Kind, fixture: str = "pair") -> pytest.MarkDecorator:
    """The test's parameter for one of the fixtures above."""
    return pytest.mark.parametrize(fixture, [kinds], ids=["-".join(kinds)], indirect=True)


# -- straight ----------------------------------------------------------------------------------------------------------


@behind("open", "open")
def test_open(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 3
    path = pair.path()
    assert (path["local"], path["remote"], path["family"]) == ("host", "host", "IPv4")


@behind("cone", "cone")
def test_two_cones_meet_by_the_discovery_servers_own_stun(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 3
    path = pair.path()
    assert {path["local"], path["remote"]} <= DIRECT
    assert path["relay"] == ""


@behind("symmetric", "full_cone")
def test_symmetric_and_full_cone_meet(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 3
    assert pair.path()["relay"] == ""


# -- by TURN -----------------------------------------------------------------------------------------------------------


@behind("symmetric", "symmetric")
def test_two_symmetric_ones_meet_by_turn(pair: Pair, turn: Coturn) -> None:
    assert max(pair.first_calls(DIALS)) <= 6
    path = pair.path()
    assert "relay" in (path["local"], path["remote"])
    assert turn.allocations() > 0


@behind("udp_blocked", "cone")
def test_without_udp_turn_goes_over_tcp(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 12
    path = pair.path()
    assert (path["local"], path["relay"]) == ("relay", "tcp")


@behind("cone", "udp_blocked")
def test_without_udp_at_the_other_end_too(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 12
    assert pair.path()["remote"] in {"relay", "prflx"}


@behind("udp_blocked", "udp_blocked")
def test_both_without_udp_meet_by_two_relays(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 12
    assert pair.path()["relay"] == "tcp"


@behind("tls_only", "cone")
def test_where_only_tls_gets_out_turn_goes_over_it(pair: Pair) -> None:
    assert max(pair.first_calls(DIALS)) <= 12
    path = pair.path()
    assert (path["local"], path["relay"]) == ("relay", "tls")


def test_policy_relay_shows_no_address(lab: Lab, turn: Coturn) -> None:
    with pair_behind(lab, "cone", "cone", ice={"policy": "relay"}) as pair:
        assert max(pair.first_calls(DIALS)) <= 6
        path = pair.path()
        assert path["local"] == "relay"
        assert path["remote"] == "relay"


# -- what to say where nothing works -----------------------------------------------------------------------------------


@behind("all_blocked", "cone", fixture="impatient_pair")
def test_where_all_is_blocked_the_error_says_what_was_tried(impatient_pair: Pair, turn: Coturn) -> None:
    failure = impatient_pair.failure()
    assert failure.seconds <= CONNECT_TIMEOUT + 1
    report = explained(failure)
    assert report["phase"] == "checking"
    assert set(report["ours"]) == {"host"}
    assert set(report["theirs"]) >= {"host", "srflx", "relay"}
    outcomes = {server["url"]: server["outcome"] for server in report["servers"]}
    assert set(outcomes) >= urls(turn)
    assert set(outcomes.values()).isdisjoint({"ok"})


@behind("symmetric", "symmetric", fixture="impatient_pair")
def test_where_turn_is_down_the_error_says_so(impatient_pair: Pair, turn: Coturn) -> None:
    turn.stop()
    try:
        failure = impatient_pair.failure()
    finally:
        turn.start()
    assert failure.seconds <= CONNECT_TIMEOUT + 1
    report = explained(failure)
    assert report["phase"] == "checking"
    assert set(report["ours"]) == {"host", "srflx"}
    outcomes = {server["url"]: server["outcome"] for server in report["servers"]}
    assert all(outcomes[url] != "ok" for url in urls(turn))
    assert any(url.startswith("stun:") and outcome == "ok" for url, outcome in outcomes.items())
    assert any(url in report["advice"] for url in urls(turn))


def urls(turn: Coturn) -> set[str]:
    """All that it is reached by."""
    return set(turn.role()["urls"])


def explained(failure: Outcome) -> Any:
    """The report of a connection that failed; the error's text, one line for people, must have all that is in it."""
    assert failure.error is not None
    text, report = failure.error["message"], failure.error["report"]
    assert "\n" not in text
    assert all(kind in text for kind in (*report["ours"], *report["theirs"]))
    assert report["advice"].endswith(".")
    assert report["advice"] in text
    assert all(each["url"] in text for each in report["servers"] if each["outcome"] != "ok")
    return report


# -- servers that are gone ---------------------------------------------------------------------------------------------


@behind("cone", "cone")
def test_a_turn_server_that_is_gone_costs_little(pair: Pair, turn: Coturn) -> None:
    turn.stop()
    try:
        assert max(pair.first_calls(DIALS)) <= 3
    finally:
        turn.start()


@behind("symmetric", "symmetric")
def test_a_turn_server_that_comes_back_is_used_again(pair: Pair, turn: Coturn) -> None:
    pair.first_calls(DIALS)
    turn.stop()
    turn.start()
    assert max(pair.first_calls(DIALS)) <= 6
