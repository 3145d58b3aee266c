"""
Tabs of a browser, and the platform beside them: a discovery server and daemons in processes of their own.

::

    world.serve("alice", "bob")
    await world.befriend("alice", "bob")
    daemon = await world.daemon("bob")
    tab = await world.tab("alice")
    assert await tab.ask(target="bob", module="Probe.Echo", request=1) == {"response": 1}

A tab serves the modules of ``probe.js``, a daemon those of ``probe.py``; what they are asked to do and what they say
about it is the same. A page that reports an error which nobody caught fails its test.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from signal import Signals
from typing import Any, Protocol

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Route

from bonevalue.peer import Peer
from tests.support import probe
from tests.support.processes import PASSWORD, Daemon, Finished, bv, discovery_role, free_port, peer_role, write_yaml
from tests.support.waiting import UNIT, until

__all__ = ["PAGE", "Party", "PeerTab", "ProbeDaemon", "Site", "Tab", "World", "eventually", "open_tab", "open_world"]

#: The modules of a tab, as a page includes them.
PROBE = Path(probe.__file__).with_suffix(".js").read_text(encoding="utf-8")
PAGE = f"""\
<!doctype html><meta charset="utf-8"><title>Tab</title>
<script src="scripts/BV.js"></script>
<script>{PROBE}</script>
"""
#: Seconds to wait for what takes one or two on a machine that has nothing else to do.
PATIENCE = 30.0


async def eventually(
    condition: Callable[[], Awaitable[object]], timeout: float = PATIENCE, *, what: object = ""
) -> None:
    """
    Ask again until it is so.

    Raises:
        TimeoutError: it was still false after `timeout` seconds.
    """
    deadline = asyncio.get_running_loop().time() + timeout
    while not await condition():
        if asyncio.get_running_loop().time() > deadline:
            raise TimeoutError(f"still not so after {timeout} s: {what() if callable(what) else what}")
        await asyncio.sleep(UNIT / 2)


class Party(Protocol):
    """Who calls and is called in the same way, whatever it is written in."""

    id: str

    async def ask(self, **spec: Any) -> Any:
        """Call somebody; see :class:`tests.support.probe.Ask`."""

    async def cancel(self, name: str) -> None:
        """Cancel what was asked under a name."""

    async def seen(self) -> list[list[Any]]:
        """What its handlers saw so far."""
        ...


class PeerTab(ABC):
    """A page, and what it printed and threw, in whatever browser."""

    def __init__(self) -> None:
        self.id = ""
        #: The lines on its console, but for those that nobody sees who has not asked for them.
        self.lines: list[str] = []
        #: Errors that nobody caught.
        self.errors: list[str] = []

    def __repr__(self) -> str:
        return "\n".join(["tab with the lines", *self.lines, "and the errors", *self.errors])

    @abstractmethod
    async def evaluate(self, expression: str, value: Any = None) -> Any:
        """What a JavaScript expression, or a function of one value, comes to."""

    @abstractmethod
    async def close(self) -> None:
        """Close it, with all that its browser keeps for it alone."""

    def count(self, pattern: str) -> int:
        """On how many lines of its console a regular expression is found."""
        return sum(re.search(pattern, line) is not None for line in self.lines)

    async def logged(self, pattern: str, times: int = 1, *, timeout: float = PATIENCE) -> None:
        """Wait until its console has so many lines in which a regular expression is found."""
        await eventually(partial(self._has_logged, pattern, times), timeout, what=lambda: f"{pattern!r}: {self}")

    async def _has_logged(self, pattern: str, times: int) -> bool:
        return self.count(pattern) >= times

    # -- as a peer ---------------------------------------------------------------------------------------------------

    async def connect(self, username: str, password: str = PASSWORD, host: str = "", **options: Any) -> Any:
        """Log in; gives None, or the error."""
        found = await self.evaluate(
            "([host, username, password, options]) => probe.outcome($BV.connect(host, username, password, options))",
            [host, username, password, options],
        )
        self.id = str(await self.evaluate("$BV.getId()"))
        return found

    async def ask(self, **spec: Any) -> Any:
        """Call somebody; see ``ask`` in probe.js."""
        return await self.evaluate("(spec) => probe.ask(spec)", spec)

    async def cancel(self, name: str) -> None:
        """Cancel what was asked under a name."""
        await self.evaluate("(name) => probe.cancel(name)", name)

    async def start(self, name: str, every: float, **spec: Any) -> None:
        """Ask again and again, every so many seconds, until :meth:`stop` with that name."""
        await self.evaluate("([name, spec, every]) => probe.start(name, spec, every)", [name, spec, 1000 * every])

    async def stop(self, name: str) -> list[Any]:
        """How all of that went; the requests were numbers, from 0 on."""
        found: list[Any] = await self.evaluate("(name) => probe.stop(name)", name)
        return found

    async def seen(self) -> list[list[Any]]:
        """What its handlers and listeners saw so far."""
        found: list[list[Any]] = await self.evaluate("probe.seen")
        return found

    async def outcome(self, expression: str, value: Any = None) -> Any:
        """What a promise of ``$BV`` comes to, or ``{"error": ...}``; the expression may use ``value``."""
        return await self.evaluate(f"(value) => probe.outcome({expression})", value)

    async def sees(self, *ids: str) -> None:
        """Wait until those peers are online for it."""
        await eventually(partial(self._sees, set(ids)), what=lambda: f"{ids} are not seen by the {self}")

    async def _sees(self, ids: set[str]) -> bool:
        return ids <= set(await self.evaluate("$BV.peers().map((peer) => peer.id)"))


class Tab(PeerTab):
    """One that Playwright drives."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page = page
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, message: ConsoleMessage) -> None:
        if message.type != "debug":
            self.lines.append(message.text)

    async def evaluate(self, expression: str, value: Any = None) -> Any:
        """What a JavaScript expression, or a function of one value, comes to."""
        return await self.page.evaluate(expression, value)

    async def close(self) -> None:
        """Close it, and all other pages of its context."""
        await self.page.context.close()


async def open_tab(context: BrowserContext, url: str, *, content: str | None = None, wait: bool = True) -> Tab:
    """
    A new tab.

    Args:
        content: of the page there, in place of what a server would say.
        wait: until the page is loaded.
    """
    page = await context.new_page()
    tab = Tab(page)
    if content is not None:

        async def answer(route: Route) -> None:
            await route.fulfill(content_type="text/html; charset=utf-8", body=content)

        await page.route(url, answer)
    await page.goto(url, wait_until="load" if wait else "commit")
    return tab


class ProbeDaemon:
    """A ``bv-run`` with the modules of ``probe.py``, told what to do over a link of its own account."""

    def __init__(self, file: Path, control: Peer) -> None:
        self.file = file
        self._control = control
        self.start()

    def start(self) -> None:
        """Run it, again perhaps, and wait until it is online."""
        self.process = Daemon(self.file)
        self.id = self.process.wait_for(r"online as \S+, peer (\d+)")[1]

    async def tell(self, module: str, request: Any = None, timeout: float = 60.0) -> Any:
        """Call one of its modules."""
        await until(lambda: self._control.get(self.id).peers(), PATIENCE, what=f"{self.id} is seen")
        return await self._control.get(self.id).call(module, request, timeout=timeout)

    async def ask(self, **spec: Any) -> Any:
        """Call somebody; see :class:`tests.support.probe.Ask`."""
        return await self.tell("Probe.Ask", spec)

    async def cancel(self, name: str) -> None:
        """Cancel what was asked under a name."""
        await self.tell("Probe.Cancel", name)

    async def seen(self) -> list[list[Any]]:
        """What its handlers and events saw so far."""
        found: list[list[Any]] = await self.tell("Probe.Seen")
        return found

    async def sees(self, *ids: str) -> None:
        """Wait until those peers are online for it."""
        await eventually(partial(self._sees, set(ids)), what=f"{ids} are seen by {self.id}")

    async def _sees(self, ids: set[str]) -> bool:
        return ids <= {peer_id for _, peer_id in await self.tell("Probe.Events")}


class World:
    """
    One discovery server, daemons and tabs.

    Args:
        folder: for the files of all of them.
        browser: for its tabs.
    """

    def __init__(self, folder: Path, browser: Browser) -> None:
        self.folder = folder
        self.port = free_port()
        self.tabs: list[PeerTab] = []
        self._browser = browser
        self._server: Daemon | None = None
        self._daemons: list[ProbeDaemon] = []
        self._controls: dict[str, Peer] = {}

    @property
    def origin(self) -> str:
        """Of the pages that are the server's own."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"ws://127.0.0.1:{self.port}"

    # -- processes ---------------------------------------------------------------------------------------------------

    def serve(self, *accounts: str, passwords: Mapping[str, str] | None = None, **keys: Any) -> None:
        """Start the discovery server with these accounts and further keys of ``discovery:``."""
        role = discovery_role(self.port, {**dict.fromkeys(accounts, PASSWORD), **(passwords or {})})
        role["discovery"] |= keys
        write_yaml(self.folder / "server" / "bonevalue.yaml", role)
        self.start_server()

    def start_server(self) -> None:
        """Start it again, on the database that it has."""
        self._server = Daemon(self.folder / "server" / "bonevalue.yaml")
        self._server.wait_for("listens on")

    def stop_server(self, number: Signals) -> None:
        """End it by a signal."""
        assert self._server is not None
        self._server.stop(number)
        self._server.kill()  # lets go of its output

    def write(self, name: str, account: str | None = None, **sections: Any) -> Path:
        """Write the settings file of a daemon with the modules of ``probe.py``, and further sections."""
        folder = self.folder / name
        modules = folder / "modules"
        modules.mkdir(parents=True, exist_ok=True)
        shutil.copy(probe.__file__, modules / "probe.py")
        entries = [{"class": "modules.probe.Secret", "allow": ["Us"]}, {"folder": "modules"}]
        return write_yaml(
            folder / "bonevalue.yaml", peer_role(self.port, account or name, **{"modules": entries, **sections})
        )

    async def daemon(self, name: str, account: str | None = None, **sections: Any) -> ProbeDaemon:
        """Start a daemon; its name is that of its account, unless said otherwise."""
        control = await self.control(account or name)
        daemon = await asyncio.to_thread(ProbeDaemon, self.write(name, account, **sections), control)
        self._daemons.append(daemon)
        return daemon

    async def control(self, account: str) -> Peer:
        """An invisible peer of an account, by which tests tell its daemons what to do."""
        if account not in self._controls:
            self._controls[account] = Peer(self.address, account, PASSWORD, visible=False)
            await self._controls[account].start()
        return self._controls[account]

    async def bv(self, name: str, *args: str, **more: Any) -> Finished:
        """Run a ``bv`` command with the settings file of that name."""
        return await asyncio.to_thread(bv, *args, folder=self.folder / name, **more)

    async def befriend(self, one: str, other: str) -> None:
        """Let two accounts trust each other under their own names."""
        inviter, claimer = await asyncio.gather(self.control(one), self.control(other))
        await claimer.claim_token(one, await inviter.request_token(other))

    # -- tabs --------------------------------------------------------------------------------------------------------

    async def context(self) -> BrowserContext:
        """A browser of its own, as it were: nothing is shared with other contexts."""
        context = await self._browser.new_context()
        # Pages that a test writes come from nowhere, for the browser; to it that is the internet, from which a page
        # needs its user's consent to connect to this machine.
        await context.grant_permissions(["local-network-access"])
        return context

    async def open(
        self,
        content: str | None = PAGE,
        url: str | None = None,
        *,
        context: BrowserContext | None = None,
        wait: bool = True,
    ) -> Tab:
        """A tab with a page that is the server's own, unless it has another address."""
        given = context or await self.context()
        tab = await open_tab(given, url or f"{self.origin}/tab.html", content=content, wait=wait)
        self.tabs.append(tab)
        return tab

    async def tab(self, account: str, *, password: str = PASSWORD, **options: Any) -> Tab:
        """A tab that is online, with the modules of ``probe.js``."""
        tab = await self.open()
        await self.join(tab, account, password=password, **options)
        return tab

    async def join(self, tab: PeerTab, account: str, *, password: str = PASSWORD, **options: Any) -> None:
        """Let a tab with :data:`PAGE` serve its modules and go online."""
        await tab.evaluate("probe.serve()")
        error = await tab.connect(account, password, **options)
        assert error is None, error

    async def close(self) -> None:
        """End everything; pages must not have thrown."""
        try:
            for tab in self.tabs:
                await tab.close()
            await asyncio.gather(*(control.stop(0.0) for control in self._controls.values()))
        finally:
            for process in [daemon.process for daemon in self._daemons] + [self._server]:
                if process is not None:
                    process.kill()
        errors = [error for tab in self.tabs for error in tab.errors]
        assert not errors, errors


@asynccontextmanager
async def open_world(folder: Path, browser: Browser) -> AsyncIterator[World]:
    """A world in which nothing runs yet, for the length of a block."""
    async with AsyncExitStack() as stack:
        world = World(folder, browser)
        stack.push_async_callback(world.close)
        yield world


class Site(ThreadingHTTPServer):
    """A web server of somebody else, on a port of its own: paths and their pages."""

    daemon_threads = True

    def __init__(self, pages: Mapping[str, str]) -> None:
        self.pages = dict(pages)
        super().__init__(("127.0.0.1", 0), _SiteHandler)

    @property
    def origin(self) -> str:
        """Of its pages."""
        return f"http://127.0.0.1:{self.server_port}"

    @classmethod
    @contextmanager
    def running(cls, pages: Mapping[str, str]) -> Iterator[Site]:
        """One that answers for the length of a block."""
        site = cls(pages)
        thread = threading.Thread(target=site.serve_forever, name=site.origin)
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join(PATIENCE)
            site.server_close()


class _SiteHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        # Browsers ask every site for an icon, and say so on the console if there is none.
        assert isinstance(self.server, Site)
        page = "" if self.path == "/favicon.ico" else self.server.pages.get(self.path)
        kind = guess_type(self.path)[0] or "text/plain"
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.end_headers()
        self.wfile.write((page or "").encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
