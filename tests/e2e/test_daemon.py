"""`bv-run` as a process: its roles, its signals. What it says about faults is in test_faults.py."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import (
    Daemon,
    both_roles,
    bv,
    daemons,
    free_port,
    peer_role,
    run_to_end,
    write_module,
    write_yaml,
)

SLEEP = """\
import asyncio

from bonevalue import Module


class Sleep(Module):
    async def handle(self, request):
        self.log.warning("asleep")
        await asyncio.sleep(request)
"""


@pytest.fixture
def running() -> Iterator[list[Daemon]]:
    """Daemons of a test, ended at its end."""
    with daemons() as started:
        yield started


def test_each_role_in_a_process_of_its_own(tmp_path: Path, running: list[Daemon]) -> None:
    """One file, two processes: `--only discovery` beside `--only peer`."""
    write_module(tmp_path)
    file = write_yaml(tmp_path / "bonevalue.yaml", both_roles(free_port(), modules=["modules.echo.Echo"]))
    server = Daemon(file, "--only", "discovery")
    running.append(server)
    server.wait_for("listens on")
    peer = Daemon(file, "--only", "peer")
    running.append(peer)
    peer.wait_for("online as admin, peer [0-9]+, serving My.Echo.Module")
    assert bv("call", "Us", "My.Echo.Module", '{"text": "Friday"}', folder=tmp_path).code == 0
    twin = Daemon(file, "--only", "peer")
    running.append(twin)
    twin.wait_for("online as admin")
    both = bv("call", "Us", "My.Echo.Module", '{"text": "Friday"}', folder=tmp_path)
    assert (both.code, both.stdout.count("Not Friday")) == (0, 2)
    assert both.stdout.endswith("2 of 2 answered\n")
    first = bv("call", "Us", "My.Echo.Module", '{"text": "Friday"}', "--first", "1", "--json", folder=tmp_path)
    assert first.code == 0
    assert first.json[-1] == {"summary": {"asked": 2, "answered": 1, "failed": 0, "without": 0}}
    assert twin.stop() == 0
    assert "online" not in server.output
    assert "listens" not in peer.output
    assert peer.stop() == 0
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_server_is_away(tmp_path: Path, running: list[Daemon], number: signal.Signals) -> None:
    daemon = Daemon(write_yaml(tmp_path / "bonevalue.yaml", peer_role(free_port())))
    running.append(daemon)
    daemon.wait_for("cannot reach the discovery server")
    assert daemon.stop(number, timeout=10) == 0
    assert "Traceback" not in daemon.output


def test_a_second_signal_ends_it_at_once(tmp_path: Path, running: list[Daemon]) -> None:
    write_module(tmp_path, "sleep", SLEEP)
    file = write_yaml(tmp_path / "bonevalue.yaml", both_roles(free_port(), modules=["modules.sleep.Sleep"]))
    daemon = Daemon(file)
    running.append(daemon)
    daemon.wait_for("online as admin")
    caller = Daemon(file, "call", "Us", "Sleep", "60", script="bv")
    running.append(caller)
    daemon.wait_for("asleep")
    daemon.signal(signal.SIGINT)
    daemon.wait_for("stopping")
    daemon.signal(signal.SIGINT)
    assert daemon.wait(timeout=5) == -signal.SIGINT


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    write_yaml(tmp_path / "bonevalue.yaml", peer_role(1))
    with open("/dev/full", "w") as full:
        finished = run_to_end("bv", "config", folder=tmp_path, stdout=full.fileno())
    assert finished.code == 1
    assert finished.faults == ["bv: cannot_write: standard output: no space left on device"]
