"""Targets: what they ask their peer for, what they refuse to send, and callbacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from bonevalue.descriptions import ModuleDescription
from bonevalue.errors import BoneValueError, Denied, NoTarget, RemoteProtocolError
from bonevalue.items import Items
from bonevalue.results import Result
from bonevalue.stream import ReceivedStream
from bonevalue.target import Target
from bonevalue.wire.frames import decode_body
from bonevalue.wire.signals import PeerEntry
from tests.support.waiting import until

PEERS = [PeerEntry("bob", "1"), PeerEntry("bob", "2"), PeerEntry("carol", "3")]


class Counted:
    """A stream that counts, and knows whether it was closed."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.closed = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return self.left

    def close(self) -> None:
        self.closed = True


class FakePeer:
    """Answers for the peers."""

    default_timeout = 30.0

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.streams: list[tuple[Any, ...]] = []
        self.opened = Counted(3)
        self.response: Any = None
        self.tasks: list[asyncio.Task[None]] = []

    def resolve(self, query: str) -> list[PeerEntry]:
        return [peer for peer in PEERS if query in ("*", peer.name, peer.id)]

    def choose(self, query: str) -> PeerEntry:
        peers = self.resolve(query)
        if not peers:
            raise NoTarget(f"nobody is online under {query!r}")
        return peers[-1]

    async def call_peer(
        self,
        peer: PeerEntry,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        items: Items | None = None,
        idempotent: bool = False,
    ) -> Any:
        request = decode_body(body, raw)
        self.calls.append((peer.id, module, request, timeout, keep_alive, items, idempotent))
        if request == "deny" and peer.id == "2":
            raise Denied("no")
        return self.response if self.response is not None else [peer.id, request]

    async def open_stream(
        self,
        peer: PeerEntry,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        items: Items | None = None,
    ) -> ReceivedStream:
        self.streams.append((peer.id, module, decode_body(body, raw), timeout, keep_alive, items))
        return self.opened

    async def ping_peer(self, peer: PeerEntry, timeout: float) -> Any:
        return timeout

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))


# -- what is refused before anything is sent -------------------------------------------------------------------------


async def test_a_request_that_is_neither_json_nor_bytes_is_told_at_once_and_once() -> None:
    peer = FakePeer()
    target = Target(peer, "*")
    for call in (target.stream, target.call_all, target.message):
        with pytest.raises(TypeError, match="object is neither bytes nor JSON"):
            call("M", object())
        with pytest.raises(ValueError, match="cannot be JSON"):
            call("M", "\ud800")
    with pytest.raises(TypeError, match="object is neither bytes nor JSON"):
        await target.call("M", object())
    assert not (peer.calls or peer.streams or peer.tasks)


@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}, 5, memoryview(b"x")])
async def test_items_that_can_hardly_be_meant_as_such(items: Any) -> None:
    peer = FakePeer()
    with pytest.raises(TypeError, match=f"not a {type(items).__name__}"):
        await Target(peer, "1").call("M", items=items)
    with pytest.raises(TypeError, match=f"not a {type(items).__name__}"):
        Target(peer, "1").stream("M", items=items)
    assert not peer.calls


async def test_a_call_with_items_is_never_idempotent() -> None:
    with pytest.raises(ValueError, match="cannot be sent again"):
        await Target(FakePeer(), "1").call("M", items=[1], idempotent=True)


async def test_caps_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="concurrency is at least 1, or None, not 0"):
        Target(FakePeer(), "*").call_all("M", concurrency=0)
    with pytest.raises(ValueError, match="first is at least 1"):
        Target(FakePeer(), "*").call_all("M", first=0)


async def test_nobody_is_no_target() -> None:
    target = Target(FakePeer(), "nobody")
    with pytest.raises(NoTarget, match="'nobody'"):
        await target.call("M")
    with pytest.raises(NoTarget, match="'nobody'"):
        await anext(target.stream("M"))
    with pytest.raises(NoTarget, match="'nobody'"):
        await target.modules()
    results = target.call_all("M")
    assert results.asked == 0 and [result async for result in results] == []


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_a_call_goes_to_the_peer_that_was_chosen_with_all_that_was_said() -> None:
    peer = FakePeer()
    items = [1, 2]
    assert await Target(peer, "bob").call("M", 5, timeout=3, keep_alive=False, items=items) == ["2", 5]
    assert await Target(peer, "1").call("M", b"raw", idempotent=True) == ["1", b"raw"]
    assert peer.calls == [("2", "M", 5, 3, False, items, False), ("1", "M", b"raw", 30.0, True, None, True)]


async def test_a_stream_asks_one_peer_when_its_first_item_is_wanted() -> None:
    peer = FakePeer()
    items = [1, 2]
    stream = Target(peer, "*").stream("M", {"a": 1}, items=items, timeout=3, keep_alive=False)
    await asyncio.sleep(0)
    assert not peer.streams and stream.peer is None
    assert [item async for item in stream] == [2, 1, 0]
    assert peer.streams == [("3", "M", {"a": 1}, 3, False, items)]
    assert stream.peer == PEERS[2] and peer.opened.closed


async def test_a_request_is_what_it_was_when_the_call_was_made() -> None:
    peer = FakePeer()
    request = {"a": 1}
    stream, results = Target(peer, "1").stream("M", request), Target(peer, "1").call_all("M", request)
    request["a"] = 2
    await anext(stream)
    assert (await anext(results)).response == ["1", {"a": 1}]
    assert peer.streams[0][2] == {"a": 1}


async def test_everyone_is_asked_and_errors_stand_among_the_results() -> None:
    peer = FakePeer()
    called = Target(peer, "*").call_all("M", "deny", timeout=3, keep_alive=False, idempotent=True)
    assert called.asked == 3
    results = {result.peer.id: result async for result in called}
    assert results["1"] == Result(PEERS[0], ["1", "deny"])
    assert isinstance(results["2"].error, Denied) and results["2"].response is None
    assert (called.answered, called.failed, called.without) == (2, 1, 0)
    assert peer.calls == [(each.id, "M", "deny", 3, False, None, True) for each in PEERS]


async def test_one_good_answer_may_be_enough() -> None:
    peer = FakePeer()
    assert len([result async for result in Target(peer, "*").call_all("M", concurrency=1, first=1)]) == 1
    assert len(peer.calls) == 1


async def test_ping_asks_everyone() -> None:
    pinged = Target(FakePeer(), "bob").ping(timeout=2)
    assert [result.response async for result in pinged] == [2, 2] and pinged.asked == 2


async def test_modules_are_described_by_one_peer() -> None:
    peer = FakePeer()
    peer.response = [
        {"name": "A", "doc": "Says a.", "stream": False, "request": None, "response": {"type": "string"}, "more": 1},
        {"name": "B", "doc": "", "stream": True, "request": {"type": "null"}, "response": None},
    ]
    assert await Target(peer, "bob").modules(timeout=2) == [
        ModuleDescription("A", "Says a.", False, None, {"type": "string"}),
        ModuleDescription("B", "", True, {"type": "null"}, None),
    ]
    assert peer.calls == [("2", "bv.modules", None, 2, True, None, True)]


@pytest.mark.parametrize(
    "answer",
    ["junk", 5, {}, [{}], [[]], [{"name": 1, "doc": "", "stream": False, "request": None, "response": None}],
     [{"name": "A", "doc": "", "stream": 1, "request": None, "response": None}],
     [{"name": "A", "doc": "", "stream": False, "request": "text", "response": None}], b"raw"],
)  # fmt: skip
async def test_modules_described_by_a_peer_that_talks_nonsense(answer: Any) -> None:
    peer = FakePeer()
    peer.response = answer
    with pytest.raises(RemoteProtocolError, match=r"not an answer of bv\.modules") as caught:
        await Target(peer, "bob").modules()
    assert caught.value.peer == "2"


# -- callbacks ---------------------------------------------------------------------------------------------------------


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
