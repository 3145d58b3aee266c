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
    cancelled.

    Args:
        make: the protocol.
        where: `local_addr` or `remote_addr`.

    Raises:
        OSError: there is none to be had.
    """
    opening = asyncio.ensure_future(asyncio.get_running_loop().create_datagram_endpoint(make, **where))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Future[tuple[asyncio.DatagramTransport, Any]]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[0].close()


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
