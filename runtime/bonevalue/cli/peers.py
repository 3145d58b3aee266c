"""The commands that look at peers: peers, modules, ping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import to_builtins

from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import CALLS, DEFAULT_FILE, ConfigFile, JsonLines
from bonevalue.cli.results import TargetName, Timeout, label, show_results
from bonevalue.cli.schemas import alternatives
from bonevalue.cli.screen import emit, plain, say, table
from bonevalue.cli.settings import load_peer
from bonevalue.descriptions import (
    LINKS,
    MODULES,
    LinkDescription,
    ModuleDescription,
    read_descriptions,
    read_links,
)
from bonevalue.diagnosis.findings import milliseconds
from bonevalue.errors import RemoteProtocolError
from bonevalue.results import Result
from bonevalue.target import OWN_ACCOUNT

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel=CALLS, epilog="Examples: bv peers\n\nbv peers --links --json")
def peers(
    links: Annotated[
        bool, typer.Option("--links", help="Ask one's own daemons which links they have, instead.")
    ] = False,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """Show whom one may talk to: one's own account (Us) and every alias, each with its peers that are online."""
    settings = load_peer(file)
    run(_links(settings, json=json) if links else _peers(settings, json=json))


async def _peers(settings: PeerSettings, *, json: bool) -> None:
    async with joined(settings) as peer:
        online: dict[str, list[str]] = {name: [] for name in peer.aliases}
        for each in peer.peers():
            online.setdefault(each.name, []).append(each.id)
    for name, ids in online.items():
        if json:
            emit({"name": name, "peers": ids})
    if not json:
        table((plain(name), "  ".join(ids) or "nobody online") for name, ids in online.items())


async def _links(settings: PeerSettings, *, json: bool) -> None:
    async with joined(settings) as peer:
        called = peer.get(OWN_ACCOUNT).call_all(LINKS, keep_alive=False)
        results = [_read(result, read_links) async for result in called]
    for result in results:
        if result.error is None:  # the link of this command itself is not worth a line
            result.response[:] = [link for link in result.response if link.peer.id != peer.id]
    show_results(results, OWN_ACCOUNT, json=_as_links if json else None, text=_show_links)


def _as_links(response: list[LinkDescription]) -> dict[str, Any]:
    return {"links": [to_builtins(link) | {"path": link.path and link.path.as_json()} for link in response]}


def _show_links(result: Result) -> None:
    say(label(result.peer), "" if result.response else "  no links")
    table((_link_row(link) for link in result.response), indent="  ")


def _link_row(link: LinkDescription) -> tuple[str, ...]:
    return (
        plain(f"{link.peer.name or 'somebody'} {link.peer.id}"),
        "outgoing" if link.dialled else "incoming",
        f"{plain(link.state)}{', doubted' if link.doubted else ''} for {link.seconds:.0f} s",
        plain(link.path.words) if link.path else "no path",
        "-" if link.round_trip is None else f"{link.round_trip * 1000:.1f} ms",
        f"{link.calls} calls",
    )


@app.command(rich_help_panel=CALLS, epilog="Examples: bv modules Us\n\nbv modules bob --json")
def modules(
    target: TargetName, timeout: Timeout = None, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False
) -> None:
    """
    Show what each peer of a target serves to you.

    Name and description of each module, and the form of its request and of
    its response, or of the items of its stream. A question mark is at what
    may be left out. The JSON Schemas in full, and the platform's own
    modules, are shown with --json.
    """
    run(_modules(load_peer(file), target, timeout=timeout, json=json))


async def _modules(settings: PeerSettings, target: str, *, timeout: float | None, json: bool) -> None:
    async with joined(settings) as peer:
        called = peer.get(target).call_all(MODULES, timeout=timeout, keep_alive=False)
        results = [_read(result, read_descriptions) async for result in called]
    show_results(results, target, json=_as_modules if json else None, text=_show_modules)


def _read(result: Result, read: Callable[[Any], Any]) -> Result:
    """What a peer answered, or what is wrong with it: one that talks nonsense must not hide the others."""
    if result.error is not None:
        return result
    try:
        return Result(result.peer, response=read(result.response))
    except RemoteProtocolError as error:
        return Result(result.peer, error=error)


def _as_modules(response: list[ModuleDescription]) -> dict[str, Any]:
    return {"modules": [asdict(module) for module in response]}


def _show_modules(result: Result) -> None:
    # The platform's own are the same everywhere.
    modules: list[ModuleDescription] = [module for module in result.response if not module.name.startswith("bv.")]
    say(label(result.peer), "" if modules else "  serves nothing to you")
    for module in modules:
        summary = module.doc.partition("\n")[0]
        say("  ", (plain(module.name), "bold"), f"  {plain(summary)}" if summary else "")
        _show_form("request", module.request)
        _show_form("items" if module.stream else "response", module.response, always=module.stream)


def _show_form(what: str, schema: dict[str, Any] | None, *, always: bool = False) -> None:
    if schema is None and not always:
        return
    for number, text in enumerate(alternatives(schema)):
        say(f"    {what:8}  " if not number else f"{'|':>13} ", plain(text))


@app.command(rich_help_panel=CALLS, epilog="Examples: bv ping '*'\n\nbv ping bob --timeout 5s --json")
def ping(target: TargetName, timeout: Timeout = None, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """
    Measure the way to each peer of a target.

    The round trip; the path, as the kinds of both ends, this one first (host
    is the machine's own address, srflx and prflx one that a NAT gave it,
    relay a TURN server); and the address family.
    """
    run(_ping(load_peer(file), target, timeout=timeout, json=json))


async def _ping(settings: PeerSettings, target: str, *, timeout: float | None, json: bool) -> None:
    async with joined(settings) as peer:
        results = [result async for result in peer.get(target).ping(timeout=timeout)]
    show_results(results, target, json=_as_ping if json else None, text=_show_ping)


def _as_ping(response: Any) -> dict[str, Any]:
    path = response.path
    return {"roundTrip": response.round_trip, "path": None if path is None else path.as_json()}


def _show_ping(result: Result) -> None:
    path = result.response.path
    words = "unknown path" if path is None else path.words
    say(label(result.peer), f"  {milliseconds(result.response.round_trip)}  {words}")
