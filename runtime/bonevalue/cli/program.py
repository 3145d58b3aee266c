"""
How a command of ours ends: with one line for each fault and the right exit code, never with a traceback for a
foreseeable one.

Exit codes: 0 success, 1 the operation failed, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from io import TextIOWrapper
from math import ceil
from typing import Any, Protocol, runtime_checkable

import typer

from bonevalue.cli.screen import OutputLost, hint, plain
from bonevalue.errors import BoneValueError, ConfigError, ConnectFailed, Replaced, SessionEnded
from bonevalue.settings_units import duration_text

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "Failed", "execute", "fault", "report"]

FAILED = 1
MISUSED = 2
INTERRUPTED = 130

#: What to do about faults whose text cannot say it.
_ADVICE: dict[type[BoneValueError], str] = {
    Replaced: "; another process has taken over this peer's id",
    SessionEnded: "; the account was removed, or its password changed: put the current one into the settings",
}


class Failed(Exception):
    """The operation failed, and all that is to be said about it was printed."""


@runtime_checkable
class _UsageFault(Protocol):
    """What typer raises for a wrong command line: its own class or click's, as its version has it."""

    exit_code: int
    ctx: typer.Context | None

    def format_message(self) -> str: ...


def execute(app: typer.Typer, name: str, args: Sequence[str] | None = None) -> int:
    """
    Run a command line and give its exit code.

    Args:
        app: the commands.
        name: the program, as faults begin with it.
        args: the arguments; None takes those of this process.
    """
    _prepare_streams()
    try:
        result = app(args=list(args) if args is not None else None, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        _give_up_output()  # whoever read it has gone, as in `bv peers | head -1`: nothing to say
        return FAILED
    except OutputLost as error:
        _give_up_output()
        return report(name, error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Failed:
        return FAILED
    except BoneValueError as error:
        return report(name, error)
    except Exception as error:
        if not isinstance(error, _UsageFault):
            raise
        message = error.format_message()
        if message:  # none if typer has shown the help instead
            command = error.ctx.command_path if error.ctx is not None else name
            hint(_prefix(name, "usage"), plain(message), f" (see {command} --help)")
        return MISUSED


def _prepare_streams() -> None:
    """See to it that printing cannot fail for reasons of the terminal."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a narrow locale shows escapes, it does not crash


def _give_up_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter would fail on it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report(name: str, error: BoneValueError, *, about: str = "") -> int:
    """
    Print the line of a fault, or the lines of faulty settings, and give the exit code.

    Args:
        name: the program.
        error: the fault.
        about: the peer that it is about, if it is one of several.
    """
    if isinstance(error, ConfigError) and error.faults:
        for each in error.faults:  # as compilers print them: editors and CI know how to read it
            hint(plain(str(each)))
    else:
        later = f"; try again in {duration_text(ceil(error.retry_after))}" if error.retry_after else ""
        advice = _ADVICE.get(type(error), "")
        hint(_prefix(name, error.code), f"{about}: " if about else "", plain(error.message) + later + advice)
    return MISUSED if isinstance(error, ConfigError) else FAILED


def fault(error: BoneValueError) -> dict[str, Any]:
    """A fault as it stands in JSON; one of a connection with what was tried, in parts."""
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if isinstance(error, ConnectFailed) and error.report is not None:
        told["report"] = asdict(error.report)
    return told


def _prefix(name: str, code: str) -> tuple[str, str]:
    return f"{name}: {code}: ", "red"
