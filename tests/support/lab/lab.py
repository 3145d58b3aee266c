"""
An internet in a box: a discovery server and coturn on public addresses, and hosts behind NATs of every kind.

::

    with Lab(tmp_path) as lab:
        lab.discovery("alice", "bob", turn=lab.coturn().role())
        alice, bob = lab.host("alice", lab.box("symmetric", delay=0.05)), lab.host("bob", "cone")
        alice.write()
        bob.write(modules=[bob.module("echo", ECHO) + ".Echo"])
        lab.befriend(alice, bob)
        bob.start()
        assert alice.bv("call", "bob", "My.Echo.Module", '{"text": "Friday"}').code == 0

Everything ends with the lab, and with the process that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.certificates import Authority
from tests.support.lab.boxes import Box
from tests.support.lab.hosts import V4, Family, Host
from tests.support.lab.rules import Kind, Passing
from tests.support.lab.spaces import Space, check_programs
from tests.support.lab.turn import TURN_ADDRESS, TURN_ADDRESS6, TURN_NAME, TURN_TLS_PORT, Coturn
from tests.support.processes import PASSWORD, Daemon, discovery_role, write_yaml

__all__ = ["Lab"]

SERVER_NAME, SERVER_PORT = "bv.test", 8008
#: Where the discovery server is: two addresses of IPv4, so that clients can tell the kind of their NAT, one of IPv6.
SERVER_ADDRESSES = ("203.0.113.1", "203.0.113.2")
SERVER_ADDRESS6 = "2001:db8::1"

#: With a dot behind it as well: so does Chromium look for STUN and TURN servers, and a file of names is literal.
NAMES = f"""\
127.0.0.1 localhost
::1 localhost
{SERVER_ADDRESSES[0]} {SERVER_NAME} {SERVER_NAME}.
{SERVER_ADDRESS6} {SERVER_NAME} {SERVER_NAME}.
{TURN_ADDRESS} {TURN_NAME} {TURN_NAME}.
{TURN_ADDRESS6} {TURN_NAME} {TURN_NAME}.
"""


class Lab:
    """
    One internet.

    Args:
        folder: for all files of its hosts.

    Raises:
        LabUnavailable: the machine cannot carry one; says why in one sentence.
    """

    def __init__(self, folder: Path) -> None:
        check_programs()
        self.folder = folder
        self.server: Daemon | None = None
        #: Whose certificates all hosts accept.
        self.authority = Authority(folder)
        self._names, self._resolvers = folder / "names", folder / "resolvers"
        self._names.write_text(NAMES)
        self._resolvers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self._boxes: list[Box] = []
        self._hosts: list[Host] = []
        self._ends: list[Callable[[], None]] = []
        self._relays: list[Coturn] = []
        self.internet = Space("the internet", self._names, self._resolvers)
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self.internet.kernel(
            ipv4__ip_forward=1,
            ipv6__conf__all__forwarding=1,
            ipv6__conf__default__accept_dad=0,
            ipv4__conf__all__send_redirects=0,
            ipv4__conf__default__send_redirects=0,
        )
        # Who has no neighbour and no port swallows whatever is routed to it, as the internet does with packets for
        # private addresses. An error in place of silence would make coturn give up a whole allocation.
        self.internet.ip(
            "link add sink type bridge",
            "link set sink arp off up",
            *(f"address add {address}/32 dev sink" for address in (*SERVER_ADDRESSES, TURN_ADDRESS)),
            *(f"address add {address}/128 dev sink nodad" for address in (SERVER_ADDRESS6, TURN_ADDRESS6)),
            "route add default dev sink",
            "route add ::/0 dev sink",
        )

    # -- places ----------------------------------------------------------------------------------------------------

    def box(self, kind: Kind = "cone", *, delay: float = 0.0, loss: float = 0.0) -> Box:
        """
        A new router; see :mod:`~tests.support.lab.rules` for its kind.

        Args:
            delay: seconds that each packet takes to or from the internet.
            loss: what part of packets is lost, in each direction.
        """
        number = len(self._boxes) + 1
        space = self._space(f"box {number} ({kind})")
        try:
            passing = Passing(server_port=SERVER_PORT, tls_port=TURN_TLS_PORT, loss=loss)
            box = Box(space, self.internet, number, kind, delay=delay, passing=passing)
        except BaseException:
            space.close()
            raise
        self._boxes.append(box)
        return box

    def host(
        self,
        name: str,
        box: Box | Kind = "cone",
        families: Collection[Family] = V4,
        *,
        account: str | None = None,
    ) -> Host:
        """
        A new machine behind a box, or behind a new one of that kind.

        Args:
            name: no two alike.
            families: of its addresses.
            account: one of :meth:`discovery`; None for that of the host's name.
        """
        folder = self.folder / name
        folder.mkdir()
        server = {"address": f"ws://{SERVER_NAME}:{SERVER_PORT}", "insecure": True}
        host = Host(
            name,
            self._space(name),
            folder,
            account=account or name,
            server=server,
            env={"SSL_CERT_FILE": str(self.authority.file)},
            keep=self._ends.append,
        )
        self._hosts.append(host)
        host.move(box if isinstance(box, Box) else self.box(box), families)
        return host

    def _space(self, name: str) -> Space:
        return Space(name, self._names, self._resolvers, within=self.internet)

    # -- servers ---------------------------------------------------------------------------------------------------

    def discovery(self, *accounts: str, **keys: Any) -> Daemon:
        """
        Start the discovery server, or start it again with other settings, on the database that it had.

        Args:
            accounts: names, all with the password :data:`~tests.support.processes.PASSWORD`.
            keys: further ones of the section ``discovery:``.
        """
        if self.server is not None:
            self.server.stop()
        role = discovery_role(SERVER_PORT, dict.fromkeys(accounts, PASSWORD))
        role["discovery"] |= {"listen": f"[::]:{SERVER_PORT}", "realm": SERVER_NAME, **keys}
        file = write_yaml(self.folder / "discovery" / "bonevalue.yaml", role)
        self.server = Daemon(file, prefix=self.internet.prefix)
        self._ends.append(self.server.kill)
        self.server.wait_for("listens on")
        return self.server

    def coturn(self, **options: Any) -> Coturn:
        """Start coturn; see :class:`~tests.support.lab.turn.Coturn` for the options."""
        folder = self.folder / f"coturn{len(self._relays)}"
        folder.mkdir()
        relay = Coturn(self.internet, folder, self.authority, **options)
        self._relays.append(relay)
        return relay

    def befriend(self, one: Host, other: Host) -> None:
        """Let the accounts of two hosts trust each other under their own names; both have a settings file."""
        requested = one.bv("token", "request", other.account, "--json")
        assert requested.code == 0, requested.stderr
        claimed = other.bv("token", "claim", one.account, requested.json[0]["token"])
        assert claimed.code == 0, claimed.stderr

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything, in whatever state it is."""
        ends = [*self._ends]
        ends += [relay.close for relay in self._relays]
        ends += [host.close for host in self._hosts]
        ends += [box.close for box in self._boxes]
        for end in (*ends, self.internet.close):
            end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
