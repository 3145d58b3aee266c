"""An async iterator with more to say than its items."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Iteration"]

T = TypeVar("T")


class Iteration(Generic[T]):
    """
    What an async generator yields, and its manners: it has one consumer at a time, an exception ends it, cancelling
    included, and when it is dropped the event loop closes it.

    For subclasses that tell something beside the items. The generator must not refer to the object round it, which
    would then not be dropped before the garbage collector finds both.

    Args:
        generator: gives the items, and lets go in a ``finally`` of what it holds.
    """

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[T]:
        return self._generator.__anext__()

    async def aclose(self) -> None:
        """
        End it and let go of everything; any number of times.

        Raises:
            RuntimeError: another task waits for the next item. Cancel that task instead.
        """
        await self._generator.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
