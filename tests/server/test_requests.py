"""What changes the database: accounts, tokens, trust and its end, another password; and who is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.signals import Binary, ChangePassword, Register, StagePins, UpdateContact, UserAdd, UserRemove
from bonevalue_server.records import Account, AccountId, Change
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import Person, befriend
from tests.support.hub_world import (
    REALM,
    World,
    claim_of,
    open_world,
    register_of,
    removal_of,
    request,
    token_request,
)
from tests.support.identity import MINUTE, NOW

LATER = identity.account("alice, later")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as opened:
        yield opened


@pytest.fixture
async def alice(world: World) -> Person:
    return await world.person("alice")


@pytest.fixture
async def bob(world: World) -> Person:
    return await world.person("bob")


@pytest.fixture
async def friends(world: World, alice: Person, bob: Person) -> tuple[Person, Person]:
    await befriend(world.store, alice, bob)
    return alice, bob


# -- register --------------------------------------------------------------------------------------------------------


async def test_register_then_log_in_on_the_same_socket(world: World) -> None:
    client = world.client()
    reply = await client.ask(register_of("carol", client.challenge))
    assert reply == {"type": "registered", "data": {"username": "carol"}, "ref": "1"}
    keys = identity.account("carol")
    await client.log_in(Person(keys, Account(AccountId(1), "carol", keys.public, "")))
    assert client.is_logged_in


async def test_a_registration_must_prove_the_key(world: World) -> None:
    client = world.client()
    right = register_of("carol", client.challenge)
    other = register_of("carol", bytes(32))
    wrong: dict[str, Register] = {
        "identity_mismatch": replace(right, public_key=Binary(LATER.public)),
        "name_taken": register_of("taken", client.challenge),
    }
    await world.person("taken")
    assert await client.code_of(other) == "identity_mismatch"
    for code, message in wrong.items():
        assert await client.code_of(message) == code
    assert await client.code_of(right) == "registered"


async def test_registrations_are_limited_by_address(world: World) -> None:
    codes = []
    for number in range(4):
        client = world.client("192.0.2.9")
        codes.append(await client.code_of(register_of(f"name-{number}", client.challenge)))
    assert codes == [*["registered"] * 3, "rate_limited"]
    other = world.client("192.0.2.10")
    assert await other.code_of(register_of("other", other.challenge)) == "registered"


async def test_a_closed_server_takes_no_accounts(tmp_path: Path) -> None:
    async with open_world(tmp_path, registration="closed") as world:
        client = world.client()
        assert client.of("hello")[0]["registration"] == "closed"
        assert await client.code_of(register_of("carol", client.challenge)) == "registration_closed"


# -- trust -----------------------------------------------------------------------------------------------------------


async def test_a_token_makes_trust_and_both_see_each_other(world: World, alice: Person, bob: Person) -> None:
    inviter, claimer = await world.enter(alice), await world.enter(bob)
    second = await world.enter(bob)
    for client in (inviter, claimer, second):
        client.news()
    reply = await inviter.ask(token_request(alice, "bobby", "token"))
    assert reply["data"] == {"expires": NOW + 24 * 60 * MINUTE}
    reply = await claimer.ask(claim_of(bob, alice.keys, "ally", "token"))
    assert reply["type"] == "tokenClaimed" and reply["data"] == {"name": "ally"}
    # The alias comes before its peers, and the reply when all is in place.
    assert claimer.types() == ["userAdd", "peerConnect", "tokenClaimed"]
    assert claimer.of("peerConnect") == [{"name": "ally", "id": inviter.peer_id}]
    assert second.types() == ["userAdd", "peerConnect"]
    assert inviter.types() == ["tokenResponse", "userAdd", "peerConnect", "peerConnect"]
    assert {peer["id"] for peer in inviter.of("peerConnect")} == {claimer.peer_id, second.peer_id}
    assert await inviter.code_of(request(second.peer_id)) == "done"
    for client, person, other in ((inviter, alice, bob), (claimer, bob, alice)):
        (verdict,) = ContactBook(person.keys).replace(client.contacts(), NOW)
        assert verdict.contact is not None and verdict.contact.key == other.keys.public


async def test_who_is_away_when_trust_is_made_finds_it_later(world: World, alice: Person, bob: Person) -> None:
    inviter = await world.enter(alice)
    await inviter.ask(token_request(alice, "bob", "token"))
    inviter.leave()
    claimer = await world.enter(bob)
    assert await claimer.code_of(claim_of(bob, alice.keys, "alice", "token")) == "tokenClaimed"
    assert (await world.enter(alice)).peers() == {("bob", claimer.peer_id)}


@pytest.mark.parametrize(
    ("made_ms", "claimed_ms", "code"),
    [
        (0, 23 * 60 * MINUTE, "tokenClaimed"),
        (0, 24 * 60 * MINUTE, "token_expired"),
    ],
)
async def test_a_token_has_its_time(
    world: World, alice: Person, bob: Person, made_ms: int, claimed_ms: int, code: str
) -> None:
    inviter = await world.enter(alice)
    await inviter.ask(token_request(alice, "bob", "token", NOW + made_ms))
    world.wait(claimed_ms / 1000)
    claimer = await world.enter(bob)
    assert await claimer.code_of(claim_of(bob, alice.keys, "alice", "token", NOW + claimed_ms)) == code


async def test_a_token_is_claimed_once_and_a_second_try_told_to_both(world: World, alice: Person, bob: Person) -> None:
    inviter, claimer = await world.enter(alice), await world.enter(bob)
    await inviter.ask(token_request(alice, "bob", "token"))
    await claimer.ask(claim_of(bob, alice.keys, "alice", "token"))
    claimer.leave()
    inviter.news()
    mallory = await world.person("mallory")
    thief = await world.enter(mallory)
    assert await thief.code_of(claim_of(mallory, alice.keys, "alice", "token")) == "token_used"
    assert [kind for kind, data in inviter.news()] == ["error"]
    for _ in range(2):  # a notice waits until a socket that was told of it is seen to live
        back = await world.enter(bob)
        assert [error["code"] for error in back.of("error")] == ["token_used"]
        assert back.types().index("error") > back.types().index("peerList")
        back.leave()
    back = await world.enter(bob)
    await world.hub.poll()
    assert (await world.enter(bob)).of("error") == []
    assert (await world.enter(alice)).of("error") == []


async def test_tokens_are_limited(tmp_path: Path) -> None:
    limits = {"tokens": 2, "tokens_created": "3/m", "tokens_claimed": "2/m"}
    async with open_world(tmp_path, limits=limits) as world:
        alice = await world.person("alice")
        client = await world.enter(alice)
        codes = [await client.code_of(token_request(alice, f"name-{n}", f"token-{n}")) for n in range(4)]
        assert codes == ["tokenResponse", "tokenResponse", "too_many_tokens", "rate_limited"]
        mallory = await world.person("mallory")
        thief = await world.enter(mallory)
        guesses = [await thief.code_of(claim_of(mallory, alice.keys, "alice", f"guess-{n}")) for n in range(3)]
        assert guesses == ["token_invalid", "token_invalid", "rate_limited"]


@pytest.mark.parametrize("wrong", ["signature", "name", "clock", "lifetime"])
async def test_an_invite_must_be_right(world: World, alice: Person, wrong: str) -> None:
    client = await world.enter(alice)
    right = token_request(alice, "bob", "token")
    if wrong == "lifetime":
        token = identity.token_of(alice.keys, "token", NOW + 8 * 24 * 60 * MINUTE)
        signed = identity.invite(alice.keys, token, "bob")
        right = replace(right, invite=signed.blob, signature=signed.signatures[0])
    message, code = {
        "signature": (replace(right, signature=Binary(bytes(64))), "identity_mismatch"),
        "name": (replace(right, name="carol"), "protocol_error"),
        "clock": (token_request(alice, "bob", "token", NOW - 6 * MINUTE), "clock_skew"),
        "lifetime": (right, "token_invalid"),
    }[wrong]
    assert await client.code_of(message) == code


@pytest.mark.parametrize("wrong", ["token signature", "claimer signature", "other claimer", "pin", "alias"])
async def test_a_claim_must_be_right(world: World, alice: Person, bob: Person, wrong: str) -> None:
    inviter, claimer = await world.enter(alice), await world.enter(bob)
    await inviter.ask(token_request(alice, "bob", "token"))
    right = claim_of(bob, alice.keys, "alice", "token")
    token, nothing = identity.token_of(alice.keys, "token"), Binary(bytes(64))
    other = identity.redeem(bob.keys, token, "carol")
    pin = identity.pin(bob.keys, bob.keys, "alice")
    message, code = {
        "token signature": (replace(right, signatures=[nothing, right.signatures[1]]), "token_invalid"),
        "claimer signature": (replace(right, signatures=[right.signatures[0], nothing]), "identity_mismatch"),
        "other claimer": (replace(right, redeem=other.blob, signatures=other.signatures), "identity_mismatch"),
        "pin": (replace(right, pin=pin.blob, signature=pin.signatures[0]), "identity_mismatch"),
        "alias": (replace(right, name="someone"), "protocol_error"),
    }[wrong]
    assert await claimer.code_of(message) == code
    assert "userAdd" not in claimer.types() + inviter.types()
    assert await claimer.code_of(right) == "tokenClaimed"


async def test_a_contact_is_updated_by_a_pin(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    client = await world.enter(alice)
    assert [len(contact.certificates) for contact in client.contacts()] == [2]
    pin = identity.pin(alice.keys, bob.keys, "bob")
    assert await client.code_of(UpdateContact(pin.blob, pin.signatures[0])) == "done"
    assert (await world.enter(alice)).contacts()[0].certificates == [pin]
    forged = identity.pin(LATER, bob.keys, "bob")
    assert await client.code_of(UpdateContact(forged.blob, forged.signatures[0])) == "identity_mismatch"
    renamed = identity.pin(alice.keys, bob.keys, "robert")
    assert await client.code_of(UpdateContact(renamed.blob, renamed.signatures[0])) == "contact_conflict"


# -- the end of trust ------------------------------------------------------------------------------------------------


async def test_a_removal_is_told_to_both_sides_with_its_proof(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    remover, removed = await world.enter(alice), await world.enter(bob)
    second = await world.enter(alice)
    for client in (remover, removed, second):
        client.news()
    message = removal_of(alice, bob.keys, "bob")
    assert await remover.code_of(message) == "done"
    assert remover.types() == ["peerDisconnect", "userRemove", "done"]
    assert second.types() == ["peerDisconnect", "userRemove"]
    assert removed.types() == ["peerDisconnect", "peerDisconnect", "userRemove"]
    for client, name in ((remover, "bob"), (second, "bob"), (removed, "alice")):
        (told,) = [signal.data for signal in client.signals if isinstance(signal.data, UserRemove)]
        assert told.name == name and told.remove is not None and told.remove.blob == message.remove
    assert await remover.code_of(request(removed.peer_id)) == "peer_offline"
    assert (await world.enter(bob)).of("userList") == [["Us"]]


async def test_who_was_away_gets_the_proof_after_the_lists(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    assert await (await world.enter(alice)).code_of(removal_of(alice, bob.keys, "bob")) == "done"
    late = await world.enter(bob)
    assert late.types()[-2:] == ["peerList", "userRemove"]
    assert late.of("userRemove")[0]["name"] == "alice"


@pytest.mark.parametrize("wrong", ["signature", "key", "clock"])
async def test_a_removal_must_be_right(world: World, friends: tuple[Person, Person], wrong: str) -> None:
    alice, bob = friends
    client, other = await world.enter(alice), await world.enter(bob)
    other.news()
    message, code = {
        "signature": (replace(removal_of(alice, bob.keys, "bob"), signature=Binary(bytes(64))), "identity_mismatch"),
        "key": (removal_of(alice, LATER, "bob"), "identity_mismatch"),
        "clock": (removal_of(alice, bob.keys, "bob", NOW + 6 * MINUTE), "clock_skew"),
    }[wrong]
    assert await client.code_of(message) == code
    assert other.news() == []


# -- another password ------------------------------------------------------------------------------------------------


def password_change(alice: Person, *contacts: Person) -> ChangePassword:
    """Alice goes on as LATER."""
    rotate = identity.rotate(alice.keys, LATER)
    pins = [identity.pin(LATER, contact.keys, contact.name) for contact in contacts]
    return ChangePassword(alice.keys.login, LATER.login, rotate.blob, rotate.signatures, pins)


async def test_another_password_ends_all_sessions_and_contacts_follow(
    world: World, friends: tuple[Person, Person]
) -> None:
    alice, bob = friends
    client, second, contact = await world.enter(alice), await world.enter(alice), await world.enter(bob)
    lost = await world.enter(alice)
    lost.leave(may_return=True)
    book = ContactBook(bob.keys)
    book.replace(contact.contacts(), NOW)
    contact.news()
    assert await client.code_of(password_change(alice, bob)) == "done"
    assert client.closed_with == second.closed_with == (4504, "session_ended")
    assert contact.types() == ["userAdd", *["peerDisconnect"] * 3]
    (added,) = [signal.data for signal in contact.signals if isinstance(signal.data, UserAdd)]
    verdict = book.receive(added.contact, NOW)
    assert verdict.contact is not None and verdict.contact.key == LATER.public and verdict.problem is None
    assert not (await world.client().log_in(alice)).is_logged_in
    back = await world.enter(Person(LATER, alice.account), resume=(client.peer_id, client.ticket))
    assert back.peer_id == client.peer_id
    (verdict,) = ContactBook(LATER).replace(back.contacts(), NOW)
    assert verdict.contact is not None and verdict.contact.key == bob.keys.public
    assert await back.code_of(request(contact.peer_id)) == "done"


async def test_pins_may_come_in_pages_before(world: World, friends: tuple[Person, Person]) -> None:
    alice, bob = friends
    client = await world.enter(alice)
    assert await client.code_of(StagePins([identity.pin(LATER, bob.keys, "bob")])) == "done"
    assert await client.code_of(password_change(alice)) == "done"
    back = await world.enter(Person(LATER, alice.account))
    (verdict,) = ContactBook(LATER).replace(back.contacts(), NOW)
    assert verdict.contact is not None


async def test_only_so_many_pins_are_staged(tmp_path: Path) -> None:
    async with open_world(tmp_path, limits={"trusted": 3}) as world:
        alice = await world.person("alice")
        client = await world.enter(alice)
        pins = [identity.pin(LATER, identity.account(f"{n}"), "bob") for n in range(2)]
        assert await client.code_of(StagePins(pins)) == "done"
        assert await client.code_of(StagePins(pins)) == "too_large"


@pytest.mark.parametrize("wrong", ["login", "rotate", "pin", "key"])
async def test_a_change_of_password_must_be_right(world: World, friends: tuple[Person, Person], wrong: str) -> None:
    alice, bob = friends
    client = await world.enter(alice)
    right = password_change(alice, bob)
    back = identity.rotate(alice.keys, bob.keys)
    message, code = {
        "login": (replace(right, login=LATER.login), "login_refused"),
        "rotate": (replace(right, signatures=right.signatures[::-1]), "identity_mismatch"),
        "pin": (replace(right, pins=[identity.pin(alice.keys, bob.keys, "bob")]), "identity_mismatch"),
        "key": (
            replace(right, rotate=back.blob, signatures=back.signatures, pins=[]),
            "identity_conflict",
        ),
    }[wrong]
    assert await client.code_of(message) == code
    assert client.closed_with is None
    assert (await world.enter(alice)).contacts()


# -- changes by other processes --------------------------------------------------------------------------------------


@pytest.fixture
async def operator(tmp_path: Path, world: World) -> AsyncIterator[Store]:
    """The database as ``bv account`` opens it."""
    store = await Store.open(f"sqlite:///{tmp_path}/server.db", realm=REALM)
    yield store
    await store.close()


@pytest.mark.parametrize("what", ["remove", "reset"])
async def test_what_the_operator_does_to_an_account_is_noticed(
    world: World, operator: Store, friends: tuple[Person, Person], what: str
) -> None:
    alice, bob = friends
    client, contact = await world.enter(alice), await world.enter(bob)
    contact.news()
    if what == "remove":
        await operator.remove_account(alice.account.id)
    else:
        await operator.reset_account(alice.account.id, LATER.public, "$2b$04$new")
    assert client.closed_with is None
    await world.hub.poll()
    assert client.closed_with == (4504, "session_ended")
    assert contact.news() == [("peerDisconnect", client.peer_id), ("userRemove", {"name": "alice"})]
    assert not (await world.client().log_in(alice)).is_logged_in
    assert (await world.enter(bob)).of("userList") == [["Us"]]


async def test_a_reset_to_the_same_password_ends_trust_and_no_session(
    world: World, operator: Store, friends: tuple[Person, Person]
) -> None:
    alice, bob = friends
    client, contact = await world.enter(alice), await world.enter(bob)
    for each in (client, contact):
        each.news()
    await operator.reset_account(alice.account.id, alice.keys.public, "$2b$04$new")
    await world.hub.poll()
    assert client.closed_with is None
    assert client.news() == [("peerDisconnect", contact.peer_id), ("userRemove", {"name": "bob"})]
    assert contact.news() == [("peerDisconnect", client.peer_id), ("userRemove", {"name": "alice"})]


@pytest.mark.parametrize("online", [True, False])
async def test_when_too_much_happened_everything_is_loaded_anew(
    world: World, operator: Store, friends: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch, online: bool
) -> None:
    alice, bob = friends
    client = await world.enter(alice)
    if not online:
        client.leave()

    async def too_much(store: Store) -> list[Change]:
        return [Change(AccountId(0), "everything")]

    await operator.remove_account(bob.account.id)
    monkeypatch.setattr(Store, "changes", too_much)
    await world.hub.poll()
    assert (("userRemove", {"name": "bob"}) in client.news()) is online
    assert (await world.enter(alice)).of("userList") == [["Us"]]


async def test_an_account_that_the_operator_makes_can_log_in(world: World, operator: Store) -> None:
    keys = identity.account("dave")
    assert not (await world.client().log_in(Person(keys, Account(AccountId(9), "dave", keys.public, "")))).is_logged_in
    account = await operator.add_account("dave", keys.public, "$2b$04$dave")
    assert (await world.enter(Person(keys, account))).is_logged_in


async def test_trust_that_another_process_makes_is_noticed(
    world: World, operator: Store, alice: Person, bob: Person
) -> None:
    client, other = await world.enter(alice), await world.enter(bob)
    for each in (client, other):
        each.news()
    await befriend(operator, alice, bob)
    assert await client.code_of(request(other.peer_id)) == "peer_offline"
    client.news()
    await world.hub.poll()
    assert [kind for kind, _ in client.news()] == ["userAdd", "peerConnect"]
    assert [kind for kind, _ in other.news()] == ["userAdd", "peerConnect"]
    assert await client.code_of(request(other.peer_id)) == "done"
