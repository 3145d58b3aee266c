"""STUN Binding: the samples of RFC 5769, round trips, and whatever else comes in a datagram."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonevalue.errors import LocalProtocolError, RemoteProtocolError
from bonevalue.wire.stun import (
    MAX_MESSAGE,
    TRANSACTION_SIZE,
    MappedAddress,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)

TRANSACTION = bytes(range(12))
COOKIE = bytes.fromhex("2112a442")

transactions = st.binary(min_size=TRANSACTION_SIZE, max_size=TRANSACTION_SIZE)
ports = st.integers(0, 65_535)


def message(kind: int, *attributes: tuple[int, bytes], transaction: bytes = TRANSACTION, length: int = 0) -> bytes:
    """A STUN message; ``length`` is added to what its header says."""
    body = b"".join(
        number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
        for number, value in attributes
    )
    return kind.to_bytes(2, "big") + (len(body) + length).to_bytes(2, "big") + COOKIE + transaction + body


# RFC 5769 sections 2.2 and 2.3.
RFC_TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
RFC_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RFC_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (RFC_IPV4, MappedAddress("192.0.2.1", 32853)),
        (RFC_IPV6, MappedAddress("2001:db8:1234:5678:11:2233:4455:6677", 32853)),
    ],
)
def test_the_samples_of_the_standard(data: bytes, address: MappedAddress) -> None:
    assert decode_response(data, RFC_TRANSACTION) == address


def test_exact_bytes() -> None:
    assert encode_request(TRANSACTION) == bytes.fromhex("000100002112a442000102030405060708090a0b")
    assert encode_response(RFC_TRANSACTION, ip_address("192.0.2.1").packed, 32853) == bytes.fromhex(
        "0101000c2112a442b7e7a701bc34d686fa87dfae002000080001a147e112a643"
    )


@given(transactions, st.ip_addresses(), ports)
def test_a_question_and_its_answer(transaction: bytes, address: IPv4Address | IPv6Address, port: int) -> None:
    request = encode_request(transaction)
    assert len(request) == 20
    response = encode_response(decode_request(request), address.packed, port)
    assert len(response) == (32 if address.version == 4 else 44)
    assert decode_response(response, transaction) == (str(address), port)


def test_a_request_may_have_attributes_that_can_be_ignored() -> None:
    assert decode_request(message(0x0001, (0x8022, b"a client"), (0x8028, bytes(4)))) == TRANSACTION


@pytest.mark.parametrize("attribute", [0x0001, 0x0003, 0x0006, 0x0020, 0x0024, 0x7FFF])
def test_a_request_that_wants_more_is_not_answered(attribute: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_request(message(0x0001, (0x8022, b"a"), (attribute, bytes(4))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_request(TRANSACTION)[:-1],
        encode_request(TRANSACTION) + b"\0",
        encode_request(TRANSACTION) + bytes(4),
        message(0x0001, length=4),
        message(0x0001, length=2) + bytes(2),
        message(0x0001).replace(COOKIE, bytes(4)),
        message(0x0011),  # an indication
        message(0x0003),  # TURN's Allocate
        message(0x0101),
        message(0x0111),
        message(0x8001),
        b"\x00\x01" + bytes(18),
        b"\x16\xfe\xfd" + bytes(40),  # DTLS
        b"GET / HTTP/1.1\r\n\r\n",
        message(0x0001, (0x8022, bytes(MAX_MESSAGE))),
        message(0x0001, (0x8022, b"four"))[:-4],
        message(0x0001, (0x8022, b"four")).replace(b"\x00\x04four", b"\x00\x05four"),
        message(0x0001, (0x8022, b"four")).replace(b"\x00\x04four", b"\xff\xfffour"),
    ],
)
def test_what_is_no_request(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_request(data)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (encode_request(TRANSACTION), "no answer"),
        (encode_response(bytes(12), bytes(4), 1), "no answer"),
        (message(0x0101), "names no address"),
        (message(0x0101, (0x0001, bytes.fromhex("00010001c0000201"))), "names no address"),  # RFC 3489's attribute
        (message(0x0101, (0x0020, b"")), "part of an address"),
        (message(0x0101, (0x0020, b"\0\1\0")), "part of an address"),
        (message(0x0101, (0x0020, b"\0\1\0\0" + bytes(3))), "no family"),
        (message(0x0101, (0x0020, b"\0\1\0\0" + bytes(16))), "no family"),
        (message(0x0101, (0x0020, b"\0\2\0\0" + bytes(4))), "no family"),
        (message(0x0101, (0x0020, b"\0\3\0\0" + bytes(4))), "no family"),
        (message(0x0111, (0x0009, b"\0\0\4\x14Unknown Attribute")), "error 420$"),
        (message(0x0111, (0x0009, b"\0\0\4")), "error without a number"),
        (message(0x0111), "error without a number"),
    ],
)
def test_what_is_no_answer(data: bytes, why: str) -> None:
    with pytest.raises(RemoteProtocolError, match=why):
        decode_response(data, TRANSACTION)


def _attribute(number: int, value: bytes) -> bytes:
    return message(0, (number, value))[20:]


def test_the_first_of_two_addresses_counts() -> None:
    one, other = (encode_response(TRANSACTION, bytes([192, 0, 2, number]), 5)[24:] for number in (1, 2))
    assert decode_response(message(0x0101, (0x0020, one), (0x0020, other)), TRANSACTION) == ("192.0.2.1", 5)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda rest: message(0x0001)[:20] + rest))
def test_nothing_else_comes_of_any_datagram(data: bytes) -> None:
    for decode in (decode_request, lambda data: decode_response(data, TRANSACTION)):
        with suppress(RemoteProtocolError):
            decode(data)


@given(
    st.binary(max_size=64) | st.builds(_attribute, st.sampled_from([0x20, 0x09]), st.binary(max_size=24)),
    transactions,
    st.sampled_from([0x0101, 0x0111]),
)
def test_nothing_else_comes_of_any_answer(attributes: bytes, transaction: bytes, kind: int) -> None:
    data = message(kind, transaction=transaction, length=len(attributes)) + attributes
    try:
        mapped = decode_response(data, transaction)
    except RemoteProtocolError:
        return
    assert kind == 0x0101 and 0 <= mapped.port <= 65_535
    ip_address(mapped.host)


def test_a_transaction_id_of_the_wrong_length_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        encode_request(b"short")
