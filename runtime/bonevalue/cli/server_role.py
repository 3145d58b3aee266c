"""
The discovery server, reached by name only: a peer needs none of it, and its package may be absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from bonevalue.errors import ConfigError

if TYPE_CHECKING:
    from bonevalue.settings_fields import RoleSettings

__all__ = ["DiscoveryServer", "admin", "discovery_server", "discovery_settings"]


class DiscoveryServer(Protocol):
    """What the daemon needs of a server."""

    port: int
    #: What it counts: numbers and tallies, as attributes.
    counters: object

    @property
    def is_listening(self) -> bool:
        """Whether clients are let in."""
        ...

    def gauges(self) -> Mapping[str, float]:
        """Its numbers at this moment, for metrics."""
        ...

    async def start(self) -> None:
        """Listen; raises what keeps it from that."""

    async def stop(self) -> None:
        """Say goodbye to the clients, and close."""


def _load(module: str) -> Any:
    try:
        return import_module(f"bonevalue_server.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "bonevalue_server":
            raise
        raise ConfigError("this installation has no discovery server (package bonevalue_server)") from error


def discovery_settings() -> type[RoleSettings]:
    """The model of the ``discovery:`` section."""
    model: type[RoleSettings] = _load("config").DiscoverySettings
    return model


def discovery_server(settings: RoleSettings) -> DiscoveryServer:
    """A server that has not started."""
    server: DiscoveryServer = _load("app").DiscoveryServer(settings)
    return server


def admin() -> Any:
    """What an operator does to the database of accounts."""
    return _load("admin")
