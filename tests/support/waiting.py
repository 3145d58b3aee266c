"""Waiting for something to come true, with a bound, instead of sleeping in hope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["UNIT", "other_tasks", "until"]

#: The one unit of time in tests, in seconds: long enough for a busy machine to notice, short enough to wait for.
UNIT = 0.05


async def until(condition: Callable[[], object], timeout: float = 10.0, *, what: str = "") -> None:
    """
    Come back as soon as `condition()` is true.

    Raises:
        TimeoutError: it was still false after `timeout` seconds.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"still not so after {timeout} s: {what or condition}")
        await asyncio.sleep(UNIT / 50)


def other_tasks() -> set[asyncio.Task[object]]:
    """The tasks of this loop but for the one that asks, which is another in a test than in its fixtures."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
