"""
Who may do what: every message that a client can send, for every relation to the account that it is about.

The relations are Alice's: to her own account, to a contact, to one whose half of the trust is missing in the
database, to one that ended the trust, to a stranger, to nobody at all. And two states in which relations do not count:
before the login, and after one by password.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec import Struct
from sqlalchemy import Connection, delete

from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.signals import (
    SIGNALS,
    Binary,
    ChangePassword,
    Failure,
    PeerCandidate,
    PeerResponse,
    Ping,
    RequestIceServers,
    RequestToken,
    StagePins,
    UpdateContact,
)
from bonevalue_server.rules import RULES
from bonevalue_server.schema import certificates, edges
from tests.support import identity
from tests.support.accounts import Person, befriend, invite
from tests.support.hub_world import (
    Client,
    World,
    claim_of,
    login_of,
    open_world,
    register_of,
    removal_of,
    request,
    token_request,
)

RELATIONS = ("self", "trusted", "half", "removed", "stranger", "nobody")
STATES = ("not logged in", "by password")
SESSION = Binary(bytes(16))
LATER = identity.account("alice, later")


@dataclass
class Scene:
    """Alice, and whom the message is about."""

    world: World
    alice: Person
    client: Client
    other: AccountKeys
    other_client: Client | None

    @property
    def other_id(self) -> str:
        """The other's peer id, or one that nobody has."""
        return "999" if self.other_client is None else self.other_client.peer_id


# -- the messages ----------------------------------------------------------------------------------------------------


def update_contact(scene: Scene) -> Struct:
    pin = identity.pin(scene.alice.keys, scene.other, "other")
    return UpdateContact(pin.blob, pin.signatures[0])


def stage_pins(scene: Scene) -> Struct:
    return StagePins([identity.pin(LATER, scene.other, "other")])


def change_password(scene: Scene) -> Struct:
    rotate = identity.rotate(scene.alice.keys, LATER)
    pins = [identity.pin(LATER, scene.other, "other")]
    return ChangePassword(scene.alice.keys.login, LATER.login, rotate.blob, rotate.signatures, pins)


#: How each message is made, and what Alice is answered: in the order of RELATIONS, then of STATES.
TABLE: dict[str, tuple[Callable[[Scene], Struct], list[str]]] = {
    "register": (
        lambda scene: register_of("newcomer", scene.client.challenge),
        [*["denied"] * 6, "registered", "denied"],
    ),
    "login": (
        lambda scene: login_of(scene.alice, scene.client.challenge),
        [*["denied"] * 6, "logged in", "denied"],
    ),
    "ping": (lambda scene: Ping(), [*["done"] * 6, "denied", "done"]),
    "requestIceServers": (lambda scene: RequestIceServers(), [*["iceServers"] * 6, "denied", "key_required"]),
    "requestToken": (
        lambda scene: token_request(scene.alice, "other", "a token of Alice"),
        ["tokenResponse", "alias_taken", "alias_taken", *["tokenResponse"] * 3, "denied", "key_required"],
    ),
    "claimToken": (
        lambda scene: claim_of(scene.alice, scene.other, "someone", "a token of the other"),
        [*["already_trusted"] * 3, *["tokenClaimed"] * 2, "token_invalid", "denied", "key_required"],
    ),
    "updateContact": (update_contact, ["not_trusted", "done", "done", *["not_trusted"] * 3, "denied", "key_required"]),
    "removeUser": (
        lambda scene: removal_of(scene.alice, scene.other, "other"),
        ["not_trusted", "done", "done", *["not_trusted"] * 3, "denied", "key_required"],
    ),
    "stagePins": (stage_pins, [*["done"] * 6, "denied", "key_required"]),
    "changePassword": (change_password, [*["done"] * 6, "denied", "key_required"]),
    "peerRequest": (
        lambda scene: request(scene.other_id, from_="12345"),
        ["done", "done", *["peer_offline"] * 4, "denied", "key_required"],
    ),
    "peerResponse": (
        lambda scene: PeerResponse(scene.other_id, "12345", Binary(b"an answer"), Binary(bytes(64))),
        ["done", "done", *["peer_offline"] * 4, "denied", "key_required"],
    ),
    "peerResponse with an error": (
        lambda scene: PeerResponse(scene.other_id, "12345", session=SESSION, error=Failure("busy")),
        ["done", "done", *["peer_offline"] * 4, "denied", "key_required"],
    ),
    "peerCandidate": (
        lambda scene: PeerCandidate(scene.other_id, "12345", SESSION, "candidate:1 1 udp 1 192.0.2.7 9 typ host"),
        ["done", "done", *["peer_offline"] * 4, "denied", "key_required"],
    ),
}


# -- the relations ---------------------------------------------------------------------------------------------------


async def forget_half(world: World, owner: Person, contact: Person) -> None:
    """The database loses one direction of a trust."""

    def work(connection: Connection) -> None:
        for table in (certificates, edges):
            mine = (table.c.owner_id == owner.account.id) & (table.c.contact_id == contact.account.id)
            connection.execute(delete(table).where(mine))

    await world.store.database.write(work)


async def meet(world: World, alice: Person, relation: str) -> tuple[AccountKeys, Client | None]:
    """The other, with a token that they made, online and in that relation to Alice."""
    if relation == "nobody":
        return identity.account("nobody"), None
    other = alice if relation == "self" else await world.person("other")
    if relation not in ("self", "stranger"):
        await befriend(world.store, alice, other)
    if relation == "half":
        await forget_half(world, other, alice)
    if relation == "removed":
        earlier = await world.enter(other)
        assert await earlier.code_of(removal_of(other, alice.keys, "alice")) == "done"
    await invite(world.store, other, "again", "a token of the other")
    return other.keys, await world.enter(other)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("relation", [*RELATIONS, *STATES])
@pytest.mark.parametrize("kind", TABLE)
async def test_who_may_do_what(world: World, kind: str, relation: str) -> None:
    alice = await world.person("alice")
    other, other_client = await meet(world, alice, relation if relation in RELATIONS else "trusted")
    client = world.client()
    if relation != "not logged in":
        await client.log_in(alice, password=relation == "by password")
    if other_client is not None:
        other_client.tell(request(client.peer_id or "1"))  # what responses and candidates belong to, if it arrives
        other_client.news()
    scene = Scene(world, alice, client, other, other_client)
    make, expected = TABLE[kind]
    reply = await client.ask(make(scene))
    if reply is None:
        answer = "logged in" if kind == "login" and client.is_logged_in else "nothing"
    else:
        answer = reply["data"]["code"] if reply["type"] == "error" else reply["type"]
    assert answer == expected[(*RELATIONS, *STATES).index(relation)]
    relayed = [] if other_client is None else [m for m in other_client.received if m["type"].startswith("peerRe")]
    for message in relayed:
        assert message["data"]["from"] == client.peer_id  # whatever was sent
    if answer in ("denied", "key_required", "peer_offline"):
        assert other_client is None or other_client.news() == []


def test_every_message_has_its_row() -> None:
    senders = {tag: row.kind for tag, row in SIGNALS.items() if row.sender != "server"}
    assert set(RULES) == set(senders.values())
    assert {kind.partition(" ")[0] for kind in TABLE} == set(senders)
    assert all(len(expected) == len(RELATIONS) + len(STATES) for _, expected in TABLE.values())


async def test_our_own_account_is_no_contact(world: World) -> None:
    alice = await world.person("alice")
    client = await world.enter(alice)
    token = token_request(alice, "other", "token")
    assert await client.code_of(RequestToken("us", token.invite, token.signature)) == "protocol_error"
    assert await client.code_of(removal_of(alice, alice.keys, "Us")) == "not_trusted"
    pin = identity.pin(alice.keys, alice.keys, "myself")
    assert await client.code_of(UpdateContact(pin.blob, pin.signatures[0])) == "not_trusted"
