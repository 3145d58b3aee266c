"""The other peers: whether there is trust, who is online, a real link to each, and a module there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from difflib import get_close_matches
from typing import Any

from bonevalue.diagnosis.findings import Doing, Finding, Verdict, fail, listed, milliseconds, not_tried, ok, warn
from bonevalue.errors import (
    BoneValueError,
    ClockSkew,
    ConnectFailed,
    ConnectReport,
    ContactConflict,
    Deadline,
    IdentityConflict,
    IdentityMismatch,
    LinkLimit,
    NotTrusted,
    PeerOffline,
    RateLimited,
    Unavailable,
)
from bonevalue.link import PathInfo
from bonevalue.peer import KnownContact, Peer, PeerEntry, Ping
from bonevalue.target import EVERYONE, OWN_ACCOUNT
from bonevalue.wire.refusals import plain

__all__ = ["examine_target"]

#: Seconds beyond `pool.connect_timeout` for the ping itself, and for asking what a peer serves.
ANSWER_TIMEOUT = 5.0
#: Aliases and modules that are listed at most.
MAX_LISTED = 8

#: What to do about a link that did not come about, where the error does not say it.
_LINK_ADVICE: dict[type[BoneValueError], str] = {
    ClockSkew: "set the clocks of both machines, and keep them right by NTP",
    ConnectFailed: "run bv doctor on the other machine, too",
    Deadline: "run bv doctor on the other machine, too",
    IdentityMismatch: "compare the fingerprints of bv trust list on both sides, by another channel: somebody lies",
    LinkLimit: "raise pool.max_incoming there, or have other peers let go of their links",
    NotTrusted: "make trust anew: bv token request here, bv token claim there",
    PeerOffline: "if it still runs, look at bv trust list there: trust must be on both sides",
    RateLimited: "wait; one side keeps the other away for a while because its peers broke the rules: see its log",
    Unavailable: "look at the discovery server",
}  # fmt: skip

_TRUST_ADVICE: dict[type[BoneValueError], str] = {
    ContactConflict: "end the trust (bv trust remove) and make it anew; if it happens again, the server lies",
    IdentityConflict: "end the trust (bv trust remove) and make it anew; if it happens again, the server lies",
    IdentityMismatch: "do not use this contact before you have compared fingerprints by another channel",
    NotTrusted: "take its fingerprint out of trust.refuse, if you do want to talk to it",
}


async def examine_target(peer: Peer, query: str, module: str | None, doing: Doing) -> AsyncIterator[Finding]:
    """
    Look at everything between this peer and others.

    Args:
        peer: ours, online.
        query: whom: ``*``, ``Us``, an alias or a peer id.
        module: the name of a module that each of them should serve.
        doing: told of each step.
    """
    trust = _examine_trust(peer, query)
    yield trust
    if trust.verdict is Verdict.FAIL:
        for check in _names(module, "presence", "link", "module"):
            yield not_tried(check, "no trust")
        return
    online = peer.get(query).peers()
    yield _examine_presence(query, online)
    if not online:
        for check in _names(module, "link", "module"):
            yield not_tried(check, "nobody to ask")
        return
    timeout = peer.settings.pool.connect_timeout + ANSWER_TIMEOUT
    doing(f"link: {listed(_label(each) for each in online[:MAX_LISTED])}")
    reached: list[PeerEntry] = []
    async for result in peer.get(query).ping(timeout=timeout):
        if result.error is None:
            reached.append(result.peer)
            yield _linked(result.peer, result.response)
        else:
            yield _not_linked(result.peer, result.error)
    if module is not None:
        for each in online:
            if each in reached:
                doing(f"module: {_label(each)}")
                yield await _examine_module(peer, each, module)
            else:
                yield not_tried("module", f"no link to {_label(each)}")


def _names(module: str | None, *checks: str) -> list[str]:
    return [check for check in checks if check != "module" or module is not None]


def _label(peer: PeerEntry) -> str:
    return f"{peer.name} {peer.id}"


# -- trust ---------------------------------------------------------------------------------------------------------


def _examine_trust(peer: Peer, query: str) -> Finding:
    contacts = {contact.name: contact for contact in peer.contacts()}
    if query == EVERYONE:
        return _trust_of_all(contacts)
    name = query.lower()
    if query.isdigit():
        entries = peer.get(query).peers()
        if not entries:
            advice = "see bv peers for who is online: a peer has another id after each start"
            return fail("trust", f"nobody to be seen has the id {query}", advice)
        name = entries[0].name.lower()
    if name == OWN_ACCOUNT.lower():
        return ok("trust", f"Us is one's own account, key {peer.fingerprint}", name="Us", fingerprint=peer.fingerprint)
    contact = contacts.get(name)
    if contact is None:
        return _unknown(name, list(contacts))
    if contact.problem is not None:
        code = contact.problem.code
        advice = _TRUST_ADVICE.get(type(contact.problem), "see bv trust list, and docs/security.md")
        return fail(
            "trust", f"{name} is not used: {code}: {plain(contact.problem.message)}", advice, name=name, code=code
        )
    return ok("trust", f"{name}, key {contact.fingerprint}", name=name, fingerprint=contact.fingerprint)


def _trust_of_all(contacts: dict[str, KnownContact]) -> Finding:
    refused = [contact for contact in contacts.values() if contact.problem is not None]
    good = len(contacts) - len(refused)
    text = f"{good} alias{'' if good == 1 else 'es'} beside one's own account"
    facts: dict[str, Any] = {"aliases": good, "refused": [contact.name for contact in refused]}
    if refused:
        names = listed(contact.name for contact in refused[:MAX_LISTED])
        return warn("trust", f"{text}; not used: {names}", "run bv doctor ALIAS for each of them", **facts)
    return ok("trust", text, **facts)


def _unknown(name: str, known: list[str]) -> Finding:
    near = get_close_matches(name, known, n=1)
    if near:
        return fail("trust", f"there is no alias {plain(name)}", f"write {near[0]}, if that is who you mean", name=name)
    there = f" (there is {listed(known[:MAX_LISTED])})" if known else ""
    advice = f"make trust: bv token request {plain(name)} here, and bv token claim on the other side"
    return fail("trust", f"there is no alias {plain(name)}{there}", advice, name=name)


# -- presence, links, modules --------------------------------------------------------------------------------------


def _examine_presence(query: str, online: list[PeerEntry]) -> Finding:
    facts = {"peers": [{"name": each.name, "id": each.id} for each in online]}
    if not online:
        advice = "start bv-run there; if it does run, bv doctor on that machine says why it is not logged in"
        return fail("presence", f"nobody is online under {plain(query)}", advice, **facts)
    more = f" and {len(online) - MAX_LISTED} more" if len(online) > MAX_LISTED else ""
    return ok("presence", f"online: {', '.join(_label(each) for each in online[:MAX_LISTED])}{more}", **facts)


def _facts_of(peer: PeerEntry) -> dict[str, Any]:
    return {"peer": {"name": peer.name, "id": peer.id}}


def _linked(peer: PeerEntry, ping: Ping) -> Finding:
    path: PathInfo | None = ping.path
    words = path.words if path is not None else "unknown path"
    return ok(
        "link",
        f"{_label(peer)}: {words} ({milliseconds(ping.round_trip)})",
        **_facts_of(peer),
        path=None if path is None else path.as_json(),
        roundTrip=ping.round_trip,
    )


def _not_linked(peer: PeerEntry, error: BoneValueError) -> Finding:
    facts = {**_facts_of(peer), "code": error.code}
    message, advice = error.message, _LINK_ADVICE.get(type(error), "look into the log of that peer")
    report = error.report if isinstance(error, ConnectFailed) else None
    if report is not None:
        facts["report"] = asdict(report)
        advice = report.advice or advice
        message = _without_servers(message, report)
    return fail("link", f"{_label(peer)}: {error.code}: {plain(message)}", advice, **facts)


def _without_servers(message: str, report: ConnectReport) -> str:
    """The message of an error without what stands elsewhere: the advice, and the servers with lines of their own."""
    tried, kinds = report.tried, replace(report, servers=()).tried
    said = message.removesuffix(report.advice).rstrip(" .").removesuffix(f"({tried})").rstrip()
    return f"{said} ({kinds})" if kinds else said


async def _examine_module(peer: Peer, other: PeerEntry, module: str) -> Finding:
    facts = {**_facts_of(other), "module": module}
    try:
        served = [each.name for each in await peer.get(other.id).modules(timeout=ANSWER_TIMEOUT)]
    except BoneValueError as error:
        advice = "look into the log of that peer"
        return fail("module", f"{_label(other)}: {error.code}: {plain(error.message)}", advice, **facts)
    if module in served:
        return ok("module", f"{_label(other)} serves {module} to you", **facts)
    own = [plain(name) for name in served if not name.startswith("bv.")]
    near = get_close_matches(module, own, n=1)
    text = f"{_label(other)} serves no {plain(module)} to you"
    if near:
        return fail("module", text, f"write {near[0]}, if that is what you mean", **facts)
    if own:
        text += f"; it serves {listed(own[:MAX_LISTED])}"
    advice = "list it under modules: in that peer's file, and look at its allow: it must have its name for you, or *"
    return fail("module", text, advice, **facts)
