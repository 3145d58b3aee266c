"""
What ``bv account`` does: accounts, directly in the database of a discovery server, which may be running meanwhile.

A running server hears of it within seconds and ends the sessions of accounts that were removed or reset. Passwords
are judged here, since nobody can judge them later: neither the database nor an entry of ``accounts:`` holds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bonevalue.errors import BadName
from bonevalue.wire.keys import check_password, realm_of, to_base64url, username_of
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.enrolment import new_account
from bonevalue_server.passwords import COST
from bonevalue_server.records import Account, NewAccount
from bonevalue_server.store import Store

__all__ = ["account_entry", "add_account", "list_accounts", "remove_account", "reset_account"]


async def add_account(settings: DiscoverySettings, username: str, password: str, *, cost: int = COST) -> Account:
    """
    Make an account.

    Raises:
        BadName, WeakPassword: the name or the password is none to have.
        NameTaken: there is one of this name.
        ConfigError, Unavailable: the database cannot be opened, or not now.
    """
    account = await _judged(username, password, realm=settings.realm, cost=cost)
    async with _open(settings, create=True) as store:
        return await store.add_account(account.username, account.public_key, account.login_hash)


async def list_accounts(settings: DiscoverySettings) -> list[Account]:
    """
    All accounts by name.

    Raises:
        ConfigError, Unavailable: the database cannot be opened, or not now.
    """
    async with _open(settings) as store:
        return await store.accounts()


async def reset_account(settings: DiscoverySettings, username: str, password: str, *, cost: int = COST) -> Account:
    """
    Give an account another password, for somebody who lost theirs. Ends all its trust: nobody can prove it is the same.

    Raises:
        WeakPassword: the password is none to have.
        BadName: there is no such account.
        ConfigError, Unavailable: the database cannot be opened, or not now.
    """
    new = await _judged(username, password, realm=settings.realm, cost=cost)
    async with _open(settings) as store:
        account = await _existing(store, username)
        await store.reset_account(account.id, new.public_key, new.login_hash)
        return await _existing(store, username)


async def remove_account(settings: DiscoverySettings, username: str) -> Account:
    """
    Remove an account with all its trust and tokens.

    Raises:
        BadName: there is no such account.
        ConfigError, Unavailable: the database cannot be opened, or not now.
    """
    async with _open(settings) as store:
        account = await _existing(store, username)
        await store.remove_account(account.id)
        return account


async def account_entry(username: str, password: str, *, realm: str, cost: int = COST) -> dict[str, str]:
    """
    An entry for ``discovery.accounts`` that holds no password: ``username``, ``public_key``, ``login_hash``.

    Raises:
        BadName, WeakPassword: the name or the password is none to have.
        ValueError: the realm is none.
    """
    account = await _judged(username, password, realm=realm_of(realm), cost=cost)
    return {
        "username": account.username,
        "public_key": to_base64url(account.public_key),
        "login_hash": account.login_hash,
    }


async def _judged(username: str, password: str, *, realm: str, cost: int) -> NewAccount:
    username = username_of(username)
    check_password(password)
    return await asyncio.to_thread(new_account, username, password, realm=realm, cost=cost)


async def _existing(store: Store, username: str) -> Account:
    account = await store.account(username_of(username))
    if account is None:
        raise BadName(f"there is no account {username!r}: `bv account list` shows all")
    return account


@asynccontextmanager
async def _open(settings: DiscoverySettings, *, create: bool = False) -> AsyncIterator[Store]:
    store = await Store.open(
        settings.database.get_secret_value(),
        realm=settings.realm,
        max_tokens=settings.limits.tokens,
        max_trusted=settings.limits.trusted,
        create=create,
    )
    try:
        yield store
    finally:
        await store.close()
