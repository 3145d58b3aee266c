"""
A pytest plugin that turns every skipped test into a failed one.

``make test`` loads it with ``-p tests.support.noskip``: a suite that is green because half of it did not run says
nothing. Whoever runs ``pytest`` by hand may skip as usual. Tests marked ``xfail`` are left alone: they do run.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _refuse(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail"):
        # A skip's longrepr is (file, line, reason), told by its length from a traceback.
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"no test may be skipped here: {reason.removeprefix('Skipped: ')}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test, or its set-up, that was skipped has failed."""
    return _refuse((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """So has a file that skips itself as a whole."""
    return _refuse((yield))
