"""
What a discovery server counts, for the page that Prometheus reads; docs/operations.md tells what each means.

The reasons of a tally are a closed set: nothing that a client sends becomes a name here.
"""

from __future__ import annotations

from bonevalue.counters import Tally
from bonevalue.errors import ERRORS

__all__ = ["Counters"]


class Counters:
    """The counters of one node, all of them since it was made; each is a number or a tally."""

    def __init__(self) -> None:
        #: Sockets that were not let in, and those that the server closed for a fault of the client, by code.
        self.sockets_refused = Tally(*ERRORS)
        self.sockets_closed = Tally(*ERRORS)
        #: Logins that were right.
        self.logins_by_key = 0
        self.logins_by_password = 0
        #: Connection requests, answers and candidates that were passed on.
        self.relayed = 0
        #: What clients asked for and did not get, by the code of the error.
        self.refused = Tally(*ERRORS)
        #: STUN requests that were answered, and datagrams that were not, by why.
        self.stun_answered = 0
        self.stun_ignored = Tally("malformed", "rate_limited", "not_sent")
