"""The sensor of the examples: its readings, and requests that make no sense."""

from __future__ import annotations

import importlib.util
import time
from contextlib import aclosing
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import ValidationError

FILE = Path(__file__).parents[2] / "examples" / "modules" / "sensor.py"


@pytest.fixture(scope="module")
def sensor() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sensor", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_readings_come_at_the_pace_that_was_asked_for(sensor: ModuleType) -> None:
    began = time.monotonic()
    async with aclosing(sensor.Sensor().handle(sensor.Request(every=0.1))) as readings:
        found = [await anext(readings) for _ in range(3)]
    assert time.monotonic() - began >= 0.2
    assert [reading.moment for reading in found] == sorted({reading.moment for reading in found})
    assert all(reading.load >= 0 for reading in found)


@pytest.mark.parametrize("every", [0, 0.05, 3601, "soon", None])
def test_a_pace_that_makes_no_sense_is_refused(sensor: ModuleType, every: object) -> None:
    with pytest.raises(ValidationError):
        sensor.Request.model_validate({"every": every})
