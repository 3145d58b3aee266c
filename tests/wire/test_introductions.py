"""Offers, answers and confirms: who is at the other end, whatever the server and third accounts do in between."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import (
    BoneValueError,
    Busy,
    ClockSkew,
    IdentityMismatch,
    LocalProtocolError,
    NotTrusted,
    RemoteProtocolError,
)
from bonevalue.wire import introductions
from bonevalue.wire.blobs import CLOCK_WINDOW, MAX_SDP, Answer, Confirm, Offer, digest
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.introductions import MEMORY, IncomingOffer, Introductions, OutgoingOffer, Proof, check_sdp
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.signals import Binary, PeerRequest, PeerResponse
from tests.support.identity import MINUTE, NOW, SDP, account, entry, pin, remove, seed

ALICE, BOB, CAROL, MALLORY = (account(name) for name in ("alice", "bob", "carol", "mallory"))
NAMES = {"alice": ALICE, "bob": BOB, "carol": CAROL}
SESSION = seed("session", 16)
#: Session descriptions that can be told apart.
SDP_A, SDP_B = SDP.replace("AB", "0A", 1), SDP.replace("AB", "0B", 1)


class Side:
    """One process of an account that trusts all others of :data:`NAMES`."""

    def __init__(self, name: str, peer_id: str, instance: str = "") -> None:
        self.keys = NAMES[name]
        self.book = ContactBook(self.keys)
        others = {other: keys for other, keys in NAMES.items() if other != name}
        self.book.replace([entry(other, keys, pin(self.keys, keys, other)) for other, keys in others.items()], NOW)
        self.instance = seed(f"instance {name} {peer_id} {instance}", 16)
        self.introductions = Introductions(self.keys, self.book, self.instance)
        self.introductions.peer_id = self.peer_id = peer_id

    def offer(self, to: str, name: str, sdp: str = SDP_A, session: bytes = SESSION) -> OutgoingOffer:
        return self.introductions.make_offer(session, to, name, sdp, NOW)

    def take(self, sender: str, name: str | None, outgoing: OutgoingOffer, now: int = NOW) -> IncomingOffer:
        return self.introductions.receive_offer(sender, name, outgoing.blob, outgoing.signature, now)


@pytest.fixture
def alice() -> Side:
    return Side("alice", "1")


@pytest.fixture
def bob() -> Side:
    return Side("bob", "2")


def agree(caller: Side, callee: Side, callee_name: str, caller_name: str) -> tuple[Proof, Proof]:
    """The whole exchange, with nobody in between."""
    outgoing = caller.offer(callee.peer_id, callee_name)
    incoming = callee.take(caller.peer_id, caller_name, outgoing)
    blob, signature, theirs = callee.introductions.make_answer(incoming, SDP_B, NOW)
    sdp, ours = caller.introductions.receive_answer(outgoing, callee.peer_id, blob, signature, NOW)
    assert (incoming.sdp, sdp) == (SDP_A, SDP_B)
    return ours, theirs


# -- the way it should be --------------------------------------------------------------------------------------------


def test_two_that_trust_each_other_prove_it(alice: Side, bob: Side) -> None:
    ours, theirs = agree(alice, bob, "bob", "alice")
    assert ours.accepts(theirs.mine)
    assert theirs.accepts(ours.mine)
    assert (ours.name, ours.key) == ("bob", BOB.public)
    assert (theirs.name, theirs.key) == ("alice", ALICE.public)


def test_two_processes_of_one_account_prove_it() -> None:
    one, other = Side("alice", "1"), Side("alice", "9")
    ours, theirs = agree(one, other, "Us", "Us")
    assert ours.accepts(theirs.mine)
    assert theirs.accepts(ours.mine)
    # The same key signs both, so the role in it matters: neither side's own proof, sent back, is taken.
    assert not ours.accepts(ours.mine)
    assert not theirs.accepts(theirs.mine)


def test_a_caller_that_is_in_no_list_is_known_by_its_key(alice: Side, bob: Side) -> None:
    assert bob.take("1", None, alice.offer("2", "bob")).name == "alice"


def test_no_bit_of_a_proof_can_be_flipped(alice: Side, bob: Side) -> None:
    ours, theirs = agree(alice, bob, "bob", "alice")
    for bit in range(512):
        flipped = bytearray(theirs.mine)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not ours.accepts(bytes(flipped))
    for wrong in (b"", theirs.mine[:-1], theirs.mine + b"\0", bytes(64), ours.mine):
        assert not ours.accepts(wrong)


def test_a_proof_is_of_no_use_once_trust_has_ended(alice: Side, bob: Side) -> None:
    ours, theirs = agree(alice, bob, "bob", "alice")
    alice.book.remove("bob", remove(BOB, ALICE, NOW), NOW)
    assert not ours.accepts(theirs.mine)
    assert theirs.accepts(ours.mine)


# -- a third account that both trust ---------------------------------------------------------------------------------


def test_a_third_account_cannot_pass_a_connection_off_as_its_own(alice: Side, bob: Side) -> None:
    # Alice calls carol, and carol, an honest contact of both, calls bob with alice's session description and answers
    # alice with bob's. The channel that comes about is between alice and bob.
    carol = Side("carol", "3")
    to_carol = alice.offer("3", "carol")
    at_carol = carol.take("1", "alice", to_carol)
    to_bob = carol.offer("2", "bob", at_carol.sdp, seed("another session", 16))
    at_bob = bob.take("3", "carol", to_bob)
    assert at_bob.sdp == SDP_A
    blob, signature, bobs_proof = bob.introductions.make_answer(at_bob, SDP_B, NOW)
    sdp, _ = carol.introductions.receive_answer(to_bob, "2", blob, signature, NOW)
    blob, signature, carols_proof = carol.introductions.make_answer(at_carol, sdp, NOW)
    sdp, alices_proof = alice.introductions.receive_answer(to_carol, "3", blob, signature, NOW)
    assert sdp == SDP_B
    # Every signature was true, and alice believes to talk to carol, bob likewise. In the channel, the lie comes out.
    assert not bobs_proof.accepts(alices_proof.mine)
    assert not alices_proof.accepts(bobs_proof.mine)
    # Carol could sign for either of them, but is not in the channel.
    assert alices_proof.accepts(carols_proof.mine)


def test_a_proof_of_another_connection_is_refused(alice: Side, bob: Side) -> None:
    ours, theirs = agree(alice, bob, "bob", "alice")
    outgoing = alice.offer("2", "bob", session=seed("second", 16))
    incoming = bob.take("1", "alice", outgoing)
    blob, signature, second = bob.introductions.make_answer(incoming, SDP_B, NOW)
    _, first = alice.introductions.receive_answer(outgoing, "2", blob, signature, NOW)
    assert first.accepts(second.mine)
    assert not ours.accepts(second.mine)
    assert not first.accepts(theirs.mine)


def test_a_confirm_names_role_and_both_hashes(alice: Side, bob: Side) -> None:
    outgoing = alice.offer("2", "bob")
    incoming = bob.take("1", "alice", outgoing)
    blob, _, proof = bob.introductions.make_answer(incoming, SDP_B, NOW)
    confirm = Confirm("callee", digest(outgoing.blob), digest(blob)).encode()
    assert proof.mine == BOB.sign(confirm)
    assert proof.accepts(ALICE.sign(Confirm("caller", digest(outgoing.blob), digest(blob)).encode()))
    assert not proof.accepts(ALICE.sign(confirm))


# -- offers ----------------------------------------------------------------------------------------------------------


def offer_with(**changes: Any) -> tuple[bytes, bytes]:
    """Alice's offer to bob, changed and signed by alice."""
    instance = seed("instance alice 1 ", 16)
    true = Offer(SESSION, NOW, ALICE.public, BOB.public, "1", "2", instance, SDP_A)
    blob = replace(true, **changes).encode()
    return blob, ALICE.sign(blob)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, None),
        ({"to_key": CAROL.public}, IdentityMismatch),
        ({"to_key": ALICE.public}, IdentityMismatch),
        ({"from_key": CAROL.public}, IdentityMismatch),
        ({"from_key": MALLORY.public}, NotTrusted),
        ({"from_peer": "3"}, IdentityMismatch),
        ({"to_peer": "3"}, IdentityMismatch),
        ({"to_peer": "02"}, IdentityMismatch),
        ({"from_instance": seed("instance bob 2 ", 16)}, IdentityMismatch),
        ({"issued": NOW - CLOCK_WINDOW}, None),
        ({"issued": NOW + CLOCK_WINDOW}, None),
        ({"issued": NOW - CLOCK_WINDOW - 1}, ClockSkew),
        ({"issued": NOW + CLOCK_WINDOW + 1}, ClockSkew),
        ({"sdp": ""}, RemoteProtocolError),
        ({"sdp": SDP_A * 2}, RemoteProtocolError),
    ],
    ids=str,
)
def test_an_offer_is_checked_in_every_field(bob: Side, changes: dict[str, Any], error: type[Exception] | None) -> None:
    blob, signature = offer_with(**changes)
    if error is None:
        assert bob.introductions.receive_offer("1", "alice", blob, signature, NOW).key == ALICE.public
        return
    with pytest.raises(error):
        bob.introductions.receive_offer("1", "alice", blob, signature, NOW)
    # And nothing is remembered of it: the true one, with the same session and peer id, is taken.
    bob.introductions.receive_offer("1", "alice", *offer_with(), NOW)


def test_a_clock_error_names_both_times(bob: Side) -> None:
    with pytest.raises(ClockSkew, match=r"alice was signed at 2027-01-15 08:06:00 UTC.* 2027-01-15 08:00:00 UTC"):
        bob.introductions.receive_offer("1", "alice", *offer_with(issued=NOW + 6 * MINUTE), NOW)


def test_an_offer_by_nobody_we_know_is_not_trusted(bob: Side) -> None:
    outgoing = Side("alice", "1").offer("2", "bob")
    bob.book.discard("alice")
    with pytest.raises(NotTrusted):
        bob.take("1", None, outgoing)


@pytest.mark.parametrize("name", ["carol", "Us", "mallory", ""])
def test_an_offer_of_another_than_presence_says_is_refused(alice: Side, bob: Side, name: str) -> None:
    with pytest.raises(IdentityMismatch, match="it is alice"):
        bob.take("1", name, alice.offer("2", "bob"))


def test_an_offer_from_another_peer_id_than_the_server_says_is_refused(alice: Side, bob: Side) -> None:
    with pytest.raises(IdentityMismatch):
        bob.take("7", "alice", alice.offer("2", "bob"))


def test_an_offer_for_somebody_else_is_refused(alice: Side, bob: Side) -> None:
    carol = Side("carol", "2")
    with pytest.raises(IdentityMismatch):
        carol.take("1", "alice", alice.offer("2", "bob"))
    other = Side("bob", "8")
    with pytest.raises(IdentityMismatch):
        other.take("1", "alice", alice.offer("2", "bob"))


def test_our_own_offer_is_refused(alice: Side) -> None:
    # Reflected by the server, to the same process under the peer id that it called.
    outgoing = alice.offer("9", "Us")
    alice.introductions.peer_id = "9"
    with pytest.raises(IdentityMismatch, match="our own"):
        alice.take("1", "Us", outgoing)
    alice.introductions.peer_id = "1"
    with pytest.raises(IdentityMismatch):
        alice.take("1", "Us", outgoing)


def test_no_bit_of_an_offer_or_answer_can_be_flipped(alice: Side, bob: Side) -> None:
    outgoing = alice.offer("2", "bob")
    incoming = bob.take("1", "alice", outgoing)
    answer, answer_signature, _ = bob.introductions.make_answer(incoming, SDP_B, NOW)
    fresh = Side("bob", "2")

    def offered(blob: bytes, signature: bytes) -> None:
        fresh.introductions.receive_offer("1", "alice", blob, signature, NOW)

    def answered(blob: bytes, signature: bytes) -> None:
        alice.introductions.receive_answer(outgoing, "2", blob, signature, NOW)

    cases: list[tuple[Callable[[bytes, bytes], None], bytes, bytes]] = [
        (offered, outgoing.blob, outgoing.signature),
        (answered, answer, answer_signature),
    ]
    for receive, blob, signature in cases:
        for bit in range((len(blob) + 64) * 8):
            flipped = bytearray(blob + signature)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises((IdentityMismatch, NotTrusted, RemoteProtocolError)):
                receive(bytes(flipped[: len(blob)]), bytes(flipped[len(blob) :]))
        receive(blob, signature)


# -- replay ----------------------------------------------------------------------------------------------------------


def test_an_offer_is_taken_once(alice: Side, bob: Side) -> None:
    outgoing = alice.offer("2", "bob")
    bob.take("1", "alice", outgoing)
    for later in (0, MINUTE, CLOCK_WINDOW):
        with pytest.raises(IdentityMismatch, match="seen before"):
            bob.take("1", "alice", outgoing, NOW + later)
    # Nor another offer of the same session.
    with pytest.raises(IdentityMismatch, match="seen before"):
        bob.take("1", "alice", alice.offer("2", "bob", SDP_B))


def test_no_offer_is_ever_taken_twice_whatever_the_clocks(bob: Side) -> None:
    # An offer is fresh for ten minutes at most: from five minutes before its date to five after.
    dated = NOW + CLOCK_WINDOW
    blob, signature = offer_with(issued=dated)
    bob.introductions.receive_offer("1", "alice", blob, signature, NOW)
    for now in range(NOW, NOW + 3 * MEMORY, MINUTE):
        with pytest.raises((IdentityMismatch, ClockSkew)):
            bob.introductions.receive_offer("1", "alice", blob, signature, now)


def test_the_session_of_another_account_is_another_session(alice: Side, bob: Side) -> None:
    bob.take("1", "alice", alice.offer("2", "bob"))
    bob.take("3", "carol", Side("carol", "3").offer("2", "bob"))


def test_sessions_are_forgotten_when_their_time_is_over(bob: Side) -> None:
    bob.introductions.receive_offer("1", "alice", *offer_with(), NOW)
    with pytest.raises(IdentityMismatch):
        bob.introductions.receive_offer("1", "alice", *offer_with(issued=NOW + MEMORY), NOW + MEMORY)
    bob.introductions.receive_offer("1", "alice", *offer_with(issued=NOW + MEMORY + 1), NOW + MEMORY + 1)


def test_a_full_memory_refuses(bob: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introductions, "MAX_SESSIONS", 3)
    monkeypatch.setattr(introductions, "MAX_SESSIONS_PER_KEY", 2)
    sessions = [seed(f"session {number}", 16) for number in range(4)]
    alice, carol = Side("alice", "1"), Side("carol", "3")
    for session in sessions[:2]:
        bob.take("1", "alice", alice.offer("2", "bob", session=session))
    with pytest.raises(Busy) as caught:
        bob.take("1", "alice", alice.offer("2", "bob", session=sessions[2]))
    assert caught.value.retry_after == 10.0
    # One contact cannot fill it for others; all together can.
    bob.take("3", "carol", carol.offer("2", "bob", session=sessions[0]))
    with pytest.raises(Busy):
        bob.take("3", "carol", carol.offer("2", "bob", session=sessions[1]))
    # What was taken is still remembered, and what was refused was not taken.
    with pytest.raises(IdentityMismatch, match="seen before"):
        bob.take("1", "alice", alice.offer("2", "bob", session=sessions[0]))
    later = NOW + MEMORY + 1
    blob, signature = offer_with(issued=later, session=sessions[2])
    bob.introductions.receive_offer("1", "alice", blob, signature, later)


# -- answers ---------------------------------------------------------------------------------------------------------


def answer_with(outgoing: OutgoingOffer, signer: AccountKeys = BOB, **changes: Any) -> tuple[bytes, bytes]:
    """Bob's answer to alice's offer, changed and signed by whom we like."""
    instance = seed("instance bob 2 ", 16)
    true = Answer(SESSION, outgoing.offer_hash, NOW, BOB.public, ALICE.public, "2", "1", instance, SDP_B)
    blob = replace(true, **changes).encode()
    return blob, signer.sign(blob)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, None),
        ({"session": seed("other", 16)}, IdentityMismatch),
        ({"offer_hash": seed("other")}, IdentityMismatch),
        ({"from_key": CAROL.public}, IdentityMismatch),
        ({"from_key": CAROL.public, "signer": CAROL}, IdentityMismatch),
        ({"signer": MALLORY}, IdentityMismatch),
        ({"signer": ALICE}, IdentityMismatch),
        ({"to_key": CAROL.public}, IdentityMismatch),
        ({"from_peer": "3"}, IdentityMismatch),
        ({"to_peer": "3"}, IdentityMismatch),
        ({"from_instance": seed("instance alice 1 ", 16)}, IdentityMismatch),
        ({"issued": NOW - CLOCK_WINDOW}, None),
        ({"issued": NOW + CLOCK_WINDOW}, None),
        ({"issued": NOW - CLOCK_WINDOW - 1}, ClockSkew),
        ({"issued": NOW + CLOCK_WINDOW + 1}, ClockSkew),
        ({"sdp": SDP_B.replace("sha-256", "sha-1")}, RemoteProtocolError),
    ],
    ids=str,
)
def test_an_answer_is_checked_in_every_field(
    alice: Side, changes: dict[str, Any], error: type[Exception] | None
) -> None:
    outgoing = alice.offer("2", "bob")
    blob, signature = answer_with(outgoing, **changes)
    if error is None:
        assert alice.introductions.receive_answer(outgoing, "2", blob, signature, NOW)[0] == SDP_B
        return
    with pytest.raises(error):
        alice.introductions.receive_answer(outgoing, "2", blob, signature, NOW)
    alice.introductions.receive_answer(outgoing, "2", *answer_with(outgoing), NOW)


def test_an_answer_from_another_peer_than_was_called_is_refused(alice: Side) -> None:
    outgoing = alice.offer("2", "bob")
    with pytest.raises(IdentityMismatch):
        alice.introductions.receive_answer(outgoing, "3", *answer_with(outgoing), NOW)
    with pytest.raises(IdentityMismatch):
        alice.introductions.receive_answer(outgoing, "3", *answer_with(outgoing, from_peer="3"), NOW)


def test_answers_of_two_sessions_cannot_be_mixed(alice: Side) -> None:
    first, second = alice.offer("2", "bob"), alice.offer("2", "bob", session=seed("second", 16))
    with pytest.raises(IdentityMismatch):
        alice.introductions.receive_answer(second, "2", *answer_with(first), NOW)


def test_an_offer_is_no_answer(alice: Side, bob: Side) -> None:
    outgoing = alice.offer("2", "bob")
    theirs = bob.offer("1", "alice")
    with pytest.raises(RemoteProtocolError):
        alice.introductions.receive_answer(outgoing, "2", theirs.blob, theirs.signature, NOW)


def test_nothing_goes_on_when_trust_ends_in_between(alice: Side, bob: Side) -> None:
    outgoing = alice.offer("2", "bob")
    incoming = bob.take("1", "alice", outgoing)
    alice.book.discard("bob")
    bob.book.discard("alice")
    with pytest.raises(NotTrusted):
        alice.introductions.receive_answer(outgoing, "2", *answer_with(outgoing), NOW)
    with pytest.raises(NotTrusted):
        bob.introductions.make_answer(incoming, SDP_B, NOW)
    with pytest.raises(NotTrusted):
        alice.offer("2", "bob")


# -- peer ids --------------------------------------------------------------------------------------------------------


def test_a_peer_id_never_changes_its_account(bob: Side) -> None:
    bob.take("5", "alice", Side("alice", "5").offer("2", "bob"))
    with pytest.raises(IdentityMismatch, match="another one before"):
        bob.take("5", "carol", Side("carol", "5").offer("2", "bob"))
    with pytest.raises(IdentityMismatch, match="it is not"):
        bob.offer("5", "carol")
    bob.offer("5", "alice")


def test_a_peer_id_never_changes_its_instance(bob: Side) -> None:
    bob.take("5", "alice", Side("alice", "5").offer("2", "bob"))
    restarted = Side("alice", "5", instance="second life")
    with pytest.raises(IdentityMismatch, match="another one before"):
        bob.take("5", "alice", restarted.offer("2", "bob", session=seed("second", 16)))


def test_an_answer_counts_for_the_peer_id_as_an_offer_does(alice: Side) -> None:
    outgoing = alice.offer("2", "bob")
    alice.introductions.receive_answer(outgoing, "2", *answer_with(outgoing), NOW)
    for sender in (Side("carol", "2"), Side("bob", "2", instance="second life")):
        name = "carol" if sender.keys is CAROL else "bob"
        with pytest.raises(IdentityMismatch, match="another one before"):
            alice.take("2", name, sender.offer("1", "alice"))
    again = alice.offer("2", "bob", session=seed("second", 16))
    changed = answer_with(again, session=again.session, from_instance=seed("second life", 16))
    with pytest.raises(IdentityMismatch, match="another one before"):
        alice.introductions.receive_answer(again, "2", *changed, NOW)


def test_so_many_peer_ids_are_remembered(bob: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introductions, "MAX_PEERS", 2)
    for turn, number in enumerate(("5", "6", "5", "7")):
        bob.take(number, "alice", Side("alice", number).offer("2", "bob", session=seed(f"session {turn}", 16)))
    bob.offer("6", "carol")
    with pytest.raises(IdentityMismatch):
        bob.offer("5", "carol")


# -- session descriptions --------------------------------------------------------------------------------------------

PRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
MEDIA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"


def test_the_session_descriptions_that_engines_make_are_taken() -> None:
    check_sdp(SDP)
    check_sdp(SDP.replace("\r\n", "\n"))
    longer = "".join(f"a=fingerprint:sha-{bits} {':'.join(['cd'] * (bits // 8))}\r\n" for bits in (384, 512))
    check_sdp(SDP + longer)


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "\r\n",
        SDP.removesuffix("\r\n"),
        SDP.replace("m=", "x="),
        SDP.replace(MEDIA, "m=audio 9 UDP/TLS/RTP/SAVPF 0"),
        SDP + MEDIA + "\r\n",
        SDP + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n",
        SDP + " M=audio 9 x 0\r\n",
        SDP.replace(PRINT, ""),
        SDP + PRINT + "\r\n",
        SDP + PRINT.replace("AB", "CD") + "\r\n",
        SDP + PRINT.replace(":sha", ": sha") + "\r\n",
        SDP + " " + PRINT + "\r\n",
        SDP + PRINT.upper() + "\r\n",
        SDP.replace("sha-256", "sha-1"),
        SDP.replace("sha-256", "md5"),
        SDP.replace("sha-256", "SHA-256"),
        SDP.replace("sha-256", "sha-512"),
        SDP.replace(":AB", "", 1),
        SDP.replace("AB", "GG", 1),
        SDP + "a=fingerprint:sha-1 " + ":".join(["AB"] * 20) + "\r\n",
        SDP.replace("s=-", "s=\x0bm=audio"),
        SDP.replace("s=-", "s=\u2028m=audio"),
        SDP.replace("s=-", "s=é"),
        SDP.replace("s=-", "s=\x00"),
        SDP.replace("s=-", "s=-\rm=audio 9 x 0"),
    ],
)
def test_any_other_session_description_is_refused(alice: Side, sdp: str) -> None:
    with pytest.raises(RemoteProtocolError):
        check_sdp(sdp)
    with pytest.raises(LocalProtocolError):
        alice.offer("2", "bob", sdp)


def test_a_long_session_description_is_checked_in_no_time(alice: Side) -> None:
    # The pattern must not go over a line again and again.
    for sdp in ("a" * MAX_SDP, "\n" * MAX_SDP + "\x00", "a\r" * (MAX_SDP // 2), " " * MAX_SDP + "\n" * 9 + "\x00"):
        with pytest.raises(RemoteProtocolError):
            check_sdp(sdp)


# -- anything --------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=400), st.binary(max_size=70), st.text(max_size=5))
def test_any_garbage_is_refused_in_a_typed_way(blob: bytes, signature: bytes, peer: str) -> None:
    side = Side("alice", "1")
    with pytest.raises(RemoteProtocolError):
        side.introductions.receive_offer(peer, None, blob, signature, NOW)
    with pytest.raises(BoneValueError):
        side.introductions.receive_answer(side.offer("2", "bob"), peer, blob, signature, NOW)


def test_the_session_that_a_message_is_of(alice: Side, bob: Side) -> None:
    outgoing = alice.offer("2", "bob")
    answer, signature = answer_with(outgoing)
    of = Introductions.session_of
    assert of(PeerRequest(to="2", offer=Binary(outgoing.blob), signature=Binary(outgoing.signature))) == SESSION
    assert of(PeerResponse(to="1", answer=Binary(answer), signature=Binary(signature))) == SESSION
    assert of(PeerResponse(to="1", session=Binary(SESSION))) == SESSION
    assert of(PeerResponse(to="1", answer=Binary(b"junk"), session=Binary(SESSION))) is None
    for nothing in (
        PeerRequest(to="2"),
        PeerRequest(to="2", offer=Binary(answer)),
        PeerResponse(to="1"),
        PeerResponse(to="1", session=Binary(b"short")),
    ):
        assert of(nothing) is None
