"""
Debian's Chromium, without a window, for tests.

It gathers no address, and so never connects to another tab, unless it finds a default route. The tests' own network
has only loopback: :func:`default_route` adds a pair of interfaces with a route that leads nowhere, for as long as a
browser needs it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from playwright.async_api import Browser, async_playwright

__all__ = ["FLAGS", "default_route", "open_browser"]

#: How Chromium is started: as root in a container, and talking to nobody of its own accord.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Addresses go by their own names, as on a page that may use the camera: an aiortc peer otherwise waits a second for
#: each name of the browser's making.
PLAIN_ADDRESSES = "--disable-features=WebRtcHideLocalIpsWithMdns"
_ROUTE = (
    "link add browser0 type veth peer name browser1",
    # No IPv6 address that is there only after a second or two: Chromium would take that for another network, and break
    # off what it is loading.
    "link set browser0 addrgenmode none",
    "link set browser1 addrgenmode none",
    "addr add 10.99.0.1/24 dev browser0",
    "link set browser0 up",
    "link set browser1 up",
    "route add default via 10.99.0.254",
)


@contextmanager
def default_route() -> Iterator[None]:
    """A way out of this network that ends nowhere, for the length of a block."""
    ip = shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin")
    assert ip is not None, "the tests of the browser need `ip`: apt-get install iproute2"
    try:
        for command in _ROUTE:
            subprocess.run([ip, *command.split()], check=True)
        yield
    finally:
        subprocess.run([ip, "link", "del", "browser0"], check=False)  # it takes its peer and the route with it


@asynccontextmanager
async def open_browser(*flags: str) -> AsyncIterator[Browser]:
    """A Chromium with these flags besides :data:`FLAGS`."""
    program = shutil.which("chromium")
    assert program is not None, "the tests of the browser need Debian's Chromium: apt-get install chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, headless=True, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            await browser.close()
