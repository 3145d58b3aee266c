"""
How long an account whose peer broke the rules of a link is kept away.

What counts is what happened on a proved link: there, nobody but the account can have done it. A wrong signature or
proof may be the work of somebody in between, and is never held against the account that it names.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from bonevalue.errors import RateLimited

__all__ = ["AT_FAULT", "BACK_OFF", "FORGIVEN_AFTER", "MAX_ACCOUNTS", "Penalties"]

#: The ends of a link that are its remote peer's fault, of :data:`~bonevalue.counters.LINK_ENDS`.
AT_FAULT = frozenset({"protocol_error", "abuse", "slow"})
#: Seconds for which an account is kept away after its first, second and every further offence.
BACK_OFF = (1.0, 5.0, 30.0)
#: Seconds without an offence after which all earlier ones are forgotten.
FORGIVEN_AFTER = 600.0
#: So many accounts are remembered; one more takes the place of the one whose last offence was the longest ago.
MAX_ACCOUNTS = 1024


@dataclass(slots=True)
class _Record:
    offences: int
    last: float
    reason: str

    @property
    def until(self) -> float:
        return self.last + BACK_OFF[min(self.offences, len(BACK_OFF)) - 1]


class Penalties:
    """
    The accounts that are kept away, by their keys.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._records: OrderedDict[bytes, _Record] = OrderedDict()

    def __len__(self) -> int:
        """How many accounts are kept away now."""
        now = self._clock()
        return sum(now < record.until for record in self._records.values())

    def punish(self, key: bytes, reason: str) -> float:
        """
        Keep an account away for having closed a link by its fault; gives for how many seconds.

        Args:
            key: the account's public key.
            reason: code of what it did, for the refusals that follow.
        """
        now = self._clock()
        record = self._record(key, now) or _Record(0, now, reason)
        record.offences, record.last, record.reason = record.offences + 1, now, reason
        self._records[key] = record
        self._records.move_to_end(key)
        if len(self._records) > MAX_ACCOUNTS:
            self._records.popitem(last=False)
        return record.until - now

    def check(self, key: bytes) -> None:
        """
        Let an account pass that is not kept away.

        Raises:
            RateLimited: it is; ``retry_after`` says for how long still.
        """
        now = self._clock()
        record = self._record(key, now)
        if record is not None and now < record.until:
            left = ceil((record.until - now) * 1000) / 1000  # never so little that it comes a moment too early
            text = (
                f"the last link of this account was closed by its fault ({record.reason}): no new one for {left:.1f} s"
            )
            raise RateLimited(text, retry_after=left)

    def _record(self, key: bytes, now: float) -> _Record | None:
        record = self._records.get(key)
        if record is not None and now - record.last >= FORGIVEN_AFTER:
            del self._records[key]
            return None
        return record
