"""
Which parts of the settings file a command reads: a role's settings, or all of them.

The models are imported late: they take longer to load than the rest of ``bv``, and its help and its completions, which
a shell asks for at each press of a key, need none.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bonevalue.cli import server_role
from bonevalue.errors import LocalProtocolError

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings
    from bonevalue.settings_fields import RoleSettings
    from bonevalue.settings_file import Loaded

__all__ = [
    "DISCOVERY",
    "PEER",
    "load_all",
    "load_discovery",
    "load_peer",
    "load_peer_to_be",
    "read_all",
    "roles",
    "schema_of_all",
]

PEER, DISCOVERY = "peer", "discovery"


def roles() -> dict[str, type[RoleSettings]]:
    """The model of each role."""
    from bonevalue.config import PeerSettings

    return {PEER: PeerSettings, DISCOVERY: server_role.discovery_settings()}


def schema_of_all() -> dict[str, Any]:
    """The JSON Schema of the whole file."""
    from bonevalue import settings_file

    return settings_file.schema(roles())


def load_all(file: Path, *, only: Collection[str] | None = None) -> Loaded:
    """
    The settings of the roles that a file declares, or of those named.

    Raises:
        ConfigError: with every fault.
    """
    from bonevalue import settings_file

    return settings_file.load(file, roles(), environ=os.environ, only=only)


def read_all(file: Path, *, only: Collection[str] | None = None) -> Loaded:
    """Like :func:`load_all`, with the faults collected, so that more can be looked for."""
    from bonevalue import settings_file

    return settings_file.read(file, roles(), environ=os.environ, only=only)


def load_peer(file: Path) -> PeerSettings:
    """The settings of a peer; the faults of another role do not matter."""
    return cast("PeerSettings", _load_one(file, PEER, roles()))


def load_peer_to_be(file: Path) -> PeerSettings:
    """The settings of a peer without an account: ``credentials``, and what is in them, may be None."""
    from bonevalue.config import PeerToBeSettings

    return cast("PeerSettings", _load_one(file, PEER, {**roles(), PEER: PeerToBeSettings}))


def load_discovery(file: Path) -> Any:
    """The settings of a discovery server; the faults of another role do not matter."""
    return _load_one(file, DISCOVERY, roles())


def _load_one(file: Path, role: str, models: Mapping[str, type[RoleSettings]]) -> RoleSettings:
    from bonevalue import settings_file

    settings = settings_file.load(file, models, environ=os.environ, only=[role]).settings[role]
    if settings is None:
        raise LocalProtocolError(f"{file}: no settings of a {role}, and no fault")
    return settings
