"""
Keys that change, and trust that ends, between real peers over the real server: by another password, by the operator, by
`trust.refuse`, and by a removal that reaches other processes of the account without the server's help.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from msgspec import Struct
from msgspec.structs import replace

from bonevalue.errors import BoneValueError
from bonevalue.wire.blobs import Pin, decode_any
from bonevalue.wire.keys import fingerprint
from bonevalue.wire.signals import Binary, PeerConnect, UpdateContact, UserRemove
from bonevalue_server import admin
from tests.support.accounts import CHEAPEST
from tests.support.evil import Actor, Cast, Lie, password_of
from tests.support.waiting import until

NEW_PASSWORD = "another violin altogether"


async def ends(actor: Actor) -> BoneValueError:
    """Why a peer has ended for good, which it does within five seconds."""
    with pytest.raises(BoneValueError) as ended:
        async with asyncio.timeout(5):
            await actor.peer.closed()
    return ended.value


async def logs_in(cast: Cast, username: str, password: str) -> str:
    """The code with which a login is refused; empty if it is not."""
    actor = cast.stage.actor(username, password)
    try:
        await actor.peer.start()
    except BoneValueError as error:
        return error.code
    finally:
        await actor.leave()
    return ""


# -- another password ----------------------------------------------------------------------------------------------


async def test_contacts_follow_a_change_of_password(cast: Cast) -> None:
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    sister = await cast.stage.join("bob")
    unclaimed = await bob.peer.request_token("dave")
    await alice.calls("bob", bob)
    await carol.calls("bob", bob)
    old_key = bob.keys.public

    await bob.peer.change_password(NEW_PASSWORD)
    errors = await asyncio.gather(ends(bob), ends(sister))
    assert [error.code for error in errors] == ["session_ended"] * 2
    await until(lambda: not alice.links and not carol.links)
    await bob.leave()
    await sister.leave()
    assert await logs_in(cast, "bob", password_of("bob")) == "login_refused"

    bob = await cast.stage.join("bob", NEW_PASSWORD)
    assert bob.keys.public != old_key
    for contact in (alice, carol):
        await cast.stage.acquainted(contact, bob)
        assert contact.problem("bob") is None and not contact.refusals and contact.new_users.count("bob") == 1
        await contact.calls("bob", bob)
    await bob.calls("alice", alice)
    assert not bob.refusals

    # Alice has put a pin of her own in the place of the old pin and the change of key, and it is what she is told now.
    def pins() -> list[bytes]:
        blobs = [decode_any(message.pin) for message in cast.hub.heard if isinstance(message, UpdateContact)]
        return [blob.contact_key for blob in blobs if isinstance(blob, Pin) and blob.owner_key == alice.keys.public]

    await until(lambda: bob.keys.public in pins())
    again = await cast.stage.join("alice")
    (certificate,) = cast.hub.contact("alice", "bob").certificates
    assert decode_any(certificate.blob) == Pin(alice.keys.public, bob.keys.public, "bob", since(alice, "bob"))
    await again.calls("bob", bob)

    with pytest.raises(BoneValueError) as refused:
        await carol.peer.claim_token("bobby", unclaimed)
    assert refused.value.code == "token_invalid"


def since(actor: Actor, alias: str) -> int:
    """Since when a contact has been trusted."""
    contact = actor.peer._contacts.contact(alias)
    assert contact is not None
    return contact.since


async def test_a_contact_that_was_away_follows(cast: Cast) -> None:
    alice, bob = cast.alice, cast.bob
    await alice.leave()
    await bob.peer.change_password(NEW_PASSWORD)
    await bob.leave()
    bob = await cast.stage.join("bob", NEW_PASSWORD)
    await bob.peer.change_password("yet another violin")
    await bob.leave()
    bob = await cast.stage.join("bob", "yet another violin")
    alice = await cast.stage.join("alice")
    await cast.stage.acquainted(alice, bob)
    await alice.calls("bob", bob)
    await bob.calls("alice", alice)
    assert not alice.refusals and not bob.refusals


async def test_both_change_their_passwords(cast: Cast) -> None:
    alice, bob = cast.alice, cast.bob
    await asyncio.gather(alice.peer.change_password("viola d'amore"), bob.peer.change_password(NEW_PASSWORD))
    await asyncio.gather(alice.leave(), bob.leave())
    alice, bob = await cast.stage.join("alice", "viola d'amore"), await cast.stage.join("bob", NEW_PASSWORD)
    await cast.stage.acquainted(alice, bob)
    await alice.calls("bob", bob)
    await bob.calls("carol", cast.carol)


async def test_whoever_has_only_the_old_password_is_out_at_once(cast: Cast) -> None:
    """The reason to change a password: somebody else has it, and a process that does not go when it is told to."""
    alice, bob = cast.alice, cast.bob
    thief = await cast.stage.join("bob")
    await cast.stage.acquainted(alice, thief)
    await thief.calls("alice", alice)
    (link,) = alice.links
    cast.stage.attack()
    await bob.peer.change_password(NEW_PASSWORD)
    # The thief's process is told to go and need not listen. Its link to alice does not need the server.
    async with asyncio.timeout(5):
        await link.gone
    assert not alice.links
    await bob.leave()
    cast.stage.attack()
    await thief.fails(alice.id, alice)
    bob = await cast.stage.join("bob", NEW_PASSWORD)
    await cast.stage.acquainted(alice, bob)
    await alice.calls("bob", bob)


# -- the operator --------------------------------------------------------------------------------------------------


async def test_the_operator_gives_another_password(cast: Cast) -> None:
    alice, bob = cast.alice, cast.bob
    before = cast.hub.contact("alice", "bob")
    await admin.reset_account(cast.stage.settings, "bob", NEW_PASSWORD, cost=CHEAPEST)
    assert (await ends(bob)).code == "session_ended"
    await bob.leave()
    await until(lambda: "bob" not in alice.peer.aliases)
    assert [contact.name for contact in alice.peer.contacts()] == ["carol"]
    assert await logs_in(cast, "bob", password_of("bob")) == "login_refused"
    bob = await cast.stage.join("bob", NEW_PASSWORD)
    assert bob.peer.contacts() == [] and bob.peer.aliases == ("Us",)

    # Nobody can prove that it is the same bob, so even if the server says so, he is not.
    cast.stage.attack()
    cast.stage.show(alice, replace(before, public_key=Binary(bob.keys.public)))
    cast.hub.tell(alice.id, PeerConnect("bob", bob.id))
    error = await alice.reports("identity_mismatch", about="bob")
    for known in (before.public_key, bob.keys.public):
        assert fingerprint(known) in error.message
    assert "trust them anew" in error.message
    (shown,) = (contact for contact in alice.peer.contacts() if contact.name == "bob")
    assert shown.fingerprint is None and shown.problem is not None and shown.problem.code == "identity_mismatch"
    assert (await alice.fails("bob", bob)).code == "not_trusted"
    cast.stage.relent()
    cast.hub.tell(alice.id, UserRemove("bob"))
    await cast.stage.befriend(alice, bob)
    await alice.calls("bob", bob)


# -- trust.refuse --------------------------------------------------------------------------------------------------


async def test_a_key_that_is_refused_by_the_settings(cast: Cast) -> None:
    bob, carol = cast.bob, cast.carol
    refuse = {"refuse": [bob.peer.fingerprint.upper()]}
    alice = await cast.stage.join("alice", trust=refuse)
    assert alice.problem("bob") == "not_trusted" and alice.problem("carol") is None
    await until(lambda: [refusal.about for refusal in alice.refusals] == ["bob"])
    await until(lambda: alice.id in bob.peer._session.peers)
    assert (await alice.fails("bob", bob)).code == "not_trusted"
    cast.stage.attack()
    assert (await bob.fails(alice.id, alice)).code == "not_trusted"
    await alice.reports("not_trusted", about=bob.id)
    await alice.calls("carol", carol)

    # Another password does not help him.
    await bob.peer.change_password(NEW_PASSWORD)
    await bob.leave()
    bob = await cast.stage.join("bob", NEW_PASSWORD)
    await until(lambda: alice.id in bob.peer._session.peers)
    assert alice.problem("bob") == "not_trusted"
    cast.stage.attack()
    assert (await bob.fails(alice.id, alice)).code == "not_trusted"
    await alice.reports("not_trusted", about=bob.id)
    await bob.calls(cast.alice.id, cast.alice)


# -- removals from process to process ------------------------------------------------------------------------------


def keeps_from(actor: Actor) -> Lie:
    """The server tells everybody of the end of trust but this account's processes."""

    def lie(username: str, message: Struct) -> Iterable[Struct]:
        return () if username == actor.username and isinstance(message, UserRemove) else (message,)

    return lie


@pytest.mark.parametrize("linked", ["before", "after"])
async def test_a_removal_is_passed_on_between_ones_own_processes(cast: Cast, linked: str) -> None:
    alice, bob = cast.alice, cast.bob
    sister = await cast.stage.join("alice")
    await cast.stage.acquainted(sister, bob)
    await sister.calls("bob", bob)
    shown = cast.hub.contact("alice", "bob")
    if linked == "before":
        await sister.calls("Us", alice)
    cast.stage.attack(lie=keeps_from(alice))
    await alice.peer.remove_user("bob")
    if linked == "after":
        assert sister.links and "bob" in sister.peer.aliases
        await sister.calls("Us", alice)
    await until(lambda: "bob" not in sister.peer.aliases, 5)
    assert [link.remote.name for link in sister.links] == ["Us"]
    await sister.fails("bob", bob)
    # Bob has heard of it; if the server brings him back, she does not take him.
    cast.stage.attack()
    cast.stage.show(sister, shown)
    cast.hub.tell(sister.id, PeerConnect("bob", bob.id))
    await sister.reports("not_trusted", about="bob")
    assert (await sister.fails("bob", bob)).code == "not_trusted"


async def test_a_removal_goes_from_process_to_process(cast: Cast) -> None:
    """Three of them in a row, of which each has a link to the next only."""
    alice, bob = cast.alice, cast.bob
    second, third = await cast.stage.join("alice"), await cast.stage.join("alice")
    for sister in (second, third):
        await cast.stage.acquainted(sister, bob)
    await third.calls("bob", bob)
    await until(lambda: len(second.peer.get("Us").peers()) == 2)
    await second.calls(alice.id, alice)
    await second.calls(third.id, third)
    cast.stage.attack(lie=keeps_from(alice))
    await alice.peer.remove_user("bob")
    await until(lambda: not any("bob" in sister.peer.aliases for sister in (alice, second, third)), 5)
    assert [link.remote.id for link in third.links] == [second.id]
    await until(lambda: not bob.links, 5)
