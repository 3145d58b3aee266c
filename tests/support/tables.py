"""Two call tables joined by hand, on a clock that only the test moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from bonevalue.wire.calls import CallTable, LinkSettings
from bonevalue.wire.events import Event
from bonevalue.wire.memory import MemoryBudget

__all__ = ["MEBIBYTE", "FakeProof", "Side", "joined"]

MEBIBYTE = 1024 * 1024
_Kind = TypeVar("_Kind")


@dataclass
class FakeProof:
    """Signatures that are right if they are the expected bytes."""

    mine: bytes
    expected: bytes

    def accepts(self, signature: bytes) -> bool:
        """Whether this is the other side's."""
        return signature == self.expected


@dataclass
class Side:
    """One end: its table, what it has reported, and the messages that lie between the two."""

    table: CallTable
    reported: list[Event] = field(default_factory=list)

    def take(self, kind: type[_Kind]) -> list[_Kind]:
        """Take out the reported events of one kind."""
        self.reported += self.table.events()
        found: list[_Kind] = [event for event in self.reported if isinstance(event, kind)]
        self.reported = [event for event in self.reported if not isinstance(event, kind)]
        return found

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent, of items too."""
        return self.table.backlog + self.table.queued_items

    def one(self, kind: type[_Kind]) -> _Kind:
        """Take out the only event of one kind."""
        (event,) = self.take(kind)
        return event


@dataclass
class Pair:
    """Both ends and the clock."""

    ours: Side
    theirs: Side
    now: float = 1000.0

    def exchange(self, room: int = 10 * MEBIBYTE) -> int:
        """Carry messages both ways until nobody has any; gives their number."""
        carried = 0
        while True:
            batches = [
                (self.theirs, self.ours.table.data_to_send(room, self.now)),
                (self.ours, self.theirs.table.data_to_send(room, self.now)),
            ]
            if not any(messages for _, messages in batches):
                return carried
            for receiver, messages in batches:
                for message in messages:
                    carried += 1
                    receiver.table.receive(message, self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer at its moment."""
        end = self.now + seconds
        while True:
            due = [side.table.timer() for side in (self.ours, self.theirs)]
            moment = min((each for each in due if each is not None), default=end)
            if moment > end:
                break
            self.now = max(self.now, moment)
            for side in (self.ours, self.theirs):
                side.table.handle_timer(self.now)
            self.exchange()
        self.now = end


def joined(
    ours: LinkSettings | None = None,
    theirs: LinkSettings | None = None,
    *,
    opened: bool = True,
    memory: MemoryBudget | None = None,
    their_memory: MemoryBudget | None = None,
) -> Pair:
    """Two tables, each with its settings and its memory (theirs is ours if only that is given); ours made the offer."""
    a, b = bytes([1]) * 64, bytes([2]) * 64
    now = 1000.0
    pair = Pair(
        Side(CallTable(offerer=True, proof=FakeProof(a, b), settings=ours or LinkSettings(), now=now, memory=memory)),
        Side(
            CallTable(
                offerer=False,
                proof=FakeProof(b, a),
                settings=theirs or LinkSettings(),
                now=now,
                memory=their_memory or memory,
            )
        ),
    )
    if opened:
        pair.exchange()
        for side in (pair.ours, pair.theirs):
            side.reported += side.table.events()
            side.reported.clear()
    return pair
