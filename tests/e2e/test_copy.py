"""`bv copy` between processes: both ways, cut off in every way, and with bounded memory."""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import os
import pty
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL, Signals
from typing import Any

import pytest

from tests.support.processes import (
    BIN,
    PASSWORD,
    PATIENCE,
    Daemon,
    Finished,
    bv,
    clean_environment,
    daemons,
    discovery_role,
    free_port,
    peer_role,
    write_yaml,
)
from tests.support.waiting import UNIT

MODULE = Path(__file__).parents[2] / "modules" / "files.py"
MIB = 2**20
#: Long enough to be interrupted somewhere in the middle.
LONG = 8 * MIB
#: A lost link is noticed within three beats.
POOL = {"heartbeat": "500ms"}
_NUMBERS = itertools.count()


def fill(path: Path, size: int) -> str:
    """Write so many random bytes, and give their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while size:
            piece = os.urandom(min(size, MIB))
            digest.update(piece)
            file.write(piece)
            size -= len(piece)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def part_of(path: Path) -> Path:
    """Where a file is while it is copied."""
    return path.with_name(f".{path.name}.bv-part")


class World:
    """A discovery server, and daemons that serve folders."""

    def __init__(self, folder: Path, running: list[Daemon]) -> None:
        self.port = free_port()
        self.folder = folder
        self.running = running
        server = write_yaml(folder / "server" / "bonevalue.yaml", discovery_role(self.port, {"admin": PASSWORD}))
        self.start(server).wait_for("listens on")
        self.daemon, self.id = self.serve("files")

    def start(self, file: Path, *args: str, script: str = "bv-run") -> Daemon:
        daemon = Daemon(file, *args, script=script)
        self.running.append(daemon)
        return daemon

    def serve(self, who: str, *, module: bool = True) -> tuple[Daemon, str]:
        """Start a daemon that serves `public` of a folder, and give its id."""
        folder = self.folder / who
        (folder / "public").mkdir(parents=True, exist_ok=True)
        (folder / "modules").mkdir(exist_ok=True)
        shutil.copy(MODULE, folder / "modules")
        entry = {"class": "modules.files.Files", "config": {"root": "public", "writable": True}}
        role = peer_role(self.port, modules=[entry] if module else [], pool=POOL)
        daemon = self.start(write_yaml(folder / "bonevalue.yaml", role))
        return daemon, daemon.wait_for(r"online as \w+, peer (\d+)")[1]


class User:
    """Somebody with a folder here, `here`, and one of the folder that the daemon serves, `there`."""

    def __init__(self, world: World, name: str, *, root: str = "files") -> None:
        self.world = world
        self.here = world.folder / f"user-{name}"
        self.there = world.folder / root / "public" / name
        self.there.mkdir()
        #: The path of `there` for the command.
        self.remote = f"{world.id}:{name}/"
        self.file = write_yaml(self.here / "bonevalue.yaml", peer_role(world.port, pool=POOL))

    def copy(self, *args: str, **more: Any) -> Finished:
        """Run `bv copy` to its end."""
        return bv("copy", *args, folder=self.here, timeout=2 * PATIENCE, **more)

    def copied(self, *args: str) -> dict[str, Any]:
        """Run `bv copy --json` to its good end, and give what it says of it."""
        done = self.copy("--json", *args)
        assert done.code == 0, done
        copied: dict[str, Any] = done.json[-1]["copied"]
        return copied

    def begin(self, *args: str) -> Daemon:
        """Start `bv copy`."""
        return self.world.start(self.file, "copy", *args, script="bv")

    def begin_to(self, part: Path, *args: str) -> Daemon:
        """Start `bv copy`, and wait until something is in the partial file."""
        copying = self.begin(*args)
        deadline = time.monotonic() + PATIENCE
        while not (part.exists() and part.stat().st_size > MIB):
            assert copying.running and time.monotonic() < deadline, copying.output
            time.sleep(UNIT)
        return copying


@pytest.fixture(scope="module")
def standing_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for all tests of this file that leave its daemon alone."""
    with daemons() as running:
        yield World(tmp_path_factory.mktemp("world"), running)
        assert running[1].running and "Traceback" not in running[1].output


@pytest.fixture
def user(standing_world: World) -> User:
    """A new user of the standing world."""
    return User(standing_world, f"{next(_NUMBERS)}")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world of one test, for it to do to its daemon what it likes."""
    with daemons() as running:
        yield World(tmp_path, running)


def test_a_file_goes_there_and_back(user: User) -> None:
    digest = fill(user.here / "a.bin", 3 * MIB + 1)
    sent = user.copy("a.bin", user.remote)
    assert sent.code == 0 and sent.stderr == "", sent
    assert sent.stdout == f"Us {user.world.id}  {user.there.name}/a.bin  3.0 MiB, SHA-256 {digest}\n"
    assert sha256(user.there / "a.bin") == digest
    fetched = user.copied(f"{user.remote}a.bin", "b.bin")
    assert fetched == {"path": f"{user.there.name}/a.bin", "size": 3 * MIB + 1, "sha256": digest, "resumedAt": 0}
    assert sha256(user.here / "b.bin") == digest
    assert user.copied(f"{user.remote}a.bin", ".")["sha256"] == digest
    assert sorted(os.listdir(user.here)) == ["a.bin", "b.bin", "bonevalue.yaml"]


def test_pipes(user: User) -> None:
    sent = user.copy("-", f"{user.remote}piped", stdin="what is piped")
    assert sent.code == 0 and (user.there / "piped").read_text() == "what is piped"
    assert user.copy("-", user.remote, stdin="nameless").stderr.startswith("bv: bad_request: ")
    fetched = user.copy(f"{user.remote}piped", "-")
    assert fetched.code == 0 and fetched.stdout == "what is piped"
    assert f"SHA-256 {hashlib.sha256(b'what is piped').hexdigest()}" in fetched.stderr


def test_a_reader_that_goes_away(user: User) -> None:
    fill(user.there / "a.bin", LONG)
    script = f"{BIN / 'bv'} copy {user.remote}a.bin - | head -c 1000 | wc -c; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(
        ["bash", "-c", script],
        cwd=user.here,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.stdout.split() == ["1000", "1"] and run.stderr == ""


def test_what_the_peer_refuses_is_one_line_and_1(user: User) -> None:
    fill(user.here / "a.bin", 10)
    for arguments, words in (
        (("ID:nothing", "b"), "bad_request: Us ID: nothing: no such file or folder"),
        (("ID:../secret", "b"), "bad_request: Us ID: a path has no .. and no NUL"),
        (("a.bin", "ID:/etc/passwd"), "bad_request: Us ID: a path starts from the folder that is served"),
        (("--module", "Other", "a.bin", "ID:"), "no_module: Us ID: "),
        (("a.bin", "bob:"), "no_target: nobody is online under 'bob'"),
    ):
        refused = user.copy(*(argument.replace("ID", user.world.id) for argument in arguments))
        assert refused.code == 1 and len(refused.faults) == 1 and refused.stdout == ""
        assert words.replace("ID", user.world.id) in refused.stderr
    refused = user.copy("--json", f"{user.remote}nothing", "b")
    assert refused.code == 1 and refused.stderr == ""
    assert refused.json[-1]["error"]["code"] == "bad_request" and refused.json[-1]["kept"] is False
    assert sorted(os.listdir(user.here)) == ["a.bin", "bonevalue.yaml"]


def test_one_of_several_peers_is_found_and_named(world: World) -> None:
    for number in range(2):
        world.serve(f"other{number}", module=False)
    _, second = world.serve("second")
    user = User(world, "user")
    fill(user.here / "a.bin", 10)
    found = user.copy("--json", "a.bin", "Us:").json[-1]["peer"]
    assert found["name"] == "Us" and found["id"] in (world.id, second)
    chosen = user.copy("--json", "a.bin", f"{second}:b.bin").json[-1]["peer"]
    assert chosen["id"] == second and (world.folder / "second" / "public" / "b.bin").exists()


@pytest.mark.parametrize("number", [SIGKILL, SIGINT], ids=lambda number: number.name)
def test_an_upload_that_is_cut_off_is_continued(user: User, number: Signals) -> None:
    digest = fill(user.here / "a.bin", LONG)
    cut_off(user.begin_to(part_of(user.there / "a.bin"), "a.bin", user.remote), number)
    assert not (user.there / "a.bin").exists()
    continued = user.copied("a.bin", user.remote)
    assert continued["sha256"] == digest and continued["resumedAt"] > MIB
    assert os.listdir(user.there) == ["a.bin"] and sha256(user.there / "a.bin") == digest


@pytest.mark.parametrize("number", [SIGKILL, SIGINT], ids=lambda number: number.name)
def test_a_download_that_is_cut_off_is_continued(user: User, number: Signals) -> None:
    digest = fill(user.there / "a.bin", LONG)
    part = part_of(user.here / "a.bin")
    cut_off(user.begin_to(part, f"{user.remote}a.bin", "."), number)
    left = part.stat().st_size
    continued = user.copied(f"{user.remote}a.bin", ".")
    assert continued["sha256"] == digest and continued["resumedAt"] == left
    assert not part.exists() and sha256(user.here / "a.bin") == digest


def cut_off(copying: Daemon, number: Signals) -> None:
    """End a copy in its middle."""
    copying.signal(number)
    code = copying.wait()
    if number is SIGINT:
        assert code == 130
        copying.wait_for("bv: interrupted; what came is kept, and the same command goes on from there")
        assert len(copying.lines) == 1


@pytest.mark.parametrize("upload", [True, False], ids=["upload", "download"])
def test_a_daemon_that_is_killed_is_told_and_the_copy_continued(world: World, upload: bool) -> None:
    user = User(world, "user")
    source, copy = (user.here, user.there) if upload else (user.there, user.here)
    arguments = ("a.bin", user.remote) if upload else (f"{user.remote}a.bin", ".")
    digest = fill(source / "a.bin", LONG)
    copying = user.begin_to(part_of(copy / "a.bin"), *arguments)
    world.daemon.kill()
    assert copying.wait() == 1
    copying.wait_for(rf"^bv: link_lost: Us {world.id}: ")
    copying.wait_for(r"^bv: stopped; what came is kept, and the same command goes on from there$")
    assert len(copying.lines) == 2
    _, restarted = world.serve("files")
    continued = user.copied(*(argument.replace(world.id, restarted) for argument in arguments))
    assert continued["sha256"] == digest and continued["resumedAt"] > MIB
    assert not part_of(copy / "a.bin").exists() and sha256(copy / "a.bin") == digest


def test_a_copy_waits_for_another_one_to_the_same_path(user: User) -> None:
    digest = fill(user.here / "a.bin", 10)
    busy = f"another copy to {user.there.name}/a.bin is under way"
    with part_of(user.there / "a.bin").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = user.copy("--timeout", "5s", "a.bin", user.remote)
        assert refused.code == 1
        assert refused.faults == [f"bv: waiting: {busy}", f"bv: busy: Us {user.world.id}: {busy}"]
        waiting = user.begin("a.bin", user.remote)
        waiting.wait_for(f"bv: waiting: {busy}")
    assert waiting.wait() == 0 and sha256(user.there / "a.bin") == digest


def test_progress_at_a_terminal(user: User) -> None:
    fill(user.there / "a.bin", LONG)
    ours, theirs = pty.openpty()
    run = subprocess.Popen(
        [BIN / "bv", "copy", f"{user.remote}a.bin", "."],
        cwd=user.here,
        env=clean_environment({"TERM": "xterm", "COLUMNS": "100"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while piece := _read(ours):
        shown += piece
    os.close(ours)
    said = run.communicate(timeout=PATIENCE)[0]
    assert run.returncode == 0
    assert said.startswith(f"Us {user.world.id}  {user.there.name}/a.bin  8.0 MiB, SHA-256".encode())
    assert re.search(rb"\./a\.bin .+/8\.0.+MiB.+[KM]iB/s", shown)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end was closed
        return b""


def test_memory_does_not_grow_with_the_file(world: World) -> None:
    """The peaks of both ends, for a long file in each direction, against those for a short one."""
    long, most = 24 * MIB, 8 * MIB
    user = User(world, "user")
    fill(user.here / "short", MIB)
    fill(user.here / "long", long)
    peaks: list[dict[str, int]] = []
    for name in ("short", "long"):
        there, back = _peak_of_copy(user, name, user.remote), _peak_of_copy(user, f"{user.remote}{name}", f"{name}.2")
        peaks.append({"upload": there, "download": back, "daemon": _peak(world.daemon.pid)})
    assert sha256(user.here / "long") == sha256(user.there / "long") == sha256(user.here / "long.2")
    grown = {end: peaks[1][end] - peaks[0][end] for end in peaks[0]}
    assert max(grown.values()) < most, grown


def _peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _peak_of_copy(user: User, *arguments: str) -> int:
    run = subprocess.Popen(
        [BIN / "bv", "copy", *arguments], cwd=user.here, env=clean_environment(), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    assert run.returncode == 0
    return usage.ru_maxrss * 1024
