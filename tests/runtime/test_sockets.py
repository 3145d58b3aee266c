"""Opening sockets to a discovery server: addresses, the race of those of one host, and what is said of failures."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop

from bonevalue import sockets
from bonevalue.errors import ConfigError
from bonevalue.sockets import Endpoint, open_tcp, open_websocket, parse_address, resolve, why
from tests.support.scripted_server import ScriptedServer
from tests.support.waiting import UNIT, other_tasks

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in one of the two event loops."""
    loop_run: Run = request.param
    return loop_run


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[Endpoint]:
    """An endpoint that takes connections."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        yield Endpoint(family, listener.getsockname())


@contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[Endpoint]:
    """An endpoint that lets whoever connects to it wait: its queue is full, so that it answers no more."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as first:
        listener.bind((host, 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        yield Endpoint(family, listener.getsockname())


@contextmanager
def refusing() -> Iterator[Endpoint]:
    """An endpoint at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Endpoint(socket.AF_INET, taken.getsockname())


def descriptors() -> set[str]:
    """What this process has open."""
    return set(os.listdir("/proc/self/fd"))


# -- the race ----------------------------------------------------------------------------------------------------------


def test_an_address_that_leads_nowhere_costs_its_head_start(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with black_hole("::1") as dead, listening() as alive:
            began = loop.time()
            with await open_tcp([dead, alive]) as connection:
                assert connection.getpeername() == alive.address
            assert loop.time() - began + 0.01 >= sockets.HEAD_START
            assert loop.time() - began < 1.0
            assert not other_tasks()

    run(main())


def test_after_a_refusal_the_next_is_tried_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_START", 3600.0)

    async def main() -> None:
        with refusing() as first, refusing() as second, listening() as alive:
            connection = await asyncio.wait_for(open_tcp([first, second, alive]), 10)
            assert connection.getpeername() == alive.address
            connection.close()

    run(main())


def test_the_first_address_wins_if_it_answers_in_time(run: Run) -> None:
    async def main() -> None:
        with listening() as first, listening() as second:
            for _ in range(20):
                with await open_tcp([first, second]) as connection:
                    assert connection.getpeername() == first.address

    run(main())


def test_one_that_answers_late_still_wins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_START", UNIT / 5)

    async def late(endpoint: Endpoint) -> socket.socket:
        if endpoint.family == socket.AF_INET6:
            await asyncio.sleep(UNIT)
        return await connect(endpoint)

    connect = sockets._connect
    monkeypatch.setattr(sockets, "_connect", late)

    async def main() -> None:
        with listening("::1") as slow, black_hole() as dead, refusing() as closed:
            connection = await open_tcp([slow, dead, closed])
            assert connection.getpeername() == slow.address
            connection.close()

    run(main())


def test_two_that_answer_at_the_same_moment_leave_one_connection(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_START", 0.0)

    async def together(endpoint: Endpoint) -> socket.socket:
        connection = await connect(endpoint)
        arrived.append(endpoint)
        while len(arrived) < 2:
            await asyncio.sleep(0)
        return connection

    arrived: list[Endpoint] = []
    connect = sockets._connect
    monkeypatch.setattr(sockets, "_connect", together)

    async def main() -> None:
        with listening() as first, listening() as second:
            before = descriptors()
            connection = await open_tcp([first, second])
            assert len(descriptors() - before) == 1
            connection.close()
            assert descriptors() == before

    run(main())


def test_when_all_fail_the_error_has_every_reason(run: Run) -> None:
    async def main() -> None:
        before = descriptors()
        with refusing() as first, refusing() as second:
            nowhere = Endpoint(socket.AF_INET6, ("2001:db8::1", 1, 0, 0))
            with pytest.raises(ConnectionRefusedError):
                await open_tcp([first])
            with pytest.raises(OSError) as same:
                await open_tcp([first, second])
            with pytest.raises(OSError) as several:
                await open_tcp([nowhere, first, second])
        assert why(same.value) == "connection refused"
        assert why(several.value) in {  # by whether this machine has IPv6 at all
            f"{os.strerror(number).lower()}, connection refused" for number in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)
        }
        assert descriptors() == before

    run(main())


def test_whoever_gives_up_leaves_nothing_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_START", UNIT / 5)

    async def main() -> None:
        with black_hole() as first, black_hole() as second:
            before = descriptors()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(UNIT):
                    await open_tcp([first, second])
            assert descriptors() == before and not other_tasks()

    run(main())


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "tried"),
    [
        ("4:a", "a"),
        ("6:a 6:b 6:c 4:d", "adbc"),
        ("6:a 6:b 4:c 4:d 4:e", "acbde"),
        ("4:a 6:b 6:c", "abc"),
    ],
)
async def test_the_families_take_turns(found: str, tried: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(host: str, port: int, **others: Any) -> list[Any]:
        families = {"4": socket.AF_INET, "6": socket.AF_INET6}
        return [(families[each[0]], socket.SOCK_STREAM, 6, "", (each[2], port)) for each in found.split()]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    endpoints = await resolve("example.org", 443)
    assert "".join(endpoint.address[0] for endpoint in endpoints) == tried
    assert all(endpoint.address[1] == 443 for endpoint in endpoints)


async def test_a_host_whose_first_address_is_dead_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with black_hole("::1") as dead:
        async with ScriptedServer() as server:

            async def both(host: str, port: int) -> list[Endpoint]:
                assert (host, port) == ("127.0.0.1", server.port)
                return [dead, Endpoint(socket.AF_INET, (host, port))]

            monkeypatch.setattr(sockets, "resolve", both)
            websocket = await open_websocket(server.address, None, 5.0)
            assert websocket.remote_address == ("127.0.0.1", server.port)
            await websocket.close()


async def test_the_time_is_that_of_everything() -> None:
    with black_hole() as dead, pytest.raises(TimeoutError):
        await open_websocket(parse_address(f"ws://127.0.0.1:{dead.address[1]}"), None, UNIT)
    assert not other_tasks()


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://127.0.0.1:8008", "ws://127.0.0.1:8008"),
        ("localhost:8008", "ws://localhost:8008"),
        ("[::1]:8008", "ws://[::1]:8008"),
        ("127.8.9.1", "ws://127.8.9.1"),
        ("bv.example.org", "wss://bv.example.org"),
        ("bv.example.org:8443", "wss://bv.example.org:8443"),
        ("wss://localhost/bv", "wss://localhost/bv"),
    ],
)
def test_an_address(text: str, url: str) -> None:
    assert parse_address(text).url == url


@pytest.mark.parametrize(
    "text", ["ws://example.org", "ws://192.168.1.2:8008", "ws://localhost.example.org", "ws://[::2]"]
)
def test_ws_does_not_leave_this_machine_unless_allowed(text: str) -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        parse_address(text)
    assert parse_address(text, insecure=True).url == text


@pytest.mark.parametrize(
    "text", ["", "http://example.org", "ws://", "wss://a b", "wss://u:p@example.org", "ws://x:99999"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        parse_address(text, insecure=True)
