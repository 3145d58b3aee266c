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
        make_room: sees to it that so many of those are going, as far as they are not in use; whether any is.
        limited: where the limits that take effect are counted.
    """

    def __init__(
        self, *, max_links: int, proved: Callable[[], int], make_room: Callable[[int], bool], limited: Tally
    ) -> None:
        self._max_links = max_links
        self._proved = proved
        self._make_room = make_room
        self._limited = limited
        self._new_links: Buckets[bytes] = Buckets(NEW_LINKS_PER_ACCOUNT, size=1024)
        #: Peers that hold a place, each with its account's key.
        self._places: list[tuple[str, bytes]] = []
        #: Who waits, by account; the account whose turn is next comes first.
        self._waiting: OrderedDict[bytes, deque[_Waiter]] = OrderedDict()
        self._stopping = False

    def __len__(self) -> int:
        """Links that are being set up."""
        return len(self._places)

    def holds(self, peer_id: str) -> bool:
        """Whether a link that this peer dialled is being set up."""
        return any(other == peer_id for other, _ in self._places)

    async def enter(self, peer_id: str, key: bytes, *, replaces: int = 0, at_once: bool = False) -> None:
        """
        Take a place, when there is one; :meth:`leave` gives it back.

        Args:
            peer_id: who dials.
            key: that of its account.
            replaces: how many links of that peer the new one takes the place of.
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
        if self._waiting or not self._has_place(key, replaces):
            await self._wait(_Waiter(peer_id, key, replaces))
        else:
            self._places.append((peer_id, key))

    def leave(self, peer_id: str) -> None:
        """Give back a place."""
        self._places.remove(next(place for place in self._places if place[0] == peer_id))
        self.admit()

    def admit(self) -> None:
        """There may be places: let those in who wait, account by account."""
        for key in list(self._waiting):
            waiting = self._waiting[key]
            while waiting and waiting[0].placed.done():  # it has just given up
                waiting.popleft()
            if waiting and not self._has_place(key, waiting[0].replaces):
                continue
            del self._waiting[key]
            if waiting:
                waiter = waiting.popleft()
                # Taken here, and not when the other task goes on: nobody may slip in between.
                self._places.append((waiter.peer_id, key))
                waiter.placed.set_result(None)
            if waiting:
                self._waiting[key] = waiting  # at the end: the others are next
        if self._missing > 0:
            self._make_room(self._missing)

    def stop(self) -> None:
        """Let nobody in any more."""
        self._stopping = True
        for waiting in self._waiting.values():
            for waiter in waiting:
                if not waiter.placed.done():
                    waiter.placed.set_exception(Unavailable("this peer is stopping"))
        self._waiting.clear()

    @property
    def _missing(self) -> int:
        """How many links would have to go for all who wait."""
        waiting = sum(map(len, self._waiting.values()))
        return min(waiting, self._proved() + len(self._places) + waiting - self._max_links)

    def _has_place(self, key: bytes, replaces: int) -> bool:
        here = len(self._places)
        own = sum(other == key for _, other in self._places)
        return (
            here < MAX_UNPROVED
            and own < MAX_UNPROVED_PER_ACCOUNT
            and self._proved() - replaces + here < self._max_links
        )

    async def _wait(self, waiter: _Waiter) -> None:
        key, waiting = waiter.key, self._waiting.get(waiter.key, ())
        # Whoever has none waiting gets in: many requests of a few accounts keep nobody else out.
        if waiting and (
            len(waiting) >= MAX_WAITING_PER_ACCOUNT or sum(map(len, self._waiting.values())) >= MAX_WAITING
        ):
            raise self._full("setting_up", "too many links to this peer are being set up", COME_BACK)
        self._waiting.setdefault(key, deque()).append(waiter)
        if self._missing > 0 and not self._make_room(self._missing):
            self._forget(waiter)
            raise self._full("max_incoming", f"this peer holds {self._max_links} links that others opened", None)
        self.admit()
        try:
            async with asyncio.timeout(PATIENCE):
                await waiter.placed
        except BaseException as error:
            if waiter.is_placed:
                self.leave(waiter.peer_id)  # in the very moment in which we gave up
            self._forget(waiter)
            if isinstance(error, TimeoutError):
                raise self._full("setting_up", "too many links to this peer are being set up", COME_BACK) from None
            raise

    def _forget(self, waiter: _Waiter) -> None:
        waiting = self._waiting.get(waiter.key)
        if waiting is not None and waiter in waiting:
            waiting.remove(waiter)
            if not waiting:
                del self._waiting[waiter.key]

    def _full(self, which: str, why: str, retry_after: float | None) -> LinkLimit:
        self._limited[which] += 1
        return LinkLimit(why, retry_after=retry_after)


class _Waiter:
    """Somebody who waits for a place."""

    def __init__(self, peer_id: str, key: bytes, replaces: int) -> None:
        self.peer_id = peer_id
        self.key = key
        self.replaces = replaces
        self.placed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_placed(self) -> bool:
        """Whether it was given a place."""
        return self.placed.done() and not self.placed.cancelled() and self.placed.exception() is None
