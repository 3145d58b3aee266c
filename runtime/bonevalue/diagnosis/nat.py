"""
What kind of NAT a machine is behind, from what several STUN servers say of one and the same socket.

RFC 4787 and RFC 5780 speak of *mapping*: which public address and port a NAT gives to a socket. With
*endpoint-independent mapping* it is the same for every destination; whoever is told it can send there, and direct links
come about: a **cone**, as people call it. With *address-dependent* or *address- and port-dependent mapping*
each destination sees another one, so that what a STUN server saw is of no use to anybody else: a **symmetric** NAT.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from bonevalue.diagnosis.endpoints import Endpoint

__all__ = ["NatKind", "Sighting", "nat_kind", "outside"]


class NatKind(StrEnum):
    """What stands between a machine and the network of the STUN servers."""

    NONE = "none"
    """Nothing: others see the machine's own address."""
    CONE = "cone"
    """One public address and port for all destinations."""
    SYMMETRIC = "symmetric"
    """Another one for each destination."""
    UNKNOWN = "unknown"
    """One server alone cannot tell cone from symmetric."""
    BLOCKED = "blocked"
    """Nobody answers: UDP does not get out, or back in."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the STUN server at `server` says: as whom it saw our socket."""

    server: Endpoint
    seen: Endpoint


def outside(sightings: Iterable[Sighting], own: Collection[str]) -> list[Sighting]:
    """Those of servers that are beyond a NAT: one on this machine or in its own network sees no NAT."""
    return [each for each in sightings if each.seen[0] not in own and not ip_address(each.seen[0]).is_loopback]


def nat_kind(sightings: Collection[Sighting], own: Collection[str]) -> NatKind:
    """
    The kind of NAT.

    Args:
        sightings: of one socket, so of one address family; those of one server count once.
        own: this machine's addresses.
    """
    if not sightings:
        return NatKind.BLOCKED
    seen = {each.server: each.seen for each in outside(sightings, own)}
    if not seen:
        return NatKind.NONE
    if len(set(seen.values())) > 1:
        return NatKind.SYMMETRIC
    return NatKind.CONE if len(seen) > 1 else NatKind.UNKNOWN
