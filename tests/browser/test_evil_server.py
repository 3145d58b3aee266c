"""
A dishonest discovery server against tabs: the attacks of tests/e2e/test_evil_server.py and test_evil_lists.py.

Whoever is attacked is a tab. Whatever the server tries, no call is answered by the wrong party and none is served for
it, and the tab reports the attack with its code within five seconds. A control does the same to tabs that believe
everything: there each attack gets through, so it would be seen here if it did.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from unittest import mock

import pytest
import pytest_asyncio
from msgspec.structs import replace
from playwright.async_api import Browser

from bonevalue.link import IceConfig
from bonevalue.rtc import RtcEngine
from bonevalue.wire.blobs import Answer, Invite, Offer, digest
from bonevalue.wire.keys import fingerprint
from bonevalue.wire.signals import (
    Binary,
    ClaimToken,
    Contact,
    Hello,
    PeerConnect,
    PeerDisconnect,
    PeerRequest,
    PeerResponse,
    RemoveUser,
    SignedBlob,
    UserRemove,
)
from tests.e2e.test_evil_lists import FORGERIES, LIES, REMOVALS, certificate
from tests.e2e.test_evil_server import CHANGES, DETOURS, borrow_credentials, other_answer, other_offer
from tests.support.evil import (
    MALLORY,
    Actor,
    Cast,
    added,
    held,
    in_answers,
    in_offers,
    open_stage,
    password_of,
)
from tests.support.evil_tabs import TabActor, gullible, join_tab
from tests.support.tabs import eventually
from tests.support.waiting import until

NAMES = ("alice", "bob", "carol")


async def befriend_all(cast: Cast) -> None:
    """All three trust each other."""
    for one, other in ((cast.alice, cast.bob), (cast.alice, cast.carol), (cast.bob, cast.carol)):
        await cast.stage.befriend(one, other)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def repertory(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Cast]:
    async with open_stage(tmp_path_factory.mktemp("stage"), *NAMES) as stage:
        cast = Cast(stage, *await asyncio.gather(*(join_tab(stage, browser, name) for name in NAMES)))
        await befriend_all(cast)
        yield cast


@pytest_asyncio.fixture(loop_scope="session")
async def standing_cast(repertory: Cast) -> AsyncIterator[Cast]:
    """Three tabs, for tests that leave everybody where they are; without links at the beginning."""
    await is_quiet(repertory)
    yield repertory
    repertory.stage.relent()
    breaches, repertory.stage.breaches = repertory.stage.breaches, []
    assert not breaches, breaches


@pytest_asyncio.fixture(loop_scope="session")
async def strangers(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Cast]:
    """Three tabs that do not trust each other, for one test."""
    async with open_stage(tmp_path_factory.mktemp("stage"), *NAMES) as stage:
        yield Cast(stage, *await asyncio.gather(*(join_tab(stage, browser, name) for name in NAMES)))


@pytest_asyncio.fixture(loop_scope="session")
async def cast(strangers: Cast) -> Cast:
    """Three tabs that all trust each other, for one test."""
    await befriend_all(strangers)
    return strangers


def tab_of(actor: Actor) -> TabActor:
    """The actor, which is a tab."""
    assert isinstance(actor, TabActor)
    return actor


def named(cast: Cast, name: str) -> TabActor:
    """One of the three."""
    return tab_of({"alice": cast.alice, "bob": cast.bob, "carol": cast.carol}[name])


async def is_quiet(cast: Cast) -> None:
    """Nobody has a link."""
    cast.stage.relent()
    await asyncio.gather(*(actor.unlinked() for actor in (cast.alice, cast.bob, cast.carol)))


async def nobody_linked(cast: Cast) -> None:
    """Nobody has a link that is authenticated."""
    for actor in (cast.alice, cast.bob, cast.carol):
        assert await tab_of(actor).linked() == []


async def recovers(cast: Cast) -> None:
    """The server is honest again: everybody reaches everybody, over new links."""
    await is_quiet(cast)
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    await asyncio.gather(alice.calls("bob", bob), carol.calls("alice", alice), bob.calls("carol", carol))
    await asyncio.gather(bob.calls("alice", alice), alice.calls("carol", carol), carol.calls("bob", bob))


# -- offers and answers on their way -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", CHANGES)
async def test_a_changed_offer_or_answer(standing_cast: Cast, what: str) -> None:
    cast = standing_cast
    tamper, attacked, code = CHANGES[what]
    cast.stage.attack(tamper=tamper)
    async with cast.alice.trying("bob", cast.bob):
        await named(cast, attacked).reports(code)
    assert not await named(cast, attacked).has_accepted()
    await nobody_linked(cast)
    cast.stage.relent()
    await cast.alice.calls("bob", cast.bob)
    await cast.bob.calls("alice", cast.alice)


@pytest.mark.parametrize("what", DETOURS)
async def test_an_offer_or_answer_that_goes_astray(standing_cast: Cast, what: str) -> None:
    cast = standing_cast
    detour, attacked = DETOURS[what]
    cast.stage.attack(tamper=detour(cast))
    async with cast.alice.trying("bob", cast.bob):
        await named(cast, attacked).reports("identity_mismatch")
    await nobody_linked(cast)
    await recovers(cast)


async def test_an_old_offer_and_an_old_answer_again(standing_cast: Cast) -> None:
    cast = standing_cast
    alice, bob = cast.alice, cast.bob
    await alice.calls("bob", bob)
    offer, answer = cast.hub.offers()[-1], cast.hub.answers()[-1]
    cast.stage.attack()
    cast.hub.post(offer)
    assert "seen before" in (await bob.reports("identity_mismatch")).message
    cast.stage.attack()
    cast.hub.post(answer)
    await alice.reports("identity_mismatch", about=bob.id)
    await is_quiet(cast)

    cast.stage.attack(tamper=in_offers(lambda message: offer))
    async with alice.trying("bob", bob):
        await bob.reports("identity_mismatch")
    cast.stage.attack(tamper=in_answers(lambda message: answer))
    async with alice.trying("bob", bob):
        await alice.reports("identity_mismatch", about=bob.id)

    def of_this_session(message: PeerResponse) -> PeerResponse:
        now = Answer.decode(message.answer or b"")
        return other_answer(answer, session=now.session, offer_hash=now.offer_hash)

    cast.stage.attack(tamper=in_answers(of_this_session))
    async with alice.trying("bob", bob):
        await alice.reports("identity_mismatch", about=bob.id)
    await recovers(cast)


@pytest.mark.parametrize("minutes", [6, -6])
async def test_a_clock_that_is_wrong(standing_cast: Cast, minutes: int) -> None:
    cast = standing_cast
    alice, bob = cast.alice, tab_of(cast.bob)
    await bob.set_clock(minutes)
    try:
        cast.stage.attack()
        told = await alice.fails("bob", bob)
        error = await bob.reports("clock_skew")
        await alice.reports("clock_skew")
        assert told.code == "clock_skew"
        both = [datetime.fromisoformat(text) for text in re.findall(r"\d{4}-\S+Z", error.message)]
        assert len(both) == 2 and abs(abs(both[1] - both[0]).total_seconds() - 6 * 60) < 10
    finally:
        await bob.set_clock(0)
    await recovers(cast)


# -- in between ----------------------------------------------------------------------------------------------------


class Between:
    """The server with connections of its own: one that answers alice in bob's place, one that calls bob in hers."""

    def __init__(self, cast: Cast) -> None:
        engine = RtcEngine()
        self.cast = cast
        self.to_alice, self.to_bob = engine.connection(IceConfig()), engine.connection(IceConfig())
        self.kept: list[PeerRequest] = []

    async def attack(self, own: dict[str, Any], disguise: Callable[[Any], Any]) -> None:
        """Hold alice's offer, answer it, and make another one for bob."""
        cast, bob = self.cast, self.cast.bob
        await until(lambda: self.kept)
        request = self.kept[0]
        offer = Offer.decode(request.offer)
        answer = Answer(
            offer.session, digest(request.offer), offer.issued, bob.keys.public, offer.from_key, bob.id, cast.alice.id,
            secrets.token_bytes(16), await self.to_alice.accept_offer(offer.sdp),
        )  # fmt: skip
        blob = Binary(dataclasses.replace(answer, **own).encode())
        cast.hub.post(disguise(PeerResponse(cast.alice.id, bob.id, blob, request.signature)))
        cast.hub.post(disguise(other_offer(request, sdp=await self.to_bob.create_offer(), **own)))

    async def close(self) -> None:
        await asyncio.gather(self.to_alice.close(), self.to_bob.close())


def signed(message: Any) -> Any:
    """The same, signed by the server."""
    blob = message.offer if isinstance(message, PeerRequest) else message.answer
    return replace(message, signature=Binary(MALLORY.sign(blob)))


@pytest.mark.parametrize("disguise", ["the server's own names", "their names", "their names and signatures"])
async def test_the_server_in_between_with_connections_of_its_own(standing_cast: Cast, disguise: str) -> None:
    cast = standing_cast
    own: dict[str, Any] = {"from_key": MALLORY.public} if disguise == "the server's own names" else {}
    between = Between(cast)
    cast.stage.attack(tamper=held(between.kept, PeerRequest))
    async with cast.alice.trying("bob", cast.bob):
        await between.attack(own, (lambda message: message) if "signatures" in disguise else signed)
        await cast.alice.reports("identity_mismatch")
        await cast.bob.reports("not_trusted" if own else "identity_mismatch")
    await between.close()
    assert between.to_alice.path() is None and between.to_bob.path() is None
    await recovers(cast)


async def test_the_server_takes_the_place_of_the_caller(standing_cast: Cast) -> None:
    """Bob gets alice's own offer, and the server comes with the passwords in it: it has not her certificate."""
    cast = standing_cast
    alice, bob = cast.alice, tab_of(cast.bob)
    to_bob = RtcEngine().connection(IceConfig())
    offers: list[PeerRequest] = []
    cast.stage.attack(tamper=held(offers, PeerRequest))
    async with alice.trying("bob", bob):
        await until(lambda: offers)
    borrow_credentials(to_bob, Offer.decode(offers[0].offer).sdp)
    await to_bob.create_offer()
    answers: list[PeerResponse] = []
    cast.stage.attack(tamper=held(answers, PeerResponse))
    cast.hub.post(offers[0])
    await until(lambda: answers)
    await to_bob.accept_answer(Answer.decode(answers[0].answer or b"").sdp)
    await eventually(lambda: _came_to(bob, "failed"), 15)
    assert not await _came_to(bob, "proof") and not await _came_to(bob, "open")
    await to_bob.close()
    await recovers(cast)


async def _came_to(actor: TabActor, state: str) -> bool:
    return state in [each for each, _ in await actor.tab.evaluate("states")]


async def test_a_contact_passes_one_off_as_another(cast: Cast, browser: Browser) -> None:
    """
    Unknown key share. Carol, whom both trust, calls bob with alice's session description and answers alice with bob's.

    Every signature is right. Alice and bob find each other, and each takes the other for carol; the server is honest.
    """
    stage, alice, bob = cast.stage, cast.alice, cast.bob
    await cast.carol.leave()
    carol = await stage.join("carol")
    await stage.acquainted(alice, carol)
    await stage.acquainted(bob, carol)
    passed_on: asyncio.Future[PeerResponse] = asyncio.get_running_loop().create_future()
    peer = carol.peer

    async def answer(request: PeerRequest, name: str | None, *others: Any) -> None:
        introductions, now_ms = peer._links._introductions, time.time_ns() // 1_000_000
        incoming = introductions.receive_offer(request.from_ or "", name, request.offer, request.signature, now_ms)
        outgoing = introductions.make_offer(secrets.token_bytes(16), bob.id, "bob", incoming.sdp, now_ms)
        peer._discovery.send(PeerRequest(bob.id, None, Binary(outgoing.blob), Binary(outgoing.signature)))
        theirs = await passed_on
        sdp, _ = introductions.receive_answer(
            outgoing, theirs.from_ or "", theirs.answer or b"", theirs.signature or b"", now_ms
        )
        blob, signature, _ = introductions.make_answer(incoming, sdp, now_ms)
        peer._discovery.send(PeerResponse(alice.id, None, Binary(blob), Binary(signature)))

    with (
        mock.patch.object(peer._links._dialler, "answer", answer),
        mock.patch.object(peer._links._dialler, "receive_response", passed_on.set_result),
    ):
        stage.attack()
        await alice.fails("carol", carol)
        await bob.reports("identity_mismatch")
        await alice.reports("identity_mismatch")
    assert passed_on.done()
    await alice.calls("bob", bob)
    await alice.calls("carol", carol)


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


async def test_two_redemptions_of_one_token(strangers: Cast) -> None:
    alice, bob, carol = tab_of(strangers.alice), strangers.bob, tab_of(strangers.carol)
    token = await strangers.stage.befriend(alice, bob)
    refused = await carol.tab.outcome("$BV.claimToken('alice', value)", token)
    assert refused["error"]["code"] == "token_used"
    # The honest server refuses the second one; a dishonest one has it, and shows it.
    claim = [message for message in strangers.hub.heard if isinstance(message, ClaimToken)][-1]
    invite = certificate(strangers.hub.contact("alice", "bob"), Invite)
    second = SignedBlob(claim.redeem, claim.signatures)
    strangers.stage.attack()
    strangers.stage.show(alice, Contact("bob", Binary(carol.keys.public), [invite, second]))
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

    async def believes() -> bool:
        return bool(await alice.tab.evaluate("([name, id]) => $BV.get(name).peers()[0]?.id === id", [alias, carol.id]))

    await eventually(believes)
    await alice.fails(alias, meant)
    await carol.reports("identity_mismatch")
    cast.hub.tell(alice.id, PeerConnect("carol", carol.id))
    cast.hub.tell(alice.id, PeerConnect("bob", cast.bob.id))
    await cast.stage.acquainted(alice, cast.bob)
    await alice.calls("bob", cast.bob)
    await alice.calls("carol", carol)


async def test_a_server_of_another_realm_is_shown_nothing(standing_cast: Cast, browser: Browser) -> None:
    cast = standing_cast

    def lie(username: str, message: Any) -> list[Any]:
        return [replace(message, realm="evil.example") if isinstance(message, Hello) else message]

    cast.stage.attack(lie=lie)
    heard = len(cast.hub.heard)
    tab = tab_of(cast.alice).tab
    host, password = f"127.0.0.1:{cast.stage.server.port}", password_of("alice")
    for attempt in ("$BV.create().connect", "$BV.register"):
        refused = await tab.outcome(f"{attempt}(value[0], 'alice', value[1])", [host, password])
        assert refused["error"]["code"] == "realm_mismatch" and "evil.example" in refused["error"]["message"]
    assert cast.hub.heard[heard:] == []
    text = repr(cast.hub.heard)
    assert cast.alice.keys.login not in text and password not in text


# -- the control: tabs that believe everything ---------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def believers(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> AsyncIterator[Cast]:
    async with open_stage(tmp_path_factory.mktemp("believers"), *NAMES) as stage:
        cast = Cast(
            stage, *await asyncio.gather(*(join_tab(stage, browser, name, library=gullible()) for name in NAMES))
        )
        await befriend_all(cast)
        yield cast


#: What comes to nothing without any check of identity: what cannot be read, names a key that nobody knows, or answers
#: what was never asked.
FUTILE = {
    "half an offer",
    "half an answer",
    "an answer of nothing at all",
    "an offer in the server's own name",
    "an offer with one bit flipped",
    "an answer with one bit flipped",
    "bob's answer is carol's, it says",
    "bob's answer is given to carol",
    "bob's answer comes back to him",
}


@pytest.mark.parametrize("what", [what for what in (*CHANGES, *DETOURS) if what not in FUTILE])
async def test_whoever_believes_everything_takes_what_was_changed(believers: Cast, what: str) -> None:
    cast = believers
    await is_quiet(cast)
    tamper, attacked = CHANGES[what][:2] if what in CHANGES else (DETOURS[what][0](cast), DETOURS[what][1])
    cast.stage.attack(tamper=tamper)
    victim = named(cast, attacked)
    calling = asyncio.create_task(cast.alice.tab.ask(target="bob", module="Who", name="try", options={"timeout": 10}))  # type: ignore[attr-defined]
    try:
        await eventually(victim.has_accepted, 5, what=f"{attacked} takes it; it reported {victim.refusals}")
    finally:
        await cast.alice.tab.cancel("try")  # type: ignore[attr-defined]
        await calling
        cast.stage.breaches.clear()


@pytest.mark.parametrize("forge", [forge for forge in FORGERIES if forge.__name__ not in ("another_key", "no_proof")])
async def test_whoever_believes_everything_takes_another_key(
    tmp_path_factory: pytest.TempPathFactory, browser: Browser, forge: Callable[[Contact], Contact]
) -> None:
    async with open_stage(tmp_path_factory.mktemp("stage"), "alice", "bob") as stage:
        alice, bob = await join_tab(stage, browser, "alice", library=gullible()), await stage.join("bob")
        token = await alice.peer.request_token("bob")
        stage.attack(lie=added("alice", forge))
        await bob.peer.claim_token("alice", token)
        await eventually(lambda: _has_taken(alice, fingerprint(MALLORY.public)))
        stage.relent()


async def _has_taken(actor: TabActor, key: str) -> bool:
    return key in str(await actor.tab.evaluate("$BV.contacts()"))
