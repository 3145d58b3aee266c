"""The frames of a link: round trips, golden bytes, and whatever a hostile peer may send."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import RemoteProtocolError
from bonevalue.wire import frames
from bonevalue.wire.frames import ErrorBody, FrameType, HelloBody, HelloLimits

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "frames.json").read_text())
PROOF = bytes(range(64))

payloads = st.binary(max_size=frames.MAX_PAYLOAD)
call_ids = st.integers(min_value=0, max_value=2**32 - 1)


def only(message: bytes) -> frames.Frame:
    (frame,) = frames.decode(message)
    return frame


@given(st.sampled_from(FrameType), call_ids, payloads, st.integers(0, 255))
def test_a_frame_comes_back_as_it_went(kind: FrameType, call: int, payload: bytes, flags: int) -> None:
    frame = only(frames.encode(kind, call, payload, flags))
    assert (frame.type, frame.call, bytes(frame.payload), frame.flags) == (kind, call, payload, flags)


@given(st.lists(st.tuples(st.sampled_from(FrameType), call_ids, st.binary(max_size=50)), min_size=1, max_size=20))
def test_many_frames_share_a_message(content: list[tuple[FrameType, int, bytes]]) -> None:
    message = b"".join(frames.encode(kind, call, payload) for kind, call, payload in content)
    assert [(frame.type, frame.call, bytes(frame.payload)) for frame in frames.decode(message)] == content


@given(st.binary(max_size=300))
def test_any_bytes_give_frames_or_a_protocol_error(message: bytes) -> None:
    try:
        for frame in frames.decode(message):
            decode_payload(frame)
    except RemoteProtocolError:
        pass


def decode_payload(frame: frames.Frame) -> Any:
    decoders: dict[FrameType, Any] = {
        FrameType.HELLO: frames.decode_hello,
        FrameType.GOAWAY: frames.decode_goaway,
        FrameType.HOLD: frames.decode_hold,
        FrameType.REQUEST: frames.decode_request,
        FrameType.RESPONSE: frames.decode_response,
        FrameType.ERROR: frames.decode_error,
        FrameType.ITEM: frames.decode_item,
        FrameType.CREDIT: frames.decode_credit,
    }
    decode = decoders.get(frame.type, bytes)
    return decode(frame.payload)


@given(st.sampled_from(FrameType), st.binary(max_size=200))
def test_any_payload_decodes_or_is_a_protocol_error(kind: FrameType, payload: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        decode_payload(only(frames.encode(kind, 1, payload)))


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_message_cut_anywhere_is_whole_frames_or_a_protocol_error(bodies: list[bytes], data: st.DataObject) -> None:
    whole = [frames.encode(FrameType.BODY, 1, body) for body in bodies]
    message = b"".join(whole)
    cut = data.draw(st.integers(0, len(message)))
    borders = {sum(map(len, whole[:count])) for count in range(1, len(whole) + 1)}
    for part in (message[:cut], message[cut:]):
        if cut in borders and part:
            assert b"".join(bytes(frame.payload) for frame in frames.decode(part)) is not None
        elif part == message[:cut]:
            with pytest.raises(RemoteProtocolError):
                frames.decode(part)


def test_a_message_has_a_size() -> None:
    with pytest.raises(RemoteProtocolError, match="not 0"):
        frames.decode(b"")
    with pytest.raises(RemoteProtocolError, match="65536 bytes"):
        frames.decode(bytes(frames.MAX_RECEIVED_MESSAGE + 1))


def test_an_unknown_type_is_an_error_and_an_extension_is_skipped() -> None:
    unknown = bytes([0x7F, 0, 0, 0, 0, 0, 0, 0])
    extension = bytes([0x80, 0xFF, 0, 2, 0, 0, 0, 9]) + b"hi"
    with pytest.raises(RemoteProtocolError, match="0x7f"):
        frames.decode(unknown)
    (frame,) = frames.decode(extension + frames.encode_hold(True))
    assert frame.type is FrameType.HOLD


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_golden_bytes(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["hex"])
    frame = only(encoded)
    assert frame.type == vector["type"]
    assert encode_vector(vector) == encoded


def encode_vector(vector: dict[str, Any]) -> bytes:
    """The frame that a vector describes."""
    values, call = vector["fields"], vector["call"]
    match vector["type"]:
        case FrameType.HELLO:
            limits = HelloLimits(**values["limits"])
            body = HelloBody(frames.VERSION, limits, values["features"], values["agent"])
            return frames.encode_hello(PROOF, body)
        case FrameType.GOAWAY:
            return frames.encode_goaway(values["last"], values["reason"])
        case FrameType.HOLD:
            return frames.encode_hold(values["holding"])
        case FrameType.REQUEST:
            module, first = values["module"].encode(), bytes.fromhex(values["first"])
            return frames.encode_request(call, module, values["ms"] / 1000, values["length"], first, values["flags"])
        case FrameType.RESPONSE:
            return frames.encode_response(call, values["length"], bytes.fromhex(values["first"]), values["flags"])
        case FrameType.ITEM:
            first = bytes.fromhex(values["first"])
            return frames.item_head(call, values["length"], len(first), values["flags"]) + first
        case FrameType.CREDIT:
            return frames.encode_credit(call, values["credit"])
        case FrameType.ERROR:
            return frames.encode_error(call, ErrorBody(values["code"], values["message"], values.get("callId")))
        case kind:
            return frames.encode(FrameType(kind), call, bytes.fromhex(values["payload"]))


@pytest.mark.parametrize("vector", VECTORS["malformed"], ids=lambda vector: vector["name"])
def test_malformed_vectors_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        for frame in frames.decode(bytes.fromhex(vector["hex"])):
            decode_payload(frame)


text = st.text(st.characters(codec="utf-8"))
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
)


@given(json_values | st.binary(max_size=100))
def test_a_body_comes_back_as_it_went(value: Any) -> None:
    assert frames.decode_body(*frames.encode_body(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_json_body_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        frames.decode_body(data, raw=False)


@pytest.mark.parametrize("opener", [b"[", b'{"a":'])
def test_json_is_64_deep_at_most(opener: bytes) -> None:
    closer = b"]" if opener == b"[" else b"}"
    frames.decode_body(opener * 64 + b"1" + closer * 64, raw=False)
    with pytest.raises(ValueError, match="deeper than 64"):
        frames.decode_body(opener * 65 + b"1" + closer * 65, raw=False)


def test_what_nests_deeper_is_not_encoded() -> None:
    nested: Any = 1
    for _ in range(64):
        nested = [nested]
    frames.encode_body(nested)
    with pytest.raises(ValueError, match="deeper than 64"):
        frames.encode_body([nested])


def test_hostile_strings_are_passed_over_in_linear_time() -> None:
    # With a pattern that tries again at each quote this would take hours; the test's time limit would end it.
    hostile = b"[]" * 70 + b'"' + b'\\"' * 200_000
    with pytest.raises(ValueError):
        frames.decode_body(hostile, raw=False)


def test_brackets_in_strings_do_not_nest() -> None:
    text = '"\\"' + "[" * 500
    assert frames.decode_body(json.dumps([text] * 3).encode(), raw=False) == [text] * 3


def test_what_is_neither_json_nor_bytes_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="object is neither bytes nor JSON"):
        frames.encode_body(object())
    with pytest.raises(ValueError, match="cannot be JSON"):
        frames.encode_body("\ud800")
