"""Accounts in a store, and what they do there, with everything signed as clients sign it."""

from __future__ import annotations

from dataclasses import dataclass

from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.tokens import Token
from bonevalue_server.passwords import hash_login
from bonevalue_server.records import Account, Redemption
from bonevalue_server.store import Store
from tests.support import identity

__all__ = ["CHEAPEST", "Clock", "Person", "befriend", "claim", "enrol", "invite"]

#: bcrypt's lowest work factor: what tests that only need some hash pay for it.
CHEAPEST = 4


class Clock:
    """A store's clock: time that passes when told to."""

    def __init__(self) -> None:
        self.now = identity.NOW

    def __call__(self) -> int:
        return self.now


@dataclass(frozen=True)
class Person:
    """Somebody with an account: the keys that the server never sees, and what it has."""

    keys: AccountKeys
    account: Account

    @property
    def name(self) -> str:
        """Their username."""
        return self.account.username


async def enrol(store: Store, name: str) -> Person:
    """Make an account."""
    keys = identity.account(name)
    login_hash = hash_login(keys.login, cost=CHEAPEST)
    return Person(keys, await store.add_account(name, keys.public, login_hash))


async def invite(
    store: Store,
    inviter: Person,
    alias: str,
    text: str = "token",
    *,
    issued: int = identity.NOW,
    expires: int = identity.NOW + 60 * identity.MINUTE,
) -> Token:
    """Somebody makes a token for an alias; another `text` gives another token."""
    token = identity.token_of(inviter.keys, text, expires)
    await store.add_invite(
        inviter.account.id,
        inviter_key=inviter.keys.public,
        token_key=token.keys.public,
        alias=alias,
        invite=identity.invite(inviter.keys, token, alias, issued),
        issued=issued,
        expires=expires,
    )
    return token


async def claim(
    store: Store, claimer: Person, token: Token, inviter: Person, alias: str, *, issued: int = identity.NOW
) -> Redemption:
    """Somebody claims a token."""
    return await store.redeem(
        claimer.account.id,
        claimer_key=claimer.keys.public,
        inviter_key=token.inviter_key,
        token_key=token.keys.public,
        alias=alias,
        redeem=identity.redeem(claimer.keys, token, claimer.name, issued),
        issued=issued,
        pin=identity.pin(claimer.keys, inviter.keys, alias, issued),
    )


async def befriend(store: Store, one: Person, other: Person) -> Redemption:
    """Both trust each other, under their usernames."""
    token = await invite(store, one, other.name, f"{one.name} and {other.name}")
    return await claim(store, other, token, one, one.name)
