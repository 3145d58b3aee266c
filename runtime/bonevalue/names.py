"""
Looking up the names of STUN and TURN servers.

Nothing ends a lookup of the system's resolver, which may take half a minute to find that nobody answers, and others
name the servers. So lookups run in few threads of their own, for which neither the process's other lookups nor its end
wait; whoever gives up while all of them are busy leaves the queue. One name is looked up once at a time, however many
ask for it, and what was found is used again for a while.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable

from bonevalue.threads import CallThread

__all__ = ["Names", "family"]

#: Seconds for which an answer is used again.
KEPT = 60.0
#: Lookups at the same time.
MAX_LOOKUPS = 4
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
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

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
        found = self._kept(host)
        if not found and host not in self._asking:
            await self._slots.acquire()
            found = self._kept(host)
            if found or host in self._asking:  # somebody before us in the queue wanted the same
                self._slots.release()
            else:
                self._ask(host)
        return found or await asyncio.shield(self._asking[host])

    def forget(self) -> None:
        """The network has changed, and with it perhaps the answers."""
        self._found.clear()

    def _kept(self, host: str) -> tuple[str, ...]:
        until, found = self._found.get(host, (0.0, ()))
        return found if self._clock() < until else ()

    def _ask(self, host: str) -> None:
        """Look a name up, in a slot that is free again when the thread has returned."""
        asking = self._asking[host] = asyncio.get_running_loop().create_task(_look_up(host))
        asking.add_done_callback(lambda task: self._asked(host, task))

    def _asked(self, host: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        self._slots.release()
        del self._asking[host]
        if task.cancelled() or task.exception() is not None:
            return
        if len(self._found) >= MAX_NAMES:
            self._found.clear()
        self._found[host] = (self._clock() + KEPT, task.result())


async def _look_up(host: str) -> tuple[str, ...]:
    try:
        entries = await CallThread(socket.getaddrinfo, (host, 0, 0, socket.SOCK_DGRAM)).result()
    except (UnicodeError, RuntimeError) as error:  # a label that cannot be one; no more threads
        raise OSError(str(error)) from error
    return _by_turns(list(dict.fromkeys(str(entry[4][0]) for entry in entries)))


def _by_turns(addresses: list[str]) -> tuple[str, ...]:
    """Families by turns, as in RFC 8305 section 4, beginning with that of the first."""
    first = [address for address in addresses if family(address) == family(addresses[0])]
    other = [address for address in addresses if address not in first]
    mixed = [address for pair in zip(first, other, strict=False) for address in pair]
    return tuple([*mixed, *first[len(other) :], *other[len(first) :]][:MAX_ADDRESSES])
