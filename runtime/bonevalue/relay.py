"""
Relays: allocations on TURN servers (RFC 8656).

aioice's client speaks the protocol; what surrounds it there is replaced, because it

- waits half a minute for a server that is gone before it closes a socket (here :data:`FAREWELL`);
- renews a channel by the wall clock, and after the permission that comes with it may have ended (section 9: 5 min);
- makes a task for each packet, and keeps any number of them for a TCP connection that stands still.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass, field
from struct import pack, unpack_from
from typing import Any, TypeAlias, cast

from aioice.stun import Message, TransactionError, TransactionFailed
from aioice.turn import (
    DEFAULT_ALLOCATION_LIFETIME,
    DEFAULT_CHANNEL_REFRESH_TIME,
    TurnClientMixin,
    TurnClientTcpProtocol,
    TurnClientUdpProtocol,
)

from bonevalue.ice_sockets import open_udp
from bonevalue.ice_url import IceUrl
from bonevalue.wire.refusals import plain

__all__ = ["NOBODY_THERE", "NONSENSE", "NO_ANSWER", "Login", "Relay", "ServerFailed", "open_relay", "reason_of"]

#: Seconds that a server has for taking an allocation back; it ends by itself after 10 minutes.
FAREWELL = 1.0
#: Seconds after which channels are bound anew; the permissions that come with them last 300.
CHANNEL_REFRESH = 240.0
#: Seconds for which an allocation holds at least, whatever the server says.
LEAST_LIFETIME = 60
#: Bytes of the header of a packet on a channel, and of a STUN message.
_FRAME_HEADER, _STUN_HEADER = 4, 20
#: Bytes that wait for a TCP connection; what comes beyond them is lost, as on any network that is full.
MAX_WAITING = 262_144

#: What a server says that is not there.
NO_ANSWER = "no answer"
NOBODY_THERE = "nobody listens there"
NONSENSE = "its answer makes no sense"

Address: TypeAlias = tuple[str, int]

logger = logging.getLogger(__name__)
_farewells: set[asyncio.Task[None]] = set()


@dataclass(frozen=True, slots=True)
class Login:
    """What a TURN server wants to see."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


class ServerFailed(Exception):
    """
    A STUN or TURN server was of no use.

    Args:
        reason: why, in a few words.
        code: with which it refused (RFC 8489 section 14.8), None if it could not be talked to.
    """

    def __init__(self, reason: str, *, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class _Watched(TurnClientMixin):
    """A client that tells when its socket breaks, which aioice's would wait out."""

    def __init__(self, server: Address, login: Login) -> None:
        super().__init__(
            server,
            username=login.username,
            password=login.password,
            lifetime=DEFAULT_ALLOCATION_LIFETIME,
            channel_refresh_time=DEFAULT_CHANNEL_REFRESH_TIME,
        )
        self.broken: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def error_received(self, exc: Exception) -> None:
        """A packet could not be delivered: nobody listens there, or there is no way."""
        self._break(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._break(exc or ConnectionResetError())
        super().connection_lost(exc)

    def datagram_received(self, data: bytes | str, addr: Address) -> None:
        """A packet of the server's."""
        try:
            super().datagram_received(data, addr)
        except Exception as error:  # whatever an attribute that is cut short makes of aioice's parser
            self._break(error)
            logger.debug("%s sends what makes no sense: %r", self.server, error)

    async def request_with_retry(self, request: Message) -> tuple[Message, Address]:
        """Ask the server; a lifetime that would have us renew without pause is taken for a longer one."""
        response, address = await super().request_with_retry(request)
        if "LIFETIME" in response.attributes:
            response.attributes["LIFETIME"] = max(response.attributes["LIFETIME"], LEAST_LIFETIME)
        return response, address

    def give_up(self) -> None:
        """Ask for nothing more."""
        if self.refresh_task is not None:
            self.refresh_task.cancel()

    def _break(self, error: Exception) -> None:
        if not self.broken.done():
            self.broken.set_result(error)


class _Udp(_Watched, TurnClientUdpProtocol):
    def send(self, data: bytes) -> None:
        """Send a packet."""
        self._send(data)

    def _send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super()._send(data)


class _Tcp(_Watched, TurnClientTcpProtocol):
    def __init__(self, server: Address, login: Login) -> None:
        super().__init__(server, login)
        self._unread = bytearray()

    def send(self, data: bytes) -> None:
        """Send a packet, unless too many wait already."""
        if self.transport.get_write_buffer_size() < MAX_WAITING:
            self._send(data)

    def _send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super()._send(data)

    def data_received(self, data: bytes) -> None:
        """Cut into packets; aioice copies all that is left for each of them."""
        self._unread += data
        start, end = 0, len(self._unread)
        while end - start >= _FRAME_HEADER:
            first, length = unpack_from("!HH", self._unread, start)
            is_channel = first & 0xC000 == 0x4000
            size = _FRAME_HEADER + length + -length % 4 if is_channel else _STUN_HEADER + length
            if end - start < size:
                break
            if length or not is_channel:
                self.datagram_received(bytes(self._unread[start : start + size]), self.server)
            start += size
        del self._unread[:start]


class Relay:
    """
    An allocation, in the form of a datagram transport.

    Args:
        client: has the allocation.
        kind: how the server is reached: ``udp``, ``tcp`` or ``tls``.
    """

    def __init__(self, client: _Udp | _Tcp, kind: str) -> None:
        self._client = client
        self._kind = kind
        self._local_address = str(client.transport.get_extra_info("sockname")[0])
        self._loop = asyncio.get_running_loop()
        self._receiver: asyncio.DatagramProtocol | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._keeping: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._is_refused = False
        #: When the last packet came from another peer, by the loop's clock.
        self.heard = self._loop.time()

    @property
    def address(self) -> Address:
        """Where it relays."""
        return _as_address(self._client.relayed_address)

    @property
    def mapped_address(self) -> Address:
        """From where the server sees this host."""
        return _as_address(self._client.mapped_address)

    async def allocate(self) -> None:
        """Get the allocation; raises whatever goes wrong."""
        allocating = asyncio.ensure_future(self._client.connect())
        either: set[asyncio.Future[Any]] = {allocating, self._client.broken}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not allocating.done():
                raise self._client.broken.result()
            allocating.result()
        except TransactionFailed:
            self._is_refused = True
            raise
        finally:
            allocating.cancel()
            await asyncio.wait({allocating})

    def attach(self, receiver: asyncio.DatagramProtocol) -> None:
        """From now on, give packets to this protocol."""
        self._receiver = receiver
        self._client.receiver = cast(asyncio.DatagramProtocol, self)
        receiver.connection_made(cast(asyncio.DatagramTransport, self))

    # -- what the protocol above does with its transport -------------------------------------------------------------

    def sendto(self, data: bytes, addr: Address) -> None:
        """Send a packet to another peer through the server."""
        client = self._client
        if self.is_closing():
            return
        channel = client.peer_to_channel.get(addr)
        if channel is not None:
            client.send(pack("!HH", channel, len(data)) + data)
            return
        binding = self._loop.create_task(self._bind_and_send(data, addr))
        self._sending.add(binding)
        binding.add_done_callback(self._sending.discard)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``sockname``: where it relays; ``relay``: how the server is reached; ``local_address``: our end of that."""
        if name == "sockname":
            return self.address
        if name == "relay":
            return self._kind
        if name == "local_address":
            return self._local_address
        return default

    def is_closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._leaving is not None or self._client.transport.is_closing()

    def close(self) -> None:
        """Give the allocation back, if the server can still be reached, and close the socket. Any number of times."""
        if self._leaving is None:
            self._leaving = self._loop.create_task(self._leave())
            _farewells.add(self._leaving)
            self._leaving.add_done_callback(_farewells.discard)

    async def closed(self) -> None:
        """Wait for the end of that."""
        if self._leaving is not None:
            await asyncio.wait({self._leaving})

    # -- what the client below does with its receiver ----------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """A packet of another peer."""
        self.heard = self._loop.time()
        if self._receiver is not None:
            self._receiver.datagram_received(data, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._rest()
        if self._receiver is not None:
            self._receiver.connection_lost(exc)

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _bind_and_send(self, data: bytes, addr: Address) -> None:
        try:
            await self._client.send_data(data, addr)
        except (TransactionError, ConnectionError) as error:
            # The server may not relay to there, and says so: the checks of that pair fail, others may not.
            logger.debug("%s does not relay to %s: %s", self._client.server, addr, error)
            return
        if self._keeping is None and self._leaving is None:
            self._keeping = self._loop.create_task(self._keep())

    async def _keep(self) -> None:
        """Keep the channels, and the permissions that come with them."""
        while True:
            await asyncio.sleep(CHANNEL_REFRESH)
            for addr, channel in list(self._client.peer_to_channel.items()):
                try:
                    await self._client.channel_bind(channel, addr)
                except TransactionError as error:
                    logger.debug("%s does not renew the channel to %s: %s", self._client.server, addr, error)

    def _rest(self) -> None:
        """Do nothing more by ourselves."""
        self._client.give_up()
        for task in (*self._sending, self._keeping):
            if task is not None:
                task.cancel()

    async def _leave(self) -> None:
        self._rest()
        try:
            # Also if no allocation is known of: it may be on its way to us, and would count for 10 minutes.
            known = self._client.integrity_key or self._client.relayed_address
            if known and not self._is_refused:
                async with asyncio.timeout(FAREWELL):
                    await self._client.delete()
        except Exception as error:
            logger.debug("%s does not take an allocation back: %r", self._client.server, error)
        finally:
            self._client.give_up()
            # A TLS connection closed in good order would wait for the server.
            self._client.transport.abort()


def _as_address(value: Address | None) -> Address:
    return value if value is not None else ("", 0)


async def open_relay(url: IceUrl, address: str, login: Login, *, tls: ssl.SSLContext | None = None) -> Relay:
    """
    An allocation on a server.

    Args:
        url: the server.
        address: the one of its addresses to use.
        login: what it wants to see.
        tls: what certificates are checked with, for ``turns:``; the system's authorities if None.

    Raises:
        ServerFailed: it gave none.
    """
    loop = asyncio.get_running_loop()
    server = (address, url.port)
    client: _Udp | _Tcp
    try:
        if url.transport == "udp":
            _, client = await open_udp(lambda: _Udp(server, login), remote_addr=server)
        else:
            is_tls = url.transport == "tls"
            _, client = await loop.create_connection(
                lambda: _Tcp(server, login),
                *server,
                ssl=(tls or ssl.create_default_context()) if is_tls else None,
                server_hostname=url.host.rstrip(".") if is_tls else None,
            )
        relay = Relay(client, url.transport)
        try:
            await relay.allocate()
        except BaseException:
            relay.close()
            raise
    except Exception as error:
        raise _failure(error) from error
    return relay


def _failure(error: Exception) -> ServerFailed:
    match error:
        case TransactionFailed():
            code, text = error.response.attributes.get("ERROR-CODE", (0, ""))
            return ServerFailed(f"refused: {code} {plain(text)}".rstrip(), code=code)
        case TransactionError():
            return ServerFailed(NO_ANSWER)
        case OSError():
            return ServerFailed(reason_of(error))
        case _:  # whatever the server's words make of aioice's parser
            return ServerFailed(NONSENSE, code=0)


def reason_of(error: OSError) -> str:
    """Why a server could not be reached, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if isinstance(error, ConnectionRefusedError):
        return NOBODY_THERE
    if isinstance(error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        return "it closed the connection"
    return f"cannot be reached: {plain(error.strerror or str(error)).lower()}"
