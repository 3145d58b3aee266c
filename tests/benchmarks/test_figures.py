"""Percentiles, medians and goals."""

from __future__ import annotations

import pytest

from benchmarks.figures import GOALS, Goal, median, percentile

FASTER = Goal("S1", "calls", "per_second", "/s", "ratio", "least", 3.0)
SOON = Goal("S6", "first call", "median_ms", "ms", "difference", "most", 15.0)


@pytest.mark.parametrize(
    ("count", "percent", "value"),
    [(1, 0, 0), (1, 99, 0), (2, 50, 1), (100, 50, 50), (100, 99, 99), (1000, 99, 990), (3, 100, 2)],
)
def test_percentile(count: int, percent: float, value: int) -> None:
    assert percentile(range(count), percent) == value


def test_median_of_rounds() -> None:
    assert median([{"a": 5, "b": 0}, {"a": 1, "b": 0}, {"a": 2, "b": 9}], "a") == 2


@pytest.mark.parametrize(
    ("goal", "ours", "theirs", "value", "met"),
    [
        (FASTER, 30.0, 10.0, 3.0, True),
        (FASTER, 29.0, 10.0, 2.9, False),
        (SOON, 50.0, 35.0, 15.0, True),
        (SOON, 51.0, 35.0, 16.0, False),
        (SOON, 30.0, 35.0, -5.0, True),
    ],
)
def test_goals(goal: Goal, ours: float, theirs: float, value: float, met: bool) -> None:
    assert goal.judge(ours, theirs) == (value, met)
    result = goal.result("somebody", [{goal.figure: ours}], [{goal.figure: theirs}])
    assert (result["id"], result["against"], result["value"], result["met"]) == (goal.id, "somebody", value, met)


def test_what_was_not_measured_is_not_met() -> None:
    for ours, theirs in (([], [{"per_second": 1.0}]), ([{"per_second": 1.0}], [])):
        result = FASTER.result("somebody", ours, theirs)
        assert (result["value"], result["met"]) == (None, None)


def test_every_goal_is_there() -> None:
    assert list(GOALS) == [f"S{number}" for number in range(1, 9)]
