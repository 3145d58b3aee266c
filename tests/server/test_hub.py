"""The hub without sockets: logins, presence, trust, and what each is told in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.accounts import Person, befriend
from tests.support.hub_world import World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
async def alice(world: World) -> Person:
    return await world.person("alice")


async def test_order(world: World, alice: Person) -> None:
    client = await world.enter(alice)
    assert client.types() == ["hello", "setPeerId", "iceServers", "userList", "contacts", "peerList"]
    bob = await world.person("bob")
    await befriend(world.store, alice, bob)
    for change in await world.store.changes():
        print(change)
    other = await world.enter(bob)
    print(client.received, other.received)
