"""
aiortc by itself: a data channel whose messages come back as they are, and nothing around it.

Session descriptions are copied from one process to the other over a TCP connection. The caller has no futures and no
framing: an answer that comes sends the next message.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aioice.ice
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from benchmarks.calling import REQUEST, CallerRole, Timing
from benchmarks.children import Role, run
from benchmarks.contenders.contender import Contender, Pair

__all__ = ["Aiortc"]

#: The longest line of the TCP connection: a session description.
MAX_LINE = 65_536
MESSAGE = json.dumps(REQUEST).encode()
#: Labels of channels.
ECHO, BULK = "echo", "bulk"
#: Bytes in aiortc from which on no bulk is added, and under which it goes on.
WINDOW, LOW = 131_072, 65_536

_find_addresses = aioice.ice.get_host_addresses


def _addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
    """Loopback where there is nothing else, which aioice would leave out; the platform does the same."""
    return _find_addresses(use_ipv4, use_ipv6) or ["127.0.0.1"]


aioice.ice.get_host_addresses = _addresses


class Aiortc(Contender):
    """What the platform is built on."""

    name = "aiortc"
    needs = "aiortc"

    @asynccontextmanager
    async def meet(self) -> AsyncIterator[Pair]:
        """Two processes with one data channel."""
        async with self.two() as pair:
            port = await pair.callee.ask("listen")
            await pair.caller.ask("connect", port=port)
            yield pair


def new_connection() -> RTCPeerConnection:
    """Without servers: everybody is on this host."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


class Callee(Role):
    """Answers whoever connects, and echoes what comes on its channel."""

    def __init__(self) -> None:
        self._connections: list[RTCPeerConnection] = []

    async def listen(self) -> int:
        """Take descriptions; gives the port."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, limit=MAX_LINE)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while offer := await reader.readline():
            connection = new_connection()
            self._connections.append(connection)
            connection.on("datachannel", self._opened)
            await connection.setRemoteDescription(RTCSessionDescription(json.loads(offer), "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
            writer.write(json.dumps(connection.localDescription.sdp).encode() + b"\n")
        writer.close()

    def _opened(self, channel: RTCDataChannel) -> None:
        channel.on("message", channel.send if channel.label == ECHO else partial(_send_bulk, channel))

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(connection.close() for connection in self._connections))


def _send_bulk(channel: RTCDataChannel, order: str) -> None:
    """Send so many pieces of so many bytes, a few under way at a time."""
    size, left = json.loads(order)
    piece = bytes(size)

    def send() -> None:
        nonlocal left
        while left and channel.bufferedAmount < WINDOW:
            channel.send(piece)
            left -= 1

    channel.bufferedAmountLowThreshold = LOW
    channel.on("bufferedamountlow", send)
    send()


class Caller(CallerRole):
    """Sends, and counts what comes back."""

    def __init__(self) -> None:
        self._connections: list[RTCPeerConnection] = []

    async def connect(self, port: int) -> None:
        """Open a channel to the process that listens on that port."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=MAX_LINE)
        self._channel = await self._open()

    async def _open(self) -> RTCDataChannel:
        connection = new_connection()
        self._connections.append(connection)
        channel = connection.createDataChannel(ECHO)
        opened = asyncio.Event()
        channel.on("open", opened.set)
        await connection.setLocalDescription(await connection.createOffer())
        self._writer.write(json.dumps(connection.localDescription.sdp).encode() + b"\n")
        answer = json.loads(await self._reader.readline())
        await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await opened.wait()
        return channel

    async def open(self, first: int, count: int) -> list[float]:
        """Open more connections, one after the other; gives the seconds that each took."""
        took = []
        for _ in range(count):
            begun = time.perf_counter()
            await self._open()
            took.append(time.perf_counter() - begun)
        return took

    async def bulk(self, size: int, pieces: int) -> float:
        """Receive so much over a second channel of the connection; gives the seconds that it took."""
        channel = self._connections[0].createDataChannel(BULK)
        left = size * pieces
        done = asyncio.Event()

        def receive(message: bytes) -> None:
            nonlocal left
            left -= len(message)
            if not left:
                done.set()

        channel.on("message", receive)
        opened = asyncio.Event()
        channel.on("open", opened.set)
        await opened.wait()
        begun = time.perf_counter()
        channel.send(json.dumps([size, pieces]))
        await done.wait()
        seconds = time.perf_counter() - begun
        channel.close()
        return seconds

    async def make_calls(self, at_once: int, seconds: float) -> Timing:
        """Messages in place of calls: each that comes back sends the next."""
        took: list[float] = []
        sent: deque[float] = deque()
        done = asyncio.Event()
        channel, clock = self._channel, time.perf_counter
        begun = clock()
        end = begun + seconds

        def send() -> None:
            sent.append(clock())
            channel.send(MESSAGE)

        def back(_: Any) -> None:
            now = clock()
            took.append(now - sent.popleft())
            if now < end:
                send()
            elif not sent:
                done.set()

        channel.on("message", back)
        for _ in range(at_once):
            send()
        await done.wait()
        channel.remove_listener("message", back)
        return took, clock() - begun

    async def stop(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(connection.close() for connection in self._connections))


if __name__ == "__main__":
    run({"callee": Callee, "caller": Caller})
