"""How many lines of the log one peer may cause."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable

from bonevalue.counters import Counters

__all__ = ["LogLimit"]

#: Lines a second that one peer and reason may cause.
LINES_PER_SECOND = 10
#: Keys that are remembered.
MAX_KEYS = 1024


class LogLimit:
    """
    Keeps what one peer does from filling the log.

    :meth:`passes` is asked before a line; after ten in one second for the same key it says no, and the first line of
    a later second is told how many were left out. Only so many keys are remembered; while all of them are of this very
    second, no others pass.

    Args:
        counters: where the lines left out are counted.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        #: By key: the second in which it was last asked for, the lines that passed in it, those left out since one did.
        self._keys: OrderedDict[Hashable, tuple[int, int, int]] = OrderedDict()

    def passes(self, key: Hashable) -> tuple[bool, int]:
        """Whether a line may be written now, and how many for the same key were left out before it."""
        second = int(time.monotonic())
        last, count, left_out = self._keys.pop(key, (second, 0, 0))
        if last != second:
            count = 0
        if len(self._keys) >= MAX_KEYS:
            oldest = next(iter(self._keys))
            if self._keys[oldest][0] == second:
                return self._leave_out(), 0
            del self._keys[oldest]
        if count >= LINES_PER_SECOND:
            self._keys[key] = (second, count, left_out + 1)
            return self._leave_out(), 0
        self._keys[key] = (second, count + 1, 0)
        return True, left_out

    def _leave_out(self) -> bool:
        if self._counters is not None:
            self._counters.log_lines_left_out += 1
        return False
