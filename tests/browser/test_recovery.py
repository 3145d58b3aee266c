"""What is lost under open tabs, who notices, how soon, and that it comes back: the server, tabs, daemons, sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Error

from tests.support.swallow import Swallowing
from tests.support.tabs import Tab, World, eventually, open_world

#: Seconds within which others are told that a tab has gone: the server's time of grace, and some.
TOLD = 15.0
#: Seconds within which a link is lost: three heartbeats after what was heard last, and some on a busy machine.
MISSED = 15.0 + 3.0
#: The same where the server tells that the peer is gone, after its time of grace: the peer is asked, for three seconds.
ASKED = 5.0 + 3.0 + 4.0
#: Seconds within which a tab notices that nothing comes from the server any more.
NOTICED = 45.0
EVERY = 0.1

Record = Callable[[str, object], None]


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path, browser: Browser) -> AsyncIterator[World]:
    async with open_world(tmp_path, browser) as world:
        yield world


async def comes(party: Any, about: list[Any], *, timeout: float = 30.0) -> None:
    """Wait until somebody has seen something."""

    async def has() -> bool:
        return about in await party.seen()

    await eventually(has, timeout, what=about)


async def times(tab: Tab, event: str) -> int:
    """How often a tab has seen an event."""
    return sum(what == event for what, _ in await tab.seen())


# -- the server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [SIGKILL, SIGTERM])
async def test_the_server_is_restarted_under_open_tabs(world: World, how: Signals) -> None:
    world.serve("alice", "bob")
    await world.befriend("alice", "bob")
    daemon = await world.daemon("bob")
    alice, bob = await asyncio.gather(world.tab("alice"), world.tab("bob"))
    ids = [alice.id, bob.id]
    await alice.sees(bob.id, daemon.id)
    await daemon.sees(alice.id)
    for name, peer_id in (("tab", bob.id), ("daemon", daemon.id)):
        assert await alice.ask(target=peer_id, module="Probe.Echo", request=name) == {"response": name}
        await alice.start(name, EVERY, target=peer_id, module="Probe.Echo")
    assert await daemon.ask(target=alice.id, module="Probe.Echo", request=0) == {"response": 0}
    calling = asyncio.create_task(_call_until(alice, daemon, 2))

    await asyncio.to_thread(world.stop_server, how)
    for tab in (alice, bob):
        await eventually(partial(_is_online, tab, False))
    # A good second without any server: calls that must go on are made, and answered, all the while.
    answered = await asyncio.gather(*(alice.ask(target=bob.id, module="Probe.Echo", request=n) for n in range(10)))
    assert answered == [{"response": n} for n in range(10)]
    await asyncio.to_thread(world.start_server)
    for tab in (alice, bob):
        await eventually(partial(_is_online, tab, True))
    for name in ("tab", "daemon"):
        outcomes = await alice.stop(name)
        assert outcomes == [{"response": number} for number in range(len(outcomes))]
        assert len(outcomes) >= 10
    assert all(answer == {"response": "still"} for answer in await calling)

    assert [await tab.evaluate("$BV.getId()") for tab in (alice, bob)] == ids
    # Nobody who came back in time was missed.
    assert await times(alice, "peerdisconnect") == await times(bob, "peerdisconnect") == 0
    # The server introduces again.
    late = await world.tab("bob")
    await alice.sees(late.id)
    assert await alice.ask(target=late.id, module="Probe.Echo", request=1) == {"response": 1}
    assert await late.ask(target=alice.id, module="Probe.Echo", request=2) == {"response": 2}


async def _is_online(tab: Tab, wanted: bool) -> bool:
    return bool(await tab.evaluate("$BV.online")) is wanted


async def _call_until(tab: Tab, daemon: Any, connects: int) -> list[Any]:
    """The daemon calls the tab, again and again, until the tab has logged in that often."""
    answers = []
    while await times(tab, "connect") < connects:
        answers.append(await daemon.ask(target=tab.id, module="Probe.Echo", request="still"))
        await asyncio.sleep(EVERY)
    return answers


# -- tabs and daemons ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "crashed", "sent to another page"])
async def test_a_tab_that_ends_is_missed(world: World, how: str, record_property: Record) -> None:
    world.serve("alice")
    daemon, tab = await asyncio.gather(world.daemon("alice"), world.tab("alice"))
    await daemon.sees(tab.id)
    asked = asyncio.create_task(daemon.ask(target=tab.id, module="Probe.Wait", request="for ever"))
    calling = asyncio.create_task(tab.ask(target=daemon.id, module="Probe.Wait", request="until I am gone"))
    await comes(tab, ["begun", "for ever"])
    await comes(daemon, ["begun", "until I am gone"])

    ended = time.monotonic()
    if how == "closed":
        await tab.page.close()
    elif how == "crashed":
        with suppress(Error):
            await tab.page.goto("chrome://crash", wait_until="commit", timeout=5000)
    else:
        await tab.page.goto("about:blank")
    told = asyncio.create_task(comes(daemon, ["peerdisconnect", tab.id], timeout=TOLD))
    answer = await asked
    await comes(daemon, ["cancelled", "until I am gone"], timeout=MISSED)
    seconds = time.monotonic() - ended
    record_property("seconds", round(seconds, 1))
    assert answer["error"]["code"] == "link_lost"
    assert seconds <= ASKED
    await told
    await asyncio.gather(calling, return_exceptions=True)
    assert (await daemon.ask(target=tab.id, module="Probe.Echo"))["error"]["code"] == "no_target"


async def test_a_daemon_that_is_killed_is_missed_and_comes_back(world: World, record_property: Record) -> None:
    world.serve("alice", "bob")
    await world.befriend("alice", "bob")
    daemon, tab = await asyncio.gather(world.daemon("bob"), world.tab("alice"))
    await tab.sees(daemon.id)
    before = daemon.id
    waiting = asyncio.create_task(tab.ask(target="bob", module="Probe.Wait", request="for ever"))
    counting = asyncio.create_task(tab.ask(target="bob", module="Probe.Count", stream=True))
    await comes(daemon, ["begun", "for ever"])
    assert await tab.ask(target="bob", module="Probe.Echo", request=1) == {"response": 1}

    killed = time.monotonic()
    await asyncio.to_thread(daemon.process.kill)
    assert (await waiting)["error"]["code"] == "link_lost"
    broken = await counting
    record_property("seconds", round(time.monotonic() - killed, 1))
    assert time.monotonic() - killed <= MISSED
    assert broken["error"]["code"] == "link_lost"
    assert broken["items"] == list(range(len(broken["items"])))

    await asyncio.to_thread(daemon.start)
    assert daemon.id != before
    await tab.sees(daemon.id)
    assert await tab.ask(target=daemon.id, module="Probe.Echo", request=2) == {"response": 2}
    await comes(tab, ["peerdisconnect", before])
    assert await tab.ask(target="bob", module="Probe.Echo", request=3) == {"response": 3}


# -- sockets over which nothing comes ------------------------------------------------------------------------------


async def test_a_tab_notices_that_nothing_comes_from_the_server(world: World, record_property: Record) -> None:
    """Nothing gets to the server, nothing comes from it, or neither (R9); three tabs at once, for the sake of time."""
    world.serve("alice")
    ways = {"out": (True, False), "in": (False, True), "both": (True, True)}
    async with asyncio.TaskGroup() as tasks:
        for name, (out, back) in ways.items():
            tasks.create_task(_goes_silent(world, name, out, back, record_property))


async def _goes_silent(world: World, name: str, out: bool, back: bool, record_property: Record) -> None:
    async with Swallowing.open(world.port) as between:
        tab = await world.open(url=f"http://127.0.0.1:{between.port}/tab.html")
        await tab.evaluate("probe.serve()")
        assert await tab.connect("alice") is None
        silenced = time.monotonic()
        between.swallow(out=out, back=back)
        await eventually(partial(_is_online, tab, False), NOTICED, what=name)
        record_property(name, round(time.monotonic() - silenced, 1))
        between.swallow(out=False, back=False)
        await eventually(partial(_is_online, tab, True), NOTICED, what=name)
        assert await tab.evaluate("$BV.getId()") == tab.id
        await tab.page.close()
