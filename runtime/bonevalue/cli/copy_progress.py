"""How far a copy is: a bar for people at a terminal, JSON lines for programs, nothing for others."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bonevalue.cli.screen import emit, plain

__all__ = ["CopyProgress", "copy_progress", "size_for_people"]

#: Seconds between two JSON lines.
INTERVAL = 1.0


class CopyProgress(ABC):
    """Shows how far a copy is, while it is entered."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def expect(self, size: int | None) -> None:
        """So many bytes will be copied, as far as that is known."""

    @abstractmethod
    def start(self, position: int) -> None:
        """From here on bytes go over; those before are there already."""

    @abstractmethod
    def reach(self, position: int) -> None:
        """So many are."""


class _SpeedColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size_for_people(int(speed))}/s" if speed else "")


class _Bar(CopyProgress):
    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            _SpeedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
        )
        self._task: TaskID = self._progress.add_task(plain(name), total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, size: int | None) -> None:
        self._progress.update(self._task, total=size)

    def start(self, position: int) -> None:
        self._progress.reset(self._task, completed=position)  # so that what was there does not count as speed

    def reach(self, position: int) -> None:
        self._progress.update(self._task, completed=position)


class _Lines(CopyProgress):
    def __init__(self) -> None:
        self._size: int | None = None
        self._printed = time.monotonic()

    def expect(self, size: int | None) -> None:
        self._size = size

    def start(self, position: int) -> None:
        pass

    def reach(self, position: int) -> None:
        now = time.monotonic()
        if now - self._printed >= INTERVAL:
            self._printed = now
            emit({"progress": {"bytes": position, "size": self._size}})


class _Nothing(CopyProgress):
    def expect(self, size: int | None) -> None:
        pass

    def start(self, position: int) -> None:
        pass

    def reach(self, position: int) -> None:
        pass


def copy_progress(name: str, *, json: bool) -> CopyProgress:
    """What suits whoever reads: JSON lines if they were asked for, else a bar if standard error is a terminal."""
    if json:
        return _Lines()
    return _Bar(name) if sys.stderr.isatty() else _Nothing()


def size_for_people(size: int) -> str:
    """A number of bytes, rounded: ``512 bytes``, ``34.5 MiB``."""
    number, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f} {unit}" if unit != "bytes" else f"{size} bytes"
