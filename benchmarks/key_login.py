"""
What logins by key cost the discovery server, as after its restart: everybody comes at once, nothing is cached.

The server runs in a process of its own, on a database of as many accounts as log in, each trusting two others, and says
how much CPU time it used. Meanwhile two more peers, in a third process, pass connection requests to each other; how
long those take shows whether the server's other work goes on. (On a machine with fewer cores than processes they wait
for a core, too.) Prints one JSON line::

    python benchmarks/key_login.py [--accounts 5000]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop
from sqlalchemy import Connection, insert
from websockets.asyncio.client import ClientConnection, connect

from bonevalue.wire.blobs import LoginBlob, Pin
from bonevalue.wire.keys import AccountKeys, from_base64url
from bonevalue.wire.signals import Binary, Login, PeerRequest, encode
from bonevalue_server import schema
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.store import Store

Result = TypeVar("Result")

REALM = "localhost"
#: Sockets that are being opened or log in at the same time.
AT_ONCE = 200
#: What the design allows 5,000 logins to cost.
LIMIT_S = 10.0


def keys_of(number: int) -> AccountKeys:
    """The keys of one account, without a password."""
    return AccountKeys.from_stretched(hashlib.sha256(str(number).encode()).digest())


def settings(folder: Path) -> DiscoverySettings:
    """A server without the limits that would stop one machine from being thousands of people."""
    endless = "100000000/s"
    rates = ("messages", "requests", "requests_per_pair", "sockets_opened", "sockets_opened_per_ip")
    sockets = ("sockets", "pending_sockets", "pending_sockets_per_ip")
    requests = ("pending_requests_per_pair", "pending_requests_per_target")
    values = {
        "listen": "127.0.0.1:0",
        "database": f"sqlite:///{folder}/server.db",
        "limits": {"login_timeout": 300, **dict.fromkeys(rates, endless), **dict.fromkeys(sockets + requests, 10**6)},
    }
    return DiscoverySettings.model_validate(values)


async def populate(folder: Path, count: int) -> None:
    """A database of accounts in a ring, each trusting both neighbours by a pin."""
    store = await Store.open(settings(folder).database.get_secret_value(), realm=REALM)
    people = [keys_of(number) for number in range(count)]

    def fill(connection: Connection) -> None:
        rows = [
            {"id": index + 1, "username": f"p{index}", "public_key": one.public, "login_hash": "none", "created": 0}
            for index, one in enumerate(people)
        ]
        connection.execute(insert(schema.accounts), rows)
        edges, certificates = [], []
        for index, one in enumerate(people):
            for other in {(index - 1) % count, (index + 1) % count} - {index}:
                pair = {"owner_id": index + 1, "contact_id": other + 1}
                blob = Pin(one.public, people[other].public, f"p{other}", 0).encode()
                edges.append({**pair, "alias": f"p{other}", "created": 0})
                certificates.append({**pair, "blob": blob, "signatures": one.sign(blob)})
        connection.execute(insert(schema.edges), edges)
        connection.execute(insert(schema.certificates), certificates)

    await store.database.write(fill, bounded=False)
    await store.close()


async def serve(folder: Path) -> None:
    """The server's process: says its port, then its CPU time and its memory for each line that it reads."""
    server = DiscoveryServer(settings(folder))
    await server.start()
    print(server.port, flush=True)  # noqa: T201
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(time.process_time(), memory, flush=True)  # noqa: T201
    await server.stop()


async def log_in(port: int, number: int) -> tuple[ClientConnection, str]:
    """A socket that is logged in, and its peer id."""
    socket, challenge = await greeted(port)
    return socket, await prove(socket, challenge, number)


async def greeted(port: int) -> tuple[ClientConnection, bytes]:
    """A socket, and the challenge that it was greeted with."""
    socket = await connect(f"ws://127.0.0.1:{port}", proxy=None, compression=None, ping_interval=None)
    return socket, from_base64url(json.loads(await socket.recv())["data"]["challenge"])


async def prove(socket: ClientConnection, challenge: bytes, number: int) -> str:
    """Log in on a socket and receive all that follows; gives the peer id."""
    keys, name = keys_of(number), f"p{number}"
    blob = LoginBlob(REALM, challenge, name, keys.public).encode()
    await socket.send(encode(Login(name, blob=Binary(blob), signature=Binary(keys.sign(blob)))))
    peer_id = ""
    while (message := json.loads(await socket.recv()))["type"] != "peerList":
        if message["type"] == "error":
            raise RuntimeError(message["data"])
        if message["type"] == "setPeerId":
            peer_id = message["data"]["peerId"]
    return peer_id


async def relay(port: int, number: int) -> None:
    """The relaying process: passes a request on every 10 ms until its input ends; says how long each took."""
    (sender, _), (receiver, to) = await log_in(port, number), await log_in(port, number + 1)
    print("ready", flush=True)  # noqa: T201
    times: list[float] = []
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    text = encode(PeerRequest(to, None, Binary(bytes(840)), Binary(bytes(64))))
    while not ended.done():
        before = time.perf_counter()
        await sender.send(text)
        while '"peerRequest"' not in str(await receiver.recv())[:40]:
            pass
        times.append(time.perf_counter() - before)
        await asyncio.sleep(0.01)
    print(json.dumps(times), flush=True)  # noqa: T201


async def in_turns(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run many things, so many at once."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(work: Coroutine[Any, Any, Result]) -> Result:
        async with turns:
            return await work

    return await asyncio.gather(*(one(work) for work in works))


class Child(NamedTuple):
    """Another process of this benchmark."""

    process: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader

    async def read_line(self) -> bytes:
        """The next line that it says."""
        line = await self.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark died")
        return line


async def start(*arguments: str) -> Child:
    """Start this file in another role."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=pipe, stdout=pipe, limit=2**24
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("a process of the benchmark has no pipes")
    return Child(process, process.stdin, process.stdout)


async def run(count: int) -> dict[str, object]:
    """Measure; gives the JSON line."""
    with tempfile.TemporaryDirectory() as name:
        await populate(Path(name), count + 2)
        server = await start("--serve", name)
        port = int(await server.read_line())

        async def used() -> tuple[float, int]:
            server.stdin.write(b"\n")
            cpu, memory = (await server.read_line()).split()
            return float(cpu), int(memory)

        relaying = await start("--relay", str(port), "--number", str(count))
        await relaying.read_line()
        alone, _ = await used()
        sockets = await in_turns(greeted(port) for _ in range(count))
        before, _ = await used()
        began = time.perf_counter()
        await in_turns(prove(socket, challenge, number) for number, (socket, challenge) in enumerate(sockets))
        seconds = time.perf_counter() - began
        after, memory = await used()
        relaying.stdin.close()
        times: list[float] = json.loads(await relaying.read_line())
        await asyncio.gather(*(socket.close() for socket, _ in sockets))
        server.stdin.close()
        await asyncio.gather(server.process.wait(), relaying.process.wait())
    return {
        "benchmark": "key_login",
        "logins": count,
        "server_cpu_s": round(after - before, 2),
        "server_cpu_ms_per_login": round((after - before) / count * 1000, 3),
        "limit_cpu_s_for_5000": LIMIT_S,
        "seconds": round(seconds, 2),
        "sockets_cpu_s": round(before - alone, 2),
        "server_peak_rss_mib": memory // 1024,
        "relayed_meanwhile": len(times),
        "relay_median_ms": round(statistics.median(times) * 1000, 2),
        "relay_p99_ms": round(statistics.quantiles(times, n=100)[98] * 1000, 2),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> None:
    """Run as a benchmark, or as its server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=5000)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if arguments.serve is not None:
        uvloop.run(serve(arguments.serve))
    elif arguments.relay is not None:
        uvloop.run(relay(arguments.relay, arguments.number))
    else:
        print(json.dumps(uvloop.run(run(arguments.accounts))), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
