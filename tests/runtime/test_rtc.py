"""What is particular to the aiortc engine: its servers, its descriptions, its candidates, and how attempts fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import cast

import pytest
from aioice import stun
from aiortc import RTCIceServer, RTCPeerConnection, RTCSessionDescription

from bonevalue import rtc, rtc_guard
from bonevalue.errors import ConnectFailed
from bonevalue.link import CloseReason, IceConfig
from bonevalue.rtc import RtcConnection, RtcEngine, RtcLink
from bonevalue.wire.signals import IceServer
from tests.support.links import NO_SERVERS, Ends, connect, listen
from tests.support.waiting import until

TURN = IceServer(urls=["turn:192.0.2.9"], username="u", credential="p")


def configured(connection: RtcConnection) -> list[RTCIceServer]:
    """The servers that aiortc was given."""
    servers: list[RTCIceServer] | None = vars(connection._pc)["_RTCPeerConnection__configuration"].iceServers
    assert servers is not None  # else it would ask a public one
    return servers


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """A link that is open, closed afterwards."""
    ends = await connect(RtcEngine())
    yield ends
    await ends.close()


@pytest.mark.parametrize(
    ("urls", "relay_only", "used"),
    [
        ([], False, []),
        (["stun:a", "stun:b", "turn:c", "turn:d"], False, ["stun:a", "turn:c"]),
        (["stun:a", "turn:c"], True, ["turn:c"]),
        (["nonsense", "stun:", "http://a", "stun:b?transport=udp", "stun:[::1]", "stun:c"], False, ["stun:c"]),
        (["stuns:a", "turn:b?transport=sctp", "turns:c?transport=udp", "turns:d"], False, ["turns:d"]),
        (["turn:a?transport=tcp"], False, ["turn:a?transport=tcp"]),
    ],
)
async def test_one_stun_and_one_turn_server_are_used(urls: list[str], relay_only: bool, used: list[str]) -> None:
    ice = IceConfig((IceServer(urls=urls, username="u", credential="p"),), relay_only=relay_only)
    connection = RtcEngine().connection(ice)
    servers = configured(connection)
    assert [url for server in servers for url in server.urls] == used
    assert all((server.username, server.credential) == ("u", "p") for server in servers if server.urls[0][0] == "t")
    await connection.close()


async def test_each_connection_has_a_certificate_of_its_own() -> None:
    engine = RtcEngine()
    connections = [engine.connection(NO_SERVERS) for _ in range(3)]
    offers = [await connection.create_offer() for connection in connections]
    prints = {re.findall("a=fingerprint:sha-256 (.*)", offer)[0].strip() for offer in offers}
    assert len(prints) == 3
    for connection in connections:
        await connection.close()


async def test_a_description_is_complete_and_says_what_we_take() -> None:
    connection = RtcEngine().connection(NO_SERVERS)
    offer = await connection.create_offer()
    assert "a=candidate:" in offer and "a=end-of-candidates" in offer
    assert offer.count("a=max-message-size:") == 1 and "a=max-message-size:65536\r\n" in offer
    await connection.close()


class StunServer(asyncio.DatagramProtocol):
    """Answers who asks for its address, as long as it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        self.asked += 1
        if self.answers:
            kind = stun.Class.RESPONSE
            response = stun.Message(request.message_method, kind, transaction_id=request.transaction_id)
            response.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.5", 1234)
            self.transport.sendto(bytes(response), addr)


@pytest.fixture
async def stun_servers() -> AsyncIterator[tuple[StunServer, StunServer, IceConfig]]:
    """Two STUN servers on loopback, and the configuration that names both."""
    loop = asyncio.get_running_loop()
    servers, urls = [], []
    for _ in range(2):
        transport, server = await loop.create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
        servers.append(server)
        urls.append(f"stun:127.0.0.1:{transport.get_extra_info('sockname')[1]}")
    yield servers[0], servers[1], IceConfig((IceServer(urls=urls),))
    for server in servers:
        server.transport.close()
    await asyncio.sleep(0)


async def test_the_first_stun_server_is_asked(stun_servers: tuple[StunServer, StunServer, IceConfig]) -> None:
    first, second, ice = stun_servers
    connection = RtcEngine().connection(ice)
    assert " 203.0.113.5 1234 typ srflx" in await connection.create_offer()
    assert (first.asked, second.asked) == (1, 0)
    await connection.close()


async def test_a_silent_stun_server_does_not_hold_up_for_long(
    stun_servers: tuple[StunServer, StunServer, IceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, ice = stun_servers
    first.answers = False
    monkeypatch.setattr(rtc, "GATHER_TIMEOUT", 1)
    connection = RtcEngine().connection(ice)
    async with asyncio.timeout(4):  # aioice alone waits for 5 s
        assert "typ host" in await connection.create_offer()
    await connection.close()


async def test_closing_while_candidates_are_gathered(
    stun_servers: tuple[StunServer, StunServer, IceConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, ice = stun_servers
    first.answers = False
    monkeypatch.setattr(rtc, "GATHER_TIMEOUT", 1)
    monkeypatch.setattr(rtc, "CLOSE_TIMEOUT", 0.2)
    connection = RtcEngine().connection(ice)
    offering = asyncio.create_task(connection.create_offer())
    await until(lambda: first.asked)
    async with asyncio.timeout(0.9):
        await connection.close()
    with pytest.raises(ConnectFailed, match="gathering candidates for the offer"):
        await offering


async def test_a_relay_that_gives_nothing_is_named() -> None:
    connection = RtcEngine().connection(IceConfig((TURN,), relay_only=True))
    with pytest.raises(ConnectFailed, match=r"turn:192\.0\.2\.9 gave none"):
        await connection.create_offer()
    await connection.close()


async def test_a_path_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.stun.RETRY_MAX", 1)
    monkeypatch.setattr("aioice.stun.RETRY_RTO", 0.01)
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    answer = await callee.accept_offer(await caller.create_offer())
    nowhere = re.sub(r"(a=candidate:.*?) (127\.0\.0\.1|::1) \d+ typ", r"\1 192.0.2.1 9 typ", answer)
    await callee.close()
    await caller.accept_answer(nowhere)
    assert caller.progress().startswith("looking for a path (ours: host; theirs: host")
    with pytest.raises(ConnectFailed, match=r"no path .* \(ours: host; theirs: host"):
        await asyncio.wait_for(caller.opened(), 20)
    await caller.close()


async def test_a_name_that_nobody_knows_does_not_hold_up() -> None:
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    offer = await caller.create_offer()
    named = re.sub(r"(a=candidate:\S+ 1 udp \d+) \S+", r"\1 0a1b2c3d-0000-4000-8000-000000000000.local", offer)
    async with asyncio.timeout(0.9):  # resolving takes a second; the caller's checks are there before
        await caller.accept_answer(await callee.accept_offer(named))
        await asyncio.gather(caller.opened(), callee.opened())
    assert str(callee.path()) == "host/prflx"
    await asyncio.gather(caller.close(), callee.close())


async def test_loopback_of_another_host_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    offer = await caller.create_offer()
    monkeypatch.setattr(rtc, "only_loopback", lambda: False)
    answer = await callee.accept_offer(offer)
    assert [each.ip for each in callee._ice.getRemoteCandidates() if ip_address(each.ip).is_loopback] == []
    monkeypatch.undo()
    await caller.accept_answer(answer)
    await asyncio.wait_for(caller.opened(), 10)  # by the caller's own checks
    await asyncio.gather(caller.close(), callee.close())


async def test_a_peer_that_is_plain_aiortc_is_reached() -> None:
    peer = RTCPeerConnection()
    channel = peer.createDataChannel(rtc.LABEL, protocol=rtc.PROTOCOL, negotiated=True, id=rtc.STREAM)
    heard: list[bytes] = []
    channel.on("message", heard.append)
    await peer.setLocalDescription()
    callee = RtcEngine().connection(NO_SERVERS)
    answer = await callee.accept_offer(peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    link = await asyncio.wait_for(callee.opened(), 10)
    told = listen(link)
    link.send(b"hello")
    await until(lambda: heard == [b"hello"])
    channel.send("text")
    await until(lambda: told.closed == [CloseReason.PROTOCOL])
    await callee.close()
    await peer.close()


async def test_a_peer_whose_process_dies_in_good_order_is_noticed_by_dtls(ends: Ends) -> None:
    assert isinstance(ends.ours, RtcLink)
    heard = listen(ends.theirs)
    # Only the DTLS goodbye, without the abort of the association before it.
    await ends.ours.sctp.transport.stop()
    await until(lambda: heard.closed)
    assert heard.closed == [CloseReason.REMOTE]


async def test_closing_is_bounded_when_aiortc_hangs(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "CLOSE_TIMEOUT", 0.1)
    assert isinstance(ends.caller, RtcConnection)
    release = asyncio.Event()
    real = ends.caller._pc.close

    async def hang() -> None:
        await release.wait()
        await real()

    monkeypatch.setattr(ends.caller._pc, "close", hang)
    async with asyncio.timeout(2):
        await ends.caller.close()
    release.set()
    await ends.caller.close()


def test_installing_twice_is_installing_once() -> None:
    RtcEngine()
    RtcEngine()
    assert rtc_guard._find_addresses is not rtc_guard._host_addresses
