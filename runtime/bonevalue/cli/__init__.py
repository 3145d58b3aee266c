"""
The two scripts: ``bv-run`` is the daemon, ``bv`` everything else.

One file a group of commands; :mod:`bonevalue.cli.program` turns faults into lines and exit codes.
"""

from __future__ import annotations

import sys

__all__ = ["main", "run"]


def run() -> None:
    """The script ``bv-run``."""
    from bonevalue.cli.daemon import app
    from bonevalue.cli.program import execute

    sys.exit(execute(app, "bv-run"))


def main() -> None:
    """The script ``bv``."""
    from bonevalue.cli.bv import app
    from bonevalue.cli.program import execute

    sys.exit(execute(app, "bv"))
