"""Healing: which links are brought back, by whom, for how long, and what a change of the network leads to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest

from bonevalue.errors import BoneValueError, Busy, ConnectFailed, Deadline, LinkLost, NotTrusted
from bonevalue.healing import Healing
from bonevalue.life import State
from bonevalue.link import PathInfo
from bonevalue.link_memory import MemoryEngine, MemoryLink, MemoryNetwork
from bonevalue.module import Caller
from bonevalue.network import NetworkChange
from bonevalue.pool import Pool
from tests.support.handlers import echo
from tests.support.meeting import met
from tests.support.waiting import UNIT, until

HOME = "192.0.2.5"
GONE = NetworkChange(removed=frozenset({HOME}))
NEW = NetworkChange(added=frozenset({"198.51.100.7"}))


class FakeLink:
    """A link as healing sees it."""

    def __init__(self, *, offerer: bool = True, age: float = 60.0, answers: bool = True) -> None:
        self.remote = Caller("bob", "7", bytes(32), "")
        self.offerer = offerer
        self.proved = self.usable = self.is_wanted = True
        self.doubted = False
        self.missed_until = self.wanted_until = time.monotonic() + 60
        self.opened_at = time.monotonic() - age
        self.gone: asyncio.Future[BoneValueError] = asyncio.get_running_loop().create_future()
        self.connection = self
        self.answers = answers
        self.pinged = 0
        self.acknowledged = 0
        #: Bytes that are acknowledged while it is pinged, each time.
        self.to_acknowledge: list[int] = []
        self.kept_until = 0.0

    def path(self) -> PathInfo:
        return PathInfo("host", "host", local_address=HOME)

    async def ping(self, timeout: float) -> float:
        self.pinged += 1
        self.acknowledged += self.to_acknowledge.pop(0) if self.to_acknowledge else 0
        if not self.answers:
            raise Deadline("no answer")
        return 0.1

    def doubt(self) -> None:
        self.doubted = True

    def close(self, error: BoneValueError) -> None:
        self.gone.set_result(error)

    def lose(self, reason: str) -> None:
        self.gone.set_result(LinkLost(reason))

    def keep(self, until: float) -> None:
        self.kept_until = until


class World:
    """A pool whose links come about when the test says so."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.errors: list[BoneValueError] = []
        self.peer_id = "7"
        self.dialled: list[float] = []
        self.made = 0
        self.retried = 0
        self.open = asyncio.Event()
        self.open.set()
        self.held: list[FakeLink] = []
        self.new = FakeLink()
        self.healing = Healing(cast(Pool, self), self.spawn)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def links(self) -> list[FakeLink]:
        return self.held

    def retry_now(self, peer_id: str | None = None) -> None:
        self.retried += 1

    async def link(self, peer_id: str) -> FakeLink:
        assert peer_id == self.peer_id
        self.dialled.append(time.monotonic())
        await self.open.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.made += 1
        return self.new

    def lose(self, link: FakeLink) -> None:
        self.healing.lost(cast(Any, link))

    def change(self, change: NetworkChange) -> None:
        self.healing.network_changed(change)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name, seconds in (("PROBE", UNIT), ("YIELD", 2 * UNIT), ("FIRST_RETRY", UNIT), ("GLARE_WINDOW", 4 * UNIT)):
        monkeypatch.setattr(f"bonevalue.healing.{name}", seconds)
    world = World()
    yield world
    for task in list(world.tasks):
        task.cancel()
    await asyncio.gather(*world.tasks, return_exceptions=True)


async def test_a_link_that_is_lost_while_it_is_wanted_comes_back_for_as_long(world: World) -> None:
    world.lose(link := FakeLink())
    await until(lambda: world.made == 1 and not world.tasks)
    assert world.new.kept_until == link.missed_until


async def test_a_time_to_wait_that_is_longer_than_the_link_is_wanted_is_cut_to_it(world: World) -> None:
    world.errors = [Busy("later", retry_after=3600.0)]
    link = FakeLink()
    link.missed_until = time.monotonic() + 2 * UNIT
    world.lose(link)
    await until(lambda: not world.tasks, timeout=5)
    world.lose(FakeLink())  # and the next loss is not taken for one that is being healed
    await until(lambda: world.made == 1)


async def test_a_peer_that_could_not_finish_is_dialled_from_here(world: World) -> None:
    world.healing.bring_back("7")
    await until(lambda: world.made == 1)


async def test_one_that_nobody_here_wants_does_not(world: World) -> None:
    link = FakeLink()
    link.missed_until = 0.0
    world.lose(link)
    unproved = FakeLink()
    unproved.proved = False
    world.lose(unproved)
    assert not world.tasks


async def test_the_side_that_was_dialled_lets_the_other_go_first(world: World) -> None:
    begun = time.monotonic()
    world.lose(FakeLink(offerer=False))
    await until(lambda: world.made == 1)
    assert world.dialled[0] - begun >= 2 * UNIT


async def test_it_is_tried_until_it_succeeds(world: World) -> None:
    world.errors = [ConnectFailed("no way"), LinkLost("gone again"), Deadline("late")]
    world.lose(FakeLink())
    await until(lambda: world.made == 1)
    assert len(world.dialled) == 4


async def test_it_is_tried_for_as_long_as_the_link_would_have_been_kept(world: World) -> None:
    world.errors = [ConnectFailed("no way") for _ in range(1000)]
    link = FakeLink()
    link.missed_until = time.monotonic() + 4 * UNIT
    world.lose(link)
    await until(lambda: not world.tasks)
    assert world.dialled and not world.made


async def test_a_peer_that_is_not_trusted_any_more_is_left_alone(world: World) -> None:
    world.errors = [NotTrusted("over")]
    world.lose(FakeLink())
    await until(lambda: not world.tasks)
    assert len(world.dialled) == 1 and not world.made


async def test_one_peer_is_brought_back_once_at_a_time(world: World) -> None:
    world.open.clear()
    for _ in range(3):
        world.lose(FakeLink())
    await until(lambda: world.dialled)
    world.open.set()
    await until(lambda: not world.tasks)
    assert len(world.dialled) == world.made == 1


async def test_when_something_has_changed_it_is_tried_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.healing.FIRST_RETRY", 60.0)
    monkeypatch.setattr("bonevalue.healing.random.random", lambda: 1.0)
    world.errors = [ConnectFailed("no way")]
    world.lose(FakeLink())
    await until(lambda: len(world.dialled) == 1)
    await asyncio.sleep(UNIT)
    assert len(world.dialled) == 1
    world.healing.retry_now()
    await until(lambda: world.made == 1)
    assert world.retried == 1


async def test_a_link_whose_address_is_gone_is_replaced_and_only_then_closed(world: World) -> None:
    link = FakeLink()
    world.held = [link]
    world.open.clear()
    world.change(GONE)
    await until(lambda: world.dialled)
    assert link.doubted and not link.gone.done() and not link.pinged
    world.open.set()
    await until(lambda: link.gone.done())
    assert isinstance(link.gone.result(), LinkLost) and world.made == 1


async def test_a_peer_that_left_the_server_keeps_a_link_on_which_it_answers(world: World) -> None:
    link = FakeLink()
    world.held = [link]
    world.healing.peer_left("7")
    await until(lambda: not world.tasks)
    assert link.pinged == 1 and not link.gone.done() and not link.doubted


async def test_a_peer_that_left_and_does_not_answer_is_lost(world: World) -> None:
    link, others, drained = FakeLink(answers=False), FakeLink(answers=False), FakeLink(answers=False)
    others.remote = Caller("bob", "8", bytes(32), "")
    drained.usable = False
    world.held = [link, others, drained]
    world.healing.peer_left("7")
    await until(lambda: not world.tasks)
    assert isinstance(link.gone.result(), LinkLost)
    assert not others.pinged and not drained.pinged


async def test_a_link_that_ends_because_its_peer_left_counts_as_lost(world: World) -> None:
    """Else it would not be brought back, whoever wants it: a peer may have lost the server and its path at once."""
    async with met() as meeting:
        link = meeting.ours
        world.held = [cast(Any, link)]
        cast(MemoryLink, meeting.ends.ours).mute = True
        world.healing.peer_left(link.remote.id)
        await until(link.gone.done)
        assert link.ended == "lost" and link.life.state is State.LOST


async def test_a_server_that_says_so_again_and_again_leads_to_one_question_at_a_time(world: World) -> None:
    link = FakeLink()
    world.held = [link]
    for _ in range(100):
        world.healing.peer_left("7")
    await until(lambda: not world.tasks)
    assert link.pinged == 1
    world.healing.peer_left("7")
    await until(lambda: not world.tasks)
    assert link.pinged == 2


async def test_another_address_leaves_a_link_that_answers_alone(world: World) -> None:
    link = FakeLink()
    world.held = [link]
    world.change(NEW)
    await until(lambda: not world.tasks)
    assert link.pinged == 1 and not world.dialled and not link.doubted


async def test_a_link_that_does_not_answer_after_the_network_changed_is_replaced(world: World) -> None:
    link = FakeLink(answers=False)
    world.held = [link]
    world.change(NEW)
    await until(lambda: world.made == 1)
    assert link.doubted and not link.gone.done()  # the calls on it may yet be answered


async def test_an_address_that_was_taken_and_given_back_may_serve_as_before(world: World) -> None:
    world.held = [link := FakeLink()]
    world.change(NetworkChange(added=frozenset({HOME}), removed=frozenset({HOME})))
    await until(lambda: not world.tasks)
    assert link.pinged == 1 and not world.dialled and not link.gone.done()


async def test_a_link_that_is_heard_again_meanwhile_is_not_closed(world: World) -> None:
    world.held = [link := FakeLink()]
    world.open.clear()
    world.change(GONE)
    await until(lambda: world.dialled)
    link.doubted = False
    world.open.set()
    await until(lambda: not world.tasks)
    assert not link.gone.done()


@pytest.mark.parametrize(("acknowledged", "answers"), [([5, 0], False), ([0, 5], True)])
async def test_a_ping_may_wait_behind_what_arrives_but_what_was_under_way_is_no_answer(
    world: World, acknowledged: list[int], answers: bool
) -> None:
    link = FakeLink(answers=False)
    link.to_acknowledge = acknowledged
    world.healing.replaced(cast(Any, link))
    await until(lambda: link.pinged and not world.tasks)
    assert link.gone.done() is not answers


async def test_a_link_on_which_this_side_only_hears_is_replaced(world: World) -> None:
    """As where packets leave by another network now, and the other side's NAT does not let them in from there."""
    async with met() as meeting:
        link, deaf = meeting.ours, meeting.theirs
        world.held, world.peer_id = [cast(Any, link)], link.remote.id
        cast(MemoryLink, meeting.ends.ours).mute = True

        async def talk() -> None:
            while not deaf.gone.done():
                with suppress(Deadline, LinkLost):
                    await deaf.ping(UNIT / 10)

        world.spawn(talk())
        world.change(NEW)
        await until(lambda: world.made == 1)
        assert link.doubted and not link.gone.done()
        world.healing.replaced(link)
        await until(link.gone.done)


async def test_a_long_body_under_way_keeps_a_link_whose_ping_waits_behind_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonevalue.healing.PROBE", 8 * UNIT)
    network = MemoryNetwork()
    async with met(MemoryEngine(network)) as meeting:
        link = meeting.ours
        meeting.serve("Echo", echo)
        call = asyncio.create_task(link.call("Echo", bytes(60_000), 10))
        network.rate = 100_000
        await until(lambda: link.send_buffer > 30_000)  # which takes longer than one ping has
        world.healing.replaced(link)
        await until(lambda: not world.tasks)
        assert not call.done()
        assert len(await call) == 60_000


async def test_a_young_link_is_replaced_when_it_cannot_be_taken_for_dialling_at_once(world: World) -> None:
    world.held = [link := FakeLink(age=0.0)]
    world.change(GONE)
    await until(lambda: world.made == 1)
    assert world.dialled[0] - link.opened_at >= 4 * UNIT


@pytest.mark.parametrize("answers", [True, False])
async def test_a_link_that_was_replaced_goes_on_only_if_it_answers(world: World, answers: bool) -> None:
    link = FakeLink(answers=answers)
    world.healing.replaced(cast(Any, link))
    await until(lambda: not world.tasks)
    assert link.gone.done() is not answers and not world.dialled


async def test_links_that_nobody_wants_or_that_are_going_are_not_replaced(world: World) -> None:
    unwanted, draining, doubted = FakeLink(), FakeLink(), FakeLink()
    unwanted.is_wanted, draining.usable, doubted.doubted = False, False, True
    world.held = [unwanted, draining, doubted]
    world.change(GONE)
    assert not world.tasks and world.retried == 1
