"""How `bv` takes its arguments: common options before and after the command, wrong usage, help."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from bonevalue import cli
from bonevalue.cli.bv import app
from bonevalue.cli.program import execute
from tests.cli.conftest import Bv
from tests.support.processes import peer_role, write_yaml


def _commands(group: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        callback = command.callback
        assert callback is not None
        yield (*path, command.name or callback.__name__)
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from _commands(below.typer_instance, (*path, below.name) if isinstance(below.name, str) else path)


COMMANDS = sorted(_commands(app))


def test_the_commands_are_those_of_the_design() -> None:
    assert [" ".join(command) for command in COMMANDS] == [
        "account add",
        "account hash",
        "account list",
        "account remove",
        "account reset",
        "call",
        "check",
        "config",
        "copy",
        "doctor",
        "init",
        "modules",
        "passwd",
        "peers",
        "ping",
        "register",
        "token claim",
        "token request",
        "trust list",
        "trust remove",
    ]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example(bv: Bv, command: tuple[str, ...]) -> None:
    shown = bv(*command, "--help")
    assert shown.code == 0
    assert f"bv {' '.join(command)}" in shown.stdout.partition("Example")[2]
    assert "--json" in shown.stdout


@pytest.mark.parametrize(
    "arguments",
    [("-c", "other.yaml", "config", "--json"), ("config", "-c", "other.yaml", "--json"),
     ("--json", "config", "--config", "other.yaml"), ("-c", "missing.yaml", "--json", "config", "-c", "other.yaml")],
)  # fmt: skip
def test_common_options_stand_before_or_after(bv: Bv, folder: Path, arguments: tuple[str, ...]) -> None:
    write_yaml(folder / "other.yaml", peer_role(8123))
    shown = bv(*arguments)
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.json[0]["server"]["address"] == "ws://127.0.0.1:8123"


@pytest.mark.parametrize(
    "arguments",
    [("-c", "no.yaml", "trust", "list"), ("trust", "-c", "no.yaml", "list"), ("trust", "list", "-c", "no.yaml")],
)
def test_common_options_stand_anywhere_around_a_group(bv: Bv, arguments: tuple[str, ...]) -> None:
    assert bv(*arguments).faults == ["no.yaml: no such file"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("call", "Us"), "Missing argument 'MODULE'"),
        (("call", "Us", "M", "--first", "0"), "--first"),
        (("call", "Us", "M", "--timeout", "soon"), "is no duration"),
        (("call", "Us", "M", "{"), "this is no JSON"),
        (("call", "Us", "M", "Friday"), "a text needs quotes of its own"),
        (("call", "Us", "M", "NaN"), "NaN is no number that JSON has"),
        (("peers", "--nonsense"), "No such option: --nonsense"),
        (("register", "Us"), "NAME"),
        (("token", "request", "no/such"), "ALIAS"),
        (("register", "bob", "--generate", "--password-file", "x"), "exclude each other"),
    ],
)
def test_wrong_usage_is_one_line_and_2(bv: Bv, folder: Path, arguments: tuple[str, ...], words: str) -> None:
    write_yaml(folder / "bonevalue.yaml", peer_role(8123))
    refused = bv(*arguments)
    assert refused.code == 2
    assert refused.stdout == ""
    assert len(refused.faults) == 1
    assert refused.stderr.startswith("bv: usage: ")
    assert words in refused.stderr


def test_deep_json_is_wrong_usage(bv: Bv, folder: Path) -> None:
    write_yaml(folder / "bonevalue.yaml", peer_role(8123))
    refused = bv("call", "Us", "M", "[" * 100_000)
    assert refused.code == 2
    assert refused.stderr.startswith("bv: usage: ")
    assert len(refused.stderr) < 500


def test_without_a_command_there_is_help_and_2(bv: Bv) -> None:
    shown = bv()
    assert shown.code == 2
    assert "bv init" in shown.stdout
    assert shown.stderr == ""


def test_version(bv: Bv) -> None:
    assert bv("--version").stdout.strip() == version("bonevalue")


def test_interrupted_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    interrupted = typer.Typer()

    @interrupted.command()
    def work() -> None:
        raise KeyboardInterrupt

    assert execute(interrupted, "bv", []) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("script", [cli.main, cli.run])
def test_ctrl_c_while_it_still_loads(
    script: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    with pytest.raises(SystemExit) as ended:
        script()
    assert ended.value.code == 130 and capsys.readouterr() == ("", "")
