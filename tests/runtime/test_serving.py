"""Serving a module: responses and streams, slots in turn, rates, and what a call leaves behind however it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from bonevalue import Context
from bonevalue.counters import Counters
from bonevalue.errors import BadRequest, Busy, ConfigError, Denied, LinkLost, RateLimited, TooLarge
from bonevalue.items import MAX_ITEMS_A_TURN
from bonevalue.module import Caller
from bonevalue.serving import ModuleSet, ServedModule
from bonevalue.wire import frames
from tests.support.answers import FakeAnswer
from tests.support.waiting import until


def context_of(peer: str = "1", account: str = "alice", **extra: Any) -> Context:
    return Context(Caller(account, peer, bytes(32), "aaaa-bbbb"), 0.0, "M", **extra)


async def run(module: ServedModule, request: Any = None, answer: FakeAnswer | None = None, peer: str = "1") -> Any:
    """Run one call; gives the response, or what came of the stream."""
    answer = answer or FakeAnswer()
    await module.run(*frames.encode_body(request), context_of(peer), answer)
    return answer.came if "begin" in answer.came else answer.came[0]


def free(module: ServedModule) -> int:
    """How many calls could begin at once."""
    return module._slots.free


class Steps:
    """What a handler did, in order; its finally waits until it is let go."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.go = asyncio.Event()

    async def count(self, request: Any) -> AsyncIterator[int]:
        """Count without end."""
        number = 0
        try:
            while True:
                self.done.append(number)
                yield number
                number += 1
        finally:
            self.done.append("cleaning")
            await self.go.wait()
            self.done.append("clean")

    async def hang(self, request: Any) -> AsyncIterator[int]:
        """One item, and then none."""
        try:
            yield 0
            await asyncio.Event().wait()
        finally:
            self.done.append("clean")


# -- responses -------------------------------------------------------------------------------------------------------


class Point(BaseModel):
    x: int


async def echo(request: Any) -> Any:
    return request


@pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": [True, 2.5]}], {}, b"", b"\x00\xff"])
async def test_a_response_is_json_or_bytes(value: Any) -> None:
    assert await run(ServedModule("M", echo), value) == value


async def test_models_come_and_go_as_json() -> None:
    async def mirror(request: Point, context: Context) -> Point:
        return Point(x=-request.x)

    assert await run(ServedModule("M", mirror), {"x": "3"}) == {"x": -3}


def test_a_call_that_waits_for_nothing_needs_no_event_loop() -> None:
    module, answer = ServedModule("M", echo, rate=100), FakeAnswer(takes_stream=False)
    for number in range(3):
        with pytest.raises(StopIteration):
            module.run(b"%d" % number, False, context_of(), answer).send(None)
    assert answer.came == [0, 1, 2]
    assert free(module) == 64


async def test_what_cannot_be_sent_is_an_error_and_leaves_the_slot() -> None:
    async def junk(request: Any) -> Any:
        return object()

    module = ServedModule("M", junk, concurrency=1)
    for _ in range(2):
        with pytest.raises(TypeError):
            await run(module)
    assert free(module) == 1


async def test_a_request_that_does_not_fit_leaves_the_slot() -> None:
    async def of(request: Point) -> None:
        raise AssertionError("not to be run")

    module = ServedModule("M", of, concurrency=1)
    for _ in range(2):
        with pytest.raises(BadRequest, match="x: Field required"):
            await run(module, {})
    assert free(module) == 1


async def test_who_is_not_allowed_learns_nothing_more() -> None:
    async def count(request: Any) -> AsyncIterator[int]:
        yield 1

    module = ServedModule("M", count, allow=["bob"], rate=0.001)
    for _ in range(2):
        with pytest.raises(Denied):
            await run(module, answer=FakeAnswer(takes_stream=False))


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"rate": 0}, {"rate": -1.0}])
def test_limits_that_would_stop_everything_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="positive"):
        ServedModule("M", echo, **options)


# -- streams ---------------------------------------------------------------------------------------------------------


async def three(request: Any) -> AsyncIterator[Any]:
    for value in (request, b"\x00", Point(x=1)):
        yield value


async def three_by_return(request: Any) -> Any:
    return three(request)


async def three_by_annotated_return(request: Any) -> AsyncIterator[Any]:
    return three(request)


def three_from_a_thread(request: Any) -> Any:
    return three(request)


def three_in_a_thread(request: Any) -> Iterator[Any]:
    yield from (request, b"\x00", Point(x=1))


class Three:
    """Can be iterated, and is no generator."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return three("a")


async def three_of_an_iterable(request: Any) -> Three:
    return Three()


HANDLERS = [
    three,
    three_by_return,
    three_by_annotated_return,
    three_from_a_thread,
    three_in_a_thread,
    three_of_an_iterable,
]


@pytest.mark.parametrize("handle", HANDLERS)
async def test_a_stream_is_begun_handed_over_and_ended(handle: Callable[..., Any]) -> None:
    if handle is three_of_an_iterable:
        handle.__annotations__.pop("return", None)  # pydantic knows no such type
    module = ServedModule("M", handle, concurrency=1)
    for _ in range(2):
        assert await run(module, "a") == ["begin", "a", b"\x00", {"x": 1}, "end"]
    await until(lambda: free(module) == 1)


async def test_a_stream_of_nothing_is_a_stream() -> None:
    async def nothing(request: Any) -> AsyncIterator[int]:
        for number in range(0):
            yield number

    assert await run(ServedModule("M", nothing)) == ["begin", "end"]


async def test_a_stream_begins_before_its_first_item() -> None:
    steps, answer = Steps(), FakeAnswer()

    async def wait(request: Any) -> AsyncIterator[int]:
        await steps.go.wait()
        yield 1

    task = asyncio.create_task(run(ServedModule("M", wait), answer=answer))
    await until(lambda: answer.came)
    assert answer.came == ["begin"]
    steps.go.set()
    assert await task == ["begin", 1, "end"]


@pytest.mark.parametrize("handle", [three, three_by_annotated_return, three_in_a_thread])
async def test_who_takes_no_stream_has_nothing_run(handle: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    module, answer = ServedModule("M", handle), FakeAnswer(takes_stream=False)
    monkeypatch.setattr(module, "_handle", None)
    with pytest.raises(BadRequest, match=r"M answers with a stream: use stream\(\)"):
        await run(module, answer=answer)
    assert answer.came == [] and free(module) == 64


async def test_who_takes_no_stream_has_one_that_was_not_announced_closed() -> None:
    steps = Steps()

    async def surprise(request: Any) -> Any:
        stream = steps.hang(request)
        assert await anext(stream) == 0
        return stream

    module, answer = ServedModule("M", surprise), FakeAnswer(takes_stream=False)
    with pytest.raises(BadRequest, match=r"use stream\(\)"):
        await run(module, answer=answer)
    assert answer.came == [] and steps.done == ["clean"] and free(module) == 64


async def test_a_slow_reader_stops_the_generator() -> None:
    steps, answer = Steps(), FakeAnswer(room=2)
    steps.go.set()
    task = asyncio.create_task(run(ServedModule("M", steps.count), answer=answer))
    await until(lambda: answer.is_awaited)
    assert steps.done == [0, 1]
    answer.read(3)
    await until(lambda: len(answer.items) == 5 and answer.is_awaited)
    assert steps.done == [0, 1, 2, 3, 4]
    task.cancel()
    await asyncio.wait([task])


async def test_a_generator_that_never_waits_leaves_the_loop_its_turns() -> None:
    answer, seen = FakeAnswer(), list[int]()

    async def count(request: Any) -> AsyncIterator[int]:
        for number in range(10 * MAX_ITEMS_A_TURN):
            yield number

    async def look() -> None:
        while "end" not in answer.came:
            seen.append(len(answer.items))
            await asyncio.sleep(0)

    await asyncio.gather(run(ServedModule("M", count), answer=answer), look())
    steps = [later - earlier for earlier, later in pairwise(seen)]
    assert max(steps) <= MAX_ITEMS_A_TURN and len(answer.items) == 10 * MAX_ITEMS_A_TURN


@pytest.mark.parametrize("name", ["count", "hang"])
async def test_a_cancelled_stream_is_clean_before_its_slot_is_given_on(name: str) -> None:
    """At its ``yield``, with a reader that is slow, as well as at an ``await`` of its own."""
    steps, answer = Steps(), FakeAnswer(room=1 if name == "count" else None)
    module = ServedModule("M", getattr(steps, name), concurrency=1)
    task = asyncio.create_task(run(module, answer=answer))
    await until(lambda: answer.items and (name == "hang" or answer.is_awaited))
    second = FakeAnswer(room=1)
    following = asyncio.create_task(run(module, answer=second))
    await until(lambda: module._slots.waiting)
    task.cancel()
    if name == "count":
        await until(lambda: "cleaning" in steps.done)
        assert not task.done() and second.came == []
        steps.go.set()
    await asyncio.wait([task])
    assert task.cancelled() and "clean" in steps.done
    await until(lambda: second.items)
    following.cancel()
    await asyncio.wait([following])
    assert free(module) == 1


async def test_an_error_after_items_goes_to_who_runs_the_call() -> None:
    done: list[str] = []

    async def fail(request: Any) -> AsyncIterator[int]:
        try:
            yield 1
            raise KeyError("x")
        finally:
            done.append("clean")

    module, answer = ServedModule("M", fail), FakeAnswer()
    with pytest.raises(KeyError):
        await run(module, answer=answer)
    assert answer.came == ["begin", 1] and done == ["clean"] and free(module) == 64


async def test_an_item_that_cannot_be_sent_closes_the_generator() -> None:
    done: list[str] = []

    async def junk(request: Any) -> AsyncIterator[Any]:
        try:
            yield object()
        finally:
            done.append("clean")

    module, answer = ServedModule("M", junk), FakeAnswer()
    with pytest.raises(TypeError):
        await run(module, answer=answer)
    answer.refusal = TooLarge("an item has at most 524,288 bytes")
    steps = Steps()
    steps.go.set()
    with pytest.raises(TooLarge):
        await run(ServedModule("M", steps.count), answer=answer)
    assert answer.came == ["begin", "begin"] and done == ["clean"] and steps.done == [0, "cleaning", "clean"]


async def test_a_generator_that_swallows_its_cancelling_ends_with_its_call() -> None:
    steps, answer = Steps(), FakeAnswer()

    async def stubborn(request: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        finally:
            steps.done.append("clean")

    module = ServedModule("M", stubborn)
    task = asyncio.create_task(run(module, answer=answer))
    await until(lambda: answer.items)
    answer.refusal = LinkLost("the call is over")
    task.cancel()
    await asyncio.wait([task])
    assert isinstance(task.exception(), LinkLost) and steps.done == ["clean"] and free(module) == 64


async def test_a_stream_may_be_an_iterator_that_cannot_be_closed() -> None:
    class Two:
        def __init__(self) -> None:
            self.left = 2

        def __aiter__(self) -> Two:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    async def two(request: Any) -> Any:
        return Two()

    assert await run(ServedModule("M", two)) == ["begin", 1, 0, "end"]


async def test_items_of_the_caller_reach_the_handler() -> None:
    async def double(request: Any, context: Context) -> AsyncIterator[int]:
        async for item in context.items:
            yield 2 * item

    async def sent() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    answer = FakeAnswer()
    module = ServedModule("M", double)
    await module.run(b"null", False, context_of(items=sent()), answer)
    assert answer.items == [0, 2, 4]
    assert await run(module) == ["begin", "end"]


# -- threads ---------------------------------------------------------------------------------------------------------


async def test_a_thread_keeps_its_slot_until_it_returns_whatever_becomes_of_the_call() -> None:
    go = threading.Event()

    def block(request: Any) -> None:
        go.wait(20)

    module = ServedModule("M", block, concurrency=1)
    task = asyncio.create_task(run(module))
    await until(lambda: free(module) == 0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert free(module) == 0
    go.set()
    await until(lambda: free(module) == 1)


async def test_a_generator_in_a_thread_is_stopped_by_a_slow_reader_and_closed_at_its_yield() -> None:
    done: list[Any] = []

    def count(request: Any) -> Iterator[int]:
        try:
            for number in range(1000):
                done.append(number)
                yield number
        finally:
            done.append(threading.current_thread().name)

    module, answer = ServedModule("M", count, concurrency=1), FakeAnswer(room=2)
    task = asyncio.create_task(run(module, answer=answer))
    await until(lambda: answer.is_awaited)
    assert done == [0, 1] and answer.items == [0, 1]
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: free(module) == 1)
    assert done == [0, 1, "bonevalue-handler"]


async def test_a_generator_in_a_thread_that_blocks_keeps_its_slot() -> None:
    go, done = threading.Event(), list[str]()

    def block(request: Any) -> Iterator[int]:
        try:
            yield 1
            go.wait(20)
            yield 2
        finally:
            done.append("clean")

    module, answer = ServedModule("M", block, concurrency=1), FakeAnswer()
    task = asyncio.create_task(run(module, answer=answer))
    await until(lambda: answer.items)
    task.cancel()
    await asyncio.wait([task])
    assert free(module) == 0 and done == []
    go.set()
    await until(lambda: free(module) == 1)
    assert done == ["clean"] and answer.came == ["begin", 1]


async def test_a_thread_that_cannot_be_started_gives_its_slot_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(request: Any) -> None:
        return None

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    modules = [ServedModule("M", handle, concurrency=1) for handle in (plain, three_in_a_thread)]
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for module in modules:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="new thread"):
                await run(module)
        assert free(module) == 1


# -- slots, queues and rates -----------------------------------------------------------------------------------------


class Turns:
    """A handler that notes who is served, and ends when it is told to."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.ends: list[asyncio.Future[None]] = []

    async def handle(self, request: str) -> None:
        end = asyncio.get_running_loop().create_future()
        self.served.append(request)
        self.ends.append(end)
        await end

    async def end_all(self, count: int) -> None:
        """Let them end, one after the other."""
        for number in range(count):
            await until(lambda number=number: len(self.ends) > number)  # type: ignore[misc]
            if not self.ends[number].done():
                self.ends[number].set_result(None)


async def settle() -> None:
    """Let every task come as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_that_floods_delays_only_itself() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=1)
    flood = [asyncio.create_task(run(module, f"flood {number}", peer="9")) for number in range(50)]
    await settle()
    others = [asyncio.create_task(run(module, f"peer {number}", peer=str(number))) for number in range(3)]
    await settle()
    await turns.end_all(53)
    await asyncio.gather(*flood, *others)
    assert turns.served[:6] == ["flood 0", "flood 1", "peer 0", "peer 1", "peer 2", "flood 2"]
    assert free(module) == 1 and module.counters.limited["concurrency"] == 52


async def test_one_that_holds_its_slots_leaves_one_to_each_of_the_others() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=16)
    flood = [asyncio.create_task(run(module, f"flood {number}", peer="9")) for number in range(20)]
    others = [asyncio.create_task(run(module, f"peer {number}", peer=str(number % 2))) for number in range(4)]
    await settle()
    assert turns.served == [f"flood {number}" for number in range(14)] + ["peer 0", "peer 1"]
    for number in (14, 0, 1):
        turns.ends[number].set_result(None)
    await settle()
    assert turns.served[16:] == ["peer 2"] and free(module) == 2  # the flood and peer 1 have slots, and wait
    await turns.end_all(24)
    await asyncio.gather(*flood, *others)
    assert free(module) == 16


async def test_when_the_queue_is_full_the_newest_of_the_one_that_filled_it_is_busy() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=1)
    module.queue = 3
    flood = [asyncio.create_task(run(module, f"flood {number}", peer="9")) for number in range(5)]
    await settle()
    assert [task.done() for task in flood] == [False, False, False, False, True]
    other = asyncio.create_task(run(module, "other", peer="1"))
    await settle()
    assert [task.done() for task in flood] == [False, False, False, True, True]
    await turns.end_all(4)
    results = await asyncio.gather(*flood, other, return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 3 + [Busy, Busy, type(None)]
    assert "3 calls wait for M" in str(results[3])
    assert turns.served == ["flood 0", "flood 1", "other", "flood 2"]
    assert module.counters.limited["queue"] == 2


async def test_a_waiting_call_that_is_cancelled_leaves_the_queue() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=1)
    tasks = [asyncio.create_task(run(module, str(number))) for number in range(3)]
    await settle()
    tasks[1].cancel()
    await settle()
    assert tasks[1].cancelled() and module._slots.waiting == 1
    await turns.end_all(2)
    await asyncio.gather(tasks[0], tasks[2])
    assert turns.served == ["0", "2"] and free(module) == 1


async def test_a_slot_passes_by_a_call_that_was_cancelled_in_the_same_moment() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=1)
    tasks = [asyncio.create_task(run(module, str(number))) for number in range(3)]
    await settle()
    turns.ends[0].set_result(None)
    tasks[1].cancel()  # the first call ends before the second has woken up and left
    await asyncio.wait(tasks[:2])
    await turns.end_all(2)
    await tasks[2]
    assert tasks[1].cancelled() and turns.served == ["0", "2"] and free(module) == 1


async def test_a_call_that_is_cancelled_as_it_gets_its_slot_gives_it_on() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=1)
    tasks = [asyncio.create_task(run(module, str(number))) for number in range(3)]
    await settle()
    turns.ends[0].set_result(None)
    asyncio.get_running_loop().call_soon(
        tasks[1].cancel
    )  # the first call ends just before, the second is not yet awake
    await asyncio.wait(tasks[:2])
    await turns.end_all(2)
    await tasks[2]
    assert tasks[1].cancelled() and turns.served == ["0", "2"] and free(module) == 1


async def test_a_call_that_gave_way_and_is_cancelled_takes_no_slot_along() -> None:
    turns = Turns()
    module = ServedModule("M", turns.handle, concurrency=1)
    module.queue = 2
    flood = [asyncio.create_task(run(module, f"flood {number}", peer="9")) for number in range(3)]
    await settle()
    other = asyncio.create_task(run(module, "other", peer="1"))
    other.get_loop().call_soon(flood[2].cancel)
    await settle()
    assert flood[2].done() and module._slots.waiting == 2
    await turns.end_all(3)
    await asyncio.gather(flood[0], flood[1], other)
    assert free(module) == 1


steps_of_calls = st.lists(
    st.tuples(st.sampled_from(["call", "end", "cancel"]), st.integers(0, 40), st.booleans()), max_size=60
)


@given(steps_of_calls, st.sampled_from([2, 4, 16]))
def test_no_slot_is_lost_whatever_calls_do_in_one_turn_of_the_loop(
    steps: list[tuple[str, int, bool]], size: int
) -> None:
    async def play() -> None:
        turns, tasks = Turns(), list[asyncio.Task[Any]]()
        module = ServedModule("M", turns.handle, concurrency=size)
        module.queue = 5
        tasks += [asyncio.create_task(run(module, "", peer=str(number % 6))) for number in range(size + 4)]
        await settle()
        for step, number, pause in steps:
            if step == "call":
                tasks.append(asyncio.create_task(run(module, str(number), peer=str(number % 3))))
            elif step == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif step == "end" and turns.ends:
                end = turns.ends[number % len(turns.ends)]
                if not end.done():
                    end.set_result(None)
            if pause:
                await asyncio.sleep(0)
            assert 0 <= free(module) <= size and module._slots.waiting <= 5
        while any(not task.done() for task in tasks):
            for end in turns.ends:
                if not end.done():
                    end.set_result(None)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert free(module) == size and module._slots.waiting == 0

    asyncio.run(play())


async def test_a_rate_is_kept_for_each_peer_by_itself() -> None:
    module = ServedModule("M", echo, rate=0.001)
    assert await run(module, 1, peer="1") == 1
    for _ in range(2):
        with pytest.raises(RateLimited, match=r"0\.001 calls a second") as caught:
            await run(module, 1, peer="1")
        assert caught.value.retry_after is not None and 900 < caught.value.retry_after <= 1000
    assert await run(module, 2, peer="2") == 2
    assert module.counters.limited["rate"] == 2


async def test_a_rate_lets_one_second_of_it_through_at_once() -> None:
    module = ServedModule("M", echo, rate=5)
    for number in range(5):
        assert await run(module, number) == number
    with pytest.raises(RateLimited):
        await run(module)


def test_modules_of_a_peer_count_in_one_place_and_have_one_queue() -> None:
    counters = Counters()
    modules = ModuleSet(counters, queue=7)
    module = ServedModule("M", echo)
    modules.add(module)
    assert module.counters is counters and module.queue == 7
    with pytest.raises(ConfigError, match="second module"):
        modules.add(ServedModule("M", echo))
