"""
The steps of deploy/coturn/README.md, done as they are written there.

What a shell block says of packages and services has stand-ins that do nothing, and the settings that it makes go to
where they are asked for instead of to /etc.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

__all__ = ["RECIPE", "CoturnRecipe", "with_drop_in"]

RECIPE = Path(__file__).parents[2] / "deploy" / "coturn"

#: Commands of the steps, and what is done in their place.
_STAND_INS = {"apt-get": "", "systemctl": "", "ss": "echo turnserver"}


class CoturnRecipe:
    """
    A copy of the recipe, in which somebody has got as far as making the secret.

    Args:
        folder: for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "recipe"
        shutil.copytree(RECIPE, self._folder)
        self._stand_ins = folder / "stand-ins"
        self._stand_ins.mkdir()
        for name, instead in _STAND_INS.items():
            path = self._stand_ins / name
            path.write_text(f"#!/bin/sh\n{instead}\n")
            path.chmod(0o755)
        text = (RECIPE / "README.md").read_text()
        self._blocks: list[str] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        (self._print_secret,) = re.findall(r"`(sed [^`]*)` prints it", text)
        self.site = self._folder / "site.conf"
        #: What coturn reads.
        self.file = folder / "turnserver.conf"
        self._run(self._blocks[0])

    @property
    def secret(self) -> str:
        """What is to be copied to the discovery server."""
        return self._run(self._print_secret).strip()

    def finish(self, *lines: str) -> None:
        """Add lines to what is one's own, and make :attr:`file` of it."""
        with self.site.open("a") as site:
            site.writelines(f"{line}\n" for line in lines)
        step = self._blocks[1]
        for written, meant in (("/etc/turnserver.conf", str(self.file)), (" -g turnserver", "")):
            assert written in step
            step = step.replace(written, meant)
        self._run(step)

    def _run(self, commands: str) -> str:
        done = subprocess.run(
            ["sh", "-eu", "-c", commands],
            cwd=self._folder,
            env={**os.environ, "PATH": f"{self._stand_ins}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def with_drop_in(drop_in: Path | None) -> Sequence[str]:
    """What to put before a command so that it has the capabilities of a systemd service, with a drop-in or without."""
    ambient = ""
    if drop_in is not None:
        parser = ConfigParser()
        parser.read_string(drop_in.read_text())
        ambient = parser["Service"]["AmbientCapabilities"]
    sets = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in ambient.split())])
    # Root would get all its capabilities back with the next program, without this.
    return ["setpriv", "--securebits=+noroot", f"--inh-caps={sets}", f"--ambient-caps={sets}"]
