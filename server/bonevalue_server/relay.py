"""
Connection requests, answers and candidates on their way from peer to peer.

The server does not read what is inside an offer; it only knows who asked whom. A message passes only to a peer that
is online, and only between two that trust each other or are of one account; everything else is ``peer_offline``,
found out by the same steps whether the peer is unknown, not trusting or away.
"""

from __future__ import annotations

from collections import Counter, deque

from bonevalue.errors import Busy, Expired, PeerOffline, RateLimited
from bonevalue.wire.pacing import Buckets
from bonevalue_server.directory import Directory
from bonevalue_server.limits import Limits
from bonevalue_server.presence import Presence
from bonevalue_server.records import AccountId
from bonevalue_server.relayed import (
    Candidate,
    CandidateData,
    Plain,
    Relayed,
    Request,
    RequestData,
    Response,
    ResponseData,
)
from bonevalue_server.sessions import Peer, Session

__all__ = ["PendingRequests", "Relay", "Relayed"]

_NOBODY = AccountId(-1)


class Relay:
    """
    Decides where a relayed message goes.

    Args:
        presence: who is online.
        directory: who trusts whom.
        limits: how often.
    """

    def __init__(self, presence: Presence, directory: Directory, limits: Limits) -> None:
        self._presence = presence
        self._directory = directory
        self.pending = PendingRequests(limits)

    def route(self, sender: Peer, message: Plain, now: float) -> tuple[Session, Plain]:
        """
        The session that a message is for, and the message as it is to arrive there.

        Raises:
            PeerOffline: nobody is there who could be asked.
            RateLimited, Busy, Expired: see :class:`PendingRequests`.
            BadMessage, TooLarge: it is not one that a peer could use.
        """
        message.check()
        to = message.data.to
        match message:
            case Request(data):
                self.pending.check_rate(sender.id, to, now)
                target = self._target(sender, to, expected=False)
                self.pending.open(sender.id, to, now)
                return target, Request(RequestData(to=to, from_=sender.id, offer=data.offer, signature=data.signature))
            case Response(data):
                target = self._target(sender, to, expected=self.pending.knows(to, sender.id, now))
                self.pending.answer(to, sender.id, now)
                return target, Response(
                    ResponseData(
                        to=to,
                        from_=sender.id,
                        answer=data.answer,
                        signature=data.signature,
                        session=data.session,
                        error=data.error,
                    )
                )
            case Candidate(data):
                expected = self.pending.knows(to, sender.id, now) or self.pending.knows(sender.id, to, now)
                target = self._target(sender, to, expected=expected)
                self.pending.candidate(sender.id, to, now)
                return target, Candidate(
                    CandidateData(to=to, from_=sender.id, session=data.session, candidate=data.candidate)
                )

    def _target(self, sender: Peer, to: str, *, expected: bool) -> Session:
        """
        The session of a peer.

        Args:
            sender: who wants to reach it.
            to: its id.
            expected: whether the two are in touch already, so that one may know of the other though it is invisible.

        Raises:
            PeerOffline: there is none, or not for this sender.
        """
        peer = self._presence.get(to)
        owner_id = _NOBODY if peer is None else peer.account_id
        name = self._directory.name_for(owner_id, sender.account_id)
        session = None if peer is None else peer.session
        if name is None or peer is None or session is None or peer is sender or not (peer.visible or expected):
            raise PeerOffline("no such peer is online, or it does not trust you")
        return session


class _Pair:
    """What one peer has asked of one other."""

    __slots__ = ("candidates", "last", "open")

    def __init__(self) -> None:
        #: When each unanswered request was passed on.
        self.open: deque[float] = deque()
        #: When the latest request was passed on, answered or not.
        self.last = 0.0
        #: Candidates since then, of the caller and of the callee.
        self.candidates = [0, 0]


class PendingRequests:
    """
    Who asked whom for a connection, and within which limits.

    A request is open until it is answered or its time is over; for that time, answered or not, candidates may pass
    between the two.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pairs: dict[tuple[str, str], _Pair] = {}  # in the order of `last`
        self._open_to: Counter[str] = Counter()
        self._by_caller: Buckets[str] = Buckets(limits.requests)
        self._by_pair: Buckets[tuple[str, str]] = Buckets(limits.requests_per_pair)

    def __len__(self) -> int:
        return len(self._pairs)

    def check_rate(self, caller: str, callee: str, now: float) -> None:
        """
        Count a request, whoever the callee is, or whether there is one.

        Raises:
            RateLimited: too many, of this caller or to this callee.
        """
        wait = self._by_caller.take(caller, now) or self._by_pair.take((caller, callee), now)
        if wait:
            raise RateLimited("too many connection requests", retry_after=wait)

    def open(self, caller: str, callee: str, now: float) -> None:
        """
        A request is about to be passed on.

        Raises:
            RateLimited: the caller waits for answers of this callee to earlier ones.
            Busy: the callee has not answered many others.
        """
        limits = self._limits
        self.expire(now)
        pair = self._pairs.get((caller, callee)) or _Pair()
        self._close_until(pair, callee, now - limits.request_lifetime)
        if len(pair.open) >= limits.pending_requests_per_pair:
            wait = pair.open[0] + limits.request_lifetime - now
            raise RateLimited("this peer has not answered the earlier requests yet", retry_after=wait)
        if self._open_to[callee] >= limits.pending_requests_per_target:
            raise Busy("this peer has more connection requests than it answers", retry_after=1.0)
        self._pairs.pop((caller, callee), None)
        self._pairs[caller, callee] = pair
        pair.open.append(now)
        pair.last = now
        pair.candidates = [0, 0]
        self._open_to[callee] += 1

    def answer(self, caller: str, callee: str, now: float) -> None:
        """
        An answer is about to be passed on: the oldest request is no longer open.

        Raises:
            Expired: there is none.
        """
        pair = self._pairs.get((caller, callee))
        if pair is not None:
            self._close_until(pair, callee, now - self._limits.request_lifetime)
        if pair is None or not pair.open:
            raise Expired("the request was answered already, or its time is over")
        pair.open.popleft()
        self._closed(callee)

    def callers_of(self, callee: str, now: float) -> list[str]:
        """Who waits for an answer of this callee."""
        if not self._open_to[callee]:
            return []
        self.expire(now)
        return [caller for (caller, other), pair in self._pairs.items() if other == callee and pair.open]

    def knows(self, caller: str, callee: str, now: float) -> bool:
        """Whether a request of this caller to this callee was passed on lately."""
        pair = self._pairs.get((caller, callee))
        return pair is not None and now < pair.last + self._limits.request_lifetime

    def candidate(self, sender: str, receiver: str, now: float) -> None:
        """
        A candidate is about to be passed on.

        Raises:
            Expired: neither has asked the other for a connection lately.
            RateLimited: enough of them.
        """
        asked = False
        for side, (caller, callee) in enumerate(((sender, receiver), (receiver, sender))):
            if self.knows(caller, callee, now):
                asked = True
                pair = self._pairs[caller, callee]
                if pair.candidates[side] < self._limits.candidates:
                    pair.candidates[side] += 1
                    return
        if asked:
            raise RateLimited(f"a side may send {self._limits.candidates} candidates for a request")
        raise Expired("no connection request between these two is pending")

    def expire(self, now: float) -> None:
        """Forget what is over."""
        while self._pairs:
            (caller, callee), pair = next(iter(self._pairs.items()))
            if pair.last + self._limits.request_lifetime > now:
                return
            self._close_until(pair, callee, now)
            del self._pairs[caller, callee]

    def _close_until(self, pair: _Pair, callee: str, moment: float) -> None:
        while pair.open and pair.open[0] <= moment:
            pair.open.popleft()
            self._closed(callee)

    def _closed(self, callee: str) -> None:
        self._open_to[callee] -= 1
        if not self._open_to[callee]:
            del self._open_to[callee]
