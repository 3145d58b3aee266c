"""
Real processes for tests: `bv-run` as a daemon, `bv` as a command, and the YAML files that they read.

Nothing here sleeps in hope: every wait is for a line, an exit or a port, and has a bound.

::

    daemon = Daemon(write_yaml(tmp_path / "bonevalue.yaml", both_roles(free_port())))
    daemon.wait_for("online")
    finished = bv("peers", folder=tmp_path)
    assert finished.code == 0
    daemon.stop()
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any

import yaml

__all__ = [
    "BIN",
    "ECHO",
    "PASSWORD",
    "PATIENCE",
    "Daemon",
    "Finished",
    "both_roles",
    "bv",
    "clean_environment",
    "daemons",
    "discovery_role",
    "free_port",
    "peer_role",
    "run_to_end",
    "write_module",
    "write_yaml",
]

#: Where the console scripts of this environment are.
BIN = Path(sys.executable).parent
#: A password that is good enough to be registered with.
PASSWORD = "plum-tart-and-a-violin"
#: Seconds to wait for something that should take under one.
PATIENCE = 30.0

ECHO = """\
from bonevalue import Module


class Echo(Module):
    name = "My.Echo.Module"

    async def handle(self, request, context):
        return {"text": "Not " + request["text"]}
"""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any BV_ variable, plus `extra`; bytecode is kept, so that each starts fast."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BV_") and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


# -- files -------------------------------------------------------------------------------------------------------


def discovery_role(port: int, accounts: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    """The `discovery:` section of a server on loopback with these accounts (name to password), and further keys."""
    entries = [{"username": name, "password": password} for name, password in (accounts or {}).items()]
    return {"discovery": {"listen": f"127.0.0.1:{port}", "accounts": entries, **more}}


def peer_role(
    port: int, username: str = "admin", password: str = PASSWORD, *, modules: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    """The sections of a peer of the server on that port, and further top-level sections."""
    return {
        "server": {"address": f"ws://127.0.0.1:{port}"},
        "credentials": {"username": username, "password": password},
        "modules": modules if modules is not None else [],
        **more,
    }


def both_roles(port: int, **more: Any) -> dict[str, Any]:
    """Server and peer in one file, with one account `admin`."""
    return {**peer_role(port, **more), **discovery_role(port, {"admin": PASSWORD})}


def write_yaml(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a settings file that only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    path.chmod(0o600)
    return path


def write_module(folder: Path, name: str = "echo", source: str = ECHO) -> Path:
    """Write `modules/<name>.py` below the folder of a settings file."""
    path = folder / "modules" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


# -- processes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """A process that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def faults(self) -> list[str]:
        """The lines on standard error."""
        return [line for line in self.stderr.splitlines() if line.strip()]

    @property
    def json(self) -> list[Any]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.stdout.splitlines()]


def run_to_end(
    script: str,
    *args: str | Path,
    folder: Path,
    stdin: str | None = None,
    stdout: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    timeout: float = PATIENCE,
    prefix: Sequence[str] = (),
) -> Finished:
    """Run `bv` or `bv-run` in a folder until it ends by itself; it has no terminal. A prefix is put before it."""
    done = subprocess.run(
        [*prefix, BIN / script, *args],
        cwd=folder,
        input=stdin if stdin is not None else "",
        env=clean_environment(env),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Finished(done.returncode, done.stdout or "", done.stderr)


def bv(*args: str | Path, folder: Path, **more: Any) -> Finished:
    """Run a `bv` command to its end."""
    return run_to_end("bv", *args, folder=folder, **more)


class Daemon:
    """
    A running `bv-run FILE`, or another of our scripts that is to run for a while.

    Standard output and standard error come in one list of lines; waiting for a line looks at those that are there
    already, from the place where the last wait ended.

    Args:
        file: of settings; its folder is where the process runs.
        prefix: put before the command, which must take its place, so that the process is the daemon's own.
    """

    def __init__(
        self,
        file: Path,
        *args: str,
        script: str = "bv-run",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.file = file
        self.lines: list[str] = []
        self._seen = 0
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            [*prefix, BIN / script, *([file] if script == "bv-run" else []), *args],
            cwd=file.parent,
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"output of {file}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._more.notify_all()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has printed so far."""
        with self._more:
            return "\n".join(self.lines)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_for(self, pattern: str, *, timeout: float = PATIENCE) -> re.Match[str]:
        """
        Wait for the next line that the regular expression is found in.

        Raises:
            AssertionError: none came in time, or the process ended; the message has all that it printed.
        """
        until = time.monotonic() + timeout
        with self._more:
            while True:
                while self._seen < len(self.lines):
                    line = self.lines[self._seen]
                    self._seen += 1
                    found = re.search(pattern, line)
                    if found is not None:
                        return found
                left = until - time.monotonic()
                ended = not self._reader.is_alive()
                if ended or left <= 0:
                    why = "the process ended" if ended else f"{timeout} s passed"
                    raise AssertionError(
                        f"{why} without a line like {pattern!r}; it printed:\n" + "\n".join(self.lines)
                    )
                self._more.wait(min(left, 0.5))

    def wait(self, *, timeout: float = PATIENCE) -> int:
        """Wait until it ends by itself, and give its exit code."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def signal(self, number: Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self, number: Signals = SIGTERM, *, timeout: float = PATIENCE) -> int:
        """Ask it to stop, wait until it has, and give its exit code."""
        if self.running:
            self.signal(number)
        return self.wait(timeout=timeout)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.running:
            self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def daemons() -> Iterator[list[Daemon]]:
    """A list for the daemons of a test; those still running at its end are killed."""
    running: list[Daemon] = []
    try:
        yield running
    finally:
        for daemon in running:
            daemon.kill()
