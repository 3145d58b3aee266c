"""Making an account over the network, against a scripted server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bonevalue.discovery import register_account
from bonevalue.errors import (
    BoneValueError,
    NameTaken,
    RateLimited,
    RealmMismatch,
    RegistrationClosed,
    RemoteProtocolError,
    ServerUnreachable,
)
from bonevalue.sockets import parse_address
from bonevalue.wire.blobs import RegisterBlob
from bonevalue.wire.keys import from_base64url, login_digest
from bonevalue.wire.signals import Binary, Done, Failure, Hello, Registered
from tests.support.scripted_server import Scene, Script, ScriptedServer
from tests.support.sessions import ALICE, CHALLENGE, NOW_MS, REALM, hello


async def _register(server: ScriptedServer, *, timeout: float = 10) -> None:
    await register_account(server.address, ALICE, username="alice", realm=REALM, timeout=timeout)


def _answer(answer: Registered | Failure | Done) -> Script:
    async def script(scene: Scene) -> None:
        await scene.say(hello())
        message = await scene.hear()
        await scene.say(answer, ref=message["ref"])
        await scene.listen()

    return script


async def test_the_server_gets_key_and_login_secret_and_proof_of_both() -> None:
    async with ScriptedServer(_answer(Registered("alice"))) as server:
        await _register(server)
    (message,) = server.scenes[0].received
    assert message["type"] == "register"
    data = message["data"]
    assert data.keys() == {"username", "login", "publicKey", "blob", "signature"}
    assert (data["username"], data["login"]) == ("alice", ALICE.login)
    assert from_base64url(data["publicKey"]) == ALICE.public
    blob = RegisterBlob.open(from_base64url(data["blob"]), from_base64url(data["signature"]), ALICE.public)
    assert blob == RegisterBlob(REALM, CHALLENGE, "alice", ALICE.public, login_digest(ALICE.login))


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(Failure("name_taken", "taken"), NameTaken), (Failure("rate_limited", "later", 60.0), RateLimited)],
)
async def test_a_refusal_has_its_class(failure: Failure, kind: type[BoneValueError]) -> None:
    async with ScriptedServer(_answer(failure)) as server:
        with pytest.raises(kind, match=failure.message) as caught:
            await _register(server)
    assert caught.value.retry_after == failure.retry_after


@pytest.mark.parametrize(
    ("greeting", "kind"),
    [
        (hello("evil.example"), RealmMismatch),
        (hello(version=9), RemoteProtocolError),
        (Hello(1, REALM, Binary(CHALLENGE), NOW_MS, "closed", 1), RegistrationClosed),
    ],
    ids=["realm", "version", "closed"],
)
async def test_nothing_is_shown_to_the_wrong_server(greeting: Hello, kind: type[BoneValueError]) -> None:
    async def script(scene: Scene) -> None:
        await scene.say(greeting)
        await scene.listen()

    async with ScriptedServer(script) as server:
        with pytest.raises(kind):
            await _register(server)
    assert server.scenes[0].received == []


@pytest.mark.parametrize("answer", ["{", b"{}", '{"type": "weather"}', '{"type": "done", "data": {}}'])
async def test_nonsense_is_a_protocol_error(answer: str | bytes) -> None:
    async def script(scene: Scene) -> None:
        await scene.say(answer)
        await scene.listen()

    async with ScriptedServer(script) as server:
        with pytest.raises(RemoteProtocolError):
            await _register(server)


async def test_a_closed_socket_is_explained() -> None:
    async def script(scene: Scene) -> None:
        await scene.say(hello())
        await scene.hear()
        await scene.websocket.close(4029, "slow down")

    async with ScriptedServer(script) as server:
        with pytest.raises(RateLimited, match="slow down"):
            await _register(server)


async def test_a_server_that_does_not_answer(free_port: Callable[[], int]) -> None:
    async def script(scene: Scene) -> None:
        await scene.say(hello())
        await scene.listen()

    async with ScriptedServer(script) as server:
        with pytest.raises(ServerUnreachable, match="does not answer"):
            await _register(server, timeout=0.2)
    with pytest.raises(ServerUnreachable, match="refused"):
        address = parse_address(f"127.0.0.1:{free_port()}")
        await register_account(address, ALICE, username="alice", realm=REALM)
