"""
The control to test_evil_server.py and test_evil_lists.py: each attack once more, on a tab that does not check.

The tab lacks just the checks that stop the attack (tests/support/crippled.py), everybody else is an honest Python peer,
and the attack has to succeed: so the tests of the attacks can fail.

Those that come to nothing even if nothing is checked are in :data:`FUTILE`. Two more have no control, as the browser
itself stops them: a server that comes in the place of the caller, or of the callee, with the passwords of its
candidates. It has not the certificate that the session description names, and no page can make a browser connect to
another one. That a connection of the server's opens if its own certificate gets through is seen in
:func:`test_the_server_gets_in_between`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser

from bonevalue.errors import BoneValueError
from bonevalue.wire.blobs import Answer
from bonevalue.wire.signals import (
    Contact,
    Login,
    PeerConnect,
    PeerDisconnect,
    PeerRequest,
    PeerResponse,
    RemoveUser,
    SignedBlob,
    UserRemove,
)
from tests.browser.test_evil_lists import (
    changed_twice,
    knows_only,
    of_another_realm,
    ones_own_id,
    redeemed_by_the_server,
    redeemed_twice,
)
from tests.browser.test_evil_server import Between, given_to, mixed, passing_on, signed
from tests.e2e.test_evil_lists import FORGERIES, LIES, REMOVALS, another_key
from tests.e2e.test_evil_server import CHANGES, DETOURS, other_answer
from tests.e2e.test_key_change import keeps_from
from tests.support.crippled import library_without
from tests.support.evil import MALLORY, Actor, Cast, added, held, in_answers, open_stage, password_of
from tests.support.evil_tabs import NAMES, TabActor, befriend_all, join_tab, named, tab_of
from tests.support.processes import PATIENCE
from tests.support.tabs import eventually
from tests.support.waiting import until


class Company(Protocol):
    """Bring three on stage: the victims are tabs that lack these checks, the others are honest Python peers."""

    def __call__(self, victims: str, *checks: str, friends: bool = True) -> Awaitable[Cast]: ...


@contextlib.asynccontextmanager
async def open_company(
    folder: Path, browser: Browser, victims: str, *checks: str, friends: bool = True
) -> AsyncIterator[Cast]:
    """Those three, who trust each other or not, for the length of a block. Breaches are what is wanted here."""
    library = await asyncio.to_thread(library_without, *checks)
    async with open_stage(folder, *NAMES) as stage:

        async def join(name: str) -> Actor:
            return await (
                join_tab(stage, browser, name, library=library) if name in victims.split() else stage.join(name)
            )

        try:
            cast = Cast(stage, *await asyncio.gather(*map(join, NAMES)))
            if friends:
                await befriend_all(cast)
            yield cast
        finally:
            stage.breaches.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def company(tmp_path: Path, browser: Browser) -> AsyncIterator[Company]:
    async with contextlib.AsyncExitStack() as stack:
        yield lambda victims, *checks, friends=True: stack.enter_async_context(
            open_company(tmp_path, browser, victims, *checks, friends=friends)
        )


@contextlib.asynccontextmanager
async def asking(caller: Actor, query: str, whom: Actor) -> AsyncIterator[None]:
    """Call somebody meanwhile, whatever comes of it."""
    call = asyncio.create_task(caller._call(query, whom))
    try:
        yield
    finally:
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, BoneValueError):
            await call


async def accepts(victim: TabActor) -> None:
    """Wait until the victim gives the offer, or answer, to the browser, which it must not."""
    await eventually(victim.has_accepted, what=lambda: f"{victim.username} takes it; {victim.refusals}")


# -- offers and answers on their way -------------------------------------------------------------------------------

BETWEEN = "an offer is between these two"
#: For each attack on an offer or answer: the checks without which it succeeds.
STOPPED_BY: dict[str, tuple[str, ...]] = {
    "another fingerprint in the offer": ("signatures",),
    "another fingerprint in the answer": ("signatures",),
    "another fingerprint in both": ("signatures",),
    "an offer without its signature": ("signatures",),
    "an answer without its signature": ("signatures",),
    "an offer with one bit of the signature flipped": ("signatures",),
    "an answer with one bit of the signature flipped": ("signatures",),
    "an offer in alice's name, signed by the server": ("signatures",),
    "an answer in bob's name, signed by the server": ("signatures",),
    "an offer in the server's own name": ("only contacts call",),
    "an answer in the server's own name": ("signatures", "whoever signed is named"),
    "a newer date on the offer": ("signatures",),
    "her offer to bob is given to carol": (BETWEEN,),
    "her offer comes back to her": (BETWEEN,),
    "her offer comes back to her as bob's": (BETWEEN, "the caller has its alias"),
    "her offer is carol's, it says": (BETWEEN, "the caller has its alias"),
    "her offer is of a peer that nobody knows": (BETWEEN,),
    "bob's answer is carol's, it says": ("an answer is from whom was asked",),
}
#: Those that come to nothing even if nothing is checked, and why.
FUTILE = {
    "an offer with one bit flipped": "the last line of the session description is broken, and no browser takes it",
    "an answer with one bit flipped": "the last line of the session description is broken, and no browser takes it",
    "half an offer": "it cannot be read",
    "half an answer": "it cannot be read",
    "an answer of nothing at all": "it cannot be read",
    "bob's answer is given to carol": "she has asked nothing, so there is nothing that it could be an answer to",
    "bob's answer comes back to him": "he has asked nothing, so there is nothing that it could be an answer to",
}


def test_every_attack_has_its_control() -> None:
    assert set(STOPPED_BY) | set(FUTILE) == set(CHANGES) | set(DETOURS)
    assert not set(STOPPED_BY) & set(FUTILE)
    assert set(LIES) == set(LIES_STOPPED_BY)
    assert {each.__name__ for each in FORGERIES} == set(FORGERIES_STOPPED_BY)
    assert {each.__name__ for each in REMOVALS} == set(REMOVALS_STOPPED_BY)


@pytest.mark.parametrize("what", STOPPED_BY)
async def test_a_changed_or_misdirected_message_is_taken(company: Company, what: str) -> None:
    attacked = CHANGES[what][1] if what in CHANGES else DETOURS[what][1]
    cast = await company(attacked, *STOPPED_BY[what])
    cast.stage.attack(tamper=CHANGES[what][0] if what in CHANGES else DETOURS[what][0](cast))
    async with asking(cast.alice, "bob", cast.bob):
        await accepts(named(cast, attacked))


async def test_an_offer_of_carol_to_alice_is_taken_by_bob(company: Company) -> None:
    cast = await company("bob", BETWEEN)
    cast.stage.attack(tamper=given_to(to=cast.bob))
    async with asking(cast.carol, "alice", cast.alice):
        await accepts(tab_of(cast.bob))


async def test_an_offer_is_taken_by_another_tab_of_the_account(company: Company) -> None:
    cast = await company("alice", BETWEEN)
    second = await cast.stage.join("alice")
    await until(lambda: second.peer.get("Us").peers())
    cast.stage.attack(tamper=given_to(to=cast.alice))
    async with asking(second, "bob", cast.bob):
        await accepts(tab_of(cast.alice))


async def test_an_offer_is_taken_back_from_another_of_the_account(company: Company) -> None:
    cast = await company("alice", BETWEEN)
    second = await cast.stage.join("alice")
    await eventually(lambda: knows_only(tab_of(cast.alice), "Us", second))
    cast.stage.attack(tamper=given_to(to=cast.alice, from_=second))
    async with asking(cast.alice, second.id, second):
        await accepts(tab_of(cast.alice))


@pytest.mark.parametrize("are_told_apart_by", ["the sender", "what they answer"])
async def test_mixed_answers_are_taken(company: Company, are_told_apart_by: str) -> None:
    by_sender = are_told_apart_by == "the sender"
    content = ("signatures", "whoever signed is named", "an answer is to this offer")
    cast = await company("alice", *(("an answer is from whom was asked",) if by_sender else content))
    alice, bob, carol = tab_of(cast.alice), cast.bob, cast.carol
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    async with asking(alice, "bob", bob), asking(alice, "carol", carol):
        await until(lambda: len(kept) == 2)
        other = {bob.id: carol.id, carol.id: bob.id}
        swapped = [replace(message, from_=other[message.from_ or ""]) for message in kept]
        for message in swapped if by_sender else mixed(kept):
            cast.hub.post(message)
        await accepts(alice)


async def test_an_old_offer_is_taken(company: Company) -> None:
    cast = await company("bob", "an offer is new")
    alice, bob = cast.alice, tab_of(cast.bob)
    await alice.calls("bob", bob)
    for link in alice.links:
        link.close()
    await bob.unlinked()
    cast.stage.attack()
    cast.hub.post(cast.hub.offers()[-1])
    await accepts(bob)


async def test_an_old_answer_is_taken(company: Company) -> None:
    cast = await company("alice", "signatures")
    alice, bob = tab_of(cast.alice), cast.bob
    await alice.calls("bob", bob)
    old = cast.hub.answers()[-1]
    await alice.unlinked()

    def of_this_session(message: PeerResponse) -> PeerResponse:
        now = Answer.decode(message.answer or b"")
        return other_answer(old, session=now.session, offer_hash=now.offer_hash)

    cast.stage.attack(tamper=in_answers(of_this_session))
    async with asking(alice, "bob", bob):
        await accepts(alice)


async def test_an_old_offer_is_taken_by_a_tab_that_was_opened_anew(company: Company, browser: Browser) -> None:
    cast = await company("bob")
    await cast.alice.calls("bob", cast.bob)
    await cast.bob.leave()
    bob = await join_tab(cast.stage, browser, "bob", library=library_without(BETWEEN))
    cast.stage.attack()
    cast.hub.post(replace(cast.hub.offers()[-1], to=bob.id))
    await accepts(bob)


async def test_another_is_taken_under_an_old_peer_id(company: Company) -> None:
    cast = await company("alice", "a peer stays who it was")
    alice, old = tab_of(cast.alice), cast.bob
    await alice.calls("bob", old)
    await old.leave()
    with mock.patch.object(cast.hub._presence, "new_id", return_value=old.id):
        bob = await cast.stage.join("bob")
    assert bob.id == old.id
    await cast.stage.acquainted(alice, bob)
    await alice.unlinked()
    cast.stage.attack()
    async with asking(alice, "bob", bob):
        await accepts(alice)


@pytest.mark.parametrize("minutes", [6, -6])
async def test_a_wrong_clock_is_passed_over(company: Company, minutes: int) -> None:
    cast = await company("bob", "the clock")
    bob = tab_of(cast.bob)
    await bob.set_clock(minutes)
    async with asking(cast.alice, "bob", bob):
        await accepts(bob)


# -- in between ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.parametrize("disguise", ["the server's own names", "their names", "their names and signatures"])
async def test_the_server_gets_in_between(company: Company, disguise: str, victim: str) -> None:
    """Its own connection to the victim opens."""
    own: dict[str, Any] = {"from_key": MALLORY.public} if disguise == "the server's own names" else {}
    to_alice = ("signatures", "whoever signed is named") if own else ("signatures",)
    to_bob = ("only contacts call",) if own else ("signatures",)
    cast = await company(victim, *(to_alice if victim == "alice" else to_bob))
    between = Between(cast)
    cast.stage.attack(tamper=held(between.kept, PeerRequest))
    async with asking(cast.alice, "bob", cast.bob):
        await between.attack(own, (lambda message: message) if "signatures" in disguise else signed)
        await accepts(named(cast, victim))
        if victim == "bob":
            await until(cast.hub.answers)
            await between.to_bob.accept_answer(Answer.decode(cast.hub.answers()[-1].answer or b"").sdp)
        own_end = between.to_alice if victim == "alice" else between.to_bob
        await until(lambda: own_end.path() is not None)
    await between.close()


async def test_one_contact_is_taken_for_another(company: Company) -> None:
    """It takes two: whoever checks closes the link before the other has done anything."""
    cast = await company("alice bob", "the confirm")
    with passing_on(cast.carol.peer, cast.bob, cast.alice):
        cast.stage.attack()
        assert await cast.alice._call("carol", cast.carol) == "bob"
    assert cast.stage.breaches


# -- lies about contacts -------------------------------------------------------------------------------------------

KEY, ALIAS, ONE_ALIAS, NEWER = (
    "the key is the proved one",
    "the alias is the proved one",
    "one alias a key",
    "nothing newer",
)
FORGERIES_STOPPED_BY: dict[str, tuple[str, ...]] = {
    "another_key": (KEY, NEWER),
    "another_redeemer": ("signatures",),
    "another_redeemer_who_signs": ("signatures",),
    "another_token": ("signatures",),
    "another_pin": ("signatures",),
    "no_proof": ("some proof", NEWER),
}
LIES_STOPPED_BY: dict[str, tuple[str, ...]] = {
    "a new key under a known name": (KEY, NEWER),
    "an alias for another contact": (ALIAS, ONE_ALIAS, NEWER),
    "an alias for another contact's key": (KEY, ONE_ALIAS, NEWER),
    "another account's chain": ("some proof", NEWER),
    "a forged change of key": ("signatures",),
    "another's change of key": (KEY, NEWER),
}
REMOVALS_STOPPED_BY: dict[str, tuple[str, ...]] = {
    "removal_by_the_server": ("signatures",),
    "removal_of_the_server": ("the removal is of this contact",),
    "removal_of_another": ("the removal is ours",),
    "removal_before_the_trust": ("the removal is newer",),
}


async def believes(victim: Actor, contact: Contact) -> None:
    """Wait until a contact is taken for proved, with the key that the server says."""
    tab = tab_of(victim)
    await eventually(
        lambda: tab.believes(contact.name, contact.public_key), what=lambda: f"it is believed; {tab.refusals}"
    )


@pytest.mark.parametrize("forge", FORGERIES)
async def test_another_key_is_taken_from_a_redeemer(company: Company, forge: Callable[[Contact], Contact]) -> None:
    cast = await company("alice", *FORGERIES_STOPPED_BY[forge.__name__], friends=False)
    token = await cast.alice.peer.request_token("bob")
    cast.stage.attack(lie=added("alice", forge))
    await cast.bob.peer.claim_token("alice", token)
    await eventually(lambda: tab_of(cast.alice).believes("bob", MALLORY.public))


async def test_another_key_is_taken_from_an_inviter(company: Company) -> None:
    cast = await company("bob", KEY, NEWER, friends=False)
    token = await cast.alice.peer.request_token("bob")
    cast.stage.attack(lie=added("bob", another_key))
    with pytest.raises(BoneValueError):  # the token still names alice's own key
        await cast.bob.peer.claim_token("alice", token)
    await eventually(lambda: tab_of(cast.bob).believes("alice", MALLORY.public))


async def test_the_server_redeems_a_token(company: Company) -> None:
    cast = await company("alice", "signatures", friends=False)
    _, forged = await redeemed_by_the_server(cast)
    cast.stage.show(cast.alice, forged)
    await believes(cast.alice, forged)


async def test_one_redemption_makes_two_contacts(company: Company) -> None:
    cast = await company("alice", ALIAS, ONE_ALIAS, NEWER)
    twice = replace(cast.hub.contact("alice", "bob"), name="bobby")
    cast.stage.show(cast.alice, twice)
    await believes(cast.alice, twice)


async def test_two_redeem_one_token(company: Company) -> None:
    cast = await company("alice", "one claim a token", NEWER, friends=False)
    second = await redeemed_twice(cast)
    cast.stage.show(cast.alice, second)
    await believes(cast.alice, second)


@pytest.mark.parametrize("what", LIES)
async def test_a_lie_about_a_contact_is_believed(company: Company, what: str) -> None:
    cast = await company("alice", *LIES_STOPPED_BY[what])
    lie = LIES[what][0](cast)
    cast.stage.show(cast.alice, lie)
    # Once the next message has taken effect, this one has.
    cast.hub.tell(cast.alice.id, PeerDisconnect(cast.carol.id))
    await eventually(lambda: _knows_none(tab_of(cast.alice), "carol"))
    await believes(cast.alice, lie)


async def _knows_none(actor: TabActor, alias: str) -> bool:
    return not await actor.peers_of(alias)


async def test_a_key_changes_twice(company: Company) -> None:
    cast = await company("alice", "one change a key", KEY, NEWER)
    for contact in await changed_twice(cast):
        cast.stage.show(cast.alice, contact)
        await believes(cast.alice, contact)


# -- the end of trust ----------------------------------------------------------------------------------------------


async def holds(caller: Actor, callee: Actor) -> asyncio.Task[Any]:
    """A call that is under way, from a tab to a Python peer, for as long as nobody ends it."""
    begun = asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    callee.peer.module("Wait", wait)
    call = asyncio.create_task(tab_of(caller).tab.ask(target=callee.id, module="Wait", name="held"))
    await begun.wait()
    return call


@pytest.mark.parametrize("forge", REMOVALS)
async def test_a_forged_end_of_trust_cuts_links(company: Company, forge: Callable[[Cast], SignedBlob]) -> None:
    cast = await company("alice", *REMOVALS_STOPPED_BY[forge.__name__])
    call = await holds(cast.alice, cast.bob)
    cast.hub.tell(cast.alice.id, UserRemove("bob", forge(cast)))
    async with asyncio.timeout(PATIENCE):
        assert (await call)["error"]["code"] == "not_trusted"


@pytest.mark.parametrize("is_told", [True, False])
async def test_trust_comes_back(company: Company, is_told: bool) -> None:
    cast = await company("alice", "ended trust")
    before = cast.hub.contact("alice", "bob")
    cast.hub.pretended = () if is_told else (RemoveUser,)
    await cast.alice.peer.remove_user("bob")
    assert not await tab_of(cast.alice).believes("bob", before.public_key)
    cast.stage.show(cast.alice, before)
    await believes(cast.alice, before)


async def test_a_removal_stays_where_it_was_made(company: Company) -> None:
    cast = await company("alice", "removals are passed on")
    sister = await cast.stage.join("alice")
    await cast.stage.acquainted(sister, cast.bob)
    cast.stage.attack(lie=keeps_from(cast.alice))
    await cast.alice.peer.remove_user("bob")
    # What is passed on comes over a new link before the answer to a call does.
    await sister.calls(cast.alice.id, cast.alice)
    assert "bob" in sister.peer.aliases


# -- lies about who is online, and about itself --------------------------------------------------------------------


@pytest.mark.parametrize("alias", ["bob", "Us"])
async def test_a_call_for_another_is_taken(company: Company, alias: str) -> None:
    cast = await company("carol", BETWEEN)
    cast.hub.tell(cast.alice.id, PeerDisconnect(cast.bob.id))
    cast.hub.tell(cast.alice.id, PeerConnect(alias, cast.carol.id))
    await until(lambda: [peer.id for peer in cast.alice.peer.get(alias).peers()] == [cast.carol.id])
    async with asking(cast.alice, alias, cast.bob):
        await accepts(tab_of(cast.carol))


@pytest.mark.parametrize("alias", ["bob", "Us"])
async def test_a_call_for_another_goes_over_a_link(company: Company, alias: str) -> None:
    cast = await company("alice", "a link is to whom is called")
    alice, carol = tab_of(cast.alice), cast.carol
    call = await holds(alice, carol)
    cast.hub.tell(alice.id, PeerDisconnect(cast.bob.id))
    cast.hub.tell(alice.id, PeerConnect(alias, carol.id))
    await eventually(lambda: knows_only(alice, alias, carol))
    assert await alice._call(alias, cast.bob) == "carol"
    assert cast.stage.breaches
    await alice.tab.cancel("held")
    await call


async def test_one_s_own_id_is_taken(company: Company, browser: Browser) -> None:
    cast = await company("carol")
    cast.stage.attack(lie=ones_own_id())
    second = await join_tab(cast.stage, browser, "alice", library=library_without("nobody has its own id"))
    assert second.id in await second.peers_of("bob")


async def test_a_server_of_another_realm_is_shown_the_login(company: Company) -> None:
    cast = await company("alice", "the realm")
    cast.stage.attack(lie=of_another_realm)
    heard = len(cast.hub.heard)
    host = f"127.0.0.1:{cast.stage.server.port}"
    await tab_of(cast.alice).tab.outcome(
        "$BV.create().connect(value[0], 'alice', value[1])", [host, password_of("alice")]
    )
    assert [message for message in cast.hub.heard[heard:] if isinstance(message, Login)]
