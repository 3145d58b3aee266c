"""
Links inside one process, with the weather of a network: for tests, and to tell our own cost from the network's.

Engines of one :class:`MemoryNetwork` reach each other. Its messages take `delay` to arrive, leave no faster than
`rate` and get lost where `losses` says so. A lost message arrives later, by `retransmit`, and everything behind it
waits, as it does on a reliable channel. While `silent`, nothing arrives and nobody is told; that is a pulled cable.
One end of a link may be `mute`: a path that is broken in one direction.

Deterministic: the only randomness is what `losses` brings along.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Iterator

from bonevalue.errors import ConnectFailed, LocalProtocolError, RemoteProtocolError
from bonevalue.link import MAX_SENT, CloseReason, ConnectionBase, IceConfig, LinkBase, PathInfo, Stage, Tried
from bonevalue.sdp import read_candidate, read_description

__all__ = ["MemoryConnection", "MemoryEngine", "MemoryLink", "MemoryNetwork", "memory_pair"]

_DESCRIPTION = """v=0\r
o=- {number} {number} IN IP4 0.0.0.0\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r
c=IN IP4 0.0.0.0\r
a=mid:0\r
a=sctp-port:5000\r
a=max-message-size:65536\r
a=candidate:memory 1 udp 1 192.0.2.1 {port} typ host\r
a=end-of-candidates\r
a=ice-ufrag:memory{number}\r
a=ice-pwd:{password}\r
a=fingerprint:sha-256 {fingerprint}\r
a=setup:{setup}\r
"""


def _never() -> bool:
    return False


class MemoryNetwork:
    """
    What joins memory engines: who is on it, and its weather, which may be changed at any time.

    Args:
        delay: seconds that a message takes one way.
        rate: bytes a second that leave each end of a link; None for no limit.
        losses: says of each message in turn whether it gets lost at first; None for never.
        retransmit: seconds by which a lost message comes later.
    """

    def __init__(
        self,
        *,
        delay: float = 0.0,
        rate: float | None = None,
        losses: Iterator[bool] | None = None,
        retransmit: float = 0.2,
    ) -> None:
        self.delay = delay
        self.rate = rate
        self.losses: Iterator[bool] = losses if losses is not None else itertools.repeat(False)
        self.retransmit = retransmit
        self.links: set[MemoryLink] = set()
        self._silent = False
        self._numbers = itertools.count(1)
        self._connections: dict[int, MemoryConnection] = {}

    def engine(self) -> MemoryEngine:
        """An engine on this network."""
        return MemoryEngine(self)

    @property
    def silent(self) -> bool:
        """Whether nothing arrives; what was sent arrives when it is set to False again."""
        return self._silent

    @silent.setter
    def silent(self, silent: bool) -> None:
        self._silent = silent
        if not silent:
            for link in list(self.links):
                link.wake()

    def cut(self) -> None:
        """End every link; both sides notice at once."""
        for link in list(self.links):
            link.lose()

    def add(self, connection: MemoryConnection) -> int:
        """Put a connection on the network; gives the number under which others find it."""
        number = next(self._numbers)
        self._connections[number] = connection
        return number

    def find(self, number: int) -> MemoryConnection | None:
        """The connection of that number, None if it is not there any more."""
        return self._connections.get(number)

    def remove(self, number: int) -> None:
        """Take a connection off the network."""
        self._connections.pop(number, None)


class MemoryLink(LinkBase):
    """One end of a link in memory."""

    def __init__(self, network: MemoryNetwork) -> None:
        super().__init__()
        self._network = network
        self._peer: MemoryLink | None = None
        #: Messages not yet sent, then messages under way: each with the moment at which its wait is over.
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._flying: deque[tuple[float, bytes]] = deque()
        self._last_leave = 0.0
        self._last_arrival = 0.0
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        self._mute = False
        network.links.add(self)

    @property
    def mute(self) -> bool:
        """Whether nothing that this end sends arrives; it does when that is set to False again."""
        return self._mute

    @mute.setter
    def mute(self, mute: bool) -> None:
        self._mute = mute
        self._arm()

    def join(self, peer: MemoryLink) -> None:
        """Make the two ends one link."""
        self._peer, peer._peer = peer, self

    def lose(self) -> None:
        """End both ends at once, as if the path had broken and both had noticed."""
        peer = self._peer
        self._end(CloseReason.LOST)
        if peer is not None:
            peer._end(CloseReason.LOST)

    def wake(self) -> None:
        """Go on after a silence."""
        self._arm()

    @property
    def _is_unheard(self) -> bool:
        return self._mute or self._network.silent

    def _transmit(self, message: bytes) -> None:
        rate = self._network.rate
        leave = max(self._loop.time(), self._last_leave) + (len(message) / rate if rate else 0.0)
        self._last_leave = leave
        self._waiting.append((leave, message))
        self._arm()

    def _arm(self) -> None:
        due = min((queue[0][0] for queue in (self._waiting, self._flying) if queue), default=None)
        if due is None or self._is_unheard or self.closed:
            return
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer_due = due
        soon = due <= self._loop.time()
        self._timer = self._loop.call_soon(self._run) if soon else self._loop.call_at(due, self._run)

    def _run(self) -> None:
        self._timer = None
        if self._is_unheard:
            return
        # A timer may fire a little early: what is due within the clock's resolution is due.
        now = self._loop.time() + 1e-6
        while self._waiting and self._waiting[0][0] <= now:
            leave, message = self._waiting.popleft()
            late = self._network.retransmit if next(self._network.losses, False) else 0.0
            self._last_arrival = max(self._last_arrival, leave + self._network.delay + late)
            self._flying.append((self._last_arrival, message))
        while self._flying and self._flying[0][0] <= now:
            message = self._flying.popleft()[1]
            if self._peer is not None:
                self._peer._receive(message)
            self._acknowledged(len(message))
        self._arm()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._network.links.discard(self)
        self._waiting.clear()
        self._flying.clear()
        peer, self._peer = self._peer, None
        if peer is not None and self.closed != CloseReason.LOST and not self._is_unheard:
            self._loop.call_later(self._network.delay, peer._end, CloseReason.REMOTE)


class MemoryConnection(ConnectionBase):
    """One attempt to reach a peer on the same :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, ice: IceConfig) -> None:
        super().__init__()
        self._network = network
        self._ice = ice
        self._number = network.add(self)
        self._fingerprint = ":".join(f"{byte:02X}" for byte in secrets.token_bytes(32))
        self._remote: int | None = None
        self._link: MemoryLink | None = None
        self._opened: asyncio.Future[MemoryLink] = asyncio.get_running_loop().create_future()
        # A failure that nobody waits for is nothing to complain about.
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())

    async def create_offer(self) -> str:
        """Our session description."""
        return self._describe("actpass", Stage.WAITING)

    async def accept_offer(self, sdp: str) -> str:
        """Take the caller's description; gives ours."""
        self._remote, _ = self._read(sdp)
        return self._describe("active", Stage.CHECKING)

    async def accept_answer(self, sdp: str) -> None:
        """Take the callee's description."""
        if self._stage is not Stage.WAITING:
            raise LocalProtocolError("an answer without an offer of ours that waits for one")
        self._remote, fingerprint = self._read(sdp)
        self._go(Stage.CHECKING)
        callee = self._network.find(self._remote)
        if callee is None or callee._remote != self._number:
            return
        if callee._fingerprint != fingerprint:
            self._fail("handshake: the remote peer's certificate is not the one of its description")
            return
        self._when_not_silent(lambda: self._join(callee))

    async def opened(self) -> MemoryLink:
        """Wait for the link."""
        return await asyncio.shield(self._opened)

    def add_candidate(self, text: str) -> None:
        """Take one more candidate; there is nothing to do with it here."""
        read_candidate(text, loopback=_never)

    def path(self) -> PathInfo | None:
        """The path in use."""
        return PathInfo("host", "host", "IPv4") if self._link is not None and not self._link.closed else None

    def tried(self) -> Tried:
        """What has been tried."""
        return Tried(("host",), () if self._remote is None else ("host",))

    async def close(self) -> None:
        """End the link."""
        self._network.remove(self._number)
        self._fail("the connection was closed")
        if self._stage is not Stage.ENDED:
            self._go(Stage.ENDED)
        if self._link is not None:
            self._link.close()

    def _describe(self, setup: str, stage: Stage) -> str:
        self._go(Stage.GATHERING)
        if self._ice.relay_only and not self._ice.servers:
            self._fail(message := "only a relay may be used (ice.policy) and there is none")
            raise ConnectFailed(message)
        self._go(stage)
        return _DESCRIPTION.format(
            number=self._number,
            port=1024 + self._number % 60_000,
            password=secrets.token_hex(12),
            fingerprint=self._fingerprint,
            setup=setup,
        )

    def _read(self, sdp: str) -> tuple[int, str]:
        fields = {}
        for line in read_description(sdp, loopback=_never, max_sent=MAX_SENT).text.splitlines():
            name, _, value = line.partition(":")
            fields[name] = value
        number = fields.get("a=ice-ufrag", "").removeprefix("memory")
        if not number.isdecimal():
            raise RemoteProtocolError("not a session description of a memory engine")
        return int(number), fields.get("a=fingerprint", "").removeprefix("sha-256 ")

    def _when_not_silent(self, action: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()

        def attempt() -> None:
            if self._opened.done():
                return
            if self._network.silent:
                loop.call_later(self._network.retransmit, attempt)
            else:
                action()

        # As long as the checks and the handshake would take: a round trip.
        loop.call_later(2 * self._network.delay, attempt)

    def _join(self, callee: MemoryConnection) -> None:
        if callee._opened.done():
            return
        self._link, callee._link = MemoryLink(self._network), MemoryLink(self._network)
        self._link.join(callee._link)
        for connection in (self, callee):
            connection._go(Stage.OPEN)
        self._opened.set_result(self._link)
        callee._opened.set_result(callee._link)

    def _fail(self, message: str) -> None:
        if not self._opened.done():
            self._opened.set_exception(ConnectFailed(message))


class MemoryEngine:
    """Makes connections between the engines of one network."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.network = network

    def connection(self, ice: IceConfig) -> MemoryConnection:
        """A new connection."""
        return MemoryConnection(self.network, ice)


def memory_pair(network: MemoryNetwork | None = None) -> tuple[MemoryLink, MemoryLink]:
    """The two ends of a link that is open already. Must be called in a running event loop."""
    network = network or MemoryNetwork()
    ours, theirs = MemoryLink(network), MemoryLink(network)
    ours.join(theirs)
    return ours, theirs
