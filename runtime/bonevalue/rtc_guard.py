"""
What stands between aiortc 1.16 and a remote peer that means harm. aiortc's private names are used here, in
:mod:`bonevalue.gathering` and in :mod:`bonevalue.relay` only.

aiortc takes whatever a peer sends once the handshake is done. Some of it ends the connection by an assertion, some
makes it hold memory or turn the processor without end. Six things are put in its way:

- :class:`Guard` looks at each SCTP chunk of one connection before aiortc does. One pre-negotiated channel that
  carries binary messages, reliably and in order, needs few kinds of chunk; the rest breaks our rules.
- It also keeps book of what has come, and puts messages together (:class:`Reassembly`), in place of aiortc, which goes
  through all that is held back for each chunk that comes: in a message of many, and behind one that is missing, left
  out or lost, each would cost more than the one before.
- A connection handles so many packets, and then everybody else has a turn (:func:`take_turns`); aiortc goes on as long
  as there are any. So many wait for it, and what comes beyond them is lost, as on any network that is full.
- aioice sends checks to each address from which one of the peer's seems to come; so many are looked at
  (:func:`bound_sources`).
- aiortc's `decode_params` never ends on a parameter of length 0: one packet would stop the process. One that
  checks takes its place.
- aioice offers no loopback address. A host that has nothing else (offline, a container without network, a test)
  could not talk to itself; then, and only then, loopback is offered.

:func:`install` puts the last two in place for the process, and looks whether everything that is used is still there:
an aiortc that has changed is refused when the first engine is made, not when the first peer does harm.

Beside that it has what else needs private names: the pair of candidates in use, checks that are sent again in time
(:func:`check_back`), an end to the checks of a path's consent.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import logging
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator
from struct import unpack_from
from typing import Any

import aioice.ice
from aioice import stun
from aioice.ice import CandidatePair, StunProtocol
from aioice.turn import TurnClientTcpProtocol, TurnClientUdpProtocol
from aiortc import RTCDtlsTransport, RTCIceTransport, RTCSctpTransport
from aiortc import rtcsctptransport as sctp_module
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    SCTP_MAX_PACKET_LENGTH,
    WEBRTC_BINARY,
    Chunk,
    DataChunk,
    ForwardTsnChunk,
    InboundStream,
    InitChunk,
    SackChunk,
)
from aiortc.utils import uint16_add, uint16_gt, uint32_gt, uint32_gte

from bonevalue.arrivals import Arrivals
from bonevalue.errors import ConfigError

__all__ = [
    "MAX_CHUNKS",
    "Guard",
    "Reassembly",
    "bound_sources",
    "check_back",
    "install",
    "nominated",
    "only_loopback",
    "reading_task",
    "stop_consent",
    "take_turns",
]

#: Gaps and duplicates that fit in one acknowledgement.
_MAX_REPORTED = (SCTP_MAX_PACKET_LENGTH - 28) // 4
#: Numbers of chunks begin anew after this one.
_NUMBERS = 0xFFFFFFFF
#: How far ahead of what has arrived a chunk may be: an acknowledgement has 16 bits to say so.
_MAX_AHEAD = 65_535
#: Most chunks held until their message is whole or in its turn. As many as fit in the window, though a browser on a
#: busy path cuts what it sends into chunks of less than 200 bytes (dcSCTP fills what the window leaves).
MAX_CHUNKS = 8_192

#: Packets of one connection that are handled in one turn of the event loop, and that wait at most.
PACKETS_A_TURN = 16
MAX_PACKETS = 1_024
#: Addresses of one peer that are looked at; and seconds for which new ones are, once there is a path.
MAX_SOURCES = 64
SETTLING = 5.0

logger = logging.getLogger(__name__)
_find_addresses = aioice.ice.get_host_addresses


def install() -> None:
    """
    Make this process's aiortc safe to use. Any number of times.

    Raises:
        ConfigError: this aiortc is not one that the guard was written for.
    """
    _check()
    sctp_module.decode_params = _decode_params
    aioice.ice.get_host_addresses = _host_addresses


#: What is used of aiortc and aioice though it is private: methods, and attributes that `__init__` sets.
_METHODS = {
    RTCSctpTransport: {"_receive_chunk", "_send_chunk", "_send_sack"},
    aioice.ice.Connection: {"get_component_candidates", "query_consent"},
}
_ATTRIBUTES: dict[type, set[str]] = {
    RTCSctpTransport: {
        *("_advertised_rwnd", "_inbound_streams", "_last_received_tsn", "_last_sacked_tsn"),
        *("_sack_duplicates", "_sack_needed", "_sent_queue"),
    },
    InboundStream: {"reassembly", "sequence_number"},
    RTCDtlsTransport: {"_task"},
    RTCIceTransport: {"_connection", "_recv"},
    aioice.ice.Connection: {"_nominated", "_protocols", "_queue", "_remote_candidates"},
    stun.Transaction: {"_Transaction__addr", "_Transaction__request"},
}


def _check() -> None:
    missing = [
        f"{kind.__name__}.{name}"
        for kind, names in _METHODS.items()
        for name in names
        if not inspect.iscoroutinefunction(getattr(kind, name, None))
    ]
    for kind, names in _ATTRIBUTES.items():
        set_by_init = vars(kind)["__init__"].__code__.co_names
        missing += [f"{kind.__name__}.{name}" for name in names.difference(set_by_init)]
    for owner, name in (
        (sctp_module, "decode_params"),
        (RTCSctpTransport, "_mark_received"),
        (InboundStream, "add_chunk"),
        (InboundStream, "pop_messages"),
        (aioice.ice.Connection, "check_incoming"),
        (aioice.ice.Connection, "data_received"),
        (aioice.ice.Connection, "request_received"),
        (TurnClientUdpProtocol, "_send"),
        (TurnClientTcpProtocol, "_send"),
    ):
        if not callable(getattr(owner, name, None)):
            missing.append(f"{owner.__name__}.{name}")
    if missing:
        raise ConfigError(
            f"the installed aiortc has no {', '.join(sorted(missing))}, without which remote peers could use up this "
            "process; install the version of aiortc that bonevalue asks for"
        )


def _decode_params(body: bytes) -> list[tuple[int, bytes]]:
    """The parameters of a chunk (RFC 9260 section 3.2.1). aiortc passes over a packet for which this raises."""
    params = []
    position = 0
    while position <= len(body) - 4:
        kind, length = unpack_from("!HH", body, position)
        if length < 4 or position + length > len(body):
            raise ValueError("an SCTP parameter has an invalid length")
        params.append((kind, body[position + 4 : position + length]))
        position += (length + 3) // 4 * 4
    return params


def _host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    addresses = _find_addresses(use_ipv4, use_ipv6)
    # aioice passes over those to which it cannot bind, so ::1 may stand here on a host without IPv6.
    return addresses or [*(["127.0.0.1"] if use_ipv4 else []), *(["::1"] if use_ipv6 else [])]


def only_loopback() -> bool:
    """Whether this host has no address but its loopback ones, so that a peer it can reach must be on it."""
    return all(ipaddress.ip_address(address).is_loopback for address in _find_addresses(True, True))


def take_turns(ice: RTCIceTransport) -> None:
    """Let a connection that has much to read leave the others their turns, and not keep ever more unread."""
    connection = ice._connection
    receive, queue = ice._recv, connection._queue
    taken = 0

    async def recv() -> bytes:
        nonlocal taken
        taken += 1
        if taken >= PACKETS_A_TURN:
            taken = 0
            await asyncio.sleep(0)
        return await receive()

    def data_received(data: bytes, component: int) -> None:
        if queue.qsize() < MAX_PACKETS:
            queue.put_nowait((data, component))

    _replace(ice, _recv=recv)
    _replace(connection, data_received=data_received)


def check_back(ice: RTCIceTransport) -> None:
    """
    Let each check of the peer's be followed at once by ours of the same pair, if that one waits for an answer.

    Ours was probably dropped by the peer's NAT, which the peer has now opened from inside (RFC 8445 section 7.3.1.4).
    aioice would send it again after half a second.
    """
    connection = ice._connection
    check_incoming = connection.check_incoming

    def check(message: stun.Message, address: tuple[str, int], protocol: StunProtocol) -> None:
        for transaction in list(protocol.transactions.values()):
            sent = vars(transaction)
            if sent["_Transaction__addr"] == address:
                protocol.send_stun(sent["_Transaction__request"], address)
        check_incoming(message, address, protocol)

    _replace(connection, check_incoming=check)


def bound_sources(ice: RTCIceTransport) -> None:
    """
    Let a peer not name ever more addresses by the checks that it sends, each of which aioice then checks many times.

    It may do so until there is a path, and a little longer: :data:`MAX_SOURCES` in all.
    """
    connection = ice._connection
    receive, loop = connection.request_received, asyncio.get_running_loop()
    settled: float | None = None

    def request_received(message: stun.Message, address: tuple[str, int], protocol: StunProtocol) -> None:
        nonlocal settled
        if settled is None and connection._nominated:
            settled = loop.time() + SETTLING
        known = connection._remote_candidates
        if not any(address == (each._network_host, each.port) for each in known) and (
            len(known) >= MAX_SOURCES or (settled is not None and loop.time() >= settled)
        ):
            return
        receive(message, address, protocol)

    _replace(connection, request_received=request_received)


def stop_consent(ice: RTCIceTransport) -> None:
    """
    Let no consent checks begin any more; to be called before the transport is closed.

    aioice begins them for ever if its `close` falls between the end of the checks and the end of `connect`.
    """

    _replace(ice._connection, query_consent=_nothing)


async def _nothing() -> None:
    pass


def nominated(ice: RTCIceTransport) -> CandidatePair | None:
    """The pair of candidates in use."""
    return ice._connection._nominated.get(1)


def reading_task(dtls: RTCDtlsTransport) -> asyncio.Future[None] | None:
    """The task that reads a connection's packets; it ends by an exception if a packet could not be digested."""
    return dtls._task


def _replace(target: object, **attributes: Callable[..., Any]) -> None:
    for name, value in attributes.items():
        setattr(target, name, value)


class Reassembly(InboundStream):
    """
    The chunks of an ordered stream that wait for the rest of their message.

    aiortc goes through all of them for each that comes; this looks at each once.
    """

    def __init__(self) -> None:
        super().__init__()
        #: How many at the beginning are of the next message, with none missing between them.
        self._joined = 0

    def add_chunk(self, chunk: DataChunk) -> None:
        """A chunk has come that had not come before."""
        chunks = self.reassembly
        if not chunks or uint32_gt(chunk.tsn, chunks[-1].tsn):
            chunks.append(chunk)
            return
        last = chunks[-1].tsn
        index = bisect_left(chunks, -((last - chunk.tsn) & _NUMBERS), key=lambda each: -((last - each.tsn) & _NUMBERS))
        chunks.insert(index, chunk)
        self._joined = min(self._joined, index)

    def pop_messages(self) -> Iterator[tuple[int, int, bytes]]:
        """The messages that are whole and in their turn."""
        chunks = self.reassembly
        while self._joined < len(chunks):
            chunk = chunks[self._joined]
            if self._joined:
                follows = chunk.tsn == (chunks[self._joined - 1].tsn + 1) & _NUMBERS
            else:
                is_first = bool(chunk.flags & SCTP_DATA_FIRST_FRAG)
                follows = is_first and not uint16_gt(chunk.stream_seq, self.sequence_number)
            if not follows:
                return
            self._joined += 1
            if chunk.flags & SCTP_DATA_LAST_FRAG:
                data = b"".join(each.user_data for each in chunks[: self._joined])
                del chunks[: self._joined]
                self._joined = 0
                if chunk.stream_seq == self.sequence_number:
                    self.sequence_number = uint16_add(self.sequence_number, 1)
                yield chunk.stream_id, chunk.protocol, data


class Guard:
    """
    Looks at the chunks of one SCTP association before aiortc does, and at what aiortc holds of them.

    Args:
        sctp: the association, not yet started.
        stream: the only stream that may carry anything.
        max_message: the longest message in bytes; a longer one is not waited for.
        max_held: bytes that may be held before a message is whole or in its turn.
        on_acknowledged: called with the number of bytes that the peer has acknowledged anew.
        on_breach: called with what happened when the peer breaks the rules; nothing is taken from it afterwards.
        on_abuse: called with what happened when the peer makes this side hold too much; the same.
        on_lost: called when a packet cannot be sent because there is no path any more.
    """

    def __init__(
        self,
        sctp: RTCSctpTransport,
        *,
        stream: int,
        max_message: int,
        max_held: int,
        on_acknowledged: Callable[[int], None],
        on_breach: Callable[[str], None],
        on_abuse: Callable[[str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._sctp = sctp
        self._stream = stream
        self._on_acknowledged = on_acknowledged
        self._on_breach = on_breach
        self._on_abuse = on_abuse
        self._on_lost = on_lost
        self._window = sctp._advertised_rwnd
        self._max_message = max_message
        self._least_window = sctp._advertised_rwnd - max_held
        self._shut = False
        self._arrivals = Arrivals()
        self._reassembly = sctp._inbound_streams[stream] = Reassembly()
        self._receive_chunk = sctp._receive_chunk
        self._send_chunk = sctp._send_chunk
        _replace(sctp, _receive_chunk=self._receive, _send_chunk=self._send, _send_sack=self._acknowledge)
        _replace(sctp, _mark_received=self._mark)

    @property
    def held(self) -> int:
        """Bytes received that are not yet part of a whole message in its turn."""
        return self._window - self._sctp._advertised_rwnd

    def shut(self) -> None:
        """Take nothing more from the peer."""
        self._shut = True

    async def _send(self, chunk: Chunk) -> None:
        # Most of aiortc's callers are tasks that nobody waits for: what is raised here would end up as "exception
        # was never retrieved".
        try:
            await self._send_chunk(chunk)
        except Exception:
            logger.debug("a packet could not be sent", exc_info=True)
            self._on_lost()

    async def _acknowledge(self) -> None:
        sctp, sack = self._sctp, SackChunk()
        sack.cumulative_tsn = sctp._last_received_tsn or 0
        sack.advertised_rwnd = max(0, sctp._advertised_rwnd)
        # As much as fits in a packet, which is what the RFC asks for; aiortc would write a broken one.
        sack.gaps = self._arrivals.runs(_MAX_REPORTED)
        sack.duplicates = sctp._sack_duplicates[: _MAX_REPORTED - len(sack.gaps)]
        await sctp._send_chunk(sack)
        sctp._sack_duplicates.clear()
        sctp._sack_needed = False

    def _mark(self, tsn: int) -> bool:
        """A data chunk has come; whether it had come before."""
        sctp = self._sctp
        last = sctp._last_received_tsn or 0
        ahead = (tsn - last) & _NUMBERS
        moved = self._arrivals.take(ahead) if 0 < ahead <= _NUMBERS >> 1 else None
        if moved is None:
            sctp._sack_duplicates.append(tsn)
            return True
        sctp._last_received_tsn = (last + moved) & _NUMBERS
        return False

    def _receive(self, chunk: Chunk) -> Coroutine[Any, Any, None]:
        # Not a coroutine: this runs for each packet, and one more coroutine costs as much as all that is done here.
        if self._shut:
            return _nothing()
        if isinstance(chunk, DataChunk):
            self._check_data(chunk)
        elif isinstance(chunk, SackChunk):
            # What is acknowledged must have been sent. aiortc counts through each range, 65 536 steps for 4 bytes.
            if chunk.gaps and sum(max(0, last - first + 1) for first, last in chunk.gaps) > len(self._sctp._sent_queue):
                return _nothing()
            if uint32_gt(chunk.cumulative_tsn, self._last_sent()):
                # aiortc would believe it, and from then on no acknowledgement of what it sends.
                self._stop(self._on_breach, "what was never sent is acknowledged")
            elif acknowledged := self._newly_acknowledged(chunk):
                self._on_acknowledged(acknowledged)
        elif isinstance(chunk, InitChunk):
            # A straggler of the handshake, or worse: aiortc would begin the association anew, in the middle of it.
            if self._sctp.state == "connected":
                return _nothing()
        elif isinstance(chunk, ForwardTsnChunk):
            self._stop(self._on_breach, "part of a reliable channel was left out")
        return _nothing() if self._shut else self._receive_chunk(chunk)

    def _check_data(self, chunk: DataChunk) -> None:
        sctp = self._sctp
        ahead = (chunk.tsn - (sctp._last_received_tsn or 0)) & _NUMBERS
        if (
            chunk.protocol != WEBRTC_BINARY
            or chunk.stream_id != self._stream
            or chunk.flags & SCTP_DATA_UNORDERED
            or not chunk.user_data
            or _MAX_AHEAD < ahead < 1 << 31
        ):
            self._stop(
                self._on_breach,
                f"a chunk of {len(chunk.user_data)} bytes, stream {chunk.stream_id}, kind {chunk.protocol}, "
                f"flags {chunk.flags}, {ahead} ahead; binary messages on stream {self._stream} in order were agreed on",
            )
        elif self.held > self._max_message and not self._arrivals.held:
            # Nothing is missing before what is held: it is the beginning of one message.
            self._stop(self._on_breach, f"a message of more than {self._max_message} bytes")
        elif sctp._advertised_rwnd < self._least_window:
            self._stop(self._on_abuse, f"{self.held} bytes of unfinished messages")
        elif max(self._arrivals.held, len(self._reassembly.reassembly)) > MAX_CHUNKS:
            self._stop(self._on_abuse, f"more than {MAX_CHUNKS} pieces of unfinished messages")

    def _last_sent(self) -> int:
        """Number of the last chunk that has left."""
        queue = self._sctp._sent_queue
        return queue[-1].tsn if queue else self._sctp._last_sacked_tsn

    def _newly_acknowledged(self, chunk: SackChunk) -> int:
        if uint32_gt(self._sctp._last_sacked_tsn, chunk.cumulative_tsn):
            return 0  # an old one, which aiortc passes over
        total = 0
        for sent in self._sctp._sent_queue:
            if not uint32_gte(chunk.cumulative_tsn, sent.tsn):
                break
            total += len(sent.user_data)
        return total

    def _stop(self, tell: Callable[[str], None], what: str) -> None:
        self._shut = True
        tell(what)
