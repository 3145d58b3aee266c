"""Something between a client and a server that takes what they send and passes nothing on, as a dead network does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

__all__ = ["Swallowing"]


class Swallowing:
    """
    A port before a port. Connections that were open when it began to swallow stay dead; what is new passes again.

    Args:
        server: the port that is passed on to, on this machine.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._out = self._back = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, server: int) -> AsyncIterator[Self]:
        """One that listens for the length of a block."""
        between = cls(server)
        listener = await asyncio.start_server(between._connected, "127.0.0.1", 0)
        between.port = listener.sockets[0].getsockname()[1]
        try:
            yield between
        finally:
            listener.close()
            for writer in between._writers:
                writer.close()
            for task in between._tasks:
                task.cancel()
            await asyncio.gather(*between._tasks, return_exceptions=True)

    def swallow(self, *, out: bool, back: bool) -> None:
        """Swallow from now on what clients send, what the server sends, both or neither."""
        self._out, self._back = out, back

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server)
        self._writers |= {writer, to_server}
        for source, sink, name in ((reader, to_server, "_out"), (from_server, writer, "_back")):
            task = asyncio.create_task(self._pump(source, sink, name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, name: str) -> None:
        is_dead = False
        while data := await source.read(65_536):
            is_dead = is_dead or getattr(self, name)
            if not is_dead:
                sink.write(data)
        # The end of a dead connection does not get through either.
        if not is_dead and not getattr(self, name):
            sink.close()
