"""Logging of a process: one set-up for our own lines and those of the libraries, for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Hashable
from typing import Literal

import structlog
from structlog.typing import Processor

__all__ = ["LogLimit", "configure"]

#: Lines a second that one peer and reason may cause; see :class:`LogLimit`.
LINES_PER_SECOND = 10
#: Libraries whose debug and info lines concern only who works on them.
_NOISY = ("aioice", "aiortc", "websockets", "uvicorn", "asyncio", "alembic", "sqlalchemy", "aiosqlite")


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


class LogLimit:
    """
    Keeps what one peer does from filling the log.

    :meth:`passes` is asked before a line; after ten in one second for the same key it says no, and the first line of
    a later second is told how many were left out.
    """

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[Hashable, int] = {}
        self._left_out: dict[Hashable, int] = {}

    def passes(self, key: Hashable) -> tuple[bool, int]:
        """Whether a line may be written now, and how many for the same key were left out before it."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            for each, count in self._counts.items():
                if count > LINES_PER_SECOND:
                    self._left_out[each] = self._left_out.get(each, 0) + count - LINES_PER_SECOND
            self._counts.clear()
        count = self._counts[key] = self._counts.get(key, 0) + 1
        return count <= LINES_PER_SECOND, self._left_out.pop(key, 0)
