"""What an examination finds: one line for each thing that was checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "CHECKS",
    "OF_A_TARGET",
    "Doing",
    "Finding",
    "Verdict",
    "fail",
    "listed",
    "milliseconds",
    "not_tried",
    "ok",
    "span",
    "steps_of",
    "warn",
]

#: Everything that is checked, in this order: the way to the server, this machine's network, and the other peer.
CHECKS = (
    *("settings", "dns", "tcp", "tls", "realm", "clock", "login"),
    *("network", "stun", "nat", "turn"),
    *("trust", "presence", "link", "module"),
)
#: Those of them that are about the other peer.
OF_A_TARGET = ("trust", "presence", "link", "module")

#: Told what is being tried just now, in a few words, by whatever may take a while.
Doing = Callable[[str], None]


class Verdict(StrEnum):
    """How it is with one thing."""

    OK = "ok"
    WARN = "warn"
    """It works, and something about it is not as it should be."""
    FAIL = "fail"
    NOT_TRIED = "not_tried"
    """Something that it needs has failed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was checked.

    Args:
        check: one of :data:`CHECKS`.
        verdict: how it is.
        text: what was found, on one line.
        advice: one sentence that says what to do; empty if all is well.
        facts: what was found, for programs; times in seconds.
    """

    check: str
    verdict: Verdict
    text: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def ok(check: str, text: str, **facts: Any) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, text, facts=facts)


def warn(check: str, text: str, advice: str, **facts: Any) -> Finding:
    """It works, but."""
    return Finding(check, Verdict.WARN, text, _sentence(advice), facts)


def fail(check: str, text: str, advice: str, **facts: Any) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.FAIL, text, _sentence(advice), facts)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"


def not_tried(check: str, why: str) -> Finding:
    """It could not be looked at."""
    return Finding(check, Verdict.NOT_TRIED, f"not tried: {why}")


def steps_of(target: str | None, module: str | None) -> list[str]:
    """The checks that follow the settings, for somebody who asks for this much."""
    left_out = (
        {"settings"} | (set(OF_A_TARGET) if target is None else set()) | ({"module"} if module is None else set())
    )
    return [check for check in CHECKS if check not in left_out]


def milliseconds(seconds: float) -> str:
    """A short time for people."""
    amount = seconds * 1000
    return f"{amount:.1f} ms" if amount < 10 else f"{amount:.0f} ms"


def span(seconds: float) -> str:
    """A longer time for people, as exactly as they care."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def listed(things: Iterable[str], word: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *others, last = things
    return f"{', '.join(others)} {word} {last}" if others else last
