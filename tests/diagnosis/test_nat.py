"""The kind of NAT, from what STUN servers saw."""

from __future__ import annotations

import pytest

from bonevalue.diagnosis.nat import NatKind, Sighting, nat_kind

OWN = ("192.168.1.7", "2001:db8::7")
ONE, TWO, THREE = ("203.0.113.1", 3478), ("203.0.113.1", 3479), ("198.51.100.1", 3478)
NEAR, HERE = ("192.168.1.1", 3478), ("127.0.0.1", 3478)
PUBLIC, PUBLIC_TOO, OTHER = ("192.0.2.9", 40_000), ("192.0.2.9", 40_001), ("192.0.2.10", 40_000)
PRIVATE = ("192.168.1.7", 40_000)


@pytest.mark.parametrize(
    ("sightings", "kind"),
    [
        ([], NatKind.BLOCKED),
        ([(ONE, PRIVATE)], NatKind.NONE),
        ([(ONE, ("2001:db8::7", 40_000))], NatKind.NONE),
        ([(ONE, PRIVATE), (THREE, PRIVATE)], NatKind.NONE),
        ([(HERE, ("127.0.0.1", 40_000))], NatKind.NONE),
        ([(ONE, PUBLIC)], NatKind.UNKNOWN),
        ([(ONE, PUBLIC), (ONE, PUBLIC)], NatKind.UNKNOWN),
        ([(ONE, PUBLIC), (TWO, PUBLIC)], NatKind.CONE),
        ([(ONE, PUBLIC), (THREE, PUBLIC)], NatKind.CONE),
        ([(ONE, PUBLIC), (TWO, PUBLIC_TOO)], NatKind.SYMMETRIC),
        ([(ONE, PUBLIC), (THREE, OTHER)], NatKind.SYMMETRIC),
        ([(ONE, PUBLIC), (TWO, PUBLIC), (THREE, OTHER)], NatKind.SYMMETRIC),
        # A server in the own network, or on the machine, sees no NAT, and says nothing about the one beyond.
        ([(NEAR, PRIVATE), (ONE, PUBLIC)], NatKind.UNKNOWN),
        ([(NEAR, PRIVATE), (ONE, PUBLIC), (THREE, PUBLIC)], NatKind.CONE),
        ([(HERE, ("127.0.0.1", 40_000)), (ONE, PUBLIC), (THREE, OTHER)], NatKind.SYMMETRIC),
    ],
)
def test_kinds(sightings: list[tuple[tuple[str, int], tuple[str, int]]], kind: NatKind) -> None:
    assert nat_kind([Sighting(server, seen) for server, seen in sightings], OWN) is kind
