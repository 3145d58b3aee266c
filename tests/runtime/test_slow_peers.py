"""A peer that takes nothing, or little, of what it is sent: what waits is bounded, and one that stands still is cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bonevalue.errors import Deadline, LinkLost
from bonevalue.host import Host
from bonevalue.link_calls import CallMoved
from bonevalue.link_memory import MemoryEngine, MemoryNetwork
from bonevalue.wire import frames
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.frames import FrameType
from tests.support.meeting import meet
from tests.support.waiting import UNIT, until

#: Bytes that may wait on a link here.
SMALL = 50_000


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> MemoryNetwork:
    """A network whose links are looked at often."""
    monkeypatch.setattr("bonevalue.flow.STALL_CHECK", UNIT / 10)
    return MemoryNetwork()


def host(*, send_buffer: int = SMALL, stall_timeout: float = 60.0, heartbeat: float = 5.0) -> Host:
    return Host(LinkSettings(heartbeat=heartbeat), send_buffer=send_buffer, stall_timeout=stall_timeout)


async def echo(request: Any) -> Any:
    return request


async def test_no_more_answers_are_made_for_one_that_does_not_read_them(network: MemoryNetwork) -> None:
    meeting = await meet(MemoryEngine(network), theirs=host(send_buffer=300_000))
    made = 0

    async def long(request: Any) -> bytes:
        nonlocal made
        made += 1
        return bytes(100_000)

    meeting.serve("Long", long)
    network.rate = 50_000.0
    tasks = [asyncio.create_task(meeting.ours.call("Long", 1, 60)) for _ in range(3)]
    await until(lambda: made == 3)
    await asyncio.sleep(0)
    tasks += [asyncio.create_task(meeting.ours.call("Long", 1, 60)) for _ in range(50)]
    await until(lambda: meeting.theirs.active > 40)
    assert made < 10
    assert meeting.their_host.counters.limited["send_buffer"] == 1
    network.rate = None
    assert {len(answer) for answer in await asyncio.gather(*tasks)} == {100_000}
    await meeting.close()


async def test_one_that_reads_nothing_is_not_sent_ever_more_and_then_cut(network: MemoryNetwork) -> None:
    meeting = await meet(MemoryEngine(network), ours=host(stall_timeout=4 * UNIT))
    network.rate = 1.0
    tasks = [asyncio.create_task(meeting.ours.call("Echo", "x" * 4000, 30)) for _ in range(40)]
    await until(lambda: meeting.ends.ours.buffered > SMALL)
    late = asyncio.create_task(meeting.ours.call("Echo", "late", UNIT))
    with pytest.raises(Deadline, match="did not read"):
        await late
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {LinkLost, CallMoved}  # moved: those that were not sent yet
    assert meeting.ours.ended == "slow"
    assert meeting.ends.ours.buffered < 5 * SMALL
    await meeting.close()


async def test_one_that_reads_slowly_gets_everything(network: MemoryNetwork) -> None:
    meeting = await meet(MemoryEngine(network), ours=host(stall_timeout=10 * UNIT))
    network.rate = 400_000.0
    meeting.serve("Echo", echo)
    first = [asyncio.create_task(meeting.ours.call("Echo", "x" * 4000, 30)) for _ in range(40)]
    await until(lambda: meeting.ends.ours.buffered > SMALL)
    late = [asyncio.create_task(meeting.ours.call("Echo", "x" * 4000, 30)) for _ in range(40)]
    assert await asyncio.gather(*first, *late) == ["x" * 4000] * 80
    await meeting.close()


async def test_one_that_takes_nothing_of_a_little_is_cut_too(network: MemoryNetwork) -> None:
    meeting = await meet(MemoryEngine(network), ours=host(stall_timeout=4 * UNIT, heartbeat=UNIT))
    network.rate = 1.0
    call = asyncio.create_task(meeting.ours.call("Echo", "x" * 100, 30))
    while not call.done():  # what it says itself arrives: it is there, it does not listen
        meeting.ours._receive(frames.encode_hold(False))
        await asyncio.sleep(UNIT / 2)
    with pytest.raises(LinkLost, match="taken nothing"):
        await call
    assert meeting.ours.ended == "slow"
    await meeting.close()


async def test_an_idle_link_does_not_stand_still(network: MemoryNetwork) -> None:
    meeting = await meet(
        MemoryEngine(network), ours=host(stall_timeout=UNIT, heartbeat=UNIT), theirs=host(heartbeat=UNIT)
    )
    meeting.serve("Echo", echo)
    for _ in range(4):
        assert await meeting.ours.call("Echo", 1, 5) == 1
        await asyncio.sleep(3 * UNIT)
    assert not meeting.ours.ended
    await meeting.close()


async def test_one_that_asks_for_more_than_it_reads_is_cut(network: MemoryNetwork) -> None:
    meeting = await meet(MemoryEngine(network), theirs=host())
    meeting.serve("Echo", echo)
    network.rate = 1.0
    ping = frames.encode(FrameType.PING, 0, bytes(8))
    while not meeting.theirs.ended:
        meeting.theirs._receive(ping * 1000)
        await asyncio.sleep(0)
    assert meeting.theirs.ended == "slow"
    assert meeting.theirs.send_buffer < 5 * SMALL
    await meeting.close()
