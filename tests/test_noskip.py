"""The plugin that lets no test be skipped, seen from outside: a small suite of its own in another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SKIPS = {
    "mark": "import pytest\n@pytest.mark.skip(reason='later')\ndef test_it(): ...\n",
    "call": "import pytest\ndef test_it(): pytest.skip('later')\n",
    "fixture": "import pytest\n@pytest.fixture\ndef thing(): pytest.skip('later')\ndef test_it(thing): ...\n",
    "file": "import pytest\npytest.skip('later', allow_module_level=True)\n",
    "module": "import pytest\npytest.importorskip('nothing_of_that_name', reason='later')\n",
}
STAYS = "import pytest\ndef test_good(): ...\n@pytest.mark.xfail(strict=True)\ndef test_known(): assert False\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A folder with a file of tests for every way to be skipped, and one file of other outcomes."""
    for name, source in (*SKIPS.items(), ("stays", STAYS)):
        (tmp_path / f"test_{name}.py").write_text(source, encoding="utf-8")
    return tmp_path


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest there, outside this project's settings and without the plugins that are installed."""
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "--continue-on-collection-errors", *options, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_skip_is_a_failure(suite: Path) -> None:
    """Whatever way a test is skipped, it has failed, with the reason; other outcomes stay what they are."""
    result = run(suite, "-p", "tests.support.noskip")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.count("no test may be skipped here: later") >= len(SKIPS)
    assert "skipped in" not in result.stdout
    assert "1 failed, 1 passed, 1 xfailed, 4 errors" in result.stdout


def test_without_the_plugin_skips_pass(suite: Path) -> None:
    """The same suite is green by itself, so it is the plugin that refuses."""
    result = run(suite)
    assert result.returncode == pytest.ExitCode.OK
    assert "1 passed, 5 skipped, 1 xfailed" in result.stdout
