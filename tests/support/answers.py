"""A place for the answer to one call, that remembers what came and can be a slow reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from bonevalue.wire import frames

__all__ = ["FakeAnswer"]


class FakeAnswer:
    """
    What a handler answered.

    Args:
        takes_stream: whether the caller takes a stream.
        room: how many items it takes before it becomes a slow reader; None for any number.
    """

    def __init__(self, *, takes_stream: bool = True, room: int | None = None) -> None:
        self.takes_stream = takes_stream
        #: In the order in which it came: ``begin``, ``end``, and the values of the items or the response.
        self.came: list[Any] = []
        #: Raised instead of taking a further item.
        self.refusal: Exception | None = None
        self._room = room
        self._slow: asyncio.Future[None] | None = None

    @property
    def items(self) -> list[Any]:
        """The values of the items, or the response."""
        return [value for value in self.came if value not in ("begin", "end")]

    def blocked(self) -> Awaitable[None] | None:
        """Nothing: whoever calls reads its answers."""
        return None

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the slow reader."""
        return self._slow is not None

    def reply(self, body: bytes, raw: bool) -> None:
        """The one response."""
        self.came.append(frames.decode_body(body, raw))

    def begin(self) -> None:
        """The answer is a stream."""
        self.came.append("begin")

    def item(self, body: bytes, raw: bool) -> Awaitable[None] | None:
        """One item."""
        if self.refusal is not None:
            raise self.refusal
        self.came.append(frames.decode_body(body, raw))
        if self._room is None:
            return None
        self._room -= 1
        return self._wait() if self._room <= 0 else None

    def end(self) -> None:
        """The stream is complete."""
        self.came.append("end")

    def read(self, room: int = 1) -> None:
        """Make room for further items."""
        self._room = room
        if self._slow is not None:
            self._slow.set_result(None)

    async def _wait(self) -> None:
        self._slow = asyncio.get_running_loop().create_future()
        try:
            await self._slow
        finally:
            self._slow = None
