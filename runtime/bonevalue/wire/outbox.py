"""
What one side of a link has to send, in the order in which it goes out.

Small frames go first, all of them. The bodies that are too long for one frame, and the streams, share what room is
left: each in its turn fills what is left of one message. So they never hold up a small call by more than what is
already in flight.
"""

from __future__ import annotations

from collections import OrderedDict

from bonevalue.wire import frames
from bonevalue.wire.frames import FrameType
from bonevalue.wire.streams import OutgoingItems, added

__all__ = ["Outbox"]

#: Bodies up to this length do not wait for longer ones, which may wait for handlers that call back with these.
SHORT_BODY = 65_536
#: Room under which nothing is begun in a message: a fragment so short would be mostly header.
LEAST_SPACE = 256


class _Body:
    """A body on its way out."""

    __slots__ = ("call", "data", "lane", "position")

    def __init__(self, call: int, data: bytes, lane: _Lane) -> None:
        self.call = call
        self.data = memoryview(data)
        self.lane = lane
        self.position = 0


class _Lane:
    """
    The bodies of requests, or those of responses. Each kind counts for itself: what answers a call must never wait for
    the memory that the requests take, which is free only once they are answered.
    """

    def __init__(self) -> None:
        #: Bytes of bodies that the other side holds unfinished at most.
        self.budget = 0
        #: Bytes of those that it holds, or will when all that has begun is there.
        self.committed = 0
        #: Bytes of bodies that wait or are on their way, each whole until its last fragment has left.
        self.held = 0
        #: Bodies for which the other side has no memory yet, short ones apart: they go before the others.
        self._short: OrderedDict[int, _Body] = OrderedDict()
        self._long: OrderedDict[int, _Body] = OrderedDict()

    @property
    def waiting(self) -> bool:
        """Whether there are bodies for which the other side has no memory yet."""
        return bool(self._short or self._long)

    def __contains__(self, call: int) -> bool:
        return call in self._short or call in self._long

    def add(self, body: _Body) -> None:
        """One more to send."""
        size = len(body.data)
        (self._short if size <= SHORT_BODY else self._long)[body.call] = body
        self.held += size

    def remove(self, call: int) -> None:
        """Its call has ended; without effect if it does not wait."""
        body = self._short.pop(call, None) or self._long.pop(call, None)
        if body is not None:
            self.held -= len(body.data)

    def admit(self, moving: OrderedDict[int, _Body | OutgoingItems]) -> None:
        """Start every body for which the other side has memory. An eighth of it is for short ones."""
        for bodies, budget in ((self._short, self.budget), (self._long, self.budget * 7 // 8)):
            while bodies:
                call, body = next(iter(bodies.items()))
                length = len(body.data)
                if self.committed and self.committed + length > budget:
                    break
                moving[call] = bodies.pop(call)
                self.committed += length

    def clear(self) -> None:
        """Forget everything."""
        self._short.clear()
        self._long.clear()
        self.committed = self.held = 0


class Outbox:
    """Frames, bodies and streams to be sent; :meth:`messages` packs them."""

    def __init__(self) -> None:
        #: What the other side takes of all streams together; set from its ``hello``, and by its credits.
        self.link_credit = 0
        #: Bytes of frames that wait, long bodies and streams not counted.
        self.waiting = 0
        #: Bytes of items that wait, all streams together.
        self.queued = 0
        self._urgent: list[bytes] = []
        self._requests = _Lane()
        self._responses = _Lane()
        #: Whose turn it is, by call: bodies and streams that can move.
        self._moving: OrderedDict[int, _Body | OutgoingItems] = OrderedDict()
        self._streams: dict[int, OutgoingItems] = {}
        #: Streams that wait for the credit of the link.
        self._short_of_credit: dict[int, OutgoingItems] = {}
        self._finished: list[int] = []
        self._moved: list[OutgoingItems] = []
        #: Requests that have left whole: the other side holds them until their calls end.
        self._there: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._urgent or self.has_bulk)

    @property
    def can_move(self) -> bool:
        """Whether a body or a stream has its turn as soon as there is room."""
        return bool(self._moving)

    @property
    def has_bulk(self) -> bool:
        """Whether a body or a stream waits for room."""
        return bool(self._moving or self._requests.waiting or self._responses.waiting)

    @property
    def held_answers(self) -> int:
        """Bytes of long responses that wait or are on their way out."""
        return self._responses.held

    def set_budget(self, incomplete: int) -> None:
        """The other side holds so many bytes of unfinished bodies, of requests and of responses each."""
        self._requests.budget = self._responses.budget = incomplete

    def push(self, frame: bytes) -> None:
        """Send a frame as soon as there is a turn."""
        self.waiting += len(frame)
        self._urgent.append(frame)

    def push_body(self, call: int, data: bytes, *, is_request: bool) -> None:
        """Send a body in fragments, after the frame that announced it."""
        lane = self._requests if is_request else self._responses
        lane.add(_Body(call, data, lane))

    def open(self, stream: OutgoingItems) -> None:
        """Send a stream, after the frame that announced it and the body of its request."""
        self._streams[stream.call] = stream
        self.queued += stream.queued

    def push_item(self, stream: OutgoingItems, body: bytes, raw: bool) -> None:
        """Send one more item of a stream; without effect on one that has been discarded."""
        if not stream.ended:
            stream.push(body, raw)
            if self._streams.get(stream.call) is stream:  # else its call waits to begin, and it is counted then
                self.queued += len(body)
                self.stir(stream)

    def stir(self, stream: OutgoingItems) -> None:
        """A stream has something to send, or has got credit."""
        call = stream.call
        if self._streams.get(call) is stream and call not in self._moving and call not in self._requests:
            self._moving[call] = stream

    def grant(self, credit: int) -> None:
        """
        The other side takes so many bytes more, all streams together.

        Raises:
            RemoteProtocolError: more than any credit may be.
        """
        self.link_credit = added(self.link_credit, credit)
        for stream in self._short_of_credit.values():
            self.stir(stream)
        self._short_of_credit.clear()

    def finished(self) -> list[int]:
        """Take out the calls of the other side whose responses, bodies or streams, have left whole."""
        finished, self._finished = self._finished, []
        return finished

    def moved(self) -> list[OutgoingItems]:
        """Take out the streams of which something has left."""
        moved, self._moved = self._moved, []
        return moved

    def discard(self, call: int) -> None:
        """The call has ended: send no more of its body and its stream."""
        if self._there:
            self._requests.committed -= self._there.pop(call, 0)
        if self._streams and (stream := self._streams.pop(call, None)) is not None:
            self.queued -= stream.queued
            stream.clear()
            self._short_of_credit.pop(call, None)
        for lane in (self._requests, self._responses):
            if lane.waiting:
                lane.remove(call)
        if self._moving and isinstance(moving := self._moving.pop(call, None), _Body):
            moving.lane.committed -= len(moving.data)
            moving.lane.held -= len(moving.data)

    def clear(self) -> None:
        """Forget everything."""
        self.waiting = 0
        for stream in self._streams.values():
            stream.clear()
        for what in (self._urgent, self._moving, self._there, self._streams, self._short_of_credit):
            what.clear()
        self._requests.clear()
        self._responses.clear()
        self.queued = 0

    def messages(self, room: int) -> list[bytes]:
        """
        Take out what may be sent now, packed into as few messages as it fits.

        Args:
            room: bytes of bodies and streams that may be added to what is in flight; small frames go whatever it is.
        """
        packed: list[bytes] = []
        message: list[bytes | memoryview] = []
        size = 0
        if self.waiting <= frames.MAX_SENT_MESSAGE:
            message += self._urgent
            size = self.waiting
        else:
            for frame in self._urgent:
                if size + len(frame) > frames.MAX_SENT_MESSAGE:
                    packed.append(b"".join(message))
                    message, size = [], 0
                message.append(frame)
                size += len(frame)
        self._urgent.clear()
        self.waiting = 0
        while room > 0 and self.has_bulk:
            if frames.MAX_SENT_MESSAGE - size < LEAST_SPACE:
                packed.append(b"".join(message))
                message, size = [], 0
            used = self._turn(frames.MAX_SENT_MESSAGE - size, message)
            if used is None:
                break
            if not used:  # what comes next does not fit
                packed.append(b"".join(message))
                message, size = [], 0
            size += used
            room -= used
        if message:
            packed.append(b"".join(message))
        return packed

    def _turn(self, space: int, message: list[bytes | memoryview]) -> int | None:
        """Let the next one fill the space; gives the bytes used, 0 if it needs more space, None if nothing can move."""
        self._responses.admit(self._moving)
        self._requests.admit(self._moving)
        while self._moving:
            call, source = self._moving.popitem(last=False)
            move = self._move_body if isinstance(source, _Body) else self._move_stream
            used = move(source, space, message)  # type: ignore[arg-type]
            if used or call in self._moving:
                return used
        return None

    def _move_body(self, body: _Body, space: int, message: list[bytes | memoryview]) -> int:
        start = body.position
        body.position = end = min(start + space - frames.HEADER_SIZE, len(body.data))
        message += (frames.header(FrameType.BODY, body.call, end - start), body.data[start:end])
        if end < len(body.data):
            self._moving[body.call] = body
        else:
            body.lane.held -= len(body.data)
            if body.lane is self._requests:
                self._there[body.call] = len(body.data)
            else:
                body.lane.committed -= len(body.data)
                self._finished.append(body.call)
            if (stream := self._streams.get(body.call)) is not None:
                self.stir(stream)  # it had to wait for the body
        return frames.HEADER_SIZE + end - start

    def _move_stream(self, stream: OutgoingItems, space: int, message: list[bytes | memoryview]) -> int:
        used = 0
        queued = stream.queued
        while stream.may_move(self.link_credit):
            if space - used < max(LEAST_SPACE, stream.end_size):
                self._moving[stream.call] = stream
                break
            size, cost = stream.move(space - used, message)
            self.link_credit -= cost
            used += size
        self.queued -= queued - stream.queued
        if used:
            self._moved.append(stream)
        if stream.finished:
            del self._streams[stream.call]
            self._finished.append(stream.call)
        elif stream.waits and stream.call not in self._moving:
            self._short_of_credit[stream.call] = stream
        return used
