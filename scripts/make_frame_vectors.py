"""Write tests/vectors/frames.json: the golden bytes of every frame, for readers in any language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bonevalue.wire import frames
from bonevalue.wire.frames import FLAG_RAW, FLAG_STREAM, FLAG_TAKES_STREAM, ErrorBody, FrameType, HelloBody, HelloLimits

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "frames.json"
PROOF = bytes(range(64))
STREAMS = FLAG_STREAM | FLAG_TAKES_STREAM


def vector(name: str, encoded: bytes, **fields: Any) -> dict[str, Any]:
    """One good frame: what it is, what it means, and its bytes."""
    (frame,) = frames.decode(encoded)
    return {"name": name, "type": int(frame.type), "call": frame.call, "fields": fields, "hex": encoded.hex()}


def good() -> list[dict[str, Any]]:
    """Every type of frame, those with variants more than once."""
    limits = {"body": 8388608, "calls": 1024, "incomplete": 16777216, "stream": 1048576, "link": 1048576}
    hello = HelloBody(frames.VERSION, HelloLimits(**limits), [], "bonevalue/0.1.0")
    echo, body = b"My.Echo.Module", b'{"text":"Friday"}'
    error = ErrorBody("handler_failed", "My.Echo.Module failed", "0123456789ab")
    return [
        vector("hello", frames.encode_hello(PROOF, hello), limits=limits, features=[], agent="bonevalue/0.1.0"),
        vector("goaway", frames.encode_goaway(7, "idle"), last=7, reason="idle"),
        vector("ping", frames.encode(FrameType.PING, 0, (5).to_bytes(8, "big")), payload="0000000000000005"),
        vector("pong", frames.encode(FrameType.PONG, 0, (5).to_bytes(8, "big")), payload="0000000000000005"),
        vector("hold", frames.encode_hold(True), holding=True),
        vector("let go", frames.encode_hold(False), holding=False),
        vector(
            "request", frames.encode_request(1, echo, 30.0, len(body), body),
            module="My.Echo.Module", ms=30000, length=len(body), first=body.hex(), flags=0,
        ),
        vector(
            "request of bytes that follow", frames.encode_request(3, echo, 0.25, 100_000, b"", FLAG_RAW),
            module="My.Echo.Module", ms=250, length=100_000, first="", flags=FLAG_RAW,
        ),
        vector(
            "request with a stream, for a stream", frames.encode_request(5, echo, 30.0, 4, b"null", STREAMS),
            module="My.Echo.Module", ms=30000, length=4, first=b"null".hex(), flags=STREAMS,
        ),
        vector("response", frames.encode_response(1, 4, b"null"), length=4, first=b"null".hex(), flags=0),
        vector("empty response of bytes", frames.encode_response(2, 0, b"", FLAG_RAW), length=0, first="", flags=1),
        vector("response as a stream", frames.encode_response(5, 0, b"", FLAG_STREAM), length=0, first="", flags=2),
        vector("body", frames.encode(FrameType.BODY, 3, b"\x00\x01\x02"), payload="000102"),
        vector(
            "error", frames.encode_error(1, error),
            code="handler_failed", message="My.Echo.Module failed", callId="0123456789ab",
        ),
        vector("item", frames.item_head(5, 4, 4, 0) + b"null", length=4, first=b"null".hex(), flags=0),
        vector("item of bytes that follow", frames.item_head(5, 3, 0, FLAG_RAW), length=3, first="", flags=FLAG_RAW),
        vector("part", frames.encode(FrameType.PART, 5, b"\x00\x01\x02"), payload="000102"),
        vector("end", frames.encode(FrameType.END, 5), payload=""),
        vector("credit for a stream", frames.encode_credit(5, 262_144), credit=262_144),
        vector("credit for the link", frames.encode_credit(0, 1_048_576), credit=1_048_576),
        vector("cancel", frames.encode(FrameType.CANCEL, 3), payload=""),
    ]  # fmt: skip


def malformed() -> list[dict[str, str]]:
    """What must be refused, whatever it stands for."""
    cases = {
        "an empty message": b"",
        "half a header": bytes(7),
        "a payload cut short": frames.encode(FrameType.BODY, 1, b"abc")[:-1],
        "a second frame cut short": frames.encode_hold(True) + b"\x05",
        "type 0": bytes(8),
        "an unknown type": bytes([0x7F]) + bytes(7),
        "a hold of 2": frames.encode(FrameType.HOLD, 0, b"\x02"),
        "a hello without JSON": frames.encode(FrameType.HELLO, 0, bytes(64)),
        "a goaway too short": frames.encode(FrameType.GOAWAY, 0, b"\x00\x00\x00"),
        "a goaway not in UTF-8": frames.encode(FrameType.GOAWAY, 0, b"\x00\x00\x00\x01\xff"),
        "a request without a name": frames.encode(FrameType.REQUEST, 1, bytes(9)),
        "a request with a name too long": frames.encode(FrameType.REQUEST, 1, bytes(8) + bytes([201]) + b"m" * 201),
        "a request longer than declared": frames.encode(FrameType.REQUEST, 1, bytes(8) + b"\x01m" + b"x"),
        "a response longer than declared": frames.encode(FrameType.RESPONSE, 1, bytes(4) + b"x"),
        "an item longer than declared": frames.encode(FrameType.ITEM, 1, bytes(4) + b"x"),
        "an item longer than allowed": frames.encode(FrameType.ITEM, 1, (524_289).to_bytes(4, "big")),
        "an item too short": frames.encode(FrameType.ITEM, 1, bytes(3)),
        "a credit of nothing": frames.encode(FrameType.CREDIT, 1, bytes(4)),
        "a credit too short": frames.encode(FrameType.CREDIT, 1, b"\x00\x00\x01"),
        "an error without a code": frames.encode(FrameType.ERROR, 1, b"{}"),
        "an error that is not JSON": frames.encode(FrameType.ERROR, 1, b"{"),
        "an error with a time in the past": frames.encode(FrameType.ERROR, 1, b'{"code":"busy","retryAfter":-1}'),
    }
    return [{"name": name, "hex": message.hex()} for name, message in cases.items()]


def main() -> None:
    """Write the file."""
    TARGET.write_text(json.dumps({"frames": good(), "malformed": malformed()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
