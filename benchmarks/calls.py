"""
S1, S2, S3: calls per second with 64 in flight, and how long one by itself takes.

A call is a request of a few bytes of JSON that comes back as its response, over one link between two processes. Every
contender is measured in the same loop (:mod:`benchmarks.calling`), each round between new processes. aiortc has no
calls: a message that comes back takes their place.
"""

from __future__ import annotations

from functools import partial

from benchmarks.children import Child
from benchmarks.contenders.contender import Contender, Pair
from benchmarks.contenders.grpc_aio import Grpc
from benchmarks.contenders.iroh_streams import Iroh
from benchmarks.contenders.nats_requests import Nats
from benchmarks.contenders.ours import BoneValue
from benchmarks.contenders.raw_aiortc import Aiortc
from benchmarks.session import Rounds, Session

__all__ = ["measure"]

#: Calls in flight for S1 and S2.
AT_ONCE = 64
#: Seconds of calls before any counts.
WARM_UP = 0.5
#: Seconds of calls in a profile.
PROFILED = 5.0

RIVALS: tuple[Contender, ...] = (Grpc(), Nats(), Iroh())


async def measure(session: Session) -> None:
    """The three."""
    floor = Aiortc()
    chosen: list[Contender] = [BoneValue()]
    chosen += [floor] if session.wanted & {"S1", "S3"} else []
    chosen += RIVALS if "S2" in session.wanted else []
    many, single = Rounds(session, "calls_64"), Rounds(session, "calls_1")
    for _ in range(session.rounds):
        for contender in session.present(chosen):
            async with session.turn(contender), contender.meet() as pair:
                await pair.caller.ask("calls", at_once=AT_ONCE, seconds=WARM_UP)
                if "S3" in session.wanted:
                    single.add(contender.name, await _calls(pair, 1, session.seconds / 2))
                if session.wanted & {"S1", "S2"}:
                    many.add(contender.name, await _calls(pair, AT_ONCE, session.seconds))
    many.judge("S1", floor.name)
    for rival in RIVALS:
        many.judge("S2", rival.name)
    single.judge("S3", floor.name)
    work = partial(Child.ask, what="calls", at_once=AT_ONCE, seconds=PROFILED)
    await session.write_profiles("calls_64", BoneValue(), work)


async def _calls(pair: Pair, at_once: int, seconds: float) -> dict[str, float]:
    """A round, with the CPU time that each of its calls took in both processes."""
    before = await pair.cpu()
    figures: dict[str, float] = await pair.caller.ask("calls", at_once=at_once, seconds=seconds)
    used = await pair.cpu() - before
    return {**figures, **used.each(figures["calls"], "us")}
