"""What the store promises: accounts, trust, tokens, key changes, news. Faults of the database: test_database."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bonevalue.errors import (
    AliasTaken,
    AlreadyTrusted,
    ContactConflict,
    IdentityConflict,
    NameTaken,
    NotTrusted,
    SessionEnded,
    TokenExpired,
    TokenInvalid,
    TokenUsed,
    TooManyTokens,
    TooManyTrusted,
)
from bonevalue.wire.signals import Binary, SignedBlob
from bonevalue_server.ledger import LONGEST_CHAIN
from bonevalue_server.records import Change, SecondRedemption
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import Clock, Person, befriend, claim, enrol, invite
from tests.support.identity import MINUTE, NOW

DAY = 24 * 60 * MINUTE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    opened = await Store.open(
        f"sqlite:///{tmp_path}/server.db", realm="example.org", max_tokens=4, max_trusted=3, clock=clock
    )
    yield opened
    await opened.close()


@pytest.fixture
async def alice(store: Store) -> Person:
    return await enrol(store, "alice")


@pytest.fixture
async def bob(store: Store) -> Person:
    return await enrol(store, "bob")


async def rotate(store: Store, person: Person, new_name: str, pins: dict[bytes, SignedBlob] | None = None) -> Person:
    """Change somebody's key to that of another name."""
    new = identity.account(new_name)
    rotated = await store.rotate(
        person.account.id,
        old_key=person.keys.public,
        new_key=new.public,
        login_hash="$2b$04$new",
        rotate=identity.rotate(person.keys, new),
        pins=pins or {},
    )
    return Person(new, rotated.account)


# -- accounts ----------------------------------------------------------------------------------------------------


async def test_an_account_is_found_by_name_and_by_id(store: Store, alice: Person) -> None:
    assert alice.account.created == NOW
    assert await store.account("alice") == alice.account
    assert await store.account_by_id(alice.account.id) == alice.account
    assert await store.account("alicia") is None
    assert "$2b$" not in repr(alice.account)


async def test_names_and_keys_are_unique(store: Store, alice: Person) -> None:
    with pytest.raises(NameTaken, match="'alice'"):
        await store.add_account("alice", identity.account("other").public, "h")
    with pytest.raises(NameTaken, match="key"):
        await store.add_account("alice2", alice.keys.public, "h")
    assert [account.username for account in await store.accounts()] == ["alice"]


async def test_a_key_that_was_somebodys_is_taken_too(store: Store, alice: Person) -> None:
    await rotate(store, alice, "alice's second")
    with pytest.raises(NameTaken):
        await store.add_account("mallory", alice.keys.public, "h")


async def test_ids_never_come_back(store: Store, alice: Person) -> None:
    await store.remove_account(alice.account.id)
    again = await enrol(store, "alice")
    assert again.account.id > alice.account.id


async def test_removal_takes_everything_of_the_account_along(store: Store, alice: Person, bob: Person) -> None:
    await befriend(store, alice, bob)
    await invite(store, alice, "carol")
    assert await store.remove_account(alice.account.id) == [bob.account.id]
    assert await store.edges(bob.account.id) == []
    assert (await store.everything()).trust == ()
    assert await store.remove_account(alice.account.id) == []


async def test_reset_ends_all_trust_and_voids_tokens(store: Store, alice: Person, bob: Person) -> None:
    await befriend(store, alice, bob)
    carol = await enrol(store, "carol")
    token = await invite(store, alice, "carol")
    new = identity.account("alice after reset")
    assert await store.reset_account(alice.account.id, new.public, "new hash") == [bob.account.id]
    account = await store.account("alice")
    assert account is not None
    assert (account.id, account.public_key, account.login_hash) == (alice.account.id, new.public, "new hash")
    assert await store.edges(alice.account.id) == await store.edges(bob.account.id) == []
    with pytest.raises(TokenInvalid):
        await claim(store, carol, token, alice, "alice")


async def test_reset_to_the_same_password_is_possible_to_anothers_key_not(
    store: Store, alice: Person, bob: Person
) -> None:
    await befriend(store, alice, bob)
    await store.reset_account(alice.account.id, alice.keys.public, "h")
    assert await store.edges(alice.account.id) == []
    with pytest.raises(NameTaken):
        await store.reset_account(alice.account.id, bob.keys.public, "h")
    await store.remove_account(alice.account.id)
    with pytest.raises(SessionEnded):
        await store.reset_account(alice.account.id, alice.keys.public, "h")


# -- tokens ------------------------------------------------------------------------------------------------------


async def test_a_claimed_token_makes_both_edges_with_their_certificates(
    store: Store, alice: Person, bob: Person
) -> None:
    token = await invite(store, alice, "bobby")
    made = await claim(store, bob, token, alice, "al")
    assert (made.inviter.alias, made.inviter.contact_username, made.inviter.contact_key) == (
        "bobby",
        "bob",
        bob.keys.public,
    )
    assert made.inviter.certificates == (
        identity.invite(alice.keys, token, "bobby"),
        identity.redeem(bob.keys, token, "bob"),
    )
    assert (made.claimer.alias, made.claimer.contact_id) == ("al", alice.account.id)
    assert made.claimer.certificates == (identity.pin(bob.keys, alice.keys, "al"),)
    assert await store.edges(alice.account.id) == [made.inviter]
    assert await store.edges(bob.account.id) == [made.claimer]
    trust = {(edge.owner_id, edge.alias, edge.contact_id) for edge in (await store.everything()).trust}
    assert trust == {(alice.account.id, "bobby", bob.account.id), (bob.account.id, "al", alice.account.id)}


async def test_the_invite_of_a_token_can_be_looked_up(store: Store, alice: Person, bob: Person) -> None:
    token = await invite(store, alice, "bob")
    stored = identity.invite(alice.keys, token, "bob")
    assert await store.invite(token.keys.public) == stored
    await claim(store, bob, token, alice, "alice")
    assert await store.invite(token.keys.public) == stored
    assert await store.invite(bob.keys.public) is None


async def test_an_unknown_token_or_another_inviter_is_refused(store: Store, alice: Person, bob: Person) -> None:
    with pytest.raises(TokenInvalid):
        await claim(store, bob, identity.token_of(alice.keys, "never stored"), alice, "alice")
    token = await invite(store, alice, "bob")
    with pytest.raises(TokenInvalid):
        await store.redeem(
            bob.account.id,
            claimer_key=bob.keys.public,
            inviter_key=identity.account("mallory").public,
            token_key=token.keys.public,
            alias="alice",
            redeem=identity.redeem(bob.keys, token, "bob"),
            issued=NOW,
            pin=identity.pin(bob.keys, alice.keys, "alice"),
        )
    assert await store.edges(alice.account.id) == []


async def test_a_second_claim_is_refused_and_told_to_both_sides_once(store: Store, alice: Person, bob: Person) -> None:
    eve = await enrol(store, "eve")
    token = await invite(store, alice, "bob")
    await claim(store, bob, token, alice, "alice")
    for _ in range(2):
        with pytest.raises(SecondRedemption) as caught:
            await claim(store, eve, token, alice, "alice")
        assert caught.value.code == "token_used"
        assert caught.value.told == (alice.account.id, bob.account.id)
    [to_inviter] = await store.notices(alice.account.id)
    [to_claimer] = await store.notices(bob.account.id)
    assert to_inviter.code == to_claimer.code == "token_used"
    assert "'bob'" in to_inviter.message and "'eve'" in to_inviter.message
    assert "'alice'" in to_claimer.message and "'eve'" not in to_claimer.message
    assert await store.edges(eve.account.id) == [] == await store.notices(eve.account.id)
    await store.clear_notices(alice.account.id, to_inviter.id)
    assert await store.notices(alice.account.id) == []
    assert await store.notices(bob.account.id) == [to_claimer]


async def test_a_second_claim_is_noticed_after_expiry_and_after_the_first_claimer_is_gone(
    store: Store, clock: Clock, alice: Person, bob: Person
) -> None:
    eve = await enrol(store, "eve")
    token = await invite(store, alice, "bob")
    await claim(store, bob, token, alice, "alice")
    await store.remove_account(bob.account.id)
    clock.now += 7 * DAY
    with pytest.raises(SecondRedemption) as caught:
        await claim(store, eve, token, alice, "alice")
    assert caught.value.told == (alice.account.id,)
    assert "gone" in (await store.notices(alice.account.id))[0].message


async def test_claiming_twice_oneself_is_no_theft(store: Store, alice: Person, bob: Person) -> None:
    token = await invite(store, alice, "bob")
    await claim(store, bob, token, alice, "alice")
    with pytest.raises(AlreadyTrusted, match="'alice'"):
        await claim(store, bob, token, alice, "alice")
    await store.remove_edge(bob.account.id, "alice", identity.remove(bob.keys, alice.keys))
    with pytest.raises(TokenUsed) as caught:
        await claim(store, bob, token, alice, "alice")
    assert not isinstance(caught.value, SecondRedemption)
    assert await store.notices(alice.account.id) == []


async def test_one_token_claimed_by_many_at_once_makes_one_trust(store: Store, alice: Person) -> None:
    token = await invite(store, alice, "bob")
    people = [await enrol(store, f"p{number}") for number in range(8)]
    outcomes = await asyncio.gather(
        *(claim(store, person, token, alice, "alice") for person in people), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, SecondRedemption) for outcome in outcomes) == 7
    assert len(await store.edges(alice.account.id)) == 1


async def test_one_does_not_trust_oneself_nor_anybody_twice(store: Store, alice: Person, bob: Person) -> None:
    with pytest.raises(AlreadyTrusted, match="own"):
        await claim(store, alice, await invite(store, alice, "me"), alice, "myself")
    first, second = await invite(store, alice, "bob", "1"), await invite(store, alice, "robert", "2")
    back = await invite(store, bob, "alicia", "3")
    await claim(store, bob, first, alice, "alice")
    with pytest.raises(AlreadyTrusted):
        await claim(store, bob, second, alice, "alice2")
    with pytest.raises(AlreadyTrusted):
        await claim(store, alice, back, bob, "bobby")
    assert len(await store.edges(alice.account.id)) == len(await store.edges(bob.account.id)) == 1


async def test_a_token_expires(store: Store, clock: Clock, alice: Person, bob: Person) -> None:
    token = await invite(store, alice, "bob", expires=NOW + MINUTE)
    clock.now = NOW + MINUTE
    with pytest.raises(TokenExpired):
        await claim(store, bob, token, alice, "alice")
    clock.now = NOW
    with pytest.raises(TokenExpired):
        await claim(store, bob, token, alice, "alice", issued=NOW + MINUTE + 1)
    await claim(store, bob, token, alice, "alice", issued=NOW + MINUTE)


async def test_aliases_are_unique_for_an_account(store: Store, alice: Person, bob: Person) -> None:
    carol = await enrol(store, "carol")
    for_carol = await invite(store, carol, "whoever", "from carol")
    also_for_bob = await invite(store, alice, "bob", "another")
    await befriend(store, alice, bob)
    with pytest.raises(AliasTaken):
        await invite(store, alice, "bob", "too late")
    with pytest.raises(AliasTaken):
        await claim(store, alice, for_carol, carol, "bob")
    with pytest.raises(TokenInvalid):  # was withdrawn when its alias was given away
        await claim(store, carol, also_for_bob, alice, "alice")
    await claim(store, alice, for_carol, carol, "carol")


async def test_an_alias_that_the_inviter_took_meanwhile_is_refused_without_using_the_token(
    store: Store, alice: Person, bob: Person
) -> None:
    carol = await enrol(store, "carol")
    token = await invite(store, alice, "bob", "made first")
    of_carol = await invite(store, carol, "alice", "of carol")
    await claim(store, alice, of_carol, carol, "bob")
    with pytest.raises(AliasTaken, match="since"):
        await claim(store, bob, token, alice, "alice")
    await store.remove_edge(alice.account.id, "bob", identity.remove(alice.keys, carol.keys))
    await claim(store, bob, token, alice, "alice")


async def test_unclaimed_tokens_are_limited_and_expired_ones_do_not_count(
    store: Store, clock: Clock, alice: Person
) -> None:
    for number in range(4):
        await invite(store, alice, "bob", str(number), expires=NOW + MINUTE)
    with pytest.raises(TooManyTokens, match="4"):
        await invite(store, alice, "bob", "one more")
    clock.now += MINUTE
    await invite(store, alice, "bob", "one more")


async def test_the_same_invite_twice_is_one(store: Store, alice: Person, bob: Person) -> None:
    await invite(store, alice, "bob")
    await invite(store, alice, "bob")
    with pytest.raises(TokenUsed):
        await invite(store, alice, "bobby")
    mallory = await enrol(store, "mallory")
    token = identity.token_of(alice.keys)
    with pytest.raises(TokenUsed):
        await store.add_invite(
            mallory.account.id,
            inviter_key=mallory.keys.public,
            token_key=token.keys.public,
            alias="bob",
            invite=identity.invite(mallory.keys, token, "bob"),
            issued=NOW,
            expires=NOW + MINUTE,
        )


async def test_trust_is_limited_for_both_sides(store: Store, alice: Person, bob: Person) -> None:
    others = [await enrol(store, f"p{number}") for number in range(4)]
    early = await invite(store, alice, "bob", "early")
    for other in others[:3]:
        await befriend(store, alice, other)
    with pytest.raises(TooManyTrusted):
        await invite(store, alice, "four", "four")
    with pytest.raises(TooManyTrusted, match="whoever made this token"):
        await claim(store, bob, early, alice, "alice")
    from_bob = await invite(store, bob, "alice", "from bob")
    with pytest.raises(TooManyTrusted, match="an account may trust 3"):
        await claim(store, alice, from_bob, bob, "bob")


async def test_old_tokens_are_forgotten(store: Store, clock: Clock, alice: Person, bob: Person) -> None:
    claimed, unclaimed = await invite(store, alice, "bob", "claimed"), await invite(store, alice, "carol", "unclaimed")
    await claim(store, bob, claimed, alice, "alice")
    clock.now += DAY
    await invite(store, alice, "dave", "later", expires=clock.now + MINUTE)
    assert await store.invite(unclaimed.keys.public) is None
    assert await store.invite(claimed.keys.public) is not None
    clock.now += 31 * DAY
    await invite(store, alice, "dave", "much later", expires=clock.now + MINUTE)
    assert await store.invite(claimed.keys.public) is None


# -- sessions of former keys -----------------------------------------------------------------------------------------


async def test_a_session_of_a_former_key_writes_nothing(store: Store, alice: Person, bob: Person) -> None:
    token = await invite(store, bob, "alice", "from bob")
    await rotate(store, alice, "alice's second")
    with pytest.raises(SessionEnded):
        await invite(store, alice, "bob", "old session")
    with pytest.raises(SessionEnded):
        await claim(store, alice, token, bob, "bob")
    with pytest.raises(SessionEnded):
        await rotate(store, alice, "alice's third")


# -- contacts ------------------------------------------------------------------------------------------------------


async def test_a_pin_replaces_the_certificates(store: Store, alice: Person, bob: Person) -> None:
    await befriend(store, alice, bob)
    pin = identity.pin(alice.keys, bob.keys, "bob")
    edge = await store.update_pin(alice.account.id, contact_key=bob.keys.public, alias="bob", pin=pin)
    assert edge.certificates == (pin,)
    assert await store.edges(alice.account.id) == [edge]


async def test_a_pin_is_for_a_contact_under_its_alias(store: Store, alice: Person, bob: Person) -> None:
    carol = await enrol(store, "carol")
    await befriend(store, alice, bob)
    with pytest.raises(NotTrusted):
        await store.update_pin(
            alice.account.id,
            contact_key=carol.keys.public,
            alias="carol",
            pin=identity.pin(alice.keys, carol.keys, "carol"),
        )
    with pytest.raises(ContactConflict):
        await store.update_pin(
            alice.account.id,
            contact_key=bob.keys.public,
            alias="robert",
            pin=identity.pin(alice.keys, bob.keys, "robert"),
        )
    assert len((await store.edges(alice.account.id))[0].certificates) == 2


async def test_a_pin_of_a_former_key_is_followed_by_the_key_changes_since(
    store: Store, alice: Person, bob: Person
) -> None:
    await befriend(store, alice, bob)
    second = await rotate(store, bob, "bob's second")
    third = await rotate(store, second, "bob's third")
    steps = [identity.rotate(bob.keys, second.keys), identity.rotate(second.keys, third.keys)]
    for keys, since in ((bob.keys, steps), (second.keys, steps[1:]), (third.keys, [])):
        pin = identity.pin(alice.keys, keys, "bob")
        edge = await store.update_pin(alice.account.id, contact_key=keys.public, alias="bob", pin=pin)
        assert edge.certificates == (pin, *since)
        assert edge.contact_key == third.keys.public


async def test_ending_trust_ends_it_for_both_and_keeps_the_proof_for_both(
    store: Store, alice: Person, bob: Person
) -> None:
    token = await invite(store, alice, "bobby")
    await claim(store, bob, token, alice, "al")
    proof = identity.remove(bob.keys, alice.keys)
    removed = await store.remove_edge(bob.account.id, "al", proof)
    assert (removed.contact_id, removed.contact_alias) == (alice.account.id, "bobby")
    assert await store.edges(alice.account.id) == await store.edges(bob.account.id) == []
    assert [(one.name, one.remove) for one in await store.removals(alice.account.id)] == [("bobby", proof)]
    assert [(one.name, one.remove) for one in await store.removals(bob.account.id)] == [("al", proof)]
    assert await store.missed(bob.account.id) == (await store.removals(bob.account.id), [])
    with pytest.raises(NotTrusted):
        await store.remove_edge(alice.account.id, "bobby", identity.remove(alice.keys, bob.keys))


async def test_proofs_of_removal_go_with_new_trust_with_a_reused_alias_and_with_time(
    store: Store, clock: Clock, alice: Person, bob: Person
) -> None:
    carol = await enrol(store, "carol")
    proof = identity.remove(alice.keys, bob.keys)
    await befriend(store, alice, bob)
    await store.remove_edge(alice.account.id, "bob", proof)
    await claim(store, bob, await invite(store, alice, "robert", "again"), alice, "alicia")
    assert await store.removals(alice.account.id) == [] == await store.removals(bob.account.id)

    await store.remove_edge(alice.account.id, "robert", proof)
    await claim(store, carol, await invite(store, alice, "robert", "carol's"), alice, "alice")
    assert await store.removals(alice.account.id) == []
    assert len(await store.removals(bob.account.id)) == 1

    clock.now += 8 * DAY
    assert await store.removals(bob.account.id) == []


# -- key changes ---------------------------------------------------------------------------------------------------


async def test_rotation_pins_anew_and_appends_the_proof_to_everyones_edge(
    store: Store, alice: Person, bob: Person
) -> None:
    await befriend(store, alice, bob)
    new = identity.account("alice's second")
    proof, pin = identity.rotate(alice.keys, new), identity.pin(new, bob.keys, "bob")
    gone = identity.account("somebody who was removed meanwhile")
    rotated = await store.rotate(
        alice.account.id,
        old_key=alice.keys.public,
        new_key=new.public,
        login_hash="$2b$04$new",
        rotate=proof,
        pins={bob.keys.public: pin, gone.public: identity.pin(new, gone, "gone")},
    )
    assert (rotated.account.public_key, rotated.account.login_hash) == (new.public, "$2b$04$new")
    [mine], [theirs] = rotated.own, rotated.contacts
    assert mine.certificates == (pin,)
    assert theirs.certificates == (identity.pin(bob.keys, alice.keys, "alice"), proof)
    assert theirs.contact_key == new.public
    assert await store.edges(alice.account.id) == [mine]
    assert await store.edges(bob.account.id) == [theirs]


async def test_rotation_without_a_pin_leaves_the_old_certificates_to_be_seen(
    store: Store, alice: Person, bob: Person
) -> None:
    made = await befriend(store, alice, bob)
    await rotate(store, alice, "alice's second")
    assert (await store.edges(alice.account.id))[0].certificates == made.inviter.certificates


async def test_rotation_pins_a_contact_that_rotated_meanwhile(store: Store, alice: Person, bob: Person) -> None:
    await befriend(store, alice, bob)
    later = await rotate(store, bob, "bob's second")
    new = identity.account("alice's second")
    pin = identity.pin(new, bob.keys, "bob")
    await rotate(store, alice, "alice's second", {bob.keys.public: pin})
    [edge] = await store.edges(alice.account.id)
    assert edge.certificates == (pin, identity.rotate(bob.keys, later.keys))


async def test_unclaimed_tokens_die_with_the_key_and_second_claims_are_still_noticed(
    store: Store, alice: Person, bob: Person
) -> None:
    eve = await enrol(store, "eve")
    claimed, unclaimed = await invite(store, alice, "bob", "claimed"), await invite(store, alice, "eve", "unclaimed")
    await claim(store, bob, claimed, alice, "alice")
    await rotate(store, alice, "alice's second")
    with pytest.raises(TokenInvalid):
        await claim(store, eve, unclaimed, alice, "alice")
    with pytest.raises(SecondRedemption):
        await claim(store, eve, claimed, alice, "alice")


async def test_a_key_is_used_once(store: Store, alice: Person, bob: Person) -> None:
    second = await rotate(store, alice, "alice's second")
    for used in ("alice", "alice's second", "bob"):
        with pytest.raises(IdentityConflict):
            await rotate(store, second, used)
    await store.reset_account(alice.account.id, alice.keys.public, "h")  # an operator may


async def test_a_chain_of_key_changes_stays_within_what_a_message_holds(
    store: Store, alice: Person, bob: Person
) -> None:
    await befriend(store, alice, bob)
    person = alice
    for number in range(LONGEST_CHAIN + 2):
        person = await rotate(store, person, f"alice {number}")
    [edge] = await store.edges(bob.account.id)
    assert len(edge.certificates) == LONGEST_CHAIN
    pin = identity.pin(bob.keys, alice.keys, "alice")
    edge = await store.update_pin(bob.account.id, contact_key=alice.keys.public, alias="alice", pin=pin)
    assert len(edge.certificates) == LONGEST_CHAIN


# -- news --------------------------------------------------------------------------------------------------------


async def test_changes_are_those_of_other_processes_once(store: Store, tmp_path: Path, clock: Clock) -> None:
    other = await Store.open(f"sqlite:///{tmp_path}/server.db", realm="example.org", clock=clock)
    alice, bob = await enrol(store, "alice"), await enrol(store, "bob")
    await befriend(store, alice, bob)
    assert await store.changes() == []
    assert await other.changes() == [
        Change(alice.account.id, "account"),
        Change(bob.account.id, "account"),
        Change(alice.account.id, "trust"),
        Change(bob.account.id, "trust"),
    ]
    assert await other.changes() == []
    await other.reset_account(alice.account.id, identity.account("reset").public, "h")
    assert await store.changes() == [Change(alice.account.id, "account"), Change(bob.account.id, "trust")]
    await other.remove_account(bob.account.id)
    assert await store.changes() == [Change(bob.account.id, "account")]
    await other.close()


async def test_whoever_is_far_behind_loads_everything(
    store: Store, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonevalue_server.ledger._JOURNAL", 5)
    other = await Store.open(f"sqlite:///{tmp_path}/server.db", realm="example.org", clock=clock)
    for number in range(7):
        await enrol(other, f"p{number}")
    assert [change.what for change in await store.changes()] == ["everything"]
    assert await store.changes() == []
    await other.close()


# -- the whole ---------------------------------------------------------------------------------------------------


async def test_what_was_acknowledged_is_there_after_reopening(
    store: Store, tmp_path: Path, alice: Person, bob: Person
) -> None:
    await befriend(store, alice, bob)
    token = await invite(store, alice, "carol")
    before = await store.everything()
    await store.close()
    await store.close()
    again = await Store.open(f"sqlite:///{tmp_path}/server.db", realm="example.org")
    assert await again.everything() == before
    assert again.secret == store.secret and len(again.secret) == 32
    assert await again.invite(token.keys.public) is not None
    assert await again.changes() == []
    await again.check()
    await again.close()


async def test_the_file_is_its_owners_alone(store: Store, tmp_path: Path) -> None:
    for name in ("server.db", "server.db-wal", "server.db-shm"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


async def test_signatures_of_another_length_never_get_in(store: Store, alice: Person, bob: Person) -> None:
    await befriend(store, alice, bob)
    with pytest.raises(ValueError, match="64"):
        await store.remove_edge(alice.account.id, "bob", SignedBlob(Binary(b"x"), [Binary(b"short")]))
    assert len(await store.edges(alice.account.id)) == 1
