"""Streams over a link that one side gives up, or does not read: the other side stops, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bonevalue import Context
from bonevalue.errors import BoneValueError, Cancelled, LinkLost
from bonevalue.host import Host
from bonevalue.items import ReceivedItems
from bonevalue.link_memory import MemoryEngine, MemoryNetwork
from bonevalue.serving import ServedModule
from bonevalue.stream import Stream
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.events import CallReceived, OutgoingCall
from bonevalue.wire.frames import MAX_ITEM
from bonevalue.wire.outbox import Outbox
from bonevalue.wire.signals import PeerEntry
from bonevalue.wire.streams import IncomingItems, OutgoingItems
from tests.support.handlers import Source, count, echo, echo_items
from tests.support.meeting import Meeting, met
from tests.support.waiting import UNIT, until


@pytest.fixture
async def meeting() -> AsyncIterator[Meeting]:
    """Two peers and their link over memory."""
    async with met() as meeting:
        yield meeting


# -- giving up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read", [0, 1, 5])
@pytest.mark.parametrize("busy", [False, True])
async def test_closing_a_stream_closes_the_handler(meeting: Meeting, read: int, busy: bool) -> None:
    source, other = Source(), Source()
    meeting.serve("Stream", source.handle)
    meeting.serve("Other", other.handle)
    beside = await meeting.ours.open_stream("Other", None, 5) if busy else None
    stream = await meeting.ours.open_stream("Stream", None, 5)
    for _ in range(read):
        assert await anext(stream) == source.item
    await source.stopped()  # nothing moves any more that could take a cancel along
    await stream.aclose()
    await until(lambda: source.closed, timeout=2)
    if beside is not None:
        assert await anext(beside) == other.item and not other.closed
        beside.close()
    await until(lambda: meeting.theirs.active == meeting.ours.active == 0)
    assert [item async for item in stream] == []


@pytest.mark.parametrize("busy", [False, True])
async def test_cancelling_before_the_answer_has_begun(meeting: Meeting, busy: bool) -> None:
    ended: list[str] = []
    source = Source()

    async def never(request: str, context: Context) -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
            yield 1
        finally:
            ended.append(request)

    async def wait(request: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(request)

    meeting.serve("Never", never)
    meeting.serve("Wait", wait)
    beside = asyncio.create_task(meeting.ours.call("Wait", "beside", 30)) if busy else None
    task = asyncio.create_task(meeting.ours.open_stream("Wait", "wait", 30, items=source.items()))
    await source.stopped()
    task.cancel()
    await until(lambda: ended == ["wait"], timeout=2)
    await until(lambda: source.closed)
    stream = await meeting.ours.open_stream("Never", "never", 30)
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(2 * UNIT)
    task.cancel()
    await stream.aclose()
    await until(lambda: ended == ["wait", "never"], timeout=2)
    if beside is not None:
        beside.cancel()
        await until(lambda: "beside" in ended)


async def test_cancelling_a_call_ends_its_items(meeting: Meeting) -> None:
    source = Source()
    seen: list[str] = []

    async def take(request: Any, context: Context) -> None:
        try:
            async for _ in context.items:
                pass
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    meeting.serve("Take", take)
    task = asyncio.create_task(meeting.ours.call("Take", None, 30, items=source.items()))
    await until(lambda: source.made > 500)
    task.cancel()
    await until(lambda: source.closed and seen)
    made = source.made
    await asyncio.sleep(UNIT)
    assert source.made == made and meeting.ours.active == 0


async def test_closing_an_answer_ends_the_items_of_its_request(meeting: Meeting) -> None:
    source = Source()
    meeting.serve("Echo", echo_items)
    stream = await meeting.ours.open_stream("Echo", None, 5, items=source.items())
    await anext(stream)
    await stream.aclose()
    await until(lambda: source.closed and meeting.theirs.active == 0)


async def test_a_callee_that_answers_without_reading_ends_the_items(meeting: Meeting) -> None:
    source = Source()

    async def enough(request: int, context: Context) -> int:
        seen = 0
        async for _ in context.items:
            seen += 1
            if seen == request:
                break
        return seen

    meeting.serve("Enough", enough)
    for wanted in (1, 3):
        assert await meeting.ours.call("Enough", wanted, 5, items=source.items()) == wanted
        await until(lambda: source.closed == 1)
        assert source.made < 200
        source.closed = source.made = 0
    meeting.serve("Echo", echo)
    assert await meeting.ours.call("Echo", "unread", 5, items=source.items()) == "unread"
    assert [item async for item in await meeting.ours.open_stream("Echo", 1, 5, items=source.items())] == [1]
    await until(lambda: source.closed == 2)
    assert await meeting.ours.call("Echo", 1, 5) == 1


async def test_items_that_are_still_read_when_the_call_has_ended_break_off(meeting: Meeting) -> None:
    outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    readers: list[asyncio.Task[None]] = []
    source = Source()

    async def read(context: Context) -> None:
        try:
            async for _ in context.items:
                await asyncio.sleep(0)
            outcome.set_result("the end")
        except BoneValueError as error:
            outcome.set_result(error)

    async def hasty(request: Any, context: Context) -> str:
        readers.append(asyncio.create_task(read(context)))
        await asyncio.sleep(0)
        return "done"

    meeting.serve("Hasty", hasty)
    assert await meeting.ours.call("Hasty", None, 5, items=source.items()) == "done"
    assert isinstance(await outcome, Cancelled), "not as if that had been all"
    await asyncio.wait(readers)


async def test_a_handler_may_close_the_items_and_go_on(meeting: Meeting) -> None:
    source = Source()
    go = asyncio.Event()

    async def picky(request: Any, context: Context) -> AsyncIterator[str]:
        items: Any = context.items
        first = await anext(items)
        await items.aclose()
        yield f"took {len(first)}"
        await go.wait()
        yield "done"

    meeting.serve("Picky", picky)
    stream = await meeting.ours.open_stream("Picky", None, 5, items=source.items())
    assert await anext(stream) == "took 16000"
    assert await source.stopped() < 200
    go.set()
    assert [item async for item in stream] == ["done"]
    await until(lambda: source.closed)


async def test_a_slot_is_free_again_when_its_stream_is_given_up(meeting: Meeting) -> None:
    source = Source()
    meeting.serve("Stream", source.handle, concurrency=1)
    for round_of in range(5):
        stream = await meeting.ours.open_stream("Stream", None, 5)
        assert await anext(stream) == source.item
        await stream.aclose()
        await until(lambda: meeting.theirs.active == 0)
        assert source.closed == round_of + 1


# -- slow consumers ----------------------------------------------------------------------------------------------------


async def test_a_consumer_that_stops_stops_the_producer(meeting: Meeting) -> None:
    """1 GiB offered, 1 MiB read."""
    size = 65_536
    source = Source(bytes(size))
    made = 0

    async def gibibyte(request: Any) -> AsyncIterator[bytes]:
        nonlocal made
        while made < 16_384:
            made += 1
            yield bytes(size)

    meeting.serve("Gibibyte", gibibyte)
    gc.collect()
    tracemalloc.start()
    try:
        stream = await meeting.ours.open_stream("Gibibyte", None, 5)
        for _ in range(16):
            assert len(await anext(stream)) == size
        seen = 0
        while seen != made:
            seen = made
            await asyncio.sleep(2 * UNIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert made * size <= 4 * 2**20, "what was read, the credit, and a little that waits"
    assert peak < 8 * 2**20
    stream.close()
    assert source.made == 0


async def test_a_callee_that_stops_reading_stops_the_caller(meeting: Meeting) -> None:
    source = Source(bytes(MAX_ITEM))
    go = asyncio.Event()

    async def lazy(request: Any, context: Context) -> int:
        seen = [len(await anext(context.items)) for _ in range(2)]
        await go.wait()
        return len(seen)

    meeting.serve("Lazy", lazy)
    task = asyncio.create_task(meeting.ours.call("Lazy", None, 30, items=source.items()))
    assert await source.stopped() * MAX_ITEM <= 5 * 2**20
    go.set()
    assert await task == 2
    await until(lambda: source.closed)


@pytest.mark.parametrize("end", ["stops", "gives up"])
async def test_a_handler_may_pass_streams_on_and_the_last_consumer_sets_the_pace(meeting: Meeting, end: str) -> None:
    source, answers = Source(), Source()

    async def proxy(request: Any, context: Context) -> Any:
        return await meeting.theirs.open_stream("Last", request, 5, items=context.items)

    async def last(request: Any, context: Context) -> AsyncIterator[Any]:
        await anext(context.items)
        async for item in answers.handle(request):
            yield item

    meeting.serve("Proxy", proxy)
    meeting.our_host.modules["Last"] = ServedModule("Last", last)
    stream = await meeting.ours.open_stream("Proxy", None, 5, items=source.items())
    for _ in range(3):
        assert await anext(stream) == answers.item
    if end == "stops":
        for each in (source, answers):
            assert await each.stopped() * len(each.item) < 6 * 2**20
    stream.close()
    await until(lambda: source.closed)
    await until(lambda: meeting.ours.active == meeting.theirs.active == 0)
    gc.collect()
    await until(lambda: answers.closed)


async def test_a_slow_consumer_gets_everything(meeting: Meeting) -> None:
    meeting.serve("Count", count)
    got = []
    async for number in await meeting.ours.open_stream("Count", 300, 5):
        got.append(number)
        if number % 50 == 0:
            await asyncio.sleep(UNIT / 5)
    assert got == list(range(300))


async def test_streams_that_nobody_reads_hold_up_no_call(meeting: Meeting) -> None:
    sources = [Source(bytes(100_000)) for _ in range(40)]
    for number, source in enumerate(sources):
        meeting.serve(f"Stream{number}", source.handle)
    meeting.serve("Echo", echo)
    streams = [await meeting.ours.open_stream(f"Stream{number}", None, 5) for number in range(40)]
    await sources[0].stopped()
    assert await meeting.ours.call("Echo", 1, 5) == 1
    assert len(await meeting.ours.call("Echo", bytes(1_000_000), 5)) == 1_000_000
    assert sum(source.made for source in sources) * 100_000 < 16 * 2**20
    for stream in streams:
        stream.close()
    await until(lambda: all(source.closed for source in sources))


async def test_a_body_that_the_other_side_cannot_take_yet_costs_nothing_while_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = asyncio.Event()
    asked = 0
    messages = Outbox.messages

    def counted(outbox: Outbox, room: int) -> list[bytes]:
        nonlocal asked
        asked += 1
        return messages(outbox, room)

    async def hold(request: bytes) -> int:
        await go.wait()
        return len(request)

    async with met(theirs=LinkSettings(max_incomplete=8 * 2**20)) as meeting:
        meeting.serve("Hold", hold)
        calls = [asyncio.create_task(meeting.ours.call("Hold", bytes(5_000_000), 30)) for _ in range(2)]
        await until(lambda: meeting.their_host.running and not meeting.ends.ours.buffered)
        monkeypatch.setattr(Outbox, "messages", counted)
        await asyncio.sleep(4 * UNIT)
        assert asked < 10
        go.set()
        assert await asyncio.gather(*calls) == [5_000_000] * 2


async def test_a_producer_waits_while_much_is_unacknowledged() -> None:
    network = MemoryNetwork()
    source = Source(bytes(1000))
    async with met(MemoryEngine(network), theirs=Host(LinkSettings(), send_buffer=2**18)) as meeting:
        meeting.serve("Stream", source.handle)
        meeting.serve("Echo", echo)
        stream = await meeting.ours.open_stream("Stream", None, 5)
        network.rate = 3_000_000.0
        answers = [asyncio.create_task(meeting.ours.call("Echo", bytes(200_000), 60)) for _ in range(2)]
        reader = asyncio.create_task(read_some(stream, 1500))
        await until(lambda: meeting.their_host.counters.limited["send_buffer"])
        assert meeting.theirs.send_buffer < 2**20
        network.rate = None
        assert await reader == 1500
        assert [len(body) for body in await asyncio.gather(*answers)] == [200_000] * 2


@pytest.mark.parametrize("reads", [False, True])
async def test_a_link_on_which_nothing_is_acknowledged_is_cut(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    """Even if all arrives: nobody can tell."""
    monkeypatch.setattr("bonevalue.flow.STALL_CHECK", UNIT / 5)
    source = Source()
    async with met(theirs=Host(LinkSettings(), stall_timeout=4 * UNIT)) as meeting:
        meeting.serve("Stream", source.handle)
        stream = await meeting.ours.open_stream("Stream", None, 5)
        monkeypatch.setattr(meeting.ends.theirs, "_acknowledged", lambda size: None)
        if reads:
            with pytest.raises(LinkLost):
                await read_some(stream, 1_000_000)
        await until(lambda: meeting.theirs.ended == "slow")
        await until(lambda: source.closed)
        assert source.made * len(source.item) < 2 * 2**20
        if not reads:
            with pytest.raises(LinkLost):
                await read_some(stream, 1_000_000)


async def read_some(stream: Any, number: int) -> int:
    got = 0
    async for _ in stream:
        got += 1
        if got == number:
            break
    await stream.aclose()
    return got


# -- what is left ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["leaving the loop", "dropping it", "closing it", "an error in the loop"])
async def test_what_a_program_holds_ends_the_call_on_both_ends(meeting: Meeting, how: str) -> None:
    source, items = Source(), Source()

    async def both(request: Any, context: Context) -> AsyncIterator[Any]:
        await anext(context.items)
        async for item in source.handle(request):
            yield item

    meeting.serve("Both", both)
    entry = PeerEntry("bob", "2")
    stream = Stream(lambda: entry, lambda peer: meeting.ours.open_stream("Both", None, 5, items=items.items()))
    match how:
        case "leaving the loop":
            async with stream:
                async for _ in stream:
                    break
        case "dropping it":
            await anext(stream)
            del stream
        case "closing it":
            await anext(stream)
            await stream.aclose()
        case _:
            with pytest.raises(ZeroDivisionError):
                async with stream:
                    async for _ in stream:
                        raise ZeroDivisionError
    await until(lambda: items.closed and meeting.theirs.active == meeting.ours.active == 0)
    gc.collect()
    await until(lambda: source.closed)


async def test_nothing_is_left_of_streams_that_have_ended(meeting: Meeting) -> None:
    source = Source(bytes(100_000))
    meeting.serve("Stream", source.handle)
    meeting.serve("Echo", echo_items)

    async def use(number: int) -> None:
        stream = await meeting.ours.open_stream("Stream", None, 5)
        for _ in range(number % 5):
            await anext(stream)
        await stream.aclose()
        echoed = await meeting.ours.open_stream("Echo", None, 5, items=range(number))
        assert [item async for item in echoed] == list(range(number))

    def alive() -> list[object]:
        gc.collect()
        kinds = (IncomingItems, OutgoingItems, ReceivedItems, CallReceived, OutgoingCall)
        return [each for each in gc.get_objects() if isinstance(each, kinds)]

    before = alive()  # what other tests of this process have left
    for number in range(60):
        await use(number)
    await until(lambda: source.closed == 60)
    assert [each for each in alive() if not any(each is other for other in before)] == []
    await until(lambda: meeting.ours.send_buffer == meeting.theirs.send_buffer == 0)
