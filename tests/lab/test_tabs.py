"""A browser on a host of the lab: its tab reaches a daemon through NATs and TURN, and again after either has moved."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import async_playwright

from tests.support import probe
from tests.support.browser import FLAGS
from tests.support.lab import Host, Lab
from tests.support.lab.lab import SERVER_NAME, SERVER_PORT
from tests.support.lab.pairs import acquaint
from tests.support.tabs import PAGE, Tab, eventually, open_tab

pytestmark = pytest.mark.timeout(180)

#: Seconds within which calls flow again after a move that the system tells of.
SEEN = 10.0
ORIGIN = f"http://{SERVER_NAME}:{SERVER_PORT}"

Record = Callable[[str, object], None]


@pytest.fixture(scope="module", autouse=True)
def acquainted(lab: Lab) -> None:
    """coturn, and a server on which alice and bob trust each other."""
    acquaint(lab)


def serving(host: Host) -> str:
    """Start a daemon with the modules of probe.py on a host; gives its peer id."""
    folder = host.folder / "modules"
    folder.mkdir()
    shutil.copy(probe.__file__, folder / "probe.py")
    daemon = host.daemon(modules=[{"folder": "modules"}], online=False)
    return daemon.wait_for(r"online as \S+, peer (\d+)")[1]


@asynccontextmanager
async def tab_on(host: Host) -> AsyncIterator[Tab]:
    """A tab of a Chromium on a host, online."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "the tests of the browser need Debian's Chromium: apt-get install chromium"
    program = host.folder / "chromium"
    program.write_text(f'#!/bin/sh\nexec {" ".join(host.space.prefix)} {chromium} "$@"\n')
    program.chmod(0o755)
    # The lab has no TLS for pages, and without it only a page of this machine's may use WebCrypto.
    flags = [*FLAGS, f"--unsafely-treat-insecure-origin-as-secure={ORIGIN}"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=flags)
        context = await browser.new_context()
        await context.grant_permissions(["local-network-access"])
        tab = await open_tab(context, f"{ORIGIN}/tab.html", content=PAGE)
        await tab.evaluate("probe.serve()")
        assert await tab.connect(host.account) is None
        yield tab
        await browser.close()


@pytest.mark.parametrize(
    ("one", "other", "relayed"), [("cone", "cone", False), ("symmetric", "symmetric", True)], ids=["cone", "symmetric"]
)
async def test_a_tab_behind_a_nat(lab: Lab, one: Any, other: Any, relayed: bool) -> None:
    number = len(list(lab.folder.iterdir()))
    peer_id = serving(lab.host(f"b{number}", other, account="bob"))
    async with tab_on(lab.host(f"a{number}", one, account="alice")) as tab:
        await tab.sees(peer_id)
        assert await tab.ask(target=peer_id, module="Probe.Echo", request=1) == {"response": 1}
        path = (await tab.evaluate("(id) => $BV.get(id).ping()", peer_id))["path"]
        assert ("relay" in (path["local"], path["remote"])) is relayed, path


@pytest.mark.parametrize("who", ["the daemon", "the tab"])
async def test_calls_flow_again_after_a_move(lab: Lab, who: str, record_property: Record) -> None:
    number = len(list(lab.folder.iterdir()))
    bob = lab.host(f"b{number}", "cone", account="bob")
    alice = lab.host(f"a{number}", "cone", account="alice")
    peer_id = serving(bob)
    async with tab_on(alice) as tab:
        await tab.sees(peer_id)
        assert await tab.ask(target=peer_id, module="Probe.Echo", request=1) == {"response": 1}
        options = {"timeout": 30, "idempotent": True}
        await tab.start("calls", 0.1, target=peer_id, module="Probe.Echo", options=options)
        streaming = tab.page.evaluate(
            "(id) => probe.ask({ target: id, module: 'Probe.Count', stream: true, take: 3000 })", peer_id
        )
        # The link must be older than what is replaced at once: it is not made anew within 5 s.
        began = time.monotonic()
        await eventually(lambda: _older(began, 5.5))

        moved = time.monotonic()
        (bob if who == "the daemon" else alice).move(lab.box("cone"))
        again = await tab.ask(target=peer_id, module="Probe.Echo", request=2, options=options)
        seconds = time.monotonic() - moved
        record_property("seconds", round(seconds, 1))
        assert again == {"response": 2}
        assert seconds <= SEEN
        outcomes = await tab.stop("calls")
        assert outcomes == [{"response": n} for n in range(len(outcomes))]
        streamed = await streaming
        assert streamed["items"] == list(range(len(streamed["items"])))
        assert len(streamed["items"]) == 3000 or streamed["error"]["code"] == "link_lost"


async def _older(began: float, seconds: float) -> bool:
    return time.monotonic() - began >= seconds
