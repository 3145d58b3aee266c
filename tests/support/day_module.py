"""
The modules of a daemon on its eventful day: one that works for others, one that has others work for it.

Both write down what they do, line by line, in a journal that outlives the process whatever becomes of it. Times are of
the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bonevalue import Module
from bonevalue.errors import BoneValueError

__all__ = ["Employer", "Worker"]

#: Seconds from one call to the next, about.
PAUSE = 0.15
#: Seconds that the work of a call takes: most are short, some long enough for a fault to meet them.
SHORT, LONG = 0.02, 3.0
#: What part of the calls is long, and what part of those may be done twice.
PART_LONG, PART_IDEMPOTENT = 0.3, 0.3


class _Journal:
    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, call: str, **more: Any) -> None:
        """One line, in one write: no other line gets into it, and a process that is killed leaves no half of one."""
        line = {"what": what, "call": call, "at": time.monotonic(), "pid": os.getpid(), **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")


class _Config(BaseModel):
    name: str
    journal: Path


class Worker(Module):
    """Works for as long as it is told, and signs with its name."""

    name = "Worker"
    Config = _Config

    async def start(self) -> None:
        """Open the journal."""
        self._journal = _Journal(self.config.journal)

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request has the id of the call and the seconds that it takes."""
        self._journal.write("run", request["call"])
        await asyncio.sleep(request["seconds"])
        return {"call": request["call"], "by": self.config.name}


class Employer(Module):
    """Calls the workers of others all day, until there is a file `evening` beside its journal."""

    name = "Employer"
    drop_in = False

    class Config(_Config):
        """Its settings."""

        #: Seconds that each call has.
        timeout: float

    async def start(self) -> None:
        """Begin, although nobody can be reached yet."""
        self._journal = _Journal(self.config.journal)
        self._evening = self.config.journal.with_name("evening")
        self._calls: set[asyncio.Task[None]] = set()
        self._day = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Stop as one who is told to."""
        self._day.cancel()
        await asyncio.wait({self._day, *self._calls})

    async def handle(self, request: Any) -> None:
        """It serves nobody."""

    async def _work(self) -> None:
        number = 0
        while not self._evening.exists():
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
            peers = self.peer.peers()
            if peers:
                number += 1
                call = asyncio.create_task(
                    self._call(f"{self.config.name}.{os.getpid()}.{number}", random.choice(peers))
                )
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

    async def _call(self, call: str, peer: Any) -> None:
        long = random.random() < PART_LONG
        idempotent = long and random.random() < PART_IDEMPOTENT
        request = {"call": call, "seconds": random.uniform(0.5, 1.0) * (LONG if long else SHORT)}
        target = self.peer.get(peer.id)
        self._journal.write("begin", call, idempotent=idempotent, to=peer.id)
        outcome = by = why = ""
        try:
            answer = await target.call("Worker", request, timeout=self.config.timeout, idempotent=idempotent)
            outcome, by = "answered" if answer["call"] == call else "the answer to another call", answer["by"]
        except BoneValueError as error:
            outcome, why = error.code, error.message
        except asyncio.CancelledError:
            outcome = "stopped"
            raise
        except Exception as error:
            outcome = f"{type(error).__name__}, which is no error of ours: {error}"
        finally:
            self._journal.write("end", call, outcome=outcome, by=by, why=why)
