"""
The sockets of the discovery server: HTTP until the upgrade, WebSocket from there on.

uvicorn accepts, speaks HTTP through :class:`Door` and hands an upgraded socket to :class:`Connection`, which is the
pump round websockets' sans-I/O protocol: what the socket says goes to the hub, what the hub says goes to the socket,
directly as long as the client reads. There is no task, timer or queue per socket; :meth:`Gateway.sweep` looks after
all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from bonevalue.errors import BoneValueError, Slow
from bonevalue.wire.signals import MAX_MESSAGE
from bonevalue_server.counters import Counters
from bonevalue_server.doorman import Doorman, Visitor, status_of
from bonevalue_server.due import Due
from bonevalue_server.hub import Hub
from bonevalue_server.limits import Limits
from bonevalue_server.outbox import Outbox
from bonevalue_server.sessions import Session

__all__ = ["Connection", "Door", "Gateway"]

#: Most bytes of a request's head.
MAX_HEAD = 32 * 1024
#: Most frames of one message.
MAX_FRAGMENTS = 64
#: Bytes handed to the socket that it has not taken yet; more wait in the outbox.
WRITE_LIMIT = 32 * 1024
#: Seconds in which a socket that is not let in must ask, to be told why.
REFUSAL_TIME = 1.0
#: Seconds in which a client that reads slowly must take what the socket has, before it counts as not reading at all.
STALL_TIMEOUT = 20.0
#: Seconds from our close frame to the end of the socket, whatever the client does.
CLOSE_TIMEOUT = 5.0
#: Close codes with which a client goes for good; after any other it is missed for a while only.
_FAREWELLS = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD})
#: A ping without payload, as a server sends it (RFC 6455 section 5.5.2).
_PING = bytes([0x80 | Opcode.PING, 0])

# The library's own lines tell of every socket, and frames in full.
_library_logger = logging.getLogger(f"{__name__}.websockets")
_library_logger.setLevel(logging.ERROR)


class Gateway:
    """
    All sockets of this node.

    Args:
        hub: what the messages are for.
        doorman: who may come in.
        limits: times and queues.
        counters: where sockets that are turned away are counted.
        clock: monotonic seconds.
    """

    def __init__(
        self, hub: Hub, doorman: Doorman, *, limits: Limits, counters: Counters, clock: Callable[[], float]
    ) -> None:
        self.hub = hub
        self.doorman = doorman
        self.limits = limits
        self.counters = counters
        self.clock = clock
        self.connections: set[Connection] = set()
        #: Sockets of which no request has come yet, and those of them that are not let in.
        self.waiting: Due[Door] = Due(limits.login_timeout)
        self.refused: Due[Door] = Due(REFUSAL_TIME)
        #: WebSockets that do not read, and those that we have closed.
        self.stalled: Due[Connection] = Due(STALL_TIMEOUT)
        self.closing: Due[Connection] = Due(CLOSE_TIMEOUT)
        self.call_soon = asyncio.get_running_loop().call_soon
        self._to_ping: Due[Connection] = Due(limits.ping_interval)
        self._pinged: Due[Connection] = Due(limits.ping_timeout)

    def door(self, *args: Any, **options: Any) -> Door:
        """What uvicorn makes a new socket's protocol with."""
        return Door(self, *args, **options)

    def opened(self, connection: Connection) -> None:
        """A WebSocket is open."""
        self.connections.add(connection)
        self._to_ping.put(connection, self.clock())

    def lost(self, connection: Connection) -> None:
        """A WebSocket is gone."""
        self.connections.discard(connection)
        for queue in (self.stalled, self.closing, self._to_ping, self._pinged):
            queue.discard(connection)

    def sweep(self) -> None:
        """Do what is due; to be called several times a second."""
        now = self.clock()
        self.hub.handle_timer()
        for doors in (self.waiting, self.refused):
            for door in doors.take(now):
                door.transport.abort()
        for connection in self._pinged.take(now):
            if not connection.is_heard:
                connection.abort(may_return=False)  # it was silent for longer than the grace time
        for connection in self._to_ping.take(now):
            self._to_ping.put(connection, now)
            if connection not in self._pinged:
                connection.ping()
                self._pinged.put(connection, now)
        for connection in self.stalled.take(now):
            connection.close_slow()
        for connection in self.closing.take(now):
            connection.abort(may_return=True)

    async def close(self, patience: float) -> None:
        """Wait until all WebSockets are closed, and end those that are not after so many seconds."""
        deadline = self.clock() + patience
        while self.connections and self.clock() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort(may_return=False)


class _RawHeaders:
    """The headers of a request as httptools collects them: lower-case names, in order."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def get_all(self, key: str, /) -> Sequence[str]:
        wanted = key.lower().encode()
        return [value.decode("latin-1").strip() for name, value in self._raw if name == wanted]


class Door(HttpToolsProtocol):
    """uvicorn's HTTP, with limits on what strangers may do before, and at, the upgrade."""

    def __init__(self, gateway: Gateway, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._gateway = gateway
        self._visitor: Visitor | None = None
        self._head_size = 0
        #: Why the socket is not let in. It is told when it asks: many clients cannot hear an answer before that.
        self._refusal: BoneValueError | None = None
        self._end_of_head = b""
        self._is_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A socket was accepted."""
        super().connection_made(transport)
        gateway = self._gateway
        now = gateway.clock()
        self._visitor = gateway.doorman.arrived(self.client[0] if self.client else "")
        try:
            gateway.doorman.check_arrival(self._visitor, now)
        except BoneValueError as error:
            self._refusal = error
            gateway.counters.sockets_refused[error.code] += 1
            gateway.refused.put(self, now)
        else:
            gateway.waiting.put(self, now)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, and never was a WebSocket."""
        self._asked()
        if self._visitor is not None:
            self._gateway.doorman.left(self._visitor)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._is_over:
            return
        self._head_size += len(data)
        if self._head_size > MAX_HEAD and (self in self._gateway.waiting or self._refusal is not None):
            self._respond(431, "Request header fields too large.\n")
        elif self._refusal is not None:
            if b"\r\n\r\n" in self._end_of_head + data:
                self._refuse(self._refusal)
            self._end_of_head = (self._end_of_head + data)[-3:]
        else:
            super().data_received(data)

    def on_headers_complete(self) -> None:
        """A request has come."""
        self._asked()
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """The request asks for a WebSocket."""
        gateway, visitor = self._gateway, cast(Visitor, self._visitor)
        try:
            gateway.doorman.check_upgrade(
                visitor, _RawHeaders(self.headers), gateway.clock(), is_tls=self.scheme == "https"
            )
        except BoneValueError as error:
            gateway.counters.sockets_refused[error.code] += 1
            self._refuse(error)
            return
        self.ws_protocol_class = partial(Connection, gateway, visitor)  # type: ignore[assignment]
        super().handle_websocket_upgrade()

    def _asked(self) -> None:
        self._gateway.waiting.discard(self)
        self._gateway.refused.discard(self)

    def _refuse(self, error: BoneValueError) -> None:
        wait = "" if error.retry_after is None else f"retry-after: {max(1, round(error.retry_after))}\r\n"
        self._respond(status_of(error), f"{error.code}: {error.message}\n", wait)

    def _respond(self, status: int, text: str, headers: str = "") -> None:
        """Answer instead of the application, and close."""
        self._is_over = True
        self._asked()
        body = text.encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            f"content-length: {len(body)}\r\n{headers}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class Connection(asyncio.Protocol):
    """One WebSocket: the pump between the library's protocol and the hub."""

    __slots__ = (
        "_fragments",
        "_gateway",
        "_is_full",
        "_outbox",
        "_protocol",
        "_session",
        "_transport",
        "_unflushed",
        "_visitor",
        "is_heard",
    )

    _transport: asyncio.Transport

    def __init__(self, gateway: Gateway, visitor: Visitor, **_from_uvicorn: Any) -> None:
        limits = gateway.limits
        self._gateway = gateway
        self._visitor = visitor
        self._protocol = ServerProtocol(max_size=MAX_MESSAGE, logger=_library_logger)
        self._session: Session | None = None
        self._fragments: list[bytes] | None = None
        self._outbox = Outbox(max_messages=limits.outbound_messages, max_bytes=limits.outbound_bytes)
        self._is_full = False
        self._unflushed = 0
        self.is_heard = False
        """Whether anything came since the last ping."""

    # -- from the socket -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)
        self._gateway.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._gateway.lost(self)
        self._gateway.doorman.left(self._visitor)
        self._outbox.drop()
        self._over(may_return=True)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.is_heard = True
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._shake_hands(event)
            elif isinstance(event, Frame) and self._session is not None:
                self._take(event, self._session)
        if self._protocol.parser_exc is not None:
            self._over(may_return=True)
        self._flush()

    def eof_received(self) -> None:
        """Nothing more will come; the socket closes itself."""
        self._protocol.receive_eof()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._is_full = True
        self._gateway.stalled.put(self, self._gateway.clock())

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._is_full = False
        self._gateway.stalled.discard(self)
        self._drain()

    def _shake_hands(self, request: Request) -> None:
        response = self._protocol.accept(request)
        self._protocol.send_response(response)
        self._flush()
        if self._protocol.state is OPEN:
            self._session = self._gateway.hub.connected(self)

    def _take(self, frame: Frame, session: Session) -> None:
        """One frame of an open WebSocket."""
        if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.CONT:
            self._take_text(frame, session)
        elif frame.opcode is Opcode.BINARY:
            self._fail(CloseCode.UNSUPPORTED_DATA, "messages are text")
        elif frame.opcode is Opcode.CLOSE:
            received = self._protocol.close_rcvd
            self._over(may_return=received is None or received.code not in _FAREWELLS)
        else:
            self._gateway.hub.count(session)

    def _take_text(self, frame: Frame, session: Session) -> None:
        data = frame.data
        if self._fragments is not None or not frame.fin:
            fragments = self._fragments = [*(self._fragments or ()), bytes(data)]
            if len(fragments) > MAX_FRAGMENTS:
                self._fail(CloseCode.POLICY_VIOLATION, "too many fragments")
            if not frame.fin:
                return
            data, self._fragments = b"".join(fragments), None
        try:
            text = str(data, "utf-8")
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "not UTF-8")
        else:
            self._gateway.hub.receive(session, text)

    # -- to the socket (Client) ------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The IP address that limits are counted for."""
        return self._visitor.address

    @property
    def dialled(self) -> str:
        """The host that the client dialled, as it says; "" if unknown."""
        return self._visitor.dialled

    def send(self, text: str) -> None:
        """Send a message; a client that does not read is closed, sooner or later."""
        if self._protocol.state is not OPEN:
            return
        message = text.encode()
        if not self._is_full and not self._outbox:
            self._write(message)
            return
        self._outbox.put(message)
        if self._outbox.is_over:
            self.close_slow()

    def send_all(self, texts: Iterator[str]) -> None:
        """Send many messages, each made only when there is room for it."""
        if self._protocol.state is OPEN:
            self._outbox.put_all(texts)
            self._drain()

    def logged_in(self) -> None:
        """The client is no stranger any more."""
        self._gateway.doorman.logged_in(self._visitor)

    def close(self, code: int, reason: str) -> None:
        """Close the socket, after what was sent before; what the client has not made room for is not sent."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._outbox.drop()
            self._flush()
            self._gateway.closing.put(self, self._gateway.clock())

    # -- for the gateway -------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.is_heard = False
        if self._protocol.state is OPEN:
            self._transport.write(_PING)

    def close_slow(self) -> None:
        """The client does not read what it is sent."""
        if self._protocol.state is OPEN:
            self._gateway.counters.sockets_closed[Slow.code] += 1
        self._over(may_return=True)
        self.close(Slow.close or 0, Slow.code)

    def abort(self, *, may_return: bool) -> None:
        """End the socket, whatever is still to be sent."""
        self._over(may_return=may_return)
        self._transport.abort()

    # -- parts of the above ----------------------------------------------------------------------------------------

    def _over(self, *, may_return: bool) -> None:
        if self._session is not None:
            self._gateway.hub.closed(self._session, may_return=may_return)

    def _fail(self, code: CloseCode, reason: str) -> None:
        """Close because of what the client sent, and read no more of it."""
        if self._protocol.state is OPEN:
            self._over(may_return=True)
            self._outbox.drop()
            self._protocol.fail(code, reason)

    def _write(self, message: bytes) -> None:
        """Send a message, together with the others of this turn of the event loop: one system call for all."""
        self._protocol.send_text(message)
        if not self._unflushed:
            self._gateway.call_soon(self._flush)
        self._unflushed += len(message)
        if self._unflushed > WRITE_LIMIT:
            self._flush()

    def _drain(self) -> None:
        while not self._is_full and self._protocol.state is OPEN and (message := self._outbox.take()) is not None:
            self._write(message)

    def _flush(self) -> None:
        """Hand to the socket what the protocol has for it; an empty last part means that we send no more."""
        self._unflushed = 0
        parts = self._protocol.data_to_send()
        if not parts or self._transport.is_closing():
            return
        self._transport.write(b"".join(parts))
        if parts[-1]:
            return
        self._gateway.closing.put(self, self._gateway.clock())
        # Not closed at once: unread bytes would turn that into a reset, which can overtake our close frame.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
