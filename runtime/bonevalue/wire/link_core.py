"""What both directions of calls on a link share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Protocol

from bonevalue.wire import frames
from bonevalue.wire.bodies import LONG, BodyBudget
from bonevalue.wire.deadlines import Deadlines
from bonevalue.wire.events import CallReceived, Event, OutgoingCall
from bonevalue.wire.frames import HelloLimits
from bonevalue.wire.memory import MemoryBudget
from bonevalue.wire.outbox import Outbox
from bonevalue.wire.streams import LinkCredit

__all__ = ["INLINE_BODY", "LinkCore", "LinkSettings", "OwnTallies", "Tallies"]

#: Bodies up to this length travel inside the frame that announces them: none of them is long.
INLINE_BODY = LONG


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What this side takes; sizes in bytes, times in seconds."""

    max_body: int = 8 * 1024 * 1024
    #: Calls of the other side at once.
    max_calls: int = 1024
    #: Longest time that a call may be given; a longer one is cut to it.
    max_timeout: float = 600.0
    #: Bodies that are not complete yet, of all requests together, and of all responses.
    max_incomplete: int = 16 * 1024 * 1024
    #: Items that nobody has taken yet, of one stream and of all.
    stream_credit: int = 1024 * 1024
    link_credit: int = 4 * 1024 * 1024
    heartbeat: float = 5.0
    agent: str = ""


class Tallies(Protocol):
    """Where a link counts what it turns away."""

    @property
    def limited(self) -> MutableMapping[str, int]:
        """How often each limit took effect, by its name."""
        ...

    @property
    def refused(self) -> MutableMapping[str, int]:
        """Calls of the other side that ended with an error, by its code."""
        ...


class OwnTallies:
    """The tallies of one link alone."""

    def __init__(self) -> None:
        self.limited: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()


class LinkCore:
    """
    The parts of one link that its calls in both directions use.

    Args:
        offerer: this side made the offer; its calls have odd ids.
        settings: what this side takes.
        memory: from which what comes in is taken, beyond the first credit.
        account: whose links share what there is of it.
        tallies: where the link counts.
        drained: to be called when a call has ended after the link began to drain.
        drain: to be called when the link can take no more calls.
    """

    def __init__(
        self,
        *,
        offerer: bool,
        settings: LinkSettings,
        memory: MemoryBudget,
        account: bytes,
        tallies: Tallies,
        drained: Callable[[float], None],
        drain: Callable[[str, float], None],
    ) -> None:
        self.settings = settings
        self.offerer = offerer
        self.limits = HelloLimits(
            body=settings.max_body,
            calls=settings.max_calls,
            incomplete=max(settings.max_incomplete, settings.max_body),
            stream=settings.stream_credit,
            link=frames.MIN_CREDIT,
        )
        #: What the other side takes; nothing before its ``hello``.
        self.remote = HelloLimits(body=0, calls=1, incomplete=0, stream=frames.MIN_CREDIT, link=frames.MIN_CREDIT)
        self.outbox = Outbox()
        self.events: list[Event] = []
        self.deadlines: Deadlines[OutgoingCall | CallReceived] = Deadlines()
        self.memory = memory.share(account)
        self.unfinished_requests = BodyBudget(self.limits.incomplete, self.memory, tallies.limited)
        self.unfinished_responses = BodyBudget(self.limits.incomplete, self.memory, tallies.limited)
        self.credit = LinkCredit(self.limits.link, settings.link_credit, self.memory, self.outbox.push)
        self.tallies = tallies
        self.drained = drained
        self.drain = drain

    def set_remote(self, limits: HelloLimits) -> None:
        """The other side has said what it takes."""
        self.remote = limits
        self.outbox.set_budget(limits.incomplete)
        self.outbox.link_credit = limits.link
