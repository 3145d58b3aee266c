"""The credits of streams and links: what lies unread is bounded, and whoever reads gets everything."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.wire import frames
from bonevalue.wire.events import AnswerBegun, CallFailed, CallReceived, OutgoingCall
from bonevalue.wire.frames import MAX_ITEM
from bonevalue.wire.memory import MemoryBudget
from bonevalue.wire.streams import CREDIT_PIECE, ITEM_COST, LINK_PIECE, RESERVE, UNREAD, IncomingItems, OutgoingItems
from tests.support.streams import Item, Ledger, answer, sent, upload
from tests.support.tables import MEBIBYTE, Pair, Side, joined

STREAM = MEBIBYTE
LINK = 4 * MEBIBYTE
NO_MEMORY = MemoryBudget(0)


@dataclass
class Flow:
    """One stream and what has become of it."""

    call: int
    sender: Side
    sending: OutgoingItems
    arriving: IncomingItems
    ledger: Ledger
    pushed: list[Item] = field(default_factory=list)
    taken: list[Item] = field(default_factory=list)
    over: bool = False

    def push(self, size: int, raw: bool = True) -> None:
        """Send an item with content of its own."""
        if not self.over:
            item = (bytes([len(self.pushed) % 256]) * size, raw)
            self.pushed.append(item)
            self.sender.table.push_item(self.sending, *item)

    def take(self, most: int) -> None:
        """Take up to so many items."""
        for _ in range(min(most, len(self.arriving))):
            item = self.arriving.take()
            self.taken.append(item)
            self.ledger.taken(self.call, item)


class World:
    """Two tables, with an account of all credit in both directions."""

    def __init__(self, memory: MemoryBudget | None = None, *, uploads: int, answers: int) -> None:
        self.pair = joined(memory=memory)
        self.to_theirs = Ledger(STREAM, MEBIBYTE)
        self.to_ours = Ledger(STREAM, MEBIBYTE)
        self.flows: list[Flow] = []
        self.calls: dict[int, CallReceived] = {}
        self.made: dict[int, OutgoingCall] = {}
        for _ in range(uploads):
            up = upload(self.pair, takes_stream=True)
            self._know(up.made, up.received)
            self.flows.append(Flow(up.made.id, self.pair.ours, up.sending, up.arriving, self.to_theirs))
        for _ in range(answers):
            down = answer(self.pair)
            self._know(down.made, down.received)
            self.flows.append(Flow(down.made.id, self.pair.theirs, down.sending, down.arriving, self.to_ours))

    def _know(self, made: OutgoingCall, received: CallReceived) -> None:
        self.made[made.id], self.calls[made.id] = made, received

    def end(self, flow: Flow) -> None:
        """A stream has all its items."""
        if not flow.over:
            flow.over = True
            if flow.sender is self.pair.ours:
                self.pair.ours.table.end_items(self.made[flow.call])
            else:
                self.pair.theirs.table.end(self.calls[flow.call])

    def carry(self, room: int) -> bool:
        """Carry what each side sends now to the other, once; tells whether there was anything."""
        pair = self.pair
        ours, theirs = (side.table.data_to_send(room, pair.now) for side in (pair.ours, pair.theirs))
        for messages, items, credit, receiver in (
            (ours, self.to_theirs, self.to_ours, pair.theirs),
            (theirs, self.to_ours, self.to_theirs, pair.ours),
        ):
            for message in messages:
                assert 0 < len(message) <= frames.MAX_SENT_MESSAGE
                found = frames.decode(message)
                items.items_sent(found)
                credit.credit_sent(found)
                receiver.table.receive(message, pair.now)
            for ledger in (self.to_ours, self.to_theirs):
                assert ledger.most_of_one <= STREAM and ledger.most <= LINK
        return bool(ours or theirs)

    def settle(self, readers: list[Flow], room: int = 200_000) -> None:
        """Let everybody of `readers` read until nothing moves any more."""
        while True:
            before = sum(len(flow.taken) for flow in readers)
            while self.carry(room):
                pass
            for flow in readers:
                flow.take(1_000_000)
            if sum(len(flow.taken) for flow in readers) == before and not self.carry(room):
                return


sizes = st.sampled_from([0, 1, 100, 4096, 16_384, 16_385, 70_000, CREDIT_PIECE - ITEM_COST, 300_000, MAX_ITEM])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 4), st.lists(sizes, min_size=1, max_size=4)),
        st.tuples(st.just("take"), st.integers(0, 4), st.sampled_from([1, 2, 100])),
        st.tuples(st.just("carry"), st.sampled_from([0, 5_000, 100_000, MEBIBYTE]), st.integers(1, 4)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.booleans(), st.integers(1, 500_000))
def test_unread_items_keep_to_the_credit_and_everything_arrives(
    steps: list[tuple[str, int, object]], memory: bool, room: int
) -> None:
    world = World(None if memory else NO_MEMORY, uploads=3, answers=2)
    for what, index, detail in steps:
        match what, detail:
            case "push", list():
                for size in detail:
                    world.flows[index].push(size, raw=size % 2 == 0)
            case "take", int():
                world.flows[index].take(detail)
            case _, int():
                for _ in range(detail):
                    world.carry(index)
            case _:
                raise AssertionError(what)
    for flow in world.flows:
        world.end(flow)
    world.settle(world.flows, room)
    for flow in world.flows:
        assert flow.taken == flow.pushed and flow.arriving.ended
    for ledger in (world.to_ours, world.to_theirs):
        assert ledger.unread.total() == 0
        assert MEBIBYTE - CREDIT_PIECE < ledger.link <= LINK


@pytest.mark.parametrize("another", [False, True])
def test_items_of_any_length_go_while_credit_is_kept_back(another: bool) -> None:
    """As much as may be kept back is, and yet the longest item goes: of the same stream, or the first of another."""
    world = World(NO_MEMORY, uploads=0, answers=2)
    flow, other = world.flows
    for size in (0, CREDIT_PIECE - LINK_PIECE, LINK_PIECE - 2 * ITEM_COST - 1 - ITEM_COST):
        flow.push(size)
        world.settle([flow])
    flow.push(0)
    world.settle([flow])
    assert STREAM - world.to_ours.credit[flow.call] > CREDIT_PIECE - 1000
    assert MEBIBYTE - world.to_ours.link > LINK_PIECE - 1000
    longest = other if another else flow
    for _ in range(20):
        longest.push(MAX_ITEM)
    world.end(longest)
    world.settle([longest])
    assert longest.taken == longest.pushed and longest.arriving.ended


@pytest.mark.parametrize("size", [0, 1000, 60_000, 70_000, MAX_ITEM])
def test_a_stream_of_which_nothing_is_read_sends_its_first_item_or_64_kib(size: int) -> None:
    world = World(uploads=0, answers=1)
    (flow,) = world.flows
    for _ in range(2000):
        flow.push(size)
    while world.carry(MEBIBYTE):
        pass
    cost = size + ITEM_COST
    assert world.to_ours.unread[flow.call] == max(cost, UNREAD // cost * cost)
    flow.take(1)
    while world.carry(MEBIBYTE):
        pass
    assert world.to_ours.unread[flow.call] >= min(1999 * cost, STREAM // 3)


def test_two_streams_do_not_wait_for_each_others_credit_in_the_middle_of_an_item() -> None:
    world = World(NO_MEMORY, uploads=0, answers=4)
    for _ in range(5):
        for flow in world.flows:
            flow.push(MAX_ITEM)
    for flow in world.flows:
        world.end(flow)
    for _ in range(200):
        world.carry(1)
    world.settle(world.flows, room=1)
    assert all(flow.taken == flow.pushed and flow.arriving.ended for flow in world.flows)


@pytest.mark.parametrize(
    ("unread", "longest", "memory"), [(1, MAX_ITEM, True), (3, MAX_ITEM, True), (2, 65_536, False)]
)
@pytest.mark.parametrize("hungry_first", [False, True])
def test_streams_that_nobody_reads_do_not_stop_another(
    unread: int, longest: int, memory: bool, hungry_first: bool
) -> None:
    chance = random.Random(unread)
    world = World(None if memory else NO_MEMORY, uploads=0, answers=unread + 1)
    *stuck, read = reversed(world.flows) if hungry_first else world.flows
    for _ in range(100):
        for flow in stuck:
            flow.push(chance.choice([1, 1000, longest]))
    while world.carry(200_000):
        pass
    for _ in range(30):
        for size in (0, 1000, longest):
            read.push(size)
        world.settle([read])
    world.end(read)
    world.settle([read])
    assert read.taken == read.pushed and read.arriving.ended
    for flow in stuck:
        world.end(flow)
    world.settle(world.flows)
    assert all(flow.taken == flow.pushed and flow.arriving.ended for flow in world.flows)


@pytest.mark.parametrize("how", ["read", "cancelled"])
def test_a_link_used_up_by_many_streams_moves_on_when_some_of_them_do(how: str) -> None:
    world = World(NO_MEMORY, uploads=0, answers=20)
    for flow in world.flows:
        for _ in range(10):
            flow.push(MAX_ITEM // 8)
    while world.carry(MEBIBYTE):
        pass
    assert world.to_ours.link < RESERVE + MAX_ITEM // 8 + ITEM_COST, "nobody can move"
    some, others = world.flows[:10], world.flows[10:]
    before = sum(world.to_ours.unread[flow.call] for flow in others)
    for flow in some:
        if how == "read":
            flow.take(100)
        else:
            world.pair.ours.table.cancel(world.made[flow.call], world.pair.now)
            world.to_ours.dropped(flow.call)
    while world.carry(MEBIBYTE):
        pass
    assert sum(world.to_ours.unread[flow.call] for flow in others) > before
    readers = world.flows if how == "read" else others
    for flow in readers:
        world.end(flow)
    world.settle(readers)
    assert all(flow.taken == flow.pushed and flow.arriving.ended for flow in readers)


def test_few_frames_give_credit_back() -> None:
    world = World(uploads=0, answers=1)
    (flow,) = world.flows
    for _ in range(100):
        for _ in range(100):
            flow.push(1000)
        world.settle([flow])
    assert len(flow.taken) == 10_000
    cost = 10_000 * (1000 + ITEM_COST)
    assert world.to_ours.credits <= cost / CREDIT_PIECE + cost / LINK_PIECE + 4, "a first, and three by which it grew"


# -- the memory of the process -----------------------------------------------------------------------------------------


def fill(pair: Pair, streams: int) -> int:
    """Ours reads nothing of many streams; gives the bytes that lie there."""
    ledger = Ledger(STREAM, MEBIBYTE)
    for stream in [answer(pair) for _ in range(streams)]:
        for _ in range(100):
            pair.theirs.table.push_item(stream.sending, bytes(20_000), True)
    while True:
        there = [frame for message in out(pair.theirs, pair) for frame in message]
        back = [frame for message in out(pair.ours, pair) for frame in message]
        if not there and not back:
            return ledger.most
        ledger.items_sent(there)
        ledger.credit_sent(back)


def out(side: Side, pair: Pair) -> list[list[frames.Frame]]:
    other = pair.theirs if side is pair.ours else pair.ours
    messages = sent(side, 10 * MEBIBYTE, pair.now)
    for message in messages:
        for frame in message:
            other.table.receive(frames.encode(frame.type, frame.call, bytes(frame.payload), frame.flags), pair.now)
    return messages


def test_a_links_credit_grows_to_four_mebibytes_and_not_beyond() -> None:
    budget = MemoryBudget(64 * MEBIBYTE)
    pair = joined(memory=budget)
    most = fill(pair, 60)
    assert 3 * MEBIBYTE < most <= LINK
    assert budget.taken == 3 * MEBIBYTE, "what it has grown beyond the first"


def test_a_lone_stream_may_use_all_its_credit() -> None:
    world = World(uploads=0, answers=1)
    (flow,) = world.flows
    flow.push(0)
    world.settle([flow])
    for _ in range(200):
        flow.push(20_000)
    while world.carry(MEBIBYTE):
        pass
    assert STREAM - 20_000 - 2 * ITEM_COST < world.to_ours.unread[flow.call] <= STREAM


def test_a_links_credit_is_its_own_and_does_not_grow_where_there_is_no_memory() -> None:
    pair = joined(memory=NO_MEMORY)
    assert MEBIBYTE - RESERVE - 20_100 < fill(pair, 60) <= MEBIBYTE
    assert NO_MEMORY.taken == 0


def test_links_share_the_memory_and_give_it_back_at_their_end() -> None:
    budget = MemoryBudget(4 * MEBIBYTE)
    pairs = [joined(memory=budget) for _ in range(3)]
    most = [fill(pair, 40) for pair in pairs]
    assert most[0] > most[2] > MEBIBYTE - RESERVE - 20_100
    assert 2 * MEBIBYTE <= budget.taken <= 4 * MEBIBYTE
    assert pairs[0].ours.take(CallFailed) == []
    for pair in pairs:
        pair.ours.table.close()
        pair.ours.table.close()
    assert budget.taken == 0


def test_a_link_takes_no_more_than_is_left_for_all_others() -> None:
    budget = MemoryBudget(100)
    first, second, third = (budget.share(account) for account in (b"a", b"b", b"c"))
    assert not first.take(51) and first.take(50) and not first.take(1)
    assert not second.take(26) and second.take(25) and not second.take(1)
    assert third.take(12) and budget.taken == 87
    second.give(20)
    assert budget.taken == 67 and second.take(4)
    first.close()
    assert budget.taken == 21 and not first.take(1)
    first.give(50)
    first.close()
    assert budget.taken == 21 and second.take(30)


def test_what_credit_has_grown_by_leaves_room_for_bodies_and_comes_back() -> None:
    """Links on which streams were once read fast, and on which nothing is under way."""
    budget = MemoryBudget(16 * MEBIBYTE)
    worlds = [World(budget, uploads=0, answers=2) for _ in range(12)]
    for world in worlds:
        for _ in range(10):
            for flow in world.flows:
                for _ in range(10):
                    flow.push(100_000)
            world.settle(world.flows)
    assert 0 < budget.spare == budget.taken <= budget.limit // 2
    assert budget.share(b"another").take(budget.limit // 4)
    before = budget.spare
    for world in worlds[:6]:
        for _ in range(60):
            for flow in world.flows:
                flow.push(100_000)
                world.settle([flow])
    assert budget.spare < before, "what is not needed goes back as things are taken"
    for world in worlds:
        world.pair.ours.table.close()
        world.pair.theirs.table.close()
    assert budget.spare == 0


def test_the_links_of_one_account_count_together() -> None:
    budget = MemoryBudget(100)
    one, two, other = (budget.share(account) for account in (b"a", b"a", b"b"))
    assert one.take(30) and two.take(20) and not two.take(1) and not one.take(1)
    assert other.take(25)
    one.close()
    assert budget.taken == 45 and two.take(15) and not two.take(10)
    two.close()
    other.close()
    assert budget.taken == 0


def test_an_answer_that_grows_the_credit_of_nobody_else() -> None:
    """What one side receives is bounded by that side's memory, not by the other's."""
    ours, theirs = MemoryBudget(64 * MEBIBYTE), MemoryBudget(0)
    pair = joined(memory=ours, their_memory=theirs)
    fill(pair, 30)
    assert ours.taken == 3 * MEBIBYTE and theirs.taken == 0


def test_a_begun_answer_is_told_once() -> None:
    pair = joined()
    answer(pair)
    pair.exchange()
    assert pair.ours.take(AnswerBegun) == []
