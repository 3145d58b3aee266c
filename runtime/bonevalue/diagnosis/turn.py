"""Trying TURN servers: a real allocation with the credential that links would use, given back at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bonevalue.diagnosis.endpoints import written
from bonevalue.diagnosis.findings import Finding, Verdict, fail, milliseconds, ok, span
from bonevalue.ice_servers import NAME_NOT_KNOWN, allocate
from bonevalue.ice_url import IceUrl
from bonevalue.link import IceConfig
from bonevalue.relay import NO_ANSWER, Login, ServerFailed

__all__ = ["TURN_TIMEOUT", "TurnServer", "examine_turn", "relays_of"]

#: Seconds that a server has for its name and an allocation.
TURN_TIMEOUT = 5.0

#: Codes of a credential that is wrong or has expired (RFC 8489 section 14.8, RFC 8656 section 19).
_CREDENTIAL = (401, 441)
#: What to do about other refusals.
_ADVICE = {
    403: "allow this machine's address in the configuration of the TURN server",
    486: "wait until other links of this account have ended, or raise the server's user-quota",
    508: "raise the server's total-quota, or widen the range of its relay ports",
}


@dataclass(frozen=True, slots=True)
class TurnServer:
    """
    One URL with the credential for it.

    Args:
        url: where it is.
        login: for it.
        seconds_left: until that expires; None for never.
    """

    url: IceUrl
    login: Login
    seconds_left: float | None = None


async def examine_turn(servers: Sequence[TurnServer], config: IceConfig) -> list[Finding]:
    """
    A finding for each of them; all are asked at the same time.

    One that does not answer is no more than a warning if another works: there may be networks that let only that one
    through. A credential that is refused is a fault everywhere.

    Args:
        servers: the URLs to try.
        config: how names are looked up, and certificates checked.
    """
    findings = await asyncio.gather(*(_examine(server, config) for server in servers))
    if any(finding.verdict is Verdict.OK for finding in findings):
        return [_softened(finding) for finding in findings]
    return list(findings)


def relays_of(findings: Iterable[Finding]) -> frozenset[str]:
    """The ways to a relay that work: some of ``udp``, ``tcp``, ``tls``."""
    return frozenset(finding.facts["transport"] for finding in findings if finding.verdict is Verdict.OK)


def _softened(finding: Finding) -> Finding:
    if finding.verdict is Verdict.FAIL and finding.facts["refused"] is None:
        return replace(finding, verdict=Verdict.WARN)
    return finding


async def _examine(server: TurnServer, config: IceConfig) -> Finding:
    url = server.url
    began = time.monotonic()
    try:
        async with asyncio.timeout(TURN_TIMEOUT):
            relay = await allocate(url, server.login, config)
    except TimeoutError:
        return _failed(server, ServerFailed(NO_ANSWER))
    except ServerFailed as error:
        return _failed(server, error)
    seconds = time.monotonic() - began
    relayed = relay.address
    relay.close()
    await relay.closed()
    left = server.seconds_left
    text = f"{url.text} relays at {written(relayed)} ({milliseconds(seconds)})"
    return ok(
        "turn",
        text if left is None else f"{text}, credential good for {span(left)} more",
        url=url.text,
        transport=url.transport,
        relayed=list(relayed),
        seconds=round(seconds, 4),
        expiresIn=None if left is None else round(left),
    )


def _failed(server: TurnServer, error: ServerFailed) -> Finding:
    url = server.url
    facts = {"url": url.text, "transport": url.transport, "refused": error.code}
    return fail("turn", f"{url.text}: {error.reason}", _advice(server, error), **facts)


def _advice(server: TurnServer, error: ServerFailed) -> str:
    if error.code in _CREDENTIAL:
        if server.seconds_left is None:
            return "check username and credential in ice.servers"
        return (
            "have the operator compare discovery.turn.secret with coturn's static-auth-secret, and the clocks of both "
            "servers"
        )
    if error.code is not None:
        return _ADVICE.get(error.code, "look into the log of the TURN server")
    if error.reason == NAME_NOT_KNOWN:
        return "correct the name in the URL, or in the DNS that this machine asks"
    if "nobody listens" in error.reason:
        return "start the TURN server there, or correct host and port in the URL"
    if "certificate" in error.reason:
        return "get a valid certificate for that name"
    kind = "UDP" if server.url.transport == "udp" else "TCP"
    return f"check that it runs, and that the firewalls between let {kind} port {server.url.port} through"
