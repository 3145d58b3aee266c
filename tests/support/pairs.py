"""Two peers, of which one calls the other, whatever they are written in; what is sent in bulk, and its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.support.probe import pattern
from tests.support.tabs import Party, eventually

__all__ = ["FIVE_MIB", "PIECE", "WHOLE", "Pair"]

FIVE_MIB = 5 * 2**20
WHOLE = {"size": FIVE_MIB, "sha256": hashlib.sha256(pattern(FIVE_MIB)).hexdigest()}
#: Bytes of an item of a stream, with no regard to how they are cut on their way.
PIECE = 100_000


@dataclass
class Pair:
    """Who calls whom."""

    caller: Party
    callee: Party
    #: The name under which the callee knows the caller.
    name: str

    async def ask(self, module: str, request: Any = None, **spec: Any) -> Any:
        """Let the one call the other."""
        return await self.caller.ask(target=self.callee.id, module=module, request=request, **spec)

    async def code(self, module: str, request: Any = None, **spec: Any) -> str:
        """The same, and it fails; gives the code of the error."""
        answer = await self.ask(module, request, **spec)
        assert "error" in answer, answer
        return str(answer["error"]["code"])

    async def comes(self, *about: Any) -> None:
        """Wait until the callee has seen something."""
        await eventually(partial(self._has, list(about)), what=about)

    async def _has(self, about: list[Any]) -> bool:
        return about in await self.callee.seen()
