"""How a module, or a plain function, is served: who may call it, how often, how many at once, and how a call is run."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Collection
from functools import cached_property
from typing import Any, Protocol

from bonevalue.counters import Counters
from bonevalue.errors import BadRequest, BoneValueError, Busy, ConfigError, Denied, RateLimited, Unavailable
from bonevalue.items import hand_over
from bonevalue.module import Caller, Context, Module
from bonevalue.signature import Signature
from bonevalue.slots import FairSlots
from bonevalue.threads import CallThread, GeneratorThread
from bonevalue.wire import frames
from bonevalue.wire.pacing import Buckets, Pace

__all__ = ["DEFAULT_CONCURRENCY", "Answer", "ModuleSet", "ServedModule"]

logger = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 64
#: Calls that wait for a module whose slots are all taken; more are answered ``busy``.
MAX_WAITING = 1024


class Answer(Protocol):
    """Where the answer to one call goes: :meth:`reply`, or else :meth:`begin`, any number of items and :meth:`end`."""

    #: Whether the caller takes a stream for an answer.
    takes_stream: bool

    def blocked(self) -> Awaitable[None] | None:
        """What to await before anything is made for a caller that does not read its answers."""

    def reply(self, body: bytes, raw: bool) -> None:
        """The one response."""

    def begin(self) -> None:
        """The answer is a stream."""

    def item(self, body: bytes, raw: bool) -> Awaitable[None] | None:
        """
        Hand over one item.

        Returns:
            what to await before the next one, while the caller reads slowly.

        Raises:
            TooLarge: the item is longer than one may be.
        """

    def end(self) -> None:
        """The stream is complete."""


class _Turn(asyncio.Future[None]):
    """Done when a call that waited has its slot; fails when it has to give way."""

    def __init__(self, caller: str) -> None:
        super().__init__()
        self.caller = caller


class ServedModule:
    """
    One module as a peer serves it.

    Args:
        name: name to serve it under.
        source: a :class:`~bonevalue.module.Module`, or a function ``(request)`` or ``(request, context)``.
        allow: aliases that may call it; ``*`` is everyone trusted.
        concurrency: calls that run at once; an eighth of them, at least one of four or more, is left to peers that have
            none.
        rate: calls a second of each calling peer, with bursts of one second's worth (at least one call); None for any
            number.

    Raises:
        ConfigError: it has no proper ``handle``, or an annotation that makes no sense.
    """

    def __init__(
        self,
        name: str,
        source: Module | Callable[..., Any],
        *,
        allow: Collection[str] = ("*",),
        concurrency: int = DEFAULT_CONCURRENCY,
        rate: float | None = None,
    ) -> None:
        if not 0 < len(name.encode()) <= frames.MAX_MODULE_NAME:
            raise ConfigError(f"a module name has 1 to {frames.MAX_MODULE_NAME} bytes")
        if concurrency < 1 or (rate is not None and rate <= 0):
            raise ConfigError(f"{name}: concurrency and rate must be positive")
        handle = getattr(source, "handle", None) if isinstance(source, Module) else source
        if not callable(handle):
            raise ConfigError(f"{type(source).__name__} has no method handle(self, request, context)")
        self.name = name
        self.source = source
        self.allow = frozenset(allow)
        #: Where it counts what its limits turn away or hold up.
        self.counters = Counters()
        self._open_to_all = "*" in self.allow
        self._handle: Callable[..., Any] = handle
        self._signature = Signature(handle, name)
        self._slots: FairSlots[_Turn] = FairSlots(concurrency, most_waiting=MAX_WAITING)
        self._rates: Buckets[str] | None = Buckets(Pace(rate, max(rate, 1.0))) if rate is not None else None

    @property
    def doc(self) -> str:
        """What the author says of it: the docstring of the class, of ``handle`` or of the function."""
        if isinstance(self.source, Module):
            own = type(self.source).__doc__ or self._handle.__doc__
        else:
            own = self._handle.__doc__
        return inspect.cleandoc(own) if own else ""

    @property
    def streams(self) -> bool:
        """Whether it answers with a stream, as far as the handler's signature tells."""
        return self._signature.streams

    @cached_property
    def request_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the request, None if it is not annotated."""
        return self._signature.request_schema

    @cached_property
    def response_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the response, of one item if it is a stream; None if it is not annotated."""
        return self._signature.response_schema

    @property
    def queue(self) -> int:
        """How many calls may wait for a slot."""
        return self._slots.most_waiting

    @queue.setter
    def queue(self, most: int) -> None:
        self._slots.most_waiting = most

    def admits(self, caller: Caller) -> bool:
        """Whether that account may call it."""
        return self._open_to_all or caller.name in self.allow

    async def run(self, body: bytes, raw: bool, context: Context, answer: Answer) -> None:
        """
        Run one call.

        It waits for nothing but a free slot, the handler, and a slow reader of its stream.

        Args:
            body: the request, as it came.
            raw: whether that is bytes rather than JSON.
            context: who calls, and until when.
            answer: takes the response, or the items. An error after some items breaks their stream off.

        Raises:
            Denied: the caller may not call this.
            RateLimited: the caller calls too often.
            BadRequest: the request does not fit, or the answer is a stream and the caller takes none.
            Busy: too many calls wait for this module already.
            TooLarge: an item of the stream is too long.
            Exception: whatever the handler raises; TypeError or ValueError if its response cannot be encoded.
        """
        caller = context.caller
        if not self.admits(caller):
            raise Denied(f"{self.name} is not open to this account")
        if self._rates is not None:
            self._count(caller, self._rates)
        signature = self._signature
        if signature.streams and not answer.takes_stream:
            raise self._takes_no_stream()
        if not self._slots.take(caller.id):
            await self._turn(caller)
        thread: CallThread | GeneratorThread | None = None
        try:
            # Decoded only now: what waits for a slot takes no more memory than its bytes.
            request = signature.request_of(body, raw)
            arguments = (request, context) if signature.takes_context else (request,)
            if not signature.is_blocking:
                result = self._handle(*arguments)
                if not signature.is_async_generator:
                    result = await result
            elif signature.is_generator:
                result = thread = GeneratorThread(self._handle, arguments)
            else:
                thread = CallThread(self._handle, arguments)
                result = await thread.result()
            if hasattr(result, "__aiter__"):
                await self._stream(result, answer)
            else:
                if (blocked := answer.blocked()) is not None:
                    await blocked  # with its slot: a caller that does not read gets no further answers made
                answer.reply(*frames.encode_body(result))
        finally:
            if thread is None or thread.ended.done():
                self._give_back(caller.id)
            else:
                # A thread cannot be cancelled: it keeps its slot until it returns, whatever becomes of the call.
                thread.ended.add_done_callback(lambda _: self._give_back(caller.id))

    async def _stream(self, source: AsyncIterable[Any], answer: Answer) -> None:
        if answer.takes_stream:
            answer.begin()
            await hand_over(source, answer.item)
            answer.end()
            return
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
        raise self._takes_no_stream()

    def _takes_no_stream(self) -> BadRequest:
        return BadRequest(f"{self.name} answers with a stream: use stream(), or bv call --stream")

    def _count(self, caller: Caller, rates: Buckets[str]) -> None:
        wait = rates.take(caller.id, time.monotonic())
        if wait:
            self.counters.limited["rate"] += 1
            raise RateLimited(f"{self.name} takes {rates.rate.per_second:g} calls a second of a peer", retry_after=wait)

    async def _turn(self, caller: Caller) -> None:
        """Wait for a slot."""
        turn = _Turn(caller.id)
        evicted = self._slots.wait(caller.id, turn)
        if evicted is not turn:
            self.counters.limited["concurrency"] += 1
        if evicted is not None and not evicted.done():
            self.counters.limited["queue"] += 1
            evicted.set_exception(Busy(f"{self.queue} calls wait for {self.name} already"))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._slots.leave(caller.id, turn)
            elif turn.exception() is None:  # it had got a slot in the same moment
                self._give_back(caller.id)
            raise

    def _give_back(self, caller: str) -> None:
        slots = self._slots
        slots.give_back(caller)
        while (turn := slots.next_waiter()) is not None:
            if turn.done():  # it was cancelled, and has not yet left
                slots.give_back(turn.caller)
            else:
                turn.set_result(None)


class ModuleSet(dict[str, ServedModule]):
    """
    The modules of one peer, by name, with their common life.

    Args:
        counters: where they count what their limits turn away or hold up.
        queue: how many calls may wait for each of them.
    """

    def __init__(self, counters: Counters | None = None, *, queue: int = MAX_WAITING) -> None:
        super().__init__()
        self._counters = counters or Counters()
        self._queue = queue
        self._started: list[tuple[str, Module]] = []
        self._stopped = False

    def add(self, module: ServedModule) -> None:
        """
        Serve one more.

        Raises:
            ConfigError: the name is taken.
        """
        if module.name in self:
            raise ConfigError(f"a second module named {module.name!r}")
        module.counters = self._counters
        module.queue = self._queue
        self[module.name] = module

    def listeners(self, event: str) -> list[Callable[..., Any]]:
        """The methods ``on_EVENT`` of the modules that have one."""
        sources = [module.source for module in self.values() if isinstance(module.source, Module)]
        return [method for source in sources if (method := getattr(source, f"on_{event}", None)) is not None]

    async def start(self) -> None:
        """
        Start each, in the order of the settings.

        Raises:
            ConfigError: one failed; those before it, and itself, are for :meth:`stop`.
            Unavailable: they were stopped meanwhile.
        """
        for name, module in list(self.items()):
            if not isinstance(module.source, Module):
                continue
            if self._stopped:
                raise Unavailable("the peer was stopped while it started")
            self._started.append((name, module.source))
            try:
                await _finished(module.source.start())
            except BoneValueError as error:
                raise ConfigError(f"module {name} failed to start: {error.message}") from error
            except Exception as error:
                logger.debug("module %s failed to start", name, exc_info=error)
                raise ConfigError(f"module {name} failed to start: {type(error).__name__}: {error}") from error

    async def stop(self) -> None:
        """Stop each that was started, the last one first; what they raise is logged."""
        self._stopped = True
        while self._started:
            name, source = self._started.pop()
            try:
                await _finished(source.stop())
            except Exception:
                logger.exception("module %s failed to stop", name)


async def _finished(outcome: Awaitable[None] | None) -> None:
    """The end of what may be a plain method or an async one."""
    if inspect.isawaitable(outcome):
        await outcome
