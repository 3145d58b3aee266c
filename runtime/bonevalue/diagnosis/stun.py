"""Asking STUN servers, all from the same socket of each address family: what they see, and how far away they are."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from bonevalue.diagnosis.endpoints import Endpoint, written
from bonevalue.diagnosis.findings import Finding, fail, listed, milliseconds, ok, warn
from bonevalue.diagnosis.nat import NatKind, Sighting, nat_kind, outside
from bonevalue.errors import RemoteProtocolError
from bonevalue.ice_url import IceUrl
from bonevalue.names import Names, family
from bonevalue.wire.stun import TRANSACTION_SIZE, decode_response, encode_request

__all__ = ["STUN_TIMEOUT", "StunSurvey"]

#: Seconds that a STUN server has; and when requests are sent again meanwhile, for those that got lost.
STUN_TIMEOUT = 3.0
RETRANSMISSIONS = (0.0, 0.25, 0.75, 1.75)

_ANY_ADDRESS = {"IPv4": "0.0.0.0", "IPv6": "::"}


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came of asking one server; `seen` is None if it did not answer."""

    url: IceUrl
    server: Endpoint
    seen: Endpoint | None = None
    seconds: float = 0.0

    @property
    def family(self) -> str:
        """``IPv4`` or ``IPv6``."""
        return family(self.server[0])


class StunSurvey:
    """
    One round of questions to all servers.

    Args:
        urls: the STUN servers.
        others: TURN servers over UDP, which answer the same question; they help to tell the kind of the NAT, and what
            comes of them is reported elsewhere.
        own: this machine's addresses.
    """

    def __init__(self, urls: Sequence[IceUrl], others: Sequence[IceUrl], own: Collection[str]) -> None:
        self._urls = urls
        self._others = others
        self._own = own
        self._families = sorted(set(map(family, own)))
        self._names = Names()
        self._replies: list[_Reply] = []
        self._unresolved: dict[IceUrl, str] = {}

    async def ask(self) -> None:
        """Ask them all, within :data:`STUN_TIMEOUT` and the time that their names take."""
        urls = list(dict.fromkeys((*self._urls, *self._others)))
        servers = [pair for found in await asyncio.gather(*map(self._resolve, urls)) for pair in found]
        rounds = []
        for each in self._families:
            of_family = [(url, server) for url, server in servers if family(server[0]) == each]
            if of_family:
                rounds.append(_ask_from_one_socket(each, of_family))
        self._replies = [reply for replies in await asyncio.gather(*rounds) for reply in replies]

    async def _resolve(self, url: IceUrl) -> list[tuple[IceUrl, Endpoint]]:
        try:
            async with asyncio.timeout(STUN_TIMEOUT):
                found = await self._names.addresses(url.host)
        except OSError:  # TimeoutError is one
            self._unresolved[url] = "its name is not known"
            return []
        usable = [(address, url.port) for address in found if family(address) in self._families]
        if not usable:
            self._unresolved[url] = f"{found[0]} is {family(found[0])}, and this machine has none"
        return [(url, each) for each in usable]

    # -- each server -------------------------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        """A finding for each STUN server."""
        return [self._judge(url) for url in self._urls]

    def _judge(self, url: IceUrl) -> Finding:
        replies = [reply for reply in self._replies if reply.url == url]
        answers: dict[str, _Reply] = {}
        for reply in replies:
            if reply.seen is not None:
                answers.setdefault(reply.family, reply)
        facts: dict[str, Any] = {"url": url.text, "seen": [_seen(reply) for reply in answers.values()]}
        if answers:
            parts = (
                f"{written(reply.seen)} ({milliseconds(reply.seconds)})" for reply in answers.values() if reply.seen
            )
            return ok("stun", f"{url.text} sees you as {listed(parts)}", **facts)
        if url in self._unresolved:
            advice = "correct the address, or take it out of the list (ice.servers here, discovery.ice_servers there)"
            return warn("stun", f"{url.text}: {self._unresolved[url]}", advice, **facts)
        return warn("stun", f"{url.text}: no answer within {STUN_TIMEOUT:g} s", self._advice(url), **facts)

    def _advice(self, url: IceUrl) -> str:
        if any(reply.seen is not None for reply in self._replies):
            return f"check that this server runs and that its firewall lets in UDP port {url.port}; others do answer"
        return f"check that firewalls let UDP out here, and in at port {url.port} there"

    # -- the NAT -----------------------------------------------------------------------------------------------------

    def nat_findings(self, relays: Collection[str]) -> list[Finding]:
        """
        The kind of NAT, for each address family that has an answer.

        Args:
            relays: the ways to a TURN server that work: some of ``udp``, ``tcp``, ``tls``.
        """
        if not self._replies:
            return [warn("nat", "unknown: there is no STUN server to ask", _ADVICE_NO_STUN, kind=NatKind.UNKNOWN)]
        by_family = {each: self._sightings(each) for each in self._families}
        answered = {each: sightings for each, sightings in by_family.items() if sightings}
        if not answered:
            return [_blocked(len({reply.url for reply in self._replies}), relays)]
        return [self._judge_nat(each, sightings, relays) for each, sightings in answered.items()]

    def _sightings(self, of_family: str) -> list[Sighting]:
        return [
            Sighting(reply.server, reply.seen)
            for reply in self._replies
            if reply.family == of_family and reply.seen is not None
        ]

    def _judge_nat(self, of_family: str, sightings: list[Sighting], relays: Collection[str]) -> Finding:
        kind = nat_kind(sightings, self._own)
        beyond = outside(sightings, self._own)
        seen = (beyond or sightings)[0].seen
        facts: dict[str, Any] = {"family": of_family, "kind": kind, "seen": [each.seen for each in sightings]}
        if ipaddress.ip_address(seen[0]).is_loopback:
            return ok("nat", f"{of_family}: nothing to tell, the STUN server is on this machine", **facts)
        text = f"{of_family}: {_NAT_TEXTS[kind].format(host=seen[0], seen=written(seen))}"
        if kind is NatKind.SYMMETRIC and not relays:
            return warn("nat", text, "have the operator set up a TURN server (discovery.turn, docs/nat.md)", **facts)
        return ok("nat", text, **facts)


_NAT_TEXTS = {
    NatKind.NONE: "none, others see this machine as {host}",
    NatKind.CONE: "cone (endpoint-independent mapping): direct links with all but symmetric NATs",
    NatKind.SYMMETRIC: "symmetric (each destination sees another port): most links need TURN",
    NatKind.UNKNOWN: "seen as {seen}; cone or symmetric, which takes two STUN servers to tell (discovery.stun)",
}
_ADVICE_NO_STUN = "have the discovery server answer STUN (discovery.stun), or name a server in ice.servers"


def _blocked(asked: int, relays: Collection[str]) -> Finding:
    text = "no answer over UDP from " + (f"any of {asked} servers" if asked > 1 else "the only server")
    if relays:
        advice = "let UDP out of this network, if you can: until then links go through TURN over TCP, which is slower"
        return warn("nat", text, advice, kind=NatKind.BLOCKED)
    advice = "let UDP out of this network, or have the operator set up TURN over TCP or TLS (docs/nat.md)"
    return fail("nat", text, advice, kind=NatKind.BLOCKED)


def _seen(reply: _Reply) -> dict[str, Any]:
    host, port = reply.seen or ("", 0)
    return {"family": reply.family, "host": host, "port": port, "seconds": round(reply.seconds, 4)}


# -- the socket ----------------------------------------------------------------------------------------------------


async def _ask_from_one_socket(of_family: str, servers: Sequence[tuple[IceUrl, Endpoint]]) -> list[_Reply]:
    """Ask all servers of a family at the same time."""
    try:
        transport, asker = await asyncio.get_running_loop().create_datagram_endpoint(
            _Asker, local_addr=(_ANY_ADDRESS[of_family], 0)
        )
    except OSError:  # the system has switched this family off
        return [_Reply(url, server) for url, server in servers]
    try:
        return await asyncio.gather(*(asker.ask(url, server) for url, server in servers))
    finally:
        transport.close()


class _Asker(asyncio.DatagramProtocol):
    """A socket that waits for the answers to any number of requests."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[Endpoint, asyncio.Future[Endpoint]]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast(asyncio.DatagramTransport, transport)  # of uvloop: it is none to isinstance

    async def ask(self, url: IceUrl, server: Endpoint) -> _Reply:
        """Send a request, again now and then, until the answer is here or the time is over."""
        transaction = secrets.token_bytes(TRANSACTION_SIZE)
        answer: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._waiting[transaction] = (server, answer)
        began = time.monotonic()
        sending = asyncio.create_task(self._send(encode_request(transaction), server))
        try:
            async with asyncio.timeout(STUN_TIMEOUT):
                seen = await answer
        except TimeoutError:
            return _Reply(url, server)
        finally:
            sending.cancel()
            del self._waiting[transaction]
        return _Reply(url, server, seen, time.monotonic() - began)

    async def _send(self, request: bytes, server: Endpoint) -> None:
        began = time.monotonic()
        for moment in RETRANSMISSIONS:
            await asyncio.sleep(began + moment - time.monotonic())
            self._transport.sendto(request, server)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Something came; whatever is not an answer to a request of ours is passed over."""
        transaction = data[8 : 8 + TRANSACTION_SIZE]
        server, answer = self._waiting.get(transaction, (None, None))
        if server is None or answer is None or answer.done() or server != tuple(addr[:2]):
            return
        try:
            mapped = decode_response(data, transaction)
        except RemoteProtocolError:
            return  # anybody can send such a thing: the server's own answer may still come
        answer.set_result((mapped.host, mapped.port))

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: no answer will come, and that is waited for anyway, since others share the socket."""
