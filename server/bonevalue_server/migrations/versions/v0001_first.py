"""The first schema: accounts, trust with its certificates, tokens, removals, notices, and the journal of changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make all tables."""
    _accounts()
    _trust()
    _tokens()
    _news()


def _id() -> sa.Column[int]:
    return sa.Column("id", _NUMBER, autoincrement=True, nullable=False)


def _accounts() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_meta"),
    )
    op.create_table(
        "accounts",
        _id(),
        sa.Column("username", sa.String(32), nullable=False),
        sa.Column("public_key", sa.LargeBinary(32), nullable=False),
        sa.Column("login_hash", sa.String(128), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("username", name="uq_accounts_username"),
        sa.UniqueConstraint("public_key", name="uq_accounts_public_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rotations",
        _id(),
        sa.Column("account_id", _NUMBER, nullable=False),
        sa.Column("old_key", sa.LargeBinary(32), nullable=False),
        sa.Column("new_key", sa.LargeBinary(32), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.LargeBinary(), nullable=False),
        sa.Column("rotated", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rotations"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_rotations_account_id", ondelete="CASCADE"),
        sa.UniqueConstraint("old_key", name="uq_rotations_old_key"),
        sa.UniqueConstraint("new_key", name="uq_rotations_new_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_rotations_account_id", "rotations", ["account_id"])


def _trust() -> None:
    op.create_table(
        "edges",
        sa.Column("owner_id", _NUMBER, nullable=False),
        sa.Column("contact_id", _NUMBER, nullable=False),
        sa.Column("alias", sa.String(32), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "contact_id", name="pk_edges"),
        sa.ForeignKeyConstraint(["owner_id"], ["accounts.id"], name="fk_edges_owner_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["contact_id"], ["accounts.id"], name="fk_edges_contact_id", ondelete="CASCADE"),
        sa.UniqueConstraint("owner_id", "alias", name="uq_edges_owner_id_alias"),
    )
    op.create_index("ix_edges_contact_id", "edges", ["contact_id"])
    op.create_table(
        "certificates",
        _id(),
        sa.Column("owner_id", _NUMBER, nullable=False),
        sa.Column("contact_id", _NUMBER, nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_certificates"),
        sa.ForeignKeyConstraint(
            ["owner_id", "contact_id"],
            ["edges.owner_id", "edges.contact_id"],
            name="fk_certificates_owner_id_contact_id",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_certificates_owner_id_contact_id", "certificates", ["owner_id", "contact_id"])


def _tokens() -> None:
    op.create_table(
        "invites",
        sa.Column("token_key", sa.LargeBinary(32), nullable=False),
        sa.Column("inviter_id", _NUMBER, nullable=False),
        sa.Column("inviter_key", sa.LargeBinary(32), nullable=False),
        sa.Column("alias", sa.String(32), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.LargeBinary(), nullable=False),
        sa.Column("issued", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("claimer_id", _NUMBER),
        sa.Column("claimed", sa.BigInteger()),
        sa.PrimaryKeyConstraint("token_key", name="pk_invites"),
        sa.ForeignKeyConstraint(["inviter_id"], ["accounts.id"], name="fk_invites_inviter_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["claimer_id"], ["accounts.id"], name="fk_invites_claimer_id", ondelete="SET NULL"),
    )
    op.create_index("ix_invites_claimer_id", "invites", ["claimer_id"])
    op.create_index("ix_invites_expires", "invites", ["expires"])
    op.create_index("ix_invites_inviter_id_claimed", "invites", ["inviter_id", "claimed"])


def _news() -> None:
    op.create_table(
        "removals",
        _id(),
        sa.Column("account_id", _NUMBER, nullable=False),
        sa.Column("other_id", _NUMBER, nullable=False),
        sa.Column("alias", sa.String(32), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.LargeBinary(), nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_removals"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_removals_account_id", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_removals_account_id", "removals", ["account_id"])
    op.create_index("ix_removals_removed", "removals", ["removed"])
    op.create_table(
        "notices",
        _id(),
        sa.Column("account_id", _NUMBER, nullable=False),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("subject", sa.LargeBinary(), nullable=False),
        sa.Column("message", sa.String(512), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_notices_account_id", ondelete="CASCADE"),
        sa.UniqueConstraint("account_id", "code", "subject", name="uq_notices_account_id_code_subject"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "changes",
        _id(),
        sa.Column("origin", sa.LargeBinary(16), nullable=False),
        sa.Column("account_id", _NUMBER, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_changes"),
        sqlite_autoincrement=True,
    )
