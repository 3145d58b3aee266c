"""What the discovery client does when its own network changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from bonevalue import discovery
from bonevalue.discovery import DiscoveryClient
from bonevalue.network import NetworkChange
from bonevalue.sockets import parse_address
from bonevalue.wire.pacing import Backoff
from bonevalue.wire.session import Session
from bonevalue.wire.session_events import AttemptFailed, WentOffline, WentOnline
from bonevalue.wire.session_states import State
from tests.support.discovery_clients import deaf_port, running
from tests.support.scripted_server import Scene, ScriptedServer, log_in
from tests.support.sessions import make_session
from tests.support.waiting import UNIT, until


async def _log_in_and_fall_deaf(scene: Scene) -> None:
    await log_in(scene)
    await scene.fall_deaf()


RESUMED = NetworkChange(resumed=True)
ELSEWHERE = NetworkChange(added=frozenset({"10.0.0.7"}), removed=frozenset({"10.0.0.6"}))
OURS_GONE = NetworkChange(removed=frozenset({"127.0.0.1"}))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session whose every delay is an hour, so that only hurry gets it online again."""
    monkeypatch.setattr(Backoff, "next", lambda self, hint=None: 3600.0)
    return make_session()


@pytest.mark.parametrize(
    ("change", "reason"),
    [(RESUMED, "asleep"), (OURS_GONE, "127.0.0.1 is no address of this machine any more")],
    ids=["resumed", "address gone"],
)
async def test_a_socket_that_a_change_has_killed_is_replaced_at_once(
    change: NetworkChange, reason: str, patient: Session
) -> None:
    async with ScriptedServer(_log_in_and_fall_deaf) as server, running(server.address, patient) as run:
        await run.online()
        run.client.network_changed(change)
        assert run.client.session.state is State.WAITING
        await run.online(2)
        gone = run.first(WentOffline)
        assert reason in gone.reason and gone.retry_in == 0.0
        assert run.events[-1] == WentOnline("100", resumed=True)


async def test_a_socket_in_doubt_is_kept_if_the_server_answers(
    patient: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "PROBE_TIMEOUT", 4 * UNIT)
    async with ScriptedServer() as server, running(server.address, patient) as run:
        await run.online()
        for _ in range(2):
            run.client.network_changed(ELSEWHERE)
            await asyncio.sleep(6 * UNIT)
        assert [type(event) for event in run.events] == [WentOnline]
        assert len(server.scenes) == 1


@pytest.mark.parametrize("is_seen", [True, False], ids=["change", "mere doubt"])
async def test_a_socket_in_doubt_is_replaced_if_the_server_does_not_answer(
    is_seen: bool, patient: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert discovery.PROBE_TIMEOUT <= 3.0
    monkeypatch.setattr(discovery, "PROBE_TIMEOUT", 0.1)
    async with ScriptedServer(_log_in_and_fall_deaf) as server, running(server.address, patient) as run:
        await run.online()
        if is_seen:
            run.client.network_changed(ELSEWHERE)
        else:
            run.client.doubt()
        await run.online(2)
        assert "does not answer, the network may have changed" in run.first(WentOffline).reason


async def test_a_login_in_doubt_is_begun_anew_if_the_server_does_not_answer(
    patient: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "PROBE_TIMEOUT", 0.1)
    async with ScriptedServer(Scene.fall_deaf) as server, running(server.address, patient) as run:
        await until(lambda: run.client.session.state is State.GREETING)
        run.client.network_changed(ELSEWHERE)
        await run.online()
        assert run.count(AttemptFailed) == 1


async def test_whoever_waits_to_try_again_tries_at_once(free_port: Callable[[], int], patient: Session) -> None:
    port = free_port()
    async with running(parse_address(f"ws://127.0.0.1:{port}"), patient) as run:
        await until(lambda: run.count(AttemptFailed) == 1)
        assert run.first(AttemptFailed).retry_in == 3600.0
        async with ScriptedServer(port=port):
            run.client.network_changed(NetworkChange(paused=True))
            await run.online()


async def test_an_attempt_under_way_is_begun_anew(patient: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer() as server:
        with deaf_port() as port:
            dead = parse_address(f"ws://127.0.0.1:{port}")
            async with running(dead, patient, open_timeout=60.0) as run:
                await until(lambda: run.client.session.state is State.CONNECTING)
                await until(lambda: run.client._connection is not None)
                run.client.address = server.address
                run.client.network_changed(RESUMED)
                await run.online()
                assert run.count(AttemptFailed) == 0


async def test_a_change_before_the_start_and_after_the_end_is_nothing() -> None:
    async with ScriptedServer() as server:
        client = DiscoveryClient(server.address, make_session(), on_event=lambda event: None)
        client.network_changed(RESUMED)
        client.doubt()
        running_client = asyncio.create_task(client.run())
        await until(lambda: client.session.state is State.ONLINE)
        await client.close()
        client.network_changed(RESUMED)
        await running_client
