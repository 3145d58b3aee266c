"""Nothing leads out of the folder of the file module: paths of all kinds, links, and what is no file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bonevalue import BadRequest
from bonevalue.copying import part_name
from tests.modules.conftest import CONTENT, REQUESTS, Asked, digest, everything

# -- paths -----------------------------------------------------------------------------------------------------------

LEADS_OUT = [
    "..",
    "../secret",
    "../public/docs/a.txt",
    "docs/..",
    "docs/../docs/a.txt",
    "docs/../../secret",
    "./../secret",
    "docs//..//../secret",
    "docs/./../../secret",
    "../" * 1000 + "etc/passwd",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "/docs/a.txt",
    "docs/a.txt\0",
    "docs\0/../../secret",
    "\0",
    "docs/" + "x/" * 3000 + "a.txt",
    "\udcff",
    "docs/\ud800",
]

LEADS_NOWHERE = [
    "%2e%2e/secret",
    "..%2fsecret",
    "%2e%2e%2fsecret",
    "..%c0%af..%c0%afsecret",
    "..\\secret",
    "..\\..\\secret",
    "...",
    "..../secret",
    ".. /secret",
    " ../secret",
    "‥/secret",
    "．．/secret",
    "docs／a.txt",
    "~",
    "~root/secret",
    "$HOME",
    "file:///etc/passwd",
    "C:\\secret",
    "-",
    "nothing",
    "docs/nothing/a.txt",
    "docs/a.txt/b",
    "docs/a.txt/",
    "docs/a.txt/.",
    "A" * 255,
    "A" * 256,
    "é" * 2000,
]


@pytest.mark.parametrize("request_of", REQUESTS, ids=["list", "read", "write", "write into"])
@pytest.mark.parametrize("path", LEADS_OUT, ids=lambda path: ascii(path[:40]))
async def test_no_path_leads_out(files: Asked, tmp_path: Path, request_of: Callable[[str], Any], path: str) -> None:
    before = everything(tmp_path)
    with pytest.raises(BadRequest):
        await files.all(request_of(path), [{"offset": 0}, b"x", {"sha256": digest(b"x")}])
    assert everything(tmp_path) == before


@pytest.mark.parametrize("path", LEADS_NOWHERE, ids=lambda path: ascii(path[:40]))
async def test_what_is_no_name_of_the_folder_is_not_found(files: Asked, path: str) -> None:
    with pytest.raises(BadRequest):
        await files.list(path)
    with pytest.raises(BadRequest):
        await files.read(path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0", "\ud800", ".a.bv-part"])
async def test_a_name_for_a_folder_is_one_name(files: Asked, tmp_path: Path, name: str) -> None:
    before = everything(tmp_path)
    with pytest.raises(BadRequest):
        await files.write("docs", b"x", name=name)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("path", ["docs/a.txt", "./docs/a.txt", "docs//a.txt", "docs/./a.txt"])
async def test_several_ways_to_write_one_path(files: Asked, path: str) -> None:
    facts, data = await files.read(path)
    assert facts["path"] == "docs/a.txt" and data == CONTENT


@pytest.mark.parametrize(
    "name", ["ü.txt", "報告.txt", "a b", "a\nb", "-rf", "a:b", "‥", "e\u0301", "\u202etxt.exe", ".hidden"]
)
async def test_any_other_name_will_do(files: Asked, name: str) -> None:
    await files.write(name, b"x")
    assert (await files.read(name))[1] == b"x"
    assert (files.root / name).read_bytes() == b"x"
    assert name in await files.list()


async def test_the_longest_name_leaves_room_for_that_of_the_part(files: Asked) -> None:
    longest = 255 - len(part_name(""))
    await files.write("A" * longest, b"x")
    with pytest.raises(BadRequest, match="too long"):
        await files.write("A" * (longest + 1), b"x")


# -- links and other things ------------------------------------------------------------------------------------------


@pytest.fixture
def traps(files: Asked, outside: Path, tmp_path: Path) -> Iterator[list[str]]:
    """Names in the folder of what is not to be followed, opened or replaced."""
    root = files.root
    (root / "link").symlink_to(outside)
    (root / "relative").symlink_to("../secret")
    (root / "inner").symlink_to("docs/a.txt")
    (root / "dangling").symlink_to("../new")
    (root / "circle").symlink_to("circle")
    (root / "folder-link").symlink_to(tmp_path)
    (root / "inner-folder").symlink_to("docs")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(root)  # the path of a socket may have no more than 107 bytes
        listening.bind("socket")
        os.chdir(here)
        yield [
            *("link", "relative", "inner", "dangling", "circle", "folder-link", "inner-folder", "pipe", "socket"),
            *("folder-link/secret", "inner-folder/a.txt", "folder-link/public/docs/a.txt"),
            *("folder-link/new", "inner-folder/new"),
        ]


async def test_no_link_is_followed_and_nothing_odd_is_opened(files: Asked, traps: list[str], tmp_path: Path) -> None:
    before = everything(tmp_path)
    for path in traps:
        for request_of in REQUESTS:
            with pytest.raises(BadRequest):
                await files.all(request_of(path), [{"offset": 0}, b"x", {"sha256": digest(b"x")}])
    assert everything(tmp_path) == before


async def test_a_link_in_the_middle_is_named(files: Asked, traps: list[str]) -> None:
    with pytest.raises(BadRequest, match="a link; links are not followed"):
        await files.read("inner-folder/a.txt")
    with pytest.raises(BadRequest, match="a link; links are not followed"):
        await files.read("inner")


async def test_what_cannot_be_had_is_listed_as_such(files: Asked, traps: list[str]) -> None:
    os.mkdir(os.fsencode(files.root) + b"/\xff\xfe")
    kinds = {name: entry["kind"] for name, entry in (await files.list()).items()}
    assert kinds.pop("docs") == "folder"
    assert kinds == dict.fromkeys([*(name for name in traps if "/" not in name), "\\xff\\xfe"], "other")


def test_a_device_is_not_even_opened(tmp_path: Path) -> None:
    """To open some of them does something already. The system's own are below a folder, too."""
    shown = subprocess.run(
        [sys.executable, "-c", DEVICE], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert shown.stdout.split() == ["bad_request", "False"], shown.stderr


DEVICE = """
import asyncio, os
from modules.files import Files, Read

opened = []
os.open, really = lambda path, *more, **named: opened.append(path) or really(path, *more, **named), os.open

async def main():
    try:
        async for _ in await Files({"root": "/dev"}).handle(Read(op="read", path="zero"), None):
            pass
    except Exception as error:
        print(error.code)

asyncio.run(main())
print("zero" in opened)
"""


class Swap:
    """Puts a link into the place of a folder between two steps of a walk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, target: Path, *, before: str) -> None:
        self.swapped = False
        really = os.open

        def swapping(path: Any, *args: Any, **kwargs: Any) -> int:
            if path == before and "dir_fd" in kwargs and not self.swapped:
                self.swapped = True
                folder.rename(folder.with_name("moved"))
                folder.symlink_to(target)
            return really(path, *args, **kwargs)

        monkeypatch.setattr(os, "open", swapping)


async def test_a_link_put_in_before_its_folder_is_opened(
    files: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(b"secret")
    swap = Swap(monkeypatch, files.root / "docs", tmp_path, before="docs")
    with pytest.raises(BadRequest, match="link"):
        await files.read("docs/a.txt")
    assert swap.swapped


async def test_a_link_put_in_after_its_folder_was_opened(
    files: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes(b"secret")
    swap = Swap(monkeypatch, files.root / "docs", tmp_path, before="a.txt")
    assert (await files.read("docs/a.txt"))[1] == CONTENT
    assert swap.swapped


async def test_a_file_that_becomes_a_link_between_look_and_opening(
    files: Asked, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Swap(monkeypatch, files.root / "docs" / "a.txt", outside, before="a.txt")
    with pytest.raises(BadRequest, match="link"):
        await files.read("docs/a.txt")
    assert swap.swapped


async def test_a_link_put_in_while_a_file_is_written(files: Asked, tmp_path: Path, outside: Path) -> None:
    def items() -> Iterator[Any]:
        yield {"offset": 0}
        yield b"new"
        (files.root / "docs").rename(files.root / "moved")
        (files.root / "docs").symlink_to(tmp_path)
        yield {"sha256": digest(b"new")}

    await files.all({"op": "write", "path": "docs/secret"}, items())
    assert everything(outside.parent)["secret"] == b"secret"
    assert (files.root / "moved" / "secret").read_bytes() == b"new"


async def test_a_target_that_becomes_a_link_is_not_followed(files: Asked, outside: Path) -> None:
    def items() -> Iterator[Any]:
        yield {"offset": 0}
        yield b"new"
        (files.root / "b").symlink_to(outside)
        yield {"sha256": digest(b"new")}

    with pytest.raises(BadRequest, match="link"):
        await files.all({"op": "write", "path": "b"}, items())
    assert everything(outside.parent)["secret"] == b"secret"


async def test_a_part_that_is_a_link_is_not_followed(files: Asked, outside: Path) -> None:
    (files.root / part_name("b")).symlink_to(outside)
    with pytest.raises(BadRequest, match="link"):
        await files.write("b", b"new")
    assert everything(outside.parent)["secret"] == b"secret"
