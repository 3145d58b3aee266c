"""The pings of a link that somebody waits for, and the doubt whether its path still leads to the other side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from copy import copy

from bonevalue.errors import BoneValueError, Deadline
from bonevalue.wire.calls import CallTable

__all__ = ["Pings"]


class Pings:
    """
    Args:
        table: of the link; makes the pings.
        wake: what is to be sent goes out.
    """

    def __init__(self, table: CallTable, wake: Callable[[], None]) -> None:
        self._table = table
        self._wake = wake
        self._pongs: dict[int, asyncio.Future[float]] = {}
        #: The ping that ends the doubt about the path, 0 if there is none.
        self._doubt = 0

    async def measure(self, timeout: float) -> float:
        """
        The round trip now, in seconds.

        Raises:
            Deadline: no answer came in time.
            BoneValueError: the link ended.
        """
        pong: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        number = self._table.ping(time.monotonic())
        self._pongs[number] = pong
        self._wake()
        try:
            await asyncio.wait({pong}, timeout=timeout)
            if pong.done():  # even if this process stood still until after its time
                return pong.result()
            raise Deadline(f"no answer to a ping within {timeout:g} s")
        finally:
            self._pongs.pop(number, None)
            pong.cancel()

    @property
    def doubted(self) -> bool:
        """Whether the path may be broken: no ping was answered that was sent since somebody doubted it."""
        return self._doubt > 0

    def doubt(self) -> None:
        """The path may be broken."""
        self._doubt = self._table.ping(time.monotonic())
        self._wake()

    def answered(self, number: int, round_trip: float) -> None:
        """A pong came."""
        if number >= self._doubt:
            self._doubt = 0
        pong = self._pongs.get(number)
        if pong is not None and not pong.done():
            pong.set_result(round_trip)

    def fail(self, error: BoneValueError) -> None:
        """The link has ended: no more pongs come."""
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(copy(error))
