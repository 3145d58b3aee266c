"""
Calls over a proven link: pumps a :class:`~bonevalue.wire.calls.CallTable`, runs the handlers, resolves our own calls.

One pump, in one order: what came in is fed to the table, its events are carried out, and at the end of the turn of the
event loop everything that the table has to send goes out together, in as few messages as it fits.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from copy import copy
from typing import Any

from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Busy,
    Cancelled,
    Deadline,
    Denied,
    HandlerFailed,
    LinkLost,
    NoModule,
    ProtocolError,
    RateLimited,
    RemoteProtocolError,
    Slow,
    TooLarge,
    Unavailable,
)
from bonevalue.link import Connection, Link
from bonevalue.logs import LogLimit
from bonevalue.module import Caller, Context
from bonevalue.serving import ModuleSet
from bonevalue.wire import frames
from bonevalue.wire.calls import CallTable, LinkSettings, LinkState, Proof
from bonevalue.wire.events import (
    CallAnswered,
    CallCancelled,
    CallFailed,
    CallReceived,
    CallReturned,
    Drained,
    Event,
    LinkOpened,
    OutgoingCall,
    PongReceived,
)

__all__ = ["CallMoved", "Host", "PeerLink"]

logger = logging.getLogger(__name__)

#: Bytes of long bodies in flight on a link; a small call waits for at most so many.
BULK_WINDOW = 131_072
#: Bytes in the engine over which nothing is added: the remote peer does not keep up.
MAX_BUFFERED = 4 * 1024 * 1024
#: Seconds without any progress after which such a link is closed, and between two looks at it.
STALL_TIMEOUT = 30.0
STALL_CHECK = 0.5
#: Errors that a handler may raise for its caller to see. Any other, and one that came from a call of the handler's
#: own, is ``handler_failed``: the caller cannot do anything about it.
_SPOKEN = (BadRequest, Busy, Denied, RateLimited, TooLarge, Unavailable)


class CallMoved(Exception):
    """The remote peer drains the link and did not begin the call: it may go over a new one."""


class Host:
    """
    The modules that a peer serves, and the links over which they are called.

    Args:
        settings: what this side takes on each link.
    """

    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        self.modules = ModuleSet()
        #: Handlers that are running.
        self.running: set[asyncio.Task[None]] = set()
        self._log_limit = LogLimit()

    async def serve(self, event: CallReceived, link: PeerLink) -> None:
        """Run the handler of one call and answer it."""
        call_id = secrets.token_hex(6)
        try:
            await link.clear()  # a peer that does not read its answers gets no further ones made
            body, raw = await self._run(event, link.remote, call_id)
        except _SPOKEN as error:
            if error.peer is None:
                error.call_id = call_id
                link.fail(event.call, error)
            else:
                link.fail(event.call, self._handler_failed(event, link.remote, call_id, error))
        except NoModule as error:
            link.fail(event.call, error)
        except asyncio.CancelledError:
            # Without effect if the remote peer, or the deadline, cancelled it: then the call is no longer there.
            link.fail(event.call, Cancelled("this peer cancelled the call"))
            raise
        except (Exception, SystemExit) as error:  # a module must not end the process
            link.fail(event.call, self._handler_failed(event, link.remote, call_id, error))
        else:
            link.reply(event.call, body, raw)

    async def _run(self, event: CallReceived, caller: Caller, call_id: str) -> tuple[bytes, bool]:
        module = self.modules.get(event.module)
        if module is None:
            raise NoModule(f"no module {event.module!r} here")
        log = logging.LoggerAdapter(
            logging.getLogger(f"module.{module.name}"),
            {"module": module.name, "caller": caller.name, "peer": caller.id, "call_id": call_id},
        )
        return await module.run(event.body, event.raw, Context(caller, event.deadline, call_id, log))

    def _handler_failed(self, event: CallReceived, caller: Caller, call_id: str, error: BaseException) -> HandlerFailed:
        passes, left_out = self._log_limit.passes((caller.id, event.module))
        if passes:
            logger.error(
                "module %s failed, call %s from %s/%s%s",
                event.module,
                call_id,
                caller.name,
                caller.id,
                f" ({left_out} such lines left out)" if left_out else "",
                exc_info=error,
            )
        return HandlerFailed(f"{event.module} failed; its log has it under {call_id}", call_id=call_id)


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
        self._link = link
        self._host = host
        self._idle_timeout = idle_timeout
        self._on_closed = on_closed
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self.opened_at = self.used_at = time.monotonic()
        self._table = CallTable(offerer=offerer, proof=proof, settings=host.settings, now=self.opened_at)
        self._proved: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[BoneValueError] = self._loop.create_future()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._flush_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        #: Whether a call of ours wanted the link kept; the hold that comes with dialling alone ends with its first use.
        self._kept = False
        self._was_used = False
        self._hold_timer: asyncio.TimerHandle | None = None
        if offerer:
            self._hold_timer = self._loop.call_later(idle_timeout, self._hold_over)
        #: Since when, and at how many bytes in the engine, the remote peer has read nothing; None while it reads.
        self._stalled: tuple[float, int] | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        #: Set while calls of ours may be handed over.
        self._clear = asyncio.Event()
        self._clear.set()
        self._pongs: dict[int, asyncio.Future[float]] = {}
        link.low_water = BULK_WINDOW // 2
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

    async def prove(self) -> None:
        """
        Wait until the other side has proved who it is.

        Raises:
            IdentityMismatch: it is somebody else, or did not prove itself in time.
            LinkLost: the channel ended before.
        """
        await self._proved

    # -- calls ---------------------------------------------------------------------------------------------------------

    async def call(self, module: str, request: Any, timeout: float, keep_alive: bool = True) -> Any:
        """
        Call a module of the remote peer.

        Args:
            request: any JSON value, or bytes.
            timeout: seconds until the call fails with ``deadline``.
            keep_alive: keep the link for a while after the call.

        Raises:
            CallMoved: the call was not begun, and may go over a new link.
            BoneValueError: it failed; ``error.peer`` names the remote peer.
            TypeError, ValueError: the request cannot be encoded.
        """
        body, raw = frames.encode_body(request)
        if not self._clear.is_set():
            deadline = time.monotonic() + timeout
            try:
                async with asyncio.timeout(timeout):
                    await self._clear.wait()
            except TimeoutError:
                raise Deadline("the peer did not read what it was sent within the call's time") from None
            timeout = deadline - time.monotonic()
        answer: asyncio.Future[tuple[bytes, bool]] = self._loop.create_future()
        if not self.usable:
            raise CallMoved
        try:
            call = self._table.call(module, body, raw, timeout, time.monotonic(), answer)
        except BoneValueError as error:
            error.peer = self.remote.id
            raise
        if keep_alive:
            self._kept = True
            self._table.hold(True)
        self._wake()
        self._arm()
        try:
            return frames.decode_body(*await answer)
        except asyncio.CancelledError:
            self._table.cancel(call, time.monotonic())
            self._wake()
            raise
        except BoneValueError as error:
            error.peer = self.remote.id
            raise
        except ValueError as error:
            broken = RemoteProtocolError(f"the response of {module} is not JSON: {error}")
            broken.peer = self.remote.id
            raise broken from error
        finally:
            self._used()

    async def clear(self) -> None:
        """Wait until what is to be sent is under the limit again."""
        self._gauge()
        while not self._clear.is_set():
            await self._clear.wait()

    def _gauge(self) -> None:
        if self._link.buffered + self._table.backlog > MAX_BUFFERED and not self.gone.done():
            self._clear.clear()
        else:
            self._clear.set()

    def reply(self, call: int, body: bytes, raw: bool) -> None:
        """Answer a received call."""
        self._table.reply(call, body, raw, time.monotonic())
        self._after_call()

    def fail(self, call: int, error: BoneValueError) -> None:
        """End a received call with an error."""
        self._table.fail(call, error, time.monotonic())
        self._after_call()

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
            self._end(error or LinkLost("the link was closed"))

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
        try:
            self._table.handle_timer(time.monotonic())
        except BoneValueError as error:
            self._violated(error)
        else:
            self._carry_out()

    def _violated(self, error: BoneValueError) -> None:
        if isinstance(error, (ProtocolError, Slow)):
            logger.warning("link to %s/%s closed: %s: %s", self.remote.name, self.remote.id, error.code, error.message)
        self._end(LinkLost(error.message) if isinstance(error, Slow) else error)

    def _lost(self, reason: str) -> None:
        if not self.gone.done():
            orderly = self._table.state is LinkState.DRAINING and not self._table.active
            self._end(LinkLost("the link was drained" if orderly else f"the link to the peer ended: {reason}"))

    def _end(self, error: BoneValueError) -> None:
        self._table.close(error)
        self._clear.set()
        for handle in (self._timer, self._hold_timer, self._stall_timer):
            if handle is not None:
                handle.cancel()
        self._timer = self._hold_timer = self._stall_timer = None
        self.gone.set_result(error)
        if not self._proved.done():
            self._proved.set_exception(error)
            self._proved.exception()
        for event in self._table.events():
            self._handle(event)
        for pong in self._pongs.values():
            if not pong.done():
                pong.set_exception(copy(error))
        self._link.close()
        self._on_closed(self)

    def _carry_out(self) -> None:
        for event in self._table.events():
            self._handle(event)
        if not self.gone.done():
            if self._table.quiet:
                self._table.goaway("idle", time.monotonic())
            self._wake()
            self._arm()

    def _handle(self, event: Event) -> None:
        if isinstance(event, CallReceived):
            task = self._loop.create_task(self._host.serve(event, self))
            self._tasks[event.call] = task
            self._host.running.add(task)
            task.add_done_callback(self._host.running.discard)
            task.add_done_callback(lambda _: self._tasks.pop(event.call, None))
        elif isinstance(event, CallAnswered):
            self._settle(event.call, (event.body, event.raw), None)
        elif isinstance(event, CallFailed):
            self._settle(event.call, None, copy(event.error))  # one that ended the link goes to many callers
        elif isinstance(event, CallReturned):
            self._settle(event.call, None, CallMoved())
        elif isinstance(event, CallCancelled):
            task_of_call = self._tasks.get(event.call)
            if task_of_call is not None:
                task_of_call.cancel()
        elif isinstance(event, LinkOpened):
            self.agent = event.agent
            if not self._proved.done():
                self._proved.set_result(None)
        elif isinstance(event, PongReceived):
            pong = self._pongs.get(event.number)
            if pong is not None and not pong.done():
                pong.set_result(event.round_trip)
        elif isinstance(event, Drained):
            self.close(LinkLost("the link was drained"))

    @staticmethod
    def _settle(call: OutgoingCall, result: tuple[bytes, bool] | None, error: Exception | None) -> None:
        answer: asyncio.Future[tuple[bytes, bool]] = call.context
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
            answer.exception()  # a caller that was cancelled meanwhile does not look at it
        elif result is not None:
            answer.set_result(result)

    def _wake(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self.gone.done() or self._is_stalled():
            return
        try:
            active = self._table.active
            for message in self._table.data_to_send(BULK_WINDOW - self._link.buffered, time.monotonic()):
                self._link.send(message)
            if active and not self._table.active:  # the last long answer has left
                self._after_call()
        except LinkLost:
            return  # on_closed follows
        if self._is_stalled():
            return
        # A link whose buffer was empty, and stayed so, has no reason to say that it has drained.
        if self._table.has_bodies and self._link.buffered <= self._link.low_water:
            self._wake()

    def _is_stalled(self) -> bool:
        """Whether the remote peer reads so slowly that nothing more may be handed over now."""
        buffered = self._link.buffered
        if buffered <= MAX_BUFFERED:
            self._stalled = None
            self._gauge()
            return False
        now = time.monotonic()
        if self._stalled is None or buffered < self._stalled[1]:
            self._stalled = (now, buffered)
        elif now - self._stalled[0] > STALL_TIMEOUT:
            self._violated(Slow(f"the peer has read nothing for {STALL_TIMEOUT:.0f} s"))
            return True
        if self._table.waiting > MAX_BUFFERED:
            self._violated(Slow("the peer makes more calls than it reads answers"))
            return True
        self._clear.clear()
        if self._stall_timer is None:
            self._stall_timer = self._loop.call_later(STALL_CHECK, self._look_again)
        return True

    def _look_again(self) -> None:
        self._stall_timer = None
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

    def _after_call(self) -> None:
        self.used_at = time.monotonic()
        if self._was_used and not self._kept and not self._table.active:
            self._table.hold(False)
        self._carry_out()
        if not self._table.active:
            self._on_idle(self)

    def _used(self) -> None:
        """A call of ours has ended: hold the link for some time, or let it go if no call wanted it kept."""
        if self.gone.done():
            return
        self._was_used = True
        if self._kept and self._hold_timer is None:
            self._hold_timer = self._loop.call_later(self._idle_timeout, self._hold_over)
        self._after_call()

    def _hold_over(self) -> None:
        self._hold_timer = None
        idle_until = self.used_at + self._idle_timeout
        if self._table.active or time.monotonic() < idle_until:
            wait = max(idle_until - time.monotonic(), self._idle_timeout / 10)
            self._hold_timer = self._loop.call_later(wait, self._hold_over)
            return
        self._kept = False
        self._table.hold(False)
        self._carry_out()
