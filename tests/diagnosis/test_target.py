"""Other peers: trust, presence, links and modules, and what is advised about each that is not well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from bonevalue.descriptions import ModuleDescription
from bonevalue.diagnosis.findings import Finding, Verdict
from bonevalue.diagnosis.target import examine_target
from bonevalue.errors import (
    BoneValueError,
    ClockSkew,
    ConnectFailed,
    ConnectReport,
    ContactConflict,
    Deadline,
    HandlerFailed,
    IdentityMismatch,
    LinkLimit,
    NotTrusted,
    PeerOffline,
    RateLimited,
    ServerOutcome,
)
from bonevalue.link import PathInfo
from bonevalue.peer import KnownContact, Peer, PeerEntry, Ping, Result
from bonevalue.target import EVERYONE

BOB, BOB_TOO, OWN = PeerEntry("bob", "11"), PeerEntry("bob", "12"), PeerEntry("Us", "13")
GOOD = Ping(0.0123, PathInfo("srflx", "relay", "IPv4"))


class FakeTarget:
    """What a query means to a :class:`FakePeer`."""

    def __init__(self, peer: FakePeer, query: str) -> None:
        self._peer = peer
        self._query = query

    def peers(self) -> list[PeerEntry]:
        return [each for each in self._peer.links if self._query in (EVERYONE, each.name, each.id)]

    async def ping(self, *, timeout: float) -> AsyncIterator[Result]:
        assert timeout > self._peer.settings.pool.connect_timeout
        for each in self.peers():
            outcome = self._peer.links[each]
            failed = isinstance(outcome, BoneValueError)
            yield Result(each, error=outcome) if isinstance(outcome, BoneValueError) else Result(each, response=outcome)
            assert failed or isinstance(outcome, Ping)

    async def modules(self, *, timeout: float) -> list[ModuleDescription]:
        if isinstance(self._peer.served, BoneValueError):
            raise self._peer.served
        return [ModuleDescription(name, "", False, None, None) for name in ("bv.modules", *self._peer.served)]


class FakePeer:
    """
    A peer of which a test says everything.

    Args:
        links: who is online, and what becomes of a link to each.
        contacts: the aliases.
        served: the modules of each of them, or what becomes of asking.
    """

    fingerprint = "aaaa-bbbb"
    settings = SimpleNamespace(pool=SimpleNamespace(connect_timeout=20.0))

    def __init__(
        self,
        links: Mapping[PeerEntry, Ping | BoneValueError],
        *contacts: KnownContact,
        served: list[str] | BoneValueError | None = None,
    ) -> None:
        self.links = links
        self.served: list[str] | BoneValueError = served if served is not None else []
        self._contacts = contacts

    def contacts(self) -> list[KnownContact]:
        return list(self._contacts)

    def get(self, query: str) -> FakeTarget:
        return FakeTarget(self, query)


TRUSTED = KnownContact("bob", "cccc-dddd")


async def look(peer: FakePeer, query: str = "bob", module: str | None = None) -> dict[str, Finding]:
    """The findings, by what was checked; of several of a kind the last."""
    found = [each async for each in examine_target(cast(Peer, peer), query, module, lambda what: None)]
    return {each.check: each for each in found}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {check: finding.verdict.value for check, finding in found.items()}


async def test_all_is_well() -> None:
    found = await look(FakePeer({BOB: GOOD}, TRUSTED, served=["M"]), module="M")
    assert {check: finding.text for check, finding in found.items()} == {
        "trust": "bob, key cccc-dddd",
        "presence": "online: bob 11",
        "link": "bob 11: srflx to relay, IPv4 (12 ms)",
        "module": "bob 11 serves M to you",
    }
    assert {finding.advice for finding in found.values()} == {""}
    assert found["link"].facts["path"]["family"] == "IPv4"


async def test_letters_of_either_case() -> None:
    assert (await look(FakePeer({}, TRUSTED), "BOB"))["trust"].verdict is Verdict.OK
    assert (await look(FakePeer({}), "us"))["trust"].text == "Us is one's own account, key aaaa-bbbb"


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (ContactConflict("two keys"), "bv trust remove"),
        (NotTrusted("refused"), "trust.refuse"),
        (IdentityMismatch("forged"), "compare"),
        (BoneValueError("new"), "bv trust list"),
    ],
)
async def test_contacts_that_are_not_used(problem: BoneValueError, words: str) -> None:
    found = await look(FakePeer({BOB: GOOD}, KnownContact("bob", None, problem)), module="M")
    assert verdicts(found) == {"trust": "fail", "presence": "not_tried", "link": "not_tried", "module": "not_tried"}
    assert f"{problem.code}: {problem.message}" in found["trust"].text
    assert words in found["trust"].advice


async def test_everyone() -> None:
    found = await look(FakePeer({BOB: GOOD, OWN: GOOD}, TRUSTED), EVERYONE)
    assert verdicts(found) == {"trust": "ok", "presence": "ok", "link": "ok"}
    assert found["trust"].text == "1 alias beside one's own account"
    refused = KnownContact("eve", None, ContactConflict("two keys"))
    trust = (await look(FakePeer({}, TRUSTED, refused), EVERYONE))["trust"]
    assert (trust.verdict, trust.facts["refused"]) == (Verdict.WARN, ["eve"])


async def test_a_crowd_is_not_listed_whole() -> None:
    crowd = {PeerEntry("bob", str(number)): GOOD for number in range(100, 120)}
    presence = (await look(FakePeer(crowd, TRUSTED)))["presence"]
    assert presence.text.endswith("bob 107 and 12 more")
    assert len(presence.facts["peers"]) == 20


async def test_why_there_is_no_link() -> None:
    """What was tried on both sides and the one sentence of advice; each server has a line of its own elsewhere."""
    report = ConnectReport(
        "checking", ("host", "srflx"), ("host",), (ServerOutcome("turn:t", "no answer"),), "Set up a TURN server."
    )
    failed = ConnectFailed("no link to bob/11 within 20 s; it was looking for a path", report=report)
    link = (await look(FakePeer({BOB: failed}, TRUSTED)))["link"]
    assert link.verdict is Verdict.FAIL
    assert link.text == (
        "bob 11: connect_failed: no link to bob/11 within 20 s; it was looking for a path "
        "(ours: host, srflx; theirs: host)"
    )
    assert link.advice == "Set up a TURN server."
    assert link.facts["report"]["servers"] == ({"url": "turn:t", "outcome": "no answer"},)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ClockSkew("7 minutes"), "clocks of both machines"),
        (ConnectFailed("refused"), "bv doctor on the other machine"),
        (Deadline("late"), "bv doctor on the other machine"),
        (IdentityMismatch("forged"), "fingerprints"),
        (LinkLimit("full"), "pool.max_incoming"),
        (NotTrusted("gone"), "make trust anew"),
        (PeerOffline("gone"), "bv trust list there"),
        (RateLimited("wait"), "see its log"),
        (HandlerFailed("odd"), "the log of that peer"),
    ],
)
async def test_advice_about_links(error: BoneValueError, words: str) -> None:
    found = await look(FakePeer({BOB: error}, TRUSTED), module="M")
    assert verdicts(found) == {"trust": "ok", "presence": "ok", "link": "fail", "module": "not_tried"}
    assert f"bob 11: {error.code}: {error.message}" == found["link"].text
    assert words.lower() in found["link"].advice.lower()


async def test_one_of_two_peers_is_reached() -> None:
    peer = FakePeer({BOB: GOOD, BOB_TOO: Deadline("late")}, TRUSTED, served=["M"])
    found = [each async for each in examine_target(cast(Peer, peer), "bob", "M", lambda what: None)]
    assert [(each.check, each.verdict.value) for each in found][2:] == [
        ("link", "ok"), ("link", "fail"), ("module", "ok"), ("module", "not_tried"),
    ]  # fmt: skip
    assert found[-1].text == "not tried: no link to bob 12"


@pytest.mark.parametrize(
    ("served", "text", "advice"),
    [
        (["My.Echo"], "bob 11 serves no My.Ecko to you", "Write My.Echo, if"),
        (["Other"], "bob 11 serves no My.Ecko to you; it serves Other", "look at its allow"),
        ([], "bob 11 serves no My.Ecko to you", "look at its allow"),
        (Deadline("late"), "bob 11: deadline: late", "the log of that peer"),
    ],
)
async def test_modules_that_are_not_served(served: list[str] | BoneValueError, text: str, advice: str) -> None:
    module = (await look(FakePeer({BOB: GOOD}, TRUSTED, served=served), module="My.Ecko"))["module"]
    assert (module.verdict, module.text) == (Verdict.FAIL, text)
    assert advice in module.advice
