"""How late the event loop is: whether something that runs on it keeps everything else waiting."""

from __future__ import annotations

import asyncio

__all__ = ["LoopLag"]

#: Seconds between two looks.
INTERVAL = 0.5
#: Looks after which the worst of them begins to be forgotten.
WINDOW = 20


class LoopLag:
    """Watches the running event loop from its start to its stop, at the price of two timers a second."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._looks = 0
        self._worst = self._worst_before = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    @property
    def worst(self) -> float:
        """The longest delay in seconds of the last ten to twenty seconds, one that lasts still included."""
        return max(self._worst, self._worst_before, self._loop.time() - self._due)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self._due = self._loop.time() + INTERVAL
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._worst = max(self._worst, self._loop.time() - self._due)
        self._looks += 1
        if self._looks % WINDOW == 0:
            self._worst, self._worst_before = 0.0, self._worst
        self._arm()
