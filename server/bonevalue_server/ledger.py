"""
The SQL of the store, lower half: what one transaction can read, and the single steps that its writes are made of.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, func, insert, or_, select, update

from bonevalue.errors import SessionEnded, TokenUsed
from bonevalue.wire.signals import Binary, SignedBlob
from bonevalue_server.records import (
    Account,
    AccountId,
    Change,
    Edge,
    Notice,
    Removal,
    Snapshot,
    Trust,
)
from bonevalue_server.schema import accounts, certificates, changes, edges, invites, notices, removals, rotations

__all__ = ["CHAIN", "DAY", "HOUR", "LONGEST_CHAIN", "REMOVALS_KEPT", "Ledger", "packed", "to_account", "to_signed"]

HOUR = 3_600_000
DAY = 24 * HOUR
_SIGNATURE = 64

#: How long proofs of removal wait for peers that were away.
REMOVALS_KEPT = 7 * DAY
#: Longest chain of certificates; what a contact message may carry (wire/signals.py).
LONGEST_CHAIN = 64
#: How many changes the journal holds; a process that fell further behind loads everything anew.
_JOURNAL = 10_000

CHAIN = and_(certificates.c.owner_id == edges.c.owner_id, certificates.c.contact_id == edges.c.contact_id)

# What every login asks, made once: to put a query together costs as much as to run it.
_EDGES = (
    select(
        edges.c.owner_id,
        edges.c.alias,
        edges.c.contact_id,
        accounts.c.public_key,
        accounts.c.username,
        certificates.c.blob,
        certificates.c.signatures,
    )
    .join(accounts, accounts.c.id == edges.c.contact_id)
    .outerjoin(certificates, CHAIN)
    .order_by(edges.c.owner_id, edges.c.alias, certificates.c.id)
)
_OWN_EDGES = _EDGES.where(edges.c.owner_id == bindparam("owner"))
_BY_NAME = select(accounts).where(accounts.c.username == bindparam("value"))
_BY_ID = select(accounts).where(accounts.c.id == bindparam("value"))
_REMOVALS = (
    select(removals)
    .where(removals.c.account_id == bindparam("account"), removals.c.removed > bindparam("since"))
    .order_by(removals.c.id)
)
_NOTICES = select(notices).where(notices.c.account_id == bindparam("account")).order_by(notices.c.id)


class Ledger:
    """
    One transaction of the database.

    Args:
        connection: in a transaction.
        now: ms since 1970.
        origin: names this process in the journal of changes.
    """

    def __init__(self, connection: Connection, *, now: int, origin: bytes) -> None:
        self._db = connection
        self._now = now
        self._origin = origin

    # -- what there is

    def accounts(self) -> list[Account]:
        """All accounts by name."""
        return [to_account(row) for row in self._db.execute(select(accounts).order_by(accounts.c.username))]

    def account(self, username: str) -> Account | None:
        """The account of that name."""
        return self._one_account(_BY_NAME, username)

    def account_by_id(self, account_id: AccountId) -> Account | None:
        """The account of that id."""
        return self._one_account(_BY_ID, account_id)

    def everything(self) -> Snapshot:
        """All accounts and all trust."""
        rows = self._db.execute(select(edges.c.owner_id, edges.c.alias, edges.c.contact_id))
        trust = tuple(Trust(owner_id, alias, contact_id) for owner_id, alias, contact_id in rows)
        return Snapshot(tuple(self.accounts()), trust)

    def edges(self, account_id: AccountId) -> list[Edge]:
        """All edges that the account owns, by alias."""
        return _to_edges(self._db.execute(_OWN_EDGES, {"owner": account_id}))

    def invite(self, token_key: bytes) -> SignedBlob | None:
        """The invite of a token, claimed or not."""
        row = self._db.execute(select(invites).where(invites.c.token_key == token_key)).one_or_none()
        return None if row is None else to_signed(row)

    def removals(self, account_id: AccountId) -> list[Removal]:
        """Proofs of ended trust, oldest first."""
        rows = self._db.execute(_REMOVALS, {"account": account_id, "since": self._now - REMOVALS_KEPT})
        return [Removal(row.alias, to_signed(row), row.removed) for row in rows]

    def notices(self, account_id: AccountId) -> list[Notice]:
        """What to tell the account's people, oldest first."""
        rows = self._db.execute(_NOTICES, {"account": account_id})
        return [Notice(row.id, row.account_id, row.code, row.message, row.created) for row in rows]

    def newest_change(self) -> int:
        """Where the journal of changes ends."""
        return self._db.execute(select(func.max(changes.c.id))).scalar_one() or 0

    def changes(self, after: int) -> tuple[list[Change], int]:
        """What other processes wrote in the journal after an entry, each thing once, and where it ends now."""
        oldest, newest = self._db.execute(select(func.min(changes.c.id), func.max(changes.c.id))).one()
        if newest is None or newest == after:
            return [], after
        if newest < after or oldest > after + 1:
            return [Change(AccountId(0), "everything")], newest
        rows = self._db.execute(
            select(changes.c.account_id, changes.c.what)
            .where(changes.c.id > after, changes.c.id <= newest, changes.c.origin != self._origin)
            .order_by(changes.c.id)
        )
        return [Change(account_id, what) for account_id, what in dict.fromkeys(tuple(row) for row in rows)], newest

    # -- what the operations ask

    def _one_account(self, query: Select[Any], value: object) -> Account | None:
        row = self._db.execute(query, {"value": value}).one_or_none()
        return None if row is None else to_account(row)

    def _current(self, account_id: AccountId, key: bytes) -> Account:
        """The account, whose key must be the one that the session logged in with."""
        row = self._db.execute(select(accounts).where(accounts.c.id == account_id).with_for_update()).one_or_none()
        if row is None or row.public_key != key:
            raise SessionEnded("the account was removed or its password changed")
        return to_account(row)

    def _key_known(self, key: bytes, *, besides: AccountId | None = None) -> bool:
        """Whether the key is some account's, or was before a rotation."""
        current = select(accounts.c.id).where(accounts.c.public_key == key)
        former = select(rotations.c.account_id).where(or_(rotations.c.old_key == key, rotations.c.new_key == key))
        owners = self._db.execute(current.union(former)).scalars()
        return any(owner != besides for owner in owners)

    def _contacts(self, account_id: AccountId) -> list[AccountId]:
        return list(self._db.execute(select(edges.c.owner_id).where(edges.c.contact_id == account_id)).scalars())

    def _degree(self, account_id: AccountId) -> int:
        return self._db.execute(select(func.count()).where(edges.c.owner_id == account_id)).scalar_one()

    def _count(self, condition: ColumnElement[bool]) -> int:
        return self._db.execute(select(func.count()).where(condition)).scalar_one()

    def _alias_used(self, account_id: AccountId, alias: str) -> bool:
        return self._count(and_(edges.c.owner_id == account_id, edges.c.alias == alias)) > 0

    def _edge_alias(self, owner_id: AccountId, contact_id: AccountId) -> str | None:
        query = select(edges.c.alias).where(edges.c.owner_id == owner_id, edges.c.contact_id == contact_id)
        return self._db.execute(query).scalar_one_or_none()

    def _edge(self, owner_id: AccountId, contact_id: AccountId) -> Edge:
        return self._edges(and_(edges.c.owner_id == owner_id, edges.c.contact_id == contact_id))[0]

    def _edges(self, condition: ColumnElement[bool]) -> list[Edge]:
        return _to_edges(self._db.execute(_EDGES.where(condition)))

    def _edge_by_key(self, account_id: AccountId, contact_key: bytes) -> tuple[AccountId, str, list[SignedBlob]] | None:
        """
        The contact that has, or once had, a key.

        Returns:
            Its id, its alias, and the proofs of its key changes since that key; None if there is none.
        """
        former = select(rotations.c.account_id).where(rotations.c.old_key == contact_key)
        found = self._db.execute(
            select(edges.c.contact_id, edges.c.alias)
            .join(accounts, accounts.c.id == edges.c.contact_id)
            .where(edges.c.owner_id == account_id)
            .where(or_(accounts.c.public_key == contact_key, accounts.c.id.in_(former)))
        ).one_or_none()
        if found is None:
            return None
        since: list[SignedBlob] = []
        steps = select(rotations).where(rotations.c.account_id == found.contact_id).order_by(rotations.c.id)
        key = contact_key
        for step in self._db.execute(steps):
            if step.old_key == key:
                since.append(to_signed(step))
                key = step.new_key
        return found.contact_id, found.alias, since[: LONGEST_CHAIN - 1]

    # -- the steps they take

    def _set_key(self, account_id: AccountId, public_key: bytes, login_hash: str) -> Account:
        changed = self._db.execute(
            update(accounts)
            .where(accounts.c.id == account_id)
            .values(public_key=public_key, login_hash=login_hash)
            .returning(accounts)
        )
        return to_account(changed.one())

    def _connect(self, owner_id: AccountId, contact_id: AccountId, alias: str, chain: list[SignedBlob]) -> None:
        values = {"owner_id": owner_id, "contact_id": contact_id, "alias": alias, "created": self._now}
        self._db.execute(insert(edges).values(**values))
        self._certify((owner_id, contact_id, signed) for signed in chain)
        # An old proof of removal must not be told of a new contact: not of this one, nor of one with this alias.
        self._db.execute(
            delete(removals).where(
                removals.c.account_id == owner_id,
                or_(removals.c.other_id == contact_id, removals.c.alias == alias),
            )
        )

    def _certify(self, rows: Iterable[tuple[AccountId, AccountId, SignedBlob]]) -> None:
        """Put certificates (owner, contact, blob) at the end of what their edges have."""
        values = [{"owner_id": owner, "contact_id": contact, **packed(signed)} for owner, contact, signed in rows]
        if values:
            self._db.execute(insert(certificates), values)

    def _uncertify(self, pairs: Iterable[tuple[AccountId, AccountId]]) -> None:
        """Take away all certificates of edges (owner, contact)."""
        values = [{"owner": owner, "contact": contact} for owner, contact in pairs]
        if values:
            chain = and_(
                certificates.c.owner_id == bindparam("owner"), certificates.c.contact_id == bindparam("contact")
            )
            self._db.execute(delete(certificates).where(chain), values)

    def _note(self, account_id: AccountId, subject: bytes, message: str) -> None:
        """Have something told, unless the same waits to be told already."""
        code = TokenUsed.code
        same = and_(notices.c.account_id == account_id, notices.c.code == code, notices.c.subject == subject)
        if not self._count(same):
            self._db.execute(
                insert(notices).values(
                    account_id=account_id, code=code, subject=subject, message=message[:512], created=self._now
                )
            )

    def _journal(self, what: str, account_ids: Iterable[AccountId]) -> None:
        rows = [{"origin": self._origin, "account_id": account_id, "what": what} for account_id in account_ids]
        if rows:
            self._db.execute(insert(changes), rows)
            self._db.execute(delete(changes).where(changes.c.id <= self.newest_change() - _JOURNAL))


def to_account(row: Any) -> Account:
    """The account of a row."""
    return Account(row.id, row.username, row.public_key, row.login_hash, row.created)


def _to_edges(rows: Iterable[Any]) -> list[Edge]:
    found = []
    for (owner_id, alias, contact_id, key, username), group in groupby(rows, key=lambda row: tuple(row[:5])):
        chain = tuple(to_signed(row) for row in group if row.blob is not None)
        found.append(Edge(owner_id, alias, contact_id, key, username, chain))
    return found


def packed(signed: SignedBlob) -> dict[str, bytes]:
    """The two columns of a signed blob."""
    if any(len(signature) != _SIGNATURE for signature in signed.signatures):
        raise ValueError("a signature has 64 bytes")
    return {"blob": bytes(signed.blob), "signatures": b"".join(signed.signatures)}


def to_signed(row: Any) -> SignedBlob:
    """The signed blob of two columns."""
    joined: bytes = row.signatures
    parts = [Binary(joined[start : start + _SIGNATURE]) for start in range(0, len(joined), _SIGNATURE)]
    return SignedBlob(blob=Binary(row.blob), signatures=parts)
