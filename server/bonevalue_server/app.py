"""
The discovery server as a whole: builds and wires all parts, starts and stops them.

It leaves signals and logging to the program it runs in, so that it can live beside a peer in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import uvicorn

from bonevalue.errors import BoneValueError, ConfigError
from bonevalue.listening import bind, serve
from bonevalue.settings_fields import Endpoint
from bonevalue_server.auth import Auth
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.counters import Counters
from bonevalue_server.directory import Directory
from bonevalue_server.doorman import Doorman
from bonevalue_server.enrolment import create_missing
from bonevalue_server.gateway import Connection, Gateway
from bonevalue_server.hub import Hub
from bonevalue_server.origins import Origins
from bonevalue_server.pages import make_pages
from bonevalue_server.store import Store
from bonevalue_server.stun import StunResponder

__all__ = ["DiscoveryServer"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is due, and between two looks at what other processes changed.
_SWEEP_INTERVAL = 0.25
_POLL_INTERVAL = 2.0
#: Seconds that clients have to close their sockets when the server stops.
_GOODBYE_TIME = 2.0
_BACKLOG = 2048
#: The keys of the settings that say where.
_LISTEN, _STUN = "discovery.listen", "discovery.stun"


class DiscoveryServer:
    """
    A discovery server.

    Args:
        settings: the section ``discovery:``.
        hub_type: the hub; tests of clients put a dishonest one in its place.
    """

    def __init__(self, settings: DiscoverySettings, *, hub_type: type[Hub] = Hub) -> None:
        self._settings = settings
        self._hub_type = hub_type
        self._parts: AsyncExitStack | None = None
        self._port = 0
        self._doorman: Doorman | None = None
        self.counters = Counters()
        """What it counted since it was made."""
        self.stun: tuple[Endpoint, ...] = ()
        """Where it answers STUN, while it runs."""
        self.hub: Hub | None = None
        """The hub, while the server runs."""

    @property
    def port(self) -> int:
        """The port it listens on, once it is started."""
        return self._port

    @property
    def is_listening(self) -> bool:
        """Whether clients are let in."""
        return self.hub is not None and self._doorman is not None and not self._doorman.is_closing

    def gauges(self) -> dict[str, float]:
        """How the server is at this moment, for metrics; docs/operations.md tells what each means."""
        hub, doorman = self.hub, self._doorman
        if hub is None or doorman is None:
            return {}
        return {
            "sockets": len(doorman),
            "sockets_pending": doorman.strangers,
            "peers_online": hub.online,
            "database_well": float(hub.is_database_well),
        }

    async def start(self) -> None:
        """
        Open the database, make the accounts that are missing, and listen.

        Raises:
            ConfigError: the settings do not fit the database or the certificate.
            Unavailable: a port is taken, or the database is locked.
        """
        async with AsyncExitStack() as parts:
            listener = parts.enter_context(bind(self._settings.listen, key=_LISTEN))
            stun = [parts.enter_context(bind(each, key=_STUN, datagrams=True)) for each in self._settings.stun]
            self.stun = tuple(
                Endpoint(each.host, bound.getsockname()[1])
                for each, bound in zip(self._settings.stun, stun, strict=True)
            )
            await self._start(listener, stun, parts)
            self._port = listener.getsockname()[1]
            self._parts = parts.pop_all()
        logger.info("discovery server listens on %s, realm %s", self._endpoint, self._settings.realm)
        if self.stun:
            logger.info("STUN on UDP %s", " and ".join(map(str, self.stun)))

    async def stop(self) -> None:
        """Say goodbye to all clients and close everything; idempotent."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.aclose()
            self.hub = self._doorman = None
            self.stun = ()
            logger.info("discovery server on %s has stopped", self._endpoint)

    @property
    def _endpoint(self) -> Endpoint:
        return Endpoint(self._settings.listen.host, self._port)

    async def _start(self, listener: socket.socket, stun: Sequence[socket.socket], parts: AsyncExitStack) -> None:
        """Start part after part; ``parts`` knows how to stop them in the reverse order."""
        settings, limits = self._settings, self._settings.limits
        store = await Store.open(
            settings.database.get_secret_value(),
            realm=settings.realm,
            max_tokens=limits.tokens,
            max_trusted=limits.trusted,
        )
        parts.push_async_callback(store.close)
        for username in await create_missing(store, settings.accounts, realm=settings.realm):
            logger.info("made the account %s", username)
        directory = Directory(store)
        auth = Auth(directory, realm=settings.realm, limits=limits)
        parts.push_async_callback(auth.close)
        hub = self._hub_type(store, auth, directory, settings=settings, stun=self.stun, counters=self.counters)
        origins = Origins(allowed=settings.origins, trusted_proxies=settings.trusted_proxies)
        doorman = Doorman(limits, origins, time.monotonic())
        gateway = Gateway(hub, doorman, limits=limits, counters=self.counters, clock=time.monotonic)

        async def say_goodbye() -> None:
            doorman.is_closing = True
            await hub.stop()
            await gateway.close(_GOODBYE_TIME)

        def health() -> dict[str, str]:
            database = "ok" if hub.is_database_well else "unavailable"
            return {"status": "stopping" if doorman.is_closing else "ok", "database": database}

        responder = StunResponder(stun, limits, self.counters, clock=time.monotonic)
        responder.start()
        parts.callback(responder.stop)
        parts.push_async_callback(await self._serve(listener, gateway, origins, health))
        parts.push_async_callback(say_goodbye)
        for work, interval in ((_as_async(gateway.sweep), _SWEEP_INTERVAL), (hub.poll, _POLL_INTERVAL)):
            parts.push_async_callback(_cancel, asyncio.create_task(_repeat(work, interval)))
        self.hub, self._doorman = hub, doorman

    async def _serve(
        self, listener: socket.socket, gateway: Gateway, origins: Origins, health: Callable[[], dict[str, str]]
    ) -> Callable[[], Awaitable[None]]:
        """Have uvicorn serve on a socket; gives what stops it."""
        config = uvicorn.Config(
            make_pages(realm=self._settings.realm, health=health, origins=origins, folder=self._settings.pages),
            http=gateway.door,  # type: ignore[arg-type]
            ws=Connection,
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=2,
            ssl_certfile=None if self._settings.tls is None else self._settings.tls.cert_file,
            ssl_keyfile=None if self._settings.tls is None else self._settings.tls.key_file,
        )
        try:
            config.load()
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigError(f"discovery.tls: certificate and key cannot be used: {error}") from error
        return await serve(
            config,
            listener,
            self._settings.listen,
            key=_LISTEN,
            handshake_timeout=self._settings.limits.login_timeout,
        )


def _as_async(work: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        work()

    return run


async def _repeat(work: Callable[[], Awaitable[None]], interval: float) -> None:
    """Do something again and again; a fault of ours in it is logged and not the end of it."""
    while True:
        await asyncio.sleep(interval)
        try:
            await work()
        except BoneValueError as error:
            logger.warning("%s", error.message)
        except Exception:
            logger.exception("a periodic task failed")


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
