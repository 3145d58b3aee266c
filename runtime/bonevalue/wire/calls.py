"""
One link's calls, both directions of them, without any I/O.

A :class:`CallTable` is fed with the messages of the link and with what this side wants, and gives back messages and
events. It knows no clock: ``now`` is an argument, in seconds of any monotonic clock.

The life of a link::

    PROVING --- other side's hello proved ---> OPEN --- goaway sent or received ---> DRAINING
       |                                        |                                       |
       +------------------ malformed, silent, closed: CLOSED ---------------------------+

In PROVING nothing but our own ``hello`` is sent, and nothing but the other's is looked at: its proof ties this very
channel to the offer and answer that both accounts signed. In DRAINING no new calls are accepted; when the last one is
finished a ping goes out whose pong shows that everything sent has arrived (:class:`Drained`), because a WebRTC engine
may lose what was sent right before it is closed.

Call ids count up on each side, odd ones for the offerer. Hence an id that is not in the table is either one that has
ended, whose late frames are dropped, or one that was never given, which is a protocol error.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, Protocol

from bonevalue.errors import (
    BoneValueError,
    IdentityMismatch,
    LinkLost,
    LocalProtocolError,
    RemoteProtocolError,
    TooLarge,
)
from bonevalue.wire import frames
from bonevalue.wire.calls_made import CallsMade
from bonevalue.wire.calls_received import CallsReceived
from bonevalue.wire.events import (
    CallReceived,
    Drained,
    Event,
    HoldChanged,
    ItemsArrived,
    LinkOpened,
    OutgoingCall,
    PongReceived,
)
from bonevalue.wire.frames import FLAG_RAW, FLAG_STREAM, FLAG_TAKES_STREAM, FrameType, HelloBody
from bonevalue.wire.heartbeat import Heartbeat
from bonevalue.wire.link_core import LinkCore, LinkSettings, OwnTallies, Tallies
from bonevalue.wire.memory import MemoryBudget
from bonevalue.wire.streams import ITEM_COST, IncomingItems, OutgoingItems

__all__ = ["CallTable", "LinkSettings", "LinkState", "Proof"]

#: Seconds in which the other side's ``hello`` must have come.
PROOF_TIMEOUT = 10.0
#: Seconds in which the last ping of a drained link must be answered.
DRAIN_TIMEOUT = 10.0
#: Memory of a table that shares with no other.
OWN_MEMORY = 64 * 1024 * 1024


class Proof(Protocol):
    """The two ``confirm`` signatures of a connection."""

    @property
    def mine(self) -> bytes:
        """The signature that we send."""
        ...

    def accepts(self, signature: bytes) -> bool:
        """Whether the other side's signature is right."""
        ...


class LinkState(Enum):
    """Where a link is in its life."""

    PROVING = "proving"
    OPEN = "open"
    DRAINING = "draining"
    CLOSED = "closed"


class CallTable:
    """
    The protocol of one link.

    Args:
        offerer: this side made the offer.
        proof: the signatures that tie the channel to offer and answer.
        settings: what this side takes.
        now: seconds of a monotonic clock.
        memory: what all links of the process may take together.
        account: key of the other side's account: its links share what one may have of the memory.
        tallies: where it counts what it turns away.
    """

    def __init__(
        self,
        *,
        offerer: bool,
        proof: Proof,
        settings: LinkSettings,
        now: float,
        memory: MemoryBudget | None = None,
        account: bytes = b"",
        tallies: Tallies | None = None,
    ) -> None:
        self.state = LinkState.PROVING
        #: Whether the other side, and whether this side, wants the link kept while it is idle. Who dialled holds at
        #: first, so that the link is there for the call that it was made for.
        self.remote_hold = not offerer
        self.local_hold = offerer
        self._proof = proof
        self._core = core = LinkCore(
            offerer=offerer,
            settings=settings,
            memory=memory or MemoryBudget(OWN_MEMORY),
            account=account,
            tallies=tallies or OwnTallies(),
            drained=self._check_drained,
            drain=self.goaway,
        )
        self._outbox = core.outbox
        self._made = CallsMade(core)
        self._received = CallsReceived(core)
        self._goaway_received = False
        self._heartbeat = Heartbeat(interval=settings.heartbeat, now=now, second=not offerer)
        self._fence: int | None = None
        self._fence_due = inf
        self._proof_due: float | None = now + PROOF_TIMEOUT
        self._receivers = self._table_of_receivers()
        hello = HelloBody(version=frames.VERSION, limits=core.limits, agent=settings.agent)
        self._outbox.push(frames.encode_hello(proof.mine, hello))

    # -- what this side wants ----------------------------------------------------------------------------------------

    @property
    def accepting(self) -> bool:
        """Whether a new call of ours may go over this link."""
        return self.state is LinkState.OPEN

    @property
    def round_trip(self) -> float | None:
        """Round trip of the last ping, in seconds; None before the first."""
        return self._heartbeat.round_trip

    @property
    def active(self) -> int:
        """How many calls are under way, both directions together."""
        return len(self._made) + len(self._received)

    @property
    def idle(self) -> bool:
        """Whether no call is under way."""
        return not (self._made or self._received)

    @property
    def quiet(self) -> bool:
        """Whether the link is open, nothing uses it and neither side holds it."""
        return not (self.local_hold or self.remote_hold) and self.state is LinkState.OPEN and self.idle

    def call(
        self,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        now: float,
        context: Any = None,
        *,
        items: bool = False,
        takes_stream: bool = False,
    ) -> OutgoingCall:
        """
        Call a module of the other side.

        Args:
            body: the encoded request.
            raw: it is bytes rather than JSON.
            timeout: seconds that the call may take until it is answered, or the stream of answers begins; cut to the
                longest that the settings allow.
            context: kept in the returned object, for the events that concern it.
            items: a stream follows the request (:meth:`push_item` with the call's ``items``, :meth:`end_items`).
            takes_stream: the answer may be a stream, too.

        Raises:
            TooLarge: the body is longer than the other side takes; nothing was sent.
            LocalProtocolError: the link is not open, or the name is not one.
        """
        if self.state is not LinkState.OPEN:
            raise LocalProtocolError(f"a call on a link that is {self.state.value}")
        flags = (FLAG_RAW if raw else 0) | (FLAG_STREAM if items else 0) | (FLAG_TAKES_STREAM if takes_stream else 0)
        return self._made.call(module, body, flags, timeout, now, context)

    def cancel(self, call: OutgoingCall, now: float) -> None:
        """The answer is no longer wanted; without effect on a call that has ended."""
        self._made.cancel(call, now)
        if call.received is not None:
            call.received.drop()

    def end_items(self, call: OutgoingCall) -> None:
        """The stream after a request of ours is complete."""
        self._made.end_items(call)

    def push_item(self, stream: OutgoingItems, body: bytes, raw: bool) -> None:
        """
        Send one more item of a stream; without effect if its call has ended. ``stream.queued`` tells what waits.

        Raises:
            TooLarge: it is longer than an item may be; nothing was sent.
        """
        if len(body) > frames.MAX_ITEM:
            raise TooLarge(f"an item of {len(body)} bytes; at most {frames.MAX_ITEM} are allowed: cut it into several")
        self._outbox.push_item(stream, body, raw)

    def reply(self, call: CallReceived, body: bytes, raw: bool, now: float) -> None:
        """Answer a received call; without effect if it was cancelled meanwhile."""
        self._received.reply(call, body, raw, now)

    def fail(self, call: CallReceived, error: BoneValueError, now: float) -> None:
        """End a received call with an error, after what items it has; without effect if it was cancelled meanwhile."""
        self._received.fail(call, error, now)

    def begin(self, call: CallReceived, now: float) -> OutgoingItems:
        """Answer a received call that takes one with a stream: :meth:`push_item`, then :meth:`end` or :meth:`fail`."""
        return self._received.begin(call, now)

    def end(self, call: CallReceived) -> None:
        """The stream that answers a received call is complete."""
        self._received.end(call)

    def hold(self, holding: bool) -> None:
        """Tell the other side whether this one wants the link kept while it is idle."""
        if holding is not self.local_hold and self.state is LinkState.OPEN:
            self.local_hold = holding
            self._outbox.push(frames.encode_hold(holding))

    def ping(self, now: float) -> int:
        """Measure the round trip: gives the number that the :class:`PongReceived` will have."""
        number = self._heartbeat.ping(now)
        self._outbox.push(frames.encode(FrameType.PING, 0, number.to_bytes(frames.PING_SIZE, "big")))
        return number

    def acknowledged(self, now: float) -> None:
        """The other side's engine has taken something: that is a sign of life, and time for what is still to arrive."""
        self._heartbeat.heard(now)
        if self._fence is not None:
            self._fence_due = now + DRAIN_TIMEOUT

    def goaway(self, reason: str, now: float) -> None:
        """Accept no further calls and send none; those under way are finished."""
        if self.state is not LinkState.OPEN:
            return
        self.state = LinkState.DRAINING
        self._outbox.push(frames.encode_goaway(self._received.last, reason))
        self._received.stop()
        self._made.stop()
        self._check_drained(now)

    def close(self, error: BoneValueError | None = None) -> None:
        """The link is gone: our calls fail, or are given back if they were not sent; received ones are cancelled."""
        if self.state is LinkState.CLOSED:
            return
        self.state = LinkState.CLOSED
        error = error or LinkLost("the link to the peer was lost")
        self._made.close(error)
        self._received.close(error)
        self._outbox.clear()
        self._core.memory.close()

    # -- what comes in and goes out ----------------------------------------------------------------------------------

    def receive(self, message: bytes, now: float) -> None:
        """
        Take in one message of the other side.

        Raises:
            RemoteProtocolError: it breaks the rules; the link must be closed.
            IdentityMismatch: the proof is not that of this connection; the link must be closed.
        """
        if self.state is LinkState.CLOSED:
            return
        self._heartbeat.heard(now)
        receivers = self._receivers
        for kind, flags, call, payload in frames.split(message):
            if self.state is LinkState.PROVING:
                self._receive_hello(kind, flags, call, payload)
                continue
            receiver, allowed_flags, concerns_call = receivers[kind]
            if flags & ~allowed_flags:
                raise RemoteProtocolError(f"{FrameType(kind).name.lower()} with unknown flags 0x{flags:02x}")
            if concerns_call is not None and concerns_call != (call != 0):
                raise RemoteProtocolError(f"{FrameType(kind).name.lower()} with call id {call}")
            receiver(call, flags, payload, now)

    def data_to_send(self, room: int, now: float) -> list[bytes]:
        """
        Take out the messages to send now.

        Args:
            room: bytes of long bodies and streams that may join what is in flight.
        """
        if self.state is LinkState.CLOSED:
            return []
        messages = self._outbox.messages(room)
        for number in self._outbox.finished():
            if not self._made.owns(number):
                self._received.sent(number, now)
        if self.state is LinkState.DRAINING and self._fence is None:
            self._check_drained(now)
            messages += self._outbox.messages(0)
        return messages

    def moved(self) -> list[OutgoingItems]:
        """Take out our streams of which something has left: their producers may go on."""
        return self._outbox.moved()

    @property
    def waiting(self) -> int:
        """Bytes of frames that wait to be sent, long bodies and streams not counted."""
        return self._outbox.waiting

    @property
    def backlog(self) -> int:
        """
        Bytes that wait to be sent, long responses too.

        Our requests do not count: if they kept us from answering the other side's, and its requests kept it from
        answering ours, both would wait for ever. Nor do items: their producers wait, each for itself.
        """
        return self._outbox.waiting + self._outbox.held_answers

    @property
    def queued_items(self) -> int:
        """Bytes of items that wait to be sent."""
        return self._outbox.queued

    @property
    def has_output(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._outbox)

    @property
    def can_move(self) -> bool:
        """Whether a long body or a stream waits for nothing but room in flight, as of the last :meth:`data_to_send`."""
        return self._outbox.can_move

    @property
    def has_bulk(self) -> bool:
        """Whether long bodies or streams wait for room in flight."""
        return self._outbox.has_bulk

    def events(self) -> list[Event]:
        """Take out what has happened."""
        events = self._core.events
        if events:
            self._core.events = []
        return events

    def timer(self) -> float | None:
        """When :meth:`handle_timer` is next due."""
        if self.state is LinkState.CLOSED:
            return None
        if self._proof_due is not None:
            return self._proof_due
        due = min(self._heartbeat.due(), self._fence_due)
        next_deadline = self._core.deadlines.next()
        return due if next_deadline is None else min(due, next_deadline)

    def handle_timer(self, now: float) -> None:
        """
        Do what is due: end calls whose time is over, ping.

        Raises:
            LinkLost: the other side did not prove itself in time, or was silent for too long.
            LinkLost: nothing was heard for three beats, or the other side does not let a drained link end; the link
                must be closed.
        """
        if self.state is LinkState.CLOSED:
            return
        if self._proof_due is not None:
            if now >= self._proof_due:
                raise LinkLost(f"the other side did not prove itself within {PROOF_TIMEOUT:.0f} s")
            return
        for call in self._core.deadlines.pop(now):
            if isinstance(call, OutgoingCall):
                self._made.expire(call, now)
            else:
                self._received.expire(call, now)
        if now >= self._fence_due:
            raise LinkLost(f"the peer did not answer within {DRAIN_TIMEOUT:.0f} s, so that the link could end")
        if self._heartbeat.beat(now):
            self.ping(now)

    # -- heartbeat -----------------------------------------------------------------------------------------------------

    def _receive_ping(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        if len(payload) != frames.PING_SIZE:
            raise RemoteProtocolError("ping has the wrong length")
        self._outbox.push(frames.encode(FrameType.PONG, 0, bytes(payload)))

    def _receive_pong(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        if len(payload) != frames.PING_SIZE:
            raise RemoteProtocolError("pong has the wrong length")
        number = int.from_bytes(payload, "big")
        round_trip = self._heartbeat.pong(number, now)
        if round_trip is not None:
            self._core.events.append(PongReceived(number, round_trip))
        if number == self._fence and self.state is LinkState.DRAINING:
            self._core.events.append(Drained())

    # -- opening and draining ----------------------------------------------------------------------------------------

    def _receive_hello(self, kind: int, flags: int, call: int, payload: memoryview) -> None:
        if kind != FrameType.HELLO or flags or call:
            raise RemoteProtocolError("the first frame must be hello")
        proof, data = frames.decode_hello(payload)
        if not self._proof.accepts(proof):
            raise IdentityMismatch("the other end of the channel is not the peer that signed the offer or answer")
        body = frames.decode_hello_body(data)
        self._core.set_remote(body.limits)
        self._proof_due = None
        self.state = LinkState.OPEN
        self._core.events.append(LinkOpened(body.agent, body.features))

    def _refuse_hello(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        raise RemoteProtocolError("a second hello")

    def _receive_hold(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        holding = frames.decode_hold(payload)
        if holding is not self.remote_hold:
            self.remote_hold = holding
            self._core.events.append(HoldChanged(holding))

    def _receive_goaway(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        last, reason = frames.decode_goaway(payload)
        if self._goaway_received:
            raise RemoteProtocolError("a second goaway")
        self._goaway_received = True
        self._made.give_back(last)
        self.goaway(reason, now)
        self._check_drained(now)

    def _check_drained(self, now: float) -> None:
        if self.state is LinkState.DRAINING and self._fence is None and self.idle and not self.has_bulk:
            self._fence = self.ping(now)
            self._fence_due = now + DRAIN_TIMEOUT

    # -- calls and their streams ---------------------------------------------------------------------------------------

    def _receive_body(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        if not payload:
            raise RemoteProtocolError("an empty body frame")
        (self._made if self._made.owns(call) else self._received).body(call, payload, now)

    def _receive_cancel(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        if payload:
            raise RemoteProtocolError("cancel has a payload")
        if self._made.owns(call):
            raise RemoteProtocolError("cancel of a call of ours")
        self._received.cancel(call, now)

    def _stream(self, call: int, what: str) -> IncomingItems | None:
        return (self._made if self._made.owns(call) else self._received).items(call, what)

    def _receive_item(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        length, first = frames.decode_item(payload)
        stream = self._stream(call, "item")
        if stream is None:  # nobody will take it
            self._core.credit.charge(length + ITEM_COST)
            self._core.credit.give_back(length + ITEM_COST)
            return
        before = len(stream)
        stream.begin(length, first, flags & FLAG_RAW != 0)
        self._arrived(stream, before)

    def _receive_part(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        if not payload:
            raise RemoteProtocolError("an empty part of an item")
        stream = self._stream(call, "part")
        if stream is not None:
            before = len(stream)
            stream.add(payload)
            self._arrived(stream, before)

    def _arrived(self, stream: IncomingItems, before: int) -> None:
        if not before and len(stream):
            self._core.events.append(ItemsArrived(stream))

    def _receive_end(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        if payload:
            raise RemoteProtocolError("end has a payload")
        stream = self._stream(call, "end")
        if stream is not None:
            stream.end()
            self._core.events.append(ItemsArrived(stream))
            if self._made.owns(call):
                self._made.ended(call, now)

    def _receive_credit(self, call: int, flags: int, payload: memoryview, now: float) -> None:
        credit = frames.decode_credit(payload)
        if not call:
            self._outbox.grant(credit)
            return
        if self._made.owns(call):
            made = self._made.find(call, "credit")
            stream = made.items if made is not None else None
            known = made is not None
        else:
            received = self._received.find(call, "credit")
            stream = received.answer if received is not None else None
            known = received is not None
        if stream is not None:
            stream.grant(credit)
            self._outbox.stir(stream)
        elif known:
            raise RemoteProtocolError(f"credit for call {call}, which has no stream")

    def _table_of_receivers(self) -> dict[int, tuple[Callable[[int, int, memoryview, float], None], int, bool | None]]:
        """Type of a frame to what takes it in, the flags it may have, and whether it names a call (None: it may)."""
        made, received = self._made, self._received
        return {
            FrameType.HELLO.value: (self._refuse_hello, 0, False),
            FrameType.GOAWAY.value: (self._receive_goaway, 0, False),
            FrameType.PING.value: (self._receive_ping, 0, False),
            FrameType.PONG.value: (self._receive_pong, 0, False),
            FrameType.HOLD.value: (self._receive_hold, 0, False),
            FrameType.REQUEST.value: (received.request, FLAG_RAW | FLAG_STREAM | FLAG_TAKES_STREAM, True),
            FrameType.RESPONSE.value: (made.response, FLAG_RAW | FLAG_STREAM, True),
            FrameType.BODY.value: (self._receive_body, 0, True),
            FrameType.ERROR.value: (made.error, 0, True),
            FrameType.CANCEL.value: (self._receive_cancel, 0, True),
            FrameType.ITEM.value: (self._receive_item, FLAG_RAW, True),
            FrameType.PART.value: (self._receive_part, 0, True),
            FrameType.END.value: (self._receive_end, 0, True),
            FrameType.CREDIT.value: (self._receive_credit, 0, None),
        }
