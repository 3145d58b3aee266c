"""When to come back to a server, and how fast to talk to it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["FIRST_RETRY", "LONGEST_RETRY", "MAX_HINT", "Backoff", "Pace"]

#: The first retry comes at a random moment within this many seconds.
FIRST_RETRY = 2.0
#: No delay of ours is longer than this, the random part included.
LONGEST_RETRY = 60.0
#: Longest wait in seconds that a server may ask for.
MAX_HINT = 3600.0

_FACTOR = 1.6
_SPREAD = 0.5
#: So that a bucket asked at the moment that it named is never short of a message by a rounding error.
_ROUNDING = 1e-6


class Backoff:
    """
    Delays between attempts: random within two seconds, then 1.6 times longer each, give or take a half.

    Args:
        jitter: gives a random number from 0 up to 1; without it, all the clients of a restarted server would come
            back in the same instant.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._base: float | None = None

    def reset(self) -> None:
        """An attempt succeeded: the next delay is a first one again."""
        self._base = None

    def next(self, hint: float | None = None) -> float:
        """
        The seconds to wait before the next attempt.

        Args:
            hint: what the server asked for. We never come earlier, and spread out after it.
        """
        chance = self._jitter()
        if self._base is None:
            self._base = FIRST_RETRY
            delay = FIRST_RETRY * chance
        else:
            self._base = min(self._base * _FACTOR, LONGEST_RETRY / (1 + _SPREAD))
            delay = self._base * (1 - _SPREAD + 2 * _SPREAD * chance)
        if hint is None:
            return delay
        return max(delay, min(max(hint, 0.0), MAX_HINT) + FIRST_RETRY * chance)


class Pace:
    """
    A token bucket: `burst` messages at once, `rate` a second in the long run.

    It keeps us under the limit at which a server first refuses a client's messages and then closes its socket.
    """

    def __init__(self, *, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Whether one more message may go now; if so, it is counted."""
        if self._at is not None:
            self._level = min(self._level + (now - self._at) * self._rate, float(self._burst))
        self._at = now
        if self._level < 1 - _ROUNDING:
            return False
        self._level -= 1
        return True

    def moment(self) -> float:
        """When the next message may go, as of the last :meth:`take`."""
        return 0.0 if self._at is None else self._at + max(0.0, 1 - self._level) / self._rate
