"""The weather of the memory network: each kind does what it says, and nothing else."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from bonevalue.link import CloseReason
from bonevalue.link_memory import MemoryEngine, MemoryNetwork, memory_pair
from tests.support.links import connect, listen
from tests.support.waiting import until


class Clock:
    """Takes the time of something on the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()

    @property
    def passed(self) -> float:
        """Seconds since this was made."""
        return self._loop.time() - self._start


async def test_without_weather_a_message_takes_a_turn_of_the_loop() -> None:
    ours, theirs = memory_pair()
    heard = listen(theirs)
    ours.send(b"now")
    assert ours.buffered == 3
    for _ in range(3):
        await asyncio.sleep(0)
    assert heard.messages == [b"now"]
    assert ours.buffered == 0


async def test_delay_holds_each_message_and_not_one_after_the_other(unit: float) -> None:
    ours, theirs = memory_pair(MemoryNetwork(delay=4 * unit))
    heard, clock = listen(theirs), Clock()
    for number in range(100):
        ours.send(bytes([number]))
    await until(lambda: heard.messages)
    assert clock.passed >= 4 * unit
    await until(lambda: len(heard.messages) == 100)
    assert clock.passed < 8 * unit
    assert heard.messages == [bytes([number]) for number in range(100)]


async def test_a_lost_message_holds_up_those_behind_it_and_none_is_overtaken(unit: float) -> None:
    network = MemoryNetwork(losses=itertools.cycle([False, True, False]), retransmit=4 * unit)
    ours, theirs = memory_pair(network)
    heard, clock = listen(theirs), Clock()
    for number in range(9):
        ours.send(bytes([number]))
    await until(lambda: heard.messages)
    assert len(heard.messages) == 1
    await until(lambda: len(heard.messages) == 9)
    assert clock.passed >= 4 * unit
    assert heard.messages == [bytes([number]) for number in range(9)]


async def test_rate_keeps_bytes_waiting(unit: float) -> None:
    ours, theirs = memory_pair(MemoryNetwork(rate=100_000 / unit))
    told, heard, clock = listen(ours), listen(theirs), Clock()
    for _ in range(40):
        ours.send(bytes(10_000))
    assert ours.buffered == 400_000
    await until(lambda: told.drained)
    assert ours.buffered <= ours.low_water
    assert await ours.flush(100 * unit)
    assert clock.passed >= 4 * unit
    assert len(heard.messages) == 40


async def test_silence_tells_nobody_and_loses_nothing(unit: float) -> None:
    network = MemoryNetwork()
    ours, theirs = memory_pair(network)
    heard = listen(theirs)
    network.silent = True
    ours.send(b"anybody?")
    assert not await ours.flush(2 * unit)
    assert heard.messages == [] and theirs.closed is None and ours.buffered == 8
    network.silent = False
    await until(lambda: heard.messages == [b"anybody?"])


async def test_one_end_alone_may_be_mute(unit: float) -> None:
    ours, theirs = memory_pair()
    heard_here, heard_there = listen(ours), listen(theirs)
    ours.mute = True
    ours.send(b"anybody?")
    theirs.send(b"hello")
    await until(lambda: heard_here.messages == [b"hello"])
    assert not await ours.flush(2 * unit)
    assert heard_there.messages == [] and ours.buffered == 8
    ours.mute = False
    await until(lambda: heard_there.messages == [b"anybody?"])
    ours.mute = True
    ours.close()
    await asyncio.sleep(unit)
    assert theirs.closed is None


async def test_who_closes_in_silence_is_not_heard(unit: float) -> None:
    network = MemoryNetwork()
    ours, theirs = memory_pair(network)
    heard = listen(theirs)
    network.silent = True
    ours.close()
    await asyncio.sleep(unit)
    assert theirs.closed is None and heard.closed == []


async def test_no_link_comes_about_in_silence(unit: float) -> None:
    network = MemoryNetwork()
    engine = MemoryEngine(network)
    network.silent = True
    with pytest.raises(TimeoutError):
        await connect(engine, timeout=4 * unit)
    network.silent = False
    ends = await connect(engine)
    await ends.close()


async def test_a_cut_ends_every_link_on_both_sides() -> None:
    network = MemoryNetwork()
    heard = [listen(link) for _ in range(3) for link in memory_pair(network)]
    network.cut()
    await until(lambda: all(each.closed for each in heard))
    assert [each.closed for each in heard] == [[CloseReason.LOST]] * 6
    assert network.links == set()


async def test_what_is_under_way_when_a_link_closes_is_lost(unit: float) -> None:
    ours, theirs = memory_pair(MemoryNetwork(delay=unit))
    heard = listen(theirs)
    ours.send(b"too late")
    ours.close()
    await until(lambda: heard.closed)
    assert heard.messages == []
