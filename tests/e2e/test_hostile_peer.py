"""
A trusted peer that means harm, against a real `bv-run`: each of its tricks, while an honest peer goes on calling.

Whatever it does, the daemon stays up, the honest peer is answered, and the daemon grows by 24 MiB at most. Who breaks
the rules is cut within 5 s, with a reason that is counted, and not let back at once. Who only asks for much is not
cut, and does not get more than its share.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    USERDATA_MAX_LENGTH,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    AbortChunk,
    DataChunk,
    ShutdownAckChunk,
    ShutdownChunk,
    ShutdownCompleteChunk,
)

from bonevalue.errors import LinkLost, RateLimited
from bonevalue.link import MAX_RECEIVED
from bonevalue.wire import frames
from bonevalue.wire.frames import FLAG_STREAM, FLAG_TAKES_STREAM, FrameType
from tests.support.chunks import OPEN
from tests.support.hostile import STALL, WITHIN, Fortress, Intruder, Siege, open_siege
from tests.support.waiting import until

MEBIBYTE = 1024 * 1024
#: What one hostile peer may cost the daemon.
MOST_MEMORY = 24 * MEBIBYTE
#: Seconds that may pass before a rule is broken: one that takes nothing has some time, and it takes some to have more
#: kept than may be.
ALLOWED = {"slow": STALL, "abuse": 10.0}
#: Seconds for which what is legal and heavy is kept up.
LONG = 3.0

#: One account for each test: what one did is held against it in the next.
_NAMES = [f"mallory{number}" for number in range(80)]


@pytest.fixture(scope="module")
def fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """One daemon for all tests: it has to survive all of them."""
    fortress = Fortress(tmp_path_factory.mktemp("fortress"), _NAMES)
    try:
        yield fortress
        assert fortress.daemon.stop() == 0
        for complaint in (
            "aiortc/",
            "a listener of",
            "a handler of",
            "was never retrieved",
            "something that ran beside",
        ):
            assert complaint not in fortress.daemon.output
    finally:
        fortress.daemon.kill()


@pytest.fixture(scope="module")
def names() -> Iterator[str]:
    """Accounts that have done nothing yet."""
    return iter(_NAMES)


@pytest.fixture
async def siege(fortress: Fortress) -> AsyncIterator[Siege]:
    async with open_siege(fortress) as siege:
        yield siege


# -- what breaks the rules ---------------------------------------------------------------------------------------------

Trick = Callable[[Intruder], Coroutine[Any, Any, None]]
TRICKS: dict[str, tuple[str, Trick]] = {}


def trick(reason: str) -> Callable[[Trick], Trick]:
    """One way to break the rules, and why the link is to be cut."""

    def add(function: Trick) -> Trick:
        TRICKS[function.__name__] = reason, function
        return function

    return add


@trick("protocol_error")
async def opens_the_channel_again(intruder: Intruder) -> None:
    await intruder.chunks.data(OPEN, kind=WEBRTC_DCEP)


@trick("protocol_error")
async def opens_three_thousand_channels(intruder: Intruder) -> None:
    for stream in range(2, 6002, 2):
        await intruder.chunks.data(OPEN, kind=WEBRTC_DCEP, stream=stream)


@trick("protocol_error")
async def sends_text_that_is_not_utf8(intruder: Intruder) -> None:
    await intruder.chunks.data(b"\xff\xfe", kind=WEBRTC_STRING)


@trick("protocol_error")
async def sends_a_message_without_end(intruder: Intruder) -> None:
    piece = bytes(USERDATA_MAX_LENGTH)
    for number in range(MAX_RECEIVED // len(piece) + 2):
        await intruder.chunks.data(piece, flags=0 if number else SCTP_DATA_FIRST_FRAG)


@trick("abuse")
async def leaves_a_gap_so_that_nothing_can_be_delivered(intruder: Intruder) -> None:
    intruder.chunks.skip(1)
    while not intruder.closed:
        for _ in range(20):
            await intruder.chunks.data(bytes(USERDATA_MAX_LENGTH), order=1000)
        await asyncio.sleep(0.005)  # or the system drops what it cannot hold


@trick("protocol_error")
async def sends_chunks_of_garbage(intruder: Intruder) -> None:
    chance = random.Random(0)
    orderly_ends = {kind.type for kind in (AbortChunk, ShutdownChunk, ShutdownAckChunk, ShutdownCompleteChunk)}
    kinds = [kind for kind in range(256) if kind not in orderly_ends and kind != DataChunk.type]
    for number, kind in enumerate(kinds * 4):
        await intruder.chunks.raw(kind, chance.randrange(256), chance.randbytes(chance.randrange(200)))
        if number % 50 == 0:
            await asyncio.sleep(0.01)  # or the system drops what it cannot hold
    await intruder.chunks.raw(DataChunk.type, 3, b"\1\2\3")


@trick("protocol_error")
async def sends_frames_of_garbage(intruder: Intruder) -> None:
    intruder.link.send(random.Random(0).randbytes(500))


@trick("protocol_error")
async def says_hello_twice(intruder: Intruder) -> None:
    intruder.send(FrameType.HELLO, 0, bytes(64) + b"{}")


@trick("protocol_error")
async def answers_a_call_that_was_never_made(intruder: Intruder) -> None:
    intruder.link.send(frames.encode_response(2, 4, b"null"))


@trick("protocol_error")
async def answers_a_call_twice(intruder: Intruder) -> None:
    intruder.request("CallBack", b"1")
    asked = await intruder.receives(FrameType.REQUEST)
    intruder.link.send(frames.encode_response(asked.call, 8, b"") * 2)


@trick("protocol_error")
async def answers_a_call_with_a_stream_that_was_not_asked_for(intruder: Intruder) -> None:
    intruder.request("CallBack", b"1")
    asked = await intruder.receives(FrameType.REQUEST)
    intruder.link.send(frames.encode_response(asked.call, 0, b"", FLAG_STREAM))


@trick("protocol_error")
async def sends_a_body_for_a_call_that_was_never_made(intruder: Intruder) -> None:
    intruder.send(FrameType.BODY, 777, b"x")


@trick("protocol_error")
async def sends_more_of_a_body_than_it_declared(intruder: Intruder) -> None:
    call = intruder.request("Echo", b"1", length=3)
    intruder.send(FrameType.BODY, call, b"2345")


@trick("protocol_error")
async def sends_items_for_a_call_that_was_never_made(intruder: Intruder) -> None:
    intruder.link.send(frames.item_head(777, 1, 1, 0) + b"1")


@trick("protocol_error")
async def sends_items_where_it_said_there_would_be_none(intruder: Intruder) -> None:
    call = intruder.request("Sleep", b"60")
    intruder.link.send(frames.item_head(call, 1, 1, 0) + b"1")


@trick("protocol_error")
async def declares_an_item_longer_than_any_may_be(intruder: Intruder) -> None:
    call = intruder.request("Sum", flags=FLAG_STREAM)
    intruder.link.send(frames.item_head(call, 2**32 - 1, 0, 0))


@trick("protocol_error")
async def sends_items_beyond_its_credit(intruder: Intruder) -> None:
    call = intruder.request("Sleep", b"60", flags=FLAG_STREAM)
    for _ in range(3):
        intruder.link.send(frames.item_head(call, frames.MAX_ITEM, 0, 0))
        for _ in range(frames.MAX_ITEM // 16_000):
            intruder.send(FrameType.PART, call, bytes(16_000))
        intruder.send(FrameType.PART, call, bytes(frames.MAX_ITEM % 16_000))
        await intruder.room()


@trick("protocol_error")
async def gives_credit_for_a_call_that_was_never_made(intruder: Intruder) -> None:
    intruder.link.send(frames.encode_credit(777, 1))


@trick("protocol_error")
async def gives_more_credit_than_can_be_counted(intruder: Intruder) -> None:
    for _ in range(3):
        intruder.link.send(frames.encode_credit(0, 2**31 - 1))


@trick("protocol_error")
async def gives_a_stream_more_credit_than_can_be_counted(intruder: Intruder) -> None:
    call = intruder.request("Flood", b"1000", flags=FLAG_TAKES_STREAM)
    await intruder.receives(FrameType.ITEM, call=call)
    for _ in range(3):
        intruder.link.send(frames.encode_credit(call, 2**31 - 1))


@trick("slow")
async def takes_nothing_of_its_answers(intruder: Intruder) -> None:
    intruder.chunks.acknowledge(None)
    for _ in range(64):
        intruder.request("Blob", b"1000000")


@trick("slow")
async def takes_nothing_of_a_stream(intruder: Intruder) -> None:
    intruder.chunks.acknowledge(None)
    intruder.request("Flood", b"100000", flags=FLAG_TAKES_STREAM)


@trick("slow")
async def pings_and_takes_none_of_the_pongs(intruder: Intruder) -> None:
    intruder.chunks.acknowledge(None)
    ping = frames.encode(FrameType.PING, 0, bytes(8))
    while not intruder.closed:
        intruder.link.send(ping * 1000)
        await intruder.room(65_536)


@pytest.mark.parametrize("name", TRICKS)
async def test_who_breaks_the_rules_is_cut_and_kept_away(siege: Siege, names: Iterator[str], name: str) -> None:
    reason, play = TRICKS[name]
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        playing = asyncio.create_task(play(intruder))
        await siege.cut(intruder, reason, within=WITHIN + ALLOWED.get(reason, 0.0))
        with suppress(LinkLost):  # it was cut in the middle of it
            await playing


async def test_who_was_kept_away_may_come_back_and_stays_away_longer_each_time(
    siege: Siege, names: Iterator[str]
) -> None:
    intruder = await siege.intruder(next(names))
    waits = []
    for _ in range(2):
        intruder.link.send(b"\x7f")
        await until(lambda: intruder.closed)  # noqa: B023
        while True:
            try:
                intruder = await siege.come_in(intruder.peer)
                break
            except RateLimited as error:
                waits.append(error.retry_after or 0.0)
                await asyncio.sleep(waits[-1])
    assert len(waits) >= 2 and waits[0] <= 1 < waits[-1] <= 5
    intruder.request("Echo", b"1")
    await intruder.receives(FrameType.RESPONSE)


async def test_the_daemon_does_not_call_whom_it_keeps_away(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    intruder.link.send(b"\x7f")
    await until(lambda: intruder.closed)
    code, message = await siege.call("Ask", intruder.peer.id)
    assert code == "rate_limited" and "(protocol_error)" in message


# -- what is allowed and heavy -----------------------------------------------------------------------------------------


async def keep_up(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do something over and over."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        await work()


async def still_served(intruder: Intruder) -> None:
    """The link is up, and a call of the intruder gets its answer, as soon as the many before it are done with."""
    await intruder.room(0)
    while True:
        intruder.forget()
        call = intruder.request("Echo", b"[1]")
        # Tens of thousands of answers may be on their way before this one.
        answer = await intruder.receives(FrameType.RESPONSE, FrameType.ERROR, call=call, within=60)
        if answer.type is FrameType.RESPONSE:
            assert bytes(frames.decode_response(answer.payload)[1]) == b"[1]"
            return
        # The request was taken in while those before it were still under way.
        assert frames.decode_error(answer.payload).code == "busy"


async def test_ten_thousand_requests_a_second(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))

    async def flood() -> None:
        for _ in range(10):
            message = b"".join(frames.encode_request(intruder.new_call(), b"Echo", 30, 4, b"null") for _ in range(100))
            intruder.link.send(message)
        intruder.forget()
        await intruder.room(131_072)

    async with siege.quiet_neighbourhood(MOST_MEMORY):
        await keep_up(LONG, flood)
        await still_served(intruder)


async def test_more_calls_than_may_be_under_way(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        calls = [intruder.request("Sleep", b"60") for _ in range(3000)]
        await until(lambda: intruder.count(FrameType.ERROR) == 3000 - 1024)
        assert (await intruder.refused(calls[-1])).code == "busy"
        assert await siege.counted("limited", "max_calls") == 3000 - 1024
        assert await siege.counted("refused", "busy") >= 3000 - 1024
        for call in calls:
            intruder.send(FrameType.CANCEL, call)
        await still_served(intruder)


async def test_calls_that_are_made_and_cancelled_at_once(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))

    async def flood() -> None:
        for _ in range(10):
            calls = [intruder.new_call() for _ in range(100)]
            intruder.link.send(
                b"".join(
                    frames.encode_request(call, b"Sleep", 30, 2, b"60") + frames.encode(FrameType.CANCEL, call)
                    for call in calls
                )
            )
        intruder.forget()
        await intruder.room(131_072)

    async with siege.quiet_neighbourhood(MOST_MEMORY):
        await keep_up(LONG, flood)
        await still_served(intruder)


async def test_a_handler_that_raises_a_thousand_times(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        for _ in range(10):
            for _ in range(100):
                intruder.request("Raise")
            await intruder.room()
        await until(lambda: intruder.count(FrameType.ERROR) == 1000)
        assert await siege.counted("refused", "handler_failed") == 1000
        assert (await siege.stats())["counters"]["log_lines_left_out"] > 500
        await still_served(intruder)


async def test_bodies_of_which_one_byte_comes_at_a_time(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    length = 8 * MEBIBYTE
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        calls = [intruder.request("Blob", b"1", length=length, time_left=LONG) for _ in range(4)]
        # Two of them fill what may be incomplete on one link.
        assert {(await intruder.refused(call)).code for call in calls[2:]} == {"busy"}

        async def trickle() -> None:
            for call in calls[:2]:
                intruder.send(FrameType.BODY, call, b"1")
            await asyncio.sleep(0.05)

        await keep_up(LONG - 0.5, trickle)
        assert (await siege.stats())["gauges"]["memory_bytes"] == 2 * length  # set aside, not yet there
        assert await siege.call("Echo", "x" * MEBIBYTE) == "x" * MEBIBYTE
        assert {(await intruder.refused(call)).code for call in calls[:2]} == {"deadline"}
        assert (await siege.stats())["gauges"]["memory_bytes"] == 0
        await still_served(intruder)


async def test_one_byte_in_each_message(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    body = json.dumps("x" * 5_000).encode()
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        call = intruder.request("Echo", body[:1], length=len(body))
        for number, byte in enumerate(body[1:]):
            intruder.send(FrameType.BODY, call, bytes([byte]))
            if number % 500 == 0:
                await intruder.room(65_536)
        await intruder.receives(FrameType.RESPONSE, call=call)
        await still_served(intruder)


@pytest.mark.parametrize("length", [8 * MEBIBYTE + 1, 2**31, 2**32 - 1])
async def test_requests_that_are_declared_too_long(siege: Siege, names: Iterator[str], length: int) -> None:
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        calls = [intruder.request("Echo", b"1", length=length) for _ in range(100)]
        assert (await intruder.refused(calls[-1])).code == "too_large"
        assert await siege.counted("limited", "max_body") == 100
        await still_served(intruder)


async def test_an_answer_that_is_declared_too_long(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        call = intruder.request("CallBack", b"1")
        asked = await intruder.receives(FrameType.REQUEST)
        intruder.link.send(frames.encode_response(asked.call, 2**32 - 1, b"x"))
        await intruder.receives(FrameType.CANCEL, call=asked.call)
        assert (await intruder.refused(call)).code == "handler_failed"
        await still_served(intruder)


async def test_one_that_reads_slowly_gets_its_answers_slowly(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))
    intruder.chunks.acknowledge(0.1)
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        for _ in range(200):
            intruder.request("Blob", b"1000000")
        await asyncio.sleep(LONG)
        assert not intruder.closed
        stats = await siege.stats()
        assert stats["gauges"]["send_buffer_bytes"] < 16 * MEBIBYTE


async def test_streams_of_which_nobody_takes_an_item(siege: Siege, names: Iterator[str]) -> None:
    """The caller acknowledges everything and gives no credit back: each stream stands still within its credit."""
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        for _ in range(200):
            intruder.request("Flood", b"100000", flags=FLAG_TAKES_STREAM)
            await intruder.room()
        await asyncio.sleep(LONG)
        await still_served(intruder)


async def test_streams_that_are_begun_and_cancelled(siege: Siege, names: Iterator[str]) -> None:
    intruder = await siege.intruder(next(names))

    async def flood() -> None:
        calls = [intruder.new_call() for _ in range(100)]
        intruder.link.send(
            b"".join(frames.encode_request(call, b"Flood", 30, 4, b"1000", FLAG_TAKES_STREAM) for call in calls)
        )
        await intruder.room()
        intruder.link.send(b"".join(frames.encode(FrameType.CANCEL, call) for call in calls))
        intruder.forget()
        await intruder.room(131_072)

    async with siege.quiet_neighbourhood(MOST_MEMORY):
        await keep_up(LONG, flood)
        await still_served(intruder)
        assert (await siege.stats())["gauges"]["handlers"] <= 4


async def test_tiny_items_by_the_hundred_thousand(siege: Siege, names: Iterator[str]) -> None:
    """An item costs more than its bytes: the credit must cover that as well."""
    intruder = await siege.intruder(next(names))
    async with siege.quiet_neighbourhood(MOST_MEMORY):
        for call in [intruder.request("Sleep", b"60", flags=FLAG_STREAM) for _ in range(4)]:
            item = frames.item_head(call, 1, 1, 0) + b"1"
            for _ in range(16):  # 16,000 items of 65 fit into a credit of 1 MiB
                intruder.link.send(item * 1000)
                await intruder.room()
        await still_served(intruder)


async def test_all_of_it_at_once(siege: Siege, names: Iterator[str]) -> None:
    """Several accounts that each ask for all they may have: together they get no more than the daemon has to give."""
    intruders = [await siege.intruder(next(names)) for _ in range(4)]
    async with siege.quiet_neighbourhood(len(intruders) * MOST_MEMORY):
        for intruder, _ in itertools.product(intruders, range(4)):
            call = intruder.request("Blob", b"1", length=8 * MEBIBYTE, time_left=60)
            for _ in range(MEBIBYTE // 32_000):  # it is set aside whole from the first byte on
                intruder.send(FrameType.BODY, call, bytes(16_000))
                await intruder.room()
        stats = await siege.stats()
        assert 32 * MEBIBYTE <= stats["gauges"]["memory_bytes"] <= stats["gauges"]["memory_limit_bytes"]
        assert await siege.counted("limited", "incomplete") and await siege.counted("limited", "memory")
        assert await siege.call("Echo", "x" * MEBIBYTE) == "x" * MEBIBYTE
