"""
A peer: builds and wires discovery, links, pool and modules, and is what a program works with.

::

    async with Peer("ws://127.0.0.1:8008", "admin", "...") as peer:
        print(await peer.get("*").call("My.Echo.Module", {"text": "Friday"}))
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import secrets
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, get_args

from pydantic import ValidationError

from bonevalue.builtin import REMOVALS, builtin_modules, removal_request
from bonevalue.calling import Calls, Ping
from bonevalue.config import Address, PeerSettings
from bonevalue.descriptions import ModuleDescription
from bonevalue.discovery import DiscoveryClient
from bonevalue.engines import LateEngine, load
from bonevalue.errors import (
    BoneValueError,
    ConfigError,
    LocalProtocolError,
    Unavailable,
)
from bonevalue.host import Host
from bonevalue.link import LinkEngine
from bonevalue.links import Links
from bonevalue.loader import load_peer_file
from bonevalue.loop_lag import LoopLag
from bonevalue.module import Module
from bonevalue.network import NetworkChange, NetworkWatch
from bonevalue.peer_link import PeerLink
from bonevalue.registration import register
from bonevalue.results import Result, Results
from bonevalue.serving import DEFAULT_CONCURRENCY, ServedModule
from bonevalue.sockets import tls_context
from bonevalue.stream import Stream
from bonevalue.target import EVERYONE, OWN_ACCOUNT, Target
from bonevalue.trust import KnownContact, Trust
from bonevalue.wire.calls import LinkSettings
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.frames import encode_body
from bonevalue.wire.introductions import Introductions
from bonevalue.wire.keys import AccountKeys, fingerprint_of, realm_of
from bonevalue.wire.session import Session
from bonevalue.wire.session_events import (
    AttemptFailed,
    CandidateReceived,
    ContactRefused,
    Event,
    IceServersChanged,
    KeyChanged,
    NoticeReceived,
    PeerConnected,
    PeerDisconnected,
    PeerReturned,
    RequestReceived,
    ResponseReceived,
    UserAdded,
    UserRemoved,
    WentOffline,
    WentOnline,
)
from bonevalue.wire.session_states import State
from bonevalue.wire.signals import (
    IceServer,
    PeerEntry,
    SignedBlob,
)

__all__ = [
    "AGENT",
    "KnownContact",
    "ModuleDescription",
    "Peer",
    "PeerEntry",
    "PeerEvent",
    "Ping",
    "Result",
    "Results",
    "Stream",
    "Target",
    "register",
]

T = TypeVar("T")

logger = logging.getLogger(__name__)

#: What this program calls itself to servers and peers.
AGENT = f"bonevalue/{version('bonevalue')}"
#: Seconds that a peer which leaves gives to calls under way, unless told otherwise.
DRAIN = 2.0
#: Seconds that connections have to close, and cancelled handlers to end, before the modules are stopped.
TIDY_UP = 3.0

PeerEvent = Literal["connect", "disconnect", "peerconnect", "peerdisconnect", "newuser", "refused"]


class Peer:
    """
    One live peer of an account.

    Args:
        address: of the discovery server, like ``wss://example.org``.
        username: the account.
        password: its password, which never leaves this process.
        visible: whether others see this peer and are told that it comes and goes.
        settings: further sections of the settings, by key, like ``{"pool": {"max_outgoing": 8}}``.

    Raises:
        ConfigError: the address or another setting makes no sense.
    """

    def __init__(
        self,
        address: str,
        username: str,
        password: str,
        *,
        visible: bool = True,
        settings: dict[str, Any] | None = None,
    ) -> None:
        values = dict(settings or {})
        values["server"] = {"address": address, **values.get("server", {})}
        values["credentials"] = {"username": username, "password": password}
        try:
            read = PeerSettings.model_validate(values)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            texts = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems)
            raise ConfigError("; ".join(texts)) from None
        self._setup(read, (), visible, None, None)

    @classmethod
    def from_settings(
        cls,
        settings: PeerSettings,
        *,
        modules: Sequence[ServedModule] = (),
        visible: bool = True,
        engine: LinkEngine | None = None,
        keys: AccountKeys | None = None,
    ) -> Self:
        """
        A peer with settings that were read before.

        Args:
            settings: all of them; ``modules`` in them is not looked at.
            modules: what :func:`~bonevalue.loader.modules_of` made of it.
            visible: whether others see this peer.
            engine: makes the connections; the default is WebRTC.
            keys: what :meth:`~bonevalue.config.PeerSettings.derive_keys` gives, if that was done before.
        """
        peer = cls.__new__(cls)
        peer._setup(settings, modules, visible, engine, keys)
        return peer

    @classmethod
    def from_file(cls, path: Path | str, *, visible: bool = True) -> Self:
        """
        The peer that a YAML file describes, with its modules.

        Raises:
            ConfigError: with every fault of the file and the modules.
        """
        settings, modules = load_peer_file(path, environ=os.environ)
        return cls.from_settings(settings, modules=modules, visible=visible)

    def _setup(
        self,
        settings: PeerSettings,
        modules: Sequence[ServedModule],
        visible: bool,
        engine: LinkEngine | None,
        keys: AccountKeys | None,
    ) -> None:
        self.settings = settings
        #: Own peer id; empty until the first login.
        self.id = ""
        self._visible = visible
        # Nobody dials an invisible peer, and it may never dial either.
        self._engine = engine if engine is not None or visible else LateEngine()
        self._given_keys = keys
        self._listeners: dict[str, list[Callable[..., Any]]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._run: asyncio.Task[None] | None = None
        self._online: asyncio.Future[None] | None = None
        self._offline_told = False
        self._stopped: asyncio.Task[None] | None = None
        self._trust: Trust | None = None
        rpc = settings.rpc
        self._host = Host(
            LinkSettings(
                max_body=rpc.max_body,
                max_calls=rpc.max_calls,
                max_timeout=rpc.max_timeout,
                heartbeat=settings.pool.heartbeat,
                agent=AGENT,
            ),
            memory=rpc.memory,
            send_buffer=rpc.send_buffer,
            stall_timeout=rpc.stall_timeout,
            queue=rpc.queue,
        )
        #: What this peer has counted since it was made.
        self.counters = self._host.counters
        self._lag: LoopLag | None = None
        self._links = Links(settings, self._host, spawn=self.spawn, report=self._report, on_added=self._pass_on)
        self._network = NetworkWatch(self._network_changed)
        self._calls = Calls(
            self._links.pool,
            default_timeout=rpc.timeout,
            max_timeout=rpc.max_timeout,
            report=self._report,
            spawn=self.spawn,
        )
        for module in builtin_modules(
            self._host.modules.values,
            self._links.pool.links,
            self._links.pool.setting_up,
            self._removed_elsewhere,
            self._stats,
        ):
            self._host.modules.add(module)
        for module in modules:
            self._serve(module)

    # -- life ----------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, *, wait: bool = True) -> None:
        """
        Start the modules and log in.

        Args:
            wait: return when the peer is online, and fail if the server cannot be reached at the first try. Without
                it, return at once; the peer keeps trying, and :meth:`closed` tells of an end for good.

        Raises:
            DiscoveryError: the login was refused, the realm is another, or the server cannot be reached.
            ConfigError: a module failed to start.
        """
        if self._run is not None:
            raise LocalProtocolError("a peer is started once")
        address = Address.parse(self.settings.server.address)
        realm = self.settings.server.realm or realm_of(address.host)
        username = self.settings.credentials.username
        keys, engine = await asyncio.gather(  # each takes a while, and neither needs the other
            _given_or(self._given_keys, self.settings.derive_keys), _given_or(self._engine, load)
        )
        self._check_not_stopped()
        self._contacts = ContactBook(keys, refuse=frozenset(map(fingerprint_of, self.settings.trust.refuse)))
        self._session = Session(
            username, realm, keys=keys, contacts=self._contacts, jitter=random.random, visible=self._visible,
            agent=AGENT,
        )  # fmt: skip
        self._calls.online = self._session.peers
        ca_file = self.settings.server.ca_file
        tls = tls_context(str(ca_file) if ca_file else None) if address.secure else None
        self._discovery = DiscoveryClient(address, self._session, on_event=self._on_event, tls=tls)
        self._trust = Trust(keys, self._contacts, self._session, self._discovery)
        self._links.start(
            engine,
            self._discovery,
            Introductions(keys, self._contacts, secrets.token_bytes(16)),
            self._contacts,
            self._session.peers,
        )
        self._lag = LoopLag()
        self._network.start()
        await self._host.modules.start()
        self._check_not_stopped()
        self._online = asyncio.get_running_loop().create_future()
        self._run = asyncio.create_task(self._discovery.run(), name="discovery")
        self._run.add_done_callback(self._run_ended)
        if wait:
            await asyncio.shield(self._online)

    def _check_not_stopped(self) -> None:
        if self._stopped is not None:
            raise Unavailable("the peer was stopped while it started")

    async def closed(self) -> None:
        """
        Wait until the peer has ended: it was stopped, or the discovery server refused it for good.

        Raises:
            DiscoveryError: why it was refused.
        """
        if self._run is not None:
            await asyncio.wait({self._run})
            if not self._run.cancelled():
                self._run.result()

    async def stop(self, drain: float = DRAIN) -> None:
        """
        Log off, give calls under way ``drain`` seconds to finish, close all links, stop the modules.

        Any number of times, and at any moment; the first one counts.
        """
        if self._stopped is None:
            self._stopped = asyncio.create_task(self._stop(drain), name="stop")
        await asyncio.shield(self._stopped)

    async def _stop(self, drain: float) -> None:
        if self._lag is not None:
            self._lag.stop()
        self._network.stop()
        if self._run is not None:
            await self._discovery.close()
            await self._links.stop(drain)
            await asyncio.wait({self._run})
            if not self._run.cancelled():
                self._run.exception()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        for left in (self._links.closings, self._host.running):
            if left:
                await asyncio.wait(left, timeout=TIDY_UP)
        await self._host.modules.stop()

    # -- what a program asks -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The account's username."""
        return self.settings.credentials.username

    @property
    def fingerprint(self) -> str:
        """The account's key, for people to compare."""
        return self._trusting.fingerprint

    @property
    def aliases(self) -> tuple[str, ...]:
        """Everyone who trusts this account, ``Us`` first."""
        return self._session.aliases if self._run is not None else ()

    @property
    def modules(self) -> list[str]:
        """Names of the modules that this peer serves, without the platform's own."""
        return sorted(name for name in self._host.modules if not name.startswith("bv."))

    @property
    def is_online(self) -> bool:
        """Whether it is logged in to its discovery server."""
        return self._run is not None and self._session.state is State.ONLINE

    def gauges(self) -> dict[str, float]:
        """What it is at just now, by the names of docs/operations.md."""
        links = self._links.pool.links()
        return {
            "online": float(self.is_online),
            "links": len(links),
            "links_pending": self._links.pool.pending,
            "calls": sum(link.active for link in links),
            "handlers": len(self._host.running),
            "send_buffer_bytes": sum(link.send_buffer for link in links),
            "memory_bytes": self._host.memory.taken,
            "memory_limit_bytes": self._host.memory.limit,
            "accounts_kept_away": len(self._links.penalties),
            "loop_lag_seconds": self._lag.worst if self._lag is not None else 0.0,
        }

    @property
    def ice_servers(self) -> tuple[IceServer, ...]:
        """The STUN and TURN servers that links are made with: those of the settings, then those handed out."""
        return self._links.ice.servers

    def peers(self) -> list[PeerEntry]:
        """All online peers, this one not among them."""
        return self._calls.resolve(EVERYONE)

    def get(self, query: str) -> Target:
        """Whom to call: ``*`` everyone, ``Us`` one's own account, an alias, or a peer id. Never fails."""
        return Target(self._calls, query)

    def on(self, event: PeerEvent, listener: Callable[..., Any]) -> None:
        """
        Be called, plain or async, when something happens.

        ``connect()`` and ``disconnect()``: this peer went online or offline. ``peerconnect(peer)`` with ``name`` and
        ``id``, ``peerdisconnect(id)``: a peer that one may talk to came or went. ``newuser(alias)``: trust was made.
        ``refused(error, about)``: a connection (``about`` is a peer id) or what the server says of a contact (an alias)
        was refused; ``error.code`` says why, and whether somebody in between is lying.
        """
        if event not in get_args(PeerEvent):
            raise LocalProtocolError(f"there is no event {event!r}")
        self._listeners.setdefault(event, []).append(listener)

    def module(
        self,
        name: str,
        source: Module | Callable[..., Any],
        *,
        allow: Collection[str] = (EVERYONE,),
        concurrency: int = DEFAULT_CONCURRENCY,
        rate: float | None = None,
    ) -> None:
        """
        Serve a function ``(request)`` or ``(request, context)``, or a :class:`~bonevalue.module.Module`.

        Raises:
            ConfigError: it cannot be served, or the name is taken.
        """
        if name.startswith("bv."):
            raise ConfigError(f"the name {name!r} begins with bv., which is kept for the platform's own modules")
        if self._run is not None and isinstance(source, Module):
            raise LocalProtocolError("a Module has a start of its own: add it before the peer is started")
        self._serve(ServedModule(name, source, allow=allow, concurrency=concurrency, rate=rate))

    # -- trust ---------------------------------------------------------------------------------------------------------

    @property
    def _trusting(self) -> Trust:
        if self._trust is None:
            raise LocalProtocolError("the peer has not been started: await peer.start(), or use async with")
        return self._trust

    def contacts(self) -> list[KnownContact]:
        """Every alias with its fingerprint, or with what is wrong with it."""
        return self._trusting.contacts()

    async def request_token(self, alias: str) -> str:
        """Make a token; see :meth:`bonevalue.trust.Trust.request_token`."""
        return await self._trusting.request_token(alias)

    async def claim_token(self, alias: str, text: str) -> KnownContact:
        """Claim a token; see :meth:`bonevalue.trust.Trust.claim_token`."""
        return await self._trusting.claim_token(alias, text)

    async def remove_user(self, alias: str) -> None:
        """
        End the trust with an alias. Links to it are cut on both sides.

        Raises:
            NotTrusted: there is no such contact.
            Unavailable: the discovery server cannot be reached.
        """
        await self._trusting.remove_user(alias)

    async def change_password(self, password: str) -> None:
        """Change the account's password; see :meth:`bonevalue.trust.Trust.change_password`."""
        await self._trusting.change_password(password)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, for as long as the peer lives; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work_ended)

    # -- links ---------------------------------------------------------------------------------------------------------

    def _removed_elsewhere(self, removal: SignedBlob) -> None:
        """Another peer of this account knows of a removal; the server may have kept it from us."""
        key = self._discovery.removed(None, removal)
        if key is not None:
            self._links.cut(key, "a former contact")

    def _stats(self) -> dict[str, Any]:
        return {"counters": self.counters.snapshot(), "gauges": self.gauges()}

    def _pass_on(self, link: PeerLink) -> None:
        """Let another peer of this account know which trust has ended: the server may keep it from that one."""
        removals = self._contacts.removals()
        if removals and link.usable and link.remote.name == OWN_ACCOUNT:
            self.spawn(self._send_removals(removals[-256:], PeerEntry(OWN_ACCOUNT, link.remote.id)))

    async def _send_removals(self, removals: list[SignedBlob], peer: PeerEntry) -> None:
        body, raw = encode_body(removal_request(removals))
        with suppress(BoneValueError):
            await self._calls.call_peer(
                peer, REMOVALS, body, raw, timeout=self._calls.default_timeout, keep_alive=False
            )

    # -- events --------------------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> None:
        match event:
            case WentOnline():
                self._went_online(event)
            case WentOffline():
                logger.log(logging.DEBUG if self._stopped is not None else logging.WARNING, "offline: %s", event.reason)
                self._links.went_offline()
                self._emit("disconnect")
            case AttemptFailed():
                self._attempt_failed(event)
            case PeerConnected():
                self._links.peer_came(event.id)
                self._emit("peerconnect", PeerEntry(event.name, event.id))
            case PeerReturned():
                self._links.peer_returned(event.id)
            case PeerDisconnected():
                self._links.peer_left(event.id)
                self._emit("peerdisconnect", event.id)
            case UserAdded():
                self._emit("newuser", event.name)
            case UserRemoved():
                self._user_removed(event)
            case KeyChanged(name, old_key):
                self._links.key_changed(name, old_key)
            case ContactRefused():
                logger.warning("contact %s is not used: %s: %s", event.name, event.error.code, event.error.message)
                self._report(event.error, event.name)
            case NoticeReceived():
                logger.warning("the discovery server says: %s: %s", event.code, event.message)
            case IceServersChanged():
                self._links.ice.handed_out(event.servers, event.lifetimes)
            case RequestReceived():
                self._links.requested(event.request)
            case ResponseReceived():
                self._links.responded(event.response)
            case CandidateReceived():
                self._links.candidate(event.candidate)

    def _went_online(self, event: WentOnline) -> None:
        self.id = event.peer_id
        self._offline_told = False
        self._links.went_online(event.peer_id)
        modules = f", serving {', '.join(self.modules)}" if self.modules else ""
        logger.info("online as %s, peer %s%s", self.name, self.id, modules)
        if self._online is not None and not self._online.done():
            self._online.set_result(None)
        self._emit("connect")

    def _attempt_failed(self, event: AttemptFailed) -> None:
        if self._online is not None and not self._online.done():
            self._online.set_exception(event.error)
            self._online.exception()
        # One line when it begins, and not one a try: an outage of hours would fill the log.
        log = logger.debug if self._offline_told else logger.warning
        log("%s; trying again, next in %.1f s", event.error.message, event.retry_in)
        self._offline_told = True

    def _network_changed(self, change: NetworkChange) -> None:
        logger.info("the network has changed: %s", change)
        self._discovery.network_changed(change)
        self._links.network_changed(change)

    def _user_removed(self, event: UserRemoved) -> None:
        if not event.proven or event.key is None:
            logger.warning("the server says that the trust with %s has ended, without proof: links stay", event.name)
            return
        self._links.cut(event.key, event.name)
        for link in self._links.pool.links():
            self._pass_on(link)

    def _report(self, error: BoneValueError, about: str) -> None:
        """A connection or a contact was refused."""
        self._emit("refused", error, about)

    def _emit(self, event: str, *arguments: Any) -> None:
        for listener in (*self._listeners.get(event, ()), *self._host.modules.listeners(event)):
            self.spawn(_tell(listener, event, arguments))

    def _run_ended(self, run: asyncio.Task[None]) -> None:
        error = None if run.cancelled() else run.exception()
        if self._online is not None and not self._online.done():
            self._online.set_exception(error or Unavailable("the peer was stopped"))
            self._online.exception()

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("something that ran beside failed", exc_info=error)

    # -- modules -------------------------------------------------------------------------------------------------------

    def _serve(self, module: ServedModule) -> None:
        self._host.modules.add(module)
        if isinstance(module.source, Module):
            module.source.peer = self


async def _tell(listener: Callable[..., Any], event: str, arguments: tuple[Any, ...]) -> None:
    try:
        outcome = listener(*arguments)
        if inspect.isawaitable(outcome):
            await outcome
    except Exception:
        logger.exception("a listener of %s raised", event)


async def _given_or(given: T | None, make: Callable[[], T]) -> T:
    """What was given, else what is made, in a thread."""
    return given if given is not None else await asyncio.to_thread(make)
