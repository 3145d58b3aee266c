"""
bcrypt away from the event loop: a few threads, a bounded queue, and the same work for every question.

What is hashed is never a password but the login secret derived from it: 43 characters, well within bcrypt's 72 bytes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import bcrypt

from bonevalue.errors import Busy
from bonevalue.wire.keys import login_digest

__all__ = ["COST", "Passwords", "hash_login", "login_hash_ok"]

#: bcrypt's work factor: 2 ** 12 rounds, about a quarter of a second.
COST = 12

Result = TypeVar("Result")

_HASH = re.compile(r"\$2[aby]\$(0[4-9]|1[0-5])\$[./A-Za-z0-9]{53}\Z")
#: Salt and hash of nothing; what a login is compared with when there is nothing to compare with.
_NOTHING = "abcdefghijklmnopqrstuu" + "bonevalue.no.such.account.00000"
_NO_LOGIN = "A" * 43


def login_hash_ok(text: str) -> bool:
    """Whether this is a bcrypt hash."""
    return _HASH.match(text) is not None


def hash_login(login: str, *, cost: int = COST) -> str:
    """
    The bcrypt hash of a login secret. Takes about a quarter of a second at the usual cost.

    Raises:
        ValueError: not a login secret.
    """
    login_digest(login)
    return bcrypt.hashpw(login.encode("ascii"), bcrypt.gensalt(cost)).decode("ascii")


class Passwords:
    """
    Hashes and compares login secrets in threads.

    Args:
        threads: how many at once; bcrypt lets the interpreter run meanwhile.
        queue: how many wait besides; one more is refused.
        wait: seconds after which a waiting one is refused.
        cost: bcrypt's work factor.
    """

    def __init__(self, *, threads: int, queue: int = 64, wait: float = 5.0, cost: int = COST) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="bcrypt")
        self._free = asyncio.Semaphore(threads)
        self._most_waiting = queue
        self._waiting = 0
        self._wait = wait
        self._cost = cost
        self._nothing = f"$2b${cost:02}${_NOTHING}"

    async def hash(self, login: str) -> str:
        """
        The hash of a login secret.

        Raises:
            Busy: too many are waiting, or this one waited too long.
            ValueError: not a login secret.
        """
        return await self._run(lambda: hash_login(login, cost=self._cost))

    async def check(self, login: str, login_hash: str | None) -> bool:
        """
        Whether the hash is that of the login secret; with None for "no such account" it never is, after as much work.

        Raises:
            Busy: too many are waiting, or this one waited too long.
        """
        return await self._run(lambda: self._compare(login, login_hash))

    async def close(self) -> None:
        """Wait for what runs, and stop the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    def _compare(self, login: str, login_hash: str | None) -> bool:
        comparable = True
        try:
            login_digest(login)
        except ValueError:
            login, comparable = _NO_LOGIN, False
        if login_hash is None or not login_hash_ok(login_hash):
            login_hash, comparable = self._nothing, False
        return bcrypt.checkpw(login.encode("ascii"), login_hash.encode("ascii")) and comparable

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._free.locked() and self._waiting >= self._most_waiting:
            raise Busy("too many people are logging in with a password", retry_after=self._wait)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait):
                await self._free.acquire()
        except TimeoutError:
            raise Busy("too many people are logging in with a password", retry_after=self._wait) from None
        finally:
            self._waiting -= 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # A caller may be cancelled; the thread is taken until it is through, whoever waits for it.
        future.add_done_callback(lambda _: self._free.release())
        await asyncio.wait({future})
        return future.result()
