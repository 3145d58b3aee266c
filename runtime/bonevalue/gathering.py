"""
Finding out our own candidates (RFC 8445 section 5.1.1), in place of aioice's way, which asks one STUN server and one
TURN server, over IPv4, and is silent about what goes wrong. Private names of aioice are used here.

- The host's own addresses are candidates at once.
- Every STUN server is asked from every address of its family, all at the same time. The first answer that an address
  gets is its ``srflx`` candidate. Once one address has its answer, little time is left to the others: many a host has
  addresses that lead nowhere (bridges of containers, a VPN), and they must not hold up every connection.
- TURN servers are tried in the order of their list, the URLs of one server by UDP, then TCP, then TLS. The next one
  begins when the one before has failed, or :data:`APART` after it began; the first that gives a relay wins.
- A refused credential is renewed once, if it was handed out, and tried again.

It ends as soon as nothing can be gained any more: after :data:`DIRECT_TIME` if it is known how the world sees this
host, after :data:`GATHER_TIME` at the latest. What came of each server is written down and told.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

from aioice import Candidate, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.turn import UDP_SOCKET_BUFFER_SIZE
from aiortc import RTCIceTransport

from bonevalue.errors import ServerOutcome
from bonevalue.ice_servers import LATE, NAME_NOT_KNOWN, OK, allocate, first_of
from bonevalue.ice_sockets import IceSocket, open_udp
from bonevalue.ice_url import IceUrl, parse_ice_url
from bonevalue.link import IceConfig
from bonevalue.names import family
from bonevalue.network import ways_out
from bonevalue.relay import NO_ANSWER, NONSENSE, Login, Relay, ServerFailed
from bonevalue.wire.refusals import plain
from bonevalue.wire.signals import IceServer

__all__ = ["GATHER_TIME", "Gathering"]

#: Seconds that STUN servers have, all gathering, and all gathering where a direct way may well be found.
STUN_TIME = 2.0
GATHER_TIME = 4.0
DIRECT_TIME = 2.0
#: Seconds after which the next TURN server is tried beside one that has not answered; and in which all have begun.
APART = 1.0
ALL_BEGUN = 2.0
#: Servers that are asked at most.
MAX_STUN = 4
MAX_TURN = 8
#: Servers, and URLs of each, that are looked at.
MAX_SERVERS = 32
MAX_URLS = 16
#: URLs that are no use of which it is told.
MAX_UNUSABLE = 8
#: Characters of one of them that are told.
MAX_TOLD = 80
#: Addresses of this host that are offered at most.
MAX_ADDRESSES = 12
#: Seconds left to the other addresses once one has its answer: so many, and so many times what that one took.
GRACE = 0.15
GRACE_TIMES = 2.0
#: Retransmissions of a STUN request: it is sent at once, after 0.5 s and after 1.5 s.
RETRANSMISSIONS = 2
#: A credential that is wrong, unknown or out of date (RFC 8489 section 14.8, RFC 8656 section 19).
CREDENTIAL_REFUSED = frozenset({401, 403, 431, 438, 441})
#: The ways to a TURN server, the best first.
_WAYS = ("udp", "tcp", "tls")

Address: TypeAlias = tuple[str, int]

logger = logging.getLogger(__name__)


class _Account:
    """The login of one TURN server, which may be renewed once."""

    def __init__(self, server: IceServer, renew: Callable[[IceServer], Awaitable[IceServer | None]] | None) -> None:
        self._server = server
        self._renew = renew
        self._renewing: asyncio.Future[IceServer | None] | None = None

    @property
    def login(self) -> Login:
        """What to show."""
        return Login(self._server.username, self._server.credential)

    async def renewed(self, refused: Login) -> bool:
        """Whether there is another login now than the refused one."""
        if self._renew is not None:
            if self._renewing is None:
                self._renewing = asyncio.ensure_future(self._renew(self._server))
            newer = await asyncio.shield(self._renewing)
            self._server = newer or self._server
        return self.login != refused


class _Asking:
    """The sockets that wait for their first answer from a STUN server."""

    def __init__(self, sockets: Sequence[IceSocket]) -> None:
        self.sockets = sockets
        self.enough = asyncio.Event()
        self._waiting = set(sockets)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._grace: asyncio.TimerHandle | None = None

    def answered(self, protocol: IceSocket) -> bool:
        """A socket got an answer; whether it is its first."""
        if protocol not in self._waiting:
            return False
        self._waiting.remove(protocol)
        if not self._waiting:
            self.enough.set()
        elif self._grace is None:
            left = GRACE + GRACE_TIMES * (self._loop.time() - self._began)
            self._grace = self._loop.call_later(left, self.enough.set)
        return True


class Gathering:
    """
    The gathering of one connection's candidates; takes the place of aioice's as soon as it is made.

    Args:
        ice: the transport.
        config: the servers, and whom to tell.
    """

    def __init__(self, ice: RTCIceTransport, config: IceConfig) -> None:
        self._connection = ice._connection
        self._config = config
        self._outcomes = {each.url: each for each in config.left_out}
        self._asked: set[str] = set()
        self._stuns: list[IceUrl] = []
        self._turns: list[tuple[IceUrl, _Account]] = []
        self._over = asyncio.Event()
        self._is_seen = False
        self._relay: IceSocket | None = None
        #: What has been found so far.
        self.candidates: list[Candidate] = []
        for server in config.servers[:MAX_SERVERS]:
            self._sort(server)
        vars(self._connection)["get_component_candidates"] = self._gather

    @property
    def outcomes(self) -> tuple[ServerOutcome, ...]:
        """What has come of each server so far."""
        return (*self._outcomes.values(), *(ServerOutcome(url, "no answer yet") for url in sorted(self._asked)))

    def stop(self) -> None:
        """End it with what has been found; what is under way is given back."""
        self._over.set()

    async def release(self, *, unheard_for: float) -> None:
        """
        Give the relay back if neither side uses it: servers allow each account a few only.

        Args:
            unheard_for: seconds. If anything came through it within them, the other side sends there.
        """
        protocol, nominated = self._relay, self._connection._nominated.get(1)
        if protocol is None or nominated is None or nominated.protocol is protocol:
            return
        relay = protocol.transport
        if isinstance(relay, Relay) and asyncio.get_running_loop().time() - relay.heard >= unheard_for:
            self._relay = None
            self._connection._protocols.remove(protocol)
            await protocol.close()

    # -- the whole -----------------------------------------------------------------------------------------------------

    def _sort(self, server: IceServer) -> None:
        """Put the URLs of a server, each once, where they will be tried."""
        account = _Account(server, self._config.renew)
        for url in sorted(self._usable(server), key=lambda url: _WAYS.index(url.transport)):
            if url.is_stun and len(self._stuns) < MAX_STUN and url not in self._stuns:
                self._stuns.append(url)
            elif not url.is_stun and len(self._turns) < MAX_TURN and url not in [other for other, _ in self._turns]:
                self._turns.append((url, account))

    def _usable(self, server: IceServer) -> list[IceUrl]:
        urls = []
        for text in server.urls[:MAX_URLS]:
            try:
                urls.append(parse_ice_url(text))
            except ValueError as error:
                if len(self._outcomes) < len(self._config.left_out) + MAX_UNUSABLE:
                    told = plain(text)[:MAX_TOLD]
                    self._outcomes[told] = ServerOutcome(told, f"left out: it {error}")
        return urls

    async def _gather(self, component: int, addresses: list[str], timeout: float = GATHER_TIME) -> list[Candidate]:
        sockets = await self._open_sockets(addresses)
        patience = asyncio.get_running_loop().call_later(DIRECT_TIME, self._lose_patience)
        try:
            await _run((self._ask_all(sockets), self._relay_any()), timeout, until=self._over)
        finally:
            patience.cancel()
        return self.candidates

    def _lose_patience(self) -> None:
        """A relay would be good to have; but there probably is a direct way, and that has waited long enough."""
        if self._is_seen:
            self._over.set()

    async def _open_sockets(self, addresses: list[str]) -> list[IceSocket]:
        sockets: list[IceSocket] = []
        first = (
            ways_out()
        )  # of many addresses, those of bridges and tunnels may come before the one that leads anywhere
        for address in sorted(addresses, key=lambda address: address not in first)[:MAX_ADDRESSES]:
            if self._over.is_set():
                break
            try:
                transport, protocol = await open_udp(lambda: IceSocket(self._connection), local_addr=(address, 0))
            except OSError as error:
                logger.debug("the address %s cannot be used: %s", address, error)
                continue
            own = transport.get_extra_info("socket")
            if own is not None:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UDP_SOCKET_BUFFER_SIZE)
            where = transport.get_extra_info("sockname")[:2]
            self._add(protocol, _candidate("host", where, _BEST - len(sockets)))
            sockets.append(protocol)
        return sockets

    def _add(self, protocol: IceSocket, candidate: Candidate) -> None:
        """A socket, and the candidate that it stands for; the connection closes it when it is closed itself."""
        protocol.local_candidate = candidate
        self._connection._protocols.append(protocol)
        self.candidates.append(candidate)

    def _record(self, url: IceUrl, outcome: str) -> None:
        self._asked.discard(url.text)
        self._outcomes[url.text] = told = ServerOutcome(url.text, outcome)
        if not told.ok:
            logger.info("ICE server %s: %s", url.text, outcome)
        self._config.on_outcome(told)

    # -- STUN ----------------------------------------------------------------------------------------------------------

    async def _ask_all(self, sockets: list[IceSocket]) -> None:
        urls = self._stuns if sockets else []
        self._asked.update(url.text for url in urls)
        asking = _Asking(sockets)
        in_time = await _run([self._ask(url, asking) for url in urls], STUN_TIME, until=asking.enough)
        for url in urls:
            if url.text in self._asked and not in_time:
                self._record(url, NO_ANSWER)
            self._asked.discard(url.text)  # others were faster

    async def _ask(self, url: IceUrl, asking: _Asking) -> None:
        """Ask one server from all addresses of its families."""
        try:
            addresses = await self._config.addresses(url.host)
        except OSError:
            self._record(url, NAME_NOT_KNOWN)
            return
        of_family = {family(address): address for address in reversed(addresses)}
        asked = False
        async with asyncio.TaskGroup() as group:
            for protocol in asking.sockets:
                if (address := of_family.get(family(protocol.local_candidate.host))) is not None:
                    group.create_task(self._ask_from(protocol, (address, url.port), url, asking))
                    asked = True
        if not asked:
            self._record(url, f"left out: this host has no {' or '.join(sorted(of_family))} address")

    async def _ask_from(self, protocol: IceSocket, server: Address, url: IceUrl, asking: _Asking) -> None:
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        try:
            response, _ = await protocol.request(request, server, retransmissions=RETRANSMISSIONS)
        except stun.TransactionFailed as error:
            self._record(url, f"refused: {error.response.attributes.get('ERROR-CODE', (0, ''))[0]}")
            return
        except stun.TransactionError:
            return  # time is over anyway
        own = (protocol.local_candidate.host, protocol.local_candidate.port)
        mapped = response.attributes.get("XOR-MAPPED-ADDRESS", ("", 0))
        if not _is_possible(mapped, own[0]) or family(mapped[0]) != family(own[0]):
            self._record(url, NONSENSE)
            return
        self._record(url, OK)
        self._is_seen = True
        if asking.answered(protocol) and mapped != own:
            preference = _BEST - asking.sockets.index(protocol)
            self.candidates.append(_candidate("srflx", mapped, preference, base=own[0], related=own))

    # -- TURN ----------------------------------------------------------------------------------------------------------

    @property
    def _apart(self) -> float:
        return min(APART, ALL_BEGUN / len(self._turns))

    async def _relay_any(self) -> None:
        starts = [partial(self._relay_from, url, account) for url, account in self._turns]
        if starts:
            with suppress(ServerFailed):  # each is on record
                self._take(await first_of(starts, apart=self._apart, discard=Relay.close))

    async def _relay_from(self, url: IceUrl, account: _Account) -> Relay:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._asked.add(url.text)
        try:
            relay = await self._allocate(url, account)
        except ServerFailed as error:
            self._record(url, error.reason)
            raise
        except asyncio.CancelledError:
            if loop.time() - began >= self._apart:
                self._record(url, NO_ANSWER)
            self._asked.discard(url.text)  # another was faster
            raise
        self._record(url, OK)
        return relay

    async def _allocate(self, url: IceUrl, account: _Account) -> Relay:
        login = account.login
        try:
            relay = await allocate(url, login, self._config)
        except ServerFailed as error:
            if error.code not in CREDENTIAL_REFUSED or not await account.renewed(login):
                raise
            logger.debug("%s %s; once more with a new credential", url.text, error.reason)
            relay = await allocate(url, account.login, self._config)
        if not _is_possible(relay.address, relay.get_extra_info("local_address")):
            relay.close()
            raise ServerFailed(f"relays at {relay.address[0]}, where nobody can reach it", code=0)
        return relay

    def _take(self, relay: Relay) -> None:
        if relay.is_closing():  # its connection broke a moment ago
            relay.close()
            return
        protocol = IceSocket(self._connection)
        relay.attach(protocol)
        related = relay.mapped_address
        if self._config.relay_only:
            # It would tell what the policy is to hide; this is the form of RFC 8839 section 5.1.
            related = ("0.0.0.0", 9) if family(relay.address[0]) == "IPv4" else ("::", 9)
        self._relay = protocol
        self._add(protocol, _candidate("relay", relay.address, related=related))


#: The highest preference among candidates of one kind; each further address has a lower one (RFC 8445 5.1.2.1).
_BEST = 65_535


def _candidate(
    kind: str, address: Address, preference: int = _BEST, *, base: str = "", related: Address | None = None
) -> Candidate:
    host, port = address
    return Candidate(
        foundation=candidate_foundation(kind, "udp", base or host),
        component=1,
        transport="udp",
        priority=candidate_priority(1, kind, preference),
        host=host,
        port=port,
        type=kind,
        related_address=related[0] if related is not None else None,
        related_port=related[1] if related is not None else None,
    )


def _is_possible(address: Address, own: str) -> bool:
    """Whether a server can truly have seen, or relay at, an address; `own` is that of this host that it talked to."""
    host, port = address
    if not port or not host:
        return False
    parsed = ipaddress.ip_address(host)
    if parsed.is_loopback:
        return ipaddress.ip_address(own).is_loopback
    # Among the reserved are IPv4 addresses in the form of IPv6, and the broadcast address.
    return not (parsed.is_unspecified or parsed.is_multicast or parsed.is_link_local or parsed.is_reserved)


async def _run(work: Sequence[Coroutine[Any, Any, None]], seconds: float, *, until: asyncio.Event) -> bool:
    """
    Run these side by side, and end those that are not done when the time is over or the event is set.

    Gives whether that was before the time was over.
    """
    running = asyncio.ensure_future(_all(work))
    waiting = asyncio.ensure_future(until.wait())
    either: set[asyncio.Future[Any]] = {running, waiting}
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    try:
        done, _ = await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done and loop.time() - due >= LATE:
            # This process stood still, and answers that came in time have not been read yet.
            done, _ = await asyncio.wait(either, timeout=LATE, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in either:
            future.cancel()
        await asyncio.wait(either)
    if not running.cancelled():
        running.result()
    return bool(done)


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)
