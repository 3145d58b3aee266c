"""
The options that every command takes, before or after its name: ``bv -c FILE peers`` is ``bv peers -c FILE``.

A command declares them as ``file: ConfigFile = DEFAULT_FILE`` and ``json: JsonLines = False`` and gets what counts.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from bonevalue.errors import BadName

__all__ = ["ACCOUNTS", "CALLS", "DEFAULT_FILE", "SET_UP", "ConfigFile", "JsonLines", "Version", "name_by"]

#: Headings of `bv --help`.
SET_UP, CALLS, ACCOUNTS = "Set up", "Look and call", "Accounts and trust"
#: The file that is read if no ``-c`` names another.
DEFAULT_FILE = Path("bonevalue.yaml")


def _nearest(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """The value that was given nearest to the command: behind it, else before it; else the default."""
    name = str(parameter.name)
    scope: typer.Context | None = context
    while scope is not None:
        source = scope.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            return value if scope is context else scope.params[name]
        scope = scope.parent  # type: ignore[assignment]
    return value


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("bonevalue"))
        raise typer.Exit


def name_by(rule: Callable[[str], str]) -> Callable[[str], str]:
    """A check of a name in the arguments: what breaks the rule is wrong usage."""

    def check(text: str) -> str:
        try:
            return rule(text)
        except BadName as error:
            raise typer.BadParameter(error.message) from error

    return check


ConfigFile = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", help="The settings to use.", callback=_nearest)
]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print JSON lines for programs, not text for people.", callback=_nearest)
]
Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
]
