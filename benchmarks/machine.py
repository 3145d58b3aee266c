"""On what a run was made: the machine, and the versions of everything that took part."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.contenders.nats_requests import find_server

__all__ = ["describe"]

DISTRIBUTIONS = ("aiortc", "aioice", "cryptography", "msgspec", "uvloop", "grpcio", "nats-py", "iroh")
ROOT = Path(__file__).parents[1]
#: What is measured: a change in it, not committed, makes the commit a lie.
MEASURED = ("runtime", "server", "benchmarks", "pyproject.toml")


def describe() -> dict[str, Any]:
    """All of it, as it goes into the line ``run``."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _output("git", "-C", str(ROOT), "rev-parse", "--short=10", "HEAD"),
        "changed": bool(_output("git", "-C", str(ROOT), "status", "--porcelain", "--", *MEASURED)),
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
            "system": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
            "load": round(os.getloadavg()[0], 2),
        },
        "versions": {"Python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    server = find_server()
    text = _output(server, "--version") if server is not None else ""
    found["nats-server"] = text.rpartition("v")[2] or "not installed"
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _output(*command: str) -> str:
    """What a program prints, nothing if it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
