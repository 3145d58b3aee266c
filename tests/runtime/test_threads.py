"""Plain functions and generators in threads of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from bonevalue.threads import CallThread, GeneratorThread

who: ContextVar[str] = ContextVar("who", default="nobody")


async def test_a_function_runs_in_a_thread_with_the_context_of_its_caller() -> None:
    who.set("alice")
    thread = CallThread(lambda *numbers: (sum(numbers), who.get(), threading.current_thread().daemon), (1, 2))
    assert await thread.result() == (3, "alice", True)
    assert thread.ended.done()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (KeyError("x"), KeyError),
        (StopIteration(), RuntimeError),
        (StopAsyncIteration(), RuntimeError),
        (SystemExit(3), RuntimeError),
    ],
)
async def test_what_a_thread_raises_is_raised_on_the_loop_if_the_loop_survives_it(
    raised: BaseException, seen: type[Exception]
) -> None:
    def fail() -> None:
        raise raised

    def fail_later() -> Iterator[int]:
        yield 1
        raise raised

    with pytest.raises(seen):
        await CallThread(fail, ()).result()
    items = GeneratorThread(fail_later, ())
    assert await anext(items) == 1
    with pytest.raises(RuntimeError if isinstance(raised, StopIteration) else seen):
        await anext(items)
    assert items.ended.done()
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_a_generator_goes_on_only_when_it_is_asked() -> None:
    done: list[int] = []

    def count() -> Iterator[int]:
        for number in range(3):
            done.append(number)
            yield number

    items = GeneratorThread(count, ())
    assert done == []
    assert await anext(items) == 0 and done == [0]
    assert [item async for item in items] == [1, 2]
    assert items.ended.done()


async def test_a_generator_that_is_closed_before_its_first_item_is_not_run() -> None:
    done: list[str] = []

    def count() -> Iterator[int]:
        done.append("begun")
        yield 1

    items = GeneratorThread(count, ())
    await items.aclose()
    await items.ended
    assert done == [] and [item async for item in items] == []


async def test_closing_reaches_a_generator_at_its_next_yield() -> None:
    go, done = threading.Event(), list[str]()

    def count() -> Iterator[int]:
        try:
            yield 1
            go.wait(20)
            yield 2
        finally:
            done.append("clean")

    items = GeneratorThread(count, ())
    assert await anext(items) == 1
    waiting = asyncio.ensure_future(anext(items))
    await asyncio.sleep(0)
    waiting.cancel()
    await items.aclose()
    assert not items.ended.done() and done == []
    go.set()
    await items.ended
    assert done == ["clean"]


async def test_the_end_of_a_call_can_be_waited_for_after_it_was_given_up() -> None:
    go = threading.Event()
    thread = CallThread(go.wait, (20,))
    task = asyncio.ensure_future(thread.result())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert not thread.ended.done()
    go.set()
    await thread.ended


async def test_an_error_that_nobody_waits_for_any_more_is_dropped() -> None:
    go = threading.Event()

    def fail() -> None:
        go.wait(20)
        raise KeyError("x")

    thread = CallThread(fail, ())
    task = asyncio.ensure_future(thread.result())
    await asyncio.sleep(0)
    task.cancel()
    go.set()
    await thread.ended
    assert task.cancelled()
