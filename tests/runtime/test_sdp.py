"""Descriptions and candidates of a remote peer: what an engine gets to see of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import RemoteProtocolError
from bonevalue.sdp import MAX_CANDIDATES, MAX_DESCRIPTION, MAX_NAMED, read_candidate, read_description

LINE = (
    "candidate:842163049 1 udp 1677729535 {} 46154 typ srflx raddr 10.0.0.17 rport 46154 generation 0 network-cost 999"
)
HEAD = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=max-message-size:262144\r\n"


def never() -> bool:
    """No loopback address is meant."""
    return False


def always() -> bool:
    """The peer must be on this host."""
    return True


@pytest.mark.parametrize("address", ["192.0.2.1", "10.1.2.3", "2001:db8::1", "fd00::2", "100.64.0.1"])
def test_addresses_that_may_be_tried(address: str) -> None:
    candidate = read_candidate(LINE.format(address), loopback=never)
    assert candidate is not None
    assert candidate.text == LINE.format(address)
    assert not candidate.named


@pytest.mark.parametrize(
    "address",
    [
        *("169.254.1.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.1.1", "224.0.0.251", "ff02::fb", "255.255.255.255"),
        *("0.0.0.0", "::", "example.org", "localhost", "127.1", "x.y.local"),
    ],
)
def test_addresses_that_are_passed_over(address: str) -> None:
    assert read_candidate(LINE.format(address), loopback=always) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_meant_only_on_this_host(address: str) -> None:
    assert read_candidate(LINE.format(address), loopback=never) is None
    assert read_candidate(LINE.format(address), loopback=always) is not None


def test_a_name_of_the_local_network_is_marked() -> None:
    candidate = read_candidate(LINE.format("0d1c5b0e-6f1e-4f0e-9d1c-5b0e6f1e4f0e.local"), loopback=never)
    assert candidate is not None and candidate.named


@pytest.mark.parametrize(
    "change",
    [(" 1 udp", " 2 udp"), (" udp ", " tcp "), ("46154 typ", "0 typ"), ("46154 typ", "65536 typ"), ("srflx", "prflx")],
)
def test_kinds_that_cannot_be_used_are_passed_over(change: tuple[str, str]) -> None:
    assert read_candidate(LINE.format("192.0.2.1").replace(*change), loopback=never) is None


@pytest.mark.parametrize("text", ["", "candidate:", LINE, "a=" + LINE.format("192.0.2.1"), "x" * 600])
def test_what_is_no_candidate_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_candidate(text.replace("{}", ""), loopback=never)


def test_a_description_keeps_only_what_may_be_used() -> None:
    lines = [LINE.format(address) for address in ("192.0.2.1", "127.0.0.1", "fe80::1", "12345678.local")]
    sdp = HEAD + "".join(f"a={line}\r\n" for line in lines) + "a=end-of-candidates\r\na=setup:actpass\r\n"
    description = read_description(sdp, loopback=never, max_sent=16_384)
    assert description.text == HEAD + f"a={lines[0]}\r\na=setup:actpass\r\n"
    assert description.named == (lines[3],)
    plain = read_description(sdp.replace(lines[3], lines[2]), loopback=never, max_sent=16_384)
    assert "a=end-of-candidates\r\n" in plain.text
    none = read_description(HEAD + f"a={lines[1]}\r\na=end-of-candidates\r\n", loopback=never, max_sent=16_384)
    assert none.text == HEAD


def test_a_description_has_so_many_candidates_and_no_more() -> None:
    many = "".join(f"a={LINE.format(f'192.0.2.{number}')}\r\n" for number in range(60))
    named = "".join(f"a={LINE.format(f'{number}.local')}\r\n" for number in range(20))
    description = read_description(HEAD + many + named, loopback=never, max_sent=16_384)
    assert description.text.count("a=candidate:") == MAX_CANDIDATES
    assert len(description.named) == MAX_NAMED


@pytest.mark.parametrize("size", ["0", "16384", "65536"])
def test_message_sizes_that_suffice(size: str) -> None:
    sdp = HEAD.replace("262144", size)
    assert read_description(sdp, loopback=never, max_sent=16_384).text == sdp


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        "v=0\r\n",
        HEAD.replace("application", "audio"),
        HEAD + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        HEAD.replace("262144", "16383"),
        HEAD.replace("262144", "many"),
        HEAD.replace("262144", "-1"),
        HEAD + "a=candidate:nonsense\r\n",
        HEAD + "x" * MAX_DESCRIPTION,
    ],
)
def test_a_description_of_something_else_is_refused(sdp: str) -> None:
    with pytest.raises(RemoteProtocolError):
        read_description(sdp, loopback=never, max_sent=16_384)


PARTS = st.sampled_from(
    [HEAD, "a=candidate:", LINE.format("192.0.2.1"), "\r\n", "\n", "m=", "a=max-message-size:", "\0"]
)


@given(st.lists(PARTS | st.text(max_size=20), max_size=12).map("".join))
def test_anything_is_a_description_or_a_protocol_error(sdp: str) -> None:
    try:
        description = read_description(sdp, loopback=never, max_sent=16_384)
    except RemoteProtocolError:
        return
    assert read_description(description.text, loopback=never, max_sent=16_384).text == description.text
