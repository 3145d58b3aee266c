"""
A dishonest discovery server between real peers: what it can do to the offers and answers that it passes on.

The server is the real one, made to misbehave (tests/support/evil.py); connections are real ones. Whatever it tries, no
call is answered by the wrong party, whoever is attacked reports it with its code within five seconds, and as soon as
the server is honest again, everybody reaches everybody.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

import pytest
from msgspec.structs import replace

from bonevalue.link import IceConfig
from bonevalue.rtc import RtcConnection, RtcEngine
from bonevalue.wire.blobs import Answer, Offer
from bonevalue.wire.signals import Binary, PeerRequest, PeerResponse
from bonevalue_server.relay import Relayed
from tests.support.evil import (
    MALLORY,
    Actor,
    Cast,
    Stage,
    Tamper,
    flipped,
    foreign_fingerprint,
    in_answers,
    in_offers,
    retouched,
)
from tests.support.waiting import until


async def recovers(cast: Cast) -> None:
    """The server is honest again: everybody reaches everybody, over new links."""
    cast.stage.relent()
    actors = (cast.alice, cast.bob, cast.carol)
    for actor in actors:
        await actor.unlinked()
    for caller, callee in ((0, 1), (1, 0), (1, 2), (2, 0)):
        await actors[caller].calls(actors[callee].username, actors[callee])


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


@pytest.mark.parametrize("what", CHANGES)
async def test_a_changed_offer_or_answer(cast: Cast, what: str) -> None:
    tamper, attacked, code = CHANGES[what]
    cast.stage.attack(tamper=tamper)
    await cast.alice.fails("bob", cast.bob)
    await {"alice": cast.alice, "bob": cast.bob}[attacked].reports(code)
    assert not cast.alice.links and not cast.bob.links
    await recovers(cast)


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


@pytest.mark.parametrize("what", DETOURS)
async def test_an_offer_or_answer_that_goes_astray(cast: Cast, what: str) -> None:
    detour, attacked = DETOURS[what]
    cast.stage.attack(tamper=detour(cast))
    await cast.alice.fails("bob", cast.bob)
    await {"alice": cast.alice, "bob": cast.bob, "carol": cast.carol}[attacked].reports("identity_mismatch")
    assert not cast.alice.links and not cast.bob.links and not cast.carol.links
    await recovers(cast)


async def test_an_offer_of_carol_to_alice_is_given_to_bob(cast: Cast) -> None:
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=cast.bob.id)))
    await cast.carol.fails("alice", cast.alice)
    await cast.bob.reports("identity_mismatch")
    await recovers(cast)


async def test_an_offer_comes_back_through_another_process_of_the_account(cast: Cast) -> None:
    second, third = await cast.stage.join("alice"), await cast.stage.join("alice")
    await until(lambda: len(cast.alice.peer.get("Us").peers()) == 2)
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=third.id)))
    await cast.alice.fails("bob", cast.bob)
    await third.reports("identity_mismatch")
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=third.id)))
    await cast.alice.fails(second.id, second)
    await third.reports("identity_mismatch")
    cast.stage.attack(tamper=in_offers(lambda message: replace(message, to=cast.alice.id, from_=second.id)))
    await cast.alice.fails(second.id, second)
    await cast.alice.reports("identity_mismatch")
    cast.stage.relent()
    await cast.alice.calls(second.id, second)
    await cast.alice.calls(third.id, third)
    await recovers(cast)


async def test_the_answers_of_two_sessions_are_mixed(cast: Cast) -> None:
    alice, bob, carol = cast.alice, cast.bob, cast.carol
    other = {bob.id: carol.id, carol.id: bob.id}
    cast.stage.attack(tamper=in_answers(lambda message: replace(message, from_=other[message.from_ or ""])))
    await asyncio.gather(alice.fails("bob", bob), alice.fails("carol", carol))
    await alice.reports("identity_mismatch", about=bob.id)
    await alice.reports("identity_mismatch", about=carol.id)

    # And with the sessions that they should have had.
    held: list[PeerResponse] = []

    def exchange(message: PeerResponse) -> Iterable[Relayed]:
        held.append(message)
        if len(held) < 2:
            return
        for one, two in (held, held[::-1]):
            session = Answer.decode(two.answer or b"").session
            yield other_answer(replace(one, from_=two.from_), session=session)

    def tamper(message: Relayed) -> Iterable[Relayed]:
        is_answer = isinstance(message, PeerResponse) and message.answer is not None
        return exchange(message) if is_answer and isinstance(message, PeerResponse) else [message]

    cast.stage.attack(tamper=tamper)
    await asyncio.gather(alice.fails("bob", bob), alice.fails("carol", carol))
    assert len(held) == 2
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
    await cast.alice.fails("bob", cast.bob)
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
    await alice.fails("bob", bob)
    await alice.reports("identity_mismatch", about=bob.id)

    def of_this_session(message: PeerResponse) -> PeerResponse:
        answer = Answer.decode(message.answer or b"")
        return other_answer(old, session=answer.session, offer_hash=answer.offer_hash)

    cast.stage.attack(tamper=in_answers(of_this_session))
    await alice.fails("bob", bob)
    await alice.reports("identity_mismatch", about=bob.id)
    await recovers(cast)


async def test_an_answer_that_is_only_late_is_no_attack(cast: Cast) -> None:
    held: list[Relayed] = []

    def hold(message: Relayed) -> Iterable[Relayed]:
        if isinstance(message, PeerRequest):
            yield message
        else:
            held.append(message)

    cast.stage.attack(tamper=hold)
    assert (await cast.alice.fails("bob", cast.bob, timeout=0.5)).code == "deadline"
    await until(lambda: held)
    cast.stage.relent()
    cast.hub.post(held[0])
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
    await recovers(Cast(stage, alice, bob, cast.carol))
