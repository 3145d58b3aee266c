"""Durations, sizes and rates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.settings_units import Rate, duration_text, parse_duration, parse_size, size_text


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20s", 20),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        (" 3s ", 3),
        ("8", 8),
        (8, 8),
        (0.5, 0.5),
        (0, 0),
    ],
)
def test_durations(written: object, seconds: float) -> None:
    assert parse_duration(written) == pytest.approx(seconds)


@pytest.mark.parametrize("written", ["", "s", "5 x", "5S", "-1s", "1e3", "٣s", True, -1, float("nan"), 1e30, None, []])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [("8MiB", 2**23), ("64KiB", 2**16), ("1MB", 10**6), ("1.5 kib", 1536), ("7", 7), (7, 7), ("10B", 10), (2.0, 2)],
)
def test_sizes(written: object, size: int) -> None:
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["", "MiB", "1M", "1.5", "0.3B", "-1", "1PB", True, -1, float("inf"), None, 10**30])
def test_what_is_no_size(written: object) -> None:
    with pytest.raises(ValueError, match="is no size"):
        parse_size(written)


@pytest.mark.parametrize(
    ("written", "rate"),
    [
        ("20/s burst 256", Rate(20, 1, 256)),
        ("60/m", Rate(60, 60, 60)),
        ("10/10m", Rate(10, 600)),
        ("3/h, burst 5", Rate(3, 3600, 5)),
    ],
)
def test_rates(written: str, rate: Rate) -> None:
    assert Rate.parse(written) == rate
    assert Rate.parse(str(rate)) == rate
    assert Rate.parse("60/m").per_second == 1.0


@pytest.mark.parametrize("written", ["", "20", "20/x", "0/s", "1/0s", "1/s burst", 20, None])
def test_what_is_no_rate(written: object) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        Rate.parse(written)


@settings(deadline=None)
@given(st.floats(min_value=0.001, max_value=3e8))
def test_durations_are_written_as_they_are_read(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=1e-5, abs=1e-9)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**50))
def test_sizes_are_written_as_they_are_read(size: int) -> None:
    assert parse_size(size_text(size)) == size
