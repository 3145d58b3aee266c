"""The unit tests of the browser library and of the console, in Node.js and in the browser: the same tests, all well."""

from __future__ import annotations

import json

import pytest
from playwright.async_api import Browser

from tests.support.node import NODE, run
from tests.support.units import FILES, TIMEOUT, UNIT, Outcome, bundle, failures

#: Where browsers let a page have cryptography.
PAGE = "http://127.0.0.1/units.html"


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
    page = await browser.new_page()
    try:
        await page.route(PAGE, lambda route: route.fulfill(content_type="text/html", body="<!doctype html>"))
        await page.goto(PAGE)
        await page.add_script_tag(content=bundle(), type="module")
        await page.wait_for_function(
            "window.outcomes !== undefined", timeout=100_000
        )  # some files prepare something first
        outcomes: list[Outcome] = await page.evaluate("window.outcomes")
        return outcomes
    finally:
        await page.close()


def test_all_pass_in_node(in_node: list[Outcome]) -> None:
    assert not failures(in_node)
    assert len(in_node) > len(FILES) > 0


async def test_the_same_tests_pass_in_the_browser(in_node: list[Outcome], browser: Browser) -> None:
    outcomes = await in_browser(browser)
    assert not failures(outcomes)
    assert sorted(outcome["name"] for outcome in outcomes) == sorted(outcome["name"] for outcome in in_node)
