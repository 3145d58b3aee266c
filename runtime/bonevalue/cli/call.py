"""``bv call``: one request to every peer of a target, or a stream from one."""

from __future__ import annotations

import json as jsonlib
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import CALLS, DEFAULT_FILE, ConfigFile, JsonLines
from bonevalue.cli.program import Failed
from bonevalue.cli.results import TargetName, Timeout, entry, label, nobody, show_failure
from bonevalue.cli.screen import OutputLost, compact, emit, hint, pipe_on, say, terminal, write_raw
from bonevalue.cli.settings import load_peer
from bonevalue.errors import BoneValueError, TooLarge
from bonevalue.results import Result, Results
from bonevalue.stream import Stream
from bonevalue.wire import frames
from bonevalue.wire.signals import PeerEntry

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings

__all__ = ["app"]

app = typer.Typer()

#: Bytes of the longest request that any peer can be set to take.
MAX_REQUEST = 16 * 2**20


@app.command(
    rich_help_panel=CALLS,
    epilog='Examples: bv call Us My.Echo.Module \'{"text": "Friday"}\'\n\n'
    "bv call '*' My.Echo.Module - --json < request.json\n\n"
    "bv call bob Camera.Snapshot --first 1 > snapshot.jpg\n\n"
    "bv call bob Image.Classify --file photo.jpg\n\n"
    "bv call bob Logs.Tail --stream",
)
def call(
    target: TargetName,
    module: Annotated[str, typer.Argument(metavar="MODULE", help="The name that it is served under: see bv modules.")],
    request: Annotated[
        str | None, typer.Argument(metavar="JSON", help="The request, {} if left out; - reads it from standard input.")
    ] = None,
    content: Annotated[
        Path | None,
        typer.Option("--file", metavar="PATH", help="Take the bytes of a file as request; - is standard input."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Show a stream, item by item, of one peer of the target.")
    ] = False,
    timeout: Timeout = None,
    first: Annotated[
        int | None, typer.Option("--first", metavar="N", min=1, help="Stop as soon as N peers have answered.")
    ] = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Call a module of every peer of a target, and print what each answers.

    The exit code is 0 only if somebody was asked and all answered (or N,
    with --first). Bytes go to standard output as they are, if that is no
    terminal; with --json they stand as base64 below "bytes".

    With --stream one peer is called, and each item of its answer is printed
    as it comes; --timeout is for the beginning.
    """
    if content is not None and request is not None:
        raise typer.BadParameter("JSON and --file exclude each other", param_hint="--file")
    if stream and first is not None:
        raise typer.BadParameter("a stream comes from one peer: --first and --stream exclude each other")
    body = _request(request or "{}") if content is None else _bytes_of(content)
    settings = load_peer(file)
    if stream:
        items: _Items = _JsonItems() if json else _TextItems()
        run(_stream(settings, target, module, body, items, timeout=timeout))
    else:
        answers: _Answers = _JsonAnswers() if json else _TextAnswers()
        run(_call(settings, target, module, body, answers, timeout=timeout, first=first))


# -- the request -------------------------------------------------------------------------------------------------------


def _request(text: str) -> Any:
    try:
        source = sys.stdin.read() if text == "-" else text
        value = jsonlib.loads(source, parse_constant=_no_constant)
        frames.encode_body(value)
    except (ValueError, RecursionError) as error:
        quotes = "" if text.strip()[:1] in ("{", "[", "-") else "; a text needs quotes of its own: '\"Friday\"'"
        raise typer.BadParameter(f"this is no JSON: {error}{quotes}", param_hint="JSON") from error
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that JSON has")


def _bytes_of(path: Path) -> bytes:
    try:
        if str(path) == "-":
            content = sys.stdin.buffer.read(MAX_REQUEST + 1)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_REQUEST + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {(error.strerror or str(error)).lower()}", param_hint="--file") from error
    if len(content) > MAX_REQUEST:
        raise TooLarge(f"{path}: no request has more than {MAX_REQUEST} bytes; bv copy takes files of any size")
    return content


def _advise_on_size() -> None:
    hint("bv: the peer's rpc.max_body sets how long a request may be; bv copy takes files of any size")


# -- answers -----------------------------------------------------------------------------------------------------------


async def _call(
    settings: PeerSettings,
    target: str,
    module: str,
    request: Any,
    answers: _Answers,
    *,
    timeout: float | None,
    first: int | None,
) -> None:
    too_large = False
    async with joined(settings) as peer:
        called = peer.get(target).call_all(module, request, timeout=timeout, keep_alive=False, first=first)
        async with called as results:
            async for result in results:
                answers.add(result)
                too_large |= isinstance(result.error, TooLarge)
    answers.close(results)
    if not results.asked:
        raise nobody(target)
    if too_large and isinstance(request, bytes):
        _advise_on_size()
    if results.answered < min(first or results.asked, results.asked):
        raise Failed


class _Answers(ABC):
    """Prints answers as they come, and their sum."""

    def add(self, result: Result) -> None:
        """Print what one peer answered."""
        if result.error is None:
            self.response(result)
        else:
            self.failure(result)

    @abstractmethod
    def response(self, result: Result) -> None:
        """Print a response."""

    @abstractmethod
    def failure(self, result: Result) -> None:
        """Print why there is none."""

    @abstractmethod
    def close(self, results: Results) -> None:
        """Print the sum."""


class _JsonAnswers(_Answers):
    def response(self, result: Result) -> None:
        emit({"peer": entry(result.peer), "response": result.response})

    def failure(self, result: Result) -> None:
        show_failure(result, json=True)

    def close(self, results: Results) -> None:
        counts = {name: getattr(results, name) for name in ("asked", "answered", "failed", "without")}
        emit({"summary": counts})


class _TextAnswers(_Answers):
    _raw = False

    def response(self, result: Result) -> None:
        if not isinstance(result.response, bytes):
            say(label(result.peer), "  ", compact(result.response))
        elif terminal():
            say(label(result.peer), f"  {len(result.response)} bytes: send them to a file, or use --json")
        else:
            self._raw = True
            write_raw(result.response)

    def failure(self, result: Result) -> None:
        show_failure(result, json=False)

    def close(self, results: Results) -> None:
        if results.asked:
            # Whoever pipes bytes on wants these bytes and nothing after them.
            (hint if self._raw else say)(_sum_of(results))


def _sum_of(results: Results) -> str:
    text = f"{results.answered} of {results.asked} answered"
    if results.without:
        text += f", {results.without} {'does' if results.without == 1 else 'do'} not serve it"
    return text


# -- streams -----------------------------------------------------------------------------------------------------------


async def _stream(
    settings: PeerSettings, target: str, module: str, request: Any, items: _Items, *, timeout: float | None
) -> None:
    async with joined(settings) as peer:
        stream = peer.get(target).stream(module, request, timeout=timeout, keep_alive=False)
        try:
            await _show(stream, items)
        except OutputLost:
            raise
        except BoneValueError as error:
            if stream.peer is None:
                raise nobody(target) from None
            items.failure(Result(stream.peer, error=error))
            if isinstance(error, TooLarge) and isinstance(request, bytes):
                _advise_on_size()
            raise Failed from error


async def _show(stream: Stream, items: _Items) -> None:
    count = 0
    async with stream:
        async for item in stream:
            assert stream.peer is not None
            if not count:
                items.begin(stream.peer)
            count += 1
            await items.item(stream.peer, item)
    items.close(count)


class _Items(ABC):
    """Prints the items of a stream as they come."""

    @abstractmethod
    def begin(self, peer: PeerEntry) -> None:
        """Print who it is that answers."""

    @abstractmethod
    async def item(self, peer: PeerEntry, item: Any) -> None:
        """Print one item. What reads it may take its time."""

    @abstractmethod
    def failure(self, result: Result) -> None:
        """Print why there are no more."""

    @abstractmethod
    def close(self, count: int) -> None:
        """Print that these were all."""


class _JsonItems(_Items):
    def begin(self, peer: PeerEntry) -> None:
        pass

    async def item(self, peer: PeerEntry, item: Any) -> None:
        await pipe_on(compact({"peer": entry(peer), "item": item}) + "\n")

    def failure(self, result: Result) -> None:
        show_failure(result, json=True)

    def close(self, count: int) -> None:
        emit({"summary": {"items": count}})


class _TextItems(_Items):
    def begin(self, peer: PeerEntry) -> None:
        hint("from ", label(peer))

    async def item(self, peer: PeerEntry, item: Any) -> None:
        if not isinstance(item, bytes):
            await pipe_on(compact(item) + "\n")
        elif terminal():
            await pipe_on(f"{len(item)} bytes: send them to a file, or use --json\n")
        else:
            await pipe_on(item)

    def failure(self, result: Result) -> None:
        show_failure(result, json=False)

    def close(self, count: int) -> None:
        pass
