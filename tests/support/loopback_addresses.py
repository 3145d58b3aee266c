"""
Addresses that look public on the loopback interface of the tests' own network.

Some programs treat private and loopback addresses as what they are; to try them out takes others. They are added and
taken away by ioctl(2), which is for whoever owns the network namespace, without any program.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["public_addresses"]

_SIOCSIFADDR, _SIOCDIFADDR, _SIOCSIFFLAGS = 0x8916, 0x8936, 0x8914


@contextmanager
def public_addresses(ipv4: str, ipv6: str) -> Iterator[None]:
    """
    Within it, the /24 of an IPv4 address and an IPv6 address are on loopback.

    Raises:
        RuntimeError: this process is not in a network of its own.
    """
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise RuntimeError("this machine does not allow network namespaces, and its own network is not touched")
    alias = b"lo:tests".ljust(16, b"\0")
    of_ipv6 = struct.pack("=16sIi", socket.inet_pton(socket.AF_INET6, ipv6), 128, socket.if_nametoindex("lo"))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control6,
    ):
        address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(ipv4))
        fcntl.ioctl(control, _SIOCSIFADDR, alias + address)
        fcntl.ioctl(control6, _SIOCSIFADDR, of_ipv6)
        try:
            yield
        finally:
            fcntl.ioctl(control6, _SIOCDIFADDR, of_ipv6)
            fcntl.ioctl(control, _SIOCSIFFLAGS, alias + bytes(24))  # an alias that is not up is gone
