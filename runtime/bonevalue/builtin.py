"""
The platform's own modules, that every peer serves: ``bv.modules``, ``bv.links``, ``bv.stats`` and ``bv.removals``.

All but ``bv.modules`` are for the peers of one's own account only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, Field

from bonevalue.descriptions import LINKS, MODULES, ModuleDescription
from bonevalue.errors import BadRequest, IdentityMismatch
from bonevalue.life import LinkLife
from bonevalue.module import Context
from bonevalue.peer_link import PeerLink
from bonevalue.serving import ServedModule
from bonevalue.wire.keys import from_base64url, to_base64url
from bonevalue.wire.signals import Binary, SignedBlob

__all__ = ["REMOVALS", "STATS", "Removal", "Removals", "builtin_modules", "removal_request"]

STATS = "bv.stats"
REMOVALS = "bv.removals"
_OWN_ACCOUNT = ("Us",)


class Removal(BaseModel):
    """A signed ``remove`` blob, in base64url."""

    blob: str = Field(max_length=1024)
    signature: str = Field(max_length=128)


class Removals(BaseModel):
    """Removals that one peer of an account passes on to another."""

    removals: list[Removal] = Field(max_length=256)


def builtin_modules(
    served: Callable[[], Iterable[ServedModule]],
    links: Callable[[], Iterable[PeerLink]],
    setting_up: Callable[[], Iterable[LinkLife]],
    removed: Callable[[SignedBlob], None],
    stats: Callable[[], dict[str, Any]],
) -> list[ServedModule]:
    """
    Make them.

    Args:
        served: all modules of this peer.
        links: all links of this peer.
        setting_up: the links of this peer that are on their way.
        removed: takes in a removal that another peer of this account knows of.
        stats: what this peer has counted, and what it is at.
    """

    async def modules(request: Any, context: Context) -> list[ModuleDescription]:
        """The modules of this peer that the caller may call, by name."""
        return [
            ModuleDescription(
                name=module.name,
                doc=module.doc,
                stream=module.streams,
                request=module.request_schema,
                response=module.response_schema,
            )
            for module in sorted(served(), key=lambda module: module.name)
            if module.admits(context.caller)
        ]

    async def links_of_peer(request: Any, context: Context) -> list[dict[str, Any]]:
        """
        The links of this peer, and the attempts to make one.

        To whom, who dialled, state and for how many seconds, path, round trip in seconds, calls under way.
        """
        return [*map(_describe, links()), *map(_describe_life, setting_up())]

    async def stats_of_peer(request: Any, context: Context) -> dict[str, Any]:
        """What this peer has counted since it was made, and what it is at (docs/operations.md)."""
        return stats()

    async def removals(request: Removals, context: Context) -> None:
        """Take in the ends of trust that the caller, a peer of the same account, knows of."""
        for removal in request.removals:
            try:
                blob = SignedBlob(Binary(from_base64url(removal.blob)), [Binary(from_base64url(removal.signature))])
            except ValueError as error:
                raise BadRequest(f"not a removal: {error}") from error
            # One that is not proved, or older than trust made anew, says nothing about the others.
            with suppress(IdentityMismatch):
                removed(blob)

    return [
        ServedModule(MODULES, modules),
        ServedModule(LINKS, links_of_peer, allow=_OWN_ACCOUNT),
        ServedModule(STATS, stats_of_peer, allow=_OWN_ACCOUNT),
        ServedModule(REMOVALS, removals, allow=_OWN_ACCOUNT),
    ]


def removal_request(removals: Iterable[SignedBlob]) -> dict[str, Any]:
    """The request to ``bv.removals`` that passes these on."""
    return {
        "removals": [
            {"blob": to_base64url(removal.blob), "signature": to_base64url(removal.signatures[0])}
            for removal in removals
        ]
    }


def _describe(link: PeerLink) -> dict[str, Any]:
    path = link.connection.path()
    return _describe_life(link.life) | {
        "fingerprint": link.remote.fingerprint,
        "path": None if path is None else path.as_json(),
        "roundTrip": link.round_trip,
        "calls": link.active,
        "agent": link.agent,
        "doubted": link.doubted,
    }


def _describe_life(life: LinkLife) -> dict[str, Any]:
    return {
        "peer": {"name": life.name, "id": life.peer_id},
        "dialled": life.dialled,
        "state": life.state.value,
        "seconds": round(life.seconds, 3),
        "fingerprint": None,
        "path": None,
        "roundTrip": None,
        "calls": 0,
        "agent": "",
        "doubted": False,
    }
