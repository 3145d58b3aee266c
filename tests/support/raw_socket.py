"""A WebSocket client that can break every rule, because it knows next to none."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any, Self

__all__ = ["RawSocket", "frame"]

TEXT, BINARY, CONTINUATION, CLOSE, PING = 0x1, 0x2, 0x0, 0x8, 0x9


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, length: int | None = None
) -> bytes:
    """
    One frame, masked with zeros.

    Args:
        opcode: its type.
        payload: what is in it.
        fin: whether it is the last of its message.
        masked: clients must.
        length: what the head says of the payload; the truth if left out.
    """
    size = len(payload) if length is None else length
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", fin << 7 | opcode, mask_bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", fin << 7 | opcode, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", fin << 7 | opcode, mask_bit | 127, size)
    return head + (bytes(4) if masked else b"") + payload


class RawSocket:
    """A TCP connection to a server of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.body = ""

    @classmethod
    async def open(cls, port: int, *, address: str = "127.0.0.1", receive_buffer: int | None = None) -> Self:
        """
        Connect.

        Args:
            port: of the server.
            address: of ours, in 127.0.0.0/8.
            receive_buffer: how much the kernel keeps for us when we do not read.
        """
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.bind((address, 0))
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise
        return cls(*await asyncio.open_connection(sock=sock, limit=2**20))

    async def request(self, path: str = "/", *, method: str = "GET", **headers: str) -> int:
        """Send a request, read the head of the response (and the body, if its length is told); gives the status."""
        lines = [
            f"{method} {path} HTTP/1.1",
            *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
        ]
        if "host" not in headers:
            lines.append("Host: 127.0.0.1")
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        return await self.response()

    async def response(self) -> int:
        """Read a response; gives the status."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        self.body = (await self.reader.readexactly(int(fields.get("content-length", "0")))).decode()
        self.status = int(head.split()[1])
        return self.status

    async def upgrade(self, path: str = "/", **headers: str) -> int:
        """Ask for a WebSocket."""
        return await self.request(
            path,
            Connection="Upgrade",
            Upgrade="websocket",
            Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="AAAAAAAAAAAAAAAAAAAAAA==",
            **headers,
        )

    def send(self, data: bytes) -> None:
        """Send bytes, as they are."""
        self.writer.write(data)

    def say(self, message: Any) -> None:
        """Send a message."""
        self.send(frame(TEXT, json.dumps(message).encode()))

    async def frame(self) -> tuple[int, bytes]:
        """Read one frame: its opcode and payload."""
        head, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return head & 0xF, await self.reader.readexactly(size)

    async def hear(self) -> Any:
        """Read one message."""
        opcode, payload = await self.frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def closed(self) -> tuple[int, str]:
        """Read until the server closes; gives its code and reason."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    async def ended(self) -> bool:
        """Wait until the server ends the connection; whether it does so in time."""
        try:
            async with asyncio.timeout(10):
                while await self.reader.read(65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    def close(self) -> None:
        """End the connection without a word."""
        self.writer.transport.abort()
