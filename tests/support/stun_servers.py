"""STUN servers on loopback that see what a test tells them to see."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, cast

from bonevalue.errors import RemoteProtocolError
from bonevalue.wire.stun import decode_request, encode_response

__all__ = ["StunServer", "stun_server"]


class StunServer(asyncio.DatagramProtocol):
    """
    Answers Binding requests.

    Args:
        seen: the address that it says it saw; None for the real one.
        ignored: how many requests of each client it loses before it answers.
        noise: datagrams that it sends before each answer.
        through: another one, from whose socket it answers.
        only: the one client address that it answers; None for all.
    """

    def __init__(
        self,
        seen: tuple[str, int] | None = None,
        *,
        ignored: int = 0,
        noise: tuple[bytes, ...] = (),
        through: StunServer | None = None,
        only: str | None = None,
    ) -> None:
        self.requests = 0
        self._seen = seen
        self._ignored = ignored
        self._noise = noise
        self._through = through or self
        self._only = only

    @property
    def port(self) -> int:
        """Its UDP port."""
        return int(self._transport.get_extra_info("sockname")[1])

    def url(self, host: str = "127.0.0.1") -> str:
        """Its URL."""
        return f"stun:{host}:{self.port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A request."""
        try:
            transaction = decode_request(data)
        except RemoteProtocolError:
            return
        self.requests += 1
        if self.requests <= self._ignored or self._only not in (None, addr[0]):
            return
        for datagram in self._noise:
            self._transport.sendto(datagram, addr)
        host, port = self._seen or addr[:2]
        self._through._transport.sendto(encode_response(transaction, ip_address(host).packed, port), addr)


@asynccontextmanager
async def stun_server(
    seen: tuple[str, int] | None = None, *, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[StunServer]:
    """One that listens for as long as it is entered; the options are those of :class:`StunServer`."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: StunServer(seen, **options), local_addr=(host, 0)
    )
    try:
        yield server
    finally:
        transport.close()
