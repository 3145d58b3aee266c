"""
The tables of the discovery server's database, as SQLAlchemy Core metadata.

This is the schema that the code works with; :mod:`bonevalue_server.migrations` is how a database gets there, and a
test holds the two together. No column holds anything that logs in, redeems a token or makes a contact: tokens are
present as public keys, passwords as bcrypt of a secret derived from them. All times are ms since 1970.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

__all__ = [
    "accounts",
    "certificates",
    "changes",
    "edges",
    "invites",
    "meta",
    "metadata",
    "notices",
    "removals",
    "rotations",
]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives numbers by itself only to a column of exactly the type INTEGER.
_Number = BigInteger().with_variant(Integer, "sqlite")
_Name = String(32)


def _account(name: str, *, primary_key: bool = False, index: bool | None = None) -> Column[int]:
    whose = ForeignKey("accounts.id", ondelete="CASCADE")
    return Column(name, _Number, whose, nullable=False, primary_key=primary_key, index=index)


#: Facts about the database itself: ``realm`` and ``secret`` (key of the HMAC of tickets).
meta = Table(
    "meta",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

#: ``AUTOINCREMENT``: the id of a removed account never comes back, since tickets are bound to it.
accounts = Table(
    "accounts",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("username", _Name, nullable=False, unique=True),
    Column("public_key", LargeBinary(32), nullable=False, unique=True),
    Column("login_hash", String(128), nullable=False),
    Column("created", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

#: Key changes with proof, in order of ``id``; a key stands at most once in each column of the whole table.
rotations = Table(
    "rotations",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _account("account_id", index=True),
    Column("old_key", LargeBinary(32), nullable=False, unique=True),
    Column("new_key", LargeBinary(32), nullable=False, unique=True),
    Column("blob", LargeBinary, nullable=False),
    Column("signatures", LargeBinary, nullable=False),
    Column("rotated", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

#: Trust, two rows a pair: ``owner`` knows ``contact`` as ``alias``.
edges = Table(
    "edges",
    metadata,
    _account("owner_id", primary_key=True),
    _account("contact_id", primary_key=True, index=True),
    Column("alias", _Name, nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("owner_id", "alias"),
)

#: What proves an edge to its owner, in order of ``id``. ``signatures``: one or two of 64 bytes, one after the other.
certificates = Table(
    "certificates",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("owner_id", _Number, nullable=False),
    Column("contact_id", _Number, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("signatures", LargeBinary, nullable=False),
    ForeignKeyConstraint(["owner_id", "contact_id"], ["edges.owner_id", "edges.contact_id"], ondelete="CASCADE"),
    Index(None, "owner_id", "contact_id"),
    sqlite_autoincrement=True,
)

#: Tokens by their public key. A claimed one stays for a while, so that a second claim is noticed.
invites = Table(
    "invites",
    metadata,
    Column("token_key", LargeBinary(32), primary_key=True),
    _account("inviter_id"),
    Column("inviter_key", LargeBinary(32), nullable=False),
    Column("alias", _Name, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("signatures", LargeBinary, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False, index=True),
    Column("claimer_id", _Number, ForeignKey("accounts.id", ondelete="SET NULL"), index=True),
    Column("claimed", BigInteger),
    Index(None, "inviter_id", "claimed"),
)

#: Ended trust: the ``remove`` blob, and whom ``account`` knew as ``alias``. A row for each side.
removals = Table(
    "removals",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _account("account_id", index=True),
    Column("other_id", _Number, nullable=False),
    Column("alias", _Name, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("signatures", LargeBinary, nullable=False),
    Column("removed", BigInteger, nullable=False, index=True),
    sqlite_autoincrement=True,
)

#: What to tell an account's people once; ``subject`` keeps the same thing from being told twice.
notices = Table(
    "notices",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    _account("account_id"),
    Column("code", String(32), nullable=False),
    Column("subject", LargeBinary, nullable=False),
    Column("message", String(512), nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("account_id", "code", "subject"),
    sqlite_autoincrement=True,
)

#: The journal by which processes on one database hear of each other's writes; ``origin`` names the writing process.
changes = Table(
    "changes",
    metadata,
    Column("id", _Number, primary_key=True, autoincrement=True),
    Column("origin", LargeBinary(16), nullable=False),
    Column("account_id", _Number, nullable=False),
    Column("what", String(16), nullable=False),
    sqlite_autoincrement=True,
)
