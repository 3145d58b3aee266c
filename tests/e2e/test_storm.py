"""
A daemon that a hundred trusted peers have waited for comes online, and all want links at once.

The hundred are peers of four accounts in processes of their own; the daemon is a real one. Its own log, which tells of
each link how far it has come, says how many were being set up at a time.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain
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
#: Links that the daemon sets up at once, and that it lets others set up: design and limits.
MOST_DIALLED, MOST_ACCEPTED = 8, 16
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

    _CHANGE = re.compile(r"link (to|from) \S+/(\d+): (\w+) -> (\w+) after")

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def changes(self) -> list[tuple[str | Any, ...]]:
        """Each step in the life of a link: who dialled, the other peer, the state before and after."""
        return [found.group(1, 2, 3, 4) for line in self.daemon.lines if (found := self._CHANGE.search(line))]

    def opened(self) -> list[str]:
        """The peers of links that came about."""
        return [peer for _, peer, _, after in self.changes() if after == "open"]

    def most_at_once(self, *directions: str) -> int:
        """With how many peers a link of these directions was on its way at a time, past the queue."""
        most, under_way = 0, Counter[str]()
        for way, peer, before, after in self.changes():
            if way in directions and before == "queue" and after != "failed":
                under_way[peer] += 1
            elif way in directions and before != "queue" and after in ("open", "failed"):
                under_way[peer] -= 1
            most = max(most, len(+under_way))
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
        server = Daemon(write_yaml(world.folder / "server" / "bonevalue.yaml", discovery_role(world.port, accounts)))
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
    Path(f"/tmp/w/h6storm.{who.replace(' ', '')}").write_text(hub.daemon.output)
    assert set(hub.opened()) == world.ids
    # With whom both sides dial, there is one link in the end, and one place is enough for both of its attempts.
    most = MOST_DIALLED * hub_calls + MOST_ACCEPTED * crowd_calls
    assert hub.most_at_once("to") <= MOST_DIALLED and hub.most_at_once("to", "from") <= most
    assert (hub.most_at_once("to") > 0) is hub_calls and (hub.most_at_once("from") > 0) is crowd_calls
    assert "Traceback" not in hub.daemon.output, hub.daemon.output

    assert await asyncio.to_thread(hub.daemon.stop) == 0
    await _until(world.unlinked)


if __name__ == "__main__":
    run({"crowd": Crowd})
