"""What several peers answer: asked at once or a few at a time, their answers in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from bonevalue.errors import BoneValueError, Cancelled, NoModule
from bonevalue.iteration import Iteration
from bonevalue.wire.signals import PeerEntry

__all__ = ["Result", "Results"]

#: Asks one peer.
Ask = Callable[[PeerEntry], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """What one peer answered: ``error`` is None, or ``response`` is."""

    peer: PeerEntry
    response: Any = None
    error: BoneValueError | None = None


class Results(Iteration[Result]):
    """
    One :class:`Result` a peer, as they come.

    Nobody is asked before the first result is waited for. Leaving the loop, an exception in it and :meth:`aclose`
    cancel the calls that are under way, here and at the peers. So does dropping it; whoever keeps it in a variable
    closes it, best by ``async with``.

    Args:
        peers: whom to ask.
        ask: calls one of them; what it raises beside a :class:`~bonevalue.errors.BoneValueError` ends the whole.
        concurrency: how many are asked at the same time; None for all.
        first: end after so many good answers; None for all.

    Raises:
        ValueError: ``concurrency`` or ``first`` is less than 1.
    """

    def __init__(
        self, peers: Sequence[PeerEntry], ask: Ask, *, concurrency: int | None = None, first: int | None = None
    ) -> None:
        for name, number in (("concurrency", concurrency), ("first", first)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is at least 1, or None, not {number}")
        #: How many peers are asked, all together.
        self.asked = len(peers)
        self._round = _Round(peers, ask, concurrency or len(peers), first or 0)
        super().__init__(_results(self._round))

    @property
    def answered(self) -> int:
        """How many of the results so far are answers."""
        return self._round.answered

    @property
    def without(self) -> int:
        """How many of the results so far say that the peer does not serve the module (``no_module``)."""
        return self._round.without

    @property
    def failed(self) -> int:
        """How many of the results so far are other errors."""
        return self._round.failed


async def _results(asking: _Round) -> AsyncGenerator[Result, None]:
    try:
        asking.start()
        while asking.goes_on:
            yield await asking.next()
    finally:
        await asking.stop()


class _Round:
    """The calls behind one :class:`Results`."""

    def __init__(self, peers: Sequence[PeerEntry], ask: Ask, concurrency: int, first: int) -> None:
        self.answered = self.without = self.failed = 0
        self._ask = ask
        self._concurrency = concurrency
        #: Good answers that are still wanted; it never gets to 0 if all are.
        self._wanted = first
        self._waiting = iter(peers)
        self._under_way: dict[asyncio.Task[Any], PeerEntry] = {}
        self._given_up: list[asyncio.Task[Any]] = []
        self._ended: asyncio.Queue[tuple[PeerEntry, asyncio.Task[Any]]] = asyncio.Queue()

    @property
    def goes_on(self) -> bool:
        """Whether there is a result to come."""
        return bool(self._under_way) or not self._ended.empty()

    def start(self) -> None:
        """Ask as many as may be asked at once."""
        for _ in range(self._concurrency):
            self._ask_next()

    async def next(self) -> Result:
        """The next result."""
        peer, task = await self._ended.get()
        error = Cancelled("the call was cancelled") if task.cancelled() else task.exception()
        if error is None:
            self.answered += 1
            return Result(peer, response=task.result())
        if not isinstance(error, BoneValueError):
            raise error
        if isinstance(error, NoModule):
            self.without += 1
        else:
            self.failed += 1
        return Result(peer, error=error)

    async def stop(self) -> None:
        """Cancel what is under way, and see it end."""
        self._give_up()
        await asyncio.gather(*self._given_up, return_exceptions=True)

    def _ask_next(self) -> None:
        peer = next(self._waiting, None)
        if peer is not None:
            task = asyncio.get_running_loop().create_task(self._ask(peer))
            self._under_way[task] = peer
            task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[Any]) -> None:
        peer = self._under_way.pop(task, None)
        if peer is None:  # given up
            return
        self._ended.put_nowait((peer, task))
        if not task.cancelled() and task.exception() is None:
            self._wanted -= 1
            if not self._wanted:
                self._give_up()
        self._ask_next()

    def _give_up(self) -> None:
        self._waiting = iter(())
        for task in self._under_way:
            task.cancel()
        self._given_up += self._under_way
        self._under_way.clear()
