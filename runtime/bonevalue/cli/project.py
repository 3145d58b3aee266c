"""
The commands about the settings file itself: init, check, config.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from yaml import safe_dump

from bonevalue.cli.options import DEFAULT_FILE, SET_UP, ConfigFile, JsonLines
from bonevalue.cli.passwords import generate
from bonevalue.cli.screen import emit, hint, plain, say
from bonevalue.cli.settings import load_all, read_all, schema_of_all
from bonevalue.errors import BoneValueError

if TYPE_CHECKING:
    from bonevalue.settings_file import Loaded

__all__ = ["app"]

app = typer.Typer()

_SETTINGS = """\
# BoneValue. This file declares a discovery server and a peer; `bv-run bonevalue.yaml` runs both in one process.
# Only its owner may read it: it holds a password. `bv config` shows every key, `bv check` tells what is wrong.

server:                                 # this makes it a peer, and says where its discovery server is
  address: ws://127.0.0.1:8008

credentials:
  username: admin
  password: "{password}"

modules:                                # what other peers may call
  - modules.echo.Echo

discovery:                              # this makes it a discovery server; leave it out to use another one
  listen: 127.0.0.1:8008                # this machine only; for others: a TLS key, a realm, and another address
  accounts:                             # made at the first start
    - username: admin
      password: "{password}"
"""

_ECHO = '''\
from bonevalue import Module


class Echo(Module):
    """Twists what it is told."""

    name = "My.Echo.Module"

    async def handle(self, request, context):
        return {"text": "Not " + request["text"]}
'''


class FileExists(BoneValueError):
    """A file that was to be written is there already."""

    code = "file_exists"


class CannotWrite(BoneValueError):
    """A file cannot be written."""

    code = "cannot_write"


@app.command(rich_help_panel=SET_UP, epilog="Example: bv init demo && cd demo && bv-run bonevalue.yaml")
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it does not exist.")] = Path(),
    json: JsonLines = False,
) -> None:
    """
    Write a small working bonevalue.yaml and modules/echo.py.

    Server and peer listen on this machine only; the password is random and
    stands in the file, which only you may read. Nothing is ever
    overwritten.
    """
    password = generate()
    files = {
        folder / "bonevalue.yaml": (_SETTINGS.format(password=password), 0o600),
        folder / "modules" / "echo.py": (_ECHO, 0o644),
    }
    for path in files:
        if path.exists():
            raise FileExists(f"{path} exists already, and nothing is overwritten")
    for path, (text, mode) in files.items():
        _write(path, text, mode)
        emit({"wrote": str(path)}) if json else say("wrote ", (str(path), "bold"))
    if not json:
        go = "" if folder == Path() else f"cd {folder} && "
        say("Start it:             ", (f"{go}bv-run bonevalue.yaml", "bold"))
        say("From a second shell:  ", (f"{go}bv call Us My.Echo.Module '" + '{"text": "Friday"}\'', "bold"))


def _write(path: Path, text: str, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise FileExists(f"{path} exists already, and nothing is overwritten") from error
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from error


@app.command(rich_help_panel=SET_UP, epilog="Examples: bv check\n\nbv check -c staging.yaml --json")
def check(file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """
    Validate everything offline: keys, imports, each module's own config, ICE URLs.

    Every fault is one line with file, line and key on standard error, and
    the exit code is 2. Nothing is started; but modules are imported, and so
    their top-level code runs.
    """
    from bonevalue.loader import modules_of

    loaded = read_all(file)
    modules = [module.name for module in modules_of(loaded)]
    if json:
        for fault in loaded.faults:
            emit({"fault": asdict(fault)})
        for warning in loaded.warnings:
            emit({"warning": warning})
        emit({"ok": not len(loaded.faults), "roles": _declared(loaded), "modules": modules})
    loaded.faults.check()
    if not json:
        for warning in loaded.warnings:
            hint("warning: ", plain(warning))
        served = f"; modules: {', '.join(map(plain, modules))}" if modules else ""
        say((f"{file} is right", "green"), f": {' and '.join(_declared(loaded))}{served}")


def _declared(loaded: Loaded) -> list[str]:
    return [role for role, settings in loaded.settings.items() if settings is not None]


@app.command(rich_help_panel=SET_UP, epilog="Examples: bv config\n\nbv config --schema > bonevalue.schema.json")
def config(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the file instead, for editors and for people.")
    ] = False,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """Show the settings in effect, after environment and defaults; secrets are masked."""
    shown = schema_of_all() if schema else load_all(file).masked()
    if schema or json:
        say(dumps(shown, indent=None if json else 2, ensure_ascii=False))
    else:
        say(safe_dump(shown, sort_keys=False, allow_unicode=True).rstrip())
