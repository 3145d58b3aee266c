"""
A link to one remote peer: pumps a :class:`~bonevalue.wire.calls.CallTable` and resolves the calls on it.

One pump, in one order: what came in is fed to the table, its events are carried out, and at the end of the turn of the
event loop everything that the table has to send goes out together, in as few messages as it fits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from copy import copy
from typing import Any

from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Cancelled,
    Deadline,
    LinkLost,
    ProtocolError,
    RemoteProtocolError,
    Slow,
)
from bonevalue.host import Host
from bonevalue.items import ReceivedItems, SingleItem
from bonevalue.link import Connection, Link
from bonevalue.module import Caller
from bonevalue.wire import frames
from bonevalue.wire.calls import CallTable, LinkState, Proof
from bonevalue.wire.events import (
    AnswerBegun,
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallReceived,
    CallReturned,
    Drained,
    HoldChanged,
    ItemsArrived,
    LinkOpened,
    OutgoingCall,
    PongReceived,
)
from bonevalue.wire.link_core import INLINE_BODY
from bonevalue.wire.streams import OutgoingItems
from bonevalue.wire.window import BulkWindow

__all__ = ["CallMoved", "Items", "PeerLink"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at a link with something on its way.
STALL_CHECK = 0.5
#: Bytes of a stream that wait to be sent, beyond which its producer waits.
STREAM_QUEUE = 65_536
#: Items that a producer may hand over before the event loop has its turn.
MAX_ITEMS_A_TURN = 32
#: Bytes of small frames that are sent without waiting for the end of the turn: about what one packet carries.
PACKET = 1_000
#: Bytes in flight up to which a round trip counts as that of the empty path.
QUIET = 16_384

#: What follows a request: JSON values or bytes.
Items = Iterable[Any] | AsyncIterable[Any]


class CallMoved(Exception):
    """The remote peer drains the link and did not begin the call: it may go over a new one."""


class _OpenStream:
    """A call of ours that may be answered by a stream."""

    def __init__(self, begun: asyncio.Future[ReceivedItems]) -> None:
        #: Resolved when the answer begins.
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
            _fail(self.begun, error)

    def end(self) -> None:
        """The call is over: our items are no longer wanted."""
        if self.sender is not None:
            self.sender.cancel()


class _Answer:
    """Where the answer to one call goes."""

    __slots__ = ("_call", "_link", "_stream", "items", "takes_stream")

    def __init__(self, link: PeerLink, call: CallReceived) -> None:
        self._link = link
        self._call = call
        self._stream: OutgoingItems | None = None
        self.takes_stream = call.takes_stream
        self.items: AsyncIterator[Any] | None = None if call.items is None else link.incoming(call)

    def blocked(self) -> Awaitable[None] | None:
        return self._link.blocked()

    def reply(self, body: bytes, raw: bool) -> None:
        self._link.reply(self._call, body, raw)

    def fail(self, error: BoneValueError) -> None:
        self._link.fail(self._call, error)

    def begin(self) -> None:
        self._stream = self._link.begin(self._call)

    def item(self, body: bytes, raw: bool) -> Awaitable[None] | None:
        assert self._stream is not None
        return self._link.put(self._stream, body, raw)

    def end(self) -> None:
        self._link.end(self._call)


class PeerLink:
    """
    A link to one remote peer, with the calls on it.

    Args:
        link: the open channel.
        connection: what holds the channel; closed with it.
        remote: who is at the other end, once :meth:`prove` has returned.
        proof: the signatures that show it.
        offerer: this side dialled.
        host: serves the calls of the remote peer.
        idle_timeout: seconds for which a hold lasts after its last use.
        on_closed: called once, when the link is gone.
        on_idle: called when the last call under way has ended.
    """

    def __init__(
        self,
        link: Link,
        connection: Connection,
        remote: Caller,
        proof: Proof,
        *,
        offerer: bool,
        host: Host,
        idle_timeout: float,
        on_closed: Callable[[PeerLink], None],
        on_idle: Callable[[PeerLink], None],
    ) -> None:
        self.remote = remote
        self.offerer = offerer
        self.connection = connection
        #: What the remote peer says it is (its version).
        self.agent = ""
        #: Whether the other side has proved who it is.
        self.proved = False
        #: Why the link has ended, one of `counters.LINK_ENDS`; empty while it has not.
        self.ended = ""
        self._link = link
        self._host = host
        self._idle_timeout = idle_timeout
        self._on_closed = on_closed
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self.opened_at = self.used_at = now = time.monotonic()
        self._table = CallTable(
            offerer=offerer,
            proof=proof,
            settings=host.settings,
            now=now,
            memory=host.memory,
            tallies=host.counters,
        )
        self._proved: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[BoneValueError] = self._loop.create_future()
        self._flush_scheduled = False
        #: Calls of ours begun since the last flush, and between the two before it.
        self._begun = self._batch = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        #: Whether a call of ours wanted the link kept; the hold that comes with dialling alone ends with its first use.
        self._kept = False
        self._was_used = False
        self._hold_timer: asyncio.TimerHandle | None = None
        if offerer:
            self._hold_timer = self._loop.call_later(idle_timeout, self._hold_over)
        self._window = BulkWindow()
        self._sent = 0
        #: Bytes acknowledged when that was last looked at, and since when it has been so many.
        self._progress = (0, now)
        self._look_timer: asyncio.TimerHandle | None = None
        #: Set while new work may be taken on.
        self._clear = asyncio.Event()
        self._clear.set()
        self._pongs: dict[int, asyncio.Future[float]] = {}
        link.low_water = min(self._window.size, host.send_buffer) // 2
        link.on_drained = self._wake
        link.on_message = self._receive
        link.on_closed = self._lost
        self._wake()
        self._arm()

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a new call may go over it."""
        return self._table.accepting

    @property
    def state(self) -> LinkState:
        """Where the link is in its life."""
        return self._table.state

    @property
    def active(self) -> int:
        """How many calls are under way, both directions together."""
        return self._table.active

    @property
    def round_trip(self) -> float | None:
        """Round trip of the last ping, in seconds; None before the first."""
        return self._table.round_trip

    @property
    def send_buffer(self) -> int:
        """Bytes that wait to be sent, or were sent and are not acknowledged."""
        return self._link.buffered + self._table.backlog + self._table.queued_items

    async def prove(self) -> None:
        """
        Wait until the other side has proved who it is.

        Raises:
            IdentityMismatch: it is somebody else, or did not prove itself in time.
            LinkLost: the channel ended before.
        """
        await self._proved

    # -- calls of ours -------------------------------------------------------------------------------------------------

    async def call(
        self, module: str, request: Any, timeout: float, keep_alive: bool = True, items: Items | None = None
    ) -> Any:
        """
        Call a module of the remote peer.

        Args:
            request: any JSON value, or bytes.
            timeout: seconds until the call fails with ``deadline``.
            keep_alive: keep the link for a while after the call.
            items: sent after the request, each a JSON value or bytes.

        Raises:
            CallMoved: the call was not begun, and may go over a new link.
            BoneValueError: it failed; ``error.peer`` names the remote peer.
            TypeError, ValueError: the request cannot be encoded.
        """
        body, raw = frames.encode_body(request)
        return await self.call_encoded(module, body, raw, timeout, keep_alive, items)

    async def call_encoded(
        self, module: str, body: bytes, raw: bool, timeout: float, keep_alive: bool = True, items: Items | None = None
    ) -> Any:
        """The same with a request that :func:`~bonevalue.wire.frames.encode_body` has encoded."""
        if not self._clear.is_set():
            timeout = await self._wait_clear(timeout)
        answer: asyncio.Future[tuple[bytes, bool]] = self._loop.create_future()
        call = self._begin(module, body, raw, timeout, keep_alive, answer, items=items is not None)
        sender = None
        if items is not None:
            sender = self._loop.create_task(self._send(call, items, lambda error: _fail(answer, error)))
        try:
            body, raw = await answer
        except asyncio.CancelledError:
            self._table.cancel(call, time.monotonic())
            self._wake()
            raise
        finally:
            if sender is not None:
                sender.cancel()
            self._used()
        try:
            return frames.decode_body(body, raw)
        except ValueError as error:
            raise self._not_json(module, "response", str(error)) from error

    async def open_stream(
        self, module: str, request: Any, timeout: float, keep_alive: bool = True, items: Items | None = None
    ) -> ReceivedItems:
        """
        Call a module of the remote peer that answers with a stream; a plain response is a stream of one item.

        Args:
            request: any JSON value, or bytes.
            timeout: seconds in which the answer must begin.
            keep_alive: keep the link for a while after the call.
            items: sent after the request, each a JSON value or bytes.

        Raises:
            CallMoved: the call was not begun, and may go over a new link.
            BoneValueError: it failed; ``error.peer`` names the remote peer. The items raise it if it fails later.
            TypeError, ValueError: the request cannot be encoded.
        """
        body, raw = frames.encode_body(request)
        return await self.open_stream_encoded(module, body, raw, timeout, keep_alive, items)

    async def open_stream_encoded(
        self, module: str, body: bytes, raw: bool, timeout: float, keep_alive: bool = True, items: Items | None = None
    ) -> ReceivedItems:
        """The same with a request that :func:`~bonevalue.wire.frames.encode_body` has encoded."""
        if not self._clear.is_set():
            timeout = await self._wait_clear(timeout)
        opening = _OpenStream(self._loop.create_future())
        call = self._begin(module, body, raw, timeout, keep_alive, opening, items=items is not None, takes_stream=True)
        if items is not None:
            opening.sender = self._loop.create_task(self._send(call, items, opening.settle))
        try:
            return await opening.begun
        except asyncio.CancelledError:
            opening.end()
            self._table.cancel(call, time.monotonic())
            self._wake()
            self._used()
            raise

    def _begin(
        self,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        context: asyncio.Future[tuple[bytes, bool]] | _OpenStream,
        *,
        items: bool = False,
        takes_stream: bool = False,
    ) -> OutgoingCall:
        if not self._table.accepting:
            raise CallMoved
        try:
            call = self._table.call(
                module, body, raw, timeout, time.monotonic(), context, items=items, takes_stream=takes_stream
            )
        except BoneValueError as error:
            error.peer = self.remote.id
            raise
        self._host.counters.calls_made += 1
        if keep_alive and not self._kept:
            self._kept = True
            self._table.hold(True)
        self._begun += 1
        if self._batch <= 1 and self._table.active == 1:
            self._flush()  # a lone call does not wait for others of this turn
        else:
            self._send_packet()
        if call.deadline < self._timer_due:
            self._arm()
        if len(body) > INLINE_BODY:
            self._gauge()
        return call

    async def _send(self, call: OutgoingCall, items: Items, fail: Callable[[Exception], None]) -> None:
        """Send the items that follow a request, as fast as the remote peer takes them."""
        stream = call.items
        assert stream is not None
        in_turn = 0
        source = aiter(items) if isinstance(items, AsyncIterable) else _each(items)
        try:
            async for item in source:
                slow = self.put(stream, *frames.encode_body(item))
                in_turn += 1
                if slow is not None:
                    await slow
                    in_turn = 0
                elif in_turn == MAX_ITEMS_A_TURN:
                    await asyncio.sleep(0)
                    in_turn = 0
            self._table.end_items(call)
            self._wake()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the call has ended
            self._give_up(call)
            fail(Cancelled("what was to be sent after the request was cancelled"))
        except Exception as error:  # what the iterator raises is for whoever made the call
            self._give_up(call)
            fail(error)
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

    def _give_up(self, call: OutgoingCall) -> None:
        """The answer to a call is no longer wanted."""
        self._table.cancel(call, time.monotonic())
        self._wake()

    def _not_json(self, module: str, what: str, problem: str) -> BoneValueError:
        error = RemoteProtocolError(f"the {what} of {module} is not JSON: {problem}")
        error.peer = self.remote.id
        return error

    # -- calls of the remote peer --------------------------------------------------------------------------------------

    def incoming(self, call: CallReceived) -> ReceivedItems:
        """What the caller sends after its request."""
        assert call.items is not None
        received = ReceivedItems(
            call.items,
            taken=self._taken,
            closed=_nothing,
            malformed=lambda problem: BadRequest(f"an item of the request is not JSON: {problem}"),
        )
        call.items.context = received
        return received

    def reply(self, call: CallReceived, body: bytes, raw: bool) -> None:
        """Answer a received call."""
        self._table.reply(call, body, raw, time.monotonic())
        if self._table.idle:
            self._flush()  # nothing else can join it
            self._now_idle()
            return
        self._send_packet()
        if len(body) > INLINE_BODY:
            self._gauge()

    def fail(self, call: CallReceived, error: BoneValueError) -> None:
        """End a received call with an error."""
        self._table.fail(call, error, time.monotonic())
        if self._table.idle:
            self._now_idle()
        else:
            self._wake()

    def begin(self, call: CallReceived) -> OutgoingItems:
        """Answer a received call with a stream."""
        stream = self._table.begin(call, time.monotonic())
        self._wake()
        return stream

    def put(self, stream: OutgoingItems, body: bytes, raw: bool) -> Awaitable[None] | None:
        """
        Send one more item of a stream.

        Returns:
            what to await before the next one, while the remote peer does not keep up.

        Raises:
            LinkLost: the call is over.
            TooLarge: the item is longer than one may be.
        """
        if stream.ended:
            raise LinkLost("the call is over, nobody takes its items")
        self._table.push_item(stream, body, raw)
        self._host.counters.items_sent += 1
        self._wake()
        if stream.queued <= STREAM_QUEUE and self._clear.is_set():
            return None
        stream.context = wait = self._loop.create_future()
        return wait

    def end(self, call: CallReceived) -> None:
        """The stream that answers a received call is complete."""
        self._table.end(call)
        self._wake()

    def blocked(self) -> Awaitable[None] | None:
        """What to await before new work is taken on, while what is to be sent is over the limit."""
        return None if self._clear.is_set() else self._until_clear()

    async def _until_clear(self) -> None:
        while not self._clear.is_set():
            await self._clear.wait()

    async def _wait_clear(self, timeout: float) -> float:
        """The same for a call of ours; gives what is left of its time."""
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._until_clear()
        except TimeoutError:
            raise Deadline("the peer did not read what it was sent within the call's time") from None
        return deadline - time.monotonic()

    def _gauge(self) -> None:
        if self._link.buffered + self._table.backlog > self._host.send_buffer and not self.gone.done():
            if self._clear.is_set():
                self._host.counters.limited["send_buffer"] += 1
                self._clear.clear()
        elif not self._clear.is_set():
            self._clear.set()

    # -- round trip ----------------------------------------------------------------------------------------------------

    async def ping(self, timeout: float) -> float:
        """
        Measure the round trip now, in seconds.

        Raises:
            Deadline: no answer came in time.
            LinkLost: the link ended.
        """
        if self.gone.done():
            raise copy(self.gone.result())
        pong: asyncio.Future[float] = self._loop.create_future()
        number = self._table.ping(time.monotonic())
        self._pongs[number] = pong
        self._wake()
        try:
            async with asyncio.timeout(timeout):
                return await pong
        except TimeoutError:
            raise Deadline(f"no answer to a ping within {timeout:g} s") from None
        finally:
            self._pongs.pop(number, None)

    # -- end -----------------------------------------------------------------------------------------------------------

    def drain(self, reason: str) -> None:
        """Accept and make no new calls, finish those under way, then close."""
        self._table.goaway(reason, time.monotonic())
        self._carry_out()

    def close(self, error: BoneValueError | None = None) -> None:
        """Close at once; calls under way fail with ``error`` (default ``link_lost``)."""
        if not self.gone.done():
            why = "closed" if error is None or isinstance(error, LinkLost) else error.code
            self._end(error or LinkLost("the link was closed"), why)

    # -- the pump ------------------------------------------------------------------------------------------------------

    def _receive(self, message: bytes) -> None:
        try:
            self._table.receive(message, time.monotonic())
        except BoneValueError as error:
            self._violated(error)
        else:
            self._carry_out()

    def _due(self) -> None:
        self._timer = None
        now = time.monotonic()
        try:
            self._table.handle_timer(now)
        except BoneValueError as error:
            self._violated(error)
        else:
            self._carry_out()

    def _violated(self, error: BoneValueError) -> None:
        if isinstance(error, (ProtocolError, Slow)):
            logger.warning("link to %s/%s closed: %s: %s", self.remote.name, self.remote.id, error.code, error.message)
        lost = isinstance(error, LinkLost)
        self._end(LinkLost(error.message) if isinstance(error, Slow) else error, "lost" if lost else error.code)

    def _lost(self, reason: str) -> None:
        if not self.gone.done():
            orderly = self._table.state is LinkState.DRAINING and self._table.idle
            error = LinkLost("the link was drained" if orderly else f"the link to the peer ended: {reason}")
            self._end(error, "drained" if orderly else reason)

    def _end(self, error: BoneValueError, why: str) -> None:
        self.ended = why
        self._table.close(error)
        self._clear.set()
        for handle in (self._timer, self._hold_timer, self._look_timer):
            if handle is not None:
                handle.cancel()
        self._timer = self._hold_timer = self._look_timer = None
        self.gone.set_result(error)
        if not self._proved.done():
            self._proved.set_exception(error)
            self._proved.exception()
        for event in self._table.events():
            _HANDLERS[type(event)](self, event)
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(copy(error))
        self._link.close()
        self._on_closed(self)

    def _carry_out(self) -> None:
        for event in self._table.events():
            _HANDLERS[type(event)](self, event)
        if not self.gone.done():
            if self._table.quiet:
                self._table.goaway("idle", time.monotonic())
            if self._table.has_output:
                self._wake()
            if self._timer is None:
                self._arm()

    def _call_received(self, call: CallReceived) -> None:
        if call.deadline < self._timer_due:
            self._arm()
        call.context = self._host.start(call, self.remote, _Answer(self, call))

    def _call_cancelled(self, event: CallCancelled) -> None:
        if event.call.context is not None:
            event.call.context.cancel()

    def _call_answered(self, event: CallAnswered) -> None:
        context: asyncio.Future[tuple[bytes, bool]] | _OpenStream = event.call.context
        if not isinstance(context, _OpenStream):
            if not context.done():
                context.set_result((event.body, event.raw))
            return
        context.end()
        self._used()
        if not context.begun.done():
            source = SingleItem(event.body, event.raw)
            context.begun.set_result(self._items_of(event.call, source, closed=_nothing))

    def _answer_begun(self, event: AnswerBegun) -> None:
        call = event.call
        context: _OpenStream = call.context
        assert call.received is not None

        def give_up() -> None:
            context.end()
            self._table.cancel(call, time.monotonic())
            self._wake()
            self._used()

        context.received = self._items_of(call, call.received, closed=give_up)
        call.received.context = context
        if context.begun.done():  # who asked has gone in this moment
            context.received.close()
        else:
            context.begun.set_result(context.received)

    def _items_of(self, call: OutgoingCall, source: Any, closed: Callable[[], None]) -> ReceivedItems:
        module = call.module.decode()
        return ReceivedItems(
            source,
            taken=self._taken,
            closed=closed,
            malformed=lambda problem: self._not_json(module, "stream", problem),
        )

    def _items_arrived(self, event: ItemsArrived) -> None:
        context: _OpenStream | ReceivedItems | None = event.items.context
        if isinstance(context, _OpenStream):
            if context.received is not None:
                context.received.arrived()
            if event.items.ended:
                context.end()
                self._used()
        elif context is not None:
            context.arrived()

    def _call_failed(self, event: CallFailed) -> None:
        context: asyncio.Future[tuple[bytes, bool]] | _OpenStream = event.call.context
        error = copy(event.error)  # one that ended the link goes to many callers
        error.peer = self.remote.id
        if isinstance(context, _OpenStream):
            context.settle(error)
            self._used()
        else:
            _fail(context, error)

    def _call_returned(self, event: CallReturned) -> None:
        context: asyncio.Future[tuple[bytes, bool]] | _OpenStream = event.call.context
        if isinstance(context, _OpenStream):
            context.settle(CallMoved())
        else:
            _fail(context, CallMoved())

    def _opened(self, event: LinkOpened) -> None:
        self.agent = event.agent
        self.proved = True
        self._table.ping(time.monotonic())  # the path is empty now: what it takes is its round trip
        if not self._proved.done():
            self._proved.set_result(None)

    def _pong_received(self, event: PongReceived) -> None:
        if self._link.buffered <= QUIET:
            self._window.measured(event.round_trip)
        pong = self._pongs.get(event.number)
        if pong is not None and not pong.done():
            pong.set_result(event.round_trip)

    def _drained(self, event: Drained) -> None:
        if not self.gone.done():
            self._end(LinkLost("the link was drained"), "drained")

    # -- what goes out -------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _taken(self, items: int) -> None:
        """So many items were taken, or the rest is not wanted: there may be credit to send."""
        self._host.counters.items_received += items
        if self._table.waiting:
            self._wake()

    def _send_packet(self) -> None:
        """Send what fills a packet at once, so that the remote peer works on it while the rest is made."""
        if self._table.waiting >= PACKET:
            self._flush()
        else:
            self._wake()

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self.gone.done():
            return
        link, table = self._link, self._table
        if link.buffered > self._host.send_buffer:
            self._fall_behind()
            return
        if self._begun:
            self._batch, self._begun = self._begun, 0
        has_bulk = table.has_bulk
        try:
            for message in table.data_to_send(self._window.size - link.buffered, time.monotonic()):
                link.send(message)
                self._sent += len(message)
        except LinkLost:
            return  # on_closed follows
        self._gauge()
        if self._look_timer is None and link.buffered:
            self._progress = (self._sent - link.buffered, time.monotonic())
            self._look_timer = self._loop.call_later(STALL_CHECK, self._look_again)
        if has_bulk:
            self._after_bulk()

    def _after_bulk(self) -> None:
        """Long bodies and streams have moved."""
        link, table = self._link, self._table
        self._let_producers_go_on()
        if table.idle:  # the last long answer has left
            self._now_idle()
        self._window.progress(self._sent, self._sent - link.buffered, time.monotonic())
        # Never so high that the buffer could fall below its limit without anybody being told.
        link.low_water = min(self._window.size, self._host.send_buffer) // 2
        # A link whose buffer was empty, and stayed so, has no reason to say that it has drained.
        if table.can_move and link.buffered <= link.low_water:
            self._wake()
        elif not (table.has_bulk or link.buffered):
            self._window.idle()

    def _let_producers_go_on(self) -> None:
        for stream in self._table.moved():
            wait: asyncio.Future[None] | None = stream.context
            if wait is not None and stream.queued <= STREAM_QUEUE // 2:
                stream.context = None
                if not wait.done():
                    wait.set_result(None)

    def _fall_behind(self) -> None:
        """The remote peer takes so little that nothing more is handed over now."""
        if self._table.waiting > self._host.send_buffer:
            self._violated(Slow("the peer makes more calls than it reads answers"))
            return
        self._gauge()

    def _look_again(self) -> None:
        """Look whether what is on its way gets acknowledged; over and over, as long as there is something."""
        self._look_timer = None
        if not self._link.buffered:
            return
        acknowledged, now = self._sent - self._link.buffered, time.monotonic()
        if acknowledged != self._progress[0]:
            self._progress = (acknowledged, now)
        elif now - self._progress[1] > self._host.stall_timeout:
            self._violated(Slow(f"the peer has taken nothing for {self._host.stall_timeout:.0f} s"))
            return
        self._look_timer = self._loop.call_later(STALL_CHECK, self._look_again)
        self._wake()

    def _arm(self) -> None:
        due = self._table.timer()
        if due is None:
            return
        # Only moved forward: a timer that comes too early finds nothing due, and is armed anew.
        if self._timer is not None:
            if due >= self._timer_due:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._due)

    # -- holding -------------------------------------------------------------------------------------------------------

    def _now_idle(self) -> None:
        """The last call under way has ended."""
        self.used_at = time.monotonic()
        if self._was_used and not self._kept:
            self._table.hold(False)
        self._carry_out()
        self._on_idle(self)

    def _used(self) -> None:
        """A call of ours has ended: hold the link for some time, or let it go if no call wanted it kept."""
        if self.gone.done():
            return
        self._was_used = True
        if self._kept and self._hold_timer is None:
            self._hold_timer = self._loop.call_later(self._idle_timeout, self._hold_over)
        if self._table.idle:
            self._now_idle()

    def _hold_over(self) -> None:
        self._hold_timer = None
        idle_until = self.used_at + self._idle_timeout
        if not self._table.idle or time.monotonic() < idle_until:
            wait = max(idle_until - time.monotonic(), self._idle_timeout / 10)
            self._hold_timer = self._loop.call_later(wait, self._hold_over)
            return
        self._kept = False
        self._table.hold(False)
        self._carry_out()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # a caller that was cancelled meanwhile does not look at it


async def _each(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def _nothing(*_: object) -> None:
    pass


_HANDLERS: dict[type, Callable[[PeerLink, Any], None]] = {
    CallReceived: PeerLink._call_received,
    CallCancelled: PeerLink._call_cancelled,
    CallAnswered: PeerLink._call_answered,
    AnswerBegun: PeerLink._answer_begun,
    ItemsArrived: PeerLink._items_arrived,
    CallFailed: PeerLink._call_failed,
    CallReturned: PeerLink._call_returned,
    LinkOpened: PeerLink._opened,
    HoldChanged: _nothing,
    PongReceived: PeerLink._pong_received,
    Drained: PeerLink._drained,
}
