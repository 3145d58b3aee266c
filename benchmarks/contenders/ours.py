"""
BoneValue as a program uses it: :class:`~bonevalue.peer.Peer` objects of one account, one or more in each process.

The discovery server is a third process. Nothing is taken out or short-cut: calls go through the target, the pool and
the guarded link; links are dialled over the server, signed and proved.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

from benchmarks.calling import REQUEST, CallerRole
from benchmarks.children import Child, Role, run
from benchmarks.contenders.contender import Contender, Pair
from bonevalue import Module
from bonevalue.module import Context
from bonevalue.peer import Peer, Target
from bonevalue.wire.keys import AccountKeys
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.config import DiscoverySettings

__all__ = ["BoneValue"]

ACCOUNT, PASSWORD = "bench", "plum-tart-and-a-violin"
#: Calls that a callee runs at once.
CONCURRENCY = 1024
#: Links that a caller may have, and seconds that an idle one stays.
LINKS, STAY = 1024, 600


class BoneValue(Contender):
    """
    The platform.

    Args:
        callees: peers in the process that is called.
    """

    name = "bonevalue"
    needs = "bonevalue"

    def __init__(self, callees: int = 1) -> None:
        self._callees = callees

    @asynccontextmanager
    async def meet(self) -> AsyncIterator[Pair]:
        """One caller, and so many callees in the other process, all online and all known to the caller."""
        async with Child.running(__name__, "discovery") as discovery, self.two() as pair:
            address = await discovery.ask("listen")
            await pair.callee.ask("join", address=address, count=self._callees)
            await pair.caller.ask("join", address=address, others=self._callees)
            yield pair


class Discovery(Role):
    """The discovery server's process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._server: DiscoveryServer | None = None

    async def listen(self) -> str:
        """Serve; gives the address. Without the limits that stop one machine from being many."""
        endless = "1000000/s"
        rates = ("messages", "requests", "requests_per_pair", "sockets_opened_per_ip", "password_logins")
        most = ("peers", "pending_requests_per_target", "pending_requests_per_pair", "pending_sockets_per_ip")
        settings = {
            "listen": "127.0.0.1:0",
            "database": f"sqlite:///{self._folder.name}/server.db",
            "accounts": [{"username": ACCOUNT, "password": PASSWORD}],
            "limits": {**dict.fromkeys(rates, endless), **dict.fromkeys(most, 4096)},
        }
        self._server = DiscoveryServer(DiscoverySettings.model_validate(settings))
        await self._server.start()
        return f"ws://127.0.0.1:{self._server.port}"

    async def stop(self) -> None:
        """Say goodbye to the clients."""
        if self._server is not None:
            await self._server.stop()
        self._folder.cleanup()


class Echo(Module):
    """Gives back what comes."""

    async def handle(self, request: Any, context: Context) -> Any:
        """The request is the response."""
        return request


class Bulk(Module):
    """Streams so many pieces of so many bytes."""

    async def handle(self, request: Any, context: Context) -> AsyncIterator[bytes]:
        """One item a piece."""
        piece = bytes(request["size"])
        for _ in range(request["pieces"]):
            yield piece


class Callee(Role):
    """The process of the peers that are called."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []

    async def join(self, address: str, count: int) -> None:
        """Bring peers online. They have one password, from which the keys are derived once only."""
        with mock.patch.object(AccountKeys, "derive", functools.cache(AccountKeys.derive)):
            for _ in range(count):
                peer = Peer(address, ACCOUNT, PASSWORD, settings={"pool": {"idle_timeout": STAY}})
                peer.module("Echo", Echo(), concurrency=CONCURRENCY)
                peer.module("Bulk", Bulk())
                self._peers.append(peer)
                await peer.start()

    async def stop(self) -> None:
        """Take them offline."""
        await asyncio.gather(*(peer.stop(0) for peer in self._peers))


class Caller(CallerRole):
    """The process of the peer that calls."""

    def __init__(self) -> None:
        self._peer: Peer | None = None
        #: Each of the others.
        self._others: list[Target] = []

    async def join(self, address: str, others: int) -> None:
        """Go online, and wait until that many others are seen."""
        self._peer = peer = Peer(
            address, ACCOUNT, PASSWORD, settings={"pool": {"max_outgoing": LINKS, "idle_timeout": STAY}}
        )
        seen = asyncio.Event()
        peer.on("peerconnect", lambda _: seen.set())
        await peer.start()
        while len(peer.peers()) < others:
            seen.clear()
            await seen.wait()
        self._everyone = peer.get("*")
        self._others = [peer.get(other.id) for other in peer.peers()]

    def one_call(self) -> Awaitable[Any]:
        """One call, as a program makes it."""
        return self._others[0].call("Echo", REQUEST)

    async def bulk(self, size: int, pieces: int) -> float:
        """Receive so much as one stream; gives the seconds that it took."""
        begun, left = time.perf_counter(), size * pieces
        async for item in self._others[0].stream("Bulk", {"size": size, "pieces": pieces}):
            left -= len(item)
        if left:
            raise ValueError(f"{left} bytes are missing")
        return time.perf_counter() - begun

    async def open(self, first: int, count: int) -> list[float]:
        """Call peers that were not called before, one after the other; gives the seconds that each took."""
        took = []
        for target in self._others[first : first + count]:
            begun = time.perf_counter()
            await target.call("Echo", REQUEST)
            took.append(time.perf_counter() - begun)
        return took

    async def fan_out(self, times: int) -> dict[str, list[float]]:
        """Ask everyone by one call, and everyone by a call each, by turns; gives the seconds that each took."""
        together, singly = [], []
        for _ in range(times):
            begun = time.perf_counter()
            answers = [result.response async for result in self._everyone.call_all("Echo", REQUEST)]
            together.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            single = await asyncio.gather(*(target.call("Echo", REQUEST) for target in self._others))
            singly.append(time.perf_counter() - begun)
            if answers != single or answers != [REQUEST] * len(self._others):
                raise ValueError("not everyone answered")
        return {"together": together, "singly": singly}

    async def stop(self) -> None:
        """Go offline."""
        if self._peer is not None:
            await self._peer.stop(0)


if __name__ == "__main__":
    run({"discovery": Discovery, "callee": Callee, "caller": Caller})
