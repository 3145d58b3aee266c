"""
A discovery server that lies to tabs: the attacks of tests/e2e/test_evil_lists.py, about contacts and their keys, about
who is online, about itself.

As in test_evil_server.py: no call is answered by the wrong party, and the tab reports the attack with its code within
five seconds. That each attack would succeed, and be seen to, if the tab did not check: test_evil_control.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest
from msgspec import Struct
from msgspec.structs import replace
from playwright.async_api import Browser

from bonevalue.errors import BoneValueError
from bonevalue.wire.blobs import Invite, Redeem, Rotate
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
from tests.e2e.test_evil_lists import FORGERIES, LIES, REMOVALS, another_key, certificate, now_ms, pairs
from tests.e2e.test_key_change import keeps_from
from tests.support import identity
from tests.support.evil import MALLORY, Actor, Cast, Lie, added, password_of
from tests.support.evil_tabs import TabActor, join_tab, recovers, tab_of
from tests.support.tabs import eventually

# -- lies about contacts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forge", FORGERIES)
async def test_another_key_in_the_place_of_the_redeemers(strangers: Cast, forge: Callable[[Contact], Contact]) -> None:
    alice, bob = tab_of(strangers.alice), strangers.bob
    token = await alice.peer.request_token("bob")
    strangers.stage.attack(lie=added("alice", forge))
    await bob.peer.claim_token("alice", token)
    await alice.reports("identity_mismatch", about="bob")
    assert await alice.problem_of("bob") == "identity_mismatch"
    assert ["newuser", "bob"] not in await alice.tab.evaluate("probe.seen")
    await alice.fails("bob", bob)
    strangers.stage.attack(lie=strangers.hub.lie)
    assert (await bob.fails("alice", alice)).code == "not_trusted"
    await strangers.stage.make_good(alice, bob)
    assert await alice.problem_of("bob") is None
    await alice.calls("bob", bob)


async def test_another_key_in_the_place_of_the_inviters(strangers: Cast) -> None:
    alice, bob = strangers.alice, tab_of(strangers.bob)
    token = await alice.peer.request_token("bob")
    strangers.stage.attack(lie=added("bob", another_key))
    claiming = asyncio.create_task(bob.peer.claim_token("alice", token))
    await bob.reports("identity_mismatch", about="alice")
    with pytest.raises(BoneValueError) as refused:
        await claiming
    assert refused.value.code == "identity_mismatch" and await bob.problem_of("alice") == "identity_mismatch"
    await bob.fails("alice", alice)
    await strangers.stage.make_good(bob, alice)
    await bob.calls("alice", alice)


async def redeemed_by_the_server(cast: Cast) -> tuple[str, Contact]:
    """A token of alice's, and the server's own redeem of it: all that it has is the token's public key."""
    token = await cast.alice.peer.request_token("bob")
    request = next(message for message in cast.hub.heard if isinstance(message, RequestToken))
    invite = Invite.decode(request.invite)
    redeem = Redeem(invite.token_key, invite.inviter_key, MALLORY.public, "bob", now_ms())
    certificates = [SignedBlob(request.invite, [request.signature]), identity.signed(redeem, MALLORY, MALLORY)]
    return token, Contact("bob", Binary(MALLORY.public), certificates)


async def test_the_server_redeems_a_token_itself(strangers: Cast) -> None:
    alice, bob = tab_of(strangers.alice), strangers.bob
    token, forged = await redeemed_by_the_server(strangers)
    strangers.stage.attack()
    strangers.stage.show(alice, forged)
    await alice.reports("identity_mismatch", about="bob")
    assert await alice.problem_of("bob") == "identity_mismatch"
    await alice.fails("bob", bob)
    strangers.stage.relent()
    await strangers.stage.befriend(alice, bob, token=token)
    await alice.calls("bob", bob)


async def test_one_redemption_is_delivered_twice(strangers: Cast) -> None:
    alice, bob = tab_of(strangers.alice), strangers.bob
    await strangers.stage.befriend(alice, bob)
    contact = strangers.hub.contact("alice", "bob")
    strangers.stage.attack()
    strangers.stage.show(alice, contact)
    strangers.stage.show(alice, replace(contact, name="bobby"))
    strangers.hub.tell(alice.id, PeerConnect("bobby", bob.id))
    await alice.reports("contact_conflict", about="bobby")
    assert await alice.problem_of("bobby") == "contact_conflict"
    await alice.fails("bobby", bob)
    strangers.hub.tell(alice.id, UserRemove("bobby"))
    strangers.hub.tell(alice.id, PeerConnect("bob", bob.id))
    await strangers.stage.acquainted(alice, bob)
    await alice.calls("bob", bob)


async def redeemed_twice(cast: Cast) -> Contact:
    """
    Carol as bob: she has claimed the token that he has claimed.

    The honest server refuses the second redeem; a dishonest one has it, and shows it.
    """
    token = await cast.stage.befriend(cast.alice, cast.bob)
    with pytest.raises(BoneValueError) as refused:
        await cast.carol.peer.claim_token("alice", token)
    assert refused.value.code == "token_used"
    claim = [message for message in cast.hub.heard if isinstance(message, ClaimToken)][-1]
    invite = certificate(cast.hub.contact("alice", "bob"), Invite)
    return Contact("bob", Binary(cast.carol.keys.public), [invite, SignedBlob(claim.redeem, claim.signatures)])


async def test_two_redemptions_of_one_token(strangers: Cast) -> None:
    alice, bob = tab_of(strangers.alice), strangers.bob
    second = await redeemed_twice(strangers)
    strangers.stage.attack()
    strangers.stage.show(alice, second)
    await alice.reports("contact_conflict", about="bob")
    assert await alice.problem_of("bob") == "contact_conflict"
    await alice.fails("bob", bob)
    strangers.stage.attack()
    await bob.fails("alice", alice)
    await alice.reports("not_trusted")


@pytest.mark.parametrize("what", LIES)
async def test_a_lie_about_a_contact(standing_cast: Cast, what: str) -> None:
    cast = standing_cast
    lie, code = LIES[what]
    alice, bob = tab_of(cast.alice), cast.bob
    cast.stage.attack()
    cast.stage.show(alice, lie(cast))
    await alice.reports(code, about="bob")
    assert await alice.problem_of("bob") == code
    assert (await alice.fails("bob", bob)).code == "not_trusted"
    cast.stage.attack()
    assert (await bob.fails("alice", alice)).code == "not_trusted"
    await alice.reports("not_trusted")
    await alice.calls("carol", cast.carol)
    await cast.stage.make_good(alice, bob)
    assert await alice.problem_of("bob") is None
    await alice.calls("bob", bob)


async def changed_twice(cast: Cast) -> list[Contact]:
    """Bob with one new key, and with another: he changes his password twice, as the server says no at first."""
    cast.hub.refused = (ChangePassword,)
    for number in (1, 2):
        with pytest.raises(BoneValueError):
            await cast.bob.peer.change_password(f"{number} more tries of a violin")
    changes = [message for message in cast.hub.heard if isinstance(message, ChangePassword)]
    certificates = cast.hub.contact("alice", "bob").certificates
    return [
        Contact(
            "bob",
            Binary(Rotate.decode(change.rotate).new_key),
            [*certificates, SignedBlob(change.rotate, change.signatures)],
        )
        for change in changes
    ]


async def test_two_changes_of_one_key(cast: Cast) -> None:
    alice, bob = tab_of(cast.alice), tab_of(cast.bob)
    before = cast.hub.contact("alice", "bob")
    first, second = await changed_twice(cast)
    cast.stage.attack()
    cast.stage.show(alice, first)
    cast.stage.show(alice, second)
    await alice.reports("identity_conflict", about="bob")
    for shown in (first, before):
        assert await alice.problem_of("bob") == "identity_conflict"
        cast.stage.show(alice, shown)
        await alice.fails("bob", bob)
    cast.stage.attack()
    await bob.fails("alice", alice)
    await alice.reports("not_trusted")
    await alice.calls("carol", cast.carol)


@pytest.mark.parametrize("forge", REMOVALS)
async def test_a_forged_end_of_trust_cuts_nothing(standing_cast: Cast, forge: Callable[[Cast], SignedBlob]) -> None:
    cast = standing_cast
    alice, bob = tab_of(cast.alice), tab_of(cast.bob)
    # A call that is under way all the while.
    waiting = asyncio.create_task(
        alice.tab.ask(target=bob.id, module="Probe.Wait", request=forge.__name__, name="held")
    )
    await eventually(lambda: _has_begun(bob, forge.__name__))
    cast.stage.attack()
    cast.hub.tell(alice.id, UserRemove("bob", forge(cast)))
    await alice.reports("identity_mismatch", about="bob")
    assert await alice.linked() == [bob.id] and not waiting.done()
    await cast.stage.make_good(alice, bob)
    assert not waiting.done()
    await alice.tab.cancel("held")
    assert (await waiting)["error"]["code"] == "cancelled"
    await recovers(cast)


async def _has_begun(actor: TabActor, about: str) -> bool:
    return ["begun", about] in await actor.tab.seen()


async def test_old_certificates_after_the_end_of_trust(cast: Cast) -> None:
    alice, bob = tab_of(cast.alice), tab_of(cast.bob)
    both = list(pairs(alice, bob))
    shown = {actor.username: cast.hub.contact(actor.username, other.username) for actor, other in both}
    await alice.peer.remove_user("bob")
    await eventually(lambda: _has_removed(bob, "alice"))
    cast.stage.attack()
    for actor, other in both:
        cast.stage.show(actor, shown[actor.username])
        cast.hub.tell(actor.id, PeerConnect(other.username, other.id))
    for actor, other in both:
        await actor.reports("not_trusted", about=other.username)
        assert await tab_of(actor).problem_of(other.username) == "not_trusted"
        assert (await actor.fails(other.username, other)).code == "not_trusted"
    cast.stage.relent()
    await cast.stage.befriend(bob, alice)
    await alice.calls("bob", bob)
    # Nor do the old ones count now that there are new ones, or harm them.
    cast.stage.attack()
    cast.stage.show(alice, shown["alice"])
    await alice.reports("not_trusted", about="bob")
    await cast.stage.make_good(alice, bob)
    await alice.calls("bob", bob)


async def _has_removed(actor: TabActor, alias: str) -> bool:
    return ["userremove", alias] in await actor.tab.seen()


async def test_a_removal_is_passed_on_between_ones_own_tabs(cast: Cast, browser: Browser) -> None:
    """The server keeps the end of trust from a second tab of alice's, which hears it from her first one."""
    alice, bob = tab_of(cast.alice), tab_of(cast.bob)
    sister = await join_tab(cast.stage, browser, "alice")
    await cast.stage.acquainted(sister, bob)
    shown = cast.hub.contact("alice", "bob")
    cast.stage.attack(lie=keeps_from(alice))
    await alice.peer.remove_user("bob")
    assert await sister.believes("bob", bob.keys.public)
    await sister.calls(alice.id, alice)
    await eventually(lambda: _has_removed(sister, "bob"), 5)
    await sister.fails("bob", bob)
    cast.stage.attack()
    cast.stage.show(sister, shown)
    cast.hub.tell(sister.id, PeerConnect("bob", bob.id))
    await sister.reports("not_trusted", about="bob")
    assert (await sister.fails("bob", bob)).code == "not_trusted"


async def test_an_end_of_trust_that_the_server_tells_nobody(cast: Cast) -> None:
    alice, bob = tab_of(cast.alice), cast.bob
    await alice.calls("bob", bob)
    cast.hub.pretended = (RemoveUser,)
    await alice.peer.remove_user("bob")
    assert "bob" not in str(await alice.tab.evaluate("$BV.contacts()"))
    cast.stage.attack()
    assert (await bob.fails("alice", alice)).code == "not_trusted"
    await alice.reports("not_trusted", about=bob.id)
    # The server still has it all, and cannot make her take it back.
    cast.stage.attack()
    cast.stage.show(alice, cast.hub.contact("alice", "bob"))
    cast.hub.tell(alice.id, PeerConnect("bob", bob.id))
    await alice.reports("not_trusted", about="bob")
    assert (await alice.fails("bob", bob)).code == "not_trusted"


# -- lies about who is online, and about itself --------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["bob", "Us"])
async def test_an_alias_for_another_contacts_peer(cast: Cast, alias: str) -> None:
    alice, carol = tab_of(cast.alice), cast.carol
    meant = cast.bob if alias == "bob" else alice
    cast.stage.attack()
    cast.hub.tell(alice.id, PeerDisconnect(cast.bob.id))
    cast.hub.tell(alice.id, PeerConnect(alias, carol.id))

    await eventually(lambda: knows_only(alice, alias, carol))
    await alice.fails(alias, meant)
    await carol.reports("identity_mismatch")
    cast.hub.tell(alice.id, PeerConnect("carol", carol.id))
    cast.hub.tell(alice.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(alice, cast.bob)
    await alice.calls("bob", cast.bob)
    await alice.calls("carol", carol)


async def knows_only(actor: TabActor, alias: str, peer: Actor) -> bool:
    """Whether this is the one peer that it knows of a contact."""
    return await actor.peers_of(alias) == [peer.id]


@pytest.mark.parametrize("alias", ["bob", "Us"])
async def test_an_alias_for_a_peer_to_which_there_is_a_link(cast: Cast, alias: str) -> None:
    alice, carol = tab_of(cast.alice), cast.carol
    meant = cast.bob if alias == "bob" else alice
    # A call that is under way keeps the link.
    waiting = asyncio.create_task(alice.tab.ask(target=carol.id, module="Probe.Wait", request=alias, name="held"))
    await eventually(lambda: _has_begun(tab_of(carol), alias))
    cast.stage.attack()
    cast.hub.tell(alice.id, PeerDisconnect(cast.bob.id))
    cast.hub.tell(alice.id, PeerConnect(alias, carol.id))
    await eventually(lambda: knows_only(alice, alias, carol))
    assert (await alice.fails(alias, meant)).code == "identity_mismatch"
    await alice.reports("identity_mismatch", about=carol.id)
    # Whoever took the peer's id from presence took the lie with it.
    assert (await alice.fails(carol.id, meant)).code == "identity_mismatch"
    everyone = await alice.tab.ask(target="*", module="Who", request={}, all={})
    assert {result["error"]["code"] for result in everyone["results"]} == {"identity_mismatch"}
    cast.hub.tell(alice.id, PeerConnect("carol", carol.id))
    cast.hub.tell(alice.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(alice, cast.bob)
    assert not waiting.done()
    await alice.tab.cancel("held")
    assert (await waiting)["error"]["code"] == "cancelled"
    await alice.calls("bob", cast.bob)
    await alice.calls("carol", carol)


def ones_own_id() -> Lie:
    """Every peer is told that it is a peer of everybody."""
    ids: list[str] = []

    def lie(username: str, message: Struct) -> Iterable[Struct]:
        if isinstance(message, SetPeerId):
            ids.append(message.peer_id)
        elif isinstance(message, PeerList):
            message = replace(message, peers=[*message.peers, *(PeerEntry(name, ids[-1]) for name in ("Us", "bob"))])
        return (message,)

    return lie


async def test_a_peer_list_with_ones_own_id_in_it(standing_cast: Cast, browser: Browser) -> None:
    cast = standing_cast
    cast.stage.attack(lie=ones_own_id())
    second = await join_tab(cast.stage, browser, "alice")
    for name in ("Us", "bob", "carol"):
        cast.hub.tell(second.id, PeerConnect(name, second.id))
    cast.hub.tell(second.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(second, cast.bob)
    assert second.id not in await second.peers_of("*")
    cast.stage.relent()
    await second.calls("bob", cast.bob)
    await second.calls(cast.alice.id, cast.alice)
    await second.leave()


def of_another_realm(username: str, message: Struct) -> Iterable[Struct]:
    """The server says that it is of another realm."""
    return [replace(message, realm="evil.example") if isinstance(message, Hello) else message]


async def test_a_server_of_another_realm_is_shown_nothing(standing_cast: Cast, browser: Browser) -> None:
    cast = standing_cast
    cast.stage.attack(lie=of_another_realm)
    heard = len(cast.hub.heard)
    tab = tab_of(cast.alice).tab
    host, password = f"127.0.0.1:{cast.stage.server.port}", password_of("alice")
    for attempt in ("$BV.create().connect", "$BV.register"):
        refused = await tab.outcome(f"{attempt}(value[0], 'alice', value[1])", [host, password])
        assert refused["error"]["code"] == "realm_mismatch" and "evil.example" in refused["error"]["message"]
    assert cast.hub.heard[heard:] == []
    text = repr(cast.hub.heard)
    assert cast.alice.keys.login not in text and password not in text
