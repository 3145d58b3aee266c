"""
What a peer counts, for ``bv.stats`` and for the page that Prometheus reads.

Plain integers, bumped where things happen and read when somebody asks: no lock, no clock, nothing to pay on the way of
a call. The reasons of a :class:`Tally` are a closed set, so that nothing a remote peer sends becomes a name here.
"""

from __future__ import annotations

from bonevalue.errors import ERRORS

__all__ = ["LIMITS", "LINK_ENDS", "OTHER", "Counters", "Tally"]

#: Stands for every reason that is not of the set.
OTHER = "other"

#: Why a link ended; see :data:`bonevalue.penalties.AT_FAULT` for those that are the remote peer's fault.
LINK_ENDS = (
    "closed",
    "closed_by_peer",
    "drained",
    "lost",
    "not_trusted",
    "unavailable",
    "identity_mismatch",
    "protocol_error",
    "abuse",
    "slow",
)

#: The limits that turn something away or hold something up; docs/operations.md tells of each.
LIMITS = (
    "max_calls",
    "concurrency",
    "queue",
    "rate",
    "max_body",
    "incomplete",
    "memory",
    "max_timeout",
    "send_buffer",
    "max_incoming",
    "setting_up",
    "new_links",
    "penalty",
)


class Tally(dict[str, int]):
    """Counts by reason; ``tally[reason] += 1`` with a reason that is not of the set counts as ``other``."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(dict.fromkeys((*reasons, OTHER), 0))

    def __missing__(self, reason: str) -> int:
        return self[OTHER]

    def __setitem__(self, reason: str, count: int) -> None:
        super().__setitem__(reason if reason in self else OTHER, count)


class Counters:
    """
    The counters of one peer, all of them since it was made.

    Each attribute is a number or a :class:`Tally`; those of ``bv.stats`` have the same names.
    """

    def __init__(self) -> None:
        #: Calls of ours that went to another peer.
        self.calls_made = 0
        #: Calls of others that a module answered, with a response or a whole stream.
        self.calls_served = 0
        #: Items of streams, both directions.
        self.items_sent = 0
        self.items_received = 0
        #: Calls of others that ended with an error, by its code.
        self.refused = Tally(*ERRORS)
        #: How often each limit took effect.
        self.limited = Tally(*LIMITS)
        #: Links that were proved, by who dialled.
        self.links_dialled = 0
        self.links_accepted = 0
        #: Links that ended, proved or not.
        self.links_closed = Tally(*LINK_ENDS)
        #: Attempts of ours to make a link that failed, by code.
        self.dials_failed = Tally(*ERRORS)
        #: Connection requests of others that came to nothing, by code.
        self.offers_refused = Tally(*ERRORS)
        #: Lines about other peers that were kept out of the log, because there were too many of a kind.
        self.log_lines_left_out = 0

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """All of them at this moment; of the tallies, the reasons that have come up."""
        return {
            name: {reason: count for reason, count in value.items() if count} if isinstance(value, Tally) else value
            for name, value in vars(self).items()
        }
