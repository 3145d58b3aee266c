"""Targets: one of several, all of several, and callbacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from bonevalue.errors import BoneValueError, Denied, NoTarget
from bonevalue.target import Result, Target
from bonevalue.wire.signals import PeerEntry
from tests.support.waiting import until

PEERS = [PeerEntry("bob", "1"), PeerEntry("bob", "2"), PeerEntry("carol", "3")]


class FakePeer:
    """Answers for the peers."""

    default_timeout = 30.0

    def __init__(self) -> None:
        self.linked = "2"
        self.calls: list[tuple[str, str, Any, float, bool]] = []
        self.ended: list[str] = []
        self.hang = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def resolve(self, query: str) -> list[PeerEntry]:
        return [peer for peer in PEERS if query in ("*", peer.name, peer.id)]

    def is_linked(self, peer_id: str) -> bool:
        return peer_id == self.linked

    async def call_peer(self, peer: PeerEntry, module: str, request: Any, *, timeout: float, keep_alive: bool) -> Any:
        self.calls.append((peer.id, module, request, timeout, keep_alive))
        try:
            if request == "hang" and peer.id != "1":
                await self.hang.wait()
            if request == "deny" and peer.id == "2":
                raise Denied("no")
            if request == "bug":
                raise TypeError("not JSON")
            return [peer.id, request]
        finally:
            self.ended.append(peer.id)

    async def ping_peer(self, peer: PeerEntry, *, timeout: float) -> Any:
        return timeout

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))


async def test_one_call_goes_to_a_peer_that_is_connected_already() -> None:
    peer = FakePeer()
    assert await Target(peer, "bob").call("M", 5, timeout=3, keep_alive=False) == ["2", 5]
    assert peer.calls == [("2", "M", 5, 3, False)]
    peer.linked = ""
    assert await Target(peer, "*").call("M") == ["1", None]
    assert peer.calls[1:] == [("1", "M", None, 30.0, True)]


async def test_nobody_is_no_target() -> None:
    with pytest.raises(NoTarget, match="'nobody'"):
        await Target(FakePeer(), "nobody").call("M")
    assert [result async for result in Target(FakePeer(), "nobody").call_all("M")] == []


async def test_all_results_come_as_they_arrive_with_errors_among_them() -> None:
    peer = FakePeer()
    results = {result.peer.id: result async for result in Target(peer, "*").call_all("M", "deny")}
    assert results["1"] == Result(PEERS[0], ["1", "deny"])
    assert isinstance(results["2"].error, Denied) and results["2"].response is None
    assert len(results) == 3


async def test_leaving_the_loop_cancels_the_rest() -> None:
    peer = FakePeer()
    results = Target(peer, "*").call_all("M", "hang")
    async for result in results:
        assert result.peer.id == "1"
        break
    await results.aclose()
    assert sorted(peer.ended) == ["1", "2", "3"] and not peer.hang.is_set()


async def test_a_mistake_of_the_caller_is_raised() -> None:
    with pytest.raises(TypeError, match="not JSON"):
        await anext(Target(FakePeer(), "*").call_all("M", "bug"))


async def test_message_calls_back_with_each_response_and_each_error() -> None:
    peer = FakePeer()
    responses: list[Any] = []
    errors: list[BoneValueError] = []

    async def slowly(response: Any) -> None:
        await asyncio.sleep(0)
        responses.append(response)

    Target(peer, "*").message("M", "deny", keep_alive=False, callback=slowly, on_error=errors.append)
    await asyncio.gather(*peer.tasks)
    assert sorted(responses) == [["1", "deny"], ["3", "deny"]]
    assert [error.code for error in errors] == ["denied"]
    assert {call[4] for call in peer.calls} == {False}


async def test_errors_without_a_callback_and_callbacks_that_raise_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    peer = FakePeer()

    def fail(response: Any) -> None:
        raise ValueError("a bug in the callback")

    with caplog.at_level(logging.WARNING):
        Target(peer, "*").message("M", "deny", callback=fail)
        await until(lambda: all(task.done() for task in peer.tasks))
    assert "M of bob/2: no" in caplog.text and caplog.text.count("a callback raised") == 2


async def test_ping_asks_everyone() -> None:
    results = [result.response async for result in Target(FakePeer(), "bob").ping(timeout=2)]
    assert results == [2, 2]
