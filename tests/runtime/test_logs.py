"""Logging for people and as JSON lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from bonevalue import logs


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """What is set up here is for the whole process, and other tests run in it."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in (*logs._NOISY, *logs._NEVER, *logs._NOISIER)}
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


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


def test_what_stands_in_the_database_is_never_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", "console")
    for name in ("sqlalchemy.engine.Engine", "sqlalchemy.pool", "alembic.runtime.migration"):
        logging.getLogger(name).debug("a row")
        logging.getLogger(name).info("SELECT 1")
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    assert capsys.readouterr().err == ""
    logging.getLogger("sqlalchemy").warning("a connection is lost")
    assert "a connection is lost" in capsys.readouterr().err
