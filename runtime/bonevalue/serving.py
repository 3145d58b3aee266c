"""How a module, or a plain function, is served: its signature read once, its calls validated, bounded and run."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import typing
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from bonevalue.errors import BadRequest, BoneValueError, Busy, ConfigError, Denied, Unavailable
from bonevalue.module import Caller, Context, Module
from bonevalue.wire import frames

__all__ = ["DEFAULT_CONCURRENCY", "ModuleSet", "ServedModule"]

logger = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 64
#: Calls that wait for a module whose slots are all taken; more are answered ``busy``.
MAX_WAITING = 1024
#: Failing fields that a ``bad_request`` names.
MAX_FIELDS_SHOWN = 8


class ServedModule:
    """
    One module as a peer serves it.

    Args:
        name: name to serve it under.
        source: a :class:`~bonevalue.module.Module`, or a function ``(request)`` or ``(request, context)``.
        allow: aliases that may call it; ``*`` is everyone trusted.
        concurrency: calls that run at once.

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
    ) -> None:
        if not 0 < len(name.encode()) <= frames.MAX_MODULE_NAME:
            raise ConfigError(f"a module name has 1 to {frames.MAX_MODULE_NAME} bytes")
        self.name = name
        self.source = source
        self.allow = frozenset(allow)
        self._open_to_all = "*" in self.allow
        handle = getattr(source, "handle", None) if isinstance(source, Module) else source
        if not callable(handle):
            raise ConfigError(f"{type(source).__name__} has no method handle(self, request, context)")
        if inspect.isasyncgenfunction(handle) or inspect.isgeneratorfunction(handle):
            raise ConfigError(f"{name}: the handler is a generator; this version answers a call with one response")
        self._handle: Callable[..., Any] = handle
        self._takes_context = _takes_context(handle, name)
        self._request, self._response = _annotations(handle, name)
        #: Whether the handler is a plain function, and therefore runs in a thread.
        self.blocking = not _is_async(handle)
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting = 0

    @property
    def doc(self) -> str:
        """What the author says of it: the docstring of the class, of ``handle`` or of the function."""
        if isinstance(self.source, Module):
            own = type(self.source).__doc__ or self._handle.__doc__
        else:
            own = self._handle.__doc__
        return inspect.cleandoc(own) if own else ""

    @property
    def request_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the request, None if it is not annotated."""
        return _schema(self._request)

    @property
    def response_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the response, None if it is not annotated."""
        return _schema(self._response, mode="serialization")

    def admits(self, caller: Caller) -> bool:
        """Whether that account may call it."""
        return self._open_to_all or caller.name in self.allow

    async def run(self, body: bytes, raw: bool, context: Context) -> tuple[bytes, bool]:
        """
        Run one call.

        Returns:
            the encoded response, and whether it is raw bytes.

        Raises:
            Denied: the caller may not call this.
            BadRequest: the request does not fit.
            Busy: too many calls wait for this module already.
            Exception: whatever the handler raises; TypeError or ValueError if its response cannot be encoded.
        """
        if not self.admits(context.caller):
            raise Denied(f"{self.name} is not open to this account")
        if self._waiting >= MAX_WAITING:
            raise Busy(f"{MAX_WAITING} calls wait for {self.name} already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        thread: asyncio.Future[Any] | None = None
        try:
            # Decoded only now: what waits for a slot takes no more memory than its bytes.
            request = self._decode(body, raw)
            arguments = (request, context) if self._takes_context else (request,)
            if not self.blocking:
                return frames.encode_body(await self._handle(*arguments))
            thread = _run_in_thread(self._handle, arguments)
            # A thread cannot be cancelled: it keeps its slot until it returns, whatever becomes of the call.
            thread.add_done_callback(lambda _: self._slots.release())
            return frames.encode_body(await asyncio.shield(thread))
        finally:
            if thread is None:
                self._slots.release()

    def _decode(self, body: bytes, raw: bool) -> Any:
        if self._request is None:
            try:
                return frames.decode_body(body, raw)
            except ValueError as error:
                raise BadRequest(f"the request is not JSON: {error}") from error
        adapter, wants_bytes = self._request
        if wants_bytes is not raw:
            raise BadRequest(f"{self.name} takes {'bytes' if wants_bytes else 'JSON'}")
        if raw:
            return body
        try:
            frames.check_json_depth(body)
            return adapter.validate_json(body)
        except ValidationError as error:
            raise BadRequest(_fields(error)) from error
        except ValueError as error:
            raise BadRequest(f"the request is not JSON: {error}") from error


class ModuleSet(dict[str, ServedModule]):
    """The modules of one peer, by name, with their common life."""

    def __init__(self) -> None:
        super().__init__()
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
                await module.source.start()
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
                await source.stop()
            except Exception:
                logger.exception("module %s failed to stop", name)


_Annotation = tuple[TypeAdapter[Any], bool]


def _is_async(handle: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(handle) or inspect.iscoroutinefunction(getattr(handle, "__call__", None))  # noqa: B004


def _takes_context(handle: Callable[..., Any], name: str) -> bool:
    try:
        inspect.signature(handle).bind(None, None)
    except TypeError:
        try:
            inspect.signature(handle).bind(None)
        except TypeError as error:
            raise ConfigError(f"{name}: the handler must take (request) or (request, context)") from error
        return False
    return True


def _annotations(handle: Callable[..., Any], name: str) -> tuple[_Annotation | None, _Annotation | None]:
    try:
        # A class may hold the models of its own requests, beside `handle`.
        around = vars(type(owner)) if (owner := getattr(handle, "__self__", None)) is not None else None
        hints = typing.get_type_hints(handle, localns=dict(around) if around else None, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name}: an annotation of the handler cannot be resolved: {error}") from error
    first = next(iter(inspect.signature(handle).parameters), "")
    return _adapter(hints.get(first, Any), name), _adapter(hints.get("return", Any), name)


def _adapter(annotation: Any, name: str) -> _Annotation | None:
    if annotation is Any or annotation is object:
        return None
    try:
        return TypeAdapter(annotation), annotation is bytes
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ConfigError(f"{name}: {annotation!r} is not a type that a request or response can have") from error


def _schema(
    annotation: _Annotation | None, mode: typing.Literal["validation", "serialization"] = "validation"
) -> dict[str, Any] | None:
    if annotation is None:
        return None
    adapter, is_bytes = annotation
    return {"type": "string", "format": "binary"} if is_bytes else adapter.json_schema(mode=mode)


def _fields(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(map(str, problem['loc'])) or 'request'}: {problem['msg']}" for problem in problems]
    more = len(shown) - MAX_FIELDS_SHOWN
    return "; ".join(shown[:MAX_FIELDS_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _run_in_thread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
    """
    Run a function in a daemon thread of its own.

    An executor would join its threads at exit, so that one handler that never returns would keep the process from
    ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.cancelled():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
                future.exception()  # a call that was given up leaves nobody to look at it

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function, *arguments)
        except BaseException as caught:
            # Neither may end the event loop: it would take the one for its own end, and the other for a coroutine's.
            odd = isinstance(caught, StopIteration) or not isinstance(caught, Exception)
            error = RuntimeError(f"the handler raised {type(caught).__name__}") if odd else caught
        with suppress(RuntimeError):  # the loop has ended before the thread
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="bonevalue-handler", daemon=True).start()
    return future
