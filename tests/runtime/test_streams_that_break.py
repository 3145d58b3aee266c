"""Streams over a link that do not come to their end: handlers and iterators that fail, items that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bonevalue import Context
from bonevalue.errors import BadRequest, BoneValueError, Cancelled, Deadline, HandlerFailed, LinkLost, TooLarge
from bonevalue.wire import frames
from bonevalue.wire.frames import MAX_ITEM
from tests.support.handlers import Odd, Source, broken, collect_items, echo_items
from tests.support.meeting import Meeting, met
from tests.support.waiting import UNIT, until


@pytest.fixture
async def meeting() -> AsyncIterator[Meeting]:
    """Two peers and their link over memory."""
    async with met() as meeting:
        yield meeting


@pytest.mark.parametrize("error", [BadRequest("no more"), TooLarge("for me")])
async def test_a_handler_that_speaks_in_the_middle_of_a_stream(meeting: Meeting, error: BoneValueError) -> None:
    async def speak(request: Any) -> AsyncIterator[int]:
        yield 1
        yield 2
        raise error

    meeting.serve("Speak", speak)
    stream = await meeting.ours.open_stream("Speak", None, 5)
    assert [await anext(stream), await anext(stream)] == [1, 2]
    with pytest.raises(type(error)) as caught:
        await anext(stream)
    assert caught.value.peer == "2" and caught.value.call_id and caught.value.message == error.message
    assert [item async for item in stream] == []


@pytest.mark.parametrize("bad", ["raises", "yields junk", "yields too much"])
async def test_a_handler_that_fails_in_the_middle_of_a_stream(meeting: Meeting, bad: str) -> None:
    closed: list[str] = []

    async def fail(request: Any) -> AsyncIterator[Any]:
        try:
            yield 1
            if bad == "yields junk":
                yield object()
            elif bad == "yields too much":
                yield bytes(MAX_ITEM + 1)
            raise ValueError("a secret")
        finally:
            closed.append(bad)

    meeting.serve("Fail", fail)
    stream = await meeting.ours.open_stream("Fail", None, 5)
    assert await anext(stream) == 1
    with pytest.raises(TooLarge if bad == "yields too much" else HandlerFailed) as caught:
        await anext(stream)
    assert "secret" not in str(caught.value) and caught.value.peer == "2"
    assert closed == [bad] and meeting.theirs.active == meeting.ours.active == 0


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("error", [Odd(1, 2), KeyError("x"), ValueError("mine"), LinkLost("elsewhere")])
async def test_what_the_iterator_of_a_request_raises_is_the_callers(
    meeting: Meeting, error: Exception, after: int
) -> None:
    cancelled: list[str] = []

    async def take(request: Any, context: Context) -> AsyncIterator[int]:
        try:
            async for item in context.items:
                yield item
        except asyncio.CancelledError:
            cancelled.append("stream")
            raise

    meeting.serve("Collect", collect_items)
    meeting.serve("Take", take)
    with pytest.raises(type(error)) as caught:
        await meeting.ours.call("Collect", None, 5, items=broken(error, after))
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        async for _ in await meeting.ours.open_stream("Take", None, 5, items=broken(error, after)):
            pass
    assert caught.value is error
    await until(lambda: meeting.theirs.active == meeting.ours.active == 0 and cancelled)


async def test_a_plain_iterator_may_raise_too(meeting: Meeting) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise Odd(1, 2)

    meeting.serve("Collect", collect_items)
    with pytest.raises(Odd):
        await meeting.ours.call("Collect", None, 5, items=items())


@pytest.mark.parametrize(
    ("item", "error"), [(object(), TypeError), ("\ud800", ValueError), (bytes(MAX_ITEM + 1), TooLarge)]
)
async def test_an_item_of_a_request_that_cannot_be_sent(meeting: Meeting, item: Any, error: type[Exception]) -> None:
    meeting.serve("Collect", collect_items)
    with pytest.raises(error):
        await meeting.ours.call("Collect", None, 5, items=[1, item])
    await until(lambda: meeting.theirs.active == meeting.ours.active == 0)


@pytest.mark.parametrize("streams", [False, True])
async def test_an_iterator_that_is_cancelled_from_inside_ends_the_call(meeting: Meeting, streams: bool) -> None:
    meeting.serve("Collect", collect_items)
    meeting.serve("Echo", echo_items)
    with pytest.raises(Cancelled):
        if streams:
            async for _ in await meeting.ours.open_stream("Echo", 1, 5, items=broken(asyncio.CancelledError(), 2)):
                pass
        else:
            await meeting.ours.call("Collect", None, 5, items=broken(asyncio.CancelledError(), 2))
    await until(lambda: meeting.theirs.active == meeting.ours.active == 0)


async def test_a_stream_that_does_not_begin_in_time(meeting: Meeting) -> None:
    ended: list[str] = []

    async def late(request: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("late")

    source = Source()
    meeting.serve("Late", late)
    with pytest.raises(Deadline) as caught:
        await meeting.ours.open_stream("Late", None, UNIT, items=source.items())
    assert caught.value.peer == "2"
    await until(lambda: ended and source.closed)


async def test_a_sparse_stream_outlives_its_timeout(meeting: Meeting) -> None:
    go = asyncio.Event()

    async def sparse(request: Any) -> AsyncIterator[int]:
        yield 1
        await go.wait()
        yield 2

    meeting.serve("Sparse", sparse)
    stream = await meeting.ours.open_stream("Sparse", None, 2 * UNIT)
    assert await anext(stream) == 1
    await asyncio.sleep(4 * UNIT)
    go.set()
    assert [item async for item in stream] == [2]


async def test_items_that_are_no_json_end_their_call(meeting: Meeting) -> None:
    meeting.serve("Collect", collect_items)
    go = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await go.wait()

    task = asyncio.create_task(meeting.ours.call("Collect", None, 5, items=items()))
    await until(lambda: meeting.their_host.running)
    call = meeting.theirs._table._received.last
    meeting.ends.ours.send(frames.item_head(call, 4, 4, 0) + b"nope" + frames.item_head(call, 1, 1, 0) + b"1")
    with pytest.raises(BadRequest, match="not JSON"):
        await task
    assert not meeting.ours.ended and not meeting.theirs.ended
    go.set()
