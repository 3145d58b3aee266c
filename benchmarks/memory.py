"""
S7: the memory that an idle link takes in the process of the caller, which has 200 of them.

Measured as the growth of resident memory from after the first few links to after the last; the 200 callees are in
another process and do not count. aiortc has as many connections with a channel each. The CPU time that both take while
nothing happens is measured, too.
"""

from __future__ import annotations

import asyncio

from benchmarks.contenders.ours import BoneValue
from benchmarks.contenders.raw_aiortc import Aiortc
from benchmarks.session import Rounds, Session

__all__ = ["measure"]

#: Links that are counted, and those before them.
COUNT, WARM_UP = 200, 5
#: Seconds in which nothing happens: a heartbeat of each link, and more.
IDLE = 6.0


async def measure(session: Session) -> None:
    """Open links, and leave them alone."""
    ours, floor = BoneValue(callees=COUNT + WARM_UP), Aiortc()
    memory = Rounds(session, "idle_links")
    for _ in range(session.rounds):
        for contender in session.present([ours, floor]):
            async with session.turn(contender), contender.meet() as pair:
                caller = pair.caller
                await caller.ask("open", first=0, count=WARM_UP)
                before = await caller.ask("memory")
                await caller.ask("open", first=WARM_UP, count=COUNT)
                cpu = await caller.ask("cpu")
                await asyncio.sleep(IDLE)
                cpu = await caller.ask("cpu") - cpu
                grown = await caller.ask("memory") - before
                values = {"kib_per_link": grown / COUNT, "core_percent_of_all": cpu / IDLE * 100}
                memory.add(contender.name, {name: round(value, 2) for name, value in values.items()})
    memory.judge("S7", floor.name)
