"""
Where a new password comes from: a file, a generator, the environment, or a person at a terminal. Never an argument.
"""

from __future__ import annotations

import os
import secrets
import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bonevalue.cli.screen import hint
from bonevalue.errors import WeakPassword
from bonevalue.wire.keys import check_password

__all__ = ["Generate", "NewPassword", "PasswordFile", "generate", "new_password"]

#: The variable that overrides ``credentials.password`` in the settings file.
VARIABLE = "BV_CREDENTIALS__PASSWORD"
#: Without the letters and digits that are taken for each other.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
#: Times that a person may mistype before it is given up.
_TRIES = 3

PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="PATH",
        help="Read the new password from the first line of a file; - is standard input.",
    ),
]
Generate = Annotated[bool, typer.Option("--generate", help="Make a new password and print it, this once.")]


class NewPassword(NamedTuple):
    """A password, and whether it was made here and has to be shown."""

    text: str
    generated: bool = False


def generate() -> str:
    """A new random password: 25 characters in groups of five, about 124 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(5)) for _ in range(5))


def new_password(
    subject: str, *, file: Path | None, make: bool, configured: str | None = None, variable: bool = False
) -> NewPassword:
    """
    The password to set, checked.

    Args:
        subject: whose it will be, for the prompt.
        file: the choice of ``--password-file``.
        make: the choice of ``--generate``.
        configured: what the settings file holds for this very account, if that is to be used.
        variable: whether ``BV_CREDENTIALS__PASSWORD`` counts as the new password.

    Raises:
        WeakPassword: too short or too common, wherever it came from.
        BadParameter: there is nothing to take it from, or the file cannot be read.
    """
    if file is not None and make:
        raise typer.BadParameter("--generate and --password-file exclude each other")
    if make:
        return NewPassword(generate(), generated=True)
    if file is not None:
        text = _read(file)
    elif variable and os.environ.get(VARIABLE):
        text = os.environ[VARIABLE]
    elif configured:
        text = configured
    else:
        return _ask(subject, variable=variable)
    check_password(text)
    return NewPassword(text)


def _read(file: Path) -> str:
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise typer.BadParameter(f"cannot read {file}: {why}", param_hint="--password-file") from error
    text = text.rstrip("\r\n")
    if not text:
        raise typer.BadParameter(f"{file} holds no password", param_hint="--password-file")
    return text


def _ask(subject: str, *, variable: bool) -> NewPassword:
    if not sys.stdin.isatty():
        choices = f"--password-file, --generate{f' or {VARIABLE}' if variable else ''}"
        raise typer.BadParameter(f"there is no terminal to ask for the password at: use {choices}")
    for _ in range(_TRIES):
        text = getpass(f"New password for {subject} (empty: make one): ")
        if not text:
            return NewPassword(generate(), generated=True)
        try:
            check_password(text)
        except WeakPassword as error:
            hint(error.message)
            continue
        if getpass("The same again: ") == text:
            return NewPassword(text)
        hint("The two are not the same.")
    raise WeakPassword(f"no usable password in {_TRIES} tries")
