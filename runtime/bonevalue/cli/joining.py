"""
How a command joins the network: as an invisible peer that serves nothing, for as long as the command takes.

What it needs is imported late: WebRTC and the rest take half a second to load, and neither `bv --help` nor `bv check`
nor a wrong argument should wait for that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings
    from bonevalue.peer import Peer

__all__ = ["joined", "run"]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work of a command; only what a person must know is logged meanwhile."""
    logging.basicConfig(level=logging.ERROR, format="bv: %(message)s", force=True)
    return uvloop.run(work)


@asynccontextmanager
async def joined(settings: PeerSettings) -> AsyncIterator[Peer]:
    """
    Log in, invisibly, and leave at the end.

    Raises:
        ServerUnreachable: there is no server at the first try; a command does not wait for better times.
        DiscoveryError: the login was refused, or the realm is another.
    """
    keys = asyncio.get_running_loop().run_in_executor(None, settings.derive_keys)  # while the rest is loaded
    from bonevalue.peer import Peer

    async with Peer.from_settings(settings, visible=False, keys=await keys) as peer:
        yield peer
