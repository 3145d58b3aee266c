"""
Room for the links that others dial: how many there may be, how many may be set up at once, and who waits.

Whoever comes while too many are being set up waits for a place. Accounts are served in turn, so that one that sends
many requests delays only itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from bonevalue.counters import Tally
from bonevalue.errors import LinkLimit, Unavailable
from bonevalue.wire.pacing import Buckets, Pace

__all__ = ["Admission"]

#: Links that others dial and that are not proved yet, at most.
MAX_UNPROVED = 16
#: Those of them that one account may have, so that one cannot keep all others out.
MAX_UNPROVED_PER_ACCOUNT = 8
#: Requests that wait for one of those places, of all and of one account.
MAX_WAITING = 256
MAX_WAITING_PER_ACCOUNT = 128
#: Longest wait in seconds: who dialled has given up by then, or soon will.
PATIENCE = 15.0
#: Seconds after which one that found no place may come back.
COME_BACK = 1.0
#: New links that the peers of one account may open.
NEW_LINKS_PER_ACCOUNT = Pace(per_second=5.0, burst=64.0)


class Admission:
    """
    The places of one peer for links that others dial.

    Args:
        max_links: links that others may hold, those being set up among them.
        proved: how many there are that are proved.
        make_room: lets the longest unused of those go; whether there was one.
        limited: where the limits that take effect are counted.
    """

    def __init__(
        self, *, max_links: int, proved: Callable[[], int], make_room: Callable[[], bool], limited: Tally
    ) -> None:
        self._max_links = max_links
        self._proved = proved
        self._make_room = make_room
        self._limited = limited
        self._new_links: Buckets[bytes] = Buckets(NEW_LINKS_PER_ACCOUNT, size=1024)
        #: Peers that hold a place, each with its account's key.
        self._places: list[tuple[str, bytes]] = []
        #: Who waits, by account; the account whose turn is next comes first.
        self._waiting: OrderedDict[bytes, deque[tuple[str, asyncio.Future[None]]]] = OrderedDict()
        self._stopping = False

    def __len__(self) -> int:
        """Links that are being set up."""
        return len(self._places)

    def holds(self, peer_id: str) -> bool:
        """Whether a link that this peer dialled is being set up."""
        return any(other == peer_id for other, _ in self._places)

    async def enter(self, peer_id: str, key: bytes, *, at_once: bool = False) -> None:
        """
        Take a place, when there is one; :meth:`leave` gives it back.

        Args:
            peer_id: who dials.
            key: that of its account.
            at_once: it takes the place of an attempt of ours and needs none of its own.

        Raises:
            LinkLimit: there is none; with ``retry_after`` if there may be one soon.
            Unavailable: this peer is stopping.
        """
        if self._stopping:
            raise Unavailable("this peer is stopping")
        if at_once:
            self._places.append((peer_id, key))
            return
        if wait := self._new_links.take(key, time.monotonic()):
            raise self._full("new_links", "this account opens too many links in too short a time", wait)
        if self._waiting or not self._has_place(key):
            await self._wait(peer_id, key)
        else:
            self._places.append((peer_id, key))

    def leave(self, peer_id: str) -> None:
        """Give back a place."""
        self._places.remove(next(place for place in self._places if place[0] == peer_id))
        self.admit()

    def admit(self) -> None:
        """There may be places: let those in who wait, account by account."""
        for key in list(self._waiting):
            if not self._has_place(key):
                continue
            waiting = self._waiting.pop(key)
            peer_id, waiter = waiting.popleft()
            if waiting:
                self._waiting[key] = waiting  # at the end: the others are next
            # Taken here, and not when the other task goes on: nobody may slip in between.
            self._places.append((peer_id, key))
            waiter.set_result(None)

    def stop(self) -> None:
        """Let nobody in any more."""
        self._stopping = True
        for waiting in self._waiting.values():
            for _, waiter in waiting:
                waiter.set_exception(Unavailable("this peer is stopping"))
        self._waiting.clear()

    def _has_place(self, key: bytes) -> bool:
        here = len(self._places)
        own = sum(other == key for _, other in self._places)
        return here < MAX_UNPROVED and own < MAX_UNPROVED_PER_ACCOUNT and self._proved() + here < self._max_links

    async def _wait(self, peer_id: str, key: bytes) -> None:
        if self._proved() + len(self._places) >= self._max_links and not self._make_room():
            raise self._full("max_incoming", f"this peer holds {self._max_links} links that others opened", None)
        if (
            len(self._waiting.get(key, ())) >= MAX_WAITING_PER_ACCOUNT
            or sum(map(len, self._waiting.values())) >= MAX_WAITING
        ):
            raise self._full("setting_up", "too many links to this peer are being set up", COME_BACK)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (peer_id, waiter)
        self._waiting.setdefault(key, deque()).append(place)
        self.admit()
        try:
            async with asyncio.timeout(PATIENCE):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave(peer_id)  # it was granted in the moment in which we gave up
            self._forget(key, place)
            if isinstance(error, TimeoutError):
                raise self._full("setting_up", "too many links to this peer are being set up", COME_BACK) from None
            raise

    def _forget(self, key: bytes, place: tuple[str, asyncio.Future[None]]) -> None:
        waiting = self._waiting.get(key)
        if waiting is not None and place in waiting:
            waiting.remove(place)
            if not waiting:
                del self._waiting[key]

    def _full(self, which: str, why: str, retry_after: float | None) -> LinkLimit:
        self._limited[which] += 1
        return LinkLimit(why, retry_after=retry_after)
