"""Talking to one STUN or TURN server, whichever of its addresses answers."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from bonevalue.errors import RemoteProtocolError, ServerOutcome
from bonevalue.ice_sockets import open_udp
from bonevalue.ice_url import IceUrl
from bonevalue.link import IceConfig
from bonevalue.relay import NO_ANSWER, Login, Relay, ServerFailed, open_relay, reason_of
from bonevalue.wire.stun import TRANSACTION_SIZE, decode_response, encode_request

__all__ = ["LATE", "NAME_NOT_KNOWN", "OK", "allocate", "first_of", "probe"]

#: Seconds after which the next address of a server is tried beside one that has not answered.
ADDRESSES_APART = 0.3
#: Seconds that a server has to show that it is there.
PROBE_TIME = 3.0
#: The server still has an earlier allocation of the port that this one happened to get (RFC 8656 section 7.4).
_MISMATCH = 437
#: Seconds by which a timer must be late to tell that this process stood still: what came meanwhile is not yet read.
LATE = 0.25
#: Times that a server is asked anew because this process stood still.
_TRIES = 3
#: Seconds after which a STUN request is sent again, for those that get lost.
_AGAIN = (0.25, 0.5, 1.0)

OK = "ok"
NAME_NOT_KNOWN = "name not known"

T = TypeVar("T")


async def first_of(starts: Sequence[Callable[[], Awaitable[T]]], *, apart: float, discard: Callable[[T], None]) -> T:
    """
    The result of the first attempt that succeeds.

    Args:
        starts: the attempts, at least one. The next begins when one has failed, or `apart` seconds after the last.
        discard: given the result of each other one that succeeds nevertheless.

    Raises:
        ServerFailed: all have failed; this is why the first of them did.
    """
    waiting = list(reversed(starts))
    running: set[asyncio.Future[T]] = set()
    failures: list[ServerFailed] = []
    won: list[T] = []
    try:
        while not won:
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop()()))
            elif not running:
                raise failures[0]
            done, running = await asyncio.wait(
                running, timeout=apart if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                try:
                    won.append(attempt.result())
                except ServerFailed as error:
                    failures.append(error)
        return won.pop()
    finally:
        for attempt in running:
            attempt.cancel()
        if running:
            await asyncio.wait(running)
        late = [attempt for attempt in running if not attempt.cancelled() and attempt.exception() is None]
        for result in (*won, *(attempt.result() for attempt in late)):
            discard(result)


async def allocate(url: IceUrl, login: Login, config: IceConfig) -> Relay:
    """
    A relay of a TURN server.

    Args:
        url: the server.
        login: what it wants to see.
        config: how its name is looked up, and its certificate checked.

    Raises:
        ServerFailed: it gave none.
    """

    async def attempt(address: str, *, again: bool = True) -> Relay | ServerFailed:
        try:
            return await open_relay(url, address, login, tls=config.tls)
        except ServerFailed as error:
            if error.code is None:
                raise
            if error.code == _MISMATCH and again:
                return await attempt(address, again=False)
            return error  # the server has spoken; its other addresses will not say anything else

    starts = [partial(attempt, address) for address in await _addresses(url, config)]
    result = await first_of(starts, apart=ADDRESSES_APART, discard=_close)
    if isinstance(result, ServerFailed):
        raise result
    return result


async def probe(url: IceUrl, config: IceConfig) -> ServerOutcome:
    """Whether a server can be talked to; nothing is asked of it that needs a login."""
    loop = asyncio.get_running_loop()
    for _ in range(_TRIES):
        due = loop.time() + PROBE_TIME
        try:
            async with asyncio.timeout_at(due):
                await _talk_to(url, config)
            return ServerOutcome(url.text, OK)
        except ServerFailed as error:
            return ServerOutcome(url.text, OK if error.code is not None else error.reason)
        except TimeoutError:
            if loop.time() - due < LATE:
                break
    return ServerOutcome(url.text, NO_ANSWER)


async def _talk_to(url: IceUrl, config: IceConfig) -> None:
    if url.is_stun:
        starts = [partial(_ask, (address, url.port)) for address in await _addresses(url, config)]
        await first_of(starts, apart=ADDRESSES_APART, discard=lambda _: None)
    else:
        _close(await allocate(url, Login(), config))


def _close(relay: Relay | ServerFailed) -> None:
    if isinstance(relay, Relay):
        relay.close()


async def _addresses(url: IceUrl, config: IceConfig) -> tuple[str, ...]:
    try:
        return await config.addresses(url.host)
    except OSError as error:
        raise ServerFailed(NAME_NOT_KNOWN) from error


class _Question(asyncio.DatagramProtocol):
    """One STUN request, and its answer."""

    def __init__(self) -> None:
        self._transaction = secrets.token_bytes(TRANSACTION_SIZE)
        self.request = encode_request(self._transaction)
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(lambda answer: answer.cancelled() or answer.exception())

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Perhaps the answer."""
        try:
            decode_response(data, self._transaction)
        except RemoteProtocolError:
            return  # a refusal or a forgery: a server that answers with nothing else is of no use
        if not self.answer.done():
            self.answer.set_result(None)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there, or there is no way."""
        if isinstance(exc, OSError) and not self.answer.done():
            self.answer.set_exception(exc)


async def _ask(server: tuple[str, int]) -> None:
    """Wait for an answer to a STUN request; the caller's time bounds it."""
    transport: asyncio.DatagramTransport | None = None
    try:
        transport, question = await open_udp(_Question, remote_addr=server)
        for pause in (*_AGAIN, None):
            transport.sendto(question.request)
            done, _ = await asyncio.wait({question.answer}, timeout=pause)
            if done:
                return question.answer.result()
    except OSError as error:
        raise ServerFailed(reason_of(error)) from error
    finally:
        if transport is not None:
            transport.close()
