"""
The way of a database from any earlier schema to this version's, by Alembic, inside the package.

A step never imports :mod:`bonevalue_server.schema`: it says what was true when it was written. All missing steps run in
the caller's one transaction, so a process that dies in the middle leaves the schema that was there before.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from bonevalue.errors import ConfigError

__all__ = ["upgrade"]


def upgrade(connection: Connection) -> None:
    """
    Bring the schema up to date within the transaction of ``connection``.

    Raises:
        ConfigError: the schema is of a newer version than this one.
    """
    config = Config()
    # Alembic reads its options through configparser, for which a percent sign is not itself.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    newest = scripts.get_current_head()
    found = MigrationContext.configure(connection).get_current_revision()
    if found == newest:
        return
    if found is not None and found not in {script.revision for script in scripts.walk_revisions()}:
        raise ConfigError(
            f"database: its schema {found} was made by a newer version of BoneValue than this one, "
            f"which knows {newest}: install that version, or restore a copy from before"
        )
    command.upgrade(config, "head")
