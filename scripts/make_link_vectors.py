"""
Write tests/vectors/links.json: whole links, as transcripts of what both sides do, send and report.

A transcript is a list of steps on the call tables of the two sides (0 made the offer), in order. Each step says what is
done to one table at a moment, and what must come of it: messages in hexadecimal, events, a failure. Runs of 16 bytes
and more of one kind are written ``[xx*count]``. The message of an error is for people: those that a table makes are
left out. Most transcripts come from seeds, so that they try what nobody has thought of.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bonevalue.wire import frames
from bonevalue.wire.frames import FLAG_RAW, FLAG_STREAM, ErrorBody, FrameType, HelloBody, HelloLimits
from scripts.link_transcript import MEBIBYTE, PROOFS, Transcript, opened

TARGET = Path(__file__).parent.parent / "tests" / "vectors" / "links.json"
#: Settings of a side that takes little.
SMALL = {"maxBody": 100_000, "maxCalls": 3, "maxIncomplete": 150_000}


# -- what is played ----------------------------------------------------------------------------------------------------


def calls() -> Transcript:
    """Bodies of all sizes both ways, small ones beside long ones."""
    link = opened("calls", {"agent": "one/1"}, {"agent": "other/2"})
    for size in (0, 1, 4096, 4097, 16_384, 70_000):
        for side in (0, 1):
            name = f"{size} of {side}"
            link.call(side, name, b"a" * (size // 2) + b"b" * (size - size // 2), raw=size % 2 == 0)
            link.exchange()
            number = max(link.received[1 - side])
            link.reply(1 - side, number, b"c" * size, raw=True)
            link.exchange(20_000)
    link.call(0, "long", b"x" * 200_000)
    link.send(0, 40_000)
    link.call(0, "short", b"y")
    link.call(0, "also long", b"z" * 50_000)
    link.exchange(30_000)
    link.look()
    return link


def errors() -> Transcript:
    """Failures of every kind: spoken, refused, cancelled, too late."""
    link = opened("errors", {}, SMALL)
    for number, code in enumerate(("denied", "handler_failed", "link_lost", "rate_limited")):
        link.call(0, code)
        link.exchange()
        link.fail(1, 2 * number + 1, code, call_id="5f3a", wait=2.5 if code == "rate_limited" else None)
        link.exchange()
    link.inject(0, frames.encode_hold(False))
    link.call(0, "too large", b"x" * 100_001)
    link.call(0, "slow", timeout=0.4375)
    link.call(0, "cancelled", timeout=2.0)
    link.exchange()
    link.advance(0.5)
    link.cancel(0, "cancelled")
    link.cancel(0, "cancelled")
    link.exchange()
    for number in range(5):  # more than the other side takes at once
        link.call(0, f"many {number}", timeout=3.0 + number, items=number == 4)
    link.push(0, "many 4", b"early")
    link.cancel(0, "many 3")
    link.exchange()
    link.look()
    for number in sorted(link.received[1])[-3:]:
        link.reply(1, number, b"x" * 60_000, raw=True)
        link.exchange(10_000)
    link.advance(20.0)
    link.look()
    return link


def limits() -> Transcript:
    """What a side refuses that sends more than the other takes."""
    link = opened("limits", {}, SMALL)
    big = frames.encode_request(1, b"M", 1.0, 100_001, b"", FLAG_RAW)
    link.inject(1, big)
    for number in (3, 5, 7, 9):
        link.inject(1, frames.encode_request(number, b"M", 700.0, 2, b"{}", 0))
    link.inject(1, frames.encode(FrameType.CANCEL, 3))
    link.inject(1, frames.encode_request(11, b"M", 1.0, 100_000, b"x" * 5000, FLAG_RAW))
    link.inject(1, frames.encode(FrameType.CANCEL, 5))
    link.inject(1, frames.encode_request(13, b"M", 1.0, 60_000, b"x", FLAG_RAW))  # more than may be incomplete
    link.send(1)
    link.look()
    return link


def streams() -> Transcript:
    """Streams both ways, with their credit."""
    link = opened("streams")
    link.call(0, "up", items=True, takes_stream=True)
    link.push(0, "up", b"x" * 20_000, raw=True)
    link.exchange()
    link.begin(1, 1)
    for number in range(6):
        link.push(0, "up", b"u" * (100_000 * number), raw=number % 2 == 1)
        link.push(1, 1, b"d" * (90_000 * number + 1))
    link.exchange(50_000)
    link.push(0, "up", b"x" * (frames.MAX_ITEM + 1))
    for _ in range(40):
        for side, of in ((1, 1), (0, "up")):
            items = link.incoming(side, of)
            if items is not None and len(items):
                link.take(side, of)
        link.exchange(30_000)
    link.end_items(0, "up")
    link.exchange()
    link.look()
    link.end(1, 1)
    link.exchange()
    link.look()
    return link


def shares() -> Transcript:
    """How streams share the credit of a link: those that nobody reads leave some for those that are read."""
    link = opened("shares of credit", {"linkCredit": MEBIBYTE}, {"linkCredit": MEBIBYTE})
    for number in range(12):  # each sends what it may before anything of it is taken
        link.call(0, f"unread {number}", items=True)
        for size in (30_000, 30_000, 5_000, 5_000):
            link.push(0, f"unread {number}", b"u" * size, raw=True)
    link.exchange()
    link.look()
    link.call(0, "read", items=True)
    for _ in range(30):
        link.push(0, "read", b"r" * 40_000, raw=True)
    link.exchange()
    read = link.received[1][25]
    for _ in range(40):
        assert read.items is not None
        if len(read.items):
            link.take(1, 25)
            link.exchange()
    link.take(1, 1)  # one of those that were not read is
    link.exchange()
    for _ in range(10):
        link.push(0, "unread 0", b"v" * 100_000, raw=True)
        link.exchange()
    for _ in range(8):
        items = link.incoming(1, 1)
        if items is not None and len(items):
            link.take(1, 1)
            link.exchange()
    link.look()
    return link


def broken_off() -> Transcript:
    """Streams that end before their end."""
    link = opened("streams that break off")
    for how in ("error", "cancel", "dropped", "reply", "closed"):
        link.call(0, how, items=True, takes_stream=how != "reply")
        link.push(0, how, b"one")
        link.exchange()
        number = max(link.received[1])
        if how != "reply":
            link.begin(1, number)
            link.push(1, number, b"a")
            link.push(1, number, b"b" * 100_000)
            link.exchange(30_000)
            link.send(1, 20_000)
            link.deliver(0)
        match how:
            case "error":
                link.fail(1, number, "handler_failed", call_id="77")
            case "cancel":
                link.cancel(0, how)
            case "dropped":
                link.drop(0, how)
                link.drop(1, number)
            case "reply":
                link.reply(1, number, b"done")
            case _:
                link.close(0)
                link.close(1)
        link.exchange()
        link.look()
    return link


def draining() -> Transcript:
    """A link that is drained while calls are on it."""
    link = opened("draining", {}, {"maxCalls": 2})
    link.hold(1, True)
    link.hold(0, False)
    for name in ("first", "second", "waiting"):
        link.call(0, name)
    link.call(1, "back")
    link.exchange()
    link.call(0, "crossing")
    link.cancel(0, "first")
    link.send(0)
    link.goaway(1, "stopping")
    link.exchange()
    link.look()
    link.reply(1, 3, b"x" * 30_000)
    link.exchange()
    link.reply(0, 2, b"y")
    link.exchange()
    link.look()
    return link


def fence() -> Transcript:
    """A drained link whose last ping is not answered."""
    link = opened("last ping")
    link.goaway(0, "idle")
    link.send(0)
    link.now += 8.0
    link.acknowledged(0)
    link.look()
    link.now += 8.0
    link.timer(0)
    link.now += 4.0
    link.timer(0)
    return link


def heartbeats() -> Transcript:
    """Pings, and silence."""
    link = opened("heartbeat", {"heartbeat": 2.0}, {"heartbeat": 2.0})
    link.hold(0, False)
    link.ping(1)
    link.advance(9.25)
    link.look()
    for _ in range(4):
        link.now += 1.75
        link.timer(0)
        link.send(0)
    link.now += 10.0
    link.timer(1)
    link.look()
    return link


def silence() -> Transcript:
    """A proof that does not come."""
    link = Transcript("silence")
    link.send(0)
    link.now += 9.5
    link.timer(0)
    link.now += 0.5
    link.timer(0)
    return link


def wrong_proof() -> Transcript:
    """A proof that is wrong, before JSON that nobody may look at."""
    link = Transcript("wrong proof")
    link.inject(0, frames.encode(FrameType.HELLO, 0, bytes(64) + b"{not json"))
    return link


def after_hello() -> Transcript:
    """What comes in the same message as hello counts once that is proved."""
    link = Transcript("after hello")
    hello = HelloBody(1, HelloLimits(1000, 1, 1000, MEBIBYTE, MEBIBYTE), ["one", "two"], "other/1")
    request = frames.encode_request(2, b"M", 1.0, 1, b"1", 0)
    link.inject(0, frames.encode_hello(PROOFS[1], hello) + request + frames.encode_hold(True))
    link.look()
    return link


def plain_request(call: int) -> bytes:
    """A request with no body."""
    return frames.encode_request(call, b"M", 1.0, 0, b"")


def item(call: int, length: int, first: bytes = b"") -> bytes:
    """An item that begins."""
    return frames.item_head(call, length, len(first), 0) + first


def part(call: int, data: bytes) -> bytes:
    """More of it."""
    return frames.encode(FrameType.PART, call, data)


def end(call: int) -> bytes:
    """The end of a stream."""
    return frames.encode(FrameType.END, call)


def hostile() -> Iterator[Transcript]:
    """What ends a link: single messages to a table that has calls of every kind."""
    limit = HelloLimits(1000, 1, 1000, MEBIBYTE, MEBIBYTE)
    begun = frames.encode_response(1, 0, b"", FLAG_STREAM)
    upload = frames.encode_request(2, b"M", 30.0, 0, b"", FLAG_STREAM | FLAG_RAW)
    half = frames.encode_request(2, b"M", 30.0, 5, b"1", FLAG_STREAM)
    cases: dict[str, list[bytes]] = {
        "a second hello": [frames.encode_hello(PROOFS[1], HelloBody(1, limit))],
        "a second goaway": [frames.encode_goaway(5, "x"), frames.encode_goaway(5, "x")],
        "goaway below an answer": [begun, frames.encode_goaway(0, "x")],
        "goaway in no UTF-8": [frames.encode(FrameType.GOAWAY, 0, b"\0\0\0\0\xff")],
        "pong without ping": [frames.encode(FrameType.PONG, 0, (9).to_bytes(8, "big"))],
        "pong beyond all numbers": [frames.encode(FrameType.PONG, 0, b"\xff" * 8)],
        "ping too short": [frames.encode(FrameType.PING, 0, bytes(7))],
        "ping with a call": [frames.encode(FrameType.PING, 1, bytes(8))],
        "ping with a flag": [frames.encode(FrameType.PING, 0, bytes(8), 1)],
        "hold of 2": [frames.encode(FrameType.HOLD, 0, b"\2")],
        "request without a call": [frames.encode_request(0, b"M", 1.0, 0, b"")],
        "request of our own": [frames.encode_request(7, b"M", 1.0, 0, b"")],
        "request with an unknown flag": [frames.encode_request(2, b"M", 1.0, 0, b"", 8)],
        "request out of order": [plain_request(4), plain_request(2)],
        "module in no UTF-8": [frames.encode_request(2, b"\xff", 1.0, 0, b"")],
        "response to a call never made": [frames.encode_response(7, 0, b"")],
        "a second response": [frames.encode_response(3, 5, b"1"), frames.encode_response(3, 5, b"1")],
        "response with an unknown flag": [frames.encode_response(3, 0, b"", 4)],
        "stream that was not asked for": [frames.encode_response(3, 0, b"", FLAG_STREAM)],
        "stream with a body": [frames.encode_response(1, 3, b"xxx", FLAG_STREAM)],
        "stream that is raw": [frames.encode_response(1, 0, b"", FLAG_STREAM | FLAG_RAW)],
        "body before its response": [frames.encode(FrameType.BODY, 3, b"x")],
        "body that is empty": [frames.encode_response(3, 5, b"1"), frames.encode(FrameType.BODY, 3)],
        "body that is too long": [frames.encode_response(3, 5, b"1"), frames.encode(FrameType.BODY, 3, b"12345")],
        "body of a request that is there": [upload, frames.encode(FrameType.BODY, 2, b"x")],
        "error in no JSON": [frames.encode(FrameType.ERROR, 3, b"{")],
        "error that is a list": [frames.encode(FrameType.ERROR, 3, b"[]")],
        "error with a long code": [frames.encode_error(3, ErrorBody("x" * 33))],
        "error that nests deep": [
            frames.encode(FrameType.ERROR, 3, b'{"code":"no","x":' + b"[" * 64 + b"]" * 64 + b"}")
        ],
        "cancel of our own call": [frames.encode(FrameType.CANCEL, 1)],
        "cancel with a payload": [plain_request(2), frames.encode(FrameType.CANCEL, 2, b"x")],
        "cancel of a call never made": [frames.encode(FrameType.CANCEL, 2)],
        "item before the answer": [item(1, 0)],
        "item of a call without items": [plain_request(2), item(2, 0)],
        "item before the body": [half, item(2, 0)],
        "item in the middle of another": [begun, item(1, 3, b"x"), item(1, 0)],
        "item that is too long": [begun, item(1, frames.MAX_ITEM + 1)],
        "item after the end": [upload, end(2), item(2, 0)],
        "items beyond the credit": [begun, item(1, frames.MAX_ITEM), part(1, b"x" * 60_000)] + [
            part(1, b"x" * 60_000)] * 7 + [part(1, b"x" * (frames.MAX_ITEM - 480_000)), item(1, frames.MAX_ITEM)],
        "part of nothing": [begun, item(1, 3, b"x"), part(1, b"")],
        "part before an item": [begun, part(1, b"x")],
        "part beyond its item": [begun, item(1, 3, b"x"), part(1, b"xxx")],
        "end in the middle of an item": [begun, item(1, 3, b"x"), end(1)],
        "a second end": [upload, end(2), end(2)],
        "end with a payload": [upload, frames.encode(FrameType.END, 2, b"x")],
        "credit of nothing": [frames.encode_credit(0, 0)],
        "credit beyond the most": [frames.encode_credit(0, frames.MAX_CREDIT)],
        "credit for a stream beyond the most": [frames.encode_credit(5, frames.MAX_CREDIT)],
        "credit for a call without a stream": [frames.encode_credit(1, 5)],
        "credit for a call never made": [frames.encode_credit(7, 5)],
        "an unknown type": [bytes([0x7F]) + bytes(7)],
        "half a frame": [frames.encode_hold(True)[:-1]],
        "too long a message": [bytes([0x80, 0, 0xFF, 0xF8, 0, 0, 0, 0]) + bytes(65_528) + b"\x05"],
    }  # fmt: skip
    for name, messages in cases.items():
        link = opened(f"hostile: {name}")
        link.call(0, "takes a stream", takes_stream=True)
        link.call(0, "plain")
        link.call(0, "sends items", items=True)
        link.send(0)
        for message in messages:
            assert not link.is_broken, name
            link.inject(0, message)
        assert link.is_broken, name
        link.close(0)
        yield link


def hostile_hellos() -> Iterator[Transcript]:
    """First messages that end the link."""
    good = {"body": 1000, "calls": 1, "incomplete": 1000, "stream": MEBIBYTE, "link": MEBIBYTE}
    bodies: dict[str, Any] = {
        "version 2": {"version": 2, "limits": good},
        "no limits": {"version": 1},
        "too little credit": {"version": 1, "limits": {**good, "stream": MEBIBYTE - 1}},
        "too much credit": {"version": 1, "limits": {**good, "link": 2**31}},
        "bodies longer than it holds": {"version": 1, "limits": {**good, "body": 1001}},
        "no calls": {"version": 1, "limits": {**good, "calls": 0}},
        "a limit that is a text": {"version": 1, "limits": {**good, "calls": "1"}},
        "a long agent": {"version": 1, "limits": good, "agent": "x" * 129},
        "many features": {"version": 1, "limits": good, "features": ["x"] * 33},
        "features that are numbers": {"version": 1, "limits": good, "features": [1]},
        "a list": [],
        "null": None,
    }
    first = {
        name: frames.encode(FrameType.HELLO, 0, PROOFS[1] + json.dumps(body).encode()) for name, body in bodies.items()
    }
    first["hold first"] = frames.encode_hold(True)
    first["hello with a call"] = frames.encode(FrameType.HELLO, 1, bytes(70))
    first["hello with a flag"] = frames.encode(FrameType.HELLO, 0, bytes(70), 1)
    first["hello with a byte order mark"] = frames.encode(FrameType.HELLO, 0, PROOFS[1] + b"\xef\xbb\xbf{}")
    for name, message in first.items():
        link = Transcript(f"first message: {name}")
        link.inject(0, message)
        assert link.is_broken, name
        yield link


# -- what nobody has thought of ----------------------------------------------------------------------------------------


class Dice:
    """
    Plays a link at random, within the rules.

    Args:
        seed: whatever is drawn depends on nothing else.
        steps: how many.
    """

    def __init__(self, seed: int, steps: int) -> None:
        self._random = random.Random(seed)
        rich = {"streamCredit": MEBIBYTE, "linkCredit": 2 * MEBIBYTE}
        self.link = opened(f"random {seed}", rich if seed % 2 else {}, SMALL | rich if seed % 3 == 0 else {})
        self._calls = 0
        for _ in range(steps):
            if self.link.is_broken:
                break
            self._play(self._random.randrange(2))
        if not self.link.is_broken:
            self.link.exchange(40_000)
            self.link.look()
        for side in (0, 1):
            self.link.close(side)
        self.link.look()

    def _play(self, side: int) -> None:
        link, draw = self.link, self._random
        link.now += draw.choice((0.0, 0.0, 0.0, 0.0625, 0.25))
        made = [name for name, call in link.made[side].items() if call.id]
        ours = [name for name in made if link.made[side][name].items is not None]
        theirs = list(link.received[side])
        streams = [number for number in theirs if link.received[side][number].answer is not None]
        calls: list[str | int] = [*made, *theirs]
        arriving = [of for of in calls if (items := link.incoming(side, of)) is not None and len(items)]
        match draw.randrange(15):
            case 0 | 1:
                self._call(side)
            case 2 if theirs:
                self._answer(side, draw.choice(theirs))
            case 3 if ours:
                link.push(side, draw.choice(ours), self._body(draw.choice((10, 3_000, 200_000))), raw=True)
            case 4 if streams:
                link.push(side, draw.choice(streams), self._body(draw.choice((0, 3_000, 200_000))), raw=True)
            case 5 | 6 if arriving:
                link.take(side, draw.choice(arriving))
            case 7 if ours:
                link.end_items(side, draw.choice(ours))
            case 8 if streams:
                link.end(side, draw.choice(streams))
            case 9 if made and draw.random() < 0.5:
                link.cancel(side, draw.choice(made))
            case 10 if draw.random() < 0.1:
                link.goaway(side, "stopping")
            case 11:
                link.hold(side, draw.random() < 0.5)
            case 12:
                link.look()
            case _:
                link.send(side, draw.choice((0, 5_000, 20_000, 100_000)))
                while draw.random() < 0.8 and not link.is_broken and link.deliver(1 - side):
                    pass
        due = link.tables[side].timer()
        if due is not None and due <= link.now:
            link.timer(side)

    def _call(self, side: int) -> None:
        if not self.link.tables[side].accepting:
            return
        self._calls += 1  # no two calls are due together: which of those comes first is nobody's business
        self.link.call(
            side, f"call {self._calls}",
            self._body(self._random.choice((0, 5, 4_000, 5_000, 60_000, 120_000))), raw=True,
            timeout=self._random.choice((1.0, 5.0, 20.0)) + self._calls * 0.125,
            items=self._random.random() < 0.4, takes_stream=self._random.random() < 0.5,
        )  # fmt: skip

    def _answer(self, side: int, number: int) -> None:
        received = self.link.received[side][number]
        what = self._random.randrange(4)
        if received.answer is not None:
            if what == 0:
                self.link.fail(side, number, "busy", wait=1.5)
        elif what == 0:
            self.link.fail(side, number, "handler_failed", call_id="abc")
        elif what == 1 and received.takes_stream:
            self.link.begin(side, number)
        else:
            self.link.reply(side, number, self._body(self._random.choice((0, 100, 5_000, 50_000))), raw=True)

    def _body(self, size: int) -> bytes:
        if not size:
            return b""
        size = self._random.randrange(size // 2, size + 1)
        cut = self._random.randrange(size + 1)
        return bytes([self._random.randrange(1, 256)]) * cut + bytes([self._random.randrange(1, 256)]) * (size - cut)


def transcripts() -> list[dict[str, Any]]:
    """All of them."""
    written = (
        calls, errors, limits, streams, shares, broken_off, draining, fence, heartbeats, silence, wrong_proof,
        after_hello,
    )  # fmt: skip
    drawn = [Dice(seed, 150).link for seed in range(12)]
    played = [*(play() for play in written), *hostile(), *hostile_hellos(), *drawn]
    return [transcript.record for transcript in played]


def text(made: list[dict[str, Any]]) -> str:
    """The file: one step a line, so that changes can be read."""
    whole = []
    for transcript in made:
        steps = ",\n ".join(json.dumps(step, separators=(",", ":")) for step in transcript["steps"])
        head = json.dumps({key: value for key, value in transcript.items() if key != "steps"})
        whole.append(f'{head[:-1]}, "steps": [\n {steps}]}}')
    return "[" + ",\n".join(whole) + "]\n"


def main() -> None:
    """Write the file."""
    TARGET.write_text(text(transcripts()))


if __name__ == "__main__":
    main()
