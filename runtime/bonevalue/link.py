"""
A link: a message pipe to one remote peer, and the engines that make one.

Three small protocols stand between the platform and WebRTC, so that an engine can be replaced by another and the
layers above can be tried without a network:

- :class:`LinkEngine` makes connections;
- :class:`Connection` is one attempt to reach a peer: offer and answer, candidates, then a link;
- :class:`Link` carries messages, reliably and in order, until it closes.

:class:`LinkBase` has what every engine owes its user and none should write twice: handlers that may be set late
without losing a message, handlers that may raise without harming the link, limits, and one `on_closed`;
:class:`ConnectionBase` has the stages of a connection.
:mod:`bonevalue.rtc` is the engine for real; :mod:`bonevalue.link_memory` the one for tests.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from bonevalue.errors import LinkLost, LocalProtocolError, ServerOutcome
from bonevalue.names import Names
from bonevalue.wire.signals import IceServer

__all__ = [
    "LOW_WATER",
    "MAX_RECEIVED",
    "MAX_SENT",
    "MAX_UNDELIVERED",
    "CloseReason",
    "Connection",
    "ConnectionBase",
    "IceConfig",
    "Link",
    "LinkBase",
    "LinkEngine",
    "PathInfo",
    "Stage",
    "Tried",
    "ignore",
]

#: Longest message in bytes that may be sent: every engine and browser takes it in one piece.
MAX_SENT = 16_384
#: Longest message in bytes that is taken from the remote peer; a longer one closes the link.
MAX_RECEIVED = 65_536
#: Bytes received and not yet given to `on_message` at which a link is closed: the credits of a link (4 MiB), and
#: the engine's own window of 1 MiB as slack.
MAX_UNDELIVERED = 5 * 1_048_576
#: Default of :attr:`Link.low_water` in bytes.
LOW_WATER = 65_536

logger = logging.getLogger(__name__)


class CloseReason(StrEnum):
    """Why a link ended, as `on_closed` is told."""

    LOCAL = "closed"
    """This side closed it."""
    REMOTE = "closed_by_peer"
    """The remote peer closed it in good order."""
    LOST = "lost"
    """The path broke, or the remote peer vanished."""
    PROTOCOL = "protocol_error"
    """The remote peer broke the rules of the channel."""
    ABUSE = "abuse"
    """The remote peer made this side hold more than it may."""


class Stage(StrEnum):
    """How far a connection has come."""

    IDLE = "idle"
    GATHERING = "gathering"
    """Finding out our candidates."""
    WAITING = "waiting"
    """The offer is made; its answer has not come."""
    CHECKING = "checking"
    """Looking for a path between the candidates of both sides."""
    DTLS = "dtls"
    """There is a path; shaking hands on it, and opening the channel."""
    OPEN = "open"
    ENDED = "ended"


def ignore(*_: object) -> None:
    """What a handler does that nobody has set."""


@dataclass(frozen=True, slots=True)
class IceConfig:
    """
    How to find a path.

    Args:
        servers: the STUN and TURN servers to use, in order; an empty tuple for none.
        relay_only: whether only a relay may be used.
        left_out: servers that are known and are not to be tried, and why.
        addresses: looks up a host name; raises ``OSError``.
        tls: what the certificates of ``turns:`` servers are checked with; None for the system's authorities.
        on_outcome: told of each server what came of it.
        renew: called with a server whose credential was refused; gives the same server with a newer credential, None
            if there is none.
    """

    servers: tuple[IceServer, ...] = field(default=(), repr=False)
    relay_only: bool = False
    left_out: tuple[ServerOutcome, ...] = ()
    addresses: Callable[[str], Awaitable[tuple[str, ...]]] = field(
        default_factory=lambda: Names().addresses, repr=False, compare=False
    )
    tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    on_outcome: Callable[[ServerOutcome], None] = field(default=ignore, repr=False, compare=False)
    renew: Callable[[IceServer], Awaitable[IceServer | None]] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PathInfo:
    """
    The path in use.

    Args:
        local: the kind of our end: ``host``, ``srflx``, ``prflx`` or ``relay``.
        remote: the kind of the other end.
        family: ``IPv4`` or ``IPv6``; empty if it is not known.
        relay: if our end is a relay, how we reach it: ``udp``, ``tcp`` or ``tls``; else empty.
        local_address: the address of this host that the path begins at; empty if it is not known.
    """

    local: str
    remote: str
    family: str = ""
    relay: str = ""
    local_address: str = ""

    def __str__(self) -> str:
        return f"{self.local}/{self.remote}"

    @property
    def words(self) -> str:
        """The same for people: ``host to srflx, IPv4``, ``relay (by TURN over tcp) to prflx, IPv4``."""
        relay = f" (by TURN over {self.relay})" if self.relay else ""
        family = f", {self.family}" if self.family else ""
        return f"{self.local}{relay} to {self.remote}{family}"

    def as_json(self) -> dict[str, str]:
        """The same for programs; without the address, which concerns nobody else."""
        return {"local": self.local, "remote": self.remote, "family": self.family, "relay": self.relay}


@dataclass(frozen=True, slots=True)
class Tried:
    """
    What an attempt has tried so far.

    Args:
        ours: the kinds of our candidates, each once: ``host``, ``srflx``, ``relay``.
        theirs: those of the remote peer, ``prflx`` too; empty as long as its description has not come.
        servers: what came of each STUN and TURN server.
        relay_only: whether only a relay might be used.
        families_meet: whether any candidate of ours is of the same family, IPv4 or IPv6, as one of theirs.
    """

    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()
    servers: tuple[ServerOutcome, ...] = ()
    relay_only: bool = False
    families_meet: bool = True


class Link(Protocol):
    """
    A reliable, ordered message pipe to one remote peer.

    The handlers `on_...` may be set at any time. They are called from the event loop, never from inside a method of
    the link, and what they raise is logged and goes no further. Messages that arrive before `on_message` is set are
    kept, and a link that ended before `on_closed` was set says so as soon as it is.
    """

    on_drained: Callable[[], None]
    """Called each time `buffered` falls to `low_water` or under it."""

    @property
    def low_water(self) -> int:
        """Bytes; see `on_drained`. May be set at any time."""
        ...

    @low_water.setter
    def low_water(self, size: int) -> None: ...

    @property
    def on_message(self) -> Callable[[bytes], None]:
        """Called with each message of the remote peer, in order; never after `on_closed`."""
        ...

    @on_message.setter
    def on_message(self, handler: Callable[[bytes], None]) -> None: ...

    @property
    def on_closed(self) -> Callable[[str], None]:
        """Called exactly once, with a :class:`CloseReason`, also when this side closes; nothing is called after it."""
        ...

    @on_closed.setter
    def on_closed(self, handler: Callable[[str], None]) -> None: ...

    def send(self, message: bytes) -> None:
        """
        Hand over a message of 1 to `MAX_SENT` bytes; it is on its way when the caller's turn of the loop ends.

        Raises:
            LinkLost: the link is closed.
            LocalProtocolError: the message is empty or too long.
        """
        ...

    @property
    def buffered(self) -> int:
        """Bytes handed over and not yet acknowledged by the remote engine."""
        ...

    @property
    def closed(self) -> str | None:
        """The reason why the link ended, None while it is open."""
        ...

    async def flush(self, timeout: float) -> bool:
        """Wait until the remote engine has acknowledged all that was sent; False if time ran out or the link ended."""
        ...

    def close(self) -> None:
        """End the link at once; what was sent and not acknowledged may be lost. Any number of times."""
        ...


class Connection(Protocol):
    """
    One attempt to reach one peer, and what holds the link's resources afterwards.

    The caller makes an offer and accepts the answer; the callee accepts the offer, which gives the answer. Both then
    wait for `opened`. Its owner must `close` it in the end, however it went.
    """

    on_stage: Callable[[Stage], None]
    """Called with each new stage. What it raises is logged and goes no further."""

    async def create_offer(self) -> str:
        """
        Our session description, complete with candidates.

        Raises:
            ConnectFailed: there is no candidate to offer.
        """
        ...

    async def accept_offer(self, sdp: str) -> str:
        """
        Take the caller's session description; gives ours.

        Raises:
            ConnectFailed: there is no candidate to answer with.
            RemoteProtocolError: the description makes no sense.
        """
        ...

    async def accept_answer(self, sdp: str) -> None:
        """
        Take the callee's session description.

        Raises:
            RemoteProtocolError: the description makes no sense.
        """
        ...

    async def opened(self) -> Link:
        """
        Wait for the link. The wait is not bounded here: the caller knows how long it has.

        Raises:
            ConnectFailed: the attempt has failed, or the connection was closed.
        """
        ...

    def add_candidate(self, text: str) -> None:
        """
        Take one more candidate of the remote peer, as in ``candidate:...`` of a session description.

        One that may not be used (loopback of another host, link-local, multicast) is passed over in silence.

        Raises:
            RemoteProtocolError: it is not a candidate.
        """
        ...

    def path(self) -> PathInfo | None:
        """The path in use, None if there is none or the engine cannot tell."""
        ...

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        ...

    def tried(self) -> Tried:
        """What has been tried, for the error of whoever gives up waiting; at any time, also after the end."""
        ...

    async def close(self) -> None:
        """End the link and give back everything; bounded in time. Any number of times."""
        ...


class LinkEngine(Protocol):
    """Something that makes connections."""

    def connection(self, ice: IceConfig) -> Connection:
        """A new connection, not yet started. Must be called in a running event loop."""
        ...


_NEXT: dict[Stage, frozenset[Stage]] = {
    Stage.IDLE: frozenset({Stage.GATHERING, Stage.ENDED}),
    Stage.GATHERING: frozenset({Stage.WAITING, Stage.CHECKING, Stage.ENDED}),
    Stage.WAITING: frozenset({Stage.CHECKING, Stage.ENDED}),
    Stage.CHECKING: frozenset({Stage.DTLS, Stage.OPEN, Stage.ENDED}),
    Stage.DTLS: frozenset({Stage.OPEN, Stage.ENDED}),
    Stage.OPEN: frozenset({Stage.ENDED}),
    Stage.ENDED: frozenset(),
}


class ConnectionBase:
    """The part of a connection that is the same in every engine: its stages."""

    def __init__(self) -> None:
        self._stage = Stage.IDLE
        self.on_stage: Callable[[Stage], None] = ignore

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        return self._stage

    def _go(self, stage: Stage) -> None:
        """The connection is at another stage now; raises ``LocalProtocolError`` if it cannot come from this one."""
        if stage not in _NEXT[self._stage]:
            raise LocalProtocolError(f"a connection that is {self._stage} cannot go to {stage}")
        logger.debug("connection %x: %s -> %s", id(self), self._stage, stage)
        self._stage = stage
        try:
            self.on_stage(stage)
        except Exception:
            logger.exception("a handler of a connection raised")


class LinkBase(ABC):
    """
    The part of a link that is the same in every engine.

    An engine calls `_receive`, `_acknowledged` and `_end`, and fills in `_transmit` and `_release`. Messages wait in a
    queue until `on_message` is set, and are then delivered in a turn of their own: setting a handler never runs it.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_message: Callable[[bytes], None] | None = None
        self._on_closed: Callable[[str], None] | None = None
        self.on_drained: Callable[[], None] = ignore
        self._low_water = LOW_WATER
        self._buffered = 0
        self._high = False
        self._flushing: list[asyncio.Future[None]] = []
        self._early: deque[bytes] = deque()
        self._early_bytes = 0
        self._reason: CloseReason | None = None

    @property
    def low_water(self) -> int:
        """Bytes; see `Link.on_drained`."""
        return self._low_water

    @low_water.setter
    def low_water(self, size: int) -> None:
        self._low_water = size
        self._high = self._buffered > size  # what lies above a lower mark has yet to fall below it

    @property
    def on_message(self) -> Callable[[bytes], None]:
        """Called with each message of the remote peer."""
        return self._on_message or ignore

    @on_message.setter
    def on_message(self, handler: Callable[[bytes], None]) -> None:
        self._on_message = handler
        if self._early:
            self._loop.call_soon(self._deliver_early)

    @property
    def on_closed(self) -> Callable[[str], None]:
        """Called once with the reason."""
        return self._on_closed or ignore

    @on_closed.setter
    def on_closed(self, handler: Callable[[str], None]) -> None:
        first = self._on_closed is None
        self._on_closed = handler
        if first and self._reason is not None:
            self._loop.call_soon(self._tell_closed)

    @property
    def closed(self) -> CloseReason | None:
        """The reason why the link ended, None while it is open."""
        return self._reason

    def send(self, message: bytes) -> None:
        """Hand over a message."""
        if self._reason is not None:
            raise LinkLost(f"the link is closed: {self._reason}")
        if not 0 < len(message) <= MAX_SENT:
            raise LocalProtocolError(f"a message of {len(message)} bytes; 1 to {MAX_SENT} are allowed")
        self._transmit(message)
        self._buffered += len(message)
        self._high = self._high or self._buffered > self._low_water

    @property
    def buffered(self) -> int:
        """Bytes handed over and not yet acknowledged by the remote engine."""
        return self._buffered

    async def flush(self, timeout: float) -> bool:
        """Wait until the remote engine has acknowledged all that was sent."""
        if self._reason is None and self._buffered:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._flushing.append(waiter)
            await asyncio.wait({waiter}, timeout=timeout)
        return self._reason is None and not self._buffered

    def close(self) -> None:
        """End the link at once."""
        self._end(CloseReason.LOCAL)
        self._forget_early()

    @abstractmethod
    def _transmit(self, message: bytes) -> None:
        """Give a message to the engine."""

    @abstractmethod
    def _release(self) -> None:
        """Give up the engine's resources; called once, when the link ends."""

    def _undelivered(self) -> int:
        """Bytes that wait for `on_message`."""
        return self._early_bytes

    def _receive(self, message: bytes) -> None:
        """A message has come from the remote peer."""
        if self._reason is not None:
            return
        if not 0 < len(message) <= MAX_RECEIVED:
            self._end(CloseReason.PROTOCOL)
        elif self._on_message is None or self._early:
            self._early.append(message)
            self._early_bytes += len(message)
            if self._undelivered() > MAX_UNDELIVERED:
                self._end(CloseReason.ABUSE)
        else:
            self._call(self._on_message, message)

    def _deliver_early(self) -> None:
        while self._early and self._on_message is not None:
            message = self._early.popleft()
            self._early_bytes -= len(message)
            self._call(self._on_message, message)

    def _forget_early(self) -> None:
        self._early.clear()
        self._early_bytes = 0

    def _acknowledged(self, size: int) -> None:
        """The remote engine has so many more bytes of what was handed over."""
        if self._reason is not None:
            return
        self._buffered -= size
        if self._high and self._buffered <= self._low_water:
            self._high = False
            self._call(self.on_drained)
        if self._flushing and not self._buffered:
            self._end_flushing()

    def _end_flushing(self) -> None:
        for waiter in self._flushing:
            if not waiter.done():
                waiter.set_result(None)
        self._flushing.clear()

    def _end(self, reason: CloseReason) -> None:
        """The link has ended; only the first reason counts. What came before the remote peer's end is delivered."""
        if self._reason is not None:
            return
        self._reason = reason
        if reason not in (CloseReason.REMOTE, CloseReason.LOST):
            self._forget_early()
        self._buffered = 0
        self._release()
        self._end_flushing()
        if self._on_closed is not None:
            self._loop.call_soon(self._tell_closed)

    def _tell_closed(self) -> None:
        self._deliver_early()
        self._forget_early()
        self._call(self.on_closed, str(self._reason))

    def _call(self, handler: Callable[..., None], *args: object) -> None:
        try:
            handler(*args)
        except Exception:
            logger.exception("a handler of a link raised")
