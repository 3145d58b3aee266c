"""
STUN: tells whoever asks by UDP from which address and port the question came (RFC 8489, Binding).

So peers behind routers learn the way in to themselves with no third party's server. Anybody may ask, and anybody may
put another's address under the question; so there is one short answer to a well-formed question, never more than 24
bytes longer than it, none to anything else (no refusals either), and not many a second for one network or in all.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bonevalue.errors import RemoteProtocolError
from bonevalue.wire.pacing import Bucket, Buckets
from bonevalue.wire.stun import MAX_MESSAGE, decode_request, encode_response
from bonevalue_server.counters import Counters
from bonevalue_server.limits import Limits

__all__ = ["StunResponder"]

#: Datagrams that are taken from a socket before the event loop has its turn again.
_BATCH = 64
_ANCILLARY = socket.CMSG_SPACE(20)  # one struct in6_pktinfo, the longer of the two
_IP_PKTINFO = 8  # of Linux, <linux/in.h>; not every Python knows it

#: How IPv4 addresses begin that are written as IPv6 ones.
_MAPPED = bytes(10) + b"\xff\xff"
#: Bytes of an address that count as one: all of an IPv4 one, the /64 of an IPv6 one.
_NETWORK_SIZE = 8

_Ancillary = list[tuple[int, int, bytes]]


class StunResponder:
    """
    Answers on some sockets; what they are bound to is the caller's business, and so is closing them.

    Args:
        sockets: bound, for UDP, not blocking.
        limits: how many answers a second.
        counters: where answers and what is not answered are counted.
        clock: monotonic seconds.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], limits: Limits, counters: Counters, *, clock: Callable[[], float]
    ) -> None:
        self._sockets = tuple(sockets)
        self._counters = counters
        self._clock = clock
        self._all = Bucket(limits.stun, clock())
        self._per_network: Buckets[bytes] = Buckets(limits.stun_per_ip)

    def start(self) -> None:
        """Answer from now on."""
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            _ask_for_destinations(each)
            loop.add_reader(each, partial(self._read, each))

    def stop(self) -> None:
        """Answer no more."""
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.remove_reader(each)

    def _read(self, our: socket.socket) -> None:
        """Take what has come, but not for so long that nothing else gets its turn."""
        for _ in range(_BATCH):
            try:
                data, ancillary, _, source = our.recvmsg(MAX_MESSAGE + 1, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:
                continue  # what became of an earlier answer
            answer = self._answer(data, source)
            if answer is not None:
                self._send(our, answer, ancillary, source)

    def _answer(self, data: bytes, source: tuple[Any, ...]) -> bytes | None:
        """The answer to a datagram, if it gets one."""
        try:
            transaction = decode_request(data)
        except RemoteProtocolError:
            self._counters.stun_ignored["malformed"] += 1
            return None
        now = self._clock()
        address = _address(source[0])
        if self._per_network.take(address[:_NETWORK_SIZE], now) or self._all.take(now):
            self._counters.stun_ignored["rate_limited"] += 1
            return None
        return encode_response(transaction, address, source[1])

    def _send(self, our: socket.socket, answer: bytes, ancillary: _Ancillary, source: tuple[Any, ...]) -> None:
        try:
            our.sendmsg([answer], _from_there(ancillary), 0, source)
        except OSError:  # the socket's buffer is full, or there is no way to that address
            self._counters.stun_ignored["not_sent"] += 1
        else:
            self._counters.stun_answered += 1


def _address(host: str) -> bytes:
    """A sender's address, 4 bytes or 16; an IPv4 one that came to a socket of IPv6 is the IPv4 one it is."""
    if ":" not in host:
        return socket.inet_pton(socket.AF_INET, host)
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _ask_for_destinations(our: socket.socket) -> None:
    """
    Have a socket tell to which of this machine's addresses a datagram came.

    Left to itself, one that is bound to all addresses answers from the one that the route back suggests. On a machine
    with several that may be another than was asked, and no NAT lets such an answer in. Elsewhere than on Linux it is
    left to itself.
    """
    if sys.platform == "linux":
        if our.family == socket.AF_INET6:
            our.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            our.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def _from_there(ancillary: _Ancillary) -> _Ancillary:
    """What came along with a datagram, turned into what sends the answer from where that went to, by any interface."""
    any_interface = bytes(4)
    sending: _Ancillary = []
    for level, kind, info in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:  # struct in_pktinfo: interface, our address, header's
            sending.append((level, kind, any_interface + info[4:8] + bytes(4)))
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:  # struct in6_pktinfo: address, interface
            sending.append((level, kind, info[:16] + any_interface))
    return sending
