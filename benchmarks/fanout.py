"""
S8: how long one call to everyone takes, ``get("*").call_all(...)``, beside as many single calls made at once.

Fifty peers in another process, all links warm, the same peer calls; both ways by turns.
"""

from __future__ import annotations

import statistics

from benchmarks.contenders.ours import BoneValue
from benchmarks.session import Rounds, Session

__all__ = ["measure"]

#: Peers that are asked; how often a round asks them in each way, and before it counts.
PEERS, TIMES, WARM_UP = 50, 40, 5


async def measure(session: Session) -> None:
    """Ask everyone."""
    ours = BoneValue(callees=PEERS)
    fan_out = Rounds(session, "fan_out")
    for _ in range(session.rounds):
        for contender in session.present([ours]):
            async with session.turn(contender), contender.meet() as pair:
                await pair.caller.ask("fan_out", times=WARM_UP)
                took = await pair.caller.ask("fan_out", times=TIMES)
                for name, way in ((contender.name, "together"), ("single calls", "singly")):
                    fan_out.add(name, {"median_ms": round(statistics.median(took[way]) * 1000, 3)})
    fan_out.judge("S8", "single calls")
