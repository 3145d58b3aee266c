"""The unit tests of the browser library and of the console, in Node.js and in the browser: the same tests, all well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

import pytest
from playwright.async_api import Browser

from tests.support.node import ESBUILD, NODE, run

UNIT = Path(__file__).parent / "unit"
FILES = sorted(file.name for file in UNIT.glob("*.test.ts"))
#: Milliseconds for one test, most of which take a few.
TIMEOUT = 30_000
#: Where browsers let a page have cryptography.
PAGE = "http://127.0.0.1/units.html"


class Outcome(TypedDict):
    """How a test went: without an error, well."""

    name: str
    error: str | None


#: Each run takes a few seconds on a machine that has nothing else to do.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def in_node() -> list[Outcome]:
    """How they go in Node.js, without a build."""
    reporter = UNIT / "shim" / "reporter.mjs"
    done = run(
        *NODE, "--test", f"--test-timeout={TIMEOUT}", f"--test-reporter={reporter}", *FILES, folder=UNIT, timeout=300
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def in_browser(browser: Browser) -> list[Outcome]:
    """How they go in the browser, bundled as the library is."""
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
    page = await browser.new_page()
    try:
        await page.route(PAGE, lambda route: route.fulfill(content_type="text/html", body="<!doctype html>"))
        await page.goto(PAGE)
        await page.add_script_tag(content=bundled.stdout, type="module")
        await page.wait_for_function(
            "window.outcomes !== undefined", timeout=100_000
        )  # some files prepare something first
        outcomes: list[Outcome] = await page.evaluate("window.outcomes")
        return outcomes
    finally:
        await page.close()


def failures(outcomes: list[Outcome]) -> str:
    """Those that failed, and why."""
    return "\n".join(f"{outcome['name']}: {outcome['error']}" for outcome in outcomes if outcome["error"] is not None)


def test_all_pass_in_node(in_node: list[Outcome]) -> None:
    assert not failures(in_node)
    assert len(in_node) > len(FILES) > 0


async def test_the_same_tests_pass_in_the_browser(in_node: list[Outcome], browser: Browser) -> None:
    outcomes = await in_browser(browser)
    assert not failures(outcomes)
    assert sorted(outcome["name"] for outcome in outcomes) == sorted(outcome["name"] for outcome in in_node)
