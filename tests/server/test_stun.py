"""The STUN responder, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
import uvloop

from bonevalue.listening import bind
from bonevalue.settings_fields import Endpoint
from bonevalue.wire.stun import MAX_MESSAGE, TRANSACTION_SIZE, decode_response, encode_request, encode_response
from bonevalue_server.counters import Counters
from bonevalue_server.limits import Limits
from bonevalue_server.stun import StunResponder
from tests.support.hub_world import Clock
from tests.support.waiting import until


class Full(socket.socket):
    """A socket whose buffer is full."""

    def sendmsg(self, *_: Any) -> int:
        raise BlockingIOError


class Stage:
    """A responder, a clock that only moves when told, and clients of it."""

    def __init__(self) -> None:
        self._parts = ExitStack()
        self.clock = Clock()
        self.counters = Counters()
        self.endpoint = Endpoint("", 0)

    def open(self, host: str = "127.0.0.1", kind: type[socket.socket] = socket.socket, **limits: Any) -> None:
        """Answer on an address."""
        our = self._parts.enter_context(bind(Endpoint(host, 0), key="discovery.stun", datagrams=True))
        our = self._parts.enter_context(kind(fileno=our.detach()))
        our.setblocking(False)
        self.endpoint = Endpoint(host, our.getsockname()[1])
        responder = StunResponder([our], Limits.model_validate(limits), self.counters, clock=self.clock)
        responder.start()
        self._parts.callback(responder.stop)

    def client(self, server: str = "", own: str = "") -> Asker:
        """Somebody who asks, and hears only what comes from where they asked."""
        return self._parts.enter_context(Asker(server or self.endpoint.host, self.endpoint.port, own))

    async def ignored(self, reason: str, count: int) -> None:
        """Wait until so many datagrams were not answered."""
        await until(lambda: self.counters.stun_ignored[reason] == count)

    def close(self) -> None:
        """End it all."""
        self._parts.close()


class Asker(socket.socket):
    """A UDP socket that is connected to the server."""

    def __init__(self, host: str, port: int, own: str = "") -> None:
        super().__init__(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.setblocking(False)
        if own:
            self.bind((own, 0))
        self.connect((host, port))

    async def hear(self) -> bytes:
        """The next datagram."""
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(self, 4096)

    async def ask(self) -> tuple[str, int]:
        """Ask, and give what the answer says."""
        transaction = os.urandom(TRANSACTION_SIZE)
        self.send(encode_request(transaction))
        return decode_response(await self.hear(), transaction)

    def is_left_alone(self) -> bool:
        """Whether nothing came."""
        try:
            self.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::", "127.0.0.1")],
)
async def test_whoever_asks_learns_where_it_asks_from(stage: Stage, bound: str, asked: str) -> None:
    stage.open(bound)
    client = stage.client(asked)
    assert await client.ask() == client.getsockname()[:2]
    assert stage.counters.stun_answered == 1


def test_under_uvloop() -> None:
    async def ask() -> None:
        stage = Stage()
        stage.open("0.0.0.0")
        client = stage.client("127.0.0.1")
        assert await client.ask() == client.getsockname()
        stage.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
async def test_the_answer_comes_from_the_address_that_was_asked(stage: Stage, bound: str) -> None:
    # The route back to 127.0.0.1 would suggest 127.0.0.1 as the source, which this client does not hear.
    stage.open(bound)
    client = stage.client("127.0.0.5", own="127.0.0.1")
    assert await client.ask() == client.getsockname()


async def test_many_at_once(stage: Stage) -> None:
    stage.open(stun_per_ip="1000/s")
    clients = [stage.client() for _ in range(200)]
    transactions = [os.urandom(TRANSACTION_SIZE) for _ in clients]
    for client, transaction in zip(clients, transactions, strict=True):
        client.send(encode_request(transaction))  # all before the server has its turn
    for client, transaction in zip(clients, transactions, strict=True):
        assert decode_response(await client.hear(), transaction) == client.getsockname()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        os.urandom(20),
        encode_request(bytes(12)) + bytes(1),
        encode_response(bytes(12), bytes(4), 5),
        bytes.fromhex("000300002112a442") + bytes(12),  # TURN's Allocate
        bytes.fromhex("001100002112a442") + bytes(12),  # an indication
        bytes.fromhex("000100082112a442") + bytes(12) + bytes.fromhex("0003000400000006"),  # "answer from elsewhere"
        bytes.fromhex("000104d02112a442") + bytes(12) + bytes.fromhex("802204cc") + bytes(0x4CC),  # too long
        os.urandom(9000),
    ],
    ids=range(10),
)
async def test_nothing_else_is_answered(stage: Stage, data: bytes) -> None:
    stage.open()
    client = stage.client()
    client.send(data)
    assert await client.ask() == client.getsockname()  # and it was read later
    assert client.is_left_alone()
    assert (stage.counters.stun_answered, stage.counters.stun_ignored["malformed"]) == (1, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_answer_is_hardly_longer_than_the_question(stage: Stage, host: str) -> None:
    stage.open(host)
    client = stage.client()
    for padding in (0, 4, 100, MAX_MESSAGE - 24):
        attribute = bytes.fromhex("8022") + padding.to_bytes(2, "big") + bytes(padding)
        data = bytes.fromhex("0001") + len(attribute).to_bytes(2, "big") + encode_request(bytes(12))[4:] + attribute
        client.send(data)
        assert len(await client.hear()) <= min(44, len(data) + 24)


async def test_a_network_gets_so_many_answers_a_second(stage: Stage) -> None:
    stage.open(stun_per_ip="2/s burst 3")
    client, other = stage.client(), stage.client(own="127.0.0.9")
    for _ in range(3):
        await client.ask()
    client.send(encode_request(bytes(12)))
    await stage.ignored("rate_limited", 1)
    await other.ask()
    stage.clock.now += 0.5
    await client.ask()
    client.send(encode_request(bytes(12)))
    await stage.ignored("rate_limited", 2)
    assert client.is_left_alone()


def test_an_ipv6_network_is_a_64() -> None:
    counters = Counters()
    responder = StunResponder([], Limits.model_validate({"stun_per_ip": "2/s"}), counters, clock=lambda: 0.0)
    request = encode_request(bytes(12))
    sources = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3", "fe80::1%eth0", "2001:db8:0:1::1"]
    answered = [responder._answer(request, (host, 5, 0, 0)) is not None for host in sources]
    assert answered == [True, True, False, True, True]
    mapped = [responder._answer(request, (f"::ffff:192.0.2.{number}", 5, 0, 0)) is not None for number in range(9)]
    assert all(mapped)
    assert counters.stun_ignored["rate_limited"] == 1


def test_a_flood_from_made_up_addresses_does_not_silence_it() -> None:
    """12,000 requests a second from as many addresses, which is a few Mbit/s, and one a second that is meant."""
    now = 0.0
    responder = StunResponder([], Limits(), Counters(), clock=lambda: now)
    request = encode_request(bytes(12))
    sources = [f"10.{number >> 8 & 0xFF}.{number & 0xFF}.1" for number in range(12_000)]
    for _ in range(4):
        for source in sources:
            now += 1 / len(sources)
            responder._answer(request, (source, 5))
        assert responder._answer(request, ("192.0.2.1", 5)) is not None


async def test_all_together_get_so_many_answers_a_second(stage: Stage) -> None:
    stage.open(stun="3/s")
    for number in range(3):
        await stage.client(own=f"127.0.1.{number + 1}").ask()
    late = stage.client(own="127.0.1.9")
    late.send(encode_request(bytes(12)))
    await stage.ignored("rate_limited", 1)
    stage.clock.now += 1
    await late.ask()


async def test_an_answer_that_cannot_be_sent_is_counted_and_no_more(stage: Stage) -> None:
    stage.open(kind=Full)
    stage.client().send(encode_request(bytes(12)))
    await stage.ignored("not_sent", 1)
    assert stage.counters.stun_answered == 0


async def test_a_flood_leaves_the_loop_its_turns(stage: Stage) -> None:
    stage.open(stun="1/s")
    client = stage.client()
    turns: list[int] = []

    def look() -> None:
        turns.append(stage.counters.stun_ignored["malformed"])
        if turns[-1] < 200:
            asyncio.get_running_loop().call_soon(look)

    for _ in range(200):
        client.send(b"junk")
    look()
    await stage.ignored("malformed", 200)
    assert max(after - before for before, after in pairwise(turns)) <= 64
