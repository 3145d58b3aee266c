"""
Where a process spends its time, in two ways.

``calls``: cProfile. It knows how often everything was called, but makes each call dearer, small ones most of all.
``samples``: looks at what is being run at every tick of the kernel's clock, some hundred times per second of CPU time.
It knows nothing of counts and costs next to nothing, so its shares are those of the program as it is.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import signal
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Literal, Protocol, TypeAlias

__all__ = ["KINDS", "Profile", "ProfileKind", "begin"]

ProfileKind: TypeAlias = Literal["calls", "samples"]
KINDS: tuple[ProfileKind, ...] = ("samples", "calls")

#: Seconds of CPU time between two samples; the kernel rounds it up to its tick.
INTERVAL = 0.001
#: Lines of a listing.
LINES = 60


class Profile(Protocol):
    """One that is being made."""

    def end(self) -> str:
        """The listing."""
        ...


def begin(kind: ProfileKind) -> Profile:
    """Begin one, of the main thread."""
    return _Calls() if kind == "calls" else _Samples()


class _Calls:
    def __init__(self) -> None:
        self._profile = cProfile.Profile()
        self._profile.enable()

    def end(self) -> str:
        self._profile.disable()
        text = io.StringIO()
        statistics = pstats.Stats(self._profile, stream=text)
        statistics.sort_stats("tottime").print_stats(LINES)
        statistics.sort_stats("cumtime").print_stats(LINES)
        return text.getvalue()


class _Samples:
    """Counts the functions on the stack, and the lines at its top, each time that SIGPROF comes."""

    def __init__(self) -> None:
        self._total = 0
        self._own: Counter[CodeType] = Counter()
        self._all: Counter[CodeType] = Counter()
        self._lines: Counter[tuple[CodeType, int]] = Counter()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def _look(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._total += 1
        self._own[frame.f_code] += 1
        self._lines[frame.f_code, frame.f_lineno or 0] += 1
        seen = set()
        above: FrameType | None = frame
        while above is not None:
            seen.add(above.f_code)
            above = above.f_back
        self._all.update(seen)

    def end(self) -> str:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)
        text = [f"{self._total} samples; what C code takes counts as its caller's", "", "  own %  total %  function"]
        text += [
            f"{self._share(count)}   {self._share(self._all[code])}  {_named(code)}"
            for code, count in self._own.most_common(LINES)
        ]
        text += ["", "total %  function"]
        text += [f"{self._share(count)}  {_named(code)}" for code, count in self._all.most_common(LINES)]
        text += ["", "  own %  line"]
        text += [
            f"{self._share(count)}  {_place(code)}:{line} {code.co_qualname}"
            for (code, line), count in self._lines.most_common(LINES)
        ]
        return "\n".join(text) + "\n"

    def _share(self, count: int) -> str:
        return f"{count / max(1, self._total) * 100:7.2f}"


def _named(code: CodeType) -> str:
    return f"{code.co_qualname}  ({_place(code)}:{code.co_firstlineno})"


def _place(code: CodeType) -> str:
    return "/".join(Path(code.co_filename).parts[-2:])
