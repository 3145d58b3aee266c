"""
Token buckets, one a key, in bounded memory: the counting behind every rate in :mod:`bonevalue_server.limits`.

A bucket holds ``burst`` and fills with ``count`` in each ``period``; taking from an empty one is refused with the
seconds until it holds enough. Time is an argument (monotonic seconds).
"""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Generic, TypeVar

from bonevalue.settings_fields import Rate

__all__ = ["Bucket", "Buckets", "network_of"]

Key = TypeVar("Key", bound=Hashable)


class Bucket:
    """One token bucket, full at first."""

    __slots__ = ("_at", "_level")

    def __init__(self, rate: Rate, now: float) -> None:
        self._level = float(rate.burst)
        self._at = now

    def wait(self, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Seconds until ``cost`` could be taken: 0.0 for now."""
        self._level = min(rate.burst, self._level + max(0.0, now - self._at) * rate.per_second)
        self._at = now
        # A bucket filled by many small steps of floating point must not miss one by a hair.
        return max(0.0, (cost - self._level - 1e-9) / rate.per_second)

    def take(self, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Take ``cost`` and give 0.0, or take nothing and give the seconds until it is there."""
        wait = self.wait(rate, now, cost)
        if not wait:
            self._level -= cost
        return wait

    def give_back(self, rate: Rate, cost: float = 1.0) -> None:
        """Undo a :meth:`take`."""
        self._level = min(rate.burst, self._level + cost)


class Buckets(Generic[Key]):
    """
    A bucket for each key of one rate.

    Args:
        rate: of every bucket.
        size: how many keys are remembered. One more forgets the key that was longest not asked for, which then starts
            full; as a bucket that was left alone fills by itself, little is lost by that.
    """

    def __init__(self, rate: Rate, *, size: int = 65_536) -> None:
        self.rate = rate
        self._size = size
        self._buckets: dict[Key, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, key: Key, now: float, cost: float = 1.0) -> float:
        """Take from the bucket of ``key``; 0.0 if that went well, else the seconds to wait."""
        bucket = self._buckets.pop(key, None) or Bucket(self.rate, now)
        self._buckets[key] = bucket  # at the end: the order is that of use
        if len(self._buckets) > self._size:
            del self._buckets[next(iter(self._buckets))]
        return bucket.take(self.rate, now, cost)

    def wait(self, key: Key, now: float, cost: float = 1.0) -> float:
        """What :meth:`take` would give, with nothing taken."""
        bucket = self._buckets.get(key)
        return bucket.wait(self.rate, now, cost) if bucket is not None else 0.0

    def give_back(self, key: Key, cost: float = 1.0) -> None:
        """Undo a :meth:`take`."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.give_back(self.rate, cost)

    def forget(self, key: Key) -> None:
        """Let the key start anew."""
        self._buckets.pop(key, None)


def network_of(address: str) -> str:
    """What "per IP" counts: the address itself for IPv4 (also mapped into IPv6), the /64 for IPv6."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
