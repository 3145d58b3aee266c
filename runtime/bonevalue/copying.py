"""
Both ends of a file on its way between peers: :class:`Source` is read, :class:`Part` is filled and put in place.

Each keeps one running SHA-256 of the file from its beginning to its position. An interrupted copy is continued by
comparing these: the receiver says how much it has and the SHA-256 of that, and if the sender's file begins likewise,
it sends the rest. What is written goes to a partial file beside the target, which others never see half done: it takes
the target's place in one step, when it is whole.

The methods of both block. On an event loop run them by :func:`in_thread`, one at a time.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import functools
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from bonevalue.errors import Busy, Unavailable

__all__ = ["OPEN_FLAGS", "PIECE", "HashedFile", "Part", "Source", "check_kind", "in_thread", "is_part", "part_name"]

#: Bytes that are read, sent and written at once.
PIECE = 262_144
#: Bytes that :meth:`HashedFile.hash_towards` takes at once: a fraction of a second even on a slow disk.
_SLICE = 8 * 2**20
#: How often a partial file is looked up anew, if copies that end at the same moment take it away.
_ATTEMPTS = 16
#: For files: links are not followed, and neither a pipe without a writer nor a modem keeps us waiting.
OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Parameters = ParamSpec("Parameters")
T = TypeVar("T")


async def in_thread(function: Callable[Parameters, T], *args: Parameters.args, **kwargs: Parameters.kwargs) -> T:
    """
    Run what may block in a thread, and never come back before it has ended, cancelled or not.

    So a file may be closed afterwards: the thread does not write to what has got the same number since.
    """
    work = asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # looked at: nobody else will
        raise cancelled
    return work.result()


def part_name(name: str) -> str:
    """The partial file of a file of that name."""
    return f".{name}.bv-part"


def is_part(name: str) -> bool:
    """Whether a file of that name is one of our partial files."""
    return name.startswith(".") and name.endswith(".bv-part")


class HashedFile(ABC):
    """
    A regular file and the SHA-256 of what stands before its position.

    Args:
        shown: what texts for people call it.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        #: Bytes before the position.
        self.position = 0
        #: Bytes that the file had when it was opened.
        self.size = 0
        self._hash = hashlib.sha256()
        self._file = -1

    @property
    def sha256(self) -> str:
        """SHA-256 of what stands before the position, in hexadecimal."""
        return self._hash.hexdigest()

    @abstractmethod
    def open(self) -> None:
        """Open it. To be followed by :meth:`close`, even if it fails."""

    def close(self) -> None:
        """Close it, if it is open."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def hash_towards(self, position: int) -> None:
        """
        Move on towards that position, which must lie within the file; at most 8 MiB at once.

        Raises:
            Unavailable: the file has become shorter.
            OSError: it cannot be read.
        """
        self._read(min(_SLICE, position - self.position))

    async def hash_to(self, position: int) -> None:
        """Move on to that position, in threads; raises what :meth:`hash_towards` does."""
        while self.position < position:
            await in_thread(self.hash_towards, position)

    def rewind(self) -> None:
        """Go back to the beginning."""
        self.position = 0
        self._hash = hashlib.sha256()

    def _read(self, count: int) -> bytes:
        data = os.pread(self._file, count, self.position)
        if count and not data:
            raise Unavailable(f"{self.shown} became shorter while it was copied; copy it again")
        self._hash.update(data)
        self.position += len(data)
        return data


class Source(HashedFile):
    """
    A file that is copied from.

    Args:
        shown: what texts for people call it.
        opener: gives a descriptor to read it from.
    """

    def __init__(self, shown: str, opener: Callable[[], int]) -> None:
        super().__init__(shown)
        #: When it was changed last, in seconds since 1970.
        self.modified = 0.0
        self._opener = opener
        self._state: tuple[int, int] = (0, 0)

    def open(self) -> None:
        """
        Open it.

        Raises:
            OSError: it cannot be opened, or is no regular file.
        """
        self._file = self._opener()
        facts = os.fstat(self._file)
        check_kind(facts)
        self.size, self.modified = facts.st_size, facts.st_mtime
        self._state = (facts.st_size, facts.st_mtime_ns)

    def read(self) -> bytes:
        """
        The next piece, empty at the end.

        Raises:
            Unavailable: the file has become shorter.
            OSError: it cannot be read.
        """
        return self._read(min(PIECE, self.size - self.position))

    def check(self) -> None:
        """
        Make sure that nobody wrote to it meanwhile: what was read would be a mixture.

        Raises:
            Unavailable: somebody did.
        """
        facts = os.fstat(self._file)
        if (facts.st_size, facts.st_mtime_ns) != self._state:
            raise Unavailable(f"{self.shown} was changed while it was copied; copy it again")


class Part(HashedFile):
    """
    A file that is copied to: filled beside its target, which it replaces when it is whole.

    Until then the target stays as it is. What was filled in stays, too, for a later copy to go on with, unless it is
    empty. A lock sees to it that only one copy at a time fills it.

    Args:
        opener: gives a descriptor of the target's folder, its name there, and what texts for people call it.
    """

    def __init__(self, opener: Callable[[], tuple[int, str, str]]) -> None:
        super().__init__("")
        self.name = ""
        self._opener = opener
        self._folder = -1
        self._ours = False

    def open(self) -> None:
        """
        Open the partial file, or make one, and lock it.

        Raises:
            Busy: another copy fills it.
            OSError: it cannot be opened, or the target is no regular file.
        """
        self._folder, self.name, self.shown = self._opener()
        replaced = self._replaced()
        mode = 0o666 if replaced is None else stat.S_IMODE(replaced.st_mode) & 0o666
        for _ in range(_ATTEMPTS):
            self._file = os.open(
                part_name(self.name), os.O_RDWR | os.O_CREAT | OPEN_FLAGS, mode | 0o200, dir_fd=self._folder
            )
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            facts = os.fstat(self._file)
            if self._is_there(facts):
                check_kind(facts)
                if facts.st_nlink != 1:  # a second name of the same file may stand anywhere
                    raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
                self._ours = True
                self.size = facts.st_size
                return
            super().close()  # the copy that held the lock before has just put it in place
        raise Busy(f"another copy to {self.shown} is under way")

    def _replaced(self) -> os.stat_result | None:
        try:
            facts = os.stat(self.name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        check_kind(facts)
        return facts

    def _is_there(self, facts: os.stat_result) -> bool:
        with suppress(FileNotFoundError):
            now = os.stat(part_name(self.name), dir_fd=self._folder, follow_symlinks=False)
            return (now.st_dev, now.st_ino) == (facts.st_dev, facts.st_ino)
        return False

    def start(self, offset: int) -> None:
        """
        Get ready to take what follows the first bytes.

        Args:
            offset: their number, all that were there or 0; in the latter case they are thrown away.

        Raises:
            ValueError: it is neither.
        """
        if offset not in (0, self.position):
            raise ValueError(f"a copy to {self.shown} begins at 0 or at {self.position}, not at {offset}")
        if not offset:
            self.rewind()
        os.ftruncate(self._file, offset)

    def write(self, data: bytes) -> None:
        """
        Add bytes.

        Raises:
            OSError: they cannot be written, or not all.
        """
        left = memoryview(data)
        while left:
            written = os.pwrite(self._file, left, self.position)
            self._hash.update(left[:written])
            self.position += written
            left = left[written:]

    def install(self) -> None:
        """
        Put what was written into the place of the target; it lasts when this has returned.

        The permissions of a file that is replaced are kept.

        Raises:
            Unavailable: the partial file is no longer there.
            OSError: it cannot be done.
        """
        replaced = self._replaced()
        if replaced is not None:
            os.fchmod(self._file, stat.S_IMODE(replaced.st_mode) & 0o777)
        os.fsync(self._file)
        if not self._is_there(os.fstat(self._file)):
            raise Unavailable(f"the partial file of {self.shown} was taken away while it was copied; copy it again")
        os.rename(part_name(self.name), self.name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._ours = False
        with suppress(PermissionError):  # a folder may be for entering and writing only
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Throw away what was written."""
        if self._ours and self._is_there(os.fstat(self._file)):
            os.unlink(part_name(self.name), dir_fd=self._folder)
        self._ours = False

    def close(self) -> None:
        """Close it, if it is open."""
        with suppress(OSError):  # an empty file in the way harms nobody
            if self._ours and not os.fstat(self._file).st_size:
                self.discard()
        super().close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def check_kind(facts: os.stat_result) -> None:
    """
    Make sure that it is a regular file.

    Raises:
        OSError: it is a folder (``EISDIR``), a link (``ELOOP``), or a device, pipe or socket (``ENXIO``).
    """
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if stat.S_ISLNK(facts.st_mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
