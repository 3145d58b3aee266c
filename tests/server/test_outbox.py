"""What waits for a client that reads slowly, and what is due after a while."""

from __future__ import annotations

from collections.abc import Iterator

from bonevalue_server.due import Due
from bonevalue_server.outbox import Outbox


def test_messages_come_out_in_order_and_lists_when_asked_for() -> None:
    outbox = Outbox(max_messages=10, max_bytes=100)
    made: list[int] = []

    def numbers() -> Iterator[str]:
        for number in range(3):
            made.append(number)
            yield str(number)

    outbox.put(b"first")
    outbox.put_all(numbers())
    outbox.put(b"last")
    assert outbox.take() == b"first" and made == []
    assert outbox.take() == b"0" and made == [0]
    assert [outbox.take() for _ in range(4)] == [b"1", b"2", b"last", None]
    assert not outbox


def test_a_list_does_not_count_but_what_waits_behind_it_does() -> None:
    outbox = Outbox(max_messages=2, max_bytes=10)
    outbox.put_all(iter(["x" * 1000] * 1000))
    assert not outbox.is_over
    outbox.put(b"a")
    outbox.put(b"b")
    assert not outbox.is_over
    outbox.put(b"c")
    assert outbox.is_over
    assert outbox.take() == b"x" * 1000
    assert outbox.is_over


def test_bytes_count() -> None:
    outbox = Outbox(max_messages=100, max_bytes=10)
    outbox.put(b"x" * 11)
    assert outbox.is_over
    outbox.take()
    assert not outbox.is_over
    outbox.put(b"y" * 11)
    outbox.drop()
    assert not outbox and not outbox.is_over


def test_things_are_due_in_the_order_they_came() -> None:
    due: Due[str] = Due(10.0)
    due.put("a", 0.0)
    due.put("b", 1.0)
    due.put("a", 2.0)  # once more: later
    due.put("c", 3.0)
    due.discard("c")
    due.discard("nobody")
    assert "c" not in due and len(due) == 2
    assert list(due.take(10.9)) == []
    assert list(due.take(12.0)) == ["b", "a"]


def test_more_may_come_and_go_while_the_due_are_taken() -> None:
    due: Due[str] = Due(1.0)
    for item in "abc":
        due.put(item, 0.0)
    taken = []
    for item in due.take(1.0):
        taken.append(item)
        due.discard("b")
        due.put("again", 1.0)
    assert taken == ["a", "c"] and len(due) == 1
