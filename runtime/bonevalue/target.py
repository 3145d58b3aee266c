"""Whom a call is for: everyone, an alias, one peer; and the ways to call them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from bonevalue.errors import BoneValueError, NoTarget
from bonevalue.wire.signals import PeerEntry

__all__ = ["OWN_ACCOUNT", "Calling", "ResponseCallback", "Result", "Target"]

logger = logging.getLogger(__name__)

#: The query for everyone that one may talk to, and the alias of one's own account.
EVERYONE = "*"
OWN_ACCOUNT = "Us"

ResponseCallback = Callable[[Any], Any]
ErrorCallback = Callable[[BoneValueError], Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What one peer of a target answered: ``error`` is None, or ``response`` is."""

    peer: PeerEntry
    response: Any = None
    error: BoneValueError | None = None


class Calling(Protocol):
    """What a target needs of its peer."""

    #: Seconds that a call may take if nothing else is said.
    default_timeout: float

    def resolve(self, query: str) -> list[PeerEntry]:
        """The peers that a query means just now."""
        ...

    def is_linked(self, peer_id: str) -> bool:
        """Whether a call to that peer could go at once."""
        ...

    async def call_peer(self, peer: PeerEntry, module: str, request: Any, *, timeout: float, keep_alive: bool) -> Any:
        """Call a module of one peer; raises a :class:`~bonevalue.errors.BoneValueError`."""

    async def ping_peer(self, peer: PeerEntry, *, timeout: float) -> Any:
        """Measure the way to one peer; raises a :class:`~bonevalue.errors.BoneValueError`."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside, for as long as the peer lives."""


class Target:
    """
    Everyone, an alias or one peer. Making one never fails; whom it means is looked up at each call.

    Args:
        calling: the peer that calls.
        query: ``*``, ``Us``, an alias or a peer id.
    """

    def __init__(self, calling: Calling, query: str) -> None:
        self.query = query
        self._calling = calling

    def __repr__(self) -> str:
        return f"Target({self.query!r})"

    def peers(self) -> list[PeerEntry]:
        """The peers that it means just now."""
        return self._calling.resolve(self.query)

    async def call(
        self, module: str, request: Any = None, *, timeout: float | None = None, keep_alive: bool = True
    ) -> Any:
        """
        Call a module of one peer of the target: one that is connected already, else any.

        Args:
            module: name that it is served under.
            request: any JSON value, or bytes.
            timeout: seconds until it fails with ``deadline``; default is ``rpc.timeout``.
            keep_alive: hold the link for ``pool.idle_timeout`` after the call.

        Returns:
            the response: any JSON value, or bytes.

        Raises:
            NoTarget: nobody is online who matches.
            BoneValueError: the call failed; its ``code`` says how.
            TypeError, ValueError: the request is neither JSON nor bytes.
        """
        peers = self.peers()
        if not peers:
            raise NoTarget(f"nobody is online under {self.query!r}")
        peer = next((peer for peer in peers if self._calling.is_linked(peer.id)), peers[0])
        return await self._calling.call_peer(
            peer, module, request, timeout=self._timeout(timeout), keep_alive=keep_alive
        )

    def call_all(
        self, module: str, request: Any = None, *, timeout: float | None = None, keep_alive: bool = True
    ) -> AsyncGenerator[Result, None]:
        """
        Call a module of every peer of the target at once; results come as they arrive, one a peer.

        Leaving the loop cancels the calls that are still under way. Nobody to ask gives no result.

        Raises:
            TypeError, ValueError: the request is neither JSON nor bytes.
        """

        async def ask(peer: PeerEntry) -> Any:
            return await self._calling.call_peer(
                peer, module, request, timeout=self._timeout(timeout), keep_alive=keep_alive
            )

        return self._ask_all(ask)

    def ping(self, *, timeout: float | None = None) -> AsyncGenerator[Result, None]:
        """Measure the way to every peer of the target; each response is a :class:`~bonevalue.peer.Ping`."""

        async def ask(peer: PeerEntry) -> Any:
            return await self._calling.ping_peer(peer, timeout=self._timeout(timeout))

        return self._ask_all(ask)

    def message(
        self,
        module: str,
        request: Any = None,
        keep_alive: bool = True,
        callback: ResponseCallback | None = None,
        on_error: ErrorCallback | None = None,
    ) -> None:
        """
        Call a module of every peer of the target, and be called back.

        Args:
            module: name that it is served under.
            request: any JSON value, or bytes.
            keep_alive: hold the links for ``pool.idle_timeout`` after the call.
            callback: called with each response.
            on_error: called with each error; without it errors are logged.
        """
        self._calling.spawn(self._message(module, request, keep_alive, callback, on_error))

    async def _message(
        self,
        module: str,
        request: Any,
        keep_alive: bool,
        callback: ResponseCallback | None,
        on_error: ErrorCallback | None,
    ) -> None:
        async for result in self.call_all(module, request, keep_alive=keep_alive):
            if result.error is None:
                await _call_back(callback, result.response)
            elif on_error is not None:
                await _call_back(on_error, result.error)
            else:
                logger.warning("%s of %s/%s: %s", module, result.peer.name, result.peer.id, result.error)

    def _timeout(self, timeout: float | None) -> float:
        return self._calling.default_timeout if timeout is None else timeout

    async def _ask_all(self, ask: Callable[[PeerEntry], Coroutine[Any, Any, Any]]) -> AsyncGenerator[Result, None]:
        tasks = {asyncio.ensure_future(ask(peer)): peer for peer in self.peers()}
        waiting = set(tasks)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield _result(tasks[task], task)
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _result(peer: PeerEntry, task: asyncio.Future[Any]) -> Result:
    error = task.exception()
    if error is None:
        return Result(peer, response=task.result())
    if isinstance(error, BoneValueError):
        return Result(peer, error=error)
    raise error


async def _call_back(callback: Callable[[Any], Any] | None, value: Any) -> None:
    if callback is None:
        return
    try:
        outcome = callback(value)
        if inspect.isawaitable(outcome):
            await outcome
    except Exception:
        logger.exception("a callback raised")
