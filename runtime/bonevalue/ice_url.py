"""The URLs of STUN and TURN servers, taken apart and checked (RFC 7064, RFC 7065)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

__all__ = ["IceUrl", "parse_ice_url"]

#: Longest URL in characters.
MAX_URL = 512

_PARTS = re.compile(r"([a-z]+):(?:\[([^\[\]%]*)\]|([^:?\[\]/@]*))(?::([0-9]+))?(?:\?transport=([a-z]+))?")
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_DEFAULT_PORTS = {"stun": 3478, "turn": 3478, "turns": 5349}
_FORM = "write stun:HOST:PORT, turn:HOST:PORT?transport=udp or turns:HOST:PORT"


@dataclass(frozen=True, slots=True)
class IceUrl:
    """
    One server, and the way to talk to it.

    Args:
        text: as it was written.
        scheme: ``stun``, ``turn`` or ``turns``.
        host: name or address, without brackets.
        port: the default of its scheme, if the URL has none.
        transport: ``udp``, ``tcp`` or ``tls``.
    """

    text: str
    scheme: str
    host: str
    port: int
    transport: str

    @property
    def is_stun(self) -> bool:
        """Whether it is a STUN server; else it is a TURN server."""
        return self.scheme == "stun"


def parse_ice_url(text: str) -> IceUrl:
    """
    The parts of a URL.

    Raises:
        ValueError: it is none that can be used; the message completes "... " after the name of the setting.
    """
    if len(text) > MAX_URL:
        raise ValueError(f"is longer than {MAX_URL} characters")
    found = _PARTS.fullmatch(text)
    if found is None or found[1] not in (*_DEFAULT_PORTS, "stuns"):
        raise ValueError(_why_not(text))
    scheme, bracketed, name, port, transport = found.groups()
    if scheme == "stuns":
        raise ValueError("is a STUN server over TLS, which tells nothing about UDP: write stun:HOST:PORT")
    if port is not None and not 0 < int(port) < 65_536:
        raise ValueError("has a port that is none: 1 to 65535 are possible")
    return IceUrl(text, scheme, _host(bracketed, name), int(port or _DEFAULT_PORTS[scheme]), _way(scheme, transport))


def _host(bracketed: str | None, name: str | None) -> str:
    if bracketed is not None:
        try:
            return str(ipaddress.IPv6Address(bracketed))
        except ValueError:
            raise ValueError("has something in brackets that is no IPv6 address") from None
    if not name or len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError("has no host name or address that can be one")
    return name


def _way(scheme: str, transport: str | None) -> str:
    if scheme == "stun" and transport is not None:
        raise ValueError("has a transport; a STUN server is always asked over UDP: leave ?transport= out")
    if transport not in (None, "udp", "tcp"):
        raise ValueError("has a transport that is neither udp nor tcp (turns: is TURN over TLS)")
    if scheme == "turns":
        if transport == "udp":
            raise ValueError("is TURN over DTLS, which is not supported: write turns:HOST:PORT, which is over TLS")
        return "tls"
    return transport or "udp"


def _why_not(text: str) -> str:
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in (*_DEFAULT_PORTS, "stuns"):
        return f"is no ICE URL: {_FORM}"
    if rest.startswith("//"):
        return f"has // after {scheme}:, and ICE URLs have none: {_FORM}"
    if "@" in rest:
        return "has credentials in it: put them into username and credential"
    if rest.count(":") > 1 and "[" not in rest:
        return f"has an IPv6 address without brackets: write {scheme}:[2001:db8::1]:PORT"
    return f"is no ICE URL: {_FORM}"
