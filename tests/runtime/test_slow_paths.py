"""Paths and peers that are slow but there, and many calls at once: nothing is cut, starved or held without end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bonevalue import Context
from bonevalue.errors import BadRequest
from bonevalue.host import Host
from bonevalue.link_memory import MemoryEngine, MemoryNetwork
from bonevalue.wire.calls import LinkSettings
from tests.support.meeting import met
from tests.support.waiting import UNIT, until

SIZE = 262_144


async def length(request: bytes, context: Context) -> int:
    """The bytes of what the caller sends."""
    total = 0
    async for item in context.items:
        total += len(item)
    return total


@pytest.mark.parametrize(("calls", "concurrency"), [(20, 1), (60, 64)])
async def test_uploads_that_wait_for_their_turn_do_not_starve_the_one_that_has_it(calls: int, concurrency: int) -> None:
    async with met(MemoryEngine(MemoryNetwork(delay=0.001))) as meeting:
        meeting.serve("Length", length, concurrency=concurrency)
        uploads = (meeting.ours.call("Length", b"", 20, items=[bytes(SIZE)] * 6) for _ in range(calls))
        assert list(await asyncio.gather(*uploads)) == [6 * SIZE] * calls


@pytest.mark.parametrize("streams", [8, 20])
async def test_the_first_of_many_streams_can_be_read_to_its_end_before_the_others(streams: int) -> None:
    async def give(request: Any) -> AsyncIterator[bytes]:
        for _ in range(12):
            yield bytes(SIZE)

    async with met(MemoryEngine(MemoryNetwork(delay=0.001))) as meeting:
        meeting.serve("Give", give)
        opened = [await meeting.ours.open_stream("Give", None, 5) for _ in range(streams)]
        for stream in opened:
            async with asyncio.timeout(10):
                assert [len(item) async for item in stream] == [SIZE] * 12


async def test_streams_that_were_read_fast_leave_memory_for_the_bodies_of_all_links() -> None:
    theirs = Host(LinkSettings(), memory=16 * 2**20)
    for _ in range(12):
        async with met(MemoryEngine(MemoryNetwork(delay=0.001, rate=40e6)), theirs=theirs) as meeting:
            meeting.serve("Length", length)
            meeting.serve("Size", size_of)
            assert await meeting.ours.call("Length", b"", 10, items=[bytes(SIZE)] * 12) == 12 * SIZE
            assert theirs.memory.spare <= theirs.memory.limit // 2
            assert await meeting.ours.call("Size", bytes(3_000_000), 10) == 3_000_000
    assert theirs.memory.taken == 0


async def size_of(request: bytes) -> int:
    """The bytes of the request."""
    return len(request)


async def test_long_answers_for_one_who_reads_little_wait_to_be_made_or_are_few() -> None:
    network = MemoryNetwork(delay=0.001, rate=200_000.0)
    go = asyncio.Event()

    async def big(request: Any) -> bytes:
        await go.wait()
        return bytes(2**18)

    async with met(MemoryEngine(network), theirs=Host(LinkSettings(), send_buffer=2**20)) as meeting:
        meeting.serve("Big", big)
        calls = [asyncio.create_task(meeting.ours.call("Big", None, 60)) for _ in range(40)]
        await until(lambda: meeting.theirs.active == 40)
        go.set()
        await until(lambda: meeting.theirs.send_buffer > 2**20)
        for _ in range(10):
            await asyncio.sleep(UNIT / 2)
            assert meeting.theirs.send_buffer < 2**20 + 2 * 2**18
        network.rate = None
        assert [len(answer) for answer in await asyncio.gather(*calls)] == [2**18] * 40


async def test_a_path_that_is_busy_with_what_we_send_is_not_taken_for_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is acknowledged is a sign of life, though the answers to our pings stand behind it all."""
    monkeypatch.setattr("bonevalue.flow.STALL_CHECK", UNIT / 5)
    network = MemoryNetwork(delay=0.001)
    beat = LinkSettings(heartbeat=2 * UNIT)
    go = asyncio.Event()

    async def work(request: bytes) -> int:
        await go.wait()
        return len(request)

    async with met(MemoryEngine(network), ours=beat, theirs=beat) as meeting:
        meeting.serve("Work", work, concurrency=1000)
        network.rate = 200_000.0
        calls = [asyncio.create_task(meeting.ours.call("Work", bytes(4000), 60)) for _ in range(50)]
        await until(lambda: meeting.theirs.active == 50)  # after one second, ten beats
        go.set()
        assert list(await asyncio.gather(*calls)) == [4000] * 50
        assert not meeting.ours.ended and not meeting.theirs.ended


async def test_a_link_that_drains_over_a_slow_path_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.wire.calls.DRAIN_TIMEOUT", 4 * UNIT)
    network = MemoryNetwork(delay=0.001)
    made = 0

    async def give(request: Any) -> bytes:
        nonlocal made
        made += 1
        return bytes(4000)

    async with met(MemoryEngine(network)) as meeting:
        meeting.serve("Give", give)
        network.rate = 200_000.0
        calls = [asyncio.create_task(meeting.ours.call("Give", None, 60)) for _ in range(50)]
        await until(lambda: made == 50)
        assert meeting.ends.theirs.buffered > 100_000
        meeting.theirs.drain("stopping")
        assert [len(answer) for answer in await asyncio.gather(*calls)] == [4000] * 50
        await until(lambda: len(meeting.closed) == 2)
        assert meeting.theirs.ended == meeting.ours.ended == "drained"


async def test_a_process_that_stood_still_does_not_blame_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.flow.STALL_CHECK", UNIT / 5)
    ours = Host(LinkSettings(heartbeat=UNIT), stall_timeout=4 * UNIT)
    async with met(MemoryEngine(MemoryNetwork(delay=0.001)), ours=ours) as meeting:
        meeting.serve("Size", size_of)
        for _ in range(3):
            call = asyncio.create_task(meeting.ours.call("Size", bytes(3000), 20))
            await until(lambda: meeting.ends.ours.buffered)
            time.sleep(8 * UNIT)  # noqa: ASYNC251 - as a handler that blocks, or a machine that was suspended
            assert await call == 3000
        assert not meeting.ours.ended


async def test_an_error_of_a_handlers_own_making_is_an_answer_all_the_same() -> None:
    class Mine(BadRequest):
        def __init__(self, field: str) -> None:
            self.field = field

    async def refuse(request: Any) -> None:
        raise Mine("name")

    async def wait(request: Any) -> None:
        raise BadRequest("later", retry_after=10**400)

    async with met() as meeting:
        meeting.serve("Refuse", refuse)
        meeting.serve("Wait", wait)
        for name in ("Refuse", "Wait"):
            with pytest.raises(BadRequest) as caught:
                await meeting.ours.call(name, None, 5)
            assert caught.value.retry_after is None
