"""Frames of streams at the wrong time or of the wrong kind: protocol errors, or passed over (docs/protocol.md)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.errors import Denied, IdentityMismatch, RemoteProtocolError
from bonevalue.wire import frames
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.events import CallAnswered, CallFailed, CallReceived, ItemsArrived
from bonevalue.wire.frames import (
    FLAG_RAW,
    FLAG_STREAM,
    FLAG_TAKES_STREAM,
    MAX_CREDIT,
    MAX_ITEM,
    ErrorBody,
    FrameType,
)
from bonevalue.wire.streams import ITEM_COST
from tests.support.streams import answer, sent, take_all, upload
from tests.support.tables import MEBIBYTE, FakeProof, Pair, joined

BOTH = FLAG_STREAM | FLAG_TAKES_STREAM


def request(number: int, flags: int = 0, *, length: int = 0, first: bytes = b"") -> bytes:
    return frames.encode_request(number, b"M", 30, length, first, flags)


def item(call: int, length: int, first: bytes = b"", flags: int = 0) -> bytes:
    return frames.item_head(call, length, len(first), flags) + first


def part(call: int, data: bytes) -> bytes:
    return frames.encode(FrameType.PART, call, data)


def end(call: int) -> bytes:
    return frames.encode(FrameType.END, call)


STREAM = request(1, FLAG_STREAM | FLAG_RAW)

# -- to the callee -----------------------------------------------------------------------------------------------------

BREAKING = {
    "item of a call that was never made": [item(1, 0)],
    "part of a call that was never made": [part(1, b"x")],
    "end of a call that was never made": [end(1)],
    "credit for a call that was never made": [frames.encode_credit(1, 1)],
    "item of a call that only the callee can make": [item(2, 0)],
    "credit for a call that only the callee can make": [frames.encode_credit(2, 1)],
    "item on the link": [item(0, 0)],
    "part on the link": [part(0, b"x")],
    "end on the link": [end(0)],
    "item after a request without a stream": [request(1, FLAG_TAKES_STREAM), item(1, 0)],
    "part after a request without a stream": [request(1), part(1, b"x")],
    "end after a request without a stream": [request(1), end(1)],
    "credit before the answer": [request(1, BOTH), frames.encode_credit(1, 1)],
    "item before the body": [request(1, FLAG_STREAM, length=5, first=b"1"), item(1, 0)],
    "end before the body": [request(1, FLAG_STREAM, length=5), end(1)],
    "part before any item": [STREAM, part(1, b"x")],
    "part after a whole item": [STREAM, item(1, 1, b"x"), part(1, b"x")],
    "part beyond the item": [STREAM, item(1, 3, b"x"), part(1, b"xxx")],
    "part of nothing": [STREAM, item(1, 3, b"x"), part(1, b"")],
    "item in the middle of another": [STREAM, item(1, 3, b"x"), item(1, 0)],
    "end in the middle of an item": [STREAM, item(1, 3, b"x"), end(1)],
    "item after the end": [STREAM, end(1), item(1, 0)],
    "part after the end": [STREAM, end(1), part(1, b"x")],
    "a second end": [STREAM, end(1), end(1)],
    "body of a call that has none under way": [STREAM, item(1, 3), frames.encode(FrameType.BODY, 1, b"xxx")],
    "item that is too short for its length": [STREAM, frames.encode(FrameType.ITEM, 1, b"xxx")],
    "item that holds more than it declares": [STREAM, item(1, 2, b"xxx")],
    "item that is too long": [STREAM, item(1, MAX_ITEM + 1)],
    "item with a flag that it has not": [STREAM, item(1, 0, flags=FLAG_STREAM)],
    "part with a flag": [STREAM, item(1, 1), frames.encode(FrameType.PART, 1, b"x", FLAG_RAW)],
    "end with a flag": [STREAM, frames.encode(FrameType.END, 1, b"", FLAG_RAW)],
    "end with a payload": [STREAM, frames.encode(FrameType.END, 1, b"x")],
    "credit with a flag": [frames.encode(FrameType.CREDIT, 0, b"\0\0\0\1", FLAG_RAW)],
    "credit of nothing": [frames.encode_credit(0, 0)],
    "credit of the wrong length": [frames.encode(FrameType.CREDIT, 0, b"\0\0\1")],
    "credit of the link beyond the most": [frames.encode_credit(0, MAX_CREDIT)],
    "request with an unknown flag": [request(1, 0x08)],
    "answer to a call of the callee's own": [frames.encode_response(2, 0, b"", FLAG_STREAM)],
}


@pytest.mark.parametrize("messages", BREAKING.values(), ids=BREAKING.keys())
def test_what_breaks_the_rules_of_streams_is_a_protocol_error(messages: list[bytes]) -> None:
    pair = joined()
    *before, last = messages
    for message in before:
        pair.theirs.table.receive(message, pair.now)
    with pytest.raises(RemoteProtocolError):
        pair.theirs.table.receive(last, pair.now)


@pytest.mark.parametrize("limit", ["stream", "link"])
def test_an_item_beyond_the_credit_is_a_protocol_error(limit: str) -> None:
    pair = joined(
        theirs=LinkSettings(stream_credit=3 * MEBIBYTE if limit == "link" else MEBIBYTE, link_credit=MEBIBYTE)
    )
    table = pair.theirs.table
    size = MEBIBYTE // 4 - ITEM_COST
    table.receive(STREAM, pair.now)
    for _ in range(4):
        whole_item(pair, 1, size)
    with pytest.raises(RemoteProtocolError, match=f"beyond the credit of (its|the) {limit}"):
        table.receive(item(1, 0), pair.now)


def whole_item(pair: Pair, call: int, length: int) -> None:
    """Theirs gets an item in as many frames as it takes."""
    pair.theirs.table.receive(item(call, length), pair.now)
    while length:
        size = min(length, 60_000)
        pair.theirs.table.receive(part(call, bytes(size)), pair.now)
        length -= size


def test_an_item_is_charged_whole_when_it_begins() -> None:
    pair = joined()
    pair.theirs.table.receive(STREAM + item(1, MAX_ITEM), pair.now)
    pair.theirs.table.receive(request(3, FLAG_STREAM) + item(3, MEBIBYTE - MAX_ITEM - 2 * ITEM_COST - 1), pair.now)
    grown = joined(theirs=LinkSettings(link_credit=MEBIBYTE))
    grown.theirs.table.receive(STREAM + item(1, MAX_ITEM), grown.now)
    grown.theirs.table.receive(request(3, FLAG_STREAM), grown.now)
    with pytest.raises(RemoteProtocolError, match="credit of the link"):
        grown.theirs.table.receive(item(3, MEBIBYTE - MAX_ITEM - 2 * ITEM_COST + 1), grown.now)


@pytest.mark.parametrize("flags", [0, FLAG_STREAM, FLAG_TAKES_STREAM, BOTH])
def test_items_of_a_call_that_has_ended_are_passed_over(flags: int) -> None:
    pair = joined()
    table = pair.theirs.table
    table.receive(request(1, flags), pair.now)
    received = pair.theirs.one(CallReceived)
    table.reply(received, b"1", False, pair.now)
    for late in (item(1, 10, b"x"), part(1, b"y"), end(1), frames.encode_credit(1, 5), part(1, b"z"), item(1, 0)):
        table.receive(late, pair.now)
    assert table.active == 0
    for arrived in pair.theirs.take(ItemsArrived):
        assert arrived.items.ended and len(arrived.items) == 0


@pytest.mark.parametrize("refused", ["busy", "too_large"])
def test_items_of_a_call_that_was_refused_are_passed_over(refused: str) -> None:
    pair = joined(theirs=LinkSettings(max_calls=1, max_body=1000))
    table = pair.theirs.table
    if refused == "busy":
        table.receive(request(1), pair.now)
        table.receive(request(3, FLAG_STREAM), pair.now)
    else:
        table.receive(request(3, FLAG_STREAM, length=1001), pair.now)
    for late in (item(3, 10, b"x"), part(3, b"y"), end(3), frames.encode_credit(3, 5)):
        table.receive(late, pair.now)
    (error,) = [frame for message in sent(pair.theirs, 0, pair.now) for frame in message]
    assert frames.decode_error(error.payload).code == refused


def test_items_of_a_call_that_came_after_goaway_are_passed_over() -> None:
    pair = joined()
    pair.theirs.table.goaway("stopping", pair.now)
    for late in (request(1, FLAG_STREAM), item(1, 10, b"x"), part(1, b"y"), end(1), frames.encode_credit(1, 5)):
        pair.theirs.table.receive(late, pair.now)
    assert pair.theirs.take(CallReceived) == [] and pair.theirs.take(ItemsArrived) == []


@pytest.mark.parametrize("gone", ["ended", "refused", "not accepted", "dropped"])
def test_items_that_nobody_takes_use_the_links_credit_and_get_it_back(gone: str) -> None:
    pair = joined(theirs=LinkSettings(link_credit=MEBIBYTE, stream_credit=8 * MEBIBYTE, max_calls=1))
    table = pair.theirs.table
    if gone == "not accepted":
        table.goaway("stopping", pair.now)
    if gone == "refused":
        table.receive(request(1), pair.now)
    table.receive(request(3, FLAG_STREAM), pair.now)
    if gone == "ended":
        table.reply(pair.theirs.one(CallReceived), b"1", False, pair.now)
    if gone == "dropped":
        items = pair.theirs.one(CallReceived).items
        assert items is not None
        items.drop()
    table.data_to_send(0, pair.now)
    left = MEBIBYTE
    for _ in range(40):
        left -= 100_000 + ITEM_COST
        assert left >= 0, "what is dropped is given back at once"
        table.receive(item(3, 100_000, bytes(60_000)), pair.now)
        table.receive(part(3, bytes(40_000)), pair.now)
        for frame in (frame for message in sent(pair.theirs, 0, pair.now) for frame in message):
            assert frame.type is FrameType.CREDIT and frame.call == 0
            left += frames.decode_credit(frame.payload)
    assert MEBIBYTE - 2**18 < left <= MEBIBYTE


# -- to the caller -----------------------------------------------------------------------------------------------------

BEGUN = frames.encode_response(1, 0, b"", FLAG_STREAM)

BREAKING_ANSWERS = {
    "item before the response": [item(1, 0)],
    "end before the response": [end(1)],
    "part before the response": [part(1, b"x")],
    "item in place of a body": [frames.encode_response(1, 10, b"x"), item(1, 0)],
    "end of a plain response": [frames.encode_response(1, 10, b"x"), end(1)],
    "stream with a length": [frames.encode_response(1, 3, b"", FLAG_STREAM)],
    "stream with a body": [frames.encode_response(1, 3, b"xxx", FLAG_STREAM)],
    "stream that is raw": [frames.encode_response(1, 0, b"", FLAG_STREAM | FLAG_RAW)],
    "stream that was not asked for": [frames.encode_response(3, 0, b"", FLAG_STREAM)],
    "a second response after a stream": [BEGUN, frames.encode_response(1, 1, b"1")],
    "a second stream": [BEGUN, BEGUN],
    "a stream after a response": [frames.encode_response(1, 10, b"x"), BEGUN],
    "body of a stream": [BEGUN, frames.encode(FrameType.BODY, 1, b"x")],
    "response with an unknown flag": [frames.encode_response(1, 1, b"1", FLAG_TAKES_STREAM)],
    "part before any item": [BEGUN, part(1, b"x")],
    "item in the middle of another": [BEGUN, item(1, 3, b"x"), item(1, 0)],
    "end in the middle of an item": [BEGUN, item(1, 3, b"x"), end(1)],
    "item beyond the credit": [BEGUN, *[item(1, MAX_ITEM)] * 2],
    "credit for a request without items": [frames.encode_credit(1, 1)],
    "credit for a call that was never made": [frames.encode_credit(7, 1)],
    "credit for items beyond the most": [frames.encode_credit(5, MAX_CREDIT)],
    "item of a call that was never made": [item(7, 0)],
    "cancel of our own call": [BEGUN, frames.encode(FrameType.CANCEL, 1)],
}


@pytest.mark.parametrize("messages", BREAKING_ANSWERS.values(), ids=BREAKING_ANSWERS.keys())
def test_an_answer_that_breaks_the_rules_is_a_protocol_error(messages: list[bytes]) -> None:
    """Call 1 takes a stream, call 3 does not, call 5 sends one."""
    pair = joined()
    pair.ours.table.call("M", b"", True, 30, pair.now, takes_stream=True)
    pair.ours.table.call("M", b"", True, 30, pair.now)
    pair.ours.table.call("M", b"", True, 30, pair.now, items=True)
    *before, last = messages
    for message in before:
        pair.ours.table.receive(message, pair.now)
    with pytest.raises(RemoteProtocolError):
        pair.ours.table.receive(last, pair.now)


@pytest.mark.parametrize("how", ["end", "error", "cancel", "deadline"])
def test_what_comes_after_the_end_of_an_answer_is_passed_over(how: str) -> None:
    pair = joined()
    made = pair.ours.table.call("M", b"", True, 2, pair.now, items=True, takes_stream=True)
    table = pair.ours.table
    if how != "deadline":
        table.receive(BEGUN, pair.now)
    match how:
        case "end":
            table.receive(end(1), pair.now)
        case "error":
            table.receive(item(1, 10, b"x") + frames.encode_error(1, ErrorBody("denied")), pair.now)
            assert pair.ours.one(CallFailed).error.code == "denied"
        case "cancel":
            table.cancel(made, pair.now)
        case _:
            table.handle_timer(pair.now + 3)
    pair.ours.take(ItemsArrived)
    late = [BEGUN, item(1, 10, b"x"), part(1, b"yyyyyyyyy"), end(1), frames.encode_credit(1, 5), item(1, 0)]
    for message in [*late, frames.encode_error(1, ErrorBody("busy")), frames.encode_response(1, 1, b"1")]:
        table.receive(message, pair.now)
    assert not pair.ours.take(ItemsArrived) and not pair.ours.take(CallAnswered)


@pytest.mark.parametrize("how", ["error", "cancel", "taken"])
def test_an_item_that_breaks_off_gives_the_links_credit_back(how: str) -> None:
    pair = joined(ours=LinkSettings(link_credit=MEBIBYTE))
    table = pair.ours.table
    for number in range(1, 41, 2):
        made = table.call("M", b"", True, 30, pair.now, takes_stream=True)
        table.receive(frames.encode_response(number, 0, b"", FLAG_STREAM), pair.now)
        table.receive(item(number, 5, b"whole") + item(number, MAX_ITEM, b"in part"), pair.now)
        assert made.received is not None
        if how == "cancel":
            table.cancel(made, pair.now)
        else:
            table.receive(frames.encode_error(number, ErrorBody("handler_failed")), pair.now)
            assert how == "error" or take_all(made.received) == [(b"whole", False)]
    assert table.active == 0


def test_credit_that_crosses_the_end_of_a_stream_is_no_error() -> None:
    pair = joined()
    up = upload(pair, takes_stream=True)
    down = pair.theirs.table.begin(up.received, pair.now)
    pair.ours.table.end_items(up.made)
    pair.theirs.table.push_item(down, b"1", False)
    pair.exchange()
    pair.ours.table.receive(frames.encode_credit(1, 1000), pair.now)
    pair.theirs.table.receive(frames.encode_credit(1, 1000), pair.now)
    pair.theirs.table.end(up.received)
    pair.theirs.table.receive(frames.encode_credit(1, 1000), pair.now)
    assert pair.exchange() > 0
    pair.theirs.table.receive(frames.encode_credit(1, 1000), pair.now)
    assert up.made.received is not None and take_all(up.made.received) == [(b"1", False)]
    assert pair.ours.unsent == pair.theirs.unsent == 0


def test_credit_may_come_up_to_the_most_and_no_further() -> None:
    pair = joined()
    stream = answer(pair)
    table = pair.theirs.table
    table.receive(frames.encode_credit(1, MAX_CREDIT - MEBIBYTE), pair.now)
    table.receive(frames.encode_credit(0, MAX_CREDIT - MEBIBYTE), pair.now)
    table.push_item(stream.sending, bytes(1000), True)
    table.data_to_send(MEBIBYTE, pair.now)
    for call in (0, 1):
        table.receive(frames.encode_credit(call, 1064), pair.now)
        with pytest.raises(RemoteProtocolError, match=f"credit of more than {MAX_CREDIT}"):
            table.receive(frames.encode_credit(call, 1), pair.now)


@pytest.mark.parametrize(("stream", "link"), [(2**20 - 1, 2**20), (2**20, 2**20 - 1), (2**31, 2**20), (2**20, 2**31)])
def test_a_hello_with_too_little_or_too_much_credit_is_a_protocol_error(stream: int, link: int) -> None:
    pair = joined(opened=False)
    limits = frames.HelloLimits(1000, 1, 1000, stream, link)
    with pytest.raises(RemoteProtocolError):
        pair.ours.table.receive(frames.encode_hello(bytes([2]) * 64, frames.HelloBody(1, limits)), pair.now)


@pytest.mark.parametrize("begun", ["stream", "body"])
def test_a_goaway_cannot_take_back_a_call_whose_answer_has_begun(begun: str) -> None:
    pair = joined()
    pair.ours.table.call("M", b"", True, 30, pair.now, takes_stream=True)
    response = BEGUN if begun == "stream" else frames.encode_response(1, 10, b"x")
    pair.ours.table.receive(response, pair.now)
    with pytest.raises(RemoteProtocolError, match="answer has begun"):
        pair.ours.table.receive(frames.encode_goaway(0, "x"), pair.now)


def test_the_last_frame_of_a_drained_link_is_its_ping() -> None:
    """What is sent after it might be lost: the other side closes when it has answered."""
    pair = joined()
    stream = answer(pair)
    pair.theirs.table.goaway("stopping", pair.now)
    pair.exchange()
    pair.theirs.table.push_item(stream.sending, b"1", False)
    pair.theirs.table.fail(stream.received, Denied("enough"), pair.now)
    batches = [sent(pair.theirs, MEBIBYTE, pair.now) for _ in range(3)]
    kinds = [frame.type for messages in batches for message in messages for frame in message]
    assert kinds == [FrameType.ITEM, FrameType.ERROR, FrameType.PING]


# -- anything at all ---------------------------------------------------------------------------------------------------

stream_soup = st.one_of(
    st.builds(lambda call, flags: request(call, flags & 0x07), st.sampled_from([1, 3, 5]), st.integers(0, 7)),
    st.builds(
        lambda call, length, first, flags: item(call, length, bytes(min(first, length)), flags),
        st.integers(0, 6),
        st.sampled_from([0, 1, 5, 300_000, MAX_ITEM, MAX_ITEM + 1]),
        st.integers(0, 5),
        st.sampled_from([0, 0, 1]),
    ),
    st.builds(lambda call, size: part(call, bytes(size)), st.integers(0, 6), st.integers(0, 5)),
    st.builds(end, st.integers(0, 6)),
    st.builds(frames.encode_credit, st.integers(0, 6), st.sampled_from([0, 1, 100, MAX_CREDIT])),
    st.builds(lambda call: frames.encode_response(call, 0, b"", FLAG_STREAM), st.integers(1, 6)),
    st.builds(lambda call: frames.encode_response(call, 3, b"1"), st.integers(1, 6)),
    st.builds(lambda call: frames.encode(FrameType.CANCEL, call), st.integers(1, 6)),
    st.builds(lambda call: frames.encode_error(call, ErrorBody("busy")), st.integers(1, 6)),
    st.just(frames.encode_goaway(3, "idle")),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(stream_soup, max_size=25))
def test_frames_of_streams_in_any_order_are_taken_or_refused(messages: list[bytes]) -> None:
    pair = joined()
    table = pair.theirs.table
    for takes_stream in (True, False):
        table.call("M", b"1", False, 30, pair.now, items=True, takes_stream=takes_stream)
    table.data_to_send(MEBIBYTE, pair.now)
    with contextlib.suppress(RemoteProtocolError, IdentityMismatch):
        for number, message in enumerate(messages):
            table.receive(message, pair.now)
            for received in pair.theirs.take(CallReceived):
                if received.takes_stream and number % 2:
                    table.push_item(table.begin(received, pair.now), b"1", False)
                elif number % 3 == 0:
                    table.fail(received, Denied("no"), pair.now)
            for arrived in pair.theirs.take(ItemsArrived):
                take_all(arrived.items)
            assert all(len(out) <= frames.MAX_SENT_MESSAGE for out in table.data_to_send(MEBIBYTE, pair.now))
    table.close()
    assert table.active == pair.theirs.unsent == 0


def test_the_proof_comes_before_any_item() -> None:
    pair = joined(opened=False)
    with pytest.raises(RemoteProtocolError):
        pair.ours.table.receive(item(2, 0), pair.now)
    assert FakeProof(b"a", b"a").accepts(b"a")
