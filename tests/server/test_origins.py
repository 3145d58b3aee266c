"""Which web pages may connect, and whose word counts for where a client is."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

import pytest

from bonevalue.errors import OriginRefused
from bonevalue_server.origins import Origin, Origins


class Sent:
    """The headers of a request."""

    def __init__(self, **headers: str | list[str]) -> None:
        self._headers = {name.replace("_", "-").lower(): value for name, value in headers.items()}

    def get_all(self, key: str, /) -> Sequence[str]:
        values = self._headers.get(key.lower(), [])
        return [values] if isinstance(values, str) else values


PLAIN = Origins(allowed=["https://app.example.org", "http://localhost:5173"], trusted_proxies=[])
PROXIED = Origins(allowed=[], trusted_proxies=[ip_network("10.0.0.0/8"), ip_network("fd00::/8")])

#: Origin, whether we speak TLS, whether it may connect. The browser dialled bv.example.org:8443.
TABLE = [
    (None, True, True),  # a program
    ("https://bv.example.org:8443", True, True),  # our own page
    ("HTTPS://BV.Example.ORG:8443", True, True),  # the same
    ("http://bv.example.org:8443", False, True),  # our own page, without TLS
    ("http://bv.example.org:8443", True, False),  # another scheme
    ("https://bv.example.org:8443", False, False),
    ("https://bv.example.org", True, False),  # another port
    ("https://bv.example.org:443", True, False),
    ("https://example.org:8443", True, False),  # the domain above
    ("https://evil.bv.example.org:8443", True, False),  # a domain below
    ("https://bv.example.org.evil.net:8443", True, False),  # a prefix
    ("https://evilbv.example.org:8443", True, False),  # a suffix
    ("https://bv.example.org:8443.evil.net", True, False),
    ("https://bv.example.org:8443@evil.net", True, False),  # user info
    ("https://user@bv.example.org:8443", True, False),
    ("https://bv.example.org:8443/", True, False),  # a URL, no origin
    ("https://bv.example.org:8443 ", True, False),
    ("null", True, False),  # a file, a sandbox
    ("", True, False),
    ("*", True, False),
    ("file://", True, False),
    ("https://app.example.org", True, True),  # allowed by name
    ("https://app.example.org:443", False, True),  # the same, with the default port
    ("http://app.example.org", True, False),
    ("https://app.example.org:8443", True, False),
    ("https://APP.example.org", True, True),
    ("http://localhost:5173", True, True),
    ("http://localhost", True, False),
    ("http://127.0.0.1:5173", True, False),
]


@pytest.mark.parametrize(("origin", "is_tls", "allowed"), TABLE)
def test_which_pages_may_connect(origin: str | None, is_tls: bool, allowed: bool) -> None:
    headers = Sent(host="bv.example.org:8443", **({} if origin is None else {"origin": origin}))
    if allowed:
        PLAIN.check("192.0.2.1", headers, is_tls=is_tls)
    else:
        with pytest.raises(OriginRefused, match=r"discovery\.origins"):
            PLAIN.check("192.0.2.1", headers, is_tls=is_tls)


@pytest.mark.parametrize(
    ("host", "origin", "is_tls"),
    [
        ("bv.example.org", "https://bv.example.org", True),
        ("bv.example.org:443", "https://bv.example.org", True),
        ("bv.example.org", "http://bv.example.org:80", False),
        ("127.0.0.1:8008", "http://127.0.0.1:8008", False),
        ("[::1]:8008", "http://[::1]:8008", False),
    ],
)
def test_the_default_port_may_be_left_out(host: str, origin: str, is_tls: bool) -> None:
    PLAIN.check("192.0.2.1", Sent(host=host, origin=origin), is_tls=is_tls)


@pytest.mark.parametrize(
    "headers",
    [
        Sent(origin="http://bv.example.org"),
        Sent(host=["bv.example.org", "bv.example.org"], origin="http://bv.example.org"),
        Sent(host="bv.example.org", origin=["http://bv.example.org", "http://bv.example.org"]),
        Sent(host="bv.example.org/x", origin="http://bv.example.org/x"),
    ],
    ids=["no host", "two hosts", "two origins", "no host at all"],
)
def test_a_request_that_no_browser_sends_is_refused(headers: Sent) -> None:
    with pytest.raises(OriginRefused):
        PLAIN.check("192.0.2.1", headers, is_tls=False)


def test_behind_a_trusted_proxy_what_it_was_asked_for_counts() -> None:
    page = Sent(
        host="10.0.0.2:8008",
        origin="https://bv.example.org",
        x_forwarded_proto="https",
        x_forwarded_host="bv.example.org",
    )
    PROXIED.check("10.0.0.1", page, is_tls=False)
    for untrusted in (("192.0.2.1", PROXIED), ("10.0.0.1", PLAIN)):
        with pytest.raises(OriginRefused):
            untrusted[1].check(untrusted[0], page, is_tls=False)
    with pytest.raises(OriginRefused):
        PROXIED.check("10.0.0.1", Sent(host="bv.example.org", origin="https://evil.net"), is_tls=False)
    kept = Sent(host="bv.example.org", origin="https://bv.example.org", x_forwarded_proto="wss")
    PROXIED.check("10.0.0.1", kept, is_tls=False)


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # nobody we trust says so
        ("10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.7", "198.51.100.7"),  # the first was written by the client
        ("10.0.0.1", "198.51.100.7, 10.3.3.3", "198.51.100.7"),  # two proxies of ours
        ("10.0.0.1", ["198.51.100.7", "10.3.3.3"], "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7:4711", "198.51.100.7"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("::ffff:10.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("fd00::1", "198.51.100.7", "198.51.100.7"),
        ("10.0.0.1", "198.51.100.7, unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),
    ],
)
def test_where_a_client_is(peer: str, forwarded: str | list[str], address: str) -> None:
    assert PROXIED.client_address(peer, Sent(x_forwarded_for=forwarded)) == address


@pytest.mark.parametrize(
    ("peer", "headers", "host"),
    [
        ("192.0.2.1", Sent(host="BV.example.org:8008"), "bv.example.org"),
        ("192.0.2.1", Sent(host="203.0.113.1"), "203.0.113.1"),
        ("192.0.2.1", Sent(host="[2001:db8::1]:443"), "[2001:db8::1]"),
        ("192.0.2.1", Sent(), ""),
        ("192.0.2.1", Sent(host=["a.example", "b.example"]), ""),
        ("192.0.2.1", Sent(host="a.example/b"), ""),
        ("192.0.2.1", Sent(host="stun:evil@example.org"), ""),
        ("192.0.2.1", Sent(host="a" * 254), ""),
        ("192.0.2.1", Sent(host="10.0.0.2", x_forwarded_host="bv.example.org"), "10.0.0.2"),  # nobody we trust says so
        ("10.0.0.1", Sent(host="10.0.0.2", x_forwarded_host="bv.example.org:443"), "bv.example.org"),
        ("10.0.0.1", Sent(host="bv.example.org"), "bv.example.org"),
    ],
)
def test_what_a_client_dialled(peer: str, headers: Sent, host: str) -> None:
    assert PROXIED.dialled_host(peer, headers) == host


def test_an_origin_is_scheme_host_and_port() -> None:
    assert Origin.parse("https://Example.org") == ("https", "example.org", 443)
    assert Origin.parse("ftp://example.org") is None
    assert Origin.parse("example.org") is None
