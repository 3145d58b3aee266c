"""
What one relayed message costs the discovery server: CPU time, with a session description of 600 bytes.

The server runs in a process of its own and says how much CPU time it used; clients log in by key, in pairs of one
account, and send each other connection requests as fast as they are taken. Prints one JSON line a run::

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
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect

from bonevalue.wire.blobs import LoginBlob
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.signals import Binary, Login, PeerRequest, encode, from_base64url, to_base64url
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.passwords import hash_login

SDP_SIZE = 600
#: Bytes of an offer besides the session description.
BLOB_OVERHEAD = 240
WINDOW = 16
#: What the design measured for the bare library, and for the npm package `peer`, on the machine of its author.
BARE_US, PEERSERVER_US = 14.0, 18.0

KEYS = AccountKeys.from_stretched(bytes(32))


def settings(folder: Path) -> DiscoverySettings:
    """A server without the limits that would stop this at once."""
    endless = "100000000/s"
    account = {
        "username": "alice",
        "public_key": to_base64url(KEYS.public),
        "login_hash": hash_login(KEYS.login, cost=4),
    }
    names = ("messages", "requests", "requests_per_pair", "sockets_opened_per_ip")
    most = {"pending_requests_per_pair": 10**9, "pending_requests_per_target": 10**9, "pending_sockets_per_ip": 10**6}
    return DiscoverySettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database": f"sqlite:///{folder}/server.db",
            "accounts": [account],
            "limits": {**dict.fromkeys(names, endless), **most},
        }
    )


async def serve(folder: Path) -> None:
    """The server's process: says its port, then its CPU time for each line that it reads."""
    server = DiscoveryServer(settings(folder))
    await server.start()
    print(server.port, flush=True)  # noqa: T201
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(time.process_time(), flush=True)  # noqa: T201
    await server.stop()


async def log_in(port: int) -> tuple[ClientConnection, str]:
    """One peer, and its id."""
    socket = await connect(f"ws://127.0.0.1:{port}", proxy=None, compression=None)
    hello = json.loads(await socket.recv())["data"]
    blob = LoginBlob(hello["realm"], from_base64url(hello["challenge"]), "alice", KEYS.public).encode()
    await socket.send(encode(Login("alice", blob=Binary(blob), signature=Binary(KEYS.sign(blob)))))
    peer_id = ""
    while (message := json.loads(await socket.recv()))["type"] != "peerList":
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


async def measure(port: int, cpu: Any, *, pairs: int, messages: int) -> float:
    """CPU microseconds of the server for each message."""
    peers = [await log_in(port) for _ in range(2 * pairs)]
    each = messages // pairs
    before = await cpu()
    await asyncio.gather(
        *(flood(peers[i][0], peers[i + 1][0], peers[i + 1][1], each) for i in range(0, 2 * pairs, 2))
    )
    used: float = await cpu() - before
    await asyncio.gather(*(socket.close() for socket, _ in peers))
    return used / (each * pairs) * 1e6


async def run(arguments: argparse.Namespace) -> None:
    """Measure, and print the JSON lines."""
    with tempfile.TemporaryDirectory() as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--serve", folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101 - both are pipes
        port = int(await stdout.readline())

        async def cpu() -> float:
            stdin.write(b"\n")
            return float(await stdout.readline())

        results = [
            await measure(port, cpu, pairs=arguments.pairs, messages=arguments.messages) for _ in range(arguments.runs)
        ]
        stdin.close()
        await process.wait()
    line = {
        "benchmark": "relay",
        "server_cpu_us_per_message": round(statistics.median(results), 2),
        "runs": [round(result, 2) for result in results],
        "sdp_bytes": SDP_SIZE,
        "bare_library_us": BARE_US,
        "peerserver_us": PEERSERVER_US,
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
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.serve) if arguments.serve else run(arguments))


if __name__ == "__main__":
    main()
