"""What `bv account` does to a database, also while a server has it open; and the accounts of the settings."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bonevalue.errors import BadName, ConfigError, NameTaken, WeakPassword
from bonevalue.wire.keys import AccountKeys, from_base64url
from bonevalue.wire.signals import Login
from bonevalue_server import admin
from bonevalue_server.auth import Auth
from bonevalue_server.config import AccountEntry, DiscoverySettings
from bonevalue_server.enrolment import create_missing, new_account
from bonevalue_server.limits import Limits
from bonevalue_server.records import Change
from bonevalue_server.store import Store
from tests.support.accounts import CHEAPEST, befriend, enrol

GOOD, BETTER = "plum-tart-and-a-violin", "nine ducks cross the road"


@pytest.fixture
def settings(tmp_path: Path) -> DiscoverySettings:
    values: dict[str, Any] = {"database": f"sqlite:///{tmp_path}/server.db", "realm": "example.org"}
    return DiscoverySettings.model_validate(values)


async def open_store(settings: DiscoverySettings) -> Store:
    return await Store.open(settings.database.get_secret_value(), realm=settings.realm)


async def logs_in(store: Store, username: str, password: str) -> bool:
    """Whether the login secret of the password is the account's, and its key is."""
    keys = AccountKeys.derive(password, realm=store.realm, username=username)
    auth = Auth(store, realm=store.realm, limits=Limits(), cost=CHEAPEST)
    account = await auth.password_login(Login(username=username, login=keys.login), address="127.0.0.1")
    await auth.close()
    return account.public_key == keys.public


async def test_accounts_are_added_listed_and_removed(settings: DiscoverySettings) -> None:
    made = await admin.add_account(settings, "Carol", GOOD, cost=CHEAPEST)
    await admin.add_account(settings, "bob", BETTER, cost=CHEAPEST)
    assert [account.username for account in await admin.list_accounts(settings)] == ["bob", "carol"]
    store = await open_store(settings)
    assert await logs_in(store, "carol", GOOD)
    await store.close()
    assert await admin.remove_account(settings, "CAROL") == made
    assert [account.username for account in await admin.list_accounts(settings)] == ["bob"]


async def test_a_running_server_hears_of_all_of_it(settings: DiscoverySettings) -> None:
    server = await open_store(settings)
    alice, bob = await enrol(server, "alice"), await enrol(server, "bob")
    await befriend(server, alice, bob)

    carol = await admin.add_account(settings, "carol", GOOD, cost=CHEAPEST)
    assert await server.changes() == [Change(carol.id, "account")]

    reset = await admin.reset_account(settings, "alice", BETTER, cost=CHEAPEST)
    assert reset.id == alice.account.id and reset.public_key != alice.keys.public
    assert await server.changes() == [Change(alice.account.id, "account"), Change(bob.account.id, "trust")]
    assert await server.edges(bob.account.id) == []
    assert await logs_in(server, "alice", BETTER)

    await admin.remove_account(settings, "bob")
    assert await server.changes() == [Change(bob.account.id, "account")]
    assert await server.account("bob") is None
    await server.close()


async def test_what_is_refused_changes_nothing(settings: DiscoverySettings) -> None:
    await admin.add_account(settings, "alice", GOOD, cost=CHEAPEST)
    before = await admin.list_accounts(settings)
    with pytest.raises(NameTaken):
        await admin.add_account(settings, "alice", BETTER, cost=CHEAPEST)
    for name in ("us", "no such name!", ""):
        with pytest.raises(BadName):
            await admin.add_account(settings, name, GOOD, cost=CHEAPEST)
    for weak in ("test", "short", "password123"):
        with pytest.raises(WeakPassword):
            await admin.add_account(settings, "bob", weak, cost=CHEAPEST)
        with pytest.raises(WeakPassword):
            await admin.reset_account(settings, "alice", weak, cost=CHEAPEST)
        with pytest.raises(WeakPassword):
            await admin.account_entry("bob", weak, realm="example.org", cost=CHEAPEST)
    with pytest.raises(BadName, match="no account 'bob'"):
        await admin.reset_account(settings, "bob", GOOD, cost=CHEAPEST)
    with pytest.raises(BadName, match="no account 'bob'"):
        await admin.remove_account(settings, "bob")
    assert await admin.list_accounts(settings) == before


async def test_nothing_but_adding_makes_a_database(settings: DiscoverySettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        await admin.list_accounts(settings)
    with pytest.raises(ConfigError):
        await admin.remove_account(settings, "alice")
    with pytest.raises(ConfigError):
        await admin.reset_account(settings, "alice", GOOD, cost=CHEAPEST)
    assert os.listdir(tmp_path) == []


async def test_an_entry_holds_no_password_and_makes_the_same_account(settings: DiscoverySettings) -> None:
    entry = await admin.account_entry("Alice", GOOD, realm="Example.org", cost=CHEAPEST)
    keys = AccountKeys.derive(GOOD, realm="example.org", username="alice")
    assert list(entry) == ["username", "public_key", "login_hash"]
    assert entry["username"] == "alice" and from_base64url(entry["public_key"]) == keys.public
    assert GOOD not in json.dumps(entry) and keys.login not in json.dumps(entry)

    store = await open_store(settings)
    entries = [AccountEntry.model_validate(entry), AccountEntry.model_validate({"username": "bob", "password": "test"})]
    assert await create_missing(store, entries, realm="example.org", cost=CHEAPEST) == ["alice", "bob"]
    assert await logs_in(store, "alice", GOOD)
    assert await logs_in(store, "bob", "test")
    await store.close()


async def test_accounts_of_the_settings_that_exist_stay_as_they_are(settings: DiscoverySettings) -> None:
    store = await open_store(settings)
    alice = await enrol(store, "alice")
    entry = AccountEntry.model_validate({"username": "alice", "password": GOOD})
    assert await create_missing(store, [entry], realm="example.org", cost=CHEAPEST) == []
    assert await store.account("alice") == alice.account
    await store.close()


async def test_an_entry_that_is_none_is_the_settings_fault(settings: DiscoverySettings) -> None:
    store = await open_store(settings)
    alice = await enrol(store, "alice")
    good = await admin.account_entry("bob", GOOD, realm="example.org", cost=CHEAPEST)
    small_order = {"public_key": "A" * 43}
    somebody = new_account("carol", GOOD, realm="example.org", cost=CHEAPEST)
    await store.add_account(somebody.username, somebody.public_key, somebody.login_hash)
    carols = await admin.account_entry("carol", GOOD, realm="example.org", cost=CHEAPEST)
    for fault in (small_order, {"public_key": carols["public_key"]}):
        entry = AccountEntry.model_validate({**good, **fault})
        with pytest.raises(ConfigError, match=r"discovery\.accounts: bob"):
            await create_missing(store, [entry], realm="example.org", cost=CHEAPEST)
    assert [account.username for account in await store.accounts()] == [alice.name, "carol"]
    await store.close()
