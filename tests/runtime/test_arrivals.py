"""The book of what has come, against one that keeps every number."""

from __future__ import annotations

import random

import pytest

from bonevalue.arrivals import Arrivals


class Simple:
    """The same with a set."""

    def __init__(self) -> None:
        self.point = 0
        self.beyond: set[int] = set()

    def take(self, ahead: int) -> int | None:
        """See :class:`Arrivals`."""
        number = self.point + ahead
        if number in self.beyond:
            return None
        self.beyond.add(number)
        before = self.point
        while self.point + 1 in self.beyond:
            self.point += 1
            self.beyond.discard(self.point)
        return self.point - before

    def runs(self) -> list[tuple[int, int]]:
        """See :class:`Arrivals`."""
        runs: list[tuple[int, int]] = []
        for distance in sorted(number - self.point for number in self.beyond):
            if runs and runs[-1][1] == distance - 1:
                runs[-1] = (runs[-1][0], distance)
            else:
                runs.append((distance, distance))
        return runs


@pytest.mark.parametrize("spread", [2, 5, 60])
@pytest.mark.parametrize("seed", range(5))
def test_it_agrees_with_a_set(seed: int, spread: int) -> None:
    chance = random.Random(seed)
    arrivals, simple = Arrivals(), Simple()
    for _ in range(2000):
        ahead = chance.randint(1, spread)
        assert arrivals.take(ahead) == simple.take(ahead)
        assert arrivals.held == len(simple.beyond)
        assert arrivals.runs(1000) == simple.runs()
    assert simple.point > 200


def test_only_so_many_runs_are_told() -> None:
    arrivals = Arrivals()
    for ahead in range(3, 103, 2):
        assert arrivals.take(ahead) == 0
    assert arrivals.runs(3) == [(3, 3), (5, 5), (7, 7)] and arrivals.held == 50
