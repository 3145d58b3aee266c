"""
How peers get on without their discovery server for an hour: R30 of the targets.

Links that are there are called over all the time, and a new one is asked for every few seconds; see
:mod:`tests.support.absence`. Prints one JSON object a line, and fails if anything did not go on or come back::

    python -m benchmarks.absence [--minutes 60]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from tests.support import netns
from tests.support.absence import BACK_WITHIN, Absence, Platform


def show(**line: Any) -> None:
    """Print a line."""
    print(json.dumps(line), flush=True)  # noqa: T201


def met(absence: Absence) -> bool:
    """Whether all that was there went on, and everybody came back in time."""
    codes = {error.code for error, _ in absence.refusals}
    return (
        not absence.failures and not absence.new_links and codes == {"unavailable"} and absence.back_after < BACK_WITHIN
    )


async def measure(seconds: float) -> bool:
    """Once."""
    with tempfile.TemporaryDirectory() as folder:
        async with Platform(Path(folder)) as platform:
            absence = await platform.lose_server(seconds)
            await platform.far("Echo", None)
    show(line="result", benchmark="absence", **absence.as_json(), met=met(absence))
    return met(absence)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="how peers get on without their discovery server")
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long it is away")
    arguments = parser.parse_args()
    network = netns.enter()
    show(line="run", **describe(), network=network, minutes=arguments.minutes)
    return 0 if asyncio.run(measure(60 * arguments.minutes)) else 1


if __name__ == "__main__":
    sys.exit(main())
