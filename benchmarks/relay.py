"""
What one relayed message costs the discovery server: CPU time, with a session description of 600 bytes.

Beside it, alternating in the same run, the least that a server on the same library can do: parse the message, look up
the receiver, set the sender, write it again. Servers run in processes of their own and say how much CPU time they
used; the clients of ours log in by key, all of one account. Prints one JSON line::

    python benchmarks/relay.py [--pairs 50] [--messages 40000] [--runs 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from bonevalue.wire.blobs import LoginBlob
from bonevalue.wire.keys import AccountKeys, from_base64url, to_base64url
from bonevalue.wire.signals import Binary, Login, PeerRequest, encode
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.passwords import hash_login

SDP_SIZE = 600
#: Bytes of an offer besides the session description.
BLOB_OVERHEAD = 240
WINDOW = 16
#: What the design measured, on its author's machine: the bare library, and the npm package `peer`.
DESIGN_BARE_US, DESIGN_PEERSERVER_US = 14.0, 18.0

KEYS = AccountKeys.from_stretched(bytes(32))


# -- the servers -------------------------------------------------------------------------------------------------------


def settings(folder: Path) -> DiscoverySettings:
    """A server without the limits that would stop this at once."""
    endless = "100000000/s"
    account = {
        "username": "alice",
        "public_key": to_base64url(KEYS.public),
        "login_hash": hash_login(KEYS.login, cost=4),
    }
    names = ("messages", "requests", "requests_per_pair", "sockets_opened_per_ip")
    most = {
        "pending_requests_per_pair": 10**9,
        "pending_requests_per_target": 10**9,
        "pending_sockets_per_ip": 10**6,
        "peers": 10**6,
    }
    return DiscoverySettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database": f"sqlite:///{folder}/server.db",
            "accounts": [account],
            "limits": {**dict.fromkeys(names, endless), **most},
        }
    )


class Bare(asyncio.Protocol):
    """A connection of the least server: it tells the client its id, and passes on what it sends."""

    peers: dict[str, Bare] = {}  # noqa: RUF012 - one server a process
    ids = count(1)

    def __init__(self) -> None:
        self.protocol = ServerProtocol(max_size=65_536)
        self.id = str(next(self.ids))
        self.peers[self.id] = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Request):
                self.protocol.send_response(self.protocol.accept(event))
                self.send({"type": "setPeerId", "data": {"peerId": self.id}})
                self.send({"type": "peerList"})
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                message = msgspec.json.decode(event.data)
                message["data"]["from"] = self.id
                self.peers[message["data"]["to"]].send(message)
        self.flush()

    def send(self, message: Any) -> None:
        """Send a message."""
        self.protocol.send_text(msgspec.json.encode(message))
        self.flush()

    def flush(self) -> None:
        """Write what there is to write."""
        for data in self.protocol.data_to_send():
            self.transport.write(data)


async def serve(folder: Path, *, bare: bool) -> None:
    """The server's process: says its port, then its CPU time for each line that it reads."""
    loop = asyncio.get_running_loop()
    server = DiscoveryServer(settings(folder))
    if bare:
        listener = await loop.create_server(Bare, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
    else:
        await server.start()
        port = server.port
    print(port, flush=True)  # noqa: T201
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(time.process_time(), flush=True)  # noqa: T201
    await server.stop()


class Served:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def start(cls, folder: str, *options: str) -> Served:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--serve", folder, *options, stdin=pipe, stdout=pipe
        )
        assert process.stdout is not None
        return cls(process, int(await process.stdout.readline()))

    async def cpu(self) -> float:
        """Seconds of CPU time so far."""
        stdin, stdout = process_pipes(self.process)
        stdin.write(b"\n")
        return float(await stdout.readline())

    async def stop(self) -> None:
        """End it."""
        process_pipes(self.process)[0].close()
        await self.process.wait()


def process_pipes(process: asyncio.subprocess.Process) -> tuple[asyncio.StreamWriter, asyncio.StreamReader]:
    """Standard input and output."""
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


# -- the clients -------------------------------------------------------------------------------------------------------


async def log_in(port: int) -> tuple[ClientConnection, str]:
    """One peer, and its id."""
    socket = await connect(f"ws://127.0.0.1:{port}", proxy=None, compression=None)
    peer_id = ""
    while (message := json.loads(await socket.recv()))["type"] != "peerList":
        if message["type"] == "hello":
            hello = message["data"]
            blob = LoginBlob(hello["realm"], from_base64url(hello["challenge"]), "alice", KEYS.public).encode()
            await socket.send(encode(Login("alice", blob=Binary(blob), signature=Binary(KEYS.sign(blob)))))
        if message["type"] == "setPeerId":
            peer_id = message["data"]["peerId"]
    return socket, peer_id


async def flood(sender: ClientConnection, receiver: ClientConnection, to: str, messages: int) -> None:
    """Send so many requests, a window of them under way."""
    text = encode(PeerRequest(to, None, Binary(bytes(SDP_SIZE + BLOB_OVERHEAD)), Binary(bytes(64))))
    room = asyncio.Semaphore(WINDOW)

    async def receive() -> None:
        left = messages
        while left:
            if '"peerRequest"' in str(await receiver.recv())[:40]:
                left -= 1
                room.release()

    reading = asyncio.create_task(receive())
    for _ in range(messages):
        await room.acquire()
        await sender.send(text)
    await reading


async def measure(server: Served, *, pairs: int, messages: int) -> float:
    """CPU microseconds of the server for each message."""
    peers = [await log_in(server.port) for _ in range(2 * pairs)]
    each = messages // pairs
    before = await server.cpu()
    await asyncio.gather(*(flood(peers[i][0], peers[i + 1][0], peers[i + 1][1], each) for i in range(0, 2 * pairs, 2)))
    used = await server.cpu() - before
    await asyncio.gather(*(socket.close() for socket, _ in peers))
    return used / (each * pairs) * 1e6


async def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the JSON line."""
    ours: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        servers = (await Served.start(folder), ours), (await Served.start(folder, "--bare"), bare)
        for _ in range(arguments.runs):
            for server, results in servers:
                results.append(await measure(server, pairs=arguments.pairs, messages=arguments.messages))
        for server, _ in servers:
            await server.stop()
    line = {
        "benchmark": "relay",
        "cpu_us_per_message": round(statistics.median(ours), 1),
        "bare_cpu_us_per_message": round(statistics.median(bare), 1),
        "ratio": round(statistics.median(mine / least for mine, least in zip(ours, bare, strict=True)), 2),
        "runs": [[round(mine, 1), round(least, 1)] for mine, least in zip(ours, bare, strict=True)],
        "design_bare_us": DESIGN_BARE_US,
        "design_peerserver_us": DESIGN_PEERSERVER_US,
        "sdp_bytes": SDP_SIZE,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(line), flush=True)  # noqa: T201


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.serve, bare=arguments.bare) if arguments.serve else run(arguments))


if __name__ == "__main__":
    main()
