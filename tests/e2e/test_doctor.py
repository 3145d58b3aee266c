"""`bv doctor` and `bv ping` as processes, beside daemons, a discovery server and coturn that are real."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
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
    write_module,
    write_yaml,
)

SECRET = "the-secret-of-coturn-and-the-server"

#: Ways between two peers on one machine.
PATHS = [{"local": "host", "remote": "host", "family": family, "relay": ""} for family in ("IPv4", "IPv6")]


@dataclass(frozen=True)
class World:
    """A discovery server, coturn whose secret it knows, and daemons of alice and bob, who trust each other."""

    folder: Path
    port: int
    turn_port: int
    alice: str
    bob: str

    def doctor(self, *args: str, who: str = "alice", **more: Any) -> Finished:
        return bv("doctor", *args, folder=self.folder / who, **more)

    def settings(self, who: str, username: str = "alice", **more: Any) -> Path:
        """A further settings file, for somebody whose things are not well."""
        return write_yaml(self.folder / who / "bonevalue.yaml", peer_role(self.port, username, **more))


def coturn(folder: Path, port: int) -> Daemon:
    """A TURN server on loopback, over UDP and TCP, for credentials made with :data:`SECRET`."""
    folder.mkdir()
    daemon = Daemon(
        folder / "turnserver.conf",
        *("-n", "--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1", "--realm=localhost"),
        *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--allow-loopback-peers", "--no-tls", "--no-dtls"),
        *("--no-cli", f"--userdb={folder}/turn.sqlite", f"--pidfile={folder}/pid", "--log-file=stdout", "--simple-log"),
        script="/usr/bin/turnserver",
    )
    daemon.wait_for("Total General servers|Relay servers: initialized|initialization completed")
    return daemon


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("doctor")
    port, turn_port = free_port(), free_port()
    urls = [f"turn:127.0.0.1:{turn_port}?transport={transport}" for transport in ("udp", "tcp")]
    server = discovery_role(
        port, dict.fromkeys(("alice", "bob", "carol"), PASSWORD), turn={"urls": urls, "secret": SECRET}
    )
    with daemons() as running:
        running.append(coturn(folder / "coturn", turn_port))
        running.append(Daemon(write_yaml(folder / "server" / "bonevalue.yaml", server)))
        running[-1].wait_for("listens on")
        ids = []
        for who in ("alice", "bob"):
            write_module(folder / who)
            modules = ["modules.echo.Echo"] if who == "bob" else []
            file = write_yaml(folder / who / "bonevalue.yaml", peer_role(port, who, modules=modules))
            running.append(Daemon(file))
            ids.append(running[-1].wait_for(r"online as \w+, peer (\d+)")[1])
        token = bv("token", "request", "bob", "--json", folder=folder / "alice").json[0]["token"]
        assert bv("token", "claim", "alice", token, folder=folder / "bob").code == 0
        yield World(folder, port, turn_port, *ids)
        for daemon in running[1:]:
            assert daemon.stop() == 0


def verdicts(done: Finished) -> list[tuple[str, str]]:
    """What was checked, and how it is."""
    return [(line["check"], line["verdict"]) for line in done.json if "check" in line]


def found(done: Finished, check: str) -> dict[str, Any]:
    """The only finding of one check."""
    [line] = [line for line in done.json if line.get("check") == check]
    assert isinstance(line, dict)
    return line


ALL_IS_WELL = [
    *((check, "ok") for check in ("settings", "tcp", "realm", "clock", "login", "network", "stun", "nat")),
    *[("turn", "ok")] * 2,
]


def test_all_is_well(world: World) -> None:
    done = world.doctor("bob", "My.Echo.Module", "--json")
    assert (done.code, done.stderr) == (0, "")
    assert verdicts(done) == [*ALL_IS_WELL, *((check, "ok") for check in ("trust", "presence", "link", "module"))]
    assert all(line["advice"] == "" for line in done.json[:-1])
    assert done.json[-1] == {"summary": {"ok": 14, "warn": 0, "fail": 0, "not_tried": 0}}
    stun = found(done, "stun")
    assert stun["text"].startswith(f"stun:127.0.0.1:{world.port} sees you as 127.0.0.1:")
    for line in done.json:
        if line.get("check") == "turn":
            assert re.search(
                r"relays at 127\.0\.0\.1:\d+ \(.* ms\), credential good for (59|60) min more", line["text"]
            )
    link = found(done, "link")
    assert link["facts"]["peer"] == {"name": "bob", "id": world.bob}
    assert link["facts"]["path"] in PATHS
    assert 0 < link["facts"]["roundTrip"] < PATIENCE
    assert PASSWORD not in done.stdout and SECRET not in done.stdout


def test_the_same_for_people(world: World) -> None:
    done = world.doctor("bob")
    lines = done.stdout.splitlines()
    assert done.code == 0
    assert lines[0] == f"ok    settings  bonevalue.yaml: alice at ws://127.0.0.1:{world.port}"
    assert re.fullmatch(rf"ok    link      bob {world.bob}: host to host, IPv[46] \([0-9.]+ ms\)", lines[-2])
    assert lines[-1] == "13 ok"


def test_without_a_target_only_this_machine_is_looked_at(world: World) -> None:
    assert verdicts(world.doctor("--json")) == ALL_IS_WELL


def test_others_do_not_see_the_doctor(world: World) -> None:
    """It is an invisible peer: bob's own doctor finds one peer of alice, her daemon."""
    done = world.doctor("alice", "--json", who="bob")
    assert found(done, "presence")["facts"]["peers"] == [{"name": "alice", "id": world.alice}]


def test_a_peer_by_its_id(world: World) -> None:
    done = world.doctor(world.bob, "--json")
    assert done.code == 0
    assert found(done, "trust")["text"].startswith("bob, key ")


def test_a_module_that_is_not_served(world: World) -> None:
    done = world.doctor("bob", "My.Echo.Modul", "--json")
    module = found(done, "module")
    assert (done.code, module["verdict"]) == (1, "fail")
    assert module["advice"] == "Write My.Echo.Module, if that is what you mean."


@pytest.mark.parametrize(
    ("target", "words", "advice"),
    [
        ("bbo", "there is no alias bbo", "Write bob"),
        ("carol", "there is no alias carol (there is bob)", "bv token request carol here"),
        ("4815162342", "nobody to be seen has the id 4815162342", "bv peers"),
    ],
)
def test_nobody_whom_one_trusts(world: World, target: str, words: str, advice: str) -> None:
    done = world.doctor(target, "M", "--json")
    trust = found(done, "trust")
    assert (done.code, trust["verdict"], trust["text"]) == (1, "fail", words)
    assert advice in trust["advice"]
    assert verdicts(done)[-3:] == [("presence", "not_tried"), ("link", "not_tried"), ("module", "not_tried")]


def test_nobody_is_online(world: World) -> None:
    """Bob's own account has one peer, the daemon; asked by that account's other doctor it is there, carol's is not."""
    world.settings("carol", "carol")
    done = world.doctor("Us", "--json", who="carol")
    presence = found(done, "presence")
    assert (done.code, presence["verdict"]) == (1, "fail")
    assert "Start bv-run there" in presence["advice"]
    assert verdicts(done)[-1] == ("link", "not_tried")


def test_a_wrong_password(world: World) -> None:
    world.settings("wrong", password="not-the-password-at-all")
    done = world.doctor("bob", "--json", who="wrong")
    login = found(done, "login")
    assert (done.code, login["verdict"], login["facts"]["code"]) == (1, "fail", "login_refused")
    assert "Check username and password" in login["advice"]
    # What needs no login is looked at all the same.
    assert verdicts(done)[-3:] == [("trust", "not_tried"), ("presence", "not_tried"), ("link", "not_tried")]
    assert found(done, "network")["verdict"] == "ok"


def test_no_server_and_servers_of_ones_own(world: World) -> None:
    """With the discovery server down, the STUN and TURN servers of the settings are tried all the same."""
    own = [
        {"urls": f"stun:127.0.0.1:{world.turn_port}"},
        {"urls": f"turn:127.0.0.1:{world.turn_port}", "username": "alice", "credential": "nonsense"},
    ]
    file = world.settings("apart", ice={"servers": own})
    file.write_text(file.read_text().replace(f":{world.port}", f":{free_port()}"))
    done = world.doctor("bob", "--json", who="apart")
    assert done.code == 1
    assert verdicts(done) == [
        ("settings", "ok"), ("tcp", "fail"), ("realm", "not_tried"), ("clock", "not_tried"), ("login", "not_tried"),
        ("network", "ok"), ("stun", "ok"), ("nat", "ok"), ("turn", "fail"),
        ("trust", "not_tried"), ("presence", "not_tried"), ("link", "not_tried"),
    ]  # fmt: skip
    turn = found(done, "turn")
    assert turn["facts"]["refused"] == 401
    assert "nonsense" not in done.stdout


def test_no_server_and_nothing_else_to_ask(world: World) -> None:
    file = world.settings("alone")
    file.write_text(file.read_text().replace(f":{world.port}", f":{free_port()}"))
    done = world.doctor("--json", who="alone")
    assert done.code == 1
    assert verdicts(done)[-4:] == [("network", "ok"), *((check, "not_tried") for check in ("stun", "nat", "turn"))]


def test_only_relays(world: World) -> None:
    world.settings("relay", "alice", ice={"policy": "relay"})
    done = world.doctor("bob", "--json", who="relay")
    assert (done.code, done.stderr) == (0, "")
    assert found(done, "stun")["text"] == "not used: ice.policy is relay"
    path = found(done, "link")["facts"]["path"]
    assert (path["local"], path["relay"]) == ("relay", "udp")


def test_ping_tells_path_and_family(world: World) -> None:
    done = bv("ping", "bob", folder=world.folder / "alice")
    assert re.fullmatch(rf"bob {world.bob}  [0-9.]+ ms  host to host, IPv[46]\n", done.stdout)
    [line] = bv("ping", "bob", "--json", folder=world.folder / "alice").json
    assert line["path"] in PATHS


def test_interrupted(tmp_path: Path) -> None:
    """Whoever waits for a server that says nothing may leave."""
    with socket.create_server(("127.0.0.1", 0)) as silent, daemons() as running:
        file = write_yaml(tmp_path / "bonevalue.yaml", peer_role(silent.getsockname()[1]))
        running.append(Daemon(file, "doctor", script="bv"))
        running[0].wait_for("^ok    tcp ")
        assert running[0].stop(SIGINT) == 130
        assert "Traceback" not in running[0].output


# -- at a terminal -------------------------------------------------------------------------------------------------


def at_a_terminal(world: World, *args: str, **environment: str) -> str:
    """What a person sees who runs it in a terminal of 80 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        [BIN / "bv", *args],
        cwd=world.folder / "alice",
        env=clean_environment({"TERM": "xterm-256color", **environment}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    seen = bytearray()
    try:
        while chunk := os.read(master, 65_536):
            seen += chunk
    except OSError:
        pass  # how Linux says that the other end is closed
    finally:
        os.close(master)
        process.wait(PATIENCE)
    return seen.decode()


def shown(output: str) -> list[str]:
    """The lines that stay, without colours; what is wiped out by the next line does not."""
    lines = (line.rpartition("\r\x1b[K")[2].rstrip("\r") for line in output.split("\n"))
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


def test_in_colour_and_80_columns(world: World) -> None:
    output = at_a_terminal(world, "doctor", "carol")
    lines = shown(output)
    assert max(map(len, lines)) <= 80
    assert "\x1b[32mok" in output and "\x1b[1;31mFAIL" in output
    assert "... login" in output and not any("..." in line for line in lines)
    assert "\n".join(lines).rstrip().endswith("FAIL, 2 not tried")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colour(world: World, name: str, value: str) -> None:
    output = at_a_terminal(world, "doctor", "carol", **{name: value})
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", output)
    assert max(map(len, shown(output))) <= 80
    assert "FAIL  trust     there is no alias carol" in output.replace("\x1b[1m", "").replace("\x1b[0m", "")
