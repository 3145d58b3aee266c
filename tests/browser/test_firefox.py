"""
The browser library in Firefox: its unit tests, the first page of the README, and calls between Firefox and all others.

What the library does in detail is tested in Chromium; here is what may differ from browser to browser: cryptography,
WebSockets, and above all WebRTC, of which each browser has its own. Alice has a tab of Firefox; bob has another, a tab
of Chromium and a daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.firefox import Firefox, FirefoxTab, open_firefox
from tests.support.pairs import FIVE_MIB, PIECE, WHOLE, Pair
from tests.support.processes import Daemon, peer_role, write_yaml
from tests.support.tabs import PAGE, Party, PeerTab, ProbeDaemon, Site, World, eventually, open_world
from tests.support.units import FILES, Outcome, bundle, failures

ROOT = Path(__file__).parents[2]

#: The unit tests take half a minute on a busy machine, Firefox itself some seconds to start.
pytestmark = pytest.mark.timeout(400)


@dataclass
class Cast:
    """Who is there, for the tests of calls."""

    alice: FirefoxTab
    bob: FirefoxTab
    chromium: PeerTab
    daemon: ProbeDaemon


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def firefox(route: None) -> AsyncIterator[Firefox]:
    async with open_firefox() as firefox:
        yield firefox


def serve(world: World, *accounts: str) -> None:
    """Start a server that has the page of tabs among its own."""
    folder = world.folder / "pages"
    folder.mkdir()
    (folder / "tab.html").write_text(PAGE, encoding="utf-8")
    world.serve(*accounts, pages=str(folder))


async def open_tab(firefox: Firefox, world: World, account: str) -> FirefoxTab:
    """A tab of Firefox that is online, with the modules of ``probe.js``."""
    tab = await firefox.open(f"{world.origin}/tab.html")
    world.tabs.append(tab)
    await world.join(tab, account)
    return tab


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path, browser: Browser) -> AsyncIterator[World]:
    async with open_world(tmp_path, browser) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cast(tmp_path_factory: pytest.TempPathFactory, browser: Browser, firefox: Firefox) -> AsyncIterator[Cast]:
    async with open_world(tmp_path_factory.mktemp("world"), browser) as world:
        serve(world, "alice", "bob")
        await world.befriend("alice", "bob")
        alice, bob, chromium, daemon = await asyncio.gather(
            open_tab(firefox, world, "alice"), open_tab(firefox, world, "bob"), world.tab("bob"), world.daemon("bob")
        )
        await alice.sees(bob.id, chromium.id, daemon.id)
        await asyncio.gather(daemon.sees(alice.id), chromium.sees(alice.id))
        yield Cast(alice, bob, chromium, daemon)


WAYS = [
    "Firefox to Firefox",
    "Firefox to Chromium",
    "Chromium to Firefox",
    "Firefox to daemon",
    "daemon to Firefox",
]


@pytest.fixture(params=WAYS)
def pair(cast: Cast, request: pytest.FixtureRequest) -> Pair:
    caller, _, callee = request.param.partition(" to ")
    bobs: dict[str, Party] = {"Firefox": cast.bob, "Chromium": cast.chromium, "daemon": cast.daemon}
    return Pair(cast.alice, bobs[callee], "alice") if caller == "Firefox" else Pair(bobs[caller], cast.alice, "bob")


# -- the library and its pages -------------------------------------------------------------------------------------


async def test_the_unit_tests_pass(firefox: Firefox) -> None:
    page = '<!doctype html><script type="module" src="units.js"></script>'
    with Site.running({"/units.html": page, "/units.js": bundle()}) as site:
        tab = await firefox.open(f"{site.origin}/units.html")
        try:
            # Some files prepare something first.
            await eventually(partial(tab.evaluate, "window.outcomes !== undefined"), 100.0, what=tab)
            outcomes: list[Outcome] = await tab.evaluate("window.outcomes")
        finally:
            await tab.close()
    assert not failures(outcomes)
    assert len(outcomes) > len(FILES)


async def test_two_tabs_with_the_first_page_and_a_daemon(firefox: Firefox, world: World) -> None:
    world.serve(passwords={"admin": "test"}, pages=str(Path(__file__).parent / "pages"))
    modules = [{"folder": str(ROOT / "modules")}]
    role = peer_role(world.port, "admin", "test", modules=modules)
    daemon = Daemon(write_yaml(world.folder / "admin" / "bonevalue.yaml", role))
    try:
        daemon.wait_for("online as admin")
        for _ in range(2):
            world.tabs.append(await firefox.open(f"{world.origin}/first.html"))
        for tab in world.tabs:
            await tab.logged("^Received: Not Friday$", 2)
        called = await world.bv("admin", "call", "*", "My.Echo.Module", '{"text": "Monday"}')
        assert called.code == 0 and "3 of 3 answered" in called.stdout, called
        for tab in world.tabs:
            await tab.logged("^Routing data: Not Monday$")
            assert tab.count("^Received: Not Friday$") == 2, tab
    finally:
        daemon.kill()


# -- calls ---------------------------------------------------------------------------------------------------------


async def test_json_and_streams_both_ways(pair: Pair) -> None:
    value = {
        "a": [1, {"b": None}],
        "": [[[]]],
        "text": "Ein Füßchen, \u2028 ein \U0001f388, ein \0",
        "long": "l" * 200_000,
    }
    assert await pair.ask("Probe.Echo", value) == {"response": value}
    assert await pair.ask("Probe.Count", 1000, stream=True) == {"items": list(range(1000))}
    assert await pair.ask("Probe.Add", items=list(range(1000))) == {"response": 499_500}
    doubled = await pair.ask("Probe.Double", items=list(range(500)), stream=True)
    assert doubled == {"items": list(range(0, 1000, 2))}


async def test_five_mib_each_way(pair: Pair) -> None:
    """Whole, in one message after the other, and as a stream of items."""
    assert await pair.ask("Probe.Echo", bytes=FIVE_MIB) == {"response": WHOLE}
    sent = {"size": FIVE_MIB, "piece": PIECE}
    assert await pair.ask("Probe.Digest", pieces=sent) == {"response": WHOLE}
    assert await pair.ask("Probe.Pieces", sent, stream=True) == {"items": WHOLE}


async def test_the_end_of_a_call_reaches_the_handler(pair: Pair) -> None:
    """By the caller, by its deadline, and by leaving a stream."""
    called_off, too_long = f"called off by {pair.caller.id}", f"too long for {pair.caller.id}"
    call = asyncio.create_task(pair.code("Probe.Wait", called_off, name=called_off))
    await pair.comes("begun", called_off)
    await pair.caller.cancel(called_off)
    assert await call == "cancelled"
    await pair.comes("cancelled", called_off)
    assert await pair.code("Probe.Wait", too_long, options={"timeout": 0.5}) == "deadline"
    await pair.comes("cancelled", too_long)
    before = (await pair.callee.seen()).count(["count closed", None])
    assert await pair.ask("Probe.Count", None, stream=True, take=5) == {"items": [0, 1, 2, 3, 4]}

    async def is_closed() -> bool:
        return (await pair.callee.seen()).count(["count closed", None]) > before

    await eventually(is_closed)


FAILURES: list[tuple[str, Any, str]] = [
    ("Probe.Fail", "busy", "busy"),
    ("Probe.Fail", "handler_failed", "handler_failed"),
    ("Probe.Nothing", None, "no_module"),
    ("Probe.Secret", None, "denied"),
    ("Probe.Make", 9 * 2**20, "too_large"),
]


async def test_errors_have_their_codes(pair: Pair) -> None:
    for module, request, code in FAILURES:
        answer = await pair.ask(module, request)
        assert (answer["error"]["code"], answer["error"]["peer"]) == (code, pair.callee.id)


async def test_the_path_of_a_link_is_known(cast: Cast) -> None:
    for peer in (cast.bob, cast.chromium, cast.daemon):
        path = (await cast.alice.evaluate("(id) => $BV.get(id).ping()", peer.id))["path"]
        assert {path["local"], path["remote"]} <= {"host", "prflx"}, path
        # Another Firefox hides its address, as this one does.
        assert path["family"] == "IPv4" or peer is cast.bob, path


# -- what is lost --------------------------------------------------------------------------------------------------


async def test_a_server_that_restarts_and_a_tab_that_closes(firefox: Firefox, world: World) -> None:
    serve(world, "alice")
    tab, other, daemon = await asyncio.gather(
        open_tab(firefox, world, "alice"), open_tab(firefox, world, "alice"), world.daemon("alice")
    )
    await tab.sees(other.id, daemon.id)
    await daemon.sees(tab.id, other.id)
    own_id = tab.id
    assert await tab.ask(target=daemon.id, module="Probe.Echo", request=1) == {"response": 1}
    await asyncio.to_thread(world.stop_server, SIGKILL)
    for each in (tab, other):
        await eventually(partial(each.evaluate, "!$BV.online"))
    assert await tab.ask(target=daemon.id, module="Probe.Echo", request=2) == {"response": 2}, "a link needs no server"
    await asyncio.to_thread(world.start_server)
    for each in (tab, other):
        await eventually(partial(each.evaluate, "$BV.online"))
    assert await tab.evaluate("$BV.getId()") == own_id
    # These two are introduced to each other only now.
    assert await tab.ask(target=other.id, module="Probe.Echo", request=3) == {"response": 3}
    await asyncio.to_thread(daemon.process.wait_for, "online as")
    await daemon.sees(other.id)

    calls = [
        asyncio.create_task(Pair(caller, other, "alice").code("Probe.Wait", f"until you close, {caller.id}"))
        for caller in (tab, daemon)
    ]
    for caller in (tab, daemon):
        await Pair(caller, other, "alice").comes("begun", f"until you close, {caller.id}")
    await other.close()
    assert await asyncio.gather(*calls) == ["link_lost"] * 2
