"""Finding out our own candidates: many STUN and TURN servers, those that fail, and nothing that stays behind."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bonevalue import gathering, ice_servers, relay, rtc, rtc_guard
from bonevalue.errors import ConnectFailed, ServerOutcome
from bonevalue.gathering import APART, GATHER_TIME, STUN_TIME
from bonevalue.ice_servers import probe
from bonevalue.ice_sockets import open_udp
from bonevalue.ice_url import parse_ice_url
from bonevalue.link import IceConfig, Stage, Tried
from bonevalue.relay import Login
from bonevalue.rtc import RtcEngine
from bonevalue.wire.signals import IceServer
from tests.support.certificates import Authority
from tests.support.scripted_turn import PASSWORD, USERNAME, scripted_turn
from tests.support.stun_servers import stun_server
from tests.support.waiting import other_tasks, until

SEEN = ("203.0.113.7", 4242)
NOBODY = 10_000


def stun_of(*urls: str) -> IceServer:
    return IceServer(list(urls))


def turn_of(*urls: str, password: str = PASSWORD) -> IceServer:
    return IceServer(list(urls), USERNAME, password)


def addresses(monkeypatch: pytest.MonkeyPatch, *given: str) -> None:
    """What this host's addresses are taken to be."""
    monkeypatch.setattr(rtc_guard, "_find_addresses", lambda use_ipv4, use_ipv6: list(given))


async def offer(ice: IceConfig) -> tuple[list[str], Tried]:
    """The candidates of an offer, each as `address port typ kind ...`, and what was tried."""
    connection = RtcEngine().connection(ice)
    try:
        sdp = await connection.create_offer()
        return re.findall(r"a=candidate:\S+ 1 udp \d+ (\S+ \d+ typ .*?)\r", sdp), connection.tried()
    finally:
        await connection.close()


def outcomes(tried: Tried) -> dict[str, str]:
    return {server.url: server.outcome for server in tried.servers}


def kinds(candidates: list[str]) -> list[str]:
    return [candidate.split()[3] for candidate in candidates]


def looked_up(**names: tuple[str, ...]) -> Callable[[str], Awaitable[tuple[str, ...]]]:
    """A name server; names it does not have are not known."""

    async def addresses(host: str) -> tuple[str, ...]:
        if host not in names:
            raise OSError("name not known")
        return names[host]

    return addresses


# -- STUN --------------------------------------------------------------------------------------------------------------


async def test_every_server_is_asked_from_every_address_of_its_family(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2", "::1")
    async with (
        stun_server(SEEN) as first,
        stun_server(SEEN) as second,
        stun_server(("2001:db8::7", 7), host="::1") as six,
    ):
        urls = first.url(), second.url(), six.url("[::1]")
        candidates, tried = await offer(IceConfig((stun_of(*urls),)))
        await until(lambda: (first.requests, second.requests, six.requests) == (2, 2, 1))
    srflx = [candidate.split() for candidate in candidates if " srflx " in candidate]
    assert [(each[0], each[1], each[5]) for each in srflx if "." in each[0]] == [
        ("203.0.113.7", "4242", "127.0.0.1"),
        ("203.0.113.7", "4242", "127.0.0.2"),
    ]
    assert [(each[0], each[1], each[5]) for each in srflx if ":" in each[0]] == [("2001:db8::7", "7", "::1")]
    assert tried.ours == ("host", "srflx")
    assert set(outcomes(tried).values()) == {"ok"}


async def test_the_first_answer_wins_and_a_silent_server_costs_nothing() -> None:
    async with stun_server(ignored=NOBODY) as silent, stun_server(SEEN) as good:
        began = time.monotonic()
        candidates, tried = await offer(IceConfig((stun_of(silent.url(), good.url()),)))
        assert time.monotonic() - began < STUN_TIME
        assert silent.requests >= 1
    assert [candidate for candidate in candidates if " srflx " in candidate and "203.0.113.7 4242" in candidate]
    assert outcomes(tried) == {good.url(): "ok"}


async def test_what_gets_lost_is_sent_again() -> None:
    async with stun_server(SEEN, ignored=2) as lossy:
        candidates, tried = await offer(IceConfig((stun_of(lossy.url()),)))
    assert "srflx" in kinds(candidates)
    assert outcomes(tried) == {lossy.url(): "ok"}


async def test_servers_that_are_all_silent_are_not_waited_for_long() -> None:
    async with stun_server(ignored=NOBODY) as one, stun_server(ignored=NOBODY) as other:
        began = time.monotonic()
        candidates, tried = await offer(IceConfig((stun_of(one.url()), stun_of(other.url()))))
        assert time.monotonic() - began < GATHER_TIME
    assert set(kinds(candidates)) == {"host"}
    assert outcomes(tried) == {one.url(): "no answer", other.url(): "no answer"}


async def test_an_address_that_leads_nowhere_does_not_hold_up(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "127.0.0.2", "127.0.0.1")
    monkeypatch.setattr(gathering, "STUN_TIME", 60.0)
    monkeypatch.setattr(gathering, "GATHER_TIME", 60.0)
    async with stun_server(SEEN, only="127.0.0.1") as server, asyncio.timeout(10):
        candidates, tried = await offer(IceConfig((stun_of(server.url()),)))
    assert [candidate.split()[5] for candidate in candidates if " srflx " in candidate] == ["127.0.0.1"]
    assert outcomes(tried) == {server.url(): "ok"}


async def test_answers_that_came_while_the_process_stood_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "STUN_TIME", 0.3)
    async with stun_server(SEEN) as server:
        offering = asyncio.ensure_future(offer(IceConfig((stun_of(server.url()),))))
        await asyncio.sleep(0.01)
        time.sleep(0.8)  # noqa: ASYNC251
        candidates, tried = await offering
    assert "srflx" in kinds(candidates)
    assert outcomes(tried) == {server.url(): "ok"}


async def test_what_is_the_same_as_the_hosts_own_is_left_out() -> None:
    async with stun_server() as server:
        candidates, tried = await offer(IceConfig((stun_of(server.url()),)))
    assert set(kinds(candidates)) == {"host"}
    assert outcomes(tried) == {server.url(): "ok"}


@pytest.mark.parametrize(
    "seen",
    [
        *(("0.0.0.0", 1), ("224.0.0.1", 1), ("169.254.0.1", 1), ("203.0.113.7", 0), ("::", 9), ("255.255.255.255", 9)),
        *(("240.0.0.1", 9), ("2001:db8::7", 9), ("::ffff:127.0.0.1", 9), ("::ffff:203.0.113.7", 9)),
    ],
)
async def test_answers_that_make_no_sense(seen: tuple[str, int]) -> None:
    async with stun_server(seen) as server:
        candidates, tried = await offer(IceConfig((stun_of(server.url()),)))
    assert set(kinds(candidates)) == {"host"}
    assert outcomes(tried) == {server.url(): "its answer makes no sense"}


async def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "127.0.0.1")
    async with stun_server(SEEN) as server:
        six, both, none = (f"stun:{name}:{server.port}" for name in ("six", "both", "none"))
        ice = IceConfig((stun_of(none, six, both),), addresses=looked_up(six=("::1",), both=("::1", "127.0.0.1")))
        candidates, tried = await offer(ice)
    assert kinds(candidates) == ["host", "srflx"]
    assert outcomes(tried) == {none: "name not known", six: "left out: this host has no IPv6 address", both: "ok"}


async def test_a_resolver_that_hangs_does_not_hold_up_for_long() -> None:
    async def hang(host: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    began = time.monotonic()
    _, tried = await offer(IceConfig((stun_of("stun:a"), turn_of("turn:b")), addresses=hang))
    assert time.monotonic() - began < GATHER_TIME + 1
    assert outcomes(tried) == {"stun:a": "no answer", "turn:b": "no answer"}


async def test_urls_that_cannot_be_used_are_named_and_no_server_is_asked_twice() -> None:
    async with stun_server(SEEN) as server:
        ice = IceConfig((stun_of("stuns:a", server.url(), server.url()), turn_of("turns:b?transport=udp")))
        _, tried = await offer(ice)
        assert server.requests == len([kind for kind in tried.ours if kind == "srflx"])
    assert outcomes(tried) == {
        "stuns:a": "left out: it is a STUN server over TLS, which tells nothing about UDP: write stun:HOST:PORT",
        "turns:b?transport=udp": "left out: it is TURN over DTLS, which is not supported: write turns:HOST:PORT, "
        "which is over TLS",
        server.url(): "ok",
    }


async def test_those_that_are_left_out_are_on_record_and_whoever_wants_is_told() -> None:
    told: list[ServerOutcome] = []
    left = ServerOutcome("stun:gone", "left out for 20 s: no answer")
    async with stun_server(SEEN) as server:
        _, tried = await offer(IceConfig((stun_of(server.url()),), left_out=(left,), on_outcome=told.append))
    assert outcomes(tried) == {"stun:gone": "left out for 20 s: no answer", server.url(): "ok"}
    assert set(told) == {ServerOutcome(server.url(), "ok")}


async def test_lists_without_end_and_texts_that_are_no_urls() -> None:
    many = tuple(stun_of(*(f"stun:\x1b[2J{row}-{column}" + "x" * 490 for column in range(16))) for row in range(32))
    _, tried = await offer(IceConfig(many))
    assert len(tried.servers) == gathering.MAX_UNUSABLE
    assert all(server.url.isprintable() and len(server.url) <= 80 for server in tried.servers)
    connection = RtcEngine().connection(IceConfig((stun_of(*(f"stun:a{n}" for n in range(9))),)))
    assert len(connection._gathering._stuns) == gathering.MAX_STUN
    await connection.close()


async def test_the_address_that_leads_anywhere_is_offered_first(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [f"127.0.1.{number}" for number in range(20)]
    addresses(monkeypatch, *own)
    monkeypatch.setattr(gathering, "ways_out", lambda: frozenset({own[-1]}))
    candidates, _ = await offer(IceConfig())
    assert [candidate.split()[0] for candidate in candidates] == [own[-1], *own[: gathering.MAX_ADDRESSES - 1]]


async def test_each_address_has_a_priority_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses(monkeypatch, "127.0.0.1", "127.0.0.2", "::1")
    async with stun_server(SEEN) as server:
        connection = RtcEngine().connection(IceConfig((stun_of(server.url()),)))
        priorities = [int(each) for each in re.findall(r" udp (\d+) ", await connection.create_offer())]
        await connection.close()
    assert len(priorities) == len(set(priorities)) == 5
    assert priorities[:3] == sorted(priorities[:3], reverse=True) and min(priorities[:3]) > max(priorities[3:])


# -- TURN --------------------------------------------------------------------------------------------------------------


async def test_a_relay_is_offered_and_given_back() -> None:
    async with scripted_turn() as server:
        connection = RtcEngine().connection(IceConfig((turn_of(server.url),)))
        assert re.search(r" 203\.0\.113\.3 50000 typ relay raddr 127\.0\.0\.1 ", await connection.create_offer())
        assert server.held == 1
        await connection.close()
        assert server.held == 0


async def test_under_the_relay_policy_nothing_else_is_told_or_asked() -> None:
    async with scripted_turn() as turn, stun_server(SEEN) as stun:
        candidates, tried = await offer(IceConfig((stun_of(stun.url()), turn_of(turn.url)), relay_only=True))
        assert stun.requests == 0
    assert [each.split()[:8] for each in candidates] == [
        ["203.0.113.3", "50000", "typ", "relay", "raddr", "0.0.0.0", "rport", "9"]
    ]
    assert tried.relay_only and tried.ours == ("relay",)


async def test_the_urls_of_one_server_are_tried_udp_first() -> None:
    async with scripted_turn() as udp, scripted_turn(transport="tcp") as tcp:
        _, tried = await offer(IceConfig((turn_of(tcp.url, udp.url),)))
        assert (udp.allocations, tcp.requests) == (1, 0)
    assert outcomes(tried) == {udp.url: "ok"}


async def test_servers_are_tried_in_the_order_of_the_list() -> None:
    async with scripted_turn() as udp, scripted_turn(transport="tcp") as tcp:
        await offer(IceConfig((turn_of(tcp.url), turn_of(udp.url))))
        assert (udp.requests, tcp.allocations) == (0, 1)


async def test_the_next_is_tried_when_one_does_not_answer() -> None:
    async with scripted_turn(silent=True) as silent, scripted_turn(transport="tcp") as good:
        began = time.monotonic()
        candidates, tried = await offer(IceConfig((turn_of(silent.url, good.url),)))
        assert APART <= time.monotonic() - began < GATHER_TIME
        assert good.held == 0 and not good.connections
    assert "relay" in kinds(candidates)
    assert outcomes(tried) == {silent.url: "no answer", good.url: "ok"}


async def test_the_next_is_tried_at_once_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "APART", 60.0)
    async with scripted_turn((486, "Allocation Quota Reached")) as full, scripted_turn() as good:
        candidates, tried = await offer(IceConfig((turn_of(full.url), turn_of(good.url))))
    assert "relay" in kinds(candidates)
    assert outcomes(tried) == {full.url: "refused: 486 Allocation Quota Reached", good.url: "ok"}


async def test_a_port_where_nobody_listens_is_known_at_once(
    monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setattr(gathering, "APART", 60.0)
    urls = [f"turn:127.0.0.1:{free_port()}", f"turn:127.0.0.1:{free_port()}?transport=tcp"]
    async with scripted_turn() as good:
        _, tried = await offer(IceConfig((turn_of(*urls), turn_of(good.url))))
    assert outcomes(tried) == {**dict.fromkeys(urls, "nobody listens there"), good.url: "ok"}


async def test_one_that_wins_too_late_is_given_back() -> None:
    async with scripted_turn(delay=APART * 0.6) as slow, scripted_turn(delay=APART * 0.05) as quick:
        connection = RtcEngine().connection(IceConfig((turn_of(slow.url), turn_of(quick.url))))
        await connection.create_offer()
        assert connection.tried().ours == ("host", "relay")
        await until(lambda: slow.held + quick.held == 1 and slow.allocations == 1)
        await connection.close()
        await until(lambda: slow.held + quick.held == 0)


async def test_a_wrong_credential_is_never_silent() -> None:
    async with scripted_turn() as server:
        candidates, tried = await offer(IceConfig((turn_of(server.url, password="wrong"),)))
        assert "relay" not in kinds(candidates)
        assert outcomes(tried) == {server.url: "refused: 401 Unauthorized"}
        _, tried = await offer(IceConfig((IceServer([server.url]),)))
        assert outcomes(tried) == {server.url: "refused: 401 Unauthorized"}
        assert server.allocations == 0


async def test_a_refused_credential_is_renewed_once() -> None:
    asked: list[IceServer] = []

    async def renew(server: IceServer) -> IceServer:
        asked.append(server)
        return turn_of(*server.urls)

    async with scripted_turn() as udp, scripted_turn(transport="tcp") as tcp:
        stale = turn_of(tcp.url, udp.url, password="yesterday's")
        candidates, tried = await offer(IceConfig((stale,), renew=renew))
        assert (udp.allocations, tcp.allocations) == (1, 0)
    assert "relay" in kinds(candidates)
    assert asked == [stale]
    assert outcomes(tried) == {udp.url: "ok"}


async def test_a_renewed_credential_that_is_refused_as_well_is_not_renewed_again() -> None:
    asked = 0

    async def renew(server: IceServer) -> IceServer:
        nonlocal asked
        asked += 1
        return turn_of(*server.urls, password=f"wrong {asked}")

    async with scripted_turn() as udp, scripted_turn(transport="tcp") as tcp:
        _, tried = await offer(IceConfig((turn_of(udp.url, tcp.url, password="wrong"),), renew=renew))
        assert len(udp.usernames) == 2
    assert asked == 1
    assert set(outcomes(tried).values()) == {"refused: 401 Unauthorized"}


async def test_there_may_be_no_newer_credential() -> None:
    async def renew(_: IceServer) -> None:
        return None

    async with scripted_turn() as server:
        _, tried = await offer(IceConfig((turn_of(server.url, password="wrong"),), renew=renew))
        assert len(server.usernames) == 1
    assert outcomes(tried) == {server.url: "refused: 401 Unauthorized"}


async def test_a_name_with_an_address_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "APART", 60.0)
    async with scripted_turn() as good:
        # Nothing comes back from a socket that nobody reads; it has the same port, over IPv6.
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as hole:
            hole.bind(("::1", good.port))
            url = f"turn:both:{good.port}"
            names = looked_up(both=("::1", "127.0.0.1"))
            began = time.monotonic()
            candidates, tried = await offer(IceConfig((turn_of(url),), addresses=names))
            assert time.monotonic() - began < GATHER_TIME
    assert "relay" in kinds(candidates)
    assert outcomes(tried) == {url: "ok"}


async def test_a_refusal_by_one_address_is_not_waited_out_for_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "GATHER_TIME", 60.0)
    async with scripted_turn() as server, asyncio.timeout(10):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as hole:
            hole.bind(("::1", server.port))
            ice = IceConfig(
                (turn_of(f"turn:both:{server.port}", password="wrong"),),
                addresses=looked_up(both=("::1", "127.0.0.1")),
            )
            _, tried = await offer(ice)
    assert list(outcomes(tried).values()) == ["refused: 401 Unauthorized"]


async def test_a_server_that_relays_where_nobody_gets_to() -> None:
    async with scripted_turn() as server:
        server.relayed = ("0.0.0.0", 50_000)
        candidates, tried = await offer(IceConfig((turn_of(server.url),)))
        await until(lambda: server.given_back == 1)
    assert "relay" not in kinds(candidates)
    assert outcomes(tried) == {server.url: "relays at 0.0.0.0, where nobody can reach it"}


async def test_turn_does_not_hold_up_where_a_direct_way_may_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "DIRECT_TIME", 0.1)
    monkeypatch.setattr(gathering, "GATHER_TIME", 60.0)
    async with stun_server(SEEN) as stun, scripted_turn(silent=True) as turn, asyncio.timeout(10):
        candidates, _ = await offer(IceConfig((stun_of(stun.url()), turn_of(turn.url))))
    assert kinds(candidates)[-1] == "srflx"


async def test_the_last_of_many_servers_is_reached_in_time() -> None:
    async with AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(scripted_turn(silent=True)) for _ in range(gathering.MAX_TURN - 1)]
        good = await stack.enter_async_context(scripted_turn())
        _, tried = await offer(IceConfig(tuple(turn_of(each.url) for each in (*silent, good)), relay_only=True))
    assert tried.ours == ("relay",)


#: Answers to an Allocate request, and what is wrong with them; the transaction id is put in.
_SHORT_LIFETIME = bytes.fromhex("0103 0008 2112a442") + bytes(12) + bytes.fromhex("000d 0001 01000000")
_HUGE_NONCE = (
    bytes.fromhex("0113 fffc 2112a442")
    + bytes(12)
    + bytes.fromhex("0009 0004 00000401 0014 0004 74657374 0015 ffe8")
    + bytes(65_512)
)


@pytest.mark.parametrize(
    ("transport", "nonsense"),
    [("udp", _SHORT_LIFETIME), ("tcp", _SHORT_LIFETIME), ("tcp", _HUGE_NONCE)],
    ids=["udp", "tcp", "huge"],
)
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_server_whose_words_make_no_sense_harms_nobody(
    transport: str, nonsense: bytes, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def try_it() -> None:
        async with scripted_turn(transport=transport) as server, scripted_turn() as good:
            server.nonsense = nonsense
            before = descriptors()
            _, tried = await offer(IceConfig((turn_of(server.url), turn_of(good.url))))
            assert tried.ours == ("host", "relay")
            assert outcomes(tried) == {server.url: "its answer makes no sense", good.url: "ok"}
            assert (await probe(parse_ice_url(server.url), IceConfig())).ok  # it is there, if of no use
            await until(lambda: not other_tasks() and descriptors() <= before + len(server.connections))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(try_it())


async def test_an_allocation_for_no_time_is_not_renewed_without_pause() -> None:
    async with scripted_turn() as server:
        server.lifetime = 0
        connection = RtcEngine().connection(IceConfig((turn_of(server.url),)))
        await connection.create_offer()
        asked = server.requests
        await asyncio.sleep(0.2)
        assert server.requests == asked
        await connection.close()


async def test_an_allocation_of_a_server_without_login_is_given_back() -> None:
    async with scripted_turn() as server:
        server.is_open = True
        _, tried = await offer(IceConfig((IceServer([server.url]),)))
        assert outcomes(tried) == {server.url: "ok"}
        await until(lambda: (server.allocations, server.held) == (1, 0))


async def test_a_server_that_grants_and_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def allocate(*args: Any) -> relay.Relay:
        granted = await ice_servers.allocate(*args)
        granted._client.transport.abort()
        return granted

    monkeypatch.setattr(gathering, "allocate", allocate)
    async with scripted_turn(transport="tcp") as server:
        candidates, _ = await offer(IceConfig((turn_of(server.url),)))
        assert "relay" not in kinds(candidates)
        await until(lambda: not other_tasks())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_that_breaks_while_a_channel_is_bound(
    loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioice.stun.RETRY_RTO", 0.05)

    async def break_it() -> None:
        async with scripted_turn(transport="tcp") as server:
            login = Login(USERNAME, PASSWORD)
            allocated = await ice_servers.allocate(parse_ice_url(server.url), login, IceConfig())
            allocated.attach(asyncio.DatagramProtocol())
            server.silent = True
            allocated.sendto(b"x", ("203.0.113.9", 9))
            await asyncio.sleep(0.01)
            for each in list(server.connections):
                each.close()
            await until(lambda: not other_tasks())
            await asyncio.sleep(0.2)
            allocated.close()
            await allocated.closed()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(break_it())
    assert not caplog.records


def test_many_small_frames_are_cut_in_little_time() -> None:
    async def cut() -> None:
        client = relay._Tcp(("192.0.2.1", 3478), Login())
        heard: list[bytes | str] = []
        client.datagram_received = lambda data, addr: heard.append(data)  # type: ignore[method-assign]
        frame = bytes.fromhex("4000 0005") + b"hello" + bytes(3)
        message = bytes.fromhex("0017 0004") + bytes(16) + b"abcd"
        stream = b"\x40\x00\x00\x00" * 65_536 + frame * 3 + message
        for start in range(0, len(stream), 100_003):
            client.data_received(stream[start : start + 100_003])
        assert heard == [frame] * 3 + [message]
        heard.clear()
        for byte in frame + message:
            client.data_received(bytes([byte]))
        assert heard == [frame, message]

    asyncio.run(cut())


async def test_the_certificate_must_be_for_the_name(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusted = ssl.create_default_context(cafile=authority.file)
    names = looked_up(**{"turn.example.org": ("127.0.0.1",), "other.example.org": ("127.0.0.1",)})
    certificate = authority.server("turn.example.org")
    async with scripted_turn(transport="tls", tls=certificate, name="turn.example.org") as server:
        candidates, tried = await offer(IceConfig((turn_of(server.url),), addresses=names, tls=trusted))
        assert "relay" in kinds(candidates) and outcomes(tried) == {server.url: "ok"}
        await until(lambda: server.held == 0)
        wrong = server.url.replace("turn.", "other.")
        _, tried = await offer(IceConfig((turn_of(wrong),), addresses=names, tls=trusted))
        assert outcomes(tried)[wrong].startswith("its certificate is not valid: Hostname mismatch")
        _, tried = await offer(IceConfig((turn_of(server.url),), addresses=names))
        assert outcomes(tried)[server.url].startswith("its certificate is not valid: ")
        assert server.allocations == 1


async def test_a_certificate_for_an_address(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusted = ssl.create_default_context(cafile=authority.file)
    async with scripted_turn(transport="tls", tls=authority.server("127.0.0.1")) as server:
        _, tried = await offer(IceConfig((turn_of(server.url),), tls=trusted))
        assert outcomes(tried) == {server.url: "ok"}


async def test_a_server_that_speaks_no_tls() -> None:
    def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org\r\n")
        spoken.append(writer)

    spoken: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        url = f"turns:127.0.0.1:{server.sockets[0].getsockname()[1]}"
        _, tried = await offer(IceConfig((turn_of(url),)))
        for writer in spoken:
            writer.close()
    assert outcomes(tried) == {url: "no TLS: wrong version number"}


async def test_a_server_that_hangs_up() -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        urls = f"turn:127.0.0.1:{port}?transport=tcp", f"turns:127.0.0.1:{port}"
        _, tried = await offer(IceConfig((turn_of(*urls),)))
    assert outcomes(tried) == dict.fromkeys(urls, "it closed the connection")


async def test_no_relay_under_the_relay_policy_says_why() -> None:
    connection = RtcEngine().connection(IceConfig(relay_only=True))
    with pytest.raises(ConnectFailed, match="there is no TURN server"):
        await connection.create_offer()
    async with scripted_turn((508, "Cannot\x1b[2J")) as server:
        connection = RtcEngine().connection(IceConfig((turn_of(server.url),), relay_only=True))
        with pytest.raises(ConnectFailed, match="no TURN server gave one"):
            await connection.create_offer()
        assert outcomes(connection.tried()) == {server.url: "refused: 508 Cannot?[2J"}


# -- nothing stays behind ----------------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@asynccontextmanager
async def never_connects() -> AsyncIterator[int]:
    """A TCP port that takes no connection: its queue is full."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@asynccontextmanager
async def unhelpful(authority: Authority) -> AsyncIterator[tuple[IceConfig, Callable[[], object]]]:
    """Servers that keep gathering busy in every way there is, and whether all of them have something to do."""
    async with (
        never_connects() as full,
        stun_server(ignored=NOBODY) as stun,
        scripted_turn(silent=True) as udp,
        scripted_turn(silent=True, transport="tcp") as tcp,
        scripted_turn(silent=True, transport="tls", tls=authority.server()) as tls,
        scripted_turn(silent=True, transport="tcp") as no_tls,
        scripted_turn(delay=0.4) as slow,
    ):
        urls = [
            slow.url,
            udp.url,
            tcp.url,
            tls.url,
            f"turns:127.0.0.1:{no_tls.port}",
            f"turn:127.0.0.1:{full}?transport=tcp",
        ]
        trusted = ssl.create_default_context(cafile=authority.file)
        ice = IceConfig((stun_of(stun.url()), *(turn_of(url) for url in urls)), tls=trusted)
        yield ice, lambda: stun.requests and udp.requests and tcp.requests and tls.requests and no_tls.connections


async def ended_in_the_middle(folder: Path, end: Callable[[Any, asyncio.Task[str]], Awaitable[None]]) -> None:
    async with unhelpful(Authority(folder)) as (ice, all_busy):
        before = descriptors()
        connection = RtcEngine().connection(ice)
        offering = asyncio.create_task(connection.create_offer())
        await until(all_busy)
        assert connection.stage is Stage.GATHERING
        assert "no answer yet" in outcomes(connection.tried()).values()
        await end(connection, offering)
        await until(lambda: not other_tasks())
        # The sockets of our own servers' ends close a little later.
        await until(lambda: descriptors() <= before, what=f"{descriptors()} descriptors, {before} before")


async def close(connection: Any, offering: asyncio.Task[str]) -> None:
    async with asyncio.timeout(rtc.CLOSE_TIMEOUT + 0.5):
        await connection.close()
    with pytest.raises(ConnectFailed, match="while gathering candidates"):
        await offering


async def cancel(connection: Any, offering: asyncio.Task[str]) -> None:
    offering.cancel()
    await asyncio.wait({offering})
    await connection.close()


@pytest.mark.parametrize("end", [close, cancel])
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_stays_behind_of_gathering_that_is_ended(
    tmp_path: Path,
    end: Callable[[Any, asyncio.Task[str]], Awaitable[None]],
    loop: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gathering, "APART", 0.05)
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(ended_in_the_middle(tmp_path, end))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_nothing_stays_behind_of_many_connections(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "APART", 0.05)

    async def many() -> None:
        async with stun_server(SEEN) as stun, scripted_turn(silent=True) as silent, scripted_turn() as turn:
            ice = IceConfig((stun_of(stun.url()), turn_of(silent.url), turn_of(turn.url)))
            before = descriptors()
            for _ in range(20):
                await offer(ice)
            await until(lambda: not other_tasks() and descriptors() <= before)
            assert turn.allocations == 20 and turn.held == 0

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(many())


class Quiet(asyncio.DatagramProtocol):
    """Does nothing with what comes."""


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_socket_whose_opening_is_cancelled_is_closed(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def cancel_them() -> None:
        before = descriptors()
        for turns in range(60):
            opening = asyncio.ensure_future(open_udp(Quiet, remote_addr=("127.0.0.1", 9)))
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait({opening})
            if not opening.cancelled():
                opening.result()[0].close()
        await until(lambda: descriptors() <= before)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(cancel_them())


async def test_a_turn_server_that_is_gone_holds_nothing_up_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "FAREWELL", 0.2)
    async with scripted_turn() as server:
        before = descriptors()
        connection = RtcEngine().connection(IceConfig((turn_of(server.url),)))
        await connection.create_offer()
        server.silent = True
        async with asyncio.timeout(rtc.CLOSE_TIMEOUT):
            await connection.close()
        await until(lambda: not other_tasks() and descriptors() <= before)


async def test_a_turn_server_that_closes_the_connection_ends_nothing_but_the_relay() -> None:
    async with scripted_turn(transport="tcp") as server:
        connection = RtcEngine().connection(IceConfig((turn_of(server.url),)))
        await connection.create_offer()
        for each in list(server.connections):
            each.close()
        await until(lambda: not server.connections)
        assert connection.stage is Stage.WAITING
        await connection.close()
        await until(lambda: not other_tasks())
