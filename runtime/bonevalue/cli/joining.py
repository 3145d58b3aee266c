"""
How a command joins the network: as an invisible peer that serves nothing, for as long as the command takes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from bonevalue import logs
from bonevalue.config import PeerSettings

if TYPE_CHECKING:
    from bonevalue.peer import Peer

__all__ = ["joined", "run"]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a command; only what a person must know is logged meanwhile."""
    logs.configure("error", "console")
    return uvloop.run(work)


@asynccontextmanager
async def joined(settings: PeerSettings) -> AsyncIterator[Peer]:
    """
    Log in, invisibly, and leave at the end.

    Raises:
        ServerUnreachable: there is no server at the first try; a command does not wait for better times.
        DiscoveryError: the login was refused, or the realm is another.
    """
    # Imported late: WebRTC takes half a second to load, and `bv check` or a wrong argument should not wait for it.
    from bonevalue.peer import Peer

    async with Peer.from_settings(settings, visible=False) as peer:
        yield peer
