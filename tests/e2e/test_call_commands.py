"""`bv call` and `bv modules` as processes: streams, files, quorums, and every way in which these end."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Any

import pytest

from tests.support.processes import (
    BIN,
    PATIENCE,
    Daemon,
    Finished,
    both_roles,
    bv,
    clean_environment,
    daemons,
    free_port,
    peer_role,
    write_module,
    write_yaml,
)

MODULES = '''\
import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from pydantic import BaseModel

from bonevalue import Module


class Reading(BaseModel):
    sensor: str
    unit: Literal["C", "F"] = "C"


class Count(Module):
    """Counts.

    Up to the request.
    """

    async def handle(self, request: int) -> AsyncIterator[int]:
        for number in range(request):
            yield number


class Tail(Module):
    async def handle(self, request):
        try:
            yield {"text": "Füße\\x1b"}
            yield [1, 2]
            self.log.warning("tailing")
            await asyncio.Event().wait()
        finally:
            self.log.warning("tail closed")


class Hang(Module):
    async def handle(self, request):
        self.log.warning("hanging")
        try:
            await asyncio.Event().wait()
        finally:
            self.log.warning("hang over")


class Flood(Module):
    async def handle(self, request):
        number = 0
        while True:
            yield {"number": number, "filler": "x" * 1000}
            number += 1


class Bytes(Module):
    async def handle(self, request: bytes):
        yield request
        yield b"\\x00\\xff" * 100_000


class Break(Module):
    async def handle(self, request):
        yield 1
        raise RuntimeError("on purpose")


class Size(Module):
    """Says how long it is."""

    async def handle(self, request: bytes) -> int:
        return len(request)


class Sensor(Module):
    async def handle(self, request: Reading) -> float | None:
        return 21.5
'''

ONLY_HERE = """\
from bonevalue import Module


class Here(Module):
    async def handle(self, request):
        return "here"
"""

#: Seconds between heartbeats; after three the link is lost.
HEARTBEAT = 0.3


@dataclass(frozen=True)
class World:
    """A server, a daemon with the modules above, and a second daemon of the same account with one more."""

    folder: Path
    first: Daemon
    second: Daemon


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("platform")
    write_module(folder, "parts", MODULES)
    more: dict[str, Any] = {"pool": {"heartbeat": HEARTBEAT}, "modules": [{"folder": "modules"}]}
    port = free_port()
    file = write_yaml(folder / "bonevalue.yaml", both_roles(port, **more))
    write_module(folder / "second", "here", ONLY_HERE)
    write_module(folder / "second", "parts", MODULES)
    second_file = write_yaml(folder / "second" / "bonevalue.yaml", peer_role(port, **more))
    with daemons() as running:
        for each in (file, second_file):
            running.append(Daemon(each))
            running[-1].wait_for("online as admin")
        yield World(folder, *running)
        assert [daemon.stop() for daemon in reversed(running)] == [0, 0]


def call(world: World, *arguments: str, **more: Any) -> Finished:
    return bv("call", *arguments, folder=world.folder, **more)


def begin(world: World, *arguments: str) -> subprocess.Popen[bytes]:
    """A `bv call` that goes on while the test does something else."""
    command: list[str | Path] = [BIN / "bv", "call", *arguments]
    return subprocess.Popen(
        command, cwd=world.folder, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def lines_of(finished: Finished) -> list[str]:
    """The lines on standard error, but for the one that says who answers."""
    assert "Traceback" not in finished.stderr
    return [line for line in finished.faults if not line.startswith("from Us ")]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Us", "Count", "1", "--stream", "--first", "2"], "exclude each other"),
        (["Us", "Size", "1", "--file", "x"], "exclude each other"),
        (["Us", "Size", "--file", "no-such-file"], "no-such-file: no such file"),
        (["Us", "Size", "--file", "modules"], "modules: is a directory"),
        (["Us", "Size", '"\\ud800"'], "cannot be JSON"),
    ],
)
def test_wrong_usage(world: World, arguments: list[str], words: str) -> None:
    finished = call(world, *arguments)
    assert (finished.code, finished.stdout) == (2, "")
    assert len(finished.faults) == 1 and words in finished.stderr and finished.stderr.startswith("bv: usage: ")


def test_a_plain_call_of_a_module_that_streams_says_what_to_do(world: World) -> None:
    finished = call(world, "Us", "Count", "3")
    assert (finished.code, finished.stdout) == (1, "0 of 2 answered\n")
    assert [("bad_request" in line, line.endswith("or bv call --stream")) for line in lines_of(finished)] == [
        (True, True)
    ] * 2


def test_a_stream_of_a_module_that_is_not_there(world: World) -> None:
    finished = call(world, "Us", "Nope", "--stream")
    assert (finished.code, finished.stdout) == (1, "")
    [line] = lines_of(finished)
    assert line.startswith("bv: no_module: Us ") and "Nope" in line
    finished = call(world, "Us", "Nope", "--stream", "--json")
    assert (finished.code, finished.stderr) == (1, "")
    assert [(line["peer"]["name"], line["error"]["code"]) for line in finished.json] == [("Us", "no_module")]


def test_a_stream_of_nobody(world: World) -> None:
    finished = call(world, "bob", "Count", "3", "--stream")
    [line] = lines_of(finished)
    assert finished.code == 1 and line.startswith("bv: no_target: ") and "bv peers" in line


def test_a_stream_that_breaks_off(world: World) -> None:
    finished = call(world, "Us", "Break", "--stream")
    assert (finished.code, finished.stdout) == (1, "1\n")
    [line] = lines_of(finished)
    assert line.startswith("bv: handler_failed: Us ")
    finished = call(world, "Us", "Break", "--stream", "--json")
    assert finished.code == 1 and finished.json[0]["item"] == 1
    assert finished.json[1]["error"]["code"] == "handler_failed" and len(finished.json) == 2


def test_an_interrupt_ends_a_stream_on_both_ends(world: World) -> None:
    process = begin(world, "Us", "Tail", "--stream")
    assert process.stdout is not None and process.stderr is not None
    lines = [process.stdout.readline(), process.stdout.readline()]
    process.send_signal(SIGINT)
    rest, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and rest == b""
    assert lines == ['{"text": "Füße\\u001b"}\n'.encode(), b"[1, 2]\n"]
    assert errors.startswith(b"from Us ") and errors.count(b"\n") == 1
    closed = [daemon for daemon in (world.first, world.second) if "tailing" in daemon.output]
    assert len(closed) == 1
    closed[0].wait_for("tail closed")


def test_an_interrupt_cancels_calls_where_they_run(world: World) -> None:
    process = begin(world, "Us", "Hang")
    for daemon in (world.first, world.second):
        daemon.wait_for("hanging")
    process.send_signal(SIGINT)
    assert process.communicate(timeout=PATIENCE) == (b"", b"") and process.returncode == 130
    for daemon in (world.first, world.second):
        daemon.wait_for("hang over")


def test_a_reader_that_goes_away_ends_a_stream(world: World) -> None:
    process = begin(world, "Us", "Flood", "--stream")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["number"] == 0
    process.stdout.close()
    process.wait(PATIENCE)
    assert process.stderr is not None
    with process.stderr as errors:
        assert process.returncode == 1 and errors.read().count(b"\n") == 1


def test_a_reader_that_takes_its_time_does_not_lose_the_link(world: World) -> None:
    """A pager, say. An interrupt ends it even then."""
    process = begin(world, "Us", "Flood", "--stream")
    assert process.stdout is not None and process.stderr is not None
    numbers = [json.loads(process.stdout.readline())["number"]]
    time.sleep(8 * HEARTBEAT)
    numbers += [json.loads(process.stdout.readline())["number"] for _ in range(5000)]
    assert numbers == list(range(5001))
    time.sleep(HEARTBEAT)  # its output is full again
    process.send_signal(SIGINT)
    assert process.wait(PATIENCE) == 130
    process.communicate()


def test_a_file_that_no_request_can_hold(world: World, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    finished = call(world, "Us", "Size", "--file", str(tmp_path / "large"))
    assert (finished.code, finished.stdout) == (1, "")
    [line] = lines_of(finished)
    assert line.startswith("bv: too_large: ") and "16777216 bytes" in line and "bv copy" in line
    finished = call(world, "Us", "Size", "--file", "/dev/zero")
    assert finished.code == 1 and "bv copy" in finished.stderr


@pytest.mark.parametrize("way", [[], ["--stream"]])
def test_a_file_that_the_peer_does_not_take(world: World, tmp_path: Path, way: list[str]) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(9 * 2**20)
    finished = call(world, "Us", "Size", "--file", str(tmp_path / "large"), *way)
    assert finished.code == 1
    *faults, advice = lines_of(finished)
    assert all(line.startswith("bv: too_large: Us ") for line in faults) and len(faults) == (1 if way else 2)
    assert "rpc.max_body" in advice and "bv copy" in advice


# -- what goes well ----------------------------------------------------------------------------------------------------


def test_a_stream_is_a_line_an_item(world: World) -> None:
    finished = call(world, "Us", "Count", "5000", "--stream")
    assert finished.code == 0 and finished.stdout.split() == [str(number) for number in range(5000)]
    assert finished.stderr.startswith("from Us ") and len(finished.faults) == 1


def test_a_stream_for_programs(world: World) -> None:
    finished = call(world, "Us", "Count", "2", "--stream", "--json")
    assert (finished.code, finished.stderr) == (0, "")
    *items, summary = finished.json
    assert [(line["peer"]["name"], line["item"]) for line in items] == [("Us", 0), ("Us", 1)]
    assert summary == {"summary": {"items": 2}}


def test_a_plain_answer_is_a_stream_of_one(world: World) -> None:
    finished = call(world, "Us", "Sensor", '{"sensor": "x"}', "--stream")
    assert (finished.code, finished.stdout) == (0, "21.5\n")


def test_bytes_of_a_stream_are_piped_on_as_they_are(world: World, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(os.urandom(100_000))
    with open(tmp_path / "got", "wb") as got:
        finished = call(world, "Us", "Bytes", "--stream", "--file", str(tmp_path / "sent"), stdout=got.fileno())
    assert finished.code == 0, finished.stderr
    assert (tmp_path / "got").read_bytes() == (tmp_path / "sent").read_bytes() + b"\x00\xff" * 100_000


def test_a_request_from_a_file_or_from_standard_input(world: World, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"\x00" * 300_000)
    finished = call(world, "Us", "Size", "--file", str(tmp_path / "sent"), "--json")
    assert finished.code == 0 and [line["response"] for line in finished.json[:2]] == [300_000] * 2
    finished = call(world, "Us", "Size", "--file", "-", "--json", stdin="Füße")
    assert finished.code == 0 and [line["response"] for line in finished.json[:2]] == [6] * 2


def test_who_does_not_serve_a_module_is_told_apart(world: World) -> None:
    finished = call(world, "Us", "Here")
    assert finished.code == 1
    assert finished.stdout.splitlines()[-1] == "1 of 2 answered, 1 does not serve it"
    [line] = lines_of(finished)
    assert line.startswith("bv: no_module: Us ")
    finished = call(world, "Us", "Here", "--json")
    assert finished.json[-1] == {"summary": {"asked": 2, "answered": 1, "failed": 0, "without": 1}}
    finished = call(world, "Us", "Nope")
    assert finished.stdout == "0 of 2 answered, 2 do not serve it\n"


def test_as_many_answers_as_are_wanted(world: World) -> None:
    finished = call(world, "Us", "Here", "--first", "1", "--json")
    assert finished.code == 0 and finished.json[-1]["summary"]["answered"] == 1
    finished = call(world, "Us", "Sensor", '{"sensor": "x"}', "--first", "1")
    assert finished.code == 0 and finished.stdout.splitlines()[1:] == ["1 of 2 answered"]
    assert call(world, "Us", "Here", "--first", "2").code == 1


def test_modules_for_people(world: World) -> None:
    finished = bv("modules", "Us", folder=world.folder / "second")
    assert (finished.code, finished.stderr) == (0, "")
    shown = finished.stdout
    assert shown.count("\nUs ") + shown.startswith("Us ") == 2 and "bv." not in shown
    assert "  Count  Counts.\n    request   integer\n    items     integer\n" in shown
    assert (
        '  Sensor\n    request   {sensor: string, unit?: "C" | "F" = "C"}\n    response  number\n            | null\n'
        in shown
    )
    assert "  Tail\n    items     any\n" in shown
    assert "  Size  Says how long it is.\n    request   bytes\n    response  integer\n" in shown
    assert shown.count("  Here\n") == 1


def test_modules_for_programs(world: World) -> None:
    finished = bv("modules", "Us", "--json", folder=world.folder)
    assert (finished.code, finished.stderr) == (0, "")
    for line in finished.json:
        modules = {module["name"]: module for module in line["modules"]}
        assert modules["Count"] == {
            "name": "Count", "doc": "Counts.\n\nUp to the request.", "stream": True,
            "request": {"type": "integer"}, "response": {"type": "integer"},
        }  # fmt: skip
        assert modules["bv.modules"]["response"]["type"] == "array"
