"""
The life of a link, from the wish for one to its end, as states in one table.

Pool, dialler and link write into the same :class:`LinkLife`, each what it knows, so that whoever asks (the log, the
module ``bv.links``, the error of an attempt that failed) is told one story.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

from bonevalue.errors import LocalProtocolError

__all__ = ["DOING", "TRANSITIONS", "LinkLife", "State"]

logger = logging.getLogger(__name__)


class State(StrEnum):
    """Where a link is in its life. ``GATHERING`` to ``PROOF`` are the phases that ``connect_failed`` names."""

    QUEUE = "queue"
    GATHERING = "gathering"
    RELAY = "relay"
    ANSWER = "answer"
    CHECKING = "checking"
    DTLS = "dtls"
    PROOF = "proof"
    OPEN = "open"
    DRAINING = "draining"
    FAILED = "failed"
    """It never came about."""
    LOST = "lost"
    """The path broke, or the remote peer vanished."""
    CLOSED = "closed"
    """It ended on purpose, or because somebody broke the rules."""


#: What a link that is being set up is doing, in words that complete "it was ...".
DOING: Mapping[State, str] = MappingProxyType(
    {
        State.QUEUE: "waiting for its turn",
        State.GATHERING: "gathering candidates",
        State.RELAY: "handing the request to the discovery server",
        State.ANSWER: "waiting for the other peer's answer",
        State.CHECKING: "looking for a path",
        State.DTLS: "shaking hands",
        State.PROOF: "waiting for the other side's proof",
    }
)

_ENDS = frozenset({State.FAILED, State.LOST, State.CLOSED})

#: Every transition that there is. Who dials goes through all states in order; who is dialled has neither ``RELAY`` nor
#: ``ANSWER``. An engine whose checks succeed at once may skip one of those that follow.
TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.QUEUE: frozenset({State.GATHERING, State.FAILED}),
        State.GATHERING: frozenset({State.RELAY, State.CHECKING, State.FAILED}),
        State.RELAY: frozenset({State.ANSWER, State.CHECKING, State.FAILED}),
        State.ANSWER: frozenset({State.CHECKING, State.FAILED}),
        State.CHECKING: frozenset({State.DTLS, State.PROOF, State.FAILED}),
        State.DTLS: frozenset({State.PROOF, State.FAILED}),
        State.PROOF: frozenset({State.OPEN, State.FAILED}),
        State.OPEN: frozenset({State.DRAINING, State.LOST, State.CLOSED}),
        State.DRAINING: frozenset({State.LOST, State.CLOSED}),
        State.FAILED: frozenset(),
        State.LOST: frozenset(),
        State.CLOSED: frozenset(),
    }
)


class LinkLife:
    """
    One link, or the attempt to make one.

    Args:
        peer_id: the remote peer.
        name: our alias for its account; empty until it is known.
        dialled: whether this side wants it; else the other side dials.
        state: where it begins.
        on_end: called once, when the life has ended.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        peer_id: str,
        name: str = "",
        *,
        dialled: bool,
        state: State = State.QUEUE,
        on_end: Callable[[LinkLife], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.peer_id = peer_id
        self.name = name
        self.dialled = dialled
        self.state = state
        #: How far it came while it was set up.
        self.phase = state
        self._on_end = on_end
        self._clock = clock
        self._since = clock()

    @property
    def seconds(self) -> float:
        """For how long it has been in this state."""
        return self._clock() - self._since

    @property
    def is_over(self) -> bool:
        """Whether the link is gone, or never came about."""
        return self.state in _ENDS

    @property
    def is_setting_up(self) -> bool:
        """Whether it is on its way, with no link yet."""
        return self.state in DOING

    def to(self, state: State, why: str = "") -> None:
        """
        It is in another state now.

        Args:
            state: the new one; the same one again is nothing.
            why: a few words for the log.

        Raises:
            LocalProtocolError: the table has no such transition.
        """
        if state is self.state:
            return
        if state not in TRANSITIONS[self.state]:
            raise LocalProtocolError(f"a link that is in state {self.state} cannot go to {state}")
        level = logging.INFO if state is State.LOST else logging.DEBUG
        direction = "to" if self.dialled else "from"
        logger.log(
            level, "link %s %s/%s: %s -> %s after %.2f s%s", direction, self.name or "?", self.peer_id, self.state,
            state, self.seconds, f": {why}" if why else "",
        )  # fmt: skip
        self.state = state
        self._since = self._clock()
        if self.is_setting_up:
            self.phase = state
        if self.is_over and self._on_end is not None:
            self._on_end(self)

    def end(self, state: State, why: str = "") -> None:
        """It is over; nothing if it was already. An attempt ends ``FAILED``, whatever is said."""
        if not self.is_over:
            self.to(State.FAILED if self.is_setting_up else state, why)
