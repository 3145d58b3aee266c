"""What the tests of the command line share: `bv` in this process, in a folder of its own, without our variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bonevalue.cli.bv import app
from bonevalue.cli.program import execute
from tests.support.processes import Finished

Bv = Callable[..., Finished]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what a command imports from it is forgotten afterwards."""
    for name in [name for name in os.environ if name.startswith("BV_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    paths, loaded = list(sys.path), set(sys.modules)
    for name in [name for name in sys.modules if name.partition(".")[0] == "modules"]:
        monkeypatch.delitem(sys.modules, name)
    yield tmp_path
    sys.path[:] = paths
    for name in set(sys.modules) - loaded:
        if name.partition(".")[0] == "modules":
            del sys.modules[name]


@pytest.fixture
def bv(folder: Path, capsys: pytest.CaptureFixture[str]) -> Bv:
    """A function that runs `bv` with some arguments and gives exit code and output."""

    def run(*args: str) -> Finished:
        capsys.readouterr()
        code = execute(app, "bv", args)
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run
