"""A module that streams the load of its machine, for examples/sensor.html."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from bonevalue import Module


class Wanted(BaseModel):
    """How often to look."""

    interval: float = Field(default=1.0, ge=0.1, le=60, description="Seconds between two readings.")


class Reading(BaseModel):
    """One look at the machine."""

    load: float = Field(description="Runnable processes, averaged over the last minute.")


class Sensor(Module):
    """The load of this machine, as long as the caller wants it."""

    async def handle(self, request: Wanted) -> AsyncIterator[Reading]:
        while True:
            yield Reading(load=os.getloadavg()[0])
            await asyncio.sleep(request.interval)
