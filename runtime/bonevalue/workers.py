"""Runs many short coroutines, each as in a task of its own, without making a task for each."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["Job", "Workers"]


#: Jobs after which everything else on the event loop has its turn.
MAX_JOBS_A_TURN = 64


class Job:
    """
    One coroutine that is run, or waits to be.

    It has a copy of the context variables of its own, and whatever it awaits, it is in the same task from its first
    step to its last: `asyncio.current_task`, `asyncio.timeout` and task groups work in it as usual.
    """

    __slots__ = ("_context", "_coroutine", "_task", "_workers", "given_up")

    def __init__(self, workers: Workers, coroutine: Coroutine[Any, Any, None]) -> None:
        self._workers = workers
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        #: It was cancelled before it began.
        self.given_up = False

    def cancel(self) -> None:
        """Raise `asyncio.CancelledError` in it; one that has not begun will not. Without effect after its end."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()
            self.given_up = True  # left where it is: to look for it among all that wait would take too long

    def begin(self, task: asyncio.Task[None]) -> None:
        """It is run by that task from now on."""
        self._task = task

    def ended(self) -> None:
        """It is not run any more."""
        self._task = None

    def __await__(self) -> Generator[Any, Any, None]:
        # What `yield from` would do, but each step in the context of this job.
        run, send, throw = self._context.run, self._coroutine.send, self._coroutine.throw
        try:
            waits_for = run(send, None)
            self._workers.hand_on()
            while True:
                try:
                    value = yield waits_for
                except BaseException as error:
                    waits_for = run(throw, error)
                else:
                    waits_for = run(send, value)
        except StopIteration:
            return


class Workers:
    """
    Runs jobs in tasks that take one after another.

    A task goes on with the next job as long as jobs end without waiting for anything. As soon as one waits, its task is
    its own, and another task takes the rest. So a batch of short calls costs one task and one turn of the event loop.
    """

    def __init__(self) -> None:
        #: The tasks in which jobs are run just now.
        self.tasks: set[asyncio.Task[None]] = set()
        self._ready: deque[Job] = deque()
        #: Whether a task has been made that will look at what is ready.
        self._coming = False

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Job:
        """Run a coroutine from the next turn of the event loop on. It must let nothing out but `CancelledError`."""
        job = Job(self, coroutine)
        self._ready.append(job)
        self.hand_on()
        return job

    def hand_on(self) -> None:
        """See to it that what is ready will be run."""
        if self._ready and not self._coming:
            self._coming = True
            task = asyncio.get_running_loop().create_task(self._work())
            self.tasks.add(task)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            self._coming = False
            taken = 0
            # A task that was cancelled takes no other job: asyncio may yet have a cancel to deliver to it.
            while self._ready and not self._coming and taken < MAX_JOBS_A_TURN and not task.cancelling():
                job = self._ready.popleft()
                if job.given_up:
                    continue
                taken += 1
                job.begin(task)
                try:
                    await job
                except asyncio.CancelledError:
                    pass
                finally:
                    job.ended()
        finally:
            self.tasks.discard(task)
            self.hand_on()
