"""
A discovery server that goes away for a while, and what its peers do meanwhile.

A peer of this process calls a daemon over the link that they have, and through that daemon, over the link that the two
daemons have, another one. It also tries to reach that other one itself, to which it has no link.

::

    async with Platform(tmp_path) as platform:
        absence = await platform.lose_server(30.0)
        assert not absence.failures
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bonevalue.errors import BoneValueError
from bonevalue.peer import Peer
from tests.support.processes import (
    PASSWORD,
    Daemon,
    daemons,
    discovery_role,
    free_port,
    peer_role,
    write_module,
    write_yaml,
)
from tests.support.waiting import until

__all__ = ["BACK_WITHIN", "Absence", "Platform"]

#: Seconds within which everybody is back after the server is.
BACK_WITHIN = 60.0
#: Seconds after which peers that a restarted server has not seen again count as gone, and a little more.
SETTLED = 17.0
#: Seconds between two calls over the links that are there, and between two tries to make a new one.
PAUSE, RETRY = 0.1, 5.0
#: Seconds that a call has, also one that needs a new link.
TIMEOUT = 10.0

MODULE = f"""\
from bonevalue import Module


class Pass(Module):
    '''Calls somebody else's module, and answers what that answers.'''

    async def handle(self, request, context):
        return await self.peer.get(request["to"]).call(request["module"], request["request"], timeout={TIMEOUT})


class Echo(Module):
    async def handle(self, request, context):
        return request
"""


@dataclass
class Absence:
    """What came of it; times in seconds."""

    lasted: float = 0.0
    calls: int = 0
    slowest: float = 0.0
    #: How calls over the links that were there failed.
    failures: list[BoneValueError] = field(default_factory=list)
    #: How each try to make a new link failed, and how soon.
    refusals: list[tuple[BoneValueError, float]] = field(default_factory=list)
    #: From the server's return until the last of the peers was back.
    back_after: float = 0.0
    #: Links that were made, by anybody, until some time after that.
    new_links: int = 0

    def as_json(self) -> dict[str, Any]:
        """Its figures."""
        return {
            "lasted_s": round(self.lasted),
            "calls": self.calls,
            "failed": len(self.failures),
            "slowest_ms": round(self.slowest * 1e3, 1),
            "new_links_refused": len(self.refusals),
            "refused_with": sorted({error.code for error, _ in self.refusals}),
            "refused_after_s": round(max((seconds for _, seconds in self.refusals), default=0.0), 2),
            "back_after_s": round(self.back_after, 1),
            "new_links": self.new_links,
        }


class Platform:
    """
    The server and two daemons as processes, and a peer in this one, all of one account.

    Args:
        folder: for the files of all.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._exits = ExitStack()
        self._running = self._exits.enter_context(daemons())
        self._peer = Peer(f"ws://127.0.0.1:{self._port}", "admin", PASSWORD)

    async def __aenter__(self) -> Self:
        """All are online, and two of the three links are there."""
        try:
            self._server = await self._serve()
            self._near, near = await self._join("near")
            self._far, far = await self._join("far")
            self._daemons = near, far
            await self._peer.start()
            await until(lambda: len(self._peer.peers()) == 2, what="the daemons are online")
            await self.far_by_near("Echo", None)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._peer.stop(0.0)
        self._exits.close()

    def _start(self, name: str, content: dict[str, Any]) -> Daemon:
        daemon = Daemon(write_yaml(self._folder / name / "bonevalue.yaml", content))
        self._running.append(daemon)
        return daemon

    async def _serve(self) -> Daemon:
        daemon = self._start("server", discovery_role(self._port, {"admin": PASSWORD}))
        await asyncio.to_thread(daemon.wait_for, "listens on")
        return daemon

    async def _join(self, name: str) -> tuple[str, Daemon]:
        """Start a daemon; gives its peer id, too."""
        write_module(self._folder / name, "parts", MODULE)
        daemon = self._start(name, peer_role(self._port, modules=["modules.parts.Pass", "modules.parts.Echo"]))
        online = await asyncio.to_thread(daemon.wait_for, r"online as admin, peer (\d+)")
        return online[1], daemon

    # -- calls -----------------------------------------------------------------------------------------------------

    async def near(self, module: str, request: Any) -> Any:
        """Call the daemon to which there is a link."""
        return await self._peer.get(self._near).call(module, request, timeout=TIMEOUT)

    async def far_by_near(self, module: str, request: Any) -> Any:
        """Call the other one over the link of the two daemons."""
        return await self.near("Pass", {"to": self._far, "module": module, "request": request})

    async def far(self, module: str, request: Any) -> Any:
        """Call the other one, to which there is none."""
        return await self._peer.get(self._far).call(module, request, timeout=TIMEOUT)

    async def _links_made(self) -> int:
        """By all three together, since they started."""
        stats = await self.near("bv.stats", None), await self.far_by_near("bv.stats", None)
        return self._peer.counters.links_dialled + sum(int(each["counters"]["links_dialled"]) for each in stats)

    # -- the absence -----------------------------------------------------------------------------------------------

    async def lose_server(self, seconds: float) -> Absence:
        """The server is killed, and started again so many seconds later."""
        absence = Absence()
        links = await self._links_made()
        server_back, over = asyncio.Event(), asyncio.Event()
        calling = [asyncio.create_task(self._call(way, absence, over)) for way in (self.near, self.far_by_near)]
        gone = time.monotonic()
        await asyncio.to_thread(self._server.kill)
        trying = asyncio.create_task(self._try(absence, server_back))
        await asyncio.sleep(seconds)
        server_back.set()
        await trying
        self._server = await self._serve()
        back = time.monotonic()
        absence.lasted = back - gone
        for daemon in self._daemons:
            await asyncio.to_thread(daemon.wait_for, "online as admin", timeout=BACK_WITHIN)
        await until(lambda: self._peer.is_online and len(self._peer.peers()) == 2, timeout=BACK_WITHIN)
        absence.back_after = time.monotonic() - back
        await asyncio.sleep(SETTLED)
        over.set()
        await asyncio.gather(*calling)
        absence.new_links = await self._links_made() - links
        return absence

    async def _call(self, way: Callable[[str, Any], Awaitable[Any]], absence: Absence, over: asyncio.Event) -> None:
        """Call by a way that is there."""
        while not over.is_set():
            began, number = time.monotonic(), absence.calls
            absence.calls += 1
            try:
                assert await way("Echo", number) == number
            except BoneValueError as error:
                absence.failures.append(error)
            absence.slowest = max(absence.slowest, time.monotonic() - began)
            await asyncio.sleep(PAUSE)

    async def _try(self, absence: Absence, over: asyncio.Event) -> None:
        """Call by a way that is not there, until the server is about to come back."""
        while not over.is_set():
            began = time.monotonic()
            try:
                await self.far("Echo", None)
            except BoneValueError as error:
                absence.refusals.append((error, time.monotonic() - began))
            else:
                raise AssertionError("a link was made without a discovery server")
            try:
                async with asyncio.timeout(RETRY):
                    await over.wait()
            except TimeoutError:
                continue
