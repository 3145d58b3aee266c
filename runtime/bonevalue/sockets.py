"""
WebSockets to a discovery server: how one is opened, and why it could not be.

A host with several addresses is reached by whichever answers first (RFC 8305, "happy eyeballs"): where IPv6 is set up
but leads nowhere, that costs a quarter of a second and not the time of a TCP connection that is given up. It is done
here because uvloop does not do it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus

from bonevalue.config import Address
from bonevalue.errors import ConfigError
from bonevalue.wire.refusals import plain
from bonevalue.wire.signals import MAX_MESSAGE

__all__ = [
    "CLOSE_TIMEOUT",
    "Endpoint",
    "open_tcp",
    "open_websocket",
    "parse_address",
    "resolve",
    "retry_after",
    "tls_context",
    "why",
]

#: Seconds for the closing handshake.
CLOSE_TIMEOUT = 3.0
#: Seconds that one address of a host has, before the next is tried beside it (RFC 8305, section 8).
HEAD_START = 0.25


def parse_address(text: str, *, insecure: bool = False) -> Address:
    """
    Where a discovery server is.

    Args:
        text: ``wss://host[:port][/path]``; a bare host means ``wss://``, a bare loopback host ``ws://``.
        insecure: whether ``ws://`` may leave this machine.

    Raises:
        ConfigError: it is no address, or would be unencrypted.
    """
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{plain(text)!r} {error}") from error
    if not (address.secure or address.is_loopback or insecure):
        raise ConfigError(
            f"{address.url} would leave this machine unencrypted: use wss://, or allow it with `insecure`"
        )
    return address


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """
    How the server's certificate is checked.

    Args:
        ca_file: PEM file of the only authorities to trust; None for those of the system.

    Raises:
        ConfigError: the file is none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"{ca_file}: no authorities can be read from it: {why(error)}") from error


# -- TCP --------------------------------------------------------------------------------------------------------------


class Endpoint(NamedTuple):
    """One address of a host, with the port: what a socket of this family is connected to."""

    family: int
    address: tuple[Any, ...]


class _AllFailed(OSError):
    """None of a host's addresses could be connected to."""

    def __init__(self, errors: list[OSError]) -> None:
        super().__init__(", ".join(dict.fromkeys(map(why, errors))))
        self.errors = errors


async def resolve(host: str, port: int) -> list[Endpoint]:
    """
    The addresses of a host in the order to try them: as the system sorts them, the families by turns.

    Raises:
        OSError: they are not known (`socket.gaierror`).
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, list[Endpoint]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append(Endpoint(family, address))
    return [each for each in chain.from_iterable(zip_longest(*families.values())) if each is not None]


async def open_tcp(endpoints: Iterable[Endpoint]) -> socket.socket:
    """
    A connection to the endpoint that answers first. Each is tried when the one before failed or has had its head start.

    Raises:
        OSError: all have failed. There is no limit of time but the system's, which is minutes.
    """
    to_try = deque(endpoints)
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while to_try or attempts:
            if to_try:
                attempts.add(asyncio.create_task(_connect(to_try.popleft()), name="discovery TCP"))
            patience = HEAD_START if to_try else None
            done, _ = await asyncio.wait(attempts, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                try:
                    return attempt.result()
                except OSError as error:
                    errors.append(error)
    finally:
        await _call_off(attempts)
    raise errors[0] if len(errors) == 1 else _AllFailed(errors)


async def _connect(endpoint: Endpoint) -> socket.socket:
    connection = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, endpoint.address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _call_off(attempts: set[asyncio.Task[socket.socket]]) -> None:
    """End attempts that are not needed any more; one may have succeeded meanwhile."""
    for attempt in attempts:
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)
    for attempt in attempts:
        if not attempt.cancelled() and attempt.exception() is None:
            attempt.result().close()


# -- WebSockets -------------------------------------------------------------------------------------------------------


class _Connect(connect):
    """A connection to where we were told, and nowhere else: a redirect could lead out of this machine or of TLS."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def open_websocket(address: Address, tls: ssl.SSLContext | None, timeout: float) -> ClientConnection:
    """
    A WebSocket to a discovery server.

    Args:
        address: where the server is.
        tls: how to check the server's certificate; None for :func:`tls_context`.
        timeout: seconds for all of it.

    Raises:
        OSError: it cannot be reached; a `TimeoutError` is one.
        EOFError, InvalidHandshake: what answers there is no WebSocket server, or refuses.
    """
    async with asyncio.timeout(timeout):
        port = urlsplit(address.url).port or (443 if address.secure else 80)
        context = (tls or tls_context()) if address.secure else None
        return await _Connect(
            address.url,
            sock=await open_tcp(await resolve(address.host, port)),
            ssl=context,
            proxy=None,
            compression=None,
            user_agent_header=None,
            open_timeout=None,
            ping_interval=None,  # the library's own pings wait for ever behind what is not read
            close_timeout=CLOSE_TIMEOUT,
            max_size=MAX_MESSAGE,
        )


def why(error: Exception) -> str:
    """Why a socket could not be opened, in a few words for people."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted ({error.verify_message})"
        case ssl.SSLError():
            return f"TLS failed ({(error.reason or 'unknown reason').lower().replace('_', ' ')})"
        case TimeoutError():
            return "it does not answer"
        case InvalidStatus():
            return f"it answers HTTP {error.response.status_code}"
        case InvalidHandshake() | EOFError():
            return "what answers there is no WebSocket server"
        case socket.gaierror():
            return f"its host name is not known ({plain(error.strerror or str(error)).lower()})"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
    return plain(str(error)) or "it broke the connection off"


def retry_after(error: Exception) -> float | None:
    """The seconds after which an HTTP answer asks to come back, if it does."""
    text = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
