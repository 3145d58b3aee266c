"""
Who runs next: the slots of a module, given to its callers in turn.

Slots go to whoever comes first while there are free ones. Once all are taken, each caller has a queue of its own, and
every slot that is given back goes to the next caller in the round: one that floods the module makes its own queue
longer, and nobody else's. The queues together are bounded, and it is the longest that has to give way.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["FairSlots"]

_Waiter = TypeVar("_Waiter")


class FairSlots(Generic[_Waiter]):
    """
    A number of slots, and the queues of those who wait for one; waiters are any hashable objects.

    Every operation takes the same time, however many wait.

    Args:
        size: how many slots there are.
        most_waiting: how many may wait at once, all callers together. It may be changed later.
    """

    __slots__ = ("_by_length", "_longest", "_queues", "free", "most_waiting", "waiting")

    def __init__(self, size: int, *, most_waiting: int) -> None:
        #: Slots that nobody has; somebody waits only while there is none.
        self.free = size
        #: How many wait.
        self.waiting = 0
        self.most_waiting = most_waiting
        #: The waiters of each caller, oldest first; the callers in the order of their turns.
        self._queues: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        #: The callers by the length of their queues, to find the longest without looking at all.
        self._by_length: dict[int, OrderedDict[str, None]] = {}
        self._longest = 0

    def take(self) -> bool:
        """Take a slot if one is free."""
        if not self.free:
            return False
        self.free -= 1
        return True

    def wait(self, caller: str, waiter: _Waiter) -> _Waiter | None:
        """
        Join the queue of ``caller``.

        Returns:
            who must go because too many wait, and is no longer in a queue: the newest of the longest queue, or
            ``waiter`` itself if its own would be the longest; None if there was room.
        """
        evicted: _Waiter | None = None
        queue = self._queues.get(caller)
        if self.waiting >= self.most_waiting:
            if (len(queue) if queue else 0) >= self._longest:
                return waiter
            fullest = next(iter(self._by_length[self._longest]))
            evicted = next(reversed(self._queues[fullest]))
            self.leave(fullest, evicted)
        if queue is None:
            queue = self._queues[caller] = OrderedDict()
        queue[waiter] = None
        self._resized(caller, len(queue) - 1, len(queue))
        self.waiting += 1
        return evicted

    def leave(self, caller: str, waiter: _Waiter) -> None:
        """Wait no longer; does nothing for one that does not wait."""
        queue = self._queues.get(caller)
        if queue is None or waiter not in queue:
            return
        del queue[waiter]
        if not queue:
            del self._queues[caller]
        self._resized(caller, len(queue) + 1, len(queue))
        self.waiting -= 1

    def give_back(self) -> _Waiter | None:
        """
        Give back a slot.

        Returns:
            the waiter that has it now; None if nobody waits, and it is free.
        """
        if not self.waiting:
            self.free += 1
            return None
        caller, queue = next(iter(self._queues.items()))
        waiter = next(iter(queue))
        self._queues.move_to_end(caller)
        self.leave(caller, waiter)
        return waiter

    def _resized(self, caller: str, before: int, after: int) -> None:
        """Keep count of who has the longest queue; lengths change by one at a time."""
        if before:
            same = self._by_length[before]
            del same[caller]
            if not same:
                del self._by_length[before]
        if after:
            self._by_length.setdefault(after, OrderedDict())[caller] = None
        if after > self._longest or (before == self._longest and before not in self._by_length):
            self._longest = after
