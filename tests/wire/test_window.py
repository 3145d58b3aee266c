"""The window of long bodies and streams, on simulated paths with a clock of their own."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.wire.window import FIRST_WINDOW, GAIN, MAX_WINDOW, MIN_WINDOW, BulkWindow

MESSAGE = 16_384


class Path:
    """
    A path with a bottleneck, filled by somebody who always has something to send.

    As in a link, the window is filled up whenever no more than `refill` is in flight.

    Args:
        rate: bytes a second.
        round_trip: seconds there and back while nothing waits at the bottleneck.
    """

    def __init__(self, rate: float, round_trip: float, *, measured: bool = True) -> None:
        self.window = BulkWindow()
        if measured:
            self.window.measured(round_trip)
        self.rate = rate
        self.round_trip = round_trip
        self.now = 0.0
        self.sent = self.acknowledged = 0
        #: When the bottleneck is free again, and what is under way: when it is acknowledged, and its length.
        self._free = 0.0
        self._flying: deque[tuple[float, int]] = deque()

    @property
    def buffered(self) -> int:
        """Bytes in flight."""
        return self.sent - self.acknowledged

    def run(self, seconds: float) -> float:
        """Send for so long; gives the rate at which it was acknowledged, in bytes a second."""
        end, start = self.now + seconds, self.acknowledged
        while self.now < end:
            if self.buffered <= self.window.refill:
                while self.buffered < self.window.size:
                    self._free = max(self._free, self.now) + MESSAGE / self.rate
                    self._flying.append((self._free + self.round_trip, MESSAGE))
                    self.sent += MESSAGE
                self.window.progress(self.sent, self.acknowledged, self.now)
            self._acknowledge()
        return (self.acknowledged - start) / seconds

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        while self._flying:
            self._acknowledge()
        self.window.idle()
        self.now += seconds

    def _acknowledge(self) -> None:
        self.now, length = self._flying.popleft()
        self.acknowledged += length


@pytest.mark.parametrize(("rate", "round_trip"), [(5e6, 0.002), (5e5, 0.02), (50e6, 0.001), (100e6, 0.0005)])
def test_a_short_path_gets_no_more_than_it_needs(rate: float, round_trip: float) -> None:
    path = Path(rate, round_trip)
    for _ in range(20):
        path.run(0.5)
        assert path.window.size == pytest.approx(max(MIN_WINDOW, GAIN * rate * round_trip), rel=0.02)
    assert path.run(5) > 0.95 * rate


def test_a_long_path_gets_what_it_holds_within_some_round_trips() -> None:
    path = Path(4e6, 0.1)
    path.run(1.0)
    assert path.window.size >= 4e6 * 0.1
    assert path.run(5) > 0.95 * 4e6
    assert path.window.size == pytest.approx(GAIN * 4e6 * 0.1, rel=0.1)


def test_the_window_grows_no_further_than_the_most() -> None:
    path = Path(100e6, 0.2)
    path.run(10)
    assert path.window.size == MAX_WINDOW


@pytest.mark.parametrize(("rate", "round_trip"), [(4e6, 0.1), (2e6, 0.1), (1e6, 0.3), (3e5, 0.05)])
def test_its_own_queue_does_not_make_it_grow(rate: float, round_trip: float) -> None:
    """What it has put in flight too much only waits, and that is not taken for a longer path."""
    path = Path(rate, round_trip)
    path.run(5)
    most = max(MIN_WINDOW, GAIN * rate * round_trip * 1.1)
    for _ in range(30):
        path.run(2)
        path.window.measured(round_trip + path.buffered / rate)
        assert path.window.size <= most


def test_a_path_that_becomes_slower_gets_less() -> None:
    path = Path(4e6, 0.1)
    path.run(5)
    assert path.window.size > FIRST_WINDOW
    path.rate = 2e5
    path.run(60)
    assert path.window.size <= max(MIN_WINDOW, GAIN * 2e5 * 0.1)


def test_a_path_that_becomes_faster_gets_more() -> None:
    path = Path(1e6, 0.1)
    path.run(5)
    path.rate = 4e6
    path.run(3)
    assert path.window.size >= 4e6 * 0.1


def test_a_pause_counts_for_nothing() -> None:
    path = Path(4e6, 0.1)
    path.run(5)
    size = path.window.size
    for _ in range(20):
        path.pause(60)
        path.run(0.3)
    assert path.window.size == pytest.approx(size, rel=0.15)


def test_nothing_grows_before_the_round_trip_is_known() -> None:
    path = Path(4e6, 0.1, measured=False)
    path.run(5)
    assert path.window.size == FIRST_WINDOW
    path.window.measured(0.1)
    path.run(3)
    assert path.window.size >= 4e6 * 0.1


def test_the_shortest_round_trip_counts() -> None:
    path = Path(4e6, 0.1)
    path.window.measured(3.0)
    path.run(5)
    assert path.window.size <= GAIN * 4e6 * 0.1 * 1.1


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**7), st.integers(0, 10**7), st.floats(0, 10), st.sampled_from(["", "idle", "ping"])
        ),
        max_size=60,
    )
)
def test_the_window_stays_between_the_least_and_the_most(steps: list[tuple[int, int, float, str]]) -> None:
    window = BulkWindow()
    sent = acknowledged = 0
    now = 0.0
    for more, arrived, seconds, what in steps:
        sent += more
        acknowledged = min(sent, acknowledged + arrived)
        now += seconds
        window.progress(sent, acknowledged, now)
        if what == "idle":
            window.idle()
        elif what == "ping":
            window.measured(seconds)
        assert MIN_WINDOW <= window.size <= MAX_WINDOW
