"""What all contenders have in common, seen from the driver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar, Literal

from benchmarks.children import Child

__all__ = ["Contender", "CpuTime", "Pair"]


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU time in the two processes of a pair."""

    caller: float
    callee: float

    def __sub__(self, before: CpuTime) -> CpuTime:
        return CpuTime(self.caller - before.caller, self.callee - before.callee)

    def each(self, count: float, unit: Literal["us", "ms"]) -> dict[str, float]:
        """What each of so many things took, as figures of a round."""
        scale = {"us": 1e6, "ms": 1e3}[unit] / count
        return {
            f"cpu_{unit}_caller": round(self.caller * scale, 2),
            f"cpu_{unit}_callee": round(self.callee * scale, 2),
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """The two processes between which something is measured, connected."""

    caller: Child
    callee: Child

    async def cpu(self) -> CpuTime:
        """What both have used so far."""
        return CpuTime(await self.caller.ask("cpu"), await self.callee.ask("cpu"))


class Contender(ABC):
    """Somebody who is measured."""

    #: As it is called in results.
    name: ClassVar[str]
    #: What must be importable for it.
    needs: ClassVar[str]

    def absent(self, isolated: bool) -> str | None:
        """
        Why it cannot take part here, None if it can.

        Args:
            isolated: whether this runs in a network namespace of its own.
        """
        return None if find_spec(self.needs) is not None else f"the Python package {self.needs} is not installed"

    @abstractmethod
    def meet(self) -> AbstractAsyncContextManager[Pair]:
        """Both processes, connected, until the context is left."""

    @asynccontextmanager
    async def two(self) -> AsyncIterator[Pair]:
        """Its two processes, not connected."""
        module = type(self).__module__
        async with Child.running(module, "callee") as callee, Child.running(module, "caller") as caller:
            yield Pair(caller, callee)
