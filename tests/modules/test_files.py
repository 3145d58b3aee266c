"""The file module, called directly: what it lists, gives and takes, and what it says when that cannot be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bonevalue import BadRequest, Busy, Denied, TooLarge, Unavailable
from bonevalue.copying import PIECE, part_name
from bonevalue.errors import BoneValueError
from bonevalue.loader import load_peer_file
from bonevalue.serving import ServedModule
from modules import files as files_module
from modules.files import Files
from tests.modules.conftest import CONTENT, REQUESTS, Asked, digest, everything

# -- list ------------------------------------------------------------------------------------------------------------


async def test_list_tells_what_is_there(files: Asked) -> None:
    os.utime(files.root / "docs" / "a.txt", (1_600_000_000.5, 1_600_000_000.5))
    assert await files.list("docs") == {"a.txt": {"kind": "file", "size": len(CONTENT), "modified": 1_600_000_000.5}}
    for path in ("", ".", "./"):
        root = await files.list(path)
        assert root.keys() == {"docs"} and root["docs"]["kind"] == "folder" and root["docs"]["size"] == 0


async def test_parts_are_not_listed_and_not_read(files: Asked) -> None:
    (files.root / part_name("b")).write_bytes(b"half")
    (files.root / part_name("folder")).mkdir()
    assert (await files.list()).keys() == {"docs"}
    for path in (part_name("b"), part_name("folder"), part_name("folder") + "/x"):
        for request_of in REQUESTS:
            with pytest.raises(BadRequest, match="copies under way"):
                await files.all(request_of(path))


async def test_a_long_list_comes_in_batches(files: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "BATCH", 8)
    names = {f"{number:03}" for number in range(100)}
    for name in names:
        (files.root / "docs" / name).touch()
        (files.root / "docs" / part_name(name)).touch()
    assert (await files.list("docs")).keys() == names | {"a.txt"}
    async with aclosing(files.stream({"op": "list", "path": "docs"})) as first:  # and one that is left
        assert (await anext(first))["kind"] == "file"


# -- read ------------------------------------------------------------------------------------------------------------


async def test_read_gives_facts_bytes_and_hash(files: Asked) -> None:
    items = await files.all({"op": "read", "path": "docs/a.txt"})
    modified = (files.root / "docs" / "a.txt").stat().st_mtime
    assert items[:2] == [{"path": "docs/a.txt", "size": len(CONTENT), "modified": modified}, {"offset": 0}]
    assert all(len(item) <= PIECE for item in items[2:-1]) and b"".join(items[2:-1]) == CONTENT
    assert items[-1] == {"size": len(CONTENT), "sha256": digest(CONTENT)}


async def test_an_empty_file(files: Asked) -> None:
    await files.write("empty", b"")
    facts, data = await files.read("empty")
    assert (facts["size"], data, facts["sha256"]) == (0, b"", digest(b""))


@pytest.mark.parametrize("offset", [1, PIECE, PIECE + 1, len(CONTENT) - 1, len(CONTENT)])
async def test_read_goes_on_where_the_caller_is(files: Asked, offset: int) -> None:
    for sha256 in (None, digest(CONTENT[:offset])):
        facts, data = await files.read("docs/a.txt", offset=offset, sha256=sha256)
        assert facts["offset"] == offset and data == CONTENT[offset:] and facts["sha256"] == digest(CONTENT)


@pytest.mark.parametrize("offset", [10, len(CONTENT) + 1, 2**62])
async def test_read_begins_anew_if_the_caller_has_something_else(files: Asked, offset: int) -> None:
    facts, data = await files.read("docs/a.txt", offset=offset, sha256=digest(b"something else"))
    assert facts["offset"] == 0 and data == CONTENT and facts["sha256"] == digest(CONTENT)


async def test_read_beyond_the_end_is_refused(files: Asked) -> None:
    with pytest.raises(BadRequest, match="nothing begins at"):
        await files.read("docs/a.txt", offset=len(CONTENT) + 1)


@pytest.mark.parametrize(("change", "words"), [(b"", "shorter"), (CONTENT + b"more", "was changed")])
async def test_a_file_that_changes_while_it_is_read(files: Asked, change: bytes, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        async for item in files.stream({"op": "read", "path": "docs/a.txt"}):
            if isinstance(item, bytes):
                (files.root / "docs" / "a.txt").write_bytes(change)
                os.utime(files.root / "docs" / "a.txt", (1, 1))


async def test_a_file_that_vanishes_while_it_is_read_is_read_to_its_end(files: Asked) -> None:
    data = b""
    async for item in files.stream({"op": "read", "path": "docs/a.txt"}):
        if isinstance(item, bytes):
            (files.root / "docs" / "a.txt").unlink(missing_ok=True)
            data += item
    assert data == CONTENT


# -- write -----------------------------------------------------------------------------------------------------------


async def test_write_tells_how_far_it_is(files: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "REPORT_BYTES", PIECE)
    pieces = [CONTENT[:PIECE], CONTENT[PIECE:]]
    items = await files.all(
        {"op": "write", "path": "b", "size": len(CONTENT)}, [{"offset": 0}, *pieces, {"sha256": digest(CONTENT)}]
    )
    assert items == [
        {"path": "b"},
        {"offset": 0, "sha256": digest(b"")},
        {"written": PIECE},
        {"written": len(CONTENT)},
        {"written": len(CONTENT)},
        {"size": len(CONTENT), "sha256": digest(CONTENT)},
    ]
    assert everything(files.root)["b"] == CONTENT


async def test_write_replaces_a_file(files: Asked) -> None:
    await files.write("docs/a.txt", b"new")
    assert everything(files.root) == {"docs": None, "docs/a.txt": b"new"}


@pytest.mark.parametrize(
    ("path", "there"),
    [("docs", "docs/b"), ("docs/", "docs/b"), ("", "b"), (".", "b"), ("new", "new"), ("docs/a.txt", "docs/a.txt")],
)
async def test_write_into_a_folder(files: Asked, path: str, there: str) -> None:
    items = await files.all({"op": "write", "path": path, "name": "b"}, [{"offset": 0}, b"x", {"sha256": digest(b"x")}])
    assert items[0] == {"path": there}
    assert everything(files.root)[there] == b"x"


@pytest.mark.parametrize("path", ["docs", "docs/", "", "."])
async def test_a_folder_is_not_replaced(files: Asked, path: str) -> None:
    with pytest.raises(BadRequest, match="is a folder"):
        await files.write(path, b"x")


@pytest.mark.parametrize("config", [{}, {"writable": False}])
async def test_without_leave_nothing_is_written(files: Asked, config: dict[str, Any]) -> None:
    before = everything(files.root)
    with pytest.raises(Denied, match="for reading only"):
        await Asked(files.root, **config).write("b", b"x")
    assert everything(files.root) == before


async def test_an_interrupted_copy_is_continued(files: Asked) -> None:
    with pytest.raises(BadRequest, match="ended without their SHA-256; they are kept"):
        await files.all({"op": "write", "path": "b"}, [{"offset": 0}, CONTENT[:1000]])
    assert (files.root / part_name("b")).read_bytes() == CONTENT[:1000] and not (files.root / "b").exists()
    async with aclosing(files.stream({"op": "write", "path": "b"})) as asked:
        assert [await anext(asked), await anext(asked)] == [
            {"path": "b"},
            {"offset": 1000, "sha256": digest(CONTENT[:1000])},
        ]
    assert await files.write("b", CONTENT, offset=1000) == {"size": len(CONTENT), "sha256": digest(CONTENT)}
    assert everything(files.root)["b"] == CONTENT


async def test_an_interrupted_copy_is_begun_anew(files: Asked) -> None:
    (files.root / part_name("b")).write_bytes(b"something else that is longer" * 100)
    await files.write("b", b"short")
    assert everything(files.root) == {"docs": None, "docs/a.txt": CONTENT, "b": b"short"}


@pytest.mark.parametrize("offset", [1, 999, 1001])
async def test_a_copy_goes_on_nowhere_else(files: Asked, offset: int) -> None:
    (files.root / part_name("b")).write_bytes(b"x" * 1000)
    with pytest.raises(BadRequest, match="begins at 0 or at 1000"):
        await files.write("b", CONTENT, offset=offset)


async def test_a_copy_with_another_hash_is_thrown_away(files: Asked) -> None:
    with pytest.raises(BadRequest, match="another SHA-256 than it was sent with; copy it again"):
        await files.write("docs/a.txt", b"new", sha256=digest(b"what was meant"))
    assert everything(files.root) == {"docs": None, "docs/a.txt": CONTENT}


@pytest.mark.parametrize(
    "items",
    [
        [],
        [b"x"],
        [None],
        [{"offset": -1}],
        [{"offset": "x"}],
        [{"sha256": digest(b"")}],
        [{"offset": 0}, {"sha256": "short"}],
        [{"offset": 0}, "text"],
        [{"offset": 0}, {"offset": 0}],
    ],
    ids=str,
)
async def test_items_of_another_form_are_refused(files: Asked, items: list[Any]) -> None:
    with pytest.raises(BadRequest, match=r"an upload has the items|ended without"):
        await files.all({"op": "write", "path": "b"}, items)
    assert everything(files.root) == {"docs": None, "docs/a.txt": CONTENT}


async def test_two_copies_to_one_path_are_not_mixed(files: Asked) -> None:
    async with aclosing(files.stream({"op": "write", "path": "b"})) as first:
        await anext(first)
        with pytest.raises(Busy, match="another copy to b is under way"):
            await files.write("b", b"second")
        await files.write("c", b"another path")
    await files.write("b", b"third")
    assert everything(files.root)["b"] == b"third"


async def test_files_may_have_a_limit(files: Asked) -> None:
    limited = Asked(files.root, writable=True, max_size="1KiB")
    await limited.write("b", b"x" * 1024, size=1024)
    with pytest.raises(TooLarge, match="at most 1KiB"):
        await limited.write("b", b"", size=1025)
    with pytest.raises(TooLarge, match="at most 1KiB"):
        await limited.write("b", b"x" * 1025)
    assert (files.root / "b").read_bytes() == b"x" * 1024


async def test_what_the_system_does_not_permit(files: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests may run as root, who may do everything.
    def refused(*_: Any, **__: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    for request_of in REQUESTS:
        with pytest.raises(Denied, match="the system does not permit it"):
            await files.all(request_of("docs/a.txt"))


async def test_a_fault_of_the_disk_is_told_and_logged(
    files: Asked, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(Unavailable, match=r"docs/a\.txt: input/output error"):
        await files.read("docs/a.txt")
    assert "Input/output error" in caplog.text


async def test_a_full_disk(files: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.pwrite

    def pwrite(file: int, data: bytes, offset: int) -> int:
        """Takes the first 1000 bytes."""
        if offset == 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(file, data[: 1000 - offset], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(Unavailable, match="b: the disk is full"):
        await files.write("b", CONTENT)
    assert (files.root / part_name("b")).read_bytes() == CONTENT[:1000]


FILE_SIZE = """
import asyncio, resource, sys
from pathlib import Path
from bonevalue import Context, Caller
from modules.files import Files, Write

async def items():
    yield {"offset": 0}
    yield b"x" * 100_000

async def main():
    request, context = Write(op="write", path="b"), Context(Caller("Us", "1", b"", ""), 0.0, "Files", items())
    try:
        async for _ in await Files({"root": sys.argv[1], "writable": True}).handle(request, context):
            pass
    except Exception as error:
        print(error.code)

resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
asyncio.run(main())
"""


def test_what_the_system_takes_no_more_of(tmp_path: Path) -> None:
    """The limit is one of the whole process, so this needs one of its own. What was written stays."""
    shown = subprocess.run(
        [sys.executable, "-c", FILE_SIZE, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert shown.stdout.strip() == "too_large", shown.stderr
    assert (tmp_path / part_name("b")).stat().st_size == 65_536


# -- settings --------------------------------------------------------------------------------------------------------


def test_the_root_must_be_given(tmp_path: Path) -> None:
    for config in ({}, {"root": str(tmp_path / "nothing")}, {"root": str(tmp_path), "writeable": True}):
        with pytest.raises(ValidationError):
            Files(config)
    assert not Files({"root": str(tmp_path)}).config.writable


def test_a_relative_root_starts_from_the_settings_file_and_a_folder_does_not_serve_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "modules").symlink_to(Path(files_module.__file__).parent)
    file = tmp_path / "bonevalue.yaml"
    server = "server: {address: ws://127.0.0.1:1}\ncredentials: {username: a, password: b}\nmodules:\n"
    monkeypatch.setattr(sys, "path", list(sys.path))
    file.write_text(f"{server} - folder: modules\n")
    assert "Files" not in [module.name for module in load_peer_file(file, environ={})[1]]
    file.write_text(f"{server} - {{class: modules.files.Files, config: {{root: public}}}}\n")
    (module,) = load_peer_file(file, environ={})[1]
    assert isinstance(module.source, Files) and module.source.config.root == tmp_path / "public"


def test_it_can_be_served_and_describes_itself(tmp_path: Path) -> None:
    served = ServedModule("Files", Files({"root": str(tmp_path)}))
    assert served.doc.startswith("Files below one folder")
    assert served.request_schema is not None and served.request_schema["discriminator"]["propertyName"] == "op"
    assert served.response_schema is not None


def test_every_refusal_is_one_that_callers_see() -> None:
    spoken = (BadRequest, Denied, TooLarge, Unavailable)
    assert all(
        issubclass(kind, spoken) and issubclass(kind, BoneValueError) for kind, _ in files_module._REFUSALS.values()
    )
