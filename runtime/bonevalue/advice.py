"""What to do about an attempt to connect that came to nothing, in one sentence, from the facts of the attempt."""

from __future__ import annotations

from collections.abc import Callable

from bonevalue.errors import ConnectReport, ServerOutcome
from bonevalue.ice_url import parse_ice_url
from bonevalue.link import Tried

__all__ = ["advice_for", "report_of"]


def report_of(phase: str, tried: Tried | None) -> ConnectReport:
    """
    The report of an attempt.

    Args:
        phase: how far it had come, in the words of :class:`bonevalue.errors.ConnectReport`.
        tried: what was tried, None if it did not come so far as to try anything.
    """
    tried = tried or Tried()
    return ConnectReport(phase, tried.ours, tried.theirs, tried.servers, advice_for(phase, tried))


def advice_for(phase: str, tried: Tried) -> str:
    """One sentence that says what to do; see :func:`report_of`."""
    if phase == "gathering":
        return _no_candidates(tried)
    if phase == "checking":
        return _no_path(tried)
    return _OTHERS.get(phase, "Try again, and see what `bv doctor` says about that peer.")


_OTHERS = {
    "relay": "The discovery server did not take the request in time: see what `bv doctor` says about it.",
    "answer": (
        "The other peer got the request and did not answer: it may be frozen, overloaded, or just gone; look into its "
        "log."
    ),
    "dtls": (
        "Packets of both sides arrive, but the handshake did not end: try again, and if it stays so, look for a VPN or "
        "tunnel on the way that loses packets of more than 1200 bytes."
    ),
    "proof": "The other peer did not prove who it is in time: it may be overloaded; look into its log, and try again.",
}
_TURN_WANTED = "set discovery.turn on the discovery server, or ice.servers here (docs/nat.md)"


def _no_candidates(tried: Tried) -> str:
    if not tried.relay_only:
        return "Connect this machine to a network: it has no address."
    if (failed := _first_failed(tried, "turn")) is not None:
        remedy = _remedy(failed)
        return f"{remedy[0].upper()}{remedy[1:]}."
    return f"Let this peer know a TURN server, or set ice.policy to all: {_TURN_WANTED}."


def _no_path(tried: Tried) -> str:
    has_relay = "relay" in tried.ours or "relay" in tried.theirs
    turn_failed = _first_failed(tried, "turn")
    if not tried.theirs:
        return "The other peer told no address at which it can be reached: run `bv doctor` there."
    if not tried.families_meet:
        return f"One side has only IPv4 and the other only IPv6, which needs a TURN server: {_TURN_WANTED}."
    if turn_failed is not None and "relay" not in tried.ours:
        return f"There is no direct way, and no relay on this side: {_remedy(turn_failed)}."
    if has_relay:
        return (
            "Not even a relay got through: look into the log of the TURN server, which may deny the other peer's "
            "address or have its relay ports closed."
        )
    if _is_udp_blocked(tried):
        return f"UDP seems to be blocked here, so a TURN server over TCP or TLS is needed: {_TURN_WANTED}."
    return f"There is no direct way between the two networks, which needs a TURN server: {_TURN_WANTED}."


def _is_udp_blocked(tried: Tried) -> bool:
    stuns = [server for server in tried.servers if server.url.startswith("stun:")]
    return bool(stuns) and "srflx" not in tried.ours and not any(server.ok for server in stuns)


def _first_failed(tried: Tried, scheme: str) -> ServerOutcome | None:
    return next((server for server in tried.servers if server.url.startswith(scheme) and not server.ok), None)


def _remedy(server: ServerOutcome) -> str:
    """What to do about a TURN server, in words that complete a sentence."""
    return next(remedy for beginning, remedy in _REMEDIES if server.outcome.startswith(beginning))(server)


def _open_port(server: ServerOutcome) -> str:
    try:
        url = parse_ice_url(server.url)
    except ValueError:
        return f"check {server.url}"
    way = "UDP" if url.transport == "udp" else "TCP"
    return f"check that {server.url} runs, and that firewalls let {way} port {url.port} through"


_REMEDIES: tuple[tuple[str, Callable[[ServerOutcome], str]], ...] = (
    ("refused: 486", lambda server: f"{server.url} has given this account all the relays it may have: raise its quota"),
    ("refused: 508", lambda server: f"{server.url} has no relay left: raise its quota or its range of ports"),
    ("refused: 4", lambda server: f"check the username and credential for {server.url}, and the clock of that server"),
    ("refused", lambda server: f"look into the log of {server.url}"),
    ("name not known", lambda server: f"check the name in {server.url}, and the DNS of this machine"),
    ("its certificate", lambda server: f"get {server.url} a certificate for that name from an authority known here"),
    ("left out: its cred", lambda server: f"see why the discovery server gives no newer credential for {server.url}"),
    ("left out: it ", lambda server: f"correct {server.url}, which {server.outcome.removeprefix('left out: it ')}"),
    ("", _open_port),
)
