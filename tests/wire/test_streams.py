"""Streams of a link on a false clock: both directions, their ends, cancelling, deadlines, draining and closing."""

from __future__ import annotations

import random

import pytest

from bonevalue.errors import BadRequest, BoneValueError, Cancelled, Denied, LinkLost, RemoteProtocolError, TooLarge
from bonevalue.wire import frames
from bonevalue.wire.calls import LinkSettings, LinkState
from bonevalue.wire.events import (
    AnswerBegun,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallReceived,
    CallReturned,
    Drained,
    ItemsArrived,
)
from bonevalue.wire.frames import FLAG_STREAM, MAX_ITEM, FrameType
from bonevalue.wire.streams import IncomingItems, OutgoingItems
from tests.support.streams import Answer, Upload, answer, read_once, sent, take_all, upload
from tests.support.tables import MEBIBYTE, Pair, Side, joined

SIZES = [0, 1, 4096, 16 * 1024, MAX_ITEM]


def push(side: Side, stream: OutgoingItems, *items: bytes, raw: bool = True) -> None:
    for item in items:
        side.table.push_item(stream, item, raw)


def crossed(pair: Pair, items: IncomingItems, *, room: int = MEBIBYTE) -> list[bytes]:
    """Exchange, taking what arrives, until nothing comes any more."""
    found: list[bytes] = []
    while True:
        pair.exchange(room)
        batch = take_all(items)
        if not batch:
            return found
        found += [item for item, _ in batch]


# -- both directions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_items_of_any_size_go_both_ways_and_say_what_they_are(size: int, raw: bool) -> None:
    pair = joined()
    up = upload(pair, takes_stream=True)
    down = pair.theirs.table.begin(up.received, pair.now)
    pair.exchange()
    assert up.made.received is not None
    item = random.Random(size).randbytes(size)
    for side, stream in ((pair.ours, up.sending), (pair.theirs, down)):
        push(side, stream, item, b"small", item, raw=raw)
    for arriving in (up.arriving, up.made.received):
        found: list[tuple[bytes, bool]] = []
        while len(found) < 3:
            pair.exchange()
            found += take_all(arriving)
        assert found == [(item, raw), (b"small", raw), (item, raw)]
        assert not arriving.ended


def test_the_next_item_may_be_of_the_other_kind() -> None:
    pair = joined()
    stream = answer(pair)
    for number in range(6):
        pair.theirs.table.push_item(stream.sending, b"%d" % number, number % 2 == 1)
    pair.exchange()
    assert take_all(stream.arriving) == [(b"%d" % number, number % 2 == 1) for number in range(6)]


def test_an_item_that_is_too_long_is_refused_and_nothing_of_it_is_sent() -> None:
    pair = joined()
    stream = answer(pair)
    with pytest.raises(TooLarge, match=str(MAX_ITEM)):
        push(pair.theirs, stream.sending, bytes(MAX_ITEM + 1))
    assert pair.exchange() == 0 and pair.theirs.unsent == 0
    push(pair.theirs, stream.sending, bytes(MAX_ITEM))
    pair.exchange()
    assert [len(item) for item, _ in take_all(stream.arriving)] == [MAX_ITEM]


@pytest.mark.parametrize("size", [0, 4097, 200_000])
def test_items_follow_a_body_of_any_length_and_wait_for_it(size: int) -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"b" * size, True, 30, pair.now, items=True)
    assert made.items is not None
    push(pair.ours, made.items, b"first")
    kinds: list[FrameType] = []
    while batch := sent(pair.ours, 20_000, pair.now):
        if not made.items.ended:
            push(pair.ours, made.items, b"second")
            pair.ours.table.end_items(made)
        for message in batch:
            kinds += [frame.type for frame in message]
            wire = b"".join(frames.encode(each.type, each.call, bytes(each.payload), each.flags) for each in message)
            pair.theirs.table.receive(wire, pair.now)
    bodies = [index for index, kind in enumerate(kinds) if kind is FrameType.BODY]
    assert kinds[0] is FrameType.REQUEST and max(bodies, default=0) < kinds.index(FrameType.ITEM)
    received = pair.theirs.one(CallReceived)
    assert len(received.body) == size and received.items is not None
    assert [item for item, _ in take_all(received.items)] == [b"first", b"second"]
    assert received.items.ended


def test_streams_of_nothing() -> None:
    pair = joined()
    up = upload(pair, takes_stream=True)
    pair.ours.table.end_items(up.made)
    pair.theirs.table.begin(up.received, pair.now)
    pair.theirs.table.end(up.received)
    pair.exchange()
    assert up.made.received is not None
    for arriving in (up.arriving, up.made.received):
        assert arriving.ended and len(arriving) == 0
    assert pair.ours.table.active == pair.theirs.table.active == 0
    assert pair.ours.take(CallFailed) == [] and pair.theirs.take(CallCancelled) == []


def test_a_stream_goes_on_after_the_other_has_ended() -> None:
    pair = joined()
    up = upload(pair, takes_stream=True)
    down = pair.theirs.table.begin(up.received, pair.now)
    push(pair.ours, up.sending, b"only")
    pair.ours.table.end_items(up.made)
    pair.exchange()
    assert take_all(up.arriving) == [(b"only", True)] and up.arriving.ended
    push(pair.theirs, down, b"late")
    pair.exchange()
    assert up.made.received is not None and take_all(up.made.received) == [(b"late", True)]
    assert pair.ours.table.active == 1
    pair.theirs.table.end(up.received)
    pair.exchange()
    assert up.made.received.ended and pair.ours.table.active == pair.theirs.table.active == 0


def test_a_caller_that_takes_a_stream_takes_a_plain_answer_too() -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"1", False, 30, pair.now, takes_stream=True)
    pair.exchange()
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"plain", False, pair.now)
    pair.exchange()
    assert pair.ours.one(CallAnswered).body == b"plain" and made.received is None


def test_a_consumer_is_told_when_items_come_after_none_and_at_the_end() -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, b"1", b"2")
    pair.exchange()
    push(pair.theirs, stream.sending, b"3")
    pair.exchange()
    assert pair.ours.one(ItemsArrived).items is stream.arriving
    assert len(take_all(stream.arriving)) == 3
    push(pair.theirs, stream.sending, bytes(100_000))
    pair.exchange()
    assert pair.ours.one(ItemsArrived).items is stream.arriving
    pair.theirs.table.end(stream.received)
    pair.exchange()
    assert pair.ours.one(ItemsArrived).items.ended


# -- ends --------------------------------------------------------------------------------------------------------------


def test_an_error_comes_after_the_items_before_it() -> None:
    pair = joined()
    stream = answer(pair)
    read_once(pair, pair.theirs, stream)
    push(pair.theirs, stream.sending, bytes(MAX_ITEM), b"last")
    pair.theirs.table.fail(stream.received, Denied("enough", call_id="abc"), pair.now)
    pair.exchange()
    failed = pair.ours.one(CallFailed)
    assert failed.call is stream.made and failed.error.code == "denied" and failed.error.call_id == "abc"
    assert [len(item) for item, _ in take_all(stream.arriving)] == [MAX_ITEM, 4]
    assert pair.ours.table.active == pair.theirs.table.active == 0


def test_an_error_waits_for_the_credit_of_the_items_before_it() -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, *[bytes(MAX_ITEM)] * 4)
    pair.theirs.table.fail(stream.received, BadRequest("no more"), pair.now)
    found = []
    while not pair.ours.take(CallFailed):
        found += crossed(pair, stream.arriving)
    assert [len(item) for item in found] == [MAX_ITEM] * 4


def test_only_the_first_end_of_a_stream_counts() -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, b"1")
    pair.theirs.table.end(stream.received)
    pair.theirs.table.fail(stream.received, Denied("too late"), pair.now)
    pair.theirs.table.end(stream.received)
    push(pair.theirs, stream.sending, b"2")
    pair.exchange()
    assert take_all(stream.arriving) == [(b"1", True)] and stream.arriving.ended
    assert pair.ours.take(CallFailed) == []


def test_nothing_is_sent_after_the_end_of_the_request_stream() -> None:
    pair = joined()
    up = upload(pair)
    pair.ours.table.end_items(up.made)
    pair.ours.table.end_items(up.made)
    push(pair.ours, up.sending, b"late")
    assert pair.exchange() == 1
    assert up.arriving.ended and len(up.arriving) == 0


def test_the_answer_may_come_while_items_are_under_way_and_ends_them() -> None:
    pair = joined()
    up = upload(pair)
    push(pair.ours, up.sending, *[bytes(MAX_ITEM)] * 3)
    for message in pair.ours.table.data_to_send(50_000, pair.now):
        pair.theirs.table.receive(message, pair.now)
    pair.theirs.table.reply(up.received, b"seen enough", True, pair.now)
    pair.exchange(room=0)
    assert pair.ours.one(CallAnswered).body == b"seen enough"
    assert pair.exchange() == 0, "no rest of the item, no end"
    assert pair.ours.unsent == 0 and pair.ours.table.active == pair.theirs.table.active == 0
    push(pair.ours, up.sending, b"late")
    pair.ours.table.end_items(up.made)
    assert pair.exchange() == 0 and pair.ours.unsent == 0
    again = upload(pair)
    push(pair.ours, again.sending, bytes(MAX_ITEM))
    assert [len(item) for item in crossed(pair, again.arriving)] == [MAX_ITEM]


# -- cancelling --------------------------------------------------------------------------------------------------------


def in_the_middle(pair: Pair) -> Answer:
    """An answer whose second item has gone in part."""
    stream = answer(pair)
    read_once(pair, pair.theirs, stream)
    push(pair.theirs, stream.sending, b"whole", bytes(MAX_ITEM))
    for message in pair.theirs.table.data_to_send(50_000, pair.now):
        pair.ours.table.receive(message, pair.now)
    assert len(stream.arriving) == 1 and pair.theirs.table.has_bulk
    return stream


def test_the_caller_cancels_in_the_middle_of_an_item() -> None:
    pair = joined()
    stream = in_the_middle(pair)
    pair.ours.table.cancel(stream.made, pair.now)
    assert len(stream.arriving) == 0 and stream.arriving.ended, "nobody wants what had come"
    pair.exchange(room=0)
    cancelled = pair.theirs.one(CallCancelled)
    assert cancelled.call is stream.received and isinstance(cancelled.error, Cancelled)
    assert pair.exchange() == 0 and pair.theirs.unsent == 0
    push(pair.theirs, stream.sending, b"more")
    pair.theirs.table.end(stream.received)
    pair.theirs.table.fail(stream.received, Denied("late"), pair.now)
    assert pair.exchange() == 0 and pair.theirs.unsent == 0


def test_the_caller_cancels_while_its_own_item_is_under_way() -> None:
    pair = joined()
    up = upload(pair)
    read_once(pair, pair.ours, up)
    push(pair.ours, up.sending, b"whole", bytes(MAX_ITEM))
    for message in pair.ours.table.data_to_send(50_000, pair.now):
        pair.theirs.table.receive(message, pair.now)
    pair.ours.table.cancel(up.made, pair.now)
    assert [frame.type for message in sent(pair.ours, MEBIBYTE, pair.now) for frame in message] == [FrameType.CANCEL]
    pair.theirs.table.receive(frames.encode(FrameType.CANCEL, up.made.id), pair.now)
    assert pair.theirs.one(CallCancelled).call is up.received
    assert pair.ours.unsent == 0 and up.arriving.ended and len(up.arriving) == 0


def test_the_callee_fails_in_the_middle_of_an_item_only_by_the_deadline_of_nobody_taking() -> None:
    """An error of the handler waits for the item; what has come stays valid."""
    pair = joined()
    stream = in_the_middle(pair)
    pair.theirs.table.fail(stream.received, Denied("after it"), pair.now)
    pair.exchange()
    assert pair.ours.one(CallFailed).error.code == "denied"
    assert [len(item) for item, _ in take_all(stream.arriving)] == [5, MAX_ITEM]


def test_a_broken_off_item_is_not_delivered_but_those_before_it_are() -> None:
    pair = joined()
    stream = in_the_middle(pair)
    error = frames.encode_error(stream.made.id, frames.ErrorBody("handler_failed", "gone"))
    pair.ours.table.receive(error, pair.now)
    assert pair.ours.one(CallFailed).error.code == "handler_failed"
    assert take_all(stream.arriving) == [(b"whole", True)]


def test_an_answer_begun_for_a_call_that_has_gone_sends_nothing() -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"1", False, 30, pair.now, takes_stream=True)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    pair.ours.table.cancel(made, pair.now)
    pair.exchange()
    assert pair.theirs.one(CallCancelled).call is received
    stream = pair.theirs.table.begin(received, pair.now)
    push(pair.theirs, stream, b"1")
    pair.theirs.table.end(received)
    assert stream.ended and pair.exchange() == 0 and pair.theirs.unsent == 0
    pair.advance(1300)
    assert not pair.theirs.take(CallCancelled) and not pair.ours.take(CallFailed)


def test_items_of_a_call_that_waits_to_begin() -> None:
    pair = joined(theirs=LinkSettings(max_calls=1))
    first = pair.ours.table.call("M", b"1", False, 30, pair.now)
    waiting = pair.ours.table.call("M", b"2", False, 30, pair.now, items=True)
    assert waiting.items is not None
    push(pair.ours, waiting.items, b"a", bytes(300_000))
    pair.ours.table.end_items(waiting)
    pair.exchange()
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"1", False, pair.now)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    assert pair.ours.one(CallAnswered).call is first and received.items is not None
    assert [len(item) for item in crossed(pair, received.items)] == [1, 300_000] and received.items.ended
    assert pair.ours.unsent == 0


@pytest.mark.parametrize("end", ["cancelled", "returned", "expired", "closed"])
def test_items_of_a_call_that_never_begins_leave_nothing_behind(end: str) -> None:
    pair = joined(theirs=LinkSettings(max_calls=1))
    pair.ours.table.call("M", b"1", False, 60, pair.now)
    waiting = pair.ours.table.call("M", b"2", False, 30, pair.now, items=True)
    assert waiting.items is not None
    push(pair.ours, waiting.items, bytes(300_000))
    pair.exchange()
    match end:
        case "cancelled":
            pair.ours.table.cancel(waiting, pair.now)
        case "returned":
            pair.ours.table.goaway("idle", pair.now)
            assert pair.ours.one(CallReturned).call is waiting
        case "expired":
            pair.advance(31)
        case _:
            pair.ours.table.close()
    push(pair.ours, waiting.items, bytes(300_000))
    pair.ours.table.data_to_send(MEBIBYTE, pair.now)
    assert pair.ours.unsent == 0 and waiting.items.ended


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_a_stream_that_has_begun_has_no_deadline() -> None:
    pair = joined()
    stream = answer(pair, timeout=2)
    for hour in range(3):
        pair.advance(3600)
        push(pair.theirs, stream.sending, b"%d" % hour)
        pair.exchange()
        assert take_all(stream.arriving) == [(b"%d" % hour, True)]
    assert pair.ours.take(CallFailed) == [] and pair.theirs.take(CallCancelled) == []
    pair.theirs.table.end(stream.received)
    pair.exchange()
    assert stream.arriving.ended


def test_a_stream_that_does_not_begin_in_time_is_a_deadline_on_both_sides() -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"1", False, 2, pair.now, items=True, takes_stream=True)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    assert made.items is not None
    push(pair.ours, made.items, bytes(100_000))
    pair.advance(2.2)
    assert pair.ours.one(CallFailed).error.code == "deadline"
    assert pair.theirs.one(CallCancelled).call is received
    pair.theirs.table.begin(received, pair.now)
    pair.exchange()
    assert pair.ours.take(AnswerBegun) == [] and pair.ours.table.active == pair.theirs.table.active == 0


def test_a_begin_that_crosses_the_callers_deadline_is_cancelled() -> None:
    pair = joined()
    pair.ours.table.call("M", b"1", False, 2, pair.now, takes_stream=True)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    stream = pair.theirs.table.begin(received, pair.now)
    push(pair.theirs, stream, bytes(MAX_ITEM))
    pair.now += 2.1
    pair.ours.table.handle_timer(pair.now)
    assert pair.ours.one(CallFailed).error.code == "deadline"
    pair.exchange()
    assert pair.ours.take(AnswerBegun) == [] and pair.theirs.one(CallCancelled).error.code == "cancelled"
    assert stream.ended and pair.theirs.unsent == 0


def test_the_deadline_of_a_plain_answer_holds_while_items_are_sent() -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"1", False, 2, pair.now, items=True)
    pair.exchange()
    assert made.items is not None
    pair.theirs.one(CallReceived)
    push(pair.ours, made.items, *[bytes(MAX_ITEM)] * 5)
    pair.exchange()
    pair.advance(2.2)
    assert pair.ours.one(CallFailed).error.code == "deadline"
    assert made.items.ended and pair.ours.unsent == 0 and pair.exchange() == 0


def test_a_caller_that_takes_nothing_for_ten_minutes_is_slow() -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, *[bytes(MAX_ITEM)] * 3)
    pair.exchange()
    pair.advance(599)
    assert pair.theirs.take(CallCancelled) == []
    pair.advance(602)
    assert pair.theirs.one(CallCancelled).error.code == "slow"
    failed = pair.ours.one(CallFailed)
    assert failed.error.code == "slow" and "600 s" in failed.error.message
    assert [len(item) for item, _ in take_all(stream.arriving)] == [MAX_ITEM], "what had come stays valid"
    assert pair.theirs.table.active == pair.ours.table.active == pair.theirs.unsent == 0


@pytest.mark.parametrize("ended", [False, True])
def test_a_slow_caller_is_slow_even_if_the_handler_has_done_its_part(ended: bool) -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, *[bytes(MAX_ITEM)] * 3)
    if ended:
        pair.theirs.table.end(stream.received)
    pair.exchange()
    pair.advance(1201)
    assert pair.ours.one(CallFailed).error.code == "slow"
    assert len(pair.theirs.take(CallCancelled)) == (0 if ended else 1), "a handler that has returned is not cancelled"


@pytest.mark.parametrize("pause", [60, 250])
def test_a_slow_but_steady_reader_of_long_items_is_not_cut(pause: float) -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, *[bytes(200_000)] * 40)
    pair.theirs.table.end(stream.received)
    pair.exchange()
    for _ in range(40):
        pair.advance(pause)
        assert len(stream.arriving.take()[0]) == 200_000
        pair.exchange()
    assert stream.arriving.ended and pair.ours.take(CallFailed) == []


# -- draining and closing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_link_drains_after_its_streams_have_ended(who: str) -> None:
    pair = joined()
    up = upload(pair, takes_stream=True)
    down = pair.theirs.table.begin(up.received, pair.now)
    pair.exchange()
    (pair.ours if who == "caller" else pair.theirs).table.goaway("stopping", pair.now)
    pair.exchange()
    arriving = up.made.received
    assert arriving is not None
    push(pair.ours, up.sending, *[bytes(MAX_ITEM)] * 4)
    push(pair.theirs, down, *[bytes(MAX_ITEM)] * 4)
    pair.ours.table.end_items(up.made)
    found = [0, 0]
    for _ in range(10):
        found[0] += len(crossed(pair, up.arriving))
        found[1] += len(crossed(pair, arriving))
    assert found == [4, 4] and not pair.ours.take(Drained) and not pair.theirs.take(Drained)
    pair.theirs.table.end(up.received)
    pair.exchange()
    assert pair.ours.one(Drained) and pair.theirs.one(Drained)


def test_a_call_that_is_given_back_stops_its_items_which_are_passed_over() -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"1", False, 30, pair.now, items=True)
    assert made.items is not None
    push(pair.ours, made.items, *[bytes(100_000)] * 5)
    pair.theirs.table.goaway("stopping", pair.now)
    for message in pair.ours.table.data_to_send(200_000, pair.now):
        pair.theirs.table.receive(message, pair.now)
    pair.exchange()
    assert pair.ours.one(CallReturned).call is made and pair.theirs.take(CallReceived) == []
    assert made.items.ended and pair.ours.unsent == 0
    assert pair.ours.one(Drained) and pair.theirs.one(Drained)


@pytest.mark.parametrize("which", ["ours", "theirs"])
def test_closing_ends_streams_and_keeps_what_has_come(which: str) -> None:
    pair = joined()
    up = upload(pair)
    read_once(pair, pair.ours, up)
    stream = in_the_middle(pair)
    push(pair.ours, up.sending, b"whole", bytes(MAX_ITEM))
    for message in pair.ours.table.data_to_send(50_000, pair.now):
        pair.theirs.table.receive(message, pair.now)
    error = LinkLost("the cable")
    if which == "ours":
        pair.ours.table.close(error)
        assert {event.call for event in pair.ours.take(CallFailed)} == {stream.made, up.made}
        assert take_all(stream.arriving) == [(b"whole", True)]
        ended = [up.sending]
    else:
        pair.theirs.table.close(error)
        assert {event.call for event in pair.theirs.take(CallCancelled)} == {stream.received, up.received}
        assert up.arriving.ended and len(up.arriving) == 0
        ended = [stream.sending]
    side = pair.ours if which == "ours" else pair.theirs
    assert side.table.state is LinkState.CLOSED and side.unsent == 0
    for sending in ended:
        push(side, sending, b"late")
        assert sending.ended and sending.queued == 0
    assert side.unsent == 0 and side.table.data_to_send(MEBIBYTE, pair.now) == []


def test_items_of_a_closed_link_that_are_still_taken_send_nothing() -> None:
    pair = joined()
    stream = answer(pair)
    read_once(pair, pair.theirs, stream)
    push(pair.theirs, stream.sending, *[bytes(50_000)] * 8)
    pair.exchange()
    pair.ours.table.close()
    assert len(take_all(stream.arriving)) == 8
    stream.arriving.drop()
    assert pair.ours.table.data_to_send(MEBIBYTE, pair.now) == []


# -- the request stream that nobody wants ------------------------------------------------------------------------------


def dropped(pair: Pair, *, mid_item: bool) -> Upload:
    """A request stream that the handler has dropped, while its call goes on."""
    up = upload(pair)
    if mid_item:
        push(pair.ours, up.sending, bytes(MAX_ITEM))
        for message in pair.ours.table.data_to_send(50_000, pair.now):
            pair.theirs.table.receive(message, pair.now)
    up.arriving.drop()
    return up


@pytest.mark.parametrize("mid_item", [False, True])
def test_a_request_stream_may_be_dropped_while_its_call_goes_on(mid_item: bool) -> None:
    pair = joined()
    up = dropped(pair, mid_item=mid_item)
    push(pair.ours, up.sending, b"1", bytes(100_000))
    pair.ours.table.end_items(up.made)
    pair.exchange()
    assert len(up.arriving) == 0 and up.arriving.ended
    pair.theirs.table.reply(up.received, b"done", False, pair.now)
    pair.exchange()
    assert pair.ours.one(CallAnswered).body == b"done"


def test_what_was_dropped_does_not_use_up_the_link() -> None:
    pair = joined()
    for _ in range(40):
        up = dropped(pair, mid_item=True)
        push(pair.ours, up.sending, *[bytes(100_000)] * 20)
        pair.exchange()
        assert up.sending.queued > 0, "its own credit is not given back"
        pair.theirs.table.reply(up.received, b"1", False, pair.now)
        pair.exchange()
    last = upload(pair)
    push(pair.ours, last.sending, *[bytes(MAX_ITEM)] * 4)
    assert len(crossed(pair, last.arriving)) == 4


def test_a_dropped_stream_still_has_to_keep_to_its_credit() -> None:
    pair = joined()
    up = dropped(pair, mid_item=False)
    item = frames.item_head(up.made.id, MAX_ITEM, 0, 0)
    pair.theirs.table.receive(item, pair.now)
    with pytest.raises(RemoteProtocolError, match="credit of its stream"):
        pair.theirs.table.receive(item, pair.now)
        pair.theirs.table.receive(item, pair.now)


def test_an_answer_that_was_not_asked_for_cannot_be_made_by_a_caller_without_streams() -> None:
    pair = joined()
    pair.ours.table.call("M", b"1", False, 30, pair.now)
    pair.exchange()
    assert not pair.theirs.one(CallReceived).takes_stream
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        pair.ours.table.receive(frames.encode_response(1, 0, b"", FLAG_STREAM), pair.now)


@pytest.mark.parametrize("error", [Denied("\x01" * 1000), Denied("x", retry_after=10**400), Denied("é" * 4000)])
def test_whatever_ends_a_stream_can_be_sent(error: BoneValueError) -> None:
    pair = joined()
    stream = answer(pair)
    push(pair.theirs, stream.sending, bytes(16_000))
    pair.theirs.table.fail(stream.received, error, pair.now)
    messages = sent(pair.theirs, MEBIBYTE, pair.now)
    assert messages[-1][-1].type is FrameType.ERROR
    assert frames.decode_error(messages[-1][-1].payload).code == "denied"
