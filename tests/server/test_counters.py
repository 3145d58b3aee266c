"""What a discovery server counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bonevalue.counters import Tally
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.counters import Counters
from tests.support.accounts import befriend
from tests.support.hub_world import World, login_of, open_world, request, settings_of
from tests.support.raw_socket import RawSocket


def counted(counters: Counters) -> dict[str, Any]:
    """The counters that are not zero."""
    return {
        name: {reason: count for reason, count in value.items() if count} if isinstance(value, Tally) else value
        for name, value in vars(counters).items()
        if (any(value.values()) if isinstance(value, Tally) else value)
    }


def of(world: World) -> dict[str, Any]:
    """The counters of a hub."""
    return counted(world.hub._counters)


async def test_logins_and_what_is_refused(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        alice, bob = await world.person("alice"), await world.person("bob")
        await world.enter(alice)
        await world.enter(alice, password=True)
        client = world.client()
        client.tell(login_of(alice, client.challenge, keys=bob.keys))
        await world.hub.idle(10)
        assert of(world) == {
            "logins_by_key": 1,
            "logins_by_password": 1,
            "refused": {"login_refused": 1},
            "sockets_closed": {"login_refused": 1},
        }


async def test_what_is_relayed_and_what_is_not(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        alice, bob = await world.person("alice"), await world.person("bob")
        await befriend(world.store, alice, bob)
        sender, reader = await world.enter(alice), await world.enter(bob)
        for _ in range(3):
            sender.tell(request(reader.peer_id))
        sender.tell(request("999"))
        sender.tell("no message")
        assert of(world) == {
            "logins_by_key": 2,
            "relayed": 3,
            "refused": {"peer_offline": 1, "bad_message": 1},
        }


async def test_sockets_that_are_not_let_in(tmp_path: Path) -> None:
    server = DiscoveryServer(settings_of(tmp_path, limits={"pending_sockets_per_ip": 1}))
    await server.start()
    try:
        first, second = [await RawSocket.open(server.port) for _ in range(2)]
        assert await second.upgrade() == 429
        second.close()
        assert await first.upgrade(origin="https://evil.example") == 403
        first.close()
        assert counted(server.counters) == {"sockets_refused": {"rate_limited": 1, "origin_refused": 1}}
    finally:
        await server.stop()
