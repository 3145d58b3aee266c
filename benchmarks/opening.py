"""
S6: how long the first call to a cold peer takes, from nothing: dialling over the discovery server, proof, call.

Each call is to another peer, one after the other; all are online before. aiortc opens as many connections, of which
only the session description is copied over a TCP connection, until the channel is open.
"""

from __future__ import annotations

import statistics

from benchmarks.contenders.ours import BoneValue
from benchmarks.contenders.raw_aiortc import Aiortc
from benchmarks.session import Rounds, Session

__all__ = ["measure"]

#: Connections of a round, and those before them that do not count.
COUNT, WARM_UP = 20, 2


async def measure(session: Session) -> None:
    """Open links."""
    ours, floor = BoneValue(callees=COUNT + WARM_UP), Aiortc()
    opening = Rounds(session, "opening")
    for _ in range(session.rounds):
        for contender in session.present([ours, floor]):
            async with session.turn(contender), contender.meet() as pair:
                await pair.caller.ask("open", first=0, count=WARM_UP)
                before = await pair.cpu()
                took = sorted(await pair.caller.ask("open", first=WARM_UP, count=COUNT))
                used = await pair.cpu() - before
                values = {"median_ms": statistics.median(took), "worst_ms": took[-1]}
                figures = {name: round(value * 1000, 2) for name, value in values.items()}
                opening.add(contender.name, {**figures, **used.each(COUNT, "ms")})
    opening.judge("S6", floor.name)
