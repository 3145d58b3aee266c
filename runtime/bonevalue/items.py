"""The items of a stream on a link: taken in by a consumer, handed over by a producer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, Self

from bonevalue.errors import Cancelled, LocalProtocolError
from bonevalue.wire import frames

__all__ = ["ReceivedItems", "SingleItem"]


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
