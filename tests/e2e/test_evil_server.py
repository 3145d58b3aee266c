"""
A dishonest discovery server between real peers: what it can do to the offers and answers that it passes on.

The server is the real one, made to misbehave (tests/support/evil.py); connections are real ones. Whatever it tries, no
call is answered by the wrong party, whoever is attacked reports it with its code within five seconds, and as soon as
the server is honest again, everybody reaches everybody.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from bonevalue.link import IceConfig
from bonevalue.rtc import RtcConnection, RtcEngine
from bonevalue.wire.blobs import Answer, Offer, digest
from bonevalue.wire.signals import Binary, PeerRequest, PeerResponse
from bonevalue_server.relayed import Relayed
from tests.support.evil import (
    MALLORY,
    STANDING,
    Actor,
    Cast,
    Tamper,
    flipped,
    foreign_fingerprint,
    held,
    in_answers,
    in_offers,
    retouched,
)
from tests.support.waiting import until


async def recovers(cast: Cast) -> None:
    """The server is honest again: everybody reaches everybody, over new links."""
    cast.stage.relent()
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    await asyncio.gather(*(actor.unlinked() for actor in (alice, bob, carol)))
    await asyncio.gather(alice.calls("bob", bob), carol.calls("alice", alice), bob.calls("carol", carol))
    await asyncio.gather(bob.calls("alice", alice), alice.calls("carol", carol), carol.calls("bob", bob))


# -- one offer, one answer ---------------------------------------------------------------------------------------


def other_offer(message: PeerRequest, **changes: Any) -> PeerRequest:
    """The offer with other fields, and the signature that it had."""
    return replace(message, offer=retouched(message.offer, **changes))


def other_answer(message: PeerResponse, **changes: Any) -> PeerResponse:
    """The answer with other fields, and the signature that it had."""
    return replace(message, answer=retouched(message.answer or b"", **changes))


def signed(message: PeerRequest | PeerResponse) -> Relayed:
    """The same, signed by the server."""
    blob = message.offer if isinstance(message, PeerRequest) else message.answer or b""
    return replace(message, signature=Binary(MALLORY.sign(blob)))


def swapped(message: Relayed) -> Iterable[Relayed]:
    """Another certificate in offers and answers."""
    if isinstance(message, PeerRequest):
        return [replace(message, offer=foreign_fingerprint(message.offer))]
    if isinstance(message, PeerResponse) and message.answer:
        return [replace(message, answer=foreign_fingerprint(message.answer))]
    return [message]


#: When alice calls bob: what happens to the offer or the answer, who reports it, and how.
CHANGES: dict[str, tuple[Tamper, str, str]] = {
    "another fingerprint in the offer": (
        in_offers(lambda message: replace(message, offer=foreign_fingerprint(message.offer))),
        "bob",
        "identity_mismatch",
    ),
    "another fingerprint in the answer": (
        in_answers(lambda message: replace(message, answer=foreign_fingerprint(message.answer or b""))),
        "alice",
        "identity_mismatch",
    ),
    "another fingerprint in both": (swapped, "bob", "identity_mismatch"),
    "an offer without its signature": (
        in_offers(lambda message: replace(message, signature=Binary())),
        "bob",
        "identity_mismatch",
    ),
    "an answer without its signature": (
        in_answers(lambda message: replace(message, signature=None)),
        "alice",
        "identity_mismatch",
    ),
    "an offer with one bit of the signature flipped": (
        in_offers(lambda message: replace(message, signature=flipped(message.signature))),
        "bob",
        "identity_mismatch",
    ),
    "an answer with one bit of the signature flipped": (
        in_answers(lambda message: replace(message, signature=flipped(message.signature or b""))),
        "alice",
        "identity_mismatch",
    ),
    "an offer with one bit flipped": (
        in_offers(lambda message: replace(message, offer=flipped(message.offer))),
        "bob",
        "identity_mismatch",
    ),
    "an answer with one bit flipped": (
        in_answers(lambda message: replace(message, answer=flipped(message.answer or b""))),
        "alice",
        "identity_mismatch",
    ),
    "an offer in alice's name, signed by the server": (in_offers(signed), "bob", "identity_mismatch"),
    "an answer in bob's name, signed by the server": (in_answers(signed), "alice", "identity_mismatch"),
    "an offer in the server's own name": (
        in_offers(lambda message: signed(other_offer(message, from_key=MALLORY.public))),
        "bob",
        "not_trusted",
    ),
    "an answer in the server's own name": (
        in_answers(lambda message: signed(other_answer(message, from_key=MALLORY.public))),
        "alice",
        "identity_mismatch",
    ),
    "a newer date on the offer": (
        in_offers(lambda message: other_offer(message, issued=time.time_ns() // 1_000_000 + 1)),
        "bob",
        "identity_mismatch",
    ),
    "half an offer": (
        in_offers(lambda message: replace(message, offer=Binary(message.offer[:400]))),
        "bob",
        "protocol_error",
    ),
    "half an answer": (
        in_answers(lambda message: replace(message, answer=Binary((message.answer or b"")[:400]))),
        "alice",
        "identity_mismatch",
    ),
    "an answer of nothing at all": (
        in_answers(lambda message: replace(message, answer=Binary(), session=None)),
        "alice",
        "identity_mismatch",
    ),
}


@STANDING
@pytest.mark.parametrize("what", CHANGES)
async def test_a_changed_offer_or_answer(standing_cast: Cast, what: str) -> None:
    cast = standing_cast
    tamper, attacked, code = CHANGES[what]
    cast.stage.attack(tamper=tamper)
    async with cast.alice.trying("bob", cast.bob):
        await {"alice": cast.alice, "bob": cast.bob}[attacked].reports(code)
    assert not cast.alice.links and not cast.bob.links
    cast.stage.relent()
    await cast.alice.calls("bob", cast.bob)
    await cast.bob.calls("alice", cast.alice)


# -- offers and answers that go to another, or come from another -----------------------------------------------------

#: When alice calls bob: where the offer or the answer goes instead, or from whom it claims to be; who reports it.
DETOURS: dict[str, tuple[Callable[[Cast], Tamper], str]] = {
    "her offer to bob is given to carol": (
        lambda cast: in_offers(lambda message: replace(message, to=cast.carol.id)),
        "carol",
    ),
    "her offer comes back to her": (
        lambda cast: in_offers(lambda message: replace(message, to=cast.alice.id)),
        "alice",
    ),
    "her offer comes back to her as bob's": (
        lambda cast: in_offers(lambda message: replace(message, to=cast.alice.id, from_=cast.bob.id)),
        "alice",
    ),
    "her offer is carol's, it says": (
        lambda cast: in_offers(lambda message: replace(message, from_=cast.carol.id)),
        "bob",
    ),
    "her offer is of a peer that nobody knows": (
        lambda cast: in_offers(lambda message: replace(message, from_="4711")),
        "bob",
    ),
    "bob's answer is carol's, it says": (
        lambda cast: in_answers(lambda message: replace(message, from_=cast.carol.id)),
        "alice",
    ),
    "bob's answer is given to carol": (
        lambda cast: in_answers(lambda message: replace(message, to=cast.carol.id)),
        "carol",
    ),
    "bob's answer comes back to him": (
        lambda cast: in_answers(lambda message: replace(message, to=cast.bob.id, from_=cast.alice.id)),
        "bob",
    ),
}


@STANDING
@pytest.mark.parametrize("what", DETOURS)
async def test_an_offer_or_answer_that_goes_astray(standing_cast: Cast, what: str) -> None:
    cast = standing_cast
    detour, attacked = DETOURS[what]
    cast.stage.attack(tamper=detour(cast))
    async with cast.alice.trying("bob", cast.bob):
        await {"alice": cast.alice, "bob": cast.bob, "carol": cast.carol}[attacked].reports("identity_mismatch")
    assert not cast.alice.links and not cast.bob.links and not cast.carol.links
    await recovers(cast)


async def test_an_offer_of_carol_to_alice_is_given_to_bob(cast: Cast) -> None:
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=cast.bob.id)))
    async with cast.carol.trying("alice", cast.alice):
        await cast.bob.reports("identity_mismatch")
    await recovers(cast)


async def test_an_offer_comes_back_through_another_process_of_the_account(cast: Cast) -> None:
    second, third = await cast.stage.join("alice"), await cast.stage.join("alice")
    await until(lambda: len(cast.alice.peer.get("Us").peers()) == 2)
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=third.id)))
    async with cast.alice.trying("bob", cast.bob):
        await third.reports("identity_mismatch")
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=third.id)))
    async with cast.alice.trying(second.id, second):
        await third.reports("identity_mismatch")
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=cast.alice.id, from_=second.id)))
    async with cast.alice.trying(second.id, second):
        await cast.alice.reports("identity_mismatch")
    cast.stage.relent()
    await cast.alice.calls(second.id, second)
    await cast.alice.calls(third.id, third)
    await recovers(cast)


async def test_the_answers_of_two_sessions_are_mixed(cast: Cast) -> None:
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    other = {bob.id: carol.id, carol.id: bob.id}
    cast.stage.attack(tamper=in_answers(lambda message: replace(message, from_=other[message.from_ or ""])))
    async with alice.trying("bob", bob), alice.trying("carol", carol):
        await alice.reports("identity_mismatch", about=bob.id)
        await alice.reports("identity_mismatch", about=carol.id)

    # And with the sessions that they should have had.
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    async with alice.trying("bob", bob), alice.trying("carol", carol):
        await until(lambda: len(kept) == 2)
        for one, two in (kept, kept[::-1]):
            session = Answer.decode(two.answer or b"").session
            cast.hub.post(other_answer(replace(one, from_=two.from_), session=session))
        await alice.reports("identity_mismatch", about=bob.id)
        await alice.reports("identity_mismatch", about=carol.id)
    await recovers(cast)


# -- again -------------------------------------------------------------------------------------------------------


async def test_an_old_offer_again(cast: Cast) -> None:
    await cast.alice.calls("bob", cast.bob)
    old = cast.hub.offers()[-1]
    cast.stage.attack()
    cast.hub.post(old)
    error = await cast.bob.reports("identity_mismatch")
    assert "seen before" in error.message
    # The live link is none the worse for it; nor is a new one in the place of which the old offer comes.
    await cast.alice.calls("bob", cast.bob)
    await cast.alice.unlinked()
    cast.stage.attack(tamper=in_offers(lambda message: old))
    async with cast.alice.trying("bob", cast.bob):
        await cast.bob.reports("identity_mismatch")
    await recovers(cast)


async def test_an_old_answer_again(cast: Cast) -> None:
    alice, bob = cast.alice, cast.bob
    await alice.calls("bob", bob)
    old = cast.hub.answers()[-1]
    cast.stage.attack()
    cast.hub.post(old)
    await alice.reports("identity_mismatch", about=bob.id)
    await alice.calls("bob", bob)
    await alice.unlinked()

    cast.stage.attack(tamper=in_answers(lambda message: old))
    async with alice.trying("bob", bob):
        await alice.reports("identity_mismatch", about=bob.id)

    def of_this_session(message: PeerResponse) -> PeerResponse:
        answer = Answer.decode(message.answer or b"")
        return other_answer(old, session=answer.session, offer_hash=answer.offer_hash)

    cast.stage.attack(tamper=in_answers(of_this_session))
    await alice.fails("bob", bob)
    await alice.reports("identity_mismatch", about=bob.id)
    await recovers(cast)


async def test_an_answer_that_is_only_late_is_no_attack(cast: Cast) -> None:
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    async with cast.alice.trying("bob", cast.bob):
        await until(lambda: kept)
    cast.stage.relent()
    cast.hub.post(kept[0])
    await cast.alice.calls("bob", cast.bob)
    assert not cast.alice.refusals


async def test_an_old_offer_to_a_process_that_was_restarted(cast: Cast) -> None:
    stage, alice, bob = cast.stage, cast.alice, cast.bob
    await alice.calls("bob", bob)
    old, old_id = cast.hub.offers()[-1], bob.id
    await bob.leave()
    bob = await stage.join("bob")
    stage.attack()
    cast.hub.post(replace(old, to=bob.id))
    await bob.reports("identity_mismatch")
    await bob.leave()

    # Even if the server gives it the peer id that the old process had: bob believes the offer, and alice is not there.
    with mock.patch.object(cast.hub._presence, "new_id", return_value=old_id):
        bob = await stage.join("bob", pool={"connect_timeout": 2})
    assert bob.id == old_id
    stage.attack(tamper=lambda message: [message])
    cast.hub.post(old)
    await alice.reports("identity_mismatch")
    await bob.reports("connect_failed")
    assert not bob.links
    # Alice has met the old process under this id, so it stays the old one's.
    await alice.fails("bob", bob)
    await alice.reports("identity_mismatch", about=old_id)
    await bob.leave()
    bob = await stage.join("bob")
    await stage.acquainted(alice, bob)
    await stage.acquainted(cast.carol, bob)
    await recovers(Cast(stage, alice, bob, cast.carol))


# -- clocks --------------------------------------------------------------------------------------------------------


def set_clock(actor: Actor, minutes: float, *methods: str) -> None:
    """Let a peer sign, or check, by a clock that is so many minutes ahead."""
    introductions = actor.peer._links._introductions
    for name in methods or ("make_offer", "receive_offer", "make_answer", "receive_answer"):
        vars(introductions).pop(name, None)
        right = getattr(introductions, name)

        def wrong(*values: Any, right: Callable[..., Any] = right) -> Any:
            return right(*values[:-1], values[-1] + int(minutes * 60_000))

        if minutes:
            setattr(introductions, name, wrong)


def names_both_times(text: str, minutes: float) -> bool:
    """Whether two times are named that are so far apart."""
    moments = [datetime.fromisoformat(moment) for moment in re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?= UTC)", text)]
    return len(moments) == 2 and abs(abs(moments[1] - moments[0]).total_seconds() - minutes * 60) < 5


@pytest.mark.parametrize("minutes", [6, -6])
async def test_a_clock_that_is_wrong(cast: Cast, minutes: int) -> None:
    alice, bob = cast.alice, cast.bob
    set_clock(bob, minutes)
    cast.stage.attack()
    told = await alice.fails("bob", bob)
    error = await bob.reports("clock_skew")
    await alice.reports("clock_skew")
    assert told.code == "clock_skew"
    assert names_both_times(error.message, 6) and names_both_times(told.message, 6)
    cast.stage.attack()
    assert (await bob.fails("alice", alice)).code == "clock_skew"
    await alice.reports("clock_skew")

    set_clock(bob, 0)
    set_clock(bob, minutes, "make_answer")
    cast.stage.attack()
    told = await alice.fails("bob", bob)
    assert told.code == "clock_skew" and names_both_times(told.message, 6)
    await alice.reports("clock_skew")

    set_clock(bob, 0)
    set_clock(bob, minutes * 0.75)
    await recovers(cast)


# -- in between --------------------------------------------------------------------------------------------------


async def test_a_contact_passes_one_off_as_another(cast: Cast) -> None:
    """
    Unknown key share. Carol, whom both trust, calls bob with alice's session description and answers alice with bob's.

    Every signature is right. Alice and bob find each other, and each takes the other for carol; the server is honest.
    """
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    peer = carol.peer
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

    def keep(response: PeerResponse) -> None:
        if not passed_on.done():
            passed_on.set_result(response)

    with (
        mock.patch.object(peer._links._dialler, "answer", answer),
        mock.patch.object(peer._links._dialler, "receive_response", keep),
    ):
        cast.stage.attack()
        await alice.fails("carol", carol)
        await bob.reports("identity_mismatch")
        await alice.reports("identity_mismatch")
    assert passed_on.done() and not alice.links and not bob.links
    await recovers(cast)


def borrow_credentials(connection: RtcConnection, sdp: str) -> None:
    """Let a connection say the passwords of somebody else's candidates, which the server has read."""
    gathering = connection._ice.iceGatherer._connection
    for name, line in (("_local_username", "ice-ufrag"), ("_local_password", "ice-pwd")):
        found = re.search(rf"a={line}:(\S+)", sdp)
        assert found is not None
        setattr(gathering, name, found[1])


@pytest.mark.parametrize("disguise", ["the server's own names", "their names", "their names and signatures"])
async def test_the_server_in_between_with_connections_of_its_own(cast: Cast, disguise: str) -> None:
    """It answers alice in bob's place and calls bob in alice's, over connections, certificates and keys of its own."""
    alice, bob = cast.alice, cast.bob
    engine = RtcEngine()
    to_alice, to_bob = engine.connection(IceConfig()), engine.connection(IceConfig())
    kept: list[PeerRequest] = []

    def disguised(message: PeerRequest | PeerResponse) -> Relayed:
        return message if disguise == "their names and signatures" else signed(message)

    own: dict[str, Any] = {"from_key": MALLORY.public} if disguise == "the server's own names" else {}
    cast.stage.attack(tamper=held(kept, PeerRequest))
    call = asyncio.create_task(alice.fails("bob", bob))
    await until(lambda: kept)
    request = kept[0]
    offer = Offer.decode(request.offer)

    answer = Answer(
        offer.session, digest(request.offer), offer.issued, bob.keys.public, offer.from_key, bob.id, alice.id,
        secrets.token_bytes(16), await to_alice.accept_offer(offer.sdp),
    )  # fmt: skip
    blob = Binary(dataclasses.replace(answer, **own).encode())
    response = PeerResponse(alice.id, bob.id, blob, request.signature)
    cast.hub.post(disguised(response))
    assert (await call).code == "identity_mismatch"
    await alice.reports("identity_mismatch")

    forged = other_offer(request, sdp=await to_bob.create_offer(), **own)
    cast.hub.post(disguised(forged))
    await bob.reports("not_trusted" if own else "identity_mismatch")
    await asyncio.gather(to_alice.close(), to_bob.close())
    assert to_alice.path() is None and to_bob.path() is None
    await recovers(cast)


async def test_the_server_takes_the_place_of_the_caller(cast: Cast) -> None:
    """Bob gets alice's own offer, and the server comes with the passwords in it: it has not her certificate."""
    alice, bob = cast.alice, cast.bob
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
    error = await bob.reports("connect_failed")
    assert "certificate" in error.message and not bob.links
    await to_bob.close()
    await recovers(cast)


async def test_the_server_takes_the_place_of_the_callee(cast: Cast) -> None:
    """Alice gets bob's own answer, bob is gone, and the server is there with the passwords in it."""
    alice, bob = cast.alice, cast.bob
    to_alice = RtcEngine().connection(IceConfig())
    kept: list[PeerResponse] = []
    cast.stage.attack(tamper=held(kept, PeerResponse))
    call = asyncio.create_task(alice.fails("bob", bob))
    await until(lambda: kept)
    answer = kept.pop()
    borrow_credentials(to_alice, Answer.decode(answer.answer or b"").sdp)
    await to_alice.accept_offer(Offer.decode(cast.hub.offers()[-1].offer).sdp)
    await bob.leave()
    cast.stage.began = asyncio.get_running_loop().time()
    cast.hub.post(answer)
    error = await alice.reports("connect_failed")
    assert "certificate" in error.message and (await call).code == "connect_failed" and not alice.links
    await to_alice.close()
    cast.stage.relent()
    bob = await cast.stage.join("bob")
    await cast.stage.acquainted(alice, bob)
    await cast.stage.acquainted(cast.carol, bob)
    await recovers(Cast(cast.stage, alice, bob, cast.carol))
