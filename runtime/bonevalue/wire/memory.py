"""How much memory all links of a process may take together for what has come in and is not yet taken."""

from __future__ import annotations

__all__ = ["MemoryBudget", "MemoryShare"]


class MemoryBudget:
    """
    Bytes that links share.

    An account gets more only while its links have no more than what is left for all others. So one may have half of it,
    two a third each, and there is always some for the next (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
    Shared-Memory Packet Switches", 1998).

    Args:
        limit: bytes, all links together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0
        #: Part of it that was taken as :meth:`take_spare` does.
        self.spare = 0
        #: What the links of each account have, those that have something.
        self._accounts: dict[bytes, int] = {}

    def share(self, account: bytes = b"") -> MemoryShare:
        """The part of one link to that account, empty at first."""
        return MemoryShare(self, account)

    def take(self, account: bytes, size: int) -> bool:
        """Let the links of an account have so many bytes more; False if they must do without."""
        has = self._accounts.get(account, 0)
        if has + size > self.limit - self.taken - size:
            return False
        self._accounts[account] = has + size
        self.taken += size
        return True

    def take_spare(self, size: int) -> bool:
        """Let somebody have bytes of what nobody needs: the half that is left when all else has its part."""
        if self.taken + size > self.limit // 2:
            return False
        self.taken += size
        self.spare += size
        return True

    def give_spare(self, size: int) -> None:
        """Take such bytes back."""
        self.taken -= size
        self.spare -= size

    def give(self, account: bytes, size: int) -> None:
        """Take bytes back from an account."""
        self.taken -= size
        self._accounts[account] -= size
        if not self._accounts[account]:
            del self._accounts[account]


class MemoryShare:
    """What one link has of a :class:`MemoryBudget`."""

    def __init__(self, budget: MemoryBudget, account: bytes) -> None:
        self._budget = budget
        self._account = account
        self._closed = False
        self.taken = 0
        self._spare = 0

    def take(self, size: int) -> bool:
        """Take so many bytes more; False if the link has to do without."""
        if self._closed or not self._budget.take(self._account, size):
            return False
        self.taken += size
        return True

    def give(self, size: int) -> None:
        """Give bytes back; without effect once everything was."""
        if self._closed or not size:
            return
        self.taken -= size
        self._budget.give(self._account, size)

    def take_spare(self, size: int) -> bool:
        """Take bytes that are not needed, and may be kept for long; False if there are none to spare."""
        if self._closed or not self._budget.take_spare(size):
            return False
        self._spare += size
        return True

    def give_spare(self, size: int) -> None:
        """Give such bytes back; without effect once everything was."""
        if not self._closed:
            self._spare -= size
            self._budget.give_spare(size)

    def close(self) -> None:
        """Give everything back, for good."""
        self.give(self.taken)
        self.give_spare(self._spare)
        self._closed = True
