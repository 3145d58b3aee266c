"""The lower layers of an aiortc link, used by hand: chunks of which nothing needs to be right."""

from __future__ import annotations

import asyncio
from struct import pack

from aiortc import RTCSctpTransport
from aiortc import rtcsctptransport as sctp_module
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    WEBRTC_BINARY,
    Chunk,
    DataChunk,
    SackChunk,
)

__all__ = ["OPEN", "WHOLE", "Chunks"]

#: Flags of a chunk that holds a whole message.
WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
#: A DCEP message that opens a channel.
OPEN = pack("!BBHLHH", 3, 0, 0, 0, 1, 0) + b"x"


class Chunks:
    """
    Sends chunks over an association that is up.

    Args:
        sctp: the association, in the hands of an attacker.
    """

    def __init__(self, sctp: RTCSctpTransport) -> None:
        self._sctp = sctp
        self._send_chunk = sctp._send_chunk

    async def data(
        self, data: bytes, *, kind: int = WEBRTC_BINARY, stream: int = 0, order: int = 0, flags: int = WHOLE
    ) -> None:
        """
        Send one data chunk with the next number, whatever the window says.

        Args:
            order: of its message in the stream; one that is yet to come is held back until its turn.
        """
        chunk = DataChunk(flags=flags)
        chunk.tsn = self._sctp._local_tsn
        self._sctp._local_tsn = sctp_module.tsn_plus_one(chunk.tsn)
        chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = stream, order, kind, data
        await self._send_chunk(chunk)

    async def raw(self, kind: int, flags: int, body: bytes) -> None:
        """Send one chunk of any kind and content."""

        class Raw(Chunk):
            type = kind

        await self._send_chunk(Raw(flags, body))

    def skip(self, numbers: int) -> None:
        """Leave out so many numbers: what follows cannot be delivered."""
        self._sctp._local_tsn = (self._sctp._local_tsn + numbers) % (1 << 32)

    def acknowledge(self, every: float | None) -> None:
        """
        Read slowly, or not at all: what comes is taken, and little of it acknowledged.

        Args:
            every: one chunk more is acknowledged in so many seconds; None for none at all.
        """
        loop = asyncio.get_running_loop()
        last, due = self._sctp._last_received_tsn or 0, loop.time()

        async def send(chunk: Chunk) -> None:
            nonlocal last, due
            if isinstance(chunk, SackChunk):
                if every is None or loop.time() < due or chunk.cumulative_tsn == last:
                    return
                last, due = sctp_module.tsn_plus_one(last), loop.time() + every
                chunk.cumulative_tsn, chunk.gaps, chunk.duplicates = last, [], []
            await self._send_chunk(chunk)

        self._sctp._send_chunk = send  # type: ignore[method-assign]
