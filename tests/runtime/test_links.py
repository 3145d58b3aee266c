"""What one peer does about its links: waits for the server, makes, counts, heals and ends them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec import Struct, structs

from bonevalue.config import PeerSettings
from bonevalue.errors import BoneValueError, LinkLost, NotTrusted, PeerOffline, RateLimited, Unavailable
from bonevalue.host import Host
from bonevalue.link_memory import MemoryLink, MemoryNetwork
from bonevalue.links import Links
from bonevalue.network import NetworkChange
from bonevalue.peer_link import PeerLink
from bonevalue.serving import ServedModule
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.introductions import Introductions
from bonevalue.wire.signals import PeerCandidate, PeerRequest, PeerResponse, RequestIceServers
from tests.support import identity
from tests.support.waiting import UNIT, other_tasks, until


class Node:
    """One peer's links, and in place of the discovery server whoever else is in the house."""

    def __init__(self, house: House, name: str, number: int, **pool: Any) -> None:
        self.house, self.name, self.id = house, name, str(number)
        self.address = SimpleNamespace(url="ws://server.test")
        self.contacts = identity.Friends(name, {each: identity.account(each).public for each in ("alice", "bob")})
        self.peers: dict[str, str] = {}
        self.host = Host(LinkSettings())
        self.added: list[PeerLink] = []
        self.doubts = 0
        self.refused: list[tuple[str, str]] = []
        self.tasks: set[asyncio.Task[None]] = set()
        settings = PeerSettings.model_validate(
            {
                "server": {"address": "ws://127.0.0.1:1"},
                "credentials": {"username": name, "password": "not needed"},
                "pool": pool,
            }
        )
        self.links = Links(settings, self.host, spawn=self.spawn, report=self._refused, on_added=self.added.append)
        introductions = Introductions(identity.account(name), self.contacts, identity.seed(name, 16))
        self.links.start(house.network.engine(), cast(Any, self), introductions, cast(Any, self.contacts), self.peers)
        self.host.modules["Echo"] = ServedModule("Echo", self._echo)

    async def _echo(self, request: Any, context: Any) -> Any:
        return [context.caller.name, request]

    def _refused(self, error: BoneValueError, about: str) -> None:
        self.refused.append((error.code, about))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # -- as its discovery client ---------------------------------------------------------------------------------------

    def doubt(self) -> None:
        self.doubts += 1

    async def request(self, message: Struct, *, timeout: float = 10) -> Any:
        if not isinstance(message, RequestIceServers):
            self.send(message)

    def send(self, message: Struct) -> None:
        self.house.carry(self, message)

    def receive(self, message: Any) -> None:
        if isinstance(message, PeerRequest):
            self.links.requested(message)
        elif isinstance(message, PeerResponse):
            self.links.responded(message)
        elif isinstance(message, PeerCandidate):
            self.links.candidate(message)

    # -- as its user ---------------------------------------------------------------------------------------------------

    async def call(self, other: Node, request: Any = None) -> Any:
        link = await self.links.pool.link(other.id)
        return await link.call("Echo", request, 10)

    def link_to(self, other: Node) -> PeerLink:
        link = self.links.pool.current(other.id)
        assert link is not None
        return link

    def closed(self) -> dict[str, int]:
        return {reason: count for reason, count in self.host.counters.links_closed.items() if count}


class House:
    """Peers that all see each other, on a network in memory."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.nodes: dict[str, Node] = {}

    def node(self, name: str, number: int, *, online: bool = True, **pool: Any) -> Node:
        node = self.nodes[str(number)] = Node(self, name, number, **pool)
        for each in self.nodes.values():
            if each is not node:
                each.peers[node.id], node.peers[each.id] = node.name, each.name
        if online:
            node.links.went_online(node.id)
        return node

    def carry(self, sender: Node, message: Any) -> None:
        receiver = self.nodes[message.to]
        asyncio.get_running_loop().call_soon(receiver.receive, structs.replace(message, from_=sender.id))


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """Empty; whoever is in it at the end goes, and nothing may be left."""
    for name, seconds in (("PROBE", UNIT), ("YIELD", UNIT), ("FIRST_RETRY", UNIT)):
        monkeypatch.setattr(f"bonevalue.healing.{name}", seconds)
    house = House()
    yield house
    for node in house.nodes.values():
        await node.links.stop(0.0)
        for task in node.tasks:
            task.cancel()
    await until(lambda: not other_tasks(), what="tasks are left")
    assert all(not node.links.closings for node in house.nodes.values())


@pytest.fixture
async def pair(house: House) -> tuple[Node, Node]:
    """Alice, who has called bob, and bob."""
    alice, bob = house.node("alice", 1), house.node("bob", 2)
    assert await alice.call(bob, "hello") == ["alice", "hello"]
    await until(lambda: bob.added)
    return alice, bob


def end_of(link: PeerLink) -> MemoryLink:
    """The end of a link on the network."""
    return cast(MemoryLink, link._link)


# -- made --------------------------------------------------------------------------------------------------------------


async def test_a_link_is_told_of_and_counted_on_both_sides(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    assert alice.added == [alice.link_to(bob)] and bob.added == [bob.link_to(alice)]
    assert (alice.host.counters.links_dialled, alice.host.counters.links_accepted) == (1, 0)
    assert (bob.host.counters.links_dialled, bob.host.counters.links_accepted) == (0, 1)
    assert alice.refused == bob.refused == []


async def test_who_is_not_online_is_not_dialled(house: House) -> None:
    alice = house.node("alice", 1)
    with pytest.raises(PeerOffline, match="peer 7"):
        await alice.links.pool.link("7")


async def test_a_new_link_waits_a_moment_for_the_server(house: House) -> None:
    alice, bob = house.node("alice", 1, online=False), house.node("bob", 2)
    calling = asyncio.create_task(alice.call(bob, 1))
    await asyncio.sleep(UNIT)
    assert not calling.done() and not bob.added
    alice.links.went_online(alice.id)
    assert await calling == ["alice", 1]


async def test_and_no_longer_than_that(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.links.OFFLINE_PATIENCE", 2 * UNIT)
    alice, bob = house.node("alice", 1), house.node("bob", 2)
    alice.links.went_offline()
    for _ in range(2):  # at first it waits, and then the patience is over
        with pytest.raises(Unavailable, match=r"ws://server\.test is not connected"):
            await alice.call(bob)


async def test_the_wait_for_the_server_leaves_time_for_a_try(house: House) -> None:
    alice, bob = house.node("alice", 1, connect_timeout=4 * UNIT), house.node("bob", 2)
    alice.links.went_offline()
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        await alice.call(bob)
    assert time.monotonic() - begun >= 3 * UNIT
    calling = asyncio.create_task(alice.call(bob, 2))
    await asyncio.sleep(2 * UNIT)
    alice.links.went_online(alice.id)
    assert await calling == ["alice", 2]


async def test_calls_go_on_over_links_that_are_there_while_the_server_is_away(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    alice.links.went_offline()
    assert await alice.call(bob, 3) == ["alice", 3]


# -- lost and healed ---------------------------------------------------------------------------------------------------


async def test_a_lost_link_is_counted_doubts_the_server_and_comes_back(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    before = alice.link_to(bob)
    alice.house.network.cut()
    await until(lambda: alice.links.pool.current(bob.id) not in (None, before))
    assert alice.closed() == bob.closed() == {"lost": 1}
    assert alice.doubts == bob.doubts == 1
    assert await alice.call(bob, 4) == ["alice", 4]


async def test_a_link_whose_peer_has_left_is_lost_if_it_is_silent(
    pair: tuple[Node, Node], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = pair
    monkeypatch.setattr("bonevalue.healing.PROBE", 10 * UNIT)
    caplog.set_level("INFO", "bonevalue")
    before = alice.link_to(bob)
    alice.links.peer_left(bob.id)
    await until(lambda: not alice.tasks)
    assert alice.link_to(bob) is before, "it answers: it may have lost no more than the server"
    end_of(before).mute = True
    alice.links.peer_left(bob.id)
    await until(before.gone.done)
    assert alice.closed() == {"lost": 1}
    assert "has left" in caplog.text
    await until(lambda: alice.links.pool.current(bob.id) not in (None, before))


async def test_a_peer_that_is_gone_for_good_costs_nobody_a_link(house: House) -> None:
    alice = house.node("alice", 1, max_outgoing=1)
    gone, there = house.node("bob", 2), house.node("bob", 3)
    await alice.call(gone)
    before = alice.link_to(gone)
    end_of(before).mute = True
    del alice.peers[gone.id]
    alice.links.peer_left(gone.id)
    await until(before.gone.done)
    assert alice.doubts == 0, "the server has just told why"
    assert await alice.call(there, 6) == ["alice", 6]
    link = alice.link_to(there)
    await asyncio.sleep(6 * UNIT)  # it would be evicted for the sake of a dial that cannot be
    assert alice.link_to(there) is link and link.usable


async def test_a_peer_that_is_back_is_dialled_at_once(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("DEBUG", "bonevalue.healing")
    alice, bob = house.node("alice", 1), house.node("bob", 2)
    await alice.call(bob)
    monkeypatch.setattr("bonevalue.healing.FIRST_RETRY", 60.0)
    monkeypatch.setattr("bonevalue.healing.LONGEST_RETRY", 60.0)
    before = alice.link_to(bob)
    end_of(before).mute = True
    del alice.peers[bob.id]
    alice.links.peer_left(bob.id)
    await until(lambda: "is not back yet" in caplog.text)
    alice.peers[bob.id] = "bob"
    alice.links.peer_came(bob.id)
    await until(lambda: alice.links.pool.current(bob.id) not in (None, before))


async def test_a_network_that_is_another_gives_links_that_are_deaf_a_successor(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    before = alice.link_to(bob)
    before.opened_at -= 60  # a young one could be taken for dialled at once
    end_of(before).mute = True
    alice.links.network_changed(NetworkChange(added=frozenset({"192.0.2.7"})))
    await until(lambda: alice.links.pool.current(bob.id) not in (None, before))
    assert await alice.call(bob, 5) == ["alice", 5]


# -- ended -------------------------------------------------------------------------------------------------------------


async def test_the_end_of_trust_cuts_the_links_and_their_calls(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    begun = asyncio.Event()

    async def wait(request: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    bob.host.modules["Wait"] = ServedModule("Wait", wait)
    link = alice.link_to(bob)
    waiting = asyncio.create_task(link.call("Wait", None, 10))
    await begun.wait()
    alice.links.cut(identity.account("bob").public, "bob")
    with pytest.raises(NotTrusted, match="has ended"):
        await waiting
    assert isinstance(link.gone.result(), NotTrusted)
    assert alice.closed() == {"not_trusted": 1}


async def test_another_key_ends_the_links_of_the_old_one(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    link = alice.link_to(bob)
    alice.links.key_changed("bob", identity.account("bob").public)
    assert isinstance(link.gone.result(), LinkLost) and "another key" in str(link.gone.result())


async def test_a_link_that_is_proved_after_the_trust_has_ended_is_closed(house: House) -> None:
    alice, bob = house.node("alice", 1), house.node("bob", 2)
    really = alice.contacts.key_of
    alice.contacts.key_of = lambda name: (  # type: ignore[method-assign]
        None if alice.host.counters.links_dialled else really(name)
    )
    link = await alice.links.pool.link(bob.id)
    assert isinstance(link.gone.result(), NotTrusted)
    assert alice.closed() == {"not_trusted": 1}
    with pytest.raises(NotTrusted):
        await alice.links.pool.link(bob.id)
    assert alice.refused == [("not_trusted", bob.id)]


async def test_who_breaks_the_rules_is_not_dialled_for_a_while(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    link = alice.link_to(bob)
    end_of(bob.link_to(alice)).send(b"\x7f")
    await until(link.gone.done)
    assert alice.closed() == {"protocol_error": 1}
    with pytest.raises(RateLimited, match="protocol_error") as caught:
        await alice.call(bob)
    assert caught.value.retry_after
    assert alice.doubts == 0


async def test_stopping_ends_all_links_and_makes_no_more(pair: tuple[Node, Node]) -> None:
    alice, bob = pair
    await alice.links.stop(1.0)
    await until(lambda: not bob.links.pool.links())
    assert "lost" not in bob.closed()
    with pytest.raises(Unavailable):
        await alice.call(bob)
