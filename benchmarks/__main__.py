"""
Measures the platform beside others, on this machine, by turns, and says which goals are met.

Prints one JSON object a line: a ``run`` (machine, versions), a ``round`` each time that something was measured, an
``absent`` for who could not take part, and a ``result`` for each goal. Progress goes to standard error::

    python -m benchmarks S1 S3 --rounds 1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import uvloop

from benchmarks import bulk, calls, fanout, memory, opening
from benchmarks.figures import GOALS
from benchmarks.machine import describe
from benchmarks.session import Session
from tests.support import netns

#: What measures which goals.
BENCHMARKS: dict[Callable[[Session], Awaitable[None]], set[str]] = {
    calls.measure: {"S1", "S2", "S3"},
    bulk.measure: {"S4", "S5"},
    opening.measure: {"S6"},
    memory.measure: {"S7"},
    fanout.measure: {"S8"},
}


async def run(session: Session, network: str) -> None:
    """All that is wanted, one after the other."""
    session.line(line="run", **describe(), network=network, rounds=session.rounds, seconds=session.seconds)
    for measure, goals in BENCHMARKS.items():
        if session.wanted & goals:
            session.begin(goals)
            await measure(session)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures the platform beside others.")
    parser.add_argument(
        "goals", nargs="*", metavar="GOAL", help=f"what to measure, of {', '.join(GOALS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long calls are made for (default: 2)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the lines to a file, too")
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="profile the calls of S1 and the bulk of S4")
    arguments = parser.parse_args()
    unknown = set(arguments.goals) - set(GOALS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(GOALS)}")
    # Before anything can have started a thread; all processes of the run are born into it.
    network = netns.enter().removeprefix("network: ")
    with ExitStack() as stack:
        session = Session(
            wanted=frozenset(arguments.goals or GOALS),
            rounds=arguments.rounds,
            seconds=arguments.seconds,
            isolated="NOT" not in network,
            output=stack.enter_context(_opened(arguments.output)) if arguments.output is not None else None,
            profile=arguments.profile,
        )
        uvloop.run(run(session, network))
    return 1 if session.failed else 0


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
