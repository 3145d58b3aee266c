"""
The commands about accounts: register and passwd over the network; `bv account` on the server's own database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from yaml import safe_dump

from bonevalue.cli import server_role
from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import ACCOUNTS, DEFAULT_FILE, ConfigFile, JsonLines, name_by
from bonevalue.cli.passwords import Generate, NewPassword, PasswordFile, new_password
from bonevalue.cli.screen import emit, hint, say, table
from bonevalue.cli.settings import load_discovery, load_peer, load_peer_to_be
from bonevalue.wire.keys import fingerprint, realm_of, username_of

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings

__all__ = ["app"]

app = typer.Typer()
account = typer.Typer(
    no_args_is_help=True, help="Manage accounts in the database of a discovery server, on the machine that it runs on."
)
app.add_typer(account, name="account", rich_help_panel=ACCOUNTS)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Username: 1 to 32 of a-z 0-9 _ . - but not all digits.", callback=name_by(username_of)
    ),
]


@account.callback()
def _before(file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """Only here so that the common options may stand before the command, too."""


# -- over the network --------------------------------------------------------------------------------------------------


@app.command(
    rich_help_panel=ACCOUNTS,
    epilog="Examples: bv register bob\n\nbv register bob --generate\n\nbv register bob --password-file -  < password",
)
def register(
    name: Name,
    generate: Generate = False,
    password_file: PasswordFile = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Make an account on the discovery server that the settings name.

    The password is asked for twice; left empty, one is made and shown. If
    the settings hold credentials of NAME, their password is taken, else
    that in BV_CREDENTIALS__PASSWORD. The password never leaves this
    machine.
    """
    settings = load_peer_to_be(file)
    password = new_password(
        name, file=password_file, make=generate, configured=_configured(settings, name), variable=True
    )
    run(_register(settings, name, password.text))
    _tell(name, password, f"The account {name} is made", json=json)
    if not json and _configured(settings, name) != password.text:
        hint(f"A peer of it needs in its settings: credentials: {{username: {name}, password: ...}}")


def _configured(settings: PeerSettings, username: str) -> str | None:
    """The password that the settings hold for this very account."""
    known: Any = settings.credentials  # may be missing, and its parts too: there is no account yet
    if known is None or known.username != username or known.password is None:
        return None
    return str(known.password.get_secret_value())


async def _register(settings: PeerSettings, username: str, password: str) -> None:
    from bonevalue.peer import register as make_account  # late, for the reason that bonevalue.cli.joining gives

    server = settings.server
    await make_account(server.address, username, password, realm=server.realm, ca_file=server.ca_file)


@app.command(
    rich_help_panel=ACCOUNTS, epilog="Examples: bv passwd\n\nbv passwd --generate\n\nbv passwd --password-file new"
)
def passwd(
    generate: Generate = False,
    password_file: PasswordFile = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Change the password of the account in the settings file.

    With the password the account gets a new key; whoever trusts it follows
    by itself. All its peers are logged out and need the new password in
    their settings, and tokens that nobody has claimed end.
    """
    settings = load_peer(file)
    username = settings.credentials.username
    password = new_password(username, file=password_file, make=generate)
    run(_change(settings, password.text))
    _tell(username, password, f"The password of {username} is changed", json=json)
    hint(f"All peers of {username} are logged out: put the new password into {file} and every other file of theirs.")


async def _change(settings: PeerSettings, password: str) -> None:
    async with joined(settings) as peer:
        await peer.change_password(password)


def _tell(username: str, password: NewPassword, done: str, *, json: bool) -> None:
    """Say what was done, and show a password that was made here: it is the only time."""
    if json:
        emit({"username": username, **({"password": password.text} if password.generated else {})})
        return
    say(done, ".")
    if password.generated:
        say("The password, shown this once: ", (password.text, "bold"))


# -- on the server's own database --------------------------------------------------------------------------------------


@account.command(epilog="Example: bv account add bob --generate")
def add(
    name: Name,
    generate: Generate = False,
    password_file: PasswordFile = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """Make an account. A running server knows it within seconds."""
    settings = load_discovery(file)
    password = new_password(name, file=password_file, make=generate)
    run(server_role.admin().add_account(settings, name, password.text))
    _tell(name, password, f"The account {name} is made", json=json)


@account.command("list", epilog="Example: bv account list --json")
def show(file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """Show all accounts: name, key fingerprint, when it was made."""
    accounts = run(server_role.admin().list_accounts(load_discovery(file)))
    if json:
        for each in accounts:
            emit({"username": each.username, "fingerprint": fingerprint(each.public_key), "created": each.created})
        return
    table((each.username, fingerprint(each.public_key), _day(each.created)) for each in accounts)


@account.command(epilog="Example: bv account reset bob --generate")
def reset(
    name: Name,
    generate: Generate = False,
    password_file: PasswordFile = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Set a new password for somebody who lost theirs, and end all trust of the account.

    Nobody can prove that it is the same person: whoever trusted the account
    has to be given a new token. Its peers are logged out.
    """
    settings = load_discovery(file)
    password = new_password(name, file=password_file, make=generate)
    run(server_role.admin().reset_account(settings, name, password.text))
    _tell(name, password, f"{name} has a new password, and nobody trusts the account any more", json=json)


@account.command(epilog="Example: bv account remove bob")
def remove(name: Name, file: ConfigFile = DEFAULT_FILE, json: JsonLines = False) -> None:
    """Remove an account with all its trust and tokens; its peers are logged out."""
    removed = run(server_role.admin().remove_account(load_discovery(file), name))
    if json:
        emit({"username": removed.username})
    else:
        say(f"The account {removed.username} is removed.")


@account.command(
    "hash", epilog="Examples: bv account hash bob\n\nbv account hash bob --realm bv.example.org --password-file secret"
)
def hash_entry(
    name: Name,
    realm: Annotated[
        str | None,
        typer.Option("--realm", metavar="HOST", help="Realm of the server; default is that of the settings."),
    ] = None,
    generate: Generate = False,
    password_file: PasswordFile = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Print an entry for discovery.accounts in a settings file that holds no password.

    Password, NAME and realm together make the account's key: the entry is of use on a server of this realm only.
    """
    bound_to = load_discovery(file).realm if realm is None else _realm(realm)
    password = new_password(name, file=password_file, make=generate)
    entry = run(server_role.admin().account_entry(name, password.text, realm=bound_to))
    if json:
        emit({**entry, **({"password": password.text} if password.generated else {})})
        return
    say(safe_dump([entry], sort_keys=False, default_flow_style=False, width=1000).rstrip())
    if password.generated:
        hint("The password, shown this once: ", (password.text, "bold"))


def _realm(text: str) -> str:
    try:
        return realm_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--realm") from error


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
