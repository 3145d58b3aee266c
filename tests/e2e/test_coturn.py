"""
coturn as deploy/coturn has it, with credentials as the discovery server hands them out.

A real ``turnserver``, asked by a client of our own that sees every refusal. It runs on addresses that look public, on
the loopback interface of the tests' network.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import shutil
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bonevalue.discovery import DiscoveryClient
from bonevalue.sockets import parse_address
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.session import Session, State
from bonevalue.wire.session_events import Event, IceServersChanged
from bonevalue.wire.signals import IceServer, IceServers, RequestIceServers
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.config import TurnSettings
from bonevalue_server.ice import IceHandout
from bonevalue_server.records import AccountId
from tests.support.certificates import Authority
from tests.support.coturn_recipe import RECIPE, CoturnRecipe, with_drop_in
from tests.support.hub_world import REALM, settings_of
from tests.support.loopback_addresses import public_addresses
from tests.support.processes import Daemon, daemons
from tests.support.turn_client import TurnClient
from tests.support.waiting import until

ADDRESS, ADDRESS6 = "203.0.113.3", "2001:db8::3"
#: Somebody else on the internet; the whole network is on loopback.
OUT_THERE = "203.0.113.80"
UDP, TLS = (ADDRESS, 3478), (ADDRESS, 5349)
NAME = "turn.example.org"
EARLIER_SECRET = "the one that was good until yesterday"
PASSWORD = "Tr0ubadour&3"
ALICE, BOB, CAROL = map(AccountId, (1, 2, 3))


class Coturn:
    """A TURN server that runs, and the settings of the discovery server that go with it."""

    def __init__(self, folder: Path, authority: Authority, secret: str) -> None:
        self.tls = ssl.create_default_context(cafile=authority.file)
        self.settings = settings_of(
            folder,
            turn={
                "urls": [
                    f"turn:{NAME}:3478?transport=udp",
                    f"turn:{NAME}:3478?transport=tcp",
                    f"turns:{NAME}:5349?transport=tcp",
                ],
                "secret": secret,
            },
        )
        self.handout = IceHandout(self.settings, stun=[], secret=bytes(32))

    def credential(self, account: AccountId = ALICE, *, lifetime: float = 3600.0) -> tuple[str, str]:
        """What the discovery server hands out, so that it is good for so many seconds more."""
        made = time.time() + lifetime - self.settings.turn.lifetime
        (server,) = self.handout.for_account(account, "", int(made * 1000)).servers
        return server.username or "", server.credential or ""

    def client(self, account: AccountId = ALICE, **options: Any) -> TurnClient:
        """Somebody with a credential."""
        return TurnClient(UDP, *self.credential(account), **options)


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    if shutil.which("turnserver") is None:
        pytest.fail("coturn is not installed: `make test` installs it, or apt-get install coturn")
    folder = tmp_path_factory.mktemp("coturn")
    authority = Authority(folder)
    certificate, key = authority.issue(NAME)
    recipe = CoturnRecipe(folder)
    secret = recipe.secret
    recipe.finish(
        f"static-auth-secret={EARLIER_SECRET}",
        f"realm={REALM}",
        f"listening-ip={ADDRESS6}",
        f"cert={certificate}",
        f"pkey={key}",
        f"userdb={folder / 'db'}",
        f"pidfile={folder / 'pid'}",
    )
    with public_addresses(ADDRESS, ADDRESS6):
        daemon = Daemon(recipe.file, "-c", recipe.file.name, script=shutil.which("turnserver") or "")
        try:
            daemon.wait_for("DB connection success")
            yield Coturn(folder, authority, secret)
        finally:
            daemon.kill()


# -- who gets in -----------------------------------------------------------------------------------------------------


def ways_in(coturn: Coturn) -> list[tuple[tuple[str, int], dict[str, Any]]]:
    """Address and options for a client, for each way to talk to the server."""
    tls = (coturn.tls, NAME)
    return [(UDP, {}), (UDP, {"transport": "tcp"}), (TLS, {"transport": "tls", "tls": tls})]


@asynccontextmanager
async def logged_in(
    coturn: Coturn, folder: Path, **turn: Any
) -> AsyncIterator[tuple[DiscoveryClient, list[IceServersChanged]]]:
    """A real discovery server and somebody who is logged in to it, with all that they are told of ICE servers."""
    server = DiscoveryServer(
        settings_of(
            folder,
            accounts=[{"username": "admin", "password": PASSWORD}],
            turn=coturn.settings.turn.model_dump() | turn,
        )
    )
    await server.start()
    told: list[IceServersChanged] = []

    def hear(event: Event) -> None:
        if isinstance(event, IceServersChanged):
            told.append(event)

    keys = await asyncio.to_thread(AccountKeys.derive, PASSWORD, realm=REALM, username="admin")
    session = Session("admin", REALM, keys=keys, contacts=ContactBook(keys), jitter=lambda: 0.5)
    client = DiscoveryClient(parse_address(f"127.0.0.1:{server.port}"), session, on_event=hear)
    running = asyncio.create_task(client.run())
    try:
        await until(lambda: session.state is State.ONLINE)
        yield client, told
    finally:
        await client.close()
        await running
        await server.stop()


def turn_of(event: IceServersChanged) -> tuple[IceServer, float]:
    """The TURN server that a peer was told of, and for how long."""
    lifetime = event.lifetimes[-1]
    assert lifetime is not None
    return event.servers[-1], lifetime


async def test_what_the_discovery_server_hands_out_is_good(coturn: Coturn, tmp_path: Path) -> None:
    async with logged_in(coturn, tmp_path) as (_, told):
        ((server, lifetime),) = map(turn_of, told)
    assert server.urls == list(coturn.settings.turn.urls) and 3590 < lifetime <= 3601
    for address, options in ways_in(coturn):
        with TurnClient(address, server.username or "", server.credential or "", **options) as client:
            assert client.allocate() == 0
            assert client.relayed[0] == ADDRESS
            check_relays(client)


async def test_there_is_always_a_good_one(coturn: Coturn, tmp_path: Path) -> None:
    async with logged_in(coturn, tmp_path, lifetime=3) as (client, told):
        first, _ = turn_of(told[0])
        assert first.expires is not None
        while time.time() * 1000 < first.expires + 1000:
            await asyncio.sleep(0.1)
            server, _ = turn_of(told[-1])
            with TurnClient(UDP, server.username or "", server.credential or "") as asking:
                assert asking.allocate() == 0
        assert len(told) >= 3
        with TurnClient(UDP, first.username or "", first.credential or "") as late:
            assert late.allocate() == 401
        reply = await client.request(RequestIceServers())
        assert isinstance(reply, IceServers) and reply.servers == list(told[-1].servers)


def check_relays(client: TurnClient) -> None:
    """An allocation passes data on, both ways."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as friend:
        friend.settimeout(10)
        friend.bind((OUT_THERE, 0))
        assert client.permit(OUT_THERE) == 0
        client.send(friend.getsockname(), b"Friday")
        assert friend.recvfrom(100) == (b"Friday", client.relayed)
        friend.sendto(b"Not Friday", client.relayed)
        assert client.hear() == b"Not Friday"


def test_two_allocations_reach_each_other(coturn: Coturn) -> None:
    with coturn.client() as one, coturn.client(BOB) as other:
        assert one.allocate() == other.allocate() == 0
        assert one.permit(ADDRESS) == other.permit(ADDRESS) == 0
        one.send(other.relayed, b"Friday")
        assert other.hear() == b"Friday"


def test_nobody_else_gets_in(coturn: Coturn) -> None:
    username, credential = coturn.credential()
    expires, _, name = username.partition(":")
    for login in [
        ("", ""),
        (username, ""),
        (username, "a guess"),
        (username, coturn.credential(BOB)[1]),
        (f"{int(expires) + 1000}:{name}", credential),  # a longer life
        (f"{expires}:somebody", credential),  # another quota
        (name, credential),
        (username, base64.b64encode(hmac.digest(b"", username.encode(), "sha1")).decode()),  # from an empty secret
        coturn.credential(lifetime=-3),  # expired
        coturn.credential(lifetime=-1_000_000),
    ]:
        for address, options in ways_in(coturn):
            with TurnClient(address, *login, **options) as client:
                assert client.allocate() == 401, login
                assert client.mapped()  # STUN is for everybody


def test_two_secrets_are_both_good(coturn: Coturn) -> None:
    turn = TurnSettings(urls=(f"turn:{NAME}:3478",), secret=SecretStr(EARLIER_SECRET))
    settings = coturn.settings.model_copy(update={"turn": turn})
    (server,) = IceHandout(settings, stun=[], secret=bytes(32)).for_account(ALICE, "", int(time.time() * 1000)).servers
    with TurnClient(UDP, server.username or "", server.credential or "") as client:
        assert client.allocate() == 0


def test_an_allocation_outlives_its_credential(coturn: Coturn) -> None:
    login = coturn.credential(lifetime=2)
    expires = int(login[0].partition(":")[0])
    with TurnClient(UDP, *login) as client:
        assert client.allocate() == 0
        while time.time() <= expires + 1.5:
            time.sleep(0.2)
        with TurnClient(UDP, *login) as late:
            assert late.allocate() == 401
        assert client.refresh(600) == 0
        assert client.bind((OUT_THERE, 9)) == 0
        check_relays(client)


# -- how much --------------------------------------------------------------------------------------------------------


def test_the_quota_is_one_for_all_credentials_of_an_account(coturn: Coturn) -> None:
    found = re.search(r"^user-quota=(\d+)$", (RECIPE / "turnserver.conf").read_text(), re.MULTILINE)
    assert found is not None
    quota = int(found[1])
    logins = [coturn.credential(CAROL, lifetime=600 + number % 3) for number in range(quota)]
    assert len(set(logins)) == 3
    clients = [TurnClient(UDP, *login) for login in logins]
    try:
        assert {client.allocate() for client in clients} == {0}
        with coturn.client(CAROL) as one_more, coturn.client(BOB) as other:
            assert one_more.allocate() == 486
            assert other.allocate() == 0
            assert clients[0].refresh(0) == 0  # gives one back, which coturn does within a second or two
            deadline = time.monotonic() + 10
            while one_more.allocate() == 486:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert one_more.relayed[0] == ADDRESS
    finally:
        for client in clients:
            client.close()


# -- where to --------------------------------------------------------------------------------------------------------

DENIED = """
    0.0.0.0 0.1.2.3 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255 169.254.0.0
    169.254.169.254 169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.255 192.168.0.0 192.168.255.255
    198.18.0.0 198.19.255.255 224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.255
"""
DENIED6 = """
    :: ::1 ::2 ::127.0.0.1 ::10.0.0.1 ::ffff:0.0.0.0 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254
    ::ffff:192.168.0.1 ::ffff:203.0.113.80 ::ffff:0:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b::255.255.255.255 64:ff9b:1::1
    100::1 2001::1 2001:0:ffff:ffff:ffff:ffff:ffff:ffff 2002:a00:1::1 fc00::1 fd00:ec2::254
    fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe80::1 febf::1 fec0::1 feff::1 ff02::1 ff0e::1
"""
#: The addresses next to those that are denied.
ALLOWED = """
    1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0
    172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
    223.255.255.255
"""
ALLOWED6 = """
    64:ff9b:2::1 100:0:0:1:: 2001:1:: 2001:db8::80 2003:: 2606:4700::1 fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fe00::1
"""


@pytest.mark.parametrize(
    ("addresses", "ipv6", "code"),
    [(DENIED, False, 403), (DENIED6, True, 403), (ALLOWED, False, 0), (ALLOWED6, True, 0)],
    ids=["denied", "denied by IPv6", "allowed", "allowed by IPv6"],
)
def test_it_leads_to_the_internet_only(coturn: Coturn, addresses: str, ipv6: bool, code: int) -> None:
    with coturn.client() as client:
        assert client.allocate(ipv6=ipv6) == 0
        asked = addresses.split()
        assert {host: client.permit(host) for host in asked} == dict.fromkeys(asked, code)
        bound = {host: client.bind((host, 9), 0x4000 + number) for number, host in enumerate(asked)}
        assert bound == dict.fromkeys(asked, code)
        assert client.refresh(600) == 0  # a refusal costs nothing but itself


def test_nothing_is_sent_to_where_it_must_not(coturn: Coturn) -> None:
    with coturn.client() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inside:
        inside.bind(("127.0.0.1", 0))
        inside.setblocking(False)
        assert client.allocate() == 0
        assert client.permit("127.0.0.1") == 403
        client.send(inside.getsockname(), b"let me in")
        check_relays(client)  # later than that
        with pytest.raises(BlockingIOError):
            inside.recv(100)


def test_no_tcp_through_the_relay(coturn: Coturn) -> None:
    with coturn.client(transport="tcp") as client:
        assert client.allocate(tcp=True) not in (0, 401)


def test_without_its_own_part_nobody_gets_in(tmp_path: Path) -> None:
    """
    What is in the repository holds no secret that somebody could forget to change, and no line to forget to fill in: a
    secret that is empty is one that everybody knows.
    """
    for file in ("turnserver.conf", "site.conf.example"):
        text = (RECIPE / file).read_text()
        assert "static-auth-secret=" not in text, file
        assert not re.search(r"^\s*(user\s*=|no-auth|allow-loopback-peers|no-denied)", text, re.MULTILINE), file


def test_the_steps_make_a_secret_that_only_coturn_reads(tmp_path: Path) -> None:
    recipes = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        recipes.append(CoturnRecipe(tmp_path / name))
        recipes[-1].finish()
    one, other = recipes
    assert re.fullmatch("[0-9a-f]{64}", one.secret) and one.secret != other.secret
    assert f"\nstatic-auth-secret={one.secret}\n" in one.file.read_text()
    assert (one.site.stat().st_mode & 0o777, one.file.stat().st_mode & 0o777) == (0o600, 0o640)


# -- port 443 --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("coturn")  # for its addresses
def test_port_443_takes_what_systemd_grants(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue(NAME)
    recipe = CoturnRecipe(tmp_path)
    recipe.finish(
        "listening-port=3479",
        "tls-listening-port=443",
        f"cert={certificate}",
        f"pkey={key}",
        f"userdb={tmp_path / 'db'}",
        f"pidfile={tmp_path / 'pid'}",
    )

    def start(drop_in: Path | None) -> Daemon:
        turnserver = shutil.which("turnserver") or ""
        running.append(Daemon(recipe.file, "-c", recipe.file.name, script=turnserver, prefix=with_drop_in(drop_in)))
        return running[-1]

    with daemons() as running:
        start(None).wait_for(f"Cannot bind TLS/TCP listener socket to addr {ADDRESS}:443")
        running[0].kill()
        start(RECIPE / "port-443.conf").wait_for("DB connection success")
        tls = ssl.create_default_context(cafile=authority.file)
        with TurnClient((ADDRESS, 443), "", "", transport="tls", tls=(tls, NAME)) as client:
            assert client.mapped()
