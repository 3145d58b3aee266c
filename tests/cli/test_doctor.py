"""How `bv doctor` prints what an examination finds: for people, at a terminal or not, and for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bonevalue.cli import doctor
from bonevalue.diagnosis import examination
from bonevalue.diagnosis.findings import CHECKS, Doing, Finding, fail, not_tried, ok, warn
from tests.cli.conftest import Bv
from tests.support.processes import peer_role, write_yaml

LONG = "wss://bv.example.org:443/a/path/that/is/longer/than/one/would/like/it/to/be/on/a/line/of/80/letters"


@pytest.fixture
def finds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Settings that are right, and an examination that finds what the test says; gives what it was asked for."""
    write_yaml(folder / "bonevalue.yaml", peer_role(8123, "alice"))
    asked: list[Any] = []

    def stage(*findings: Finding) -> list[Any]:
        async def examine(
            settings: Any, *, target: str | None, module: str | None, doing: Doing
        ) -> AsyncIterator[Finding]:
            asked.append((settings.credentials.username, target, module))
            for finding in findings:
                doing(f"{finding.check} of something")
                yield finding

        monkeypatch.setattr(examination, "examine", examine)
        return asked

    return stage


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns."""
    monkeypatch.setattr(doctor, "terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


def test_one_line_a_check(bv: Bv, finds: Callable[..., list[Any]]) -> None:
    asked = finds(ok("dns", "it is there"), warn("stun", "hm", "look at it"), not_tried("turn", "why"))
    done = bv("doctor", "bob", "My.Module")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "ok    settings  bonevalue.yaml: alice at ws://127.0.0.1:8123",
        "ok    dns       it is there",
        "warn  stun      hm",
        "                -> Look at it.",
        "-     turn      not tried: why",
        "2 ok, 1 warn, 1 not tried",
    ]
    assert asked == [("alice", "bob", "My.Module")]


def test_a_failure_is_1(bv: Bv, finds: Callable[..., list[Any]]) -> None:
    finds(fail("link", "no", "do this"), ok("module", "yes"))
    done = bv("doctor")
    assert (done.code, done.stderr) == (1, "")
    assert done.stdout.splitlines()[1:] == [
        "FAIL  link      no",
        "                -> Do this.",
        "ok    module    yes",
        "2 ok, 1 FAIL",
    ]


def test_json_lines(bv: Bv, finds: Callable[..., list[Any]]) -> None:
    finds(ok("dns", "there", seconds=0.25), fail("tcp", "no", "do this", port=80), not_tried("tls", "why"))
    done = bv("doctor", "--json")
    assert (done.code, done.stderr) == (1, "")
    assert done.json[1:] == [
        {"check": "dns", "verdict": "ok", "text": "there", "advice": "", "facts": {"seconds": 0.25}},
        {"check": "tcp", "verdict": "fail", "text": "no", "advice": "Do this.", "facts": {"port": 80}},
        {"check": "tls", "verdict": "not_tried", "text": "not tried: why", "advice": "", "facts": {}},
        {"summary": {"ok": 2, "warn": 0, "fail": 1, "not_tried": 1}},
    ]


def test_at_a_terminal_lines_are_broken_and_nothing_is_cut(
    bv: Bv, finds: Callable[..., list[Any]], narrow: None
) -> None:
    words = "look at this and at that " * 10
    finds(fail("link", f"{words}{LONG} {words}", words.strip()))
    lines = bv("doctor").stdout.splitlines()[1:-1]
    assert [line for line in lines if len(line) > 80] == [f"{' ' * 16}{LONG}"]
    assert [line for line in lines[1:] if not line.startswith(" " * 16)] == []
    text, _, advice = " ".join(" ".join(lines).split()).partition(" -> ")
    assert text == f"FAIL link {words}{LONG} {words.strip()}"
    assert advice == f"L{words.strip()[1:]}."


def test_piped_on_a_finding_is_one_line(bv: Bv, finds: Callable[..., list[Any]]) -> None:
    finds(ok("link", "word " * 100 + "end"))
    assert bv("doctor").stdout.splitlines()[1] == "ok    link      " + "word " * 100 + "end"


def test_no_file(bv: Bv, folder: Path) -> None:
    done = bv("doctor", "bob")
    assert (done.code, done.stderr) == (2, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "FAIL  settings  bonevalue.yaml: no such file"
    assert [line.split()[1] for line in lines if line.startswith("- ")] == [
        check for check in CHECKS if check not in ("settings", "module")
    ]


def test_every_fault_of_the_settings_is_a_line(bv: Bv, folder: Path) -> None:
    content = peer_role(8123)
    content["server"]["address"] = "http://nonsense"
    content["pool"] = {"heartbeat": "soon"}
    write_yaml(folder / "bonevalue.yaml", content)
    done = bv("doctor", "--json")
    assert done.code == 2
    faults = [line for line in done.json if line.get("check") == "settings"]
    assert [fault["verdict"] for fault in faults] == ["fail", "fail"]
    assert "server.address" in faults[0]["text"] and "pool.heartbeat" in faults[1]["text"]
    assert done.json[-1]["summary"]["ok"] == 0


def test_a_file_without_a_peer(bv: Bv, folder: Path) -> None:
    write_yaml(folder / "bonevalue.yaml", {"discovery": {"listen": "127.0.0.1:8123"}})
    done = bv("doctor")
    assert done.code == 2
    assert done.stdout.startswith("FAIL  settings  bonevalue.yaml")


def test_a_secret_that_others_may_read_is_a_warning(bv: Bv, finds: Callable[..., list[Any]], folder: Path) -> None:
    finds()
    (folder / "password").write_text("plum-tart-and-a-violin\n")
    (folder / "password").chmod(0o644)
    content = peer_role(8123, "alice")
    content["credentials"] = {"username": "alice", "password_file": "password"}
    write_yaml(folder / "bonevalue.yaml", content)
    done = bv("doctor")
    assert done.code == 0
    assert [
        line for line in done.stdout.splitlines() if "other users may read this file" in line or "chmod 600" in line
    ]
    assert done.stdout.splitlines()[-1] == "1 ok, 1 warn"


def test_what_comes_from_elsewhere_is_harmless(bv: Bv, finds: Callable[..., list[Any]]) -> None:
    """Whoever made the finding has made it plain; the name of the target is the user's own."""
    finds(ok("login", "fine"))
    assert "\x1b" not in bv("doctor", "b\x1b[31mob").stdout
