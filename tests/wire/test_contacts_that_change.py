"""Contacts that change their key, and trust that ends: nothing old comes back."""

import pytest

from bonevalue.errors import (
    Busy,
    IdentityMismatch,
    NotTrusted,
)
from bonevalue.wire import contacts
from bonevalue.wire.blobs import Pin, Remove, Rotate
from bonevalue.wire.contacts import (
    ContactBook,
    check_pin,
    check_remove,
)
from bonevalue.wire.signals import Binary, SignedBlob
from tests.support.identity import (
    ALICE,
    BOB,
    BOB2,
    BOB3,
    CAROL,
    MALLORY,
    MINUTE,
    NOW,
    TOKEN,
    account,
    assert_trusts,
    claimed,
    code,
    entry,
    pin,
    redeem,
    remove,
    rotate,
    signed,
)


@pytest.fixture
def book() -> ContactBook:
    return ContactBook(ALICE)


# -- rotation --------------------------------------------------------------------------------------------------------


def test_a_contact_that_changes_its_key_is_followed_and_pinned(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    chain = pin(ALICE, BOB, "bob"), rotate(BOB2, BOB3), rotate(BOB, BOB2)
    verdict = book.receive(entry("bob", BOB3, *chain), NOW + MINUTE)
    assert_trusts(book, bob=BOB3)
    assert verdict.pin is not None
    assert Pin.open(*verdict.pin, ALICE.public) == Pin(ALICE.public, BOB3.public, "bob", NOW)
    assert book.name_of(BOB.public) is None


def test_a_claimer_that_changes_its_key_before_it_is_pinned_is_followed(book: ContactBook) -> None:
    verdict = book.receive(entry("bob", BOB2, *claimed(), rotate(BOB, BOB2)), NOW + MINUTE)
    assert_trusts(book, bob=BOB2)
    assert verdict.pin is not None


def test_an_old_key_does_not_come_back(book: ContactBook) -> None:
    old = pin(ALICE, BOB, "bob")
    book.receive(entry("bob", BOB2, old, rotate(BOB, BOB2)), NOW)
    assert code(book.receive(entry("bob", BOB, old), NOW)) == "identity_mismatch"
    assert_trusts(book)
    # What was proved is still known: the server need not show it again.
    book.receive(entry("bob", BOB2, old), NOW)
    assert_trusts(book, bob=BOB2)


def test_a_thief_of_the_old_password_forks_the_key(book: ContactBook) -> None:
    old = pin(ALICE, BOB, "bob")
    followed = book.receive(entry("bob", BOB2, old, rotate(BOB, BOB2)), NOW)
    assert followed.pin is not None
    repinned = SignedBlob(Binary(followed.pin[0]), [Binary(followed.pin[1])])
    fork = entry("bob", MALLORY, old, rotate(BOB, MALLORY))
    assert code(book.receive(fork, NOW + MINUTE)) == "identity_conflict"
    # None is used: not the thief, nor whoever was followed, who may be the thief as well.
    for key, certificate in ((BOB2, repinned), (BOB2, old), (BOB, old), (MALLORY, pin(ALICE, MALLORY, "bob"))):
        assert code(book.receive(entry("bob", key, certificate), NOW + MINUTE)) == "identity_conflict"
    # Nor does a further change of either branch lead out of it.
    chain = pin(ALICE, BOB2, "bob"), rotate(BOB2, BOB3)
    assert code(book.receive(entry("bob", BOB3, *chain), NOW + MINUTE)) == "identity_conflict"
    # Nor trust in the key before the fork: nobody can say whose it is now.
    for key in (BOB, BOB2, MALLORY):
        before = entry("bob", key, *claimed(BOB, issued=NOW + 2 * MINUTE, token="before"))
        assert code(book.receive(before, NOW + 3 * MINUTE)) == "identity_conflict"
    # Trust made anew counts.
    fresh = entry("bob", BOB3, *claimed(BOB3, issued=NOW + 3 * MINUTE, token="new"))
    book.replace([fresh], NOW + 3 * MINUTE)
    assert_trusts(book, bob=BOB3)


def test_a_fork_voids_what_a_process_whose_clock_is_ahead_signed(book: ContactBook) -> None:
    ahead = pin(ALICE, BOB2, "bob", NOW + MINUTE)
    book.receive(entry("bob", BOB2, ahead, pin(ALICE, BOB, "bob"), rotate(BOB, BOB2), rotate(BOB, MALLORY)), NOW)
    assert code(book.receive(entry("bob", BOB2, ahead), NOW)) == "identity_conflict"


def test_a_fork_of_one_contact_is_no_harm_to_others(book: ContactBook) -> None:
    book.replace(
        [
            entry("bob", BOB2, pin(ALICE, BOB, "bob"), rotate(BOB, BOB2), rotate(BOB, MALLORY)),
            entry("carol", CAROL, pin(ALICE, CAROL, "carol")),
        ],
        NOW,
    )
    assert_trusts(book, carol=CAROL)


def test_going_back_to_an_old_password_is_a_circle(book: ContactBook) -> None:
    book.receive(entry("bob", BOB2, pin(ALICE, BOB, "bob"), rotate(BOB, BOB2)), NOW)
    verdict = book.receive(entry("bob", BOB, pin(ALICE, BOB2, "bob"), rotate(BOB2, BOB)), NOW)
    assert code(verdict) == "identity_conflict"


def test_changing_ones_own_key_takes_all_contacts_along(book: ContactBook) -> None:
    book.replace(
        [
            entry("bob", BOB2, *claimed(), rotate(BOB, BOB2)),
            entry("carol", CAROL, pin(ALICE, CAROL, "carol", NOW - 5)),
            entry("mallory", MALLORY),
        ],
        NOW,
    )
    later = account("alice, later")
    blob, signatures, pins = book.rotate(later, NOW + MINUTE)
    assert Rotate.open(blob, signatures, ALICE.public, later.public).issued == NOW + MINUTE
    values = [check_pin(one.blob, one.signatures[0], owner_key=later.public) for one in pins]
    # Dated as the trust was, so that removals and newer words count as before.
    assert values == [
        Pin(later.public, BOB2.public, "bob", NOW),
        Pin(later.public, CAROL.public, "carol", NOW - 5),
    ]
    after = ContactBook(later)
    after.replace([entry("bob", BOB2, pins[0]), entry("carol", CAROL, pins[1])], NOW)
    assert_trusts(after, bob=BOB2, carol=CAROL)
    # What the old key signed is dead.
    assert code(after.receive(entry("bob", BOB, *claimed()), NOW)) == "identity_mismatch"


# -- removal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_us", [True, False], ids=["by us", "by them"])
def test_a_removal_voids_what_was_before_and_nothing_later(book: ContactBook, by_us: bool) -> None:
    before = [pin(ALICE, BOB, "bob", NOW), *claimed(issued=NOW)]
    ended = remove(ALICE, BOB, NOW + MINUTE) if by_us else remove(BOB, ALICE, NOW + MINUTE)
    book.receive(entry("bob", BOB, *before), NOW)
    assert book.remove("bob", ended, NOW + MINUTE) == BOB.public
    assert_trusts(book)
    assert book.verdicts() == []
    # The server shows it again, all of it or part of it, or with a claim dated later than the removal.
    late = redeem(BOB, TOKEN, issued=NOW + 10 * MINUTE)
    for certificates in (before, before[:1], before[1:], [before[1], late], [pin(ALICE, BOB, "bob", NOW + MINUTE)]):
        verdict = book.receive(entry("bob", BOB, *certificates), NOW + 20 * MINUTE)
        assert code(verdict) == "not_trusted"
        assert verdict.pin is None
        assert_trusts(book)
    # Trust made anew works, also beside the old certificates.
    for anew in (claimed(issued=NOW + 2 * MINUTE, token="new"), (*before, pin(ALICE, BOB, "bob", NOW + 3 * MINUTE))):
        book.receive(entry("bob", BOB, *anew), NOW + 20 * MINUTE)
        assert_trusts(book, bob=BOB)


def test_our_own_removal_is_made_and_taken(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    blob, signature = book.make_remove("bob", NOW + 1)
    assert check_remove(blob, signature, remover_key=ALICE.public, removed_key=BOB.public, now_ms=NOW + 1)
    ended = SignedBlob(Binary(blob), [Binary(signature)])
    # Both ends take it, and other processes of ours.
    theirs, other = ContactBook(BOB), ContactBook(ALICE)
    theirs.receive(entry("alice", ALICE, pin(BOB, ALICE, "alice")), NOW)
    assert theirs.remove("alice", ended, NOW + 1) == ALICE.public
    assert_trusts(theirs)
    book.remove("bob", ended, NOW + 1)
    for removal in book.removals():
        other.remove(None, removal, NOW + 1)
    assert code(other.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)) == "not_trusted"


def test_a_removal_reaches_keys_before_and_after(book: ContactBook) -> None:
    chain = [pin(ALICE, BOB, "bob"), rotate(BOB, BOB2)]
    book.receive(entry("bob", BOB2, *chain), NOW)
    book.remove("bob", remove(ALICE, BOB2, NOW + 1), NOW + 1)
    for key, certificates in ((BOB2, chain), (BOB3, [*chain, rotate(BOB2, BOB3)])):
        assert code(book.receive(entry("bob", key, *certificates), NOW + 2)) == "not_trusted"
    other = ContactBook(ALICE)
    other.receive(entry("bob", BOB, chain[0]), NOW)
    other.remove("bob", remove(ALICE, BOB, NOW + 1), NOW + 1)
    assert code(other.receive(entry("bob", BOB2, *chain), NOW + 2)) == "not_trusted"


def test_a_removal_reaches_a_key_that_is_heard_of_later(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    book.remove("bob", remove(ALICE, BOB, NOW + 1), NOW + 1)
    book.receive(entry("bob", BOB2, pin(ALICE, BOB, "bob"), rotate(BOB, BOB2)), NOW + 2)
    # Another process followed bob before the removal, and pinned the new key.
    assert code(book.receive(entry("bob", BOB2, pin(ALICE, BOB2, "bob")), NOW + 2)) == "not_trusted"


def test_a_removal_by_the_old_key_ends_trust_with_the_new_one(book: ContactBook) -> None:
    book.receive(entry("bob", BOB2, pin(ALICE, BOB, "bob"), rotate(BOB, BOB2)), NOW)
    assert book.remove("bob", remove(BOB, ALICE, NOW + 1), NOW + 1) == BOB2.public
    assert_trusts(book)


def test_a_process_that_missed_the_removal_does_not_freshen_trust(book: ContactBook) -> None:
    # One process of ours removes bob; the server keeps that from another one, and shows it bob's old claim.
    book.receive(entry("bob", BOB, *claimed()), NOW)
    book.remove("bob", remove(ALICE, BOB, NOW + MINUTE), NOW + MINUTE)
    unaware = ContactBook(ALICE)
    verdict = unaware.receive(entry("bob", BOB, *claimed()), NOW + 10 * MINUTE)
    assert verdict.pin is not None
    fresh = SignedBlob(Binary(verdict.pin[0]), [Binary(verdict.pin[1])])
    assert code(book.receive(entry("bob", BOB, fresh), NOW + 11 * MINUTE)) == "not_trusted"


@pytest.mark.parametrize(
    "ended",
    [
        remove(BOB, CAROL),
        remove(MALLORY, BOB),
        remove(ALICE, CAROL),
        remove(CAROL, ALICE),
        remove(BOB2, ALICE),
        remove(ALICE, ALICE),
        remove(ALICE, BOB, NOW - 1),
        signed(Remove(ALICE.public, BOB.public, NOW), MALLORY),
        signed(Remove(ALICE.public, BOB.public, NOW), ALICE, ALICE),
        signed(Remove(BOB.public, ALICE.public, NOW), ALICE),
        pin(ALICE, BOB, "bob"),
        SignedBlob(Binary(b""), [Binary(b"")]),
    ],
    ids=range(12),
)
def test_what_is_no_removal_of_the_contact_changes_nothing(book: ContactBook, ended: SignedBlob) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    with pytest.raises(IdentityMismatch):
        book.remove("bob", ended, NOW)
    assert_trusts(book, bob=BOB)
    assert book.removals() == []


def test_an_old_removal_does_not_part_those_who_trust_anew(book: ContactBook) -> None:
    old = remove(BOB, ALICE, NOW + 1)
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob", NOW)), NOW)
    book.remove("bob", old, NOW + 1)
    assert book.removals() == [old]
    book.receive(entry("bob", BOB, *claimed(issued=NOW + 2)), NOW + 2)
    assert book.removals() == []
    # Whether the server repeats it, or another process of ours that has not heard of the new trust.
    for name in ("bob", "carol", None):
        with pytest.raises(IdentityMismatch, match="older than the trust"):
            book.remove(name, old, NOW + 3)
    assert_trusts(book, bob=BOB)
    book.discard("bob")
    with pytest.raises(IdentityMismatch, match="older than the trust"):
        book.remove("bob", old, NOW + 3)


def test_a_contact_that_has_a_problem_can_be_removed(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, *claimed()), NOW)
    book.receive(entry("bob", MALLORY, claimed()[0], redeem(MALLORY, TOKEN)), NOW)
    blob, signature = book.make_remove("bob", NOW + 1)
    check_remove(blob, signature, remover_key=ALICE.public, removed_key=MALLORY.public, now_ms=NOW)
    assert book.remove("bob", SignedBlob(Binary(blob), [Binary(signature)]), NOW + 1) == MALLORY.public
    # But only a key that we trusted under that alias, not whom the server would have us part with.
    book.receive(entry("carol", CAROL, pin(ALICE, CAROL, "carol")), NOW)
    for shown in (entry("bob", CAROL, pin(ALICE, CAROL, "carol")), entry("bob", CAROL)):
        book.receive(shown, NOW)
        with pytest.raises(NotTrusted):
            book.make_remove("bob", NOW)
    book.receive(entry("bob", CAROL, pin(ALICE, BOB2, "bob")), NOW)
    blob, signature = book.make_remove("bob", NOW + 1)
    check_remove(blob, signature, remover_key=ALICE.public, removed_key=BOB2.public, now_ms=NOW)


def test_a_removal_dated_into_the_future_counts_until_now(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    book.remove("bob", remove(BOB, ALICE, NOW + 10**12), NOW + 1)
    book.receive(entry("bob", BOB, *claimed(issued=NOW + 2)), NOW + MINUTE)
    assert_trusts(book, bob=BOB)


def test_trust_made_by_a_process_whose_clock_is_ahead_can_be_ended_at_once(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob", NOW + 4 * MINUTE)), NOW)
    blob, signature = book.make_remove("bob", NOW)
    book.remove("bob", SignedBlob(Binary(blob), [Binary(signature)]), NOW)
    assert code(book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob", NOW + 4 * MINUTE)), NOW)) == "not_trusted"


def test_removals_of_the_unknown_are_remembered_up_to_a_bound(
    book: ContactBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "MAX_REMOVALS", 2)
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    book.remove(None, remove(CAROL, ALICE), NOW)
    book.remove(None, remove(MALLORY, ALICE), NOW)
    with pytest.raises(Busy):
        book.remove(None, remove(BOB2, ALICE), NOW)
    book.remove(None, remove(CAROL, ALICE, NOW + 1), NOW + 1)
    book.remove("bob", remove(BOB, ALICE), NOW)
    assert len(book.removals()) == 3
    assert code(book.receive(entry("carol", CAROL, pin(ALICE, CAROL, "carol", NOW + 1)), NOW)) == "not_trusted"
