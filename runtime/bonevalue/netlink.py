"""
What Linux says of this host's addresses, over rtnetlink: which can be used, and that something changes.

Two kinds are left out that ``getifaddrs`` does not tell apart: addresses of a link without carrier, and IPv6 addresses
that are still being checked, or that another host has. The formats are those of rtnetlink(7), ``linux/if_addr.h`` and
``linux/if_link.h``; numbers are in the byte order of the machine.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["PART", "read_addresses", "removed_addresses", "subscribe"]

#: Of a message: length with this, type, flags, sequence number, port.
_HEADER = struct.Struct("=IHHII")
#: Of a link: family, type, index, flags, mask.
_LINK = struct.Struct("=BxHiII")
#: Of an address: family, prefix length, flags, scope, index of its link.
_ADDRESS = struct.Struct("=BBBBI")
#: Of an attribute: length with this, type. Messages and attributes begin at multiples of four.
_ATTRIBUTE = struct.Struct("=HH")
_ERROR_NUMBER = struct.Struct("=i")
_FLAGS = struct.Struct("=I")

_ERROR, _DONE = 2, 3
_GET_LINK, _DEL_ADDRESS, _GET_ADDRESS = 18, 21, 22
_REQUEST, _DUMP = 0x001, 0x300
_LINK_GROUP, _IPV4_GROUP, _IPV6_GROUP = 0x1, 0x10, 0x100

_UP_AND_RUNNING = 0x1 | 0x40
_DAD_FAILED, _TENTATIVE = 0x08, 0x40
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
#: Attribute of a request for links: spare us the statistics, which are most of the answer.
_NO_STATISTICS = struct.pack("=HHI", 8, 29, 1 << 3)
#: What the kernel puts into a datagram has at most so many bytes.
PART = 65_536


class _Message(NamedTuple):
    kind: int
    body: bytes


class _HostAddress(NamedTuple):
    text: str
    link: int
    flags: int


def subscribe() -> socket.socket:
    """
    A non-blocking socket that is readable when a link or an address changes; :func:`removed_addresses` reads what it
    gives. An ``ENOBUFS`` from it says that messages were lost.

    Raises:
        OSError: there is no rtnetlink here, or this process may not use it.
    """
    return _open(_LINK_GROUP | _IPV4_GROUP | _IPV6_GROUP)


def read_addresses() -> frozenset[str]:
    """
    All addresses of this host that can be used now, loopback too. It takes about 0.1 ms.

    Raises:
        OSError: there is no rtnetlink here, or this process may not use it.
    """
    with _open() as netlink:
        links = _running_links(_dump(netlink, _GET_LINK, bytes(_LINK.size) + _NO_STATISTICS))
        found = map(_address_of, _dump(netlink, _GET_ADDRESS, bytes(_ADDRESS.size)))
        unusable = _DAD_FAILED | _TENTATIVE
        return frozenset(each.text for each in found if each and each.link in links and not each.flags & unusable)


def removed_addresses(data: bytes) -> frozenset[str]:
    """The addresses that went, says this datagram of a subscription; they may be back by now."""
    found = (_address_of(message) for message in _messages(data) if message.kind == _DEL_ADDRESS)
    return frozenset(each.text for each in found if each)


def _open(groups: int = 0) -> socket.socket:
    if not hasattr(socket, "AF_NETLINK"):
        raise OSError("this system has no rtnetlink")
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    try:
        netlink.setblocking(False)  # an answer is there as soon as the request is sent
        netlink.bind((0, groups))
    except OSError:
        netlink.close()
        raise
    return netlink


def _dump(netlink: socket.socket, kind: int, request: bytes) -> list[_Message]:
    """Everything of a kind that the kernel has."""
    netlink.send(_HEADER.pack(_HEADER.size + len(request), kind, _REQUEST | _DUMP, 1, 0) + request)
    answers: list[_Message] = []
    while True:
        for message in _messages(netlink.recv(PART)):
            if message.kind == _DONE:
                return answers
            if message.kind == _ERROR:
                number = -_ERROR_NUMBER.unpack_from(message.body)[0]
                raise OSError(number, f"rtnetlink: {os.strerror(number)}")
            answers.append(message)


def _messages(data: bytes) -> Iterator[_Message]:
    start = 0
    while len(data) - start >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data, start)
        if not _HEADER.size <= length <= len(data) - start:  # it was cut off
            return
        yield _Message(kind, data[start + _HEADER.size : start + length])
        start += _aligned(length)


def _running_links(messages: list[_Message]) -> frozenset[int]:
    """The indexes of the links that are up and have a carrier."""
    links = (_LINK.unpack_from(message.body) for message in messages)
    return frozenset(index for _, _, index, flags, _ in links if flags & _UP_AND_RUNNING == _UP_AND_RUNNING)


def _address_of(message: _Message) -> _HostAddress | None:
    """The address that a message is about; None for a family that is no IP."""
    family, _, flags, _, link = _ADDRESS.unpack_from(message.body)
    attributes = dict(_attributes(message.body[_ADDRESS.size :]))
    # Of an IPv4 link between two points, the address is that of the other end; IPv6 has no local one.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if family not in (socket.AF_INET, socket.AF_INET6) or packed is None:
        return None
    if _IFA_FLAGS in attributes:  # more than the eight above
        (flags,) = _FLAGS.unpack(attributes[_IFA_FLAGS])
    return _HostAddress(str(ipaddress.ip_address(packed)), link, flags)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while len(data) - start >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data, start)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[start + _ATTRIBUTE.size : start + length]
        start += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
