"""
The binary frames of a link (docs/protocol.md, "Frames").

A DataChannel message holds one or more whole frames. A frame is a header of eight bytes, big-endian, and its
payload::

    0       1       2               4                               8
    +-------+-------+-------+-------+-------+-------+-------+-------+----------
    | type  | flags |    length     |             call              | payload ...
    +-------+-------+-------+-------+-------+-------+-------+-------+----------

``length`` counts the payload. ``call`` is 0 in frames that concern the whole link; otherwise the id of a call: odd ids
are given by the side that made the offer, even ones by the side that answered it, each counting up.

Types below 0x80 must be understood: an unknown one is a protocol error. Types from 0x80 on are for extensions and are
skipped by whoever does not know them.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from bonevalue.errors import RemoteProtocolError

__all__ = [
    "FLAG_RAW",
    "FLAG_STREAM",
    "FLAG_TAKES_STREAM",
    "HEADER_SIZE",
    "MAX_CREDIT",
    "MAX_ITEM",
    "MAX_MODULE_NAME",
    "MAX_PAYLOAD",
    "MAX_RECEIVED_MESSAGE",
    "MAX_SENT_MESSAGE",
    "PING_SIZE",
    "PROOF_SIZE",
    "VERSION",
    "ErrorBody",
    "Frame",
    "FrameType",
    "HelloBody",
    "HelloLimits",
    "check_json_depth",
    "decode",
    "decode_body",
    "decode_credit",
    "decode_error",
    "decode_goaway",
    "decode_hello",
    "decode_hello_body",
    "decode_hold",
    "decode_item",
    "decode_request",
    "decode_response",
    "encode",
    "encode_body",
    "encode_credit",
    "encode_error",
    "encode_goaway",
    "encode_hello",
    "encode_hold",
    "encode_request",
    "encode_response",
    "header",
    "item_head",
    "split",
]

#: Version of this protocol; another one in the other side's ``hello`` ends the link.
VERSION = 1
#: Longest DataChannel message that we send, headers included. Every WebRTC stack takes it, and a small call waits for
#: at most one of them.
MAX_SENT_MESSAGE = 16_384
#: Longest DataChannel message that we take.
MAX_RECEIVED_MESSAGE = 65_536
HEADER_SIZE = 8
#: Length of the Ed25519 signature at the head of ``hello``.
PROOF_SIZE = 64
#: Length of what a ``ping`` carries and its ``pong`` repeats.
PING_SIZE = 8
#: Longest payload of a frame that fits one sent message.
MAX_PAYLOAD = MAX_SENT_MESSAGE - HEADER_SIZE
#: Longest module name, in UTF-8 bytes.
MAX_MODULE_NAME = 200
#: Deepest nesting of a JSON body.
MAX_JSON_DEPTH = 64
#: Most opening brackets in a JSON body, those in texts counted, too: a second's work for whoever has to decode them.
MAX_JSON_BRACKETS = 2**18

#: Longest item of a stream.
MAX_ITEM = 524_288
#: Most credit that a stream or a link may have.
MAX_CREDIT = 2**31 - 1
#: Least credit that a stream or a link begins with.
MIN_CREDIT = 2**20

#: The body or item is raw bytes; without it, JSON.
FLAG_RAW = 0x01
#: In a request: items follow it. In a response: it is a stream of items.
FLAG_STREAM = 0x02
#: In a request: the caller takes a stream for an answer.
FLAG_TAKES_STREAM = 0x04

_S = TypeVar("_S")

_HEADER = struct.Struct("!BBHI")
_REQUEST = struct.Struct("!IIB")
_NUMBER = struct.Struct("!I")
# Headers and the fixed part of their payload in one go: requests and responses decide how many calls go in a second.
_REQUEST_FRAME = struct.Struct("!BBHIIIB")
_NUMBER_FRAME = struct.Struct("!BBHII")


class FrameType(IntEnum):
    """What a frame is; the comment names its payload."""

    HELLO = 0x01  # proof, then JSON of HelloBody
    GOAWAY = 0x02  # u32 last call accepted, then a code
    PING = 0x03  # 8 bytes
    PONG = 0x04  # the same 8 bytes
    HOLD = 0x05  # u8, 1 holds and 0 lets go
    REQUEST = 0x10  # u32 ms left, u32 body length, u8 name length, name, first bytes of the body
    RESPONSE = 0x11  # u32 body length, first bytes of the body
    BODY = 0x12  # further bytes of the sender's body of that call
    ERROR = 0x13  # JSON of ErrorBody; ends the call
    CANCEL = 0x14  # nothing; the caller no longer wants the answer
    ITEM = 0x20  # u32 item length, first bytes of the item
    PART = 0x21  # further bytes of the sender's item
    END = 0x22  # nothing; the sender's stream is complete
    CREDIT = 0x23  # u32 bytes that the receiver of a stream, or of the link, takes in addition


_TYPES: dict[int, FrameType] = {kind.value: kind for kind in FrameType}
# A plain number is packed twice as fast as a member of the enumeration.
_REQUEST_TYPE, _RESPONSE_TYPE, _ITEM_TYPE, _CREDIT_TYPE = map(
    int, (FrameType.REQUEST, FrameType.RESPONSE, FrameType.ITEM, FrameType.CREDIT)
)
_EXTENSIONS = 0x80


class Frame(NamedTuple):
    """One frame as it came; ``payload`` is a view of the message."""

    type: FrameType
    flags: int
    call: int
    payload: memoryview


class HelloLimits(Struct, frozen=True, omit_defaults=True):
    """What the sender of a ``hello`` takes; sizes in bytes."""

    body: Annotated[int, Meta(ge=0, le=2**31)]
    calls: Annotated[int, Meta(ge=1, le=2**20)]
    incomplete: Annotated[int, Meta(ge=0, le=2**31)]
    stream: Annotated[int, Meta(ge=MIN_CREDIT, le=MAX_CREDIT)]
    link: Annotated[int, Meta(ge=MIN_CREDIT, le=MAX_CREDIT)]


class HelloBody(Struct, frozen=True, omit_defaults=True):
    """The JSON part of ``hello``. Unknown fields are ignored."""

    version: int
    limits: HelloLimits
    features: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=32)] = []
    agent: Annotated[str, Meta(max_length=128)] = ""


class ErrorBody(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Why a call failed: a code of the error table, a sentence, and the id under which the callee logged it."""

    code: Annotated[str, Meta(min_length=1, max_length=32)]
    message: Annotated[str, Meta(max_length=4000)] = ""
    call_id: Annotated[str, Meta(max_length=64)] | None = None
    retry_after: Annotated[float, Meta(ge=0)] | None = None


# -- frames ------------------------------------------------------------------------------------------------------------


def encode(kind: FrameType, call: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """One frame."""
    return _HEADER.pack(kind, flags, len(payload), call) + payload


def header(kind: FrameType, call: int, length: int) -> bytes:
    """What stands before a payload of that length."""
    return _HEADER.pack(kind, 0, length, call)


def split(message: bytes) -> list[tuple[int, int, int, memoryview]]:
    """
    The frames of a message as (type, flags, call, payload); those of unknown extension types are left out.

    Raises:
        RemoteProtocolError: the message is empty or too long, a frame does not end with it, or a type is unknown.
    """
    size = len(message)
    if not size or size > MAX_RECEIVED_MESSAGE:
        raise RemoteProtocolError(f"a message has 1 to {MAX_RECEIVED_MESSAGE} bytes, not {size}")
    view = memoryview(message)
    found = []
    position = 0
    while position < size:
        start = position + HEADER_SIZE
        if start > size:
            raise RemoteProtocolError("a message ends inside a frame header")
        kind, flags, length, call = _HEADER.unpack_from(message, position)
        position = start + length
        if position > size:
            raise RemoteProtocolError("a message ends inside a frame")
        if kind in _TYPES:
            found.append((kind, flags, call, view[start:position]))
        elif kind < _EXTENSIONS:
            raise RemoteProtocolError(f"unknown frame type 0x{kind:02x}")
    return found


def decode(message: bytes) -> list[Frame]:
    """
    The same as :class:`Frame` objects, for whoever is not in a hurry.

    Raises:
        RemoteProtocolError: as :func:`split`.
    """
    return [Frame(_TYPES[kind], flags, call, payload) for kind, flags, call, payload in split(message)]


# -- payloads ----------------------------------------------------------------------------------------------------------


def encode_hello(proof: bytes, body: HelloBody) -> bytes:
    """The first frame of each side."""
    return encode(FrameType.HELLO, 0, proof + msgspec.json.encode(body))


def decode_hello(payload: memoryview) -> tuple[bytes, bytes]:
    """The proof, and the JSON that must not be looked at before the proof is accepted."""
    if len(payload) <= PROOF_SIZE:
        raise RemoteProtocolError("hello is too short")
    return bytes(payload[:PROOF_SIZE]), bytes(payload[PROOF_SIZE:])


def decode_hello_body(data: bytes) -> HelloBody:
    """
    What the other side takes and can do.

    Raises:
        RemoteProtocolError: it is malformed, or of another version of this protocol.
    """
    body = _decode_struct(data, HelloBody)
    if body.version != VERSION:
        raise RemoteProtocolError(f"the other side speaks version {body.version}, this one {VERSION}")
    if body.limits.incomplete < body.limits.body:
        raise RemoteProtocolError("hello takes bodies that are longer than what it holds of them")
    return body


def encode_goaway(last: int, reason: str) -> bytes:
    """No call after ``last`` is accepted; those under way are finished."""
    return encode(FrameType.GOAWAY, 0, _NUMBER.pack(last) + reason.encode())


def decode_goaway(payload: memoryview) -> tuple[int, str]:
    """The last call accepted, and why the link ends."""
    if not _NUMBER.size <= len(payload) <= _NUMBER.size + 64:
        raise RemoteProtocolError("goaway has the wrong length")
    return _NUMBER.unpack_from(payload)[0], _text(payload[_NUMBER.size :])


def encode_hold(holding: bool) -> bytes:
    """Whether this side wants the link kept while nothing uses it."""
    return encode(FrameType.HOLD, 0, b"\x01" if holding else b"\x00")


def decode_hold(payload: memoryview) -> bool:
    """Whether the other side holds the link."""
    if len(payload) != 1 or payload[0] > 1:
        raise RemoteProtocolError("hold is one byte, 0 or 1")
    return payload[0] == 1


def encode_request(call: int, module: bytes, time_left: float, length: int, first: bytes, flags: int = 0) -> bytes:
    """
    The frame that opens a call.

    Args:
        module: name of the module, in UTF-8, at most 200 bytes.
        time_left: seconds until the deadline.
        length: length of the whole body; what ``first`` does not hold follows in ``BODY`` frames.
        flags: ``FLAG_RAW``, ``FLAG_STREAM``, ``FLAG_TAKES_STREAM``.
    """
    milliseconds = max(0, min(int(time_left * 1000), 0xFFFFFFFF))
    size = _REQUEST.size + len(module) + len(first)
    head = _REQUEST_FRAME.pack(_REQUEST_TYPE, flags, size, call, milliseconds, length, len(module))
    return head + module + first


def decode_request(payload: memoryview) -> tuple[str, int, int, memoryview]:
    """What opens a call: module name, milliseconds left, length of the body, and its first bytes."""
    if len(payload) < _REQUEST.size:
        raise RemoteProtocolError("request is too short")
    milliseconds, length, name_length = _REQUEST.unpack_from(payload)
    first = _REQUEST.size + name_length
    if not 0 < name_length <= MAX_MODULE_NAME or len(payload) < first:
        raise RemoteProtocolError("request has no proper module name")
    if len(payload) - first > length:
        raise RemoteProtocolError("request holds more than the length it declares")
    return _text(payload[_REQUEST.size : first]), milliseconds, length, payload[first:]


def encode_response(call: int, length: int, first: bytes, flags: int = 0) -> bytes:
    """The frame that begins an answer; ``flags`` are ``FLAG_RAW`` or ``FLAG_STREAM``."""
    return _NUMBER_FRAME.pack(_RESPONSE_TYPE, flags, _NUMBER.size + len(first), call, length) + first


def decode_response(payload: memoryview) -> tuple[int, memoryview]:
    """Length of the answer's body, and its first bytes."""
    if len(payload) < _NUMBER.size:
        raise RemoteProtocolError("response is too short")
    length: int = _NUMBER.unpack_from(payload)[0]
    if len(payload) - _NUMBER.size > length:
        raise RemoteProtocolError("response holds more than the length it declares")
    return length, payload[_NUMBER.size :]


def encode_error(call: int, body: ErrorBody) -> bytes:
    """The frame that ends a call without a result."""
    return encode(FrameType.ERROR, call, msgspec.json.encode(body))


def decode_error(payload: memoryview) -> ErrorBody:
    """What the callee says of the failure."""
    return _decode_struct(payload, ErrorBody)


def item_head(call: int, length: int, first: int, flags: int) -> bytes:
    """What stands before the ``first`` bytes, of ``length``, of an item; the rest follows in ``PART`` frames."""
    return _NUMBER_FRAME.pack(_ITEM_TYPE, flags, _NUMBER.size + first, call, length)


def decode_item(payload: memoryview) -> tuple[int, memoryview]:
    """Length of the item, and its first bytes."""
    if len(payload) < _NUMBER.size:
        raise RemoteProtocolError("item is too short")
    length: int = _NUMBER.unpack_from(payload)[0]
    if length > MAX_ITEM:
        raise RemoteProtocolError(f"an item has at most {MAX_ITEM} bytes, not {length}")
    if len(payload) - _NUMBER.size > length:
        raise RemoteProtocolError("item holds more than the length it declares")
    return length, payload[_NUMBER.size :]


def encode_credit(call: int, credit: int) -> bytes:
    """So many bytes more may be sent: in the other side's stream of that call, or on the link (call 0)."""
    return _NUMBER_FRAME.pack(_CREDIT_TYPE, 0, _NUMBER.size, call, credit)


def decode_credit(payload: memoryview) -> int:
    """The bytes by which a credit grows."""
    if len(payload) != _NUMBER.size:
        raise RemoteProtocolError("credit has the wrong length")
    credit: int = _NUMBER.unpack(payload)[0]
    if not credit:
        raise RemoteProtocolError("a credit of nothing")
    return credit


# -- bodies ------------------------------------------------------------------------------------------------------------


def encode_body(value: Any) -> tuple[bytes, bool]:
    """
    The body of a request or response: its bytes, and whether they are raw rather than JSON.

    Raises:
        TypeError: the value is neither bytes nor made of what JSON has.
        ValueError: the value holds an integer or text that JSON cannot carry, or nests deeper than 64. (NaN and
            infinity become ``null``.)
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), True
    try:
        body = _JSON_ENCODER.encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ValueError(f"cannot be JSON: {error}") from error
    if len(body) > MAX_JSON_DEPTH:
        check_json_depth(body)
    return body, False


def decode_body(data: bytes, raw: bool) -> Any:
    """
    The value of a body.

    Raises:
        ValueError: it is not JSON, or nested deeper than 64.
    """
    if raw:
        return data
    if len(data) > MAX_JSON_DEPTH:
        check_json_depth(data)
    return _JSON_DECODER.decode(data)


def check_json_depth(data: bytes) -> None:
    """
    Refuse JSON that nests deeper than 64, or has more than 262,144 brackets, before anything recursive parses it.

    Raises:
        ValueError: it does.
    """
    # Counting is one pass in C and clears nearly every body; only a body with many brackets is walked.
    opened = data.count(b"[") + data.count(b"{")
    if opened <= MAX_JSON_DEPTH:
        return
    if opened > MAX_JSON_BRACKETS:
        raise ValueError(f"more than {MAX_JSON_BRACKETS} arrays and objects")
    depth = 0
    for match in _JSON_NESTING.finditer(data):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > MAX_JSON_DEPTH:
                raise ValueError(f"nested deeper than {MAX_JSON_DEPTH}")
        elif token in (b"]", b"}"):
            depth -= 1


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # a pydantic model, which the wire must not import
    if dump is None:
        raise TypeError(f"{type(value).__name__} is neither bytes nor JSON")
    return dump(mode="json")


_JSON_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_JSON_DECODER = msgspec.json.Decoder()
# Strings are matched whole, so that brackets inside them do not count.
_JSON_NESTING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _decode_struct(payload: memoryview | bytes, kind: type[_S]) -> _S:
    try:
        check_json_depth(bytes(payload))
        return msgspec.json.decode(payload, type=kind)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"malformed {kind.__name__}: {error}") from error


def _text(payload: memoryview) -> str:
    try:
        return str(payload, "utf-8")
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("text is not UTF-8") from error
