"""A TURN server on loopback that gives allocations, or does not, as a test tells it to (RFC 8656)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from aioice import stun
from aioice.turn import make_integrity_key

__all__ = ["PASSWORD", "USERNAME", "ScriptedTurn", "scripted_turn"]

USERNAME, PASSWORD, REALM = "alice", "a-credential", "test"
RELAYED = ("203.0.113.3", 50_000)


class ScriptedTurn:
    """
    A server that knows one user.

    Args:
        refusal: code and reason with which it refuses those who have shown the right credential.
        silent: takes everything, and answers nothing.
        delay: seconds that each answer takes.
        host: where it listens; for TLS also the name in its URL.
    """

    def __init__(
        self,
        refusal: tuple[int, str] | None = None,
        *,
        silent: bool = False,
        delay: float = 0.0,
        host: str = "127.0.0.1",
    ) -> None:
        self.requests = 0
        self.allocations = 0
        self.given_back = 0
        self._clients: set[Any] = set()
        #: Who came with which username.
        self.usernames: list[str] = []
        self.password = PASSWORD
        self.relayed: tuple[str, int] = RELAYED
        self.refusal = refusal
        #: How often it still refuses; None for always.
        self.refusals: int | None = None
        self.silent = silent
        self.delay = delay
        self.host = host
        self.port = 0
        self.transport = "udp"
        #: Sent in place of every answer; None for none.
        self.nonsense: bytes | None = None
        #: For how long it grants allocations; None for as long as is asked for.
        self.lifetime: int | None = None
        #: Whether it asks for no login.
        self.is_open = False
        #: TCP connections that are open.
        self.connections: set[asyncio.BaseTransport] = set()

    @property
    def url(self) -> str:
        """Its URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.transport == "tls":
            return f"turns:{host}:{self.port}"
        return f"turn:{host}:{self.port}" + ("?transport=tcp" if self.transport == "tcp" else "")

    @property
    def held(self) -> int:
        """Allocations that were not given back."""
        return self.allocations - self.given_back

    def take(self, data: bytes, address: Any, send: Callable[[bytes], None]) -> None:
        """A request, and how to answer it."""
        self.requests += 1
        if self.silent:
            return
        request = stun.parse_message(data)
        if self.nonsense is not None:
            send(self.nonsense[:4] + data[4:20] + self.nonsense[20:])
            return
        answer = self._answer(request, address)
        asyncio.get_running_loop().call_later(self.delay, send, bytes(answer))

    def _answer(self, request: stun.Message, address: Any) -> stun.Message:
        key = make_integrity_key(USERNAME, REALM, self.password)
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        if self.is_open:
            self._grant(request, answer, address)
            return answer
        if "USERNAME" not in request.attributes:
            _refuse(answer, 401, "Unauthorized")
            answer.attributes |= {"REALM": REALM, "NONCE": b"nonce"}
            return answer
        self.usernames.append(request.attributes["USERNAME"])
        if not request.check_message_integrity(key):
            _refuse(answer, 401, "Unauthorized")
            return answer
        if self.refusal is not None and self.refusals != 0:
            _refuse(answer, *self.refusal)
            if self.refusals is not None:
                self.refusals -= 1
        else:
            self._grant(request, answer, address)
        answer.add_message_integrity(key)
        return answer

    def _grant(self, request: stun.Message, answer: stun.Message, address: Any) -> None:
        lifetime = request.attributes.get("LIFETIME", 600)
        answer.attributes["LIFETIME"] = lifetime if self.lifetime is None else self.lifetime
        if request.message_method is stun.Method.ALLOCATE:
            self.allocations += address not in self._clients  # else the request was sent again
            self._clients.add(address)
            answer.attributes |= {"XOR-RELAYED-ADDRESS": self.relayed, "XOR-MAPPED-ADDRESS": address[:2]}
        elif request.message_method is stun.Method.REFRESH and lifetime == 0:
            self.given_back += address in self._clients
            self._clients.discard(address)


def _refuse(answer: stun.Message, code: int, reason: str) -> None:
    answer.message_class = stun.Class.ERROR
    answer.attributes["ERROR-CODE"] = (code, reason)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: ScriptedTurn) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._server.take(data, addr, lambda answer: self._transport.sendto(answer, addr))


class _Tcp(asyncio.Protocol):
    def __init__(self, server: ScriptedTurn) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(transport)

    def data_received(self, data: bytes) -> None:
        # On loopback a request comes in one piece, and the client waits for the answer before it sends another.
        self._server.take(data, self._transport.get_extra_info("peername"), self._transport.write)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self._transport)


@asynccontextmanager
async def scripted_turn(
    refusal: tuple[int, str] | None = None,
    *,
    transport: str = "udp",
    tls: ssl.SSLContext | None = None,
    name: str = "",
    **options: Any,
) -> AsyncIterator[ScriptedTurn]:
    """
    One that listens for as long as it is entered.

    Args:
        refusal: see :class:`ScriptedTurn`, which also has the options.
        transport: ``udp``, ``tcp`` or ``tls``.
        tls: its certificate.
        name: the one in its URL, if that is not where it listens.
    """
    server = ScriptedTurn(refusal, **options)
    server.transport = transport
    loop = asyncio.get_running_loop()
    where = (server.host, 0)
    listening: asyncio.AbstractServer | asyncio.DatagramTransport
    if transport == "udp":
        listening, _ = await loop.create_datagram_endpoint(lambda: _Udp(server), local_addr=where)
        server.port = listening.get_extra_info("sockname")[1]
    else:
        listening = await loop.create_server(lambda: _Tcp(server), *where, ssl=tls)
        server.port = listening.sockets[0].getsockname()[1]
    server.host = name or server.host
    try:
        yield server
    finally:
        listening.close()
        for connection in list(server.connections):
            cast(asyncio.Transport, connection).abort()
