"""
A link to one remote peer: pumps a :class:`~bonevalue.wire.calls.CallTable` and resolves the calls on it.

One pump, in one order: what came in is fed to the table, its events are carried out, and at the end of the turn of the
event loop everything that the table has to send goes out together, in as few messages as it fits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from copy import copy
from functools import partial
from typing import Any

from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Cancelled,
    LinkLost,
    ProtocolError,
    RemoteProtocolError,
    Slow,
)
from bonevalue.flow import Flow
from bonevalue.holding import Holding
from bonevalue.host import Host
from bonevalue.items import Items, ReceivedItems, SingleItem, hand_over
from bonevalue.life import LinkLife, State
from bonevalue.link import Connection, Link
from bonevalue.link_calls import CallMoved, LinkAnswer, OpenStream, fail_call
from bonevalue.module import Caller
from bonevalue.pings import Pings
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

__all__ = ["PeerLink"]

logger = logging.getLogger(__name__)


class PeerLink:
    """
    A link to one remote peer, with the calls on it.

    Args:
        link: the open channel.
        connection: what holds the channel; closed with it.
        remote: who is at the other end, once :meth:`prove` has returned.
        proof: the signatures that show it.
        life: is told what becomes of the link.
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
        life: LinkLife,
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
        self.life = life
        #: Once it has ended: until when this side would have wanted it, see `wanted_until`.
        self.missed_until = 0.0
        #: What the remote peer says it is (its version).
        self.agent = ""
        #: Whether the other side has proved who it is.
        self.proved = False
        #: Why the link has ended, one of `counters.LINK_ENDS`; empty while it has not.
        self.ended = ""
        self._link = link
        self._host = host
        self._on_closed = on_closed
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self.opened_at = now = time.monotonic()
        self._table = CallTable(
            offerer=offerer,
            proof=proof,
            settings=host.settings,
            now=now,
            memory=host.memory,
            account=remote.key,
            tallies=host.counters,
        )
        self._proved: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[BoneValueError] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._holding = Holding(self._table, idle_timeout, opened_at=now, dialled=offerer, on_let_go=self._carry_out)
        #: What goes out.
        self._flow = Flow(
            link,
            self._table,
            limit=host.send_buffer,
            stall_timeout=host.stall_timeout,
            counters=host.counters,
            on_idle=self._now_idle,
            on_stalled=self._violated,
        )
        self._pings = Pings(self._table, self._flow.wake)
        link.on_message = self._receive
        link.on_closed = self._lost
        self._flow.wake()
        self._arm()

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether a new call may go over it."""
        return self._table.accepting

    @property
    def wanted_until(self) -> float:
        """Until when this side wants the link kept, in monotonic seconds; 0 if no call of ours asked for that."""
        return self._holding.until

    @property
    def used_at(self) -> float:
        """When the last call on it ended, in monotonic seconds; ``opened_at`` itself if none has."""
        return self._holding.used_at

    @property
    def is_wanted(self) -> bool:
        """Whether either side holds the link, or calls are under way."""
        return self._table.local_hold or self._table.remote_hold or not self._table.idle

    @property
    def active(self) -> int:
        """How many calls are under way, both directions together."""
        return self._table.active

    @property
    def doubted(self) -> bool:
        """The path may be broken: until the other side has answered, new calls are better made over another link."""
        return self._pings.doubted

    @property
    def acknowledged(self) -> int:
        """Bytes of all that was sent that have reached the other side, as far as is known."""
        return self._flow.acknowledged

    @property
    def round_trip(self) -> float | None:
        """Round trip of the last ping, in seconds; None before the first."""
        return self._table.round_trip

    @property
    def send_buffer(self) -> int:
        """Bytes that wait to be sent, or were sent and are not acknowledged."""
        return self._flow.buffered

    async def prove(self) -> None:
        """
        Wait until the other side has proved who it is.

        Raises:
            IdentityMismatch: it is somebody else.
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
        if not self._flow.is_clear:
            timeout = await self._flow.wait(timeout)
        answer: asyncio.Future[tuple[bytes, bool]] = self._loop.create_future()
        call = self._begin(module, body, raw, timeout, keep_alive, answer, items=items is not None)
        sender = None
        if items is not None:
            sender = self._loop.create_task(self._send(call, items, lambda error: fail_call(answer, error)))
        try:
            body, raw = await answer
        except asyncio.CancelledError:
            self._table.cancel(call, time.monotonic())
            self._flow.wake()
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
        if not self._flow.is_clear:
            timeout = await self._flow.wait(timeout)
        opening = OpenStream(self._loop.create_future())
        call = self._begin(module, body, raw, timeout, keep_alive, opening, items=items is not None, takes_stream=True)
        if items is not None:
            opening.sender = self._loop.create_task(self._send(call, items, opening.settle))
        try:
            return await opening.begun
        except asyncio.CancelledError:
            opening.end()
            self._table.cancel(call, time.monotonic())
            self._flow.wake()
            self._used()
            raise

    def _begin(
        self,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        context: asyncio.Future[tuple[bytes, bool]] | OpenStream,
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
        if keep_alive:
            self._holding.want()
        self._flow.wake_for_call()
        if call.deadline < self._timer_due:
            self._arm()
        if len(body) > INLINE_BODY:
            self._flow.gauge()
        return call

    async def _send(self, call: OutgoingCall, items: Items, fail: Callable[[Exception], None]) -> None:
        """Send the items that follow a request, as fast as the remote peer takes them."""
        stream = call.items
        assert stream is not None
        try:
            await hand_over(items, partial(self._flow.put, stream))
            self._table.end_items(call)
            self._flow.wake()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the call has ended
            self._give_up(call)
            fail(Cancelled("what was to be sent after the request was cancelled"))
        except Exception as error:  # what the iterator raises is for whoever made the call
            self._give_up(call)
            fail(error)

    def _give_up(self, call: OutgoingCall) -> None:
        """The answer to a call is no longer wanted."""
        self._table.cancel(call, time.monotonic())
        self._flow.wake()

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
            self._flow.flush()  # nothing else can join it
            self._now_idle()
            return
        self._flow.wake_for_packet()
        if call.items is not None:
            self._carry_out()  # whoever still waits for its items learns that there are no more
        if len(body) > INLINE_BODY:
            self._flow.gauge()

    def fail(self, call: CallReceived, error: BoneValueError) -> None:
        """End a received call with an error."""
        self._table.fail(call, error, time.monotonic())
        if self._table.idle:
            self._now_idle()
        else:
            self._carry_out()

    def begin(self, call: CallReceived) -> OutgoingItems:
        """Answer a received call with a stream."""
        stream = self._table.begin(call, time.monotonic())
        self._flow.wake()
        return stream

    def put(self, stream: OutgoingItems, body: bytes, raw: bool) -> Awaitable[None] | None:
        """Send one more item of such a stream; see :meth:`~bonevalue.flow.Flow.put`."""
        return self._flow.put(stream, body, raw)

    def blocked(self) -> Awaitable[None] | None:
        """What to await before a received call is looked at; see :meth:`~bonevalue.flow.Flow.blocked`."""
        return self._flow.blocked()

    def end(self, call: CallReceived) -> None:
        """The stream that answers a received call is complete."""
        self._table.end(call)
        self._flow.wake()

    def _taken(self, items: int) -> None:
        """So many items were taken, or the rest is not wanted: there may be credit to send."""
        self._host.counters.items_received += items
        if self._table.waiting:
            self._flow.wake()

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
        return await self._pings.measure(timeout)

    def doubt(self) -> None:
        """
        The path may be broken.

        What comes from the other side does not show the contrary: it may still reach us while nothing that we send
        reaches it. The answer to a ping from now on does.
        """
        if not self.gone.done():
            self._pings.doubt()

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

    def lose(self, reason: str) -> None:
        """The remote peer is gone, or out of reach: end the link at once, as one that is lost."""
        if not self.gone.done():
            self._violated(LinkLost(reason))

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
        if isinstance(error, LinkLost):
            self._end(error, "drained" if self._is_drained else "lost")
        else:
            self._end(LinkLost(error.message) if isinstance(error, Slow) else error, error.code)

    def _lost(self, reason: str) -> None:
        if not self.gone.done():
            orderly = self._is_drained
            error = LinkLost("the link was drained" if orderly else f"the link to the peer ended: {reason}")
            self._end(error, "drained" if orderly else reason)

    @property
    def _is_drained(self) -> bool:
        """Whether nothing is lost with it: it was to end anyway, and no calls are on it."""
        return self._table.state is LinkState.DRAINING and self._table.idle

    def _end(self, error: BoneValueError, why: str) -> None:
        self.ended = why
        self.missed_until = self.wanted_until
        self._table.close(error)
        self._flow.close()
        self._holding.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.gone.set_result(error)
        if not self._proved.done():
            self._proved.set_exception(error)
            self._proved.exception()
        for event in self._table.events():
            _HANDLERS[type(event)](self, event)
        self._pings.fail(error)
        self._link.close()
        if why == "lost":
            self.life.end(State.LOST, error.message)
        else:
            self.life.end(State.CLOSED, why)
        self._on_closed(self)

    def _carry_out(self) -> None:
        for event in self._table.events():
            _HANDLERS[type(event)](self, event)
        if not self.gone.done():
            if self._table.state is LinkState.DRAINING and self.life.state is State.OPEN:
                self.life.to(State.DRAINING)
            if self._table.quiet:
                self._table.goaway("idle", time.monotonic())
            if self._table.has_output:
                self._flow.wake()
            if self._timer is None:
                self._arm()

    def _call_received(self, call: CallReceived) -> None:
        if call.deadline < self._timer_due:
            self._arm()
        call.context = self._host.start(call, self.remote, LinkAnswer(self, call))

    def _call_cancelled(self, event: CallCancelled) -> None:
        if event.call.context is not None:
            event.call.context.cancel()

    def _call_answered(self, event: CallAnswered) -> None:
        context: asyncio.Future[tuple[bytes, bool]] | OpenStream = event.call.context
        if not isinstance(context, OpenStream):
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
        context: OpenStream = call.context
        assert call.received is not None

        def give_up() -> None:
            context.end()
            self._table.cancel(call, time.monotonic())
            self._flow.wake()
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
        context: OpenStream | ReceivedItems | None = event.items.context
        if isinstance(context, OpenStream):
            if context.received is not None:
                context.received.arrived()
            if event.items.ended:
                context.end()
                self._used()
        elif context is not None:
            context.arrived()

    def _call_failed(self, event: CallFailed) -> None:
        context: asyncio.Future[tuple[bytes, bool]] | OpenStream = event.call.context
        error = copy(event.error)  # one that ended the link goes to many callers
        error.peer = self.remote.id
        if isinstance(context, OpenStream):
            context.settle(error)
            self._used()
        else:
            fail_call(context, error)

    def _call_returned(self, event: CallReturned) -> None:
        context: asyncio.Future[tuple[bytes, bool]] | OpenStream = event.call.context
        if isinstance(context, OpenStream):
            context.settle(CallMoved())
        else:
            fail_call(context, CallMoved())

    def _opened(self, event: LinkOpened) -> None:
        self.agent = event.agent
        self.proved = True
        self.life.to(State.OPEN)
        self._flow.measure()
        self._arm()  # no longer for the proof
        if not self._proved.done():
            self._proved.set_result(None)

    def _pong_received(self, event: PongReceived) -> None:
        self._flow.round_trip(event.number, event.round_trip)
        self._pings.answered(event.number, event.round_trip)

    def _drained(self, event: Drained) -> None:
        if not self.gone.done():
            self._end(LinkLost("the link was drained"), "drained")

    # -- timers --------------------------------------------------------------------------------------------------------

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
        self._holding.idle()
        self._carry_out()
        self._on_idle(self)

    def _used(self) -> None:
        """A call of ours has ended: hold the link for some time, or let it go if no call wanted it kept."""
        if self.gone.done():
            return
        self._holding.used()
        if self._table.idle:
            self._now_idle()

    def keep(self, until: float) -> None:
        """Hold it as a call of ours would, until that moment (monotonic seconds) if it is not used."""
        if not self.gone.done():
            self._holding.keep(until)
            self._flow.wake()


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
