"""One Chromium for all tests here that run in one process, and a network in which it finds other tabs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import PLAIN_ADDRESSES, default_route, open_browser


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
