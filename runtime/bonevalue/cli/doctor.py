"""``bv doctor``: why can I not reach X."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bonevalue.cli.joining import run
from bonevalue.cli.options import CALLS, DEFAULT_FILE, ConfigFile, JsonLines
from bonevalue.cli.program import MISUSED, Failed
from bonevalue.cli.screen import emit, plain, say, terminal
from bonevalue.cli.settings import PEER, read_all
from bonevalue.diagnosis.findings import Finding, Verdict, fail, not_tried, ok, steps_of, warn
from bonevalue.errors import ConfigError

if TYPE_CHECKING:
    from bonevalue.config import PeerSettings

__all__ = ["app"]

app = typer.Typer()

#: How each verdict stands at the beginning of a line, and its style.
_MARKS = {
    Verdict.OK: ("ok", "green"),
    Verdict.WARN: ("warn", "yellow"),
    Verdict.FAIL: ("FAIL", "bold red"),
    Verdict.NOT_TRIED: ("-", "dim"),
}
_MARK_WIDTH, _CHECK_WIDTH = 6, 10
_INDENT = _MARK_WIDTH + _CHECK_WIDTH
#: Narrower than this, texts are not broken into lines at all.
_LEAST_WIDTH = _INDENT + 24


@app.command(
    rich_help_panel=CALLS,
    epilog="Examples: bv doctor\n\nbv doctor bob\n\nbv doctor bob My.Echo.Module\n\nbv doctor Us --json",
)
def doctor(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET", help="Whom you cannot reach: an alias, a peer id, Us, or '*'.", show_default=False
        ),
    ] = None,
    module: Annotated[
        str | None, typer.Argument(metavar="MODULE", help="A module that it should serve to you.", show_default=False)
    ] = None,
    file: ConfigFile = DEFAULT_FILE,
    json: JsonLines = False,
) -> None:
    """
    Look at everything that a link needs, piece by piece, and say what to do about what is not well.

    The settings, the discovery server, the login, this machine's network and
    NAT, each STUN and TURN server; and with a TARGET, trust, presence and a
    real link to each of its peers.

    The exit code is 0 if nothing failed (warnings do not count), 1 if
    something did, 2 if the settings are faulty.
    """
    report = _Report(json=json)
    settings = _examine_settings(file, report)
    if settings is None:
        for check in steps_of(target, module):
            report.add(not_tried(check, "the settings are faulty"))
        report.close()
        raise typer.Exit(MISUSED)
    run(_examine(settings, target, module, report))
    report.close()
    if report.failed:
        raise Failed


def _examine_settings(file: Path, report: _Report) -> PeerSettings | None:
    """The settings of the peer, or None if they have faults."""
    try:
        loaded = read_all(file, only=[PEER])
        loaded.faults.check()
    except ConfigError as error:
        for fault in error.faults:
            report.add(
                fail("settings", plain(str(fault)), "correct it: bv check shows all that is wrong with the file")
            )
        return None
    from bonevalue.config import PeerSettings

    settings = loaded.get(PeerSettings)
    if settings is None:
        report.add(
            fail("settings", f"{file} describes no peer", "add the sections server and credentials, see bv init")
        )
        return None
    text = f"{file}: {settings.credentials.username} at {settings.server.address}"
    report.add(ok("settings", plain(text), file=str(file), address=settings.server.address))
    for warning in loaded.warnings:
        place, _, what = warning.rpartition(": ")
        report.add(warn("settings", plain(place), plain(what)))
    return settings


async def _examine(settings: PeerSettings, target: str | None, module: str | None, report: _Report) -> None:
    from bonevalue.diagnosis.examination import examine  # WebRTC takes half a second to load: see joining.py

    try:
        async with aclosing(examine(settings, target=target, module=module, doing=report.doing)) as findings:
            async for finding in findings:
                report.add(finding)
    finally:
        report.done()


class _Report:
    """Prints findings as they come, and meanwhile what is being tried, if a person watches."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._counts: Counter[Verdict] = Counter()
        console = Console(stderr=True)
        self._width = console.width
        self._watched = not json and console.is_terminal and not console.is_dumb_terminal
        self._shown = False

    @property
    def failed(self) -> bool:
        """Whether anything did."""
        return self._counts[Verdict.FAIL] > 0

    def doing(self, what: str) -> None:
        """Show what is being tried, on a line that the next finding takes the place of."""
        if self._watched:
            self.done()
            sys.stderr.write(f"... {plain(what)}"[: self._width - 1])
            sys.stderr.flush()
            self._shown = True

    def done(self) -> None:
        """Nothing is being tried any more."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False

    def add(self, finding: Finding) -> None:
        """Print one finding."""
        self.done()
        self._counts[finding.verdict] += 1
        if self._json:
            emit(asdict(finding))
            return
        mark, style = _MARKS[finding.verdict]
        first, *others = _lines(finding.text)
        say((f"{mark:{_MARK_WIDTH}}", style), f"{finding.check:{_CHECK_WIDTH}}", first)
        for line in others:
            say(" " * _INDENT, line)
        if finding.advice:
            for number, line in enumerate(_lines(finding.advice, indent=3)):
                say(" " * _INDENT, "   " if number else "-> ", (line, "bold"))

    def close(self) -> None:
        """Print the sum."""
        self.done()
        if self._json:
            emit({"summary": {verdict.value: self._counts[verdict] for verdict in Verdict}})
            return
        words = {Verdict.OK: "ok", Verdict.WARN: "warn", Verdict.FAIL: "FAIL", Verdict.NOT_TRIED: "not tried"}
        parts = [f"{self._counts[verdict]} {word}" for verdict, word in words.items() if self._counts[verdict]]
        say(", ".join(parts))


def _lines(text: str, *, indent: int = 0) -> list[str]:
    """The text in lines that fit beside the marks, if a person reads it; nothing that one may want to copy is cut."""
    width = Console().width
    if not terminal() or width < _LEAST_WIDTH:
        return [text]
    return textwrap.wrap(text, width - _INDENT - indent, break_long_words=False, break_on_hyphens=False) or [""]
