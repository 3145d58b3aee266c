"""Logging of a process: one set-up for our own lines and those of the libraries, for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

__all__ = ["configure"]

#: Libraries whose debug and info lines concern only who works on them.
_NOISY = ("aioice", "websockets", "uvicorn", "asyncio")
#: Those whose info lines never help us, and show what stands in the database.
_NEVER = ("alembic", "sqlalchemy")
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
    for name in _NEVER:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _NOISIER:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.ERROR)
