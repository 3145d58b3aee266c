"""The sockets of the server: HTTP and WebSocket over loopback, with clients that do what they should not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bonevalue.wire.keys import from_base64url, to_base64url
from bonevalue.wire.signals import Binary, PeerRequest, encode
from bonevalue_server import gateway
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.passwords import hash_login
from bonevalue_server.records import Account, AccountId
from tests.support import identity
from tests.support.accounts import CHEAPEST, Person
from tests.support.hub_world import lay_database, login_of, settings_of
from tests.support.raw_socket import BINARY, CLOSE, CONTINUATION, PING, TEXT, RawSocket, frame
from tests.support.waiting import until

ALICE = identity.account("alice")
PERSON = Person(ALICE, Account(AccountId(1), "alice", ALICE.public, ""))
#: A limit that is none.
ENDLESS = "100000000/s"


class Site:
    """A server, and all sockets to it."""

    def __init__(self, server: DiscoveryServer) -> None:
        self.server = server
        self._sockets: list[RawSocket] = []

    async def open(self, **options: Any) -> RawSocket:
        """A connection on which nothing was said."""
        opened = await RawSocket.open(self.server.port, **options)
        self._sockets.append(opened)
        return opened

    async def greeted(self, **options: Any) -> RawSocket:
        """A WebSocket that was greeted."""
        client = await self.open(**options)
        assert await client.upgrade() == 101
        assert (await client.hear())["type"] == "hello"
        return client

    async def logged_in(self, **options: Any) -> tuple[RawSocket, str]:
        """A WebSocket of Alice's that has heard all lists, and its peer id."""
        client = await self.open(**options)
        await client.upgrade()
        challenge = from_base64url((await client.hear())["data"]["challenge"])
        client.send(frame(TEXT, encode(login_of(PERSON, challenge)).encode()))
        peer_id = (await client.hear())["data"]["peerId"]
        while (await client.hear())["type"] != "peerList":
            pass
        return client, peer_id

    def close(self) -> None:
        """End all sockets."""
        for opened in self._sockets:
            opened.close()


@asynccontextmanager
async def serve(tmp_path: Path, limits: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Site]:
    """A server with one account, Alice's."""
    account = {
        "username": "alice",
        "public_key": to_base64url(ALICE.public),
        "login_hash": hash_login(ALICE.login, cost=CHEAPEST),
    }
    await lay_database(tmp_path)
    server = DiscoveryServer(settings_of(tmp_path, accounts=[account], limits=limits or {}, **options))
    await server.start()
    site = Site(server)
    try:
        yield site
    finally:
        site.close()
        await server.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serve(tmp_path) as opened:
        yield opened


# -- frames ----------------------------------------------------------------------------------------------------------

BIG = 65_536


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b"x" * (BIG + 1)), 1009),
        (frame(TEXT, b"", length=2**30), 1009),
        (frame(TEXT, b"", length=2**63 - 1), 1009),
        (frame(TEXT, b"x" * BIG, fin=False) + frame(CONTINUATION, b"x"), 1009),
        (frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 1000, 1008),
        (frame(BINARY, b"{}"), 1003),
        (frame(BINARY, b"{", fin=False), 1003),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, b"{}", masked=False), 1002),
        (frame(CONTINUATION, b"{}"), 1002),
        (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
        (frame(0x3, b""), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"", fin=False), 1002),
        (b"\xc1\x80\x00\x00\x00\x00", 1002),  # a bit of an extension that nobody agreed on
        (frame(CLOSE, b"\x00"), 1002),
        (frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ],
)
async def test_what_breaks_the_protocol_closes_the_socket(
    site: Site, data: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    client, other = await site.greeted(), await site.greeted()
    client.send(data)
    async with asyncio.timeout(10):
        assert (await client.closed())[0] == code
    assert await client.ended()
    other.send(frame(TEXT, b'{"type":"tomorrow"}'))
    assert (await other.hear())["data"]["code"] == "unknown_type"  # nobody else is harmed
    assert not [record for record in caplog.records if record.exc_info]


async def test_our_close_frame_arrives_however_much_the_client_still_sends(site: Site) -> None:
    client = await site.greeted()
    client.send(frame(TEXT, b"x" * 2**20))
    await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError):
        for _ in range(20):
            client.send(b"x" * 2**20)
            await client.writer.drain()
    assert (await client.closed())[0] == 1009


async def test_a_message_may_be_64_kib_and_come_in_pieces(site: Site) -> None:
    client = await site.greeted()
    text = json.dumps({"type": "tomorrow", "data": "é" * 30_000}, ensure_ascii=False).encode()
    padded = text + b" " * (BIG - len(text))
    client.send(frame(TEXT, padded))
    client.send(frame(TEXT, padded[:50], fin=False))
    client.send(frame(PING, b"between"))
    client.send(frame(CONTINUATION, padded[50:], fin=True))
    answers = [await client.frame() for _ in range(3)]
    assert sorted(opcode for opcode, _ in answers) == [TEXT, TEXT, 0xA]
    assert all(b"unknown_type" in payload for opcode, payload in answers if opcode == TEXT)


async def test_a_flood_of_pings_is_the_end(site: Site) -> None:
    client = await site.greeted()
    client.send(frame(PING) * 300)
    assert await client.closed() == (4029, "rate_limited")


async def test_both_ways_of_closing_are_completed(site: Site) -> None:
    client = await site.greeted()
    client.send(frame(CLOSE, (1000).to_bytes(2, "big") + b"bye"))
    assert await client.closed() == (1000, "bye")
    assert await client.ended()
    client = await site.greeted()
    client.say({"type": "login", "data": {"username": "alice", "login": "A" * 43}})
    assert (await client.hear())["data"]["code"] == "login_refused"
    assert await client.closed() == (4501, "login_refused")
    client.send(frame(CLOSE, (4501).to_bytes(2, "big")))
    assert await client.ended()


# -- presence of sockets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goodbye", "told_at_once"),
    [
        (frame(CLOSE, (1000).to_bytes(2, "big")), True),
        (frame(CLOSE, (1001).to_bytes(2, "big")), True),
        (frame(CLOSE), True),
        (frame(CLOSE, (1011).to_bytes(2, "big")), False),
        (None, False),
        (frame(BINARY), False),
    ],
    ids=["normal", "going away", "no code", "a fault", "no word", "a violation"],
)
async def test_who_goes_properly_is_gone_at_once_and_others_after_a_while(
    tmp_path: Path, goodbye: bytes | None, told_at_once: bool
) -> None:
    grace_time = 60 if told_at_once else 0.5
    async with serve(tmp_path, {"grace_time": grace_time}) as site:
        watcher, _ = await site.logged_in()
        client, peer_id = await site.logged_in()
        assert await watcher.hear() == {"type": "peerConnect", "data": {"name": "Us", "id": peer_id}}
        began = asyncio.get_running_loop().time()
        if goodbye is None:
            client.close()
        else:
            client.send(goodbye)
        async with asyncio.timeout(10):
            assert await watcher.hear() == {"type": "peerDisconnect", "data": peer_id}
        assert told_at_once or asyncio.get_running_loop().time() - began >= grace_time


async def test_who_does_not_answer_pings_is_gone(tmp_path: Path) -> None:
    async with serve(tmp_path, {"ping_interval": 0.3, "ping_timeout": 0.3, "grace_time": 60}) as site:
        watcher, _ = await site.logged_in()
        silent, peer_id = await site.logged_in()
        alive = asyncio.create_task(pong(watcher, until_gone=peer_id))
        async with asyncio.timeout(10):
            opcode, payload = await silent.frame()
            assert (opcode, payload) == (PING, b"")
            assert await silent.ended()
            await alive


async def pong(client: RawSocket, *, until_gone: str) -> None:
    """Answer pings until a peer is gone."""
    while True:
        opcode, payload = await client.frame()
        if opcode == PING:
            client.send(frame(0xA, payload))
        elif json.loads(payload) == {"type": "peerDisconnect", "data": until_gone}:
            return


async def test_who_does_not_log_in_is_closed(tmp_path: Path) -> None:
    async with serve(tmp_path, {"login_timeout": 0.3}) as site:
        idle, mute = await site.greeted(), await site.open()
        stayed, _ = await site.logged_in()
        async with asyncio.timeout(10):
            assert await idle.closed() == (4004, "login_timeout")
            assert await mute.ended()  # not even a request
        stayed.send(frame(PING, b"here"))
        assert await stayed.frame() == (0xA, b"here")


async def test_strangers_of_one_address_are_limited(site: Site) -> None:
    clients = [await site.greeted() for _ in range(64)]
    refused, mute, endless = [await site.open() for _ in range(3)]
    assert await refused.upgrade() == 429
    assert refused.body.startswith("rate_limited: ")
    endless.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
    assert await endless.response() == 431
    assert await refused.ended() and await mute.ended() and await endless.ended()
    await site.greeted(address="127.0.0.2")
    hub = site.server.hub
    assert hub is not None and hub.counts()["sessions"] == 65
    clients[0].close()
    await until(lambda: hub.counts()["sessions"] == 64)
    await site.greeted()


async def test_clients_of_a_proxy_are_told_apart(tmp_path: Path) -> None:
    limits = {"pending_sockets_per_ip": 1}
    async with serve(tmp_path, limits, trusted_proxies=["127.0.0.0/8"]) as site:
        clients = [await site.open() for _ in range(3)]
        addresses = ("192.0.2.1", "192.0.2.2", "192.0.2.1")
        statuses = [
            await client.upgrade(X_Forwarded_For=address) for client, address in zip(clients, addresses, strict=True)
        ]
        assert statuses == [101, 101, 429]


@pytest.mark.parametrize("limit", ["queue", "time"])
async def test_a_client_that_does_not_read_is_closed_and_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    limits: dict[str, Any] = {
        **dict.fromkeys(("messages", "requests", "requests_per_pair"), ENDLESS),
        **dict.fromkeys(("pending_requests_per_pair", "pending_requests_per_target"), 10**6),
    }
    if limit == "time":
        limits |= {"outbound_messages": 10**6, "outbound_bytes": "1GiB"}
        monkeypatch.setattr(gateway, "STALL_TIMEOUT", 0.3)
    async with serve(tmp_path, limits) as site:
        sender, _ = await site.logged_in()
        reader, reader_id = await site.logged_in()
        slow, slow_id = await site.logged_in(receive_buffer=4096)
        offer, signature = Binary(bytes(16_000)), Binary(bytes(64))
        requests = [
            frame(TEXT, encode(PeerRequest(to, None, offer, signature)).encode()) for to in (slow_id, reader_id)
        ]
        heard: list[Any] = []
        listeners = [asyncio.create_task(listen(client, heard)) for client in (sender, reader)]
        async with asyncio.timeout(60):
            while not any(message["type"] == "error" for message in heard):
                sender.send(b"".join(requests))
                await sender.writer.drain()
                await asyncio.sleep(0.001)
            (error, *_) = [message for message in heard if message["type"] == "error"]
            assert error["data"]["code"] == "peer_offline"  # it lost its session, and is not missed yet
            assert sum(message["type"] == "peerRequest" for message in heard) > 50
            assert await slow.closed() == (4005, "slow")
            assert site.server.counters.sockets_closed["slow"] == 1
        for task in listeners:
            task.cancel()


async def listen(client: RawSocket, heard: list[Any]) -> None:
    """Hear all that comes."""
    while True:
        heard.append(await client.hear())


# -- HTTP ------------------------------------------------------------------------------------------------------------

#: Origin of a page, and whether it may connect to the server that the browser dialled as bv.example.org:8008.
ORIGINS = [
    (None, 101),
    ("http://bv.example.org:8008", 101),
    ("HTTP://BV.EXAMPLE.ORG:8008", 101),
    ("https://app.example.org", 101),
    ("https://bv.example.org:8008", 403),
    ("http://bv.example.org", 403),
    ("http://bv.example.org:80", 403),
    ("http://example.org:8008", 403),
    ("http://evil.bv.example.org:8008", 403),
    ("http://bv.example.org.evil.net:8008", 403),
    ("http://evil.net#bv.example.org:8008", 403),
    ("http://bv.example.org:8008@evil.net", 403),
    ("https://app.example.org.evil.net", 403),
    ("http://app.example.org", 403),
    ("http://evilbv.example.org:8008", 403),
    ("http://bv.example.org.:8008", 403),  # the same to DNS, another origin to browsers
    ("http://user@bv.example.org:8008", 403),
    ("http://bv.example.org:8008/", 403),
    ("http://127.0.0.1:8008", 403),
    ("http://[::1]:8008", 403),
    ("http://xn--bv-6ia.example.org:8008", 403),  # looks alike
    ("https://xn--bcher-kva.example", 101),  # what browsers send for the name that was allowed
    ("https://bücher.example", 403),
    ("ws://bv.example.org:8008", 403),
    ("file://", 403),
    ("null", 403),
    ("", 403),
    ("http://bv.example.org:8008 https://app.example.org", 403),
    ("http://bv.example.org:8008, http://bv.example.org:8008", 403),
]


async def test_pages_of_other_origins_are_refused(tmp_path: Path) -> None:
    async with serve(tmp_path, origins=["https://app.example.org", "https://xn--bcher-kva.example"]) as site:
        for origin, expected in ORIGINS:
            client = await site.open()
            headers = {} if origin is None else {"Origin": origin}
            assert await client.upgrade(host="bv.example.org:8008", **headers) == expected, origin
            assert expected == 101 or client.body.startswith("origin_refused: ")


async def test_a_page_has_one_origin(site: Site) -> None:
    own = "Origin: http://bv.example.org:8008\r\n"
    for origins, expected in ((own, 101), (own * 2, 403), (own + "Origin: https://evil.net\r\n", 403)):
        client = await site.open()
        client.send(
            b"GET / HTTP/1.1\r\nHost: bv.example.org:8008\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + origins.encode() + b"\r\n"
        )
        assert await client.response() == expected


async def test_the_server_is_known_by_an_address_of_ipv6(site: Site) -> None:
    for origin, expected in (("http://[::1]:8008", 101), ("http://[::1]", 403), ("http://[::2]:8008", 403)):
        client = await site.open()
        assert await client.upgrade(host="[::1]:8008", Origin=origin) == expected


async def test_the_landing_page_names_realm_and_version(site: Site) -> None:
    client = await site.open()
    await client.request("/")
    assert "<dd>example.org</dd>" in client.body and "<dt>Version</dt>" in client.body
    assert await client.request("/", method="POST") == 405


async def test_a_websocket_may_be_asked_for_at_any_path(site: Site) -> None:
    client = await site.open()
    assert await client.upgrade("/bv/?x=1") == 101


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"x" * 40_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"nonsense\r\n\r\n", 400),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 12\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 400),
    ],
    ids=["a long header", "many headers", "TLS", "nonsense", "another version", "no key"],
)
async def test_a_request_that_is_none_is_refused(
    site: Site, data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = await site.open()
    client.send(data)
    assert await client.response() == status
    assert await client.ended()
    assert not caplog.records


async def test_all_that_comes_and_goes_is_forgotten(tmp_path: Path) -> None:
    async with serve(tmp_path, {"grace_time": 0}) as site:
        for _ in range(3):
            clients = [await site.greeted(), (await site.logged_in())[0], await site.open()]
            await clients[2].request("/healthz")
            clients[0].send(frame(BINARY))
            for client in clients:
                client.close()
        hub = site.server.hub
        assert hub is not None
        await until(lambda: hub.counts() == {"sessions": 0, "peers": 0, "held": 0})
        for _ in range(64):  # all places are free again
            await site.greeted()


# -- the event loop of the daemon ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scenario",
    [
        test_our_close_frame_arrives_however_much_the_client_still_sends,
        test_a_message_may_be_64_kib_and_come_in_pieces,
        test_a_flood_of_pings_is_the_end,
        test_both_ways_of_closing_are_completed,
        test_strangers_of_one_address_are_limited,
    ],
    ids=lambda scenario: scenario.__name__,
)
def test_the_same_on_uvloop(tmp_path: Path, scenario: Callable[[Site], Coroutine[Any, Any, None]]) -> None:
    async def play() -> None:
        async with serve(tmp_path) as site:
            await scenario(site)

    uvloop.run(play())


def test_a_client_that_does_not_read_on_uvloop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop.run(test_a_client_that_does_not_read_is_closed_and_harms_nobody(tmp_path, monkeypatch, "queue"))
