"""Asking many: results as they come, caps, quorums, and that nobody goes on working for a caller who has left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bonevalue.errors import Cancelled, Denied, NoModule
from bonevalue.results import Result, Results
from bonevalue.wire.signals import PeerEntry
from tests.support.waiting import other_tasks, until

PEERS = [PeerEntry("bob", str(number)) for number in range(1, 8)]


class Crowd:
    """Peers that answer when told to: with their id, or as they were told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.most = 0
        self._answers: dict[str, asyncio.Future[Any]] = {}

    async def ask(self, peer: PeerEntry) -> Any:
        self.asked.append(peer.id)
        answer = self._answers[peer.id] = asyncio.get_running_loop().create_future()
        self.most = max(self.most, len(self._answers))
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled.append(peer.id)
            raise
        finally:
            del self._answers[peer.id]

    def answer(self, *ids: str, error: Exception | None = None) -> None:
        for each in ids:
            if error is None:
                self._answers[each].set_result(each)
            else:
                self._answers[each].set_exception(error)

    async def asks(self, count: int) -> None:
        await until(lambda: len(self.asked) == count)


def begun(results: Results) -> asyncio.Future[Result]:
    """Wait for the next result, beside."""
    return asyncio.ensure_future(anext(results))


async def rest(results: Results) -> list[str]:
    """Whose results still come, in which order."""
    return [result.peer.id async for result in results]


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"first": 0}, {"concurrency": -1}, {"first": -1}])
async def test_less_than_one_makes_no_sense(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Results(PEERS, Crowd().ask, **options)


async def test_nobody_to_ask_gives_no_result() -> None:
    results = Results([], Crowd().ask, first=2)
    assert results.asked == 0 and await rest(results) == []


async def test_peers_without_the_module_are_told_apart_from_those_that_failed() -> None:
    crowd = Crowd()
    results = Results(PEERS[:4], crowd.ask)
    first = begun(results)
    await crowd.asks(4)
    crowd.answer("3", error=NoModule("no module 'M' here"))
    crowd.answer("2", error=Denied("no"))
    crowd.answer("1", "4")
    found = [await first, *[result async for result in results]]
    assert [(result.peer.id, result.response) for result in found] == [("3", None), ("2", None), ("1", "1"), ("4", "4")]
    assert [type(result.error) for result in found] == [NoModule, Denied, type(None), type(None)]
    assert (results.asked, results.answered, results.without, results.failed) == (4, 2, 1, 1)


async def test_a_bug_is_raised_and_stops_the_others() -> None:
    crowd = Crowd()
    first = begun(results := Results(PEERS, crowd.ask))
    await crowd.asks(7)
    crowd.answer("4", error=TypeError("a bug"))
    with pytest.raises(TypeError, match="a bug"):
        await first
    assert len(crowd.cancelled) == 6 and await rest(results) == []


async def test_a_call_that_somebody_else_cancels_is_an_error_of_that_peer() -> None:
    crowd = Crowd()
    results = Results(PEERS[:2], crowd.ask)
    mine = other_tasks()
    first = begun(results)
    await crowd.asks(2)
    (other_tasks() - mine - {first}).pop().cancel()
    assert isinstance((await first).error, Cancelled)
    await results.aclose()


async def test_leaving_the_loop_cancels_the_rest() -> None:
    crowd = Crowd()

    async def take_one() -> None:
        async for result in Results(PEERS, crowd.ask):
            assert result.peer.id == "5"
            break

    taking = asyncio.create_task(take_one())
    await crowd.asks(7)
    crowd.answer("5")
    await taking
    await until(lambda: len(crowd.cancelled) == 6)


async def test_closing_returns_when_the_calls_have_ended() -> None:
    crowd = Crowd()
    async with Results(PEERS, crowd.ask, concurrency=3) as results:
        first = begun(results)
        await crowd.asks(3)
        crowd.answer("2")
        assert (await first).response == "2"
    assert sorted(crowd.cancelled) == ["1", "3", "4"] and len(crowd.asked) == 4
    await results.aclose()
    assert await rest(results) == []


async def test_cancelling_who_waits_cancels_the_calls() -> None:
    crowd = Crowd()
    first = begun(results := Results(PEERS, crowd.ask))
    await crowd.asks(7)
    first.cancel()
    await asyncio.wait({first})
    assert first.cancelled() and len(crowd.cancelled) == 7 and await rest(results) == []


async def test_dropping_cancels_the_calls() -> None:
    crowd = Crowd()
    results = Results(PEERS, crowd.ask)
    first = begun(results)
    await crowd.asks(7)
    crowd.answer("1")
    await first
    del results, first  # a task keeps what it ran
    await until(lambda: len(crowd.cancelled) == 6)
    await until(lambda: not other_tasks())


# -- what goes well ----------------------------------------------------------------------------------------------------


async def test_all_are_asked_at_once_but_nobody_before_the_first_result_is_wanted() -> None:
    crowd = Crowd()
    results = Results(PEERS, crowd.ask)
    await asyncio.sleep(0)
    assert results.asked == 7 and not crowd.asked
    first = begun(results)
    await crowd.asks(7)
    crowd.answer("6", "1", "7", "2", "5", "3", "4")
    assert [(await first).peer.id, *await rest(results)] == ["6", "1", "7", "2", "5", "3", "4"]
    assert results.answered == 7 and not other_tasks()


async def test_no_more_than_the_cap_are_asked_at_the_same_time_and_others_as_these_end() -> None:
    """Whether or not anybody looks at the results meanwhile."""
    crowd = Crowd()
    results = Results(PEERS, crowd.ask, concurrency=2)
    first = begun(results)
    await crowd.asks(2)
    for number in range(1, 8):
        crowd.answer(str(number), error=Denied("no") if number % 2 else None)
        await crowd.asks(min(number + 2, 7))
    assert [(await first).peer.id, *await rest(results)] == list("1234567")
    assert crowd.most == 2 and (results.answered, results.failed) == (3, 4)


async def test_enough_good_answers_end_it_and_cancel_the_rest_at_once() -> None:
    """Also while nobody waits for the next result."""
    crowd = Crowd()
    results = Results(PEERS, crowd.ask, first=2)
    first = begun(results)
    await crowd.asks(7)
    crowd.answer("3", error=Denied("no"))
    crowd.answer("1")
    assert (await first).peer.id == "3"
    crowd.answer("2")
    await until(lambda: len(crowd.cancelled) == 4)
    assert await rest(results) == ["1", "2"]
    assert (results.answered, results.failed) == (2, 1) and not other_tasks()


async def test_answers_that_come_together_are_no_more_than_were_wanted() -> None:
    crowd = Crowd()
    results = Results(PEERS, crowd.ask, first=2)
    first = begun(results)
    await crowd.asks(7)
    crowd.answer(*"1234567")
    assert [(await first).peer.id, *await rest(results)] == ["1", "2"] and results.answered == 2


async def test_enough_answers_leave_those_who_wait_unasked() -> None:
    crowd = Crowd()
    results = Results(PEERS, crowd.ask, concurrency=1, first=1)
    first = begun(results)
    await crowd.asks(1)
    crowd.answer("1", error=Denied("no"))
    await crowd.asks(2)
    crowd.answer("2")
    assert [(await first).peer.id, *await rest(results)] == ["1", "2"] and crowd.asked == ["1", "2"]


async def test_wanting_more_answers_than_there_are_peers_is_wanting_all() -> None:
    crowd = Crowd()
    results = Results(PEERS[:2], crowd.ask, first=5)
    first = begun(results)
    await crowd.asks(2)
    crowd.answer("2", "1")
    assert [(await first).peer.id, *await rest(results)] == ["2", "1"]
