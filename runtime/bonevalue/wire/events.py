"""What happens on a link, as data: the events of a :class:`~bonevalue.wire.calls.CallTable`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from bonevalue.errors import BoneValueError
from bonevalue.wire.bodies import IncomingBody

__all__ = [
    "CallAnswered",
    "CallCancelled",
    "CallFailed",
    "CallReceived",
    "CallReturned",
    "Drained",
    "Event",
    "HoldChanged",
    "IncomingCall",
    "LinkOpened",
    "OutgoingCall",
    "PongReceived",
]


class OutgoingCall:
    """A call of ours. ``context`` is the caller's to use."""

    __slots__ = ("answer", "body", "context", "deadline", "id", "module", "raw")

    def __init__(self, module: bytes, body: bytes, raw: bool, deadline: float, context: Any) -> None:
        self.id = 0
        self.module = module
        self.body = body
        self.raw = raw
        self.deadline = deadline
        self.context = context
        self.answer: IncomingBody | None = None


class IncomingCall:
    """A call of the other side; ``delivered`` once its body is complete and it was reported."""

    __slots__ = ("body", "deadline", "delivered", "id", "module", "replied")

    def __init__(self, number: int, module: str, deadline: float, body: IncomingBody) -> None:
        self.id = number
        self.module = module
        self.deadline = deadline
        self.body = body
        self.delivered = False
        self.replied = False


class LinkOpened(Struct, frozen=True):
    """The other side is who it should be, and calls may go."""

    agent: str
    features: list[str]


class CallReceived(Struct, frozen=True):
    """A call with its whole body; to be ended by ``reply`` or ``fail``."""

    call: int
    module: str
    body: bytes
    raw: bool
    deadline: float


class CallCancelled(Struct, frozen=True):
    """The other side, or its deadline, ended a received call; nothing can be replied any more."""

    call: int
    error: BoneValueError


class CallAnswered(Struct, frozen=True):
    """One of our calls has its answer."""

    call: OutgoingCall
    body: bytes
    raw: bool


class CallFailed(Struct, frozen=True):
    """One of our calls failed."""

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
    | CallFailed
    | CallReturned
    | HoldChanged
    | PongReceived
    | Drained
)
