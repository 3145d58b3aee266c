"""The items of a stream on a link: taken in by a consumer, handed over by a producer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol, Self, TypeAlias

from bonevalue.errors import Cancelled, LocalProtocolError
from bonevalue.wire import frames

__all__ = ["Items", "ReceivedItems", "SingleItem", "hand_over", "iterator_of"]

#: What a caller sends after its request: JSON values or bytes, each at most 512 KiB long.
Items: TypeAlias = Iterable[Any] | AsyncIterable[Any]

#: Items that a producer may hand over before the event loop has its turn, for those that never wait for anything.
MAX_ITEMS_A_TURN = 32


async def hand_over(items: Items, put: Callable[[bytes, bool], Awaitable[None] | None]) -> None:
    """
    Encode each item and hand it over; the iterator is closed, however it ends.

    Args:
        put: takes the bytes of an item and whether they are raw; what it gives, if anything, is awaited before the
            next one is asked for.

    Raises:
        TypeError, ValueError: an item is neither JSON nor bytes.
        Exception: what the iterator, or ``put``, raises.
    """
    source = iterator_of(items)
    in_turn = 0
    try:
        async for item in source:
            slow = put(*frames.encode_body(item))
            in_turn += 1
            if slow is not None:
                await slow
                in_turn = 0
            elif in_turn == MAX_ITEMS_A_TURN:
                await asyncio.sleep(0)
                in_turn = 0
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


def iterator_of(items: Items) -> AsyncIterator[Any]:
    """An async iterator over items of either kind."""
    return aiter(items) if isinstance(items, AsyncIterable) else _each(items)


async def _each(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class Source(Protocol):
    """Where items arrive: an :class:`~bonevalue.wire.streams.IncomingItems`, or one that looks like it."""

    ended: bool
    dropped: bool

    def __len__(self) -> int:
        """How many are there."""
        ...

    def take(self) -> tuple[bytes, bool]:
        """The next one."""
        ...

    def drop(self) -> None:
        """Nobody wants the rest."""
        ...


class ReceivedItems:
    """
    What the other side sends, item by item: JSON values and bytes.

    To be iterated over once, by one consumer. Taking an item lets the other side send more.

    Args:
        source: where the items arrive.
        taken: called with the number of items that were taken or 0, when there may be credit to send.
        closed: called if the consumer gives up before the end.
        malformed: makes the error for an item that is no JSON, from what is wrong with it.
    """

    def __init__(
        self,
        source: Source,
        *,
        taken: Callable[[int], None],
        closed: Callable[[], None],
        malformed: Callable[[str], Exception],
    ) -> None:
        self._source: Source | None = source
        self._taken = taken
        self._closed: Callable[[], None] | None = closed
        self._malformed = malformed
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def arrived(self) -> None:
        """There are items, or the end."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """The stream breaks off, after the items that have arrived."""
        self._error = error
        self._closed = None
        self.arrived()

    def close(self) -> None:
        """No more items are wanted. Any number of times."""
        source, self._source = self._source, None
        closed, self._closed = self._closed, None
        if source is not None:
            over = source.ended
            source.drop()
            self._taken(0)
            if closed is not None and not over:
                closed()
        self.arrived()

    async def aclose(self) -> None:
        """No more items are wanted. Any number of times."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        while (source := self._source) is not None:
            if source:
                body, raw = source.take()
                self._taken(1)
                try:
                    return frames.decode_body(body, raw)
                except ValueError as error:
                    problem = self._malformed(str(error))
                    self.close()
                    raise problem from error
            if self._error is not None:
                failure, self._error = self._error, None
                self.close()
                raise failure
            if source.ended:
                dropped = source.dropped
                self.close()
                if dropped:
                    raise Cancelled("the call of these items has ended")
                break
            if self._waiter is not None:
                raise LocalProtocolError("a stream has one consumer at a time")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        raise StopAsyncIteration


class SingleItem:
    """A stream of one item, which is there already: what a plain response is to who asked for a stream."""

    ended = True
    dropped = False

    def __init__(self, body: bytes, raw: bool) -> None:
        self._items = [(body, raw)]

    def __len__(self) -> int:
        return len(self._items)

    def take(self) -> tuple[bytes, bool]:
        """The item."""
        return self._items.pop()

    def drop(self) -> None:
        """Nobody wants it."""
        self._items.clear()
