"""Durations, sizes and rates, as people write them in the settings."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = [
    "DURATION",
    "NUMBER",
    "RATE",
    "Rate",
    "duration_text",
    "parse_duration",
    "parse_size",
    "size_text",
]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
#: Patterns of a number without a unit, of a duration, and of a rate.
NUMBER = r"[0-9]{1,12}(?:\.[0-9]{1,9})?"
DURATION = re.compile(rf"(?:{NUMBER}(?:ms|s|m|h|d))+")
_PART = re.compile(rf"({NUMBER})(ms|s|m|h|d)")
_SIZE = re.compile(rf"({NUMBER})\s?([kmg]?i?b)", re.IGNORECASE)
RATE = re.compile(rf"([0-9]{{1,9}})/({NUMBER})?(ms|s|m|h|d)(?:,? burst ([0-9]{{1,9}}))?")
_LONGEST = 10 * 365 * 86400.0
_LARGEST = 2**50


def parse_duration(value: object) -> float:
    """
    Seconds, from ``20s``, ``250ms``, ``1h30m``, ``7d`` or a bare number of seconds.

    Raises:
        ValueError: it is none of these.
    """
    seconds = -1.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= _LONGEST else -1.0
    elif isinstance(value, str):
        text = value.strip()
        if re.fullmatch(NUMBER, text):
            seconds = float(text)
        elif DURATION.fullmatch(text):
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 <= seconds <= _LONGEST:
        raise ValueError("is no duration: write 250ms, 20s, 5m, 1h, 7d, or a number of seconds")
    return seconds


def duration_text(seconds: float) -> str:
    """The shortest text that :func:`parse_duration` reads as so many seconds."""
    if seconds and seconds < 1 and (seconds * 1000).is_integer():
        return f"{seconds * 1000:.0f}ms"
    for unit in ("d", "h", "m"):
        if seconds and (seconds / _UNITS[unit]).is_integer():
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def parse_size(value: object) -> int:
    """
    Bytes, from ``64KiB``, ``8MiB``, ``1MB`` or a bare number of bytes.

    Raises:
        ValueError: it is none of these.
    """
    size: float = -1
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[0-9]{1,16}", text):
            size = int(text)
        elif found := _SIZE.fullmatch(text):
            size = float(found[1]) * _SIZES[found[2].lower()]
    if not 0 <= size <= _LARGEST or size != int(size):
        raise ValueError("is no size: write 64KiB, 8MiB, 1MB, or a number of bytes")
    return int(size)


def size_text(size: int) -> str:
    """The shortest text that :func:`parse_size` reads as so many bytes."""
    for unit, text in (("gib", "GiB"), ("mib", "MiB"), ("kib", "KiB")):
        if size and size % _SIZES[unit] == 0:
            return f"{size // _SIZES[unit]}{text}"
    return str(size)


@dataclass(frozen=True, slots=True)
class Rate:
    """
    So many in a period, and how many at once after a quiet time: a token bucket.

    Args:
        count: how many in one period.
        period: seconds.
        burst: size of the bucket; as many as ``count`` if left out.
    """

    count: int
    period: float
    burst: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.period <= 0 or self.burst < 0:
            raise ValueError("is no rate: count, period and burst are positive")
        if not self.burst:
            object.__setattr__(self, "burst", self.count)

    @property
    def per_second(self) -> float:
        """How fast the bucket fills."""
        return self.count / self.period

    @classmethod
    def parse(cls, value: object) -> Rate:
        """
        The rate of a text like ``20/s burst 256``, ``60/m`` or ``10/10m`` (ten in ten minutes).

        Raises:
            ValueError: it is none.
        """
        if isinstance(value, Rate):
            return value
        found = RATE.fullmatch(value.strip()) if isinstance(value, str) else None
        if found is None:
            raise ValueError("is no rate: write 20/s, 60/m, 3/h, 10/10m (ten in ten minutes), or 20/s burst 256")
        return cls(int(found[1]), float(found[2] or 1) * _UNITS[found[3]], int(found[4] or 0))

    def __str__(self) -> str:
        period = duration_text(self.period)
        period = period[1:] if re.fullmatch("1[a-z]+", period) else period
        return f"{self.count}/{period}" + (f" burst {self.burst}" if self.burst != self.count else "")
