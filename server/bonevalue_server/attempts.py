"""
Counting wrong passwords: for an account from one address, for an account, for an address.

Names are counted alike whether there is such an account or not. The counts of accounts and addresses are taken when an
attempt begins and given back when it turns out well, so that many attempts at once pass no limit that they would not
pass one after the other; attempts on one account from one address come one after the other anyway (the caller sees to
it). Time is an argument (monotonic seconds); memory is bounded, and lost with the process.
"""

from __future__ import annotations

from dataclasses import dataclass

from bonevalue.wire.pacing import Buckets
from bonevalue_server.limits import Limits

__all__ = ["Attempts"]


@dataclass(slots=True)
class _Lock:
    """What the failures on one account from one address led to."""

    failures: int = 0
    #: Until when nothing gets in (the moment of the latest failure, before it comes to that), and how long that is.
    until: float = 0.0
    length: float = 0.0


class Attempts:
    """
    The failed password logins of this node.

    Args:
        limits: how many may fail.
        size: how many names, addresses, and pairs of both are remembered; the oldest is forgotten first.
    """

    def __init__(self, limits: Limits, *, size: int = 65_536) -> None:
        self._limits = limits
        self._size = size
        self._locks: dict[tuple[str, str], _Lock] = {}
        self._by_account: Buckets[str] = Buckets(limits.failed_logins_per_account, size=size)
        self._by_address: Buckets[str] = Buckets(limits.failed_logins_per_ip, size=size)

    def too_many(self, address: str, now: float) -> float:
        """Count an attempt for the address; 0.0, or the seconds until it may try again."""
        return self._by_address.take(address, now)

    def locked(self, username: str, address: str, now: float) -> bool:
        """Whether the attempt fails whatever the password; if not, it is counted for the account."""
        lock = self._locks.get((username, address))
        if lock is not None and now < lock.until:
            return True
        return self._by_account.take(username, now) > 0.0

    def failed(self, username: str, address: str, now: float) -> None:
        """An attempt that was not locked was wrong: at the limit this locks, each time for twice as long."""
        lock = self._locks.pop((username, address), None)
        # Quiet for as long as the longest lock: forgotten.
        if lock is None or now > lock.until + self._limits.lock_time_max:
            lock = _Lock()
        self._locks[username, address] = lock  # at the end: the order is that of the latest failure
        if len(self._locks) > self._size:
            del self._locks[next(iter(self._locks))]
        lock.failures += 1
        if lock.failures >= self._limits.failed_logins:
            lock.length = min(max(2 * lock.length, self._limits.lock_time), self._limits.lock_time_max)
        lock.until = now + lock.length

    def succeeded(self, username: str, address: str) -> None:
        """An attempt that was not locked was right: it does not count, and forgives the failures before it."""
        self._locks.pop((username, address), None)
        self.undone(username, address, locked=False)

    def undone(self, username: str, address: str, *, locked: bool) -> None:
        """An attempt came to no answer (the server was too busy): it does not count."""
        self._by_address.give_back(address)
        if not locked:
            self._by_account.give_back(username)
