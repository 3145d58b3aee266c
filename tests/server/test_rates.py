"""Token buckets, and what counts as one address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.settings_fields import Rate
from bonevalue_server.rates import Bucket, Buckets, network_of


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate() -> None:
    rate = Rate(10, 60, 3)
    bucket = Bucket(rate, 0.0)
    assert [bucket.take(rate, 0.0) for _ in range(4)] == [0, 0, 0, pytest.approx(6)]
    assert bucket.take(rate, 5.9) == pytest.approx(0.1)
    assert bucket.take(rate, 6.0) == 0
    assert bucket.take(rate, 6.0) == pytest.approx(6)
    assert [bucket.take(rate, 1e9) for _ in range(4)] == [0, 0, 0, pytest.approx(6)]


def test_a_refused_take_takes_nothing_and_a_take_can_be_given_back() -> None:
    buckets: Buckets[str] = Buckets(Rate(1, 10))
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
    buckets: Buckets[int] = Buckets(Rate(1, 10**6), size=3)
    for key in (1, 2, 3, 1, 4):
        buckets.take(key, 0.0)
    assert len(buckets) == 3
    assert buckets.wait(2, 0.0) == 0
    assert all(buckets.wait(key, 0.0) for key in (1, 3, 4))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 3)), max_size=60))
def test_no_schedule_gets_more_than_burst_and_rate_allow(steps: list[tuple[float, float]]) -> None:
    rate = Rate(5, 10, 4)
    bucket, now, taken = Bucket(rate, 0.0), 0.0, 0.0
    for pause, cost in steps:
        now += pause
        if not bucket.take(rate, now, cost):
            taken += cost
        assert taken <= rate.burst + now * rate.per_second + 1e-6


def test_time_that_runs_backwards_fills_nothing() -> None:
    rate = Rate(1, 1)
    bucket = Bucket(rate, 100.0)
    assert bucket.take(rate, 100.0) == 0
    assert bucket.take(rate, 50.0) > 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix socket", "unix socket"),
    ],
)
def test_an_address_counts_by_itself_or_by_its_64(address: str, network: str) -> None:
    assert network_of(address) == network
