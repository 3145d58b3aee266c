"""One Chromium for all tests here that run in one process, and a network in which it finds other tabs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import PLAIN_ADDRESSES, default_route, open_browser
from tests.support.evil import Cast, open_stage
from tests.support.evil_tabs import NAMES, befriend_all, come_on, is_quiet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever talks to the browser does so on the loop on which it was started."""
    for item in items:  # those of all folders
        if Path(__file__).parent in item.path.parents and (
            item.get_closest_marker("asyncio") or pytest_asyncio.is_async_test(item)
        ):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="module")
def route() -> Iterator[None]:
    """A default route, gone again before other tests see it."""
    with default_route():
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The browser, before there is a network for it."""
    async with open_browser(PLAIN_ADDRESSES) as browser:
        yield browser


@pytest.fixture(scope="module")
def browser(chromium: Browser, route: None) -> Browser:
    """The browser."""
    return chromium


# -- casts for the tests of dishonest servers, as those of tests/e2e/conftest.py -------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def _repertory(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Cast]:
    async with open_stage(tmp_path_factory.mktemp("stage"), *NAMES) as stage:
        cast = await come_on(stage, browser)
        await befriend_all(cast)
        yield cast


@pytest_asyncio.fixture(loop_scope="session")
async def standing_cast(_repertory: Cast) -> AsyncIterator[Cast]:
    """Three tabs that trust each other, for all tests of a file that leave everybody where they are; without links."""
    cast = _repertory
    await is_quiet(cast)
    yield cast
    cast.stage.relent()
    breaches, cast.stage.breaches = cast.stage.breaches, []
    assert not breaches, breaches


@pytest_asyncio.fixture(loop_scope="session")
async def strangers(tmp_path: Path, browser: Browser) -> AsyncIterator[Cast]:
    """Three tabs that do not trust each other, for one test."""
    async with open_stage(tmp_path, *NAMES) as stage:
        yield await come_on(stage, browser)


@pytest_asyncio.fixture(loop_scope="session")
async def cast(strangers: Cast) -> Cast:
    """Three tabs that all trust each other, for one test."""
    await befriend_all(strangers)
    return strangers
