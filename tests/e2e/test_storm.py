"""
A daemon that a hundred trusted peers have waited for comes online, and all want links at once.

The hundred are peers of four accounts in processes of their own; the daemon is a real one. Its own log, which tells of
each link how far it has come, says how many were being set up at a time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio

from benchmarks.children import Child, Role, run
from bonevalue.errors import BoneValueError
from bonevalue.peer import Peer, PeerEntry
from bonevalue.wire.keys import AccountKeys
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
from tests.support.waiting import UNIT

pytestmark = pytest.mark.xdist_group("storm")

#: Of the hundred: those of each process.
ACCOUNTS = (("anna", "bela"), ("cora", "dana"))
PEERS_EACH = 25
#: Links that the daemon sets up at once, and that it lets others set up. A request that meets an attempt of its own to
#: reach that very peer needs no place besides.
MOST_DIALLED, MOST_ACCEPTED = 8, 16
#: Seconds after which an attempt whose request nobody answers does not count any more.
STALLED = 2.0
#: How an attempt ends, in the words of the log.
ENDS = ("open", "failed")
#: Seconds from the daemon's being online until the last of the hundred is linked.
WITHIN = 30.0

HUB = f"""\
import logging

from bonevalue import Module
from pydantic import BaseModel

logging.getLogger("bonevalue.life").setLevel(logging.DEBUG)


class Hello(Module):
    class Config(BaseModel):
        eager: bool

    async def on_peerconnect(self, peer):
        if self.config.eager:
            await self.peer.get(peer.id).call("Hello", timeout={WITHIN})
            self.log.info("greeted %s", peer.id)

    async def handle(self, request, context):
        return context.caller.id
"""


# -- the hundred -------------------------------------------------------------------------------------------------------


class Crowd(Role):
    """Many peers in one process."""

    def __init__(self) -> None:
        self._peers: list[Peer] = []
        self._eager = False
        self._calls: set[asyncio.Task[None]] = set()
        #: Those that the daemon has answered, and how the others failed.
        self._answered: list[str] = []
        self._failed: list[str] = []

    async def join(self, port: int, accounts: list[str], number: int) -> list[str]:
        """Bring so many peers of each account online; gives the ids."""
        for account in accounts:
            keys = await asyncio.to_thread(AccountKeys.derive, PASSWORD, realm="localhost", username=account)
            with mock.patch.object(AccountKeys, "derive", lambda *_, keys=keys, **__: keys):
                joining = [Peer(f"ws://127.0.0.1:{port}", account, PASSWORD) for _ in range(number)]
                for peer in joining:
                    peer.module("Hello", lambda request: None)
                    peer.on("peerconnect", partial(self._met, peer))
                await asyncio.gather(*(peer.start() for peer in joining))
            self._peers += joining
        return [peer.id for peer in self._peers]

    async def be(self, eager: bool) -> None:
        """Whether they call the daemon as soon as they see it; what came of the last time is forgotten."""
        self._eager = eager
        self._answered, self._failed = [], []

    def _met(self, peer: Peer, who: PeerEntry) -> None:
        if self._eager and who.name == "hub":
            self._calls.add(asyncio.get_running_loop().create_task(self._call(peer, who.id)))

    async def _call(self, peer: Peer, hub: str) -> None:
        try:
            assert await peer.get(hub).call("Hello", timeout=WITHIN) == peer.id
        except BoneValueError as error:
            self._failed.append(f"{error.code}: {error.message}")
        else:
            self._answered.append(peer.id)

    async def outcome(self) -> tuple[list[str], list[str]]:
        """Who was answered, and why others were not."""
        return self._answered, self._failed

    async def links(self) -> int:
        """How many links they have, all together, those that are being set up among them."""
        gauges = [peer.gauges() for peer in self._peers]
        return int(sum(each["links"] + each["links_pending"] for each in gauges))

    async def stop(self) -> None:
        """Leave."""
        await asyncio.gather(*(peer.stop(0.0) for peer in self._peers))


# -- the daemon that they wait for -------------------------------------------------------------------------------------


class Hub:
    """The daemon, and what its log says of its links."""

    _CHANGE = re.compile(r"(\S+) .* link (to|from) \S+/(\d+): (\w+) -> (\w+) after")

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def changes(self, direction: str) -> Iterator[tuple[float, str, str, str]]:
        """Each step of the links to, or from, others: when, the other peer, the state before and after."""
        for line in self.daemon.lines:
            found = self._CHANGE.match(line)
            if found is not None and found[2] == direction:
                yield datetime.fromisoformat(found[1]).timestamp(), found[3], found[4], found[5]

    def opened(self) -> set[str]:
        """The peers to whom links came about."""
        return {peer for way in ("to", "from") for _, peer, _, after in self.changes(way) if after == "open"}

    def most_accepted(self) -> int:
        """How many links others were setting up at a time."""
        most = under_way = 0
        for _, _, before, after in self.changes("from"):
            under_way += (before == "queue") - (after in ENDS)
            most = max(most, under_way)
        return most

    def most_dialled(self) -> int:
        """How many it was setting up at a time itself, but for those that were not answered in time."""
        most, counts_until = 0, dict[str, float]()
        for moment, peer, before, after in self.changes("to"):
            if after in ENDS:
                counts_until.pop(peer, None)
            elif before == "queue":
                counts_until[peer] = inf
            elif moment < counts_until.get(peer, 0.0):
                counts_until[peer] = moment + STALLED if after in ("relay", "answer") else inf
            most = max(most, sum(until > moment for until in counts_until.values()))
        return most

    def greeted(self) -> set[str]:
        """Whom it has called, and got an answer from."""
        return {found[1] for line in self.daemon.lines if (found := re.search(r"greeted (\d+)", line))}


class World:
    """The discovery server, and the hundred."""

    def __init__(self, folder: Path, port: int, running: list[Daemon]) -> None:
        self.folder = folder
        self.port = port
        self.running = running
        self.crowds: list[Child] = []
        self.ids: set[str] = set()

    async def gather(self, exits: AsyncExitStack) -> None:
        """Make trust between the daemon's account and the others, and bring those online."""
        address = f"ws://127.0.0.1:{self.port}"
        async with Peer(address, "hub", PASSWORD, visible=False) as hub:
            for account in chain(*ACCOUNTS):
                async with Peer(address, account, PASSWORD, visible=False) as other:
                    await other.claim_token("hub", await hub.request_token(account))
        self.crowds = [await exits.enter_async_context(Child.running(__name__, "crowd")) for _ in ACCOUNTS]
        joining = (
            crowd.ask("join", port=self.port, accounts=accounts, number=PEERS_EACH)
            for crowd, accounts in zip(self.crowds, ACCOUNTS, strict=True)
        )
        self.ids = {peer for ids in await asyncio.gather(*joining) for peer in ids}
        assert len(self.ids) == 100

    async def ask(self, what: str, **arguments: Any) -> list[Any]:
        """All crowds."""
        return list(await asyncio.gather(*(crowd.ask(what, **arguments) for crowd in self.crowds)))

    async def answered(self) -> set[str]:
        """Those of the hundred that the daemon has answered. None may have failed."""
        outcomes = await self.ask("outcome")
        failures = [failure for _, failed in outcomes for failure in failed]
        assert not failures, f"{len(failures)}, like {failures[0]}"
        return {peer for answered, _ in outcomes for peer in answered}

    async def unlinked(self) -> bool:
        """Whether the hundred have no links any more."""
        return not any(await self.ask("links"))

    async def hub(self, *, eager: bool) -> Hub:
        """Start the daemon."""
        write_module(self.folder / "hub", "hello", HUB)
        content = peer_role(
            self.port,
            "hub",
            modules=[{"class": "modules.hello.Hello", "config": {"eager": eager}, "concurrency": 200}],
            pool={"max_outgoing": 128},
        )
        daemon = Daemon(write_yaml(self.folder / "hub" / "bonevalue.yaml", content))
        self.running.append(daemon)
        await asyncio.to_thread(daemon.wait_for, "online as hub")
        return Hub(daemon)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    with daemons() as running:
        world = World(tmp_path_factory.mktemp("storm"), free_port(), running)
        accounts = dict.fromkeys(("hub", *chain(*ACCOUNTS)), PASSWORD)
        content = discovery_role(world.port, accounts)
        server = Daemon(write_yaml(world.folder / "server" / "bonevalue.yaml", content))
        running.append(server)
        await asyncio.to_thread(server.wait_for, "listens on")
        async with AsyncExitStack() as exits:
            await world.gather(exits)
            yield world


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so."""
    async with asyncio.timeout(WITHIN):
        while not await condition():
            await asyncio.sleep(UNIT)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("who", ["the daemon", "the hundred", "all"])
async def test_all_are_linked_within_thirty_seconds(world: World, who: str) -> None:
    hub_calls, crowd_calls = who != "the hundred", who != "the daemon"
    await world.ask("be", eager=crowd_calls)
    hub = await world.hub(eager=hub_calls)

    async def linked() -> bool:
        greeted = not hub_calls or hub.greeted() == world.ids
        return greeted and (not crowd_calls or await world.answered() == world.ids)

    await _until(linked)
    assert hub.opened() == world.ids
    dialled, accepted = hub.most_dialled(), hub.most_accepted()
    assert dialled <= MOST_DIALLED and accepted <= MOST_ACCEPTED + MOST_DIALLED * hub_calls
    assert (dialled > 0) is hub_calls and (accepted > 0) is crowd_calls
    assert "Traceback" not in hub.daemon.output, hub.daemon.output

    assert await asyncio.to_thread(hub.daemon.stop) == 0
    await _until(world.unlinked)


if __name__ == "__main__":
    run({"crowd": Crowd})
