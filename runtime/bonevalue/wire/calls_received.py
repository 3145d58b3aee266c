"""The calls of the other side on one link: received, answered, cancelled."""

from __future__ import annotations

from math import isfinite
from typing import Any

from bonevalue.errors import (
    ERRORS,
    BoneValueError,
    Busy,
    Cancelled,
    Deadline,
    HandlerFailed,
    RemoteProtocolError,
    Slow,
    TooLarge,
)
from bonevalue.wire import frames
from bonevalue.wire.bodies import LONG, IncomingBody
from bonevalue.wire.events import CallCancelled, CallReceived, ItemsArrived
from bonevalue.wire.frames import FLAG_RAW, FLAG_STREAM, FLAG_TAKES_STREAM, ErrorBody
from bonevalue.wire.link_core import INLINE_BODY, LinkCore
from bonevalue.wire.streams import IncomingItems, OutgoingItems

__all__ = ["CallsReceived"]

#: Longest text of an error that is sent.
MAX_ERROR_TEXT = 1000
#: Seconds for which the caller may take nothing of a stream that has something to send.
STREAM_PATIENCE = 600.0


class CallsReceived:
    """
    The table of the other side's calls.

    Args:
        core: what is shared with the calls of this side.
    """

    def __init__(self, core: LinkCore) -> None:
        self._core = core
        self._parity = 0 if core.offerer else 1
        #: Id of the last call that was accepted.
        self.last = 0
        self._calls: dict[int, CallReceived] = {}
        #: New calls are accepted.
        self._open = True

    def __len__(self) -> int:
        return len(self._calls)

    def __bool__(self) -> bool:
        return bool(self._calls)

    def stop(self) -> None:
        """Accept no more calls."""
        self._open = False

    def close(self, error: BoneValueError) -> None:
        """The link is gone."""
        for call in self._calls.values():
            if call.items is not None:
                self._drop(call.items)
            if call.delivered and not call.replied:
                self._core.events.append(CallCancelled(call, error))
        self._calls.clear()

    # -- what this side answers ----------------------------------------------------------------------------------------

    def reply(self, call: CallReceived, body: bytes, raw: bool, now: float) -> None:
        """See :meth:`~bonevalue.wire.calls.CallTable.reply`."""
        core = self._core
        if len(body) > core.remote.body:
            self.fail(call, TooLarge(f"the response has {len(body)} bytes; the caller takes {core.remote.body}"), now)
            return
        number = call.call
        if call.replied or self._calls.get(number) is not call:
            return
        if len(body) <= INLINE_BODY:
            core.outbox.push(frames.encode_response(number, len(body), body, FLAG_RAW if raw else 0))
            self._finish(call, now)
        else:  # under way, with its deadline, until the whole answer has left
            call.replied = True
            core.outbox.push(frames.encode_response(number, len(body), b"", FLAG_RAW if raw else 0))
            core.outbox.push_body(number, body, is_request=False)

    def fail(self, call: CallReceived, error: BoneValueError, now: float) -> None:
        """See :meth:`~bonevalue.wire.calls.CallTable.fail`."""
        if call.answer is not None:
            self._end(call, error)
        elif self._calls.get(call.call) is call:
            self._core.outbox.push(self._error(call.call, error))  # before the ping that may follow the last call
            self._finish(call, now)

    def begin(self, call: CallReceived, now: float) -> OutgoingItems:
        """See :meth:`~bonevalue.wire.calls.CallTable.begin`."""
        core = self._core
        stream = call.answer = OutgoingItems(call.call, core.remote.stream)
        if self._calls.get(call.call) is not call:
            stream.clear()
            return stream
        core.outbox.push(frames.encode_response(call.call, 0, b"", FLAG_STREAM))
        core.outbox.open(stream)
        core.deadlines.withdraw(call.grain, call)
        call.deadline = now + STREAM_PATIENCE
        call.grain = core.deadlines.add(call.deadline, call)
        return stream

    def end(self, call: CallReceived) -> None:
        """See :meth:`~bonevalue.wire.calls.CallTable.end`."""
        self._end(call)

    def _end(self, call: CallReceived, error: BoneValueError | None = None) -> None:
        stream = call.answer
        if stream is not None and not stream.ended:
            call.replied = True
            stream.end(b"" if error is None else self._error(call.call, error))
            self._core.outbox.stir(stream)

    def sent(self, number: int, now: float) -> None:
        """The whole answer of a call has left."""
        call = self._calls.get(number)
        if call is not None:
            self._finish(call, now)

    def expire(self, call: CallReceived, now: float) -> None:
        """The time of a call is over."""
        error: BoneValueError = Deadline("the call's time was over")
        stream = call.answer
        if stream is not None:
            if not stream.waits or stream.moved != call.moved:
                call.moved = stream.moved
                call.deadline = now + STREAM_PATIENCE
                call.grain = self._core.deadlines.add(call.deadline, call)
                return
            error = Slow(f"the caller has taken nothing for {STREAM_PATIENCE:.0f} s")
        if self._calls.get(call.call) is call:
            self._core.outbox.push(self._error(call.call, error))
            self._finish(call, now)
            self._cancelled(call, error)

    # -- what the other side sends -------------------------------------------------------------------------------------

    def request(self, number: int, flags: int, payload: memoryview, now: float) -> None:
        """A ``REQUEST`` frame."""
        core = self._core
        module, milliseconds, length, first = frames.decode_request(payload)
        if number % 2 != self._parity or number <= self.last:
            raise RemoteProtocolError(f"call id {number} out of order")
        if not self._open:
            return  # the other side takes it back when it reads our goaway
        self.last = number
        settings = core.settings
        if length > settings.max_body:
            core.tallies.limited["max_body"] += 1
            text = f"the request has {length} bytes; this peer takes {settings.max_body}"
            core.outbox.push(self._error(number, TooLarge(text)))
            return
        if len(self._calls) >= settings.max_calls:
            core.tallies.limited["max_calls"] += 1
            core.outbox.push(self._error(number, Busy(f"{settings.max_calls} calls are under way already")))
            return
        time_left = milliseconds / 1000
        if time_left > settings.max_timeout:
            core.tallies.limited["max_timeout"] += 1
            time_left = settings.max_timeout
        deadline = now + time_left
        call = CallReceived(number, module, deadline, flags & FLAG_RAW != 0, flags & FLAG_TAKES_STREAM != 0)
        self._calls[number] = call
        call.grain = core.deadlines.add(deadline, call)
        if flags & FLAG_STREAM:
            call.items = IncomingItems(number, core.limits.stream, core.credit)
        if len(first) == length <= LONG:
            self._deliver(call, bytes(first))
        else:
            call.incoming = IncomingBody(length, call.raw)
            self._take(call, call.incoming, first, now)

    def body(self, number: int, payload: memoryview, now: float) -> None:
        """A ``BODY`` frame of a request."""
        call = self.find(number, "body")
        if call is not None:
            if call.incoming is None or call.delivered:
                raise RemoteProtocolError("a body is longer than was declared")
            self._take(call, call.incoming, payload, now)

    def cancel(self, number: int, now: float) -> None:
        """A ``CANCEL`` frame."""
        call = self.find(number, "cancel")
        if call is not None and self._finish(call, now):
            self._cancelled(call, Cancelled("the caller cancelled the call"))

    def find(self, number: int, what: str) -> CallReceived | None:
        """
        The call that a frame is about; None if it has ended, or was not begun.

        Raises:
            RemoteProtocolError: it was never made.
        """
        call = self._calls.get(number)
        if call is None and number > self.last and self._open:
            raise RemoteProtocolError(f"{what} for call {number}, which was never made")
        return call

    def items(self, number: int, what: str) -> IncomingItems | None:
        """
        The stream that a frame is about; None if its call has ended, or was not begun.

        Raises:
            RemoteProtocolError: there is none, or its time has not come.
        """
        call = self.find(number, what)
        if call is None:
            return None
        if call.items is None or not call.delivered:
            raise RemoteProtocolError(f"{what} of a request that has no stream, or whose body is not complete")
        return call.items

    def _take(self, call: CallReceived, body: IncomingBody, data: memoryview, now: float) -> None:
        if not self._core.unfinished_requests.add(body, data):
            self.fail(call, Busy("too many unfinished bodies on this link, or in this process"), now)
        elif body.received == body.length:
            whole, body.data = bytes(body.data), bytearray()
            self._deliver(call, whole)

    def _deliver(self, call: CallReceived, body: bytes) -> None:
        call.body = body
        call.delivered = True
        self._core.events.append(call)

    def _cancelled(self, call: CallReceived, error: BoneValueError) -> None:
        if call.delivered and not call.replied:
            self._core.events.append(CallCancelled(call, error))

    def _finish(self, call: CallReceived, now: float) -> bool:
        """Take a call out of the table; False if it was not in it."""
        core = self._core
        if self._calls.get(call.call) is not call:
            return False
        del self._calls[call.call]
        core.deadlines.withdraw(call.grain, call)
        core.outbox.discard(call.call)
        if call.incoming is not None:
            core.unfinished_requests.release(call.incoming)
        if call.items is not None:
            self._drop(call.items)
        if not self._open:
            core.drained(now)
        return True

    def _drop(self, items: IncomingItems) -> None:
        if not items.dropped:
            items.drop()
            self._core.events.append(ItemsArrived(items))  # whoever waits for more does so in vain

    def _error(self, number: int, error: BoneValueError) -> bytes:
        """The frame that ends a call with an error, counted."""
        # A handler may have raised a class of its own making, and what is malformed would cost the link.
        code = error.code if error.code in ERRORS else HandlerFailed.code
        self._core.tallies.refused[code] += 1
        message = error.message.encode("utf-8", "replace").decode()[:MAX_ERROR_TEXT]
        return frames.encode_error(
            number, ErrorBody(code=code, message=message, call_id=error.call_id, retry_after=_finite(error.retry_after))
        )


def _finite(seconds: Any) -> float | None:
    try:
        number = float(seconds)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) and number >= 0 else None
