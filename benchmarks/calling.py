"""The loop in which every contender's calls are made and timed, the same for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.children import Role
from benchmarks.figures import percentile

__all__ = ["REQUEST", "CallerRole", "Timing", "summary"]

#: What is sent, and comes back.
REQUEST = {"text": "Friday"}

#: Seconds that each took, and from the first to the last.
Timing = tuple[list[float], float]


def summary(timing: Timing) -> dict[str, float]:
    """A round of calls in figures."""
    took, seconds = timing
    took.sort()
    return {
        "calls": len(took),
        "per_second": round(len(took) / seconds, 1),
        "p50_ms": round(percentile(took, 50) * 1000, 4),
        "p99_ms": round(percentile(took, 99) * 1000, 4),
    }


class CallerRole(Role):
    """The process that calls."""

    def one_call(self) -> Awaitable[Any]:
        """Echo :data:`REQUEST` once. Not a coroutine of its own, so that nothing is added to what is measured."""
        raise NotImplementedError

    async def calls(self, at_once: int, seconds: float) -> dict[str, float]:
        """So many calls in flight, for so long; each that ends begins the next."""
        return summary(await self.make_calls(at_once, seconds))

    async def make_calls(self, at_once: int, seconds: float) -> Timing:
        """The same, as it was timed."""
        return await repeat(self.one_call, at_once, seconds)

    async def paced(self, pause: float, seconds: float) -> dict[str, float]:
        """One call after the other for so long, with a pause after each."""
        over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(seconds, over.set_result, None)
        return summary(await self._pace(pause, over))

    async def beside_bulk(self, pause: float, size: int, pieces: int) -> dict[str, float]:
        """The same for as long as a transfer takes; gives its seconds, too."""
        transfer = asyncio.create_task(self.bulk(size, pieces))
        figures = summary(await self._pace(pause, transfer))
        return {**figures, "bulk_seconds": await transfer}

    async def bulk(self, size: int, pieces: int) -> float:
        """Receive so many pieces of so many bytes; gives the seconds that it took."""
        raise NotImplementedError

    async def _pace(self, pause: float, over: asyncio.Future[Any]) -> Timing:
        took: list[float] = []
        clock = time.perf_counter
        begun = clock()
        while not over.done():
            start = clock()
            await self.one_call()
            took.append(clock() - start)
            await asyncio.sleep(pause)
        return took, clock() - begun


async def repeat(call: Callable[[], Awaitable[Any]], at_once: int, seconds: float) -> Timing:
    """Make calls for so long, so many at once."""
    took: list[float] = []
    clock = time.perf_counter
    begun = clock()
    end = begun + seconds

    async def one_after_the_other() -> None:
        while (start := clock()) < end:
            await call()
            took.append(clock() - start)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return took, clock() - begun
