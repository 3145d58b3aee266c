"""
The links of one peer, and all that makes, heals and ends them: pool, dialler, ICE servers, penalties, healing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from bonevalue.config import PeerSettings
from bonevalue.dialler import Dialler
from bonevalue.discovery import DiscoveryClient
from bonevalue.errors import BoneValueError, LinkLost, NotTrusted, PeerOffline, Unavailable
from bonevalue.healing import Healing
from bonevalue.host import Host
from bonevalue.ice import Ice
from bonevalue.life import LinkLife
from bonevalue.link import Connection, Link, LinkEngine
from bonevalue.module import Caller
from bonevalue.network import NetworkChange
from bonevalue.peer_link import PeerLink
from bonevalue.penalties import AT_FAULT, Penalties
from bonevalue.pool import Pool
from bonevalue.wire.calls import Proof
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.introductions import Introductions
from bonevalue.wire.signals import (
    PeerCandidate,
    PeerRequest,
    PeerResponse,
    RequestIceServers,
)

__all__ = ["Links"]

logger = logging.getLogger(__name__)

#: Seconds for which a new link waits for a discovery server that was there a moment ago.
OFFLINE_PATIENCE = 5.0


class Links:
    """
    Args:
        settings: of the peer.
        host: serves the calls that come over the links.
        spawn: runs something beside, for as long as the peer lives.
        report: told of every refusal that concerns identity.
        on_added: told of every link that has been proved.
    """

    def __init__(
        self,
        settings: PeerSettings,
        host: Host,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        report: Callable[[BoneValueError, str], None],
        on_added: Callable[[PeerLink], None],
    ) -> None:
        self._settings = settings
        self._host = host
        self._spawn = spawn
        self._report = report
        self._on_added = on_added
        self._counters = host.counters
        self.penalties = Penalties()
        self.ice = Ice(settings.ice, refresh=self._refresh_ice_servers, ca_file=settings.server.ca_file)
        self.pool = Pool(
            self._dial,
            max_outgoing=settings.pool.max_outgoing,
            max_incoming=settings.pool.max_incoming,
            patience=settings.pool.connect_timeout,
            on_added=self._added,
            on_replaced=self._replaced,
            check=self._check_penalty,
            ready=self._wait_until_ready,
            counters=host.counters,
        )
        self._healing = Healing(self.pool, spawn)
        #: Connections that are giving back what they held.
        self.closings: set[asyncio.Task[None]] = set()
        self._online = asyncio.Event()
        self._offline_since = 0.0

    def start(
        self,
        engine: LinkEngine,
        discovery: DiscoveryClient,
        introductions: Introductions,
        contacts: ContactBook,
        peers: Mapping[str, str],
    ) -> None:
        """
        What is needed to make links is there.

        Args:
            engine: makes connections.
            discovery: the way through the discovery server.
            introductions: signs and checks offers and answers.
            contacts: whose keys are known.
            peers: those that are online, id to name: a view that changes with them.
        """
        self._discovery = discovery
        self._introductions = introductions
        self._contacts = contacts
        self._peers = peers
        self._offline_since = time.monotonic()  # the first login is expected any moment
        self._dialler = Dialler(
            engine,
            introductions,
            discovery,
            ice=self.ice.config,
            make_link=self._make_link,
            report=self._report,
            timeout=self._settings.pool.connect_timeout,
            penalties=self.penalties,
            counters=self._counters,
        )

    async def stop(self, drain: float) -> None:
        """Drain all links and make no new ones; close after ``drain`` seconds what is still there."""
        await self.pool.stop(drain)
        await self.ice.close()

    # -- what happens --------------------------------------------------------------------------------------------------

    def went_online(self, peer_id: str) -> None:
        """The discovery server knows this peer by that id."""
        self._introductions.peer_id = self.pool.own_id = peer_id
        self._online.set()
        self._dialler.ask_again()
        self._healing.retry_now()

    def went_offline(self) -> None:
        """The discovery server cannot be reached: links stay, new ones have to wait."""
        self._online.clear()
        self._offline_since = time.monotonic()

    def peer_came(self, peer_id: str) -> None:
        """A peer is online."""
        self._healing.peer_came(peer_id)

    def peer_returned(self, peer_id: str) -> None:
        """A peer is on another socket: what it was asked on the old one may be lost."""
        self._dialler.ask_again(peer_id)

    def peer_left(self, peer_id: str) -> None:
        """A peer is offline, says the server; its links may know better."""
        self._healing.peer_left(peer_id)

    def network_changed(self, change: NetworkChange) -> None:
        """This machine has other addresses, or was asleep."""
        self.ice.network_changed()
        if change.removed or change.resumed:
            for peer_id in self._dialler.network_changed():
                self._healing.bring_back(peer_id)
        self._healing.network_changed(change)

    def requested(self, request: PeerRequest) -> None:
        """Another peer wants a link."""
        sender = request.from_ or ""
        self._spawn(self._dialler.answer(request, self._peers.get(sender), self.pool.own_id, self.pool))

    def responded(self, response: PeerResponse) -> None:
        """Another peer has answered a request of ours."""
        self._dialler.receive_response(response)

    def candidate(self, candidate: PeerCandidate) -> None:
        """Another peer knows a further way to itself."""
        self._dialler.receive_candidate(candidate)

    def cut(self, key: bytes, name: str) -> None:
        """The trust with an account has ended."""
        if self.pool.cut(name, key, NotTrusted(f"the trust with {name} has ended")):
            logger.info("links to %s cut: the trust has ended", name)

    def key_changed(self, name: str, old_key: bytes) -> None:
        """An account has another key. Whoever holds the old one may be the reason for the change."""
        if self.pool.cut(name, old_key, LinkLost(f"{name} has another key: links of the old one end")):
            logger.info("links to %s cut: it has another key", name)

    # -- links that come and go ----------------------------------------------------------------------------------------

    async def _dial(self, peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
        return await self._dialler.dial(peer_id, self._name_of(peer_id), life, timeout)

    def _name_of(self, peer_id: str) -> str:
        name = self._peers.get(peer_id)
        if name is None:
            raise PeerOffline(f"peer {peer_id} is not online")
        return name

    def _make_link(
        self, link: Link, connection: Connection, remote: Caller, proof: Proof, life: LinkLife, *, offerer: bool
    ) -> PeerLink:
        return PeerLink(
            link,
            connection,
            remote,
            proof,
            life,
            offerer=offerer,
            host=self._host,
            idle_timeout=self._settings.pool.idle_timeout,
            on_closed=self._closed,
            on_idle=self.pool.idle,
        )

    def _added(self, link: PeerLink) -> None:
        if link.offerer:
            self._counters.links_dialled += 1
        else:
            self._counters.links_accepted += 1
        self._dialler.linked(link.remote.id)
        if self._contacts.key_of(link.remote.name) != link.remote.key:
            link.close(NotTrusted(f"the trust with {link.remote.name} has ended"))  # since it proved itself
        self._on_added(link)

    def _replaced(self, link: PeerLink) -> None:
        self._healing.replaced(link)

    def _closed(self, link: PeerLink) -> None:
        self.pool.remove(link)
        self._counters.links_closed[link.ended] += 1
        if link.proved and link.ended in AT_FAULT:
            seconds = self.penalties.punish(link.remote.key, link.ended)
            logger.info("no new links with %s for %.0f s: %s", link.remote.name, seconds, link.ended)
        if link.ended == "lost":
            if link.remote.id in self._peers:
                # The reason may be on this side: then nothing that is done about it would come through either.
                self._discovery.doubt()
            self._healing.lost(link)
        closing = asyncio.get_running_loop().create_task(link.connection.close())
        self.closings.add(closing)
        closing.add_done_callback(self.closings.discard)

    # -- what a new link needs -----------------------------------------------------------------------------------------

    def _check_penalty(self, peer_id: str) -> None:
        """Whether that peer may be dialled; raises ``RateLimited``."""
        key = self._contacts.key_of(self._peers.get(peer_id, ""))
        if key is not None:
            self.penalties.check(key)

    async def _wait_until_ready(self, peer_id: str, longest: float) -> None:
        """
        Be sure that the discovery server can be asked for a link to that peer.

        Raises:
            Unavailable: the server has been away for a while.
            PeerOffline: it does not know the peer.
        """
        if not self._online.is_set():
            try:
                async with asyncio.timeout(min(self._offline_since + OFFLINE_PATIENCE - time.monotonic(), longest)):
                    await self._online.wait()
            except TimeoutError:
                raise Unavailable(
                    f"no new link: the discovery server at {self._discovery.address.url} is not connected; "
                    "it is tried again all the time, and links that are there go on"
                ) from None
        self._name_of(peer_id)

    async def _refresh_ice_servers(self) -> None:
        await self._discovery.request(RequestIceServers())  # the answer comes as an event, too
