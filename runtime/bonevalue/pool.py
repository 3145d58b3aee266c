"""
All links of one peer: one a remote peer, within limits.

Whoever wants to call asks :meth:`Pool.link`. It gives the link that is there, joins the attempt that is under way, or
begins one as soon as there is a slot, first come first served. Slots are taken by attempts and by links that this side
dialled, until they are gone. While others wait, links that nothing uses are drained, the longest unused first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from bonevalue.counters import Counters
from bonevalue.errors import BoneValueError, ConnectFailed, LinkLimit, LinkLost, Unavailable
from bonevalue.peer_link import PeerLink
from bonevalue.wire.pacing import Buckets, Pace

__all__ = ["Pool"]

logger = logging.getLogger(__name__)

#: Links that others opened and that are not proved yet, at most.
MAX_UNPROVED = 16
#: Those of them that one account may have, so that one cannot keep all others out.
MAX_UNPROVED_PER_ACCOUNT = 8
#: New links that the peers of one account may open.
NEW_LINKS_PER_ACCOUNT = Pace(per_second=5.0, burst=64.0)
#: Two links that came about within this time, each dialled by another side, came from dialling at once, in seconds.
GLARE_WINDOW = 5.0


class _Attempt:
    """Somebody wants a link to a peer; ``task`` gets a slot and dials."""

    def __init__(self, link: asyncio.Future[PeerLink], task: asyncio.Task[None]) -> None:
        self.link = link
        self.task = task
        self.waiters = 0
        self.dialling = False

    @property
    def is_over(self) -> bool:
        """Whether it has a link, or was given up."""
        return self.link.done() or self.task.cancelling() > 0


class Pool:
    """
    The links of one peer.

    Args:
        dial: makes a proved link to the peer of that id, or raises a :class:`~bonevalue.errors.LinkError`.
        max_outgoing: links and attempts of ours.
        max_incoming: links that others dialled.
        on_added: told of every link that has been proved.
        check: raises if no link to that peer is to be tried now.
        counters: where the limits that take effect are counted.
    """

    def __init__(
        self,
        dial: Callable[[str], Awaitable[PeerLink]],
        *,
        max_outgoing: int,
        max_incoming: int,
        on_added: Callable[[PeerLink], None] | None = None,
        check: Callable[[str], None] | None = None,
        counters: Counters | None = None,
    ) -> None:
        #: Our own peer id, which settles what happens when both sides dial at once.
        self.own_id = "0"
        self._dial = dial
        self._max_outgoing = max_outgoing
        self._max_incoming = max_incoming
        self._on_added = on_added
        self._check = check
        self._limited = (counters or Counters()).limited
        self._new_links: Buckets[bytes] = Buckets(NEW_LINKS_PER_ACCOUNT, size=1024)
        self._links: dict[str, PeerLink] = {}
        self._all: set[PeerLink] = set()
        self._attempts: dict[str, _Attempt] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._dialling = 0
        #: Peers that are dialling this one, each with its account's key.
        self._unproved: list[tuple[str, bytes]] = []
        self._stopping = False

    # -- what others ask -----------------------------------------------------------------------------------------------

    def current(self, peer_id: str) -> PeerLink | None:
        """The link over which a call would go now, None if one would have to be made."""
        link = self._links.get(peer_id)
        return link if link is not None and link.usable else None

    def links(self) -> list[PeerLink]:
        """Every link, those that are being drained too."""
        return list(self._all)

    @property
    def pending(self) -> int:
        """How many links are being set up, by either side."""
        return self._dialling + len(self._unproved)

    def is_dialling(self, peer_id: str) -> bool:
        """Whether an attempt of ours to reach that peer is under way, past the queue."""
        attempt = self._attempts.get(peer_id)
        return attempt is not None and attempt.dialling and not attempt.is_over

    async def dialled(self, peer_id: str) -> bool:
        """Wait for the end of our attempt; whether it, or the other side, made a link meanwhile."""
        attempt = self._attempts.get(peer_id)
        if attempt is None:
            return False
        await asyncio.wait({attempt.task})
        return attempt.link.done() and attempt.link.exception() is None

    async def link(self, peer_id: str) -> PeerLink:
        """
        A usable link to that peer.

        Cancelling gives up the attempt if nobody else waits for it.

        Raises:
            LinkError: none came about.
            RateLimited: the account of that peer broke the rules of a link a moment ago.
            Unavailable: this peer is stopping.
        """
        while True:
            link = self.current(peer_id)
            if link is not None:
                return link
            attempt = self._attempts.get(peer_id) or self._begin(peer_id)
            if not attempt.is_over:
                break
            # It only tidies up: whoever joined it now would get its failure, or a link that is dead already.
            await asyncio.wait({attempt.task})
        attempt.waiters += 1
        try:
            return await asyncio.shield(attempt.link)
        finally:
            attempt.waiters -= 1
            if not attempt.waiters:
                self._unwanted(attempt)

    # -- links that come and go ----------------------------------------------------------------------------------------

    def reserve(self, peer_id: str, key: bytes) -> None:
        """
        Take a place for a link that the other side dials; :meth:`release` gives it back, with the link or without.

        Args:
            peer_id: who dials.
            key: that of its account.

        Raises:
            LinkLimit: there is none. The first one that meets an attempt of ours takes that one's place instead.
            Unavailable: this peer is stopping.
        """
        if self._stopping:
            raise Unavailable("this peer is stopping")
        if not self.is_dialling(peer_id) or any(other == peer_id for other, _ in self._unproved):
            self._check_room(key)
        self._unproved.append((peer_id, key))

    def _check_room(self, key: bytes) -> None:
        incoming = sum(not link.offerer for link in self._all)
        if incoming + len(self._unproved) >= self._max_incoming:
            self._limited["max_incoming"] += 1
            raise LinkLimit(f"this peer holds {self._max_incoming} links that others opened")
        if len(self._unproved) >= MAX_UNPROVED:
            self._limited["setting_up"] += 1
            raise LinkLimit(f"{MAX_UNPROVED} links to this peer are being set up")
        if sum(other == key for _, other in self._unproved) >= MAX_UNPROVED_PER_ACCOUNT:
            self._limited["setting_up"] += 1
            raise LinkLimit(f"{MAX_UNPROVED_PER_ACCOUNT} links of this account are being set up")
        if wait := self._new_links.take(key, time.monotonic()):
            self._limited["new_links"] += 1
            raise LinkLimit("this account opens too many links in too short a time", retry_after=wait)

    def release(self, peer_id: str) -> None:
        """Give back a place of :meth:`reserve`."""
        self._unproved.remove(next(place for place in self._unproved if place[0] == peer_id))

    def add(self, link: PeerLink) -> None:
        """A link has been proved, whoever dialled."""
        peer_id = link.remote.id
        if link.gone.done():
            return
        if self._stopping:
            link.close(Unavailable("this peer is stopping"))
            return
        self._all.add(link)
        old = self._links.get(peer_id)
        if old is not None and old.usable and self._settles(old, link):
            link.drain("duplicate")
            link = old
        else:
            self._links[peer_id] = link
            self._close_draining(peer_id)
            if old is not None:
                old.drain("replaced")
        attempt = self._attempts.get(peer_id)
        if attempt is not None and not attempt.link.done() and link.usable:
            attempt.link.set_result(link)
        if self._on_added is not None:
            self._on_added(link)

    def _close_draining(self, peer_id: str) -> None:
        """A peer has one link that drains beside its current one; else it could keep many, by a stream on each."""
        for link in list(self._all):
            if link.remote.id == peer_id and not link.usable:
                link.close(LinkLost("the peer opened another link"))

    def remove(self, link: PeerLink) -> None:
        """A link is gone."""
        self._all.discard(link)
        if self._links.get(link.remote.id) is link:
            del self._links[link.remote.id]
        self._admit()

    def idle(self, link: PeerLink) -> None:
        """Nothing uses a link just now, it seems."""
        if self._queue and link.offerer and link.usable and not link.active:
            link.drain("evicted")

    def cut(self, name: str, key: bytes, error: BoneValueError) -> int:
        """
        Close all links to an account at once; gives their number.

        Args:
            name: our alias for it: a link from before it changed its key is known by that only.
            key: its key: another peer of our account may have heard of the end first, under no name.
        """
        cut = [link for link in self._all if link.remote.key == key or link.remote.name == name]
        for link in cut:
            link.close(error)
        return len(cut)

    async def stop(self, timeout: float) -> None:
        """Drain all links, make no new ones, and close after ``timeout`` seconds what is still there."""
        self._stopping = True
        attempts = [attempt.task for attempt in self._attempts.values()]
        for task in attempts:
            task.cancel()
        for link in list(self._all):
            link.drain("stopping")
        gone = [link.gone for link in self._all]
        if gone:
            await asyncio.wait(gone, timeout=timeout)
        for link in list(self._all):
            link.close()
        if attempts:
            await asyncio.wait(attempts)

    # -- attempts ------------------------------------------------------------------------------------------------------

    def _begin(self, peer_id: str) -> _Attempt:
        if self._stopping:
            raise Unavailable("this peer is stopping")
        if self._check is not None:
            self._check(peer_id)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[PeerLink] = loop.create_future()
        task = loop.create_task(self._attempt(peer_id), name=f"dial {peer_id}")
        attempt = self._attempts[peer_id] = _Attempt(future, task)
        # Whoever dialled, the first proved link ends the attempt; and the attempt ends its dialling.
        future.add_done_callback(lambda _: task.cancel())
        task.add_done_callback(lambda _: self._ended(peer_id, attempt))
        return attempt

    def _unwanted(self, attempt: _Attempt) -> None:
        """The last one who waited has the link, or has gone."""
        if not attempt.link.done():
            attempt.task.cancel()
        elif attempt.link.exception() is None:
            # Who has it calls in this very turn; if that was its wish no more, the slot goes to the next in the queue.
            asyncio.get_running_loop().call_soon(self.idle, attempt.link.result())

    def _ended(self, peer_id: str, attempt: _Attempt) -> None:
        del self._attempts[peer_id]
        if attempt.link.done():
            return
        fault = None if attempt.task.cancelled() else attempt.task.exception()
        if fault is None and not attempt.task.cancelled():
            fault = ConnectFailed("the link to the peer ended as soon as it was there")
        attempt.link.set_exception(fault or Unavailable("the attempt to reach the peer was given up"))
        attempt.link.exception()  # those who waited may have gone

    async def _attempt(self, peer_id: str) -> None:
        await self._slot()
        attempt = self._attempts[peer_id]
        attempt.dialling = True
        try:
            self.add(await self._dial(peer_id))
        finally:
            attempt.dialling = False
            self._dialling -= 1
            self._admit()

    async def _slot(self) -> None:
        """Wait for a place among the outgoing links, which counts as dialling from then on."""
        if not self._queue and self._outgoing() < self._max_outgoing:
            self._dialling += 1
            return
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(slot)
        self._evict()
        try:
            await slot
        except asyncio.CancelledError:
            if slot in self._queue:
                self._queue.remove(slot)
            elif not slot.cancelled():  # it was granted at the same moment
                self._dialling -= 1
                self._admit()
            raise

    def _outgoing(self) -> int:
        return self._dialling + sum(link.offerer for link in self._all)

    def _admit(self) -> None:
        while self._queue and self._outgoing() < self._max_outgoing:
            slot = self._queue.popleft()
            if not slot.done():
                self._dialling += 1
                slot.set_result(None)

    def _evict(self) -> None:
        idle = [link for link in self._all if link.offerer and link.usable and not link.active]
        if idle:
            min(idle, key=lambda link: link.used_at).drain("evicted")

    def _settles(self, old: PeerLink, new: PeerLink) -> bool:
        """Whether ``old`` stays: both sides dialled at once, and the numerically smaller id's offer wins."""
        if old.offerer is new.offerer or new.opened_at - old.opened_at > GLARE_WINDOW:
            return False
        ours_wins = int(self.own_id) < int(old.remote.id)
        return old.offerer is ours_wins
