"""The short way of relayed messages: it takes only what the long way takes, and makes the same of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import BadMessage, BoneValueError
from bonevalue.wire.keys import from_base64url, to_base64url
from bonevalue.wire.signals import (
    MAX_MESSAGE,
    Binary,
    Failure,
    PeerCandidate,
    PeerRequest,
    PeerResponse,
    decode,
    encode,
)
from bonevalue_server.relayed import Relayed, message_of, parse, plain_of

SESSION, SIGNATURE = Binary(bytes(16)), Binary(bytes(64))
PLAIN: list[Relayed] = [
    PeerRequest("123", None, Binary(b"an offer"), SIGNATURE),
    PeerRequest("123", "456", Binary(b"x"), SIGNATURE),
    PeerResponse("123", None, Binary(b"an answer"), SIGNATURE),
    PeerCandidate("123", None, SESSION, "candidate:1 1 udp 1 192.0.2.7 9 typ höst"),
]


@pytest.mark.parametrize("ref", [None, "7"])
@pytest.mark.parametrize("message", PLAIN)
def test_what_is_written_plainly_goes_the_short_way(message: Relayed, ref: str | None) -> None:
    plain = parse(encode(message, ref))
    assert plain is not None and plain.ref == ref
    plain.check()
    assert message_of(plain) == message
    assert plain_of(message).data == plain.data


FIELDS = {"to": "123", "offer": "eHg", "signature": to_base64url(SIGNATURE)}


def text(*pairs: tuple[str, Any], **envelope: Any) -> str:
    """A request with these fields, in that order, as often as they stand there."""
    data = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs)
    rest = "".join(f",{json.dumps(key)}:{json.dumps(value)}" for key, value in envelope.items())
    return f'{{"type":"peerRequest","data":{{{data}}}{rest}}}'


@pytest.mark.parametrize(
    "odd",
    [
        text(*FIELDS.items(), ("offer", "eHg")),
        text(*FIELDS.items(), ("extra", 1)),
        text(*FIELDS.items(), ("from", None)),
        text(*FIELDS.items(), ref=None),
        text(*FIELDS.items(), extra=1),
        text(("to", "123"), ("offer", "eHg"), ("offer", "eHg")),
        text(("to", "123"), ("offer", "eHg"), ("extra", "eHg")),
        text(*FIELDS.items()).replace('"to"', '"t\\u006f"'),
        text(*FIELDS.items()).replace('"123"', "123"),
        text(*FIELDS.items()) + " " * MAX_MESSAGE,
        text(*FIELDS.items()) + "x",
        encode(PeerResponse("123", None, session=SESSION, error=Failure("busy"))),
        '{"type":"login","data":{"username":"alice"}}',
        '{"type":"userList","data":["Us"]}',
        "",
        "[]",
    ],
)
def test_everything_else_goes_the_long_way(odd: str) -> None:
    assert parse(odd) is None


VALUES = st.one_of(
    st.sampled_from(["123", "eHg", "eHh", "e+g", "eHg=", to_base64url(SIGNATURE), to_base64url(SESSION), "", "höst"]),
    st.none(),
    st.integers(),
    st.dictionaries(st.sampled_from(["code", "message"]), st.just("busy")),
)
KEYS = st.sampled_from(["to", "from", "offer", "answer", "signature", "session", "candidate", "error", "extra"])


@given(
    kind=st.sampled_from(["peerRequest", "peerResponse", "peerCandidate"]),
    pairs=st.lists(st.tuples(KEYS, VALUES), max_size=6),
    ref=st.one_of(st.just(""), st.just(',"ref":"7"'), st.just(',"ref":null')),
    escape=st.booleans(),
)
def test_what_goes_the_short_way_would_have_come_through_on_the_long_one(
    kind: str, pairs: list[tuple[str, Any]], ref: str, escape: bool
) -> None:
    data = ",".join(f"{json.dumps(key)}:{json.dumps(value, ensure_ascii=escape)}" for key, value in pairs)
    message = f'{{"type":"{kind}","data":{{{data}}}{ref}}}'
    plain = parse(message)
    if plain is None:
        return
    try:
        plain.check()
    except BoneValueError:
        return
    signal = decode(message, "client")
    assert message_of(plain) == signal.data
    assert plain.ref == signal.ref


@pytest.mark.parametrize(("blob", "good"), [(b"x", "eA"), (b"xx", "eHg"), (b"xxx", "eHh4")])
def test_base64url_has_one_way_to_write_each_value(blob: bytes, good: str) -> None:
    assert to_base64url(blob) == good
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=":
        written = good[:-1] + last
        plain = parse(text(("to", "1"), ("offer", written), ("signature", FIELDS["signature"])))
        assert plain is not None
        try:
            from_base64url(written)
        except ValueError:
            with pytest.raises(BadMessage):
                plain.check()
        else:
            plain.check()
