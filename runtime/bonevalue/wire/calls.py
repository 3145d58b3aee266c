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

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, Protocol

from bonevalue.errors import (
    ERRORS,
    BoneValueError,
    Busy,
    CallError,
    Cancelled,
    Deadline,
    HandlerFailed,
    IdentityMismatch,
    LinkLost,
    LocalProtocolError,
    RemoteProtocolError,
    TooLarge,
    error_of,
)
from bonevalue.wire import frames
from bonevalue.wire.bodies import BodyBudget, IncomingBody
from bonevalue.wire.deadlines import Deadlines
from bonevalue.wire.events import (
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallReceived,
    CallReturned,
    Drained,
    Event,
    HoldChanged,
    IncomingCall,
    LinkOpened,
    OutgoingCall,
    PongReceived,
)
from bonevalue.wire.frames import FLAG_RAW, ErrorBody, Frame, FrameType, HelloBody, HelloLimits
from bonevalue.wire.heartbeat import Heartbeat
from bonevalue.wire.outbox import Outbox
from bonevalue.wire.refusals import plain

__all__ = ["CallTable", "LinkSettings", "LinkState", "Proof"]

#: Seconds in which the other side's ``hello`` must have come.
PROOF_TIMEOUT = 10.0
#: Seconds in which the last ping of a drained link must be answered.
DRAIN_TIMEOUT = 10.0
#: Ids are four bytes; a link that comes near the end of them is drained.
LAST_CALL_ID = 0xFFFF_FF00
#: Longest time that a call may be given, in seconds; a longer one is cut to it.
MAX_TIMEOUT = 600.0
#: Longest text of an error that is sent.
MAX_ERROR_TEXT = 1000
#: Bodies up to this length travel inside the frame that announces them.
INLINE_BODY = 4096


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


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What this side takes; sizes in bytes, times in seconds."""

    max_body: int = 8 * 1024 * 1024
    #: Calls of the other side at once.
    max_calls: int = 1024
    #: Bytes of bodies that are not complete yet, all calls together.
    max_incomplete: int = 16 * 1024 * 1024
    heartbeat: float = 5.0
    agent: str = ""


class CallTable:
    """
    The protocol of one link.

    Args:
        offerer: this side made the offer.
        proof: the signatures that tie the channel to offer and answer.
        settings: what this side takes.
        now: seconds of a monotonic clock.
    """

    def __init__(self, *, offerer: bool, proof: Proof, settings: LinkSettings, now: float) -> None:
        self.state = LinkState.PROVING
        #: Whether the other side, and whether this side, wants the link kept while it is idle. Who dialled holds at
        #: first, so that the link is there for the call that it was made for.
        self.remote_hold = not offerer
        self.local_hold = offerer
        self._settings = settings
        self._proof = proof
        self._remote = HelloLimits(body=0, calls=1, incomplete=0)
        self._outbox = Outbox()
        self._events: list[Event] = []
        self._next_id = 1 if offerer else 2
        self._remote_parity = 0 if offerer else 1
        self._last_received_id = 0
        self._outgoing: dict[int, OutgoingCall] = {}
        self._queued: deque[OutgoingCall] = deque()
        self._incoming: dict[int, IncomingCall] = {}
        self._deadlines: Deadlines[OutgoingCall | IncomingCall] = Deadlines()
        self._goaway_sent = False
        self._goaway_received = False
        self._heartbeat = Heartbeat(interval=settings.heartbeat, now=now)
        self._fence: int | None = None
        self._fence_due = inf
        self._proof_due: float | None = now + PROOF_TIMEOUT
        limits = HelloLimits(
            body=settings.max_body, calls=settings.max_calls, incomplete=max(settings.max_incomplete, settings.max_body)
        )
        self._unfinished = BodyBudget(limits.incomplete)
        hello = HelloBody(version=frames.VERSION, limits=limits, agent=settings.agent)
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
        return len(self._outgoing) + len(self._queued) + len(self._incoming)

    @property
    def quiet(self) -> bool:
        """Whether the link is open, nothing uses it and neither side holds it."""
        return self.state is LinkState.OPEN and not (self.active or self.local_hold or self.remote_hold)

    def call(
        self, module: str, body: bytes, raw: bool, timeout: float, now: float, context: Any = None
    ) -> OutgoingCall:
        """
        Call a module of the other side.

        Args:
            body: the encoded request.
            raw: it is bytes rather than JSON.
            timeout: seconds that the call may take, at most ten minutes.
            context: kept in the returned object, for the events that concern it.

        Raises:
            TooLarge: the body is longer than the other side takes; nothing was sent.
            LocalProtocolError: the link is not open, or the name is not one.
        """
        if not self.accepting:
            raise LocalProtocolError(f"a call on a link that is {self.state.value}")
        name = module.encode()
        if not 0 < len(name) <= frames.MAX_MODULE_NAME:
            raise LocalProtocolError(f"a module name has 1 to {frames.MAX_MODULE_NAME} bytes")
        if len(body) > self._remote.body:
            raise TooLarge(f"the request has {len(body)} bytes; this peer takes {self._remote.body}")
        call = OutgoingCall(name, body, raw, now + min(timeout, MAX_TIMEOUT), context)
        self._deadlines.add(call.deadline, call)
        if len(self._outgoing) < self._remote.calls:
            self._begin(call, now)
        else:
            self._queued.append(call)
        return call

    def cancel(self, call: OutgoingCall, now: float) -> None:
        """The answer is no longer wanted; without effect on a call that has ended."""
        self._forget(call, now, cancel=True)

    def reply(self, call: int, body: bytes, raw: bool, now: float) -> None:
        """Answer a received call; without effect if it was cancelled meanwhile."""
        if len(body) > self._remote.body:
            self.fail(call, TooLarge(f"the response has {len(body)} bytes; the caller takes {self._remote.body}"), now)
            return
        received = self._incoming.get(call)
        if received is None or received.replied:
            return
        inline = len(body) <= INLINE_BODY
        self._outbox.push(frames.encode_response(call, len(body), body if inline else b"", raw))
        if inline:
            self._finish(call)
            self._check_drained(now)
        else:  # under way, with its deadline, until the whole answer has left
            received.replied = True
            self._outbox.push_body(call, body, is_request=False)

    def fail(self, call: int, error: BoneValueError, now: float) -> None:
        """End a received call with an error; without effect if it was cancelled meanwhile."""
        if self._finish(call):
            self._send_error(call, error)
            self._check_drained(now)

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

    def goaway(self, reason: str, now: float) -> None:
        """Accept no further calls and send none; those under way are finished."""
        if self._goaway_sent or self.state is not LinkState.OPEN:
            return
        self._goaway_sent = True
        self.state = LinkState.DRAINING
        self._outbox.push(frames.encode_goaway(self._last_received_id, reason))
        self._return(list(self._queued))
        self._queued.clear()
        self._check_drained(now)

    def close(self, error: BoneValueError | None = None) -> None:
        """The link is gone: every call of ours fails, every received one is cancelled."""
        if self.state is LinkState.CLOSED:
            return
        self.state = LinkState.CLOSED
        error = error or LinkLost("the link to the peer was lost")
        for call in (*self._outgoing.values(), *self._queued):
            self._events.append(CallFailed(call, error))
        for received in self._incoming.values():
            if received.delivered and not received.replied:
                self._events.append(CallCancelled(received.id, error))
        self._outgoing.clear()
        self._queued.clear()
        self._incoming.clear()
        self._outbox.clear()

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
        for frame in frames.decode(message):
            if self.state is LinkState.PROVING:
                self._receive_hello(frame, now)
                continue
            handler, allowed_flags, concerns_call = _RECEIVERS[frame.type]
            if frame.flags & ~allowed_flags:
                raise RemoteProtocolError(f"{frame.type.name.lower()} with unknown flags 0x{frame.flags:02x}")
            if concerns_call != (frame.call != 0):
                raise RemoteProtocolError(f"{frame.type.name.lower()} with call id {frame.call}")
            handler(self, frame, now)

    def data_to_send(self, room: int, now: float) -> list[bytes]:
        """
        Take out the messages to send now.

        Args:
            room: bytes of long bodies that may join what is in flight.
        """
        if self.state is LinkState.CLOSED:
            return []
        messages = self._outbox.messages(room)
        for call in self._outbox.finished():
            self._finish(call)
        if self.state is LinkState.DRAINING and self._fence is None:
            self._check_drained(now)
            messages += self._outbox.messages(0)
        return messages

    @property
    def waiting(self) -> int:
        """Bytes of frames that wait to be sent, long bodies not counted."""
        return self._outbox.waiting

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent, long bodies too."""
        return self._outbox.waiting + self._outbox.held

    @property
    def has_bodies(self) -> bool:
        """Whether long bodies wait for room in flight."""
        return self._outbox.has_bodies

    def events(self) -> list[Event]:
        """Take out what has happened."""
        events, self._events = self._events, []
        return events

    def timer(self) -> float | None:
        """When :meth:`handle_timer` is next due."""
        if self.state is LinkState.CLOSED:
            return None
        if self._proof_due is not None:
            return self._proof_due
        due = min(self._heartbeat.due(), self._fence_due)
        next_deadline = self._deadlines.next()
        return due if next_deadline is None else min(due, next_deadline)

    def handle_timer(self, now: float) -> None:
        """
        Do what is due: end calls whose time is over, ping.

        Raises:
            IdentityMismatch: the other side did not prove itself in time; the link must be closed.
            LinkLost: nothing was heard for three beats, or the other side does not let a drained link end; the link
                must be closed.
        """
        if self.state is LinkState.CLOSED:
            return
        if self._proof_due is not None:
            if now >= self._proof_due:
                raise IdentityMismatch(f"the other side did not prove itself within {PROOF_TIMEOUT:.0f} s")
            return
        for call in self._deadlines.pop(now):
            if isinstance(call, OutgoingCall):
                self._expire(call, now)
            else:
                self._expire_received(call, now)
        if now >= self._fence_due:
            raise LinkLost(f"the peer did not answer within {DRAIN_TIMEOUT:.0f} s, so that the link could end")
        if self._heartbeat.beat(now):
            self.ping(now)

    # -- heartbeat -----------------------------------------------------------------------------------------------------

    def _receive_ping(self, frame: Frame, now: float) -> None:
        if len(frame.payload) != frames.PING_SIZE:
            raise RemoteProtocolError("ping has the wrong length")
        self._outbox.push(frames.encode(FrameType.PONG, 0, bytes(frame.payload)))

    def _receive_pong(self, frame: Frame, now: float) -> None:
        if len(frame.payload) != frames.PING_SIZE:
            raise RemoteProtocolError("pong has the wrong length")
        number = int.from_bytes(frame.payload, "big")
        round_trip = self._heartbeat.pong(number, now)
        if round_trip is not None:
            self._events.append(PongReceived(number, round_trip))
        if number == self._fence and self.state is LinkState.DRAINING:
            self._events.append(Drained())

    # -- opening and draining ----------------------------------------------------------------------------------------

    def _receive_hello(self, frame: Frame, now: float) -> None:
        if frame.type is not FrameType.HELLO or frame.flags or frame.call:
            raise RemoteProtocolError("the first frame must be hello")
        proof, data = frames.decode_hello(frame.payload)
        if not self._proof.accepts(proof):
            raise IdentityMismatch("the other end of the channel is not the peer that signed the offer or answer")
        body = frames.decode_hello_body(data)
        self._remote = body.limits
        self._outbox.budget = body.limits.incomplete
        self._proof_due = None
        self.state = LinkState.OPEN
        self._events.append(LinkOpened(body.agent, body.features))

    def _refuse_hello(self, frame: Frame, now: float) -> None:
        raise RemoteProtocolError("a second hello")

    def _receive_hold(self, frame: Frame, now: float) -> None:
        holding = frames.decode_hold(frame.payload)
        if holding is not self.remote_hold:
            self.remote_hold = holding
            self._events.append(HoldChanged(holding))

    def _receive_goaway(self, frame: Frame, now: float) -> None:
        last, reason = frames.decode_goaway(frame.payload)
        if self._goaway_received:
            raise RemoteProtocolError("a second goaway")
        self._goaway_received = True
        returned = [call for call in self._outgoing.values() if call.id > last]
        for call in returned:
            del self._outgoing[call.id]
            self._outbox.discard(call.id)
        self._return(returned)
        self.goaway(reason, now)
        self._check_drained(now)

    def _return(self, calls: list[OutgoingCall]) -> None:
        """Give back calls that the other side has not begun."""
        for call in calls:
            self._deadlines.withdraw(call.deadline, call)
            self._drop_answer(call)
            self._events.append(CallReturned(call))

    def _check_drained(self, now: float) -> None:
        if self.state is LinkState.DRAINING and self._fence is None and not self.active and not self.has_bodies:
            self._fence = self.ping(now)
            self._fence_due = now + DRAIN_TIMEOUT

    # -- calls of ours -----------------------------------------------------------------------------------------------

    def _begin(self, call: OutgoingCall, now: float) -> None:
        call.id = self._next_id
        self._next_id += 2
        self._outgoing[call.id] = call
        length = len(call.body)
        inline = length <= INLINE_BODY
        first = call.body if inline else b""
        self._outbox.push(frames.encode_request(call.id, call.module, call.deadline - now, length, first, call.raw))
        if not inline:
            self._outbox.push_body(call.id, call.body, is_request=True)
        call.body = b""
        if self._next_id > LAST_CALL_ID:
            self.goaway("out of call ids", now)

    def _forget(self, call: OutgoingCall, now: float, *, cancel: bool = False) -> bool:
        """Take a call of ours out of the table; False if it was not in it."""
        if call.id:
            if self._outgoing.pop(call.id, None) is None:
                return False
            self._outbox.discard(call.id)
            if cancel:  # before the next one begins: the other side counts them in this order
                self._outbox.push(frames.encode(FrameType.CANCEL, call.id))
        else:
            try:
                self._queued.remove(call)
            except ValueError:
                return False
        self._deadlines.withdraw(call.deadline, call)
        self._drop_answer(call)
        while self._queued and self.state is LinkState.OPEN and len(self._outgoing) < self._remote.calls:
            self._begin(self._queued.popleft(), now)
        self._check_drained(now)
        return True

    def _expire(self, call: OutgoingCall, now: float) -> None:
        if self._forget(call, now, cancel=True):
            self._events.append(CallFailed(call, Deadline("no answer within the call's time")))

    def _drop_answer(self, call: OutgoingCall) -> None:
        if call.answer is not None:
            self._unfinished.release(call.answer)
            call.answer = None

    def _own(self, frame: Frame) -> OutgoingCall | None:
        """The call of ours that a frame is about; None if it has ended."""
        call = self._outgoing.get(frame.call)
        if call is None and (frame.call % 2 == self._remote_parity or frame.call >= self._next_id):
            raise RemoteProtocolError(f"{frame.type.name.lower()} for call {frame.call}, which was never made")
        return call

    def _receive_response(self, frame: Frame, now: float) -> None:
        length, first = frames.decode_response(frame.payload)
        call = self._own(frame)
        if call is None:
            return
        if call.answer is not None:
            raise RemoteProtocolError("a second response to one call")
        if length > self._settings.max_body:
            self._abandon(
                call, TooLarge(f"the response has {length} bytes; this side takes {self._settings.max_body}"), now
            )
            return
        call.answer = IncomingBody(length, bool(frame.flags & FLAG_RAW))
        self._take(call, call.answer, first, now)

    def _take(self, call: OutgoingCall, answer: IncomingBody, data: memoryview, now: float) -> None:
        if not self._unfinished.add(answer, data):
            self._abandon(call, Busy("too many unfinished bodies on this link"), now)
        elif answer.received == answer.length:
            body = bytes(answer.data)
            self._forget(call, now)
            self._events.append(CallAnswered(call, body, answer.raw))

    def _abandon(self, call: OutgoingCall, error: BoneValueError, now: float) -> None:
        self.cancel(call, now)
        self._events.append(CallFailed(call, error))

    def _receive_error(self, frame: Frame, now: float) -> None:
        body = frames.decode_error(frame.payload)
        call = self._own(frame)
        if call is not None:
            self._forget(call, now)
            self._events.append(CallFailed(call, _spoken(body)))

    # -- calls of the other side -------------------------------------------------------------------------------------

    def _receive_request(self, frame: Frame, now: float) -> None:
        head = frames.decode_request(frame.payload)
        if frame.call % 2 != self._remote_parity or frame.call <= self._last_received_id:
            raise RemoteProtocolError(f"call id {frame.call} out of order")
        if self._goaway_sent:
            return  # the other side takes it back when it reads our goaway
        self._last_received_id = frame.call
        if head.length > self._settings.max_body:
            text = f"the request has {head.length} bytes; this peer takes {self._settings.max_body}"
            self._send_error(frame.call, TooLarge(text))
            return
        if len(self._incoming) >= self._settings.max_calls:
            self._send_error(frame.call, Busy(f"{self._settings.max_calls} calls are under way already"))
            return
        body = IncomingBody(head.length, bool(frame.flags & FLAG_RAW))
        call = IncomingCall(frame.call, head.module, now + min(head.time_left, MAX_TIMEOUT), body)
        self._incoming[call.id] = call
        self._deadlines.add(call.deadline, call)
        self._take_received(call, head.first, now)

    def _take_received(self, call: IncomingCall, data: memoryview, now: float) -> None:
        if not self._unfinished.add(call.body, data):
            self.fail(call.id, Busy("too many unfinished bodies on this link"), now)
        elif call.body.received == call.body.length:
            body, call.body.data = bytes(call.body.data), bytearray()
            call.delivered = True
            self._events.append(CallReceived(call.id, call.module, body, call.body.raw, call.deadline))

    def _receive_body(self, frame: Frame, now: float) -> None:
        if not frame.payload:
            raise RemoteProtocolError("an empty body frame")
        if frame.call % 2 != self._remote_parity:
            call = self._own(frame)
            if call is not None:
                if call.answer is None:
                    raise RemoteProtocolError("a body before its response")
                self._take(call, call.answer, frame.payload, now)
            return
        received = self._incoming.get(frame.call)
        if received is not None:
            self._take_received(received, frame.payload, now)
        elif frame.call > self._last_received_id and not self._goaway_sent:
            raise RemoteProtocolError(f"a body for call {frame.call}, which was never made")

    def _receive_cancel(self, frame: Frame, now: float) -> None:
        if frame.payload:
            raise RemoteProtocolError("cancel has a payload")
        if frame.call % 2 != self._remote_parity:
            raise RemoteProtocolError("cancel of a call of ours")
        call = self._incoming.get(frame.call)
        if call is None:
            if frame.call > self._last_received_id and not self._goaway_sent:
                raise RemoteProtocolError(f"cancel of call {frame.call}, which was never made")
            return
        self._finish(call.id)
        if call.delivered and not call.replied:
            self._events.append(CallCancelled(call.id, Cancelled("the caller cancelled the call")))
        self._check_drained(now)

    def _expire_received(self, call: IncomingCall, now: float) -> None:
        if self._finish(call.id):
            error = Deadline("the call's time was over")
            self._send_error(call.id, error)
            if call.delivered and not call.replied:
                self._events.append(CallCancelled(call.id, error))
            self._check_drained(now)

    def _finish(self, number: int) -> bool:
        """Take a received call out of the table; False if it was not in it."""
        call = self._incoming.pop(number, None)
        if call is None:
            return False
        self._deadlines.withdraw(call.deadline, call)
        self._unfinished.release(call.body)
        self._outbox.discard(number)
        return True

    def _send_error(self, number: int, error: BoneValueError) -> None:
        # A handler may have raised a class of its own making, and what is malformed would cost the link.
        code = error.code if error.code in ERRORS else HandlerFailed.code
        message = error.message.encode("utf-8", "replace").decode()[:MAX_ERROR_TEXT]
        retry_after = float(error.retry_after) if isinstance(error.retry_after, (int, float)) else None
        body = ErrorBody(code=code, message=message, call_id=error.call_id, retry_after=retry_after)
        self._outbox.push(frames.encode_error(number, body))


def _spoken(body: ErrorBody) -> BoneValueError:
    """
    The error that the callee speaks of.

    It may claim any failure of the call, but nothing that only this side can find out, such as who is at the other end.
    """
    code = plain(body.code) or CallError.code
    error = error_of(code, plain(body.message), retry_after=body.retry_after, call_id=body.call_id)
    if isinstance(error, CallError):
        return error
    claimed = CallError(f"{code}: {error.message}", retry_after=body.retry_after, call_id=body.call_id)
    claimed.code = code  # type: ignore[misc]
    return claimed


_Receiver = Callable[[CallTable, Frame, float], None]

#: Type of a frame to what takes it in, the flags it may have, and whether it names a call.
_RECEIVERS: dict[FrameType, tuple[_Receiver, int, bool]] = {
    FrameType.HELLO: (CallTable._refuse_hello, 0, False),
    FrameType.GOAWAY: (CallTable._receive_goaway, 0, False),
    FrameType.PING: (CallTable._receive_ping, 0, False),
    FrameType.PONG: (CallTable._receive_pong, 0, False),
    FrameType.HOLD: (CallTable._receive_hold, 0, False),
    FrameType.REQUEST: (CallTable._receive_request, FLAG_RAW, True),
    FrameType.RESPONSE: (CallTable._receive_response, FLAG_RAW, True),
    FrameType.BODY: (CallTable._receive_body, 0, True),
    FrameType.ERROR: (CallTable._receive_error, 0, True),
    FrameType.CANCEL: (CallTable._receive_cancel, 0, True),
}
