"""
The commands that look at peers and call them: peers, call, modules, ping.
"""

from __future__ import annotations

import json as jsonlib
import sys
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import CALLS, DEFAULT_FILE, ConfigFile, JsonLines
from bonevalue.cli.program import Failed, fault, report
from bonevalue.cli.screen import compact, emit, hint, plain, say, table, terminal, write_raw
from bonevalue.errors import BoneValueError, NoTarget
from bonevalue.settings_fields import parse_duration

if TYPE_CHECKING:
    from bonevalue.peer import PeerEntry, Result

__all__ = ["app"]

app = typer.Typer()

Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="Whom: '*' everyone, Us (one's own account), an alias, or one peer id.")
]


def _duration(text: str | float) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="DURATION", parser=_duration, help="Deadline, as 5s or 2m; default is rpc.timeout."
    ),
]


@app.command(
    rich_help_panel=CALLS,
    epilog="Examples: bv call Us My.Echo.Module '{\"text\": \"Friday\"}'\n\n"
    "bv call '*' My.Echo.Module - --json < request.json\n\n"
    "bv call bob Snapshot --first 1 > snapshot.jpg",
)
def call(
    target: Target,
    module: Annotated[str, typer.Argument(metavar="MODULE", help="Name that the module is served under.")],
    request: Annotated[
        str, typer.Argument(metavar="JSON", help="The request; - reads it from standard input.")
    ] = "{}",
    timeout: Timeout = None,
    first: Annotated[
        int | None, typer.Option("--first", metavar="N", min=1, help="Stop when N peers have answered.")
    ] = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Call a module of every peer of a target, and print what each answers.

    Exit code 0 only if somebody was asked and all answered. A response of bytes goes to standard output as it is,
    unless that is a terminal; with --json it stands as base64 under "bytes".
    """
    body = _request(request)
    run(_call(load_peer(file), target, module, body, timeout=timeout, first=first, json=json))


def _request(text: str) -> Any:
    source = sys.stdin.read() if text == "-" else text
    try:
        return jsonlib.loads(source, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        why = f"{error}; a text needs quotes of its own: '\"Friday\"'"
        raise typer.BadParameter(f"this is not JSON: {why}", param_hint="JSON") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


async def _call(
    settings: PeerSettings, target: str, module: str, request: Any, *, timeout: float | None, first: int | None, json: bool
) -> None:
    answers: _Answers = _JsonAnswers() if json else _TextAnswers()
    async with joined(settings) as peer:
        chosen = peer.get(target)
        asked = len(chosen.peers())
        async with aclosing(chosen.call_all(module, request, timeout=timeout)) as results:
            async for result in results:
                answers.add(result)
                if answers.answered == first:
                    break
    asked = max(asked, answers.seen)
    if asked or json:
        answers.close(asked)
    if not asked:
        raise _nobody(target)
    if answers.answered < min(first or asked, asked):
        raise Failed


class _Answers(ABC):
    """What is printed as peers answer."""

    seen = 0
    answered = 0

    def add(self, result: Result) -> None:
        """Print the answer of one peer."""
        self.seen += 1
        if result.error is None:
            self.answered += 1
            self.response(result.peer, result.response)
        else:
            self.failure(result.peer, result.error)

    @abstractmethod
    def response(self, peer: PeerEntry, response: Any) -> None:
        """Print a response."""

    @abstractmethod
    def failure(self, peer: PeerEntry, error: BoneValueError) -> None:
        """Print why there is none."""

    @abstractmethod
    def close(self, asked: int) -> None:
        """Print the sum."""


class _JsonAnswers(_Answers):
    def response(self, peer: PeerEntry, response: Any) -> None:
        emit({"peer": _entry(peer), "response": response})

    def failure(self, peer: PeerEntry, error: BoneValueError) -> None:
        emit({"peer": _entry(peer), "error": fault(error)})

    def close(self, asked: int) -> None:
        emit({"summary": {"asked": asked, "answered": self.answered}})


class _TextAnswers(_Answers):
    _raw = False

    def response(self, peer: PeerEntry, response: Any) -> None:
        if not isinstance(response, bytes):
            say(_label(peer), "  ", compact(response))
        elif terminal():
            say(_label(peer), f"  {len(response)} bytes (send them to a file, or use --json)")
        else:
            self._raw = True
            write_raw(response)

    def failure(self, peer: PeerEntry, error: BoneValueError) -> None:
        report("bv", error, about=f"{peer.name} {peer.id}")

    def close(self, asked: int) -> None:
        # Whoever pipes bytes on wants these bytes and nothing after them.
        (hint if self._raw else say)(f"{self.answered} of {asked} answered")


def _entry(peer: PeerEntry) -> dict[str, str]:
    return {"name": peer.name, "id": peer.id}


def _label(peer: PeerEntry) -> tuple[str, str]:
    return f"{plain(peer.name)} {peer.id}", "bold"


def _nobody(target: str) -> NoTarget:
    return NoTarget(f"nobody is online under {target!r} (bv peers shows who is)")


@app.command(rich_help_panel=CALLS, epilog="Examples: bv peers\n\nbv peers --links --json")
def peers(
    links: Annotated[
        bool, typer.Option("--links", help="Ask one's own daemons which links they have, instead.")
    ] = False,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """Show everyone one may talk to: one's own account (Us), the aliases, and which of their peers are online."""
    run(_links(load_peer(file), json=json) if links else _peers(file, json=json))


async def _peers(settings: PeerSettings, *, json: bool) -> None:
    async with joined(settings) as peer:
        online: dict[str, list[str]] = {name: [] for name in peer.aliases}
        for entry in peer.peers():
            online.setdefault(entry.name, []).append(entry.id)
    if json:
        for name, ids in online.items():
            emit({"name": name, "peers": ids})
    else:
        table((plain(name), "  ".join(ids) or "nobody online") for name, ids in online.items())


async def _links(settings: PeerSettings, *, json: bool) -> None:
    async with joined(settings) as peer:
        results = [result async for result in peer.get(OWN_ACCOUNT).call_all(LINKS)]
    for result in results:
        if result.error is not None:
            _failure(result, json=json)
        elif json:
            emit({"peer": _entry(result.peer), "links": result.response})
        else:
            say(_label(result.peer))
            table((_link_row(link) for link in result.response), indent="  ")
    _conclude(results, OWN_ACCOUNT)


def _link_row(link: dict[str, Any]) -> tuple[str, ...]:
    other = link["peer"]
    return (
        f"{plain(other['name'])} {other['id']}",
        "outgoing" if link["dialled"] else "incoming",
        plain(link["state"]),
        _path(link["path"]),
        _milliseconds(link["roundTrip"]),
        f"{link['calls']} calls",
    )


@app.command(rich_help_panel=CALLS, epilog="Examples: bv modules Us\n\nbv modules bob --json")
def modules(
    target: Target, timeout: Timeout = None, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False
) -> None:
    """Show what each peer of a target serves to you: name, description, and the JSON Schemas of request and response."""
    run(_modules(load_peer(file), target, timeout=timeout, json=json))


async def _modules(settings: PeerSettings, target: str, *, timeout: float | None, json: bool) -> None:
    async with joined(settings) as peer:
        results = [result async for result in peer.get(target).call_all(MODULES, timeout=timeout)]
    for result in results:
        if result.error is not None:
            _failure(result, json=json)
        elif json:
            emit({"peer": _entry(result.peer), "modules": result.response})
        else:
            say(_label(result.peer))
            for module in result.response:
                _describe(module)
    _conclude(results, target)


def _describe(module: dict[str, Any]) -> None:
    summary = module["doc"].partition("\n")[0]
    say("  ", (plain(module["name"]), "bold"), f"  {plain(summary)}")
    for what in ("request", "response"):
        if module[what] is not None:
            say(f"    {what}: {compact(module[what])}")


@app.command(rich_help_panel=CALLS, epilog="Examples: bv ping '*'\n\nbv ping bob --timeout 5s --json")
def ping(
    target: Target, timeout: Timeout = None, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False
) -> None:
    """
    Measure the way to each peer of a target: time to connect, round trip, and the path (host, srflx, prflx, relay).
    """
    run(_ping(load_peer(file), target, timeout=timeout, json=json))


def _failure(result: Result, *, json: bool) -> None:
    if result.error is None:
        return
    if json:
        emit({"peer": _entry(result.peer), "error": fault(result.error)})
    else:
        report("bv", result.error, about=f"{result.peer.name} {result.peer.id}")


def _conclude(results: list[Result], target: str) -> None:
    if not results:
        raise _nobody(target)
    if any(result.error is not None for result in results):
        raise Failed


def _path(path: dict[str, str] | None) -> str:
    return f"{plain(path['local'])} to {plain(path['remote'])}" if path else "no path"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"
