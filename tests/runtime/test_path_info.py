"""A path in words, and as JSON."""

from __future__ import annotations

import pytest

from bonevalue.link import PathInfo


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (PathInfo("host", "srflx"), "host to srflx"),
        (PathInfo("host", "host", "IPv6"), "host to host, IPv6"),
        (PathInfo("relay", "prflx", "IPv4", "tcp"), "relay (by TURN over tcp) to prflx, IPv4"),
    ],
)
def test_in_words(path: PathInfo, words: str) -> None:
    assert path.words == words


def test_as_json_it_keeps_the_address_to_itself() -> None:
    path = PathInfo("relay", "host", "IPv4", "udp", "192.168.1.7")
    assert path.as_json() == {"local": "relay", "remote": "host", "family": "IPv4", "relay": "udp"}
