"""
The local ends of `bv copy`: a file or a standard stream, to send from or to receive into.

All run what blocks in threads, and turn what the system has against it into faults that name the file.
"""

from __future__ import annotations

import errno
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from bonevalue.cli.screen import OutputLost
from bonevalue.copying import PIECE, HashedFile, Part, Source, in_thread
from bonevalue.errors import BoneValueError
from bonevalue.threads import CallThread

__all__ = ["FileReceiver", "FileSender", "Receiver", "Sender", "StandardInput", "StandardOutput"]

T = TypeVar("T")
#: Told of each position that is reached.
Told = Callable[[int], None]


class CannotRead(BoneValueError):
    """A local file cannot be read."""

    code = "cannot_read"


class CannotWrite(BoneValueError):
    """A local file cannot be written."""

    code = "cannot_write"


class Sender(ABC):
    """Where bytes come from."""

    #: Name that the file has here, None if it has none.
    name: str | None = None
    #: Its bytes, None if that is not known before the end.
    size: int | None = None
    #: What texts for people call it.
    shown: str
    #: Whether another run could send the same bytes.
    repeatable: bool

    @property
    @abstractmethod
    def position(self) -> int:
        """How many bytes were taken."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 of these bytes."""

    @abstractmethod
    async def open(self) -> None:
        """Get ready; raises :class:`CannotRead`."""

    @abstractmethod
    async def skip(self, count: int, sha256: str, told: Told) -> None:
        """Pass over the first bytes, if they have that hash; else stay where it is."""

    @abstractmethod
    async def read(self) -> bytes:
        """The next piece, empty at the end, which is one only if nobody changed the file meanwhile."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


class Receiver(ABC):
    """Where bytes go to."""

    shown: str
    #: Whether what was received is kept for another run.
    keeps: bool

    @property
    @abstractmethod
    def position(self) -> int:
        """How many bytes it has."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 of these bytes."""

    @abstractmethod
    async def open(self, *, resume: bool, told: Told) -> None:
        """Get ready, with what an interrupted copy left if that is wanted; raises :class:`CannotWrite`."""

    @abstractmethod
    async def start(self, offset: int) -> None:
        """Be told where the bytes begin: at the position, or at 0."""

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Take bytes."""

    @abstractmethod
    async def finish(self) -> None:
        """All came, and they are right."""

    @abstractmethod
    async def discard(self) -> None:
        """All came, and they are wrong."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


def _reason(error: OSError) -> str:
    if error.errno == errno.ENXIO:
        return "is no regular file; use - and a pipe"
    return (error.strerror or str(error)).lower()


def _write_out(data: bytes) -> None:
    # Past the buffer of sys.stdout: a thread left behind in it would keep the process from ending.
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]


async def _done(fault: type[BoneValueError], file: HashedFile, work: Callable[..., T], *args: object) -> T:
    try:
        return await in_thread(work, *args)
    except OSError as error:
        raise fault(f"{file.shown}: {_reason(error)}") from error


class FileSender(Sender):
    """A file of this machine."""

    repeatable = True

    def __init__(self, path: str) -> None:
        self.shown = path
        self.name = os.path.basename(path)
        self._source = Source(path, lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    @property
    def position(self) -> int:
        return self._source.position

    @property
    def sha256(self) -> str:
        return self._source.sha256

    async def open(self) -> None:
        await _done(CannotRead, self._source, self._source.open)
        self.size = self._source.size

    async def skip(self, count: int, sha256: str, told: Told) -> None:
        self._source.rewind()
        if count <= self._source.size:
            while self.position < count:
                await _done(CannotRead, self._source, self._source.hash_towards, count)
                told(self.position)
            if self.sha256 != sha256:
                self._source.rewind()

    async def read(self) -> bytes:
        data = await _done(CannotRead, self._source, self._source.read)
        if not data:
            await _done(CannotRead, self._source, self._source.check)
        return data

    def close(self) -> None:
        self._source.close()


class FileReceiver(Receiver):
    """A file of this machine."""

    keeps = True

    def __init__(self, path: str) -> None:
        self.shown = path
        # A link is followed here, as cp does it: it is one of the user's own.
        folder, name = os.path.split(os.path.realpath(path))
        self._part = Part(lambda: (os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), name, path))
        self._part.shown = path

    @property
    def position(self) -> int:
        return self._part.position

    @property
    def sha256(self) -> str:
        return self._part.sha256

    async def open(self, *, resume: bool, told: Told) -> None:
        await _done(CannotWrite, self._part, self._part.open)
        while resume and self.position < self._part.size:
            await _done(CannotWrite, self._part, self._part.hash_towards, self._part.size)
            told(self.position)

    async def start(self, offset: int) -> None:
        await _done(CannotWrite, self._part, self._part.start, offset)

    async def write(self, data: bytes) -> None:
        await _done(CannotWrite, self._part, self._part.write, data)

    async def finish(self) -> None:
        await _done(CannotWrite, self._part, self._part.install)

    async def discard(self) -> None:
        await _done(CannotWrite, self._part, self._part.discard)

    def close(self) -> None:
        self._part.close()


class _Counted:
    """A running count and SHA-256."""

    def __init__(self) -> None:
        self.position = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def add(self, data: bytes) -> None:
        self._hash.update(data)
        self.position += len(data)


class StandardInput(Sender):
    """What is piped into the command."""

    shown = "standard input"
    repeatable = False

    def __init__(self) -> None:
        self._read_so_far = _Counted()

    @property
    def position(self) -> int:
        return self._read_so_far.position

    @property
    def sha256(self) -> str:
        return self._read_so_far.sha256

    async def open(self) -> None:
        pass

    async def skip(self, count: int, sha256: str, told: Told) -> None:
        pass  # what has gone through a pipe does not come again

    async def read(self) -> bytes:
        # In a thread that may be left behind: nobody knows when the next bytes come.
        try:
            data: bytes = await CallThread(os.read, (0, PIECE)).result()
        except OSError as error:
            raise CannotRead(f"{self.shown}: {_reason(error)}") from error
        self._read_so_far.add(data)
        return data

    def close(self) -> None:
        pass


class StandardOutput(Receiver):
    """What is piped on from the command."""

    shown = "standard output"
    keeps = False

    def __init__(self) -> None:
        self._written = _Counted()

    @property
    def position(self) -> int:
        return self._written.position

    @property
    def sha256(self) -> str:
        return self._written.sha256

    async def open(self, *, resume: bool, told: Told) -> None:
        pass

    async def start(self, offset: int) -> None:
        pass

    async def write(self, data: bytes) -> None:
        # In a thread that may be left behind: nobody knows when the reader goes on.
        try:
            await CallThread(_write_out, (data,)).result()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(f"{self.shown}: {_reason(error)}") from error
        self._written.add(data)

    async def finish(self) -> None:
        pass

    async def discard(self) -> None:
        pass

    def close(self) -> None:
        pass
