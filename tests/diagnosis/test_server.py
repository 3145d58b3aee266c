"""The way to a discovery server, step by step, to scripted ones on loopback."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from bonevalue.config import ServerSettings
from bonevalue.diagnosis import server as examined
from bonevalue.diagnosis.findings import Finding, Verdict
from bonevalue.diagnosis.server import ServerExamination
from bonevalue.wire.signals import Binary, Hello
from tests.support.certificates import Authority
from tests.support.scripted_server import Scene, Script, ScriptedServer
from tests.support.sessions import CHALLENGE


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that gets no answer is given up soon."""
    monkeypatch.setattr(examined, "STEP_TIMEOUT", 2.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def greets(*, realm: str = "localhost", ahead: float = 0.0, version: int = 1) -> Script:
    """A server whose clock is so many seconds ahead."""

    async def script(scene: Scene) -> None:
        moment = int((time.time() + ahead) * 1000)
        await scene.say(Hello(version, realm, Binary(CHALLENGE), moment, "open", 86_400))
        await scene.listen()

    return script


async def look(address: str, **settings: Any) -> tuple[dict[str, Finding], ServerExamination]:
    """The findings, by what was checked."""
    examination = ServerExamination(ServerSettings(address=address, **settings))
    doing: list[str] = []
    found = [finding async for finding in examination.findings(doing.append)]
    assert len(doing) >= 1
    by_check = {finding.check: finding for finding in found}
    assert len(by_check) == len(found)
    return by_check, examination


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {check: finding.verdict.value for check, finding in found.items()}


async def test_all_is_well() -> None:
    async with ScriptedServer(greets()) as server:
        found, examination = await look(server.address.url)
    assert verdicts(found) == {"tcp": "ok", "realm": "ok", "clock": "ok"}
    assert found["tcp"].text.startswith(f"127.0.0.1:{server.port} answers (")
    assert found["realm"].text == "localhost, protocol 1"
    assert examination.broken == ""
    assert abs(examination.ahead) < 1


async def test_nobody_listens(free_port: Callable[[], int]) -> None:
    port = free_port()
    found, examination = await look(f"ws://127.0.0.1:{port}")
    assert verdicts(found) == {"tcp": "fail", "realm": "not_tried", "clock": "not_tried"}
    assert found["tcp"].text == f"127.0.0.1:{port}: connection refused"
    assert "Start the discovery server" in found["tcp"].advice
    assert found["realm"].text == f"not tried: {examination.broken}"


async def test_a_name_that_nobody_knows() -> None:
    found, _ = await look("wss://no-such-host.invalid")
    assert verdicts(found) == {
        "dns": "fail", "tcp": "not_tried", "tls": "not_tried", "realm": "not_tried", "clock": "not_tried",
    }  # fmt: skip
    assert "no-such-host.invalid" in found["dns"].text
    assert found["dns"].advice


def resolving_to(*addresses: str) -> Callable[..., list[Any]]:
    def getaddrinfo(host: object, port: int, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return getaddrinfo


async def test_a_name_with_an_address_that_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer(greets(realm="bv.example.org")) as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1", "127.0.0.9"))
        found, _ = await look(f"ws://bv.example.org:{server.port}", insecure=True)
    assert verdicts(found) == {"dns": "ok", "tcp": "warn", "tls": "warn", "realm": "ok", "clock": "ok"}
    assert found["dns"].text.startswith("bv.example.org is 127.0.0.1 and 127.0.0.9 (")
    assert found["tcp"].text.endswith("; 127.0.0.9: connection refused")
    assert "not encrypted" in found["tls"].text


async def test_all_addresses_are_dead(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolving_to("127.0.0.1", "127.0.0.9"))
    found, _ = await look(f"ws://bv.example.org:{free_port()}", insecure=True)
    assert verdicts(found)["tcp"] == "fail"


async def test_no_way_to_an_address() -> None:
    """This machine is not on any network."""
    found, _ = await look("wss://192.0.2.1")
    assert verdicts(found)["tcp"] == "fail"
    assert "this machine's network" in found["tcp"].advice


# -- TLS -----------------------------------------------------------------------------------------------------------


async def test_a_certificate_that_is_good(authority: Authority) -> None:
    async with ScriptedServer(*[greets()] * 4, tls=authority.server()) as server:
        found, _ = await look(server.address.url, ca_file=authority.file)
    assert verdicts(found) == {"tcp": "ok", "tls": "ok", "realm": "ok", "clock": "ok"}
    assert found["tls"].text.startswith("TLSv1.3, certificate good until 20")
    assert found["tls"].facts["certificateEnds"] > time.time()


async def test_a_certificate_that_ends_soon(authority: Authority) -> None:
    async with ScriptedServer(*[greets()] * 4, tls=authority.server(days=3)) as server:
        found, _ = await look(server.address.url, ca_file=authority.file)
    assert (found["tls"].verdict, found["tls"].advice) == (Verdict.WARN, "Renew it.")
    assert found["realm"].verdict is Verdict.OK


@pytest.mark.parametrize(
    ("life", "left", "verdict"),
    [(90, 13, Verdict.WARN), (90, 15, Verdict.OK), (6, 3, Verdict.OK), (6, 1, Verdict.WARN)],
)
def test_how_long_a_certificate_should_be_good(life: int, left: int, verdict: Verdict) -> None:
    end = time.time() + left * 86_400
    begins, ends = (time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(each)) for each in (end - life * 86_400, end))
    assert examined._judge_certificate("TLSv1.3", begins, ends).verdict is verdict


@pytest.mark.parametrize(
    ("host", "days", "known", "words", "advice"),
    [
        ("127.0.0.1", -1, True, "expired", "Renew the server's certificate"),
        ("127.0.0.2", 30, True, "mismatch", "server.address"),
        ("127.0.0.1", 30, False, "issuer certificate", "server.ca_file"),
    ],
)
async def test_certificates_that_are_refused(
    authority: Authority, host: str, days: int, known: bool, words: str, advice: str
) -> None:
    async with ScriptedServer(*[greets()] * 4, tls=authority.server(host, days=days)) as server:
        found, _ = await look(server.address.url, **({"ca_file": authority.file} if known else {}))
    assert verdicts(found) == {"tcp": "ok", "tls": "fail", "realm": "not_tried", "clock": "not_tried"}
    assert words in found["tls"].text
    assert advice in found["tls"].advice


async def test_a_file_of_authorities_that_is_none(authority: Authority) -> None:
    authority.file.write_text("nonsense")
    async with ScriptedServer(*[greets()] * 4, tls=authority.server()) as server:
        found, _ = await look(server.address.url, ca_file=authority.file)
    assert (found["tls"].verdict, found["tls"].advice) == (Verdict.FAIL, "Correct server.ca_file.")


async def test_a_server_without_tls() -> None:
    async with ScriptedServer(greets()) as server:
        found, _ = await look(f"wss://127.0.0.1:{server.port}")
    assert verdicts(found)["tls"] == "fail"
    assert "the one for wss://" in found["tls"].advice


async def test_a_server_that_wants_tls(authority: Authority) -> None:
    context: ssl.SSLContext = authority.server()
    async with ScriptedServer(tls=context) as server:
        found, _ = await look(f"ws://127.0.0.1:{server.port}")
    assert verdicts(found) == {"tcp": "ok", "realm": "fail", "clock": "not_tried"}


# -- the greeting --------------------------------------------------------------------------------------------------


async def test_another_realm() -> None:
    async with ScriptedServer(greets(realm="bv.example.org")) as server:
        found, examination = await look(server.address.url)
    assert verdicts(found) == {"tcp": "ok", "realm": "fail", "clock": "not_tried"}
    assert found["realm"].advice.startswith("Set server.realm to bv.example.org")
    assert examination.broken


async def test_the_realm_of_the_settings_counts() -> None:
    async with ScriptedServer(greets(realm="bv.example.org")) as server:
        found, _ = await look(server.address.url, realm="bv.example.org")
    assert found["realm"].verdict is Verdict.OK


async def test_another_version() -> None:
    async with ScriptedServer(greets(version=2)) as server:
        found, _ = await look(server.address.url)
    assert found["realm"].verdict is Verdict.FAIL
    assert "version 2" in found["realm"].text


async def test_something_else_answers() -> None:
    def not_found(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(HTTPStatus.NOT_FOUND, "nothing here\n")

    async with ScriptedServer(process_request=not_found) as server:
        found, _ = await look(server.address.url)
    assert found["realm"].verdict is Verdict.FAIL
    assert "HTTP 404" in found["realm"].text


async def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examined, "STEP_TIMEOUT", 1.0)

    async def silent(scene: Scene) -> None:
        await scene.listen()

    async with ScriptedServer(silent) as server:
        found, _ = await look(server.address.url)
    assert found["realm"].verdict is Verdict.FAIL
    assert "does not answer" in found["realm"].text


@pytest.mark.parametrize(
    ("ahead", "verdict", "words"),
    [
        (0.0, Verdict.OK, "the same as the server's"),
        (-20.0, Verdict.OK, "ahead of the server's"),
        (-40.0, Verdict.WARN, " s ahead of the server's"),
        (150.0, Verdict.WARN, "2 min behind the server's"),
        (400.0, Verdict.FAIL, "6 min behind the server's"),
        (-86_400.0 * 3.5, Verdict.FAIL, "3 days ahead of the server's"),
    ],
)
async def test_clocks(ahead: float, verdict: Verdict, words: str) -> None:
    async with ScriptedServer(greets(ahead=ahead)) as server:
        found, examination = await look(server.address.url)
    assert found["clock"].verdict is verdict
    assert words in found["clock"].text
    assert abs(examination.ahead + ahead) < 5  # a busy machine takes its time
    assert bool(found["clock"].advice) == (verdict is not Verdict.OK)
    assert examination.broken == ""  # the other checks go on
