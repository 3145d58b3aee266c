"""`bv peers --links`: the links of one's own peers, which answer what they like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bonevalue.cli import peers
from bonevalue.results import Result
from bonevalue.wire.signals import PeerEntry
from tests.cli.conftest import Bv
from tests.support.processes import peer_role, write_yaml

PATH = {"local": "host", "remote": "srflx", "family": "IPv4", "relay": ""}
LINK: dict[str, Any] = {
    "peer": {"name": "bob", "id": "5"}, "dialled": True, "state": "open", "seconds": 61.5, "fingerprint": "aaaa-bbbb",
    "path": PATH, "roundTrip": 0.0123, "calls": 2,
    "agent": "BoneValue", "doubted": True,
}  # fmt: skip
BEGUN = LINK | {
    "peer": {"name": "", "id": "6"},
    "state": "checking",
    "path": None,
    "roundTrip": None,
    "fingerprint": None,
}
OWN = LINK | {"peer": {"name": "Us", "id": "1"}}


@pytest.fixture
def answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the peers of one's account answer, each in its turn."""
    write_yaml(folder / "bonevalue.yaml", peer_role(8123))
    answers: list[Any] = []

    async def call_all(module: str, *, keep_alive: bool) -> AsyncIterator[Result]:
        assert module == "bv.links"
        for number, answer in enumerate(answers, 2):
            yield Result(PeerEntry("Us", str(number)), response=answer)

    @asynccontextmanager
    async def joined(settings: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(id="1", get=lambda target: SimpleNamespace(call_all=call_all))

    monkeypatch.setattr(peers, "joined", joined)
    return answers


def test_for_people(bv: Bv, answers: list[Any]) -> None:
    answers += [[LINK, OWN, BEGUN], []]
    first, open_link, checking, last = bv("peers", "--links").stdout.splitlines()
    assert first.split() == ["Us", "2"] and last.split() == ["Us", "3", "no", "links"]
    for part in ("bob 5", "outgoing", "open, doubted for 62 s", "host to srflx, IPv4", "12.3 ms", "2 calls"):
        assert part in open_link
    assert checking.split()[:2] == ["somebody", "6"] and "no path" in checking


def test_for_programs(bv: Bv, answers: list[Any]) -> None:
    answers.append([LINK, OWN, BEGUN])
    (line,) = bv("peers", "--links", "--json").stdout.splitlines()
    assert json.loads(line)["links"] == [LINK, BEGUN]


@pytest.mark.parametrize(
    "odd",
    [
        7,
        None,
        {},
        [7],
        [{}],
        [LINK | {"path": {"evil": 1}}],
        [LINK | {"seconds": "x"}],
        [LINK | {"roundTrip": "1"}],
        [LINK | {"peer": {"name": "x"}}],
        b"raw",
    ],
)
def test_a_peer_that_talks_nonsense_does_not_hide_the_others(bv: Bv, answers: list[Any], odd: Any) -> None:
    answers += [odd, [LINK]]
    told = bv("peers", "--links")
    assert told.code == 1 and "not an answer of bv.links" in told.stderr and "Traceback" not in told.stderr
    assert "bob 5" in told.stdout


def test_nothing_that_a_peer_says_acts_on_a_terminal(bv: Bv, answers: list[Any]) -> None:
    evil = "1\x1b]0;pwned\x07\x1b[31m"
    answers.append([LINK | {"peer": {"name": evil, "id": evil}, "state": evil, "path": PATH | {"local": evil}}])
    out = bv("peers", "--links").stdout
    assert "pwned" in out and "\x1b" not in out and "\x07" not in out
