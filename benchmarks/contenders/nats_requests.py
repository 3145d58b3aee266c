"""NATS: request and reply of JSON by nats-py through a nats-server, over loopback TCP in clear."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import msgspec

from benchmarks.calling import REQUEST, CallerRole
from benchmarks.children import ChildFailed, Role, run
from benchmarks.contenders.contender import Contender, Pair

__all__ = ["Nats", "find_server"]

SUBJECT = "echo"
#: Tries to reach a server that has just been started, and seconds between two.
TRIES, PAUSE = 200, 0.05


class Nats(Contender):
    """nats-py and nats-server."""

    name = "nats-py"
    needs = "nats"

    def absent(self, isolated: bool) -> str | None:
        """Without the server there is nothing to measure."""
        return super().absent(isolated) or (None if find_server() else "there is no nats-server on this machine")

    @asynccontextmanager
    async def meet(self) -> AsyncIterator[Pair]:
        """A server of its own, somebody who answers, and somebody who asks."""
        async with _serving() as port, self.two() as pair:
            await pair.callee.ask("connect", port=port)
            await pair.caller.ask("connect", port=port)
            yield pair


def find_server() -> str | None:
    """Where the server's program is."""
    # Debian installs it where only root's path leads.
    return shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@asynccontextmanager
async def _serving() -> AsyncIterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    null = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        find_server() or "nats-server", "-a", "127.0.0.1", "-p", str(port), stdout=null, stderr=null
    )
    try:
        for _ in range(TRIES):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            except ConnectionRefusedError:
                await asyncio.sleep(PAUSE)
        else:
            raise ChildFailed("nats-server does not listen")
        yield port
    finally:
        process.terminate()
        await process.wait()


class _Client(Role):
    _client: Any = None

    async def connect(self, port: int) -> None:
        """Connect to the server."""
        self._client = await import_module("nats").connect(f"nats://127.0.0.1:{port}")

    async def stop(self) -> None:
        """Leave."""
        if self._client is not None:
            await self._client.close()


class Callee(_Client):
    """Answers requests."""

    async def connect(self, port: int) -> None:
        """Connect, and listen for requests."""

        async def echo(message: Any) -> None:
            await message.respond(msgspec.json.encode(msgspec.json.decode(message.data)))

        await super().connect(port)
        await self._client.subscribe(SUBJECT, cb=echo)
        await self._client.flush()


class Caller(_Client, CallerRole):
    """Makes requests."""

    def one_call(self) -> Awaitable[Any]:
        """One request and its reply."""
        return self._request()

    async def _request(self) -> Any:
        reply = await self._client.request(SUBJECT, msgspec.json.encode(REQUEST), timeout=30)
        return msgspec.json.decode(reply.data)


if __name__ == "__main__":
    run({"callee": Callee, "caller": Caller})
