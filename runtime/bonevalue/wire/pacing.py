"""
How often: when to come back to a server, and token buckets, for what we send as for what we take from others.

A bucket holds ``burst`` and fills with ``per_second``; taking from an empty one is refused with the seconds until it
holds enough. Time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["FIRST_RETRY", "LONGEST_RETRY", "MAX_HINT", "Backoff", "Bucket", "Buckets", "Pace", "Rate", "Retry"]

#: The first retry comes at a random moment within this many seconds.
FIRST_RETRY = 2.0
#: No delay between attempts to reach a server is longer than this, the random part included.
LONGEST_RETRY = 60.0
#: Longest wait in seconds that a server may ask for.
MAX_HINT = 3600.0

#: Retries without waiting: so many a second in the long run, and so many at once. A cable with a loose contact must not
#: become a flood of logins.
HURRIES = 0.2, 4

_FACTOR = 1.6
_SPREAD = 0.5
#: So that a bucket that filled in many small steps, or is asked at the moment that it named, is not short by a hair.
_ROUNDING = 1e-6

Key = TypeVar("Key", bound=Hashable)


class Backoff:
    """
    Delays between attempts: random within the first, then 1.6 times longer each, give or take a half.

    Args:
        jitter: gives a random number from 0 up to 1; without it, all the clients of a restarted server would come
            back in the same instant.
        first: longest first delay in seconds.
        longest: no delay of ours is longer, the random part included.
    """

    def __init__(
        self, jitter: Callable[[], float], *, first: float = FIRST_RETRY, longest: float = LONGEST_RETRY
    ) -> None:
        self._jitter = jitter
        self._first = first
        self._longest = longest
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
            self._base = self._first
            delay = self._first * chance
        else:
            self._base = min(self._base * _FACTOR, self._longest / (1 + _SPREAD))
            delay = self._base * (1 - _SPREAD + 2 * _SPREAD * chance)
        if hint is None:
            return delay
        return max(delay, min(max(hint, 0.0), MAX_HINT) + self._first * chance)


class Rate(Protocol):
    """So many a second in the long run, and so many at once after a quiet time."""

    @property
    def per_second(self) -> float:
        """How fast a bucket fills."""
        ...

    @property
    def burst(self) -> float:
        """What a bucket holds."""
        ...


class Pace(NamedTuple):
    """A :class:`Rate` that is just these two numbers."""

    per_second: float
    burst: float


class Bucket:
    """One token bucket, full at first."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate, now: float = 0.0) -> None:
        self._rate = rate
        self._level = float(rate.burst)
        self._at = now

    def is_full(self, now: float) -> bool:
        """Whether it holds all it can: it is then like a new one."""
        return self._level + (now - self._at) * self._rate.per_second >= self._rate.burst

    def wait(self, now: float, cost: float = 1.0) -> float:
        """Seconds until ``cost`` could be taken: 0.0 for now."""
        rate = self._rate
        self._level = min(rate.burst, self._level + max(0.0, now - self._at) * rate.per_second)
        self._at = now
        missing = cost - self._level
        return missing / rate.per_second if missing > _ROUNDING else 0.0

    def take(self, now: float, cost: float = 1.0) -> float:
        """Take ``cost`` and give 0.0, or take nothing and give the seconds until it is there."""
        wait = self.wait(now, cost)
        if not wait:
            self._level -= cost
        return wait

    def give_back(self, cost: float = 1.0) -> None:
        """Undo a :meth:`take`."""
        self._level = min(self._rate.burst, self._level + cost)

    def moment(self) -> float:
        """When one may be taken, as of the last look."""
        return self._at + self.wait(self._at)


class Retry:
    """
    When the next attempt to reach a server is due.

    Args:
        jitter: as of :class:`Backoff`.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self.at = 0.0
        """When it is due."""
        self._backoff = Backoff(jitter)
        self._hurries = Bucket(Pace(*HURRIES))
        self._not_before = 0.0

    def reset(self) -> None:
        """The server was there: the next delay is a first one again."""
        self._backoff.reset()

    def after(self, now: float, hint: float | None = None, *, hurry: bool = False) -> float:
        """
        An attempt, or what came of it, is over.

        Args:
            now: the time.
            hint: seconds that the server asked for.
            hurry: whether to :meth:`hurry`, if we may.

        Returns:
            The seconds until the next.
        """
        delay = self._backoff.next(hint)
        self.at = now + delay
        self._not_before = now if hint is None else self.at
        return 0.0 if hurry and self.hurry(now) else delay

    def hurry(self, now: float) -> bool:
        """
        What was in the way may be gone: try at once, whether or not it helps, and begin with short delays again.

        Returns:
            Whether it is so: not if the server asked for patience, or after too much hurry of late.
        """
        if now < self._not_before or self._hurries.take(now):
            return False
        self._backoff.reset()
        self.at = now
        return True


class Buckets(Generic[Key]):
    """
    A bucket for each key of one rate. A key that was left alone until its bucket is full again is forgotten: there is
    nothing left to know of it.

    Args:
        rate: of every bucket.
        size: how many keys are remembered. One more forgets the key that was longest not asked for, which then starts
            full; as a bucket that was left alone fills by itself, little is lost by that.
    """

    def __init__(self, rate: Rate, *, size: int = 65_536) -> None:
        self.rate = rate
        self._size = size
        #: In the order of use.
        self._buckets: OrderedDict[Key, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Key, now: float, cost: float = 1.0) -> float:
        """Take from the bucket of ``key``; 0.0 if that went well, else the seconds to wait."""
        bucket = self._buckets.get(key)
        if bucket is None:
            self._make_room(now)
            bucket = self._buckets[key] = Bucket(self.rate, now)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(now, cost)

    def wait(self, key: Key, now: float, cost: float = 1.0) -> float:
        """What :meth:`take` would give, with nothing taken."""
        bucket = self._buckets.get(key)
        return bucket.wait(now, cost) if bucket is not None else 0.0

    def give_back(self, key: Key, cost: float = 1.0) -> None:
        """Undo a :meth:`take`."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.give_back(cost)

    def forget(self, key: Key) -> None:
        """Let the key start anew."""
        self._buckets.pop(key, None)

    def _make_room(self, now: float) -> None:
        while self._buckets:
            if len(self._buckets) < self._size and not next(iter(self._buckets.values())).is_full(now):
                return
            self._buckets.popitem(last=False)
