"""Write tests/vectors/signals.json: what a server says and what is refused, for readers in any language."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bonevalue.errors import BadMessage, UnknownType
from bonevalue.wire.signals import SIGNALS, decode, encode
from scripts.make_session_vectors import OF_EACH_TYPE
from scripts.session_record import hello, plain

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "signals.json"

CERTIFICATE = {"blob": "AAAA", "signatures": ["AAAA"]}
CONTACT = {"name": "bob", "publicKey": "AAAA", "certificates": [CERTIFICATE]}
GREETING: dict[str, Any] = plain(hello())

#: Texts that are no messages, and some that only look so.
TEXTS = [
    "", "{", "[]", "7", "null", '"hello"', "{}", '{"type":7}', '{"type":"done"}', ' {"type":"done"} ',
    "\ufeff" + '{"type":"done"}', '{"type":"done","data":null,"ref":null}', '{"type":"done","ref":"17"}',
    '{"type":"done","ref":17}', f'{{"type":"done","ref":"{"r" * 64}"}}', f'{{"type":"done","ref":"{"r" * 65}"}}',
    '{"type":"done","type":"done"}', '{"type":"done","data":{"a":1,"a":1}}',
    '{"type":"done","data":{"a":{},"b":{"a":1}}}', '{"type":"done","data":{"a":":","b":"\\":\\"","c\\\\":1}}',
    '{"type":"done","data":{"a":NaN}}', '{"type":"done","data":{"a":Infinity}}', '{"type":"done","data":{"a":1e999}}',
    '{"type":"done","data":{"a":01}}', '{"type":"done","data":{"a":"\\ud800"}}',
    '{"type":"done","data":{"a":"\\ud83d\\ude00"}}', '{"type":"done","data":{"a":"\x01"}}', '{"type":"done",}',
    '{"type":"done"} x', "{'type':'done'}", "[" * 2000, '{"a":' * 1000, '{"type":"","data":{}}',
    '{"type":"Hello","data":{}}', '{"type":"toString","data":{}}', '{"type":"__proto__","data":{}}',
    '{"type":"done","data":{"__proto__":{"a":1}}}', '{"type":"error","data":{"__proto__":{"code":"busy"}}}',
]  # fmt: skip

#: Data for types of messages.
DATA: dict[str, list[Any]] = {
    "done": [
        *({f"k{number}": 1 for number in range(count)} for count in (64, 65)),
        *({"a": json.loads("[" * depth + "]" * depth)} for depth in (5, 6, 7, 8, 9)),
    ],
    "error": [
        {"code": "busy", "retryAfter": None}, {"code": "busy", "retryAfter": 2}, {"code": "busy", "retryAfter": "2"},
        {"code": "busy", "message": None}, {"message": "x"}, {"code": "busy", "unknown": [1]},
    ],
    "hello": [
        *({**GREETING, "version": value} for value in (1.5, "1", True)),  # 1.0 is 1 in JavaScript
        *({**GREETING, "challenge": value} for value in ("A", "A=", "AB", "A+", 7, "")),
        *({**GREETING, "time": value} for value in (-1, 0, 2**53, 2**53 + 2)),
        *({**GREETING, "tokenLifetime": value} for value in (31_536_000, 31_536_001)),
        {**GREETING, "registration": "Open"}, {**GREETING, "realm": None},
    ],
    "peerDisconnect": ["0", "007", "9" * 15, "9" * 16, "-1", "1 ", "1\n", "\u0661"],
    "peerList": [
        {"peers": [], "more": True}, {"peers": [], "more": None}, {"peers": [], "more": 1},
        {"peers": [{"name": "n" * 64, "id": "1"}]}, {"peers": [{"name": "n" * 65, "id": "1"}]},
    ],
    "contacts": [{"contacts": [{**CONTACT, "certificates": [CERTIFICATE] * count}]} for count in (0, 1, 64, 65)],
    "userAdd": [
        {"name": "bob", "contact": {**CONTACT, "certificates": [{"blob": "AAAA", "signatures": ["AA"] * count}]}}
        for count in (0, 1, 2, 3)
    ],
    "userRemove": [{"name": "bob", "remove": None}, {"name": "bob", "remove": CERTIFICATE}],
    "iceServers": [
        [{"urls": ["stun:a"], "username": None, "credential": "c", "expires": 5}], [{"urls": []}] * 32,
        [{"urls": []}] * 33, [{"urls": ["u"] * 17}], [{"urls": ["u" * 512]}], [{"urls": ["u" * 513]}],
        [{"urls": "stun:a"}], [{"urls": [], "credential": "c" * 4096}], [{"urls": [], "credential": "c" * 4097}],
        [{"urls": [], "expires": -1}],
    ],
    "peerRequest": [{"to": "1"}, {"to": "1", "from": None}, {"to": "1", "offer": None}, {"from": "1"}],
    "peerResponse": [{"to": "1", "answer": None, "error": {"code": "busy"}}, {"to": "1", "error": "busy"}],
    "peerCandidate": [{"to": "1", "candidate": "c" * 1024}, {"to": "1", "candidate": "c" * 1025}],
    "tokenResponse": [{"expires": 2**53 + 2}, {"expires": -1}, {"expires": "1"}],
    "goodbye": [{"reason": "x", "reconnectAfter": 1e300}, {"reason": "x", "reconnectAfter": "1"}],
}  # fmt: skip
#: Data that hardly any type has.
ODD: list[Any] = [None, {}, [], "", 7, True, "7", ["a"]]


def texts() -> Iterator[str]:
    """All that is said."""
    yield from map(encode, OF_EACH_TYPE)
    yield from TEXTS
    for kind in SIGNALS:
        for data in (*ODD, *DATA.get(kind, ())):
            yield json.dumps({"type": kind, "data": data}, separators=(",", ":"))


def judged(text: str) -> dict[str, Any]:
    """What a message comes to."""
    try:
        signal = decode(text, "server")
    except (BadMessage, UnknownType) as error:
        return {"text": text, "fails": error.code}
    return {"text": text, "type": signal.type, "data": plain(signal.data), "ref": signal.ref}


def build() -> list[dict[str, Any]]:
    """The whole file."""
    return list(map(judged, texts()))


def main() -> None:
    """Write the file."""
    lines = (json.dumps(vector, ensure_ascii=True, separators=(",", ":")) for vector in build())
    TARGET.write_text("[\n" + ",\n".join(lines) + "\n]\n", "ascii")


if __name__ == "__main__":
    main()
