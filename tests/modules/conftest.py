"""The file module over a folder of a test, asked as a peer would."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from bonevalue import Caller, Context
from bonevalue.copying import PIECE
from modules.files import Files, Request

CALLER = Caller("Us", "123", b"\0" * 32, "")
REQUEST: TypeAdapter[Any] = TypeAdapter(Request)
CONTENT = os.urandom(2 * PIECE + 99)

#: One request of each kind, about a path.
REQUESTS: list[Callable[[str], dict[str, Any]]] = [
    lambda path: {"op": "list", "path": path},
    lambda path: {"op": "read", "path": path},
    lambda path: {"op": "write", "path": path},
    lambda path: {"op": "write", "path": path, "name": "a.txt"},
]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def sent(items: Iterable[Any]) -> AsyncIterator[Any]:
    """A request stream."""
    for item in items:
        yield item


def plain(item: Any) -> Any:
    """An item as it arrives."""
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else item


class Asked:
    """A module over one folder, asked as a peer would."""

    def __init__(self, root: Path, **config: Any) -> None:
        self.root = root
        self.module = Files({"root": str(root), **config})

    async def stream(self, request: dict[str, Any], items: Iterable[Any] = ()) -> AsyncGenerator[Any, None]:
        """The answer to a request, item by item."""
        context = Context(CALLER, 0.0, "Files", sent(items))
        async with aclosing(await self.module.handle(REQUEST.validate_python(request), context)) as answers:
            async for item in answers:
                yield plain(item)

    async def all(self, request: dict[str, Any], items: Iterable[Any] = ()) -> list[Any]:
        """The whole answer."""
        return [item async for item in self.stream(request, items)]

    async def list(self, path: str = "") -> dict[str, Any]:
        """The entries of a folder, by name."""
        return {entry.pop("name"): entry for entry in await self.all({"op": "list", "path": path})}

    async def read(self, path: str, **more: Any) -> tuple[dict[str, Any], bytes]:
        """Facts about a file, as it gives them, and the bytes."""
        facts: dict[str, Any] = {}
        data = b""
        for item in await self.all({"op": "read", "path": path, **more}):
            if isinstance(item, bytes):
                data += item
            else:
                facts |= item
        return facts, data

    async def write(self, path: str, data: bytes, *, offset: int = 0, sha256: str | None = None, **more: Any) -> Any:
        """Write a file, and give the last item."""
        pieces = [data[place : place + PIECE] for place in range(offset, len(data), PIECE)]
        end = {"sha256": sha256 or digest(data)}
        return (await self.all({"op": "write", "path": path, **more}, [{"offset": offset}, *pieces, end]))[-1]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that nobody may see or change."""
    path = tmp_path / "secret"
    path.write_bytes(b"secret")
    return path


@pytest.fixture
def files(tmp_path: Path, outside: Path) -> Asked:
    """A folder with a file and a folder, for reading and writing."""
    root = tmp_path / "public"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "a.txt").write_bytes(CONTENT)
    return Asked(root, writable=True)


def everything(folder: Path) -> dict[str, bytes | None]:
    """All names below a folder, with what the files hold."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.rglob("*")
    }
