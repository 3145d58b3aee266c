"""`bv doctor` behind NATs and firewalls of every kind: what it finds out, and what it advises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.lab import Coturn, Host, Kind, Lab
from tests.support.lab.modules import COUNT, COUNT_MODULE

SECRET = "a secret of the lab that only two servers know"


@pytest.fixture(scope="module")
def turn(lab: Lab) -> Coturn:
    """coturn, and a discovery server that hands out credentials for it and answers STUN on two ports."""
    turn = lab.coturn(secret=SECRET)
    urls = [turn.url("udp"), turn.url("tcp"), turn.url("tls")]
    lab.discovery("alice", "bob", turn={"urls": urls, "secret": SECRET})
    return turn


@pytest.fixture(scope="module")
def bob(lab: Lab, turn: Coturn) -> Iterator[Host]:
    """A peer behind a symmetric NAT whom alice trusts."""
    bob, alice = lab.host("bob", "symmetric"), lab.host("alice", "open")
    daemon = bob.daemon(modules=[bob.module("count", COUNT) + ".Count"])
    alice.write()
    lab.befriend(alice, bob)
    yield bob
    daemon.stop()


def look(lab: Lab, kind: Kind, *args: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings of alice's doctor behind a box of that kind."""
    host = lab.host(f"a{len(list(lab.folder.iterdir()))}", kind, account="alice")
    host.write(pool={"connect_timeout": "6s"})
    done = host.bv("doctor", "--json", *args)
    assert done.stderr == ""
    return done.code, done.json[:-1]


def of(found: list[dict[str, Any]], check: str) -> list[tuple[str, str]]:
    """Verdict and text of the lines of one check."""
    return [(line["verdict"], line["text"]) for line in found if line["check"] == check]


def nats(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Verdict and kind of NAT, for each address family."""
    return [(line["verdict"], line["facts"]["kind"]) for line in found if line["check"] == "nat"]


@pytest.mark.parametrize(("kind", "nat"), [("open", "none"), ("cone", "cone"), ("symmetric", "symmetric")])
def test_kinds_of_nat(lab: Lab, turn: Coturn, kind: Kind, nat: str) -> None:
    code, found = look(lab, kind)
    assert code == 0, found
    assert nats(found) == [("ok", nat)]
    assert {verdict for verdict, _ in of(found, "stun")} == {"ok"}
    assert [verdict for verdict, _ in of(found, "turn")] == ["ok", "ok", "ok"]


def test_without_udp(lab: Lab, turn: Coturn) -> None:
    """It is not well, and yet it works: by TURN over TCP."""
    code, found = look(lab, "udp_blocked")
    assert code == 0, found
    assert nats(found) == [("warn", "blocked")]
    assert {verdict for verdict, _ in of(found, "stun")} == {"warn"}
    assert of(found, "turn")[0] == ("warn", f"{turn.url('udp')}: no answer")
    assert [verdict for verdict, _ in of(found, "turn")] == ["warn", "ok", "ok"]


def test_where_all_is_blocked_but_the_discovery_server(lab: Lab, turn: Coturn, bob: Host) -> None:
    code, found = look(lab, "all_blocked", "bob", COUNT_MODULE)
    assert code == 1
    assert [verdict for verdict, _ in of(found, "login")] == ["ok"]
    assert nats(found) == [("fail", "blocked")]
    assert [verdict for verdict, _ in of(found, "turn")] == ["fail", "fail", "fail"]
    [link] = [line for line in found if line["check"] == "link"]
    assert link["verdict"] == "fail"
    assert link["facts"]["report"]["ours"] == ["host"]
    assert link["advice"] and link["advice"] not in link["text"]
    assert of(found, "module") == [("not_tried", f"not tried: no link to {link['facts']['peer']['name']} "
                                    f"{link['facts']['peer']['id']}")]  # fmt: skip


def test_a_path_by_turn(lab: Lab, turn: Coturn, bob: Host) -> None:
    code, found = look(lab, "symmetric", "bob", COUNT_MODULE)
    assert code == 0, found
    [link] = [line for line in found if line["check"] == "link"]
    assert "relay" in (link["facts"]["path"]["local"], link["facts"]["path"]["remote"])
    assert [verdict for verdict, _ in of(found, "module")] == ["ok"]


def test_a_credential_that_coturn_refuses(lab: Lab, turn: Coturn) -> None:
    server = {"urls": turn.url(), "username": "1999999999:alice", "credential": "made-with-another-secret"}
    host = lab.host("mistaken", "cone", account="alice")
    host.write(ice={"servers": [server]})
    done = host.bv("doctor", "--json")
    refused = [line for line in done.json[:-1] if line["check"] == "turn" and line["verdict"] == "fail"]
    assert done.code == 1
    assert [line["text"] for line in refused] == [f"{turn.url()}: refused: 401 Unauthorized"]
    assert refused[0]["advice"] == "Check username and credential in ice.servers."
