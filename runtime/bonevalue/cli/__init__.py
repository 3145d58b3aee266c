"""
The two scripts: ``bv-run`` is the daemon, ``bv`` everything else.

One file a group of commands; :mod:`bonevalue.cli.program` turns faults into lines and exit codes.
"""

from __future__ import annotations

import importlib
import sys

__all__ = ["main", "run"]


def run() -> None:
    """The script ``bv-run``."""
    _execute("bonevalue.cli.daemon", "bv-run")


def main() -> None:
    """The script ``bv``."""
    _execute("bonevalue.cli.bv", "bv")


def _execute(module: str, name: str) -> None:
    try:
        app = importlib.import_module(module).app
        from bonevalue.cli.program import execute
    except KeyboardInterrupt:
        sys.exit(130)  # half a second goes by until all is loaded, and nobody wants to read where it was
    sys.exit(execute(app, name))
