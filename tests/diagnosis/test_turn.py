"""Trying TURN servers: allocations that are given and given back, and every way in which there is none."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bonevalue.diagnosis import turn
from bonevalue.diagnosis.findings import Finding, Verdict
from bonevalue.diagnosis.turn import TurnServer, examine_turn, relays_of
from bonevalue.ice_url import parse_ice_url
from bonevalue.link import IceConfig
from bonevalue.relay import Login
from tests.support.certificates import Authority
from tests.support.scripted_turn import PASSWORD, USERNAME, scripted_turn

LOGIN = Login(USERNAME, PASSWORD)


def at(url: str, login: Login = LOGIN, seconds_left: float | None = None) -> TurnServer:
    return TurnServer(parse_ice_url(url), login, seconds_left)


async def look(*servers: TurnServer) -> list[Finding]:
    return await examine_turn(servers, IceConfig())


async def test_an_allocation_is_made_and_given_back() -> None:
    async with scripted_turn() as server:
        [finding] = await look(at(server.url))
        assert (server.allocations, server.given_back) == (1, 1)
    assert (finding.verdict, finding.advice) == (Verdict.OK, "")
    assert finding.text.startswith(f"{server.url} relays at 203.0.113.3:50000 (")
    assert finding.facts["relayed"] == ["203.0.113.3", 50_000]
    assert finding.facts["expiresIn"] is None


async def test_a_credential_that_expires() -> None:
    async with scripted_turn() as server:
        [finding] = await look(at(server.url, seconds_left=2590.7))
    assert finding.text.endswith(", credential good for 43 min more")
    assert finding.facts["expiresIn"] == 2591


@pytest.mark.parametrize("login", [Login(USERNAME, "wrong"), Login("nobody", PASSWORD), Login()])
async def test_a_wrong_credential(login: Login) -> None:
    async with scripted_turn() as server:
        [finding] = await look(at(server.url, login))
        assert server.allocations == 0
    assert (finding.verdict, finding.text) == (Verdict.FAIL, f"{server.url}: refused: 401 Unauthorized")
    assert finding.advice == "Check username and credential in ice.servers."
    assert "wrong" not in f"{finding.text}{finding.advice}{finding.facts}"


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (403, "Forbidden", "Allow this machine's address"),
        (441, "Wrong Credentials", "username and credential"),
        (486, "Allocation Quota Reached", "user-quota"),
        (508, "Insufficient Capacity", "relay ports"),
        (500, "Server Error", "the log of the TURN server"),
    ],
)
async def test_refusals(code: int, reason: str, words: str) -> None:
    async with scripted_turn((code, reason)) as server:
        [finding] = await look(at(server.url))
    assert (finding.verdict, finding.text) == (Verdict.FAIL, f"{server.url}: refused: {code} {reason}")
    assert finding.facts["refused"] == code
    assert words in finding.advice


async def test_a_credential_that_was_handed_out_and_is_refused() -> None:
    """That is the operator's to mend."""
    async with scripted_turn((441, "Wrong Credentials")) as server:
        [finding] = await look(at(server.url, seconds_left=3600))
    assert "static-auth-secret" in finding.advice


async def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "TURN_TIMEOUT", 0.3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        [finding] = await look(at(f"turn:127.0.0.1:{port}"))
    assert (finding.verdict, finding.text) == (Verdict.FAIL, f"turn:127.0.0.1:{port}: no answer")
    assert f"UDP port {port}" in finding.advice


@pytest.mark.parametrize("url", ["turn:127.0.0.1:{}", "turn:127.0.0.1:{}?transport=tcp", "turns:127.0.0.1:{}"])
async def test_nobody_listens(url: str, free_port: Callable[[], int]) -> None:
    text = url.format(free_port())
    [finding] = await look(at(text))
    assert (finding.verdict, finding.text) == (Verdict.FAIL, f"{text}: nobody listens there")
    assert "Start the TURN server" in finding.advice


async def test_a_certificate_that_is_not_accepted(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=Authority(tmp_path).server())
    async with server:
        [finding] = await look(at(f"turns:127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert finding.verdict is Verdict.FAIL
    assert "certificate" in finding.text and "valid certificate" in finding.advice


async def test_a_name_that_is_not_known() -> None:
    [finding] = await look(at("turn:no-such-host.invalid"))
    assert (finding.verdict, finding.text) == (Verdict.FAIL, "turn:no-such-host.invalid: name not known")
    assert "DNS" in finding.advice


async def test_several_are_reported_in_their_order(free_port: Callable[[], int]) -> None:
    """Where one works, another that cannot be reached is a warning; one that refuses is not."""
    gone = f"turn:127.0.0.1:{free_port()}?transport=tcp"
    async with scripted_turn() as good, scripted_turn((486, "Quota")) as full:
        found = await look(at(full.url), at(good.url), at(gone))
        assert relays_of(found) == {"udp"}
        assert [finding.verdict for finding in found] == [Verdict.FAIL, Verdict.OK, Verdict.WARN]
        assert [finding.verdict for finding in await look(at(full.url), at(gone))] == [Verdict.FAIL, Verdict.FAIL]
    assert found[2].advice != ""
