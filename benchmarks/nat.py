"""
How soon the first call to a peer is answered behind NATs and firewalls, and when the error comes where nothing works.

R19 of the targets. Both peers are processes of their own, on hosts of a lab of network namespaces with a discovery
server and coturn; every call makes a new link. Prints one JSON object a line, and fails if a goal is missed::

    python -m benchmarks.nat [--dials 40] [CASE ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import percentile
from benchmarks.machine import describe
from tests.support import netns
from tests.support.lab import Coturn, Kind, Lab
from tests.support.lab.pairs import acquaint, pair_behind


@dataclass(frozen=True, slots=True)
class Case:
    """
    Args:
        one: kind of the caller's box.
        other: kind of the other peer's.
        limit: seconds within which 95 of 100 first calls are answered, or within which the error comes.
        fails: whether there is no way.
        turn_down: whether coturn does not run.
    """

    one: Kind
    other: Kind
    limit: float
    fails: bool = False
    turn_down: bool = False


CASES = {
    "open": Case("open", "open", 3),
    "cone": Case("cone", "cone", 3),
    "symmetric": Case("symmetric", "symmetric", 6),
    "udp-blocked": Case("udp_blocked", "cone", 12),
    "tls-only": Case("tls_only", "cone", 12),
    "both-udp-blocked": Case("udp_blocked", "udp_blocked", 12),
    "all-blocked": Case("all_blocked", "cone", 25, fails=True),
    "turn-down": Case("symmetric", "symmetric", 25, fails=True, turn_down=True),
    "cone-turn-down": Case("cone", "cone", 3, turn_down=True),
}


def show(**line: Any) -> None:
    """Print a line."""
    print(json.dumps(line), flush=True)  # noqa: T201


def measure(lab: Lab, turn: Coturn, case: Case, dials: int) -> dict[str, Any]:
    """The figures of one case."""
    with pair_behind(lab, case.one, case.other) as pair:
        if case.turn_down:
            turn.stop()
        try:
            if case.fails:
                failure = pair.failure()
                return {"seconds": [failure.seconds], "error": failure.error}
            return {"seconds": pair.first_calls(dials), "path": pair.path()}
        finally:
            if case.turn_down:
                turn.start()


def result(name: str, case: Case, figures: dict[str, Any]) -> dict[str, Any]:
    """A line of the results."""
    seconds = sorted(figures.pop("seconds"))
    p95 = percentile(seconds, 95)
    return {
        "line": "result",
        "benchmark": "nat",
        "case": name,
        "boxes": [case.one, case.other],
        "dials": len(seconds),
        "p50_s": round(percentile(seconds, 50), 3),
        "p95_s": round(p95, 3),
        "most_s": round(seconds[-1], 3),
        "limit_s": case.limit,
        "met": p95 <= case.limit,
        **figures,
    }


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="how soon peers behind NATs reach each other")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--dials", type=int, default=40, help="new links in each case that works (default: 40)")
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    network = netns.enter()
    show(line="run", **describe(), network=network, dials=arguments.dials)
    met = True
    with tempfile.TemporaryDirectory() as folder, Lab(Path(folder)) as lab:
        # By default one peer may ask another for some twenty links in a row.
        turn = acquaint(lab, limits={"requests_per_pair": "1000/s"})
        for name in arguments.cases or CASES:
            line = result(name, CASES[name], measure(lab, turn, CASES[name], arguments.dials))
            met = met and line["met"]
            show(**line)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
