"""
Calls between two peers of one process: over a link in memory (our own cost) and over aiortc (what a user gets).

Prints one JSON object a line: ``calls`` with as many at once as said, and ``bodies`` with long requests that come back.
Both ends share one event loop and one core, so a pair of machines does more.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from bonevalue.host import Host, PeerLink
from bonevalue.link import Connection, IceConfig, LinkEngine
from bonevalue.link_memory import MemoryNetwork
from bonevalue.module import Caller
from bonevalue.rtc import RtcEngine
from bonevalue.serving import ServedModule
from bonevalue.wire.calls import LinkSettings

#: Seconds that each measurement takes.
DURATION = 2.0
#: Calls in flight at once.
CONCURRENCY = (1, 64, 512)
#: Length of a long body in bytes, and how many of them are in flight at once.
BODY, BODIES = 1024 * 1024, 4

#: The parts of an engine a benchmark tells apart.
ENGINES: dict[str, Callable[[], LinkEngine]] = {
    "memory": lambda: MemoryNetwork().engine(),
    "aiortc": RtcEngine,
}


class NoProof:
    """Both sides are in this process: the signatures are not what is measured."""

    mine = bytes(64)

    def accepts(self, signature: bytes) -> bool:
        """Whether the other side sent its signature at all."""
        return signature == self.mine


async def echo(request: Any) -> Any:
    """Give back what came."""
    return request


async def dial(engine: LinkEngine) -> tuple[Connection, Connection]:
    """Connect two connections of one engine to each other."""
    caller, callee = (engine.connection(IceConfig()) for _ in range(2))
    await caller.accept_answer(await callee.accept_offer(await caller.create_offer()))
    return caller, callee


@asynccontextmanager
async def linked(engine: LinkEngine) -> AsyncIterator[PeerLink]:
    """The caller's end of a proven link; the other end serves ``Echo``."""
    host = Host(LinkSettings())
    host.modules["Echo"] = ServedModule("Echo", echo, concurrency=1024)
    connections = await dial(engine)
    ends = [
        PeerLink(
            await connection.opened(),
            connection,
            Caller(name="Us", id=str(number), key=bytes(32), fingerprint=""),
            NoProof(),
            offerer=number == 0,
            host=host,
            idle_timeout=60,
            on_closed=lambda _: None,
            on_idle=lambda _: None,
        )
        for number, connection in enumerate(connections)
    ]
    try:
        await asyncio.gather(*(end.prove() for end in ends))
        yield ends[0]
    finally:
        for end, connection in zip(ends, connections, strict=True):
            end.close()
            await connection.close()


async def repeat(work: Callable[[], Awaitable[Any]], *, at_once: int) -> tuple[list[float], float]:
    """Do it over and over, so many at once; gives how long each took, and all together, in seconds."""
    took: list[float] = []
    begun = time.perf_counter()
    end = begun + DURATION

    async def one() -> None:
        while (start := time.perf_counter()) < end:
            await work()
            took.append(time.perf_counter() - start)

    await asyncio.gather(*(one() for _ in range(at_once)))
    return took, time.perf_counter() - begun


def show(**values: object) -> None:
    """Print one result."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def measure(name: str, engine: LinkEngine) -> None:
    """Everything over one engine."""
    async with linked(engine) as link:
        for at_once in CONCURRENCY:
            took, seconds = await repeat(lambda: link.call("Echo", {"text": "Friday"}, 30), at_once=at_once)
            took.sort()
            show(
                benchmark="calls",
                link=name,
                at_once=at_once,
                per_second=round(len(took) / seconds),
                p50_ms=round(took[len(took) // 2] * 1000, 3),
                p99_ms=round(took[len(took) * 99 // 100] * 1000, 3),
            )
        body = bytes(BODY)
        took, seconds = await repeat(lambda: link.call("Echo", body, 60), at_once=BODIES)
        show(
            benchmark="bodies",
            link=name,
            at_once=BODIES,
            body_bytes=BODY,
            megabytes_per_second=round(2 * BODY * len(took) / seconds / 1e6, 1),
        )


async def main() -> None:
    """Both engines, one after the other."""
    for name, engine in ENGINES.items():
        await measure(name, engine())


if __name__ == "__main__":
    uvloop.run(main())
