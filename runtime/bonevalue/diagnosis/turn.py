"""Trying TURN servers: a real allocation with the credential that links would use, given back at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bonevalue.diagnosis.endpoints import written
from bonevalue.diagnosis.findings import Finding, fail, milliseconds, ok, span
from bonevalue.ice_servers import NAME_NOT_KNOWN, NO_ANSWER, allocate
from bonevalue.ice_url import IceUrl
from bonevalue.link import IceConfig
from bonevalue.relay import Login, ServerFailed

__all__ = ["TURN_TIMEOUT", "TurnServer", "examine_turn"]

#: Seconds that a server has for its name and an allocation.
TURN_TIMEOUT = 5.0

_WRONG_CREDENTIAL = (
    "check username and credential of an own server; for one handed out, that discovery.turn has coturn's "
    "static-auth-secret and that both clocks are right"
)
#: What to do about a refusal, by its code (RFC 8489 section 14.8, RFC 8656 section 19).
_ADVICE = {
    401: _WRONG_CREDENTIAL,
    403: "allow this machine's address in the configuration of the TURN server",
    441: _WRONG_CREDENTIAL,
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

    Args:
        servers: the URLs to try.
        config: how names are looked up, and certificates checked.
    """
    return await asyncio.gather(*(_examine(server, config) for server in servers))


async def _examine(server: TurnServer, config: IceConfig) -> Finding:
    url = server.url
    began = time.monotonic()
    try:
        async with asyncio.timeout(TURN_TIMEOUT):
            relay = await allocate(url, server.login, config)
    except TimeoutError:
        return fail("turn", f"{url.text}: {NO_ANSWER}", _advice(url, None, NO_ANSWER), url=url.text)
    except ServerFailed as error:
        advice = _advice(url, error.code, error.reason)
        return fail("turn", f"{url.text}: {error.reason}", advice, url=url.text, refused=error.code)
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
        relayed=list(relayed),
        seconds=round(seconds, 4),
        expiresIn=None if left is None else round(left),
    )


def _advice(url: IceUrl, code: int | None, reason: str) -> str:
    if code is not None:
        return _ADVICE.get(code, "look into the log of the TURN server")
    if reason == NAME_NOT_KNOWN:
        return "correct the name in the URL, or in the DNS that this machine asks"
    if "certificate" in reason:
        return "get a valid certificate for that name"
    kind = "UDP" if url.transport == "udp" else "TCP"
    return f"check that it runs, and that the firewalls between let {kind} port {url.port} through"
