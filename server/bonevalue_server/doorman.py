"""
Who may come in: sockets counted per IP and for the whole node, and pages of foreign origins turned away.

A socket is a stranger from the moment it is accepted until it has logged in. A trusted proxy opens sockets for others,
so one that comes from it counts for an IP only when its request says for which.
"""

from __future__ import annotations

from collections import Counter

from bonevalue.errors import BoneValueError, Busy, OriginRefused, RateLimited, Unavailable
from bonevalue.wire.pacing import Bucket, Buckets
from bonevalue_server.limits import Limits
from bonevalue_server.networks import network_of
from bonevalue_server.origins import Headers, Origins

__all__ = ["Doorman", "Visitor", "status_of"]


def status_of(error: BoneValueError) -> int:
    """The HTTP status with which a socket is refused."""
    if isinstance(error, OriginRefused):
        return 403
    return 429 if isinstance(error, RateLimited) else 503


class Visitor:
    """One accepted socket."""

    __slots__ = ("address", "counted_as", "dialled", "is_stranger")

    def __init__(self, address: str) -> None:
        #: Who is at the other end; behind a trusted proxy known after the request only.
        self.address = address
        #: The network that it is counted for; None for none.
        self.counted_as: str | None = None
        #: The host that it dialled, as it says; "" if unknown.
        self.dialled = ""
        #: Whether it has not logged in yet.
        self.is_stranger = True


class Doorman:
    """
    Counts the sockets of one node.

    Args:
        limits: how many.
        origins: which pages may connect, and which proxies are believed.
        now: monotonic seconds.
    """

    def __init__(self, limits: Limits, origins: Origins, now: float) -> None:
        self._limits = limits
        self._origins = origins
        self._opened = Bucket(limits.sockets_opened, now)
        self._opened_per_ip: Buckets[str] = Buckets(limits.sockets_opened_per_ip)
        self._sockets = 0
        self._strangers = 0
        self._strangers_per_ip: Counter[str] = Counter()
        self.is_closing = False
        """Whether nobody is let in any more."""

    def __len__(self) -> int:
        return self._sockets

    @property
    def strangers(self) -> int:
        """How many of the sockets have not logged in."""
        return self._strangers

    def arrived(self, address: str) -> Visitor:
        """A socket was accepted from there; whatever comes of it, :meth:`left` must be called for it."""
        self._sockets += 1
        self._strangers += 1
        return Visitor(address)

    def check_arrival(self, visitor: Visitor, now: float) -> None:
        """
        Whether a socket that was just accepted may stay.

        Raises:
            Unavailable, Busy: this node has enough of them.
            RateLimited: this IP has.
        """
        if self.is_closing:
            raise Unavailable("this server is stopping", retry_after=5.0)
        if self._sockets > self._limits.sockets:
            raise Busy("this server has as many sockets as it may", retry_after=30.0)
        if self._strangers > self._limits.pending_sockets:
            raise Busy("too many sockets are about to log in", retry_after=5.0)
        wait = self._opened.take(now)
        if wait:
            raise Busy("too many new sockets", retry_after=max(1.0, wait))
        if not self._origins.is_proxy(visitor.address):
            self._count(visitor, now)

    def check_upgrade(self, visitor: Visitor, headers: Headers, now: float, *, is_tls: bool) -> None:
        """
        Whether a socket may become a WebSocket; its address, and what it dialled, are right from here on.

        Raises:
            OriginRefused: not for this page.
            RateLimited: its IP has enough of them.
        """
        self._origins.check(visitor.address, headers, is_tls=is_tls)
        visitor.dialled = self._origins.dialled_host(visitor.address, headers)
        if self._origins.is_proxy(visitor.address):
            visitor.address = self._origins.client_address(visitor.address, headers)
            self._count(visitor, now)

    def logged_in(self, visitor: Visitor) -> None:
        """A stranger logged in."""
        if visitor.is_stranger:
            visitor.is_stranger = False
            self._strangers -= 1
            if visitor.counted_as is not None:
                self._strangers_per_ip[visitor.counted_as] -= 1
                if not self._strangers_per_ip[visitor.counted_as]:
                    del self._strangers_per_ip[visitor.counted_as]

    def left(self, visitor: Visitor) -> None:
        """A socket is closed."""
        self._sockets -= 1
        self.logged_in(visitor)

    def _count(self, visitor: Visitor, now: float) -> None:
        network = network_of(visitor.address)
        visitor.counted_as = network
        self._strangers_per_ip[network] += 1
        if self._strangers_per_ip[network] > self._limits.pending_sockets_per_ip:
            raise RateLimited("too many sockets of your address have not logged in", retry_after=1.0)
        wait = self._opened_per_ip.take(network, now)
        if wait:
            raise RateLimited("too many new sockets from your address", retry_after=max(1.0, wait))
