"""A TURN server on loopback that gives allocations, or refuses them, as a test tells it to (RFC 8656)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from aioice import stun
from aioice.turn import make_integrity_key

__all__ = ["PASSWORD", "USERNAME", "ScriptedTurn", "scripted_turn"]

USERNAME, PASSWORD, REALM = "alice", "a-credential", "test"
RELAYED = ("203.0.113.3", 50_000)


class ScriptedTurn(asyncio.DatagramProtocol):
    """
    A server that knows one user.

    Args:
        refusal: code and reason with which it refuses those who have shown the right credential.
    """

    def __init__(self, refusal: tuple[int, str] | None = None) -> None:
        self.allocations = 0
        self.given_back = 0
        self._refusal = refusal
        self._key = make_integrity_key(USERNAME, REALM, PASSWORD)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"turn:127.0.0.1:{self._transport.get_extra_info('sockname')[1]}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        """A request."""
        request = stun.parse_message(data)
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        if "USERNAME" not in request.attributes:
            self._refuse(answer, 401, "Unauthorized")
            answer.attributes |= {"REALM": REALM, "NONCE": b"nonce"}
        elif not request.check_message_integrity(self._key):
            self._refuse(answer, 401, "Unauthorized")
        elif self._refusal is not None:
            self._refuse(answer, *self._refusal)
            answer.add_message_integrity(self._key)
        else:
            self._grant(request, answer, address)
            answer.add_message_integrity(self._key)
        self._transport.sendto(bytes(answer), address)

    def _refuse(self, answer: stun.Message, code: int, reason: str) -> None:
        answer.message_class = stun.Class.ERROR
        answer.attributes["ERROR-CODE"] = (code, reason)

    def _grant(self, request: stun.Message, answer: stun.Message, address: Any) -> None:
        lifetime = request.attributes.get("LIFETIME", 600)
        answer.attributes["LIFETIME"] = lifetime
        if request.message_method is stun.Method.ALLOCATE:
            self.allocations += 1
            answer.attributes |= {"XOR-RELAYED-ADDRESS": RELAYED, "XOR-MAPPED-ADDRESS": address[:2]}
        elif lifetime == 0:
            self.given_back += 1


@asynccontextmanager
async def scripted_turn(refusal: tuple[int, str] | None = None) -> AsyncIterator[ScriptedTurn]:
    """One that listens for as long as it is entered."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: ScriptedTurn(refusal), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
