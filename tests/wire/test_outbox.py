"""What a link sends, in which order, and in how long messages."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.errors import Denied
from bonevalue.wire import frames
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.events import CallAnswered, CallFailed, CallReceived
from bonevalue.wire.frames import MAX_ITEM, MAX_SENT_MESSAGE, Frame, FrameType
from tests.support.streams import answer, read_once, sent, take_all, upload
from tests.support.tables import MEBIBYTE, Pair, Side, joined

BULK = (FrameType.BODY, FrameType.ITEM, FrameType.PART)


def out(pair: Pair, side: Side, room: int) -> list[list[Frame]]:
    return sent(side, room, pair.now)


def bytes_by_call(messages: list[list[Frame]]) -> Counter[int]:
    found: Counter[int] = Counter()
    for message in messages:
        for frame in message:
            if frame.type in BULK:
                found[frame.call] += len(frame.payload) + frames.HEADER_SIZE
    return found


def test_two_streams_and_a_body_share_the_room() -> None:
    pair = joined()
    one, two = answer(pair), answer(pair)
    for stream in (one, two):
        read_once(pair, pair.theirs, stream)
    pair.ours.table.call("M", b"1", False, 30, pair.now)
    pair.exchange()
    plain = pair.theirs.one(CallReceived)
    for _ in range(100):
        pair.theirs.table.push_item(one.sending, bytes(4000), True)
    pair.theirs.table.push_item(two.sending, bytes(MAX_ITEM), True)
    pair.theirs.table.reply(plain, bytes(MEBIBYTE), True, pair.now)
    shares = bytes_by_call(out(pair, pair.theirs, 300_000))
    assert set(shares) == {one.made.id, two.made.id, plain.call}
    assert max(shares.values()) - min(shares.values()) <= 2 * MAX_SENT_MESSAGE
    assert 300_000 <= sum(shares.values()) <= 300_000 + MAX_SENT_MESSAGE


def test_one_of_many_waits_for_one_message_of_each_other() -> None:
    pair = joined()
    streams = [answer(pair) for _ in range(10)]
    for stream in streams[:-1]:
        pair.theirs.table.push_item(stream.sending, bytes(200_000), True)
    out(pair, pair.theirs, 100_000)
    pair.theirs.table.push_item(streams[-1].sending, b"late", True)
    calls = [frame.call for message in out(pair, pair.theirs, 10 * MAX_SENT_MESSAGE) for frame in message]
    assert streams[-1].made.id in calls


def test_a_body_is_not_held_up_by_streams_that_never_end() -> None:
    pair = joined(theirs=LinkSettings(max_body=MEBIBYTE))
    streams = [answer(pair) for _ in range(3)]
    pair.ours.table.call("M", bytes(MEBIBYTE), True, 30, pair.now)
    for _ in range(400):
        for stream in streams:
            if stream.sending.queued < 100_000:
                pair.theirs.table.push_item(stream.sending, bytes(50_000), True)
        pair.exchange(room=MAX_SENT_MESSAGE)
        for stream in streams:
            take_all(stream.arriving)
        for received in pair.theirs.take(CallReceived):
            pair.theirs.table.reply(received, bytes(MEBIBYTE), True, pair.now)
        if pair.ours.take(CallAnswered):
            break
    else:
        raise AssertionError("the body did not get through")


def test_small_frames_go_first() -> None:
    pair = joined()
    stream = answer(pair)
    pair.theirs.table.push_item(stream.sending, bytes(MAX_ITEM), True)
    out(pair, pair.theirs, 20_000)
    pair.theirs.table.call("M", b"small", False, 30, pair.now)
    pair.theirs.table.ping(pair.now)
    pair.theirs.table.hold(True)
    (first, *_) = out(pair, pair.theirs, 100_000)
    kinds = [frame.type for frame in first]
    assert kinds == [FrameType.REQUEST, FrameType.PING, FrameType.HOLD, FrameType.PART]


def test_without_room_only_small_frames_go() -> None:
    pair = joined()
    stream = answer(pair)
    pair.theirs.table.push_item(stream.sending, b"short", True)
    pair.theirs.table.end(stream.received)
    pair.theirs.table.call("M", b"small", False, 30, pair.now)
    assert [frame.type for message in out(pair, pair.theirs, 0) for frame in message] == [FrameType.REQUEST]
    assert pair.theirs.table.has_bulk and pair.theirs.table.active == 2
    rest = [frame.type for message in out(pair, pair.theirs, 1) for frame in message]
    assert rest == [FrameType.ITEM, FrameType.END]
    assert not pair.theirs.table.has_bulk and pair.theirs.table.active == 1


def test_small_items_share_a_message() -> None:
    pair = joined()
    stream = answer(pair)
    for number in range(500):
        pair.theirs.table.push_item(stream.sending, b"%d" % number, False)
    (message,) = out(pair, pair.theirs, MEBIBYTE)
    assert len(message) == 500


def test_what_cannot_move_is_not_bulk_that_waits_for_room() -> None:
    """Else whoever has room would ask again and again."""
    pair = joined(theirs=LinkSettings(max_body=MEBIBYTE, max_incomplete=MEBIBYTE))
    stream = answer(pair)
    for _ in range(3):
        pair.theirs.table.push_item(stream.sending, bytes(MAX_ITEM), True)
    pair.exchange()
    assert pair.theirs.unsent > MAX_ITEM and not pair.theirs.table.can_move
    for _ in range(2):
        pair.ours.table.call("M", bytes(MEBIBYTE), True, 30, pair.now)
    pair.exchange()
    assert pair.ours.table.has_bulk and not pair.ours.table.can_move
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"1", False, pair.now)
    for message in pair.theirs.table.data_to_send(0, pair.now):
        pair.ours.table.receive(message, pair.now)
    pair.exchange()
    assert pair.theirs.take(CallReceived)


bodies = st.sampled_from([0, 1, 100, 4096, 4097, 16_000, 16_370, 16_384, 40_000])
items = st.lists(st.integers(0, 16_400), max_size=6)
endings = st.sampled_from(["end", "short", "long", "never"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(items, endings), min_size=1, max_size=4), st.lists(bodies, max_size=4), st.integers(1, 60_000)
)
def test_no_message_is_too_long_or_empty_and_all_arrives(
    streams: list[tuple[list[int], str]], replies: list[int], room: int
) -> None:
    pair = joined()
    opened = [answer(pair) for _ in streams]
    for _ in replies:
        pair.ours.table.call("M", b"1", False, 30, pair.now)
    pair.exchange()
    for received, size in zip(pair.theirs.take(CallReceived), replies, strict=True):
        pair.theirs.table.reply(received, bytes(size), True, pair.now)
    for stream, (sizes, ending) in zip(opened, streams, strict=True):
        for size in sizes:
            pair.theirs.table.push_item(stream.sending, bytes(size), True)
        match ending:
            case "end":
                pair.theirs.table.end(stream.received)
            case "short" | "long":
                text = "no" if ending == "short" else "\x01" * 1000
                pair.theirs.table.fail(stream.received, Denied(text), pair.now)
            case _:
                pass
    while messages := out(pair, pair.theirs, room):
        for message in messages:
            for frame in message:
                again = frames.encode(frame.type, frame.call, bytes(frame.payload), frame.flags)
                pair.ours.table.receive(again, pair.now)
    assert sorted(len(event.body) for event in pair.ours.take(CallAnswered)) == sorted(replies)
    failed = {event.call for event in pair.ours.take(CallFailed)}
    for stream, (sizes, ending) in zip(opened, streams, strict=True):
        assert [len(body) for body, _ in take_all(stream.arriving)] == sizes
        assert stream.arriving.ended == (ending == "end")
        assert (stream.made in failed) == (ending in ("short", "long"))
    assert pair.theirs.unsent == 0


@pytest.mark.parametrize("length", range(0, 9000, 1500))
def test_a_long_error_at_the_end_of_a_stream_has_room_of_its_own(length: int) -> None:
    """Wherever in a message the items before it end."""
    pair = joined()
    up = upload(pair, takes_stream=True)
    down = pair.theirs.table.begin(up.received, pair.now)
    pair.theirs.table.push_item(down, bytes(16_384 - length), True)
    pair.theirs.table.fail(up.received, Denied('"\x7f\x01é' * 250, call_id="c" * 64), pair.now)
    messages = out(pair, pair.theirs, MEBIBYTE)
    assert [frame.type for message in messages for frame in message][-1] is FrameType.ERROR
