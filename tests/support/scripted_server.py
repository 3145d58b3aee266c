"""A discovery server that does what a test tells it to, connection by connection."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from types import TracebackType
from typing import Any, Self

from msgspec import Struct
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bonevalue.config import Address
from bonevalue.sockets import parse_address
from bonevalue.wire.signals import SetPeerId, encode
from tests.support.sessions import REALM, hello, lists

__all__ = ["Scene", "Script", "ScriptedServer", "log_in"]


@dataclass
class Scene:
    """One connection, from the server's side."""

    websocket: ServerConnection
    received: list[dict[str, Any]] = field(default_factory=list)
    close_code: int | None = None
    over: bool = False
    dismissed: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, *messages: Struct | str | bytes, ref: str | None = None) -> None:
        """Send something."""
        for message in messages:
            await self.websocket.send(encode(message, ref) if isinstance(message, Struct) else message)

    async def hear(self) -> dict[str, Any]:
        """The client's next message."""
        message: dict[str, Any] = json.loads(await self.websocket.recv())
        self.received.append(message)
        return message

    async def listen(self) -> None:
        """Take what the client sends until it goes."""
        while True:
            await self.hear()

    async def fall_deaf(self) -> None:
        """Do nothing any more, not even read, until the server ends."""
        self.websocket.transport.pause_reading()
        await self.dismissed.wait()

    def break_off(self) -> None:
        """Lose the connection, without a word."""
        self.websocket.transport.abort()


Script = Callable[[Scene], Awaitable[None]]


async def log_in(scene: Scene, *, peer_id: str = "100", realm: str = REALM) -> dict[str, Any]:
    """Greet, take the login whatever it is, send empty lists; the login's data."""
    await scene.say(hello(realm))
    login = await scene.hear()
    await scene.say(SetPeerId(peer_id, f"ticket-of-{peer_id}"), *lists())
    data: dict[str, Any] = login["data"]
    return data


async def _stay(scene: Scene) -> None:
    await log_in(scene)
    await scene.listen()


class ScriptedServer:
    """
    A WebSocket server on loopback. Each connection is given the next script; when they are used up, it logs in
    whoever comes and listens.

    Args:
        scripts: what to do, a script a connection.
        port: TCP port, 0 for any.
        tls: for wss.
        process_request: to answer with something else than a WebSocket.
    """

    def __init__(
        self,
        *scripts: Script,
        port: int = 0,
        tls: SSLContext | None = None,
        process_request: Callable[[ServerConnection, Request], Response | None] | None = None,
    ) -> None:
        self.scenes: list[Scene] = []
        self._scripts = deque(scripts)
        self._port = port
        self._tls = tls
        self._process_request = process_request
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._port

    @property
    def address(self) -> Address:
        """Where it is."""
        return parse_address(f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self._port}")

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self._port,
            ssl=self._tls,
            process_request=self._process_request,
            max_size=65_536,
            close_timeout=1,
        )
        self._port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        for scene in self.scenes:
            scene.dismissed.set()
            scene.break_off()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, websocket: ServerConnection) -> None:
        scene = Scene(websocket)
        self.scenes.append(scene)
        try:
            await (self._scripts.popleft() if self._scripts else _stay)(scene)
        except ConnectionClosed as closed:
            scene.close_code = closed.rcvd.code if closed.rcvd is not None else None
        finally:
            scene.over = True
