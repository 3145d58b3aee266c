"""The two ends of a call on a link: what waits for the answer to ours, and where the answer to another's goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Any

from bonevalue.errors import BoneValueError
from bonevalue.items import ReceivedItems
from bonevalue.wire.events import CallReceived
from bonevalue.wire.streams import OutgoingItems

if TYPE_CHECKING:
    from bonevalue.peer_link import PeerLink

__all__ = ["CallMoved", "LinkAnswer", "OpenStream", "fail_call"]


class CallMoved(Exception):
    """The remote peer drains the link and did not begin the call: it may go over a new one."""


def fail_call(answer: asyncio.Future[Any], error: Exception) -> None:
    """End the wait for an answer; without effect if it has ended."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()  # a caller that was cancelled meanwhile does not look at it


class OpenStream:
    """
    A call of ours that may be answered by a stream.

    Args:
        begun: resolved when the answer begins.
    """

    def __init__(self, begun: asyncio.Future[ReceivedItems]) -> None:
        self.begun = begun
        self.received: ReceivedItems | None = None
        #: Sends our items.
        self.sender: asyncio.Task[None] | None = None

    def settle(self, error: Exception) -> None:
        """The call has failed."""
        self.end()
        if self.received is not None:
            self.received.fail(error)
        else:
            fail_call(self.begun, error)

    def end(self) -> None:
        """The call is over: our items are no longer wanted."""
        if self.sender is not None:
            self.sender.cancel()


class LinkAnswer:
    """The answer to a call that came over a link (:class:`~bonevalue.host.Answering`)."""

    __slots__ = ("_call", "_link", "_stream", "items", "takes_stream")

    def __init__(self, link: PeerLink, call: CallReceived) -> None:
        self._link = link
        self._call = call
        self._stream: OutgoingItems | None = None
        self.takes_stream = call.takes_stream
        self.items: AsyncIterator[Any] | None = None if call.items is None else link.incoming(call)

    def blocked(self) -> Awaitable[None] | None:
        """What to await while the caller does not read its answers."""
        return self._link.blocked()

    def reply(self, body: bytes, raw: bool) -> None:
        """The one response."""
        self._link.reply(self._call, body, raw)

    def fail(self, error: BoneValueError) -> None:
        """The call ends with an error."""
        self._link.fail(self._call, error)

    def begin(self) -> None:
        """The answer is a stream."""
        self._stream = self._link.begin(self._call)

    def item(self, body: bytes, raw: bool) -> Awaitable[None] | None:
        """Hand over one item."""
        assert self._stream is not None
        return self._link.put(self._stream, body, raw)

    def end(self) -> None:
        """The stream is complete."""
        self._link.end(self._call)
