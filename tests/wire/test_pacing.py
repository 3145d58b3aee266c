"""Delays between attempts, and token buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.wire.pacing import FIRST_RETRY, HURRIES, LONGEST_RETRY, MAX_HINT, Backoff, Bucket, Buckets, Pace, Retry

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


def test_a_retry_that_hurries_is_due_at_once_and_begins_anew() -> None:
    retry = Retry(lambda: 0.5)
    assert [round(retry.after(100.0), 2) for _ in range(4)] == [1.0, 3.2, 5.12, 8.19]
    assert retry.at == pytest.approx(108.192)
    assert retry.hurry(101.0) and retry.at == 101.0
    assert retry.after(101.0) == 1.0 and retry.at == 102.0
    assert retry.after(102.0, hurry=True) == 0.0 and retry.at == 102.0


def test_hurry_has_a_measure() -> None:
    retry, (per_second, burst) = Retry(lambda: 0.5), HURRIES
    assert [retry.after(100.0, hurry=True) for _ in range(burst + 1)] == [0.0] * burst + [1.0]
    assert not retry.hurry(100.0) and retry.at == 101.0
    assert retry.hurry(100.0 + 1 / per_second)


def test_who_is_asked_for_patience_does_not_hurry() -> None:
    retry = Retry(lambda: 0.5)
    assert retry.after(100.0, 60.0, hurry=True) == 61.0
    assert not retry.hurry(160.9) and retry.at == 161.0
    assert retry.hurry(161.0)
    retry.after(161.0)
    assert retry.hurry(161.1)  # what was asked for is over


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(Pace(1 / 6, 3), 0.0)
    assert [bucket.take(0.0) for _ in range(4)] == [0, 0, 0, pytest.approx(6)]
    assert bucket.take(5.9) == pytest.approx(0.1)
    assert bucket.take(6.0) == 0
    assert bucket.take(6.0) == pytest.approx(6)
    assert [bucket.take(1e9) for _ in range(4)] == [0, 0, 0, pytest.approx(6)]


def test_a_bucket_names_the_moment_at_which_it_can_be_asked_again() -> None:
    bucket = Bucket(Pace(10, 5))
    assert bucket.moment() == 0.0
    assert [not bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert math.isclose(bucket.moment(), 100.1)
    taken, now = 0, 100.0
    while now < 110.0:
        now = bucket.moment()
        assert bucket.take(now) == 0
        taken += 1
    assert 99 <= taken <= 101


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 3)), max_size=60))
def test_no_schedule_gets_more_than_burst_and_rate_allow(steps: list[tuple[float, float]]) -> None:
    rate = Pace(0.5, 4)
    bucket, now, taken = Bucket(rate), 0.0, 0.0
    for pause, cost in steps:
        now += pause
        if not bucket.take(now, cost):
            taken += cost
        assert taken <= rate.burst + now * rate.per_second + 1e-5


def test_time_that_runs_backwards_fills_nothing() -> None:
    bucket = Bucket(Pace(1, 1), 100.0)
    assert bucket.take(100.0) == 0
    assert bucket.take(50.0) > 0


def test_a_refused_take_takes_nothing_and_a_take_can_be_given_back() -> None:
    buckets: Buckets[str] = Buckets(Pace(0.1, 1))
    assert buckets.take("a", 0.0) == 0
    assert buckets.wait("a", 1.0) == buckets.take("a", 1.0) == pytest.approx(9)
    assert buckets.take("b", 1.0) == buckets.wait("c", 1.0) == 0
    buckets.give_back("a")
    assert buckets.take("a", 1.0) == 0
    buckets.forget("a")
    assert buckets.take("a", 1.0) == 0
    for _ in range(3):
        buckets.give_back("a")  # never more than the burst
    assert [buckets.take("a", 1.0) for _ in range(2)] == [0, pytest.approx(10)]


def test_memory_is_bounded_and_the_idlest_is_forgotten() -> None:
    buckets: Buckets[int] = Buckets(Pace(1e-6, 1), size=3)
    for key in (1, 2, 3, 1, 4):
        buckets.take(key, 0.0)
    assert len(buckets) == 3
    assert buckets.wait(2, 0.0) == 0
    assert all(buckets.wait(key, 0.0) for key in (1, 3, 4))


def test_keys_that_went_away_are_forgotten_when_others_come() -> None:
    buckets: Buckets[int] = Buckets(Pace(2, 4))
    for key in range(100):
        buckets.take(key, 0.0)
    buckets.take(100, 0.4)
    assert len(buckets) == 101
    buckets.take(101, 0.5)  # what was taken at 0 has come back
    assert len(buckets) == 2
    assert [buckets.take(100, 0.5) for _ in range(4)] == [0, 0, 0, pytest.approx(0.4)]
