"""
What is between a host and the internet: a router with a NAT or a firewall of some kind, and a wire that may be slow.

Addresses. All are of the ranges kept for documentation, or private ones behind a NAT. Box number *n* has::

    203.0.113.(16 + n)      outside, toward the internet; after a change of it 203.0.113.(116 + n)
    192.168.n.0/24          inside, behind a NAT; the box is .1, hosts are .2 and on
    198.51.100.(8n)/29      inside of an open box
    2001:db8:n::/64         inside, IPv6, whatever the kind
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Literal

from tests.support.lab.rules import Kind, Passing, rules
from tests.support.lab.spaces import LabUnavailable, Space

__all__ = ["Box"]

#: The highest number of a box: an open one takes eight of 256 addresses.
MOST_BOXES = 31


class Box:
    """
    A router on the internet.

    Args:
        space: its own.
        internet: the space to which its outside leads.
        number: from 1, no two alike.
        delay: seconds that each packet takes, in each direction.
        passing: what it lets through from the beginning.
    """

    def __init__(
        self, space: Space, internet: Space, number: int, kind: Kind, *, delay: float, passing: Passing
    ) -> None:
        if not 1 <= number <= MOST_BOXES:
            raise ValueError(f"a lab has at most {MOST_BOXES} boxes")
        self.kind: Kind = kind
        self.space = space
        self._internet = internet
        self._number = number
        self._hosts = 1
        self._wire: subprocess.Popen[str] | None = None
        self._passing = passing
        self.outside, self._spare = f"203.0.113.{16 + number}", f"203.0.113.{116 + number}"
        if kind == "open":
            self.inside = IPv4Interface(f"198.51.100.{8 * number + 1}/29")
        else:
            self.inside = IPv4Interface(f"192.168.{number}.1/24")
        self.inside6 = IPv6Interface(f"2001:db8:{number:x}::1/64")
        space.kernel(
            ipv4__ip_forward=1,
            ipv6__conf__all__forwarding=1,
            ipv6__conf__default__accept_dad=0,
            ipv4__conf__default__send_redirects=0,
        )
        if delay:
            self._lay_slow_wire(delay)
        else:
            self._lay_wire()
        space.ip(
            f"address add {self.outside}/32 dev wan",
            "link add lan type bridge",
            f"address add {self.inside} dev lan",
            f"address add {self.inside6} dev lan nodad",
            "link set lan up",
        )
        self._route(slow=bool(delay))
        self._apply()

    # -- the wire --------------------------------------------------------------------------------------------------

    @property
    def _far_end(self) -> str:
        return f"box{self._number}"

    def _lay_wire(self) -> None:
        self._internet.ip(
            f"link add {self._far_end} type veth peer name wan netns {self.space.pid}",
            f"address add fe80::1/64 dev {self._far_end} nodad",
            f"link set {self._far_end} up",
        )
        self.space.ip("address add fe80::2/64 dev wan nodad", "link set wan up")

    def _lay_slow_wire(self, delay: float) -> None:
        program = Path(__file__).with_name("delay.py")
        near_end = f"wan{self._number}"
        self._wire = subprocess.Popen(
            [*self._internet.prefix, sys.executable, program, self._far_end, near_end, str(delay)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._wire.stdout is not None
        first = self._wire.stdout.readline()
        if first != "ready\n":
            self._wire.kill()
            raise LabUnavailable(f"no slow wire: {(first + self._wire.communicate()[0]).strip()}")
        self._internet.ip(
            f"link set {near_end} name wan netns {self.space.pid}",
            f"link set {self._far_end} up",
        )
        self.space.ip("link set wan up")

    def _route(self, *, slow: bool) -> None:
        """Let each side find the other. A slow wire has no Ethernet on it: what is sent there, arrives."""
        far = self._far_end
        if slow:
            self.space.ip("route add default dev wan", "route add ::/0 dev wan")
            gateway, gateway6 = "", ""
        else:
            self.space.ip(
                "route add 203.0.113.1 dev wan",
                "route add default via 203.0.113.1 dev wan",
                "route add ::/0 via fe80::1 dev wan",
            )
            gateway, gateway6 = f"via {self.outside}", "via fe80::2"
        lines = [f"route add {self.outside}/32 dev {far}", f"route add {self.inside6.network} {gateway6} dev {far}"]
        if self.kind == "open":
            lines.append(f"route add {self.inside.network} {gateway} dev {far}")
        self._internet.ip(*lines)

    # -- hosts -----------------------------------------------------------------------------------------------------

    def next_addresses(self) -> tuple[IPv4Interface, IPv6Interface]:
        """Addresses that no host behind it has had before; a full cone hands on to that of IPv4 from now on."""
        self._hosts += 1
        if self.inside.ip + self._hosts - 1 not in self.inside.network:
            raise ValueError(f"box {self._number} has no more addresses")
        four = IPv4Interface(f"{self.inside.ip + self._hosts - 1}/{self.inside.network.prefixlen}")
        six = ip_interface(f"{self.inside6.ip + self._hosts - 1}/64")
        assert isinstance(six, IPv6Interface)
        if self.kind == "full_cone":
            self._passing = replace(self._passing, forward=str(four.ip))
            self._apply()
        return four, six

    # -- what it lets through --------------------------------------------------------------------------------------

    def lose(self, part: float) -> None:
        """Lose that part of all packets from now on, in each direction."""
        self._passing = replace(self._passing, loss=part)
        self._apply()

    def silence(self, *directions: Literal["in", "out"]) -> None:
        """Let nothing more pass in these directions, not even what is under way, and say nothing; none: lift it."""
        self._passing = replace(self._passing, silent=frozenset(directions))
        self._apply()

    def renumber(self) -> None:
        """Get another outside address of IPv4, as a provider gives one: whatever went through the old one is over."""
        old, self.outside = self.outside, self._spare
        self._spare = old
        # The new one first: with the last address of a device all its routes go.
        self.space.ip(f"address add {self.outside}/32 dev wan", f"address delete {old}/32 dev wan")
        self._internet.ip(f"route add {self.outside}/32 dev {self._far_end}", f"route delete {old}/32")

    def _apply(self) -> None:
        self.space.run("iptables-restore", stdin=rules(self.kind, self._passing, version=4))
        self.space.run("ip6tables-restore", stdin=rules(self.kind, self._passing, version=6))

    def close(self) -> None:
        """Let go of it."""
        if self._wire is not None:
            self._wire.kill()
            self._wire.communicate()
        self.space.close()
