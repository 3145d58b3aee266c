"""
Handlers that are plain functions, each call in a daemon thread of its own.

An executor would join its threads at exit, so that one handler that never returns would keep the process from ending.
A thread cannot be cancelled either: whoever gives up on one can only wait for it to return, and ``ended`` tells when.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, Self

__all__ = ["CallThread", "GeneratorThread"]


class _Thread:
    """
    Runs ``_work`` in a thread.

    Raises:
        RuntimeError: the process may have no more threads.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._function = function
        self._arguments = arguments
        self._loop = asyncio.get_running_loop()
        #: Done when the thread has returned; never cancelled.
        self.ended: asyncio.Future[None] = self._loop.create_future()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._work,), name="bonevalue-handler", daemon=True).start()

    def _work(self) -> None:
        raise NotImplementedError

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call something on the event loop."""
        with suppress(RuntimeError):  # the loop has ended before the thread
            self._loop.call_soon_threadsafe(callback, *arguments)


class CallThread(_Thread):
    """One call of a function."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        super().__init__(function, arguments)

    async def result(self) -> Any:
        """
        What the function returns.

        Raises:
            Exception: what it raised.
        """
        return await self._result

    def _work(self) -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = self._function(*self._arguments)
        except BaseException as caught:
            error = _for_the_loop(caught)
        self._tell(self._end, result, error)

    def _end(self, result: Any, error: Exception | None) -> None:
        self.ended.set_result(None)
        _settle(self._result, result, error)


class GeneratorThread(_Thread):
    """
    One run of a generator function, as an async iterator.

    The thread goes on to the next ``yield`` only when the next item is asked for.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._asked = threading.Semaphore(0)
        self._closed = False
        self._item: asyncio.Future[Any] | None = None
        super().__init__(function, arguments)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        if self._closed or self.ended.done():
            raise StopAsyncIteration
        self._item = self._loop.create_future()
        self._asked.release()
        return await self._item

    async def aclose(self) -> None:
        """Have the generator closed at its next ``yield``; does not wait for that, see ``ended``."""
        self._closed = True
        self._asked.release()

    def _work(self) -> None:
        end: Exception = StopAsyncIteration()
        try:
            with closing(self._function(*self._arguments)) as items:
                if self._is_asked():
                    for item in items:
                        self._tell(self._give, item)
                        if not self._is_asked():
                            break
        except BaseException as caught:
            end = _for_the_loop(caught)
        self._tell(self._end, end)

    def _is_asked(self) -> bool:
        """Wait until another item is wanted; False if none ever will be."""
        self._asked.acquire()
        return not self._closed

    def _give(self, item: Any) -> None:
        _settle(self._item, item, None)

    def _end(self, error: Exception) -> None:
        self.ended.set_result(None)
        _settle(self._item, None, error)


def _for_the_loop(error: BaseException) -> Exception:
    """What may be raised on the event loop, which would take others for its own end, or for that of a coroutine."""
    if isinstance(error, (StopIteration, StopAsyncIteration)) or not isinstance(error, Exception):
        return RuntimeError(f"the handler raised {type(error).__name__}")
    return error


def _settle(future: asyncio.Future[Any] | None, result: Any, error: Exception | None) -> None:
    if future is None or future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
        future.exception()  # a call that was given up leaves nobody to look at it
