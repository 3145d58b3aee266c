"""What a consumer of a stream sees of it, whatever arrives and whenever it gives up."""

from __future__ import annotations

import asyncio
import gc
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from bonevalue.errors import BadRequest, Cancelled, Denied, LinkLost, LocalProtocolError
from bonevalue.items import ReceivedItems, SingleItem
from tests.support.waiting import UNIT, other_tasks


@dataclass
class Arriving:
    """Items that the test lets arrive."""

    waiting: list[tuple[bytes, bool]] = field(default_factory=list)
    ended: bool = False
    dropped: bool = False

    def __len__(self) -> int:
        return len(self.waiting)

    def take(self) -> tuple[bytes, bool]:
        """The next one."""
        return self.waiting.pop(0)

    def drop(self) -> None:
        """Nobody wants the rest."""
        self.waiting.clear()
        self.ended = self.dropped = True


class Stream:
    """A stream and what it has told."""

    def __init__(self) -> None:
        self.source = Arriving()
        self.taken: list[int] = []
        self.closed = 0
        self.items = ReceivedItems(
            self.source, taken=self.taken.append, closed=self.close, malformed=lambda problem: BadRequest(problem)
        )

    def close(self) -> None:
        """The consumer has given up."""
        self.closed += 1

    def arrive(self, *values: Any) -> None:
        """Let items arrive."""
        for value in values:
            raw = isinstance(value, bytes)
            self.source.waiting.append((value if raw else json.dumps(value).encode(), raw))
        self.items.arrived()

    def end(self) -> None:
        """Let the stream end."""
        self.source.ended = True
        self.items.arrived()


async def collect(items: ReceivedItems) -> list[Any]:
    return [item async for item in items]


async def waiting(items: ReceivedItems) -> asyncio.Task[Any]:
    """A consumer that waits for an item."""
    task = asyncio.ensure_future(anext(items, "the end"))
    await asyncio.sleep(0)
    assert not task.done()
    return task


VALUES: list[Any] = [None, 1, "text", {"a": [1.5, True]}, b"", b"\x00\xff", [], ""]


async def test_items_come_in_order_as_what_they_were() -> None:
    stream = Stream()
    stream.arrive(*VALUES)
    stream.end()
    assert await collect(stream.items) == VALUES
    assert sum(stream.taken) == len(VALUES) and stream.closed == 0


async def test_a_consumer_waits_for_what_has_not_come_yet() -> None:
    stream = Stream()
    task = asyncio.create_task(collect(stream.items))
    for value in VALUES:
        await asyncio.sleep(0)
        stream.arrive(value)
    await asyncio.sleep(0)
    assert not task.done()
    stream.end()
    assert await task == VALUES


async def test_after_the_end_it_stays_at_its_end() -> None:
    stream = Stream()
    stream.end()
    for _ in range(3):
        assert await anext(stream.items, "the end") == "the end"
    await stream.items.aclose()
    assert stream.closed == 0


async def test_an_error_comes_after_the_items_and_once() -> None:
    stream = Stream()
    stream.arrive(1, 2)
    error = Denied("enough", call_id="abc")
    stream.items.fail(error)
    assert [await anext(stream.items), await anext(stream.items)] == [1, 2]
    with pytest.raises(Denied) as caught:
        await anext(stream.items)
    assert caught.value is error
    assert await anext(stream.items, "the end") == "the end"
    assert stream.closed == 0, "the call has ended already"


async def test_an_error_reaches_who_waits() -> None:
    stream = Stream()
    task = await waiting(stream.items)
    stream.items.fail(LinkLost("the cable"))
    with pytest.raises(LinkLost):
        await task


class Odd(Exception):
    """An error that cannot be made again from its text."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


async def test_any_exception_is_raised_as_it_is() -> None:
    stream = Stream()
    error = Odd(1, 2)
    stream.items.fail(error)
    with pytest.raises(Odd) as caught:
        await anext(stream.items)
    assert caught.value is error


# -- giving up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arrived", [0, 3])
async def test_closing_drops_the_rest_and_ends_the_call_once(arrived: int) -> None:
    stream = Stream()
    stream.arrive(*range(arrived))
    for _ in range(3):
        await stream.items.aclose()
        stream.items.close()
    assert stream.closed == 1 and stream.source.dropped and not stream.source.waiting
    assert sum(stream.taken) == 0, "what is dropped is not taken"
    assert await anext(stream.items, "the end") == "the end"
    stream.items.fail(LinkLost("later"))
    assert await anext(stream.items, "the end") == "the end"


async def test_closing_a_stream_that_has_ended_does_not_end_its_call_again() -> None:
    stream = Stream()
    stream.arrive(1, 2)
    stream.end()
    await stream.items.aclose()
    assert stream.closed == 0 and stream.source.dropped
    assert await collect(stream.items) == []


async def test_closing_wakes_who_waits() -> None:
    stream = Stream()
    task = await waiting(stream.items)
    stream.items.close()
    assert await task == "the end"


async def test_a_stream_that_was_dropped_from_outside_has_not_come_to_its_end() -> None:
    """The call has ended: whoever still reads what was sent with it must not take that for all of it."""
    for waits in (False, True):
        stream = Stream()
        task = await waiting(stream.items) if waits else None
        stream.source.drop()
        stream.items.arrived()
        with pytest.raises(Cancelled):
            await (task or anext(stream.items))


async def test_a_consumer_that_is_cancelled_or_times_out_loses_nothing() -> None:
    stream = Stream()
    task = await waiting(stream.items)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(UNIT / 5):
            await anext(stream.items)
    stream.arrive("still there")
    assert await anext(stream.items) == "still there" and stream.closed == 0


async def test_an_item_that_arrives_while_its_consumer_is_cancelled_is_for_the_next() -> None:
    stream = Stream()
    task = await waiting(stream.items)
    stream.arrive("first")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await anext(stream.items) == "first"


async def test_a_stream_has_one_consumer_at_a_time() -> None:
    stream = Stream()
    task = await waiting(stream.items)
    with pytest.raises(LocalProtocolError, match="one consumer"):
        await anext(stream.items)
    stream.arrive("for the first")
    assert await task == "for the first"
    stream.arrive("next")
    assert await anext(stream.items) == "next"


# -- items that are none -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [b"{not json", b"", b"\xff", b"NaN", b"[" * 65 + b"]" * 65, b'"\\ud800"'])
async def test_an_item_that_is_no_json_ends_the_stream(bad: bytes) -> None:
    stream = Stream()
    stream.arrive(1)
    stream.source.waiting.append((bad, False))
    stream.arrive(3)
    assert await anext(stream.items) == 1
    with pytest.raises(BadRequest):
        await anext(stream.items)
    assert stream.closed == 1 and stream.source.dropped
    assert await anext(stream.items, "the end") == "the end"


@pytest.mark.parametrize("raw", [False, True])
async def test_a_plain_response_is_a_stream_of_one(raw: bool) -> None:
    taken: list[int] = []
    body = b'{"a": 1}'
    items = ReceivedItems(SingleItem(body, raw), taken=taken.append, closed=lambda: None, malformed=BadRequest)
    assert await collect(items) == [body if raw else {"a": 1}]
    dropped = ReceivedItems(SingleItem(body, raw), taken=taken.append, closed=lambda: None, malformed=BadRequest)
    dropped.close()
    assert await collect(dropped) == []


async def test_nothing_is_left_behind() -> None:
    stream = Stream()
    task = await waiting(stream.items)
    task.cancel()
    await asyncio.wait({task})
    del task
    gc.collect()
    assert other_tasks() == set()
