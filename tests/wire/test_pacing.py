"""Delays between attempts, and the token bucket."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from bonevalue.wire.pacing import FIRST_RETRY, LONGEST_RETRY, MAX_HINT, Backoff, Pace

chances = st.floats(0, 1, exclude_max=True)


@given(st.lists(chances, min_size=1, max_size=60))
def test_delays_grow_within_their_bounds(given_chances: list[float]) -> None:
    chance = iter(given_chances)
    backoff = Backoff(lambda: next(chance))
    delays = [backoff.next() for _ in given_chances]
    assert 0 <= delays[0] <= FIRST_RETRY
    for number, delay in enumerate(delays[1:], 1):
        base = min(FIRST_RETRY * 1.6**number, LONGEST_RETRY / 1.5)
        assert base * 0.5 <= delay * (1 + 1e-9) and delay <= base * 1.5 * (1 + 1e-9)
        assert delay <= LONGEST_RETRY * (1 + 1e-9)


def test_the_same_chance_gives_steps_of_sixty_percent() -> None:
    backoff = Backoff(lambda: 0.5)
    assert [round(backoff.next(), 2) for _ in range(9)] == [1.0, 3.2, 5.12, 8.19, 13.11, 20.97, 33.55, 40.0, 40.0]
    backoff.reset()
    assert backoff.next() == 1.0


@given(chances, st.floats(allow_nan=False))
def test_a_hint_is_honoured_and_bounded(chance: float, hint: float) -> None:
    backoff = Backoff(lambda: chance)
    delay = backoff.next(hint)
    bounded = min(max(hint, 0.0), MAX_HINT)
    assert bounded <= delay <= bounded + FIRST_RETRY
    for _ in range(20):
        backoff.next()
    assert backoff.next(hint) >= bounded


def test_a_burst_then_the_rate() -> None:
    pace = Pace(rate=10, burst=5)
    assert pace.moment() == 0.0
    assert [pace.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert math.isclose(pace.moment(), 100.1)
    taken, now = 0, 100.0
    while now < 110.0:
        now = pace.moment()
        assert pace.take(now)
        taken += 1
    assert 99 <= taken <= 101


@given(st.lists(st.floats(0, 10), max_size=200))
def test_never_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    pace, now, taken = Pace(rate=3, burst=7), 0.0, 0
    for pause in pauses:
        now += pause
        taken += pace.take(now)
    assert taken <= 7 + 3 * now + 1e-3
