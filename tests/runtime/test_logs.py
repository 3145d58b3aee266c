"""Logging for people and as JSON lines, and the limit that keeps one peer from filling the log."""

from __future__ import annotations

import json
import logging

import pytest

from bonevalue import logs
from bonevalue.counters import Counters


def test_json_lines_carry_everything(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    adapter = logging.LoggerAdapter(logging.getLogger("module.Echo"), {"caller": "bob", "call_id": "abc"})
    adapter.info("hello %s", "world")
    logging.getLogger("x").debug("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert entry["event"] == "hello world" and entry["level"] == "info" and entry["logger"] == "module.Echo"
    assert (entry["caller"], entry["call_id"]) == ("bob", "abc") and entry["timestamp"].endswith("Z")


def test_exceptions_are_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    try:
        raise ValueError("oops")
    except ValueError:
        logging.getLogger("x").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: oops" in json.loads(line)["exception"]


def test_console_lines_are_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "console")
    logging.getLogger("bonevalue.peer").warning("offline: %s", "gone")
    logging.getLogger("bonevalue.peer").info("not shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert "offline: gone" in line and "warning" in line and "\x1b" not in line


def test_a_chatty_library_stays_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    logging.getLogger("aioice.ice").info("lots of candidates")
    assert capsys.readouterr().err == ""


def test_ten_lines_a_second_for_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bonevalue.logs.time.monotonic", lambda: now)
    limit = logs.LogLimit()
    passed = [limit.passes("peer")[0] for _ in range(50)]
    assert passed == [True] * 10 + [False] * 40
    assert limit.passes("other") == (True, 0)
    now = 101.0
    assert limit.passes("peer") == (True, 40)
    assert limit.passes("peer") == (True, 0)
    now = 102.0
    assert [limit.passes("peer")[0] for _ in range(12)].count(False) == 2
    assert limit.passes("other") == (True, 0)
    now = 107.0
    assert limit.passes("peer") == (True, 2)


def test_a_limit_remembers_only_so_many_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bonevalue.logs.time.monotonic", lambda: now)
    counters = Counters()
    limit = logs.LogLimit(counters)
    for key in range(logs.MAX_KEYS):
        assert limit.passes(key) == (True, 0)
    assert limit.passes("one too many") == (False, 0)
    assert limit.passes(0) == (True, 0)
    now = 101.0
    for key in range(logs.MAX_KEYS, 3 * logs.MAX_KEYS):
        assert limit.passes(key)[0] is (key < 2 * logs.MAX_KEYS)
    assert len(limit._keys) == logs.MAX_KEYS
    assert counters.log_lines_left_out == logs.MAX_KEYS + 1
