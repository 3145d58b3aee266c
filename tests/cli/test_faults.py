"""Faults as JSON."""

from __future__ import annotations

from bonevalue.cli.program import fault
from bonevalue.errors import Busy, ConnectFailed, ConnectReport, ServerOutcome


def test_most_have_a_code_and_a_message() -> None:
    assert fault(Busy("too much")) == {"code": "busy", "message": "too much"}
    assert fault(ConnectFailed("refused")) == {"code": "connect_failed", "message": "refused"}


def test_one_of_a_connection_tells_what_was_tried() -> None:
    report = ConnectReport(
        "checking", ("host",), ("host", "srflx"), (ServerOutcome("stun:s", "no answer"),), "Let UDP out."
    )
    told = fault(ConnectFailed("no link", report=report))
    assert told["report"] == {
        "phase": "checking",
        "ours": ("host",),
        "theirs": ("host", "srflx"),
        "servers": ({"url": "stun:s", "outcome": "no answer"},),
        "advice": "Let UDP out.",
    }
