"""
The two directions of `bv copy`, and what they say to the module :class:`modules.files.Files`.

Either way the receiver says what it has from an interrupted copy, as a number of bytes and their SHA-256, and the
sender says where it goes on: there, or at the beginning. The sender ends with the SHA-256 of the whole, and only if
that of the receiver is the same does the file take its place.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from msgspec import Meta, Struct, ValidationError, convert

from bonevalue.cli.copy_ends import Receiver, Sender
from bonevalue.cli.copy_progress import CopyProgress
from bonevalue.errors import BoneValueError, RemoteProtocolError

if TYPE_CHECKING:
    from bonevalue.target import Target

__all__ = ["Damaged", "Download", "Place", "Transfer", "Upload"]

M = TypeVar("M", bound=Struct)

Count = Annotated[int, Meta(ge=0)]


class Damaged(BoneValueError):
    """What came is not what was sent."""

    code = "damaged"


@dataclass(frozen=True, slots=True)
class Place:
    """A path of a peer."""

    target: str
    path: str


# -- what the module sends beside bytes; a later version of it may say more --------------------------------------------


class _Found(Struct, frozen=True):
    path: str
    size: Count


class _Begin(Struct, frozen=True):
    offset: Count


class _Opened(Struct, frozen=True):
    path: str


class _Kept(Struct, frozen=True):
    offset: Count
    sha256: str


class _Written(Struct, frozen=True):
    written: Count


class _Whole(Struct, frozen=True):
    size: Count
    sha256: str


def _read(kind: type[M], item: Any) -> M:
    try:
        return convert(item, kind)
    except ValidationError as error:
        raise RemoteProtocolError("what serves that name does not answer as the module Files does") from error


# -- the directions --------------------------------------------------------------------------------------------------


class Transfer(ABC):
    """
    A copy in one direction.

    Args:
        module: name that the remote module is served under.
        place: the remote path.
        resume: go on with what an interrupted copy left.
        shown: what texts for people call the local file.
        progress: told how far it is.
    """

    def __init__(self, module: str, place: Place, *, resume: bool, shown: str, progress: CopyProgress) -> None:
        self.module = module
        self.place = place
        self.resume = resume
        self.shown = shown
        self.progress = progress
        #: The remote path, as the peer writes it.
        self.path = place.path
        #: Whether bytes may have gone over.
        self.begun = False
        #: Bytes that an earlier copy had brought.
        self.resumed_at = 0

    @property
    @abstractmethod
    def position(self) -> int:
        """Bytes that the receiver has."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 of the local bytes so far."""

    @property
    @abstractmethod
    def kept(self) -> bool:
        """Whether another run goes on with what went over."""

    @abstractmethod
    async def open(self) -> None:
        """Open the local file."""

    @abstractmethod
    async def run(self, target: Target, timeout: float | None) -> None:
        """Copy to one peer, or from it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the local file."""


class Upload(Transfer):
    """A copy to a peer."""

    def __init__(self, sender: Sender, *common: Any, **more: Any) -> None:
        super().__init__(*common, **more)
        self._sender = sender
        self._written = 0
        #: Set when it is known where to begin.
        self._agreed = asyncio.Event()

    @property
    def position(self) -> int:
        return self._written

    @property
    def sha256(self) -> str:
        return self._sender.sha256

    @property
    def kept(self) -> bool:
        return self.begun and self._sender.repeatable

    async def open(self) -> None:
        await self._sender.open()
        self.progress.expect(self._sender.size)

    async def run(self, target: Target, timeout: float | None) -> None:
        request = {"op": "write", "path": self.place.path, "name": self._sender.name, "size": self._sender.size}
        stream = target.stream(self.module, request, items=self._items(), timeout=timeout, keep_alive=False)
        whole: _Whole | None = None
        async with stream:
            self.path = _read(_Opened, await anext(stream, None)).path
            await self._agree(_read(_Kept, await anext(stream, None)))
            async for item in stream:
                if isinstance(item, dict) and "sha256" in item:
                    whole = _read(_Whole, item)
                else:
                    self._written = _read(_Written, item).written
                    self.progress.reach(self._written)
        if whole is None or (whole.size, whole.sha256) != (self._sender.position, self._sender.sha256):
            raise Damaged(f"what {self.path} holds now is not what was sent; copy it again")
        self._written = whole.size

    async def _agree(self, kept: _Kept) -> None:
        """Find out where to begin, and have the items begin there."""
        if self.resume:
            await self._sender.skip(kept.offset, kept.sha256, self.progress.reach)
        self.resumed_at = self._written = self._sender.position
        self.progress.start(self.resumed_at)
        self.begun = True
        self._agreed.set()

    async def _items(self) -> AsyncGenerator[Any, None]:
        await self._agreed.wait()
        yield {"offset": self.resumed_at}
        while data := await self._sender.read():
            yield data
        yield {"sha256": self._sender.sha256}

    def close(self) -> None:
        self._sender.close()


class Download(Transfer):
    """A copy from a peer."""

    def __init__(self, receiver: Receiver, *common: Any, **more: Any) -> None:
        super().__init__(*common, **more)
        self._receiver = receiver

    @property
    def position(self) -> int:
        return self._receiver.position

    @property
    def sha256(self) -> str:
        return self._receiver.sha256

    @property
    def kept(self) -> bool:
        return self._receiver.keeps and self._receiver.position > 0

    async def open(self) -> None:
        await self._receiver.open(resume=self.resume, told=self.progress.reach)

    async def run(self, target: Target, timeout: float | None) -> None:
        receiver = self._receiver
        request: dict[str, Any] = {"op": "read", "path": self.place.path}
        if receiver.position:
            request |= {"offset": receiver.position, "sha256": receiver.sha256}
        async with target.stream(self.module, request, timeout=timeout, keep_alive=False) as stream:
            found = _read(_Found, await anext(stream, None))
            self.path = found.path
            self.progress.expect(found.size)
            self.resumed_at = _read(_Begin, await anext(stream, None)).offset
            if self.resumed_at not in (0, receiver.position):
                raise RemoteProtocolError("the bytes begin where nobody asked for them")
            self.begun = True
            await receiver.start(self.resumed_at)
            self.progress.start(self.resumed_at)
            whole: _Whole | None = None
            async for item in stream:
                if not isinstance(item, bytes):
                    whole = _read(_Whole, item)
                    continue
                if receiver.position + len(item) > found.size:
                    raise RemoteProtocolError("there come more bytes than the file has")
                await receiver.write(item)
                self.progress.reach(receiver.position)
        if whole is None or (whole.size, whole.sha256) != (receiver.position, receiver.sha256):
            await receiver.discard()
            raise Damaged(f"what came of {self.path} is not what was sent, and was thrown away; copy it again")
        await receiver.finish()

    def close(self) -> None:
        self._receiver.close()
