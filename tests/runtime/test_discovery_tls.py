"""Whom the client believes to be its discovery server, over TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from bonevalue.config import Address
from bonevalue.discovery import DiscoveryClient
from bonevalue.errors import ConfigError
from bonevalue.sockets import parse_address, tls_context
from bonevalue.wire.session_events import AttemptFailed, Event, WentOnline
from tests.support.certificates import Authority
from tests.support.scripted_server import ScriptedServer
from tests.support.sessions import make_session
from tests.support.waiting import until


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority of this test's own."""
    return Authority(tmp_path)


async def _first_event(address: Address, tls: ssl.SSLContext | None) -> Event:
    events: list[Event] = []
    client = DiscoveryClient(address, make_session(), on_event=events.append, tls=tls)
    task = asyncio.create_task(client.run())
    try:
        await until(lambda: events)
    finally:
        await client.close()
        with suppress(Exception):
            await task
    return events[0]


async def test_a_server_of_the_given_authority_is_believed(authority: Authority) -> None:
    async with ScriptedServer(tls=authority.server()) as server:
        assert isinstance(await _first_event(server.address, tls_context(str(authority.file))), WentOnline)
        assert server.address.url.startswith("wss://")


@pytest.mark.parametrize(
    ("host", "days", "known", "why"),
    [
        ("127.0.0.1", 30, False, "unable to get local issuer certificate"),
        ("127.0.0.1", -1, True, "certificate has expired"),
        ("127.0.0.2", 30, True, "not valid for '127.0.0.1'"),
        ("localhost", 30, True, "not valid for '127.0.0.1'"),
    ],
    ids=["unknown authority", "expired", "another address", "another host"],
)
async def test_any_other_server_is_not(authority: Authority, host: str, days: int, known: bool, why: str) -> None:
    async with ScriptedServer(tls=authority.server(host, days=days)) as server:
        failed = await _first_event(server.address, tls_context(str(authority.file)) if known else None)
        assert isinstance(failed, AttemptFailed)
        assert "its certificate is not accepted" in failed.error.message and why in failed.error.message
        assert server.scenes == []


async def test_a_server_without_tls_is_not() -> None:
    async with ScriptedServer() as server:
        failed = await _first_event(parse_address(f"wss://127.0.0.1:{server.port}"), None)
        assert isinstance(failed, AttemptFailed)
        assert failed.error.message.endswith("it broke the connection off")
        assert server.scenes == []


def test_only_the_given_authorities_count(authority: Authority) -> None:
    context = tls_context(str(authority.file))
    assert len(context.get_ca_certs()) == 1
    assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_without_authorities_is_a_fault_of_the_configuration(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"authorities\.pem: "):
        tls_context(str(file))
