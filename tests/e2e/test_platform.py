"""The whole platform as its users run it: a discovery server, daemons and commands, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Any

import pytest

from tests.support.processes import (
    BIN,
    PASSWORD,
    Daemon,
    Finished,
    both_roles,
    bv,
    clean_environment,
    daemons,
    discovery_role,
    free_port,
    peer_role,
    write_module,
    write_yaml,
)

NAMED_ECHO = """\
from pydantic import BaseModel

from bonevalue import Module


class Echo(Module):
    name = "My.Echo.Module"

    class Config(BaseModel):
        who: str = "nobody"

    async def handle(self, request, context):
        return {"text": "Not " + request["text"], "by": self.config.who, "for": context.caller.name}
"""


class World:
    """A discovery server and peers, in folders below one."""

    def __init__(self, folder: Path, running: list[Daemon]) -> None:
        self.folder = folder
        self.port = free_port()
        self._running = running

    def start(self, file: Path, *args: str) -> Daemon:
        daemon = Daemon(file, *args)
        self._running.append(daemon)
        return daemon

    def serve(self, *accounts: str) -> Daemon:
        """Start (again) the discovery server with these accounts."""
        file = self.folder / "server" / "bonevalue.yaml"
        if not file.exists():
            write_yaml(file, discovery_role(self.port, dict.fromkeys(accounts, PASSWORD)))
        daemon = self.start(file)
        daemon.wait_for("listens on")
        return daemon

    def file(self, who: str, username: str, **more: Any) -> Path:
        """The settings file of a peer that serves an echo under its own name."""
        folder = self.folder / who
        write_module(folder, source=NAMED_ECHO)
        module = {"class": "modules.echo.Echo", "config": {"who": who}}
        return write_yaml(folder / "bonevalue.yaml", peer_role(self.port, username, modules=[module], **more))

    def peer(self, who: str, username: str, **more: Any) -> tuple[Daemon, str]:
        """Start a peer and give its id."""
        daemon = self.start(self.file(who, username, **more))
        return daemon, daemon.wait_for(r"online as \w+, peer (\d+)")[1]

    def echo(self, who: str, target: str, *options: str) -> Finished:
        """What a `bv call` with that peer's settings file gives."""
        return bv("call", "--json", *options, target, "My.Echo.Module", '{"text": "Friday"}', folder=self.folder / who)

    def heard(self, who: str, target: str) -> list[tuple[str, str]]:
        """Who answered a call of `who`, and under which name they know it."""
        result = self.echo(who, target)
        answers = [line["response"] for line in result.json if "response" in line]
        assert len(answers) == len(result.json) - 1, result
        assert all(answer["text"] == "Not Friday" for answer in answers)
        return sorted((answer["by"], answer["for"]) for answer in answers)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with daemons() as running:
        yield World(tmp_path, running)


def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Ask again until it is so."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "still not so"


def befriend(world: World, one: str, their_alias: str, other: str, our_alias: str) -> None:
    """Let `one` know `other` under `their_alias`, and the other way round, through the command line."""
    requested = bv("token", "request", their_alias, "--json", folder=world.folder / one)
    assert requested.code == 0, requested.stderr
    token = requested.json[0]["token"]
    claimed = bv("token", "claim", our_alias, token, folder=world.folder / other)
    assert claimed.code == 0, claimed.stderr


def test_one_file_one_command_and_a_call_from_a_second_shell(tmp_path: Path) -> None:
    with daemons() as running:
        port = free_port()
        write_module(tmp_path)
        file = write_yaml(tmp_path / "bonevalue.yaml", both_roles(port, modules=["modules.echo.Echo"]))
        daemon = Daemon(file)
        running.append(daemon)
        daemon.wait_for("online as admin")
        called = bv("call", "Us", "My.Echo.Module", '{"text": "Friday"}', folder=tmp_path)
        assert called.code == 0, called.stderr
        assert '{"text": "Not Friday"}' in called.stdout and "1 of 1 answered" in called.stdout
        assert daemon.stop(SIGTERM) == 0


def test_trust_by_token_calls_by_every_target_and_the_end_of_trust(world: World) -> None:
    world.serve("alice", "bob")
    world.peer("alice1", "alice")
    _, second = world.peer("alice2", "alice")
    bob, bob_id = world.peer("bob1", "bob")

    assert world.heard("bob1", "*") == [("bob1", "Us")]
    befriend(world, "alice1", "bobby", "bob1", "alicia")

    assert world.heard("alice1", "Us") == [("alice1", "Us"), ("alice2", "Us")]
    assert world.heard("alice1", "*") == [("alice1", "Us"), ("alice2", "Us"), ("bob1", "alicia")]
    assert world.heard("alice1", "bobby") == [("bob1", "alicia")]
    assert world.heard("alice1", bob_id) == [("bob1", "alicia")]
    assert world.heard("bob1", "alicia") == [("alice1", "bobby"), ("alice2", "bobby")]
    assert world.heard("bob1", second) == [("alice2", "bobby")]
    result = world.echo("bob1", "alicia")
    assert result.code == 0 and result.json[-1]["summary"]["answered"] == 2

    listed = bv("trust", "list", "--json", folder=world.folder / "alice2")
    assert listed.code == 0 and "bobby" in listed.stdout

    removed = bv("trust", "remove", "bobby", folder=world.folder / "alice1")
    assert removed.code == 0, removed.stderr
    for who, target in (("alice1", "bobby"), ("alice2", bob_id), ("bob1", "alicia"), ("bob1", second)):
        result = world.echo(who, target)
        assert result.code == 1 and "no_target" in result.stderr, (who, target, result)
    assert bob.running


def test_the_end_of_trust_cuts_the_live_link_within_five_seconds(world: World) -> None:
    world.serve("alice", "bob")
    _, alice_id = world.peer("alice1", "alice")
    world.peer("bob1", "bob")
    befriend(world, "alice1", "bobby", "bob1", "alicia")
    # The daemons themselves hold a link: a module of bob's calls alice and keeps it.
    caller = world.folder / "bob2"
    write_module(
        caller,
        "relay",
        "from bonevalue import Module\n\n\n"
        "class Relay(Module):\n"
        "    async def handle(self, request, context):\n"
        "        return await self.peer.get(request['to']).call('My.Echo.Module', {'text': 'Friday'})\n",
    )
    bob2 = world.start(
        write_yaml(caller / "bonevalue.yaml", peer_role(world.port, "bob", modules=["modules.relay.Relay"]))
    )
    bob2.wait_for("online as bob")
    called = bv("call", "Us", "Relay", json.dumps({"to": alice_id}), "--json", folder=caller)
    assert {"text": "Not Friday", "by": "alice1", "for": "bobby"} in [line.get("response") for line in called.json]

    def links(who: str) -> set[str]:
        lines = bv("peers", "--links", "--json", folder=world.folder / who).json
        return {name for line in lines for name in [json.dumps(line)] if "alicia" in name or "bobby" in name}

    assert links("alice1") and links("bob2")
    assert bv("trust", "remove", "alicia", folder=caller).code == 0
    start = time.monotonic()
    eventually(lambda: not links("alice1") and not links("bob2"), timeout=20)
    assert "the trust has ended" in bob2.output
    bob2.wait_for("links to alicia cut", timeout=5)
    assert time.monotonic() - start < 20


def test_a_broadcast_reaches_more_peers_than_there_are_slots(world: World) -> None:
    world.serve("alice")
    for number in range(8):
        world.peer(f"p{number}", "alice")
    folder = world.folder / "sender"
    write_module(
        folder,
        "sender",
        "from bonevalue import Module\n\n\n"
        "class Broadcast(Module):\n"
        "    async def handle(self, request, context):\n"
        "        names = []\n"
        "        async for result in self.peer.get('*').call_all('My.Echo.Module', {'text': 'x'}, keep_alive=False):\n"
        "            names.append(result.response['by'] if result.error is None else str(result.error))\n"
        "        return sorted(names)\n",
    )
    settings = peer_role(world.port, "alice", modules=["modules.sender.Broadcast"], pool={"max_outgoing": 2})
    sender = world.start(write_yaml(folder / "bonevalue.yaml", settings))
    peer_id = sender.wait_for(r"peer (\d+)")[1]
    called = bv("call", peer_id, "Broadcast", "--json", folder=folder)
    assert called.json[0].get("response") == [f"p{number}" for number in range(8)], called


def test_a_server_killed_and_started_again(world: World) -> None:
    server = world.serve("alice", "bob", "carol")
    alice, alice_id = world.peer("alice1", "alice")
    bob, bob_id = world.peer("bob1", "bob")
    befriend(world, "alice1", "bobby", "bob1", "alicia")
    unclaimed = bv("token", "request", "caro", "--json", folder=world.folder / "alice1").json[0]["token"]
    # Alice calls bob all the while, over a link that is there already.
    folder = world.folder / "alice2"
    write_module(folder, "ticker", TICKER)
    write_module(folder, source=NAMED_ECHO)
    modules = [
        {"class": "modules.ticker.Ticker", "config": {"to": bob_id}},
        {"class": "modules.echo.Echo", "config": {"who": "alice2"}},
    ]
    ticker = world.start(write_yaml(folder / "bonevalue.yaml", peer_role(world.port, "alice", modules=modules)))
    ticker.wait_for("call 5 answered")

    server.stop(SIGKILL)
    for daemon in (alice, bob, ticker):
        daemon.wait_for("offline")
    before = int(ticker.wait_for(r"call (\d+) answered")[1])
    while int(ticker.wait_for(r"call (\d+) answered")[1]) < before + 20:
        pass
    world.serve()
    assert alice.wait_for(r"online as alice, peer (\d+)")[1] == alice_id
    assert bob.wait_for(r"online as bob, peer (\d+)")[1] == bob_id
    ticker.wait_for("online as alice")
    assert "failed" not in ticker.output

    assert world.heard("bob1", "alicia") == [("alice1", "bobby"), ("alice2", "bobby")]
    assert world.heard("alice1", "*") == [("alice1", "Us"), ("alice2", "Us"), ("bob1", "alicia")]
    world.file("carol1", "carol")
    claimed = bv("token", "claim", "al", unclaimed, folder=world.folder / "carol1")
    assert claimed.code == 0, claimed.stderr
    assert world.heard("carol1", "al") == [("alice1", "caro"), ("alice2", "caro")]


TICKER = """\
import asyncio

from pydantic import BaseModel

from bonevalue import Module


class Ticker(Module):
    class Config(BaseModel):
        to: str

    async def start(self):
        self.task = None

    async def on_peerconnect(self, peer):
        if peer.id == self.config.to and self.task is None:
            self.task = asyncio.create_task(self.tick())

    async def tick(self):
        number = 0
        while True:
            try:
                await self.peer.get(self.config.to).call("My.Echo.Module", {"text": "x"}, timeout=5)
            except Exception as error:
                self.log.error("call failed: %r", error)
            else:
                number += 1
                self.log.info("call %d answered", number)
            await asyncio.sleep(0.05)

    async def stop(self):
        if self.task is not None:
            self.task.cancel()

    async def handle(self, request):
        return None
"""

PING_PONG = """\
from bonevalue import Module


class Bounce(Module):
    async def handle(self, request, context):
        left = request["left"]
        if not left:
            return []
        path = await self.peer.get(context.caller.id).call("Bounce", {"left": left - 1}, timeout=10)
        return [self.peer.id, *path]


class Start(Module):
    async def handle(self, request, context):
        return await self.peer.get(request["to"]).call("Bounce", {"left": 6}, timeout=10)


class Raise(Module):
    async def handle(self, request):
        raise RuntimeError("on purpose")


class Hang(Module):
    async def handle(self, request):
        import asyncio

        self.log.warning("hanging")
        await asyncio.Event().wait()


class Storm(Module):
    async def handle(self, request):
        import asyncio

        target = self.peer.get(request["to"])
        results = await asyncio.gather(*(target.call("Raise", n) for n in range(1000)), return_exceptions=True)
        codes = [getattr(result, "code", "answered") for result in results]
        again = await target.call("Bounce", {"left": 0})
        return {"codes": {code: codes.count(code) for code in set(codes)}, "again": again}
"""


def calling(*args: str, folder: Path) -> subprocess.Popen[str]:
    """A `bv call` that goes on while the test does something else."""
    command: list[str | Path] = [BIN / "bv", "call", "--json", *args]
    return subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE, text=True)


def both_ways(world: World) -> tuple[Path, Daemon, str, Daemon, str]:
    world.serve("alice")
    found = []
    for who in ("one", "two"):
        write_module(world.folder / who, "bounce", PING_PONG)
        settings = peer_role(world.port, "alice", modules=[{"folder": "modules"}])
        daemon = world.start(write_yaml(world.folder / who / "bonevalue.yaml", settings))
        found.append((daemon, daemon.wait_for(r"online as alice, peer (\d+)")[1]))
    (one, one_id), (two, two_id) = found
    return world.folder / "one", one, one_id, two, two_id


def test_a_calls_b_while_b_calls_a(world: World) -> None:
    folder, _, one_id, _, two_id = both_ways(world)
    called = bv("call", one_id, "Start", json.dumps({"to": two_id}), "--json", folder=folder)
    assert called.json[0]["response"] == [two_id, one_id] * 3


def test_a_thousand_handlers_that_raise_harm_nobody(world: World) -> None:
    folder, _, one_id, two, two_id = both_ways(world)
    called = bv("call", one_id, "Storm", json.dumps({"to": two_id}), "--json", folder=folder)
    assert called.json[0]["response"] == {"codes": {"handler_failed": 1000}, "again": []}
    assert two.running and "on purpose" in two.output and "on purpose" not in called.stdout


def test_a_callee_killed_in_the_middle_of_a_call_is_a_typed_error(world: World) -> None:
    folder, _, _, two, two_id = both_ways(world)
    start = time.monotonic()
    process = calling("--timeout", "60s", two_id, "Hang", folder=folder)
    two.wait_for("hanging")
    two.kill()
    output, _ = process.communicate(timeout=30)
    first = json.loads(output.splitlines()[0])
    assert first["error"]["code"] == "link_lost" and process.returncode == 1
    assert time.monotonic() - start < 30


def test_sigterm_lets_running_calls_finish(world: World) -> None:
    world.serve("alice")
    folder = world.folder / "slow"
    source = (
        "import asyncio\n\nfrom bonevalue import Module\n\n\n"
        "class Slow(Module):\n"
        "    async def handle(self, request):\n"
        "        self.log.warning('begun')\n"
        "        await asyncio.sleep(2)\n"
        "        return 'finished'\n"
    )
    write_module(folder, "slow", source)
    settings = peer_role(world.port, "alice", modules=["modules.slow.Slow"])
    daemon = world.start(write_yaml(folder / "bonevalue.yaml", settings))
    daemon.wait_for("online as alice")
    process = calling("Us", "Slow", folder=folder)
    daemon.wait_for("begun")
    assert daemon.stop(SIGTERM) == 0
    output, _ = process.communicate(timeout=30)
    assert json.loads(output.splitlines()[0])["response"] == "finished"
