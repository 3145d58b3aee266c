"""
What goes out on a link: handed to the engine in batches, as fast as the remote peer takes it.

Whatever a turn of the event loop has made goes out together at its end, in as few messages as it fits. Long bodies and
streams are let out by a window that follows the path (:mod:`bonevalue.wire.window`). When the remote peer takes less
than it is sent, nothing more is handed over, then nothing more is begun, and in the end the link is given up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bonevalue.counters import Counters
from bonevalue.errors import Deadline, LinkLost, Slow
from bonevalue.link import Link
from bonevalue.wire.calls import CallTable
from bonevalue.wire.streams import OutgoingItems
from bonevalue.wire.window import BulkWindow

__all__ = ["Flow"]

#: Seconds between two looks at what has been acknowledged.
STALL_CHECK = 0.5
#: Bytes of a stream that wait to be sent, beyond which its producer waits.
STREAM_QUEUE = 65_536
#: Bytes of small frames that are sent without waiting for the end of the turn: about what two packets carry.
PACKET = 2_400
#: Seconds after which the round trip is measured again when something long begins to be sent.
MEASURE_AGAIN = 1.0


class Flow:
    """
    The way out of one link.

    Args:
        link: takes the messages.
        table: makes them.
        limit: bytes sent and not acknowledged beyond which nothing is added.
        stall_timeout: seconds without any acknowledgement after which the link is given up.
        counters: where to count.
        on_idle: called when the last answer has left and no call is under way any more.
        on_stalled: called when the link is to be given up.
    """

    def __init__(
        self,
        link: Link,
        table: CallTable,
        *,
        limit: int,
        stall_timeout: float,
        counters: Counters,
        on_idle: Callable[[], None],
        on_stalled: Callable[[Slow], None],
    ) -> None:
        self._link = link
        self._table = table
        self._limit = limit
        self._stall_timeout = stall_timeout
        self._counters = counters
        self._on_idle = on_idle
        self._on_stalled = on_stalled
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._flush_scheduled = False
        #: Calls of ours begun since the last flush, and between the two before it.
        self._begun = self._batch = 0
        self._window = BulkWindow()
        #: The ping that went over the empty path, and when.
        self._measuring = 0
        self._measured_at = -MEASURE_AGAIN
        self._sent = 0
        #: Bytes acknowledged when that was last looked at, and since when it has been so many.
        self._progress = (0, 0.0)
        self._looked_at = 0.0
        self._look_timer: asyncio.TimerHandle | None = None
        #: Set while new work may be taken on.
        self._clear = asyncio.Event()
        self._clear.set()
        self._set_low_water()
        link.on_drained = self.wake

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent, or were sent and are not acknowledged."""
        return self._link.buffered + self._table.backlog + self._table.queued_items

    @property
    def acknowledged(self) -> int:
        """Bytes that the remote engine has acknowledged since the link was made."""
        return self._sent - self._link.buffered

    def close(self) -> None:
        """The link is gone: nothing more goes out, and nobody need wait."""
        self._closed = True
        self._clear.set()
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None

    def measure(self) -> None:
        """Ping over the empty path: what that takes is its round trip."""
        self._measured_at = time.monotonic()
        self._measuring = self._table.ping(self._measured_at)

    def round_trip(self, number: int, seconds: float) -> None:
        """The ping of that number was answered."""
        if number == self._measuring:
            self._window.measured(seconds)

    # -- sending -------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Send what there is at the end of this turn of the event loop."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self.flush)

    def wake_for_call(self) -> None:
        """A call of ours was begun. A lone one is sent at once: it does not wait for others of this turn."""
        self._begun += 1
        if self._batch <= 1 and self._table.active == 1:
            self.flush()
        else:
            self.wake_for_packet()

    def wake_for_packet(self) -> None:
        """Something small is to be sent. A full packet goes at once: the remote peer works on it meanwhile."""
        if self._table.waiting >= PACKET:
            self.flush()
        else:
            self.wake()

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
        self._counters.items_sent += 1
        self.wake()
        if stream.queued <= STREAM_QUEUE and self._clear.is_set():
            return None
        stream.context = wait = self._loop.create_future()
        return wait

    def flush(self) -> None:
        """Send what there is."""
        self._flush_scheduled = False
        if self._closed:
            return
        link, table = self._link, self._table
        if link.buffered > self._limit:
            self._fall_behind()
            return
        if self._begun:
            self._batch, self._begun = self._begun, 0
        has_bulk = table.has_bulk
        if has_bulk and not link.buffered and time.monotonic() - self._measured_at > MEASURE_AGAIN:
            self.measure()
        try:
            for message in table.data_to_send(self._window.size - link.buffered, time.monotonic()):
                link.send(message)
                self._sent += len(message)
        except LinkLost:
            return  # whoever holds the link will be told
        self.gauge()
        if self._look_timer is None and link.buffered:
            self._looked_at = time.monotonic()
            self._progress = (self.acknowledged, self._looked_at)
            self._look_timer = self._loop.call_later(STALL_CHECK, self._look)
        if has_bulk:
            self._after_bulk()

    def _after_bulk(self) -> None:
        """Long bodies and streams have moved."""
        link, table = self._link, self._table
        self._let_producers_go_on()
        self._window.progress(self._sent, self.acknowledged, time.monotonic())
        self._set_low_water()
        # A link whose buffer was empty, and stayed so, has no reason to say that it has drained.
        if table.can_move and link.buffered <= link.low_water:
            self.wake()
        elif not (table.has_bulk or link.buffered):
            self._window.idle()
        if table.idle:
            self._on_idle()

    def _set_low_water(self) -> None:
        # Never so high that the buffer could fall below its limit without anybody being told.
        self._link.low_water = min(self._window.refill, self._limit // 2)

    def _let_producers_go_on(self) -> None:
        for stream in self._table.moved():
            wait: asyncio.Future[None] | None = stream.context
            if wait is not None and stream.queued <= STREAM_QUEUE // 2:
                stream.context = None
                if not wait.done():
                    wait.set_result(None)

    # -- a remote peer that does not keep up ---------------------------------------------------------------------------

    def blocked(self) -> Awaitable[None] | None:
        """What to await before new work is taken on, while what is to be sent is over the limit."""
        return None if self._clear.is_set() else self._until_clear()

    async def wait(self, timeout: float) -> float:
        """
        The same with an end to it; gives what is left of the time, in seconds.

        Raises:
            Deadline: the time is over.
        """
        deadline = time.monotonic() + timeout
        try:
            async with asyncio.timeout(timeout):
                await self._until_clear()
        except TimeoutError:
            raise Deadline("the peer did not read what it was sent within the call's time") from None
        return deadline - time.monotonic()

    @property
    def is_clear(self) -> bool:
        """Whether new work may be taken on."""
        return self._clear.is_set()

    def gauge(self) -> None:
        """Something long was added, or has left."""
        if self._link.buffered + self._table.backlog > self._limit and not self._closed:
            if self._clear.is_set():
                self._counters.limited["send_buffer"] += 1
                self._clear.clear()
        elif not self._clear.is_set():
            self._clear.set()

    async def _until_clear(self) -> None:
        while not self._clear.is_set():
            await self._clear.wait()

    def _fall_behind(self) -> None:
        """The remote peer takes so little that nothing more is handed over now."""
        if self._table.waiting > self._limit:
            self._on_stalled(Slow("the peer makes more calls than it reads answers"))
        else:
            self.gauge()

    def _look(self) -> None:
        """Look whether what is on its way gets acknowledged; over and over, as long as there is something."""
        self._look_timer = None
        if not self._link.buffered:
            return
        acknowledged, now = self.acknowledged, time.monotonic()
        late = now - self._looked_at > 2 * STALL_CHECK  # then it was this process that stood still
        self._looked_at = now
        if acknowledged != self._progress[0]:
            self._progress = (acknowledged, now)
            self._table.acknowledged(now)
        elif late:
            self._progress = (acknowledged, now)
        elif now - self._progress[1] > self._stall_timeout:
            self._on_stalled(Slow(f"the peer has taken nothing for {self._stall_timeout:.0f} s"))
            return
        self._look_timer = self._loop.call_later(STALL_CHECK, self._look)
        self.wake()
