"""The arithmetic of benchmarks: percentiles, medians of rounds, and goals that are met or missed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["GOALS", "Goal", "Round", "median", "percentile"]

#: What was measured in one round, by name.
Round = Mapping[str, float]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value that so many of a hundred do not exceed; ``ordered`` rises and is not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(rounds: Sequence[Round], figure: str) -> float:
    """The middle of the rounds."""
    return statistics.median(each[figure] for each in rounds)


@dataclass(frozen=True, slots=True)
class Goal:
    """
    What is asked of a figure of ours beside that of somebody else, or of ours under another condition.

    Args:
        id: one of S1 to S8.
        what: is measured, in words.
        figure: its name in the rounds.
        unit: of the figure.
        compare: ``ratio`` is ours divided by theirs, ``difference`` is ours less theirs.
        bound: whether ``limit`` is the least or the most that it may be.
    """

    id: str
    what: str
    figure: str
    unit: str
    compare: Literal["ratio", "difference"]
    bound: Literal["least", "most"]
    limit: float

    def judge(self, ours: float, theirs: float) -> tuple[float, bool]:
        """How the two compare, and whether the goal is met."""
        value = ours / theirs if self.compare == "ratio" else ours - theirs
        return value, value >= self.limit if self.bound == "least" else value <= self.limit

    def result(self, against: str, ours: Sequence[Round], theirs: Sequence[Round]) -> dict[str, Any]:
        """A line of the results; without any rounds of either, ``met`` is None."""
        line = {"line": "result", **asdict(self), "against": against}
        if not ours or not theirs:
            return {**line, "ours": None, "theirs": None, "value": None, "met": None}
        one, other = median(ours, self.figure), median(theirs, self.figure)
        value, met = self.judge(one, other)
        return {**line, "ours": round(one, 4), "theirs": round(other, 4), "value": round(value, 4), "met": met}


GOALS = {
    goal.id: goal
    for goal in (
        Goal("S1", "calls a second, 64 in flight", "per_second", "/s", "ratio", "least", 3.0),
        Goal("S2", "calls a second, 64 in flight", "per_second", "/s", "ratio", "least", 1.0),
        Goal("S3", "one call at a time, median", "p50_ms", "ms", "ratio", "most", 1.25),
        Goal("S4", "64 MiB as a stream", "mb_per_second", "MB/s", "ratio", "least", 0.9),
        Goal("S5", "small calls beside bulk on the same link, p99", "p99_ms", "ms", "difference", "most", 15.0),
        Goal("S6", "first call to a cold peer, median", "median_ms", "ms", "difference", "most", 15.0),
        Goal("S7", "memory of an idle link", "kib_per_link", "KiB", "difference", "most", 40.0),
        Goal("S8", "one fan-out to 50 peers, median", "median_ms", "ms", "ratio", "most", 1.2),
    )
}
"""The goals of `make bench`, by id."""
