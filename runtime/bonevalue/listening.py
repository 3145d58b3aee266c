"""A socket to listen on, and uvicorn on it: for the discovery server, and for the pages of ``metrics:``."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import cast

import uvicorn

from bonevalue.errors import Unavailable
from bonevalue.settings_fields import Endpoint

__all__ = ["bind", "serve"]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and with a limit to what a socket may take for its TLS handshake."""

    def __init__(self, config: uvicorn.Config, handshake_timeout: float) -> None:
        super().__init__(config)
        self._handshake_timeout = handshake_timeout

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as uvicorn does on sockets that it is given. It leaves the time for a handshake at a minute."""
        protocol = partial(
            cast(Callable[..., asyncio.Protocol], self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state={},
        )
        tls = self.config.ssl
        timeout = None if tls is None else self._handshake_timeout
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol, sock=each, ssl=tls, ssl_handshake_timeout=timeout, backlog=self.config.backlog
            )
            for each in sockets or ()
        ]
        self.started = True

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Signals are for the program that we run in."""
        return contextlib.nullcontext()


def bind(endpoint: Endpoint, *, key: str, datagrams: bool = False) -> socket.socket:
    """
    A socket bound to an endpoint, not yet listening.

    Args:
        key: of the settings, for the error.
        datagrams: whether it is one for UDP; otherwise it is one for TCP.

    Raises:
        Unavailable: the port is taken, or there is no such address on this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            endpoint.host,
            endpoint.port,
            type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _not_listening(endpoint, key, error, datagrams=datagrams) from error
    try:
        if not datagrams:  # for UDP it would let two programs share the port, and one of them hear nothing
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # `[::]` means every address of this machine, whatever the system's default.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(endpoint.host != "::"))
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _not_listening(endpoint, key, error, datagrams=datagrams) from error
    return listener


async def serve(
    config: uvicorn.Config,
    listener: socket.socket,
    endpoint: Endpoint,
    *,
    key: str,
    handshake_timeout: float = 10.0,
) -> Callable[[], Awaitable[None]]:
    """
    Have uvicorn serve on a socket; gives what stops it.

    Args:
        config: loaded already, so that what is wrong with it has been said.
        listener: from :func:`bind`, with the same endpoint and key.
        handshake_timeout: seconds that a client may take for its TLS handshake.

    Raises:
        Unavailable: another program has begun to listen there meanwhile.
    """
    server = _Server(config, handshake_timeout)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.001)
    if task.done():
        try:
            await task
        except OSError as error:
            raise _not_listening(endpoint, key, error) from error

    async def stop() -> None:
        server.should_exit = True
        await task

    return stop


def _not_listening(endpoint: Endpoint, key: str, error: OSError, *, datagrams: bool = False) -> Unavailable:
    is_taken = error.errno == errno.EADDRINUSE
    reason = "the port is taken by another program" if is_taken else error.strerror or str(error)
    return Unavailable(f"{key}: cannot listen on {'UDP ' if datagrams else ''}{endpoint}: {reason}")
