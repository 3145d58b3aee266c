"""
The two pages of the README, letter by letter: three tabs and a daemon that greet each other.

From another origin only the two places differ that name the server.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.processes import Daemon, peer_role, write_yaml
from tests.support.tabs import Site, Tab, World, eventually, open_world

PAGES = Path(__file__).parent / "pages"
ECHO = Path(__file__).parents[2] / "modules" / "echo.py"
RECEIVED = r"^Received: Not Friday$"


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path, browser: Browser) -> AsyncIterator[World]:
    async with open_world(tmp_path, browser) as world:
        yield world


@pytest.fixture
def site() -> Iterator[Site]:
    with Site.running({}) as site:
        yield site


def page(name: str) -> str:
    """The page as it stands."""
    return (PAGES / f"{name}.html").read_text(encoding="utf-8")


def elsewhere(world: World, name: str) -> str:
    """The page for another origin: it says where the server is."""
    text, changes = re.subn(
        r'src="scripts/BV\.js"|connect\("",',
        lambda found: (
            f'src="{world.origin}/scripts/BV.js"'
            if found[0].startswith("src")
            else f'connect("127.0.0.1:{world.port}",'
        ),
        page(name),
    )
    assert changes == 2
    return text


def echo_daemon(world: World) -> Daemon:
    """A daemon beside the tabs, of the same account, with the echo of this repository."""
    folder = world.folder / "admin"
    (folder / "modules").mkdir(parents=True)
    shutil.copy(ECHO, folder / "modules")
    role = peer_role(world.port, "admin", "test", modules=["modules.echo.Echo"])
    daemon = Daemon(write_yaml(folder / "bonevalue.yaml", role))
    daemon.wait_for("online as admin")
    return daemon


async def everybody_answers(world: World, tabs: list[Tab]) -> None:
    """A daemon's account calls all, and each tab says that it has answered."""
    called = await world.bv("admin", "call", "*", "My.Echo.Module", '{"text": "Monday"}')
    assert called.code == 0, called
    assert called.stdout.count('{"text": "Not Monday"}') == len(tabs) + 1
    assert f"{len(tabs) + 1} of {len(tabs) + 1} answered" in called.stdout
    for tab in tabs:
        await tab.logged("^Routing data: Not Monday$")
    # All that was printed before has come, too.
    assert [tab.count("^Routing data: Not Monday$") for tab in tabs] == [1] * len(tabs)


@pytest.mark.parametrize("origin", ["the server's own", "one that it allows"])
@pytest.mark.parametrize("name", ["first", "second"])
async def test_three_tabs_and_a_daemon(world: World, site: Site, name: str, origin: str) -> None:
    world.serve(passwords={"admin": "test"}, origins=[site.origin] if origin == "one that it allows" else [])
    daemon = echo_daemon(world)
    try:
        if origin == "the server's own":
            tabs = [await world.open(page(name)) for _ in range(3)]
        else:
            site.pages["/page.html"] = elsewhere(world, name)
            tabs = [await world.open(None, f"{site.origin}/page.html") for _ in range(3)]
        # The daemon and the two other tabs, each once: those there before are in the first list, others come later.
        for tab in tabs:
            await tab.logged(RECEIVED, 3)
        await everybody_answers(world, tabs)
        counts = [tab.count(RECEIVED) for tab in tabs]
        assert counts == [3, 3, 3] if name == "first" else min(counts) >= 3
        assert not any(tab.count("error|BoneValue:") for tab in tabs), tabs
    finally:
        daemon.kill()


@pytest.mark.parametrize("allowed", [[], ["http://localhost:1", "http://127.0.0.1"]], ids=["none", "others"])
async def test_a_page_of_an_origin_that_is_not_allowed(world: World, site: Site, allowed: list[str]) -> None:
    world.serve(passwords={"admin": "test"}, origins=allowed)
    site.pages["/page.html"] = elsewhere(world, "first")
    tab = await world.open(None, f"{site.origin}/page.html")
    # Nobody waits for what `connect` gives on this page: the browser says it on its console, as an error of the page.
    await eventually(lambda: _has_thrown(tab), what=tab)
    assert tab.count(RECEIVED) == 0 and await tab.evaluate("$BV.getId()") == ""
    refused = await tab.evaluate(
        "(host) => $BV.connect(host, 'admin', 'test').catch((error) => [error.code, error.message])",
        f"127.0.0.1:{world.port}",
    )
    assert refused[0] == "origin_refused" and site.origin in refused[1]
    assert tab.count("trying again") == 0
    tab.errors.clear()


async def _has_thrown(tab: Tab) -> bool:
    return any(str(tab.page.url).rsplit("/", 1)[0] in error for error in tab.errors)
