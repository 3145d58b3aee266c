"""The limit that keeps one peer from filling the log."""

from __future__ import annotations

import pytest

from bonevalue.counters import Counters
from bonevalue.log_limit import MAX_KEYS, LogLimit


def test_ten_lines_a_second_for_each_key(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bonevalue.log_limit.time.monotonic", lambda: now)
    limit = LogLimit()
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
    monkeypatch.setattr("bonevalue.log_limit.time.monotonic", lambda: now)
    counters = Counters()
    limit = LogLimit(counters)
    for key in range(MAX_KEYS):
        assert limit.passes(key) == (True, 0)
    assert limit.passes("one too many") == (False, 0)
    assert limit.passes(0) == (True, 0)
    now = 101.0
    for key in range(MAX_KEYS, 3 * MAX_KEYS):
        assert limit.passes(key)[0] is (key < 2 * MAX_KEYS)
    assert len(limit._keys) == MAX_KEYS
    assert counters.log_lines_left_out == MAX_KEYS + 1
