"""The ledger: what certificates prove, kept for good and within bounds."""

from itertools import pairwise

import pytest

from bonevalue.errors import IdentityConflict, NotTrusted
from bonevalue.wire import evidence
from bonevalue.wire.evidence import Ledger, Newest, Statement, Void
from tests.support.identity import NOW, account, entry, invite, pin, redeem, remove, rotate, token_of

ALICE, BOB, CAROL = account("alice"), account("bob"), account("carol")
LATER = [account(f"bob, change {number}") for number in range(4)]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(ALICE.public)


def test_an_entry_gives_its_statements(ledger: Ledger) -> None:
    token = token_of(ALICE)
    shown = entry("bob", BOB, pin(ALICE, BOB, "bob", NOW + 1), invite(ALICE, token, "bob"), redeem(BOB, token, "rob"))
    read = ledger.read(shown, NOW)
    assert read.problem is None
    assert read.statements == (
        Statement("bob", BOB.public, NOW + 1),
        Statement("bob", BOB.public, NOW, pin=False, username="rob"),
    )
    assert ledger.newest_of_aliases() == {"bob": Newest(NOW + 1, frozenset({BOB.public}))}
    assert ledger.newest_of_keys() == {BOB.public: Newest(NOW + 1, frozenset({"bob"}))}


def test_a_lineage_is_followed_to_its_end(ledger: Ledger) -> None:
    chain = [pin(ALICE, BOB, "bob"), rotate(BOB, LATER[0]), rotate(LATER[0], LATER[1])]
    ledger.read(entry("bob", LATER[1], *chain), NOW)
    assert ledger.checked_lineage(BOB.public) == [BOB.public, LATER[0].public, LATER[1].public]
    assert ledger.lineage(LATER[1].public) == [LATER[1].public]
    assert ledger.newest_of_keys() == {LATER[1].public: Newest(NOW, frozenset({"bob"}))}
    for key in (BOB, *LATER[:2]):
        assert ledger.mentions(key.public)
    assert not ledger.mentions(LATER[2].public)


def test_a_circle_ends_and_is_not_used(ledger: Ledger) -> None:
    chain = [pin(ALICE, BOB, "bob"), rotate(BOB, LATER[0]), rotate(LATER[0], BOB)]
    ledger.read(entry("bob", BOB, *chain), NOW)
    assert ledger.lineage(BOB.public) == [BOB.public, LATER[0].public]
    for key in (BOB, LATER[0]):
        with pytest.raises(IdentityConflict, match="circle"):
            ledger.checked_lineage(key.public)


def test_rotations_that_lead_on_from_nothing_are_not_kept(ledger: Ledger) -> None:
    ledger.read(entry("bob", BOB, rotate(BOB, LATER[0])), NOW)
    ledger.read(entry("carol", CAROL, pin(ALICE, CAROL, "carol"), rotate(BOB, LATER[0])), NOW)
    assert ledger.lineage(BOB.public) == [BOB.public]


def test_rotations_are_kept_up_to_a_bound(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MAX_ROTATIONS", 2)
    keys = [BOB, *LATER]
    chain = [rotate(old, new) for old, new in pairwise(keys)]
    ledger.read(entry("bob", LATER[3], pin(ALICE, BOB, "bob"), *chain), NOW)
    assert ledger.lineage(BOB.public) == [key.public for key in keys[:3]]


def test_the_latest_void_counts(ledger: Ledger) -> None:
    statement = Statement("bob", BOB.public, NOW)
    for until, void in ((NOW - 1, False), (NOW, True), (NOW - 2, True)):
        ledger.void(BOB.public, Void(until, NotTrusted, "ended"))
        assert (ledger.void_of(statement) is not None) == void


def test_a_removal_tells_whom_it_parts(ledger: Ledger) -> None:
    assert ledger.read_removal(remove(ALICE, BOB, NOW + 9), NOW) == (BOB.public, NOW + 9)
    assert ledger.read_removal(remove(BOB, ALICE, NOW + 9), NOW) == (BOB.public, NOW)
