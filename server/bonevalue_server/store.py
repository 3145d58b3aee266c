"""
What the discovery server keeps: accounts, who trusts whom with which certificates, tokens not yet claimed.

:class:`Store` speaks in frozen records and typed errors; nobody above it sees SQL. It checks what only the database can
know (uniqueness, single use, limits, whose key is current); that blobs are well-formed, and signed by whom they say, is
the caller's to check before. A method either did all of what it says, on disk, when it returns, or nothing when it
raises; whatever is wrong with the database itself is :class:`~bonevalue.errors.Unavailable`, within five seconds, and
passes by itself when the database is back. Times are ms since 1970.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy import Connection, insert, select

from bonevalue.errors import ConfigError
from bonevalue.wire.signals import SignedBlob
from bonevalue_server import migrations
from bonevalue_server.database import PATIENCE, Database
from bonevalue_server.ledger import Ledger
from bonevalue_server.records import (
    Account,
    AccountId,
    Change,
    Edge,
    Notice,
    Redemption,
    Removal,
    Removed,
    Rotated,
    SecondRedemption,
    Snapshot,
    Trust,
)
from bonevalue_server.schema import meta
from bonevalue_server.transaction import Transaction

__all__ = [
    "Account",
    "AccountId",
    "Change",
    "Edge",
    "Notice",
    "Redemption",
    "Removal",
    "Removed",
    "Rotated",
    "SecondRedemption",
    "Snapshot",
    "Store",
    "Trust",
]

Result = TypeVar("Result")


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class Store:
    """
    The database of one discovery server; made by :meth:`open`.

    Args:
        database: with our schema.
        realm: that its accounts are bound to.
        secret: key of the HMAC of tickets; kept in the database, so that a restarted server knows its tickets.
        seen: where the journal of changes ended when the store was opened.
        max_tokens: unclaimed tokens of one account.
        max_trusted: accounts that one account trusts.
        clock: gives ms since 1970.
    """

    def __init__(
        self,
        database: Database,
        *,
        realm: str,
        secret: bytes,
        seen: int,
        max_tokens: int,
        max_trusted: int,
        clock: Callable[[], int],
    ) -> None:
        self.database = database
        self.realm = realm
        self.secret = secret
        self._seen = seen
        self._max_tokens = max_tokens
        self._max_trusted = max_trusted
        self._clock = clock
        self._origin = secrets.token_bytes(16)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        realm: str,
        max_tokens: int = 16,
        max_trusted: int = 1000,
        clock: Callable[[], int] = _wall_clock,
        create: bool = True,
        patience: float = PATIENCE,
    ) -> Store:
        """
        Open (or make) the database and bring its schema up to date.

        Args:
            url: ``sqlite:///path``.
            realm: that accounts are bound to; written into a new database, and for ever that of an old one.
            max_tokens: unclaimed tokens of one account.
            max_trusted: accounts that one account trusts.
            clock: gives ms since 1970.
            create: make the database if there is none.
            patience: seconds to wait for another process to finish a write.

        Raises:
            ConfigError: not a database that we can use, of another realm, or written by a newer version.
            Unavailable: it is locked now.
        """
        database = await Database.open(url, create=create, patience=patience)
        try:
            secret, seen = await database.write(lambda connection: _prepare(connection, realm), bounded=False)
        except BaseException:
            await database.close()
            raise
        return cls(
            database,
            realm=realm,
            secret=secret,
            seen=seen,
            max_tokens=max_tokens,
            max_trusted=max_trusted,
            clock=clock,
        )

    async def close(self) -> None:
        """Close all connections; idempotent."""
        await self.database.close()

    async def check(self) -> None:
        """
        Read one row, for the health page.

        Raises:
            Unavailable: the database does not answer.
        """
        await self._read(lambda transaction: transaction.newest_change())

    # -- accounts

    async def everything(self) -> Snapshot:
        """All accounts and all trust, without certificates, read in one transaction."""
        return await self._read(lambda transaction: transaction.everything())

    async def accounts(self) -> list[Account]:
        """All accounts by name."""
        return await self._read(lambda transaction: transaction.accounts())

    async def account(self, username: str) -> Account | None:
        """The account of that name."""
        return await self._read(lambda transaction: transaction.account(username))

    async def account_by_id(self, account_id: AccountId) -> Account | None:
        """The account of that id."""
        return await self._read(lambda transaction: transaction.account_by_id(account_id))

    async def add_account(self, username: str, public_key: bytes, login_hash: str) -> Account:
        """
        Make an account.

        Raises:
            NameTaken: the name, or the key (also as a former one), is some account's.
        """
        return await self._write(lambda transaction: transaction.add_account(username, public_key, login_hash))

    async def remove_account(self, account_id: AccountId) -> list[AccountId]:
        """Remove an account and all its trust; gives the contacts that lost it (none if there is no such account)."""
        return await self._write(lambda transaction: transaction.remove_account(account_id))

    async def reset_account(self, account_id: AccountId, public_key: bytes, login_hash: str) -> list[AccountId]:
        """
        Give an account a new key and password without proof: ends all its trust and voids its tokens.

        Returns:
            The contacts that lost it.

        Raises:
            NameTaken: the key is some other account's.
            SessionEnded: there is no such account.
        """
        return await self._write(lambda transaction: transaction.reset_account(account_id, public_key, login_hash))

    async def rotate(
        self,
        account_id: AccountId,
        *,
        old_key: bytes,
        new_key: bytes,
        login_hash: str,
        rotate: SignedBlob,
        pins: Mapping[bytes, SignedBlob],
    ) -> Rotated:
        """
        Change key and password with proof.

        Unclaimed tokens of the account die, its edges get the new pins (``pins``: contact's key to pin), and the
        certificates of everyone's edge to it end with the ``rotate`` blob. An edge without a new pin keeps
        certificates that no longer prove anything: the client shows it and may remove it.

        Raises:
            SessionEnded: ``old_key`` is not the account's key (any more).
            IdentityConflict: ``new_key`` is, or was, some account's key.
        """
        return await self._write(
            lambda transaction: transaction.rotate(
                account_id, old_key=old_key, new_key=new_key, login_hash=login_hash, rotate=rotate, pins=pins
            )
        )

    # -- trust

    async def edges(self, account_id: AccountId) -> list[Edge]:
        """All edges of which the account is owner, by alias."""
        return await self._read(lambda transaction: transaction.edges(account_id))

    async def add_invite(
        self,
        account_id: AccountId,
        *,
        inviter_key: bytes,
        token_key: bytes,
        alias: str,
        invite: SignedBlob,
        issued: int,
        expires: int,
    ) -> None:
        """
        Keep an invite until it is claimed or expires.

        Raises:
            TooManyTokens, TooManyTrusted: a limit is reached.
            AliasTaken: the account already has a contact of that alias.
            TokenUsed: there is an invite of that token key already.
            SessionEnded: ``inviter_key`` is not the account's key (any more).
        """
        await self._write(
            lambda transaction: transaction.add_invite(
                account_id,
                inviter_key=inviter_key,
                token_key=token_key,
                alias=alias,
                invite=invite,
                issued=issued,
                expires=expires,
            )
        )

    async def invite(self, token_key: bytes) -> SignedBlob | None:
        """The invite of a token, claimed or not, to check a redeem with; None if there is none (any more)."""
        return await self._read(lambda transaction: transaction.invite(token_key))

    async def redeem(
        self,
        account_id: AccountId,
        *,
        claimer_key: bytes,
        inviter_key: bytes,
        token_key: bytes,
        alias: str,
        redeem: SignedBlob,
        issued: int,
        pin: SignedBlob,
    ) -> Redemption:
        """
        Claim a token: single use, both edges, one transaction.

        Args:
            account_id: the claimer.
            alias: what the claimer calls the inviter.
            issued: of the ``redeem`` blob.

        Raises:
            TokenInvalid: no such token, or not of that inviter key.
            TokenExpired: too late.
            SecondRedemption: another account claimed it before (a :class:`TokenUsed`).
            AlreadyTrusted: the two trust each other already (also: one's own token, or claimed by oneself before).
            AliasTaken, TooManyTrusted: for the claimer, or for the inviter by now.
            SessionEnded: ``claimer_key`` is not the account's key (any more).
        """
        outcome = await self._write(
            lambda transaction: transaction.redeem(
                account_id,
                claimer_key=claimer_key,
                inviter_key=inviter_key,
                token_key=token_key,
                alias=alias,
                redeem=redeem,
                issued=issued,
                pin=pin,
            )
        )
        if isinstance(outcome, SecondRedemption):
            raise outcome
        return outcome

    async def update_pin(self, account_id: AccountId, *, contact_key: bytes, alias: str, pin: SignedBlob) -> Edge:
        """
        Replace the certificates of one edge by a pin (and the contact's key changes since the pinned key).

        Raises:
            NotTrusted: no contact has, or had, that key.
            ContactConflict: the contact's alias is another.
        """
        return await self._write(
            lambda transaction: transaction.update_pin(account_id, contact_key=contact_key, alias=alias, pin=pin)
        )

    async def remove_edge(self, account_id: AccountId, alias: str, remove: SignedBlob) -> Removed:
        """
        End the trust with one contact, in both directions, and keep the proof for both sides.

        Raises:
            NotTrusted: no contact of that alias.
        """
        return await self._write(lambda transaction: transaction.remove_edge(account_id, alias, remove))

    async def removals(self, account_id: AccountId) -> list[Removal]:
        """Proofs of trust that ended with this account on either side, oldest first, for peers that were away."""
        return await self._read(lambda transaction: transaction.removals(account_id))

    # -- news

    async def missed(self, account_id: AccountId) -> tuple[list[Removal], list[Notice]]:
        """:meth:`removals` and :meth:`notices` in one read, for a peer that comes online."""
        return await self._read(lambda transaction: (transaction.removals(account_id), transaction.notices(account_id)))

    async def notices(self, account_id: AccountId) -> list[Notice]:
        """What the account's people have to be told, oldest first."""
        return await self._read(lambda transaction: transaction.notices(account_id))

    async def clear_notices(self, account_id: AccountId, last_id: int) -> None:
        """Forget the account's notices up to this one: they were told."""
        await self._write(lambda transaction: transaction.clear_notices(account_id, last_id))

    async def changes(self) -> list[Change]:
        """What other processes (``bv account ...``) changed since the last call, or since :meth:`open`."""
        found, self._seen = await self._read(lambda transaction: transaction.changes(self._seen))
        return found

    # -- how

    def _begin(self, connection: Connection) -> Transaction:
        return Transaction(
            connection,
            now=self._clock(),
            origin=self._origin,
            max_tokens=self._max_tokens,
            max_trusted=self._max_trusted,
        )

    async def _read(self, work: Callable[[Transaction], Result]) -> Result:
        return await self.database.read(lambda connection: work(self._begin(connection)))

    async def _write(self, work: Callable[[Transaction], Result]) -> Result:
        return await self.database.write(lambda connection: work(self._begin(connection)))


def _prepare(connection: Connection, realm: str) -> tuple[bytes, int]:
    """Upgrade the schema, settle realm and secret; gives the secret and where the journal of changes ends."""
    migrations.upgrade(connection)
    facts = {name: bytes(value) for name, value in connection.execute(select(meta.c.name, meta.c.value))}
    if not facts:
        facts = {"realm": realm.encode(), "secret": secrets.token_bytes(32)}
        connection.execute(insert(meta), [{"name": name, "value": value} for name, value in facts.items()])
    if facts["realm"] != realm.encode():
        raise ConfigError(
            f"database: its accounts are bound to the realm {facts['realm'].decode()!r}, the settings say {realm!r}: "
            "set discovery.realm to the former, or begin with another database"
        )
    return facts["secret"], Ledger(connection, now=0, origin=b"").newest_change()
