"""
STUN Binding (RFC 8489): how a client learns under which address and port the world sees one of its sockets.

That and nothing more: no authentication, no attributes beside XOR-MAPPED-ADDRESS and the code of a refusal. The
discovery server answers with it, `bv doctor` asks with it. Transaction ids come from the caller, who needs them to be
beyond guessing: they are all that tells an answer from a forgery.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from struct import Struct
from typing import NamedTuple

from bonevalue.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "MAX_MESSAGE",
    "TRANSACTION_SIZE",
    "MappedAddress",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
]

#: Bytes of a transaction id.
TRANSACTION_SIZE = 12
#: Longest message that is looked at: what fits a datagram on any path with IPv6 (RFC 8489 section 6.1).
MAX_MESSAGE = 1_280 - 48

_COOKIE = 0x2112_A442
_REQUEST, _SUCCESS, _ERROR = 0x0001, 0x0101, 0x0111
_XOR_MAPPED_ADDRESS, _ERROR_CODE = 0x0020, 0x0009
#: Attributes from here on may be ignored by whoever does not know them.
_OPTIONAL = 0x8000
_IPV4, _IPV6 = 1, 2

#: Type, length of what follows, cookie, transaction id.
_HEADER = Struct("!HHL12s")
#: Type and length of an attribute; its value follows, and padding to a multiple of four bytes.
_ATTRIBUTE = Struct("!HH")
#: Reserved, family, port; the address follows.
_ADDRESS = Struct("!xBH")


class MappedAddress(NamedTuple):
    """How the world sees a socket."""

    host: str
    port: int


def encode_request(transaction: bytes) -> bytes:
    """A request with no attributes, 20 bytes long."""
    return _message(_REQUEST, transaction, b"")


def decode_request(data: bytes) -> bytes:
    """
    The transaction id of a Binding request.

    Raises:
        RemoteProtocolError: it is none, or asks for more than a plain answer: it has an attribute that whoever does
            not know it must not ignore. (RFC 8489 has a refusal for that; a server that refuses nobody can neither be
            made to bounce messages, nor to tell what it is.)
    """
    kind, transaction = _open(data)
    if kind != _REQUEST:
        raise RemoteProtocolError(f"a STUN message of type {kind:#06x} is no Binding request")
    for attribute, _ in _attributes(data):
        if attribute < _OPTIONAL:
            raise RemoteProtocolError(f"a Binding request with the attribute {attribute:#06x}")
    return transaction


def encode_response(transaction: bytes, address: bytes, port: int) -> bytes:
    """
    The answer to a request, 32 bytes long for IPv4 and 44 for IPv6.

    Args:
        transaction: that of the request.
        address: where the request came from, in network byte order: 4 bytes or 16.
        port: the port that it came from.
    """
    family = _IPV4 if len(address) == 4 else _IPV6
    value = _ADDRESS.pack(family, port ^ _COOKIE >> 16) + _masked(address, transaction)
    return _message(_SUCCESS, transaction, _ATTRIBUTE.pack(_XOR_MAPPED_ADDRESS, len(value)) + value)


def decode_response(data: bytes, transaction: bytes) -> MappedAddress:
    """
    What the answer to a request says.

    Args:
        data: the datagram.
        transaction: that of the request.

    Raises:
        RemoteProtocolError: it is no answer to this request, is malformed, or a refusal.
    """
    kind, theirs = _open(data)
    if kind not in (_SUCCESS, _ERROR) or theirs != transaction:
        raise RemoteProtocolError("a STUN message that is no answer to this request")
    attributes = dict(reversed([*_attributes(data)]))  # the first of a kind counts
    if kind == _ERROR:
        raise RemoteProtocolError(f"the STUN server refused: error {_code(attributes.get(_ERROR_CODE, b''))}")
    if _XOR_MAPPED_ADDRESS not in attributes:
        raise RemoteProtocolError("the STUN server's answer names no address")
    return _mapped_address(attributes[_XOR_MAPPED_ADDRESS], transaction)


def _message(kind: int, transaction: bytes, attributes: bytes) -> bytes:
    if len(transaction) != TRANSACTION_SIZE:
        raise LocalProtocolError(f"a STUN transaction id has {TRANSACTION_SIZE} bytes")
    return _HEADER.pack(kind, len(attributes), _COOKIE, transaction) + attributes


def _open(data: bytes) -> tuple[int, bytes]:
    """Type and transaction id of a message that is whole."""
    if not _HEADER.size <= len(data) <= MAX_MESSAGE:
        raise RemoteProtocolError(f"{len(data)} bytes are no STUN message")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if cookie != _COOKIE or length != len(data) - _HEADER.size or length % 4:
        raise RemoteProtocolError("no STUN message")
    return kind, transaction


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = _HEADER.size
    while position < len(data):  # by at least four bytes: all lengths are multiples of that
        kind, length = _ATTRIBUTE.unpack_from(data, position)
        start, end = position + _ATTRIBUTE.size, position + _ATTRIBUTE.size + length
        position = end + -length % 4
        if position > len(data):
            raise RemoteProtocolError("a STUN attribute that is longer than its message")
        yield kind, data[start:end]


def _mapped_address(value: bytes, transaction: bytes) -> MappedAddress:
    if len(value) < _ADDRESS.size:
        raise RemoteProtocolError("a STUN answer with part of an address")
    family, port = _ADDRESS.unpack_from(value)
    packed = value[_ADDRESS.size :]
    if len(packed) != {_IPV4: 4, _IPV6: 16}.get(family):
        raise RemoteProtocolError("a STUN answer with an address of no family")
    return MappedAddress(str(ip_address(_masked(packed, transaction))), port ^ _COOKIE >> 16)


def _masked(packed: bytes, transaction: bytes) -> bytes:
    """An address, XORed so that no NAT on the way takes it for one that it should translate."""
    size = len(packed)
    mask = (_COOKIE.to_bytes(4, "big") + transaction)[:size]
    return (int.from_bytes(packed, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def _code(value: bytes) -> str:
    """The number of a refusal: class and rest in the third and fourth byte."""
    return str(value[2] % 8 * 100 + value[3]) if len(value) >= 4 else "without a number"
