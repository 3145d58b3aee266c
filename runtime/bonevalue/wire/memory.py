"""How much memory all links of a process may take together for what has come in and is not yet taken."""

from __future__ import annotations

__all__ = ["MemoryBudget", "MemoryShare"]


class MemoryBudget:
    """
    Bytes that links share.

    A link gets more only while it has no more than what is left for all others. So one link may have half of it, two a
    third each, and there is always some for the next (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
    Shared-Memory Packet Switches", 1998).

    Args:
        limit: bytes, all links together.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def share(self) -> MemoryShare:
        """The part of one link, empty at first."""
        return MemoryShare(self)


class MemoryShare:
    """What one link has of a :class:`MemoryBudget`."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._closed = False
        self.taken = 0

    def take(self, size: int) -> bool:
        """Take so many bytes more; False if the link has to do without."""
        budget = self._budget
        if self._closed or self.taken + size > budget.limit - budget.taken - size:
            return False
        self.taken += size
        budget.taken += size
        return True

    def give(self, size: int) -> None:
        """Give bytes back; without effect once everything was."""
        if self._closed:
            return
        self.taken -= size
        self._budget.taken -= size

    def close(self) -> None:
        """Give everything back, for good."""
        self.give(self.taken)
        self._closed = True
