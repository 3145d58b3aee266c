"""
The items of streams, on their way out and in, and the credit that bounds them (docs/protocol.md, "Streams").

An item costs its length and :data:`ITEM_COST`, all of it when it begins: an item that was begun can always be finished,
so two streams never wait for each other's credit in the middle of an item.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from bonevalue.errors import RemoteProtocolError
from bonevalue.wire import frames
from bonevalue.wire.frames import FLAG_RAW, MAX_CREDIT, FrameType
from bonevalue.wire.memory import MemoryShare

__all__ = ["ITEM_COST", "IncomingItems", "LinkCredit", "OutgoingItems"]

#: What an item costs besides its bytes: the memory for keeping track of it.
ITEM_COST = 64
#: Credit for what was taken is given back in pieces of this size, so that few frames do it; less is kept back.
CREDIT_PIECE = 2**18
#: The same for the link. Less, so that a first item of any length can go though the link's reserve is kept.
LINK_PIECE = 2**17
#: What a stream of which nothing was read yet sends, if its first item is not longer, and the credit that it leaves the
#: link: an item of 256 KiB of a stream that is read can always go.
UNREAD = 65_536
RESERVE = 2**18 + 2**16
#: By how much the credit of a link grows at a time.
GROWTH = 2**20


class OutgoingItems:
    """
    A stream of ours. ``context`` is the producer's to use.

    Args:
        call: id of its call.
        credit: what the other side takes to begin with.
    """

    __slots__ = (
        "_first_credit",
        "_is_read",
        "_items",
        "_last",
        "_part",
        "call",
        "context",
        "credit",
        "ended",
        "finished",
        "moved",
        "queued",
    )

    def __init__(self, call: int, credit: int) -> None:
        self.call = call
        self.credit = credit
        #: Bytes of items that wait for credit or room.
        self.queued = 0
        #: There are no more items.
        self.ended = False
        #: The end has left.
        self.finished = False
        #: Grows with each frame that leaves.
        self.moved = 0
        self.context: Any = None
        self._first_credit = credit
        #: Somebody takes the items: credit has come back.
        self._is_read = False
        self._items: deque[tuple[bytes, bool]] = deque()
        #: The rest of the item that has begun.
        self._part: memoryview | None = None
        self._last = b""

    @property
    def waits(self) -> bool:
        """Whether there is something to send."""
        return bool(self._part is not None or self._items or (self.ended and not self.finished))

    def push(self, body: bytes, raw: bool) -> None:
        """One more item to send."""
        self._items.append((body, raw))
        self.queued += len(body)

    def end(self, frame: bytes = b"") -> None:
        """There are no more items; ``frame`` takes the place of ``END`` after the last."""
        self.ended = True
        self._last = frame

    @property
    def end_size(self) -> int:
        """Bytes that the frame at the end has."""
        return len(self._last) or frames.HEADER_SIZE

    def clear(self) -> None:
        """Send nothing more."""
        self._items.clear()
        self._part = None
        self.queued = 0
        self.ended = self.finished = True

    @property
    def taken(self) -> int:
        """Credit that is with the other side: for items that nobody has taken, and for what it keeps back."""
        return self._first_credit - self.credit

    def may_move(self, link_credit: int) -> bool:
        """
        Whether a frame can go now.

        Credit is not the only thing that counts: streams that nobody reads must not use up the credit of the link for
        those that are read. The consumer of one may wait for the end of another, as a handler waits for its slot.

        - A stream of which nothing was read yet sends its first items only, and leaves the link some credit.
        - One that is read, and has taken more than the other side may keep back, leaves the link as much as it has
          taken (as in :class:`~bonevalue.wire.memory.MemoryBudget`).
        """
        if self._part is not None:
            return True
        if not self._items:
            return self.ended and not self.finished
        cost = len(self._items[0][0]) + ITEM_COST
        if cost > self.credit or cost > link_credit:
            return False
        taken = self.taken
        if self._is_read:
            return taken <= CREDIT_PIECE or taken + cost <= link_credit - cost
        if taken and taken + cost > UNREAD:
            return False
        return link_credit - cost >= RESERVE

    def move(self, space: int, message: list[bytes | memoryview]) -> tuple[int, int]:
        """
        Put the next frame into a message; only after :meth:`may_move`.

        Args:
            space: bytes that a frame with a part of an item may have, more than a header and 4 bytes.

        Returns:
            the length of the frame, and what it takes of the link's credit.
        """
        self.moved += 1
        if self._part is not None:
            size = min(space - frames.HEADER_SIZE, len(self._part))
            message += (frames.header(FrameType.PART, self.call, size), self._part[:size])
            self._part = self._part[size:] if size < len(self._part) else None
            self.queued -= size
            return frames.HEADER_SIZE + size, 0
        if not self._items:
            self.finished = True
            message.append(self._last or frames.encode(FrameType.END, self.call))  # the id is known by now
            return self.end_size, 0
        body, raw = self._items.popleft()
        length = len(body)
        size = min(space - frames.HEADER_SIZE - 4, length)
        message.append(frames.item_head(self.call, length, size, FLAG_RAW if raw else 0))
        if size == length:
            message.append(body)
        else:
            view = memoryview(body)
            message.append(view[:size])
            self._part = view[size:]
        self.queued -= size
        cost = length + ITEM_COST
        self.credit -= cost
        return frames.HEADER_SIZE + 4 + size, cost

    def grant(self, credit: int) -> None:
        """
        The other side takes so many bytes more.

        Raises:
            RemoteProtocolError: more than any credit may be.
        """
        self.credit = added(self.credit, credit)
        self._is_read = True


def added(credit: int, more: int) -> int:
    """
    The sum.

    Raises:
        RemoteProtocolError: no credit may be so large.
    """
    if credit + more > MAX_CREDIT:
        raise RemoteProtocolError(f"a credit of more than {MAX_CREDIT}")
    return credit + more


class IncomingItems:
    """
    A stream of the other side: its items that nobody has taken yet. ``context`` is the consumer's to use.

    Args:
        call: id of its call.
        credit: what this side takes to begin with.
        link: the credit of the link that it comes over.
    """

    __slots__ = (
        "_is_taken",
        "_items",
        "_length",
        "_link",
        "_part",
        "_raw",
        "_taken",
        "_unread",
        "call",
        "context",
        "credit",
        "dropped",
        "ended",
        "open",
    )

    def __init__(self, call: int, credit: int, link: LinkCredit) -> None:
        self.call = call
        #: What the other side may still send.
        self.credit = credit
        #: No more items come.
        self.ended = False
        #: Its items are wanted, and its sender still goes by its credit.
        self.open = True
        #: The rest of it was dropped.
        self.dropped = False
        self.context: Any = None
        self._link = link
        self._items: deque[tuple[bytes, bool]] = deque()
        #: The item that has begun, and its length.
        self._part: bytearray | None = None
        self._length = 0
        self._raw = False
        #: Cost of items that were taken and for which no credit was given back yet, and of those not taken.
        self._taken = 0
        self._unread = 0
        #: Credit was given back, which tells the other side that somebody takes the items: the first time at once.
        self._is_taken = False

    def __len__(self) -> int:
        return len(self._items)

    def begin(self, length: int, first: memoryview, raw: bool) -> None:
        """
        An ``ITEM`` frame.

        Raises:
            RemoteProtocolError: it is beyond the credit, or comes in the middle of another or after the end.
        """
        if self.open and (self._part is not None or self.ended):
            raise RemoteProtocolError("an item in the middle of another, or after the end of its stream")
        cost = length + ITEM_COST
        if cost > self.credit:
            raise RemoteProtocolError("an item beyond the credit of its stream")
        self._link.charge(cost)
        self.credit -= cost
        if not self.open:  # dropped, while its call goes on
            self._link.give_back(cost)
            return
        self._unread += cost
        if len(first) == length:
            self._items.append((bytes(first), raw))
        else:
            self._part, self._length, self._raw = bytearray(first), length, raw

    def add(self, data: memoryview) -> None:
        """
        A ``PART`` frame.

        Raises:
            RemoteProtocolError: no item has begun, or it gets longer than was declared.
        """
        if not self.open:
            return
        part = self._part
        if part is None or not data or len(part) + len(data) > self._length:
            raise RemoteProtocolError("part of an item that has not begun, or that is shorter")
        part += data
        if len(part) == self._length:
            self._items.append((bytes(part), self._raw))
            self._part = None

    def end(self) -> None:
        """
        An ``END`` frame.

        Raises:
            RemoteProtocolError: it comes in the middle of an item, or again.
        """
        if self.open and (self._part is not None or self.ended):
            raise RemoteProtocolError("the end of a stream in the middle of an item, or again")
        self.ended = True

    def break_off(self) -> None:
        """No more comes, not even the rest of an item that has begun; the items that are there stay."""
        self.open = False
        if self._part is not None:
            self._part = None
            self._unread -= self._length + ITEM_COST
            self._link.give_back(self._length + ITEM_COST)

    def take(self) -> tuple[bytes, bool]:
        """The next item: its bytes, and whether they are raw; only if there is one. Credit for it is given back."""
        item = self._items.popleft()
        cost = len(item[0]) + ITEM_COST
        self._unread -= cost
        self._link.give_back(cost)
        self._taken += cost
        if self.open and not self.ended and (self._taken >= CREDIT_PIECE or not self._is_taken):
            self._is_taken = True
            self._link.send(frames.encode_credit(self.call, self._taken))
            self.credit += self._taken
            self._taken = 0
        return item

    def drop(self) -> None:
        """Nobody wants the rest."""
        self.ended = self.dropped = True
        self.open = False
        self._items.clear()
        self._part = None
        if self._unread:
            self._link.give_back(self._unread)
            self._unread = 0


class LinkCredit:
    """
    What all streams of the other side together may send, on one link.

    Args:
        first: the credit to begin with.
        most: what it may grow to.
        share: from which it grows.
        send: sends a frame.
    """

    def __init__(self, first: int, most: int, share: MemoryShare, send: Callable[[bytes], None]) -> None:
        self.send = send
        self._first = self._credit = self._size = first
        self._most = most
        self._share = share
        self._taken = 0

    def charge(self, cost: int) -> None:
        """
        An item begins.

        Raises:
            RemoteProtocolError: the other side had no credit for it.
        """
        if cost > self._credit:
            raise RemoteProtocolError("an item beyond the credit of the link")
        self._credit -= cost
        if self._credit < self._size * 3 // 4 and self._size + GROWTH <= self._most and self._share.take_spare(GROWTH):
            self._size += GROWTH
            self._grant(GROWTH)

    def give_back(self, cost: int) -> None:
        """An item was taken, or dropped."""
        self._taken += cost
        if self._size > self._first and self._credit + self._taken == self._size:
            # Nothing is unread: what it has grown by is for other links.
            surplus = min(self._taken, self._size - self._first)
            self._taken -= surplus
            self._size -= surplus
            self._share.give_spare(surplus)
        if self._taken >= LINK_PIECE:
            self._grant(self._taken)
            self._taken = 0

    def _grant(self, credit: int) -> None:
        self._credit += credit
        self.send(frames.encode_credit(0, credit))
