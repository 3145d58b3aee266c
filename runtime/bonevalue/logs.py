"""Logging of a process: one set-up for our own lines and those of the libraries, for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Literal

import structlog
from structlog.typing import Processor

from bonevalue.counters import Counters

__all__ = ["LogLimit", "configure"]

#: Lines a second that one peer and reason may cause; see :class:`LogLimit`.
LINES_PER_SECOND = 10
#: Keys that a :class:`LogLimit` remembers.
MAX_KEYS = 1024
#: Libraries whose debug and info lines concern only who works on them.
_NOISY = ("aioice", "websockets", "uvicorn", "asyncio", "alembic", "sqlalchemy", "aiosqlite")
#: Those whose warnings do as well: they are tracebacks of what a remote peer sent, and we say in a line what it was.
_NOISIER = ("aiortc",)


def configure(level: str = "info", format: Literal["console", "json"] = "console") -> None:
    """
    Log to standard error from now on.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        format: ``console`` for people, ``json`` for one JSON object a line.
    """
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=format == "json"),
    ]
    last: list[Processor]
    if format == "json":
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        last = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,  # the default shows locals: bodies and secrets
            )
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    for name in _NOISIER:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.ERROR)


class LogLimit:
    """
    Keeps what one peer does from filling the log.

    :meth:`passes` is asked before a line; after ten in one second for the same key it says no, and the first line of
    a later second is told how many were left out. Only so many keys are remembered; while all of them are of this very
    second, no others pass.

    Args:
        counters: where the lines left out are counted.
    """

    def __init__(self, counters: Counters | None = None) -> None:
        self._counters = counters
        #: By key: the second in which it was last asked for, the lines that passed in it, those left out since one did.
        self._keys: OrderedDict[Hashable, tuple[int, int, int]] = OrderedDict()

    def passes(self, key: Hashable) -> tuple[bool, int]:
        """Whether a line may be written now, and how many for the same key were left out before it."""
        second = int(time.monotonic())
        last, count, left_out = self._keys.pop(key, (second, 0, 0))
        if last != second:
            count = 0
        if len(self._keys) >= MAX_KEYS:
            oldest = next(iter(self._keys))
            if self._keys[oldest][0] == second:
                return self._leave_out(), 0
            del self._keys[oldest]
        if count >= LINES_PER_SECOND:
            self._keys[key] = (second, count, left_out + 1)
            return self._leave_out(), 0
        self._keys[key] = (second, count + 1, 0)
        return True, left_out

    def _leave_out(self) -> bool:
        if self._counters is not None:
            self._counters.log_lines_left_out += 1
        return False
