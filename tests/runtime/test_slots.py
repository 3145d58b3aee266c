"""Slots given to callers in turn: the queues, the rounds, and who has to give way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

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


def test_free_slots_go_to_whoever_comes_first() -> None:
    slots: FairSlots[str] = FairSlots(2, most_waiting=8)
    assert [slots.take() for _ in range(3)] == [True, True, False]
    assert slots.give_back() is None
    assert slots.free == 1 and slots.take() and not slots.take()


def test_a_slot_goes_to_the_callers_in_turn() -> None:
    slots: FairSlots[str] = FairSlots(1, most_waiting=100)
    assert slots.take()
    for number in range(20):
        assert slots.wait("flood", f"f{number}") is None
    for caller in ("A", "B"):
        for number in range(2):
            assert slots.wait(caller, f"{caller}{number}") is None
    assert [slots.give_back() for _ in range(8)] == ["f0", "A0", "B0", "f1", "A1", "B1", "f2", "f3"]


def test_one_that_comes_back_stands_behind_those_who_wait() -> None:
    slots: FairSlots[str] = FairSlots(1, most_waiting=100)
    assert slots.take()
    for caller in ("A", "B", "C"):
        slots.wait(caller, caller)
    assert slots.give_back() == "A"
    slots.wait("A", "A again")
    assert [slots.give_back() for _ in range(4)] == ["B", "C", "A again", None]
    assert slots.free == 1


def test_the_longest_queue_gives_way_to_a_shorter_one() -> None:
    slots: FairSlots[str] = FairSlots(1, most_waiting=4)
    assert slots.take()
    for number in range(4):
        assert slots.wait("flood", f"f{number}") is None
    assert slots.wait("flood", "f4") == "f4"
    assert slots.wait("A", "a0") == "f3"
    assert slots.wait("A", "a1") == "f2"
    assert slots.wait("A", "a2") == "a2"  # both have two
    assert slots.waiting == 4
    assert [slots.give_back() for _ in range(5)] == ["f0", "a0", "f1", "a1", None]


def test_one_that_leaves_makes_room_and_is_not_given_a_slot() -> None:
    slots: FairSlots[str] = FairSlots(1, most_waiting=2)
    assert slots.take()
    slots.wait("A", "a0")
    slots.wait("A", "a1")
    slots.leave("A", "a0")
    slots.leave("A", "a0")
    slots.leave("B", "nobody")
    assert slots.waiting == 1
    assert slots.wait("B", "b0") is None
    assert [slots.give_back() for _ in range(3)] == ["a1", "b0", None]


def test_with_no_room_at_all_nobody_waits() -> None:
    slots: FairSlots[str] = FairSlots(1, most_waiting=0)
    assert slots.take()
    assert slots.wait("A", "a0") == "a0"
    assert slots.waiting == 0 and slots.give_back() is None


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

    def call(self, caller: str, waiter: str) -> None:
        has_room = len(self.running) < self.size
        assert self.slots.take() is has_room
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
        del self.running[index % len(self.running)]
        following = self.slots.give_back()
        if not self.queues:
            assert following is None
            return
        caller, queue = self.queues.pop(0)
        self.running.append(queue.pop(0))
        assert following == self.running[-1]
        if queue:
            self.queues.append((caller, queue))

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
        assert not (self.slots.free and self.slots.waiting)


@given(steps, st.integers(1, 3), st.integers(0, 6))
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


@given(st.dictionaries(callers, st.integers(1, 30), min_size=1), st.data())
def test_a_round_has_each_caller_once_however_much_one_wants(wanted: dict[str, int], data: st.DataObject) -> None:
    slots: FairSlots[tuple[str, int]] = FairSlots(1, most_waiting=200)
    assert slots.take()
    arrivals = data.draw(st.permutations([caller for caller, calls in wanted.items() for _ in range(calls)]))
    for number, caller in enumerate(arrivals):
        slots.wait(caller, (caller, number))
    left = dict(wanted)
    while slots.waiting:
        a_round = {caller for caller, calls in left.items() if calls}
        served = [slots.give_back() for _ in a_round]
        assert {waiter[0] for waiter in served if waiter is not None} == a_round
        for caller in a_round:
            left[caller] -= 1
