"""A browser on a host of the lab: its tab reaches a daemon through NATs and TURN, and again after either has moved."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

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
#: Seconds within which a direct path, where there is one, is used instead of a relay.
DIRECT = 10.0
ORIGIN = f"https://{SERVER_NAME}:{SERVER_PORT}"

Record = Callable[[str, object], None]


@pytest.fixture(scope="module", autouse=True)
def acquainted(lab: Lab) -> None:
    """coturn, and a server with TLS, without which a page may not use WebCrypto; alice and bob trust each other."""
    turn = acquaint(lab)
    certificate, key = lab.authority.issue(SERVER_NAME)
    tls = {"cert_file": str(certificate), "key_file": str(key)}
    lab.discovery("alice", "bob", turn=turn.role(), tls=tls)


def serving(host: Host) -> str:
    """Start a daemon with the modules of probe.py on a host; gives its peer id."""
    folder = host.folder / "modules"
    folder.mkdir()
    shutil.copy(probe.__file__, folder / "probe.py")
    server = {"address": f"wss://{SERVER_NAME}:{SERVER_PORT}"}
    daemon = host.daemon(modules=[{"folder": "modules"}], server=server, online=False)
    return daemon.wait_for(r"online as \S+, peer (\d+)")[1]


@asynccontextmanager
async def tab_on(host: Host) -> AsyncIterator[Tab]:
    """A tab of a Chromium on a host, online."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "the tests of the browser need Debian's Chromium: apt-get install chromium"
    program = host.folder / "chromium"
    program.write_text(f'#!/bin/sh\nexec {" ".join(host.space.prefix)} {chromium} "$@"\n')
    program.chmod(0o755)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        context = await browser.new_context(ignore_https_errors=True)
        await context.grant_permissions(["local-network-access"])
        tab = await open_tab(context, f"{ORIGIN}/tab.html", content=PAGE)
        await tab.evaluate("probe.serve()")
        assert await tab.connect(host.account) is None
        yield tab
        await browser.close()


async def test_a_tab_and_a_daemon_behind_symmetric_nats_meet_by_turn(lab: Lab) -> None:
    peer_id = serving(lab.host("b1", "symmetric", account="bob"))
    async with tab_on(lab.host("a1", "symmetric", account="alice")) as tab:
        await tab.sees(peer_id)
        assert await tab.ask(target=peer_id, module="Probe.Echo", request=1) == {"response": 1}
        path = (await tab.evaluate("(id) => $BV.get(id).ping()", peer_id))["path"]
        assert "relay" in (path["local"], path["remote"]), path


async def test_a_tab_and_a_daemon_behind_cones_meet_directly(lab: Lab) -> None:
    """A relay may be first to work; the browser changes to the direct path as soon as that works too."""
    peer_id = serving(lab.host("b3", "cone", account="bob"))
    async with tab_on(lab.host("a3", "cone", account="alice")) as tab:
        await tab.sees(peer_id)
        assert await tab.ask(target=peer_id, module="Probe.Echo", request=1) == {"response": 1}

        async def is_direct() -> bool:
            path = (await tab.evaluate("(id) => $BV.get(id).ping()", peer_id))["path"]
            return "relay" not in (path["local"], path["remote"])

        await eventually(is_direct, DIRECT)


@pytest.mark.parametrize("mover", ["daemon", "tab"])
async def test_calls_of_a_tab_flow_again_after_a_move(lab: Lab, mover: str, record_property: Record) -> None:
    """Calls that may be repeated are all answered; a stream goes on, or breaks off after all that came (R20)."""
    bob = lab.host(f"bob-{mover}", "cone", account="bob")
    alice = lab.host(f"alice-{mover}", "cone", account="alice")
    peer_id = serving(bob)
    async with tab_on(alice) as tab:
        await tab.sees(peer_id)
        assert await tab.ask(target=peer_id, module="Probe.Echo", request=1) == {"response": 1}
        options = {"timeout": 30, "idempotent": True}
        await tab.start("calls", 0.1, target=peer_id, module="Probe.Echo", options=options)
        spec = {"target": peer_id, "module": "Probe.Count", "stream": True, "take": 3000}
        streaming = asyncio.create_task(tab.ask(**spec))
        # A link that is younger than 5 s is not replaced: these calls go on for longer.
        began = time.monotonic()
        await eventually(lambda: _older(began, 5.5))

        moved = time.monotonic()
        (bob if mover == "daemon" else alice).move(lab.box("cone"))
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
