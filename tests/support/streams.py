"""Streams between two call tables that are joined by hand, and a look at what crosses a link between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bonevalue.wire import frames
from bonevalue.wire.events import AnswerBegun, CallReceived, ItemsArrived, OutgoingCall
from bonevalue.wire.frames import Frame, FrameType
from bonevalue.wire.streams import ITEM_COST, IncomingItems, OutgoingItems
from tests.support.tables import Pair, Side

__all__ = ["Answer", "Ledger", "Upload", "answer", "read_once", "sent", "take_all", "upload"]

Item = tuple[bytes, bool]


@dataclass
class Upload:
    """A call with items of the caller, as each end sees it."""

    made: OutgoingCall
    received: CallReceived
    sending: OutgoingItems
    arriving: IncomingItems


@dataclass
class Answer:
    """A call whose answer is a stream that has begun, as each end sees it."""

    made: OutgoingCall
    received: CallReceived
    sending: OutgoingItems
    arriving: IncomingItems


def upload(pair: Pair, *, body: bytes = b"1", raw: bool = False, takes_stream: bool = False) -> Upload:
    """Ours calls theirs, and will send items."""
    made = pair.ours.table.call("M", body, raw, 30, pair.now, items=True, takes_stream=takes_stream)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    assert made.items is not None and received.items is not None
    return Upload(made, received, made.items, received.items)


def answer(pair: Pair, *, timeout: float = 30) -> Answer:
    """Theirs answers a call of ours with a stream."""
    made = pair.ours.table.call("M", b"1", False, timeout, pair.now, takes_stream=True)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    sending = pair.theirs.table.begin(received, pair.now)
    pair.exchange()
    assert pair.ours.one(AnswerBegun).call is made and made.received is not None
    return Answer(made, received, sending, made.received)


def read_once(pair: Pair, side: Side, stream: Answer | Upload) -> None:
    """Take a first item that a side sends: it knows then that somebody reads its stream."""
    side.table.push_item(stream.sending, b"", True)
    pair.exchange()
    stream.arriving.take()
    pair.exchange()
    for each in (pair.ours, pair.theirs):
        each.take(ItemsArrived)


def take_all(items: IncomingItems) -> list[Item]:
    """Take what has arrived."""
    return [items.take() for _ in range(len(items))]


def sent(side: Side, room: int, now: float) -> list[list[Frame]]:
    """What a side sends, as frames, message by message; checks that no message is too long, or empty."""
    messages = side.table.data_to_send(room, now)
    assert all(0 < len(message) <= frames.MAX_SENT_MESSAGE for message in messages)
    return [frames.decode(message) for message in messages]


@dataclass
class Ledger:
    """
    Keeps the account of one direction of a link: what the sender of items was granted, and what it has used.

    Args:
        stream: credit that each stream begins with.
        link: credit that the link begins with.
    """

    stream: int
    link: int
    #: What may still be sent, by call.
    credit: Counter[int] = field(default_factory=Counter)
    #: What was sent and not taken, by call, an item from its first byte on.
    unread: Counter[int] = field(default_factory=Counter)
    #: The most that has ever been unread, of one stream and of all.
    most_of_one: int = 0
    most: int = 0
    #: How many frames have given credit.
    credits: int = 0

    def items_sent(self, sent: Iterable[Frame]) -> None:
        """The sender has sent frames."""
        for frame in sent:
            if frame.type is FrameType.ITEM:
                length, _ = frames.decode_item(frame.payload)
                cost = length + ITEM_COST
                self.unread[frame.call] += cost
                self.credit[frame.call] = self.credit.get(frame.call, self.stream) - cost
                self.link -= cost
                assert self.credit[frame.call] >= 0 and self.link >= 0, "sent without credit"
        self.most_of_one = max(self.most_of_one, *self.unread.values(), 0)
        self.most = max(self.most, self.unread.total())

    def credit_sent(self, sent: Iterable[Frame]) -> None:
        """The receiver has sent frames."""
        for frame in sent:
            if frame.type is FrameType.CREDIT:
                self.credits += 1
                more = frames.decode_credit(frame.payload)
                if frame.call:
                    self.credit[frame.call] = self.credit.get(frame.call, self.stream) + more
                else:
                    self.link += more

    def taken(self, call: int, item: Item) -> None:
        """The receiver's application has taken an item."""
        self.unread[call] -= len(item[0]) + ITEM_COST

    def dropped(self, call: int) -> None:
        """The receiver's application has dropped a stream."""
        self.unread[call] = 0
