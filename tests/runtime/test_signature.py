"""What is read from a handler's signature: its kind, its annotations, and the requests that fit."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from bonevalue.errors import BadRequest, ConfigError
from bonevalue.module import Context, Module
from bonevalue.signature import Signature


class Point(BaseModel):
    x: int


async def coroutine(request: Point, context: Context) -> Point:
    return request


def plain(request: bytes) -> int:
    return len(request)


async def open_to_all(request, context):  # type: ignore[no-untyped-def]
    return request


async def returns_stream(request: Any) -> AsyncIterator[Point]:
    return aiter(async_generator(request))


def plain_returns_stream(request: Any) -> AsyncIterator[bytes]:
    return aiter(request)


async def async_generator(request: Any) -> AsyncGenerator[Point, None]:
    yield Point(x=1)


async def async_iterable(request: Any) -> AsyncIterable[Point]:
    yield Point(x=1)


async def bare_async_iterator(request: Any) -> AsyncIterator:  # type: ignore[type-arg]
    yield 1


async def open_async_generator(request):  # type: ignore[no-untyped-def]
    yield 1


def generator(request: Any) -> Generator[Point, None, None]:
    yield Point(x=1)


def iterator(request: Any) -> Iterator[bytes]:
    yield b""


class Caller:
    async def __call__(self, request: Point) -> AsyncIterator[Point]:
        yield request


class Nested(Module):
    class Request(BaseModel):
        y: int

    async def handle(self, request: Request) -> AsyncIterator[Request]:
        yield request


POINT = {"properties": {"x": {"title": "X", "type": "integer"}}, "required": ["x"], "title": "Point", "type": "object"}
BINARY = {"type": "string", "format": "binary"}


@pytest.mark.parametrize(
    ("handle", "takes_context", "is_blocking", "streams", "request_schema", "response_schema"),
    [
        (coroutine, True, False, False, POINT, POINT),
        (plain, False, True, False, BINARY, {"type": "integer"}),
        (open_to_all, True, False, False, None, None),
        (returns_stream, False, False, True, None, POINT),
        (plain_returns_stream, False, True, True, None, BINARY),
        (async_generator, False, False, True, None, POINT),
        (async_iterable, False, False, True, None, POINT),
        (bare_async_iterator, False, False, True, None, None),
        (open_async_generator, False, False, True, None, None),
        (generator, False, True, True, None, POINT),
        (iterator, False, True, True, None, BINARY),
        (Caller(), False, False, True, POINT, POINT),
        (partial(async_generator), False, False, True, None, POINT),
        (lambda request: request, False, True, False, None, None),
    ],
)
def test_what_a_signature_tells(
    handle: Callable[..., Any],
    takes_context: bool,
    is_blocking: bool,
    streams: bool,
    request_schema: Any,
    response_schema: Any,
) -> None:
    signature = Signature(handle, "M")
    assert (signature.takes_context, signature.is_blocking, signature.streams) == (takes_context, is_blocking, streams)
    assert (signature.request_schema, signature.response_schema) == (request_schema, response_schema)


def test_a_class_may_hold_the_models_of_its_own_requests() -> None:
    signature = Signature(Nested().handle, "M")
    assert signature.request_schema == signature.response_schema and signature.streams
    assert signature.request_of(b'{"y": 3}', False) == Nested.Request(y=3)


async def yields_asynchronously(request):  # type: ignore[no-untyped-def]
    yield 1


def yields(request):  # type: ignore[no-untyped-def]
    yield 1


# What type checkers would not let pass as it stands.
yields_asynchronously.__annotations__["return"] = int
yields.__annotations__["return"] = AsyncIterator[int]


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (yields_asynchronously, r"has a yield: it returns AsyncIterator\[\.\.\.\], not <class 'int'>"),
        (yields, r"has a yield: it returns Iterator\[\.\.\.\], not"),
        (lambda: None, r"must take \(request\) or \(request, context\)"),
        (lambda request, context, more: None, r"must take \(request\)"),
    ],
)
def test_a_signature_that_makes_no_sense_is_refused(handle: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^M: .*{message}"):
        Signature(handle, "M")


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    async def handle(request: Nothing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigError, match="M: an annotation of the handler cannot be resolved: name 'Nothing'"):
        Signature(handle, "M")


def test_a_type_that_no_request_can_have_is_refused() -> None:
    async def handle(request: Signature) -> None: ...

    with pytest.raises(ConfigError, match="is not a type that a request or response can have"):
        Signature(handle, "M")


@pytest.mark.parametrize(
    ("handle", "body", "raw", "message"),
    [
        (coroutine, b"{}", False, "x: Field required"),
        (coroutine, b"{", False, "request: Invalid JSON"),
        (coroutine, b"{}", True, "M takes JSON"),
        (coroutine, b"[" * 65 + b"]" * 65, False, "is not JSON: nested deeper than 64"),
        (plain, b"1", False, "M takes bytes"),
        (open_to_all, b"{", False, "is not JSON"),
        (open_to_all, b"[" * 65 + b"]" * 65, False, "nested deeper than 64"),
    ],
)
def test_requests_that_do_not_fit_are_bad(handle: Callable[..., Any], body: bytes, raw: bool, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        Signature(handle, "M").request_of(body, raw)


def test_many_faults_of_a_request_are_named_up_to_eight() -> None:
    async def handle(request: dict[str, int]) -> None: ...

    body = b'{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":"","j":""}'
    with pytest.raises(BadRequest, match=r"^a: .*; h: [^;]*; and 2 more$"):
        Signature(handle, "M").request_of(body, False)


def test_requests_that_fit_come_as_annotated() -> None:
    assert Signature(coroutine, "M").request_of(b'{"x": "4"}', False) == Point(x=4)
    assert Signature(plain, "M").request_of(b"\x00", True) == b"\x00"
    assert Signature(open_to_all, "M").request_of(b"[1]", False) == [1]
    assert Signature(open_to_all, "M").request_of(b"\x00", True) == b"\x00"
