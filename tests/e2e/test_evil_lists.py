"""
A dishonest discovery server that lies to real peers: about contacts and their keys, about who is online, about itself.

As in test_evil_server.py: no call is answered by the wrong party, whoever is lied to reports it with its code within
five seconds, and once the server is honest again, everybody reaches everybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from msgspec import Struct
from msgspec.structs import replace

from bonevalue.errors import BoneValueError
from bonevalue.peer import register
from bonevalue.wire.blobs import Invite, Pin, Redeem, Rotate, decode_any
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.signals import (
    Binary,
    ChangePassword,
    ClaimToken,
    Contact,
    Hello,
    PeerConnect,
    PeerDisconnect,
    PeerEntry,
    PeerList,
    RemoveUser,
    RequestToken,
    SetPeerId,
    SignedBlob,
    UserRemove,
)
from tests.support import identity
from tests.support.evil import MALLORY, REALM, STANDING, Actor, Cast, added, password_of, retouched
from tests.support.waiting import until


def now_ms() -> int:
    """The time."""
    return time.time_ns() // 1_000_000


def certificate(contact: Contact, kind: type[Any]) -> SignedBlob:
    """The certificate of that kind."""
    return next(signed for signed in contact.certificates if isinstance(decode_any(signed.blob), kind))


# -- making trust ------------------------------------------------------------------------------------------------


def another_key(contact: Contact) -> Contact:
    """The server's key, and what was signed about the right one."""
    return replace(contact, public_key=Binary(MALLORY.public))


def another_redeemer(contact: Contact) -> Contact:
    """The redeem names the server's key, and has the signatures that it had."""
    redeem = certificate(contact, Redeem)
    forged = replace(redeem, blob=retouched(redeem.blob, claimer_key=MALLORY.public))
    return another_key(replace(contact, certificates=[certificate(contact, Invite), forged]))


def another_redeemer_who_signs(contact: Contact) -> Contact:
    """The redeem names the server's key, and is signed by it, too."""
    redeem = certificate(contact, Redeem)
    blob = retouched(redeem.blob, claimer_key=MALLORY.public)
    forged = SignedBlob(blob, [redeem.signatures[0], Binary(MALLORY.sign(blob))])
    return another_key(replace(contact, certificates=[certificate(contact, Invite), forged]))


def another_token(contact: Contact) -> Contact:
    """An invite for a token of the server's own, which alice did not sign, and a perfect redeem."""
    token = identity.token_of(MALLORY)
    invite = certificate(contact, Invite)
    invited = replace(invite, blob=retouched(invite.blob, token_key=token.keys.public))
    value = Redeem(token.keys.public, Invite.decode(invite.blob).inviter_key, MALLORY.public, "bob", now_ms())
    redeem = identity.signed(value, token.keys, MALLORY)
    return another_key(replace(contact, certificates=[invited, redeem]))


def another_pin(contact: Contact) -> Contact:
    """A pin of the server's key in alice's name, signed by the server."""
    owner = Invite.decode(certificate(contact, Invite).blob).inviter_key
    pin = identity.signed(Pin(owner, MALLORY.public, contact.name, now_ms()), MALLORY)
    return another_key(replace(contact, certificates=[pin]))


def no_proof(contact: Contact) -> Contact:
    """A key, and nothing that anybody signed."""
    return another_key(replace(contact, certificates=[]))


FORGERIES = [another_key, another_redeemer, another_redeemer_who_signs, another_token, another_pin, no_proof]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_another_key_in_the_place_of_the_redeemers(strangers: Cast, forge: Callable[[Contact], Contact]) -> None:
    alice, bob = strangers.alice, strangers.bob
    token = await alice.peer.request_token("bob")
    strangers.stage.attack(lie=added("alice", forge))
    await bob.peer.claim_token("alice", token)
    await alice.reports("identity_mismatch", about="bob")
    assert alice.problem("bob") == "identity_mismatch" and not alice.new_users
    await alice.fails("bob", bob)
    strangers.stage.attack(lie=strangers.hub.lie)
    assert (await bob.fails("alice", alice)).code == "not_trusted"
    await alice.reports("not_trusted")
    await strangers.stage.make_good(alice, bob)
    assert alice.problem("bob") is None
    await until(lambda: alice.new_users == ["bob"])
    await alice.calls("bob", bob)


async def test_another_key_in_the_place_of_the_inviters(strangers: Cast) -> None:
    alice, bob = strangers.alice, strangers.bob
    token = await alice.peer.request_token("bob")
    strangers.stage.attack(lie=added("bob", another_key))
    claiming = asyncio.create_task(bob.peer.claim_token("alice", token))
    await bob.reports("identity_mismatch", about="alice")
    assert not claiming.done() and bob.problem("alice") == "identity_mismatch"
    await bob.fails("alice", alice)
    await strangers.stage.make_good(bob, alice)
    assert (await claiming).fingerprint == alice.peer.fingerprint
    await bob.calls("alice", alice)


async def test_the_server_redeems_a_token_itself(strangers: Cast) -> None:
    alice, bob = strangers.alice, strangers.bob
    token = await alice.peer.request_token("bob")
    request = next(message for message in strangers.hub.heard if isinstance(message, RequestToken))
    invite = Invite.decode(request.invite)
    # All that it has is the token's public key.
    redeem = identity.signed(
        Redeem(invite.token_key, invite.inviter_key, MALLORY.public, "bob", now_ms()), MALLORY, MALLORY
    )
    strangers.stage.attack()
    forged = Contact("bob", Binary(MALLORY.public), [SignedBlob(request.invite, [request.signature]), redeem])
    strangers.stage.show(alice, forged)
    await alice.reports("identity_mismatch", about="bob")
    assert alice.problem("bob") == "identity_mismatch" and not alice.new_users
    await alice.fails("bob", bob)
    strangers.stage.relent()
    await strangers.stage.befriend(alice, bob, token=token)
    await alice.calls("bob", bob)


async def test_one_redemption_is_delivered_twice(strangers: Cast) -> None:
    alice, bob = strangers.alice, strangers.bob
    await strangers.stage.befriend(alice, bob)
    await alice.calls("bob", bob)
    contact = strangers.hub.contact("alice", "bob")
    strangers.stage.attack()
    strangers.stage.show(alice, contact)
    strangers.stage.show(alice, replace(contact, name="bobby"))
    strangers.hub.tell(alice.id, PeerConnect("bobby", bob.id))
    await alice.reports("contact_conflict", about="bobby")
    assert alice.new_users == ["bob"] and alice.problem("bobby") == "contact_conflict"
    await alice.fails("bobby", bob)
    strangers.hub.tell(alice.id, UserRemove("bobby"))
    strangers.hub.tell(alice.id, PeerConnect("bob", bob.id))
    await strangers.stage.acquainted(alice, bob)
    await alice.calls("bob", bob)


async def test_two_redemptions_of_one_token(strangers: Cast) -> None:
    alice, bob, carol = strangers.alice, strangers.bob, strangers.carol
    token = await strangers.stage.befriend(alice, bob)
    with pytest.raises(BoneValueError) as refused:
        await carol.peer.claim_token("alice", token)
    assert refused.value.code == "token_used"
    # The honest server refuses the second one; a dishonest one has it, and shows it.
    claim = [message for message in strangers.hub.heard if isinstance(message, ClaimToken)][-1]
    invite = certificate(strangers.hub.contact("alice", "bob"), Invite)
    second = SignedBlob(claim.redeem, claim.signatures)
    strangers.stage.attack()
    strangers.stage.show(alice, Contact("bob", Binary(carol.keys.public), [invite, second]))
    await alice.reports("contact_conflict", about="bob")
    assert alice.problem("bob") == "contact_conflict"
    await alice.fails("bob", bob)
    strangers.stage.attack()
    await bob.fails("alice", alice)
    await alice.reports("not_trusted")
    # Showing the first alone does not help: it must be made good by hand.
    strangers.stage.attack()
    strangers.stage.show(alice, strangers.hub.contact("alice", "bob"))
    await alice.fails("bob", bob)
    strangers.stage.relent()
    await alice.peer.remove_user("bob")
    await strangers.stage.befriend(alice, bob)
    await alice.calls("bob", bob)


# -- contacts that are there ---------------------------------------------------------------------------------------


def carols(cast: Cast) -> Contact:
    """Carol's key and certificates."""
    return replace(cast.hub.contact("alice", "carol"), name="bob")


def carols_key(cast: Cast) -> Contact:
    """Carol's key, and bob's certificates."""
    return replace(cast.hub.contact("alice", "bob"), public_key=Binary(cast.carol.keys.public))


def bobs_by_carol(cast: Cast) -> Contact:
    """What carol signed about bob, who trusts him, too."""
    return cast.hub.contact("carol", "bob")


def rotated_by_the_server(cast: Cast) -> Contact:
    """A change of bob's key to the server's, which bob did not sign."""
    contact = cast.hub.contact("alice", "bob")
    rotate = identity.signed(Rotate(cast.bob.keys.public, MALLORY.public, now_ms()), MALLORY, MALLORY)
    return another_key(replace(contact, certificates=[*contact.certificates, rotate]))


def rotated_elsewhere(cast: Cast) -> Contact:
    """A true change of some key to the server's, but it is not bob's key that changes."""
    contact = cast.hub.contact("alice", "bob")
    rotate = identity.rotate(identity.account("eve"), MALLORY, now_ms())
    return another_key(replace(contact, certificates=[*contact.certificates, rotate]))


def a_new_key(cast: Cast) -> Contact:
    """The server's key under a name that is known."""
    return another_key(cast.hub.contact("alice", "bob"))


LIES: dict[str, tuple[Callable[[Cast], Contact], str]] = {
    "a new key under a known name": (a_new_key, "identity_mismatch"),
    "an alias for another contact": (carols, "contact_conflict"),
    "an alias for another contact's key": (carols_key, "identity_mismatch"),
    "another account's chain": (bobs_by_carol, "identity_mismatch"),
    "a forged change of key": (rotated_by_the_server, "identity_mismatch"),
    "another's change of key": (rotated_elsewhere, "identity_mismatch"),
}


@STANDING
@pytest.mark.parametrize("what", LIES)
async def test_a_lie_about_a_contact(standing_cast: Cast, what: str) -> None:
    cast = standing_cast
    lie, code = LIES[what]
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    cast.stage.attack()
    cast.stage.show(alice, lie(cast))
    error = await alice.reports(code, about="bob")
    assert error.message.startswith("bob: ") and alice.problem("bob") == code
    assert (await alice.fails("bob", bob)).code == "not_trusted"
    cast.stage.attack()
    assert (await bob.fails("alice", alice)).code == "not_trusted"
    await alice.reports("not_trusted")
    await alice.calls("carol", carol)
    await cast.stage.make_good(alice, bob)
    assert alice.problem("bob") is None
    await alice.calls("bob", bob)


async def test_two_changes_of_one_key(cast: Cast) -> None:
    """Bob changes his password twice, because the server says no to the first; it shows both."""
    alice, bob = cast.alice, cast.bob
    cast.hub.refused = (ChangePassword,)
    for number in (1, 2):
        with pytest.raises(BoneValueError):
            await bob.peer.change_password(f"{number} more tries of a violin")
    changes = [message for message in cast.hub.heard if isinstance(message, ChangePassword)]
    contact = cast.hub.contact("alice", "bob")

    def shown(change: ChangePassword) -> Contact:
        rotate = SignedBlob(change.rotate, change.signatures)
        key = Rotate.decode(change.rotate).new_key
        return Contact("bob", Binary(key), [*contact.certificates, rotate])

    cast.stage.attack()
    cast.stage.show(alice, shown(changes[0]))
    cast.stage.show(alice, shown(changes[1]))
    await alice.reports("identity_conflict", about="bob")
    assert alice.problem("bob") == "identity_conflict"
    for lie in (shown(changes[0]), contact):
        cast.stage.show(alice, lie)
        await alice.fails("bob", bob)
    cast.stage.attack()
    await bob.fails("alice", alice)
    await alice.reports("not_trusted")

    # Nobody can know which is his, so they trust each other anew, when he has a key of which there is only one.
    cast.stage.relent()
    await alice.peer.remove_user("bob")
    await bob.peer.change_password("the third violin")
    await bob.leave()
    bob = await cast.stage.join("bob", "the third violin")
    await cast.stage.befriend(alice, bob)
    await alice.calls("bob", bob)
    await alice.calls("carol", cast.carol)


# -- the end of trust ----------------------------------------------------------------------------------------------


def removal_by_the_server(cast: Cast) -> SignedBlob:
    """Signed by the server."""
    remove = identity.remove(cast.bob.keys, cast.alice.keys, now_ms())
    return replace(remove, signatures=[Binary(MALLORY.sign(remove.blob))])


def removal_of_the_server(cast: Cast) -> SignedBlob:
    """The server's own, of alice."""
    return identity.remove(MALLORY, cast.alice.keys, now_ms())


def removal_of_another(cast: Cast) -> SignedBlob:
    """Bob's, but it is carol whom he parts with."""
    return identity.remove(cast.bob.keys, cast.carol.keys, now_ms())


def removal_before_the_trust(cast: Cast) -> SignedBlob:
    """Bob's, from before they trusted each other again."""
    return identity.remove(cast.bob.keys, cast.alice.keys, now_ms() - 3_600_000)


REMOVALS = [removal_by_the_server, removal_of_the_server, removal_of_another, removal_before_the_trust]


@pytest.mark.parametrize("forge", REMOVALS)
async def test_a_forged_end_of_trust_cuts_nothing(cast: Cast, forge: Callable[[Cast], SignedBlob]) -> None:
    alice, bob = cast.alice, cast.bob
    await alice.calls("bob", bob)
    link = alice.links[0]
    cast.stage.attack()
    cast.hub.tell(alice.id, UserRemove("bob", forge(cast)))
    await alice.reports("identity_mismatch", about="bob")
    assert alice.links == [link]
    await bob.calls("alice", alice)
    await alice.calls(bob.id, bob)
    await cast.stage.make_good(alice, bob)
    await alice.calls("bob", bob)
    assert alice.links == [link]


async def test_old_certificates_after_the_end_of_trust(cast: Cast) -> None:
    alice, bob = cast.alice, cast.bob
    shown = {actor.username: cast.hub.contact(actor.username, other.username) for actor, other in pairs(alice, bob)}
    await alice.peer.remove_user("bob")
    await until(lambda: "alice" not in bob.peer.aliases)
    cast.stage.attack()
    for actor, other in pairs(alice, bob):
        cast.stage.show(actor, shown[actor.username])
        cast.hub.tell(actor.id, PeerConnect(other.username, other.id))
    for actor, other in pairs(alice, bob):
        await actor.reports("not_trusted", about=other.username)
        assert actor.problem(other.username) == "not_trusted"
        assert (await actor.fails(other.username, other)).code == "not_trusted"
    cast.stage.relent()
    await cast.stage.befriend(bob, alice)
    await alice.calls("bob", bob)
    # Nor do the old ones count now that there are new ones, or harm them.
    cast.stage.attack()
    cast.stage.show(alice, shown["alice"])
    await alice.reports("not_trusted", about="bob")
    await cast.stage.make_good(alice, bob)
    await alice.unlinked()
    await alice.calls("bob", bob)


def pairs(one: Actor, other: Actor) -> Iterable[tuple[Actor, Actor]]:
    """Each with the other."""
    return (one, other), (other, one)


async def test_an_end_of_trust_that_the_server_tells_nobody(cast: Cast) -> None:
    alice, bob = cast.alice, cast.bob
    await alice.calls("bob", bob)
    cast.hub.pretended = (RemoveUser,)
    await alice.peer.remove_user("bob")
    await until(lambda: not alice.links and not bob.links)
    assert "bob" not in alice.peer.aliases
    cast.stage.attack()
    assert (await bob.fails("alice", alice)).code == "not_trusted"
    await alice.reports("not_trusted", about=bob.id)
    # The server still has it all, and cannot make her take it back.
    cast.stage.attack()
    cast.stage.show(alice, cast.hub.contact("alice", "bob"))
    cast.hub.tell(alice.id, PeerConnect("bob", bob.id))
    await alice.reports("not_trusted", about="bob")
    assert (await alice.fails("bob", bob)).code == "not_trusted"
    cast.stage.relent()
    await alice.peer.remove_user("bob")
    await until(lambda: "alice" not in bob.peer.aliases)
    await cast.stage.befriend(alice, bob)
    await alice.calls("bob", bob)


# -- who is online -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["bob", "Us"])
async def test_an_alias_for_another_contacts_peer(cast: Cast, alias: str) -> None:
    alice, carol = cast.alice, cast.carol
    meant = cast.bob if alias == "bob" else alice
    cast.stage.attack()
    cast.hub.tell(alice.id, PeerDisconnect(cast.bob.id))
    cast.hub.tell(alice.id, PeerConnect(alias, carol.id))
    await until(lambda: [peer.id for peer in alice.peer.get(alias).peers()] == [carol.id])
    await alice.fails(alias, meant)
    await carol.reports("identity_mismatch")
    cast.stage.attack()
    cast.hub.tell(alice.id, PeerConnect("carol", carol.id))
    cast.hub.tell(alice.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(alice, cast.bob)
    await alice.calls("bob", cast.bob)
    await alice.calls("carol", carol)


@pytest.mark.parametrize("alias", ["bob", "Us"])
async def test_an_alias_for_a_peer_to_which_there_is_a_link(cast: Cast, alias: str) -> None:
    alice, carol = cast.alice, cast.carol
    meant = cast.bob if alias == "bob" else alice
    await alice.calls("carol", carol)
    cast.stage.attack()
    cast.hub.tell(alice.id, PeerDisconnect(cast.bob.id))
    cast.hub.tell(alice.id, PeerConnect(alias, carol.id))
    await until(lambda: [peer.id for peer in alice.peer.get(alias).peers()] == [carol.id])
    assert (await alice.fails(alias, meant)).code == "identity_mismatch"
    await alice.reports("identity_mismatch", about=carol.id)
    # Whoever took the peer's id from presence took the lie with it.
    assert (await alice.fails(carol.id, meant)).code == "identity_mismatch"
    async for result in alice.peer.get("*").call_all("Who", {}):
        assert result.error is not None and result.error.code == "identity_mismatch"
    cast.hub.tell(alice.id, PeerConnect("carol", carol.id))
    cast.hub.tell(alice.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(alice, cast.bob)
    await alice.calls("bob", cast.bob)
    await alice.calls("carol", carol)


async def test_a_peer_list_with_ones_own_id_in_it(cast: Cast) -> None:
    def lie(username: str, message: Struct) -> Iterable[Struct]:
        if isinstance(message, SetPeerId):
            ids.append(message.peer_id)
        elif isinstance(message, PeerList):
            names = ("Us", "bob", "carol")
            message = replace(message, peers=[*message.peers, *(PeerEntry(name, ids[-1]) for name in names)])
        return (message,)

    ids: list[str] = []
    cast.stage.attack(lie=lie)
    second = await cast.stage.join("alice")
    for name in ("Us", "bob", "carol"):
        cast.hub.tell(second.id, PeerConnect(name, second.id))
        cast.hub.tell(second.id, PeerConnect(name, cast.alice.id))
    cast.hub.tell(second.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(second, cast.bob)
    assert second.id == ids[-1] and second.id not in [peer.id for peer in second.peer.peers()]
    cast.stage.relent()
    cast.hub.tell(second.id, PeerConnect("Us", cast.alice.id))
    await until(lambda: second.peer.get("Us").peers())
    await second.calls("Us", cast.alice)
    await second.calls("bob", cast.bob)


# -- itself --------------------------------------------------------------------------------------------------------


async def test_a_server_of_another_realm_is_shown_nothing(cast: Cast) -> None:
    def lie(username: str, message: Struct) -> Iterable[Struct]:
        return [replace(message, realm="evil.example") if isinstance(message, Hello) else message]

    cast.stage.attack(lie=lie)
    heard = len(cast.hub.heard)
    stranger = cast.stage.actor("alice")
    for attempt in (stranger.peer.start(), register(cast.stage.address, "dave", password_of("dave"))):
        with pytest.raises(BoneValueError, match="Nothing secret was sent") as refused:
            await attempt
        assert refused.value.code == "realm_mismatch" and "evil.example" in refused.value.message
    cast.hub.drop(cast.alice.id)
    with pytest.raises(BoneValueError) as refused:
        async with asyncio.timeout(5):
            await cast.alice.peer.closed()
    assert refused.value.code == "realm_mismatch"
    assert cast.hub.heard[heard:] == []
    cast.stage.relent()
    alice = await cast.stage.join("alice")
    await alice.calls("bob", cast.bob)


async def test_no_message_holds_what_the_password_gives(cast: Cast) -> None:
    keys = AccountKeys.derive(password_of("alice"), realm=REALM, username="alice")
    assert keys.public == cast.alice.keys.public
    await cast.alice.calls("bob", cast.bob)
    text = repr(cast.hub.heard)
    assert keys.login not in text and password_of("alice") not in text
