"""`bv trust list`: what it says of contacts that are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from bonevalue.cli import trust
from bonevalue.errors import IdentityMismatch, NotTrusted
from tests.cli.conftest import Bv
from tests.support.processes import peer_role, write_yaml

CONTACTS = [
    SimpleNamespace(name="alice", fingerprint="aaaa-bbbb", problem=None),
    SimpleNamespace(name="bob", fingerprint=None, problem=IdentityMismatch("the server says\x1b[2J another key")),
    SimpleNamespace(name="carol", fingerprint=None, problem=NotTrusted("its key is refused by trust.refuse")),
]


@pytest.fixture(autouse=True)
def contacts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command finds a peer with these contacts."""
    write_yaml(folder / "bonevalue.yaml", peer_role(8123))

    @asynccontextmanager
    async def joined(settings: object) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(fingerprint="cccc-dddd", contacts=lambda: CONTACTS)

    monkeypatch.setattr(trust, "joined", joined)


def test_for_people(bv: Bv) -> None:
    us, alice, bob, carol = bv("trust", "list").stdout.splitlines()
    assert us.split()[:2] == ["Us", "cccc-dddd"]
    assert alice.split() == ["alice", "aaaa-bbbb", "ok"]
    assert "refused: identity_mismatch: the server says\\u001b[2J another key; ask bob over another channel" in bob
    assert carol.endswith("refused: not_trusted: its key is refused by trust.refuse")


def test_for_programs(bv: Bv) -> None:
    us, alice, bob, carol = bv("trust", "list", "--json").json
    assert us == {"name": "Us", "fingerprint": "cccc-dddd", "state": "self"}
    assert alice == {"name": "alice", "fingerprint": "aaaa-bbbb", "state": "ok"}
    assert (bob["state"], bob["error"]["code"]) == ("refused", "identity_mismatch")
    assert (carol["state"], carol["error"]["code"]) == ("refused", "not_trusted")
