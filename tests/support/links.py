"""Pairs of connections and links, and a link's events as lists, for any engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from bonevalue.link import Connection, IceConfig, Link, LinkEngine

__all__ = ["Ends", "Heard", "connect", "listen"]

NO_SERVERS = IceConfig()


@dataclass
class Heard:
    """What one end of a link was told."""

    messages: list[bytes] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    drained: int = 0

    def count_drained(self) -> None:
        """For `on_drained`."""
        self.drained += 1


def listen(link: Link) -> Heard:
    """Set all handlers of a link, so that they write down what they are told."""
    heard = Heard()
    link.on_closed = heard.closed.append
    link.on_drained = heard.count_drained
    link.on_message = heard.messages.append
    return heard


@dataclass
class Ends:
    """Two connections that reached each other, and their links."""

    caller: Connection
    callee: Connection
    ours: Link
    theirs: Link

    async def close(self) -> None:
        """Close both."""
        await asyncio.gather(self.caller.close(), self.callee.close())


async def connect(engine: LinkEngine, *, ice: IceConfig = NO_SERVERS, timeout: float = 10.0) -> Ends:
    """Two connections of one engine that have reached each other."""
    caller, callee = engine.connection(ice), engine.connection(ice)
    async with asyncio.timeout(timeout):
        await caller.accept_answer(await callee.accept_offer(await caller.create_offer()))
        ours, theirs = await asyncio.gather(caller.opened(), callee.opened())
    return Ends(caller, callee, ours, theirs)
