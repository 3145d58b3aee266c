"""
A TURN client that does one thing after the other and tells how each went (RFC 8656): for tests of TURN servers.

It is no part of the product, and shares no code with it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import ssl
import struct
from ipaddress import ip_address
from typing import NamedTuple

__all__ = ["TurnClient"]

_COOKIE = bytes.fromhex("2112a442")
_BINDING, _ALLOCATE, _REFRESH, _CREATE_PERMISSION, _CHANNEL_BIND = 0x001, 0x003, 0x004, 0x008, 0x009
_SEND_INDICATION, _DATA_INDICATION = 0x0016, 0x0017
_USERNAME, _INTEGRITY, _ERROR_CODE, _REALM, _NONCE = 0x0006, 0x0008, 0x0009, 0x0014, 0x0015
_CHANNEL_NUMBER, _LIFETIME, _PEER_ADDRESS, _DATA, _RELAYED_ADDRESS = 0x000C, 0x000D, 0x0012, 0x0013, 0x0016
_ADDRESS_FAMILY, _TRANSPORT = 0x0017, 0x0019

#: Seconds for an answer that comes at once.
PATIENCE = 10.0

Address = tuple[str, int]
#: Number and value; an address is written with the transaction id of its message.
Attribute = tuple[int, bytes | Address]


class Answer(NamedTuple):
    """What came."""

    kind: int
    transaction: bytes
    attributes: dict[int, bytes]

    @property
    def code(self) -> int:
        """0, or the number of the error that it is."""
        error = self.attributes.get(_ERROR_CODE, bytes(4))
        return error[2] * 100 + error[3] if self.kind & 0x0110 == 0x0110 else 0


class TurnClient:
    """
    One client of one server, with at most one allocation.

    Args:
        server: its address.
        username: of the credential.
        credential: the password.
        transport: ``udp``, ``tcp`` or ``tls``.
        tls: how its certificate is checked, and for which name.
    """

    def __init__(
        self,
        server: Address,
        username: str = "",
        credential: str = "",
        *,
        transport: str = "udp",
        tls: tuple[ssl.SSLContext, str] | None = None,
    ) -> None:
        self.username, self.credential = username, credential
        self.relayed: Address = ("", 0)
        self._server = server
        self._is_stream = transport != "udp"
        self._tls = tls
        self._open()

    def _open(self) -> None:
        self._realm = self._nonce = b""
        if self._is_stream:
            self._socket = socket.create_connection(self._server, timeout=PATIENCE)
            if self._tls is not None:
                self._socket = self._tls[0].wrap_socket(self._socket, server_hostname=self._tls[1])
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(self._server)

    def __enter__(self) -> TurnClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the allocation back, if there is one, and close the socket."""
        if self.relayed[0]:
            self.refresh(0)
        self._socket.close()

    # -- requests: each gives 0, or the number of the error ------------------------------------------------------------

    def mapped(self) -> bool:
        """Whether the server answers a STUN request."""
        return self._ask(_BINDING).code == 0

    def allocate(self, *, ipv6: bool = False, tcp: bool = False) -> int:
        """Allocate a relayed address, for UDP or for TCP (RFC 6062)."""
        attributes: list[Attribute] = [(_TRANSPORT, bytes([6 if tcp else 17, 0, 0, 0]))]
        if ipv6:
            attributes.append((_ADDRESS_FAMILY, bytes([2, 0, 0, 0])))
        answer = self._request(_ALLOCATE, *attributes)
        if answer.code == 437:  # our port had an allocation a moment ago: another port (RFC 8656 section 7.4)
            self._socket.close()
            self._open()
            answer = self._request(_ALLOCATE, *attributes)
        if answer.code == 0:
            self.relayed = _address(answer.attributes[_RELAYED_ADDRESS], answer.transaction)
        return answer.code

    def refresh(self, seconds: int) -> int:
        """Keep the allocation for so long; 0 gives it back."""
        if seconds == 0:
            self.relayed = ("", 0)
        return self._request(_REFRESH, (_LIFETIME, seconds.to_bytes(4, "big"))).code

    def permit(self, host: str) -> int:
        """Let an address send to us."""
        return self._request(_CREATE_PERMISSION, (_PEER_ADDRESS, (host, 9))).code

    def bind(self, peer: Address, channel: int = 0x4000) -> int:
        """Give an address a channel."""
        number = (_CHANNEL_NUMBER, channel.to_bytes(2, "big") + bytes(2))
        return self._request(_CHANNEL_BIND, number, (_PEER_ADDRESS, peer)).code

    # -- data ------------------------------------------------------------------------------------------------------

    def send(self, peer: Address, data: bytes) -> None:
        """Have the relay send something."""
        self._socket.sendall(_message(_SEND_INDICATION, os.urandom(12), (_PEER_ADDRESS, peer), (_DATA, data)))

    def hear(self) -> bytes:
        """What the relay passed on next."""
        heard = self._receive()
        assert heard.kind == _DATA_INDICATION, heard
        return heard.attributes[_DATA]

    # -- parts of the above -------------------------------------------------------------------------------------------

    def _request(self, method: int, *attributes: Attribute) -> Answer:
        """With what the server asks for: realm and nonce at first, another nonce now and then."""
        answer = self._ask(method, *attributes)
        if answer.code == 438 or (answer.code == 401 and not self._nonce and self.username):
            self._realm, self._nonce = answer.attributes[_REALM], answer.attributes[_NONCE]
            answer = self._ask(method, *attributes)
        return answer

    def _ask(self, method: int, *attributes: Attribute) -> Answer:
        transaction = os.urandom(12)
        self._socket.sendall(self._sealed(method, transaction, attributes))
        while (answer := self._receive()).transaction != transaction:
            pass  # data, or an answer to what was asked before
        return answer

    def _sealed(self, method: int, transaction: bytes, attributes: tuple[Attribute, ...]) -> bytes:
        if not self._nonce:
            return _message(method, transaction, *attributes)
        login = ((_USERNAME, self.username.encode()), (_REALM, self._realm), (_NONCE, self._nonce))
        text = _message(method, transaction, *attributes, *login)
        text = text[:2] + (len(text) - 20 + 24).to_bytes(2, "big") + text[4:]  # as if the integrity stood there
        password = b":".join((self.username.encode(), self._realm, self.credential.encode()))
        key = hashlib.md5(password, usedforsecurity=False).digest()
        return text + struct.pack("!HH", _INTEGRITY, 20) + hmac.digest(key, text, "sha1")

    def _receive(self) -> Answer:
        data = self._socket.recv(4096) if not self._is_stream else self._exactly(20)
        if self._is_stream:
            data += self._exactly(int.from_bytes(data[2:4], "big"))
        attributes: dict[int, bytes] = {}
        position = 20
        while position < len(data):
            kind, length = struct.unpack_from("!HH", data, position)
            attributes[kind] = data[position + 4 : position + 4 + length]
            position += 4 + length + -length % 4
        return Answer(int.from_bytes(data[:2], "big"), data[8:20], attributes)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ConnectionError("the TURN server hung up")
            data += more
        return data


def _message(kind: int, transaction: bytes, *attributes: Attribute) -> bytes:
    body = b""
    for name, value in attributes:
        packed = value if isinstance(value, bytes) else _packed(value, transaction)
        body += struct.pack("!HH", name, len(packed)) + packed + bytes(-len(packed) % 4)
    return struct.pack("!HH", kind, len(body)) + _COOKIE + transaction + body


def _packed(address: Address, transaction: bytes) -> bytes:
    packed = ip_address(address[0]).packed
    return struct.pack("!xBH", 1 if len(packed) == 4 else 2, address[1] ^ 0x2112) + _masked(packed, transaction)


def _address(value: bytes, transaction: bytes) -> Address:
    return str(ip_address(_masked(value[4:], transaction))), int.from_bytes(value[2:4], "big") ^ 0x2112


def _masked(packed: bytes, transaction: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(packed, _COOKIE + transaction, strict=False))
