"""The processes of a benchmark: what they are asked, how they fail, and what a profile of one shows."""

from __future__ import annotations

import asyncio
import sys

import pytest

from benchmarks.calling import repeat, summary
from benchmarks.children import Child, ChildFailed, Role, run
from benchmarks.profiles import KINDS, ProfileKind


class Answering(Role):
    """Answers, or does not."""

    async def double(self, number: int) -> int:
        return number * 2

    async def fail(self) -> None:
        raise ValueError("not today")

    async def vanish(self) -> None:
        sys.exit(3)

    async def busy_work(self) -> int:
        return sum(number % 7 for number in range(3_000_000))


async def test_a_process_answers_what_it_is_asked() -> None:
    async with Child.running(__name__, "answering") as child:
        assert await child.ask("double", number=21) == 42
        assert await child.ask("cpu") > 0
        assert await child.ask("memory") > 1_000


async def test_a_failure_says_what_it_was_and_ends_nothing() -> None:
    async with Child.running(__name__, "answering") as child:
        with pytest.raises(ChildFailed, match="answering of test_processes: ValueError: not today"):
            await child.ask("fail")
        assert await child.ask("double", number=1) == 2


async def test_a_process_that_has_ended_is_told() -> None:
    async with Child.running(__name__, "answering") as child:
        with pytest.raises(ChildFailed, match="has ended, exit code 3"):
            await child.ask("vanish")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_profile_names_what_is_busy(kind: ProfileKind) -> None:
    async with Child.running(__name__, "answering") as child:
        await child.ask("begin_profile", kind=kind)
        await child.ask("busy_work")
        assert "busy_work" in await child.ask("end_profile")


async def test_so_many_calls_are_in_flight() -> None:
    most = now = 0

    async def call() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1

    took, seconds = await repeat(call, 8, 0.01)
    assert (most, now) == (8, 0)
    assert summary((took, seconds))["calls"] == len(took) >= 8


if __name__ == "__main__":
    run({"answering": Answering})
