"""
Kinds of NAT, as rules of iptables. A pure function: kind of box in, text for ``iptables-restore`` out.

In RFC 4787's words: ``full_cone`` maps and filters whatever the other end is; ``cone`` maps whatever the other end is
and lets in only whom was sent to, address and port; ``symmetric`` maps anew for each other end and filters the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["KINDS", "Kind", "Passing", "rules"]

Kind = Literal["open", "full_cone", "cone", "symmetric", "udp_blocked", "tls_only", "all_blocked"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""
``open`` is no NAT and no filter. The last three are ``cone`` with a firewall that says nothing when it drops: all UDP;
all but TCP to the discovery server and to TURN over TLS; all but TCP to the discovery server.
"""


@dataclass(frozen=True, slots=True)
class Passing:
    """
    What a box lets through, apart from its kind.

    Args:
        server_port: of the discovery server, the only one to which ``all_blocked`` lets TCP out.
        tls_port: of TURN over TLS.
        loss: what part of all packets is lost, in each direction, from 0 to 1.
        silent: directions in which nothing passes any more, not even of what is under way.
        forward: the host to which a full cone hands what nobody asked for.
    """

    server_port: int
    tls_port: int
    loss: float = 0.0
    silent: frozenset[Literal["in", "out"]] = frozenset()
    forward: str | None = None


def rules(kind: Kind, passing: Passing, *, version: Literal[4, 6]) -> str:
    """The text for ``iptables-restore`` (4) or ``ip6tables-restore`` (6, where there is no NAT but a firewall)."""
    return _nat(kind, passing, version) + _filter(kind, passing)


def _nat(kind: Kind, passing: Passing, version: int) -> str:
    lines = ["*nat", ":PREROUTING ACCEPT", ":POSTROUTING ACCEPT"]
    if version == 4 and kind != "open":
        fully = " --random-fully" if kind == "symmetric" else ""
        lines.append(f"-A POSTROUTING -o wan -j MASQUERADE{fully}")
        if kind == "full_cone" and passing.forward is not None:
            lines.append(f"-A PREROUTING -i wan -p udp -j DNAT --to-destination {passing.forward}")
    return "\n".join([*lines, "COMMIT", ""])


def _filter(kind: Kind, passing: Passing) -> str:
    lines = ["*filter", ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT"]
    lines += [f"-A FORWARD {'-i' if way == 'in' else '-o'} wan -j DROP" for way in sorted(passing.silent)]
    if passing.loss:
        lines.append(f"-A FORWARD -m statistic --mode random --probability {passing.loss:.4f} -j DROP")
    ports = {"tls_only": [passing.server_port, passing.tls_port], "all_blocked": [passing.server_port]}.get(kind)
    if ports is not None:
        lines.append(f"-A FORWARD -o wan -p tcp -m multiport ! --dports {','.join(map(str, ports))} -j DROP")
    if ports is not None or kind == "udp_blocked":
        lines.append("-A FORWARD -p udp -j DROP")
    if kind != "open":
        # What nobody asked for would leave an entry in the table of connections, and the mapping that the host asks
        # for next would get another port: two cones would never meet.
        lines.append("-A INPUT -i wan -p udp -j DROP")
        if kind != "full_cone":
            lines.append("-A FORWARD -i wan -m conntrack ! --ctstate ESTABLISHED,RELATED -j DROP")
    return "\n".join([*lines, "COMMIT", ""])
