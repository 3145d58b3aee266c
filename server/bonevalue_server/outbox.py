"""
What waits to be sent to one client that reads more slowly than it is written to.

Most of the time nothing does. The lists after a login may be far longer than what a client may fall behind, so they
are not made in advance: an iterator waits in their place, and is asked for the next message when there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

__all__ = ["Outbox"]


class Outbox:
    """
    Messages in order, and iterators of messages between them.

    Args:
        max_messages: how many messages may wait, those still inside iterators not counted.
        max_bytes: how many bytes of messages may wait.
    """

    __slots__ = ("_items", "_max_bytes", "_max_messages", "_messages", "_size")

    def __init__(self, *, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._items: deque[bytes | Iterator[str]] = deque()
        self._messages = 0
        self._size = 0

    def __bool__(self) -> bool:
        """Whether anything may be waiting."""
        return bool(self._items)

    @property
    def is_over(self) -> bool:
        """Whether more waits than may."""
        return self._messages > self._max_messages or self._size > self._max_bytes

    def put(self, message: bytes) -> None:
        """One more message."""
        self._items.append(message)
        self._messages += 1
        self._size += len(message)

    def put_all(self, messages: Iterator[str]) -> None:
        """Messages that are made when they are taken."""
        self._items.append(messages)

    def take(self) -> bytes | None:
        """The next message; None if nothing waits."""
        while self._items:
            first = self._items[0]
            if isinstance(first, bytes):
                self._items.popleft()
                self._messages -= 1
                self._size -= len(first)
                return first
            text = next(first, None)
            if text is not None:
                return text.encode()
            self._items.popleft()
        return None

    def drop(self) -> None:
        """Forget all of it."""
        self._items.clear()
        self._messages = self._size = 0
