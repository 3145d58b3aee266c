"""The measure of how late the event loop is."""

from __future__ import annotations

import asyncio
import time

import pytest

from bonevalue import loop_lag
from bonevalue.loop_lag import LoopLag
from tests.support.waiting import UNIT, until


async def test_what_blocks_the_loop_is_seen_and_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "INTERVAL", UNIT / 10)
    monkeypatch.setattr(loop_lag, "WINDOW", 10)
    lag = LoopLag()
    time.sleep(4 * UNIT)  # noqa: ASYNC251 - the very thing to be noticed
    assert lag.worst >= 3 * UNIT  # before the loop has run again
    await asyncio.sleep(0)
    assert lag.worst >= 3 * UNIT
    await until(lambda: lag.worst < 3 * UNIT)
    lag.stop()
    lag.stop()
