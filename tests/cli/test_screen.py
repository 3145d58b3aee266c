"""What reaches the terminal: nothing that a remote peer could use against it."""

from __future__ import annotations

import json

import pytest

from bonevalue.cli.screen import compact, emit, plain, say, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Füße 猫", "Füße 猫"),
        ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
        ("two\nlines\r\n", "two\\nlines\\r\\n"),
        ("\x9b2J", "\\u009b2J"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\udb40\\udc01"),
    ],
)
def test_plain_leaves_nothing_that_a_terminal_acts_on(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_json_on_one_line_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "Füße\n\x1b\x9b\u202e [bold]not markup[/bold] :cat:", "bytes": b"\x00\xff", "long": "x" * 500}
    emit(value)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "\x9b" not in out
    assert json.loads(out) == {**value, "bytes": {"bytes": "AP8="}}
    assert compact({"text": "Füße"}) == '{"text": "Füße"}'


def test_people_see_brackets_as_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    say(("[bold]", "red"), " :cat: ", "x" * 300)
    assert capsys.readouterr().out == f"[bold] :cat: {'x' * 300}\n"


def test_table_aligns_and_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    table([("Us", "1" * 100, "ok"), ("bob-and-alice", "2"), ("猫", "3", "ok")])
    assert capsys.readouterr().out.splitlines() == [
        f"Us             {'1' * 100}  ok",
        "bob-and-alice  2",
        f"猫             3{' ' * 99}  ok",
    ]
