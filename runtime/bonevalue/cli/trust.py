"""
The commands that make, show and end trust: token request, token claim, trust list, trust remove.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import ACCOUNTS, DEFAULT_FILE, ConfigFile, JsonLines, name_by
from bonevalue.cli.program import fault
from bonevalue.cli.screen import emit, hint, plain, say, table
from bonevalue.cli.settings import load_peer
from bonevalue.errors import BoneValueError, NotTrusted
from bonevalue.wire.keys import alias_of, fingerprint
from bonevalue.wire.tokens import Token

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings

__all__ = ["app"]

app = typer.Typer()
token = typer.Typer(no_args_is_help=True, help="Make trust with another account, by a token that one gives the other.")
trust = typer.Typer(no_args_is_help=True, help="Show and end trust.")
app.add_typer(token, name="token", rich_help_panel=ACCOUNTS)
app.add_typer(trust, name="trust", rich_help_panel=ACCOUNTS)

Alias = Annotated[
    str,
    typer.Argument(
        metavar="ALIAS",
        help="Your own private name for the other account; nobody else sees it.",
        callback=name_by(alias_of),
    ),
]


@token.callback()
@trust.callback()
def _before(file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """Only here so that the common options may stand before the command, too."""


@token.command(epilog="Example: bv token request bob > for-bob.token")
def request(alias: Alias, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """
    Make a token and print it: whoever claims it becomes a trusted contact under this alias.

    Give it to one person, over a channel that nobody else reads. It works once, and not for long.
    """
    run(_request(load_peer(file), alias, json=json))


async def _request(settings: PeerSettings, alias: str, *, json: bool) -> None:
    async with joined(settings) as peer:
        text = await peer.request_token(alias)
        mine = peer.fingerprint
    expires = Token.parse(text).expires
    if json:
        emit({"token": text, "name": alias, "fingerprint": mine, "expires": expires})
        return
    say(text)
    hint(f"Whoever claims this becomes {alias}: once, until {_time(expires)}. The other side runs:")
    hint("  bv token claim <their name for you> <this token>")
    hint(f"and is shown your fingerprint, which is {mine}")


@token.command(epilog="Examples: bv token claim alice bv1_AbC...\n\nbv token claim alice - < token")
def claim(
    alias: Alias,
    text: Annotated[
        str, typer.Argument(metavar="TOKEN", help="What the other one gave you; - reads it from standard input.")
    ],
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Claim a token: its maker becomes a trusted contact under this alias, and you one of theirs.

    Compare the fingerprint that is shown with the one that its maker sees: if they differ, somebody changed the token.
    """
    parsed = Token.parse(sys.stdin.readline().strip() if text == "-" else text)
    run(_claim(load_peer(file), alias, parsed, json=json))


async def _claim(settings: PeerSettings, alias: str, parsed: Token, *, json: bool) -> None:
    async with joined(settings) as peer:
        await peer.claim_token(alias, parsed.text)
    theirs = fingerprint(parsed.inviter_key)
    if json:
        emit({"name": alias, "fingerprint": theirs})
        return
    say((alias, "bold"), " is trusted now. Fingerprint: ", (theirs, "bold"))
    say(f"If that is not what {alias} sees (bv trust list), end it: bv trust remove {alias}")


@trust.command("list", epilog="Example: bv trust list --json")
def show(file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """
    Show who is trusted: alias, key fingerprint, and whether the server proved it.

    A contact that is refused cannot call and cannot be called; the line says why, and what to do.
    """
    run(_show(load_peer(file), json=json))


async def _show(settings: PeerSettings, *, json: bool) -> None:
    async with joined(settings) as peer:
        mine = peer.fingerprint
        contacts = peer.contacts()
    if json:
        emit({"name": "Us", "fingerprint": mine, "state": "self"})
        for contact in contacts:
            problem = {"error": fault(contact.problem)} if contact.problem else {}
            state = "refused" if contact.problem else "ok"
            emit({"name": contact.name, "fingerprint": contact.fingerprint, "state": state, **problem})
        return
    table(
        [
            ("Us", mine, "this is you: what others compare"),
            *((plain(each.name), each.fingerprint or "-", _state(each.name, each.problem)) for each in contacts),
        ]
    )


def _state(name: str, problem: BoneValueError | None) -> str:
    if problem is None:
        return "ok"
    # A key in `trust.refuse` is refused on purpose; all else is for the two people to settle, and not over the server.
    ask = (
        ""
        if isinstance(problem, NotTrusted)
        else f"; ask {name} over another channel, or end it: bv trust remove {name}"
    )
    return f"refused: {problem.code}: {plain(problem.message + ask)}"


@trust.command(epilog="Example: bv trust remove bob")
def remove(alias: Alias, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """
    End the trust with an alias: neither side finds the other any more, and live links between them are cut.

    To keep the key out for good, whatever a server says, put its fingerprint under trust.refuse in the settings.
    """
    run(_remove(load_peer(file), alias, json=json))


async def _remove(settings: PeerSettings, alias: str, *, json: bool) -> None:
    async with joined(settings) as peer:
        prints = {contact.name: contact.fingerprint for contact in peer.contacts()}
        await peer.remove_user(alias)
    theirs = prints.get(alias)
    if json:
        emit({"name": alias, "fingerprint": theirs})
        return
    say((alias, "bold"), " is no longer trusted", f" (fingerprint {theirs})" if theirs else "")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M %Z")
