"""A machine in the lab: where it is on the network, and the programs that run on it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Literal

from tests.support.lab.boxes import Box
from tests.support.lab.caller import Caller
from tests.support.lab.spaces import Space
from tests.support.processes import PASSWORD, Daemon, Finished, bv, write_module, write_yaml

__all__ = ["DUAL", "V4", "V6", "Family", "Host"]

Family = Literal[4, 6]
V4: tuple[Family, ...] = (4,)
V6: tuple[Family, ...] = (6,)
DUAL: tuple[Family, ...] = (4, 6)


class Host:
    """
    A machine behind a box, with one network card at a time.

    Args:
        name: for messages, and for the ends of its cables.
        space: its own.
        folder: for its settings file, its modules and what they write.
        account: that its programs log in with.
        server: the section ``server:`` of its settings.
        env: further variables of the environment of its programs.
        keep: told what to do at the end of the lab.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        folder: Path,
        *,
        account: str,
        server: dict[str, Any],
        env: Mapping[str, str],
        keep: Callable[[Callable[[], None]], None],
    ) -> None:
        self.name = name
        self.account = account
        self.space = space
        self.folder = folder
        self.box: Box | None = None
        self.addresses: tuple[IPv4Address | IPv6Address, ...] = ()
        self._server = server
        self._env = env
        self._keep = keep
        self._cards = 0
        space.kernel(ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0)

    # -- the network -----------------------------------------------------------------------------------------------

    def move(self, box: Box, families: Collection[Family] = V4) -> None:
        """
        Leave the network and come to another place on one: the card is pulled out, and a new one has new addresses.

        Args:
            box: where to, the same as before or another.
            families: of addresses that the host gets there.
        """
        if self.box is not None:
            self._pull(self._card)
        self.plug(box, families)

    def plug(self, box: Box, families: Collection[Family] = V4) -> None:
        """Get a second card beside the first, as a telephone that comes home; it is used for everything new."""
        self._cards += 1
        card, port = self._card, f"{self.name[:8]}.{self._cards}"
        four, six = box.next_addresses()
        # What is newer is preferred.
        metric = 10_000 - self._cards
        box.space.ip(
            f"link add {port} type veth peer name {card} netns {self.space.pid}",
            f"link set {port} master lan up",
        )
        lines = [f"link set {card} up"]
        if 4 in families:
            lines.append(f"address add {four} dev {card}")
            lines.append(f"route add default via {box.inside.ip} dev {card} metric {metric}")
        if 6 in families:
            lines.append(f"address add {six} dev {card} nodad")
            lines.append(f"route add ::/0 via {box.inside6.ip} dev {card} metric {metric}")
        self.space.ip(*lines)
        self.box = box
        self.addresses = tuple(each.ip for version, each in ((4, four), (6, six)) if version in families)

    def unplug_old(self) -> None:
        """Pull the card out that was there before the last :meth:`plug`."""
        self._pull(f"card{self._cards - 1}")

    def leave(self) -> None:
        """Pull the card out and have no network at all."""
        self._pull(self._card)
        self.box, self.addresses = None, ()

    @property
    def _card(self) -> str:
        return f"card{self._cards}"

    def _pull(self, card: str) -> None:
        self.space.ip(f"link delete {card}")

    # -- programs --------------------------------------------------------------------------------------------------

    @property
    def file(self) -> Path:
        """Its settings file."""
        return self.folder / "bonevalue.yaml"

    def write(self, **sections: Any) -> Path:
        """Write its settings file: the server, the account, and further top-level sections."""
        return write_yaml(
            self.file,
            {
                "server": self._server,
                "credentials": {"username": self.account, "password": PASSWORD},
                **sections,
            },
        )

    def module(self, name: str, source: str) -> str:
        """Write a module's file; gives the import path of it, without the class."""
        write_module(self.folder, name, source)
        return f"modules.{name}"

    def daemon(self, *, online: bool = True, **sections: Any) -> Daemon:
        """Start ``bv-run`` here with these sections in its file, and wait until it is online unless told otherwise."""
        self.write(**sections)
        return self.start(online=online)

    def start(self, *args: str, online: bool = True) -> Daemon:
        """The same with the file as it is."""
        daemon = Daemon(self.file, *args, env=self._env, prefix=self.space.prefix)
        self._keep(daemon.kill)
        if online:
            daemon.wait_for("online as")
        return daemon

    def bv(self, *args: str | Path, **more: Any) -> Finished:
        """Run a ``bv`` command here to its end."""
        return bv(*args, folder=self.folder, env=self._env, prefix=self.space.prefix, **more)

    def caller(self, **sections: Any) -> Caller:
        """Start a peer here that calls as it is told, with these sections in its file."""
        self.write(**sections)
        caller = Caller(self.space.prefix, self.file, env=self._env)
        self._keep(caller.close)
        return caller

    def popen(self, *command: str | Path, **more: Any) -> subprocess.Popen[str]:
        """Start any other program here; whoever does that ends it."""
        return subprocess.Popen([*self.space.prefix, *command], text=True, cwd=self.folder, **more)

    def close(self) -> None:
        """Let go of it."""
        self.space.close()
