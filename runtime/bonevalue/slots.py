"""
Who runs next: the slots of a module, given to its callers in turn.

Slots go to whoever comes first while there are free ones. After that each caller has a queue of its own, and every slot
that is given back goes to the next caller in the round: one that floods the module makes its own queue longer, and
nobody else's. The queues together are bounded, and it is the longest that has to give way.

The last slots are a reserve for callers that have none: a caller can hold its slots for good, with streams that it does
not read, but never all that there are. So some may stay free while those who have slots wait for more.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["FairSlots"]

_Waiter = TypeVar("_Waiter")


class FairSlots(Generic[_Waiter]):
    """
    A number of slots, and the queues of those who wait for one; waiters are any hashable objects.

    A caller that has none finds one as long as no more others than the reserve is large have any. Every operation takes
    the same time, however many wait; only :meth:`next_waiter` may have to pass over callers that have slots.

    Args:
        size: how many slots there are. An eighth of them is the reserve: at least one of four or more, none of fewer.
        most_waiting: how many may wait at once, all callers together. It may be changed later.
    """

    __slots__ = ("_by_length", "_held", "_longest", "_queues", "free", "most_waiting", "reserve", "waiting")

    def __init__(self, size: int, *, most_waiting: int) -> None:
        #: Slots that nobody has.
        self.free = size
        #: How many of them go only to callers that have none.
        self.reserve = max(size // 8, 1) if size >= 4 else 0
        #: How many wait.
        self.waiting = 0
        self.most_waiting = most_waiting
        #: The waiters of each caller, oldest first; the callers in the order of their turns.
        self._queues: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()
        #: The callers by the length of their queues, to find the longest without looking at all.
        self._by_length: dict[int, OrderedDict[str, None]] = {}
        self._longest = 0
        #: How many slots each caller has, of those that have any.
        self._held: dict[str, int] = {}

    def take(self, caller: str) -> bool:
        """Take a slot for ``caller`` if one is free that it may have."""
        held = self._held.get(caller, 0)
        if self.free <= (self.reserve if held else 0):
            return False
        self.free -= 1
        self._held[caller] = held + 1
        return True

    def give_back(self, caller: str) -> None:
        """Give back a slot that ``caller`` has; what it leaves free is for :meth:`next_waiter`."""
        self.free += 1
        held = self._held[caller] - 1
        if held:
            self._held[caller] = held
        else:
            del self._held[caller]

    def next_waiter(self) -> _Waiter | None:
        """
        Give a free slot to the next in turn that may have it.

        After a slot was given back this is to be asked until nobody is left: one that takes from the reserve, because
        its caller has just become one without, may come behind one that took what was above it.

        Returns:
            the waiter that has a slot now; None if nobody waits that may have one.
        """
        if not self.waiting or not self.free:
            return None
        if self.free > self.reserve:
            caller = next(iter(self._queues))
        else:
            # Passes over no more callers than have slots, before it comes to one that has none.
            without = next((caller for caller in self._queues if caller not in self._held), None)
            if without is None:
                return None
            caller = without
        waiter = next(iter(self._queues[caller]))
        self._queues.move_to_end(caller)
        self.leave(caller, waiter)
        self.free -= 1
        self._held[caller] = self._held.get(caller, 0) + 1
        return waiter

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
