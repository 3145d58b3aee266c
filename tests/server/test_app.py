"""The server as a whole: how it starts, what stops it from starting, how it stops."""

from __future__ import annotations

import asyncio
import datetime
import json
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bonevalue.errors import BoneValueError, ConfigError, Unavailable
from bonevalue.wire.keys import AccountKeys, from_base64url
from bonevalue.wire.signals import encode
from bonevalue.wire.stun import decode_response, encode_request
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.store import Store
from tests.support.accounts import Person
from tests.support.hub_world import REALM, login_of, settings_of
from tests.support.raw_socket import RawSocket
from tests.support.waiting import other_tasks, until

PASSWORD = "Tr0ubadour&3"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[DiscoveryServer]:
    started = DiscoveryServer(settings_of(tmp_path, accounts=[{"username": "admin", "password": PASSWORD}]))
    await started.start()
    yield started
    await started.stop()


def dial(server: DiscoveryServer, **options: Any) -> connect:
    scheme = "wss" if "ssl" in options else "ws"
    return connect(f"{scheme}://localhost:{server.port}", proxy=None, **options)


async def enter(client: ClientConnection, person: Person) -> list[str]:
    """Log in; gives the types of what follows, up to the list of peers."""
    challenge = from_base64url(json.loads(await client.recv())["data"]["challenge"])
    await client.send(encode(login_of(person, challenge)))
    types: list[str] = []
    while "peerList" not in types:
        types.append(json.loads(await client.recv())["type"])
    return types


async def enter_and_hear(client: ClientConnection, person: Person) -> list[dict[str, Any]]:
    """Log in; gives the ICE servers that the client is told of."""
    challenge = from_base64url(json.loads(await client.recv())["data"]["challenge"])
    await client.send(encode(login_of(person, challenge)))
    while True:
        message = json.loads(await client.recv())
        if message["type"] == "iceServers":
            servers: list[dict[str, Any]] = message["data"]
            return servers


async def person(tmp_path: Path, name: str = "admin") -> Person:
    """The account of the settings."""
    store = await Store.open(f"sqlite:///{tmp_path}/server.db", realm=REALM)
    account = await store.account(name)
    await store.close()
    assert account is not None
    keys = await asyncio.to_thread(AccountKeys.derive, PASSWORD, realm=REALM, username=name)
    return Person(keys, account)


async def test_an_account_of_the_settings_logs_in_with_a_common_client(server: DiscoveryServer, tmp_path: Path) -> None:
    admin = await person(tmp_path)
    async with dial(server) as client:
        assert await enter(client, admin) == ["setPeerId", "iceServers", "userList", "contacts", "peerList"]
        assert await client.ping()


async def test_a_second_start_finds_everything_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, accounts=[{"username": "admin", "password": PASSWORD}])
    for _ in range(2):
        server = DiscoveryServer(settings)
        await server.start()
        admin = await person(tmp_path)
        async with dial(server) as client:
            await enter(client, admin)
        await server.stop()
        assert admin.account.id == 1


async def test_a_stop_says_goodbye_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = other_tasks()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    server = DiscoveryServer(settings_of(tmp_path))
    await server.start()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    async with dial(server) as client:
        await client.recv()
        await server.stop()
        goodbye = json.loads(await client.recv())
        assert goodbye["type"] == "goodbye" and goodbye["data"]["reason"] == "going_away"
        assert 0 <= goodbye["data"]["reconnectAfter"] < 15
        with pytest.raises(ConnectionClosed) as caught:
            await client.recv()
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1012
    await server.stop()  # once more is fine
    await until(lambda: other_tasks() <= before)
    with pytest.raises(OSError):
        await RawSocket.open(server.port)


async def test_a_stop_does_not_wait_for_clients_that_do_not_close(tmp_path: Path) -> None:
    server = DiscoveryServer(settings_of(tmp_path))
    await server.start()
    client = await RawSocket.open(server.port)
    await client.upgrade()
    keeping_alive = await RawSocket.open(server.port)
    await keeping_alive.request("/healthz")
    async with asyncio.timeout(8):
        await server.stop()
    assert await client.ended() and await keeping_alive.ended()
    client.close()
    keeping_alive.close()


async def test_a_taken_port_is_one_clear_error(server: DiscoveryServer, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    second = DiscoveryServer(settings_of(other, listen=f"127.0.0.1:{server.port}"))
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{server.port}: the port is taken by another program"):
        await second.start()
    assert not list(other.iterdir())  # nothing was begun
    await second.stop()


async def test_a_port_that_is_taken_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = DiscoveryServer(settings_of(tmp_path, stun=[]))
    rival = socket.socket()
    rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    real = Store.open

    async def open_slowly(*args: Any, **options: Any) -> Store:
        store = await real(*args, **options)
        rival.listen()
        return store

    bind = socket.socket.bind

    def bind_both(sock: socket.socket, address: Any) -> None:
        bind(sock, address)
        bind(rival, sock.getsockname())

    monkeypatch.setattr(Store, "open", open_slowly)
    monkeypatch.setattr(socket.socket, "bind", bind_both)
    try:
        with pytest.raises(Unavailable, match="taken"):
            await server.start()
    finally:
        rival.close()


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"listen": "192.0.2.1:0", "realm": REALM}, Unavailable, "cannot listen on 192.0.2.1:0"),
        ({"listen": "name.invalid:0", "realm": REALM}, Unavailable, "cannot listen on name.invalid:0"),
        ({"tls": {"cert_file": "cert.pem", "key_file": "cert.pem"}}, ConfigError, r"discovery\.tls: "),
    ],
)
async def test_what_cannot_start_says_why(
    tmp_path: Path, options: dict[str, Any], kind: type[BoneValueError], text: str
) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    if "tls" in options:
        options["tls"] = {name: str(tmp_path / file) for name, file in options["tls"].items()}
    before = other_tasks()
    server = DiscoveryServer(settings_of(tmp_path, **options))
    with pytest.raises(kind, match=text):
        await server.start()
    assert other_tasks() <= before
    assert server.hub is None


async def test_a_database_of_another_realm_is_refused(tmp_path: Path) -> None:
    server = DiscoveryServer(settings_of(tmp_path))
    await server.start()
    await server.stop()
    with pytest.raises(ConfigError, match="realm"):
        await DiscoveryServer(settings_of(tmp_path, realm="example.net")).start()


async def test_it_listens_on_ipv6(tmp_path: Path) -> None:
    server = DiscoveryServer(settings_of(tmp_path, listen="[::1]:0"))
    await server.start()
    async with connect(f"ws://[::1]:{server.port}", proxy=None) as client:
        assert json.loads(await client.recv())["type"] == "hello"
    await server.stop()


async def test_health_says_how_the_database_is(server: DiscoveryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(store: Store) -> None:
        raise Unavailable("the database is away")

    client = await RawSocket.open(server.port)
    monkeypatch.setattr(Store, "changes", away)
    hub = server.hub
    assert hub is not None
    await hub.poll()
    assert await client.request("/healthz") == 200  # whoever is online still is
    assert json.loads(client.body)["database"] == "unavailable"
    monkeypatch.undo()
    await hub.poll()
    await client.request("/healthz")
    assert json.loads(client.body)["database"] == "ok"
    client.close()


async def test_an_account_that_the_operator_removes_is_out_within_five_seconds(
    server: DiscoveryServer, tmp_path: Path
) -> None:
    admin = await person(tmp_path)
    async with dial(server) as client:
        await enter(client, admin)
        store = await Store.open(f"sqlite:///{tmp_path}/server.db", realm=REALM)
        await store.remove_account(admin.account.id)
        await store.close()
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosed) as caught:
                await client.recv()
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 4504


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for ``localhost`` that nobody else vouches for, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "cert.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


async def test_tls(tmp_path: Path, certificate: Path) -> None:
    tls = {"cert_file": str(certificate), "key_file": str(tmp_path / "key.pem")}
    server = DiscoveryServer(settings_of(tmp_path, tls=tls))
    await server.start()
    origin = f"https://localhost:{server.port}"
    trusting = ssl.create_default_context(cafile=certificate)
    async with dial(server, ssl=trusting, additional_headers={"Origin": origin}) as client:
        assert json.loads(await client.recv())["type"] == "hello"
    with pytest.raises(InvalidStatus):
        async with dial(server, ssl=trusting, additional_headers={"Origin": origin.replace("https", "http")}):
            pass
    with pytest.raises(ssl.SSLCertVerificationError):
        async with dial(server, ssl=ssl.create_default_context()):
            pass
    await server.stop()


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_socket_that_never_begins_tls_is_closed_in_time(
    tmp_path: Path, certificate: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    async def wait_silently() -> None:
        tls = {"cert_file": str(certificate), "key_file": str(tmp_path / "key.pem")}
        server = DiscoveryServer(settings_of(tmp_path, tls=tls, limits={"login_timeout": 0.5}))
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()
        await server.stop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(wait_silently())


# -- STUN ------------------------------------------------------------------------------------------------------------


async def test_it_answers_stun_where_it_says_so(server: DiscoveryServer, tmp_path: Path) -> None:
    async with dial(server) as client:
        (told,) = await enter_and_hear(client, await person(tmp_path))
    (endpoint,) = server.stun
    assert told == {"urls": [f"stun:127.0.0.1:{endpoint.port}"]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.setblocking(False)
        asker.connect((endpoint.host, endpoint.port))
        asker.send(encode_request(bytes(12)))
        async with asyncio.timeout(5):
            answer = await asyncio.get_running_loop().sock_recv(asker, 100)
    assert decode_response(answer, bytes(12)).host == "127.0.0.1"
    assert server.counters.stun_answered == 1
    await server.stop()
    assert server.stun == ()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((endpoint.host, endpoint.port))


async def test_two_endpoints_and_none(tmp_path: Path) -> None:
    for stun in (["127.0.0.1:0", "127.0.0.2:0"], []):
        server = DiscoveryServer(
            settings_of(tmp_path, stun=stun, accounts=[{"username": "admin", "password": PASSWORD}])
        )
        await server.start()
        async with dial(server) as client:
            told = await enter_and_hear(client, await person(tmp_path))
        urls = [f"stun:{endpoint}" for endpoint in server.stun]
        assert told == ([{"urls": urls}] if urls else []) and len(urls) == len(stun)
        await server.stop()


async def test_a_taken_stun_port_is_one_clear_error(tmp_path: Path) -> None:
    before = other_tasks()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        taken = other.getsockname()[1]
        server = DiscoveryServer(settings_of(tmp_path, stun=f"127.0.0.1:{taken}"))
        with pytest.raises(Unavailable, match=rf"discovery\.stun: cannot listen on UDP 127\.0\.0\.1:{taken}: the port"):
            await server.start()
    assert not server.is_listening and other_tasks() == before
