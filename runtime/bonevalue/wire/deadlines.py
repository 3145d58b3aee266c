"""The deadlines of many calls, of which nearly all are withdrawn before they are due."""

from __future__ import annotations

import heapq
from math import ceil
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

_Item = TypeVar("_Item")

#: Deadlines this close together are due together, in seconds.
GRAIN = 0.05


class Deadlines(Generic[_Item]):
    """
    Items by due time, rounded up to a grain of 50 ms.

    Calls share few distinct grains, so that a set a grain makes adding and withdrawing cheap, and nothing of a finished
    call is left behind (a heap of all calls would keep each until its time).
    """

    def __init__(self) -> None:
        self._sets: dict[int, set[_Item]] = {}
        self._due: list[int] = []

    def add(self, deadline: float, item: _Item) -> int:
        """``item`` is due at ``deadline``; gives its grain, to withdraw it with."""
        grain = ceil(deadline / GRAIN)
        items = self._sets.get(grain)
        if items is None:
            self._sets[grain] = {item}
            heapq.heappush(self._due, grain)
        else:
            items.add(item)
        return grain

    def withdraw(self, grain: int, item: _Item) -> None:
        """``item`` is no longer due."""
        items = self._sets.get(grain)
        if items is not None:
            items.discard(item)
            if not items:
                items.clear()  # else it keeps the room of all it ever held, until its time

    def next(self) -> float | None:
        """When the next item is due, None if there is none."""
        while self._due and not self._sets[self._due[0]]:
            del self._sets[heapq.heappop(self._due)]
        return self._due[0] * GRAIN if self._due else None

    def pop(self, now: float) -> list[_Item]:
        """Take out all items that are due."""
        items: list[_Item] = []
        while self._due and self._due[0] * GRAIN <= now:
            items.extend(self._sets.pop(heapq.heappop(self._due)))
        return items
