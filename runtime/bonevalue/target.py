"""Whom a call is for: everyone, an alias, one peer; and the ways to call them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from bonevalue.descriptions import MODULES, ModuleDescription, read_descriptions
from bonevalue.errors import BoneValueError, RemoteProtocolError
from bonevalue.items import Items
from bonevalue.results import Results
from bonevalue.stream import ReceivedStream, Stream
from bonevalue.wire import frames
from bonevalue.wire.signals import PeerEntry

__all__ = ["EVERYONE", "OWN_ACCOUNT", "Calling", "ResponseCallback", "Target"]

logger = logging.getLogger(__name__)

#: The query for everyone that one may talk to, and the alias of one's own account.
EVERYONE = "*"
OWN_ACCOUNT = "Us"

ResponseCallback = Callable[[Any], Any]
ErrorCallback = Callable[[BoneValueError], Any]


class Calling(Protocol):
    """What a target needs of its peer. A request comes encoded, by :func:`~bonevalue.wire.frames.encode_body`."""

    #: Seconds that a call may take if nothing else is said.
    default_timeout: float

    def resolve(self, query: str) -> list[PeerEntry]:
        """The peers that a query means just now."""
        ...

    def choose(self, query: str) -> PeerEntry:
        """One of them, that can be reached at once if any can; raises :class:`~bonevalue.errors.NoTarget`."""
        ...

    async def call_peer(
        self,
        peer: PeerEntry,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        items: Items | None = None,
        idempotent: bool = False,
    ) -> Any:
        """Call a module of one peer; raises a :class:`~bonevalue.errors.BoneValueError`."""

    async def open_stream(
        self,
        peer: PeerEntry,
        module: str,
        body: bytes,
        raw: bool,
        timeout: float,
        keep_alive: bool,
        items: Items | None = None,
    ) -> ReceivedStream:
        """Call a module of one peer that answers with a stream; raises a :class:`~bonevalue.errors.BoneValueError`."""
        ...

    async def ping_peer(self, peer: PeerEntry, timeout: float) -> Any:
        """Measure the way to one peer; raises a :class:`~bonevalue.errors.BoneValueError`."""

    def spawn(self, work: Coroutine[Any, Any, None], /) -> None:
        """Run something beside, for as long as the peer lives."""


class Target:
    """
    Everyone, an alias or one peer. Making one never fails; whom it means is looked up at each call.

    All ways to call take the ``module`` by the name that it is served under, and as its ``request`` any JSON value or
    bytes; they raise TypeError or ValueError for one that is neither, before anything is sent. ``timeout`` is in
    seconds, by default ``rpc.timeout``; setting up a link counts. With ``keep_alive`` the link is held for
    ``pool.idle_timeout`` after the call.

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
        self,
        module: str,
        request: Any = None,
        *,
        items: Items | None = None,
        timeout: float | None = None,
        keep_alive: bool = True,
        idempotent: bool = False,
    ) -> Any:
        """
        Call a module of one peer of the target: one that is connected already, else any.

        Args:
            items: sent after the request. What the iterator raises, this raises; the call is cancelled.
            timeout: seconds until it fails with ``deadline``.
            idempotent: to run the call twice does no more than to run it once. If its link is lost, it is made again
                over a new one, once, within its time.

        Returns:
            the response: any JSON value, or bytes.

        Raises:
            NoTarget: nobody is online who matches.
            BadRequest: the request does not fit the module, or the module answers with a stream.
            LinkLost: the link ended; whether the call was run is unknown.
            BoneValueError: the call failed otherwise; its ``code`` says how.
            ValueError: ``items`` and ``idempotent`` together: items cannot be sent again.
        """
        if items is not None:
            _check(items)
            if idempotent:
                raise ValueError("a call with items is not idempotent: they cannot be sent again")
        body, raw = frames.encode_body(request)
        calling = self._calling
        if timeout is None:
            timeout = calling.default_timeout
        peer = calling.choose(self.query)
        return await calling.call_peer(peer, module, body, raw, timeout, keep_alive, items, idempotent)

    def stream(
        self,
        module: str,
        request: Any = None,
        *,
        items: Items | None = None,
        timeout: float | None = None,
        keep_alive: bool = True,
    ) -> Stream:
        """
        Call a module of one peer of the target that answers with a stream; a plain response is a stream of one item.

        Nothing is sent before the first item is asked for; what :meth:`call` raises, the stream raises then, or later,
        where it breaks off.

        Args:
            items: sent after the request, meanwhile.
            timeout: seconds in which the answer must begin. From then on a stream has no deadline of its own.
        """
        if items is not None:
            _check(items)
        body, raw = frames.encode_body(request)
        begin = partial(
            self._calling.open_stream,
            module=module,
            body=body,
            raw=raw,
            timeout=self._timeout(timeout),
            keep_alive=keep_alive,
            items=items,
        )
        return Stream(partial(self._calling.choose, self.query), begin)

    def call_all(
        self,
        module: str,
        request: Any = None,
        *,
        timeout: float | None = None,
        keep_alive: bool = True,
        idempotent: bool = False,
        concurrency: int | None = None,
        first: int | None = None,
    ) -> Results:
        """
        Call a module of every peer of the target; results come as they arrive, one a peer. Nobody to ask gives none.

        Args:
            timeout: seconds that each peer has, from when it is asked.
            idempotent: as for :meth:`call`.
            concurrency: how many peers are asked at the same time, others as these end; None for all at once.
            first: end after so many good answers, and cancel the other calls; None for all.
        """
        body, raw = frames.encode_body(request)
        ask = partial(
            self._calling.call_peer,
            module=module,
            body=body,
            raw=raw,
            timeout=self._timeout(timeout),
            keep_alive=keep_alive,
            idempotent=idempotent,
        )
        return Results(self.peers(), ask, concurrency=concurrency, first=first)

    def ping(self, *, timeout: float | None = None) -> Results:
        """Measure the way to every peer of the target; each response is a :class:`~bonevalue.peer.Ping`."""
        return Results(self.peers(), partial(self._calling.ping_peer, timeout=self._timeout(timeout)))

    async def modules(self, *, timeout: float | None = None) -> list[ModuleDescription]:
        """
        What one peer of the target serves to this account, by name.

        Raises:
            NoTarget: nobody is online who matches.
            RemoteProtocolError: what it answers makes no sense.
            BoneValueError: the call failed.
        """
        peer = self._calling.choose(self.query)
        body, raw = frames.encode_body(None)
        answer = await self._calling.call_peer(
            peer, MODULES, body, raw, self._timeout(timeout), keep_alive=True, idempotent=True
        )
        try:
            return read_descriptions(answer)
        except RemoteProtocolError as error:
            error.peer = peer.id
            raise

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
            callback: called with each response.
            on_error: called with each error; without it errors are logged.
        """
        results = self.call_all(module, request, keep_alive=keep_alive)
        self._calling.spawn(_pass_on(results, module, callback, on_error))

    def _timeout(self, timeout: float | None) -> float:
        return self._calling.default_timeout if timeout is None else timeout


def _check(items: object) -> None:
    """Raise TypeError for what can hardly be meant: a text or a mapping is iterable, too."""
    if isinstance(items, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(
        items, (Iterable, AsyncIterable)
    ):
        raise TypeError(f"items is an iterable of JSON values or bytes, not a {type(items).__name__}")


async def _pass_on(
    results: Results, module: str, callback: ResponseCallback | None, on_error: ErrorCallback | None
) -> None:
    async for result in results:
        if result.error is None:
            await _call_back(callback, result.response)
        elif on_error is not None:
            await _call_back(on_error, result.error)
        else:
            logger.warning("%s of %s/%s: %s", module, result.peer.name, result.peer.id, result.error)


async def _call_back(callback: Callable[[Any], Any] | None, value: Any) -> None:
    if callback is None:
        return
    try:
        outcome = callback(value)
        if inspect.isawaitable(outcome):
            await outcome
    except Exception:
        logger.exception("a callback raised")
