"""A lab of networks: hosts behind NATs, a discovery server and coturn, in namespaces that end with the tests."""

from __future__ import annotations

from tests.support.lab.boxes import Box
from tests.support.lab.caller import Caller, Outcome
from tests.support.lab.hosts import DUAL, V4, V6, Family, Host
from tests.support.lab.lab import Lab
from tests.support.lab.rules import KINDS, Kind
from tests.support.lab.spaces import LabUnavailable, why_not
from tests.support.lab.turn import Coturn

__all__ = [
    "DUAL",
    "KINDS",
    "V4",
    "V6",
    "Box",
    "Caller",
    "Coturn",
    "Family",
    "Host",
    "Kind",
    "Lab",
    "LabUnavailable",
    "Outcome",
    "why_not",
]
