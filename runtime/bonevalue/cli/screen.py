"""
What the commands print: text for people or JSON lines on standard output, hints and faults on standard error.

Texts that come from other peers pass :func:`plain` first, so that nobody remote writes to this terminal what it
would act on.
"""

from __future__ import annotations

import json
import os
import select
import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, TextIO, TypeAlias

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bonevalue.errors import BoneValueError
from bonevalue.threads import CallThread

__all__ = ["OutputLost", "compact", "emit", "hint", "pipe_on", "plain", "say", "table", "terminal", "write_raw"]


#: A text, or a text with its rich style.
Part: TypeAlias = str | tuple[str, str]


class OutputLost(BoneValueError):
    """Standard output cannot be written."""

    code = "cannot_write"


def plain(text: str) -> str:
    """The text on one line and without anything that a terminal would act on: that stands escaped, as JSON does it."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def _encode(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": b64encode(bytes(value)).decode("ascii")}
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def compact(value: Any) -> str:
    """A value as JSON on one line; bytes stand as ``{"bytes": "<base64>"}``."""
    return plain(json.dumps(value, ensure_ascii=False, default=_encode))


def emit(value: Any) -> None:
    """Print one JSON line, at once: a program may be waiting for it at the other end of a pipe."""
    _print(sys.stdout, compact(value))


def say(*parts: Part) -> None:
    """Print one line for people; a part is a text, or a text with its rich style."""
    _print(sys.stdout, *parts)


def hint(*parts: Part) -> None:
    """Print one line for people on standard error, so that it does not mix with a result that is piped on."""
    _print(sys.stderr, *parts)


def table(rows: Iterable[Sequence[str]], *, indent: str = "") -> None:
    """
    Print rows in aligned columns.

    Not a rich table: that one cuts or wraps cells to the width of the terminal, and a cut fingerprint or peer id is
    worth nothing.
    """
    cells = [list(row) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip_longest(*cells, fillvalue="")]
    for row in cells:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)]
        say(indent + "  ".join(padded).rstrip())


def terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def write_raw(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    with _written():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


async def pipe_on(data: bytes | str) -> None:
    """
    Write to standard output, at once and as it is, and let all else go on while its reader takes its time.

    A stream may be read as slowly as one likes (by a pager, say): the links that it comes over must not suffer.
    """
    if isinstance(data, str):
        data = data.encode(sys.stdout.encoding, sys.stdout.errors or "strict")
    with _written():
        sys.stdout.flush()
        output = sys.stdout.fileno()
        if len(data) <= select.PIPE_BUF and _has_room(output):
            os.write(output, data)
        else:
            # In a thread that may be left behind: nobody knows when the reader goes on.
            await CallThread(_write_all, (output, data)).result()


def _has_room(output: int) -> bool:
    """Whether a short write would not have to wait, or would fail."""
    poll = select.poll()
    poll.register(output, select.POLLOUT)
    return bool(poll.poll(0))


def _write_all(output: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(output, left) :]


def _print(stream: TextIO, *parts: Part) -> None:
    with _written():
        # A console each time: tests and shells exchange the streams, and rich looks at them when it is made.
        console = Console(file=stream)
        if console.is_terminal and console.color_system is not None:
            console.print(Text.assemble(*parts), soft_wrap=True, highlight=False)
        else:
            stream.write("".join(part if isinstance(part, str) else part[0] for part in parts) + "\n")
        stream.flush()


@contextmanager
def _written() -> Iterator[None]:
    """A disk that is full is a fault to be told; a reader that has gone away is none, and passes as it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputLost(f"standard output: {(error.strerror or str(error)).lower()}") from error
