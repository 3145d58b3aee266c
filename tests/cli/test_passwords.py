"""Where a new password comes from, and that it is never shown where it should not be."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest
import typer

from bonevalue.cli.passwords import generate, new_password
from bonevalue.errors import WeakPassword
from bonevalue.wire.keys import check_password
from tests.cli.conftest import Bv
from tests.support.processes import BIN, PASSWORD, PATIENCE, clean_environment, discovery_role, write_yaml


def test_generated_passwords_are_long_and_differ() -> None:
    made = {generate() for _ in range(50)}
    assert len(made) == 50
    for password in made:
        check_password(password)
        assert re.fullmatch(r"([a-z2-9]{5}-){4}[a-z2-9]{5}", password)


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\nsecond line\n")
    assert new_password("bob", file=file, make=False).text == PASSWORD


def test_from_the_environment_only_where_it_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BV_CREDENTIALS__PASSWORD", PASSWORD)
    assert new_password("bob", file=None, make=False, variable=True).text == PASSWORD
    with pytest.raises(typer.BadParameter, match="no terminal"):
        new_password("bob", file=None, make=False)


def test_a_weak_one_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("short")
    with pytest.raises(WeakPassword):
        new_password("bob", file=file, make=False)
    with pytest.raises(WeakPassword):
        new_password("bob", file=None, make=False, configured="test")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_file_that_holds_none(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(typer.BadParameter):
        new_password("bob", file=file, make=False)


def test_hash_prints_an_entry_without_the_password(bv: Bv, folder: Path) -> None:
    (folder / "password").write_text(PASSWORD)
    write_yaml(folder / "bonevalue.yaml", discovery_role(8123))
    made = bv("account", "hash", "Bob", "--password-file", "password", "--json")
    assert made.code == 0
    entry = made.json[0]
    assert entry.keys() == {"username", "public_key", "login_hash"}
    assert PASSWORD not in made.stdout
    write_yaml(folder / "bonevalue.yaml", {"discovery": {"listen": "127.0.0.1:8123", "accounts": [entry]}})
    assert bv("check").code == 0
    elsewhere = bv("account", "hash", "bob", "--password-file", "password", "--realm", "bv.example.org", "--json")
    assert elsewhere.json[0]["public_key"] != entry["public_key"]


def test_the_prompt_asks_twice_and_does_not_echo(folder: Path) -> None:
    """At a real terminal: too short, then two that differ, then the same one twice."""
    write_yaml(folder / "bonevalue.yaml", discovery_role(8123))
    with _Terminal("account", "add", "bob", folder=folder) as terminal:
        for question, answer in (
            ("New password for bob", "short"),
            ("New password for bob", PASSWORD),
            ("The same again", "something-else-entirely"),
            ("New password for bob", PASSWORD),
            ("The same again", PASSWORD),
        ):
            terminal.answer(question, answer)
        code, shown = terminal.end()
    assert code == 0, shown
    assert "10 characters" in shown
    assert "not the same" in shown
    assert "The account bob is made" in shown
    assert PASSWORD not in shown
    assert "something-else" not in shown


def test_an_empty_answer_offers_a_generated_one(folder: Path) -> None:
    write_yaml(folder / "bonevalue.yaml", discovery_role(8123))
    with _Terminal("account", "add", "bob", folder=folder) as terminal:
        terminal.answer("New password for bob", "")
        code, shown = terminal.end()
    assert code == 0, shown
    assert re.search(r"shown this once: \S*([a-z2-9]{5}-){4}[a-z2-9]{5}", shown)


class _Terminal:
    """`bv` with a person at a terminal."""

    def __init__(self, *args: str, folder: Path) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [BIN / "bv", *args], cwd=folder, env=clean_environment(), stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self._shown = ""
        self._looked = 0

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._master)

    def answer(self, question: str, text: str) -> None:
        while (place := self._shown.find(question, self._looked)) < 0:
            assert self._read(), self._shown
        self._looked = place + len(question)
        os.write(self._master, f"{text}\n".encode())

    def end(self) -> tuple[int, str]:
        while self._read():
            pass
        return self._process.wait(PATIENCE), self._shown

    def _read(self) -> bool:
        assert select.select([self._master], [], [], PATIENCE)[0], f"nothing more came:\n{self._shown}"
        try:
            data = os.read(self._master, 4096)
        except OSError:  # what Linux says when the other end is gone
            return False
        self._shown += data.decode()
        return bool(data)
