"""Streams as their consumers see them: nothing before the first item, and every way to an end lets go of the call."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from bonevalue.errors import Denied, LinkLost, NoTarget
from bonevalue.stream import Stream
from bonevalue.wire.signals import PeerEntry
from tests.support.waiting import until

BOB = PeerEntry("bob", "1")


class Answer:
    """An answer that has begun: its items are put into it, as well as errors and, by None, its end."""

    def __init__(self, *items: Any) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.put(*items)
        self.closed = 0

    def put(self, *items: Any) -> None:
        for item in items:
            self.queue.put_nowait(item)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        item = await self.queue.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            raise StopAsyncIteration
        return item

    def close(self) -> None:
        self.closed += 1


class Callee:
    """Who is asked."""

    def __init__(self, *items: Any) -> None:
        self.answer = Answer(*items)
        self.asked: list[PeerEntry] = []
        self.cancelled = False
        self.refusal: Exception | None = None
        self.ready = asyncio.Event()
        self.ready.set()

    async def begin(self, peer: PeerEntry) -> Answer:
        self.asked.append(peer)
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.refusal is not None:
            raise self.refusal
        return self.answer

    def stream(self) -> Stream:
        return Stream(lambda: BOB, self.begin)


async def over(stream: Stream) -> bool:
    """Whether it gives nothing more, without any ado."""
    return [item async for item in stream] == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_nobody_to_ask_is_told_when_the_first_item_is_asked_for() -> None:
    def nobody() -> PeerEntry:
        raise NoTarget("nobody is online")

    callee = Callee()
    stream = Stream(nobody, callee.begin)
    with pytest.raises(NoTarget):
        await anext(stream)
    assert not callee.asked and stream.peer is None and await over(stream)


async def test_a_refusal_is_raised_once_and_is_the_end() -> None:
    callee = Callee("never")
    callee.refusal = Denied("no")
    stream = callee.stream()
    with pytest.raises(Denied):
        await anext(stream)
    assert stream.peer == BOB and await over(stream)


async def test_a_stream_that_breaks_off_gives_what_came_before() -> None:
    callee = Callee(1, 2, LinkLost("gone"), 3)
    stream, items = callee.stream(), list[int]()
    with pytest.raises(LinkLost):
        async for item in stream:
            items.append(item)
    assert items == [1, 2] and callee.answer.closed and await over(stream)


async def test_cancelling_while_the_answer_has_not_begun_cancels_the_call() -> None:
    callee = Callee()
    callee.ready.clear()
    stream = callee.stream()
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: callee.asked)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() and callee.cancelled and await over(stream)


async def test_cancelling_while_there_is_no_item_ends_the_call() -> None:
    callee = Callee(1)
    stream = callee.stream()
    assert await anext(stream) == 1
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    assert waiting.cancelled() and callee.answer.closed and await over(stream)


async def test_a_second_consumer_is_refused_and_the_first_gets_its_item() -> None:
    callee = Callee()
    stream = callee.stream()
    first = asyncio.ensure_future(anext(stream))
    await until(lambda: callee.asked)
    with pytest.raises(RuntimeError, match="already running"):
        await anext(stream)
    with pytest.raises(RuntimeError, match="already running"):
        await stream.aclose()
    callee.answer.put("for the first")
    assert await first == "for the first" and not callee.answer.closed
    await stream.aclose()
    assert callee.answer.closed


async def test_an_error_in_the_loop_ends_the_call() -> None:
    callee = Callee(1, 2)
    with pytest.raises(ZeroDivisionError):
        async with callee.stream() as stream:
            async for item in stream:
                raise ZeroDivisionError(item)
    assert callee.answer.closed


# -- what goes well ----------------------------------------------------------------------------------------------------


async def test_items_come_in_order_and_nothing_is_sent_before_the_first_is_asked_for() -> None:
    callee = Callee(0, b"raw", {"a": 1}, "", None)
    stream = callee.stream()
    assert not callee.asked and stream.peer is None
    assert [item async for item in stream] == [0, b"raw", {"a": 1}, ""]
    assert callee.asked == [BOB] and stream.peer == BOB and callee.answer.closed and await over(stream)


async def test_a_stream_of_nothing() -> None:
    assert await over(Callee(None).stream())


async def test_closing_before_the_first_item_sends_nothing() -> None:
    callee = Callee(1)
    stream = callee.stream()
    await stream.aclose()
    assert await over(stream) and not callee.asked
    async with stream, aclosing(stream):  # any number of times
        pass


async def test_leaving_the_loop_ends_the_call_without_being_asked_to() -> None:
    callee = Callee(1, 2)
    async for item in callee.stream():
        assert item == 1
        break
    await until(lambda: callee.answer.closed)


async def test_dropping_a_stream_ends_the_call() -> None:
    callee = Callee(1, 2)
    stream = callee.stream()
    assert await anext(stream) == 1
    del stream
    await until(lambda: callee.answer.closed)


def test_a_stream_dropped_while_its_loop_stands_still_is_closed_when_that_goes_on() -> None:
    with asyncio.Runner() as runner:

        async def begin() -> tuple[Callee, Stream]:
            callee = Callee(1, 2)
            stream = callee.stream()
            assert await anext(stream) == 1
            return callee, stream

        callee, stream = runner.run(begin())
        del stream
        assert not callee.answer.closed
        runner.run(until(lambda: callee.answer.closed))


def test_a_stream_dropped_after_its_loop_has_ended_is_no_fault() -> None:
    """It was closed with the loop."""

    async def begin() -> tuple[Callee, Stream]:
        callee = Callee(1, 2)
        stream = callee.stream()
        assert await anext(stream) == 1
        return callee, stream

    callee, stream = asyncio.run(begin())
    assert callee.answer.closed
    del stream


def test_a_stream_that_is_left_to_the_end_of_the_interpreter_says_nothing() -> None:
    program = (
        "import asyncio\n"
        "from tests.runtime.test_stream import Callee\n"
        "loop = asyncio.new_event_loop()\n"
        "async def begin():\n"
        "    stream = Callee(1, 2).stream()\n"
        "    print(await anext(stream))\n"
        "    return stream\n"
        "stream = loop.run_until_complete(begin())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
