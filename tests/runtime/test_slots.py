"""Slots given to callers in turn: the queues, the rounds, the reserve, and who has to give way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.slots import FairSlots

callers = st.sampled_from("ABCD")
#: What is done with the slots; the number picks one of those who wait, or who have a slot.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("call"), callers, st.just(0)),
        st.tuples(st.just("end"), st.just(""), st.integers(0, 100)),
        st.tuples(st.just("cancel"), st.just(""), st.integers(0, 100)),
    ),
    max_size=120,
)


def full(size: int, most_waiting: int = 100) -> FairSlots[str]:
    """Slots of which each has been taken by another caller: ``0``, ``1`` and so on."""
    slots: FairSlots[str] = FairSlots(size, most_waiting=most_waiting)
    assert all(slots.take(str(number)) for number in range(size))
    return slots


def give_back(slots: FairSlots[str], caller: str) -> list[str]:
    """Give back a slot of ``caller``; gives who has got one."""
    slots.give_back(caller)
    return list(iter(slots.next_waiter, None))


def served_by_one(slots: FairSlots[str], count: int) -> list[str]:
    """Who has the only slot, one after the other; the first letter of a waiter is its caller."""
    served = ["0"]
    for _ in range(count):
        served += give_back(slots, served[-1][0])
    return served[1:]


def test_free_slots_go_to_whoever_comes_first() -> None:
    slots: FairSlots[str] = FairSlots(2, most_waiting=8)
    assert [slots.take(caller) for caller in "AAB"] == [True, True, False]
    assert give_back(slots, "A") == []
    assert slots.free == 1 and slots.take("A") and not slots.take("A")


def test_a_slot_goes_to_the_callers_in_turn() -> None:
    slots = full(1)
    for number in range(20):
        assert slots.wait("F", f"F{number}") is None
    for caller in "AB":
        for number in range(2):
            assert slots.wait(caller, f"{caller}{number}") is None
    assert served_by_one(slots, 8) == ["F0", "A0", "B0", "F1", "A1", "B1", "F2", "F3"]


def test_one_that_comes_back_stands_behind_those_who_wait() -> None:
    slots = full(1)
    for caller in "ABC":
        slots.wait(caller, caller)
    assert give_back(slots, "0") == ["A"]
    slots.wait("A", "A again")
    assert give_back(slots, "A") == ["B"]
    assert give_back(slots, "B") == ["C"]
    assert give_back(slots, "C") == ["A again"]
    assert give_back(slots, "A") == []
    assert slots.free == 1


def test_the_longest_queue_gives_way_to_a_shorter_one() -> None:
    slots = full(1, most_waiting=4)
    for number in range(4):
        assert slots.wait("F", f"F{number}") is None
    assert slots.wait("F", "F4") == "F4"
    assert slots.wait("A", "A0") == "F3"
    assert slots.wait("A", "A1") == "F2"
    assert slots.wait("A", "A2") == "A2"  # both have two
    assert slots.waiting == 4
    assert served_by_one(slots, 5) == ["F0", "A0", "F1", "A1"]


def test_one_that_leaves_makes_room_and_is_not_given_a_slot() -> None:
    slots = full(1, most_waiting=2)
    slots.wait("A", "A0")
    slots.wait("A", "A1")
    slots.leave("A", "A0")
    slots.leave("A", "A0")
    slots.leave("B", "nobody")
    assert slots.waiting == 1
    assert slots.wait("B", "B0") is None
    assert served_by_one(slots, 3) == ["A1", "B0"]


def test_with_no_room_at_all_nobody_waits() -> None:
    slots = full(1, most_waiting=0)
    assert slots.wait("A", "A0") == "A0"
    assert slots.waiting == 0 and give_back(slots, "0") == []


@pytest.mark.parametrize(("size", "most"), [(1, 1), (3, 3), (4, 3), (8, 7), (15, 14), (16, 14), (64, 56), (1000, 875)])
def test_one_caller_leaves_an_eighth_to_those_who_have_none(size: int, most: int) -> None:
    slots: FairSlots[str] = FairSlots(size, most_waiting=8)
    assert sum(slots.take("F") for _ in range(size)) == most
    assert [slots.take(str(number)) for number in range(size - most + 1)] == [True] * (size - most) + [False]


def test_a_slot_of_the_reserve_stays_free_while_those_who_have_some_wait() -> None:
    slots: FairSlots[str] = FairSlots(4, most_waiting=8)
    assert [slots.take(caller) for caller in "FFFAF"] == [True, True, True, True, False]
    slots.wait("F", "F0")
    slots.wait("A", "A0")
    slots.wait("B", "B0")
    assert give_back(slots, "F") == ["B0"]  # the others come first, but have slots
    assert give_back(slots, "F") == []
    assert slots.free == 1 and slots.waiting == 2
    assert slots.take("C")
    assert give_back(slots, "C") == []
    assert give_back(slots, "B") == ["F0"]
    assert give_back(slots, "A") == ["A0"]  # the last it had


def test_one_slot_given_back_may_serve_two() -> None:
    """Its caller has none any more, so that it may have the last one when the next in turn has had this."""
    slots: FairSlots[str] = FairSlots(4, most_waiting=8)
    assert [slots.take(caller) for caller in "FFA"] == [True] * 3
    slots.wait("F", "F0")
    slots.wait("A", "A0")
    assert give_back(slots, "A") == ["F0", "A0"]
    assert slots.free == 0


class Model:
    """The same with plain lists, looking at everything each time."""

    def __init__(self, size: int, most_waiting: int) -> None:
        self.slots: FairSlots[str] = FairSlots(size, most_waiting=most_waiting)
        self.size = size
        self.most_waiting = most_waiting
        self.running: list[str] = []
        #: In the order of their turns.
        self.queues: list[tuple[str, list[str]]] = []

    @property
    def waiting(self) -> list[str]:
        return [waiter for _, queue in self.queues for waiter in queue]

    def queue_of(self, caller: str) -> list[str]:
        return next((queue for name, queue in self.queues if name == caller), [])

    @property
    def holders(self) -> list[str]:
        """The caller of each slot that is taken."""
        return [waiter[0] for waiter in self.running]

    def may_have_one(self, caller: str) -> bool:
        reserve = 0 if self.size < 4 or caller not in self.holders else max(1, self.size // 8)
        return self.size - len(self.running) > reserve

    def call(self, caller: str, waiter: str) -> None:
        has_room = self.may_have_one(caller)
        assert self.slots.take(caller) is has_room
        if has_room:
            self.running.append(waiter)
            return
        is_full = len(self.waiting) >= self.most_waiting
        longest = max((len(queue) for _, queue in self.queues), default=0)
        evicted = self.slots.wait(caller, waiter)
        if not is_full:
            assert evicted is None
        elif len(self.queue_of(caller)) >= longest:
            assert evicted == waiter
            return
        else:
            # Which of several that are equally long is left open.
            assert evicted in [queue[-1] for _, queue in self.queues if len(queue) == longest]
            self.remove(evicted)
        if queue := self.queue_of(caller):
            queue.append(waiter)
        else:
            self.queues.append((caller, [waiter]))

    def remove(self, waiter: str | None) -> None:
        for _, queue in self.queues:
            if waiter in queue:
                queue.remove(waiter)
        self.queues = [(caller, queue) for caller, queue in self.queues if queue]

    def end(self, index: int) -> None:
        if not self.running:
            return
        caller = self.running.pop(index % len(self.running))[0]
        expected: list[str] = []
        while (following := next((each for each in self.queues if self.may_have_one(each[0])), None)) is not None:
            self.queues.remove(following)
            self.running.append(following[1].pop(0))
            expected.append(self.running[-1])
            if following[1]:
                self.queues.append(following)
        assert give_back(self.slots, caller) == expected

    def cancel(self, index: int) -> None:
        if not self.queues:
            return
        waiter = self.waiting[index % len(self.waiting)]
        caller = next(name for name, queue in self.queues if waiter in queue)
        self.slots.leave(caller, waiter)
        self.remove(waiter)

    def check(self) -> None:
        assert self.slots.free == self.size - len(self.running)
        assert self.slots.waiting == len(self.waiting) <= self.most_waiting
        assert not any(self.may_have_one(caller) for caller, _ in self.queues)
        assert self.slots.free or len(set(self.holders)) > self.slots.reserve


@given(steps, st.sampled_from([1, 2, 3, 4, 8, 16, 17]), st.integers(0, 6))
def test_slots_do_what_a_simple_model_does(done: list[tuple[str, str, int]], size: int, most_waiting: int) -> None:
    model = Model(size, most_waiting)
    number = count()
    for step, caller, index in done:
        if step == "call":
            model.call(caller, f"{caller}{next(number)}")
        else:
            act: Callable[[int], None] = model.end if step == "end" else model.cancel
            act(index)
        model.check()
    while model.running:
        model.end(0)
        model.check()
    assert model.slots.free == size and not model.waiting
    assert sum(model.slots.take("A") for _ in range(size)) == size - model.slots.reserve  # nobody counts as a holder


@given(st.dictionaries(callers, st.integers(1, 30), min_size=1), st.data())
def test_a_round_has_each_caller_once_however_much_one_wants(wanted: dict[str, int], data: st.DataObject) -> None:
    slots = full(1, most_waiting=200)
    arrivals = data.draw(st.permutations([caller for caller, calls in wanted.items() for _ in range(calls)]))
    for number, caller in enumerate(arrivals):
        slots.wait(caller, f"{caller}{number}")
    served = [waiter[0] for waiter in served_by_one(slots, len(arrivals))]
    left = dict(wanted)
    while left:
        assert set(served[: len(left)]) == set(left)
        del served[: len(left)]
        left = {caller: calls - 1 for caller, calls in left.items() if calls > 1}
    assert served == []
