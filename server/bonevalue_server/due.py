"""Things that are due a fixed time after they were put in, of which most are taken out before."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

__all__ = ["Due"]

Item = TypeVar("Item", bound=Hashable)


class Due(Generic[Item]):
    """
    A queue of items with one delay for all, so that the order of putting in is that of being due.

    Args:
        delay: seconds.
    """

    __slots__ = ("_delay", "_items")

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._items: dict[Item, float] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: Item) -> bool:
        return item in self._items

    def put(self, item: Item, now: float) -> None:
        """The item is due one delay from now, whenever it was due before."""
        self._items.pop(item, None)
        self._items[item] = now + self._delay

    def discard(self, item: Item) -> None:
        """The item is no longer due."""
        self._items.pop(item, None)

    def take(self, now: float) -> Iterator[Item]:
        """Take out, one by one, what is due; more may be put in and taken out meanwhile."""
        while self._items:
            item, moment = next(iter(self._items.items()))
            if moment > now:
                return
            del self._items[item]
            yield item
