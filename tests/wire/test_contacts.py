"""Whom an account trusts: what is proved, what is not, and what no server can make of true certificates."""

import pytest

from bonevalue.errors import (
    IdentityMismatch,
    NotTrusted,
    TooManyTrusted,
)
from bonevalue.wire import contacts
from bonevalue.wire.blobs import Invite, Pin, Redeem, Rotate
from bonevalue.wire.contacts import (
    ContactBook,
    Verdict,
)
from bonevalue.wire.keys import AccountKeys, fingerprint
from bonevalue.wire.signals import Binary, SignedBlob
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
    account,
    assert_trusts,
    claimed,
    code,
    entry,
    forged_redeem,
    invite,
    pin,
    redeem,
    remove,
    rotate,
    signed,
    token_of,
)


@pytest.fixture
def book() -> ContactBook:
    return ContactBook(ALICE)


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
