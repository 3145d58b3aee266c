"""
Files of one folder for other peers: to list, to read and, if the settings say so, to write; see docs/files.md.

No request leaves the folder. A path is taken apart and walked folder by folder from the root on, each opened in the
one before it and no link followed. So what is checked is what is used, whatever is moved meanwhile.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bonevalue import BadRequest, BoneValueError, Context, Denied, Module, TooLarge, Unavailable
from bonevalue.copying import OPEN_FLAGS, Part, Source, check_kind, in_thread, is_part
from bonevalue.settings_fields import ExistingFolder, Size
from bonevalue.settings_units import size_text

__all__ = ["Files"]

#: Entries of a folder that are looked up at once.
BATCH = 256
#: Bytes and seconds after which a writer is told how far it is.
REPORT_BYTES, REPORT_SECONDS = 2**20, 0.5

#: Letters of a path.
MAX_PATH = 4096
#: To go through a folder needs no permission to list it, where the system knows the difference.
_ENTER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


# -- requests ------------------------------------------------------------------------------------------------------

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256, in hexadecimal.")]
Offset = Annotated[int, Field(ge=0, lt=2**63, description="Bytes from the beginning.")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class List(_Message):
    """What is in a folder."""

    op: Literal["list"]
    path: str = Field(default="", description="The folder, from the root; empty for the root itself.")


class Read(_Message):
    """The bytes of a file."""

    op: Literal["read"]
    path: str = Field(description="The file, from the root.")
    offset: Offset = 0
    sha256: Sha256 | None = Field(
        default=None,
        description="Of the bytes before the offset, as the caller has them. If the file has others, it comes whole.",
    )


class Write(_Message):
    """A new file, or a new content for one; the bytes follow as items."""

    op: Literal["write"]
    path: str = Field(description="The file, from the root; or a folder for it, if there is a name.")
    name: str | None = Field(default=None, description="Name of the file, used if the path is that of a folder.")
    size: Offset | None = Field(default=None, description="Bytes that it will have, if that is known.")


Request: TypeAlias = Annotated[List | Read | Write, Field(discriminator="op")]


class _Begin(_Message):
    """First item of a writer."""

    offset: Offset


class _End(_Message):
    """Last item of a writer."""

    sha256: Sha256


# -- answers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """An item of `list`. What is neither file nor folder, or has a name that is no Unicode, cannot be had."""

    name: str
    kind: Literal["file", "folder", "other"]
    #: Bytes.
    size: int
    #: When it was changed last, in seconds since 1970.
    modified: float


@dataclass(frozen=True, slots=True)
class Found:
    """First item of `read`."""

    path: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Begin:
    """Second item of `read`: where the bytes that follow begin."""

    offset: int


@dataclass(frozen=True, slots=True)
class Opened:
    """First item of `write`: where the file will be."""

    path: str


@dataclass(frozen=True, slots=True)
class Kept:
    """Second item of `write`: how much is there from a copy that was interrupted."""

    offset: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Items of `write`, now and then: how much has been written."""

    written: int


@dataclass(frozen=True, slots=True)
class Whole:
    """Last item of `read`, and of `write`: the whole file."""

    size: int
    sha256: str


Item: TypeAlias = Entry | Found | Begin | Opened | Kept | Progress | Whole | bytes


# -- the module ----------------------------------------------------------------------------------------------------


class Files(Module):
    """
    Files below one folder: list, read, and write if the owner allows it.

    `bv copy` speaks to it. Requests: {"op": "list", "path": "docs"}, {"op": "read", "path": "docs/a.txt"},
    {"op": "write", "path": "docs/a.txt"} with the bytes as items.
    """

    # It gives away whatever is in a folder: only a file that says so serves it.
    drop_in = False

    class Config(BaseModel):
        """Settings of the module, from `config:` in bonevalue.yaml."""

        model_config = ConfigDict(extra="forbid", frozen=True)

        root: ExistingFolder = Field(description="The folder; a relative path starts from that of the settings file.")
        writable: bool = Field(default=False, description="Whether callers may write, and replace, files.")
        max_size: Size | None = Field(default=None, description="Bytes of the longest file to write. Null: no limit.")

    async def handle(self, request: Request, context: Context) -> AsyncGenerator[Item, None]:
        """Answer with a stream, of which docs/files.md tells."""
        if isinstance(request, List):
            return self._list(request)
        if isinstance(request, Read):
            return self._read(request)
        return self._write(request, context)

    async def _list(self, request: List) -> AsyncGenerator[Item, None]:
        path = _Path(self.config.root, request.path)
        listing = _Listing(path)
        try:
            await self._disk(path, listing.open)
            while batch := await self._disk(path, listing.next):
                for entry in batch:
                    yield entry
        finally:
            listing.close()

    async def _read(self, request: Read) -> AsyncGenerator[Item, None]:
        path = _Path(self.config.root, request.path)
        source = Source(path.shown, path.open_file)
        try:
            await self._disk(path, source.open)
            yield Found(path.shown, source.size, source.modified)
            if request.offset <= source.size:
                while source.position < request.offset:
                    await self._disk(path, source.hash_towards, request.offset)
                if request.sha256 not in (None, source.sha256):
                    source.rewind()
            elif request.sha256 is None:
                raise BadRequest(f"{path.shown} has {source.size} bytes: nothing begins at {request.offset}")
            yield Begin(source.position)
            while data := await self._disk(path, source.read):
                yield data
            await self._disk(path, source.check)
            yield Whole(source.position, source.sha256)
        finally:
            source.close()

    async def _write(self, request: Write, context: Context) -> AsyncGenerator[Item, None]:
        if not self.config.writable:
            raise Denied("these files are for reading only")
        self._check_size(request.size or 0)
        path = _Path(self.config.root, request.path, name=request.name)
        part = Part(path.open_target)
        report = _Report()
        try:
            await self._disk(path, part.open)
            yield Opened(part.shown)
            while part.position < part.size:
                await self._disk(path, part.hash_towards, part.size)
            yield Kept(part.position, part.sha256)
            await self._start(part, path, _message(_Begin, await anext(context.items, None)))
            async for item in context.items:
                if not isinstance(item, bytes):
                    break
                self._check_size(part.position + len(item))
                await self._disk(path, part.write, item)
                if report.is_due(part.position):
                    yield Progress(part.position)
            else:
                raise BadRequest(f"the bytes of {part.shown} ended without their SHA-256; they are kept")
            yield Progress(part.position)
            await self._install(part, path, _message(_End, item))
            yield Whole(part.position, part.sha256)
        finally:
            part.close()

    async def _start(self, part: Part, path: _Path, begin: _Begin) -> None:
        try:
            await self._disk(path, part.start, begin.offset)
        except ValueError as error:
            raise BadRequest(str(error)) from error

    async def _install(self, part: Part, path: _Path, end: _End) -> None:
        if end.sha256 != part.sha256:
            await self._disk(path, part.discard)
            raise BadRequest(f"{part.shown} came with another SHA-256 than it was sent with; copy it again")
        await self._disk(path, part.install)

    def _check_size(self, size: int) -> None:
        limit = self.config.max_size
        if limit is not None and size > limit:
            raise TooLarge(f"files of at most {size_text(limit)} are taken")

    async def _disk(self, path: _Path, work: Callable[..., T], *args: Any) -> T:
        """Do what blocks in a thread; what the system has against it is told to the caller."""
        try:
            return await in_thread(work, *args)
        except OSError as error:
            raise self._refusal(error, path.shown) from error

    def _refusal(self, error: OSError, shown: str) -> BoneValueError:
        kind, text = _REFUSALS.get(error.errno or 0, (Unavailable, ""))
        if not text:
            self.log.warning("%s: %s", shown, error)
            text = (error.strerror or str(error)).lower()
        return kind(f"{shown}: {text}")


_REFUSALS: dict[int, tuple[type[BoneValueError], str]] = {
    errno.ENOENT: (BadRequest, "no such file or folder"),
    errno.EISDIR: (BadRequest, "is a folder"),
    errno.ENOTDIR: (BadRequest, "leads through, or is, something that is no folder"),
    errno.ELOOP: (BadRequest, "leads through, or is, a link; links are not followed"),
    errno.ENXIO: (BadRequest, "is no regular file"),
    errno.ENAMETOOLONG: (BadRequest, "a name in it is too long"),
    errno.EMLINK: (Denied, "its partial file has a second name"),
    errno.EACCES: (Denied, "the system does not permit it"),
    errno.EPERM: (Denied, "the system does not permit it"),
    errno.EROFS: (Denied, "stands on a disk for reading only"),
    errno.ENOSPC: (Unavailable, "the disk is full"),
    errno.EDQUOT: (Unavailable, "the disk quota is used up"),
    errno.EFBIG: (TooLarge, "the system takes no file of that size"),
}


class _Report:
    """When a writer is to be told how far it is."""

    def __init__(self) -> None:
        self._told = 0
        self._told_at = time.monotonic()

    def is_due(self, position: int) -> bool:
        now = time.monotonic()
        if position - self._told < REPORT_BYTES and now - self._told_at < REPORT_SECONDS:
            return False
        self._told, self._told_at = position, now
        return True


def _message(kind: type[M], item: Any) -> M:
    try:
        return kind.model_validate(item)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise BadRequest(
            f'an upload has the items {{"offset": ...}}, bytes and {{"sha256": ...}}: {problem}'
        ) from error


# -- paths ---------------------------------------------------------------------------------------------------------


class _Path:
    """
    A path of a request, below the root. Its methods block.

    Args:
        root: the folder that is not to be left.
        text: the path as it came.
        name: what is to be in the path if that is a folder.

    Raises:
        BadRequest: it can be no path below the root.
    """

    def __init__(self, root: Path, text: str, *, name: str | None = None) -> None:
        if len(text) > MAX_PATH:
            raise BadRequest(f"a path has at most {MAX_PATH} letters")
        pieces = text.split("/")
        self._parts = [piece for piece in pieces if piece not in ("", ".")]
        self._says_folder = pieces[-1] in ("", ".")
        self._root = root
        self._name = name
        self.shown = "/".join(self._parts) or "."
        if text.startswith("/"):
            raise BadRequest("a path starts from the folder that is served: write it without the first slash")
        for part in self._parts:
            _check_name(part)
        if name is not None:
            _check_name(name)

    def open_file(self) -> int:
        """A descriptor to read the file from."""
        if self._says_folder:
            raise IsADirectoryError(errno.EISDIR, "")
        folder = self._open_folder(self._parts[:-1])
        try:
            name = self._parts[-1]
            check_kind(os.stat(name, dir_fd=folder, follow_symlinks=False))  # to open a device may do something already
            return os.open(name, os.O_RDONLY | OPEN_FLAGS, dir_fd=folder)
        finally:
            os.close(folder)

    def open_listing(self) -> int:
        """A descriptor to read the folder from."""
        folder = self._open_folder(self._parts)
        try:
            return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        finally:
            os.close(folder)

    def open_target(self) -> tuple[int, str, str]:
        """A descriptor of the folder to write to, the name of the file there, and its path."""
        if self._name is not None and (self._says_folder or self._is_folder()):
            self._parts.append(self._name)
            self.shown = "/".join(self._parts)
        elif self._says_folder:
            raise IsADirectoryError(errno.EISDIR, "")
        return self._open_folder(self._parts[:-1]), self._parts[-1], self.shown

    def _is_folder(self) -> bool:
        folder = self._open_folder(self._parts[:-1])
        try:
            return stat.S_ISDIR(os.stat(self._parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False
        finally:
            os.close(folder)

    def _open_folder(self, parts: list[str]) -> int:
        folder = os.open(self._root, _ENTER)
        for part in parts:
            try:
                below = _enter(folder, part)
            finally:
                os.close(folder)
            folder = below
        return folder


def _check_name(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise BadRequest("a name in the path is no Unicode") from None
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise BadRequest("a path has no .. and no NUL, and a name no slash: it stays in the folder that is served")
    if is_part(name):
        raise BadRequest("names that begin with . and end with .bv-part are kept for copies under way")


def _enter(folder: int, name: str) -> int:
    try:
        return os.open(name, _ENTER | os.O_NOFOLLOW, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "") from None
        raise


class _Listing:
    """A folder being read, in no order; its methods block."""

    def __init__(self, path: _Path) -> None:
        self._path = path
        self._folder = -1
        self._scan: os._ScandirIterator[str] | None = None

    def open(self) -> None:
        """Begin."""
        self._folder = self._path.open_listing()
        self._scan = os.scandir(self._folder)

    def next(self) -> list[Entry]:
        """The next entries, empty at the end."""
        while batch := list(islice(self._scan or (), BATCH)):
            if entries := [entry for found in batch if (entry := _entry(found)) is not None]:
                return entries
        return []

    def close(self) -> None:
        """End."""
        if self._scan is not None:
            self._scan.close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def _entry(found: os.DirEntry[str]) -> Entry | None:
    """None for what is not to be seen, or no longer there."""
    if is_part(found.name):
        return None
    try:
        facts = found.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    is_folder, is_file = stat.S_ISDIR(facts.st_mode), stat.S_ISREG(facts.st_mode)
    kind: Literal["file", "folder", "other"] = "folder" if is_folder else "file" if is_file else "other"
    name = os.fsencode(found.name).decode(errors="backslashreplace")
    if name != found.name:
        kind = "other"
    return Entry(name, kind, facts.st_size if is_file else 0, facts.st_mtime)
