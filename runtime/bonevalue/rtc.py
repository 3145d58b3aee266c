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
from typing import Any, TypeVar

from aiortc import (
    InvalidStateError,
    RTCConfiguration,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSctpTransport,
    RTCSessionDescription,
)
from aiortc.rtcsctptransport import LOCAL_MAX_MESSAGE_SIZE
from aiortc.sdp import candidate_from_sdp

from bonevalue.errors import ConnectFailed, LinkLost, LocalProtocolError, RemoteProtocolError
from bonevalue.gathering import Gathering
from bonevalue.link import (
    MAX_RECEIVED,
    MAX_SENT,
    MAX_UNDELIVERED,
    CloseReason,
    ConnectionBase,
    IceConfig,
    LinkBase,
    PathInfo,
    Stage,
    Tried,
)
from bonevalue.names import family
from bonevalue.rtc_guard import (
    Guard,
    bound_sources,
    check_back,
    install,
    nominated,
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

#: Seconds that `close` waits; what takes longer then finishes by itself.
CLOSE_TIMEOUT = 2.0
#: Seconds after which a relay is given back if the path does not go through it, and nothing came through it meanwhile:
#: both sides ask every 4 to 6 s whether their path still works (RFC 7675).
RELAY_UNUSED = 13.0

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
            # By then aiortc may have closed the transport. aioice gives the pair up before anybody else knows;
            # a relay's socket closes when the connection to its server breaks.
            pair = nominated(ice)
            has_path = pair is not None and not pair.protocol.transport.is_closing()
            lost = ice.state == "failed" or (ice.state == "completed" and not has_path)
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


#: What a connection that ended was doing, in words that complete "it was ...".
_DOING = {
    Stage.IDLE: "not yet started",
    Stage.GATHERING: "gathering candidates",
    Stage.WAITING: "waiting for the answer",
    Stage.CHECKING: "looking for a path",
    Stage.DTLS: "shaking hands",
    Stage.OPEN: "open",
}


class RtcConnection(ConnectionBase):
    """One attempt to reach one peer with aiortc, and what holds its link's resources afterwards."""

    def __init__(self, ice: IceConfig) -> None:
        super().__init__()
        self._config = ice
        policy = RTCIceTransportPolicy.RELAY if ice.relay_only else RTCIceTransportPolicy.ALL
        # No servers: gathering is not left to aiortc. An empty list, as without one it would ask a public server.
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[], iceTransportPolicy=policy))
        self._link = RtcLink(self._pc, self._ended)
        self._dtls = self._link.sctp.transport
        self._ice = self._dtls.transport
        self._gathering = Gathering(self._ice, ice)
        take_turns(self._ice)
        check_back(self._ice)
        bound_sources(self._ice)
        self._failure = ""
        self._opened: asyncio.Future[RtcLink] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(_take_exception)
        self._negotiations: set[asyncio.Task[Any]] = set()
        self._working: set[asyncio.Task[None]] = set()
        self._early_candidates: list[str] = []
        self._candidates = 0
        self._closing: asyncio.Task[None] | None = None
        self._releasing: asyncio.TimerHandle | None = None
        self._link.channel.on("open", _quietly(self._channel_opened))
        self._pc.on("connectionstatechange", _quietly(self._state_changed))
        self._ice.on("statechange", _quietly(self._path_found))

    async def create_offer(self) -> str:
        """Our session description."""
        self._step(Stage.GATHERING)
        return await self._negotiate(self._describe(Stage.WAITING))

    async def accept_offer(self, sdp: str) -> str:
        """Take the caller's session description; gives ours."""
        self._step(Stage.GATHERING)

        async def answer() -> str:
            await self._apply("offer", sdp)
            return await self._describe(Stage.CHECKING)

        return await self._negotiate(answer())

    async def accept_answer(self, sdp: str) -> None:
        """Take the callee's session description."""
        if self._stage not in (Stage.WAITING, Stage.ENDED):
            raise LocalProtocolError(f"no answer is awaited, the connection is {self._stage}")
        self._step(Stage.CHECKING)
        await self._negotiate(self._apply("answer", sdp))

    async def opened(self) -> RtcLink:
        """Wait for the link."""
        return await asyncio.shield(self._opened)

    def add_candidate(self, text: str) -> None:
        """Take one more candidate of the remote peer."""
        candidate = read_candidate(text, loopback=only_loopback)
        if candidate is None or self._stage is Stage.ENDED or self._candidates >= MAX_CANDIDATES:
            return
        self._candidates += 1
        if self._pc.remoteDescription is None:
            self._early_candidates.append(text)
        else:
            self._add(text)

    def path(self) -> PathInfo | None:
        """The path in use."""
        pair = nominated(self._ice)
        if pair is None or self._stage is not Stage.OPEN:
            return None
        local, transport = pair.local_candidate, pair.protocol.transport
        is_relayed = local.type == "relay"
        return PathInfo(
            local.type,
            pair.remote_candidate.type,
            family(local.host),
            transport.get_extra_info("relay") if is_relayed else "",
            transport.get_extra_info("local_address") if is_relayed else local.host,
        )

    def tried(self) -> Tried:
        """What has been tried."""
        ours = [(each.type, each.host) for each in self._gathering.candidates]
        theirs = [(each.type, each.ip) for each in self._ice.getRemoteCandidates()]
        return Tried(
            _kinds(ours),
            _kinds(theirs),
            self._gathering.outcomes,
            relay_only=self._config.relay_only,
            families_meet=not theirs or not ours or bool(_families(ours) & _families(theirs)),
        )

    async def close(self) -> None:
        """End the link and give back everything, within `CLOSE_TIMEOUT`."""
        self._link.close()
        if self._closing is not None:
            await asyncio.wait({self._closing}, timeout=CLOSE_TIMEOUT)

    def _step(self, stage: Stage) -> None:
        if self._stage is Stage.ENDED:
            raise ConnectFailed(self._failure)
        self._go(stage)

    async def _negotiate(self, coroutine: Coroutine[Any, Any, T]) -> T:
        # In a task of its own: who waits may be cancelled, aiortc must not be.
        task = asyncio.create_task(coroutine)
        self._negotiations.add(task)
        task.add_done_callback(self._negotiations.discard)
        task.add_done_callback(_take_exception)
        return await asyncio.shield(task)

    async def _describe(self, stage: Stage) -> str:
        try:
            await self._pc.setLocalDescription()
        except Exception as error:
            raise self._fail(f"gathering failed: {error}") from error
        if self._stage is not Stage.ENDED and not self._gathering.candidates:
            raise self._fail(self._why_none())
        self._step(stage)
        # aiortc offers to take more than we do.
        limit = "a=max-message-size:"
        sdp: str = self._pc.localDescription.sdp
        return sdp.replace(f"{limit}{LOCAL_MAX_MESSAGE_SIZE}\r\n", f"{limit}{MAX_RECEIVED}\r\n")

    def _why_none(self) -> str:
        if not self._config.relay_only:
            return "this host has no network address"
        if any(url.startswith("turn") for server in self._config.servers for url in server.urls):
            return "only a relay may be used (ice.policy) and no TURN server gave one"
        return "only a relay may be used (ice.policy) and there is no TURN server"

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

        self._aside(add())

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    def _channel_opened(self) -> None:
        if self._stage in (Stage.CHECKING, Stage.DTLS):
            self._go(Stage.OPEN)
            self._link.open()
            self._opened.set_result(self._link)
            self._releasing = asyncio.get_running_loop().call_later(RELAY_UNUSED, self._release_relay)

    def _release_relay(self) -> None:
        self._aside(self._gathering.release(unheard_for=RELAY_UNUSED - 1))

    def _state_changed(self) -> None:
        if self._pc.connectionState in ("failed", "closed"):
            self._link.noticed()

    def _path_found(self) -> None:
        if self._ice.state == "completed" and self._stage is Stage.CHECKING:
            self._go(Stage.DTLS)

    def _fail(self, failure: str) -> ConnectFailed:
        self._failure = failure
        self._link.close()
        return ConnectFailed(failure)

    def _why_ended(self) -> str:
        if self._ice.state == "failed":
            return "no path to the peer was found"
        if self._dtls.state == "failed":
            return "the handshake failed: the peer's certificate is not the one of its description, or it gave up"
        return f"the connection ended ({self._link.closed}) while {_DOING[self._stage]}"

    def _ended(self) -> None:
        self._failure = self._failure or self._why_ended()
        self._gathering.stop()
        if self._releasing is not None:
            self._releasing.cancel()
        self._go(Stage.ENDED)
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
        left = {task for task in (self._link.reader, *self._working) if task is not None}
        if left:
            await asyncio.wait(left, timeout=CLOSE_TIMEOUT)


def _kinds(candidates: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(sorted({kind for kind, _ in candidates}))


def _families(candidates: list[tuple[str, str]]) -> set[str]:
    """The families of their addresses; a name that hides an address (mDNS) may stand for either."""
    found: set[str] = set()
    for _, host in candidates:
        found |= {"IPv4", "IPv6"} if host.endswith(".local") else {family(host)}
    return found
