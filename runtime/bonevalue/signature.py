"""What a handler takes and gives, read once from its signature."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from bonevalue.errors import BadRequest, ConfigError
from bonevalue.wire import frames

__all__ = ["Signature"]

#: Failing fields that a ``bad_request`` names.
MAX_FIELDS_SHOWN = 8

_ASYNC_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable)
_STREAMS = (collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable)

_Annotation = tuple[TypeAdapter[Any], bool]


class Signature:
    """
    The signature of a handler.

    Args:
        handle: a function ``(request)`` or ``(request, context)``: ``async`` or not, with ``yield`` or without.
        name: of the module, for errors.

    Raises:
        ConfigError: it takes something else, or an annotation makes no sense.
    """

    def __init__(self, handle: Callable[..., Any], name: str) -> None:
        self._name = name
        #: An ``async def`` with ``yield``: calling it gives the stream.
        self.is_async_generator = _is(inspect.isasyncgenfunction, handle)
        #: A plain ``def`` with ``yield``.
        self.is_generator = _is(inspect.isgeneratorfunction, handle)
        #: A plain ``def``, of either kind, which must not run on the event loop.
        self.is_blocking = not (self.is_async_generator or _is(inspect.iscoroutinefunction, handle))
        self.takes_context = _takes_context(handle, name)
        hints = _hints(handle, name)
        first = next(iter(inspect.signature(handle).parameters), "")
        self._request = _adapter(hints.get(first, Any), name)
        returned = hints.get("return", Any)
        item = _item_of(returned, _STREAMS if self.is_generator else _ASYNC_STREAMS)
        if (self.is_async_generator or self.is_generator) and item is None:
            if not _is_open(returned):
                wanted = "Iterator[...]" if self.is_generator else "AsyncIterator[...]"
                raise ConfigError(f"{name}: the handler has a yield: it returns {wanted}, not {returned!r}")
            item = Any
        #: Whether it is known to answer with a stream. Without an annotation a handler may also return one unannounced.
        self.streams = item is not None
        self._response = _adapter(returned if item is None else item, name)

    @property
    def request_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the request, None if it is not annotated."""
        return _schema(self._request, "validation")

    @property
    def response_schema(self) -> dict[str, Any] | None:
        """JSON Schema of the response, of one item if it is a stream; None if it is not annotated."""
        return _schema(self._response, "serialization")

    def request_of(self, body: bytes, raw: bool) -> Any:
        """
        What the handler is given.

        Raises:
            BadRequest: it is not what the handler takes.
        """
        if self._request is None:
            try:
                return frames.decode_body(body, raw)
            except ValueError as error:
                raise BadRequest(f"the request is not JSON: {error}") from error
        adapter, wants_bytes = self._request
        if wants_bytes is not raw:
            raise BadRequest(f"{self._name} takes {'bytes' if wants_bytes else 'JSON'}")
        if raw:
            return body
        try:
            frames.check_json_depth(body)
            if b"NaN" in body or b"Infinity" in body:
                frames.decode_body(body, raw)  # refuses them where they are no text; pydantic would take them
            return adapter.validate_json(body)
        except ValidationError as error:
            raise BadRequest(_fields(error)) from error
        except ValueError as error:
            raise BadRequest(f"the request is not JSON: {error}") from error


def _is(kind: Callable[[Any], bool], handle: Callable[..., Any]) -> bool:
    """Whether a function, or an object that can be called, is of a kind."""
    return kind(handle) or kind(getattr(handle, "__call__", None))  # noqa: B004


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


def _hints(handle: Callable[..., Any], name: str) -> dict[str, Any]:
    while isinstance(handle, partial):
        handle = handle.func
    function = handle if inspect.isroutine(handle) else getattr(handle, "__call__", handle)  # noqa: B004
    try:
        # A class may hold the models of its own requests, beside `handle`.
        around = vars(type(owner)) if (owner := getattr(function, "__self__", None)) is not None else None
        return typing.get_type_hints(function, localns=dict(around) if around else None, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise ConfigError(f"{name}: an annotation of the handler cannot be resolved: {error}") from error


def _item_of(annotation: Any, kinds: tuple[type, ...]) -> Any:
    """The annotation of an item of ``AsyncIterator[...]`` and the like; None if it is none of ``kinds``."""
    if (typing.get_origin(annotation) or annotation) not in kinds:
        return None
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else Any


def _is_open(annotation: Any) -> bool:
    """Whether it says nothing about the value."""
    return annotation is Any or annotation is object


def _adapter(annotation: Any, name: str) -> _Annotation | None:
    if _is_open(annotation):
        return None
    try:
        return TypeAdapter(annotation), annotation is bytes
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise ConfigError(f"{name}: {annotation!r} is not a type that a request or response can have") from error


def _schema(annotation: _Annotation | None, mode: Literal["validation", "serialization"]) -> dict[str, Any] | None:
    if annotation is None:
        return None
    adapter, is_bytes = annotation
    return {"type": "string", "format": "binary"} if is_bytes else adapter.json_schema(mode=mode)


def _fields(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(map(str, problem['loc'])) or 'request'}: {problem['msg']}" for problem in problems]
    more = len(shown) - MAX_FIELDS_SHOWN
    return "; ".join(shown[:MAX_FIELDS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
