"""
Session descriptions and candidates of a remote peer: what of them a link engine gets to see.

The description was signed by the remote peer, so it is what that peer wrote; that does not make it harmless. A peer
may name addresses that it has no business with, so that this host sends packets there. Only candidates that a
well-meaning peer could have are passed on, and no more than a well-meaning peer would have of them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from bonevalue.errors import RemoteProtocolError

__all__ = [
    "MAX_CANDIDATE",
    "MAX_CANDIDATES",
    "MAX_DESCRIPTION",
    "MAX_NAMED",
    "Candidate",
    "RemoteDescription",
    "read_candidate",
    "read_description",
]

#: Longest session description in characters.
MAX_DESCRIPTION = 16_384
#: Longest candidate line in characters.
MAX_CANDIDATE = 512
#: Most candidates that are taken from one peer for one connection, named ones (mDNS) counted apart.
MAX_CANDIDATES = 32
#: Most candidates whose address is an mDNS name; each is asked for on the local network.
MAX_NAMED = 4

_CANDIDATE = re.compile(
    r"candidate:[A-Za-z0-9+/]{1,32} (?P<component>[0-9]{1,3}) (?P<transport>[A-Za-z0-9-]{1,16}) [0-9]{1,10}"
    r" (?P<address>[^ ]{1,253}) (?P<port>[0-9]{1,5}) typ (?P<kind>[A-Za-z0-9-]{1,16})"
    r"(?: raddr [^ ]{1,253})?(?: rport [0-9]{1,5})?(?: [^ ]+ [^ ]*)*"
)
_MDNS_NAME = re.compile(r"[0-9A-Fa-f-]{1,63}\.local")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate that may be used: its line without ``a=``, and whether its address is a name to be resolved."""

    text: str
    named: bool


@dataclass(frozen=True, slots=True)
class RemoteDescription:
    """A description as the engine gets it, and the candidates by name that were taken out of it."""

    text: str
    named: tuple[str, ...]


def read_candidate(text: str, *, loopback: Callable[[], bool]) -> Candidate | None:
    """
    A candidate of a remote peer, None if it must not or cannot be used.

    Args:
        text: ``candidate:...``, as in a session description.
        loopback: tells whether the remote peer must be on this host, so that its loopback addresses are meant.

    Raises:
        RemoteProtocolError: it is not a candidate.
    """
    match = _CANDIDATE.fullmatch(text) if len(text) <= MAX_CANDIDATE else None
    if match is None:
        raise RemoteProtocolError(f"not a candidate: {text[:80]!r}")
    if match["component"] != "1" or match["transport"].lower() != "udp" or not 0 < int(match["port"]) < 65_536:
        return None
    if match["kind"] not in ("host", "srflx", "relay"):
        return None
    if _MDNS_NAME.fullmatch(match["address"]):
        return Candidate(text, named=True)
    return Candidate(text, named=False) if _may_be_tried(match["address"], loopback=loopback) else None


def _may_be_tried(text: str, *, loopback: Callable[[], bool]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return loopback()
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or text == "255.255.255.255")


def read_description(sdp: str, *, loopback: Callable[[], bool], max_sent: int) -> RemoteDescription:
    """
    A session description of a remote peer, with only those candidates that may be used.

    Args:
        sdp: the description.
        loopback: as for :func:`read_candidate`.
        max_sent: the longest message that the remote peer must be ready to take.

    Raises:
        RemoteProtocolError: it is not a description of one data channel connection, or too long.
    """
    if len(sdp) > MAX_DESCRIPTION:
        raise RemoteProtocolError(f"a session description of {len(sdp)} characters; {MAX_DESCRIPTION} are allowed")
    kept: list[str] = []
    plain, named = 0, []
    for line in sdp.splitlines():
        if not line.startswith("a=candidate:"):
            kept.append(line)
            continue
        candidate = read_candidate(line[2:].rstrip(), loopback=loopback)
        if candidate is None:
            continue
        if candidate.named:
            named.append(candidate.text)
        elif plain < MAX_CANDIDATES:
            plain += 1
            kept.append("a=" + candidate.text)
    _check_media(kept, max_sent)
    if named or not plain:
        # The engine must not give up before the names are resolved; and without any candidate, the checks that the
        # peer sends are what may still tell where it is.
        kept = [line for line in kept if line != "a=end-of-candidates"]
    return RemoteDescription("\r\n".join([*kept, ""]), tuple(named[:MAX_NAMED]))


def _check_media(lines: list[str], max_sent: int) -> None:
    media = [line for line in lines if line.startswith("m=")]
    if len(media) != 1 or not media[0].startswith("m=application "):
        raise RemoteProtocolError("a session description must have one data channel connection and nothing else")
    for line in lines:
        if line.startswith("a=max-message-size:"):
            limit = line.partition(":")[2].strip()
            if not limit.isdecimal() or 0 < int(limit) < max_sent:
                raise RemoteProtocolError(
                    f"the remote peer takes messages of {limit[:20]} bytes; {max_sent} are needed"
                )
