"""Making, ending and carrying over trust between accounts, through the discovery server and proved without it."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

from bonevalue.discovery import DiscoveryClient
from bonevalue.errors import BoneValueError, IdentityMismatch
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys, alias_of, check_password
from bonevalue.wire.session import Session
from bonevalue.wire.signals import Binary, ChangePassword, ClaimToken, RemoveUser, RequestToken, SignedBlob, StagePins
from bonevalue.wire.tokens import Token, invite, redeem

__all__ = ["KnownContact", "Trust"]

#: Seconds within which a contact must have been proved after its token was claimed.
PROVED_AFTER_CLAIM = 10.0
#: Pins in one message to the server.
PINS_A_MESSAGE = 100


@dataclass(frozen=True, slots=True)
class KnownContact:
    """What ``bv trust list`` shows of one alias: a fingerprint to compare, or what is wrong."""

    name: str
    fingerprint: str | None
    problem: BoneValueError | None = None


class Trust:
    """
    The trust of one account.

    Args:
        keys: the account's.
        contacts: whom it trusts, proved; kept up to date by ``session``.
        session: the session with the discovery server.
        discovery: asks the server.
    """

    def __init__(self, keys: AccountKeys, contacts: ContactBook, session: Session, discovery: DiscoveryClient) -> None:
        self._keys = keys
        self._contacts = contacts
        self._session = session
        self._discovery = discovery

    @property
    def fingerprint(self) -> str:
        """The account's key, for people to compare."""
        return self._keys.fingerprint

    def contacts(self) -> list[KnownContact]:
        """Every alias with its fingerprint, or with what is wrong with it."""
        known = [
            KnownContact(name, contact.fingerprint)
            for name in self._contacts.names()
            if (contact := self._contacts.contact(name)) is not None
        ]
        refused = [KnownContact(name, None, error) for name, error in self._session.refused.items()]
        return sorted(known + refused, key=lambda contact: contact.name)

    async def request_token(self, alias: str) -> str:
        """
        A token that makes whoever claims it known here as ``alias``. Pass it on in secret: it works once.

        Raises:
            DiscoveryError: bad name, alias taken, too many tokens.
            Unavailable: the discovery server cannot be reached.
        """
        name = alias_of(alias)
        greeting = self._session.greeting
        lifetime = greeting.token_lifetime if greeting is not None else 0
        now_ms = _now_ms()
        token = Token.make(self._keys.public, secrets.token_bytes(16), now_ms // 1000 + lifetime)
        blob, signature = invite(self._keys, token, name, now_ms)
        await self._discovery.request(RequestToken(name, Binary(blob), Binary(signature)))
        return token.text

    async def claim_token(self, alias: str, text: str) -> KnownContact:
        """
        Trust whoever made this token, as ``alias``; gives the fingerprint to compare.

        Raises:
            DiscoveryError: the token is wrong, over or used, or the alias is taken.
            IdentityMismatch: the server took the token and shows another account for it.
            Unavailable: the discovery server cannot be reached.
        """
        name = alias_of(alias)
        token = Token.parse(text)
        claim = redeem(self._keys, self._session.username, token, name, _now_ms())
        signatures = [Binary(signature) for signature in claim.signatures]
        await self._discovery.request(
            ClaimToken(name, Binary(claim.redeem), signatures, Binary(claim.pin), Binary(claim.signature))
        )
        # The contact itself comes as a message of its own.
        deadline = time.monotonic() + PROVED_AFTER_CLAIM
        while (contact := self._contacts.contact(name)) is None or contact.key != token.inviter_key:
            if time.monotonic() > deadline:
                raise IdentityMismatch(f"the server took the token, but shows no valid proof that {name} made it")
            await asyncio.sleep(0.02)
        return KnownContact(name, contact.fingerprint)

    async def remove_user(self, alias: str) -> None:
        """
        End the trust with an alias, also one that is refused. Links to it are cut.

        Raises:
            NotTrusted: there is no such contact.
            Unavailable: the discovery server cannot be reached.
        """
        name = alias_of(alias)
        blob, signature = self._contacts.make_remove(name, _now_ms())
        await self._discovery.request(RemoveUser(name, Binary(blob), Binary(signature)))
        # An honest server has said so before it replied; a dishonest one need not be waited for.
        self._discovery.removed(name, SignedBlob(Binary(blob), [Binary(signature)]))

    async def change_password(self, password: str) -> None:
        """
        Change the account's password, and with it its key; contacts follow by themselves.

        Every peer of the account, this one too, is logged out and needs the new password. Unclaimed tokens end.

        Raises:
            WeakPassword: it is too short or too common.
            Unavailable: the discovery server cannot be reached.
        """
        check_password(password)
        username, realm = self._session.username, self._session.realm
        new_keys = await asyncio.to_thread(AccountKeys.derive, password, realm=realm, username=username)
        rotate, signatures, pins = self._contacts.rotate(new_keys, _now_ms())
        while len(pins) > PINS_A_MESSAGE:
            await self._discovery.request(StagePins(pins[:PINS_A_MESSAGE]))
            pins = pins[PINS_A_MESSAGE:]
        change = ChangePassword(
            self._keys.login, new_keys.login, Binary(rotate), [Binary(each) for each in signatures], pins
        )
        await self._discovery.request(change, timeout=30)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
