"""How much of what is long may be in flight at once."""

from __future__ import annotations

from collections import deque
from math import inf

from bonevalue.wire import frames

__all__ = ["FIRST_WINDOW", "MAX_WINDOW", "MIN_WINDOW", "BulkWindow"]

#: Bytes between which the window lies. A small call waits for what is in flight: with the least that is some
#: milliseconds, and still more than a fast path holds. It begins in between, until the path has been measured.
MIN_WINDOW = 40_960
FIRST_WINDOW = 131_072
MAX_WINDOW = 1_048_576
#: Twice what the path holds, so that a path that could carry more shows it.
GAIN = 2.0
#: Rates are kept for so many samples; the best of them is what the path can carry.
SAMPLES = 8


class BulkWindow:
    """
    Sizes the window to what the path holds: its best rate times its round trip while it is empty.

    That is the idea of BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016) without its probing,
    which the congestion control of SCTP below does. What is in flight beyond that waits in some buffer, in front of the
    small calls.

    Feed it with the total of bytes sent and acknowledged each time either changes.
    """

    def __init__(self) -> None:
        #: Bytes that may be in flight.
        self.size = FIRST_WINDOW
        self._round_trip = inf
        self._rates: deque[float] = deque(maxlen=SAMPLES)
        #: Total sent, total acknowledged and time at the start of the sample under way.
        self._sample: tuple[int, int, float] | None = None

    @property
    def refill(self) -> int:
        """
        Bytes in flight at which the window is filled up again.

        Soon, so that nearly a whole one goes each round trip; but not before there is room for a whole message.
        """
        return min(self.size * 3 // 4, self.size - frames.MAX_SENT_MESSAGE)

    def measured(self, round_trip: float) -> None:
        """A ping was answered; ``round_trip`` in seconds. The shortest is that of the empty path."""
        self._round_trip = min(self._round_trip, max(round_trip, 1e-6))

    def idle(self) -> None:
        """Nothing is in flight: what comes next begins a new sample, and the path may have become another."""
        self._sample = None

    def progress(self, sent: int, acknowledged: int, now: float) -> None:
        """
        Something was sent or acknowledged.

        Args:
            sent: bytes sent since the link was opened.
            acknowledged: those of them that have arrived.
            now: seconds of a monotonic clock.
        """
        if self._sample is None:
            self._sample = (sent, acknowledged, now)
            return
        target, start, began = self._sample
        if acknowledged < target or now <= began:
            return
        self._rates.append((acknowledged - start) / (now - began))
        self._sample = (sent, acknowledged, now)
        if self._round_trip < inf:
            holds = max(self._rates) * self._round_trip
            self.size = round(min(max(GAIN * holds, MIN_WINDOW), MAX_WINDOW))
