"""
Calls of ours: whom a query means, a link to that peer, and the call over it, made again where that is safe.

A call that was not begun, because its link was being drained, always moves to a new one. A call that was sent and lost
its link may have been run: only one that is ``idempotent`` is made again, and only once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bonevalue.errors import BoneValueError, Deadline, IdentityMismatch, LinkLost, NoTarget
from bonevalue.items import Items, ReceivedItems, iterator_of
from bonevalue.link import PathInfo
from bonevalue.link_calls import CallMoved
from bonevalue.peer_link import PeerLink
from bonevalue.pool import Pool
from bonevalue.target import EVERYONE, OWN_ACCOUNT
from bonevalue.wire.signals import PeerEntry

__all__ = ["Calls", "Ping"]

logger = logging.getLogger(__name__)

#: Whom a peer sees before it is started.
NOT_STARTED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Ping:
    """The way to a peer: round trip in seconds, and the kinds of both ends of the path."""

    round_trip: float
    path: PathInfo | None


class Calls:
    """
    The calls that one peer makes: what its targets need (:class:`~bonevalue.target.Calling`).

    Args:
        pool: its links.
        default_timeout: seconds that a call has if nothing else is said.
        max_timeout: longest that a call may be given, in seconds.
        report: told of a link that turned out to lead to somebody else, with the peer id.
        spawn: runs something beside.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        default_timeout: float,
        max_timeout: float,
        report: Callable[[BoneValueError, str], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        #: The peers that may be called just now, id to name: a view that changes with them.
        self.online: Mapping[str, str] = NOT_STARTED
        self.default_timeout = default_timeout
        self.spawn = spawn
        self._pool = pool
        self._max_timeout = max_timeout
        self._report = report

    # -- whom ----------------------------------------------------------------------------------------------------------

    def resolve(self, query: str) -> list[PeerEntry]:
        """The peers that a query means just now."""
        if query.isdigit():
            peer = self._of_id(query)
            return [peer] if peer is not None else []
        if query == EVERYONE:
            return [PeerEntry(name, peer_id) for peer_id, name in self.online.items()]
        wanted = OWN_ACCOUNT if query.lower() == OWN_ACCOUNT.lower() else query.lower()
        return [PeerEntry(name, peer_id) for peer_id, name in self.online.items() if name == wanted]

    def choose(self, query: str) -> PeerEntry:
        """
        One of them: one to whom there is a link, if to any.

        Raises:
            NoTarget: there is none.
        """
        if query.isdigit():
            peer = self._of_id(query)
            if peer is not None:
                return peer
        peers = self.resolve(query)
        if not peers:
            why = "; this peer has not been started" if self.online is NOT_STARTED else ""
            raise NoTarget(f"nobody is online under {query!r}{why}")
        return next((peer for peer in peers if self._pool.current(peer.id) is not None), peers[0])

    def _of_id(self, peer_id: str) -> PeerEntry | None:
        name = self.online.get(peer_id)
        if name is None:
            link = self._pool.current(peer_id)
            if link is None:
                return None
            name = link.remote.name
        return PeerEntry(name, peer_id)

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def call_peer(
        self,
        peer: PeerEntry,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        items: Items | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Call a module of one peer; see :meth:`Target.call`."""
        # Calls by the ten thousand a second come this way: when there is a link, nothing is done but to call over it.
        if timeout > self._max_timeout:
            timeout = self._max_timeout
        deadline = time.monotonic() + timeout
        sent = None if items is None else _Sent(items)
        link = self._pool.current(peer.id)
        if link is None or link.remote.name != peer.name:
            link = await self._link(peer, deadline)
            timeout = deadline - time.monotonic()
        while True:
            try:
                return await link.call_encoded(module, body, raw, timeout, keep_alive, sent)
            except CallMoved:
                _check_whole(sent, peer)
                link = await self._link(peer, deadline)
            except LinkLost as lost:
                if not idempotent:
                    raise
                idempotent = False
                link = await self._link_again(peer, deadline, lost)
            timeout = deadline - time.monotonic()

    async def open_stream(
        self,
        peer: PeerEntry,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        items: Items | None = None,
    ) -> ReceivedItems:
        """Call a module of one peer that answers with a stream; see :meth:`Target.stream`."""
        deadline = time.monotonic() + min(timeout, self._max_timeout)
        sent = None if items is None else _Sent(items)
        while True:
            link = await self._link(peer, deadline)
            left = deadline - time.monotonic()
            try:
                return await link.open_stream_encoded(module, body, raw, left, keep_alive, sent)
            except CallMoved:
                _check_whole(sent, peer)

    async def ping_peer(self, peer: PeerEntry, timeout: float) -> Ping:
        """Measure the way to one peer; see :meth:`Target.ping`."""
        deadline = time.monotonic() + timeout
        link = await self._link(peer, deadline)
        round_trip = await link.ping(max(0.0, deadline - time.monotonic()))
        return Ping(round_trip, link.connection.path())

    # -- links ---------------------------------------------------------------------------------------------------------

    async def _link(self, peer: PeerEntry, deadline: float) -> PeerLink:
        if peer.id == self._pool.own_id:
            raise NoTarget("a peer does not call itself")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                link = await self._pool.link(peer.id)
        except BoneValueError as shared:
            error = copy(shared)  # others may wait for the same attempt
            error.peer = peer.id
            raise error from shared
        except TimeoutError:
            progress = self._pool.progress(peer.id)
            why = f"no link to {peer.name}/{peer.id} within the call's time{progress and '; '}{progress}"
            raise Deadline(why) from None
        if link.remote.name != peer.name:
            # Presence is the server's word; only the link has proof. What is meant for one must not go to another.
            mismatch = IdentityMismatch(f"the server says that peer {peer.id} is {peer.name}: it is {link.remote.name}")
            logger.warning("a call was not made: %s", mismatch.message)
            self._report(mismatch, peer.id)
            raise mismatch
        return link

    async def _link_again(self, peer: PeerEntry, deadline: float, lost: LinkLost) -> PeerLink:
        """A link for a call that has lost its own: if there is none, that is still what became of the call."""
        try:
            return await self._link(peer, deadline)
        except (Deadline, IdentityMismatch):
            raise
        except BoneValueError as error:
            again = LinkLost(f"{lost.message}; no new link: {error.message}")
            again.peer = peer.id
            raise again from error


class _Sent:
    """The items of a call, and whether any may have been taken."""

    def __init__(self, items: Items) -> None:
        self.begun = False
        self._items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        self.begun = True
        return iterator_of(self._items)


def _check_whole(items: _Sent | None, peer: PeerEntry) -> None:
    """Let a call move only if its items can be sent from the first on: an iterator gives each only once."""
    if items is not None and items.begun:
        error = LinkLost("the peer let go of the link before it took the call, whose items cannot be sent again")
        error.peer = peer.id
        raise error
