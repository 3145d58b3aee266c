"""Settings files for tests: written to a folder, loaded with an environment that the test says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from bonevalue import settings_file
from bonevalue.config import PeerSettings
from bonevalue.errors import ConfigError
from bonevalue.settings_fields import RoleSettings
from bonevalue.settings_file import Loaded
from bonevalue_server.config import DiscoverySettings

__all__ = ["PEER", "ROLES", "discovery_of", "faults_of", "load", "peer_of", "write"]

ROLES: dict[str, type[RoleSettings]] = {"peer": PeerSettings, "discovery": DiscoverySettings}

#: A peer with nothing but what it needs, for more to be appended.
PEER = "server: {address: ws://127.0.0.1:8008}\ncredentials: {username: admin, password: correct horse}\n"


def write(folder: Path, text: str, name: str = "bonevalue.yaml") -> Path:
    """A settings file in a folder."""
    path = folder / name
    path.write_text(dedent(text), encoding="utf-8")
    return path


def load(
    folder: Path, text: str, environ: Mapping[str, str] | None = None, *, only: Collection[str] | None = None
) -> Loaded:
    """What a file of this text says."""
    return settings_file.load(write(folder, text), ROLES, environ=environ or {}, only=only)


def peer_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> PeerSettings:
    """The peer that a file of this text declares."""
    settings = load(folder, text, environ).get(PeerSettings)
    assert settings is not None
    return settings


def discovery_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> DiscoverySettings:
    """The discovery server that a file of this text declares."""
    settings = load(folder, text, environ).get(DiscoverySettings)
    assert settings is not None
    return settings


def faults_of(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The report about a file of this text, without its folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    lines = [str(fault).replace(f"{folder}/", "") for fault in caught.value.faults]
    assert caught.value.message.replace(f"{folder}/", "").splitlines() == lines
    return lines
