"""
A peer that calls others and says how it went: a program for the hosts of the lab, and for benchmarks.

It reads the settings file that is its argument, and then one request a line from standard input, as JSON; each is
answered by one line on standard output, with the ``id`` of the request, in whatever order they are done. It serves
the modules of the file like any other peer, and ends with its input::

    {"id": 1, "do": "call", "target": "bob", "module": "Lab.Count", "request": {...}, "timeout": 20, ...}
    {"id": 1, "begun": 81.2, "seconds": 0.31, "response": {...}}           or "error": {"code": ..., "message": ...}

``begun`` is of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import uvloop

from bonevalue import logs
from bonevalue.errors import BoneValueError, ConnectFailed, Deadline, NoTarget
from bonevalue.peer import Peer

#: Longest line of a request.
_MOST = 2**20


class Agent:
    """What the requests do, with one peer."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._flows: dict[str, tuple[asyncio.Event, asyncio.Task[list[dict[str, Any]]]]] = {}
        self._verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "call": self.call,
            "ping": self.ping,
            "flow": self.flow,
            "start": self.start,
            "stop": self.stop,
            "ready": self.ready,
            "peers": self.peers,
            "until_online": self.until_online,
        }

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one line asks for."""
        verb = self._verbs[request.pop("do")]
        number = request.pop("id")
        return {"id": number, **await self._timed(verb(**request))}

    async def _timed(self, work: Awaitable[Any]) -> dict[str, Any]:
        begun = time.monotonic()
        try:
            outcome: dict[str, Any] = {"response": await work}
        except BoneValueError as error:
            outcome = {"error": _described(error)}
        return {"begun": begun, "seconds": time.monotonic() - begun, **outcome}

    async def ready(self) -> str:
        """Its peer id, as soon as it is online."""
        return self._peer.id

    async def call(self, target: str, module: str, request: Any = None, **options: Any) -> Any:
        """Call once, with the options of :meth:`~bonevalue.target.Target.call`."""
        return await self._peer.get(target).call(module, request, **options)

    async def ping(self, target: str, timeout: float = 20.0) -> dict[str, Any]:
        """Measure the way to one peer of a target."""
        async for result in self._peer.get(target).ping(timeout=timeout):
            if result.error is not None:
                raise result.error
            return asdict(result.response)
        raise NoTarget(f"nobody is online as {target}")

    async def peers(self, target: str) -> list[str]:
        """The ids of the peers that a target means now."""
        return [peer.id for peer in self._peer.get(target).peers()]

    async def until_online(self, target: str, count: int, timeout: float) -> float:
        """Wait until that many peers of a target are online; gives when it was so, by the monotonic clock."""
        until = time.monotonic() + timeout
        while (now := len(self._peer.get(target).peers())) != count:
            if time.monotonic() > until:
                raise Deadline(f"{now} peers of {target} are online, not {count}")
            await asyncio.sleep(0.02)
        return time.monotonic()

    async def flow(self, target: str, module: str, every: float, count: int, **options: Any) -> list[dict[str, Any]]:
        """Call so many times, each with another ``n``, without waiting for answers; gives how all of them went."""
        return await self._keep_calling(target, module, every, count, asyncio.Event(), options)

    async def start(self, name: str, target: str, module: str, every: float, **options: Any) -> None:
        """The same until it is told to stop, by that name."""
        enough = asyncio.Event()
        calls = asyncio.create_task(self._keep_calling(target, module, every, None, enough, options))
        self._flows[name] = (enough, calls)

    async def stop(self, name: str) -> list[dict[str, Any]]:
        """Call no more; gives how all went, as soon as the last has ended."""
        enough, calls = self._flows.pop(name)
        enough.set()
        return await calls

    async def _keep_calling(
        self, target: str, module: str, every: float, count: int | None, enough: asyncio.Event, options: dict[str, Any]
    ) -> list[dict[str, Any]]:
        calls: list[asyncio.Task[dict[str, Any]]] = []
        request = options.pop("request", {})
        first = options.pop("first", 0)
        while not enough.is_set() and len(calls) != count:
            work = self.call(target, module, {**request, "n": first + len(calls)}, **options)
            calls.append(asyncio.create_task(self._timed(work)))
            await asyncio.sleep(every)
        return [{"n": first + n, **outcome} for n, outcome in enumerate(await asyncio.gather(*calls))]


def _described(error: BoneValueError) -> dict[str, Any]:
    described: dict[str, Any] = {"code": error.code, "message": str(error)}
    if isinstance(error, ConnectFailed) and error.report is not None:
        described["report"] = asdict(error.report)
    return described


async def _serve(file: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_MOST)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(agent: Agent, line: bytes) -> None:
        sys.stdout.write(json.dumps(await agent.answer(json.loads(line))) + "\n")
        sys.stdout.flush()

    async with Peer.from_file(file) as peer:
        agent = Agent(peer)
        async for line in reader:
            task = asyncio.create_task(handle(agent, line))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    logs.configure("info")
    # Ours in full, but not each packet of those below.
    logging.getLogger("bonevalue").setLevel(logging.DEBUG)
    uvloop.run(_serve(sys.argv[1]))
