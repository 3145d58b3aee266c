"""Whether this side holds a link while nothing uses it, and for how long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from bonevalue.wire.calls import CallTable

__all__ = ["Holding"]


class Holding:
    """
    The hold of this side on one link.

    Args:
        table: of the link; tells the other side.
        idle_timeout: seconds for which a hold lasts after its last use.
        opened_at: when the link was opened, in monotonic seconds.
        dialled: whether this side made the link: then it holds it to begin with.
        on_let_go: called when the link is no longer held.
    """

    def __init__(
        self, table: CallTable, idle_timeout: float, *, opened_at: float, dialled: bool, on_let_go: Callable[[], None]
    ) -> None:
        self._table = table
        self._idle_timeout = idle_timeout
        self._on_let_go = on_let_go
        self._loop = asyncio.get_running_loop()
        #: When a call ended last, in monotonic seconds; ``opened_at`` itself if none has.
        self.used_at = opened_at
        #: Whether a call of ours wanted the link kept; the hold that comes with dialling alone ends with its first use.
        self._kept = False
        self._was_used = False
        self._timer: asyncio.TimerHandle | None = None
        if dialled:
            self._look_in(idle_timeout)

    @property
    def until(self) -> float:
        """Until when this side wants the link kept, in monotonic seconds; 0 if no call of ours asked for that."""
        if not self._kept:
            return 0.0
        return self._idle_timeout + (self.used_at if self._table.idle else time.monotonic())

    def want(self) -> None:
        """A call of ours wants the link kept."""
        if not self._kept:
            self._kept = True
            self._table.hold(True)

    def used(self) -> None:
        """A call of ours has ended."""
        self._was_used = True
        if self._kept and self._timer is None:
            self._look_in(self._idle_timeout)

    def idle(self) -> None:
        """The last call under way has ended."""
        self.used_at = time.monotonic()
        if self._was_used and not self._kept:
            self._table.hold(False)

    def keep(self, until: float) -> None:
        """Hold it as a call of ours would, until that moment (monotonic seconds) if it is not used."""
        self._kept = True
        self._table.hold(True)
        self.used_at = min(time.monotonic(), until - self._idle_timeout)
        if self._timer is None:
            self._look_in(self._idle_timeout / 10)

    def close(self) -> None:
        """The link is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        left = self.used_at + self._idle_timeout - time.monotonic()
        if not self._table.idle or left > 0:
            self._look_in(max(left, self._idle_timeout / 10))
            return
        self._kept = False
        self._table.hold(False)
        self._on_let_go()
