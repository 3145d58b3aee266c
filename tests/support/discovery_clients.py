"""A discovery client that runs for the length of a test, and a server that never answers one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from bonevalue.config import Address
from bonevalue.discovery import DiscoveryClient
from bonevalue.wire.session import Session
from bonevalue.wire.session_events import Event, WentOnline
from tests.support.sessions import make_session
from tests.support.waiting import until

__all__ = ["Running", "deaf_port", "running"]


class Running:
    """A client that runs, and what it reported."""

    def __init__(self, address: Address, session: Session | None = None, **others: Any) -> None:
        self.events: list[Event] = []
        # The first retry comes at once, so that no test has to wait for it.
        others.setdefault("on_event", self.events.append)
        self.client = DiscoveryClient(address, session or make_session(chance=0.0), **others)
        self.task = asyncio.create_task(self.client.run())

    def count(self, kind: type[Event]) -> int:
        """How many events of a kind there were."""
        return sum(isinstance(event, kind) for event in self.events)

    def first(self, kind: type[Any]) -> Any:
        """The first event of a kind."""
        return next(event for event in self.events if isinstance(event, kind))

    async def online(self, times: int = 1) -> None:
        """Wait until it has been online so often."""
        await until(lambda: self.count(WentOnline) >= times or self.task.done(), what="online")
        assert self.count(WentOnline) >= times


@asynccontextmanager
async def running(address: Address, session: Session | None = None, **others: Any) -> AsyncIterator[Running]:
    """A client that runs for the length of a block; how its run ended is the block's business."""
    run = Running(address, session, **others)
    try:
        yield run
    finally:
        await run.client.close()
        await asyncio.wait([run.task], timeout=10)
        assert run.task.done()
        if not run.task.cancelled():
            run.task.exception()


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
