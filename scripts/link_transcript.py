"""The record of a whole link: what is done to the call tables of both sides, and what comes of it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from itertools import groupby
from typing import Any

from bonevalue.errors import BoneValueError, TooLarge, error_of
from bonevalue.wire import frames
from bonevalue.wire.calls import CallTable, LinkSettings
from bonevalue.wire.events import (
    AnswerBegun,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallReceived,
    CallReturned,
    Drained,
    Event,
    HoldChanged,
    ItemsArrived,
    LinkOpened,
    OutgoingCall,
    PongReceived,
)
from bonevalue.wire.frames import FLAG_RAW, FLAG_STREAM, FLAG_TAKES_STREAM, FrameType
from bonevalue.wire.memory import MemoryBudget
from bonevalue.wire.streams import IncomingItems, OutgoingItems

START = 1000.0
MEBIBYTE = 2**20
PROOFS = (bytes([1]) * 64, bytes([2]) * 64)
#: Runs at least this long are written short.
RUN = 16
#: Memory of each side, in bytes.
MEMORY = 8 * MEBIBYTE
#: Names that the settings have in transcripts.
SETTINGS = {
    "maxBody": "max_body",
    "maxCalls": "max_calls",
    "maxTimeout": "max_timeout",
    "maxIncomplete": "max_incomplete",
    "streamCredit": "stream_credit",
    "linkCredit": "link_credit",
    "heartbeat": "heartbeat",
    "agent": "agent",
}


def short(data: bytes) -> str:
    """Bytes as transcripts write them."""
    return "".join(
        f"[{value:02x}*{count}]" if count >= RUN else f"{value:02x}" * count
        for value, count in ((value, len(list(same))) for value, same in groupby(data))
    )


def without_text(message: bytes) -> bytes:
    """The message, its errors without their texts."""
    parts = []
    for frame in frames.decode(message):
        payload = bytes(frame.payload)
        if frame.type is FrameType.ERROR:
            said = json.loads(payload)
            payload = json.dumps({key: said[key] for key in sorted(said) if key != "message"}).encode()
        parts.append(frames.encode(frame.type, frame.call, payload, frame.flags))
    return b"".join(parts)


class Proof:
    """Signatures that are right if they are the other side's."""

    def __init__(self, side: int) -> None:
        self.mine, self._expected = PROOFS[side], PROOFS[1 - side]

    def accepts(self, signature: bytes) -> bool:
        """Whether this is it."""
        return signature == self._expected


class Transcript:
    """
    Two tables, and the record of what happens to them.

    Args:
        name: of the transcript.
        settings: of each side, where they are not the defaults.
    """

    def __init__(self, name: str, *settings: dict[str, Any]) -> None:
        self.now = START
        self.steps: list[dict[str, Any]] = []
        both = (*settings, {}, {})[:2]
        self.record = {"name": name, "settings": both, "memory": MEMORY, "steps": self.steps}
        self.tables = [
            CallTable(
                offerer=side == 0,
                proof=Proof(side),
                settings=LinkSettings(**{SETTINGS[key]: value for key, value in both[side].items()}),
                now=self.now,
                memory=MemoryBudget(MEMORY),
            )
            for side in (0, 1)
        ]
        #: Messages on their way to each side.
        self.under_way: list[deque[bytes]] = [deque(), deque()]
        #: Calls by name, those made and those received, of each side.
        self.made: list[dict[str, OutgoingCall]] = [{}, {}]
        self.received: list[dict[int, CallReceived]] = [{}, {}]
        self.is_broken = False

    def step(self, side: int, what: str, do: Callable[[CallTable], Any], **arguments: Any) -> Any:
        """Do something to a table, and write down what comes of it."""
        entry: dict[str, Any] = {"at": self.now, "side": side, "do": what, **arguments}
        self.steps.append(entry)
        result = None
        try:
            result = do(self.tables[side])
        except BoneValueError as error:
            entry["fails"] = error.code
            self.is_broken = self.is_broken or not isinstance(error, TooLarge)
        events = [self._told(side, event) for event in self.tables[side].events()]
        if events:
            entry["events"] = events
        return result

    def _told(self, side: int, event: Event) -> list[Any]:
        match event:
            case LinkOpened(agent):
                return ["opened", agent]
            case CallReceived():
                self.received[side][event.call] = event
                return [
                    "received", event.call, event.module, short(event.body), event.raw, event.takes_stream,
                    event.items is not None, event.deadline,
                ]  # fmt: skip
            case CallCancelled(call, error):
                return ["cancelled", call.call, error.code]
            case CallAnswered(made, body, raw):
                return ["answered", made.context, short(body), raw]
            case AnswerBegun(made):
                return ["begun", made.context]
            case ItemsArrived(items):
                return ["items", items.call, len(items), items.ended, items.dropped]
            case CallFailed(made, error):
                return ["failed", made.context, error.code, error.call_id, error.retry_after]
            case CallReturned(made):
                return ["returned", made.context]
            case HoldChanged(holding):
                return ["hold", holding]
            case PongReceived(number, round_trip):
                return ["pong", number, round_trip]
            case Drained():
                return ["drained"]
        raise AssertionError(event)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def call(
        self, side: int, name: str, body: bytes = b"1", *, raw: bool = False, timeout: float = 30.0,
        items: bool = False, takes_stream: bool = False, module: str = "M",
    ) -> None:  # fmt: skip
        """A side calls the other."""
        flags = (FLAG_RAW if raw else 0) | (FLAG_STREAM if items else 0) | (FLAG_TAKES_STREAM if takes_stream else 0)
        made = self.step(
            side, "call",
            lambda table: table.call(
                module, body, raw, timeout, self.now, name, items=items, takes_stream=takes_stream
            ),
            name=name, module=module, body=short(body), flags=flags, timeout=timeout,
        )  # fmt: skip
        if made is not None:
            self.made[side][name] = made

    def cancel(self, side: int, name: str) -> None:
        """A side no longer wants an answer."""
        self.step(side, "cancel", lambda table: table.cancel(self.made[side][name], self.now), name=name)

    def end_items(self, side: int, name: str) -> None:
        """The items after a request are complete."""
        self.step(side, "endItems", lambda table: table.end_items(self.made[side][name]), name=name)

    def push(self, side: int, of: str | int, body: bytes, *, raw: bool = False) -> None:
        """One more item, after a request (its name) or in answer to one (its number)."""
        stream = self._outgoing(side, of)
        self.step(side, "push", lambda table: table.push_item(stream, body, raw), of=of, body=short(body), raw=raw)

    def _outgoing(self, side: int, of: str | int) -> OutgoingItems:
        stream = self.made[side][of].items if isinstance(of, str) else self.received[side][of].answer
        assert stream is not None
        return stream

    def incoming(self, side: int, of: str | int) -> IncomingItems | None:
        """What comes in answer to a call (its name), or after a request (its number)."""
        return self.made[side][of].received if isinstance(of, str) else self.received[side][of].items

    def take(self, side: int, of: str | int) -> None:
        """Take an item."""
        items = self.incoming(side, of)
        assert items is not None
        body, raw = self.step(side, "take", lambda _: items.take(), of=of)
        self.steps[-1]["item"] = [short(body), raw]

    def drop(self, side: int, of: str | int) -> None:
        """Want no more items."""
        items = self.incoming(side, of)
        assert items is not None
        self.step(side, "drop", lambda _: items.drop(), of=of)

    def reply(self, side: int, call: int, body: bytes, *, raw: bool = False) -> None:
        """Answer a call."""
        received = self.received[side][call]
        self.step(
            side,
            "reply",
            lambda table: table.reply(received, body, raw, self.now),
            call=call,
            body=short(body),
            raw=raw,
        )

    def fail(self, side: int, call: int, code: str, *, call_id: str | None = None, wait: float | None = None) -> None:
        """End a call with an error."""
        error = error_of(code, "no", call_id=call_id, retry_after=wait)
        received = self.received[side][call]
        self.step(
            side, "fail", lambda table: table.fail(received, error, self.now),
            call=call, code=code, callId=call_id, retryAfter=wait,
        )  # fmt: skip

    def begin(self, side: int, call: int) -> None:
        """Answer with a stream."""
        self.step(side, "begin", lambda table: table.begin(self.received[side][call], self.now), call=call)

    def end(self, side: int, call: int) -> None:
        """The stream of answers is complete."""
        self.step(side, "end", lambda table: table.end(self.received[side][call]), call=call)

    def hold(self, side: int, holding: bool) -> None:
        """Hold the link, or let it go."""
        self.step(side, "hold", lambda table: table.hold(holding), holding=holding)

    def ping(self, side: int) -> None:
        """Measure the round trip."""
        self.step(side, "ping", lambda table: table.ping(self.now))

    def goaway(self, side: int, reason: str) -> None:
        """Drain the link."""
        self.step(side, "goaway", lambda table: table.goaway(reason, self.now), reason=reason)

    def close(self, side: int) -> None:
        """The link is gone."""
        self.step(side, "close", lambda table: table.close())

    def acknowledged(self, side: int) -> None:
        """The other side's engine has taken something."""
        self.step(side, "acknowledged", lambda table: table.acknowledged(self.now))

    def timer(self, side: int) -> None:
        """A timer is due."""
        self.step(side, "timer", lambda table: table.handle_timer(self.now))

    def inject(self, side: int, message: bytes) -> None:
        """A side gets a message that the other did not send."""
        self.step(side, "inject", lambda table: table.receive(message, self.now), message=short(message))

    def send(self, side: int, room: int = MEBIBYTE) -> int:
        """A side sends what there is; gives the number of messages."""
        messages: list[bytes] = self.step(side, "send", lambda table: table.data_to_send(room, self.now), room=room)
        if messages:
            self.steps[-1]["messages"] = [short(without_text(message)) for message in messages]
        self.under_way[1 - side].extend(messages)
        return len(messages)

    def deliver(self, side: int) -> bool:
        """A side gets the next message under way to it; False if there is none."""
        if not self.under_way[side]:
            return False
        message = self.under_way[side].popleft()
        self.step(side, "deliver", lambda table: table.receive(message, self.now))
        return True

    def look(self) -> None:
        """Write down what is to be seen of both tables."""
        for side, table in enumerate(self.tables):
            seen = [
                table.state.value, table.active, table.waiting, table.backlog, table.queued_items, table.has_output,
                table.can_move, table.quiet, table.timer(),
            ]  # fmt: skip
            self.step(side, "look", lambda _: None, seen=seen)

    def exchange(self, room: int = MEBIBYTE) -> None:
        """Carry messages both ways until nobody has any."""
        moving = True
        while moving and not self.is_broken:
            moving = bool(self.send(0, room) + self.send(1, room))
            for side in (0, 1):
                while not self.is_broken and self.deliver(side):
                    pass

    def advance(self, seconds: float) -> None:
        """Let time pass, with every timer at its moment."""
        end = self.now + seconds
        while not self.is_broken:
            moment = min((due for table in self.tables if (due := table.timer()) is not None), default=end)
            if moment > end:
                break
            self.now = max(self.now, moment)
            for side in (0, 1):
                self.timer(side)
            self.exchange()
        self.now = end


def opened(name: str, *settings: dict[str, Any]) -> Transcript:
    """A link that both sides have proved."""
    transcript = Transcript(name, *settings)
    transcript.exchange()
    return transcript
