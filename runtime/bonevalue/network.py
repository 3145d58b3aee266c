"""
What changes about this host's own network: addresses come and go, the way out is another, the machine has slept, or
this process was stopped for a while.

On Linux a change is noticed at once, elsewhere within two seconds. Changes come in flurries (an interface goes, another
comes, gets an address, then a better one), so that each is awaited for a quarter of a second and reported as one.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

import ifaddr

from bonevalue import netlink

__all__ = ["NetworkChange", "NetworkWatch", "own_addresses", "ways_out"]

#: Seconds between two looks, whether or not the system tells of changes itself.
INTERVAL = 2.0
#: Seconds from the first sign of a change to the report of all that belongs to it.
FLURRY = 0.25
#: A machine that stood still for fewer seconds has not slept: its connections are as they were.
LEAST_SLEEP = 2.0
#: Seconds that a look comes late after which this process must have stood still, and may have been given up by others.
LEAST_PAUSE = 5.0

#: Addresses that nobody has (RFC 5737, RFC 3849): the way to them is the way to everything that is not near.
_FAR_AWAY = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT = 9

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """What has become different, all at once."""

    added: frozenset[str] = frozenset()
    """Addresses of this host that are new; without loopback and link-local ones, as in :func:`own_addresses`."""
    removed: frozenset[str] = frozenset()
    """Those that are gone. One in both sets was taken away and given back: it may be in another network now."""
    resumed: bool = False
    """The machine was asleep: others have given its connections up, or will."""
    rerouted: bool = False
    """What goes far away leaves from another address of this host than before."""
    paused: bool = False
    """This process stood still while time went on: it or its virtual machine was stopped, or something blocked it."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.resumed or self.rerouted or self.paused)

    def __str__(self) -> str:
        parts = [
            "the machine was asleep" if self.resumed else "",
            f"gone: {', '.join(sorted(self.removed))}" if self.removed else "",
            f"new: {', '.join(sorted(self.added))}" if self.added else "",
            "another way out" if self.rerouted else "",
            "this process stood still" if self.paused else "",
        ]
        return "; ".join(filter(None, parts)) or "nothing"


def own_addresses() -> frozenset[str]:
    """
    The addresses of this host by which others could reach it: neither loopback nor link-local ones.

    Raises:
        OSError: the system does not tell them.
    """
    try:
        found = netlink.read_addresses()
    except OSError:
        found = frozenset(_text_of(ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return frozenset(filter(_is_of_use, found))


class _State(NamedTuple):
    addresses: frozenset[str]
    ways_out: frozenset[str]


class NetworkWatch:
    """
    Watches the host's network from within the running event loop.

    Args:
        on_change: is told of each change, in the event loop; it must not block.
    """

    def __init__(self, on_change: Callable[[NetworkChange], None]) -> None:
        self._on_change = on_change
        #: As it was reported last.
        self._known = _State(frozenset(), frozenset())
        self._slept = 0.0
        #: What the system said is gone, since the last report.
        self._gone: set[str] = set()
        self._resumed = False
        self._paused = False
        self._due = 0.0
        self._subscription: socket.socket | None = None
        self._next_look: asyncio.TimerHandle | None = None
        self._report: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Watch from now on; what is so now is no change."""
        self._subscribe()
        self._known = _state() or self._known
        self._slept = _slept()
        self._arm()

    def stop(self) -> None:
        """Watch no more. More than one call does no harm."""
        for timer in (self._next_look, self._report):
            if timer is not None:
                timer.cancel()
        self._next_look = self._report = None
        self._unsubscribe()

    # -- signs of a change -----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        self._due = time.monotonic() + INTERVAL
        self._next_look = asyncio.get_running_loop().call_later(INTERVAL, self._look)

    def _look(self) -> None:
        """Also where the system tells us: a message can be lost, and of routes and of sleep it says nothing."""
        self._paused |= time.monotonic() - self._due >= LEAST_PAUSE
        self._arm()
        slept = _slept()
        self._resumed |= slept - self._slept >= LEAST_SLEEP
        self._slept = slept
        if self._resumed or self._paused or self._gone or _state() not in (None, self._known):
            self._expect_more()

    def _subscribe(self) -> None:
        try:
            self._subscription = netlink.subscribe()
        except OSError as error:
            logger.debug("network changes are looked for every %g s: %s", INTERVAL, error)
        else:
            asyncio.get_running_loop().add_reader(self._subscription, self._hear, self._subscription)

    def _unsubscribe(self) -> None:
        if self._subscription is not None:
            asyncio.get_running_loop().remove_reader(self._subscription)
            self._subscription.close()
            self._subscription = None

    def _hear(self, subscription: socket.socket) -> None:
        try:
            self._gone |= netlink.removed_addresses(subscription.recv(netlink.PART))
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # that one only says that we have missed something
                logger.debug("network changes are looked for every %g s from now on: %s", INTERVAL, error)
                self._unsubscribe()
        self._expect_more()

    def _expect_more(self) -> None:
        if self._report is None:
            self._report = asyncio.get_running_loop().call_later(FLURRY, self._tell)

    # -- the report ------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        self._report = None
        before, now = self._known, _state()
        if now is None:
            return  # the next look comes back to it
        came_back = self._gone & before.addresses & now.addresses
        change = NetworkChange(
            added=now.addresses - before.addresses | came_back,
            removed=before.addresses - now.addresses | came_back,
            resumed=self._resumed,
            rerouted=now.ways_out != before.ways_out,
            paused=self._paused,
        )
        self._known, self._resumed, self._paused = now, False, False
        self._gone.clear()
        if change:
            try:
                self._on_change(change)
            except Exception:
                logger.exception("whoever was told of a network change failed")


# -- what is so -------------------------------------------------------------------------------------------------------


def _text_of(ip: ifaddr.IP) -> str:
    return ip.ip if isinstance(ip.ip, str) else ip.ip[0]


@lru_cache(maxsize=256)
def _is_of_use(text: str) -> bool:
    address = ip_address(text)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def _state() -> _State | None:
    """How it is now; None if that cannot be told just now."""
    try:
        return _State(own_addresses(), ways_out())
    except OSError as error:  # there are no descriptors left, for example
        logger.debug("the addresses of this host cannot be read: %s", error)
        return None


def ways_out() -> frozenset[str]:
    """The addresses from which packets to far away leave, at most one a family. Nothing is sent."""
    return frozenset(filter(None, (_way_to(family, address) for family, address in _FAR_AWAY)))


def _way_to(family: socket.AddressFamily, address: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.setblocking(False)
            probe.connect((address, _DISCARD_PORT))  # of UDP: it only chooses the route
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _slept() -> float:
    """
    Seconds that this machine has slept, from some moment on: one clock that counts them minus one that does not.

    Where there are no such two clocks it is by the time of day, so that setting that looks like sleep, which costs a
    needless look at what is connected.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    return time.time() - time.monotonic()
