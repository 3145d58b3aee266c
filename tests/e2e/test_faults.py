"""
Every foreseeable fault, through the real command line: the exit code, and one line for each fault and nothing else.

Two tables: what `bv-run` says, and what `bv` says against a platform that runs beside.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import (
    PASSWORD,
    Daemon,
    Finished,
    both_roles,
    bv,
    discovery_role,
    free_port,
    peer_role,
    run_to_end,
    write_module,
    write_yaml,
)

MODULES = """\
import asyncio

from pydantic import BaseModel

from bonevalue import Module


class Text(BaseModel):
    text: str
    times: int = 1


class Echo(Module):
    async def handle(self, request):
        return request


class Typed(Module):
    async def handle(self, request: Text) -> str:
        return request.text * request.times


class Sleep(Module):
    async def handle(self, request):
        await asyncio.sleep(request)


class Raise(Module):
    async def handle(self, request):
        raise RuntimeError("secret of the module")


class Raw(Module):
    async def handle(self, request):
        return b"\\x00\\xffraw"


class Closed(Module):
    async def handle(self, request):
        return "never"
"""


@dataclass(frozen=True)
class World:
    """A platform that runs: its daemon, its folder, its port, and a port on which nobody listens."""

    daemon: Daemon
    folder: Path
    port: int
    dead_port: int


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server and a daemon of `admin` that serves the modules above."""
    folder = tmp_path_factory.mktemp("platform")
    write_module(folder, "parts", MODULES)
    port = free_port()
    modules: list[Any] = [{"class": "modules.parts.Closed", "allow": ["somebody"]}, {"folder": "modules"}]
    file = write_yaml(folder / "bonevalue.yaml", both_roles(port, modules=modules))
    daemon = Daemon(file)
    try:
        daemon.wait_for("online as admin")
        yield World(daemon, folder, port, free_port())
        assert daemon.stop() == 0
    finally:
        daemon.kill()


def one_line(finished: Finished, code: int, *words: str) -> None:
    """The process ended with that code, and one line on standard error that has these words."""
    assert "Traceback" not in finished.stderr + finished.stdout
    assert len(finished.faults) == 1, finished.stderr
    for word in words:
        assert word in finished.stderr
    assert finished.code == code


# -- the settings, for both scripts ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Faulty:
    """A settings file that is wrong, and the lines that say so."""

    text: str | None
    lines: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


GOOD = "server: {address: ws://127.0.0.1:1}\ncredentials: {username: admin, password: x}\n"

SETTINGS = {
    "no file": Faulty(None, ["bonevalue.yaml: no such file"]),
    "bad YAML": Faulty("server: [\n", ["bonevalue.yaml:"]),
    "not a mapping": Faulty("- 1\n", ["bonevalue.yaml:1: must be a mapping"]),
    "empty": Faulty("", ["bonevalue.yaml: is empty"]),
    "no role": Faulty("log: {level: info}\n", ["bonevalue.yaml:"]),
    "unknown key": Faulty(GOOD + "pol: {}\n", ["bonevalue.yaml:3: pol: unknown key; did you mean pool?"]),
    "three faults": Faulty(
        GOOD + "pool: {max_outgoing: 0}\nrpc: {timeout: long}\nserve: 1\n",
        ["bonevalue.yaml:3: pool.max_outgoing: ", "bonevalue.yaml:4: rpc.timeout: ", "bonevalue.yaml:5: serve: "],
    ),
    "missing key": Faulty("server: {address: ws://127.0.0.1:1}\n", ["credentials: is missing"]),
    "unset variable": Faulty(
        "server: {address: ws://127.0.0.1:1}\ncredentials: {username: admin, password: '${NO_SUCH_PASSWORD}'}\n",
        ["bonevalue.yaml:2: credentials.password: ", ],
    ),
    "unknown variable": Faulty(GOOD, ["BV_POOL__MAX_OUTGOIN: "], env={"BV_POOL__MAX_OUTGOIN": "1"}),
    "unencrypted to elsewhere": Faulty(
        "server: {address: 'ws://bv.example.org'}\ncredentials: {username: admin, password: x}\n",
        ["bonevalue.yaml:1: server.insecure: "],
    ),
    "bad ICE URL": Faulty(GOOD + "ice: {servers: [{urls: example.org}]}\n", ["bonevalue.yaml:3: ice.servers[0].urls"]),
    "bad import": Faulty(
        GOOD + "modules: [modules.fles.Files]\n",
        ["bonevalue.yaml:3: modules[0].class: cannot import modules.fles: no such file"],
    ),
    "module that does not compile": Faulty(
        GOOD + "modules: [modules.broken.Broken]\n",
        ["bonevalue.yaml:3: modules[0].class: cannot import modules.broken: SyntaxError"],
    ),
    "bad config of a module": Faulty(
        GOOD + "modules:\n  - class: modules.echo.Echo\n    config: {twist: 1}\n",
        ["bonevalue.yaml:"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_settings(tmp_path: Path, case: str) -> None:
    faulty = _write(tmp_path, case)
    _all_faults(run_to_end("bv-run", "bonevalue.yaml", folder=tmp_path, env=faulty.env), faulty)


@pytest.mark.parametrize("command", ["check", "peers", "register bob --generate"])
@pytest.mark.parametrize("case", ["no file", "three faults"])
def test_settings_of_commands(tmp_path: Path, command: str, case: str) -> None:
    faulty = _write(tmp_path, case)
    _all_faults(bv(*command.split(), folder=tmp_path), faulty)


def _write(folder: Path, case: str) -> Faulty:
    faulty = SETTINGS[case]
    write_module(folder)
    write_module(folder, "broken", "class Broken(:\n")
    if faulty.text is not None:
        (folder / "bonevalue.yaml").write_text(faulty.text)
    return faulty


def _all_faults(finished: Finished, faulty: Faulty) -> None:
    assert "Traceback" not in finished.stderr
    assert finished.code == 2, finished.stderr
    assert finished.stdout == ""
    assert len(finished.faults) == len(faulty.lines), finished.stderr
    for line, expected in zip(finished.faults, faulty.lines, strict=True):
        assert expected in line


# -- bv-run ------------------------------------------------------------------------------------------------------------


def test_daemon_without_a_file_named(tmp_path: Path) -> None:
    one_line(run_to_end("bv-run", folder=tmp_path), 2, "bv-run: usage: ", "FILE")


def test_daemon_role_that_is_not_declared(tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "bonevalue.yaml", discovery_role(free_port()))
    one_line(run_to_end("bv-run", file, "--only", "peer", folder=tmp_path), 2, "declares no peer")


def test_daemon_port_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = write_yaml(tmp_path / "bonevalue.yaml", discovery_role(port))
        one_line(run_to_end("bv-run", file, folder=tmp_path), 1, "bv-run: ", f"127.0.0.1:{port}", "taken")


def test_daemon_database_that_cannot_be_opened(tmp_path: Path) -> None:
    content = discovery_role(free_port())
    content["discovery"]["database"] = "sqlite:///no/such/folder/bonevalue.db"
    file = write_yaml(tmp_path / "bonevalue.yaml", content)
    finished = run_to_end("bv-run", file, folder=tmp_path)
    one_line(finished, finished.code, "database")
    assert finished.code in (1, 2)


def test_daemon_realm_of_another_database(tmp_path: Path) -> None:
    content = discovery_role(free_port())
    file = write_yaml(tmp_path / "bonevalue.yaml", content)
    first = Daemon(file)
    try:
        first.wait_for("listens on")
        assert first.stop() == 0
    finally:
        first.kill()
    content["discovery"]["realm"] = "bv.example.org"
    write_yaml(file, content)
    one_line(run_to_end("bv-run", file, folder=tmp_path), 2, "localhost", "bv.example.org")


def test_daemon_wrong_password(world: World, tmp_path: Path) -> None:
    file = write_yaml(tmp_path / "bonevalue.yaml", peer_role(world.port, password="not the password"))
    one_line(run_to_end("bv-run", file, folder=tmp_path), 1, "bv-run: login_refused: ")


def test_daemon_wrong_realm(world: World, tmp_path: Path) -> None:
    content = peer_role(world.port)
    content["server"]["realm"] = "bv.example.org"
    file = write_yaml(tmp_path / "bonevalue.yaml", content)
    one_line(run_to_end("bv-run", file, folder=tmp_path), 1, "bv-run: realm_mismatch: ", "server.realm")


def test_daemon_module_that_does_not_start(world: World, tmp_path: Path) -> None:
    source = (
        "from bonevalue import Module\n\n\nclass Stuck(Module):\n"
        "    async def start(self):\n        raise OSError('no camera')\n\n"
        "    async def handle(self, request):\n        return None\n"
    )
    write_module(tmp_path, "stuck", source)
    file = write_yaml(tmp_path / "bonevalue.yaml", peer_role(world.port, modules=["modules.stuck.Stuck"]))
    one_line(run_to_end("bv-run", file, folder=tmp_path), 2, "module Stuck failed to start", "no camera")


def test_daemon_server_unreachable_is_one_line_and_retries(tmp_path: Path) -> None:
    """It does not end, says so once, and is online as soon as the server is."""
    port = free_port()
    file = write_yaml(tmp_path / "peer.yaml", peer_role(port))
    server_file = write_yaml(tmp_path / "server.yaml", discovery_role(port, {"admin": PASSWORD}))
    peer = Daemon(file)
    server: Daemon | None = None
    try:
        peer.wait_for("cannot reach the discovery server")
        server = Daemon(server_file)
        peer.wait_for("online as admin")
        assert len([line for line in peer.lines if "cannot reach" in line]) == 1
        assert "Traceback" not in peer.output
        assert peer.stop() == 0
        assert server.stop() == 0
    finally:
        for daemon in (peer, server):
            if daemon is not None:
                daemon.kill()


# -- bv ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """Arguments of `bv call`, the code of the one fault, and the words that its line has."""

    arguments: list[str]
    code: str
    words: list[str] = field(default_factory=list)
    stdin: str | None = None


CALLS = {
    "unknown module": Call(["Us", "Nope"], "no_module", ["Nope"]),
    "bad request": Call(["Us", "Typed", '{"times": "many"}'], "bad_request", ["text", "times"]),
    "denied": Call(["Us", "Closed"], "denied", ["Closed"]),
    "too large": Call(["Us", "Echo", "-"], "too_large", stdin=json.dumps("x" * 9_000_000)),
    "response too large": Call(["Us", "Typed", '{"text": "xxxxxxxxxx", "times": 1000000}'], "too_large"),
    "deadline": Call(["Us", "Sleep", "30", "--timeout", "1s"], "deadline"),
    "the handler raises": Call(["Us", "Raise"], "handler_failed", ["its log"]),
}


@pytest.mark.parametrize("case", CALLS)
def test_call(world: World, case: str) -> None:
    call = CALLS[case]
    finished = bv("call", *call.arguments, folder=world.folder, stdin=call.stdin)
    one_line(finished, 1, f"bv: {call.code}: Us ", *call.words)
    without = ", 1 does not serve it" if call.code == "no_module" else ""
    assert finished.stdout == f"0 of 1 answered{without}\n"
    assert "secret of the module" not in finished.stderr
    if call.code == "handler_failed":
        world.daemon.wait_for("secret of the module")


def test_call_for_programs(world: World) -> None:
    finished = bv("call", "Us", "Nope", "--json", folder=world.folder)
    assert (finished.code, finished.stderr) == (1, "")
    answer, summary = finished.json
    assert answer["peer"].keys() == {"name", "id"}
    assert answer["error"].keys() == {"code", "message"}
    assert answer["error"]["code"] == "no_module"
    assert summary == {"summary": {"asked": 1, "answered": 0, "failed": 0, "without": 1}}


@pytest.mark.parametrize("target", ["bob", "123456"])
def test_call_of_nobody(world: World, target: str) -> None:
    finished = bv("call", target, "Echo", "--json", folder=world.folder)
    one_line(finished, 1, "bv: no_target: ", target)
    assert finished.json == [{"summary": {"asked": 0, "answered": 0, "failed": 0, "without": 0}}]


def test_call_that_goes_well(world: World) -> None:
    finished = bv("call", "Us", "Echo", "-", folder=world.folder, stdin='{"text": "Füße\\u001b"}')
    assert (finished.code, finished.stderr) == (0, "")
    label, response, summary = finished.stdout.replace("  ", "\n", 1).splitlines()
    assert label.startswith("Us ")
    assert json.loads(response) == {"text": "Füße\x1b"}
    assert summary == "1 of 1 answered"


def test_call_that_gives_bytes(world: World) -> None:
    finished = bv("call", "Us", "Raw", "--json", folder=world.folder)
    assert finished.json[0]["response"] == {"bytes": "AP9yYXc="}


def test_bytes_go_to_a_file_as_they_are(world: World, tmp_path: Path) -> None:
    with open(tmp_path / "raw", "wb") as file:
        finished = bv("call", "Us", "Raw", folder=world.folder, stdout=file.fileno())
    assert (finished.code, finished.stderr) == (0, "1 of 1 answered\n")
    assert (tmp_path / "raw").read_bytes() == b"\x00\xffraw"


@pytest.mark.parametrize("command", ["peers", "call Us Echo", "register bob --generate"])
def test_server_unreachable(world: World, tmp_path: Path, command: str) -> None:
    write_yaml(tmp_path / "bonevalue.yaml", peer_role(world.dead_port))
    finished = bv(*command.split(), folder=tmp_path)
    one_line(finished, 1, "bv: server_unreachable: ", f"ws://127.0.0.1:{world.dead_port}", "refused")
    assert finished.stdout == ""


def test_wrong_password(world: World, tmp_path: Path) -> None:
    write_yaml(tmp_path / "bonevalue.yaml", peer_role(world.port, username="nobody"))
    one_line(bv("peers", folder=tmp_path), 1, "bv: login_refused: ")


def test_wrong_realm(world: World, tmp_path: Path) -> None:
    content = peer_role(world.port)
    content["server"]["realm"] = "bv.example.org"
    write_yaml(tmp_path / "bonevalue.yaml", content)
    one_line(bv("peers", folder=tmp_path), 1, "bv: realm_mismatch: ", "localhost", "server.realm")


REFUSALS = {
    "name taken": (["register", "admin"], 1, "bv: name_taken: "),
    "weak password": (["register", "bob", "--password-file", "-"], 1, "bv: weak_password: "),
    "no terminal": (["register", "bob"], 2, "bv: usage: "),
    "no such contact": (["trust", "remove", "bob"], 1, "bv: not_trusted: "),
    "token mistyped": (["token", "claim", "bob", "bv1_AAAA"], 1, "bv: token_invalid: "),
    "no such account": (["account", "remove", "bob"], 1, "bv: bad_name: "),
    "account exists": (["account", "add", "admin", "--generate"], 1, "bv: name_taken: "),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(world: World, case: str) -> None:
    arguments, code, beginning = REFUSALS[case]
    finished = bv(*arguments, folder=world.folder, stdin="short\n")
    one_line(finished, code, beginning)
    assert finished.stdout == ""


def test_a_reader_that_goes_away_is_no_fault(world: World) -> None:
    """As in `bv config | head -1`."""
    read_end, write_end = socket.socketpair()
    read_end.close()
    with write_end:
        finished = run_to_end("bv", "config", folder=world.folder, stdout=write_end.fileno())
    assert finished.stderr == ""
    assert finished.code == 1
