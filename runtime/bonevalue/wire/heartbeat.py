"""When to ping a link, and when its silence means that it is lost."""

from __future__ import annotations

from bonevalue.errors import LinkLost, RemoteProtocolError

__all__ = ["Heartbeat"]

#: Beats of silence after which a link counts as lost.
MISSED_BEATS = 3
#: Pings whose answers are awaited at most; the oldest is given up for a newer one.
MAX_UNANSWERED = 64


class Heartbeat:
    """
    The pings of one side of a link. Anything that is heard counts as a sign of life.

    Args:
        interval: seconds of silence after which to ping; the link is lost after three times that.
        second: ping half as late again. If the two sides differ in that, one of them hears the other's pings and need
            not send any: an idle link costs half.
        now: seconds of a monotonic clock.
    """

    def __init__(self, *, interval: float, now: float, second: bool = False) -> None:
        #: Round trip of the last ping, in seconds; None before the first.
        self.round_trip: float | None = None
        #: When something was heard last.
        self.heard_at = now
        self._interval = interval
        self._ping_after = interval * 1.5 if second else interval
        self._pinged_at = now
        self._number = 0
        self._unanswered: dict[int, float] = {}

    def heard(self, now: float) -> None:
        """Something came from the other side."""
        self.heard_at = now

    def due(self) -> float:
        """When :meth:`beat` wants to be called."""
        return min(self._ping_due(), self._loss_due())

    def beat(self, now: float) -> bool:
        """
        Tell whether to ping now.

        Raises:
            LinkLost: nothing was heard for three beats.
        """
        due, loss = self.due(), self._loss_due()
        if now >= loss:
            # Called a whole beat late, this very process was stopped or busy, and what the other side sent may still be
            # unread: that says nothing about the link, so it gets another round.
            if now - due < self._interval:
                raise LinkLost(f"nothing was heard from the peer for {now - self.heard_at:.0f} s")
            self.heard_at = now
            return True
        return now >= self._ping_due()

    def ping(self, now: float) -> int:
        """Number of the ping that is sent now."""
        self._number += 1
        self._pinged_at = now
        self._unanswered[self._number] = now
        if len(self._unanswered) > MAX_UNANSWERED:
            del self._unanswered[next(iter(self._unanswered))]
        return self._number

    def pong(self, number: int, now: float) -> float | None:
        """
        A ping was answered: gives its round trip in seconds, None if it was answered before or long ago.

        Raises:
            RemoteProtocolError: no ping had that number.
        """
        if not 0 < number <= self._number:
            raise RemoteProtocolError("pong without its ping")
        sent = self._unanswered.pop(number, None)
        if sent is None:
            return None
        self.round_trip = now - sent
        return self.round_trip

    def _ping_due(self) -> float:
        return max(self.heard_at, self._pinged_at) + self._ping_after

    def _loss_due(self) -> float:
        return self.heard_at + MISSED_BEATS * self._interval
