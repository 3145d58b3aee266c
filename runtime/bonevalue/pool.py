"""
All links of one peer: one a remote peer, within limits.

Whoever wants to call asks :meth:`Pool.link`. It gives the link that is there, joins the attempt that is under way, or
begins one as soon as there is a slot, first come first served. Slots are taken by attempts and by links that this side
dialled, until they are gone; so many attempts are made at once, and a peer that could not be reached is left alone for
a while. While others wait, links that nothing uses are drained, the longest unused first. The links that others dial
have places of their own (:mod:`bonevalue.admission`).

A link that is doubted (:attr:`PeerLink.doubted`) gets no new calls: whoever asks for one gets another link, and only
when that one is proved does the old one give way.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

from bonevalue.admission import Admission
from bonevalue.counters import Counters
from bonevalue.errors import BoneValueError, Busy, ConnectFailed, Deadline, LinkLimit, LinkLost, Unavailable
from bonevalue.life import DOING, LinkLife, State
from bonevalue.peer_link import PeerLink
from bonevalue.wire.pacing import Backoff

__all__ = ["GLARE_WINDOW", "MAX_DIALLING", "Pool"]

logger = logging.getLogger(__name__)

#: Links that this side sets up at once; each costs some 10 ms of processor time, and its handshakes have deadlines.
MAX_DIALLING = 8
#: Two links that came about within this time, each dialled by another side, came from dialling at once, in seconds.
GLARE_WINDOW = 5.0
#: Seconds in which a link is not evicted that is new, or that another side dialled and used: its call may be coming.
SETTLING = 1.0
#: Seconds that the other side has to confirm the end of a link with no calls on it, when this peer stops.
LAST_WORD = 2.0
#: Seconds, about, for which a peer is left alone that could not be reached: the first time, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
#: What is worth another try when it comes with the time to wait: somebody was too busy just now, or has moved.
PUT_OFF = (Busy, LinkLimit, ConnectFailed)
#: The part of the time for a link that its last try must have.
LEAST = 1 / 4
#: Seconds after which it is tried again when the other side let go of a new link at once.
SECOND_TRY = 0.5
#: Seconds after which an attempt whose peer does not answer does not count as one that is made.
STALLED = 2.0
#: Links of one peer that may drain at once.
MAX_DRAINING = 3
#: So many such peers are remembered; one more takes the place of the first.
MAX_PAUSES = 1024


class _Attempt:
    """Somebody wants a link to a peer; ``task`` gets a slot and dials."""

    def __init__(self, link: asyncio.Future[PeerLink], task: asyncio.Task[None]) -> None:
        self.link = link
        self.task = task
        self.waiters = 0
        self.dialling = False
        self.given_up = False
        self.life: LinkLife | None = None
        #: Why the last try came to nothing.
        self.error: BoneValueError | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has a link, or was given up."""
        return self.link.done() or self.given_up


class _Pause:
    """A peer that could not be reached: until when it is left alone."""

    def __init__(self) -> None:
        self.backoff = Backoff(random.random, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        self.until = 0.0
        self.over = asyncio.Event()
        self.error: BoneValueError | None = None

    def lengthen(self, error: BoneValueError) -> None:
        """One more try has failed."""
        self.until = time.monotonic() + self.backoff.next()
        self.error = error


class Pool:
    """
    The links of one peer.

    Args:
        dial: makes a proved link to the peer of that id within so many seconds, or raises a
            :class:`~bonevalue.errors.LinkError`; writes into the life that it is given how far it has come.
        max_outgoing: links and attempts of ours.
        max_incoming: links that others dialled.
        patience: seconds in which a link must come about. Pauses, and tries that the other side or the server puts off
            for a moment, are among them; the wait for a slot is not.
        on_added: told of every link that has been proved.
        on_replaced: told of every link in whose place another was proved, while it is being drained.
        check: raises if no link to that peer is to be tried now.
        ready: waits, for so many seconds at most, until a link to that peer can be tried at all; raises if that is not
            to be expected soon.
        counters: where the limits that take effect are counted.
    """

    def __init__(
        self,
        dial: Callable[[str, LinkLife, float], Awaitable[PeerLink]],
        *,
        max_outgoing: int,
        max_incoming: int,
        patience: float = 20.0,
        on_added: Callable[[PeerLink], None] | None = None,
        on_replaced: Callable[[PeerLink], None] | None = None,
        check: Callable[[str], None] | None = None,
        ready: Callable[[str, float], Awaitable[None]] | None = None,
        counters: Counters | None = None,
    ) -> None:
        #: Our own peer id, which settles what happens when both sides dial at once.
        self.own_id = "0"
        self._dial = dial
        self._max_outgoing = max_outgoing
        self._patience = patience
        self._on_added = on_added
        self._on_replaced = on_replaced
        self._check = check
        self._ready = ready
        self._admission = Admission(
            max_links=max_incoming,
            proved=self._incoming,
            make_room=self._make_room,
            limited=(counters or Counters()).limited,
        )
        #: Links and attempts, from the wish to the end.
        self._lives: set[LinkLife] = set()
        self._pauses: OrderedDict[str, _Pause] = OrderedDict()
        self._links: dict[str, PeerLink] = {}
        self._all: set[PeerLink] = set()
        self._attempts: dict[str, _Attempt] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._dialling = 0
        self._stopping = False

    # -- what others ask -----------------------------------------------------------------------------------------------

    def current(self, peer_id: str) -> PeerLink | None:
        """The link over which a call would go now, None if one would have to be made."""
        link = self._links.get(peer_id)
        return link if link is not None and link.usable and not link.doubted else None

    def links(self) -> list[PeerLink]:
        """Every link, those that are being drained too."""
        return list(self._all)

    def setting_up(self) -> list[LinkLife]:
        """The links that are on their way, those that wait for their turn too."""
        return [life for life in self._lives if life.is_setting_up]

    @property
    def pending(self) -> int:
        """How many links are being set up, by either side."""
        return self._dialling + len(self._admission)

    def progress(self, peer_id: str) -> str:
        """What our attempt to reach a peer is at, and what came of the try before, in words; empty if there is none."""
        attempt = self._attempts.get(peer_id)
        if attempt is None or attempt.life is None:
            return ""
        doing = f"it was {DOING[attempt.life.phase]}"
        return doing if attempt.error is None else f"{doing}; the last try: {attempt.error.message}"

    def retry_now(self, peer_id: str | None = None) -> None:
        """Something has changed: leave that peer, or nobody, alone any longer for not having been reached before."""
        for each in [peer_id] if peer_id is not None else list(self._pauses):
            if (pause := self._pauses.pop(each, None)) is not None:
                pause.over.set()

    def is_dialling(self, peer_id: str) -> bool:
        """Whether an attempt of ours to reach that peer is under way, past the queue."""
        attempt = self._attempts.get(peer_id)
        return attempt is not None and attempt.dialling and not attempt.is_over

    async def dialled(self, peer_id: str, timeout: float) -> bool:
        """Wait for the end of our attempt, but not for long; whether it, or the other side, made a link meanwhile."""
        attempt = self._attempts.get(peer_id)
        if attempt is None:
            return False
        await asyncio.wait({attempt.task}, timeout=timeout)
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

    async def reserve(self, peer_id: str, name: str, key: bytes) -> LinkLife:
        """
        Take a place for a link that the other side dials; :meth:`release` gives it back, with the link or without.

        Waits while many others are being set up.

        Args:
            peer_id: who dials.
            name: our alias for its account.
            key: that of its account.

        Raises:
            LinkLimit: there is none. The first one that meets an attempt of ours takes that one's place instead.
            Unavailable: this peer is stopping.
        """
        life = self._live(peer_id, name, dialled=False)
        try:
            meets_ours = self.is_dialling(peer_id) and not self._admission.holds(peer_id)
            replaces = sum(link.remote.id == peer_id and not link.offerer for link in self._all)
            await self._admission.enter(peer_id, key, replaces=replaces, at_once=meets_ours)
        except BaseException:
            life.end(State.FAILED, "no place")
            raise
        return life

    def release(self, life: LinkLife) -> None:
        """Give back a place of :meth:`reserve`."""
        if life.is_setting_up:
            life.end(State.FAILED)
        self._admission.leave(life.peer_id)

    def add(self, link: PeerLink) -> None:
        """A link has been proved, whoever dialled."""
        peer_id, added = link.remote.id, link
        if link.gone.done():
            return
        if self._stopping:
            link.close(Unavailable("this peer is stopping"))
            return
        self._all.add(link)
        self.retry_now(peer_id)
        old = self._links.get(peer_id)
        if not link.usable:
            pass  # the other side has let go of it already: both dialled at once, and its own link is on its way
        elif old is not None and old.usable and not old.doubted and self._settles(old, link):
            link.drain("duplicate")
            link = old
        else:
            self._links[peer_id] = link
            if old is not None:
                old.drain("replaced")
                if self._on_replaced is not None:
                    self._on_replaced(old)
            self._close_draining(peer_id)
        attempt = self._attempts.get(peer_id)
        if attempt is not None and not attempt.link.done() and link.usable:
            attempt.link.set_result(link)
        if self._on_added is not None:
            self._on_added(added)

    def _close_draining(self, peer_id: str) -> None:
        """A peer has few links that drain beside its current one; else it could keep many, by a stream on each."""
        draining = [link for link in self._all if link.remote.id == peer_id and not link.usable]
        for link in sorted(draining, key=lambda link: link.opened_at)[:-MAX_DRAINING]:
            link.close(LinkLost("the peer opened another link"))

    def remove(self, link: PeerLink) -> None:
        """A link is gone."""
        self._all.discard(link)
        if self._links.get(link.remote.id) is link:
            del self._links[link.remote.id]
        self._admit()
        self._admission.admit()

    def idle(self, link: PeerLink) -> None:
        """Nothing uses a link just now, it seems."""
        if self._is_full and link.offerer and link.usable and not link.active:
            link.drain("evicted")
        self._admission.admit()

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
        self._admission.stop()
        attempts = [attempt.task for attempt in self._attempts.values()]
        for task in attempts:
            task.cancel()
        for link in list(self._all):
            link.drain("stopping")
        last_word = min(timeout, LAST_WORD)
        await self._all_gone(last_word)
        for link in list(self._all):
            if not link.active:
                link.close()  # its calls are done, and the other side does not confirm it
        await self._all_gone(timeout - last_word)
        for link in list(self._all):
            link.close()
        if attempts:
            await asyncio.wait(attempts)

    async def _all_gone(self, timeout: float) -> None:
        gone = [link.gone for link in self._all]
        if gone:
            await asyncio.wait(gone, timeout=timeout)

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
            attempt.given_up = True
            attempt.task.cancel()
        elif attempt.link.exception() is None:
            # Who has it calls in this very turn; if that was its wish no more, the slot goes to the next in the queue.
            asyncio.get_running_loop().call_soon(self.idle, attempt.link.result())

    def _ended(self, peer_id: str, attempt: _Attempt) -> None:
        del self._attempts[peer_id]
        fault = None if attempt.task.cancelled() else attempt.task.exception()
        if attempt.link.done():
            return
        if fault is None and not attempt.task.cancelled():
            fault = ConnectFailed("the link to the peer ended as soon as it was there")
        attempt.link.set_exception(fault or Unavailable("the attempt to reach the peer was given up"))
        attempt.link.exception()  # those who waited may have gone

    async def _attempt(self, peer_id: str) -> None:
        """Try until there is a link, or there is no point in it."""
        attempt = self._attempts[peer_id]
        backoff = Backoff(random.random, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
        give_up_at = time.monotonic() + self._patience
        last_try_at = give_up_at - self._patience * LEAST  # one that begins later has too little time
        while True:
            attempt.life = life = self._live(peer_id, "", dialled=True)
            try:
                if self._ready is not None:
                    await self._ready(peer_id, last_try_at - time.monotonic())
                await self._pause(attempt, peer_id, last_try_at)
                waited = await self._slot()
                give_up_at += waited
                last_try_at += waited
                await self._try(attempt, life, give_up_at - time.monotonic())
            except BoneValueError as error:
                life.end(State.FAILED, error.code)
                if error.retry_after is None or not isinstance(error, PUT_OFF):
                    raise
                attempt.error = error
            except BaseException:
                life.end(State.FAILED, "given up")
                raise
            if attempt.link.done():
                return
            # Somebody was too busy just now, or the other side's link, which won, is about to come about.
            wait = backoff.next(attempt.error.retry_after if attempt.error is not None else SECOND_TRY)
            if time.monotonic() + wait > last_try_at:
                raise attempt.error or ConnectFailed("the other side lets go of each link as soon as it is there")
            await asyncio.sleep(wait)

    async def _try(self, attempt: _Attempt, life: LinkLife, timeout: float) -> None:
        """Dial, in a slot that is given back."""
        attempt.dialling = True
        try:
            self.add(await self._dial(life.peer_id, life, timeout))
        except (ConnectFailed, Deadline) as error:
            if error.retry_after is None:
                self._failed(life.peer_id, error)
            raise
        finally:
            attempt.dialling = False
            self._dialling -= 1
            self._admit()

    def _live(self, peer_id: str, name: str, *, dialled: bool) -> LinkLife:
        life = LinkLife(peer_id, name, dialled=dialled, on_end=self._lives.discard)
        self._lives.add(life)
        return life

    def _failed(self, peer_id: str, error: BoneValueError) -> None:
        """A peer could not be reached: the next try has to wait."""
        pause = self._pauses.pop(peer_id, None) or _Pause()
        pause.lengthen(error)
        self._pauses[peer_id] = pause
        if len(self._pauses) > MAX_PAUSES:
            self._pauses.popitem(last=False)[1].over.set()

    async def _pause(self, attempt: _Attempt, peer_id: str, longest: float) -> None:
        """Wait until the peer's pause is over, or until that moment."""
        pause = self._pauses.get(peer_id)
        if pause is not None:
            attempt.error = pause.error
            with suppress(TimeoutError):
                async with asyncio.timeout(min(pause.until, longest) - time.monotonic()):
                    await pause.over.wait()

    async def _slot(self) -> float:
        """Wait for a place among the outgoing links, which counts as dialling from then on; gives the seconds."""
        if not self._queue and self._has_slot:
            self._dialling += 1
            return 0.0
        begun = time.monotonic()
        loop = asyncio.get_running_loop()
        slot: asyncio.Future[None] = loop.create_future()
        self._queue.append(slot)
        self._evict()
        # By then, those who only wait for an answer do not count any more.
        stalled = loop.call_later(STALLED, self._admit)
        try:
            await slot
        except asyncio.CancelledError:
            if slot in self._queue:
                self._queue.remove(slot)
            elif not slot.cancelled():  # it was granted at the same moment
                self._dialling -= 1
                self._admit()
            raise
        finally:
            stalled.cancel()
        return time.monotonic() - begun

    def _outgoing(self) -> int:
        # A link that is doubted gives way to another, which needs its place before.
        return self._dialling + sum(link.offerer and not link.doubted for link in self._all)

    def _incoming(self) -> int:
        return sum(not link.offerer for link in self._all)

    @property
    def _has_slot(self) -> bool:
        return self._dialling - self._stalled() < MAX_DIALLING and self._outgoing() < self._max_outgoing

    def _stalled(self) -> int:
        """The attempts that cost nothing: their peers do not answer. They must not keep the others waiting."""
        return sum(
            attempt.dialling
            and attempt.life is not None
            and attempt.life.state in (State.RELAY, State.ANSWER)
            and attempt.life.seconds >= STALLED
            for attempt in self._attempts.values()
        )

    @property
    def _is_full(self) -> bool:
        """Whether somebody waits for one of our links to go."""
        return bool(self._queue) and self._outgoing() >= self._max_outgoing

    def _admit(self) -> None:
        while self._queue and self._has_slot:
            slot = self._queue.popleft()
            if not slot.done():
                self._dialling += 1
                slot.set_result(None)
        self._evict()

    def _evict(self) -> None:
        """Let our links go, the longest unused first, as many as attempts wait for their slots."""
        if self._is_full:
            ours = [link for link in self._all if link.offerer]
            wanted = min(len(self._queue), MAX_DIALLING) - sum(_is_going(link) for link in ours)
            # Not one that has just come: who asked for it is about to call.
            unused_since = time.monotonic() - SETTLING
            idle = [
                link
                for link in ours
                if link.usable and not link.active and (link.used_at != link.opened_at or link.opened_at < unused_since)
            ]
            for link in sorted(idle, key=lambda link: link.used_at)[: max(0, wanted)]:
                link.drain("evicted")

    def _make_room(self, count: int) -> bool:
        """
        Let links go that other sides dialled and nothing uses, so that so many are going; whether any is.

        Those of the account that has the most go first, the longest unused of them: whoever opens many makes room for
        the others.
        """
        theirs = [link for link in self._all if not link.offerer]
        going = sum(map(_is_going, theirs))
        unused_since = time.monotonic() - SETTLING
        idle = [link for link in theirs if link.usable and not link.active and link.used_at < unused_since]
        of_account = Counter(link.remote.key for link in theirs)
        idle.sort(key=lambda link: (-of_account[link.remote.key], link.used_at))
        leaving = idle[: max(0, count - going)]
        for link in leaving:
            link.drain("evicted")
        return bool(going or leaving)

    def _settles(self, old: PeerLink, new: PeerLink) -> bool:
        """Whether ``old`` stays: both sides dialled at once, and the numerically smaller id's offer wins."""
        if old.offerer is new.offerer or new.opened_at - old.opened_at > GLARE_WINDOW:
            return False
        ours_wins = int(self.own_id) < int(old.remote.id)
        return old.offerer is ours_wins


def _is_going(link: PeerLink) -> bool:
    """Whether a link is about to be gone, with no call that keeps it."""
    return not link.usable and not link.active
