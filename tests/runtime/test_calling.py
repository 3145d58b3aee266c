"""Calls of ours: whom a query means, which link they take, and when they are made again: hardly ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from bonevalue.calling import Calls
from bonevalue.errors import (
    BoneValueError,
    Busy,
    ConnectFailed,
    Deadline,
    HandlerFailed,
    IdentityMismatch,
    LinkLost,
    NoTarget,
    PeerOffline,
    RemoteProtocolError,
)
from bonevalue.items import ReceivedItems
from bonevalue.link_calls import CallMoved
from bonevalue.pool import Pool
from bonevalue.wire.signals import PeerEntry
from tests.support.waiting import UNIT

BOB = PeerEntry("bob", "1")
HANG = object()


class FakeLink:
    """A link that does one thing with a call: answers, raises, or hangs until it is cancelled."""

    def __init__(self, outcome: Any, *, name: str = "bob", takes: int = 0) -> None:
        self.remote = PeerEntry(name, "1")
        self.calls: list[tuple[str, bytes, bool, float, bool]] = []
        self.items: list[Any] = []
        self._outcome = outcome
        self._takes = takes

    async def call_encoded(
        self, module: str, body: bytes, raw: bool, timeout: float, keep_alive: bool = True, items: Any = None
    ) -> Any:
        self.calls.append((module, body, raw, timeout, keep_alive))
        if self._takes:
            async for item in items:
                self.items.append(item)
                if len(self.items) == self._takes:
                    break
        if self._outcome is HANG:
            await asyncio.Event().wait()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome

    async def open_stream_encoded(self, *call: Any) -> ReceivedItems:
        return cast(ReceivedItems, await self.call_encoded(*call))


class Road:
    """A pool whose links come one after the other; None hangs."""

    own_id = "9"

    def __init__(self, *links: FakeLink | Exception | None, linked: bool = True) -> None:
        self._links = list(links)
        self._current = cast(FakeLink, self._links.pop(0)) if linked else None
        self.asked = 0

    def current(self, peer_id: str) -> FakeLink | None:
        usable = self._current is not None and not self._current.calls
        return self._current if peer_id == "1" and usable else None

    def progress(self, peer_id: str) -> str:
        return "it was on its way"

    async def link(self, peer_id: str) -> FakeLink:
        current = self.current(peer_id)
        if current is not None:
            return current
        self.asked += 1
        link = self._links.pop(0)
        if link is None:
            await asyncio.Event().wait()
        if isinstance(link, Exception):
            raise link
        assert link is not None
        return link


class World:
    """Calls over a road."""

    def __init__(self, *links: FakeLink | Exception | None, linked: bool = True) -> None:
        self.road = Road(*links, linked=linked)
        self.reports: list[tuple[str, str]] = []
        self.calls = Calls(
            cast(Pool, self.road),
            default_timeout=30.0,
            max_timeout=600.0,
            report=lambda error, about: self.reports.append((error.code, about)),
            spawn=lambda work: None,
        )
        self.calls.online = {"1": "bob", "2": "bob", "3": "carol", "4": "Us"}

    async def call(self, peer: PeerEntry = BOB, timeout: float = 5.0, **options: Any) -> Any:
        return await self.calls.call_peer(peer, "M", b"5", False, timeout, keep_alive=False, **options)

    async def stream(self, timeout: float = 5.0, **options: Any) -> Any:
        return await self.calls.open_stream(BOB, "M", b"5", False, timeout, keep_alive=False, **options)


# -- whom --------------------------------------------------------------------------------------------------------------


def test_queries() -> None:
    calls = World(FakeLink("ok")).calls

    def ids(query: str) -> list[str]:
        return [peer.id for peer in calls.resolve(query)]

    assert [ids(query) for query in ("*", "bob", "BOB", "us", "Us", "3", "7", "nobody")] == [
        ["1", "2", "3", "4"], ["1", "2"], ["1", "2"], ["4"], ["4"], ["3"], [], [],
    ]  # fmt: skip


def test_one_of_several_is_one_that_is_linked_if_any_is() -> None:
    calls = World(FakeLink("ok")).calls
    calls.online = {"2": "bob", "1": "bob", "3": "carol"}
    assert [calls.choose(query).id for query in ("*", "bob", "carol", "2")] == ["1", "1", "3", "2"]
    for query in ("nobody", "77"):
        with pytest.raises(NoTarget, match=query):
            calls.choose(query)


def test_a_peer_of_which_the_server_says_nothing_is_known_by_its_link() -> None:
    calls = World(FakeLink("ok")).calls
    calls.online = {}
    assert calls.resolve("1") == [BOB] and calls.choose("1") == BOB and calls.resolve("*") == []


def test_before_anything_is_known_there_is_nobody() -> None:
    world = World(FakeLink("ok"), linked=False)
    calls = Calls(
        cast(Pool, world.road), default_timeout=1, max_timeout=1, report=lambda *_: None, spawn=lambda work: None
    )
    assert calls.resolve("*") == calls.resolve("1") == calls.resolve("bob") == []


# -- links that cannot be had ------------------------------------------------------------------------------------------


async def test_nobody_calls_itself() -> None:
    with pytest.raises(NoTarget, match="itself"):
        await World(FakeLink("ok")).call(PeerEntry("Us", "9"))


async def test_a_failure_that_others_share_is_not_theirs_to_mark() -> None:
    shared = ConnectFailed("no way")
    world = World(shared, linked=False)
    with pytest.raises(ConnectFailed, match="no way") as caught:
        await world.call()
    assert caught.value is not shared and caught.value.peer == "1" and shared.peer is None


async def test_time_for_the_link_is_time_of_the_call() -> None:
    with pytest.raises(Deadline, match="no link to bob/1"):
        await World(None, linked=False).call(timeout=UNIT)


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_what_the_link_took_is_no_longer_there_for_the_call(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    link = FakeLink("ok")
    world = World(link, linked=False)
    find = world.road.link

    async def take_time(peer_id: str) -> FakeLink:
        await asyncio.sleep(UNIT)
        return await find(peer_id)

    monkeypatch.setattr(world.road, "link", take_time)
    assert await getattr(world, how)(timeout=5.0) == "ok"
    assert link.calls[0][3] < 5.0 - UNIT / 2


@pytest.mark.parametrize("linked", [True, False])
async def test_what_is_meant_for_one_does_not_go_to_another(linked: bool) -> None:
    wrong = FakeLink("never", name="mallory")
    world = World(wrong, wrong, wrong, linked=linked)
    for call in (world.call, world.stream):
        with pytest.raises(IdentityMismatch, match="says that peer 1 is bob: it is mallory"):
            await call()
        assert world.reports.pop() == ("identity_mismatch", "1") and not wrong.calls


# -- calls -------------------------------------------------------------------------------------------------------------


async def test_a_link_that_is_there_is_taken_at_once() -> None:
    world = World(FakeLink("ok"))
    before = time.monotonic()
    assert await world.call() == "ok" and world.road.asked == 0
    module, body, raw, timeout, keep_alive = world.road._current.calls[0]  # type: ignore[union-attr]
    assert (module, body, raw, keep_alive) == ("M", b"5", False, False)
    assert 5.0 - (time.monotonic() - before) <= timeout <= 5.0


async def test_no_call_has_more_time_than_the_longest() -> None:
    links = [FakeLink("ok"), FakeLink("ok")]
    assert await World(links[0]).call(timeout=1e9) == "ok"
    assert await World(links[1]).stream(timeout=1e9) == "ok"
    assert [link.calls[0][3] <= 600 for link in links] == [True, True]


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_a_call_that_was_not_begun_moves_to_a_new_link_as_often_as_it_takes(how: str) -> None:
    links = [FakeLink(CallMoved()) for _ in range(4)] + [FakeLink("ok")]
    world = World(*links, linked=False)
    assert await getattr(world, how)() == "ok"
    times = [link.calls[0][3] for link in links]
    assert times == sorted(times, reverse=True) and times[0] <= 5


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_a_call_does_not_move_for_ever(how: str) -> None:
    links = [FakeLink(CallMoved()) for _ in range(4)]
    with pytest.raises(Deadline):
        await getattr(World(*links, None, linked=False), how)(timeout=UNIT)


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_items_that_nobody_took_move_with_their_call(how: str) -> None:
    second = FakeLink("ok", takes=2)
    assert await getattr(World(FakeLink(CallMoved()), second), how)(items=iter("abc")) == "ok"
    assert second.items == ["a", "b"]


@pytest.mark.parametrize("how", ["call", "stream"])
async def test_items_that_were_taken_cannot_move(how: str) -> None:
    async def items() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    first, second = FakeLink(CallMoved(), takes=1), FakeLink("never")
    with pytest.raises(LinkLost, match="items cannot be sent again") as caught:
        await getattr(World(first, second), how)(items=items())
    assert first.items == ["a"] and not second.calls and caught.value.peer == "1"


# -- idempotent calls --------------------------------------------------------------------------------------------------


async def test_a_lost_link_is_the_end_of_a_call_that_is_not_idempotent() -> None:
    world = World(FakeLink(LinkLost("gone")), FakeLink("never"))
    with pytest.raises(LinkLost, match=r"^gone$"):
        await world.call()
    assert world.road.asked == 0


async def test_a_lost_link_is_the_end_of_a_stream() -> None:
    world = World(FakeLink(LinkLost("gone")), FakeLink("never"))
    with pytest.raises(LinkLost, match=r"^gone$"):
        await world.stream()


async def test_an_idempotent_call_that_lost_its_link_is_made_once_more() -> None:
    second = FakeLink("ok")
    world = World(FakeLink(LinkLost("gone")), second)
    assert await world.call(idempotent=True) == "ok"
    assert len(second.calls) == 1 and second.calls[0][3] < 5


async def test_never_a_second_time() -> None:
    world = World(FakeLink(LinkLost("gone")), FakeLink(LinkLost("gone again")), FakeLink("never"))
    with pytest.raises(LinkLost, match=r"^gone again$"):
        await world.call(idempotent=True)
    assert world.road.asked == 1


async def test_a_call_that_moves_has_its_second_chance_still() -> None:
    links = [FakeLink(CallMoved()), FakeLink(LinkLost("gone")), FakeLink(CallMoved()), FakeLink("ok")]
    assert await World(*links).call(idempotent=True) == "ok"


@pytest.mark.parametrize("error", [Busy("b"), Deadline("d"), HandlerFailed("h"), RemoteProtocolError("p")])
async def test_every_other_failure_stands(error: BoneValueError) -> None:
    world = World(FakeLink(error), FakeLink("never"))
    with pytest.raises(type(error)):
        await world.call(idempotent=True)
    assert world.road.asked == 0


async def test_a_failure_to_connect_is_no_call_that_lost_its_link() -> None:
    world = World(LinkLost("while it was set up"), FakeLink("never"), linked=False)
    with pytest.raises(LinkLost, match=r"^while it was set up$"):
        await world.call(idempotent=True)
    assert world.road.asked == 1


async def test_without_a_new_link_the_call_is_still_one_that_may_have_been_run() -> None:
    world = World(FakeLink(LinkLost("gone")), PeerOffline("peer 1 is not online"))
    with pytest.raises(LinkLost, match="gone; no new link: peer 1 is not online") as caught:
        await world.call(idempotent=True)
    assert caught.value.peer == "1" and isinstance(caught.value.__cause__, PeerOffline)


async def test_a_new_link_to_somebody_else_is_told_as_what_it_is() -> None:
    world = World(FakeLink(LinkLost("gone")), FakeLink("never", name="mallory"))
    with pytest.raises(IdentityMismatch):
        await world.call(idempotent=True)
    assert world.reports == [("identity_mismatch", "1")]


async def test_the_second_try_has_what_is_left_of_the_time() -> None:
    world = World(FakeLink(LinkLost("gone")), None)
    with pytest.raises(Deadline):
        await world.call(timeout=UNIT, idempotent=True)


async def test_cancelling_reaches_the_call() -> None:
    task = asyncio.create_task(World(FakeLink(HANG)).call(idempotent=True))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
