"""
The processes of a benchmark. A driver starts them and asks them for things, by a line of JSON each way on their pipes.

What a process can be asked is what its :class:`Role` has methods for. A role says nothing by itself, and ends when
its driver does.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import traceback
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import uvloop

from benchmarks.profiles import Profile, ProfileKind, begin

__all__ = ["Child", "ChildFailed", "Role", "resident_kib", "run"]

#: Longest line either way: a profile.
MAX_LINE = 16 * 1_048_576
#: Seconds for anything that is asked of a process; nothing here takes so long.
PATIENCE = 300.0
#: Seconds that a process has to end by itself.
GOODBYE = 10.0


class ChildFailed(Exception):
    """A process of a benchmark could not do what it was asked, or has ended."""


class Child:
    """One process, seen from the driver."""

    def __init__(self, process: Process, name: str) -> None:
        self.name = name
        self._process = process

    @classmethod
    @asynccontextmanager
    async def running(cls, module: str, role: str) -> AsyncIterator[Self]:
        """A process in which a role of a module (which ends in a call of :func:`run`) waits to be asked."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, role, stdin=PIPE, stdout=PIPE, limit=MAX_LINE
        )
        child = cls(process, f"{role} of {module.rpartition('.')[2]}")
        try:
            yield child
        finally:
            await child._stop()

    async def ask(self, what: str, **arguments: Any) -> Any:
        """
        Have it run a method of its role.

        Raises:
            ChildFailed: it raised something, or the process is no more.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
            async with asyncio.timeout(PATIENCE):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ChildFailed(f"{self.name}: {what} took more than {PATIENCE:.0f} s") from None
        except OSError as error:
            raise ChildFailed(f"{self.name} has ended: {error}") from error
        if not line:
            raise ChildFailed(f"{self.name} has ended, exit code {await self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{self.name}: {answer['error']}")
        return answer["value"]

    async def _stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(GOODBYE):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


class Role:
    """What a process of a benchmark is; each public coroutine method is something that it can be asked."""

    _profile: Profile | None = None

    async def begin_profile(self, kind: ProfileKind) -> None:
        """Write down from now on where the time goes."""
        self._profile = begin(kind)

    async def end_profile(self) -> str:
        """The listing."""
        assert self._profile is not None
        return self._profile.end()

    async def cpu(self) -> float:
        """Seconds of CPU time so far, of all threads."""
        return time.process_time()

    async def memory(self) -> int:
        """Memory of the process in KiB, without what could be collected."""
        gc.collect()
        return resident_kib()

    async def stop(self) -> None:
        """Give everything back; the process ends then."""


def resident_kib() -> int:
    """Memory of this process that is in RAM, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def run(roles: Mapping[str, type[Role]]) -> None:
    """The main program of a process: be the role that the command line names."""
    uvloop.run(_serve(roles[sys.argv[1]]))


async def _serve(kind: type[Role]) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    role = kind()
    while line := await lines.readline():
        what, arguments = json.loads(line)
        try:
            answer = {"value": await getattr(role, what)(**arguments)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await role.stop()
