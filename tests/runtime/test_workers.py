"""Jobs in shared tasks: each as if it had a task of its own, on asyncio's event loop and on uvloop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from bonevalue.workers import MAX_JOBS_A_TURN, Job, Workers
from tests.support.waiting import UNIT, until

Scenario = Callable[[Workers], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]

#: Stands for whatever a job keeps in a context variable.
MINE: contextvars.ContextVar[str] = contextvars.ContextVar("MINE", default="nobody's")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario with workers of its own; afterwards nothing is left of them."""

    def play(scenario: Scenario) -> None:
        async def whole() -> None:
            workers = Workers()
            complaints: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
            async with asyncio.timeout(20):
                await scenario(workers)
                await until(lambda: not workers.tasks)
            assert asyncio.all_tasks() == {asyncio.current_task()}
            gc.collect()
            assert not complaints

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(whole())

    return play


async def ended(workers: Workers) -> None:
    """Wait until no job runs."""
    await until(lambda: not workers.tasks)


# -- what a job sees ---------------------------------------------------------------------------------------------------


def test_context_variables_are_a_jobs_own(run: Run) -> None:
    seen: list[tuple[str, str, str]] = []

    async def job(name: str, pauses: int) -> None:
        before = MINE.get()
        MINE.set(name)
        for _ in range(pauses):
            await asyncio.sleep(0)
        seen.append((name, before, MINE.get()))

    async def scenario(workers: Workers) -> None:
        MINE.set("starter's")
        for number in range(20):
            workers.start(job(f"{number}", number % 4))
        MINE.set("later")
        await ended(workers)
        assert MINE.get() == "later"

    run(scenario)
    assert sorted(int(name) for name, _, _ in seen) == list(range(20))
    assert all(before == "starter's" and after == name for name, before, after in seen)


def test_what_a_job_starts_has_its_context(run: Run) -> None:
    found: list[str] = []

    async def child() -> None:
        found.append(MINE.get())

    async def job(name: str) -> None:
        MINE.set(name)
        await asyncio.sleep(0)
        await asyncio.create_task(child())
        await asyncio.gather(child(), child())
        asyncio.get_running_loop().call_soon(lambda: found.append(MINE.get()))
        found.append(await asyncio.to_thread(MINE.get))
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    async def scenario(workers: Workers) -> None:
        for name in ("a", "b"):
            workers.start(job(name))
        await ended(workers)

    run(scenario)
    assert sorted(found) == ["a"] * 6 + ["b"] * 6


def test_a_job_is_in_one_task_from_its_first_step_to_its_last(run: Run) -> None:
    tasks: dict[int, set[asyncio.Task[Any] | None]] = {}

    async def job(number: int) -> None:
        mine = tasks.setdefault(number, set())
        for _ in range(number % 5):
            mine.add(asyncio.current_task())
            await asyncio.sleep(0)
        mine.add(asyncio.current_task())

    async def scenario(workers: Workers) -> None:
        for number in range(50):
            workers.start(job(number))
        await ended(workers)

    run(scenario)
    assert len(tasks) == 50 and all(len(mine) == 1 and None not in mine for mine in tasks.values())


def test_timeouts_groups_and_threads_work_inside(run: Run) -> None:
    results: list[str] = []

    async def timed() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(UNIT / 5):
                await asyncio.Event().wait()
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        results.append("timeout")

    async def failing() -> None:
        raise ValueError("a child")

    async def grouped() -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(failing())
                await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0
        await asyncio.sleep(0)
        results.append("group")

    async def gathered() -> None:
        assert list(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(UNIT / 5, 2))) == [1, 2]
        results.append("gather")

    async def threaded() -> None:
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        results.append("thread")

    async def waited() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), UNIT / 5)
        results.append("wait_for")

    async def scenario(workers: Workers) -> None:
        for _ in range(3):
            for job in (timed, grouped, gathered, threaded, waited):
                workers.start(job())
        await ended(workers)

    run(scenario)
    assert sorted(results) == sorted(["timeout", "group", "gather", "thread", "wait_for"] * 3)


# -- who waits for whom ------------------------------------------------------------------------------------------------


def test_a_thousand_jobs_begin_in_the_order_in_which_they_were_started(run: Run) -> None:
    begun: list[int] = []
    tasks: set[asyncio.Task[Any] | None] = set()

    async def job(number: int) -> None:
        begun.append(number)
        tasks.add(asyncio.current_task())
        if number % 100 == 0:
            await asyncio.sleep(0)

    async def scenario(workers: Workers) -> None:
        for number in range(1000):
            workers.start(job(number))
        await ended(workers)

    run(scenario)
    assert begun == list(range(1000))
    most = 10 + 1000 // MAX_JOBS_A_TURN + 1
    assert len(tasks) <= most, "one for each job that waited, and one for each batch"


def test_nothing_runs_before_the_next_turn_of_the_loop(run: Run) -> None:
    begun: list[int] = []

    async def job() -> None:
        begun.append(1)

    async def scenario(workers: Workers) -> None:
        workers.start(job())
        assert not begun
        await asyncio.sleep(0)
        assert begun

    run(scenario)


def test_jobs_that_wait_do_not_hold_up_the_others(run: Run) -> None:
    order: list[str] = []

    async def scenario(workers: Workers) -> None:
        go = asyncio.Event()

        async def waits(name: str) -> None:
            await go.wait()
            order.append(name)

        async def short(name: str) -> None:
            order.append(name)

        for number in range(10):
            workers.start(waits(f"waits {number}"))
            workers.start(short(f"short {number}"))
        await until(lambda: len(order) == 10)
        assert order == [f"short {number}" for number in range(10)] and len(workers.tasks) == 10
        go.set()
        await ended(workers)

    run(scenario)
    assert sorted(order[10:]) == [f"waits {number}" for number in range(10)]


def test_jobs_start_jobs(run: Run) -> None:
    done: list[int] = []

    async def scenario(workers: Workers) -> None:
        async def job(depth: int, pauses: bool) -> None:
            if depth:
                workers.start(job(depth - 1, not pauses))
                workers.start(job(depth - 1, pauses))
            if pauses:
                await asyncio.sleep(0)
            done.append(depth)

        workers.start(job(6, True))
        await until(lambda: len(done) == 127)

    run(scenario)


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_a_job_that_is_cancelled_before_it_begins_does_not_begin(run: Run) -> None:
    begun: list[str] = []

    async def job(name: str) -> None:
        begun.append(name)

    async def scenario(workers: Workers) -> None:
        jobs = [workers.start(job(name)) for name in "abc"]
        jobs[1].cancel()
        jobs[1].cancel()
        await ended(workers)

    run(scenario)
    assert begun == ["a", "c"]


def test_a_job_may_cancel_one_that_waits_behind_it(run: Run) -> None:
    begun: list[str] = []

    async def scenario(workers: Workers) -> None:
        async def first() -> None:
            begun.append("first")
            second.cancel()

        async def job(name: str) -> None:
            begun.append(name)

        workers.start(first())
        second = workers.start(job("second"))
        workers.start(job("third"))
        await ended(workers)

    run(scenario)
    assert begun == ["first", "third"]


def test_a_job_that_waits_is_cancelled_and_cleans_up(run: Run) -> None:
    seen: list[str] = []

    async def scenario(workers: Workers) -> None:
        go = asyncio.Event()

        async def job() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                seen.append("cleaned up")
                raise

        async def other() -> None:
            await go.wait()
            seen.append("other")

        cancelled = workers.start(job())
        workers.start(other())
        await until(lambda: len(workers.tasks) == 2)
        cancelled.cancel()
        await until(lambda: len(workers.tasks) == 1)
        go.set()
        await ended(workers)

    run(scenario)
    assert seen == ["cleaned up", "other"]


def test_a_swallowed_cancel_is_the_jobs_own_affair(run: Run) -> None:
    seen: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("swallowed")
        await asyncio.sleep(0)
        seen.append("went on")

    async def after() -> None:
        task = asyncio.current_task()
        assert task is not None and not task.cancelling()
        await asyncio.sleep(0)
        seen.append("after")

    async def scenario(workers: Workers) -> None:
        job = workers.start(stubborn())
        await until(lambda: workers.tasks)
        await asyncio.sleep(0)
        job.cancel()
        await asyncio.sleep(0)
        workers.start(after())
        await until(lambda: "after" in seen)
        await ended(workers)

    run(scenario)
    assert sorted(seen) == ["after", "swallowed", "went on"]


@pytest.mark.parametrize("waits", [False, True])
def test_a_job_that_cancels_itself_leaves_those_behind_it_alone(run: Run, waits: bool) -> None:
    seen: list[str] = []

    async def scenario(workers: Workers) -> None:
        async def first() -> None:
            job.cancel()
            if waits:
                await asyncio.sleep(0)
                seen.append("not cancelled")

        async def second() -> None:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append("second")

        job = workers.start(first())
        workers.start(second())
        await until(lambda: seen)

    run(scenario)
    assert seen == ["second"]


def test_a_job_that_raises_its_own_cancel_is_over_and_no_other(run: Run) -> None:
    seen: list[str] = []

    async def first() -> None:
        raise asyncio.CancelledError

    async def second() -> None:
        seen.append("second")

    async def scenario(workers: Workers) -> None:
        workers.start(first())
        workers.start(second())
        await ended(workers)

    run(scenario)
    assert seen == ["second"]


@pytest.mark.parametrize("pauses", [0, 1])
def test_cancelling_after_the_end_does_nothing(run: Run, pauses: int) -> None:
    seen: list[str] = []

    async def scenario(workers: Workers) -> None:
        async def quick() -> None:
            for _ in range(pauses):
                await asyncio.sleep(0)

        async def next_one() -> None:
            job.cancel()
            await asyncio.sleep(0)
            seen.append("next")

        job: Job = workers.start(quick())
        if pauses:
            await ended(workers)
        workers.start(next_one())
        await until(lambda: seen)
        job.cancel()
        await ended(workers)

    run(scenario)
    assert seen == ["next"]


def test_a_job_that_is_cancelled_in_its_last_moment_does_not_cancel_the_next(run: Run) -> None:
    """Its future is there, and before its task goes on with it the cancel comes."""
    seen: list[str] = []

    async def scenario(workers: Workers) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def first() -> None:
            try:
                await ready
            except asyncio.CancelledError:
                seen.append("cancelled")

        async def second() -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            seen.append("second")

        job = workers.start(first())
        await until(lambda: workers.tasks)
        await asyncio.sleep(0)
        ready.set_result(None)
        workers.start(second())
        job.cancel()
        await until(lambda: "second" in seen)

    run(scenario)
    assert seen == ["cancelled", "second"]


def test_a_thousand_waiting_jobs_are_cancelled(run: Run) -> None:
    begun: list[int] = []
    ends: list[int] = []

    async def job() -> None:
        begun.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ends.append(1)

    async def scenario(workers: Workers) -> None:
        jobs = [workers.start(job()) for _ in range(1000)]
        await until(lambda: len(begun) == 1000)  # one that has not begun would end without a trace
        for each in jobs:
            each.cancel()
        await ended(workers)

    run(scenario)
    assert len(ends) == 1000


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pauses", [0, 1])
def test_a_job_that_lets_an_error_out_does_not_stop_the_others(pauses: int) -> None:
    seen: list[int] = []
    complaints: list[BaseException] = []

    async def bad() -> None:
        for _ in range(pauses):
            await asyncio.sleep(0)
        raise ZeroDivisionError("a bug")

    async def good(number: int) -> None:
        seen.append(number)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: complaints.append(context["exception"]))
        workers = Workers()
        for number in range(10):
            workers.start(bad())
            workers.start(good(number))
        await until(lambda: len(seen) == 10)
        await until(lambda: not workers.tasks)
        gc.collect()

    asyncio.run(scenario())
    assert seen == list(range(10))
    assert [type(error) for error in complaints] == [ZeroDivisionError] * 10


def test_an_error_that_is_thrown_into_a_job_comes_where_it_waits(run: Run) -> None:
    seen: list[str] = []

    async def scenario(workers: Workers) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def job() -> None:
            try:
                await answer
            except LookupError as error:
                seen.append(str(error))

        workers.start(job())
        await asyncio.sleep(0)
        answer.set_exception(LookupError("not there"))
        await ended(workers)

    run(scenario)
    assert seen == ["not there"]


def test_asynchronous_generators_are_closed_in_the_context_of_their_job(run: Run) -> None:
    seen: list[str] = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0)
            seen.append(MINE.get())

    async def job(name: str) -> None:
        MINE.set(name)
        items = numbers()
        async for number in items:
            if number == 3:
                break
        await items.aclose()

    async def scenario(workers: Workers) -> None:
        for name in "ab":
            workers.start(job(name))
        await ended(workers)

    run(scenario)
    assert sorted(seen) == ["a", "b"]
