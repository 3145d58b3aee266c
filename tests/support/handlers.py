"""Handlers that stream, and what they take their items from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from bonevalue import Context
from tests.support.waiting import UNIT

__all__ = ["Odd", "Source", "broken", "collect_items", "count", "echo", "echo_items"]


async def echo(request: Any) -> Any:
    """Answers with the request."""
    return request


async def count(request: int) -> AsyncIterator[int]:
    """A stream of so many numbers."""
    for number in range(request):
        yield number


async def echo_items(request: Any, context: Context) -> AsyncIterator[Any]:
    """A stream of what the caller sends."""
    async for item in context.items:
        yield item


async def collect_items(request: Any, context: Context) -> int:
    """The number of items that the caller sends."""
    return len([item async for item in context.items])


class Source:
    """A stream without end, as a handler or as what follows a request, that counts what is taken of it."""

    def __init__(self, item: Any = bytes(16_000)) -> None:
        self.item = item
        self.made = 0
        self.closed = 0

    async def handle(self, request: Any) -> AsyncIterator[Any]:
        """A handler that answers with it."""
        items = self.items()
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()

    async def items(self) -> AsyncGenerator[Any, None]:
        """The items."""
        try:
            while True:
                self.made += 1
                yield self.item
        finally:
            self.closed += 1

    async def stopped(self) -> int:
        """Wait until nothing more is taken of it; gives how many items were."""
        made = -1
        while made != self.made:
            made = self.made
            await asyncio.sleep(2 * UNIT)
        return made


class Odd(Exception):
    """An error that cannot be made again from its text."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} and {other}")


async def broken(error: BaseException, after: int) -> AsyncIterator[int]:
    """So many numbers, and then an error."""
    for number in range(after):
        yield number
    raise error
