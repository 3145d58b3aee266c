"""``bv call``: one request to every peer of a target."""

from __future__ import annotations

import json as jsonlib
import sys
from abc import ABC, abstractmethod
from contextlib import aclosing
from typing import Annotated, Any

import typer

from bonevalue.cli.joining import joined, run
from bonevalue.cli.options import CALLS, DEFAULT_FILE, ConfigFile, JsonLines
from bonevalue.cli.program import Failed
from bonevalue.cli.results import TargetName, Timeout, entry, label, nobody, show_failure
from bonevalue.cli.screen import compact, emit, hint, say, terminal, write_raw
from bonevalue.cli.settings import load_peer
from bonevalue.config import PeerSettings
from bonevalue.target import Result

__all__ = ["app"]

app = typer.Typer()


@app.command(
    rich_help_panel=CALLS,
    epilog='Examples: bv call Us My.Echo.Module \'{"text": "Friday"}\'\n\n'
    "bv call '*' My.Echo.Module - --json < request.json\n\n"
    "bv call bob Camera.Snapshot --first 1 > snapshot.jpg",
)
def call(
    target: TargetName,
    module: Annotated[str, typer.Argument(metavar="MODULE", help="The name that it is served under: see bv modules.")],
    request: Annotated[str, typer.Argument(metavar="JSON", help="The request; - reads it from standard input.")] = "{}",
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
    """
    body = _request(request)
    answers: _Answers = _JsonAnswers() if json else _TextAnswers()
    run(_call(load_peer(file), target, module, body, answers, timeout=timeout, first=first))


def _request(text: str) -> Any:
    try:
        source = sys.stdin.read() if text == "-" else text
        return jsonlib.loads(source, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        quotes = "" if text.strip()[:1] in ("{", "[", "-") else "; a text needs quotes of its own: '\"Friday\"'"
        raise typer.BadParameter(f"this is no JSON: {error}{quotes}", param_hint="JSON") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that JSON has")


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
    async with joined(settings) as peer:
        asked = len(peer.get(target).peers())
        async with aclosing(peer.get(target).call_all(module, request, timeout=timeout, keep_alive=False)) as results:
            async for result in results:
                answers.add(result)
                if answers.answered == first:
                    break
    answers.close(asked)
    if not asked:
        raise nobody(target)
    if answers.answered < min(first or asked, asked):
        raise Failed


class _Answers(ABC):
    """Prints answers as they come, and counts them."""

    answered = 0

    def add(self, result: Result) -> None:
        """Print what one peer answered."""
        if result.error is None:
            self.answered += 1
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
    def close(self, asked: int) -> None:
        """Print the sum."""


class _JsonAnswers(_Answers):
    def response(self, result: Result) -> None:
        emit({"peer": entry(result.peer), "response": result.response})

    def failure(self, result: Result) -> None:
        show_failure(result, json=True)

    def close(self, asked: int) -> None:
        emit({"summary": {"asked": asked, "answered": self.answered}})


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

    def close(self, asked: int) -> None:
        if asked:
            # Whoever pipes bytes on wants these bytes and nothing after them.
            (hint if self._raw else say)(f"{self.answered} of {asked} answered")
