"""`bv copy` without a network: how it reads its arguments, and what passes between it and a module."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, Self, cast

import pytest

from bonevalue import BadRequest, BoneValueError, Context, Denied, Unavailable
from bonevalue.cli.copy import place_of
from bonevalue.cli.copy_ends import CannotWrite, FileReceiver, FileSender
from bonevalue.cli.copy_progress import CopyProgress, size_for_people
from bonevalue.cli.copy_transfers import Damaged, Download, Place, Transfer, Upload
from bonevalue.copying import PIECE, part_name
from bonevalue.errors import LinkLost, RemoteProtocolError
from bonevalue.items import ReceivedItems
from bonevalue.peer_link import PeerLink
from bonevalue.serving import ServedModule
from bonevalue.target import Target
from modules.files import Files
from tests.cli.conftest import Bv
from tests.support.meeting import Meeting, meet
from tests.support.processes import peer_role, write_yaml

CONTENT = os.urandom(3 * PIECE + 5)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("bob:a.txt", Place("bob", "a.txt")),
        ("bob:docs/a.txt", Place("bob", "docs/a.txt")),
        ("Us:", Place("Us", "")),
        ("123:a:b", Place("123", "a:b")),
        ("*:a", Place("*", "a")),
        ("bob:/etc/passwd", Place("bob", "/etc/passwd")),
        ("a.txt", None),
        ("./a:b", None),
        ("docs/bob:a", None),
        ("/tmp/a:b", None),
        (":a", None),
        ("-", None),
        ("", None),
    ],
)
def test_a_colon_before_any_slash_makes_a_path_remote(text: str, place: Place | None) -> None:
    assert place_of(text) == place


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "b"), "one of them must be TARGET:PATH"),
        (("bob:a", "Us:b"), "one of them must be TARGET:PATH"),
        (("bob:docs/", "."), "only files are copied"),
        (("bob:", "."), "only files are copied"),
        (("bob:docs/..", "."), "only files are copied"),
        (("--json", "bob:a", "-"), "both want standard output"),
        (("a",), "Missing argument 'TO'"),
    ],
)
def test_wrong_usage(bv: Bv, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    refused = bv("copy", *arguments)
    assert refused.code == 2 and words in refused.stderr and len(refused.faults) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing", "bob:a"), "bv: cannot_read: nothing: no such file or directory"),
        (("there", "bob:a"), "bv: cannot_read: there: is a directory"),
        (("/dev/null", "bob:a"), "bv: cannot_read: /dev/null: is no regular file; use - and a pipe"),
        (("bob:a", "/dev/null"), "bv: cannot_write: /dev/null: is no regular file; use - and a pipe"),
        (("bob:a", "nothing/a"), "bv: cannot_write: nothing/a: no such file or directory"),
        (("bob:a", "nothing/"), "bv: cannot_write: nothing/a: no such file or directory"),
    ],
)
def test_faults_of_local_files_need_no_network(bv: Bv, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    write_yaml(folder / "bonevalue.yaml", peer_role(1))
    (folder / "there").mkdir()
    failed = bv("copy", *arguments)
    assert (failed.code, failed.faults) == (1, [words])
    assert os.listdir(folder / "there") == []


def test_sizes_for_people() -> None:
    shown = [size_for_people(size) for size in (0, 1023, 1024, 1_500_000, 64 * 2**20, 3 * 2**40, 2**60)]
    assert shown == ["0 bytes", "1023 bytes", "1.0 KiB", "1.4 MiB", "64.0 MiB", "3.0 TiB", "1048576.0 TiB"]


# -- transfers -------------------------------------------------------------------------------------------------------


class Stream:
    """The stream of a call over one link, as a target gives it."""

    def __init__(self, opened: Coroutine[Any, Any, ReceivedItems]) -> None:
        self._opened = opened
        self._items: ReceivedItems

    async def __aenter__(self) -> Self:
        self._items = await self._opened
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._items.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._items)


class Linked:
    """Stands for the target of a peer at the other end of a link."""

    def __init__(self, link: PeerLink) -> None:
        self._link = link

    def stream(
        self, module: str, request: Any, *, items: Any = None, timeout: float | None = None, keep_alive: bool = True
    ) -> Stream:
        # The link is kept whatever is asked: there is nobody to make another one.
        return Stream(self._link.open_stream(module, request, timeout or 10.0, True, items))


class Steps(CopyProgress):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.size: int | None = None
        self.reached: list[int] = []

    def expect(self, size: int | None) -> None:
        self.size = size

    def start(self, position: int) -> None:
        self.reached.append(position)

    def reach(self, position: int) -> None:
        self.reached.append(position)


class Copying:
    """A folder here, one that a peer serves, and a link to it."""

    def __init__(self, folder: Path, meeting: Meeting) -> None:
        self.here = folder / "here"
        self.there = folder / "there"
        self.here.mkdir()
        self.there.mkdir()
        self.meeting = meeting
        self.serve(Files({"root": str(self.there), "writable": True}))

    def serve(self, source: Any) -> None:
        """Serve something else as Files."""
        self.meeting.their_host.modules["Files"] = ServedModule("Files", source)

    async def run(self, transfer: Transfer) -> Transfer:
        """Do it."""
        with closing(transfer):
            await transfer.open()
            await transfer.run(cast(Target, Linked(self.meeting.ours)), None)
        return transfer

    async def upload(self, path: str, *, resume: bool = True) -> Transfer:
        """Copy the local file ``a`` to a path of the peer."""
        sender = FileSender(str(self.here / "a"))
        return await self.run(Upload(sender, "Files", Place("x", path), resume=resume, shown="a", progress=Steps()))

    async def download(self, path: str, *, resume: bool = True) -> Transfer:
        """Copy a file of the peer to the local file ``a``."""
        receiver = FileReceiver(str(self.here / "a"))
        return await self.run(Download(receiver, "Files", Place("x", path), resume=resume, shown="a", progress=Steps()))


@pytest.fixture
async def copying(tmp_path: Path) -> AsyncIterator[Copying]:
    meeting = await meet()
    yield Copying(tmp_path, meeting)
    await meeting.close()


def steps(transfer: Transfer) -> Steps:
    return cast(Steps, transfer.progress)


async def test_to_a_peer(copying: Copying) -> None:
    (copying.here / "a").write_bytes(CONTENT)
    (copying.there / "docs").mkdir()
    for path, there in (("b", "b"), ("docs", "docs/a"), ("docs/", "docs/a"), ("", "a")):
        done = await copying.upload(path)
        assert (done.path, done.position, done.sha256) == (there, len(CONTENT), digest(CONTENT))
        assert (copying.there / there).read_bytes() == CONTENT
        assert steps(done).size == len(CONTENT) and steps(done).reached[-1] == len(CONTENT)


async def test_from_a_peer(copying: Copying) -> None:
    (copying.there / "b").write_bytes(CONTENT)
    done = await copying.download("b")
    assert (done.path, done.position, done.sha256) == ("b", len(CONTENT), digest(CONTENT))
    assert os.listdir(copying.here) == ["a"] and (copying.here / "a").read_bytes() == CONTENT
    assert steps(done).size == len(CONTENT) and steps(done).reached[-1] == len(CONTENT)


async def test_an_empty_file_both_ways(copying: Copying) -> None:
    (copying.here / "a").write_bytes(b"")
    await copying.upload("b")
    await copying.download("b")
    assert (copying.here / "a").read_bytes() == (copying.there / "b").read_bytes() == b""


async def test_a_local_link_is_followed(copying: Copying) -> None:
    (copying.here / "a").symlink_to("really")
    (copying.there / "b").write_bytes(CONTENT)
    await copying.download("b")
    assert (copying.here / "a").is_symlink() and (copying.here / "really").read_bytes() == CONTENT
    await copying.upload("c")
    assert (copying.there / "c").read_bytes() == CONTENT


#: What an interrupted copy left, and where the next one then begins.
LEFT = [
    pytest.param(CONTENT[:1000], 1000, id="the beginning"),
    pytest.param(CONTENT, len(CONTENT), id="all"),
    pytest.param(b"something else", 0, id="something else"),
    pytest.param(CONTENT + b"more", 0, id="more"),
    pytest.param(b"", 0, id="nothing"),
]


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(("left", "offset"), LEFT)
async def test_going_on_to_a_peer(copying: Copying, left: bytes, offset: int, resume: bool) -> None:
    (copying.here / "a").write_bytes(CONTENT)
    (copying.there / part_name("b")).write_bytes(left)
    done = await copying.upload("b", resume=resume)
    assert done.resumed_at == (offset if resume else 0)
    assert os.listdir(copying.there) == ["b"] and (copying.there / "b").read_bytes() == CONTENT


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(("left", "offset"), LEFT)
async def test_going_on_from_a_peer(copying: Copying, left: bytes, offset: int, resume: bool) -> None:
    (copying.there / "b").write_bytes(CONTENT)
    (copying.here / part_name("a")).write_bytes(left)
    done = await copying.download("b", resume=resume)
    assert done.resumed_at == (offset if resume else 0)
    assert os.listdir(copying.here) == ["a"] and (copying.here / "a").read_bytes() == CONTENT


async def test_a_local_file_that_changes(copying: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
    (copying.here / "a").write_bytes(CONTENT)
    (copying.there / "b").write_bytes(b"old")
    really = FileSender.read

    async def read(self: FileSender) -> bytes:
        os.utime(copying.here / "a", (1, 1))
        return await really(self)

    monkeypatch.setattr(FileSender, "read", read)
    with pytest.raises(Unavailable, match="was changed while it was copied"):
        await copying.upload("b")
    assert (copying.there / "b").read_bytes() == b"old"


async def test_a_local_disk_that_is_full(copying: Copying, monkeypatch: pytest.MonkeyPatch) -> None:
    (copying.there / "b").write_bytes(CONTENT)
    really = os.pwrite

    def pwrite(file: int, data: bytes, offset: int) -> int:
        if offset >= PIECE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(file, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(CannotWrite, match="no space left on device"):
        await copying.download("b")
    monkeypatch.undo()
    assert (await copying.download("b")).resumed_at == PIECE


async def test_a_link_that_is_lost(copying: Copying) -> None:
    (copying.there / "b").write_bytes(CONTENT)

    class Cutting(Steps):
        def reach(self, position: int) -> None:
            if position >= PIECE:
                copying.meeting.theirs.close()

    receiver = FileReceiver(str(copying.here / "a"))
    lost = Download(receiver, "Files", Place("x", "b"), resume=True, shown="a", progress=Cutting())
    with pytest.raises(LinkLost):
        await copying.run(lost)
    assert lost.kept and (copying.here / part_name("a")).stat().st_size == lost.position >= PIECE


# -- peers that do not do as they should -----------------------------------------------------------------------------


async def test_another_module_is_told_apart(copying: Copying) -> None:
    (copying.here / "a").write_bytes(CONTENT)

    async def echo(request: Any) -> Any:
        return request

    copying.serve(echo)
    for copy in (copying.upload, copying.download):
        with pytest.raises(RemoteProtocolError, match="does not answer as the module Files does"):
            await copy("b")


FOUND, BEGIN = {"path": "b", "size": 4, "modified": 0.0}, {"offset": 0}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([], RemoteProtocolError),
        ([FOUND], RemoteProtocolError),
        ([FOUND, {"offset": 7}, b"data"], RemoteProtocolError),
        ([FOUND, {"offset": -1}], RemoteProtocolError),
        ([{**FOUND, "size": -1}, BEGIN], RemoteProtocolError),
        ([{**FOUND, "size": "4"}, BEGIN], RemoteProtocolError),
        ([FOUND, BEGIN, b"more data"], RemoteProtocolError),
        ([FOUND, BEGIN, b"data", 1], RemoteProtocolError),
        ([FOUND, BEGIN, b"data"], Damaged),
        ([FOUND, BEGIN, b"dat", {"size": 3, "sha256": digest(b"data")}], Damaged),
        ([FOUND, BEGIN, b"atad", {"size": 4, "sha256": digest(b"data")}], Damaged),
        ([FOUND, BEGIN, b"data", {"size": 5, "sha256": digest(b"data")}], Damaged),
    ],
    ids=str,
)
async def test_what_a_peer_gives_wrongly_is_not_put_in_place(
    copying: Copying, answer: list[Any], error: type[BoneValueError]
) -> None:
    (copying.here / "a").write_bytes(b"old")

    async def give(request: Any) -> AsyncGenerator[Any, None]:
        for item in answer:
            yield item

    copying.serve(give)
    with pytest.raises(error):
        await copying.download("b")
    assert (copying.here / "a").read_bytes() == b"old"
    if error is Damaged:
        assert os.listdir(copying.here) == ["a"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([], RemoteProtocolError),
        ([{"path": "b"}, {"offset": 0}], RemoteProtocolError),
        ([{"path": "b"}, {"offset": 0, "sha256": ""}, {"written": -1}], RemoteProtocolError),
        ([{"path": "b"}, {"offset": 0, "sha256": ""}, {"written": 1}], Damaged),
        ([{"path": "b"}, {"offset": 0, "sha256": ""}, {"size": 5, "sha256": digest(b"other")}], Damaged),
    ],
    ids=str,
)
async def test_what_a_peer_says_of_what_it_got_is_checked(
    copying: Copying, answer: list[Any], error: type[BoneValueError]
) -> None:
    (copying.here / "a").write_bytes(b"data")

    async def take(request: Any, context: Context) -> AsyncGenerator[Any, None]:
        for item in answer:
            yield item

    copying.serve(take)
    with pytest.raises(error):
        await copying.upload("b")


async def test_what_the_module_refuses_is_told(copying: Copying) -> None:
    (copying.here / "a").write_bytes(CONTENT)
    with pytest.raises(BadRequest, match="nothing: no such file or folder"):
        await copying.download("nothing")
    with pytest.raises(BadRequest, match="write it without the first slash"):
        await copying.upload("/etc/passwd")
    copying.serve(Files({"root": str(copying.there)}))
    with pytest.raises(Denied, match="for reading only"):
        await copying.upload("b")
    assert os.listdir(copying.there) == []
