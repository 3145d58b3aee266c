"""What no server can do with true certificates, in any mix and order; and what an honest one checks."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.errors import (
    AlreadyTrusted,
    BoneValueError,
    ClockSkew,
    IdentityMismatch,
    RemoteProtocolError,
    TokenExpired,
    TokenInvalid,
)
from bonevalue.wire.blobs import Invite, Pin, Redeem, Rotate
from bonevalue.wire.contacts import (
    ContactBook,
    check_invite,
    check_pin,
    check_redeem,
    check_remove,
    check_rotate,
)
from bonevalue.wire.signals import Binary, Contact, SignedBlob
from bonevalue.wire.tokens import redeem as make_redemption
from tests.support.identity import (
    ALICE,
    BOB,
    BOB2,
    BOB3,
    CAROL,
    MALLORY,
    MALLORY2,
    MINUTE,
    NOW,
    TOKEN,
    claimed,
    entry,
    forged_redeem,
    invite,
    pin,
    redeem,
    remove,
    rotate,
    seed,
    signed,
    token_of,
)


@pytest.fixture
def book() -> ContactBook:
    return ContactBook(ALICE)


# -- any server ------------------------------------------------------------------------------------------------------

# All that honest people ever signed in a small world, and what a server with an account of its own can add to it.
PEOPLE = {"bob": BOB, "bob2": BOB2, "bob3": BOB3, "carol": CAROL, "mallory": MALLORY, "mallory2": MALLORY2}
CERTIFICATES = [
    *claimed(),
    pin(ALICE, BOB, "bob"),
    rotate(BOB, BOB2),
    pin(ALICE, BOB2, "bob"),
    rotate(BOB2, BOB3),
    pin(ALICE, CAROL, "carol", NOW + 5),
    pin(BOB, ALICE, "alice"),
    pin(MALLORY, ALICE, "alice"),
    rotate(MALLORY, MALLORY2),
    remove(MALLORY, ALICE),
    signed(Pin(ALICE.public, MALLORY.public, "bob", NOW), MALLORY),
    signed(Rotate(BOB.public, MALLORY.public, NOW), MALLORY, MALLORY),
    forged_redeem(),
    invite(MALLORY, token_of(MALLORY), "bob"),
    redeem(MALLORY, token_of(MALLORY)),
]
entries = st.builds(
    lambda name, key, chain: entry(name, PEOPLE[key], *chain),
    st.sampled_from(["bob", "carol", "mallory", "Us"]),
    st.sampled_from(sorted(PEOPLE)),
    st.lists(st.sampled_from(CERTIFICATES), max_size=6),
)


@given(st.lists(st.one_of(entries, st.lists(entries, max_size=3)), max_size=8))
@settings(max_examples=200, deadline=None)
def test_no_mix_of_certificates_makes_a_contact_that_was_never_trusted(shows: list[Contact | list[Contact]]) -> None:
    book = ContactBook(ALICE)
    for show in shows:
        if isinstance(show, list):
            book.replace(show, NOW)
        else:
            book.receive(show, NOW)
        trusted = {name: book.key_of(name) for name in book.names()}
        assert trusted.pop("carol", CAROL.public) == CAROL.public
        assert trusted.pop("bob", BOB.public) in (BOB.public, BOB2.public, BOB3.public)
        assert not trusted
        assert all(book.name_of(key) == name for name, key in ((n, book.key_of(n)) for n in book.names()) if key)


# Chains that begin with our own word and have no gap, so that each can be judged alone.
TRUE = [
    entry("bob", BOB, *claimed()),
    entry("bob", BOB2, *claimed(), rotate(BOB, BOB2)),
    entry("bob", BOB2, pin(ALICE, BOB, "bob"), rotate(BOB, BOB2)),
    entry("bob", MALLORY, pin(ALICE, BOB, "bob"), rotate(BOB, MALLORY)),
    entry("bob", MALLORY, invite(ALICE, TOKEN, "bob"), redeem(MALLORY, TOKEN)),
    entry("bob", CAROL, pin(ALICE, CAROL, "bob", NOW + 1)),
    entry("carol", CAROL, pin(ALICE, CAROL, "carol", NOW)),
    entry("carol", BOB2, pin(ALICE, BOB2, "carol", NOW - 1)),
]
REMOVALS = [remove(ALICE, BOB, NOW), remove(CAROL, ALICE, NOW), remove(ALICE, BOB2, NOW - 1)]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_the_order_of_what_is_shown_does_not_matter(data: st.DataObject) -> None:
    shows: list[Any] = data.draw(st.lists(st.sampled_from([*TRUE, *REMOVALS]), max_size=6, unique_by=id))
    final = data.draw(st.lists(st.sampled_from(TRUE), max_size=2, unique_by=lambda one: one.name))
    results = []
    for order in (shows, data.draw(st.permutations(shows))):
        book = ContactBook(ALICE)
        _show_all(book, order)
        book.replace(final, NOW)
        results.append({name: book.key_of(name) for name in book.names()})
    assert results[0] == results[1]


def _show_all(book: ContactBook, shows: Iterable[Contact | SignedBlob]) -> None:
    for show in shows:
        if isinstance(show, Contact):
            book.receive(show, NOW)
        else:
            with suppress(IdentityMismatch):  # older than the trust
                book.remove(None, show, NOW)


@given(
    st.lists(
        st.builds(
            lambda blob, signatures: SignedBlob(Binary(blob), [Binary(one) for one in signatures]),
            st.binary(max_size=200) | st.sampled_from([certificate.blob for certificate in CERTIFICATES]),
            st.lists(st.binary(max_size=70), min_size=1, max_size=2),
        ),
        max_size=5,
    ),
    st.binary(max_size=40),
)
def test_any_garbage_is_a_verdict(certificates: list[SignedBlob], key: bytes) -> None:
    book = ContactBook(ALICE)
    assert book.receive(entry("bob", key, *certificates), NOW).contact is None
    for certificate in certificates:
        with pytest.raises(BoneValueError):
            book.remove("bob", certificate, NOW)


# -- what the server checks ------------------------------------------------------------------------------------------


def test_the_server_takes_an_invite() -> None:
    blob, [signature] = invite(ALICE, TOKEN, "bob").blob, invite(ALICE, TOKEN, "bob").signatures
    assert check_invite(blob, signature, inviter_key=ALICE.public, alias="bob", now_ms=NOW).alias == "bob"
    with pytest.raises(IdentityMismatch):
        check_invite(blob, signature, inviter_key=BOB.public, alias="bob", now_ms=NOW)
    with pytest.raises(RemoteProtocolError):
        check_invite(blob, signature, inviter_key=ALICE.public, alias="carol", now_ms=NOW)
    with pytest.raises(ClockSkew):
        check_invite(blob, signature, inviter_key=ALICE.public, alias="bob", now_ms=NOW + 6 * MINUTE)
    over = invite(ALICE, token_of(ALICE, expires=NOW), "bob")
    with pytest.raises(TokenExpired):
        check_invite(over.blob, over.signatures[0], inviter_key=ALICE.public, alias="bob", now_ms=NOW)


def redemption_error(redeemed: SignedBlob, **changes: Any) -> type[BaseException] | None:
    """What the server says to a redeem of bob's for alice's invite."""
    invited = Invite.decode(invite(ALICE, TOKEN, "bob").blob)
    wanted: dict[str, Any] = {
        "invite": invited,
        "claimer_key": BOB.public,
        "username": "robert",
        "now_ms": NOW,
    } | changes
    try:
        check_redeem(redeemed.blob, redeemed.signatures, **wanted)
    except BoneValueError as error:
        return type(error)
    return None


def test_the_server_takes_a_redeem() -> None:
    true = redeem(BOB, TOKEN, "robert")
    assert redemption_error(true) is None
    assert redemption_error(true, claimer_key=MALLORY.public) is IdentityMismatch
    assert redemption_error(true, username="bob") is IdentityMismatch
    assert redemption_error(true, now_ms=NOW + 6 * MINUTE) is ClockSkew
    assert redemption_error(true, now_ms=NOW - 6 * MINUTE) is ClockSkew
    assert redemption_error(redeem(BOB, token_of(ALICE, "other"), "robert")) is TokenInvalid
    for_carol = Redeem(TOKEN.keys.public, CAROL.public, BOB.public, "robert", NOW)
    assert redemption_error(signed(for_carol, TOKEN.keys, BOB)) is TokenInvalid
    assert redemption_error(SignedBlob(true.blob, true.signatures[:1])) is TokenInvalid
    assert redemption_error(signed(Redeem.decode(true.blob), MALLORY, BOB)) is TokenInvalid
    assert redemption_error(signed(Redeem.decode(true.blob), TOKEN.keys, MALLORY)) is IdentityMismatch
    assert redemption_error(SignedBlob(Binary(b"junk"), [Binary(b""), Binary(b"")])) is RemoteProtocolError
    assert redemption_error(forged_redeem(), claimer_key=MALLORY.public) is TokenInvalid
    assert redemption_error(redeem(ALICE, TOKEN, "robert"), claimer_key=ALICE.public) is AlreadyTrusted
    end = TOKEN.expires * 1000
    assert redemption_error(redeem(BOB, TOKEN, "robert", end - 1), now_ms=end - 1) is None
    assert redemption_error(redeem(BOB, TOKEN, "robert", end - 1), now_ms=end) is TokenExpired
    assert redemption_error(redeem(BOB, TOKEN, "robert", end), now_ms=end - 1) is TokenExpired


def test_the_server_takes_what_a_claimer_sends() -> None:
    done = make_redemption(BOB, "robert", TOKEN, "alice", NOW)
    redeemed = SignedBlob(Binary(done.redeem), [Binary(one) for one in done.signatures])
    assert redemption_error(redeemed) is None
    owner, contact = BOB.public, ALICE.public
    assert check_pin(done.pin, done.signature, owner_key=owner, contact_key=contact, alias="alice").issued == NOW
    with pytest.raises(IdentityMismatch):
        check_pin(done.pin, done.signature, owner_key=contact)
    with pytest.raises(IdentityMismatch):
        check_pin(done.pin, done.signature, owner_key=owner, contact_key=CAROL.public)
    with pytest.raises(RemoteProtocolError):
        check_pin(done.pin, done.signature, owner_key=owner, alias="bob")


def test_the_server_takes_a_removal() -> None:
    blob, [signature] = remove(ALICE, BOB).blob, remove(ALICE, BOB).signatures
    check_remove(blob, signature, remover_key=ALICE.public, removed_key=BOB.public, now_ms=NOW)
    with pytest.raises(IdentityMismatch):
        check_remove(blob, signature, remover_key=BOB.public, removed_key=ALICE.public, now_ms=NOW)
    with pytest.raises(IdentityMismatch):
        check_remove(blob, signature, remover_key=ALICE.public, removed_key=CAROL.public, now_ms=NOW)
    with pytest.raises(ClockSkew):
        check_remove(blob, signature, remover_key=ALICE.public, removed_key=BOB.public, now_ms=NOW + 6 * MINUTE)


def test_the_server_takes_a_change_of_key() -> None:
    true = rotate(BOB, BOB2)
    assert check_rotate(true.blob, true.signatures, old_key=BOB.public, now_ms=NOW).new_key == BOB2.public
    for wrong in (
        signed(Rotate(BOB.public, BOB2.public, NOW), BOB, BOB),
        signed(Rotate(BOB.public, BOB2.public, NOW), BOB2, BOB),
        rotate(MALLORY, BOB2),
        rotate(BOB, BOB),
    ):
        with pytest.raises(IdentityMismatch):
            check_rotate(wrong.blob, wrong.signatures, old_key=BOB.public, now_ms=NOW)
    with pytest.raises(ClockSkew):
        check_rotate(true.blob, true.signatures, old_key=BOB.public, now_ms=NOW + 6 * MINUTE)


def test_a_seed_never_stands_in_a_certificate() -> None:
    for certificate in claimed():
        assert certificate.blob.find(seed("token", 16)) == -1
