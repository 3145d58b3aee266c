"""
What one peer answered, on the screen: a JSON line, or a line for people. Shared by the commands that ask peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from bonevalue.cli.program import Failed, fault, report
from bonevalue.cli.screen import emit, plain
from bonevalue.errors import NoTarget
from bonevalue.results import Result
from bonevalue.settings_units import parse_duration
from bonevalue.wire.signals import PeerEntry

__all__ = ["TargetName", "Timeout", "entry", "label", "nobody", "show_failure", "show_results"]


def _duration(text: str | float) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(f"{str(text)[:32]!r} {error}") from error


TargetName = Annotated[
    str,
    typer.Argument(metavar="TARGET", help="Whom: '*' is everyone, Us one's own account; or an alias, or a peer id."),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="DURATION", parser=_duration, help="How long each peer has, as 5s or 2m; see rpc.timeout."
    ),
]


def entry(peer: PeerEntry) -> dict[str, str]:
    """A peer as it stands in JSON."""
    return {"name": peer.name, "id": peer.id}


def label(peer: PeerEntry) -> tuple[str, str]:
    """A peer at the beginning of a line for people."""
    return f"{plain(peer.name)} {peer.id}", "bold"


def nobody(target: str) -> NoTarget:
    """There is nobody to ask."""
    return NoTarget(f"nobody is online under {target!r}; `bv peers` shows who is")


def show_failure(result: Result, *, json: bool) -> None:
    """Print why a peer did not answer."""
    if result.error is None:
        return
    if json:
        emit({"peer": entry(result.peer), "error": fault(result.error)})
    else:
        report("bv", result.error, about=f"{result.peer.name} {result.peer.id}")


def show_results(
    results: Iterable[Result],
    target: str,
    *,
    json: Callable[[Any], dict[str, Any]] | None,
    text: Callable[[Result], None],
) -> None:
    """
    Print what every peer of a target answered.

    Args:
        results: one a peer.
        target: whom was asked.
        json: gives what stands beside ``peer`` in the JSON line of a response; None prints for people.
        text: prints a response for people.

    Raises:
        NoTarget: nobody was asked.
        Failed: not all answered.
    """
    asked = failed = 0
    for result in results:
        asked += 1
        if result.error is not None:
            failed += 1
            show_failure(result, json=json is not None)
        elif json is not None:
            emit({"peer": entry(result.peer), **json(result.response)})
        else:
            text(result)
    if not asked:
        raise nobody(target)
    if failed:
        raise Failed
