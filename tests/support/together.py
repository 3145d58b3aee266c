"""
Which tests share a worker when several run at once (``pytest -n``).

Tests of a file in ``tests/lab`` or ``tests/browser`` share networks, a browser and processes that take seconds to
build, and some walk through them in steps; each file of them goes to one worker, whole. All others go wherever there
is room. (The mark ``xdist_group`` would say the same, but pytest-xdist 3.8 does not heed it with pytest 9.2.)
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

__all__ = ["make_scheduler"]

WHOLE_FILES = ("tests/lab/", "tests/browser/")


def _unit_of(nodeid: str) -> str:
    return nodeid.partition("::")[0] if nodeid.startswith(WHOLE_FILES) else nodeid


def make_scheduler(config: pytest.Config, log: Any) -> object | None:
    """What deals the tests out, for ``pytest_xdist_make_scheduler``; None if another way is asked for (``--dist``)."""
    if config.getvalue("dist") != "load":
        return None
    scheduling = LoadScopeScheduling(config, log)
    scheduling._split_scope = _unit_of
    return scheduling  # type: ignore[no-any-return]
