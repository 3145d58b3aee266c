"""
Network namespaces that cannot outlive the process that made them.

A space is a process that does nothing: it has a network and a mount namespace of its own, and waits for the end of
its standard input, which comes when whoever made it closes it or dies in any way. Everything else is run in it by
``nsenter``. No namespace has a name, so there is nothing to remove after a crash.

Whoever is not root makes a user namespace with the first space, in which he is root, and enters it with the others.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["LabUnavailable", "Space", "check_programs", "find_program", "why_not"]

#: Debian's packages, by the program that we need of them.
PACKAGES = {
    "ip": "iproute2",
    "iptables-restore": "iptables",
    "turnserver": "coturn",
    "faketime": "faketime",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
#: Rules that ask for the parts of the kernel that every lab needs.
_TRIED = "*nat\n-A POSTROUTING -o other -j MASQUERADE --random-fully\nCOMMIT\n"
#: Seconds for one of the small commands here, which take hundredths of one.
PATIENCE = 30.0

# The file of names and that of resolvers take the place of the machine's own, in here only. Nobody answers on
# loopback, so that a name that is not in the file is refused at once.
_HOLDER = """\
mount --bind "$1" /etc/hosts &&
{ [ ! -e /etc/resolv.conf ] || mount --bind "$2" /etc/resolv.conf; } &&
ip link set lo up &&
echo ready &&
exec cat
"""


class LabUnavailable(Exception):
    """This machine cannot carry a lab; the text is one sentence that says what it lacks."""


class Space:
    """
    One network of its own.

    Args:
        name: for messages.
        names: a file like ``/etc/hosts``, read anew at each look-up.
        resolvers: a file like ``/etc/resolv.conf``.
        within: the first space of the lab, for all but itself.

    Raises:
        LabUnavailable: the system does not let us.
    """

    def __init__(self, name: str, names: Path, resolvers: Path, *, within: Space | None = None) -> None:
        self.name = name
        self._user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        command = ["unshare", "--net", "--mount"]
        if self._user and within is None:
            command += ["--user", "--map-root-user"]
        elif self._user and within is not None:
            command = ["nsenter", "--target", str(within.pid), *self._user, "--", *command]
        self._holder = subprocess.Popen(
            [*command, "sh", "-c", _HOLDER, "sh", names, resolvers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": _search_path()},
            text=True,
        )
        assert self._holder.stdout is not None
        first = self._holder.stdout.readline()
        if first != "ready\n":
            self._holder.kill()
            rest = self._holder.communicate()[0]
            raise LabUnavailable(f"network namespaces are not allowed here: {(first + rest).strip()}")

    @property
    def pid(self) -> int:
        """Of the process that holds the namespaces."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """
        What to put before a command so that it runs in here.

        The command takes the place of the prefix, so that its process id and exit code are its own; it is killed when
        the thread that starts it ends, thus with the process at the latest.
        """
        enter = ["nsenter", "--target", str(self.pid), *self._user, "--net", "--mount", "--wd=."]
        return [*enter, "--", "setpriv", "--pdeathsig", "KILL", "--"]

    def run(self, *command: str | Path, stdin: str = "") -> str:
        """
        Run a small command to its end; gives what it printed.

        Raises:
            LabUnavailable: it failed. In a lab that stands this is a fault of the lab.
        """
        done = subprocess.run(
            [*self.prefix, *command],
            input=stdin,
            capture_output=True,
            env={**os.environ, "PATH": _search_path()},
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            wanted = " ".join(map(str, command))
            raise LabUnavailable(f"{wanted!r} failed in {self.name}: {done.stderr.strip()}\n{stdin}".strip())
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run commands of ``ip``, one a line, in one go; the first that fails ends them."""
        self.run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")

    def kernel(self, **values: int) -> None:
        """Set parameters of the kernel below ``net``, as in ``ipv4__ip_forward=1``."""
        lines = [f"echo {value} > /proc/sys/net/{key.replace('__', '/')}" for key, value in values.items()]
        self.run("sh", "-ec", "\n".join(lines))

    def close(self) -> None:
        """Let go of it. The kernel drops it when the last process in it has ended."""
        self._holder.kill()
        self._holder.communicate()


def _search_path() -> str:
    # With the folders of the administrator, which others lack.
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def find_program(name: str) -> str | None:
    """Where a program is, or None."""
    return shutil.which(name, path=_search_path())


def check_programs() -> None:
    """
    Look for all that a lab runs.

    Raises:
        LabUnavailable: something is not installed.
    """
    missing = sorted({package for program, package in PACKAGES.items() if find_program(program) is None})
    if missing:
        raise LabUnavailable(
            f"the lab of networks needs what Debian calls {' '.join(missing)}; `make test` installs it"
        )


def why_not() -> str | None:
    """What keeps this machine from carrying a lab, or None. Tries what a lab does, in under a tenth of a second."""
    try:
        check_programs()
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="lab")))
            files = [folder / "names", folder / "resolvers"]
            for file in files:
                file.touch()
            first = Space("the first space", *files)
            stack.callback(first.close)
            second = Space("the second space", *files, within=first)
            stack.callback(second.close)
            first.ip(f"link add one type veth peer name other netns {second.pid}", "link add bridge type bridge")
            second.run("iptables-restore", stdin=_TRIED)
    except LabUnavailable as error:
        return str(error).splitlines()[0]
    return None
