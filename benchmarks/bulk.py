"""
S4: how fast 64 MiB arrive as one stream. S5: how long small calls take beside it, on the same link.

The callee streams 1,024 items of 64 KiB to the caller. aiortc sends as many messages of that size over a channel of
its own, with 128 KiB under way at most. The small calls are made one after the other with a pause between them, first
alone, then for as long as the stream runs.
"""

from __future__ import annotations

from typing import Any

from benchmarks.contenders.contender import Contender
from benchmarks.contenders.ours import BoneValue
from benchmarks.contenders.raw_aiortc import Aiortc
from benchmarks.session import Rounds, Session

__all__ = ["measure"]

#: Bytes of an item, items of the stream, and of a shorter one before it.
SIZE, PIECES, WARM_UP = 65_536, 1_024, 32
#: Seconds between the end of a small call and the next.
PAUSE = 0.005


async def measure(session: Session) -> None:
    """Both."""
    floor = Aiortc()
    chosen: list[Contender] = [BoneValue(), *([floor] if "S4" in session.wanted else [])]
    bulk, small = Rounds(session, "bulk"), Rounds(session, "beside_bulk")
    for _ in range(session.rounds):
        for contender in session.present(chosen):
            async with session.turn(contender), contender.meet() as pair:
                caller = pair.caller
                await caller.ask("bulk", size=SIZE, pieces=WARM_UP)
                if "S4" in session.wanted:
                    seconds = await caller.ask("bulk", size=SIZE, pieces=PIECES)
                    bulk.add(contender.name, {"seconds": round(seconds, 3), "mb_per_second": _rate(seconds)})
                if "S5" in session.wanted and contender is not floor:
                    small.add("alone", await caller.ask("paced", pause=PAUSE, seconds=session.seconds * 2))
                    beside: dict[str, Any] = await caller.ask("beside_bulk", pause=PAUSE, size=SIZE, pieces=PIECES)
                    rate = _rate(beside.pop("bulk_seconds"))
                    small.add(contender.name, {**beside, "mb_per_second": rate})
    bulk.judge("S4", floor.name)
    small.judge("S5", "alone")
    await session.write_profiles("bulk", BoneValue(), lambda caller: caller.ask("bulk", size=SIZE, pieces=PIECES))


def _rate(seconds: float) -> float:
    return round(SIZE * PIECES / seconds / 1e6, 2)
