"""The calls of this side on one link: begun, answered, failed, given back."""

from __future__ import annotations

from collections import deque
from typing import Any

from bonevalue.errors import (
    BoneValueError,
    Busy,
    CallError,
    Deadline,
    LocalProtocolError,
    RemoteProtocolError,
    TooLarge,
    error_of,
)
from bonevalue.wire import frames
from bonevalue.wire.bodies import LONG, IncomingBody
from bonevalue.wire.events import AnswerBegun, CallAnswered, CallFailed, CallReturned, OutgoingCall
from bonevalue.wire.frames import FLAG_RAW, FLAG_STREAM, FLAG_TAKES_STREAM, ErrorBody, FrameType
from bonevalue.wire.link_core import INLINE_BODY, LinkCore
from bonevalue.wire.refusals import plain
from bonevalue.wire.streams import IncomingItems, OutgoingItems

__all__ = ["LAST_CALL_ID", "CallsMade"]

#: Ids are four bytes; a link that comes near the end of them is drained.
LAST_CALL_ID = 0xFFFF_FF00


class CallsMade:
    """
    The table of our calls.

    Args:
        core: what is shared with the calls of the other side.
    """

    def __init__(self, core: LinkCore) -> None:
        self._core = core
        self._next_id = 1 if core.offerer else 2
        self._parity = self._next_id % 2
        self._begun: dict[int, OutgoingCall] = {}
        self._queued: deque[OutgoingCall] = deque()
        #: The link takes new calls.
        self._open = True

    def __len__(self) -> int:
        return len(self._begun) + len(self._queued)

    def __bool__(self) -> bool:
        return bool(self._begun or self._queued)

    def call(self, module: str, body: bytes, flags: int, timeout: float, now: float, context: Any) -> OutgoingCall:
        """See :meth:`~bonevalue.wire.calls.CallTable.call`."""
        core = self._core
        name = module.encode()
        if not 0 < len(name) <= frames.MAX_MODULE_NAME:
            raise LocalProtocolError(f"a module name has 1 to {frames.MAX_MODULE_NAME} bytes")
        if len(body) > core.remote.body:
            raise TooLarge(f"the request has {len(body)} bytes; this peer takes {core.remote.body}")
        call = OutgoingCall(name, body, flags, now + min(timeout, core.settings.max_timeout), context)
        call.grain = core.deadlines.add(call.deadline, call)
        if flags & FLAG_STREAM:
            call.items = OutgoingItems(0, core.remote.stream)
        if len(self._begun) < core.remote.calls:
            self._begin(call, now)
        else:
            self._queued.append(call)
        return call

    def _begin(self, call: OutgoingCall, now: float) -> None:
        outbox = self._core.outbox
        call.id = number = self._next_id
        self._next_id = number + 2
        self._begun[number] = call
        body, call.body = call.body, b""
        inline = len(body) <= INLINE_BODY
        first = body if inline else b""
        outbox.push(frames.encode_request(number, call.module, call.deadline - now, len(body), first, call.flags))
        if not inline:
            outbox.push_body(number, body, is_request=True)
        if call.items is not None:
            call.items.call = number
            outbox.open(call.items)
            if call.items.waits:
                outbox.stir(call.items)
        if self._next_id > LAST_CALL_ID:
            self._core.drain("out of call ids", now)

    def cancel(self, call: OutgoingCall, now: float) -> None:
        """The answer is no longer wanted; without effect on a call that has ended."""
        self._forget(call, now, cancel=True)

    def end_items(self, call: OutgoingCall) -> None:
        """See :meth:`~bonevalue.wire.calls.CallTable.end_items`."""
        stream = call.items
        if stream is not None and not stream.ended:
            stream.end()
            self._core.outbox.stir(stream)

    def expire(self, call: OutgoingCall, now: float) -> None:
        """The time of a call is over."""
        if self._forget(call, now, cancel=True):
            self._core.events.append(CallFailed(call, Deadline("no answer within the call's time")))

    def give_back(self, last: int) -> None:
        """
        The other side has begun none after ``last``, and takes no new ones.

        Raises:
            RemoteProtocolError: it has begun to answer one of them.
        """
        returned = [call for call in self._begun.values() if call.id > last]
        if any(call.answer is not None or call.received is not None for call in returned):
            raise RemoteProtocolError("goaway below a call whose answer has begun")
        for call in returned:
            del self._begun[call.id]
            self._core.outbox.discard(call.id)
            self._returned(call)

    def stop(self) -> None:
        """Begin no more calls: what waits is given back."""
        self._open = False
        for call in self._queued:
            self._returned(call)
        self._queued.clear()

    def close(self, error: BoneValueError) -> None:
        """The link is gone."""
        self.stop()
        for call in self._begun.values():
            if call.received is not None:
                call.received.break_off()
            self._core.events.append(CallFailed(call, error))
        self._begun.clear()

    def _returned(self, call: OutgoingCall) -> None:
        self._core.deadlines.withdraw(call.grain, call)
        self._drop_answer(call)
        if call.items is not None:
            call.items.clear()
        self._core.events.append(CallReturned(call))

    def _forget(self, call: OutgoingCall, now: float, *, cancel: bool = False) -> bool:
        """Take a call out of the table; False if it was not in it."""
        core = self._core
        if call.id:
            if self._begun.pop(call.id, None) is None:
                return False
            core.outbox.discard(call.id)
            if cancel:  # before the next one begins: the other side counts them in this order
                core.outbox.push(frames.encode(FrameType.CANCEL, call.id))
        else:
            try:
                self._queued.remove(call)
            except ValueError:
                return False
            if call.items is not None:
                call.items.clear()
        core.deadlines.withdraw(call.grain, call)
        if call.answer is not None:
            self._drop_answer(call)
        if call.received is not None:
            call.received.break_off()
        while self._queued and len(self._begun) < core.remote.calls:  # the queue is empty once the link drains
            self._begin(self._queued.popleft(), now)
        if not self._open:
            core.drained(now)
        return True

    def _drop_answer(self, call: OutgoingCall) -> None:
        if call.answer is not None:
            self._core.unfinished_responses.release(call.answer)
            call.answer = None

    def _abandon(self, call: OutgoingCall, error: BoneValueError, now: float) -> None:
        self.cancel(call, now)
        self._core.events.append(CallFailed(call, error))

    # -- what the other side sends -------------------------------------------------------------------------------------

    def owns(self, number: int) -> bool:
        """Whether a call id is one of this side's."""
        return number % 2 == self._parity

    def find(self, number: int, what: str) -> OutgoingCall | None:
        """
        The call that a frame is about; None if it has ended.

        Raises:
            RemoteProtocolError: it was never made.
        """
        call = self._begun.get(number)
        if call is None and (number % 2 != self._parity or number >= self._next_id):
            raise RemoteProtocolError(f"{what} for call {number}, which was never made")
        return call

    def response(self, number: int, flags: int, payload: memoryview, now: float) -> None:
        """A ``RESPONSE`` frame."""
        length, first = frames.decode_response(payload)
        call = self.find(number, "response")
        if call is None:
            return
        if call.answer is not None or call.received is not None:
            raise RemoteProtocolError("a second response to one call")
        if flags & FLAG_STREAM:
            self._begin_answer(call, length, flags)
        elif length == len(first) <= LONG:
            self._answered(call, bytes(first), flags, now)
        else:
            call.answer = IncomingBody(length, bool(flags & FLAG_RAW))
            self._take(call, call.answer, first, now)

    def body(self, number: int, payload: memoryview, now: float) -> None:
        """A ``BODY`` frame of a response."""
        call = self.find(number, "body")
        if call is not None:
            if call.answer is None:
                raise RemoteProtocolError("a body before its response")
            self._take(call, call.answer, payload, now)

    def error(self, number: int, flags: int, payload: memoryview, now: float) -> None:
        """An ``ERROR`` frame."""
        body = frames.decode_error(payload)
        call = self.find(number, "error")
        if call is not None:
            self._forget(call, now)
            self._core.events.append(CallFailed(call, _spoken(body)))

    def items(self, number: int, what: str) -> IncomingItems | None:
        """
        The stream of answers that a frame is about; None if its call has ended.

        Raises:
            RemoteProtocolError: there is none.
        """
        call = self.find(number, what)
        if call is None:
            return None
        if call.received is None:
            raise RemoteProtocolError(f"{what} before the response of its call")
        return call.received

    def ended(self, number: int, now: float) -> None:
        """The stream of answers has ended, and its call with it."""
        self._forget(self._begun[number], now)

    def _begin_answer(self, call: OutgoingCall, length: int, flags: int) -> None:
        if length or flags & FLAG_RAW or not call.flags & FLAG_TAKES_STREAM:
            raise RemoteProtocolError("a stream that was not asked for, or with a body")
        core = self._core
        core.deadlines.withdraw(call.grain, call)
        call.received = IncomingItems(call.id, core.limits.stream, core.credit)
        core.events.append(AnswerBegun(call))

    def _take(self, call: OutgoingCall, answer: IncomingBody, data: memoryview, now: float) -> None:
        if answer.length > self._core.settings.max_body:
            self._too_large(call, answer.length, now)
        elif not self._core.unfinished_responses.add(answer, data):
            self._abandon(call, Busy("too many unfinished bodies on this link"), now)
        elif answer.received == answer.length:
            self._answered(call, bytes(answer.data), FLAG_RAW if answer.raw else 0, now)

    def _answered(self, call: OutgoingCall, body: bytes, flags: int, now: float) -> None:
        if len(body) > self._core.settings.max_body:
            self._too_large(call, len(body), now)
            return
        self._forget(call, now)
        self._core.events.append(CallAnswered(call, body, flags & FLAG_RAW != 0))

    def _too_large(self, call: OutgoingCall, length: int, now: float) -> None:
        most = self._core.settings.max_body
        self._abandon(call, TooLarge(f"the response has {length} bytes; this side takes {most}"), now)


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
