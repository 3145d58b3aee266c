"""
What the store hands out: frozen records. All times are ms since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NewType

from bonevalue.errors import TokenUsed
from bonevalue.wire.signals import SignedBlob

__all__ = [
    "Account",
    "AccountId",
    "Change",
    "Edge",
    "NewAccount",
    "Notice",
    "Redemption",
    "Removal",
    "Removed",
    "Rotated",
    "SecondRedemption",
    "Snapshot",
    "Trust",
]

AccountId = NewType("AccountId", int)


@dataclass(frozen=True, slots=True)
class Account:
    """One user. ``id`` is never given to another account, also after removal."""

    id: AccountId
    username: str
    public_key: bytes
    login_hash: str = field(repr=False)
    created: int = 0


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be made: what :meth:`Store.add_account` takes."""

    username: str
    public_key: bytes
    login_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Trust:
    """One direction of trust, without proof: what the hub needs to route. The other direction is a row of its own."""

    owner_id: AccountId
    alias: str
    contact_id: AccountId


@dataclass(frozen=True, slots=True)
class Edge:
    """One direction of trust with the certificates that prove it, in the order in which they are verified."""

    owner_id: AccountId
    alias: str
    contact_id: AccountId
    contact_key: bytes
    contact_username: str
    certificates: tuple[SignedBlob, ...]


@dataclass(frozen=True, slots=True)
class Redemption:
    """Both directions that a claimed token made."""

    inviter: Edge
    claimer: Edge


@dataclass(frozen=True, slots=True)
class Removed:
    """A trust that has ended: the other account, and under which alias it knew the remover."""

    contact_id: AccountId
    contact_alias: str


@dataclass(frozen=True, slots=True)
class Removal:
    """The proof that a trust has ended, kept for peers that were away: ``name`` is the alias of him who is told."""

    name: str
    remove: SignedBlob
    removed: int


@dataclass(frozen=True, slots=True)
class Rotated:
    """A key change that was stored: every edge whose certificates are other than before."""

    account: Account
    #: The account's own edges, as they are now.
    own: tuple[Edge, ...]
    #: Others' edges to the account: the new key, and the ``rotate`` blob at the end of the certificates.
    contacts: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an account's people have to be told once (``error`` without ``ref``)."""

    id: int
    account_id: AccountId
    code: str
    message: str
    created: int


@dataclass(frozen=True, slots=True)
class Change:
    """
    Another process changed an account.

    ``account``: made, removed or given another key: load it anew, end the sessions of a key that is no longer its.
    ``trust``: its edges are others. ``everything``: too much happened to tell; ``account_id`` is 0.
    """

    account_id: AccountId
    what: Literal["account", "trust", "everything"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All accounts and all trust at one moment."""

    accounts: tuple[Account, ...]
    trust: tuple[Trust, ...]


class SecondRedemption(TokenUsed):
    """A token came a second time from another account: noted for inviter and first claimer, who are ``told``."""

    def __init__(self, message: str, *, told: tuple[AccountId, ...]) -> None:
        super().__init__(message)
        self.told = told
