"""What a peer counts, and that remote peers cannot make up names there."""

from __future__ import annotations

from bonevalue.counters import LIMITS, OTHER, Counters, Tally
from bonevalue.errors import ERRORS


def test_a_reason_that_is_not_of_the_set_counts_as_other() -> None:
    tally = Tally("busy", "denied")
    for reason in ("busy", "made up", "made up as well", "busy"):
        tally[reason] += 1
    assert tally == {"busy": 2, "denied": 0, OTHER: 2}


def test_every_error_has_its_count_and_every_limit() -> None:
    counters = Counters()
    assert set(counters.refused) == set(counters.offers_refused) == {*ERRORS, OTHER}
    assert set(counters.limited) == {*LIMITS, OTHER}


def test_a_snapshot_leaves_out_what_never_came_up() -> None:
    counters = Counters()
    counters.calls_made += 3
    counters.links_closed["drained"] += 1
    shown = counters.snapshot()
    counters.links_closed["drained"] += 1
    assert (shown["calls_made"], shown["calls_served"]) == (3, 0)
    assert (shown["links_closed"], shown["refused"]) == ({"drained": 1}, {})
