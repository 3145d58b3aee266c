"""
Links that heal: those that were lost are made anew, those that may be broken are replaced before they break.

WebRTC here cannot move a connection to another path, so a new one is made beside it. Whoever wants a link (holds it, or
has calls on it) brings it back. If both sides do, who dialled before goes first; and should both dial at once, the
pool settles it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from bonevalue.errors import BoneValueError, IdentityMismatch, LinkLost, NotTrusted
from bonevalue.network import NetworkChange
from bonevalue.peer_link import PeerLink
from bonevalue.pool import GLARE_WINDOW, Pool
from bonevalue.wire.pacing import Backoff

__all__ = ["Healing"]

logger = logging.getLogger(__name__)

#: Seconds that a link has to answer when it is examined. By the middle, all has come that was under way before.
PROBE = 3.0
#: Seconds for which the side that was dialled waits for the other one to dial again.
YIELD = 1.5
#: Longest first delay between two attempts to bring a link back, and longest of all, in seconds.
FIRST_RETRY, LONGEST_RETRY = 0.5, 10.0


class Healing:
    """
    Brings the links of one peer back.

    Args:
        pool: its links.
        spawn: runs something beside, for as long as the peer lives.
    """

    def __init__(self, pool: Pool, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._pool = pool
        self._spawn = spawn
        #: The peers whose links are being brought back.
        self._healing: set[str] = set()
        #: The links that are asked whether their peer, who is said to have left, is still there.
        self._asked: set[PeerLink] = set()
        #: By peer, those who wait for the next try, which may succeed sooner if something changes.
        self._changes: dict[str, asyncio.Event] = {}

    def lost(self, link: PeerLink) -> None:
        """A link was lost; if this side wanted it, it comes back."""
        if link.proved and time.monotonic() < link.missed_until:
            head_start = 0.0 if link.offerer else YIELD * (1 + random.random())
            self._bring_back(link.remote.id, link.missed_until, head_start)

    def replaced(self, link: PeerLink) -> None:
        """
        Another link has taken the place of one that drains.

        The other side may have made it because it has moved: then the calls on the old one should not wait for it to
        be silent long enough.
        """
        reason = "another link took its place, and nothing gets through on it any more"
        self._spawn(self._end_if_silent(link, reason))

    def peer_left(self, peer_id: str) -> None:
        """
        The server says that a peer is offline.

        It may have lost no more than the server: a link on which it answers stays. Else its calls need not wait until
        it has been silent for long enough.
        """
        for link in self._pool.links():
            if link.remote.id == peer_id and link.usable and link not in self._asked:
                self._asked.add(link)
                self._spawn(self._ask(link))

    def bring_back(self, peer_id: str) -> None:
        """A peer was about to make a link with this one when it was cut off: make it from here."""
        self._bring_back(peer_id, time.monotonic() + LONGEST_RETRY, 0.0)

    def retry_now(self) -> None:
        """The server is reached again, or the network has changed: what failed before may succeed now."""
        self._pool.retry_now()
        for peer_id in list(self._changes):
            self._wake(peer_id)

    def peer_came(self, peer_id: str) -> None:
        """A peer is online: it may be reached now."""
        self._pool.retry_now(peer_id)
        self._wake(peer_id)

    def _wake(self, peer_id: str) -> None:
        change = self._changes.pop(peer_id, None)
        if change is not None:
            change.set()

    def network_changed(self, change: NetworkChange) -> None:
        """Replace the links whose path is gone, and look after the others."""
        self.retry_now()
        for link in self._pool.links():
            if link.usable and link.is_wanted and not link.doubted:
                self._spawn(self._examine(link, change))

    async def _examine(self, link: PeerLink, change: NetworkChange) -> None:
        path = link.connection.path()
        # One that was taken and given back may serve as before.
        gone = path is not None and path.local_address in change.removed - change.added
        if not gone and await _answers(link):
            return
        if link.gone.done():
            return
        logger.info(
            "link to %s/%s: %s; making another", link.remote.name, link.remote.id,
            f"its address {path.local_address} is gone" if gone and path else "no answer since the network changed",
        )  # fmt: skip
        link.doubt()
        # Until then, another link would look as if both sides had dialled at once, and might be the one that goes.
        await asyncio.sleep(link.opened_at + GLARE_WINDOW - time.monotonic())
        if link.doubted and not link.gone.done():
            await self._redial(link.remote.id, max(link.wanted_until, time.monotonic() + LONGEST_RETRY))
            if gone and link.doubted:
                # It would hold its calls for as long as it takes to hear nothing; they may be tried again now.
                link.close(LinkLost("the address of this machine that the link used is gone"))

    async def _ask(self, link: PeerLink) -> None:
        try:
            if not await _answers(link):
                link.lose("the server says that the peer has left, and it does not answer")
        finally:
            self._asked.discard(link)

    async def _end_if_silent(self, link: PeerLink, reason: str) -> None:
        if not await _answers(link):
            link.close(LinkLost(reason))

    def _bring_back(self, peer_id: str, until: float, head_start: float) -> None:
        if peer_id in self._healing:
            return
        self._healing.add(peer_id)

        async def bring_back() -> None:
            try:
                await asyncio.sleep(head_start)
                await self._redial(peer_id, until)
            finally:
                self._healing.discard(peer_id)

        self._spawn(bring_back())

    async def _redial(self, peer_id: str, until: float) -> None:
        """Try until there is a link, or the time is over for which one is wanted."""
        backoff = Backoff(random.random, first=FIRST_RETRY, longest=LONGEST_RETRY)
        try:
            while (now := time.monotonic()) < until:
                change = self._changes.setdefault(peer_id, asyncio.Event())
                try:
                    (await self._pool.link(peer_id)).keep(until)
                    return
                except (NotTrusted, IdentityMismatch) as error:
                    logger.debug("the link to %s is not brought back: %s", peer_id, error.message)
                    return
                except BoneValueError as error:
                    logger.debug("the link to %s is not back yet: %s", peer_id, error.message)
                    wait = backoff.next(error.retry_after)
                try:
                    async with asyncio.timeout(min(wait, until - now)):
                        await change.wait()
                except TimeoutError:
                    pass
                else:
                    backoff.reset()
        finally:
            self._changes.pop(peer_id, None)


async def _answers(link: PeerLink) -> bool:
    """
    Whether what is sent reaches the other side, and its answers reach us.

    That something comes from there is no answer: packets may have lost their way to it alone, as where they leave by
    another network now and its NAT does not know that one. A ping may wait behind much else; but if that is
    acknowledged meanwhile, and not only what was under way when the network changed, it gets through.
    """
    acknowledged = 0
    for _ in range(2):  # if this process stands still, it spoils one of them
        acknowledged = link.acknowledged
        with suppress(BoneValueError):  # no answer, or the link has ended
            await link.ping(PROBE / 2)
            return True
    return link.acknowledged > acknowledged
