"""Alembic's entry: runs the steps on the connection that :func:`bonevalue_server.migrations.upgrade` was given."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
