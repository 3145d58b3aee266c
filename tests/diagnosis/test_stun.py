"""Asking STUN servers, real ones on loopback: what is found, and what that says about the NAT."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable

import pytest

from bonevalue.diagnosis import stun
from bonevalue.diagnosis.findings import Finding, Verdict
from bonevalue.diagnosis.nat import NatKind
from bonevalue.diagnosis.stun import StunSurvey
from bonevalue.ice_url import IceUrl, parse_ice_url
from bonevalue.wire.stun import encode_response
from tests.support.stun_servers import stun_server

OWN = ["127.0.0.1"]
PUBLIC, PUBLIC_TOO = ("203.0.113.9", 40_000), ("203.0.113.9", 40_001)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that do not answer are given up soon."""
    monkeypatch.setattr(stun, "STUN_TIMEOUT", 1.0)


@pytest.fixture
def deaf() -> str:
    """The URL of a port at which nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return f"stun:127.0.0.1:{sock.getsockname()[1]}"


def _urls(texts: Iterable[str]) -> list[IceUrl]:
    return [parse_ice_url(text) for text in texts]


async def survey(*texts: str, others: tuple[str, ...] = (), own: list[str] | None = None) -> StunSurvey:
    asked = StunSurvey(_urls(texts), _urls(others), OWN if own is None else own)
    await asked.ask()
    return asked


def nat(asked: StunSurvey, *relays: str) -> Finding:
    [finding] = asked.nat_findings(relays)
    return finding


async def test_a_server_that_answers() -> None:
    async with stun_server(PUBLIC) as server:
        asked = await survey(server.url())
    [finding] = asked.findings()
    assert (finding.verdict, finding.advice) == (Verdict.OK, "")
    assert finding.text.startswith(f"{server.url()} sees you as 203.0.113.9:40000 (")
    assert finding.text.endswith(" ms)")
    [seen] = finding.facts["seen"]
    assert (seen["family"], seen["host"], seen["port"]) == ("IPv4", *PUBLIC)
    assert 0 < seen["seconds"] < stun.STUN_TIMEOUT


async def test_both_families() -> None:
    async with stun_server() as four, stun_server(("2001:db8::9", 40_000), host="::1") as six:
        asked = await survey(four.url(), six.url("[::1]"), own=["127.0.0.1", "::1"])
    texts = [finding.text for finding in asked.findings()]
    assert " sees you as 127.0.0.1:" in texts[0]
    assert " sees you as [2001:db8::9]:40000 (" in texts[1]
    assert [finding.facts["family"] for finding in asked.nat_findings(())] == [
        "IPv4",
        "IPv6",
    ]


async def test_lost_requests_are_sent_again() -> None:
    async with stun_server(ignored=1) as server:
        asked = await survey(server.url())
        assert server.requests >= 2
    assert asked.findings()[0].verdict is Verdict.OK


async def test_what_is_no_answer_is_passed_over() -> None:
    """Noise, and an answer to somebody else's request, before the right one."""
    forged = encode_response(bytes(12), bytes([192, 0, 2, 66]), 1)
    async with stun_server(PUBLIC, noise=(b"", b"x", bytes(20), bytes(200), forged)) as server:
        asked = await survey(server.url())
    assert [(seen["host"], seen["port"]) for seen in asked.findings()[0].facts["seen"]] == [PUBLIC]


async def test_an_answer_from_elsewhere_does_not_count(hurried: None) -> None:
    """Only the server that was asked may answer, even if somebody else knows the transaction."""
    async with stun_server() as other, stun_server(PUBLIC, through=other) as server:
        asked = await survey(server.url())
        assert server.requests > 0
    assert asked.findings()[0].verdict is Verdict.WARN


async def test_nobody_answers(hurried: None, deaf: str) -> None:
    began = time.monotonic()
    asked = await survey(deaf)
    assert time.monotonic() - began < 5
    [finding] = asked.findings()
    assert (finding.verdict, finding.text) == (Verdict.WARN, f"{deaf}: no answer within 1 s")
    assert "let UDP out" in finding.advice
    blocked = nat(asked)
    assert (blocked.verdict, blocked.facts["kind"]) == (Verdict.FAIL, NatKind.BLOCKED)
    assert "TURN over TCP" in blocked.advice


async def test_without_udp_turn_over_streams_is_a_way_out(hurried: None, deaf: str) -> None:
    assert nat(await survey(deaf), "tcp").verdict is Verdict.WARN


async def test_one_of_two_answers(hurried: None, deaf: str) -> None:
    async with stun_server(PUBLIC) as server:
        asked = await survey(server.url(), deaf)
    good, bad = asked.findings()
    assert (good.verdict, bad.verdict) == (Verdict.OK, Verdict.WARN)
    assert "others do answer" in bad.advice
    assert nat(asked).facts["kind"] is NatKind.UNKNOWN


async def test_a_name_that_is_not_known(hurried: None) -> None:
    asked = await survey("stun:no-such-host.invalid:3478")
    [finding] = asked.findings()
    assert finding.verdict is Verdict.WARN
    assert finding.text == "stun:no-such-host.invalid:3478: its name is not known"


async def test_a_family_that_this_machine_does_not_have() -> None:
    [finding] = (await survey("stun:[2001:db8::1]:3478")).findings()
    assert finding.verdict is Verdict.WARN
    assert "2001:db8::1 is IPv6, and this machine has none" in finding.text


async def test_no_server_at_all() -> None:
    asked = await survey()
    assert asked.findings() == []
    assert (nat(asked).verdict, nat(asked).facts["kind"]) == (Verdict.WARN, NatKind.UNKNOWN)


@pytest.mark.parametrize(
    ("first", "second", "relays", "verdict", "kind", "words"),
    [
        (PUBLIC, PUBLIC, (), Verdict.OK, NatKind.CONE, "endpoint-independent mapping"),
        (PUBLIC, PUBLIC_TOO, ("udp",), Verdict.OK, NatKind.SYMMETRIC, "need TURN"),
        (PUBLIC, PUBLIC_TOO, (), Verdict.WARN, NatKind.SYMMETRIC, "need TURN"),
        (None, None, (), Verdict.OK, NatKind.NONE, "on this machine"),
    ],
)
async def test_nats(
    first: tuple[str, int] | None,
    second: tuple[str, int] | None,
    relays: tuple[str, ...],
    verdict: Verdict,
    kind: NatKind,
    words: str,
) -> None:
    async with stun_server(first) as one, stun_server(second) as two:
        found = nat(await survey(one.url(), two.url()), *relays)
    assert (found.verdict, found.facts["kind"]) == (verdict, kind)
    assert words in found.text
    assert bool(found.advice) == (verdict is not Verdict.OK)


async def test_a_turn_server_helps_to_tell_the_nat_and_has_no_line_here() -> None:
    async with stun_server(PUBLIC) as one, stun_server(PUBLIC_TOO) as two:
        asked = await survey(one.url(), others=(f"turn:127.0.0.1:{two.port}",))
    assert len(asked.findings()) == 1
    assert nat(asked, "udp").facts["kind"] is NatKind.SYMMETRIC
