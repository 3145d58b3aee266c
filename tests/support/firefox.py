"""
Debian's Firefox, without a window, for tests.

Firefox itself speaks WebDriver BiDi (https://www.w3.org/TR/webdriver-bidi/) over a WebSocket on loopback, so nothing
stands between it and the tests. Playwright, which drives Chromium here, would take a Firefox of its own making only.

Its profile is a new one in which nothing is set: it hides its addresses behind `.local` names, as for anybody. That it
calls nobody's home is seen to by itself, since it is driven from outside. It gathers addresses as Chromium does: see
:func:`tests.support.browser.default_route`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.tabs import PeerTab

__all__ = ["Firefox", "FirefoxTab", "open_firefox"]

#: What the browser itself says, as if the page had thrown it, when a WebSocket or a WebRTC connection comes to nothing.
BROWSERS_OWN = re.compile(
    r"Firefox can’t establish a connection to the server at wss?:|The connection to wss?:|WebRTC: "
)
#: Seconds for the browser to start, for one command, and to end.
STARTING, ANSWERING, ENDING = 60.0, 300.0, 20.0


class FirefoxError(Exception):
    """A command failed, or the script in the page did."""


class FirefoxTab(PeerTab):
    """A tab of Firefox, alone with its cookies and storage."""

    def __init__(self, firefox: Firefox, context: str, user: str) -> None:
        super().__init__()
        self._firefox = firefox
        self._user = user
        #: The name of the tab in the protocol.
        self.context = context

    async def go(self, url: str) -> None:
        """Load a page, and wait until it has loaded."""
        await self._firefox.command("browsingContext.navigate", context=self.context, url=url, wait="complete")

    async def evaluate(self, expression: str, value: Any = None) -> Any:
        """What a JavaScript expression, or a function of one value, comes to."""
        found = await self._firefox.command(
            "script.callFunction",
            functionDeclaration=f"""async (text) => {{
              const found = await ({expression});
              return JSON.stringify((typeof found === 'function' ? await found(JSON.parse(text)) : found) ?? null);
            }}""",
            arguments=[{"type": "string", "value": json.dumps(value)}],
            target={"context": self.context},
            awaitPromise=True,
        )
        if found["type"] == "exception":
            raise FirefoxError(found["exceptionDetails"]["text"])
        return json.loads(found["result"]["value"])

    def note(self, entry: dict[str, Any]) -> None:
        """Take what the protocol calls a log entry."""
        if entry["type"] == "javascript" and entry["level"] == "error" and not BROWSERS_OWN.match(entry["text"]):
            self.errors.append(entry["text"])
        elif entry.get("method") != "debug":
            self.lines.append(entry["text"])

    async def close(self) -> None:
        """Close it, and forget all that it has stored."""
        if self._firefox.forget(self):
            await self._firefox.command("browser.removeUserContext", userContext=self._user)


class Firefox:
    """A running Firefox: its commands, and its tabs."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._tabs: dict[str, FirefoxTab] = {}
        self._commands = 0
        self._reader = asyncio.create_task(self._read())

    async def begin(self) -> None:
        """Start the one session that there is."""
        await self.command("session.new", capabilities={})
        await self.command("session.subscribe", events=["log.entryAdded"])

    async def end(self) -> None:
        """Let it quit."""
        with suppress(FirefoxError):  # it may be gone before it has said so
            await self.command("browser.close")
        await self._socket.close()
        await self._reader

    async def open(self, url: str) -> FirefoxTab:
        """A new tab with a page, in a window of its own: in a tab behind another, a timer may wait for a second."""
        user = (await self.command("browser.createUserContext"))["userContext"]
        created = await self.command("browsingContext.create", type="window", userContext=user)
        tab = FirefoxTab(self, created["context"], user)
        self._tabs[tab.context] = tab
        await tab.go(url)
        return tab

    def forget(self, tab: FirefoxTab) -> bool:
        """Whether the tab was open until now."""
        return self._tabs.pop(tab.context, None) is not None

    async def command(self, method: str, **params: Any) -> Any:
        """
        What a command gives.

        Raises:
            FirefoxError: it failed, or the browser is gone.
        """
        self._commands += 1
        number = self._commands
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
            return await asyncio.wait_for(answer, ANSWERING)
        except ConnectionClosed as error:
            raise FirefoxError(f"{method}: the browser is gone") from error
        finally:
            del self._waiting[number]

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            async for text in self._socket:
                self._take(json.loads(text))
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(FirefoxError("the browser is gone"))

    def _take(self, message: dict[str, Any]) -> None:
        answer = self._waiting.get(message.get("id") or 0)
        if message["type"] == "event":
            tab = self._tabs.get(message["params"]["source"].get("context"))
            if message["method"] == "log.entryAdded" and tab is not None:
                tab.note(message["params"])
        elif answer is not None and not answer.done():
            if message["type"] == "success":
                answer.set_result(message["result"])
            else:
                answer.set_exception(FirefoxError(f"{message['error']}: {message['message']}"))


@asynccontextmanager
async def open_firefox() -> AsyncIterator[Firefox]:
    """A Firefox with a new profile, for the length of a block."""
    program = shutil.which("firefox-esr")
    assert program is not None, "the tests of the browser need Debian's Firefox: apt-get install firefox-esr"
    with tempfile.TemporaryDirectory(prefix="firefox", ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            program,
            *("--headless", "--no-remote", "--profile", folder, "--remote-debugging-port", "0"),
            env={**os.environ, "HOME": folder, "MOZ_CRASHREPORTER_DISABLE": "1"},  # its home must be its user's own
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            address = await asyncio.wait_for(_address(process.stderr), STARTING)
            drain = asyncio.create_task(process.stderr.read())  # what it says later is no reason for it to wait
            # Without pings: a busy machine is no reason to give it up, each command has its bound.
            async with connect(
                f"{address}/session",
                proxy=None,
                compression=None,
                max_size=None,
                open_timeout=STARTING,
                ping_interval=None,
            ) as socket:
                firefox = Firefox(socket)
                await firefox.begin()
                try:
                    yield firefox
                finally:
                    await firefox.end()
            await asyncio.wait_for(process.wait(), ENDING)
            await drain
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _address(output: asyncio.StreamReader) -> str:
    """Where it listens, as it says on standard error."""
    said = []
    async for line in output:
        said.append(line.decode(errors="replace"))
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", said[-1]):
            return found[1]
    raise FirefoxError(f"Firefox ended before it could be driven:\n{''.join(said)}")
