"""
A daemon that dies in the middle of calls, as by a power cut.

Who called it is told, what it asked for is cancelled, and nothing is run a second time. The one that dies is a process
of its own and is killed; the other one, which must notice by its heartbeat, is a peer of this process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bonevalue.errors import BoneValueError, LinkLost
from bonevalue.module import Context
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

#: Calls that are under way when the process dies.
CALLS = 100
#: Some more that may be run twice: they are made again, but to whom?
IDEMPOTENT = 10
#: Of a module, so that none of the calls waits for another: some are kept for peers that have no call under way.
SLOTS = 2 * CALLS
#: Seconds after which everybody concerned must know: three heartbeats of five seconds, and what a busy machine takes.
WITHIN = 20.0
#: Seconds that a call may take: much more than that.
TIMEOUT = 120.0

DIARY = """\
import asyncio
from pathlib import Path

from bonevalue import Module


class Diary(Module):
    async def handle(self, request, context):
        with Path("diary").open("a") as diary:
            diary.write(f"{request}\\n")
        await asyncio.sleep(600)
"""

CROWD = f"""\
import asyncio

from bonevalue import Module


class Crowd(Module):
    async def on_peerconnect(self, peer):
        target = self.peer.get(peer.id)
        await asyncio.gather(*(target.call("Work", number, timeout={TIMEOUT}) for number in range({CALLS})))

    async def handle(self, request, context):
        return None
"""


class World:
    """A discovery server with one account, and those of its peers that are processes."""

    def __init__(self, folder: Path, running: list[Daemon]) -> None:
        self.folder = folder
        self.port = free_port()
        self._running = running

    async def start(self, file: Path, ready: str) -> Daemon:
        """Start a daemon and wait for its line."""
        daemon = Daemon(file)
        self._running.append(daemon)
        await asyncio.to_thread(daemon.wait_for, ready)
        return daemon

    async def victim(self, module: str, source: str) -> Daemon:
        """Start, or start again, the daemon that is going to die."""
        folder = self.folder / "victim"
        write_module(folder, "victim", source)
        content = peer_role(self.port, modules=[{"class": f"modules.victim.{module}", "concurrency": SLOTS}])
        return await self.start(write_yaml(folder / "bonevalue.yaml", content), "online as admin")

    def peer(self) -> Peer:
        """The peer that stays alive."""
        return Peer(f"ws://127.0.0.1:{self.port}", "admin", PASSWORD)

    def diary(self) -> Counter[str]:
        """The calls that the victims began to carry out, each with how often."""
        file = self.folder / "victim" / "diary"
        return Counter(file.read_text().split()) if file.exists() else Counter()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    with daemons() as running:
        world = World(tmp_path, running)
        file = write_yaml(tmp_path / "server" / "bonevalue.yaml", discovery_role(world.port, {"admin": PASSWORD}))
        await world.start(file, "listens on")
        yield world


async def test_whoever_called_a_daemon_that_is_killed_is_told(world: World) -> None:
    victim = await world.victim("Diary", DIARY)
    async with world.peer() as peer:
        await until(peer.peers, what="the victim is online")
        target = peer.get(peer.peers()[0].id)

        async def call(number: int) -> tuple[float, BoneValueError]:
            with pytest.raises(BoneValueError) as caught:
                await target.call("Diary", number, timeout=TIMEOUT, idempotent=number >= CALLS)
            return time.monotonic(), caught.value

        calls = [asyncio.create_task(call(number)) for number in range(CALLS + IDEMPOTENT)]
        begun = Counter(map(str, range(CALLS + IDEMPOTENT)))
        await until(lambda: world.diary() == begun, what="all calls are under way")
        killed = time.monotonic()
        await asyncio.to_thread(victim.kill)
        await world.victim("Diary", DIARY)  # of the same account, so whoever called anybody again might call this one

        ends = await asyncio.gather(*calls)
        assert all(type(error) is LinkLost and error.peer for _, error in ends), {repr(error) for _, error in ends}
        assert max(moment for moment, _ in ends[:CALLS]) - killed < WITHIN
        await until(lambda: len(peer.peers()) == 1 and peer.gauges()["links"] == 0, timeout=30)
        assert world.diary() == begun
        # Nothing keeps anybody from calling the one that has come back.
        assert "Diary" in {module["name"] for module in await peer.get("Us").call("bv.modules")}
        assert world.diary() == begun


async def test_what_a_daemon_that_is_killed_asked_for_is_cancelled(world: World) -> None:
    begun: Counter[int] = Counter()
    cancelled: dict[int, float] = {}

    async def work(request: int, context: Context) -> None:
        begun[request] += 1
        try:
            await asyncio.sleep(600)
        finally:
            cancelled[request] = time.monotonic()

    async with world.peer() as peer:
        peer.module("Work", work, concurrency=SLOTS)
        victim = await world.victim("Crowd", CROWD)
        await until(lambda: len(begun) == CALLS, timeout=30, what="all calls are under way")
        assert not cancelled
        killed = time.monotonic()
        await asyncio.to_thread(victim.kill)
        await until(lambda: len(cancelled) == CALLS, timeout=WITHIN, what="all orphans are cancelled")
        assert max(cancelled.values()) - killed < WITHIN
        await until(lambda: not any(peer.gauges()[name] for name in ("links", "calls", "handlers")))
        await until(lambda: not peer.peers(), what="the victim is offline")
        assert set(begun.values()) == {1}
