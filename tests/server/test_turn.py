"""The ICE servers that clients are told of, and the credentials for TURN among them."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from bonevalue.settings_fields import Endpoint
from bonevalue.wire.signals import RequestIceServers
from bonevalue_server.ice import IceHandout
from bonevalue_server.records import AccountId
from tests.support import identity
from tests.support.accounts import Person
from tests.support.hub_world import REALM, Client, World, open_world, settings_of

SECRET = "north wind and sun"
URLS = ["turn:turn.example.org:3478?transport=udp", "turns:turn.example.org:5349"]
TURN = {"urls": URLS, "secret": SECRET, "lifetime": "1h"}
NOW = identity.NOW
HOUR = 3_600_000


def turn_of(servers: list[dict[str, Any]]) -> dict[str, Any]:
    """The one entry with a credential."""
    (found,) = [server for server in servers if "credential" in server]
    return found


def told(client: Client) -> list[list[dict[str, Any]]]:
    """All lists that a client was told."""
    return client.of("iceServers")


# -- STUN ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "dialled", "url"),
    [
        (Endpoint("0.0.0.0", 8008), "bv.example.net", "stun:bv.example.net:8008"),
        (Endpoint("::", 443), "bv.example.net", "stun:bv.example.net:443"),
        (Endpoint("::", 443), "[2001:db8::1]", "stun:[2001:db8::1]:443"),
        (Endpoint("0.0.0.0", 8008), "127.0.0.1", "stun:127.0.0.1:8008"),
        (Endpoint("0.0.0.0", 8008), "", f"stun:{REALM}:8008"),  # an old program that does not say
        (Endpoint("203.0.113.1", 8008), "bv.example.net", "stun:203.0.113.1:8008"),
        (Endpoint("2001:db8::7", 8008), "bv.example.net", "stun:[2001:db8::7]:8008"),
        (Endpoint("stun.example.net", 3478), "bv.example.net", "stun:stun.example.net:3478"),
        (Endpoint("127.0.0.1", 8008), "localhost", "stun:127.0.0.1:8008"),
        (Endpoint("127.0.0.1", 8008), "[::1]", "stun:127.0.0.1:8008"),
        (Endpoint("127.0.0.1", 8008), "bv.example.net", None),  # through a proxy, which UDP does not go
        (Endpoint("::1", 8008), "", None),
    ],
)
def test_our_own_stun_is_where_the_client_found_us(
    tmp_path: Path, endpoint: Endpoint, dialled: str, url: str | None
) -> None:
    handout = IceHandout(settings_of(tmp_path), stun=[endpoint], secret=bytes(32))
    assert [server.urls for server in handout.without_credentials(dialled).servers] == ([] if url is None else [[url]])


async def test_ours_come_first_then_the_further_ones_then_turn(tmp_path: Path) -> None:
    stun = [Endpoint("203.0.113.1", 8008), Endpoint("203.0.113.2", 3478)]
    further = [{"urls": ["stun:stun.example.org:3478"]}]
    async with open_world(tmp_path, stun=stun, ice_servers=further, turn=TURN) as world:
        client = await world.enter(await world.person("alice"))
        (servers,) = told(client)
        assert servers[:2] == [{"urls": ["stun:203.0.113.1:8008", "stun:203.0.113.2:3478"]}, *further]
        assert servers[2]["urls"] == URLS and len(servers) == 3


async def test_the_host_that_was_dialled_is_the_client_s_own(tmp_path: Path) -> None:
    async with open_world(tmp_path, stun=[Endpoint("0.0.0.0", 8008)]) as world:
        alice = await world.person("alice")
        for host in ("one.example.net", "192.0.2.7"):
            client = await world.client(dialled=host).log_in(alice)
            assert told(client) == [[{"urls": [f"stun:{host}:8008"]}]]


# -- credentials -----------------------------------------------------------------------------------------------------


async def test_a_credential_is_made_as_coturn_checks_it(tmp_path: Path) -> None:
    async with open_world(tmp_path, turn=TURN) as world:
        client = await world.enter(await world.person("alice"))
        server = turn_of(told(client)[0])
        expires, _, name = server["username"].partition(":")
        digest = hmac.digest(SECRET.encode(), server["username"].encode(), hashlib.sha1)
        assert server["credential"] == b64encode(digest).decode()
        assert int(expires) * 1000 == server["expires"] == -(-(NOW + HOUR) // 1000) * 1000
        assert re.fullmatch(r"[A-Za-z0-9_-]{16}", name)
        assert SECRET not in str(client.received)


def test_a_credential_is_never_good_for_less_than_its_lifetime(tmp_path: Path) -> None:
    handout = IceHandout(settings_of(tmp_path, turn={**TURN, "lifetime": 1}), stun=[], secret=bytes(32))
    for now in (NOW, NOW + 1, NOW + 999):
        (server,) = handout.for_account(AccountId(1), "", now).servers
        assert server.expires is not None and 1000 <= server.expires - now < 2000


async def test_the_name_in_it_is_that_of_the_account_and_tells_nothing(tmp_path: Path) -> None:
    async def name_of(world: World, person: Person) -> str:
        client = await world.enter(person)
        username: str = turn_of(told(client)[0])["username"]
        return username.partition(":")[2]

    async with open_world(tmp_path, turn=TURN) as world:
        alice, bob = await world.person("alice"), await world.person("bob")
        name, others = await name_of(world, alice), await name_of(world, bob)
        assert name == await name_of(world, alice) != others
    async with open_world(tmp_path, turn=TURN) as world:  # a restart
        assert (await name_of(world, alice), await name_of(world, bob)) == (name, others)
    assert "alice" not in name and str(alice.account.id) != name
    settings = settings_of(tmp_path, turn=TURN)
    (elsewhere,) = IceHandout(settings, stun=[], secret=b"another's key").for_account(alice.account.id, "", NOW).servers
    assert name not in str(elsewhere.username)


async def test_who_logs_in_by_password_gets_no_credential(tmp_path: Path) -> None:
    async with open_world(tmp_path, stun=[Endpoint("203.0.113.1", 8008)], turn=TURN) as world:
        client = await world.enter(await world.person("alice"), password=True)
        assert told(client) == [[{"urls": ["stun:203.0.113.1:8008"]}]]
        assert await client.code_of(RequestIceServers()) == "key_required"
        world.wait(24 * 3600)
        assert len(told(client)) == 1


async def test_without_turn_nothing_is_told_anew(tmp_path: Path) -> None:
    async with open_world(tmp_path, stun=[Endpoint("203.0.113.1", 8008)]) as world:
        client = await world.enter(await world.person("alice"))
        world.wait(24 * 3600)
        assert len(told(client)) == 1


# -- in time ---------------------------------------------------------------------------------------------------------


def expiries(client: Client) -> list[int]:
    """When the credentials expire that a client was told of, in seconds from the beginning."""
    return [round((turn_of(servers)["expires"] - NOW) / 1000) for servers in told(client)]


async def test_another_comes_at_half_its_life(tmp_path: Path) -> None:
    async with open_world(tmp_path, turn=TURN) as world:
        first = await world.enter(await world.person("alice"))
        world.wait(600)
        second = await world.enter(await world.person("bob"))
        world.wait(1199)
        assert expiries(first) == [3600] and expiries(second) == [4200]
        world.wait(1)
        assert expiries(first) == [3600, 5400] and expiries(second) == [4200]
        world.wait(600)
        assert expiries(first) == [3600, 5400] and expiries(second) == [4200, 6000]
        world.wait(1200)
        assert expiries(first) == [3600, 5400, 7200]


async def test_one_that_has_gone_is_told_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path, turn=TURN) as world:
        alice = await world.person("alice")
        client = await world.enter(alice)
        client.leave(may_return=True)
        world.wait(1)
        back = await world.client().log_in(alice, resume=(client.peer_id, client.ticket))
        assert back.peer_id == client.peer_id
        world.wait(24 * 3600)
        assert len(told(client)) == 1
        assert len(told(back)) == 2  # one look at the clock, one list


async def test_one_that_is_asked_for_is_made_now(tmp_path: Path) -> None:
    async with open_world(tmp_path, turn=TURN) as world:
        client = await world.enter(await world.person("alice"))
        world.wait(1000)
        reply = await client.ask(RequestIceServers())
        assert reply["type"] == "iceServers" and turn_of(reply["data"])["expires"] == NOW + HOUR + 1_000_000
        world.wait(1799)
        assert len(told(client)) == 2
        world.wait(1)
        assert len(told(client)) == 3  # half the life of that one


async def ask_until_refused(world: World, client: Client) -> tuple[int, float]:
    """How many requests are answered at once, and how long to wait for the next."""
    for count in range(100):
        reply = await client.ask(RequestIceServers())
        if reply["type"] == "error":
            assert reply["data"]["code"] == "rate_limited"
            return count, reply["data"]["retryAfter"]
    raise AssertionError("there is no limit")


async def test_six_a_minute_for_each_peer(tmp_path: Path) -> None:
    async with open_world(tmp_path, turn=TURN) as world:
        alice = await world.person("alice")
        client, other = await world.enter(alice), await world.enter(alice)
        assert await ask_until_refused(world, client) == (6, 10.0)
        assert await ask_until_refused(world, other) == (6, 10.0)
        world.wait(10)
        assert (await ask_until_refused(world, client))[0] == 1
        client.leave(may_return=True)
        back = await world.client().log_in(alice, resume=(client.peer_id, client.ticket))
        assert (await ask_until_refused(world, back))[0] == 0  # the peer's, not the socket's
