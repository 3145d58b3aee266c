"""Modules that the tests of the console call: a daemon gets a copy of this file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from bonevalue import Module

#: What would run, if it were ever taken for more than text.
MARKUP = "<img src=x onerror=\"document.title='taken'\">"


class Place(BaseModel):
    """Where something is."""

    room: str = Field(min_length=1, description="Name of the room.")
    floor: int = Field(default=0, ge=-3, le=120)


class Reading(BaseModel):
    """What to measure."""

    sensor: str
    unit: Literal["C", "F"] = "C"
    place: Place
    precise: bool = False
    since: float | None = None
    tags: list[str] = []


class Thermometer(Module):
    """Temperature of a sensor."""

    name = "Home.Thermometer"

    async def handle(self, request: Reading) -> dict[str, Any]:
        return {"value": 21.5, "asked": request}


class Ticks(Module):
    """Numbers, without end, as fast as they are taken."""

    name = "Home.Ticks"

    async def handle(self, request: Annotated[float, Field(ge=0)]) -> AsyncIterator[int]:
        number = 0
        while True:
            yield (number := number + 1)
            await asyncio.sleep(request)


class Sleeper(Module):
    """Sleeps for as long as asked, in seconds."""

    name = "Home.Sleeper"

    async def handle(self, request: float) -> str:
        await asyncio.sleep(request)
        return "awake"


class Weigher(Module):
    """How many bytes came."""

    name = "Home.Weigher"

    async def handle(self, request: bytes) -> int:
        return len(request)


class Bakery(Module):
    """So many bytes."""

    name = "Home.Bakery"

    async def handle(self, request: int) -> bytes:
        return b"\xff" * request


class Breaks(Module):
    """Fails."""

    name = "Home.Breaks"

    async def handle(self, request: Any) -> None:
        raise RuntimeError("what the log is told")


class Evil(Module):
    __doc__ = MARKUP
    name = f"Evil.{MARKUP}"

    async def handle(
        self,
        request: Annotated[
            Any,
            WithJsonSchema(
                {
                    "type": "object",
                    "title": MARKUP,
                    "properties": {
                        MARKUP: {"type": "string", "description": MARKUP, "default": MARKUP},
                        "slow": {"type": "string", "pattern": "^(a+)+$"},
                    },
                }
            ),
        ],
    ) -> Any:
        return {"markup": MARKUP, "much": "x" * 1_000_000}
