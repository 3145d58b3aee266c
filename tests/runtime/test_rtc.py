"""What is particular to the aiortc engine: its servers, its descriptions, its candidates, and how attempts fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest
from aioice import stun
from aioice.ice import StunProtocol
from aiortc import RTCPeerConnection, RTCSessionDescription

from bonevalue import rtc, rtc_guard
from bonevalue.errors import ConnectFailed
from bonevalue.link import CloseReason, IceConfig, Stage, Tried
from bonevalue.relay import Relay
from bonevalue.rtc import RtcConnection, RtcEngine, RtcLink
from bonevalue.wire.signals import IceServer
from tests.support.links import NO_SERVERS, Ends, connect, listen
from tests.support.scripted_turn import PASSWORD, USERNAME, scripted_turn
from tests.support.waiting import until


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """A link that is open, closed afterwards."""
    ends = await connect(RtcEngine())
    yield ends
    await ends.close()


async def test_aiortc_is_given_no_servers() -> None:
    connection = RtcEngine().connection(IceConfig((IceServer(urls=["stun:192.0.2.1"]),)))
    # An empty list, not None: without one it would ask a public server.
    assert vars(connection._pc)["_RTCPeerConnection__configuration"].iceServers == []
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


async def test_a_path_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioice.stun.RETRY_MAX", 1)
    monkeypatch.setattr("aioice.stun.RETRY_RTO", 0.01)
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    answer = await callee.accept_offer(await caller.create_offer())
    nowhere = re.sub(r"(a=candidate:.*?) (127\.0\.0\.1|::1) \d+ typ", r"\1 192.0.2.1 9 typ", answer)
    await callee.close()
    await caller.accept_answer(nowhere)
    assert caller.stage is Stage.CHECKING
    with pytest.raises(ConnectFailed, match="no path to the peer was found"):
        await asyncio.wait_for(caller.opened(), 20)
    await caller.close()
    tried = caller.tried()  # also after the end
    assert tried.ours == ("host",) and tried.families_meet
    assert tried.theirs in (("host",), ("host", "prflx"))  # the callee may have asked before it closed


async def test_stages() -> None:
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    told: dict[str, list[str]] = {"caller": [], "callee": []}
    caller.on_stage, callee.on_stage = told["caller"].append, told["callee"].append
    assert caller.stage is Stage.IDLE and caller.tried() == Tried()
    offer = await caller.create_offer()
    assert caller.tried() == Tried(("host",))
    await caller.accept_answer(await callee.accept_offer(offer))
    await asyncio.wait_for(asyncio.gather(caller.opened(), callee.opened()), 10)
    await asyncio.gather(caller.close(), callee.close())
    assert told == {
        "caller": ["gathering", "waiting", "checking", "dtls", "open", "ended"],
        "callee": ["gathering", "checking", "dtls", "open", "ended"],
    }


async def test_what_the_listener_of_stages_raises_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(stage: Stage) -> None:
        raise ValueError(stage)

    connection = RtcEngine().connection(NO_SERVERS)
    connection.on_stage = fail
    assert "a=candidate" in await connection.create_offer()
    await connection.close()
    assert caplog.text.count("a handler of a connection raised") == 3


@pytest.mark.parametrize("own", ["127.0.0.1", "::1"])
async def test_the_path_tells_family_and_address(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: [own])
    ends = await connect(RtcEngine())
    family = "IPv6" if ":" in own else "IPv4"
    path = ends.caller.path()
    assert path is not None and path.remote in ("host", "prflx")
    assert (path.local, path.family, path.relay, path.local_address) == ("host", family, "", own)
    await ends.close()


async def test_families_that_do_not_meet_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RtcEngine()
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    caller = engine.connection(NO_SERVERS)
    offer = await caller.create_offer()
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: ["::1"])
    callee = engine.connection(NO_SERVERS)
    await callee.accept_offer(offer)
    assert callee.tried() == Tried(("host",), ("host",), families_meet=False)
    await asyncio.gather(caller.close(), callee.close())


async def test_a_check_that_a_nat_dropped_is_sent_again_as_soon_as_the_peers_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aioice.stun.RETRY_RTO", 60.0)
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    send, dropped = StunProtocol.send_stun, 0

    def nat(protocol: StunProtocol, message: stun.Message, address: tuple[str, int]) -> None:
        nonlocal dropped
        is_check = message.message_class is stun.Class.REQUEST and protocol.receiver is callee._ice._connection
        if is_check and caller.stage is Stage.WAITING:
            dropped += 1  # the caller's NAT knows nothing of the callee yet
        else:
            send(protocol, message, address)

    monkeypatch.setattr(StunProtocol, "send_stun", nat)
    answer = await callee.accept_offer(await caller.create_offer())
    await until(lambda: dropped)
    await caller.accept_answer(answer)
    await asyncio.wait_for(asyncio.gather(caller.opened(), callee.opened()), 10)
    await asyncio.gather(caller.close(), callee.close())


class Stranger(asyncio.DatagramProtocol):
    """Somebody with a socket, who counts what comes to it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard.append(data)


def check_of(ours: RtcConnection) -> bytes:
    """A check that the peer of that connection might send."""
    ice = ours._ice._connection
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes |= {"USERNAME": f"{ice.local_username}:{ice.remote_username}", "PRIORITY": 1}
    request.attributes["ICE-CONTROLLED"] = 1
    request.add_message_integrity(ice.local_password.encode())
    return bytes(request)


async def test_a_peer_has_only_so_many_addresses(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(ends.caller, RtcConnection)
    caller, loop = ends.caller, asyncio.get_running_loop()
    path = caller._ice._connection._nominated[1].local_addr
    strangers = []
    for _ in range(rtc_guard.MAX_SOURCES + 10):
        strangers.append(await loop.create_datagram_endpoint(Stranger, remote_addr=path))
    for transport, _ in strangers:
        transport.sendto(check_of(caller))
    await until(lambda: len(caller._ice.getRemoteCandidates()) == rtc_guard.MAX_SOURCES)
    await until(lambda: sum(bool(each.heard) for _, each in strangers) >= rtc_guard.MAX_SOURCES - 4)
    assert sum(not each.heard for _, each in strangers) >= 10
    for transport, _ in strangers:
        transport.close()


async def test_on_a_path_that_has_settled_no_address_is_new(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc_guard, "SETTLING", 0.0)
    assert isinstance(ends.caller, RtcConnection)
    pair = ends.caller._ice._connection._nominated[1]
    known = len(ends.caller._ice.getRemoteCandidates())
    transport, stranger = await asyncio.get_running_loop().create_datagram_endpoint(
        Stranger, remote_addr=pair.local_addr
    )
    transport.sendto(check_of(ends.caller))
    heard = listen(ends.ours)
    ends.theirs.send(b"still there")
    await until(lambda: heard.messages)
    assert stranger.heard == [] and len(ends.caller._ice.getRemoteCandidates()) == known
    transport.close()


async def test_a_datagram_of_a_strangers_that_makes_no_sense(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(ends.caller, RtcConnection)
    pair = ends.caller._ice._connection._nominated[1]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Stranger, remote_addr=pair.local_addr)
    short_priority = bytes.fromhex("0001 0008 2112a442") + bytes(12) + bytes.fromhex("0024 0001 01000000")
    for packet in (short_priority, b"", b"\0", short_priority[:20]):
        transport.sendto(packet)
    heard = listen(ends.ours)
    ends.theirs.send(b"still there")
    await until(lambda: heard.messages)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    transport.close()


async def test_a_peer_that_refuses_every_check_is_not_asked_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RtcEngine()
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    asked = 0

    def refuse(message: stun.Message, address: tuple[str, int], protocol: StunProtocol) -> None:
        nonlocal asked
        asked += 1
        callee._ice._connection.respond_error(message, address, protocol, (487, "Role Conflict"))

    monkeypatch.setattr(callee._ice._connection, "request_received", refuse)
    answer = await callee.accept_offer(await caller.create_offer())
    await caller.accept_answer(answer)
    await asyncio.sleep(0.3)
    assert 0 < asked < 60
    await asyncio.gather(caller.close(), callee.close())


@pytest.mark.parametrize("in_use", [False, True])
async def test_a_relay_that_neither_side_uses_is_given_back(in_use: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtc, "RELAY_UNUSED", 1.2)
    async with scripted_turn() as turn:
        ends = await connect(RtcEngine(), ice=IceConfig((IceServer([turn.url], USERNAME, PASSWORD),)))
        assert turn.held == 2
        caller = ends.caller
        assert isinstance(caller, RtcConnection) and caller.tried().ours == ("host", "relay")
        if in_use:
            [relay] = [each for each in caller._ice._connection._protocols if each.local_candidate.type == "relay"]
            assert isinstance(relay.transport, Relay)
            relay.transport.heard += 60.0  # as if the peer sent to it
        await until(lambda: turn.held == in_use)
        heard = listen(ends.theirs)
        ends.ours.send(b"still there")
        await until(lambda: heard.messages == [b"still there"])
        await ends.close()
        await until(lambda: turn.held == 0)


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
