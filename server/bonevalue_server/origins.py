"""
Who is asking: the client's address behind trusted proxies, and whether a web page may talk to this server at all.

A program sends no ``Origin`` and is let in: the login protects. A browser always sends one, and it must be of the
server itself (scheme, host and port of what the browser dialled) or stand in ``discovery.origins``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, Protocol

from bonevalue.errors import OriginRefused

__all__ = ["Headers", "Origin", "Origins"]

_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Origin(NamedTuple):
    """Scheme, host and port, in lower case, the port never left out (RFC 6454 section 4)."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, scheme: str, authority: str) -> Origin | None:
        """The origin of a scheme and ``host[:port]``; None if there is none."""
        scheme = scheme.lower()
        found = _AUTHORITY.fullmatch(authority)
        if found is None or scheme not in _PORTS:
            return None
        return cls(scheme, found["host"].lower(), int(found["port"] or _PORTS[scheme]))

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """The origin of ``https://example.org:8443``; None if it is none, like ``null`` or one with a path."""
        scheme, separator, authority = text.partition("://")
        return cls.of(scheme, authority) if separator else None


class Headers(Protocol):
    """The headers of a request."""

    def get_all(self, key: str, /) -> Sequence[str]:
        """All values of a header, in order."""
        ...


class Origins:
    """
    The rule for one server.

    Args:
        allowed: origins besides our own.
        trusted_proxies: networks whose ``X-Forwarded-*`` headers count.
    """

    def __init__(self, *, allowed: Iterable[str], trusted_proxies: Iterable[IPv4Network | IPv6Network]) -> None:
        self._allowed = frozenset(map(Origin.parse, allowed)) - {None}
        self._proxies = tuple(trusted_proxies)

    def is_proxy(self, address: str) -> bool:
        """Whether the address is that of a proxy that is trusted."""
        parsed = _parse_address(address)
        return parsed is not None and any(
            parsed in network for network in self._proxies if network.version == parsed.version
        )

    def client_address(self, peer: str, headers: Headers) -> str:
        """
        The address of the client: the last one of ``X-Forwarded-For`` that is not a trusted proxy's.

        Args:
            peer: who the socket is connected to.
            headers: of the request.
        """
        if not self.is_proxy(peer):
            return peer
        hops = [hop.strip() for value in headers.get_all("X-Forwarded-For") for hop in value.split(",")]
        for hop in reversed(hops):
            parsed = _parse_address(hop)
            if parsed is None:
                break  # whatever stands before it was written by nobody we trust
            peer = str(parsed)
            if not self.is_proxy(peer):
                break
        return peer

    def dialled_host(self, peer: str, headers: Headers) -> str:
        """
        The host that the client dialled, as it says: a name or an address, one of IPv6 in brackets; "" if it is none.

        Args:
            peer: who the socket is connected to.
            headers: of the request.
        """
        found = _AUTHORITY.fullmatch(self._authority(peer, headers))
        return "" if found is None else found["host"].lower()

    def check(self, peer: str, headers: Headers, *, is_tls: bool) -> None:
        """
        Let a handshake pass.

        Args:
            peer: who the socket is connected to.
            headers: of the request.
            is_tls: whether it came to us over TLS.

        Raises:
            OriginRefused: it is that of a page which may not talk to this server.
        """
        given = headers.get_all("Origin")
        if not given:
            return
        origin = Origin.parse(given[0]) if len(given) == 1 else None
        if origin is None or (origin not in self._allowed and origin != self._own(peer, headers, is_tls)):
            raise OriginRefused(
                f"pages of {', '.join(given)[:100]!r} may not connect: add the origin to discovery.origins, or, behind "
                "a proxy, the proxy to discovery.trusted_proxies"
            )

    def _own(self, peer: str, headers: Headers, is_tls: bool) -> Origin | None:
        """The origin that the client dialled."""
        scheme = "https" if is_tls else "http"
        if self.is_proxy(peer):
            scheme = _SCHEMES.get(_last(headers.get_all("X-Forwarded-Proto"), scheme).lower(), "")
        return Origin.of(scheme, self._authority(peer, headers))

    def _authority(self, peer: str, headers: Headers) -> str:
        """The ``host[:port]`` that the client dialled."""
        authority = _only(headers.get_all("Host"))
        return _last(headers.get_all("X-Forwarded-Host"), authority) if self.is_proxy(peer) else authority


def _only(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else ""


def _last(values: Sequence[str], default: str) -> str:
    """What the nearest proxy wrote."""
    return values[-1].rpartition(",")[2].strip() if values else default


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address, also with a port or in brackets as some proxies write it, an IPv4 one never mapped into IPv6."""
    bare = re.sub(r"^\[(.+)\](:[0-9]+)?$|^([0-9.]+):[0-9]+$", r"\1\3", text.partition("%")[0])
    try:
        parsed = ip_address(bare)
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed
