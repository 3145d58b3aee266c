"""
The web console, as people use it. Screenshots of its screens are left in build/console; axe-core looks at each of them
for what would keep somebody from using it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from signal import SIGTERM
from typing import Any, Literal

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, ViewportSize, expect

from bonevalue.peer import Peer
from bonevalue.serving import ServedModule
from tests.support import house
from tests.support.processes import PASSWORD
from tests.support.tabs import PATIENCE, ProbeDaemon, World, open_world

#: Every screen is drawn and looked at four times.
pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "console"
AXE = ROOT / "server" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
#: What axe-core holds against the page by the rules of WCAG 2.2, levels A and AA, contrast of colours included.
LOOK = """async () => {
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
  const { violations, passes } = await axe.run(document, { runOnly: tags, resultTypes: ['violations'] });
  if (!passes.length) throw new Error('axe-core looked at nothing');
  return violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) =>
    `${id} at ${target.join(' ')}: ${failureSummary}`));
}"""
#: Milliseconds for what takes a blink on a machine that has nothing else to do.
PATIENT = PATIENCE * 1000
MODULES = [f"modules.house.{name}" for name in ("Thermometer", "Ticks", "Sleeper", "Weigher", "Bakery", "Breaks")]
#: The narrowest screen that it is made for, and a desk.
NARROW: ViewportSize = {"width": 360, "height": 740}
SCHEMES: tuple[Literal["dark", "light"], ...] = ("dark", "light")
WIDE: ViewportSize = {"width": 1280, "height": 800}

expect.set_options(timeout=PATIENT)


class Stage:
    """A server with its console, and tabs that show it."""

    def __init__(self, world: World) -> None:
        self.world = world
        #: Whatever the pages asked for.
        self.asked: list[str] = []

    async def open(self, place: str = "") -> Page:
        """A tab with the console in it, where nobody has signed in yet."""
        context = await self.world.context()
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        # A dialog of the system cannot be answered by a test; without it a file comes as a download.
        await context.add_init_script("delete window.showSaveFilePicker")
        context.on("request", lambda request: self.asked.append(request.url))
        tab = await self.world.open(None, f"{self.world.origin}/console/{place}", context=context)
        tab.page.set_default_timeout(PATIENT)
        return tab.page

    async def sign_in(self, username: str, place: str = "", password: str = PASSWORD) -> Page:
        """A tab in which somebody has signed in."""
        page = await self.open(place)
        await sign_in(page, username, password)
        return page

    async def daemon(self, name: str, *more: object, account: str | None = None) -> ProbeDaemon:
        """A daemon with the modules of the house, and further ones."""
        folder = self.world.folder / name / "modules"
        folder.mkdir(parents=True)
        shutil.copy(house.__file__, folder / "house.py")
        for file in ("echo.py", "files.py"):
            shutil.copy(ROOT / "modules" / file, folder / file)
        probe = "modules.probe.Echo"
        return await self.world.daemon(name, account, modules=["modules.echo.Echo", probe, *MODULES, *more])


@pytest_asyncio.fixture(loop_scope="session")
async def stage(tmp_path: Path, browser: Browser) -> AsyncIterator[Stage]:
    async with open_world(tmp_path, browser) as world:
        stage = Stage(world)
        yield stage
        # Nothing is loaded from, or said to, anybody else; and the policy of the page forbade nothing that it needs.
        assert stage.asked
        assert all(url.startswith((f"{world.origin}/", "data:", "blob:")) for url in stage.asked), stage.asked
        assert not [line for tab in world.tabs for line in tab.lines if "Content Security Policy" in line]


async def sign_in(page: Page, username: str, password: str = PASSWORD) -> None:
    await page.get_by_label("Username").fill(username)
    await page.get_by_label("Password", exact=True).fill(password)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("navigation", name="Console")).to_be_visible()


async def go(page: Page, place: str) -> None:
    """To another place in the console, as by its address."""
    await page.evaluate("(place) => { location.hash = place; }", place)


def link_to(page: Page, alias: str, daemon: ProbeDaemon) -> Locator:
    return page.get_by_role("link", name=f"{alias} {daemon.id}", exact=True)


def answer(page: Page) -> Locator:
    return page.get_by_role("region", name="Answer")


async def call(page: Page, request: str | None = None) -> None:
    """Press the button, after the request was entered as JSON if there is one."""
    if request is not None:
        if await page.get_by_label("JSON", exact=True).count():
            await page.get_by_label("JSON", exact=True).check()
        await page.get_by_label("Request", exact=True).fill(request)
    await page.get_by_role("button", name=re.compile("^(Call|Watch)$")).click()


async def downloaded(page: Page, button: str) -> bytes:
    """What the file holds that comes when a button is pressed."""
    async with page.expect_download() as download:
        await page.get_by_role("button", name=button).click()
    path = Path(await (await download.value).path())
    return await asyncio.to_thread(path.read_bytes)


async def shoot(page: Page, name: str) -> None:
    """Keep pictures of a screen, wide and narrow, light and dark; it fits on all of them, and shuts nobody out."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    # Not as a script of the page: its policy would forbid that, as it should.
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    for size in (NARROW, WIDE):
        await page.set_viewport_size(size)
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            await page.screenshot(path=SHOTS / f"{name}-{size['width']}-{scheme}.png", full_page=True)
            problems = await page.evaluate(LOOK)
            assert not problems, "\n".join([f"{name}, {size['width']} pixels wide, {scheme}:", *problems])
        over = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert over <= 0, f"{name} is {over} pixels too wide for {size['width']}"


async def test_two_accounts_meet_talk_and_part(stage: Stage) -> None:
    """All that issue and documentation promise of trust, by two people, each in a browser of their own."""
    stage.world.serve()
    alice, bob = await stage.open(), await stage.open()
    await shoot(alice, "sign-in")
    for page, name in ((alice, "alice"), (bob, "bob")):
        await page.bring_to_front()
        await page.get_by_role("button", name="Make an account").click()
        await page.get_by_label("Username").fill(name)
        if page is alice:
            await page.get_by_label("Password", exact=True).fill("short")
            await page.get_by_role("button", name="Register").click()
            await expect(page.get_by_role("alert")).to_contain_text("weak_password")
            await page.get_by_label("Password", exact=True).fill(PASSWORD)
        else:
            await page.get_by_role("button", name="Make one for me").click()
            await shoot(page, "register")
        await page.get_by_role("button", name="Register").click()
        await expect(page.get_by_role("heading", name="Peers")).to_be_visible()

    await shoot(bob, "nobody")

    # A peer comes online while one looks.
    daemon = await stage.daemon("alice")
    await alice.bring_to_front()
    await expect(link_to(alice, "Us", daemon)).to_be_visible()
    await expect(alice.get_by_role("status", name="Presence")).to_contain_text(f"Us {daemon.id} came online")

    await alice.get_by_role("link", name="Trust").click()
    request = alice.get_by_role("region", name="Request a token")
    await request.get_by_label("Alias").fill("bob")
    await request.get_by_role("button", name="Request token").click()
    token = await request.get_by_label("Token for bob").input_value()
    await expect(request).to_contain_text(re.compile("in (1 d|23 h 59 min)"))
    await request.get_by_role("button", name="Copy token").click()
    assert await alice.evaluate("navigator.clipboard.readText()") == token
    await shoot(alice, "token")

    await bob.bring_to_front()
    await bob.get_by_role("link", name="Trust").click()
    claim = bob.get_by_role("region", name="Claim a token")
    await claim.get_by_label("Alias").fill("alice")
    await claim.get_by_label("Token", exact=True).fill(token[:-1])
    await claim.get_by_role("button", name="Claim token").click()
    await expect(claim.get_by_role("alert")).to_contain_text("token_invalid")
    await claim.get_by_label("Token", exact=True).fill(f" {token[:40]}\n{token[40:]} ")
    await claim.get_by_role("button", name="Claim token").click()
    await expect(claim).to_contain_text("You and alice trust each other now")
    fingerprint = await bob.get_by_role("row", name=re.compile("^alice")).get_by_role("code").inner_text()
    await shoot(bob, "claimed")

    await alice.bring_to_front()
    await expect(alice.get_by_role("region", name="Your fingerprint")).to_contain_text(fingerprint)
    await expect(alice.get_by_role("table", name="Contacts")).to_contain_text("bob")

    await bob.bring_to_front()
    await bob.get_by_role("navigation", name="Console").get_by_role("link", name="Peers").click()
    await expect(bob.get_by_role("table", name="Peers")).to_contain_text(re.compile(r"host to host, IPv4.*\d ms"))
    await shoot(bob, "peers")
    await link_to(bob, "alice", daemon).click()
    await expect(bob.get_by_role("region", name="Link")).to_contain_text("linked")
    await bob.get_by_role("link", name="Home.Thermometer").click()
    await bob.get_by_role("button", name="Call", exact=True).click()
    await expect(bob.get_by_label("room")).to_have_attribute("aria-invalid", "true")
    await shoot(bob, "form")
    await bob.get_by_label("sensor").fill("t1")
    await bob.get_by_label("room").fill("attic")
    await bob.get_by_label("Send tags").check()
    await bob.get_by_role("button", name="Add to tags").click()
    await bob.get_by_label("tags 1", exact=True).fill("hot")
    await call(bob)
    await expect(answer(bob).get_by_role("status").first).to_contain_text("Answered in")
    for part in ('"value": 21.5', '"room": "attic"', '"hot"', '"unit": "C"'):
        await expect(answer(bob)).to_contain_text(part)
    await shoot(bob, "answer")

    await bob.get_by_role("link", name="Home.Ticks").click()
    await bob.get_by_label("Request", exact=True).fill("0.01")
    await call(bob)
    await expect(answer(bob).get_by_role("listitem")).to_have_count(200)
    await answer(bob).get_by_role("button", name="Pause").click()
    await expect(answer(bob).get_by_role("status")).to_contain_text("paused")
    paused = await answer(bob).get_by_role("status").inner_text()
    await shoot(bob, "stream")
    assert await answer(bob).get_by_role("status").inner_text() == paused
    await answer(bob).get_by_role("button", name="Resume").click()
    await expect(answer(bob).get_by_role("status")).not_to_have_text(paused)
    await answer(bob).get_by_role("button", name="Stop").click()
    await expect(answer(bob).get_by_role("status")).to_contain_text("stopped")

    await alice.bring_to_front()
    await alice.get_by_role("button", name="End trust with bob").click()
    dialog = alice.get_by_role("dialog", name="End trust with bob?")
    await expect(dialog).to_be_visible()
    await shoot(alice, "end-trust")
    await alice.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(alice.get_by_role("button", name="End trust with bob")).to_be_focused()
    await alice.keyboard.press("Enter")
    await dialog.get_by_role("button", name="End trust").click()
    await expect(alice.get_by_role("region", name="Contacts")).to_contain_text("Nobody yet")
    await bob.bring_to_front()
    await expect(bob.get_by_text("This peer is not online")).to_be_visible()
    await shoot(bob, "absent")


async def test_calls_that_fail_take_long_or_go_to_many(stage: Stage) -> None:
    stage.world.serve("alice")
    first, second = await stage.daemon("one", account="alice"), await stage.daemon("two", account="alice")
    page = await stage.sign_in("alice", f"#/peers/{first.id}/modules/Home.Breaks")

    await call(page)
    await expect(answer(page)).to_contain_text(
        re.compile(r"Failed in .*Home\.Breaks.*handler_failed.*Call id [0-9a-f]+")
    )
    await expect(answer(page)).not_to_contain_text("what the log is told")
    await shoot(page, "error")

    await go(page, f"#/peers/{first.id}/modules/Home.Sleeper")
    await call(page, "600")
    await page.get_by_role("button", name="Cancel").click()
    await expect(answer(page)).to_contain_text("Cancelled after")
    await page.get_by_label("Timeout in seconds").fill("0.3")
    await call(page)
    await expect(answer(page)).to_contain_text(re.compile("Failed in .*deadline"))

    await go(page, f"#/peers/{first.id}/modules/My.Echo.Module")
    await call(page, '{"text": "Friday"')
    await expect(page.get_by_text("This is not JSON")).to_be_visible()
    await page.get_by_label("Timeout in seconds").fill("soon")
    await call(page, '{"text": "Friday"}')
    await expect(page.get_by_label("Timeout in seconds")).to_be_focused()
    await expect(page.get_by_label("Timeout in seconds")).to_have_accessible_description(
        "A number of seconds above 0 is needed."
    )
    await shoot(page, "refused")
    await page.get_by_label("Timeout in seconds").fill("30")
    await call(page, '{"text": "Friday"}')
    await expect(answer(page)).to_contain_text("Not Friday")
    await page.get_by_label("All 2 peers of mine").check()
    await call(page)
    await expect(answer(page).get_by_role("status").first).to_contain_text("2 of 2 answered in")
    for daemon in (first, second):
        await expect(answer(page)).to_contain_text(daemon.id)
    await shoot(page, "everyone")


async def test_bytes_and_files_both_ways(stage: Stage, tmp_path: Path) -> None:
    public, data = tmp_path / "public", os.urandom(1_000_000)
    (public / "docs").mkdir(parents=True)
    (public / "report.bin").write_bytes(data)
    files = {"class": "modules.files.Files", "name": "Team.Files", "config": {"root": str(public), "writable": True}}
    stage.world.serve("alice")
    daemon = await stage.daemon("one", files, account="alice")
    page = await stage.sign_in("alice", f"#/peers/{daemon.id}/modules/Home.Weigher")

    await page.get_by_label("File to send as the request").set_input_files(public / "report.bin")
    await call(page)
    await expect(answer(page)).to_contain_text("1000000")
    await go(page, f"#/peers/{daemon.id}/modules/Home.Bakery")
    await call(page, "300000")
    await expect(answer(page)).to_contain_text("293 KiB of bytes")
    assert await downloaded(page, "Download answer") == b"\xff" * 300_000

    await page.get_by_role("navigation", name="Peer").get_by_role("link", name="Team.Files").click()
    assert await downloaded(page, "Download report.bin") == data
    await page.get_by_role("table", name="Files").get_by_role("link", name="docs").click()
    await expect(page.get_by_text("This folder is empty")).to_be_visible()
    given = tmp_path / "given.bin"
    given.write_bytes(os.urandom(700_001))
    await page.get_by_label("Send files into this folder").set_input_files(given)
    copies = page.get_by_role("region", name="Copies")
    await expect(copies).to_contain_text(re.compile("given.bin.*sent 684 KiB.*report.bin.*fetched 977 KiB"))
    await expect(page.get_by_role("button", name="Download given.bin")).to_be_visible()
    await shoot(page, "files")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (given, public / "docs" / "given.bin")}
    assert len(digests) == 1
    await go(page, f"#/peers/{daemon.id}/files/Team.Files/nowhere")
    await expect(page.get_by_role("alert")).to_contain_text("bad_request")


async def test_the_password_and_the_end_of_a_session(stage: Stage) -> None:
    stage.world.serve("alice", "bob")
    await stage.world.befriend("alice", "bob")
    daemon = await stage.daemon("one", account="bob")
    page = await stage.open(f"#/peers/{daemon.id}/modules/My.Echo.Module")
    await page.get_by_label("Username").fill("alice")
    await page.get_by_label("Password", exact=True).fill("another-tart")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("login_refused")
    await shoot(page, "login-refused")
    await sign_in(page, "alice")
    await expect(page.get_by_role("heading", name="My.Echo.Module", level=2)).to_be_visible()

    await page.get_by_role("link", name="Account").click()
    before = await page.get_by_role("region", name="You").get_by_role("code").inner_text()
    await page.get_by_label("New password").fill("a new tart and two violins")
    await page.get_by_role("button", name="Change password").click()
    await expect(page.get_by_role("region", name="Notices")).to_contain_text("Your password is changed")
    await expect(page.get_by_role("region", name="You")).not_to_contain_text(before)
    await shoot(page, "account")
    await go(page, f"#/peers/{daemon.id}/modules/My.Echo.Module")
    await call(page, '{"text": "Friday"}')
    await expect(answer(page)).to_contain_text("Not Friday")

    stage.world.stop_server(SIGTERM)
    await expect(page.get_by_role("status", name="Connection")).to_contain_text("reconnecting")
    await shoot(page, "server-gone")
    await call(page)
    await expect(answer(page)).to_contain_text("Not Friday")
    stage.world.start_server()
    await expect(page.get_by_role("status", name="Connection")).to_have_text("alice")

    await page.get_by_role("button", name="Theme: automatic").click()
    assert await page.evaluate("document.documentElement.dataset.theme") == "light"
    assert await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])") == (
        '[{"bonevalue.theme":"light"},{},""]'
    )
    await page.reload()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    await sign_in(page, "alice", "a new tart and two violins")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_what_peers_send_is_never_more_than_text(stage: Stage) -> None:
    stage.world.serve("alice")
    daemon = await stage.daemon("one", "modules.house.Evil", account="alice")
    page = await stage.sign_in("alice", f"#/peers/{daemon.id}")
    await page.get_by_role("link", name=re.compile("^Evil")).click()
    await expect(page.get_by_role("heading", level=2)).to_have_text(f"Evil.{house.MARKUP}")
    await page.get_by_label("slow").fill("a" * 100)
    await call(page)
    await expect(answer(page)).to_contain_text("The first 20 KiB of 977 KiB")
    await shoot(page, "evil")
    assert await page.locator("img").count() == 0
    assert await page.title() != "taken"


async def test_a_form_goes_with_the_schema_that_it_was_made_from(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer says something else of a module when it is asked again: the form is made anew."""
    stage.world.serve("alice")
    properties: dict[str, Any] = {"sensor": {"type": "string"}}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    monkeypatch.setattr(ServedModule, "request_schema", property(lambda module: schema))

    async def fickle(request: Any) -> Any:
        return request

    async with Peer(stage.world.address, "alice", PASSWORD) as peer:
        peer.module("Home.Fickle", fickle)
        page = await stage.sign_in("alice", f"#/peers/{peer.id}/modules/Home.Fickle")
        await page.get_by_label("sensor").fill("t1")
        properties["place"] = {"type": "object", "properties": {"room": {"type": "string"}}}
        schema["required"] = ["place"]
        await page.get_by_role("button", name="Ask for modules again").click()
        await page.get_by_label("room").fill("attic")
        await expect(page.get_by_label("sensor")).to_have_value("")
        await call(page)
        await expect(answer(page)).to_contain_text('"room": "attic"')


async def test_all_of_it_by_keyboard(stage: Stage) -> None:
    stage.world.serve("alice")
    daemon = await stage.daemon("one", account="alice")
    page = await stage.open()
    await page.get_by_label("Username").focus()
    await page.keyboard.type("alice")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Peers")).to_be_focused()
    await expect(link_to(page, "Us", daemon)).to_be_visible()
    await tab_to(page, link_to(page, "Us", daemon))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_be_focused()
    echo = page.get_by_role("link", name="My.Echo.Module")
    await expect(echo).to_be_visible()
    await tab_to(page, echo)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="My.Echo.Module", level=2)).to_be_focused()
    await tab_to(page, page.get_by_label("Request", exact=True))
    await page.keyboard.type('{"text": "Friday"}')
    await tab_to(page, page.get_by_role("button", name="Call", exact=True))
    await page.keyboard.press("Space")
    await expect(answer(page)).to_contain_text("Not Friday")


async def tab_to(page: Page, wanted: Locator) -> None:
    """Press the tabulator until something has the focus, which is then to be seen."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("(element) => element === document.activeElement"):
            assert await wanted.evaluate("(element) => element.matches(':focus-visible')")
            return
    raise AssertionError(f"the tabulator does not lead to {wanted}")
