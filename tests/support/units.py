"""The unit tests of the browser library and of the console: where they are, and one script of them for browsers."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from tests.support.node import ESBUILD, run

__all__ = ["FILES", "TIMEOUT", "UNIT", "Outcome", "bundle", "failures"]

UNIT = Path(__file__).parents[1] / "browser" / "unit"
FILES = sorted(file.name for file in UNIT.glob("*.test.ts"))
#: Milliseconds for one test, most of which take a few.
TIMEOUT = 30_000


class Outcome(TypedDict):
    """How a test went: without an error, well."""

    name: str
    error: str | None


def bundle() -> str:
    """A module, bundled as the library is, that runs them all: ``window.outcomes`` is a promise of their outcomes."""
    tests = [f"import './{name}';" for name in FILES]
    bundled = run(
        *ESBUILD,
        "--bundle",
        "--format=esm",
        "--target=es2022",
        "--alias:node:test=./shim/test.ts",
        "--alias:node:assert/strict=./shim/assert.ts",
        folder=UNIT,
        given="\n".join([*tests, "import { run } from 'node:test';", f"window.outcomes = run({TIMEOUT});"]),
    )
    assert bundled.returncode == 0, bundled.stderr
    return bundled.stdout


def failures(outcomes: list[Outcome]) -> str:
    """Those that failed, and why."""
    return "\n".join(f"{outcome['name']}: {outcome['error']}" for outcome in outcomes if outcome["error"] is not None)
