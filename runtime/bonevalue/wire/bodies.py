"""Bodies that come in over several frames, and how much of them a link may hold unfinished."""

from __future__ import annotations

from collections.abc import MutableMapping

from bonevalue.errors import RemoteProtocolError
from bonevalue.wire.memory import MemoryShare

__all__ = ["LONG", "BodyBudget", "IncomingBody"]


#: Bodies longer than this count towards what a link may hold; shorter ones are bounded by the number of calls.
LONG = 4096


class IncomingBody:
    """A body that is coming in; ``counted`` tells that it takes part in the limit of unfinished ones."""

    __slots__ = ("counted", "data", "length", "raw", "received")

    def __init__(self, length: int, raw: bool) -> None:
        self.length = length
        self.raw = raw
        self.received = 0
        #: What has come; one buffer, so that tiny pieces take no more memory than they have bytes.
        self.data = bytearray()
        self.counted = False


class BodyBudget:
    """
    The limit of unfinished bodies on one link.

    Args:
        limit: bytes, all bodies together.
        share: from which they are taken, too.
        limited: counts by name how often a limit took effect.
    """

    def __init__(self, limit: int, share: MemoryShare, limited: MutableMapping[str, int]) -> None:
        self._limit = limit
        self._share = share
        self._limited = limited
        self._taken = 0

    def add(self, body: IncomingBody, data: memoryview) -> bool:
        """
        Add bytes to a body; False if there is no memory left for it.

        A long one counts whole from its first byte on.

        Raises:
            RemoteProtocolError: it gets more bytes than were declared.
        """
        body.received += len(data)
        if body.received > body.length:
            raise RemoteProtocolError("a body is longer than was declared")
        if data and body.length > LONG and not body.counted:
            if self._taken + body.length > self._limit:
                self._limited["incomplete"] += 1
                return False
            if not self._share.take(body.length):
                self._limited["memory"] += 1
                return False
            self._taken += body.length
            body.counted = True
        body.data += data
        return True

    def release(self, body: IncomingBody) -> None:
        """The body is complete, or no longer wanted."""
        if body.counted:
            self._taken -= body.length
            self._share.give(body.length)
            body.counted = False
