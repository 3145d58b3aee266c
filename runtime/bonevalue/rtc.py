"""
Links over WebRTC data channels, made with aiortc.

A connection has one pre-negotiated, ordered, reliable channel. All candidates are gathered before the description
leaves. What the remote peer may do on it is limited by :mod:`bonevalue.rtc_guard`.

How a connection ends. There is one end for link and connection together: `RtcLink._end`. Whatever notices something
first (channel, DTLS, connection state, guard, our own close) gives its reason there; the user is told, and one task
gives everything back in the order that aiortc needs. aiortc's own coroutines are never cancelled on the way: they
would leave sockets behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, TypeVar

from aiortc import (
    InvalidStateError,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSctpTransport,
    RTCSessionDescription,
)
from aiortc.rtcicetransport import parse_stun_turn_uri
from aiortc.rtcsctptransport import LOCAL_MAX_MESSAGE_SIZE
from aiortc.sdp import candidate_from_sdp

from bonevalue.errors import ConnectFailed, LinkLost, LocalProtocolError, RemoteProtocolError
from bonevalue.link import (
    MAX_RECEIVED,
    MAX_SENT,
    MAX_UNDELIVERED,
    CloseReason,
    IceConfig,
    LinkBase,
    PathInfo,
)
from bonevalue.rtc_guard import (
    Guard,
    bound_gathering,
    install,
    nominated_kinds,
    only_loopback,
    reading_task,
    stop_consent,
    take_turns,
)
from bonevalue.sdp import MAX_CANDIDATES, read_candidate, read_description

__all__ = ["RtcConnection", "RtcEngine", "RtcLink"]

LABEL = "bv"
PROTOCOL = "bv.rpc.1"
STREAM = 0

#: Seconds that STUN and TURN servers have to answer. If one of them is gone, this is what every connection waits.
GATHER_TIMEOUT = 3
#: Seconds that `close` waits. A TURN server that is gone can hold aiortc up for longer; it then finishes by itself.
CLOSE_TIMEOUT = 2.0

logger = logging.getLogger(__name__)
T = TypeVar("T")


class RtcEngine:
    """
    Makes connections with aiortc.

    Raises:
        ConfigError: the installed aiortc is not one that this was written for.
    """

    def __init__(self) -> None:
        install()

    def connection(self, ice: IceConfig) -> RtcConnection:
        """A new connection. Must be called in a running event loop."""
        return RtcConnection(ice)


def _quietly(handler: Callable[..., None]) -> Callable[..., None]:
    # What a listener raises makes aiortc close the connection.
    def listener(*args: object) -> None:
        try:
            handler(*args)
        except Exception:
            logger.exception("a listener of a connection raised")

    return listener


def _take_exception(future: asyncio.Future[Any]) -> None:
    # A failure that nobody waits for is nothing that asyncio should complain about.
    if not future.cancelled():
        future.exception()


class RtcLink(LinkBase):
    """A data channel as a link. Made with its connection, so that no message can come too early."""

    def __init__(self, peer_connection: RTCPeerConnection, release: Callable[[], None]) -> None:
        super().__init__()
        self.channel = peer_connection.createDataChannel(LABEL, protocol=PROTOCOL, negotiated=True, id=STREAM)
        self.sctp: RTCSctpTransport = self.channel.transport
        self._release_connection = release
        self._guard = Guard(
            self.sctp,
            stream=STREAM,
            max_message=MAX_RECEIVED,
            max_held=MAX_UNDELIVERED,
            on_acknowledged=self._acknowledged,
            on_breach=self._breached,
            on_abuse=self._abused,
            on_lost=self.noticed,
        )
        self._reader: asyncio.Future[None] | None = None
        self.channel.on("message", _quietly(self._receive))
        self.channel.on("close", _quietly(self.noticed))
        self.sctp.transport.on("statechange", _quietly(self._dtls_changed))

    @property
    def reader(self) -> asyncio.Future[None] | None:
        """The task that reads what comes, once the channel was open."""
        return self._reader

    def open(self) -> None:
        """The channel is open."""
        self._reader = reading_task(self.sctp.transport)
        if self._reader is not None:
            self._reader.add_done_callback(_take_exception)

    def noticed(self) -> None:
        """Something has ended. Why, shows a turn of the loop later, when the task that reads has ended too."""
        if self.closed is None:
            ice = self.sctp.transport.transport
            # By then aiortc may have closed the transport. aioice gives the pair up before anybody else knows.
            lost = ice.state == "failed" or (ice.state == "completed" and nominated_kinds(ice) is None)
            self._loop.call_soon(self._judge, CloseReason.LOST if lost else CloseReason.REMOTE)

    def _dtls_changed(self) -> None:
        if self.sctp.transport.state in ("closed", "failed"):
            self.noticed()

    def _judge(self, reason: CloseReason) -> None:
        reader = self._reader
        if reader is not None and reader.done() and not reader.cancelled() and reader.exception() is not None:
            self._breached(f"a packet that cannot be digested ({reader.exception()!r})")
        else:
            self._end(reason)

    def _breached(self, what: str) -> None:
        if self.closed is None:
            logger.warning("link closed, its peer broke the rules: %s", what)
            self._end(CloseReason.PROTOCOL)

    def _abused(self, what: str) -> None:
        if self.closed is None:
            logger.warning("link closed, its peer uses too much memory here: %s", what)
            self._end(CloseReason.ABUSE)

    def _undelivered(self) -> int:
        return super()._undelivered() + self._guard.held

    def _transmit(self, message: bytes) -> None:
        try:
            self.channel.send(message)
        except InvalidStateError as error:
            # The channel has just closed and the reason is not yet known.
            raise LinkLost("the link is closing") from error

    def _release(self) -> None:
        self._guard.shut()
        self._release_connection()


class Phase(StrEnum):
    """How far a connection has come, in words for people."""

    IDLE = "not yet started"
    OFFERING = "gathering candidates for the offer"
    OFFERED = "waiting for the answer"
    ANSWERING = "gathering candidates for the answer"
    CONNECTING = "connecting"
    OPEN = "open"
    ENDED = "ended"


_NEXT: dict[Phase, frozenset[Phase]] = {
    Phase.IDLE: frozenset({Phase.OFFERING, Phase.ANSWERING, Phase.ENDED}),
    Phase.OFFERING: frozenset({Phase.OFFERED, Phase.ENDED}),
    Phase.OFFERED: frozenset({Phase.CONNECTING, Phase.ENDED}),
    Phase.ANSWERING: frozenset({Phase.CONNECTING, Phase.ENDED}),
    Phase.CONNECTING: frozenset({Phase.OPEN, Phase.ENDED}),
    Phase.OPEN: frozenset({Phase.ENDED}),
    Phase.ENDED: frozenset(),
}


class RtcConnection:
    """One attempt to reach one peer with aiortc, and what holds its link's resources afterwards."""

    def __init__(self, ice: IceConfig) -> None:
        self._config = ice
        policy = RTCIceTransportPolicy.RELAY if ice.relay_only else RTCIceTransportPolicy.ALL
        # A list of servers even if it is empty: without one, aiortc asks a public server.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=_servers(ice), iceTransportPolicy=policy))
        self._link = RtcLink(self._pc, self._ended)
        self._dtls = self._link.sctp.transport
        self._ice = self._dtls.transport
        bound_gathering(self._ice, GATHER_TIMEOUT)
        take_turns(self._ice)
        self._phase = Phase.IDLE
        self._failure = ""
        self._opened: asyncio.Future[RtcLink] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(_take_exception)
        self._negotiations: set[asyncio.Task[Any]] = set()
        self._adding: set[asyncio.Task[None]] = set()
        self._early_candidates: list[str] = []
        self._candidates = 0
        self._closing: asyncio.Task[None] | None = None
        self._link.channel.on("open", _quietly(self._channel_opened))
        self._pc.on("connectionstatechange", _quietly(self._state_changed))

    async def create_offer(self) -> str:
        """Our session description."""
        self._go(Phase.OFFERING)
        return await self._negotiate(self._describe(Phase.OFFERED))

    async def accept_offer(self, sdp: str) -> str:
        """Take the caller's session description; gives ours."""
        self._go(Phase.ANSWERING)

        async def answer() -> str:
            await self._apply("offer", sdp)
            return await self._describe(Phase.CONNECTING)

        return await self._negotiate(answer())

    async def accept_answer(self, sdp: str) -> None:
        """Take the callee's session description."""
        self._go(Phase.CONNECTING)
        await self._negotiate(self._apply("answer", sdp))

    async def opened(self) -> RtcLink:
        """Wait for the link."""
        return await asyncio.shield(self._opened)

    def add_candidate(self, text: str) -> None:
        """Take one more candidate of the remote peer."""
        candidate = read_candidate(text, loopback=only_loopback)
        if candidate is None or self._phase is Phase.ENDED or self._candidates >= MAX_CANDIDATES:
            return
        self._candidates += 1
        if self._pc.remoteDescription is None:
            self._early_candidates.append(text)
        else:
            self._add(text)

    def path(self) -> PathInfo | None:
        """The kinds of candidates in use."""
        kinds = nominated_kinds(self._ice)
        return None if kinds is None or self._phase is not Phase.OPEN else PathInfo(*kinds)

    def progress(self) -> str:
        """What the attempt is at and what it tries."""
        if self._phase is not Phase.CONNECTING:
            return str(self._phase)
        if self._ice.state != "completed":
            return f"looking for a path ({self._tried()})"
        return "shaking hands" if self._dtls.state != "connected" else "opening the channel"

    async def close(self) -> None:
        """End the link and give back everything, within `CLOSE_TIMEOUT`."""
        self._link.close()
        if self._closing is not None:
            await asyncio.wait({self._closing}, timeout=CLOSE_TIMEOUT)

    def _go(self, phase: Phase) -> None:
        if phase not in _NEXT[self._phase]:
            if self._phase is Phase.ENDED:
                raise ConnectFailed(self._failure)
            raise LocalProtocolError(f"{phase.name.lower()} is not possible, the connection is {self._phase}")
        logger.debug("connection %x: %s -> %s", id(self), self._phase.name, phase.name)
        self._phase = phase

    async def _negotiate(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # In a task of its own: who waits may be cancelled, aiortc must not be.
        task = asyncio.create_task(coroutine)
        self._negotiations.add(task)
        task.add_done_callback(self._negotiations.discard)
        task.add_done_callback(_take_exception)
        return await asyncio.shield(task)

    async def _describe(self, phase: Phase) -> str:
        try:
            await self._pc.setLocalDescription()
        except Exception as error:
            raise self._fail(f"gathering candidates failed: {error}") from error
        if not self._ice.iceGatherer.getLocalCandidates():
            raise self._fail(f"gathering candidates: {self._why_none()}")
        self._go(phase)
        # aiortc offers to take more than we do.
        limit = "a=max-message-size:"
        sdp: str = self._pc.localDescription.sdp
        return sdp.replace(f"{limit}{LOCAL_MAX_MESSAGE_SIZE}\r\n", f"{limit}{MAX_RECEIVED}\r\n")

    def _why_none(self) -> str:
        turn = next((url for server in _servers(self._config) for url in server.urls if url.startswith("turn")), None)
        if not self._config.relay_only:
            return "this host has no network address"
        if turn is None:
            return "only a relay may be used (ice.policy) and there is no TURN server"
        return f"only a relay may be used and {turn} gave none: is it reachable, and are its credentials valid?"

    async def _apply(self, kind: str, sdp: str) -> None:
        description = read_description(sdp, loopback=only_loopback, max_sent=MAX_SENT)
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(description.text, kind))
        except Exception as error:
            # Anything may come out of aiortc's parser: ValueError, IndexError, AssertionError, AttributeError.
            raise RemoteProtocolError(f"the session description makes no sense: {error!r}") from error
        # Names are resolved on the side. That takes a second if nobody answers, and usually the peer is found anyway
        # by the checks that it sends.
        for text in (*description.named, *self._early_candidates):
            self._add(text)
        self._early_candidates.clear()

    def _add(self, text: str) -> None:
        async def add() -> None:
            try:
                candidate = candidate_from_sdp(text.removeprefix("candidate:"))
                candidate.sdpMLineIndex = 0
                await self._pc.addIceCandidate(candidate)
            except Exception:
                logger.debug("a candidate could not be added: %s", text, exc_info=True)

        task = asyncio.create_task(add())
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    def _channel_opened(self) -> None:
        if self._phase is Phase.CONNECTING:
            self._go(Phase.OPEN)
            self._link.open()
            self._opened.set_result(self._link)

    def _state_changed(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self._link.noticed()

    def _tried(self) -> str:
        ours = sorted({candidate.type for candidate in self._ice.iceGatherer.getLocalCandidates()})
        theirs = sorted({candidate.type for candidate in self._ice.getRemoteCandidates()})
        return f"ours: {', '.join(ours) or 'none'}; theirs: {', '.join(theirs) or 'none'}"

    def _fail(self, failure: str) -> ConnectFailed:
        self._failure = failure
        self._link.close()
        return ConnectFailed(failure)

    def _why_ended(self) -> str:
        if self._ice.state == "failed":
            return f"no path to the peer was found ({self._tried()})"
        if self._dtls.state == "failed":
            return "the handshake failed: the peer's certificate is not the one of its description, or it gave up"
        return f"the connection ended ({self._link.closed}) while {self.progress()}"

    def _ended(self) -> None:
        self._failure = self._failure or self._why_ended()
        self._go(Phase.ENDED)
        if not self._opened.done():
            self._opened.set_exception(ConnectFailed(self._failure))
        self._closing = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        if self._negotiations:
            await asyncio.wait(self._negotiations)
        stop_consent(self._ice)
        try:
            await self._pc.close()
        except Exception:
            logger.debug("aiortc could not close a connection in good order", exc_info=True)
        left = {task for task in (self._link.reader, *self._adding) if task is not None}
        if left:
            await asyncio.wait(left, timeout=CLOSE_TIMEOUT)


def _servers(ice: IceConfig) -> list[RTCIceServer]:
    """The first usable STUN and the first usable TURN server; aiortc would pass over the others in silence."""
    stun: list[RTCIceServer] = []
    turn: list[RTCIceServer] = []
    for server in ice.servers:
        for url in server.urls:
            try:
                parsed = parse_stun_turn_uri(url)
            except ValueError:
                logger.info("not an ICE server that can be used: %s", url[:200])
                continue
            if parsed["scheme"] == "stun" and not stun and not ice.relay_only:
                stun.append(RTCIceServer(urls=[url]))
            elif (parsed["scheme"], parsed.get("transport")) in _TURN and not turn:
                turn.append(RTCIceServer(urls=[url], username=server.username, credential=server.credential))
    return stun + turn


_TURN = {("turn", "udp"), ("turn", "tcp"), ("turns", "tcp")}
