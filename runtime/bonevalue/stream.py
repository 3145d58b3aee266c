"""The answer of a module that has many items."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

from bonevalue.iteration import Iteration
from bonevalue.wire.signals import PeerEntry

__all__ = ["ReceivedStream", "Stream"]


class ReceivedStream(Protocol):
    """An answer that has begun: a :class:`~bonevalue.items.ReceivedItems`, or one that looks like it."""

    def __aiter__(self) -> AsyncIterator[Any]: ...

    def close(self) -> None:
        """No more items are wanted: end the call, if it goes on."""


class Stream(Iteration[Any]):
    """
    What one peer answers, item by item: JSON values or bytes.

    Nothing is sent before the first item is asked for. Leaving the loop, an exception in it and :meth:`aclose` end the
    call on both sides. So does dropping the stream; whoever keeps it in a variable closes it, best by ``async with``.

    Args:
        choose: gives the peer to ask.
        begin: calls it; returns when its answer begins.
    """

    def __init__(
        self, choose: Callable[[], PeerEntry], begin: Callable[[PeerEntry], Coroutine[Any, Any, ReceivedStream]]
    ) -> None:
        self._asked: list[PeerEntry] = []
        super().__init__(_items(choose, begin, self._asked))

    @property
    def peer(self) -> PeerEntry | None:
        """Who is asked; None until the first item is waited for."""
        return self._asked[0] if self._asked else None


async def _items(
    choose: Callable[[], PeerEntry],
    begin: Callable[[PeerEntry], Coroutine[Any, Any, ReceivedStream]],
    asked: list[PeerEntry],
) -> AsyncGenerator[Any, None]:
    peer = choose()
    asked.append(peer)
    received = await begin(peer)
    try:
        async for item in received:
            yield item
    finally:
        received.close()
