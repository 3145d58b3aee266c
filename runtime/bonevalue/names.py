"""
Looking up the names of STUN and TURN servers.

The system's resolver runs in one of few threads and may take half a minute to find that nobody answers it. So one name
is looked up once at a time, however many ask for it, and what was found is used again for a while.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable

__all__ = ["Names", "family"]

#: Seconds for which an answer is used again.
KEPT = 60.0
#: Names of which answers are kept.
MAX_NAMES = 64
#: Addresses of one name that are of use.
MAX_ADDRESSES = 4


def family(address: str) -> str:
    """``IPv4`` or ``IPv6``."""
    return "IPv6" if ":" in address else "IPv4"


class Names:
    """
    The addresses of names.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._asking: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    async def addresses(self, host: str) -> tuple[str, ...]:
        """
        Where a host is: the best first, families by turns; an address is its own.

        Raises:
            OSError: the name is not known, or no resolver answers.
        """
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            pass
        until, found = self._found.get(host, (0.0, ()))
        if found and self._clock() < until:
            return found
        asking = self._asking.get(host)
        if asking is None:
            asking = self._asking[host] = asyncio.get_running_loop().create_task(self._ask(host))
            asking.add_done_callback(lambda task: self._asked(host, task))
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """The network has changed, and with it perhaps the answers."""
        self._found.clear()

    async def _ask(self, host: str) -> tuple[str, ...]:
        try:
            entries = await asyncio.get_running_loop().getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        except UnicodeError as error:  # a label that cannot be one
            raise OSError(str(error)) from error
        return _by_turns(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))

    def _asked(self, host: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        del self._asking[host]
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._found) >= MAX_NAMES:
            self._found.clear()
        self._found[host] = (self._clock() + KEPT, task.result())


def _by_turns(addresses: list[str]) -> tuple[str, ...]:
    """Families by turns, as in RFC 8305 section 4, beginning with that of the first."""
    first = [address for address in addresses if family(address) == family(addresses[0])]
    other = [address for address in addresses if address not in first]
    mixed = [address for pair in zip(first, other, strict=False) for address in pair]
    return tuple([*mixed, *first[len(other) :], *other[len(first) :]][:MAX_ADDRESSES])
