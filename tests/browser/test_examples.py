"""The example pages as their README says to run them, but on a port that is free."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser

from tests.support.processes import Daemon, free_port
from tests.support.tabs import Tab, eventually, open_tab

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.name for path in (ROOT / "examples").glob("*.html"))


class Stand:
    """The platform of the repository's own file, on another port, and tabs that show its pages."""

    def __init__(self, origin: str, browser: Browser) -> None:
        self.origin = origin
        self._browser = browser
        self.tabs: list[Tab] = []

    async def open(self, name: str) -> Tab:
        """A tab with that page."""
        tab = await open_tab(await self._browser.new_context(), f"{self.origin}/{name}")
        self.tabs.append(tab)
        return tab


@pytest_asyncio.fixture(loop_scope="session")
async def stand(tmp_path: Path, browser: Browser) -> AsyncIterator[Stand]:
    for folder in ("modules", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    address = f"127.0.0.1:{free_port()}"
    text = (ROOT / "bonevalue.yaml").read_text(encoding="utf-8")
    assert text.count("127.0.0.1:8008") >= 2
    (tmp_path / "bonevalue.yaml").write_text(text.replace("127.0.0.1:8008", address))
    daemon = Daemon(tmp_path / "bonevalue.yaml")
    stand = Stand(f"http://{address}", browser)
    try:
        daemon.wait_for("online as admin")
        yield stand
    finally:
        for tab in stand.tabs:
            await tab.page.context.close()
        daemon.kill()
    assert not [error for tab in stand.tabs for error in tab.errors]


def test_each_is_short_and_the_readme_shows_it() -> None:
    assert PAGES == ["chat.html", "echo.html", "sensor.html"]
    readme = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for name in PAGES:
        assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) < 60
        assert f"http://127.0.0.1:8008/{name}" in readme


async def shows(tab: Tab, *texts: str) -> None:
    """Wait until the list of a page has these texts in it."""

    async def so() -> bool:
        shown = await tab.page.inner_text("ul")
        return all(text in shown for text in texts)

    await eventually(so, what=lambda: f"{texts}: {tab}")


async def test_echo(stand: Stand) -> None:
    one, other = await asyncio.gather(stand.open("echo.html"), stand.open("echo.html"))
    for tab in (one, other):
        await tab.page.get_by_text("peers besides: 2.").wait_for()
    await one.page.get_by_label("Say something").fill("<b>Friday</b>")
    await one.page.get_by_role("button", name="Ask everyone").click()
    other_id, one_id = [await tab.evaluate("$BV.getId()") for tab in (other, one)]
    await shows(one, f"Us {other_id}: Not <b>Friday</b>")
    await shows(other, f"Us {one_id}: asked for <b>Friday</b>")
    # The tab and the daemon.
    await eventually(partial(_answers, one, 2))


async def _answers(tab: Tab, number: int) -> bool:
    return (await tab.page.inner_text("ul")).count("Not <b>Friday</b>") == number


async def test_chat(stand: Stand) -> None:
    tabs = [await stand.open("chat.html") for _ in range(3)]
    for tab in tabs:
        assert not await tab.page.get_by_label("Message").is_visible()
        await tab.page.get_by_label("Password").fill("test")
        await tab.page.get_by_role("button", name="Sign in").click()
    for tab in tabs:
        await tab.page.get_by_label("Message").wait_for()
        assert not await tab.page.get_by_label("Password").is_visible()
        for other in tabs:
            if other is not tab:
                await tab.page.get_by_text(await other.evaluate("$BV.getId()")).first.wait_for()
    for number, tab in enumerate(tabs):
        await tab.page.get_by_label("Message").fill(f"<i>{number}</i>, says a tab")
        await tab.page.get_by_role("button", name="Send").click()
    for tab in tabs:
        await shows(tab, *(f": <i>{number}</i>, says a tab" for number in range(3)))
        assert not tab.lines

    wrong = await stand.open("chat.html")
    await wrong.page.get_by_label("Password").fill("guess")
    await wrong.page.get_by_role("button", name="Sign in").click()
    await wrong.page.get_by_text("Wrong username or password").wait_for()


async def test_sensor(stand: Stand) -> None:
    tabs = [await stand.open("sensor.html") for _ in range(2)]
    for tab in tabs:
        # A reading at once and two after half a second each, of the daemon alone: the other tab has no sensor.
        await shows(tab, "(3 readings)")
        assert await tab.page.locator("li").count() == 1
        points = await tab.page.locator("polyline").get_attribute("points")
        assert points is not None and len(points.split()) >= 3
        assert not tab.lines
