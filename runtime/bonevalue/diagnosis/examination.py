"""
The whole examination: settings first, then the server, then this machine's network, then the other peer.

What comes first is what the rest needs; where something fails, all that does not depend on it is looked at all the
same: a server that is down does not hide that UDP is blocked as well.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from ipaddress import ip_address

from bonevalue.config import Address, PeerSettings
from bonevalue.diagnosis.findings import (
    OF_A_TARGET,
    Doing,
    Finding,
    fail,
    listed,
    milliseconds,
    not_tried,
    ok,
    steps_of,
    warn,
)
from bonevalue.diagnosis.server import ServerExamination
from bonevalue.diagnosis.stun import StunSurvey
from bonevalue.diagnosis.target import examine_target
from bonevalue.diagnosis.turn import TurnServer, examine_turn, relays_of
from bonevalue.errors import (
    BoneValueError,
    LoginRefused,
    RateLimited,
    Replaced,
    ServerUnreachable,
    TooManyPeers,
    Unavailable,
)
from bonevalue.ice_url import IceUrl, parse_ice_url
from bonevalue.link import IceConfig
from bonevalue.network import own_addresses
from bonevalue.peer import Peer
from bonevalue.relay import Login
from bonevalue.wire.refusals import plain

__all__ = ["examine"]

_NO_LOGIN = "there is no login"
#: What links are made from on a machine that has no other address.
LOOPBACK = ("127.0.0.1", "::1")

_LOGIN_ADVICE: dict[type[BoneValueError], str] = {
    LoginRefused: "check username and password in credentials, and that the account exists on that server",
    RateLimited: "wait a minute: too many logins came from here",
    Replaced: "run it again; another process took this peer's id over",
    ServerUnreachable: "run it again in a minute; if it stays so, look into the log of the discovery server",
    TooManyPeers: "stop peers of this account that are not needed: it has as many as it may",
    Unavailable: "look into the log of the discovery server: it cannot serve anybody now",
}  # fmt: skip


async def examine(
    settings: PeerSettings, *, target: str | None = None, module: str | None = None, doing: Doing = lambda what: None
) -> AsyncGenerator[Finding, None]:
    """
    Look at everything that a link needs, and give each finding as soon as it is known.

    A peer is logged in for it, invisible, which makes links but serves nothing.

    Args:
        settings: of the peer that cannot reach another.
        target: whom it cannot reach: ``*``, ``Us``, an alias or a peer id; None for nobody in particular.
        module: the name of a module that the target should serve.
        doing: told what is being tried.
    """
    server = ServerExamination(settings.server)
    async for finding in server.findings(doing):
        yield finding
    peer = Peer.from_settings(settings, visible=False)
    try:
        if server.broken:
            yield not_tried("login", server.broken)
        else:
            doing("login")
            yield await _log_in(peer)
        async for finding in _examine_network(peer, server, doing):
            yield finding
        if target is not None and peer.is_online:
            async for finding in examine_target(peer, target, module, doing):
                yield finding
        elif target is not None:
            for check in steps_of(target, module):
                if check in OF_A_TARGET:
                    yield not_tried(check, _NO_LOGIN)
    finally:
        await peer.stop()


async def _log_in(peer: Peer) -> Finding:
    began = time.monotonic()
    try:
        await peer.start()
    except BoneValueError as error:
        await peer.stop()  # it would try again, and be online in the middle of the rest
        advice = _LOGIN_ADVICE.get(type(error), "see docs/errors.md for this code")
        return fail("login", f"{peer.name}: {error.code}: {plain(error.message)}", advice, code=error.code)
    seconds = time.monotonic() - began
    text = f"{peer.name}, key {peer.fingerprint} ({milliseconds(seconds)})"
    return ok("login", text, username=peer.name, fingerprint=peer.fingerprint, seconds=round(seconds, 3))


# -- this machine's network ----------------------------------------------------------------------------------------


async def _examine_network(peer: Peer, server: ServerExamination, doing: Doing) -> AsyncIterator[Finding]:
    """The machine's addresses, and the STUN and TURN servers that links would use."""
    try:
        own = sorted(own_addresses(), key=lambda address: (ip_address(address).version, address))
    except OSError as error:
        own = []
        yield warn("network", f"the system does not tell its addresses: {error}", "run it on the machine itself")
    else:
        yield _judge_addresses(own, Address.parse(peer.settings.server.address))
    stun, turn = _servers(peer, server.ahead)
    if not stun and not turn and not peer.is_online:
        for check in ("stun", "nat", "turn"):
            yield not_tried(check, f"{_NO_LOGIN}, and the settings name no server")
        return
    doing("stun and turn")
    relay_only = peer.settings.ice.policy == "relay"
    others = [each.url for each in turn if each.url.transport == "udp"]
    survey = StunSurvey([], [], ()) if relay_only else StunSurvey(stun, others, own or LOOPBACK)
    # At the same time: what is told of the NAT depends on whether there is a relay to fall back on.
    trials, _ = await asyncio.gather(examine_turn(turn, IceConfig(tls=_trusted(peer.settings))), survey.ask())
    if relay_only:
        yield ok("stun", "not used: ice.policy is relay")
    else:
        for finding in (*survey.findings(), *survey.nat_findings(relays_of(trials))):
            yield finding
    for trial in trials:
        yield trial
    if not trials:
        yield _no_turn(relay_only=relay_only, online=peer.is_online)


def _judge_addresses(own: list[str], address: Address) -> Finding:
    if own:
        return ok("network", f"this machine is {listed(own)}", addresses=own)
    if address.is_loopback:
        return ok("network", "no address but loopback: only peers on this machine can be reached", addresses=own)
    advice = "bring an interface up: ip address shows none that others could reach"
    return fail("network", "no address but loopback", advice, addresses=own)


def _servers(peer: Peer, ahead: float) -> tuple[list[IceUrl], list[TurnServer]]:
    """The STUN and TURN servers to try; URLs that this program cannot use are not among them."""
    stun: dict[IceUrl, None] = {}  # for its order
    turn: list[TurnServer] = []
    now = time.time() - ahead
    for server in peer.ice_servers:
        left = None if server.expires is None else server.expires / 1000 - now
        for text in server.urls:
            try:
                url = parse_ice_url(text)
            except ValueError:
                continue
            if url.is_stun:
                stun[url] = None
            else:
                turn.append(TurnServer(url, Login(server.username, server.credential), left))
    return list(stun), turn


def _trusted(settings: PeerSettings) -> ssl.SSLContext | None:
    """What certificates of TURN servers are checked with; None for the system's authorities alone."""
    context = ssl.create_default_context()
    try:
        if settings.server.ca_file is not None:
            context.load_verify_locations(settings.server.ca_file)
    except OSError:  # ssl.SSLError is one
        return None  # the line of the discovery server's TLS says what is wrong with the file
    return context


def _no_turn(*, relay_only: bool, online: bool) -> Finding:
    where = "" if online else " in ice.servers"
    if relay_only:
        advice = "name a TURN server in ice.servers or discovery.turn, or set ice.policy to all"
        return fail("turn", f"no server{where}, and ice.policy is relay", advice)
    return ok("turn", f"no server{where}; peers behind symmetric NATs, or without UDP, may be out of reach")
