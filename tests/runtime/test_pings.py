"""Round trips of one link: measured, late, and given up."""

from __future__ import annotations

import asyncio
import time
from typing import cast

import pytest

from bonevalue.errors import Deadline, LinkLost
from bonevalue.pings import Pings
from bonevalue.wire.calls import CallTable
from tests.support.waiting import UNIT


class Table:
    """Gives pings their numbers."""

    def __init__(self) -> None:
        self.number = 0

    def ping(self, now: float) -> int:
        self.number += 1
        return self.number


@pytest.fixture
def pings() -> Pings:
    return Pings(cast(CallTable, Table()), lambda: None)


async def test_each_pong_ends_its_own_ping(pings: Pings) -> None:
    first, second = (asyncio.create_task(pings.measure(10)) for _ in range(2))
    await asyncio.sleep(0)
    pings.answered(2, 0.2)
    assert await second == 0.2 and not first.done()
    pings.answered(7, 0.7)  # nobody sent that
    pings.answered(1, 0.1)
    assert await first == 0.1


async def test_a_pong_that_is_late_finds_nobody(pings: Pings) -> None:
    with pytest.raises(Deadline, match=r"0\.01 s"):
        await pings.measure(0.01)
    pings.answered(1, 0.1)


async def test_a_pong_counts_that_came_while_this_process_stood_still(pings: Pings) -> None:
    loop = asyncio.get_running_loop()

    def stand_still() -> None:
        loop.call_soon(pings.answered, 1, 0.1)
        time.sleep(2 * UNIT)

    loop.call_soon(stand_still)
    assert await pings.measure(UNIT) == 0.1


async def test_the_end_of_the_link_is_the_end_of_the_wait(pings: Pings) -> None:
    waiting = asyncio.create_task(pings.measure(10))
    await asyncio.sleep(0)
    pings.fail(LinkLost("gone"))
    with pytest.raises(LinkLost, match="gone"):
        await waiting


async def test_a_doubt_ends_with_the_answer_to_a_later_ping(pings: Pings) -> None:
    waiting = asyncio.create_task(pings.measure(10))
    await asyncio.sleep(0)
    pings.doubt()
    pings.answered(1, 0.1)
    assert await waiting == 0.1 and pings.doubted, "it was sent before"
    pings.answered(2, 0.1)
    assert not pings.doubted
