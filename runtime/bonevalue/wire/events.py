"""What happens on a link, as data: the events of a :class:`~bonevalue.wire.calls.CallTable`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from bonevalue.errors import BoneValueError
from bonevalue.wire.bodies import IncomingBody
from bonevalue.wire.streams import IncomingItems, OutgoingItems

__all__ = [
    "AnswerBegun",
    "CallAnswered",
    "CallCancelled",
    "CallFailed",
    "CallReceived",
    "CallReturned",
    "Drained",
    "Event",
    "HoldChanged",
    "ItemsArrived",
    "LinkOpened",
    "OutgoingCall",
    "PongReceived",
]


class OutgoingCall:
    """A call of ours. ``context`` is the caller's to use."""

    __slots__ = ("answer", "body", "context", "deadline", "flags", "grain", "id", "items", "module", "received")

    def __init__(self, module: bytes, body: bytes, flags: int, deadline: float, context: Any) -> None:
        self.id = 0
        self.module = module
        self.body = body
        self.flags = flags
        self.deadline = deadline
        self.context = context
        #: Of its deadline.
        self.grain = 0
        #: The response, while it comes in.
        self.answer: IncomingBody | None = None
        #: Our items, if the request is a stream.
        self.items: OutgoingItems | None = None
        #: The items of the answer, once it has begun, if it is a stream.
        self.received: IncomingItems | None = None


class CallReceived:
    """
    A call of the other side; reported once its whole body is there, to be ended by ``reply``, ``fail`` or ``end``.

    Attributes:
        call: its id on this link.
        body: the encoded request.
        raw: the body is bytes rather than JSON.
        deadline: when it ends, in seconds of the clock that the table is given.
        takes_stream: the answer may be a stream.
        items: what the caller sends after its request, None if it sends nothing.
        context: whoever serves the call may use it.
    """

    __slots__ = (
        "answer", "body", "call", "context", "deadline", "delivered", "grain", "incoming", "items", "module", "moved",
        "raw", "replied", "takes_stream",
    )  # fmt: skip

    def __init__(self, call: int, module: str, deadline: float, raw: bool, takes_stream: bool) -> None:
        self.call = call
        self.module = module
        self.deadline = deadline
        self.body = b""
        self.raw = raw
        self.takes_stream = takes_stream
        self.items: IncomingItems | None = None
        self.context: Any = None
        #: Of its deadline.
        self.grain = 0
        #: The body, while it comes in over several frames.
        self.incoming: IncomingBody | None = None
        #: It was reported.
        self.delivered = False
        #: The answer is given, and on its way.
        self.replied = False
        #: Our items, if the answer is a stream, and how far they were when that was last looked at.
        self.answer: OutgoingItems | None = None
        self.moved = 0


class LinkOpened(Struct, frozen=True):
    """The other side is who it should be, and calls may go."""

    agent: str
    features: list[str]


class CallCancelled(Struct, frozen=True):
    """The other side, or its deadline, ended a received call; nothing can be replied any more."""

    call: CallReceived
    error: BoneValueError


class CallAnswered(Struct, frozen=True):
    """One of our calls has its answer."""

    call: OutgoingCall
    body: bytes
    raw: bool


class AnswerBegun(Struct, frozen=True):
    """The answer to one of our calls is a stream: ``call.received``."""

    call: OutgoingCall


class ItemsArrived(Struct, frozen=True):
    """A stream of the other side that had no items has some, or has ended."""

    items: IncomingItems


class CallFailed(Struct, frozen=True):
    """One of our calls failed; a stream of the answer breaks off after the items that have come."""

    call: OutgoingCall
    error: BoneValueError


class CallReturned(Struct, frozen=True):
    """One of our calls came after the other side's last: it was not begun, and may safely go over a new link."""

    call: OutgoingCall


class HoldChanged(Struct, frozen=True):
    """The other side holds the link, or lets it go."""

    holding: bool


class PongReceived(Struct, frozen=True):
    """The ping of that number was answered; ``round_trip`` in seconds."""

    number: int
    round_trip: float


class Drained(Struct, frozen=True):
    """Nothing is under way any more and all that was sent has arrived: the link can be closed."""


Event = (
    LinkOpened
    | CallReceived
    | CallCancelled
    | CallAnswered
    | AnswerBegun
    | ItemsArrived
    | CallFailed
    | CallReturned
    | HoldChanged
    | PongReceived
    | Drained
)
