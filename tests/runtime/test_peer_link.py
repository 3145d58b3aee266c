"""Streams over a proved link, both ways; beside calls, while it drains, and when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from bonevalue import Context
from bonevalue.errors import BadRequest, LinkLost
from bonevalue.link_calls import CallMoved
from bonevalue.link_memory import MemoryEngine, MemoryLink, MemoryNetwork
from bonevalue.rtc import RtcEngine
from bonevalue.serving import ServedModule
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.frames import MAX_ITEM
from tests.support.handlers import Source, collect_items, count, echo, echo_items
from tests.support.meeting import Meeting, meet, met
from tests.support.waiting import UNIT, until

VALUES: list[Any] = [None, 0, "text", [1, {"a": [True, 2.5]}], {}, b"", b"\x00\xff" * 50_000, bytes(MAX_ITEM)]


@pytest.fixture
async def meeting() -> AsyncIterator[Meeting]:
    """Two peers and their link over memory."""
    async with met() as meeting:
        yield meeting


async def test_what_a_handler_yields_arrives_in_order(meeting: Meeting) -> None:
    async def values(request: Any) -> AsyncIterator[Any]:
        for value in VALUES:
            yield value

    meeting.serve("Values", values)
    assert [item async for item in await meeting.ours.open_stream("Values", None, 5)] == VALUES
    assert meeting.ours.active == meeting.theirs.active == 0
    assert meeting.our_host.counters.items_received == meeting.their_host.counters.items_sent == len(VALUES)


@pytest.mark.parametrize("sync", [False, True])
async def test_items_follow_a_request(meeting: Meeting, sync: bool) -> None:
    got: list[Any] = []

    async def take(request: Any, context: Context) -> str:
        got.append(request)
        got.extend([item async for item in context.items])
        return "all"

    async def items() -> AsyncIterator[Any]:
        for value in VALUES:
            yield value

    meeting.serve("Take", take)
    assert await meeting.ours.call("Take", "first", 5, items=VALUES if sync else items()) == "all"
    assert got == ["first", *VALUES]
    assert meeting.their_host.counters.items_received == meeting.our_host.counters.items_sent == len(VALUES)


@pytest.mark.parametrize("number", [0, 1, 1000])
async def test_streams_of_any_number_of_items(meeting: Meeting, number: int) -> None:
    meeting.serve("Count", count)
    meeting.serve("Echo", echo_items)
    assert [item async for item in await meeting.ours.open_stream("Count", number, 5)] == list(range(number))
    echoed = await meeting.ours.open_stream("Echo", None, 5, items=range(number))
    assert [item async for item in echoed] == list(range(number))


async def test_a_conversation(meeting: Meeting) -> None:
    """Each item of the caller depends on the one that the callee sent before."""
    replies: asyncio.Queue[int] = asyncio.Queue()

    async def questions() -> AsyncIterator[int]:
        number = 0
        while number < 100:
            yield number
            number = await replies.get()

    async def increase(request: Any, context: Context) -> AsyncIterator[int]:
        async for number in context.items:
            yield number + 1

    meeting.serve("Increase", increase)
    seen = []
    async for number in await meeting.ours.open_stream("Increase", None, 5, items=questions()):
        seen.append(number)
        replies.put_nowait(number)
    assert seen == list(range(1, 101))


async def test_both_sides_stream_to_each_other_at_once(meeting: Meeting) -> None:
    meeting.serve("Count", count)
    meeting.our_host.modules["Count"] = ServedModule("Count", count)

    async def read(link: Any) -> int:
        return len([item async for item in await link.open_stream("Count", 3000, 10)])

    assert list(await asyncio.gather(read(meeting.ours), read(meeting.theirs), read(meeting.ours))) == [3000] * 3


async def test_a_long_body_goes_before_the_items(meeting: Meeting) -> None:
    async def take(request: bytes, context: Context) -> list[int]:
        return [len(request), *[len(item) async for item in context.items]]

    meeting.serve("Take", take)
    answer: list[int] = await meeting.ours.call("Take", bytes(3_000_000), 10, items=[b"12", bytes(MAX_ITEM)])
    assert answer == [3_000_000, 2, MAX_ITEM]


async def test_a_stream_is_as_long_as_one_likes(meeting: Meeting) -> None:
    """Much more than any credit, both ways at once."""
    meeting.serve("Echo", echo_items)
    echoed = await meeting.ours.open_stream(
        "Echo", None, 10, items=(bytes([number % 256]) * 100_000 for number in range(200))
    )
    number = 0
    async for item in echoed:
        assert item == bytes([number % 256]) * 100_000
        number += 1
    assert number == 200


async def test_a_plain_answer_is_a_stream_of_one(meeting: Meeting) -> None:
    meeting.serve("Echo", echo)
    assert [item async for item in await meeting.ours.open_stream("Echo", {"a": 1}, 5)] == [{"a": 1}]
    long = await meeting.ours.open_stream("Echo", bytes(2_000_000), 5)
    assert [len(item) async for item in long] == [2_000_000]


async def test_a_plain_call_to_a_stream_is_a_bad_request_and_is_not_run(meeting: Meeting) -> None:
    source = Source()
    ran: list[str] = []

    async def hidden(request: Any) -> Any:
        ran.append("it cannot be known before that it answers with a stream")
        return source.items()

    meeting.serve("Stream", source.handle)
    meeting.serve("Hidden", hidden)
    for name in ("Stream", "Hidden"):
        with pytest.raises(BadRequest, match="use stream"):
            await meeting.ours.call(name, None, 5)
    assert source.made == 0 and len(ran) == 1


async def test_streams_and_calls_share_a_link(meeting: Meeting) -> None:
    meeting.serve("Count", count)
    meeting.serve("Echo", echo)
    streams = [await meeting.ours.open_stream("Count", 50, 5) for _ in range(50)]
    assert await asyncio.gather(*(meeting.ours.call("Echo", number, 5) for number in range(50))) == list(range(50))
    for stream in streams:
        assert [item async for item in stream] == list(range(50))


async def test_one_that_reads_none_of_its_streams_does_not_keep_the_others_out(meeting: Meeting) -> None:
    source = Source()

    async def handle(request: str) -> Any:
        return source.items() if request == "stream" else request

    meeting.serve("Both", handle)
    opening = [asyncio.create_task(meeting.ours.open_stream("Both", "stream", 60)) for _ in range(64)]
    await until(lambda: sum(task.done() for task in opening) == 56)
    await source.stopped()
    other = await meet(theirs=meeting.their_host, our_id="3")
    assert await other.ours.call("Both", "call", 5) == "call"
    assert sum(task.done() for task in opening) == 56
    await other.close()
    for task in opening[:8]:
        await task.result().aclose()
    for stream in await asyncio.gather(*opening):
        await stream.aclose()
    await until(lambda: source.closed == 64)
    assert meeting.ours.active == 0


# -- the end of the link -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "ours", "theirs", "silent"])
async def test_a_link_that_is_lost_ends_the_streams_on_both_ends(how: str) -> None:
    network = MemoryNetwork()
    settings = LinkSettings(heartbeat=2 * UNIT) if how == "silent" else LinkSettings()
    down, up, unread = Source(), Source(), Source()
    ended: list[str] = []

    async def take(request: Any, context: Context) -> None:
        try:
            async for _ in context.items:
                pass
        finally:
            ended.append("take")

    async with met(MemoryEngine(network), ours=settings, theirs=settings) as meeting:
        meeting.serve("Down", down.handle)
        meeting.serve("Unread", unread.handle)
        meeting.serve("Take", take)
        stream = await meeting.ours.open_stream("Down", None, 5)
        idle = await meeting.ours.open_stream("Unread", None, 5)
        call = asyncio.create_task(meeting.ours.call("Take", None, 30, items=up.items()))
        await until(lambda: up.made > 200)
        await unread.stopped()
        reader = asyncio.create_task(read_all(stream))
        await until(lambda: down.made > 200)
        match how:
            case "cut":
                network.cut()
            case "ours":
                meeting.ours.close()
            case "theirs":
                meeting.ends.theirs.close()
            case _:
                network.silent = True
        for each in (call, reader):
            with pytest.raises(LinkLost) as caught:
                await each
            assert caught.value.peer == "2"
        got = 0
        with pytest.raises(LinkLost):
            async for _ in idle:
                got += 1
        assert got > 0, "what had come stays valid"
        await until(lambda: up.closed and down.closed and unread.closed and ended)
        await until(lambda: len(meeting.closed) == 2)


async def read_all(stream: AsyncIterator[Any]) -> int:
    number = 0
    async for _ in stream:
        number += 1
    return number


async def test_a_link_drains_when_its_streams_have_ended(meeting: Meeting) -> None:
    go = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        yield 1
        await go.wait()
        yield 2

    meeting.serve("Echo", echo_items)
    stream = await meeting.ours.open_stream("Echo", None, 5, items=items())
    assert await anext(stream) == 1
    meeting.theirs.drain("stopping")
    await until(lambda: not meeting.ours.usable)
    unused = Source()
    with pytest.raises(CallMoved):
        await meeting.ours.open_stream("Echo", None, 5, items=unused.items())
    assert unused.made == 0
    go.set()
    assert [item async for item in stream] == [2]
    await until(lambda: len(meeting.closed) == 2)
    assert meeting.ours.ended == "drained"


async def test_a_stream_keeps_a_link_that_nobody_holds() -> None:
    source = Source()
    async with met(idle_timeout=UNIT) as meeting:
        meeting.serve("Stream", source.handle)
        stream = await meeting.ours.open_stream("Stream", None, 5, keep_alive=False)
        for _ in range(6):
            await asyncio.sleep(UNIT)
            await anext(stream)
        assert not meeting.closed
        await stream.aclose()
        await until(lambda: len(meeting.closed) == 2)


# -- over WebRTC -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def webrtc() -> AsyncIterator[Meeting]:
    """Two peers and their link over aiortc."""
    async with met(RtcEngine()) as meeting:
        yield meeting


async def test_streams_go_both_ways_over_webrtc(webrtc: Meeting) -> None:
    webrtc.serve("Echo", echo_items)
    sent = [bytes([number]) * 100_000 for number in range(10)]
    echoed = await webrtc.ours.open_stream("Echo", None, 20, items=sent)
    assert [item async for item in echoed] == sent
    webrtc.serve("Count", count)
    for number in (0, 1, 500):
        assert await read_all(await webrtc.ours.open_stream("Count", number, 20)) == number


async def test_a_stream_that_is_given_up_over_webrtc_stops(webrtc: Meeting) -> None:
    source, items = Source(), Source()
    webrtc.serve("Stream", source.handle)
    webrtc.serve("Collect", collect_items)
    stream = await webrtc.ours.open_stream("Stream", None, 20)
    call = asyncio.create_task(webrtc.ours.call("Collect", None, 30, items=items.items()))
    await anext(stream)
    await until(lambda: items.made > 20)
    await stream.aclose()
    call.cancel()
    await until(lambda: source.closed and items.closed)
    await until(lambda: webrtc.ours.active == webrtc.theirs.active == 0)


async def test_the_end_of_a_webrtc_link_ends_its_streams(webrtc: Meeting) -> None:
    source = Source()
    webrtc.serve("Stream", source.handle)
    stream = await webrtc.ours.open_stream("Stream", None, 20)
    reader = asyncio.create_task(read_all(stream))
    await until(lambda: source.made > 50)
    webrtc.theirs.close()
    with pytest.raises(LinkLost):
        await reader
    await until(lambda: source.closed and len(webrtc.closed) == 2)


async def test_a_doubt_ends_with_an_answer_and_not_with_what_comes_of_itself(meeting: Meeting) -> None:
    ours, theirs, link = meeting.ours, meeting.theirs, cast(MemoryLink, meeting.ends.ours)
    meeting.our_host.modules["Echo"] = ServedModule("Echo", echo)
    await ours.ping(5)
    link.mute = True
    ours.doubt()
    call = asyncio.create_task(theirs.call("Echo", None, 5))
    await until(lambda: meeting.our_host.counters.calls_served)
    assert ours.doubted
    link.mute = False
    assert await call is None
    await until(lambda: not ours.doubted)
    ours.close()
    ours.doubt()
    assert not ours.doubted
