"""The protocol of a link, on a false clock and without I/O."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bonevalue.errors import (
    BoneValueError,
    Busy,
    Denied,
    IdentityMismatch,
    LinkLost,
    LocalProtocolError,
    RemoteProtocolError,
    TooLarge,
)
from bonevalue.wire import frames
from bonevalue.wire.calls import LinkSettings, LinkState
from bonevalue.wire.events import (
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallReceived,
    CallReturned,
    Drained,
    HoldChanged,
    LinkOpened,
    PongReceived,
)
from bonevalue.wire.frames import FLAG_RAW, FrameType
from tests.support.tables import MEBIBYTE, FakeProof, Pair, Side, joined

SMALL = LinkSettings(max_body=100_000, max_calls=4, max_incomplete=150_000)


def call(pair: Pair, side: Side, body: bytes = b"1", timeout: float = 30, raw: bool = False) -> Any:
    return side.table.call("M", body, raw, timeout, pair.now)


# -- opening -----------------------------------------------------------------------------------------------------------


def test_both_sides_open_once_the_other_has_proved_itself() -> None:
    pair = joined(opened=False)
    assert pair.ours.table.state is LinkState.PROVING
    pair.exchange()
    assert pair.ours.one(LinkOpened) and pair.theirs.one(LinkOpened)
    assert pair.ours.table.accepting and pair.theirs.table.accepting


def test_nothing_is_sent_before_the_proof() -> None:
    pair = joined(opened=False)
    with pytest.raises(LocalProtocolError):
        call(pair, pair.ours)
    (hello,) = pair.ours.table.data_to_send(MEBIBYTE, pair.now)
    assert frames.decode(hello)[0].type is FrameType.HELLO


@pytest.mark.parametrize(
    "first",
    [
        frames.encode_hold(True),
        frames.encode(FrameType.PING, 0, bytes(8)),
        frames.encode_request(2, b"M", 1, 0, b""),
        frames.encode(FrameType.HELLO, 1, bytes(70)),
    ],
)
def test_nothing_but_hello_is_looked_at_before_the_proof(first: bytes) -> None:
    pair = joined(opened=False)
    with pytest.raises(RemoteProtocolError):
        pair.ours.table.receive(first, pair.now)


def test_a_wrong_proof_is_an_identity_mismatch_before_anything_is_parsed() -> None:
    pair = joined(opened=False)
    with pytest.raises(IdentityMismatch):
        pair.ours.table.receive(frames.encode(FrameType.HELLO, 0, bytes(64) + b"{not json"), pair.now)


def test_a_link_whose_proof_does_not_come_is_lost_after_ten_seconds() -> None:
    pair = joined(opened=False)
    assert pair.ours.table.timer() == pair.now + 10
    pair.ours.table.handle_timer(pair.now + 9.9)
    with pytest.raises(LinkLost, match="within 10 s"):
        pair.ours.table.handle_timer(pair.now + 10)


def test_another_version_and_a_second_hello_are_protocol_errors() -> None:
    pair = joined(opened=False)
    limits = frames.HelloLimits(1, 1, 1, MEBIBYTE, MEBIBYTE)
    with pytest.raises(RemoteProtocolError, match="version 2"):
        hello = frames.encode_hello(bytes([2]) * 64, frames.HelloBody(2, limits))
        pair.ours.table.receive(hello, pair.now)
    pair = joined()
    with pytest.raises(RemoteProtocolError, match="second hello"):
        pair.ours.table.receive(frames.encode_hello(bytes([2]) * 64, frames.HelloBody(1, limits)), pair.now)


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 16_384, 100_000, 3 * MEBIBYTE])
@pytest.mark.parametrize("raw", [False, True])
def test_bodies_of_any_size_go_both_ways(size: int, raw: bool) -> None:
    pair = joined()
    request = random.Random(size).randbytes(size)
    for caller, callee in ((pair.ours, pair.theirs), (pair.theirs, pair.ours)):
        made = call(pair, caller, request, raw=raw)
        pair.exchange()
        received = callee.one(CallReceived)
        assert (received.module, received.body, received.raw) == ("M", request, raw)
        callee.table.reply(received, request[::-1], raw, pair.now)
        pair.exchange()
        answered = caller.one(CallAnswered)
        assert answered.call is made and (answered.body, answered.raw) == (request[::-1], raw)
        assert caller.table.active == callee.table.active == 0


def test_no_message_is_longer_than_allowed_and_small_calls_share_one() -> None:
    pair = joined()
    for _ in range(50):
        call(pair, pair.ours, b"x" * 50)
    (message,) = pair.ours.table.data_to_send(0, pair.now)
    assert len(frames.decode(message)) == 50
    call(pair, pair.ours, b"x" * 100_000)
    for _ in range(20):
        call(pair, pair.ours, b"x" * 4000)
    messages = pair.ours.table.data_to_send(MEBIBYTE, pair.now)
    assert max(map(len, messages)) <= frames.MAX_SENT_MESSAGE
    assert sum(map(len, messages)) > 180_000


def test_a_small_call_overtakes_a_long_body() -> None:
    pair = joined()
    call(pair, pair.ours, b"x" * MEBIBYTE)
    pair.exchange(room=16_384)
    received: list[int] = []
    call(pair, pair.theirs, b"y" * MEBIBYTE)
    for message in pair.theirs.table.data_to_send(50_000, pair.now):
        pair.ours.table.receive(message, pair.now)
    call(pair, pair.theirs, b"small")
    (message, *_) = pair.theirs.table.data_to_send(50_000, pair.now)
    pair.ours.table.receive(message, pair.now)
    received = [event.call for event in pair.ours.take(CallReceived)]
    assert received == [4]


def test_long_bodies_share_the_room_in_turn() -> None:
    pair = joined()
    for _ in range(3):
        call(pair, pair.ours, b"x" * MEBIBYTE)
    pair.ours.table.data_to_send(0, pair.now)
    fragments = [
        frame.call for message in pair.ours.table.data_to_send(200_000, pair.now) for frame in frames.decode(message)
    ]
    assert {fragments.count(number) for number in (1, 3, 5)} <= {4, 5}
    assert pair.ours.table.has_bulk


def test_calls_cross_and_nest() -> None:
    pair = joined()
    outer = call(pair, pair.ours, b"outer")
    pair.exchange()
    first = pair.theirs.one(CallReceived)
    inner = call(pair, pair.theirs, b"inner")
    pair.exchange()
    second = pair.ours.one(CallReceived)
    pair.ours.table.reply(second, b"2", False, pair.now)
    pair.exchange()
    assert pair.theirs.one(CallAnswered).call is inner
    pair.theirs.table.reply(first, b"1", False, pair.now)
    pair.exchange()
    assert pair.ours.one(CallAnswered).call is outer


def test_an_error_reaches_the_caller_with_code_text_and_call_id() -> None:
    pair = joined()
    call(pair, pair.ours)
    pair.exchange()
    error = Denied("not for you", call_id="abc", retry_after=2.5)
    pair.theirs.table.fail(pair.theirs.one(CallReceived), error, pair.now)
    pair.exchange()
    failed = pair.ours.one(CallFailed).error
    assert isinstance(failed, Denied)
    assert (failed.message, failed.call_id, failed.retry_after) == ("not for you", "abc", 2.5)


@pytest.mark.parametrize(
    "error", [Denied("\udce4 \x1b[2J"), type("Odd", (Denied,), {"code": "x" * 50})("odd"), Denied("long" * 10_000)]
)
def test_whatever_a_handler_raises_can_be_sent(error: BoneValueError) -> None:
    pair = joined()
    call(pair, pair.ours)
    pair.exchange()
    pair.theirs.table.fail(pair.theirs.one(CallReceived), error, pair.now)
    pair.exchange()
    failed = pair.ours.one(CallFailed).error
    assert failed.code in ("denied", "handler_failed") and failed.message.isprintable()


def test_the_other_side_cannot_claim_what_only_we_can_find_out() -> None:
    pair = joined()
    call(pair, pair.ours)
    pair.exchange()
    pair.ours.table.receive(frames.encode_error(1, frames.ErrorBody("identity_mismatch", "believe me")), pair.now)
    failed = pair.ours.one(CallFailed).error
    assert failed.code == "identity_mismatch" and not isinstance(failed, IdentityMismatch)


def test_an_unknown_code_keeps_its_name() -> None:
    pair = joined()
    call(pair, pair.ours)
    pair.exchange()
    body = frames.ErrorBody("code_of_the_future", "hm")
    pair.ours.table.receive(frames.encode_error(1, body), pair.now)
    assert pair.ours.one(CallFailed).error.code == "code_of_the_future"


# -- deadlines and cancelling ------------------------------------------------------------------------------------------


def test_a_deadline_ends_the_call_on_both_sides_and_late_answers_are_dropped() -> None:
    pair = joined()
    call(pair, pair.ours, timeout=2)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    assert received.deadline == pytest.approx(pair.now + 2)
    pair.advance(2.2)
    assert pair.ours.one(CallFailed).error.code == "deadline"
    assert pair.theirs.one(CallCancelled).call is received
    pair.theirs.table.reply(received, b"late", False, pair.now)
    pair.exchange()
    assert pair.ours.take(CallAnswered) == []
    assert pair.ours.table.active == pair.theirs.table.active == 0


def test_the_callee_enforces_the_deadline_by_itself() -> None:
    pair = joined()
    call(pair, pair.ours, timeout=2)
    pair.exchange()
    pair.theirs.one(CallReceived)
    pair.theirs.table.handle_timer(pair.now + 2.1)
    assert pair.theirs.one(CallCancelled).error.code == "deadline"


def test_a_call_lasts_ten_minutes_at_most() -> None:
    pair = joined()
    assert call(pair, pair.ours, timeout=10_000).deadline == pair.now + 600
    pair.theirs.table.receive(frames.encode_request(1, b"M", 10_000, 0, b"", FLAG_RAW), pair.now)
    assert pair.theirs.one(CallReceived).deadline == pair.now + 600


def test_cancel_reaches_the_other_side() -> None:
    pair = joined()
    made = call(pair, pair.ours)
    pair.exchange()
    received = pair.theirs.one(CallReceived)
    pair.ours.table.cancel(made, pair.now)
    pair.exchange()
    cancelled = pair.theirs.one(CallCancelled)
    assert cancelled.call is received and cancelled.error.code == "cancelled"
    pair.ours.table.cancel(made, pair.now)
    assert pair.exchange() == 0


def test_cancel_in_the_middle_of_a_body_sends_no_more_of_it() -> None:
    pair = joined(theirs=LinkSettings(max_incomplete=8 * MEBIBYTE))
    made = call(pair, pair.ours, b"x" * 8 * MEBIBYTE)
    pair.exchange(room=0)
    for message in pair.ours.table.data_to_send(50_000, pair.now):
        pair.theirs.table.receive(message, pair.now)
    pair.ours.table.cancel(made, pair.now)
    assert pair.exchange() == 1
    assert not pair.theirs.take(CallReceived) and not pair.theirs.take(CallCancelled)
    again = call(pair, pair.ours, b"y" * 8 * MEBIBYTE)
    pair.exchange()
    assert pair.theirs.one(CallReceived).call == again.id


def test_a_cancel_goes_before_the_next_request_that_it_makes_room_for() -> None:
    pair = joined(theirs=SMALL)
    made = [call(pair, pair.ours) for _ in range(5)]
    pair.exchange()
    pair.theirs.take(CallReceived)
    pair.ours.table.cancel(made[0], pair.now)
    sent = [frame for message in pair.ours.table.data_to_send(0, pair.now) for frame in frames.decode(message)]
    assert [(frame.type, frame.call) for frame in sent] == [(FrameType.CANCEL, 1), (FrameType.REQUEST, 9)]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_request_over_the_other_sides_limit_is_refused_before_anything_is_sent() -> None:
    pair = joined(theirs=SMALL)
    with pytest.raises(TooLarge, match="takes 100000"):
        call(pair, pair.ours, b"x" * 100_001)
    assert pair.exchange() == 0
    call(pair, pair.ours, b"x" * 100_000)
    pair.exchange()
    assert len(pair.theirs.one(CallReceived).body) == 100_000


def test_a_response_over_the_callers_limit_is_too_large() -> None:
    pair = joined(ours=SMALL)
    call(pair, pair.ours)
    pair.exchange()
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"x" * 100_001, True, pair.now)
    pair.exchange()
    assert isinstance(pair.ours.one(CallFailed).error, TooLarge)


def test_declared_lengths_over_the_limit_are_refused_and_what_follows_is_dropped() -> None:
    pair = joined(theirs=SMALL)
    table = pair.theirs.table
    table.receive(frames.encode_request(1, b"M", 30, 2**31, b"", FLAG_RAW), pair.now)
    table.receive(frames.encode(FrameType.BODY, 1, b"x" * 1000), pair.now)
    (message,) = table.data_to_send(0, pair.now)
    assert frames.decode_error(frames.decode(message)[0].payload).code == "too_large"
    assert pair.theirs.take(CallReceived) == []
    assert table.active == 0


def test_unfinished_bodies_have_a_budget() -> None:
    pair = joined(theirs=SMALL)
    table = pair.theirs.table
    for number in (1, 3):
        table.receive(frames.encode_request(number, b"M", 30, 100_000, b"", FLAG_RAW), pair.now)
        table.receive(frames.encode(FrameType.BODY, number, b"x"), pair.now)
    (message,) = table.data_to_send(0, pair.now)
    (frame,) = frames.decode(message)
    assert frame.type is FrameType.ERROR and frame.call == 3
    assert frames.decode_error(frame.payload).code == Busy.code


def test_our_side_keeps_to_the_budget_so_that_nothing_of_ours_is_refused() -> None:
    pair = joined(theirs=LinkSettings(max_body=100_000, max_incomplete=150_000))
    for _ in range(10):
        call(pair, pair.ours, b"x" * 100_000)
    for _ in range(10):
        pair.exchange(room=20_000)
        # The other side holds a request until it has answered it.
        pair.theirs.table.reply(pair.theirs.one(CallReceived), b"1", False, pair.now)
    pair.exchange()
    assert len(pair.ours.take(CallAnswered)) == 10


def test_long_answers_that_nobody_reads_count_as_calls_under_way() -> None:
    pair = joined(theirs=LinkSettings(max_calls=3))
    for number in (1, 3, 5):
        pair.theirs.table.receive(frames.encode_request(number, b"M", 30, 0, b"", FLAG_RAW), pair.now)
    for event in pair.theirs.take(CallReceived):
        pair.theirs.table.reply(event, b"x" * MEBIBYTE, True, pair.now)
    assert pair.theirs.table.active == 3 and pair.theirs.table.backlog > 3 * MEBIBYTE
    pair.theirs.table.receive(frames.encode_request(7, b"M", 30, 0, b"", FLAG_RAW), pair.now)
    assert not pair.theirs.take(CallReceived)
    pair.theirs.table.handle_timer(pair.now + 31)
    assert pair.theirs.table.active == 0 and pair.theirs.table.backlog < 1000
    assert not pair.theirs.take(CallCancelled)


def test_calls_over_the_other_sides_limit_wait_here() -> None:
    pair = joined(theirs=SMALL)
    for _ in range(10):
        call(pair, pair.ours)
    pair.exchange()
    received = pair.theirs.take(CallReceived)
    assert len(received) == 4
    for round_of in range(3):
        for event in received:
            pair.theirs.table.reply(event, b"1", False, pair.now)
        pair.exchange()
        received = pair.theirs.take(CallReceived)
        assert len(received) == (4, 2, 0)[round_of]
    assert len(pair.ours.take(CallAnswered)) == 10


def test_calls_over_our_limit_are_answered_busy() -> None:
    pair = joined(theirs=SMALL)
    for number in range(1, 13, 2):
        pair.theirs.table.receive(frames.encode_request(number, b"M", 30, 0, b"", FLAG_RAW), pair.now)
    assert len(pair.theirs.take(CallReceived)) == 4
    sent = [frame for message in pair.theirs.table.data_to_send(0, pair.now) for frame in frames.decode(message)]
    assert [frame.call for frame in sent if frame.type is FrameType.ERROR] == [9, 11]


# -- what breaks the rules ---------------------------------------------------------------------------------------------

REQUEST = frames.encode_request(1, b"M", 30, 5, b"")


@pytest.mark.parametrize(
    "messages",
    [
        [frames.encode_request(2, b"M", 30, 0, b"")],
        [REQUEST, REQUEST],
        [frames.encode_request(3, b"M", 30, 0, b""), REQUEST],
        [frames.encode(FrameType.BODY, 1, b"x")],
        [REQUEST, frames.encode(FrameType.BODY, 1, b"")],
        [REQUEST, frames.encode(FrameType.BODY, 1, b"123456")],
        [frames.encode_response(1, 0, b"")],
        [frames.encode_response(2, 0, b"")],
        [frames.encode(FrameType.CANCEL, 1)],
        [frames.encode(FrameType.CANCEL, 2)],
        [frames.encode(FrameType.PONG, 0, bytes(8))],
        [frames.encode(FrameType.PING, 0, b"x")],
        [frames.encode(FrameType.PING, 7, bytes(8))],
        [frames.encode(FrameType.HOLD, 0, b"\x01", flags=4)],
        [frames.encode(FrameType.REQUEST, 1, REQUEST[8:], flags=8)],
        [frames.encode_goaway(0, "x"), frames.encode_goaway(0, "x")],
        [frames.encode_error(4, frames.ErrorBody("busy"))],
    ],
)
def test_breaking_the_rules_is_a_protocol_error(messages: list[bytes]) -> None:
    pair = joined()
    with pytest.raises(RemoteProtocolError):
        for message in messages:
            pair.theirs.table.receive(message, pair.now)


def test_two_responses_to_one_call_are_a_protocol_error() -> None:
    pair = joined()
    call(pair, pair.ours)
    pair.ours.table.receive(frames.encode_response(1, 10, b""), pair.now)
    with pytest.raises(RemoteProtocolError, match="second response"):
        pair.ours.table.receive(frames.encode_response(1, 10, b""), pair.now)


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=5), st.booleans())
def test_garbage_is_taken_or_refused_and_nothing_else(messages: list[bytes], opened: bool) -> None:
    pair = joined(opened=opened)
    with contextlib.suppress(RemoteProtocolError, IdentityMismatch):
        for message in messages:
            pair.theirs.table.receive(message, pair.now)
            pair.theirs.table.events()
            pair.theirs.table.data_to_send(MEBIBYTE, pair.now)


frame_soup = st.builds(
    frames.encode,
    st.sampled_from([kind for kind in FrameType if kind is not FrameType.HELLO]),
    st.integers(0, 8),
    st.binary(max_size=24),
    st.sampled_from([0, 0, 0, 1]),
)


@settings(max_examples=500)
@given(st.lists(frame_soup, max_size=12))
def test_well_formed_frames_in_any_order_are_taken_or_refused(messages: list[bytes]) -> None:
    pair = joined()
    call(pair, pair.theirs)
    call(pair, pair.theirs, b"x" * 50_000)
    with contextlib.suppress(RemoteProtocolError):
        for message in messages:
            pair.theirs.table.receive(message, pair.now)
            for event in pair.theirs.take(CallReceived):
                pair.theirs.table.reply(event, b"1", False, pair.now)
            pair.theirs.table.data_to_send(MEBIBYTE, pair.now)
    pair.theirs.table.close()
    assert pair.theirs.table.active == 0


# -- heartbeat ---------------------------------------------------------------------------------------------------------


def test_a_silent_link_is_pinged_each_beat_and_lost_after_three() -> None:
    pair = joined()
    table = pair.ours.table
    for beat in (5, 10):
        table.handle_timer(pair.now + beat)
        (message,) = table.data_to_send(0, pair.now)
        assert frames.decode(message)[0].type is FrameType.PING
    with pytest.raises(LinkLost, match="15 s"):
        table.handle_timer(pair.now + 15)


def test_anything_that_is_heard_counts() -> None:
    pair = joined()
    pair.advance(60)
    assert pair.ours.table.round_trip == 0
    pair.ours.table.receive(frames.encode_hold(True), pair.now)
    assert pair.ours.table.timer() == pytest.approx(pair.now + 5)


def test_a_process_that_was_stopped_does_not_blame_the_link() -> None:
    pair = joined()
    pair.ours.table.handle_timer(pair.now + 100)
    pair.now += 100
    assert pair.exchange() == 2
    pair.ours.table.handle_timer(pair.now + 5)


def test_the_round_trip_is_measured() -> None:
    pair = joined()
    number = pair.ours.table.ping(pair.now)
    (ping,) = pair.ours.table.data_to_send(0, pair.now)
    pair.theirs.table.receive(ping, pair.now + 0.02)
    (pong,) = pair.theirs.table.data_to_send(0, pair.now)
    pair.ours.table.receive(pong, pair.now + 0.05)
    measured = pair.ours.one(PongReceived)
    assert measured.number == number and measured.round_trip == pytest.approx(0.05)


# -- holding, draining, closing ----------------------------------------------------------------------------------------


def test_the_dialler_holds_at_first_and_a_link_is_quiet_when_nobody_does() -> None:
    pair = joined()
    assert pair.ours.table.local_hold and pair.theirs.table.remote_hold
    made = call(pair, pair.ours)
    pair.ours.table.hold(False)
    pair.exchange()
    assert pair.theirs.one(HoldChanged).holding is False
    assert not pair.theirs.table.quiet and not pair.ours.table.quiet
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"1", False, pair.now)
    pair.exchange()
    assert pair.ours.one(CallAnswered).call is made
    assert pair.theirs.table.quiet and pair.ours.table.quiet


def test_goaway_finishes_what_was_accepted_and_returns_what_was_not() -> None:
    pair = joined()
    accepted = call(pair, pair.ours)
    pair.exchange()
    pair.theirs.table.goaway("stopping", pair.now)
    late = call(pair, pair.ours)
    pair.exchange()
    assert pair.ours.one(CallReturned).call is late
    assert not pair.ours.table.accepting
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"1", False, pair.now)
    assert pair.theirs.take(Drained) == []
    pair.exchange()
    assert pair.ours.one(CallAnswered).call is accepted
    assert pair.ours.one(Drained) and pair.theirs.one(Drained)


def test_a_drained_link_whose_end_is_not_acknowledged_ends_all_the_same() -> None:
    pair = joined()
    pair.ours.table.goaway("idle", pair.now)
    pair.ours.table.data_to_send(0, pair.now)
    assert pair.ours.table.timer() == pair.now + 5
    pair.now += 9
    pair.ours.table.receive(frames.encode_hold(True), pair.now)
    with pytest.raises(LinkLost, match="within 10 s"):
        pair.ours.table.handle_timer(pair.now + 1)


def test_a_link_that_runs_out_of_call_ids_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.wire.calls_made.LAST_CALL_ID", 4)
    pair = joined()
    call(pair, pair.ours)
    last = call(pair, pair.ours)
    assert not pair.ours.table.accepting
    pair.exchange()
    for event in pair.theirs.take(CallReceived):
        pair.theirs.table.reply(event, b"1", False, pair.now)
    pair.exchange()
    assert pair.ours.take(CallAnswered)[-1].call is last


def test_a_link_is_drained_only_when_the_last_body_has_arrived() -> None:
    pair = joined()
    call(pair, pair.ours)
    pair.exchange()
    pair.theirs.table.reply(pair.theirs.one(CallReceived), b"x" * MEBIBYTE, True, pair.now)
    pair.theirs.table.goaway("idle", pair.now)
    pair.exchange(room=16_000)
    assert len(pair.ours.one(CallAnswered).body) == MEBIBYTE
    assert pair.theirs.one(Drained)


def test_calls_that_wait_come_back_when_this_side_drains() -> None:
    pair = joined(theirs=SMALL)
    for _ in range(6):
        call(pair, pair.ours)
    pair.exchange()
    pair.ours.table.goaway("idle", pair.now)
    assert len(pair.ours.take(CallReturned)) == 2
    for event in pair.theirs.take(CallReceived):
        pair.theirs.table.reply(event, b"1", False, pair.now)
    pair.exchange()
    assert len(pair.ours.take(CallAnswered)) == 4


def test_closing_fails_our_calls_and_cancels_theirs() -> None:
    pair = joined()
    made = call(pair, pair.ours)
    call(pair, pair.theirs)
    pair.exchange()
    pair.ours.one(CallReceived)
    pair.ours.table.close()
    failed: BoneValueError = pair.ours.one(CallFailed).error
    assert failed.code == "link_lost" and made is not None
    assert pair.ours.one(CallCancelled).call.call == 2
    assert pair.ours.table.state is LinkState.CLOSED and pair.ours.table.timer() is None
    pair.ours.table.receive(b"whatever", pair.now)
    assert pair.ours.table.data_to_send(1, pair.now) == []


def test_the_fake_proof_is_not_always_right() -> None:
    assert not FakeProof(b"a", b"b").accepts(b"a")


# -- two tables against a model ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_every_call_ends_exactly_once(chance: random.Random) -> None:
    limits = LinkSettings(max_body=50_000, max_calls=3, max_incomplete=60_000)
    pair = joined(limits, limits)
    sides = (pair.ours, pair.theirs)
    made: dict[int, list[Any]] = {0: [], 1: []}
    open_calls: dict[int, list[CallReceived]] = {0: [], 1: []}
    ended: dict[int, list[Any]] = {0: [], 1: []}
    cancelled: dict[int, set[Any]] = {0: set(), 1: set()}

    def collect() -> None:
        for index, side in enumerate(sides):
            open_calls[index] += side.take(CallReceived)
            gone = {event.call for event in side.take(CallCancelled)}
            open_calls[index] = [each for each in open_calls[index] if each not in gone]
            ended[index] += [event.call for event in side.take(CallAnswered)]
            ended[index] += [event.call for event in side.take(CallFailed)]
            ended[index] += [event.call for event in side.take(CallReturned)]

    for _ in range(chance.randint(1, 60)):
        index = chance.randrange(2)
        side = sides[index]
        match chance.randrange(6):
            case 0 | 1:
                size = chance.choice([0, 10, 5000, 50_000])
                made[index].append(call(pair, side, b"x" * size, timeout=chance.choice([0.5, 5, 60])))
            case 2 if made[index]:
                unlucky = chance.choice(made[index])
                if unlucky not in ended[index]:
                    side.table.cancel(unlucky, pair.now)
                    cancelled[index].add(unlucky)
            case 3 if open_calls[index]:
                answered = open_calls[index].pop(chance.randrange(len(open_calls[index])))
                side.table.reply(answered, b"y" * chance.choice([1, 5000, 60_000]), True, pair.now)
            case 4:
                pair.advance(chance.choice([0.1, 1, 10]))
            case _:
                pair.exchange(room=chance.choice([0, 1000, 100_000]))
        collect()
    pair.advance(700)
    collect()
    for index in (0, 1):
        assert len(ended[index]) == len(set(ended[index]))
        assert set(made[index]) == set(ended[index]) | cancelled[index]
    assert pair.ours.table.active == pair.theirs.table.active == 0


@pytest.mark.parametrize(("calls", "request_size", "answer_size"), [(2, 8, 1), (4, 4, 1), (40, 1, 1)])
def test_requests_that_fill_both_sides_are_answered_all_the_same(
    calls: int, request_size: int, answer_size: int
) -> None:
    """What answers a call never waits for the memory that requests take until they are answered."""
    pair = joined()
    for _ in range(calls):
        for side in (pair.ours, pair.theirs):
            call(pair, side, bytes(request_size * MEBIBYTE), raw=True)
    answered = 0
    while pair.exchange():
        for side in (pair.ours, pair.theirs):
            for received in side.take(CallReceived):
                side.table.reply(received, bytes(answer_size * MEBIBYTE), True, pair.now)
            answered += len(side.take(CallAnswered))
    assert answered == 2 * calls
    assert pair.ours.table.backlog == pair.theirs.table.backlog == 0
