"""Calls, streams and fan-out between real peers of a real server, over links in memory that a test may cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bonevalue.config import PeerSettings
from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Deadline,
    HandlerFailed,
    LinkLost,
    NoModule,
    NoTarget,
    RateLimited,
    TooLarge,
)
from bonevalue.link_memory import MemoryNetwork
from bonevalue.module import Context
from bonevalue.peer import ModuleDescription, Peer, PeerEntry
from tests.support.evil import Stage, open_stage, password_of
from tests.support.waiting import UNIT, until


class Party:
    """Peers of one account."""

    def __init__(self, stage: Stage) -> None:
        self.network = MemoryNetwork()
        self.peers: list[Peer] = []
        #: What handlers wrote down.
        self.seen: list[Any] = []
        #: What they wait for.
        self.go = asyncio.Event()
        self._stage = stage

    def peer(self, **settings: Any) -> Peer:
        """One that is not started."""
        values = {
            "server": {"address": self._stage.address},
            "credentials": {"username": "alice", "password": password_of("alice")},
            **settings,
        }
        peer = Peer.from_settings(PeerSettings.model_validate(values), engine=self.network.engine())
        self.peers.append(peer)
        return peer

    async def join(self, **settings: Any) -> Peer:
        """One that is online, serves the handlers below and sees the others."""
        peer = self.peer(**settings)
        peer.module("Echo", self.echo)
        peer.module("Wait", self.wait)
        peer.module("Count", self.count)
        peer.module("Tail", self.tail)
        peer.module("Add", self.add)
        peer.module("Both", self.both)
        peer.module("Busy", self.wait, concurrency=1)
        await peer.start()
        online = [each for each in self.peers if each.is_online]
        await until(lambda: all(len(each.peers()) == len(online) - 1 for each in online))
        return peer

    async def pair(self) -> tuple[Peer, Peer]:
        """Who calls, and who is called."""
        return await self.join(), await self.join()

    async def echo(self, request: Any) -> Any:
        """Says it back."""
        return request

    async def wait(self, request: Any, context: Context) -> Any:
        """Answers when it may."""
        self.seen.append(("begun", request))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.seen.append(("cancelled", request))
            raise
        return request

    async def count(self, request: int) -> AsyncIterator[int]:
        """Counts up to the request."""
        try:
            for number in range(request):
                yield number
        finally:
            self.seen.append("counted")

    async def tail(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """Some items, then one more when it may, then an error."""
        try:
            yield {"first": request}
            yield b"\x00raw"
            await self.go.wait()
            yield "last"
            raise RuntimeError("on purpose")
        finally:
            self.seen.append("tail closed")

    async def add(self, request: Any, context: Context) -> int:
        """Adds up the items."""
        total = 0
        try:
            async for item in context.items:
                total += item
                self.seen.append(total)
        except asyncio.CancelledError:
            self.seen.append("add cancelled")
            raise
        return total

    async def both(self, request: Any, context: Context) -> AsyncIterator[Any]:
        """Says each item back as it comes."""
        try:
            async for item in context.items:
                yield item
        finally:
            self.seen.append("both closed")

    @property
    def active(self) -> int:
        """How many calls are under way on all links of all peers."""
        return sum(link.active for peer in self.peers for link in peer._links.pool.links())

    async def quiet(self) -> None:
        """Wait until nothing is left of any call."""
        await until(lambda: not self.active, what="no call is under way")
        await until(lambda: not any(peer._host.running for peer in self.peers), what="no handler runs")


@pytest.fixture
async def party(tmp_path: Path) -> AsyncIterator[Party]:
    async with open_stage(tmp_path, "alice") as stage:
        party = Party(stage)
        yield party
        await asyncio.gather(*(peer.stop(0.0) for peer in party.peers))


# -- before and after --------------------------------------------------------------------------------------------------


async def test_a_peer_that_is_not_started_has_nobody_to_call(party: Party) -> None:
    peer = party.peer()
    assert peer.peers() == [] and peer.aliases == () and not peer.is_online
    for query in ("*", "Us", "bob", "123"):
        target = peer.get(query)
        assert target.peers() == [] and target.call_all("Echo").asked == 0
        with pytest.raises(NoTarget):
            await target.call("Echo")
        with pytest.raises(NoTarget):
            await anext(target.stream("Echo"))


async def test_a_peer_that_was_stopped_calls_nobody(party: Party) -> None:
    ours, theirs = await party.pair()
    await ours.stop()
    with pytest.raises(BoneValueError) as caught:
        await ours.get(theirs.id).call("Echo")
    assert caught.value.code == "unavailable"


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_a_stream_to_a_module_that_is_not_there(party: Party) -> None:
    ours, theirs = await party.pair()
    stream = ours.get("Us").stream("Nope")
    with pytest.raises(NoModule) as caught:
        await anext(stream)
    assert stream.peer == PeerEntry("Us", theirs.id) and caught.value.peer == theirs.id
    await party.quiet()


async def test_a_plain_call_does_not_run_a_handler_that_streams(party: Party) -> None:
    ours, _ = await party.pair()
    with pytest.raises(BadRequest, match=r"Count answers with a stream: use stream\(\), or bv call --stream"):
        await ours.get("Us").call("Count", 3)
    assert party.seen == []


async def test_a_handler_that_fails_breaks_its_stream_off_after_its_items(party: Party) -> None:
    ours, theirs = await party.pair()
    party.go.set()
    items: list[Any] = []
    with pytest.raises(HandlerFailed) as caught:
        async for item in ours.get("Us").stream("Tail", 7):
            items.append(item)
    assert items == [{"first": 7}, b"\x00raw", "last"] and caught.value.peer == theirs.id
    await party.quiet()


async def test_a_link_that_is_lost_breaks_a_stream_off_after_its_items(party: Party) -> None:
    ours, theirs = await party.pair()
    stream = ours.get("Us").stream("Tail", 7)
    assert await anext(stream) == {"first": 7}
    assert await anext(stream) == b"\x00raw"
    party.network.cut()
    with pytest.raises(LinkLost) as caught:
        await anext(stream)
    assert caught.value.peer == theirs.id
    await until(lambda: party.seen == ["tail closed"])
    await party.quiet()


async def test_a_stream_that_does_not_begin_in_time_fails(party: Party) -> None:
    ours, _ = await party.pair()
    first = asyncio.create_task(ours.get("Us").call("Busy"))
    await until(lambda: party.seen)
    with pytest.raises(Deadline):
        await anext(ours.get("Us").stream("Busy", timeout=UNIT))
    party.go.set()
    await first
    await party.quiet()


async def test_a_stream_that_has_begun_has_no_deadline(party: Party) -> None:
    ours, _ = await party.pair()
    await ours.get("Us").call("Echo")
    stream = ours.get("Us").stream("Tail", timeout=10 * UNIT)
    assert await anext(stream) == {"first": None}
    await asyncio.sleep(12 * UNIT)
    party.go.set()
    assert [await anext(stream), await anext(stream)] == [b"\x00raw", "last"]
    await stream.aclose()


@pytest.mark.parametrize("way", ["break", "aclose", "drop", "raise", "cancel", "time out"])
async def test_every_way_to_leave_a_stream_closes_the_generator_of_its_handler(party: Party, way: str) -> None:
    ours, _ = await party.pair()
    target = ours.get("Us")

    async def consume() -> None:
        if way == "break":
            async for _ in target.stream("Tail"):
                break
            return
        stream = target.stream("Tail")
        await anext(stream)
        if way == "aclose":
            await stream.aclose()
        elif way == "raise":
            async with stream:
                raise ZeroDivisionError
        elif way == "time out":
            async with asyncio.timeout(UNIT), stream:
                async for _ in stream:
                    pass
        elif way == "cancel":
            async for _ in stream:
                pass

    task = asyncio.create_task(consume())
    if way == "cancel":
        await until(lambda: party.active)
        await asyncio.sleep(UNIT)
        task.cancel()
    await asyncio.wait({task})
    await until(lambda: party.seen == ["tail closed"])
    await party.quiet()
    expected = {"raise": ZeroDivisionError, "time out": TimeoutError}.get(way)
    assert task.cancelled() if way == "cancel" else type(task.exception()) is (expected or type(None))
    assert await target.call("Echo", 1) == 1


async def test_items_come_in_order_and_a_plain_answer_is_a_stream_of_one(party: Party) -> None:
    ours, theirs = await party.pair()
    stream = ours.get("Us").stream("Count", 2000)
    assert [item async for item in stream] == list(range(2000))
    assert stream.peer == PeerEntry("Us", theirs.id)
    assert [item async for item in ours.get("Us").stream("Count", 0)] == []
    assert [item async for item in ours.get("Us").stream("Echo", {"a": 1})] == [{"a": 1}]
    await party.quiet()


# -- items of the caller -----------------------------------------------------------------------------------------------


async def test_an_iterator_that_raises_cancels_its_call_and_raises_at_the_caller(party: Party) -> None:
    ours, _ = await party.pair()

    async def items() -> AsyncIterator[int]:
        yield 1
        await until(lambda: party.seen == [1])
        raise ValueError("no more of these")

    for call in (ours.get("Us").call("Add", items=items()), anext(ours.get("Us").stream("Add", items=items()))):
        party.seen.clear()
        with pytest.raises(ValueError, match="no more of these"):
            await call
        await until(lambda: party.seen == [1, "add cancelled"])
    await party.quiet()


async def test_an_item_that_is_too_long_or_no_json(party: Party) -> None:
    ours, _ = await party.pair()
    with pytest.raises(TooLarge, match="524288"):
        await ours.get("Us").call("Add", items=[1, b"x" * 524_289])
    with pytest.raises(TypeError, match="neither bytes nor JSON"):
        await ours.get("Us").call("Add", items=[1, object()])
    await party.quiet()


async def test_cancelling_a_call_ends_its_iterator(party: Party) -> None:
    ours, _ = await party.pair()
    ended: list[str] = []

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended.append("closed")

    task = asyncio.create_task(ours.get("Us").call("Add", items=items()))
    await until(lambda: party.seen == [1])
    task.cancel()
    await asyncio.wait({task})
    await until(lambda: ended and party.seen == [1, "add cancelled"])
    await party.quiet()


async def test_items_may_come_from_any_iterable(party: Party) -> None:
    ours, _ = await party.pair()

    async def slowly() -> AsyncIterator[int]:
        for number in range(5):
            yield number
            await asyncio.sleep(0)

    target = ours.get("Us")
    assert await target.call("Add", items=[1, 2, 3]) == 6
    assert await target.call("Add", items=iter(range(1000))) == 499_500
    assert await target.call("Add", items=slowly()) == 10
    assert await target.call("Add", items=()) == 0
    assert await target.call("Add") == 0


async def test_both_ways_at_once(party: Party) -> None:
    ours, _ = await party.pair()
    sent: asyncio.Queue[Any] = asyncio.Queue()

    async def items() -> AsyncIterator[Any]:
        while (item := await sent.get()) is not None:
            yield item

    stream = ours.get("Us").stream("Both", items=items())
    for item in (1, b"two", {"three": 3}):
        sent.put_nowait(item)
        assert await anext(stream) == item
    sent.put_nowait(None)
    assert [item async for item in stream] == [] and party.seen == ["both closed"]
    await party.quiet()


# -- fan-out -----------------------------------------------------------------------------------------------------------


async def test_everyone_is_asked_and_who_does_not_serve_it_is_told_apart(party: Party) -> None:
    ours = await party.join()
    others = [await party.join() for _ in range(3)]
    bare = party.peer()
    await bare.start()
    limited = party.peer()
    limited.module("Echo", party.echo, rate=0.001)
    await limited.start()
    await until(lambda: len(ours.peers()) == 5)
    await ours.get(limited.id).call("Echo")
    async with ours.get("*").call_all("Echo", {"a": 1}) as results:
        found = {result.peer.id: result async for result in results}
    assert {each: found[each].response for each in (peer.id for peer in others)} == {
        peer.id: {"a": 1} for peer in others
    }
    assert isinstance(found[bare.id].error, NoModule) and isinstance(found[limited.id].error, RateLimited)
    assert (results.asked, results.answered, results.without, results.failed) == (5, 3, 1, 1)


async def test_enough_answers_cancel_the_others_where_they_run(party: Party) -> None:
    ours = await party.join()
    for number in range(4):
        peer = party.peer()
        peer.module("Race", party.echo if number < 2 else party.wait)
        await peer.start()
    await until(lambda: len(ours.peers()) == 4)
    results = ours.get("*").call_all("Race", "x", first=2)
    assert [result.response async for result in results] == ["x", "x"] and results.answered == 2
    await party.quiet()
    assert [what for what, _ in party.seen] in (
        [],
        ["begun", "cancelled"],
        ["begun", "begun", "cancelled", "cancelled"],
    )


async def test_leaving_cancels_the_others_where_they_run(party: Party) -> None:
    ours = await party.join()
    for _ in range(3):
        await party.join()
    results = ours.get("*").call_all("Wait")
    waiting = asyncio.ensure_future(anext(results))
    await until(lambda: len(party.seen) == 3)
    waiting.cancel()
    await asyncio.wait({waiting})
    await until(lambda: [what for what, _ in party.seen].count("cancelled") == 3)
    await party.quiet()


async def test_the_time_of_a_peer_begins_when_it_is_asked(party: Party) -> None:
    """One after the other, three of them take longer than any of them may."""
    ours = await party.join()

    async def slow(request: Any) -> str:
        await asyncio.sleep(6 * UNIT)
        return "done"

    for _ in range(3):
        peer = party.peer()
        peer.module("Slow", slow)
        await peer.start()
    await until(lambda: len(ours.peers()) == 3)
    results = ours.get("*").call_all("Slow", timeout=14 * UNIT, concurrency=1)
    assert [result.response async for result in results] == ["done"] * 3
    late = [result.error async for result in ours.get("*").call_all("Slow", timeout=3 * UNIT)]
    assert [type(error) for error in late] == [Deadline] * 3


async def test_a_broadcast_to_more_peers_than_links_with_callbacks(party: Party) -> None:
    ours = await party.join(pool={"max_outgoing": 2})
    for _ in range(6):
        await party.join()
    answers: list[Any] = []
    ours.get("*").message("Echo", "x", keep_alive=False, callback=answers.append)
    await until(lambda: answers == ["x"] * 6)


# -- a lost link -------------------------------------------------------------------------------------------------------


async def test_a_call_that_loses_its_link_fails_at_once(party: Party) -> None:
    ours, theirs = await party.pair()
    call = asyncio.create_task(ours.get("Us").call("Wait", 1))
    await until(lambda: party.seen == [("begun", 1)])
    party.network.cut()
    with pytest.raises(LinkLost) as caught:
        await call
    assert caught.value.peer == theirs.id
    await until(lambda: party.seen == [("begun", 1), ("cancelled", 1)])
    await party.quiet()


async def test_an_idempotent_call_is_made_once_more_over_a_new_link(party: Party) -> None:
    ours, _ = await party.pair()
    call = asyncio.create_task(ours.get("Us").call("Wait", 1, idempotent=True))
    await until(lambda: party.seen == [("begun", 1)])
    party.network.cut()
    await until(lambda: party.seen.count(("begun", 1)) == 2)
    party.go.set()
    assert await call == 1
    await party.quiet()


async def test_an_idempotent_call_is_made_twice_at_most(party: Party) -> None:
    ours, _ = await party.pair()
    call = asyncio.create_task(ours.get("Us").call("Wait", 1, idempotent=True))
    for times in (1, 2):
        await until(lambda times=times: party.seen.count(("begun", 1)) == times)  # type: ignore[misc]
        party.network.cut()
    with pytest.raises(LinkLost):
        await call
    await party.quiet()
    assert party.seen.count(("begun", 1)) == 2


# -- introspection -----------------------------------------------------------------------------------------------------


async def test_a_peer_describes_what_it_serves_to_the_caller(party: Party) -> None:
    ours, theirs = await party.pair()
    theirs.module("Closed", party.echo, allow=["bob"])
    described = {module.name: module for module in await ours.get("Us").modules()}
    assert list(described) == sorted(described) and "Closed" not in described
    assert described["Count"] == ModuleDescription(
        "Count", "Counts up to the request.", True, {"type": "integer"}, {"type": "integer"}
    )
    assert described["Echo"] == ModuleDescription("Echo", "Says it back.", False, None, None)
    assert described["Tail"].stream and described["Both"].stream and not described["Add"].stream
    own = described["bv.modules"]
    assert not own.stream and own.response is not None and own.response["type"] == "array"
