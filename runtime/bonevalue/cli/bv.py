"""``bv``: everything but the daemon itself."""

from __future__ import annotations

import typer

from bonevalue.cli import accounts, call, copy, doctor, peers, project, trust
from bonevalue.cli.options import DEFAULT_FILE, ConfigFile, JsonLines, Version

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (project, call, copy, peers, doctor, accounts, trust):
    app.add_typer(group.app)


@app.callback(
    epilog="Begin with: bv init demo && cd demo && bv-run bonevalue.yaml\n\n"
    "Exit codes: 0 success, 1 the operation failed, 2 wrong usage or settings."
)
def bv(file: ConfigFile = DEFAULT_FILE, json: JsonLines = False, version: Version = False) -> None:
    """
    Look at, call and manage the peers of a discovery server.

    A command that needs the network logs in with the credentials of the
    settings file, as an invisible peer: it may call, serves nothing, and
    nobody sees it.
    """
