"""The life of a peer, as far as it needs no server: starting, failing to start, stopping at any moment."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bonevalue import Module
from bonevalue.errors import BoneValueError, ConfigError, LocalProtocolError, NoTarget, ServerUnreachable, Unavailable
from bonevalue.peer import Peer
from tests.support.processes import free_port
from tests.support.waiting import until


class Witness(Module):
    """Writes down its life."""

    def __init__(self, name: str, life: list[str], *, fails: BaseException | None = None) -> None:
        super().__init__()
        self._who, self._life, self._fails = name, life, fails
        self.go = asyncio.Event()
        self.go.set()

    async def start(self) -> None:
        self._life.append(f"{self._who} starts")
        await self.go.wait()
        if self._fails is not None:
            raise self._fails

    async def stop(self) -> None:
        self._life.append(f"{self._who} stops")

    async def handle(self, request: Any) -> None:
        """Nothing."""


def away() -> Peer:
    """A peer whose server is not there."""
    return Peer(f"ws://127.0.0.1:{free_port()}", "alice", "not needed here")


async def test_modules_start_in_order_and_stop_in_reverse_once() -> None:
    peer, life = away(), list[str]()
    for name in "ab":
        peer.module(name, Witness(name, life))
    await peer.start(wait=False)
    await asyncio.gather(peer.stop(), peer.stop())
    await peer.stop()
    assert life == ["a starts", "b starts", "b stops", "a stops"]


async def test_start_and_stop_may_be_plain_functions() -> None:
    life: list[str] = []

    class Plain(Module):
        def start(self) -> None:  # type: ignore[override]
            life.append("starts")

        def stop(self) -> None:  # type: ignore[override]
            life.append("stops")

        async def handle(self, request: object) -> None: ...

    peer = away()
    peer.module("plain", Plain())
    await peer.start(wait=False)
    await peer.stop()
    assert life == ["starts", "stops"]


async def test_a_module_that_fails_to_start_stops_the_start() -> None:
    peer, life = away(), list[str]()
    peer.module("a", Witness("a", life))
    peer.module("b", Witness("b", life, fails=OSError("no such sensor")))
    peer.module("c", Witness("c", life))
    with pytest.raises(ConfigError, match="module b failed to start: OSError: no such sensor"):
        await peer.start()
    await peer.stop()
    assert life == ["a starts", "b starts", "b stops", "a stops"]


async def test_a_peer_that_is_stopped_while_it_starts_does_not_go_on() -> None:
    peer, life = away(), list[str]()
    slow = Witness("slow", life)
    slow.go.clear()
    peer.module("slow", slow)
    peer.module("next", Witness("next", life))
    starting = asyncio.create_task(peer.start())
    await until(lambda: life == ["slow starts"])
    await peer.stop()
    slow.go.set()
    with pytest.raises(Unavailable):
        await starting
    assert life == ["slow starts", "slow stops"]


async def test_a_server_that_is_not_there_is_told_at_once_to_whoever_waits() -> None:
    with pytest.raises(ServerUnreachable, match="cannot reach"):
        async with away():
            pass


async def test_whoever_does_not_wait_may_ask_when_it_is_over_and_be_cancelled() -> None:
    peer = away()
    await peer.start(wait=False)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(peer.closed(), 0.05)
    over = asyncio.create_task(peer.closed())
    await peer.stop()
    await over


async def test_what_needs_a_started_peer_says_so() -> None:
    peer = away()
    assert peer.peers() == [] and peer.aliases == () and not peer.is_online
    with pytest.raises(NoTarget, match="not been started"):
        await peer.get("bob").call("Echo")
    for ask in (lambda: peer.fingerprint, peer.contacts):
        with pytest.raises(LocalProtocolError, match=r"await peer\.start"):
            ask()
    for work in (
        peer.request_token("bob"), peer.claim_token("bob", "token"), peer.remove_user("bob"),
        peer.change_password("another one"),
    ):  # fmt: skip
        with pytest.raises(LocalProtocolError, match=r"await peer\.start"):
            await work
    await peer.stop()


async def test_what_makes_no_sense_is_said() -> None:
    with pytest.raises(ConfigError, match=r"server\.insecure: "):
        Peer("ws://elsewhere.example.org", "alice", "not needed here")
    peer = away()
    with pytest.raises(LocalProtocolError, match="no event"):
        peer.on("nonsense", print)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"bv\."):
        peer.module("bv.mine", lambda request: request)
    peer.module("Twice", lambda request: request)
    with pytest.raises(ConfigError, match="second module"):
        peer.module("Twice", lambda request: request)
    await peer.start(wait=False)
    with pytest.raises(BoneValueError):
        await peer.start()
    await peer.stop()
