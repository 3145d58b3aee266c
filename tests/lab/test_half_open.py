"""Connections to the discovery server over which nothing comes any more, though nobody has closed them (R9)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import pytest

from tests.support.lab import Lab

#: Seconds within which both ends notice.
NOTICED = 45.0

pytestmark = pytest.mark.timeout(240)

Directions = tuple[Literal["in", "out"], ...]
WAYS: dict[str, Directions] = {"out": ("out",), "in": ("in",), "both": ("in", "out")}


def test_both_ends_notice_within_45_s(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    """Nothing gets out, nothing gets in, or neither; three peers at once, for the sake of time."""
    lab.discovery("alice")
    boxes = {way: lab.box("cone") for way in WAYS}
    daemons = {way: lab.host(way, box, account="alice").daemon() for way, box in boxes.items()}
    watcher = lab.host("watcher", "open", account="alice").caller()
    watcher.until_online("Us", len(WAYS))

    silenced = time.monotonic()
    for way, directions in WAYS.items():
        boxes[way].silence(*directions)
    gone = watcher.until_online("Us", 0, within=NOTICED + 10) - silenced
    record_property("seconds", round(gone, 1))
    assert gone <= NOTICED
    for daemon in daemons.values():
        daemon.wait_for(r"\boffline: ", timeout=max(0.1, silenced + NOTICED - time.monotonic()))

    # The next tries are up to 20 s, 32 s, ... apart by then.
    for box in boxes.values():
        box.silence()
    watcher.until_online("Us", len(WAYS), within=75)
