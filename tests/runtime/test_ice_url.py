"""The URLs of STUN and TURN servers: their parts, and what is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.ice_url import IceUrl, parse_ice_url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stun:a", ("stun", "a", 3478, "udp")),
        ("stun:stun.example.org.:19302", ("stun", "stun.example.org.", 19302, "udp")),
        ("stun:[2001:DB8::1]", ("stun", "2001:db8::1", 3478, "udp")),
        ("turn:192.0.2.1", ("turn", "192.0.2.1", 3478, "udp")),
        ("turn:a:80?transport=udp", ("turn", "a", 80, "udp")),
        ("turn:a?transport=tcp", ("turn", "a", 3478, "tcp")),
        ("turns:a", ("turns", "a", 5349, "tls")),
        ("turns:[::1]:443?transport=tcp", ("turns", "::1", 443, "tls")),
    ],
)
def test_the_parts(text: str, parts: tuple[str, str, int, str]) -> None:
    url = parse_ice_url(text)
    assert (url.scheme, url.host, url.port, url.transport) == parts
    assert url.text == text
    assert url.is_stun == text.startswith("stun")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no ICE URL: write stun:HOST:PORT"),
        ("stun.example.org:3478", "is no ICE URL"),
        ("http://a", "is no ICE URL"),
        ("STUN:a", "is no ICE URL"),
        ("stun:a b", "no host name"),
        ("stun://a", "has // after stun:"),
        ("turn://a:3478", "has // after turn:"),
        ("turn:user:secret@a", "put them into username and credential"),
        ("turn:user@a:3478", "put them into username and credential"),
        ("stun:2001:db8::1", r"write stun:\[2001:db8::1\]:PORT"),
        ("stun:[2001:db8::g]", "no IPv6 address"),
        ("stun:[192.0.2.1]", "no IPv6 address"),
        ("stun:[fe80::1%eth0]", "no host name|no IPv6 address|no ICE URL"),
        ("stun:", "no host name"),
        ("stun::3478", "no host name"),
        ("stun:-a", "no host name"),
        ("stun:a..b", "no host name"),
        ("stun:a:0", "has a port that is none"),
        ("stun:a:65536", "has a port that is none"),
        ("stun:a:x", "is no ICE URL"),
        ("stun:a?transport=udp", "always asked over UDP"),
        ("stuns:a", "over TLS"),
        ("turn:a?transport=tls", "neither udp nor tcp"),
        ("turn:a?transport=sctp", "neither udp nor tcp"),
        ("turn:a?x=y", "is no ICE URL|no host name"),
        ("turns:a?transport=udp", "DTLS"),
        ("stun:" + "a" * 600, "longer than 512"),
    ],
)
def test_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        parse_ice_url(text)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60) | st.from_regex(r"(stuns?|turns?):[a-z0-9.:\[\]@?=/-]{0,40}", fullmatch=True))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        url = parse_ice_url(text)
    except ValueError as error:
        assert str(error).split()[0] in ("is", "has")
    else:
        assert isinstance(url, IceUrl) and url.host and 0 < url.port < 65_536
        assert url.transport in ("udp", "tcp", "tls")
