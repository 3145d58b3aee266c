"""The pump between session and WebSocket, against a scripted server on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from bonevalue import discovery
from bonevalue.discovery import DiscoveryClient
from bonevalue.errors import (
    Deadline,
    LoginRefused,
    PeerOffline,
    RealmMismatch,
    Replaced,
    ServerUnreachable,
    Unavailable,
)
from bonevalue.sockets import CLOSE_TIMEOUT, parse_address
from bonevalue.wire.session_events import AttemptFailed, Ended, Event, IceServersChanged, WentOffline, WentOnline
from bonevalue.wire.session_states import State
from bonevalue.wire.signals import (
    Binary,
    Done,
    Failure,
    Goodbye,
    IceServer,
    IceServers,
    PeerCandidate,
    PeerRequest,
    RequestToken,
    TokenResponse,
)
from tests.support.discovery_clients import deaf_port, running
from tests.support.scripted_server import Scene, Script, ScriptedServer, log_in
from tests.support.sessions import NOW_MS, hello, make_session
from tests.support.waiting import until

REQUEST = RequestToken("bob", Binary(b"invite"), Binary(b"signature"))


# -- coming and going --------------------------------------------------------------------------------------------------


async def test_login_and_log_off() -> None:
    async with ScriptedServer() as server, running(server.address) as run:
        await run.online()
        (scene,) = server.scenes
        assert [message["type"] for message in scene.received] == ["login"]
        await run.client.close()
        assert run.task.done() and run.task.exception() is None
        await until(lambda: scene.over)
        assert scene.close_code == 1000
        assert run.events == [WentOnline("100", resumed=False), WentOffline("we logged off", None)]
        await run.client.close()


async def test_much_that_comes_while_we_log_off_does_not_hold_us_up() -> None:
    leaving = asyncio.Event()

    async def gossip(scene: Scene) -> None:
        await log_in(scene)
        scene.websocket.transport.pause_reading()
        await leaving.wait()
        await scene.say(*["{}"] * 100)
        scene.websocket.transport.resume_reading()
        await scene.listen()

    async with ScriptedServer(gossip) as server, running(server.address) as run:
        await run.online()
        closing = asyncio.create_task(run.client.close())
        await until(lambda: run.client._websocket is None)
        leaving.set()
        async with asyncio.timeout(CLOSE_TIMEOUT / 2):
            await closing
        await until(lambda: server.scenes[0].over)
        assert server.scenes[0].close_code == 1000


async def test_a_refused_login_is_final() -> None:
    async def refuse(scene: Scene) -> None:
        await scene.say(hello())
        await scene.hear()
        await scene.say(Failure("login_refused", "wrong username or password"))
        await scene.listen()

    async with ScriptedServer(refuse) as server, running(server.address) as run:
        with pytest.raises(LoginRefused, match="wrong username or password"):
            await run.task
        assert [type(event) for event in run.events] == [Ended]
        assert len(server.scenes) == 1
        with pytest.raises(Unavailable):
            await run.client.request(REQUEST)


async def test_an_unreachable_server_is_tried_again(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with running(parse_address(f"ws://127.0.0.1:{port}")) as run:
        await until(lambda: run.count(AttemptFailed) >= 1)
        failed = run.first(AttemptFailed)
        assert isinstance(failed.error, ServerUnreachable)
        assert f"ws://127.0.0.1:{port}" in failed.error.message and "refused" in failed.error.message
        async with ScriptedServer(port=port):
            await run.online()
    assert run.count(WentOffline) == 1


async def test_a_server_of_another_realm_receives_no_frame() -> None:
    async def listen(scene: Scene) -> None:
        await scene.say(hello("evil.example"))
        await scene.listen()

    async with ScriptedServer(listen) as server, running(server.address) as run:
        with pytest.raises(RealmMismatch, match=r"evil\.example.*example\.org"):
            await run.task
        await until(lambda: server.scenes[0].over)
        assert server.scenes[0].received == []
        assert len(server.scenes) == 1


async def test_a_lost_socket_is_replaced_with_the_ticket() -> None:
    logins: list[dict[str, Any]] = []

    async def lose(scene: Scene) -> None:
        logins.append(await log_in(scene))
        scene.break_off()

    async def stay(scene: Scene) -> None:
        logins.append(await log_in(scene))
        await scene.listen()

    async with ScriptedServer(lose, stay) as server, running(server.address) as run:
        await run.online(2)
        assert "resume" not in logins[0]
        assert logins[1]["resume"] == {"peerId": "100", "ticket": "ticket-of-100"}
        kinds = [WentOnline, WentOffline, WentOnline]
        assert [type(event) for event in run.events] == kinds
        assert run.events[-1] == WentOnline("100", resumed=True)


async def test_a_goodbye_is_respected() -> None:
    async def leave(scene: Scene) -> None:
        await log_in(scene)
        await scene.say(Goodbye("going_away", 0.3))
        await scene.websocket.close(1012)

    loop = asyncio.get_running_loop()
    async with ScriptedServer(leave) as server, running(server.address) as run:
        await until(lambda: run.count(WentOffline) == 1)
        start = loop.time()
        assert run.first(WentOffline).retry_in == 0.3
        await run.online(2)
        assert loop.time() - start > 0.2


@pytest.mark.parametrize("code", [4000, 4001, 4499, 1001, 1012])
async def test_a_close_code_to_come_back_from(code: int) -> None:
    async def close(scene: Scene) -> None:
        await log_in(scene)
        await scene.websocket.close(code, "later")

    async with ScriptedServer(close) as server, running(server.address) as run:
        await run.online(2)
        assert "later" in run.first(WentOffline).reason


@pytest.mark.parametrize("code", [4503, 4500, 4999])
async def test_a_close_code_that_is_final(code: int) -> None:
    async def close(scene: Scene) -> None:
        await log_in(scene)
        await scene.websocket.close(code, "for good")

    async with ScriptedServer(close) as server, running(server.address) as run:
        with pytest.raises(Replaced if code == 4503 else Exception, match="for good"):
            await run.task
        assert len(server.scenes) == 1
        assert [type(event) for event in run.events] == [WentOnline, WentOffline, Ended]


@pytest.mark.parametrize(
    ("nonsense", "code"),
    [("{", 1002), (b"{}", 1002), ('{"type": "setPeerId", "data": {"peerId": "1", "ticket": ""}}', 1002)],
    ids=["no JSON", "binary", "out of turn"],
)
async def test_nonsense_costs_the_socket(nonsense: str | bytes, code: int) -> None:
    async def babble(scene: Scene) -> None:
        await log_in(scene)
        await scene.say(nonsense)
        await scene.listen()

    async with ScriptedServer(babble) as server, running(server.address) as run:
        await run.online(2)
        assert "broke the protocol" in run.first(WentOffline).reason
        assert server.scenes[0].close_code == code


async def test_a_message_that_is_too_long_costs_the_socket() -> None:
    async def flood(scene: Scene) -> None:
        await log_in(scene)
        await scene.say("x" * 65_537)
        await scene.listen()

    async with ScriptedServer(flood) as server, running(server.address) as run:
        await run.online(2)
        assert server.scenes[0].close_code == 1009


def _ping_often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PING_INTERVAL", "PING_TIMEOUT"):
        monkeypatch.setattr(discovery, name, 0.1)


async def test_a_server_that_answers_pings_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "PING_INTERVAL", 0.01)
    async with ScriptedServer() as server, running(server.address) as run:
        await run.online()
        await asyncio.sleep(0.2)
        assert [type(event) for event in run.events] == [WentOnline]


async def test_a_dead_connection_is_noticed_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert discovery.PING_INTERVAL + discovery.PING_TIMEOUT < 45
    _ping_often(monkeypatch)

    async with ScriptedServer(_log_in_and_fall_deaf) as server, running(server.address) as run:
        await until(lambda: run.count(WentOffline) == 1)
        assert "does not answer any more" in run.first(WentOffline).reason
        await run.online(2)


async def test_a_server_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.wire.session.ESTABLISH_TIMEOUT", 0.2)

    async def say_nothing(scene: Scene) -> None:
        await scene.listen()

    async with ScriptedServer(say_nothing) as server, running(server.address) as run:
        await run.online()
        assert "waiting for the greeting" in run.first(AttemptFailed).error.message
        assert server.scenes[0].received == []


async def test_whoever_cancels_the_run_leaves_no_socket() -> None:
    async with ScriptedServer() as server, running(server.address) as run:
        await run.online()
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task
        await until(lambda: server.scenes[0].over)
        assert run.client.session.state is State.CLOSED


async def test_closing_while_connecting_and_while_waiting(free_port: Callable[[], int]) -> None:
    with deaf_port() as port:
        async with running(parse_address(f"ws://127.0.0.1:{port}")) as run:
            await until(lambda: run.client.session.state is State.CONNECTING)
            await run.client.close()
            assert run.task.done() and run.task.exception() is None
    async with running(parse_address(f"ws://127.0.0.1:{free_port()}"), make_session(chance=0.9)) as run:
        await until(lambda: run.client.session.state is State.WAITING)
        await run.client.close()
        assert run.task.done() and run.task.exception() is None


async def test_closing_before_the_start() -> None:
    client = DiscoveryClient(parse_address("127.0.0.1:1"), make_session(), on_event=lambda event: None)
    await client.close()
    await client.run()


# -- requests ----------------------------------------------------------------------------------------------------------


def _answering(*answers: Failure | TokenResponse | Done | None) -> Script:
    """Log in, then give each request its answer; None breaks the connection off."""

    async def script(scene: Scene) -> None:
        await log_in(scene)
        for answer in answers:
            message = await scene.hear()
            if answer is None:
                scene.break_off()
            else:
                await scene.say(answer, ref=message["ref"])
        await scene.listen()

    return script


async def test_requests_get_their_answers() -> None:
    script = _answering(TokenResponse(NOW_MS), Failure("peer_offline", "nobody", 2.0), Done())
    async with ScriptedServer(script) as server, running(server.address) as run:
        await run.online()
        assert await run.client.request(REQUEST) == TokenResponse(NOW_MS)
        with pytest.raises(PeerOffline, match="nobody") as caught:
            await run.client.request(PeerRequest("7"))
        assert caught.value.retry_after == 2.0
        assert await run.client.request(PeerRequest("7")) == Done()
        assert [type(event) for event in run.events] == [WentOnline]


async def test_answers_may_come_in_any_order() -> None:
    async def backwards(scene: Scene) -> None:
        await log_in(scene)
        messages = [await scene.hear() for _ in range(5)]
        for message in reversed(messages):
            await scene.say(TokenResponse(int(message["data"]["name"])), ref=message["ref"])
        await scene.listen()

    async with ScriptedServer(backwards) as server, running(server.address) as run:
        await run.online()
        requests = [run.client.request(RequestToken(str(number), Binary(), Binary())) for number in range(5)]
        assert await asyncio.gather(*requests) == [TokenResponse(number) for number in range(5)]


async def test_a_request_on_a_lost_connection_is_unavailable() -> None:
    async with ScriptedServer(_answering(None)) as server, running(server.address) as run:
        await run.online()
        with pytest.raises(Unavailable, match="lost"):
            await run.client.request(REQUEST)
        await run.online(2)


async def test_a_request_without_an_answer_ends_in_time() -> None:
    async with ScriptedServer() as server, running(server.address) as run:
        await run.online()
        with pytest.raises(Deadline):
            await run.client.request(REQUEST, timeout=0.05)
        task = asyncio.create_task(run.client.request(REQUEST))
        await until(lambda: len(server.scenes[0].received) == 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for message in server.scenes[0].received[1:]:  # too late: nobody waits, nobody is harmed
            await server.scenes[0].say(TokenResponse(1), ref=message["ref"])
        run.client.send(PeerCandidate("7", None, Binary(bytes(16)), "candidate"))
        await until(lambda: len(server.scenes[0].received) == 4)
        assert run.client.session.state is State.ONLINE


async def test_nothing_is_sent_while_offline(free_port: Callable[[], int]) -> None:
    async with running(parse_address(f"ws://127.0.0.1:{free_port()}")) as run:
        with pytest.raises(Unavailable):
            await run.client.request(REQUEST)
        with pytest.raises(Unavailable):
            run.client.send(PeerCandidate("7"))


async def _log_in_and_fall_deaf(scene: Scene) -> None:
    await log_in(scene)
    await scene.fall_deaf()


def _send_too_much(client: DiscoveryClient) -> None:
    for _ in range(199):  # about 9 MB, more than any socket buffer holds
        client.send(PeerRequest("7", None, Binary(bytes(35_000)), Binary()))


async def test_a_server_that_does_not_read_stops_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "CLOSE_TIMEOUT", 0.2)
    go_on = asyncio.Event()

    async def talk_but_not_read(scene: Scene) -> None:
        await log_in(scene)
        scene.websocket.transport.pause_reading()
        await go_on.wait()
        await scene.say(IceServers([IceServer(["stun:192.0.2.1"])]))
        await scene.fall_deaf()

    async with ScriptedServer(talk_but_not_read) as server, running(server.address) as run:
        await run.online()
        _send_too_much(run.client)
        go_on.set()
        await until(lambda: run.count(IceServersChanged) == 1)
        await asyncio.wait_for(run.client.close(), 10)


async def test_a_server_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    _ping_often(monkeypatch)
    async with ScriptedServer(_log_in_and_fall_deaf) as server, running(server.address) as run:
        await run.online()
        _send_too_much(run.client)
        await run.online(2)


# -- who is told -------------------------------------------------------------------------------------------------------


async def test_whoever_fails_when_told_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Event] = []

    def fail(event: Event) -> None:
        told.append(event)
        raise RuntimeError("no, thanks")

    with caplog.at_level(logging.ERROR, "bonevalue.discovery"):
        async with (
            ScriptedServer(_answering(TokenResponse(1))) as server,
            running(server.address, on_event=fail) as run,
        ):
            await until(lambda: told)
            assert await run.client.request(REQUEST) == TokenResponse(1)
    assert "whoever was told of WentOnline failed" in caplog.text


async def test_what_is_done_when_told_is_reported_after_what_came_before() -> None:
    told: list[str] = []
    clients: list[DiscoveryClient] = []

    def stop_at_once(event: Event) -> None:
        told.append(type(event).__name__)
        if isinstance(event, WentOnline):
            clients[0].session.stop()
            clients[0]._pump()
            told.append("told")

    async with ScriptedServer() as server:
        client = DiscoveryClient(server.address, make_session(), on_event=stop_at_once)
        clients.append(client)
        await asyncio.wait_for(client.run(), 10)
    assert told == ["WentOnline", "told", "WentOffline"]


# -- what else may answer ----------------------------------------------------------------------------------------------


def _http(status: HTTPStatus, **headers: str) -> Callable[[ServerConnection, Request], Response]:
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return lambda connection, request: Response(status, status.phrase, fields, b"")


async def test_an_http_answer_is_tried_again_when_it_says() -> None:
    refuse = _http(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="77", Content_Length="0")
    async with ScriptedServer(process_request=refuse) as server, running(server.address) as run:
        await until(lambda: run.count(AttemptFailed) >= 1)
        failed = run.first(AttemptFailed)
        assert "HTTP 503" in failed.error.message and failed.retry_in == 77.0


async def test_a_redirect_is_not_followed() -> None:
    async with ScriptedServer() as other:
        away = _http(HTTPStatus.FOUND, Location=other.address.url, Content_Length="0")
        async with ScriptedServer(process_request=away) as server, running(server.address) as run:
            await until(lambda: run.count(AttemptFailed) >= 1)
            assert "HTTP 302" in run.first(AttemptFailed).error.message
        assert other.scenes == []


async def test_something_else_that_answers_is_named_so() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()
        await writer.wait_closed()

    other = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with other, running(parse_address(f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}")) as run:
        await until(lambda: run.count(AttemptFailed) >= 1)
        assert "no WebSocket server" in run.first(AttemptFailed).error.message


async def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with deaf_port() as port:
        async with running(parse_address(f"ws://127.0.0.1:{port}"), open_timeout=0.1) as run:
            await until(lambda: run.count(AttemptFailed) >= 1)
            assert "does not answer" in run.first(AttemptFailed).error.message


async def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "")
    async with ScriptedServer() as server, running(server.address) as run:
        await run.online()
