"""A sensor that every machine has: how much its processors are asked to do."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

from pydantic import BaseModel, Field

from bonevalue import Module


class Request(BaseModel):
    """How often to read the sensor."""

    every: float = Field(default=1.0, ge=0.1, le=3600, description="Seconds from one reading to the next.")


class Reading(BaseModel):
    """What the sensor said."""

    moment: float = Field(description="Seconds since 1970.")
    load: float = Field(description="Processes that ran or wanted to, on average over the last minute.")


class Sensor(Module):
    """Readings of the load of this machine, from now on until nobody wants them any more."""

    name = "Sensor.Load"

    async def handle(self, request: Request) -> AsyncIterator[Reading]:
        """Give a reading at once, then one each time that the caller's time has passed."""
        while True:
            yield Reading(moment=time.time(), load=os.getloadavg()[0])
            await asyncio.sleep(request.every)
