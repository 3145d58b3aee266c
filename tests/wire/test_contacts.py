"""Whom an account trusts: what is proved, what is not, and what no server can make of true certificates."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.errors import (
    AlreadyTrusted,
    BoneValueError,
    Busy,
    ClockSkew,
    IdentityMismatch,
    NotTrusted,
    RemoteProtocolError,
    TokenExpired,
    TokenInvalid,
    TooManyTrusted,
)
from bonevalue.wire import contacts
from bonevalue.wire.blobs import Invite, Pin, Redeem, Remove, Rotate
from bonevalue.wire.contacts import (
    ContactBook,
    Verdict,
    check_invite,
    check_pin,
    check_redeem,
    check_remove,
    check_rotate,
)
from bonevalue.wire.keys import AccountKeys, fingerprint
from bonevalue.wire.signals import Binary, Contact, SignedBlob
from bonevalue.wire.tokens import redeem as make_redemption
from tests.support.identity import (
    MINUTE,
    NOW,
    account,
    entry,
    invite,
    pin,
    redeem,
    remove,
    rotate,
    seed,
    signed,
    token_of,
)

ALICE, BOB, CAROL, MALLORY = (account(name) for name in ("alice", "bob", "carol", "mallory"))
BOB2, BOB3, MALLORY2 = account("bob, later"), account("bob, much later"), account("mallory, later")
TOKEN = token_of(ALICE)


@pytest.fixture
def book() -> ContactBook:
    return ContactBook(ALICE)


def claimed(
    claimer: AccountKeys = BOB, alias: str = "bob", issued: int = NOW, token: str = "token"
) -> tuple[SignedBlob, SignedBlob]:
    """An invite of alice's and its redeem."""
    return invite(ALICE, token_of(ALICE, token), alias, issued), redeem(
        claimer, token_of(ALICE, token), "robert", issued + MINUTE
    )


def code(verdict: Verdict) -> str | None:
    return verdict.problem.code if verdict.problem else None


def assert_trusts(book: ContactBook, **keys: AccountKeys) -> None:
    """The book holds exactly these contacts, seen from all sides."""
    assert book.names() == sorted(keys)
    for name, key in keys.items():
        contact = book.contact(name)
        assert contact is not None
        assert contact.key == key.public == book.key_of(name)
        assert book.name_of(key.public) == name


# -- what is proved --------------------------------------------------------------------------------------------------


def test_ones_own_account_is_us(book: ContactBook) -> None:
    assert book.name_of(ALICE.public) == "Us"
    assert book.key_of("Us") == ALICE.public == book.public_key
    assert book.names() == []
    assert book.contact("Us") is None


def test_an_invite_and_its_redeem_prove_a_contact_and_give_a_pin(book: ContactBook) -> None:
    verdict = book.receive(entry("bob", BOB, *claimed()), NOW + 2 * MINUTE)
    assert_trusts(book, bob=BOB)
    assert verdict.contact is not None
    assert verdict.contact.username == "robert"
    assert verdict.contact.fingerprint == fingerprint(BOB.public)
    assert verdict.pin is not None
    blob, signature = verdict.pin
    # Dated like the invite: a pin is no newer word than what it stands for.
    assert Pin.open(blob, signature, ALICE.public) == Pin(ALICE.public, BOB.public, "bob", NOW)


def test_a_pin_proves_a_contact_and_needs_no_other(book: ContactBook) -> None:
    verdict = book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    assert_trusts(book, bob=BOB)
    assert verdict.pin is None
    assert verdict.contact is not None
    assert verdict.contact.username is None


def test_pin_and_redeem_together_are_well(book: ContactBook) -> None:
    verdict = book.receive(entry("bob", BOB, *claimed(), pin(ALICE, BOB, "bob")), NOW)
    assert_trusts(book, bob=BOB)
    assert verdict.pin is None


def test_the_pin_of_a_verdict_proves_the_contact_to_the_next_process(book: ContactBook) -> None:
    verdict = book.receive(entry("bob", BOB, *claimed()), NOW)
    assert verdict.pin is not None
    blob, signature = verdict.pin
    assert verdict.pin == book.make_pin("bob")
    other = ContactBook(ALICE)
    other.replace([entry("bob", BOB, SignedBlob(Binary(blob), [Binary(signature)]))], NOW)
    assert_trusts(other, bob=BOB)


def test_a_list_replaces_all_that_was_shown(book: ContactBook) -> None:
    book.replace([entry("bob", BOB, pin(ALICE, BOB, "bob")), entry("carol", CAROL, pin(ALICE, CAROL, "carol"))], NOW)
    assert_trusts(book, bob=BOB, carol=CAROL)
    verdicts = book.replace([entry("carol", CAROL, pin(ALICE, CAROL, "carol"))], NOW)
    assert_trusts(book, carol=CAROL)
    assert verdicts == book.verdicts()
    book.discard("carol")
    assert_trusts(book)


def test_certificates_of_others_prove_nothing_and_harm_nothing(book: ContactBook) -> None:
    strangers = [pin(MALLORY, BOB, "bob"), rotate(MALLORY, MALLORY2), *claimed(MALLORY)[1:], remove(MALLORY, BOB)]
    assert code(book.receive(entry("bob", BOB, *strangers), NOW)) == "identity_mismatch"
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob"), *strangers), NOW)
    assert_trusts(book, bob=BOB)


# -- what is not -----------------------------------------------------------------------------------------------------


def with_signatures(certificate: SignedBlob, *signatures: bytes) -> SignedBlob:
    return SignedBlob(certificate.blob, [Binary(signature) for signature in signatures])


def forged_redeem() -> SignedBlob:
    """Mallory in the place of bob, with the token's signature from bob's redeem."""
    true = redeem(BOB, TOKEN)
    blob = Redeem(TOKEN.keys.public, ALICE.public, MALLORY.public, "robert", NOW).encode()
    return SignedBlob(Binary(blob), [true.signatures[0], Binary(MALLORY.sign(blob))])


OTHER_TOKEN = token_of(ALICE, "other")
FORGED: dict[str, tuple[str, list[SignedBlob]]] = {
    "nothing": ("identity_mismatch", []),
    "no redeem": ("identity_mismatch", [invite(ALICE, TOKEN, "bob")]),
    "no invite": ("identity_mismatch", [redeem(BOB, TOKEN)]),
    "redeem of another token": ("identity_mismatch", [invite(ALICE, TOKEN, "bob"), redeem(BOB, OTHER_TOKEN)]),
    "redeemer replaced": ("identity_mismatch", [invite(ALICE, TOKEN, "bob"), forged_redeem()]),
    "redeemed without the token": (
        "identity_mismatch",
        [invite(ALICE, TOKEN, "bob"), signed(Redeem.decode(redeem(BOB, TOKEN).blob), BOB, BOB)],
    ),
    "redeemed without the claimer": (
        "identity_mismatch",
        [invite(ALICE, TOKEN, "bob"), signed(Redeem.decode(redeem(BOB, TOKEN).blob), TOKEN.keys, MALLORY)],
    ),
    "invite by the server": (
        "identity_mismatch",
        [signed(Invite.decode(invite(ALICE, TOKEN, "bob").blob), MALLORY), redeem(BOB, TOKEN)],
    ),
    "invite of another": ("identity_mismatch", [invite(MALLORY, TOKEN, "bob"), redeem(BOB, TOKEN)]),
    "redeemed for another inviter": (
        "identity_mismatch",
        [
            invite(ALICE, TOKEN, "bob"),
            signed(Redeem(TOKEN.keys.public, CAROL.public, BOB.public, "b", NOW), TOKEN.keys, BOB),
        ],
    ),
    "redeemed when it was over": (
        "identity_mismatch",
        [invite(ALICE, TOKEN, "bob"), redeem(BOB, TOKEN, issued=TOKEN.expires * 1000)],
    ),
    "pin signed by another": ("identity_mismatch", [signed(Pin(ALICE.public, BOB.public, "bob", NOW), MALLORY)]),
    "pin of the contact's own": ("identity_mismatch", [pin(BOB, BOB, "bob")]),
    "two signatures on a pin": (
        "identity_mismatch",
        [with_signatures(pin(ALICE, BOB, "bob"), *pin(ALICE, BOB, "bob").signatures * 2)],
    ),
    "no blob": ("identity_mismatch", [SignedBlob(Binary(b"junk"), [Binary(bytes(64))])]),
    "junk beside the truth": (
        "identity_mismatch",
        [pin(ALICE, BOB, "bob"), SignedBlob(Binary(b"junk"), [Binary(bytes(64))])],
    ),
    "a forged rotation beside the truth": (
        "identity_mismatch",
        [pin(ALICE, BOB, "bob"), signed(Rotate(BOB.public, MALLORY.public, NOW), MALLORY, MALLORY)],
    ),
    "a rotation without the new key": (
        "identity_mismatch",
        [pin(ALICE, BOB, "bob"), signed(Rotate(BOB.public, CAROL.public, NOW), BOB, BOB)],
    ),
    "another alias": ("contact_conflict", [pin(ALICE, BOB, "carol")]),
    "two aliases": ("contact_conflict", [pin(ALICE, BOB, "bob"), pin(ALICE, BOB, "carol")]),
    "two keys": ("contact_conflict", [pin(ALICE, BOB, "bob"), pin(ALICE, CAROL, "bob")]),
    "our own key": ("contact_conflict", [pin(ALICE, ALICE, "bob")]),
    "a rotation to our own key": ("contact_conflict", [pin(ALICE, BOB, "bob"), rotate(BOB, ALICE)]),
    "our own token claimed by us": ("contact_conflict", [invite(ALICE, TOKEN, "bob"), redeem(ALICE, TOKEN)]),
    "two claims of one token": ("contact_conflict", [*claimed(), redeem(MALLORY, TOKEN)]),
    "a fork": ("identity_conflict", [pin(ALICE, BOB, "bob"), rotate(BOB, BOB2), rotate(BOB, MALLORY)]),
    "a circle": ("identity_conflict", [pin(ALICE, BOB, "bob"), rotate(BOB, BOB2), rotate(BOB2, BOB)]),
    "a change to itself": ("identity_conflict", [pin(ALICE, BOB, "bob"), rotate(BOB, BOB)]),
    "a rotation that is not led to": ("identity_mismatch", [pin(ALICE, BOB, "bob"), rotate(BOB2, BOB3)]),
    "a pin of our old key": ("identity_mismatch", [pin(account("alice, earlier"), BOB, "bob")]),
}


@pytest.mark.parametrize("case", FORGED)
@pytest.mark.parametrize("shown_key", [BOB, BOB2, BOB3, MALLORY, CAROL, ALICE], ids=["b", "b2", "b3", "m", "c", "a"])
def test_what_is_forged_or_contradicts_itself_is_no_contact(
    book: ContactBook, case: str, shown_key: AccountKeys
) -> None:
    if case == "a rotation that is not led to" and shown_key is BOB:
        return  # then it is only superfluous
    wanted, certificates = FORGED[case]
    verdict = book.receive(entry("bob", shown_key, *certificates), NOW)
    assert code(verdict) == wanted
    assert verdict.contact is None
    assert verdict.pin is None
    assert_trusts(book)
    for key in (BOB, BOB2, BOB3, CAROL, MALLORY):
        assert book.name_of(key.public) is None
    # And it is no harm to what is true afterwards, unless it was truly signed.
    if wanted == "identity_mismatch":
        book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
        assert_trusts(book, bob=BOB)


@pytest.mark.parametrize("which", range(3))
def test_no_bit_of_a_chain_can_be_flipped(which: int) -> None:
    chain = [*claimed(), rotate(BOB, BOB2)]
    target = chain[which]
    for bit in range(len(target.blob) * 8):
        flipped = bytearray(target.blob)
        flipped[bit // 8] ^= 1 << bit % 8
        changed = [*chain[:which], SignedBlob(Binary(flipped), target.signatures), *chain[which + 1 :]]
        verdict = ContactBook(ALICE).receive(entry("bob", BOB2, *changed), NOW)
        assert code(verdict) == "identity_mismatch"


def test_a_new_key_without_proof_is_refused_and_named(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    verdict = book.receive(entry("bob", MALLORY, pin(ALICE, BOB, "bob")), NOW)
    assert isinstance(verdict.problem, IdentityMismatch)
    assert fingerprint(MALLORY.public) in verdict.problem.message
    assert fingerprint(BOB.public) in verdict.problem.message
    assert book.name_of(MALLORY.public) is None


def test_an_alias_pointed_at_another_trusted_peer_is_refused(book: ContactBook) -> None:
    carols = pin(ALICE, CAROL, "carol")
    verdicts = book.replace([entry("bob", CAROL, carols), entry("carol", CAROL, carols)], NOW)
    assert [code(verdict) for verdict in verdicts] == ["contact_conflict", None]
    assert_trusts(book, carol=CAROL)


@pytest.mark.parametrize("name", ["Us", "us", "BOB", "", "12", "\x1b[2J"])
def test_no_contact_has_a_name_that_is_none(book: ContactBook, name: str) -> None:
    verdict = book.receive(entry(name, BOB, pin(ALICE, BOB, "bob")), NOW)
    assert code(verdict) == "contact_conflict"
    assert verdict.problem is not None
    assert verdict.problem.message.isprintable()
    assert book.key_of("Us") == ALICE.public


def test_a_name_shown_twice_is_no_contact(book: ContactBook) -> None:
    one = entry("bob", BOB, pin(ALICE, BOB, "bob"))
    for other in (one, entry("bob", CAROL, pin(ALICE, CAROL, "bob", NOW + 1)), entry("bob", BOB)):
        verdicts = book.replace([one, other], NOW)
        assert [code(verdict) for verdict in verdicts] == ["contact_conflict"] * 2
        assert_trusts(book)


@pytest.mark.parametrize("later", [-1, 0, 1])
def test_one_key_has_one_alias(book: ContactBook, later: int) -> None:
    bob, rob = entry("bob", BOB, pin(ALICE, BOB, "bob")), entry("rob", BOB, pin(ALICE, BOB, "rob", NOW + later))
    for verdict in book.replace([bob, rob], NOW):
        assert code(verdict) == "contact_conflict"
    assert_trusts(book)
    for first, second in ((bob, rob), (rob, bob)):
        other = ContactBook(ALICE)
        other.receive(first, NOW)
        assert code(other.receive(second, NOW)) == "contact_conflict"
        assert_trusts(other)


def test_two_contacts_that_change_to_one_key_are_none(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    book.receive(entry("carol", BOB, pin(ALICE, CAROL, "carol"), rotate(CAROL, BOB)), NOW)
    assert_trusts(book)
    assert [code(verdict) for verdict in book.verdicts()] == ["contact_conflict"] * 2


# -- our newest word counts ------------------------------------------------------------------------------------------


def test_an_older_alias_does_not_come_back(book: ContactBook) -> None:
    older, newer = pin(ALICE, BOB, "admin", NOW), pin(ALICE, BOB, "guest", NOW + 1)
    book.replace([entry("guest", BOB, newer)], NOW)
    assert code(book.replace([entry("admin", BOB, older)], NOW)[0]) == "contact_conflict"
    assert_trusts(book)
    book.replace([entry("guest", BOB, newer)], NOW)
    assert_trusts(book, guest=BOB)


def test_an_older_key_of_an_alias_does_not_come_back(book: ContactBook) -> None:
    book.replace([entry("bob", BOB, pin(ALICE, BOB, "bob", NOW + 1))], NOW)
    assert code(book.receive(entry("bob", CAROL, pin(ALICE, CAROL, "bob", NOW)), NOW)) == "contact_conflict"
    assert_trusts(book)


def test_an_alias_given_anew_is_followed(book: ContactBook) -> None:
    # As after the operator reset bob's account: nobody holds the old key any more, so nobody can sign its removal.
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob", NOW)), NOW)
    book.discard("bob")
    book.receive(entry("bob", BOB2, *claimed(BOB2, issued=NOW + 1)), NOW)
    assert_trusts(book, bob=BOB2)


def test_two_words_of_the_same_moment_are_both_void(book: ContactBook) -> None:
    book.receive(entry("bob", BOB, pin(ALICE, BOB, "bob")), NOW)
    for key in (MALLORY, BOB):
        assert code(book.receive(entry("bob", key, pin(ALICE, key, "bob")), NOW)) == "contact_conflict"
        assert_trusts(book)


# -- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replaced", [False, True], ids=["userAdd", "list"])
def test_two_claims_of_one_token_shown_one_after_the_other(book: ContactBook, replaced: bool) -> None:
    invited, by_bob = claimed()
    by_mallory = redeem(MALLORY, TOKEN)

    def show(claimer: AccountKeys, *certificates: SignedBlob) -> Verdict:
        shown = entry("bob", claimer, *certificates)
        return book.replace([shown], NOW + MINUTE)[0] if replaced else book.receive(shown, NOW + MINUTE)

    first = show(BOB, invited, by_bob)
    assert first.pin is not None
    for claimer, redeemed in ((MALLORY, by_mallory), (BOB, by_bob)):
        verdict = show(claimer, invited, redeemed)
        assert code(verdict) == "contact_conflict"
        assert "two accounts claimed its token" in str(verdict.problem)
        assert_trusts(book)
    # Not even by the pin that was made of the first.
    assert code(show(BOB, SignedBlob(Binary(first.pin[0]), [Binary(first.pin[1])]))) == "contact_conflict"
    # Trust made anew, with a new token, counts again.
    book.receive(entry("bob", BOB, *claimed(issued=NOW + 2 * MINUTE, token="new")), NOW + 3 * MINUTE)
    assert_trusts(book, bob=BOB)


def test_the_same_account_may_claim_twice(book: ContactBook) -> None:
    invited, by_bob = claimed()
    book.receive(entry("bob", BOB, invited, by_bob, redeem(BOB, TOKEN, issued=NOW + 5)), NOW)
    assert_trusts(book, bob=BOB)


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


# -- refusing, limits ------------------------------------------------------------------------------------------------


def test_a_refused_key_is_never_a_contact() -> None:
    book = ContactBook(ALICE, refuse=frozenset({fingerprint(BOB.public)}))
    chain = [pin(ALICE, BOB, "bob"), rotate(BOB, BOB2)]
    assert code(book.receive(entry("bob", BOB, chain[0]), NOW)) == "not_trusted"
    # Nor what it changes into.
    assert code(book.receive(entry("bob", BOB2, *chain), NOW)) == "not_trusted"
    book.receive(entry("carol", CAROL, pin(ALICE, CAROL, "carol")), NOW)
    assert_trusts(book, carol=CAROL)


def test_a_book_holds_so_many_contacts(book: ContactBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "MAX_CONTACTS", 2)
    people = {name: account(name) for name in ("a", "b", "c")}
    entries = [entry(name, keys, pin(ALICE, keys, name)) for name, keys in people.items()]
    verdicts = book.replace(entries, NOW)
    assert isinstance(verdicts[2].problem, TooManyTrusted)
    assert isinstance(book.receive(entries[2], NOW).problem, TooManyTrusted)
    assert_trusts(book, a=people["a"], b=people["b"])


def test_nothing_is_signed_for_whoever_is_no_contact(book: ContactBook) -> None:
    for name in ("bob", "Us"):
        with pytest.raises(NotTrusted):
            book.make_pin(name)
        with pytest.raises(NotTrusted):
            book.make_remove(name, NOW)


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
    assert redemption_error(redeem(BOB, OTHER_TOKEN, "robert")) is TokenInvalid
    for_carol = Redeem(TOKEN.keys.public, CAROL.public, BOB.public, "robert", NOW)
    assert redemption_error(signed(for_carol, TOKEN.keys, BOB)) is TokenInvalid
    assert redemption_error(with_signatures(true, true.signatures[0])) is TokenInvalid
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
