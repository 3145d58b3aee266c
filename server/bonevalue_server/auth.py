"""
Who may log in: by key over the greeting's challenge, or by the login secret against bcrypt; registration; tickets.

Unknown account, locked account and wrong password (or key) are one answer after the same work, so that nobody learns
which names exist. No secret is ever logged here, and no name that came with a failed attempt.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from asyncio import Lock
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from bonevalue.errors import (
    BadMessage,
    BadName,
    BoneValueError,
    IdentityMismatch,
    LoginRefused,
    NameTaken,
    RateLimited,
    RemoteProtocolError,
)
from bonevalue.wire.blobs import LoginBlob, RegisterBlob
from bonevalue.wire.keys import SigningKey, login_digest, to_base64url, username_of
from bonevalue.wire.pacing import Buckets
from bonevalue.wire.signals import Login, Register
from bonevalue_server.attempts import Attempts
from bonevalue_server.limits import Limits
from bonevalue_server.networks import network_of
from bonevalue_server.passwords import COST, Passwords
from bonevalue_server.records import Account, AccountId, NewAccount

__all__ = ["AccountSource", "Auth", "Tickets"]

_REFUSED = "wrong username or password, or locked for a while after too many wrong ones"
_NODE = "node"


class AccountSource(Protocol):
    """Where accounts come from: the Store, or a cache before it."""

    async def account(self, username: str) -> Account | None:
        """The account of that name."""


class Auth:
    """
    All that decides whether somebody is who they say; one object a server.

    Args:
        accounts: where they come from.
        realm: of the server.
        limits: of attempts, of registrations, and of what is hashed at once.
        cost: bcrypt's work factor.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        accounts: AccountSource,
        *,
        realm: str,
        limits: Limits,
        cost: int = COST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounts = accounts
        self._realm = realm
        self._clock = clock
        self._passwords = Passwords(
            threads=limits.bcrypt_threads or os.cpu_count() or 1,
            queue=limits.bcrypt_queue,
            wait=limits.bcrypt_wait,
            cost=cost,
        )
        self._attempts = Attempts(limits)
        self._password_logins: Buckets[str] = Buckets(limits.password_logins)
        self._registrations: Buckets[str] = Buckets(limits.registrations)
        self._registrations_by_address: Buckets[str] = Buckets(limits.registrations_per_ip)
        #: Attempts on one account from one address come one after the other: the lock, and how many want it.
        self._turns: dict[tuple[str, str], tuple[Lock, int]] = {}
        #: Whose key a login for an unknown account is verified with: nobody's.
        self._nobody = SigningKey.from_seed(os.urandom(32)).public

    async def close(self) -> None:
        """Stop the threads."""
        await self._passwords.close()

    # -- login

    async def key_login(self, login: Login, *, challenge: bytes) -> Account:
        """
        Check a login by key over the challenge of this socket's greeting.

        Raises:
            LoginRefused: not signed by the account's key, not for this challenge and realm, or no such account.
            Unavailable: the account is not known here, and the database does not answer.
        """
        account = await self._account(login.username)
        key = self._nobody if account is None else account.public_key
        try:
            blob = LoginBlob.open(login.blob or b"", login.signature or b"", key)
        except (IdentityMismatch, RemoteProtocolError):
            raise LoginRefused(_REFUSED) from None
        if account is None or (blob.realm, blob.challenge, blob.username) != (self._realm, challenge, account.username):
            raise LoginRefused(_REFUSED)
        return account

    async def password_login(self, login: Login, *, address: str) -> Account:
        """
        Check a login by the login secret.

        Args:
            address: the client's, as a trusted proxy tells it.

        Raises:
            LoginRefused: wrong, locked, or no such account.
            RateLimited: too many wrong ones from this address, or too many right ones for this account.
            Busy: too many others are being checked.
            Unavailable: the account is not known here, and the database does not answer.
        """
        account = await self._account(login.username)
        username = _counted_as(login.username) if account is None else account.username
        await self._prove(username, account, login.login or "", address)
        if account is None:
            raise LoginRefused(_REFUSED)
        wait = self._password_logins.take(username, self._clock())
        if wait:
            raise RateLimited("too many logins by password for this account: log in by key", retry_after=wait)
        return account

    async def confirm(self, account: Account, login: str, *, address: str) -> None:
        """
        Check the login secret once more, for what a live session alone may not do.

        Raises:
            LoginRefused, RateLimited, Busy: as :meth:`password_login`.
        """
        await self._prove(account.username, account, login, address)

    async def _prove(self, username: str, account: Account | None, login: str, address: str) -> None:
        network = network_of(address)
        async with self._turn(username, network):
            wait = self._attempts.too_many(network, self._clock())
            if wait:
                raise RateLimited("too many wrong passwords from your address", retry_after=wait)
            locked = self._attempts.locked(username, network, self._clock())
            try:
                right = await self._passwords.check(login, account.login_hash if account is not None else None)
            except BoneValueError:
                self._attempts.undone(username, network, locked=locked)
                raise
            if right and not locked:
                self._attempts.succeeded(username, network)
                return
            if not locked:
                self._attempts.failed(username, network, self._clock())
            raise LoginRefused(_REFUSED)

    async def _account(self, username: str) -> Account | None:
        try:
            return await self._accounts.account(username_of(username))
        except BadName:
            return None

    @asynccontextmanager
    async def _turn(self, username: str, network: str) -> AsyncIterator[None]:
        pair = (username, network)
        lock, wanting = self._turns.get(pair, (Lock(), 0))
        self._turns[pair] = (lock, wanting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, wanting = self._turns[pair]
            if wanting > 1:
                self._turns[pair] = (lock, wanting - 1)
            else:
                del self._turns[pair]

    # -- registration

    async def register(self, register: Register, *, challenge: bytes, address: str) -> NewAccount:
        """
        Check a registration: name, proof that the key is theirs, limits. Hashes the login secret; stores nothing.

        Whether registration is open is the caller's to know.

        Raises:
            BadName: the username breaks the rule.
            IdentityMismatch: the blob is not signed by the key, or is for another name, secret, challenge or realm.
            RemoteProtocolError: the blob is malformed.
            NameTaken: there is such an account.
            RateLimited: too many, from this address or at all.
            Busy: too many others are being hashed.
            Unavailable: the database does not answer.
        """
        username = self._check_registration(register, challenge)
        now = self._clock()
        # Refused names count too: else this would be a way to ask which names exist, as often as one likes.
        wait = self._registrations_by_address.take(network_of(address), now)
        if wait:
            raise RateLimited("too many registrations from your address", retry_after=wait)
        if await self._accounts.account(username) is not None:
            raise NameTaken(f"there is an account {username!r} already")
        wait = self._registrations.take(_NODE, now)
        if wait:
            raise RateLimited("too many registrations on this server", retry_after=wait)
        try:
            login_hash = await self.hash(register.login)
        except BoneValueError:
            self._registrations.give_back(_NODE)
            self._registrations_by_address.give_back(network_of(address))
            raise
        return NewAccount(username, bytes(register.public_key), login_hash)

    def _check_registration(self, register: Register, challenge: bytes) -> str:
        username = username_of(register.username)
        try:
            digest = login_digest(register.login)
        except ValueError as error:
            raise BadMessage(f"register.login: {error}") from None
        blob = RegisterBlob.open(register.blob, register.signature, register.public_key)
        said = (blob.realm, blob.challenge, blob.username, blob.login_digest)
        if said != (self._realm, challenge, username, digest):
            raise IdentityMismatch("the signed registration is for another realm, socket, name or password")
        return username

    async def hash(self, login: str) -> str:
        """
        The hash to store of a new login secret.

        Raises:
            BadMessage: not a login secret.
            Busy: too many others are being hashed.
        """
        try:
            return await self._passwords.hash(login)
        except ValueError as error:
            raise BadMessage(f"the login secret: {error}") from None


def _counted_as(username: str) -> str:
    """The name under which attempts on no account count: case must not make many names of one."""
    return username[:64].lower()


class Tickets:
    """
    HMAC-SHA256 of account and peer id under the server's key.

    A ticket gives a peer its id back after a login of that account, also on a restarted server. It logs nobody in: who
    reads the key in the database can make tickets, but use them only for an account whose password they have.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def issue(self, account_id: AccountId, peer_id: str) -> str:
        """The ticket of a peer id."""
        text = f"bonevalue/1/ticket/{account_id}/{peer_id}"
        return to_base64url(hmac.digest(self._secret, text.encode("ascii"), hashlib.sha256))

    def valid(self, account_id: AccountId, peer_id: str, ticket: str) -> bool:
        """Whether this ticket was issued for this peer id of this account."""
        return hmac.compare_digest(self.issue(account_id, peer_id).encode(), ticket.encode("utf-8", "replace"))
