"""Which of the numbered chunks of an SCTP association have come: all up to some point, and runs of them beyond it."""

from __future__ import annotations

from bisect import bisect_right

__all__ = ["Arrivals"]


class Arrivals:
    """
    Takes in numbers, each as its distance from the point up to which none is missing.

    What that costs does not depend on how much is held beyond the point, which a remote peer can make as much as it
    likes by leaving one number out.
    """

    def __init__(self) -> None:
        #: How many numbers beyond the point have come.
        self.held = 0
        self._point = 0
        #: The runs beyond the point: their first and their last numbers, both rising.
        self._first: list[int] = []
        self._last: list[int] = []

    def take(self, ahead: int) -> int | None:
        """
        A number has come.

        Args:
            ahead: its distance from the point; 1 is the next one.

        Returns:
            how far the point has moved by it, None if the number had come before.
        """
        number = self._point + ahead
        if ahead == 1:
            reached = number
            if self._first and self._first[0] == number + 1:
                reached = self._last.pop(0)
                del self._first[0]
                self.held -= reached - number
            moved, self._point = reached - self._point, reached
            return moved
        return 0 if self._hold(number) else None

    def _hold(self, number: int) -> bool:
        first, last = self._first, self._last
        index = bisect_right(first, number)  # of the run after it
        if index and number <= last[index - 1]:
            return False
        joins_before = index > 0 and last[index - 1] == number - 1
        joins_after = index < len(first) and first[index] == number + 1
        if joins_before and joins_after:
            last[index - 1] = last.pop(index)
            del first[index]
        elif joins_before:
            last[index - 1] = number
        elif joins_after:
            first[index] = number
        else:
            first.insert(index, number)
            last.insert(index, number)
        self.held += 1
        return True

    def runs(self, most: int) -> list[tuple[int, int]]:
        """The first runs beyond the point, as distances of their first and last numbers from it."""
        point = self._point
        return [(first - point, last - point) for first, last in zip(self._first[:most], self._last, strict=False)]
