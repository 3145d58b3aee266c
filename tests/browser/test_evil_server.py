"""
A dishonest discovery server against tabs: the attacks of tests/e2e/test_evil_server.py, on offers and answers.

Whoever is attacked is a tab. Whatever the server tries, no call is answered by the wrong party and none is served for
it, and the tab reports the attack with its code within five seconds. That each attack would succeed, and be seen to,
if the tab did not check: test_evil_control.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace
from playwright.async_api import Browser

from bonevalue.link import IceConfig
from bonevalue.peer import Peer
from bonevalue.rtc import RtcEngine
from bonevalue.wire.blobs import Answer, Offer, digest
from bonevalue.wire.signals import Binary, PeerRequest, PeerResponse
from tests.e2e.test_evil_server import CHANGES, DETOURS, borrow_credentials, other_answer, other_offer
from tests.support.evil import MALLORY, Actor, Cast, Tamper, held, in_answers, in_offers
from tests.support.evil_tabs import TabActor, is_quiet, join_tab, named, nobody_linked, recovers, tab_of
from tests.support.tabs import eventually
from tests.support.waiting import until

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


async def test_an_offer_of_carol_to_alice_is_given_to_bob(standing_cast: Cast) -> None:
    cast = standing_cast
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=cast.bob.id)))
    async with cast.carol.trying("alice", cast.alice):
        await cast.bob.reports("identity_mismatch")
    await nobody_linked(cast)
    await recovers(cast)


def given_to(*, to: Actor, from_: Actor | None = None) -> Tamper:
    """Every offer goes to another, and is from another perhaps."""
    return in_offers(lambda message: replace(message, to=to.id, from_=message.from_ if from_ is None else from_.id))


async def test_an_offer_comes_back_through_another_tab_of_the_account(standing_cast: Cast, browser: Browser) -> None:
    cast = standing_cast
    alice = cast.alice
    second, third = [await join_tab(cast.stage, browser, "alice") for _ in range(2)]
    await eventually(lambda: _knows_own(tab_of(alice), second, third))
    for query, whom in (("bob", cast.bob), (second.id, second)):
        cast.stage.attack(tamper=given_to(to=third))
        async with alice.trying(query, whom):
            await third.reports("identity_mismatch")
    cast.stage.attack(tamper=given_to(to=alice, from_=second))
    async with alice.trying(second.id, second):
        await alice.reports("identity_mismatch")
    assert not await second.linked() and not await third.linked()
    await nobody_linked(cast)
    cast.stage.relent()
    await alice.calls(second.id, second)
    await alice.calls(third.id, third)
    await asyncio.gather(second.leave(), third.leave())
    await recovers(cast)


async def _knows_own(actor: TabActor, *others: Actor) -> bool:
    return {other.id for other in others} <= set(await actor.peers_of("Us"))


def mixed(kept: list[PeerResponse]) -> list[PeerResponse]:
    """The answers of bob and carol to alice, each with the session of the other's."""
    return [
        other_answer(replace(one, from_=two.from_), session=Answer.decode(two.answer or b"").session)
        for one, two in (kept, kept[::-1])
    ]


async def test_the_answers_of_two_sessions_are_mixed(standing_cast: Cast) -> None:
    cast = standing_cast
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    other = {bob.id: carol.id, carol.id: bob.id}
    cast.stage.attack(tamper=in_answers(lambda message: replace(message, from_=other[message.from_ or ""])))
    async with alice.trying("bob", bob), alice.trying("carol", carol):
        await alice.reports("identity_mismatch", about=bob.id)
        await alice.reports("identity_mismatch", about=carol.id)
    await is_quiet(cast)

    # And with the sessions that they should have had.
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    async with alice.trying("bob", bob), alice.trying("carol", carol):
        await until(lambda: len(kept) == 2)
        for message in mixed(kept):
            cast.hub.post(message)
        await alice.reports("identity_mismatch", about=bob.id)
        await alice.reports("identity_mismatch", about=carol.id)
    assert not await tab_of(alice).has_accepted()
    await recovers(cast)


async def test_an_answer_that_is_only_late_is_no_attack(standing_cast: Cast) -> None:
    cast = standing_cast
    alice = cast.alice
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    async with alice.trying("bob", cast.bob):
        await until(lambda: kept)
    cast.stage.relent()
    cast.hub.post(kept[0])
    await alice.calls("bob", cast.bob)
    assert not [refusal for refusal in alice.refusals if refusal.moment >= cast.stage.began]


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


async def test_an_old_offer_to_a_tab_that_was_opened_anew(cast: Cast, browser: Browser) -> None:
    stage, alice, bob = cast.stage, cast.alice, tab_of(cast.bob)
    await alice.calls("bob", bob)
    old, old_id = cast.hub.offers()[-1], bob.id
    await bob.leave()
    bob = await join_tab(stage, browser, "bob")
    stage.attack()
    cast.hub.post(replace(old, to=bob.id))
    await bob.reports("identity_mismatch")
    assert not await bob.has_accepted()
    await bob.leave()

    # Even if the server gives it the peer id that the old tab had: bob believes the offer, and alice is not there.
    with mock.patch.object(cast.hub._presence, "new_id", return_value=old_id):
        bob = await join_tab(stage, browser, "bob")
    assert bob.id == old_id
    stage.attack(tamper=lambda message: [message])
    cast.hub.post(old)
    await alice.reports("identity_mismatch")
    await eventually(lambda: came_to(bob, "failed"), 15)
    assert not await came_to(bob, "proof") and not await bob.linked()
    # Alice has met the old tab under this id, so it stays the old one's.
    stage.attack()
    await alice.fails("bob", bob)
    await alice.reports("identity_mismatch", about=old_id)
    await bob.leave()
    stage.relent()
    bob = await join_tab(stage, browser, "bob")
    await stage.acquainted(alice, bob)
    await stage.acquainted(cast.carol, bob)
    await recovers(Cast(stage, alice, bob, cast.carol))


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
    await eventually(lambda: came_to(bob, "failed"), 15)
    assert not await came_to(bob, "proof") and not await came_to(bob, "open")
    await to_bob.close()
    await recovers(cast)


async def test_the_server_takes_the_place_of_the_callee(cast: Cast, browser: Browser) -> None:
    """Alice gets bob's own answer, bob is gone, and the server is there with the passwords in it."""
    alice, bob = tab_of(cast.alice), tab_of(cast.bob)
    to_alice = RtcEngine().connection(IceConfig())
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    call = asyncio.create_task(alice.fails("bob", bob))
    await until(lambda: kept)
    answer = kept.pop()
    borrow_credentials(to_alice, Answer.decode(answer.answer or b"").sdp)
    await to_alice.accept_offer(Offer.decode(cast.hub.offers()[-1].offer).sdp)
    await bob.leave()
    cast.hub.post(answer)
    assert (await call).code in ("connect_failed", "deadline", "no_target")
    assert await alice.has_accepted()
    assert not await came_to(alice, "proof") and not await came_to(alice, "open")
    await to_alice.close()
    cast.stage.relent()
    bob = await join_tab(cast.stage, browser, "bob")
    await cast.stage.acquainted(alice, bob)
    await cast.stage.acquainted(cast.carol, bob)
    await recovers(Cast(cast.stage, alice, bob, cast.carol))


async def came_to(actor: TabActor, state: str) -> bool:
    """Whether one of its links, or attempts, has come to this state since :meth:`TabActor.unlinked`."""
    return state in [each for each, _ in await actor.tab.evaluate("states")]


@contextmanager
def passing_on(peer: Peer, bob: Actor, alice: Actor) -> Iterator[asyncio.Future[PeerResponse]]:
    """Let a peer of carol call bob with the session description of whoever calls it, and pass the answer back."""
    passed_on: asyncio.Future[PeerResponse] = asyncio.get_running_loop().create_future()

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

    def receive(response: PeerResponse) -> None:
        if not passed_on.done():  # else it is about another try, which carol leaves alone
            passed_on.set_result(response)

    with (
        mock.patch.object(peer._links._dialler, "answer", answer),
        mock.patch.object(peer._links._dialler, "receive_response", receive),
    ):
        yield passed_on


async def carol_as_a_daemon(cast: Cast) -> Actor:
    """A Python peer of carol, in the place of her tab."""
    await cast.carol.leave()
    carol = await cast.stage.join("carol")
    await cast.stage.acquainted(cast.alice, carol)
    await cast.stage.acquainted(cast.bob, carol)
    return carol


async def test_a_contact_passes_one_off_as_another(cast: Cast) -> None:
    """
    Unknown key share. Carol, whom both trust, calls bob with alice's session description and answers alice with bob's.

    Every signature is right. Alice and bob find each other, and each takes the other for carol; the server is honest.
    """
    alice, bob, carol = cast.alice, cast.bob, await carol_as_a_daemon(cast)
    with passing_on(carol.peer, bob, alice) as passed_on:
        cast.stage.attack()
        await alice.fails("carol", carol)
        await bob.reports("identity_mismatch")
        await alice.reports("identity_mismatch")
    assert passed_on.done()
    await alice.calls("bob", bob)
    await alice.calls("carol", carol)
