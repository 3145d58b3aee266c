"""A source and a part: pieces, running SHA-256, what stays and what does not, and what others do to the files."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bonevalue.copying import PIECE, Part, Source, in_thread, is_part, part_name
from bonevalue.errors import Busy, Unavailable
from tests.support.waiting import until

CONTENT = os.urandom(3 * PIECE + 17)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def source(file: Path) -> Iterator[Source]:
    source = Source("a.bin", lambda: os.open(file, os.O_RDONLY))
    source.open()
    yield source
    source.close()


@pytest.fixture
def part_of(tmp_path: Path) -> Iterator[Callable[[str], Part]]:
    """Gives the part of a name in the folder of the test, not open yet."""
    parts: list[Part] = []

    def make(name: str) -> Part:
        parts.append(Part(lambda: (os.open(tmp_path, os.O_RDONLY), name, name)))
        return parts[-1]

    yield make
    for part in parts:
        part.close()


def read_all(source: Source) -> bytes:
    return b"".join(iter(source.read, b""))


# -- source ----------------------------------------------------------------------------------------------------------


def test_a_source_gives_pieces_and_their_hash(source: Source) -> None:
    assert source.size == len(CONTENT)
    first = source.read()
    assert first == CONTENT[:PIECE] and source.sha256 == digest(first)
    assert first + read_all(source) == CONTENT and source.sha256 == digest(CONTENT)
    source.check()


async def test_a_source_goes_on_from_an_offset(source: Source) -> None:
    await source.hash_to(1000)
    assert (source.position, source.sha256) == (1000, digest(CONTENT[:1000]))
    assert read_all(source) == CONTENT[1000:] and source.sha256 == digest(CONTENT)
    source.rewind()
    assert source.sha256 == digest(b"") and read_all(source) == CONTENT


def test_a_source_that_shrinks_is_noticed(source: Source, file: Path) -> None:
    source.read()
    os.truncate(file, PIECE)
    with pytest.raises(Unavailable, match=r"a\.bin became shorter"):
        source.read()


@pytest.mark.parametrize("change", [b"longer", b""], ids=["grown", "touched"])
def test_a_source_that_changes_is_noticed_at_the_end(source: Source, file: Path, change: bytes) -> None:
    read_all(source)
    with file.open("ab") as appended:
        appended.write(change)
    os.utime(file, ns=(1, 1))
    with pytest.raises(Unavailable, match="was changed"):
        source.check()


def test_a_source_is_a_regular_file(tmp_path: Path) -> None:
    folder = Source("it", lambda: os.open(tmp_path, os.O_RDONLY))
    with pytest.raises(IsADirectoryError):
        folder.open()
    folder.close()
    device = Source("it", lambda: os.open("/dev/null", os.O_RDONLY))
    with pytest.raises(OSError) as caught:
        device.open()
    assert caught.value.errno == errno.ENXIO
    device.close()


# -- part ------------------------------------------------------------------------------------------------------------


def test_a_part_takes_the_place_of_its_target_when_it_is_whole(tmp_path: Path, part_of: Callable[[str], Part]) -> None:
    (tmp_path / "b").write_bytes(b"old")
    part = part_of("b")
    part.open()
    part.start(0)
    part.write(CONTENT)
    assert (tmp_path / "b").read_bytes() == b"old"
    assert part.sha256 == digest(CONTENT)
    part.install()
    assert (tmp_path / "b").read_bytes() == CONTENT and os.listdir(tmp_path) == ["b"]
    part.close()
    assert os.listdir(tmp_path) == ["b"]


async def test_a_part_is_continued(tmp_path: Path, part_of: Callable[[str], Part]) -> None:
    first = part_of("b")
    first.open()
    first.start(0)
    first.write(CONTENT[:5000])
    first.close()
    second = part_of("b")
    second.open()
    assert second.size == 5000
    await second.hash_to(second.size)
    assert second.sha256 == digest(CONTENT[:5000])
    second.start(5000)
    second.write(CONTENT[5000:])
    second.install()
    assert (tmp_path / "b").read_bytes() == CONTENT and second.sha256 == digest(CONTENT)


async def test_a_part_is_begun_anew(tmp_path: Path, part_of: Callable[[str], Part]) -> None:
    (tmp_path / part_name("b")).write_bytes(CONTENT)
    part = part_of("b")
    part.open()
    await part.hash_to(part.size)
    with pytest.raises(ValueError, match="begins at 0 or at"):
        part.start(7)
    part.start(0)
    part.write(b"new")
    part.install()
    assert (tmp_path / "b").read_bytes() == b"new"


def test_an_empty_part_does_not_stay_and_a_discarded_one_neither(
    tmp_path: Path, part_of: Callable[[str], Part]
) -> None:
    empty = part_of("b")
    empty.open()
    assert os.listdir(tmp_path) == [part_name("b")]
    empty.close()
    assert os.listdir(tmp_path) == []
    wrong = part_of("b")
    wrong.open()
    wrong.write(b"wrong")
    wrong.discard()
    wrong.close()
    assert os.listdir(tmp_path) == []


def test_one_copy_at_a_time(part_of: Callable[[str], Part]) -> None:
    first, second, other = part_of("b"), part_of("b"), part_of("c")
    first.open()
    with pytest.raises(Busy, match="another copy to b is under way"):
        second.open()
    other.open()
    first.close()
    second.open()


def test_a_lock_on_what_has_become_the_target_does_not_count(
    tmp_path: Path, part_of: Callable[[str], Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = part_of("b"), part_of("b")
    first.open()
    first.write(b"first")
    really = os.open

    def open_late(*args: object, **kwargs: object) -> int:
        """Gives the part to the second copy in the moment before the first one has put it in place."""
        file = really(*args, **kwargs)  # type: ignore[arg-type]
        monkeypatch.setattr(os, "open", really)
        first.install()
        first.close()
        return file

    folder = os.open(tmp_path, os.O_RDONLY)
    second = Part(lambda: (folder, "b", "b"))
    monkeypatch.setattr(os, "open", open_late)
    second.open()
    second.write(b"second")
    assert (tmp_path / "b").read_bytes() == b"first"
    second.install()
    second.close()
    assert (tmp_path / "b").read_bytes() == b"second"


@pytest.mark.parametrize("mode", [0o640, 0o755, 0o400])
def test_permissions_of_what_is_replaced_are_kept(tmp_path: Path, part_of: Callable[[str], Part], mode: int) -> None:
    (tmp_path / "b").write_bytes(b"old")
    (tmp_path / "b").chmod(mode)
    part = part_of("b")
    part.open()
    meanwhile = stat.S_IMODE((tmp_path / part_name("b")).stat().st_mode)
    assert meanwhile & ~(mode | 0o200) == 0
    part.write(b"new")
    part.install()
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == mode


def test_a_part_that_is_taken_away_is_not_put_in_place(tmp_path: Path, part_of: Callable[[str], Part]) -> None:
    part = part_of("b")
    part.open()
    part.write(b"new")
    (tmp_path / part_name("b")).write_bytes(b"")
    os.rename(tmp_path / part_name("b"), tmp_path / "elsewhere")
    (tmp_path / part_name("b")).write_bytes(b"somebody else's")
    with pytest.raises(Unavailable, match="taken away"):
        part.install()
    part.close()
    assert (tmp_path / part_name("b")).read_bytes() == b"somebody else's"


@pytest.mark.parametrize(
    ("put_there", "number"),
    [
        (lambda path, other: path.symlink_to(other), errno.ELOOP),
        (lambda path, other: os.link(other, path), errno.EMLINK),
        (lambda path, other: os.mkfifo(path), errno.ENXIO),
        (lambda path, other: path.mkdir(), errno.EISDIR),
    ],
    ids=["link", "second name", "pipe", "folder"],
)
def test_what_is_in_the_place_of_the_part_is_not_written_to(
    tmp_path: Path, part_of: Callable[[str], Part], put_there: Callable[[Path, Path], object], number: int
) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not yours")
    put_there(tmp_path / part_name("b"), other)
    with pytest.raises(OSError) as caught:
        part_of("b").open()
    assert caught.value.errno == number
    assert other.read_bytes() == b"not yours"


@pytest.mark.parametrize(
    ("put_there", "number"),
    [
        (lambda path: path.symlink_to("other"), errno.ELOOP),
        (lambda path: path.mkdir(), errno.EISDIR),
        (lambda path: os.mkfifo(path), errno.ENXIO),
    ],
    ids=["link", "folder", "pipe"],
)
def test_only_a_regular_file_is_replaced(
    tmp_path: Path, part_of: Callable[[str], Part], put_there: Callable[[Path], object], number: int
) -> None:
    early = part_of("early")
    early.open()
    early.write(b"x")
    put_there(tmp_path / "late")
    put_there(tmp_path / "early")
    with pytest.raises(OSError) as caught:
        part_of("late").open()
    assert caught.value.errno == number
    with pytest.raises(OSError) as caught:
        early.install()
    assert caught.value.errno == number


def test_names_of_parts() -> None:
    assert is_part(part_name("a.txt")) and not is_part("a.bv-part") and not is_part(".a.part")


# -- threads ---------------------------------------------------------------------------------------------------------


async def test_a_cancelled_task_waits_for_its_thread() -> None:
    begun, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        may_end.wait(10)
        ended.set()

    task = asyncio.ensure_future(in_thread(work))
    await until(begun.is_set)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # not even twice
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_thread_gives_its_result_or_error() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)
