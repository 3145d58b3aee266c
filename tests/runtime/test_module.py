"""What a call brings along for its handler."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bonevalue.module import Caller, Context

CALLER = Caller("alice", "42", bytes(32), "aaaa-bbbb")


async def test_a_call_without_items_has_an_empty_stream_of_them() -> None:
    context = Context(CALLER, 0.0, "M")
    for _ in range(2):
        assert [item async for item in context.items] == []


def test_a_call_has_one_id_that_no_other_has() -> None:
    contexts = [Context(CALLER, 0.0, "M") for _ in range(100)]
    assert len({context.call_id for context in contexts}) == 100
    assert contexts[0].call_id == contexts[0].call_id


def test_log_lines_name_module_caller_and_call(caplog: pytest.LogCaptureFixture) -> None:
    context = Context(CALLER, 0.0, "Door.Bell")
    context.log.warning("it rings")
    assert context.log is context.log
    record: Any = caplog.records[0]
    found = (record.name, record.caller, record.peer, record.call_id)
    assert found == ("module.Door.Bell", "alice", "42", context.call_id)


@pytest.mark.parametrize("name", ["caller", "deadline", "module", "items", "call_id", "log", "time_left"])
def test_a_context_cannot_be_changed(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Context(CALLER, 0.0, "M"), name, None)


def test_time_left_counts_down_to_the_deadline() -> None:
    assert 99 < Context(CALLER, time.monotonic() + 100, "M").time_left <= 100
