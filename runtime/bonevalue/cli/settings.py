"""
Which parts of the settings file a command reads: a role's settings, or all of them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import Field

from bonevalue import settings_file
from bonevalue.cli import server_role
from bonevalue.config import CredentialsSettings, PeerSettings
from bonevalue.errors import LocalProtocolError
from bonevalue.settings_fields import RoleSettings, Secret
from bonevalue.settings_file import Loaded

__all__ = ["DISCOVERY", "PEER", "load_all", "load_discovery", "load_peer", "load_peer_to_be", "read_all", "roles"]

PEER, DISCOVERY = "peer", "discovery"


class _Planned(CredentialsSettings):
    """Credentials that need not be there yet."""

    username: str | None = Field(default=None)  # type: ignore[assignment]
    password: Secret | None = Field(default=None)  # type: ignore[assignment]


class _PeerToBe(PeerSettings):
    """What a file holds before its peer has an account."""

    credentials: _Planned | None = Field(default=None)  # type: ignore[assignment]


def roles() -> dict[str, type[RoleSettings]]:
    """The model of each role."""
    return {PEER: PeerSettings, DISCOVERY: server_role.discovery_settings()}


def load_all(file: Path, *, only: Collection[str] | None = None) -> Loaded:
    """
    The settings of the roles that a file declares, or of those named.

    Raises:
        ConfigError: with every fault.
    """
    return settings_file.load(file, roles(), environ=os.environ, only=only)


def read_all(file: Path, *, only: Collection[str] | None = None) -> Loaded:
    """Like :func:`load_all`, with the faults collected, so that more can be looked for."""
    return settings_file.read(file, roles(), environ=os.environ, only=only)


def load_peer(file: Path) -> PeerSettings:
    """The settings of a peer; the faults of another role do not matter."""
    return cast(PeerSettings, _load_one(file, PEER, roles()))


def load_peer_to_be(file: Path) -> PeerSettings:
    """The settings of a peer without an account: ``credentials``, and what is in them, may be None."""
    return cast(PeerSettings, _load_one(file, PEER, {**roles(), PEER: _PeerToBe}))


def load_discovery(file: Path) -> Any:
    """The settings of a discovery server; the faults of another role do not matter."""
    return _load_one(file, DISCOVERY, roles())


def _load_one(file: Path, role: str, models: Mapping[str, type[RoleSettings]]) -> RoleSettings:
    settings = settings_file.load(file, models, environ=os.environ, only=[role]).settings[role]
    if settings is None:
        raise LocalProtocolError(f"{file}: no settings of a {role}, and no fault")
    return settings
