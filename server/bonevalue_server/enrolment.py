"""
Accounts that somebody with the server's own files makes: the section ``accounts:``, and ``bv account``.

Here, and only here, the server's side sees a password: long enough to derive keys from it as a client does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bonevalue.errors import ConfigError, NameTaken
from bonevalue.wire.keys import AccountKeys, from_base64url, public_key_ok, username_of
from bonevalue_server.config import AccountEntry
from bonevalue_server.passwords import COST, hash_login, login_hash_ok
from bonevalue_server.records import NewAccount
from bonevalue_server.store import Store

__all__ = ["create_missing", "new_account"]


def new_account(username: str, password: str, *, realm: str, cost: int = COST) -> NewAccount:
    """
    The account of a password. Takes about half a second: call it in a thread.

    Raises:
        BadName: the username breaks the rule.
        WeakPassword: no password at all; whether it is a good one is the caller's to judge.
    """
    username = username_of(username)
    keys = AccountKeys.derive(password, realm=realm, username=username)
    return NewAccount(username, keys.public, hash_login(keys.login, cost=cost))


async def create_missing(store: Store, entries: Iterable[AccountEntry], *, realm: str, cost: int = COST) -> list[str]:
    """
    Make the accounts of the settings that are not there; those that are stay as they are.

    Returns:
        The names of those that were made.

    Raises:
        ConfigError: an entry's key or hash is none, or the key is another account's.
        Unavailable: the database does not answer.
    """
    made = []
    for entry in entries:
        if await store.account(entry.username) is not None:
            continue
        account = await asyncio.to_thread(_of_entry, entry, realm, cost)
        try:
            await store.add_account(account.username, account.public_key, account.login_hash)
        except NameTaken as error:
            raise ConfigError(f"discovery.accounts: {entry.username}: {error.message}") from error
        made.append(entry.username)
    return made


def _of_entry(entry: AccountEntry, realm: str, cost: int) -> NewAccount:
    if entry.password is not None:
        return new_account(entry.username, entry.password.get_secret_value(), realm=realm, cost=cost)
    key, login_hash = entry.public_key, entry.login_hash
    if key is None or login_hash is None:
        raise ConfigError(f"discovery.accounts: {entry.username}: password, or public_key and login_hash, is missing")
    public_key = from_base64url(key)
    if not public_key_ok(public_key) or not login_hash_ok(login_hash.get_secret_value()):
        raise ConfigError(
            f"discovery.accounts: {entry.username}: public_key or login_hash is not what `bv account hash` prints"
        )
    return NewAccount(entry.username, public_key, login_hash.get_secret_value())
