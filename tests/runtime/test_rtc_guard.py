"""
A peer that means harm, inside the encrypted channel: each of its tricks against a link of ours.

The attacker is an aiortc connection of our own, whose lower layers are used by hand. What it does to itself does not
matter; the victim must end the link with the right reason, hold little and stay quick.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aioice.ice
import pytest
from aiortc import RTCSctpTransport
from aiortc import rtcsctptransport as sctp_module
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    WEBRTC_BINARY,
    WEBRTC_DCEP,
    WEBRTC_STRING,
    DataChunk,
    ForwardTsnChunk,
    InitChunk,
    SackChunk,
)

from bonevalue import rtc_guard
from bonevalue.errors import ConfigError
from bonevalue.link import MAX_RECEIVED, CloseReason
from bonevalue.rtc import RtcEngine, RtcLink
from bonevalue.rtc_guard import MAX_CHUNKS, MAX_PACKETS, PACKETS_A_TURN
from tests.support.chunks import OPEN, WHOLE, Chunks
from tests.support.links import Ends, Heard, connect, listen
from tests.support.waiting import until


@dataclass
class Duel:
    """An attacker, a victim, and what the victim was told."""

    ends: Ends
    attacker: RTCSctpTransport
    chunks: Chunks
    victim: RtcLink
    heard: Heard

    async def ended(self, reason: CloseReason) -> None:
        """Wait for the end of the victim's link, which must have this reason."""
        await until(lambda: self.heard.closed)
        assert self.heard.closed == [reason]

    async def took(self, size: int) -> None:
        """Wait until the victim holds so many bytes, or has had enough."""
        await until(lambda: self.victim._guard.held >= size or self.victim.closed)

    async def unharmed(self) -> None:
        """The link carries messages as before."""
        self.ends.ours.send(b"still there?")
        await until(lambda: b"still there?" in self.heard.messages)
        assert self.victim.closed is None


@pytest.fixture
async def duel() -> AsyncIterator[Duel]:
    """Two ends of a link, the caller's one in the hands of an attacker."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    ends = await connect(RtcEngine())
    assert isinstance(ends.ours, RtcLink) and isinstance(ends.theirs, RtcLink)
    yield Duel(ends, ends.ours.sctp, Chunks(ends.ours.sctp), ends.theirs, listen(ends.theirs))
    await ends.close()
    gc.collect()
    assert unhandled == []


@pytest.mark.parametrize(
    ("data", "kind", "stream", "flags"),
    [
        pytest.param(OPEN, WEBRTC_DCEP, 0, WHOLE, id="open the channel again"),
        pytest.param(OPEN, WEBRTC_DCEP, 2, WHOLE, id="open another channel"),
        pytest.param(b"hello", WEBRTC_BINARY, 7, WHOLE, id="data on another stream"),
        pytest.param(b"hello", WEBRTC_STRING, 0, WHOLE, id="text"),
        pytest.param(b"\xff\xfe", WEBRTC_STRING, 0, WHOLE, id="text that is not UTF-8"),
        pytest.param(b"\0", sctp_module.WEBRTC_BINARY_EMPTY, 0, WHOLE, id="an empty message"),
        pytest.param(b"", WEBRTC_BINARY, 0, WHOLE, id="a chunk without data"),
        pytest.param(b"hello", WEBRTC_BINARY, 0, WHOLE | SCTP_DATA_UNORDERED, id="an unordered message"),
    ],
)
async def test_what_was_not_agreed_on_ends_the_link(
    duel: Duel, data: bytes, kind: int, stream: int, flags: int, caplog: pytest.LogCaptureFixture
) -> None:
    await duel.chunks.data(data, kind=kind, stream=stream, flags=flags)
    await duel.ended(CloseReason.PROTOCOL)
    assert duel.heard.messages == []
    assert "agreed on" in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_message_that_is_too_long_ends_the_link(duel: Duel) -> None:
    assert isinstance(duel.ends.ours, RtcLink)
    duel.ends.ours.channel.send(bytes(MAX_RECEIVED))
    await until(lambda: duel.heard.messages)
    duel.attacker._remote_max_message_size = 0  # it does not care what we take
    duel.ends.ours.channel.send(bytes(MAX_RECEIVED + 1))
    await duel.ended(CloseReason.PROTOCOL)


async def test_a_message_without_end_is_not_waited_for(duel: Duel) -> None:
    piece = bytes(sctp_module.USERDATA_MAX_LENGTH)
    for number in range(MAX_RECEIVED // len(piece) + 2):
        await duel.chunks.data(piece, flags=0 if number else SCTP_DATA_FIRST_FRAG)
    await duel.ended(CloseReason.PROTOCOL)


async def test_leaving_out_a_message_ends_the_link(duel: Duel) -> None:
    chunk = ForwardTsnChunk()
    chunk.cumulative_tsn = duel.attacker._local_tsn
    await duel.attacker._send_chunk(chunk)
    await duel.ended(CloseReason.PROTOCOL)


async def test_a_packet_that_makes_aiortc_stumble_ends_the_link(duel: Duel) -> None:
    await duel.chunks.raw(DataChunk.type, WHOLE, b"\1\2\3")
    await duel.ended(CloseReason.PROTOCOL)


@pytest.mark.parametrize("step", [1, 2], ids=["one gap", "many gaps"])
@pytest.mark.parametrize("size", [1, sctp_module.USERDATA_MAX_LENGTH])
async def test_what_cannot_be_delivered_is_held_up_to_a_limit(
    duel: Duel, step: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = MAX_CHUNKS // 40  # of the real number; it shows the same
    monkeypatch.setattr(rtc_guard, "MAX_CHUNKS", most)
    sent = 0
    duel.attacker._local_tsn += 1
    while sent < most + 50:
        for _ in range(50):
            duel.attacker._local_tsn += step - 1
            await duel.chunks.data(bytes(size), flags=SCTP_DATA_FIRST_FRAG)
            sent += 1
        await duel.took(sent * size)
        assert duel.victim._guard.held <= (most + 1) * size
    await duel.ended(CloseReason.ABUSE)


async def test_what_cannot_be_delivered_is_limited_in_bytes_too(duel: Duel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_guard, "MAX_CHUNKS", 1 << 20)
    duel.victim._guard._least_window = duel.victim._guard._window - 100_000
    duel.attacker._local_tsn += 1
    for _ in range(120):
        await duel.chunks.data(bytes(1_000), flags=SCTP_DATA_FIRST_FRAG)
    await duel.ended(CloseReason.ABUSE)


async def test_a_chunk_far_ahead_ends_the_link(duel: Duel) -> None:
    duel.attacker._local_tsn += 60_000
    await duel.chunks.data(b"x", flags=SCTP_DATA_FIRST_FRAG)
    await duel.took(1)
    duel.attacker._local_tsn += 10_000
    await duel.chunks.data(b"x", flags=SCTP_DATA_FIRST_FRAG)
    await duel.ended(CloseReason.PROTOCOL)


async def test_a_parameter_of_no_length_does_not_stop_the_process(duel: Duel) -> None:
    before = time.monotonic()
    for kind in (1, 2, 4, 5, 6, 9, 130):  # every chunk that has parameters
        await duel.chunks.raw(kind, 0, bytes(40))
    await duel.unharmed()
    assert time.monotonic() - before < 5


async def test_acknowledging_what_was_never_sent_costs_nothing(duel: Duel) -> None:
    sack = SackChunk()
    sack.cumulative_tsn = duel.victim.sctp._last_sacked_tsn
    sack.gaps = [(1, 65_535)] * 250
    await duel.unharmed()
    before = time.process_time()
    for _ in range(20):
        await duel.attacker._send_chunk(sack)
    await duel.unharmed()
    assert time.process_time() - before < 1  # counted through, it is about a second for each
    sack.gaps = [(65_535, 1), *[(1, 60_000)] * 2]
    await duel.attacker._send_chunk(sack)
    await duel.unharmed()


async def test_acknowledging_more_than_was_sent_ends_the_link(duel: Duel) -> None:
    sack = SackChunk()
    sack.cumulative_tsn = duel.victim.sctp._last_sacked_tsn + 1000
    await duel.attacker._send_chunk(sack)
    await duel.ended(CloseReason.PROTOCOL)


async def test_an_old_acknowledgement_counts_nothing(duel: Duel) -> None:
    old = SackChunk()
    old.cumulative_tsn = duel.victim.sctp._last_sacked_tsn
    await duel.unharmed()
    for _ in range(3):
        duel.ends.theirs.send(bytes(10_000))
        await duel.attacker._send_chunk(old)
    await until(lambda: duel.victim.buffered == 0)
    await duel.attacker._send_chunk(old)
    await duel.unharmed()
    assert duel.victim.buffered == 0


async def test_a_message_of_very_many_pieces_ends_the_link(duel: Duel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_guard, "MAX_CHUNKS", 200)
    await duel.chunks.data(b"x", flags=SCTP_DATA_FIRST_FRAG)
    for _ in range(201):
        await duel.chunks.data(b"x", flags=0)
    await duel.ended(CloseReason.ABUSE)


async def test_a_message_may_come_in_many_pieces(duel: Duel, monkeypatch: pytest.MonkeyPatch) -> None:
    # As a browser sends it on a busy path.
    monkeypatch.setattr(sctp_module, "USERDATA_MAX_LENGTH", 8)
    message = bytes(range(256)) * 16
    duel.ends.ours.send(message)
    await until(lambda: duel.heard.messages)
    assert duel.heard.messages == [message]


@pytest.mark.parametrize("start", [1, 0xFFFFFFF0], ids=["small numbers", "numbers that begin anew"])
@pytest.mark.parametrize("seed", range(20))
def test_messages_are_put_together_as_aiortc_does_it(seed: int, start: int) -> None:
    chance = random.Random(seed)
    chunks: list[DataChunk] = []
    for sequence in range(0xFFF8, 0x10008):
        pieces = chance.randint(1, 6)
        for piece in range(pieces):
            chunk = DataChunk()
            chunk.tsn = (start + len(chunks)) & 0xFFFFFFFF
            chunk.stream_seq = sequence & 0xFFFF
            chunk.flags = (SCTP_DATA_FIRST_FRAG if not piece else 0) | (
                SCTP_DATA_LAST_FRAG if piece == pieces - 1 else 0
            )
            chunk.user_data = chance.randbytes(3)
            chunks.append(chunk)
    # As after losses: no chunk comes by more than ten too late.
    chunks = [chunk for _, chunk in sorted(enumerate(chunks), key=lambda each: each[0] + chance.uniform(0, 10))]
    ours, theirs = rtc_guard.Reassembly(), sctp_module.InboundStream()
    ours.sequence_number = theirs.sequence_number = 0xFFF8
    for chunk in chunks:
        ours.add_chunk(chunk)
        theirs.add_chunk(chunk)
        assert list(ours.pop_messages()) == list(theirs.pop_messages())
        assert ours.reassembly == theirs.reassembly
    assert not ours.reassembly


async def test_a_handshake_that_begins_anew_is_passed_over(duel: Duel) -> None:
    await duel.unharmed()
    chunk = InitChunk()
    chunk.initiate_tag, chunk.initial_tsn, chunk.advertised_rwnd = 1234, 5678, 1_000_000
    chunk.outbound_streams = chunk.inbound_streams = 1
    for _ in range(3):
        await duel.attacker._send_chunk(chunk)
    duel.ends.theirs.send(b"and you?")
    await until(lambda: duel.victim.buffered == 0)
    duel.ends.ours.send(b"all right")
    await until(lambda: b"all right" in duel.heard.messages)


async def test_packets_that_nobody_has_read_yet_are_bounded(duel: Duel) -> None:
    connection = duel.victim.sctp.transport.transport._connection
    for _ in range(10 * MAX_PACKETS):  # all in one turn of the loop
        connection.data_received(b"\x14 not of DTLS", 1)
    assert connection._queue.qsize() == MAX_PACKETS
    await duel.unharmed()


async def test_who_has_much_to_read_leaves_others_their_turns(duel: Duel) -> None:
    connection = duel.victim.sctp.transport.transport._connection
    turns = 0
    while connection._queue.qsize() < 20 * PACKETS_A_TURN:
        connection.data_received(b"\x14 not of DTLS", 1)
    while connection._queue.qsize():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 18


async def test_the_channel_reset_is_a_good_end(duel: Duel) -> None:
    assert isinstance(duel.ends.ours, RtcLink)
    duel.ends.ours.channel.close()
    await duel.ended(CloseReason.REMOTE)


async def test_a_path_that_breaks_is_a_loss(duel: Duel) -> None:
    # What aioice does when six consent checks in a row were not answered.
    await duel.victim.sctp.transport.transport._connection.close()
    await duel.ended(CloseReason.LOST)


async def test_sending_into_a_broken_path_raises_nowhere(duel: Duel) -> None:
    duel.victim.send(b"before")
    duel.victim.sctp.transport.transport._connection._nominated.clear()
    for _ in range(100):
        duel.victim.send(bytes(16_384))
    await until(lambda: duel.heard.closed)


def test_an_aiortc_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    RtcEngine()
    with monkeypatch.context() as patch:
        patch.delattr(RTCSctpTransport, "_receive_chunk")
        with pytest.raises(ConfigError, match=r"RTCSctpTransport\._receive_chunk"):
            RtcEngine()
    with monkeypatch.context() as patch:
        patch.setattr(RTCSctpTransport, "__init__", lambda self: None)
        with pytest.raises(ConfigError, match=r"RTCSctpTransport\._advertised_rwnd"):
            RtcEngine()


def test_loopback_is_offered_only_where_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    RtcEngine()
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: ["192.0.2.1", "169.254.7.7"])
    assert aioice.ice.get_host_addresses(True, True) == ["192.0.2.1", "169.254.7.7"]
    assert not rtc_guard.only_loopback()
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: [])
    assert aioice.ice.get_host_addresses(True, True) == ["127.0.0.1", "::1"]
    assert aioice.ice.get_host_addresses(True, False) == ["127.0.0.1"]
    assert rtc_guard.only_loopback()
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.2"])
    assert aioice.ice.get_host_addresses(True, True) == ["127.0.0.2"]
    assert rtc_guard.only_loopback()
