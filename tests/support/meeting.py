"""Two proved links over an engine, with hosts that serve modules, and no discovery server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bonevalue.host import Host
from bonevalue.life import LinkLife, State
from bonevalue.link import LinkEngine
from bonevalue.link_memory import MemoryEngine, MemoryNetwork
from bonevalue.module import Caller
from bonevalue.peer_link import PeerLink
from bonevalue.serving import ServedModule
from bonevalue.wire.calls import LinkSettings
from tests.support.links import Ends, connect
from tests.support.tables import FakeProof
from tests.support.waiting import other_tasks, until

__all__ = ["Meeting", "meet", "met"]


@dataclass
class Meeting:
    """Two hosts and the link between them; ``ours`` dialled."""

    ends: Ends
    our_host: Host
    their_host: Host
    ours: PeerLink
    theirs: PeerLink
    closed: list[PeerLink] = field(default_factory=list)

    def serve(self, name: str, function: Callable[..., Any], **options: Any) -> None:
        """Serve a function on their side."""
        self.their_host.modules[name] = ServedModule(name, function, **options)

    async def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()
        await self.ends.close()


async def meet(
    engine: LinkEngine | None = None,
    *,
    ours: LinkSettings | Host | None = None,
    theirs: LinkSettings | Host | None = None,
    our_id: str = "1",
    idle_timeout: float = 60.0,
) -> Meeting:
    """Two peers that have proved themselves to each other, each with its settings, or with a host that has them."""
    ends = await connect(engine or MemoryEngine(MemoryNetwork()))
    closed: list[PeerLink] = []
    our_host, their_host = (
        given if isinstance(given, Host) else Host(given or LinkSettings()) for given in (ours, theirs)
    )
    a, b = bytes([1]) * 64, bytes([2]) * 64

    def link(host: Host, offerer: bool) -> PeerLink:
        name, number = ("bob", "2") if offerer else ("alice", our_id)
        return PeerLink(
            ends.ours if offerer else ends.theirs,
            ends.caller if offerer else ends.callee,
            Caller(name, number, bytes(32), "aaaa-bbbb"),
            FakeProof(a, b) if offerer else FakeProof(b, a),
            LinkLife(number, name, dialled=offerer, state=State.PROOF),
            offerer=offerer,
            host=host,
            idle_timeout=idle_timeout,
            on_closed=closed.append,
            on_idle=lambda link: None,
        )

    meeting = Meeting(ends, our_host, their_host, link(our_host, True), link(their_host, False), closed)
    await asyncio.gather(meeting.ours.prove(), meeting.theirs.prove())
    return meeting


@asynccontextmanager
async def met(
    engine: LinkEngine | None = None,
    *,
    ours: LinkSettings | Host | None = None,
    theirs: LinkSettings | Host | None = None,
    idle_timeout: float = 60.0,
) -> AsyncIterator[Meeting]:
    """The same, closed in the end; then nothing may be left, and nothing may have been raised where nobody looks."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    before = asyncio.all_tasks()
    meeting = await meet(engine, ours=ours, theirs=theirs, idle_timeout=idle_timeout)
    try:
        yield meeting
    finally:
        await meeting.close()
    await until(lambda: other_tasks() <= before, what="tasks are left")
    assert not meeting.our_host.running and not meeting.their_host.running
    gc.collect()
    assert unhandled == []
