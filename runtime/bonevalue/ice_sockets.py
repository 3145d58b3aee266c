"""UDP sockets for ICE: opened so that none is left behind, and proof against what strangers send to them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from aioice.ice import StunProtocol

__all__ = ["IceSocket", "open_udp"]

#: Refusals of our checks (RFC 8445 section 7.2.5.2.1) that a peer may send over one socket. Of one that goes on and on
#: aioice makes as many checks.
MAX_REFUSALS = 8
#: The type of a STUN message that refuses a Binding request.
_REFUSAL = b"\x01\x11"
#: First bytes from here on are not STUN's (RFC 7983).
_NOT_STUN = 4

logger = logging.getLogger(__name__)
ProtocolT = TypeVar("ProtocolT", bound=asyncio.DatagramProtocol)


async def open_udp(make: Callable[[], ProtocolT], **where: Any) -> tuple[asyncio.DatagramTransport, ProtocolT]:
    """
    A socket and its protocol, as `create_datagram_endpoint` gives them; uvloop's leaves the socket open when it is
    cancelled, and may then wait for it for ever at the end of the loop.

    Args:
        make: the protocol, of a class that has a `__dict__`.
        where: `local_addr` or `remote_addr`.

    Raises:
        OSError: there is none to be had.
    """
    opening = _Opening()
    try:
        opened = await asyncio.get_running_loop().create_datagram_endpoint(lambda: opening.watch(make()), **where)
    except BaseException:
        opening.give_up()
        raise
    del vars(opened[1])["connection_made"]
    return opened


class _Opening:
    """A socket that is being opened: closed as soon as it is there, if nobody wants it any more."""

    def __init__(self) -> None:
        self._transport: asyncio.DatagramTransport | None = None
        self._is_given_up = False

    def watch(self, protocol: ProtocolT) -> ProtocolT:
        """Learn from the protocol when it is there."""
        tell = protocol.connection_made

        def connection_made(transport: asyncio.DatagramTransport) -> None:
            self._transport = transport
            tell(transport)
            if self._is_given_up:
                transport.close()

        vars(protocol)["connection_made"] = connection_made
        return protocol

    def give_up(self) -> None:
        """Nobody wants it."""
        self._is_given_up = True
        if self._transport is not None:
            self._transport.close()


class IceSocket(StunProtocol):
    """A socket of a connection, or what stands for one: a relay."""

    _refusals = 0

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        """A packet of anybody's."""
        packet = data if isinstance(data, bytes) else data.encode()
        if packet and packet[0] >= _NOT_STUN:
            self.receiver.data_received(packet, self.local_candidate.component)
            return
        if packet.startswith(_REFUSAL):
            self._refusals += 1
            if self._refusals > MAX_REFUSALS:
                return
        try:
            super().datagram_received(packet, addr)
        except Exception as error:  # whatever an attribute that is cut short makes of aioice's parser
            logger.debug("a packet from %s makes no sense: %r", addr, error)
