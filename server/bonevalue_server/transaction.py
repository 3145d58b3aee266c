"""
The SQL of the store, upper half: a :class:`Transaction` is what one transaction may do; it knows no waiting or thread.

Each operation checks first and writes afterwards, in the order that gives the person the most useful refusal. Rows that
a decision rests on are read ``FOR UPDATE`` where the database has that; SQLite has no need of it, since its writes
run one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

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
from bonevalue.wire.signals import SignedBlob
from bonevalue_server.ledger import (
    CHAIN,
    DAY,
    HOUR,
    LONGEST_CHAIN,
    REMOVALS_KEPT,
    Ledger,
    packed,
    to_account,
    to_signed,
)
from bonevalue_server.records import Account, AccountId, Edge, Redemption, Removed, Rotated, SecondRedemption
from bonevalue_server.schema import accounts, certificates, edges, invites, notices, removals, rotations

__all__ = ["Transaction"]

#: How long a claimed token is remembered after its end, so that a second claim is noticed.
_CLAIMED_KEPT = 30 * DAY
#: How long an unclaimed token is remembered after its end, so that "expired" can be told from "unknown".
_EXPIRED_KEPT = HOUR
#: How many proofs of removal are kept for one account.
_MOST_REMOVALS = 1_000


class Transaction(Ledger):
    """
    What can be done inside one transaction of the database.

    Args:
        connection: in a transaction.
        now: ms since 1970.
        origin: names this process in the journal of changes.
        max_tokens: unclaimed tokens of one account.
        max_trusted: edges of one account.
    """

    def __init__(self, connection: Connection, *, now: int, origin: bytes, max_tokens: int, max_trusted: int) -> None:
        super().__init__(connection, now=now, origin=origin)
        self._max_tokens = max_tokens
        self._max_trusted = max_trusted

    # -- accounts

    def add_account(self, username: str, public_key: bytes, login_hash: str) -> Account:
        """Make an account (:meth:`Store.add_account`)."""
        if self.account(username) is not None:
            raise NameTaken(f"there is an account {username!r} already")
        if self._key_known(public_key):
            raise NameTaken("this key is, or was, that of another account")
        made = self._db.execute(
            insert(accounts)
            .values(username=username, public_key=public_key, login_hash=login_hash, created=self._now)
            .returning(accounts)
        )
        account = to_account(made.one())
        self._journal("account", [account.id])
        return account

    def remove_account(self, account_id: AccountId) -> list[AccountId]:
        """Remove an account with all that is its (:meth:`Store.remove_account`)."""
        contacts = self._contacts(account_id)
        if self._db.execute(delete(accounts).where(accounts.c.id == account_id)).rowcount:
            self._journal("account", [account_id])
            self._journal("trust", contacts)
        return contacts

    def reset_account(self, account_id: AccountId, public_key: bytes, login_hash: str) -> list[AccountId]:
        """Another key and password without proof (:meth:`Store.reset_account`)."""
        account = self.account_by_id(account_id)
        if account is None:
            raise SessionEnded("there is no such account any more")
        # The same password again gives the same key: allowed, it still ends all trust.
        if public_key != account.public_key and self._key_known(public_key, besides=account_id):
            raise NameTaken("this key is, or was, that of another account")
        contacts = self._contacts(account_id)
        # Proofs of removal that wait for others stay: what they prove is still true.
        owner_or_contact = or_(edges.c.owner_id == account_id, edges.c.contact_id == account_id)
        self._db.execute(delete(edges).where(owner_or_contact))
        for table, column in (
            (invites, invites.c.inviter_id),
            (rotations, rotations.c.account_id),
            (removals, removals.c.account_id),
            (notices, notices.c.account_id),
        ):
            self._db.execute(delete(table).where(column == account_id))
        self._set_key(account_id, public_key, login_hash)
        self._journal("account", [account_id])
        self._journal("trust", contacts)
        return contacts

    def rotate(
        self,
        account_id: AccountId,
        *,
        old_key: bytes,
        new_key: bytes,
        login_hash: str,
        rotate: SignedBlob,
        pins: Mapping[bytes, SignedBlob],
    ) -> Rotated:
        """Another key and password with proof (:meth:`Store.rotate`)."""
        self._current(account_id, old_key)
        if self._key_known(new_key):
            raise IdentityConflict("the new key is, or was, the key of an account: choose another password")
        self._db.execute(
            insert(rotations).values(
                account_id=account_id, old_key=old_key, new_key=new_key, rotated=self._now, **packed(rotate)
            )
        )
        account = self._set_key(account_id, new_key, login_hash)
        # Claimed ones stay: a second claim of them is still worth a notice.
        self._db.execute(delete(invites).where(invites.c.inviter_id == account_id, invites.c.claimed.is_(None)))
        self._pin_anew(account_id, pins)
        lengths = self._db.execute(
            select(edges.c.owner_id, func.count(certificates.c.id))
            .outerjoin(certificates, CHAIN)
            .where(edges.c.contact_id == account_id)
            .group_by(edges.c.owner_id)
        )
        followers = [owner_id for owner_id, length in lengths if length < LONGEST_CHAIN]
        self._certify((owner_id, account_id, rotate) for owner_id in followers)
        self._journal("account", [account_id])
        self._journal("trust", [account_id, *self._contacts(account_id)])
        contacts = tuple(self._edges(edges.c.contact_id == account_id))
        return Rotated(account, own=tuple(self.edges(account_id)), contacts=contacts)

    def _pin_anew(self, account_id: AccountId, pins: Mapping[bytes, SignedBlob]) -> None:
        """Replace the certificates of many edges of one owner; contacts that went meanwhile are passed over."""
        keys = (
            select(accounts.c.public_key, edges.c.contact_id)
            .join(edges, edges.c.contact_id == accounts.c.id)
            .where(edges.c.owner_id == account_id)
        )
        current = {key: contact_id for key, contact_id in self._db.execute(keys)}
        rows: list[tuple[AccountId, AccountId, SignedBlob]] = []
        for contact_key, pin in pins.items():
            if contact_key in current:
                rows.append((account_id, current[contact_key], pin))
            elif (found := self._edge_by_key(account_id, contact_key)) is not None:
                contact_id, _, since = found
                rows += [(account_id, contact_id, signed) for signed in (pin, *since)]
        self._uncertify({(owner, contact) for owner, contact, _ in rows})
        self._certify(rows)

    # -- tokens

    def add_invite(
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
        """Keep an invite (:meth:`Store.add_invite`)."""
        self._current(account_id, inviter_key)
        self._forget_tokens()
        same = self._db.execute(select(invites).where(invites.c.token_key == token_key)).one_or_none()
        if same is not None:
            if same.inviter_id == account_id and same.blob == invite.blob and same.claimed is None:
                return  # the answer to the first time was lost
            raise TokenUsed("there is a token of this key already: make another")
        if self._alias_used(account_id, alias):
            raise AliasTaken(f"you already have a contact {alias!r}")
        if self._degree(account_id) >= self._max_trusted:
            raise TooManyTrusted(f"an account may trust {self._max_trusted} others")
        mine = and_(invites.c.inviter_id == account_id, invites.c.claimed.is_(None), invites.c.expires > self._now)
        if self._count(mine) >= self._max_tokens:
            raise TooManyTokens(f"an account may have {self._max_tokens} unclaimed tokens: wait until one expires")
        self._db.execute(
            insert(invites).values(
                token_key=token_key,
                inviter_id=account_id,
                inviter_key=inviter_key,
                alias=alias,
                issued=issued,
                expires=expires,
                **packed(invite),
            )
        )

    def redeem(
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
    ) -> Redemption | SecondRedemption:
        """
        Claim a token (:meth:`Store.redeem`).

        A second claim is returned and not raised: what is noted of it must be committed.
        """
        claimer = self._current(account_id, claimer_key)
        invite = self._db.execute(
            select(invites, accounts.c.username, accounts.c.public_key)
            .join(accounts, accounts.c.id == invites.c.inviter_id)
            .where(invites.c.token_key == token_key)
            .with_for_update()
        ).one_or_none()
        if invite is None or invite.inviter_key != inviter_key:
            raise TokenInvalid("there is no such token: mistyped, withdrawn, or long expired")
        if invite.inviter_id == account_id:
            raise AlreadyTrusted("this is a token of your own account")
        trusted = self._edge_alias(account_id, invite.inviter_id)
        if invite.claimed is not None:
            if invite.claimer_id != account_id:
                return self._second_claim(invite, claimer)
            if trusted is None:
                raise TokenUsed("you claimed this token before, and the trust has ended since: ask for another")
        if trusted is not None:
            raise AlreadyTrusted(f"you trust this account already, as {trusted!r}")
        if invite.public_key != inviter_key:
            raise TokenInvalid("whoever made this token has changed the password since: ask for another")
        if self._now >= invite.expires or issued > invite.expires:
            raise TokenExpired("the token's time is over: ask for another")
        self._room_for(account_id, alias, invite.inviter_id, invite.alias)
        self._claim(token_key, account_id)
        self._withdraw(invite.inviter_id, invite.alias)
        self._connect(invite.inviter_id, account_id, invite.alias, [to_signed(invite), redeem])
        self._connect(account_id, invite.inviter_id, alias, [pin])
        self._journal("trust", [invite.inviter_id, account_id])
        return Redemption(
            inviter=self._edge(invite.inviter_id, account_id), claimer=self._edge(account_id, invite.inviter_id)
        )

    def _room_for(self, claimer: AccountId, alias: str, inviter: AccountId, inviter_alias: str) -> None:
        if self._alias_used(claimer, alias):
            raise AliasTaken(f"you already have a contact {alias!r}")
        if self._alias_used(inviter, inviter_alias):
            raise AliasTaken("whoever made this token has given its alias to another account since: ask for another")
        if self._degree(claimer) >= self._max_trusted:
            raise TooManyTrusted(f"an account may trust {self._max_trusted} others")
        if self._degree(inviter) >= self._max_trusted:
            raise TooManyTrusted(f"whoever made this token trusts {self._max_trusted} others, which is the most")

    def _claim(self, token_key: bytes, claimer_id: AccountId) -> None:
        unclaimed = and_(invites.c.token_key == token_key, invites.c.claimed.is_(None))
        if not self._db.execute(
            update(invites).where(unclaimed).values(claimer_id=claimer_id, claimed=self._now)
        ).rowcount:
            raise TokenUsed("the token was claimed at this moment by another account")

    def _withdraw(self, inviter_id: AccountId, alias: str) -> None:
        """Other tokens for the alias can never be claimed again; fewer texts that open a door lie about."""
        stale = and_(invites.c.inviter_id == inviter_id, invites.c.alias == alias, invites.c.claimed.is_(None))
        self._db.execute(delete(invites).where(stale))

    def _second_claim(self, invite: Any, claimer: Account) -> SecondRedemption:
        first = None if invite.claimer_id is None else self.account_by_id(invite.claimer_id)
        whom = repr(first.username) if first is not None else "an account that is gone"
        self._note(
            invite.inviter_id,
            invite.token_key,
            f"your token for {invite.alias!r} was claimed by {whom} and now tried by {claimer.username!r}: "
            f"somebody else read it. Ask who is right, compare fingerprints, and remove {invite.alias!r} if in doubt",
        )
        told = [invite.inviter_id]
        if first is not None:
            alias = self._edge_alias(first.id, invite.inviter_id)
            named = f" from {alias!r}" if alias is not None else ""
            self._note(
                first.id,
                invite.token_key,
                f"the token{named} that you claimed was tried again by another account: somebody else read it. "
                "Tell whoever gave it to you, and compare fingerprints",
            )
            told.append(first.id)
        return SecondRedemption(
            "the token was claimed before, by another account: if you did not expect that, somebody else read it; "
            "tell whoever gave it to you",
            told=tuple(told),
        )

    def _forget_tokens(self) -> None:
        over = and_(invites.c.claimed.is_(None), invites.c.expires < self._now - _EXPIRED_KEPT)
        long_over = invites.c.expires < self._now - _CLAIMED_KEPT
        self._db.execute(delete(invites).where(or_(over, long_over)))

    # -- contacts

    def update_pin(self, account_id: AccountId, *, contact_key: bytes, alias: str, pin: SignedBlob) -> Edge:
        """Replace the certificates of an edge (:meth:`Store.update_pin`)."""
        found = self._edge_by_key(account_id, contact_key)
        if found is None:
            raise NotTrusted("no contact has this key")
        contact_id, known_as, since = found
        if known_as != alias:
            raise ContactConflict(f"the contact of this key is {known_as!r}, not {alias!r}")
        self._uncertify([(account_id, contact_id)])
        self._certify((account_id, contact_id, signed) for signed in (pin, *since))
        self._journal("trust", [account_id])
        return self._edge(account_id, contact_id)

    def remove_edge(self, account_id: AccountId, alias: str, remove: SignedBlob) -> Removed:
        """End a trust with proof (:meth:`Store.remove_edge`)."""
        mine = and_(edges.c.owner_id == account_id, edges.c.alias == alias)
        contact_id = self._db.execute(select(edges.c.contact_id).where(mine)).scalar_one_or_none()
        if contact_id is None:
            raise NotTrusted(f"you have no contact {alias!r}")
        contact_alias = self._edge_alias(contact_id, account_id) or ""
        for owner, contact, name in ((account_id, contact_id, alias), (contact_id, account_id, contact_alias)):
            self._db.execute(delete(edges).where(edges.c.owner_id == owner, edges.c.contact_id == contact))
            self._db.execute(
                insert(removals).values(
                    account_id=owner, other_id=contact, alias=name, removed=self._now, **packed(remove)
                )
            )
            self._forget_removals(owner)
        self._journal("trust", [account_id, contact_id])
        return Removed(contact_id, contact_alias)

    def _forget_removals(self, account_id: AccountId) -> None:
        self._db.execute(delete(removals).where(removals.c.removed < self._now - REMOVALS_KEPT))
        newest = (
            select(removals.c.id)
            .where(removals.c.account_id == account_id)
            .order_by(removals.c.id.desc())
            .limit(_MOST_REMOVALS)
        )
        self._db.execute(delete(removals).where(removals.c.account_id == account_id, removals.c.id.not_in(newest)))

    def clear_notices(self, account_id: AccountId, last_id: int) -> None:
        """Forget notices that were told."""
        self._db.execute(delete(notices).where(notices.c.account_id == account_id, notices.c.id <= last_id))
