"""Dialling and being dialled, over an engine in memory and signalling that the test can slow down, bend or cut."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from msgspec import Struct, structs

from bonevalue.counters import Counters
from bonevalue.dialler import Dialler
from bonevalue.errors import BoneValueError, ConnectFailed, LinkLimit, NotTrusted, PeerOffline, RateLimited, Unavailable
from bonevalue.host import Host
from bonevalue.life import LinkLife, State
from bonevalue.link import Connection, IceConfig, Link
from bonevalue.link_calls import CallMoved
from bonevalue.link_memory import MemoryConnection, MemoryEngine, MemoryNetwork
from bonevalue.module import Caller
from bonevalue.peer_link import PeerLink
from bonevalue.penalties import Penalties
from bonevalue.pool import Pool
from bonevalue.serving import ServedModule
from bonevalue.wire.calls import LinkSettings, Proof
from bonevalue.wire.introductions import Introductions
from bonevalue.wire.signals import Binary, Failure, PeerCandidate, PeerRequest, PeerResponse
from tests.support import identity
from tests.support.waiting import UNIT, until


class Mute:
    """A link whose owner hangs."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._never = asyncio.Event()

    async def prove(self) -> None:
        await self._never.wait()

    def close(self) -> None:
        self._link.close()
        self._never.set()


class Node:
    """One peer without a discovery server: dialler, pool and host."""

    def __init__(self, wire: Wire, name: str, number: int, timeout: float) -> None:
        self.name, self.id = name, str(number)
        self.wire = wire
        self.host = Host(LinkSettings())
        self.refused: list[str] = []
        self.counters = Counters()
        self.penalties = Penalties()
        self.tasks: list[asyncio.Task[None]] = []
        #: Whether links come about over which it says nothing.
        self.is_mute = False
        others = {other: identity.account(other).public for other in ("alice", "bob", "carol") if other != name}
        introductions = Introductions(identity.account(name), identity.Friends(name, others), identity.seed(name, 16))
        introductions.peer_id = self.id
        self.pool = Pool(
            self._dial,
            max_outgoing=4,
            max_incoming=4,
            patience=timeout,
            on_added=lambda link: self.dialler.linked(link.remote.id),
        )
        self.pool.own_id = self.id
        self.dialler = Dialler(
            MemoryEngine(wire.network),
            introductions,
            self,
            ice=self._ice,
            make_link=self._link,
            report=lambda error, about: self.refused.append(error.code),
            timeout=timeout,
            penalties=self.penalties,
            counters=self.counters,
        )

    async def _ice(self) -> IceConfig:
        return IceConfig()

    async def request(self, message: Struct, *, timeout: float = 10) -> Any:
        if self.wire.refusal is not None:
            raise self.wire.refusal
        self.wire.carry(self, message)
        if not self.wire.says_done:
            await asyncio.Event().wait()

    def send(self, message: Struct) -> None:
        self.wire.carry(self, message)

    def receive(self, message: Any) -> None:
        if isinstance(message, PeerRequest):
            sender = self.wire.nodes[message.from_ or ""].name
            task = asyncio.ensure_future(self.dialler.answer(message, sender, self.id, self.pool))
            self.tasks.append(task)
        elif isinstance(message, PeerResponse):
            self.dialler.receive_response(message)
        elif isinstance(message, PeerCandidate):
            self.dialler.receive_candidate(message)

    async def _dial(self, peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
        return await self.dialler.dial(peer_id, self.wire.nodes[peer_id].name, life, timeout)

    def _link(
        self, link: Link, connection: Connection, remote: Caller, proof: Proof, life: LinkLife, *, offerer: bool
    ) -> PeerLink:
        if self.is_mute:
            return cast(PeerLink, Mute(link))
        return PeerLink(
            link, connection, remote, proof, life, offerer=offerer, host=self.host, idle_timeout=60,
            on_closed=self.pool.remove, on_idle=self.pool.idle,
        )  # fmt: skip

    async def call(self, other: Node, request: Any) -> Any:
        while True:
            link = await self.pool.link(other.id)
            try:
                return await link.call("Echo", request, 10)
            except CallMoved:
                continue


class Wire:
    """Carries signals between nodes, each after `delay()` seconds, unless `bend` has something to say."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.nodes: dict[str, Node] = {}
        self.delay: Callable[[], float] = lambda: 0.0
        self.bend: Callable[[Any], Any] = lambda message: message
        self.refusal: BoneValueError | None = None
        self.says_done = True

    def node(self, name: str, number: int, timeout: float = 10) -> Node:
        node = self.nodes[str(number)] = Node(self, name, number, timeout)

        async def echo(request: Any, context: Any) -> Any:
            return [context.caller.name, request]

        node.host.modules["Echo"] = ServedModule("Echo", echo)
        return node

    def carry(self, sender: Node, message: Any) -> None:
        bent = self.bend(structs.replace(message, from_=sender.id))
        if bent is not None:
            receiver = self.nodes[bent.to]
            asyncio.get_running_loop().call_later(self.delay(), receiver.receive, bent)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    wire = Wire()
    yield wire
    for node in wire.nodes.values():
        await node.pool.stop(0)
        for task in node.tasks:
            task.cancel()
        await asyncio.gather(*node.tasks, return_exceptions=True)


async def test_a_link_comes_about_and_both_know_whom_they_talk_to(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    assert await alice.call(bob, 7) == ["alice", 7]
    assert await bob.call(alice, 8) == ["bob", 8]
    assert len(alice.pool.links()) == len(bob.pool.links()) == 1


@pytest.mark.parametrize("attempt", range(30))
async def test_dialling_at_once_ends_with_one_link_and_no_call_lost(wire: Wire, attempt: int) -> None:
    chance = random.Random(attempt)
    wire.delay = lambda: chance.choice([0.0, chance.random() * UNIT])
    wire.network.delay = chance.random() * UNIT / 5
    alice, bob = wire.node("alice", chance.choice([1, 20])), wire.node("bob", 10)
    calls = []
    for number in range(6):
        calls.append(asyncio.ensure_future(alice.call(bob, number)))
        calls.append(asyncio.ensure_future(bob.call(alice, number)))
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * UNIT / 2)
    answers = await asyncio.wait_for(asyncio.gather(*calls), 15)
    assert [answer[1] for answer in answers] == [number for number in range(6) for _ in "ab"]
    await until(lambda: len(alice.pool.links()) == len(bob.pool.links()) == 1)
    (ours,), (theirs,) = alice.pool.links(), bob.pool.links()
    assert ours.usable and theirs.usable and ours.offerer is not theirs.offerer


async def test_the_offer_of_the_smaller_id_wins(wire: Wire) -> None:
    alice, bob = wire.node("alice", 9), wire.node("bob", 10)
    wire.delay = lambda: UNIT
    await asyncio.gather(alice.call(bob, 1), bob.call(alice, 2))
    (link,) = alice.pool.links()
    assert link.offerer


@pytest.mark.parametrize(
    ("says_done", "phase", "doing"),
    [(True, "answer", "waiting for the other peer's answer"), (False, "relay", "handing the request to")],
)
async def test_an_answer_that_never_comes_is_connect_failed_with_its_phase(
    wire: Wire, says_done: bool, phase: str, doing: str
) -> None:
    alice, bob = wire.node("alice", 1, timeout=4 * UNIT), wire.node("bob", 2)
    wire.bend = lambda message: message if isinstance(message, PeerRequest) else None
    wire.says_done = says_done
    with pytest.raises(ConnectFailed, match=f"it was {doing}") as caught:
        await alice.pool.link(bob.id)
    report = caught.value.report
    assert report is not None and report.phase == phase and report.ours == ("host",) and report.advice
    assert alice.pool.links() == []


async def test_a_peer_that_may_not_have_got_the_offer_gets_another(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    lost: list[PeerRequest] = []
    wire.bend = lambda message: lost.append(message) if not lost else message
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: lost)
    alice.dialler.ask_again("3")
    await settle()
    assert not dialling.done()
    alice.dialler.ask_again(bob.id)
    assert (await asyncio.wait_for(dialling, 5)).usable and len(bob.tasks) == 1
    assert not alice.refused and not bob.refused


async def test_a_connection_to_the_server_that_is_lost_meanwhile_does_not_end_an_attempt(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    wire.refusal = Unavailable("the connection was lost")
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: [life.state for life in alice.pool.setting_up()] == [State.RELAY])
    await settle()
    assert not dialling.done()
    alice.dialler.ask_again()
    assert (await asyncio.wait_for(dialling, 5)).usable


async def test_one_that_got_both_offers_answers_the_later_and_the_earlier_answer_is_too_late(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    held: list[PeerResponse] = []

    def bend(message: Any) -> Any:
        if isinstance(message, PeerResponse) and not held:
            held.append(message)
            return None
        return message

    wire.bend = bend
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: held)
    alice.dialler.ask_again(bob.id)
    alice.receive(held[0])
    assert (await asyncio.wait_for(dialling, 5)).usable
    assert await alice.call(bob, 1) == ["alice", 1]
    assert not alice.refused and not bob.refused
    await until(lambda: len(alice.pool.links()) == len(bob.pool.links()) == 1 and bob.pool.pending == 0)


async def test_a_link_ends_what_else_is_under_way_with_its_peer(wire: Wire) -> None:
    alice, bob = wire.node("alice", 9), wire.node("bob", 2)
    wire.bend = lambda message: None if isinstance(message, PeerResponse) and message.from_ == "2" else message
    first = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: bob.pool.pending == 1)
    assert await bob.call(alice, 1) == ["bob", 1]  # bob's answer to alice is lost, and he dials her
    assert (await asyncio.wait_for(first, 5)).usable
    await until(lambda: alice.pool.pending == bob.pool.pending == 0, timeout=5)
    assert not alice.pool.setting_up() and not bob.pool.setting_up()


async def test_what_the_server_refuses_is_told_at_once(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    wire.refusal = PeerOffline("not there")
    with pytest.raises(PeerOffline):
        await alice.pool.link(bob.id)


async def test_a_full_peer_says_so(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    for number in range(4):
        await bob.pool.reserve(str(number + 50), "carol", str(number).encode())
    with pytest.raises(LinkLimit, match="bob/2 refused"):
        await alice.pool.link(bob.id)


async def test_an_account_that_is_kept_away_is_told_so_before_anything_is_done_for_it(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    bob.penalties.punish(identity.account("alice").public, "abuse")
    with pytest.raises(RateLimited, match=r"bob/2 refused: .* closed by its fault \(abuse\)") as caught:
        await alice.pool.link(bob.id)
    assert caught.value.retry_after is not None and 0 < caught.value.retry_after <= 1
    assert bob.counters.offers_refused["rate_limited"] == bob.counters.limited["penalty"] == 1
    assert alice.counters.dials_failed["rate_limited"] == 1
    assert not wire.network.links and not bob.refused
    assert await bob.call(alice, 1) == ["bob", 1]  # who keeps it away may still call it


async def test_what_a_refusal_asks_us_to_wait_is_bounded(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)

    def bend(message: Any) -> Any:
        if not isinstance(message, PeerRequest):
            return None
        error = Failure(code="rate_limited", message="later", retry_after=waits.pop())
        session = Binary(Introductions.session_of(message) or b"")
        # It goes to whom the bent message names, which is the one that asked.
        return PeerResponse(to="1", from_="2", session=session, error=error)

    wire.bend, waits = bend, [1e300, -5.0]
    for bounded in (0.0, 3600.0):
        with pytest.raises(RateLimited) as caught:
            await alice.pool.link(bob.id)
        assert caught.value.retry_after == bounded


async def test_a_stranger_is_refused_and_reported(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    alice, mallory = wire.node("alice", 1), wire.node("mallory", 3)
    with caplog.at_level(logging.WARNING), pytest.raises(NotTrusted):
        await mallory.pool.link(alice.id)
    assert alice.refused == ["not_trusted"] and "not_trusted" in caplog.text


async def test_a_bent_signature_is_refused_on_both_ways(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1, timeout=4 * UNIT), wire.node("bob", 2)

    def flip(kind: type) -> Callable[[Any], Any]:
        def bend(message: Any) -> Any:
            if not isinstance(message, (PeerRequest, PeerResponse)) or not isinstance(message, kind):
                return message
            if message.signature is None:
                return message
            signature = bytes([message.signature[0] ^ 1]) + message.signature[1:]
            return structs.replace(message, signature=Binary(signature))

        return bend

    wire.bend = flip(PeerRequest)
    with pytest.raises(ConnectFailed):
        await alice.pool.link(bob.id)
    assert bob.refused == ["identity_mismatch"]
    wire.bend = flip(PeerResponse)
    with pytest.raises(BoneValueError) as caught:
        await alice.pool.link(bob.id)
    assert caught.value.code == "identity_mismatch" and "identity_mismatch" in alice.refused
    wire.bend = lambda message: message
    assert await alice.call(bob, 1) == ["alice", 1]


async def test_refusals_and_candidates_for_nothing_are_passed_over(wire: Wire) -> None:
    alice = wire.node("alice", 1)
    alice.receive(PeerResponse(to="1", from_="2"))
    alice.receive(PeerResponse(to="1", from_="2", session=Binary(bytes(16))))
    alice.receive(PeerCandidate(to="1", from_="2", session=Binary(bytes(16)), candidate="candidate:junk"))
    assert not alice.refused


async def test_candidates_that_come_behind_an_answer_or_ahead_of_a_connection_are_tried(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "candidate:1 1 udp 1 192.0.2.9 9 typ relay"
    tried: list[MemoryConnection] = []
    monkeypatch.setattr(MemoryConnection, "add_candidate", lambda self, _: tried.append(self))
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    sessions: list[bytes] = []

    async def slow() -> IceConfig:
        await asyncio.sleep(UNIT)
        return IceConfig()

    def follow(sender: Node, receiver: Node, session: bytes) -> None:
        message = PeerCandidate(to=receiver.id, from_=sender.id, session=Binary(session), candidate=text)
        receiver.receive(message)

    def trickle(message: Any) -> Any:
        session = Introductions.session_of(message)
        assert session is not None
        sessions.append(session)
        sender, receiver = wire.nodes[message.from_], wire.nodes[message.to]
        # The caller's comes before the callee knows how to make a connection, the callee's behind its answer.
        later = UNIT / 2 if isinstance(message, PeerRequest) else UNIT / 10
        asyncio.get_running_loop().call_later(later, follow, sender, receiver, session)
        return message

    wire.bend = trickle
    wire.network.delay = UNIT / 2
    bob.dialler._ice = slow
    assert await alice.call(bob, 1) == ["alice", 1]
    await until(lambda: len(tried) == 2)
    assert tried[0] is not tried[1]
    follow(alice, bob, sessions[0])
    assert len(tried) == 2, "there is nothing that it could be of use to"


async def test_an_answer_to_nothing_is_reported_and_one_that_is_late_is_not(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1, timeout=4 * UNIT), wire.node("bob", 2)
    alice.receive(PeerResponse(to="1", from_="2", answer=Binary(b"junk"), signature=Binary(b"")))
    assert alice.refused == ["identity_mismatch"]
    kept: list[PeerResponse] = []

    def keep(message: Any) -> Any:
        if isinstance(message, PeerResponse):
            kept.append(message)
        return message if passing or not isinstance(message, PeerResponse) else None

    wire.bend, passing = keep, False
    with pytest.raises(ConnectFailed):
        await alice.pool.link(bob.id)
    alice.receive(kept[0])
    assert alice.refused == ["identity_mismatch"]
    alice.receive(structs.replace(kept[0], from_="3"))
    assert alice.refused == ["identity_mismatch"] * 2
    passing = True
    assert await alice.call(bob, 1) == ["alice", 1]
    alice.receive(kept[-1])
    assert alice.refused == ["identity_mismatch"] * 3


async def test_what_a_refusal_says_cannot_act_on_a_terminal(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    offers: list[PeerRequest] = []
    wire.bend = offers.append
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: offers)
    error = Failure(code="link_limit\x1b[2J", message="full\x1b[31m\nadmin: all is well")
    session = Introductions.session_of(offers[0])
    alice.receive(PeerResponse(to="1", from_="2", session=Binary(session or b""), error=error))
    with pytest.raises(ConnectFailed) as caught:
        await dialling
    assert "full" in caught.value.message and caught.value.message.isprintable()


async def test_a_later_offer_of_a_peer_takes_the_place_of_its_earlier_one(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1, timeout=10), wire.node("bob", 2)
    wire.bend = lambda message: message if isinstance(message, PeerRequest) else None
    for _ in range(30):
        task = asyncio.ensure_future(alice.pool.link(bob.id))
        begun = len(bob.tasks)
        await until(lambda begun=begun: len(bob.tasks) > begun)  # type: ignore[misc]
        task.cancel()
        await until(lambda: not alice.pool.is_dialling(bob.id))
    await until(lambda: sum(not task.done() for task in bob.tasks) == 1)
    wire.bend = lambda message: message
    assert await alice.call(bob, 1) == ["alice", 1]


async def test_whatever_becomes_of_an_offer_something_is_said_to_it(wire: Wire) -> None:
    """The server lets few offers of a pair pass to which nothing was said, for half a minute."""
    alice, bob = wire.node("alice", 9), wire.node("bob", 10)
    open_offers: dict[bytes, str] = {}
    asked = 0

    def watch(message: Any) -> Any:
        nonlocal asked
        session = Introductions.session_of(message)
        assert session is not None
        if isinstance(message, PeerRequest):
            asked += 1
            open_offers[session] = message.to
        elif message.from_ == open_offers.get(session):
            del open_offers[session]
        return message

    wire.bend = watch
    wire.delay = lambda: UNIT
    for _ in range(5):
        await asyncio.gather(alice.call(bob, 1), bob.call(alice, 2))  # both dial, and one of the offers loses
        for link in [*alice.pool.links(), *bob.pool.links()]:
            link.close()
        await until(lambda: not alice.pool.links() and not bob.pool.links())
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    before = asked
    for number in range(3):
        await until(lambda number=number: asked > before + number)  # type: ignore[misc]
        alice.dialler.ask_again(bob.id)  # each takes the place of the one before
    assert (await dialling).usable
    await until(lambda: not open_offers)
    assert asked == 5 * 2 + 4
    assert not alice.refused and not bob.refused


async def test_what_was_answered_is_not_refused_when_another_link_wins(wire: Wire) -> None:
    alice, bob = wire.node("alice", 9), wire.node("bob", 10)
    said: list[PeerResponse] = []
    wire.bend = lambda message: said.append(message) if isinstance(message, PeerResponse) else message
    task = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: said)  # bob's answer, which alice never gets
    again = asyncio.ensure_future(alice.dialler.dial(bob.id, "bob", LinkLife(bob.id, "bob", dialled=True), 10))
    await until(lambda: len(said) == 2)
    bob.dialler.linked(alice.id)
    task.cancel()
    again.cancel()
    await asyncio.gather(task, again, return_exceptions=True)
    await until(lambda: all(each.done() for each in bob.tasks))
    assert [response.error for response in said] == [None, None]


async def test_giving_up_closes_the_connection(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    wire.bend = lambda message: None
    task = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: alice.pool.is_dialling(bob.id))
    task.cancel()
    await until(lambda: not alice.pool.is_dialling(bob.id))
    assert not wire.network.links


async def test_the_proof_has_no_time_beyond_that_of_the_attempt(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1, timeout=8 * UNIT), wire.node("bob", 2)
    bob.is_mute = True
    with pytest.raises(ConnectFailed) as caught:
        await asyncio.wait_for(alice.pool.link(bob.id), 5)
    assert caught.value.report is not None and caught.value.report.phase == "proof" and not alice.refused


async def test_an_answer_in_the_turn_in_which_it_is_given_up_accuses_nobody(wire: Wire) -> None:
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    kept: list[PeerResponse] = []
    wire.bend = lambda message: kept.append(message) if isinstance(message, PeerResponse) else message
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: kept)
    dialling.cancel()
    await asyncio.sleep(0)
    alice.receive(kept[0])
    await asyncio.gather(dialling, return_exceptions=True)
    await settle()
    assert alice.refused == []


async def test_an_offer_of_ours_that_is_lost_does_not_keep_us_from_answering_theirs(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonevalue.dialler.GLARE_TIME", 2 * UNIT)
    alice, bob = wire.node("alice", 1), wire.node("bob", 2)
    wire.bend = lambda message: None if isinstance(message, PeerRequest) and message.from_ == "1" else message
    ours = asyncio.ensure_future(alice.call(bob, 1))
    await until(lambda: alice.pool.is_dialling("2"))
    theirs = asyncio.ensure_future(bob.call(alice, 2))
    assert list(await asyncio.wait_for(asyncio.gather(ours, theirs), 5)) == [["alice", 1], ["bob", 2]]


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
async def test_a_link_that_is_being_made_when_the_network_changes_is_made_anew(
    wire: Wire, numbers: tuple[int, int]
) -> None:
    alice, bob = wire.node("alice", numbers[0]), wire.node("bob", numbers[1])
    answers: list[PeerResponse] = []

    def hold(message: Any) -> Any:
        if isinstance(message, PeerResponse) and not answers:
            answers.append(message)
            return None
        return message

    wire.bend = hold
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: answers and bob.pool.setting_up()[0].state is State.CHECKING)
    assert alice.dialler.network_changed() == []  # she moves: dials anew, by herself
    assert (await asyncio.wait_for(dialling, 5)).usable
    assert not alice.refused and not bob.refused


@pytest.mark.parametrize("numbers", [(1, 2), (2, 1)])
async def test_whoever_moves_while_it_is_dialled_dials_the_other_side(wire: Wire, numbers: tuple[int, int]) -> None:
    alice, bob = wire.node("alice", numbers[0]), wire.node("bob", numbers[1])
    bob.is_mute = True
    dialling = asyncio.ensure_future(alice.pool.link(bob.id))
    await until(lambda: any(life.state is State.PROOF for life in alice.pool.setting_up()))
    bob.is_mute = False
    assert bob.dialler.network_changed() == [alice.id]
    back = asyncio.ensure_future(bob.pool.link(alice.id))
    assert (await asyncio.wait_for(dialling, 5)).usable and (await asyncio.wait_for(back, 5)).usable
    await until(lambda: len(alice.pool.links()) == len(bob.pool.links()) == 1)
    assert not alice.refused and not bob.refused
