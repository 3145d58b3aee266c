"""
What one side of a link has to send, in the order in which it goes out.

Small frames go first, all of them. The bodies that are too long for one frame share what room is left, a fragment
each in turn, so that they never hold up a small call by more than what is already in flight.
"""

from __future__ import annotations

from collections import OrderedDict

from bonevalue.wire import frames
from bonevalue.wire.frames import FrameType

__all__ = ["Outbox"]


class _Body:
    """A body on its way out."""

    __slots__ = ("call", "data", "is_request", "position")

    def __init__(self, call: int, data: bytes, is_request: bool) -> None:
        self.call = call
        self.is_request = is_request
        self.data = memoryview(data)
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position


class Outbox:
    """Frames and bodies to be sent; :meth:`messages` packs them."""

    def __init__(self) -> None:
        #: Bytes of bodies that the other side holds unfinished at most; set from its ``hello``.
        self.budget = 0
        #: Bytes of frames that wait, long bodies not counted.
        self.waiting = 0
        #: Bytes of bodies that wait or are on their way out, each whole until its last fragment has left.
        self.held = 0
        self._urgent: list[bytes] = []
        self._moving: OrderedDict[int, _Body] = OrderedDict()
        self._waiting: OrderedDict[int, _Body] = OrderedDict()
        self._finished: list[int] = []
        #: Requests that have left whole: the other side holds them until their calls end.
        self._there: dict[int, int] = {}
        self._committed = 0

    def __bool__(self) -> bool:
        return bool(self._urgent or self._moving or self._waiting)

    @property
    def has_bodies(self) -> bool:
        """Whether a body waits for room."""
        return bool(self._moving or self._waiting)

    def push(self, frame: bytes) -> None:
        """Send a frame as soon as there is a turn."""
        self.waiting += len(frame)
        self._urgent.append(frame)

    def push_body(self, call: int, data: bytes, *, is_request: bool) -> None:
        """Send a body in fragments, after the frame that announced it."""
        self._waiting[call] = _Body(call, data, is_request)
        self.held += len(data)

    def finished(self) -> list[int]:
        """Take out the calls whose responses have left whole."""
        finished, self._finished = self._finished, []
        return finished

    def discard(self, call: int) -> None:
        """The call has ended: send no more of its body."""
        self._committed -= self._there.pop(call, 0)
        if (body := self._waiting.pop(call, None)) is None and (body := self._moving.pop(call, None)) is not None:
            self._committed -= len(body.data)
        if body is not None:
            self.held -= len(body.data)

    def clear(self) -> None:
        """Forget everything."""
        self.waiting = 0
        self._urgent.clear()
        self._moving.clear()
        self._waiting.clear()
        self._there.clear()
        self._committed = self.held = 0

    def messages(self, room: int) -> list[bytes]:
        """
        Take out what may be sent now, packed into as few messages as it fits.

        Args:
            room: how many bytes of bodies may be added to what is in flight; small frames go whatever it is.
        """
        packed: list[bytes] = []
        message: list[bytes] = []
        size = 0
        for frame in self._urgent:
            if size + len(frame) > frames.MAX_SENT_MESSAGE:
                packed.append(b"".join(message))
                message, size = [], 0
            message.append(frame)
            size += len(frame)
        self._urgent.clear()
        self.waiting = 0
        while room > 0 and self._admit():
            space = frames.MAX_SENT_MESSAGE - size - frames.HEADER_SIZE
            if space <= 0:
                packed.append(b"".join(message))
                message, size = [], 0
                continue
            frame = self._fragment(space)
            message.append(frame)
            size += len(frame)
            room -= len(frame)
        if message:
            packed.append(b"".join(message))
        return packed

    def _admit(self) -> bool:
        """Start every body for which the other side has memory; tell whether one can move."""
        while self._waiting:
            call, body = next(iter(self._waiting.items()))
            length = len(body.data)
            if self._committed and self._committed + length > self.budget:
                break
            self._moving[call] = self._waiting.pop(call)
            self._committed += length
        return bool(self._moving)

    def _fragment(self, space: int) -> bytes:
        _, body = self._moving.popitem(last=False)
        end = body.position + min(space, body.left)
        frame = frames.encode(FrameType.BODY, body.call, bytes(body.data[body.position : end]))
        body.position = end
        if body.left:
            self._moving[body.call] = body
        else:
            self.held -= len(body.data)
            if body.is_request:
                self._there[body.call] = len(body.data)
            else:
                self._committed -= len(body.data)
                self._finished.append(body.call)
        return frame
