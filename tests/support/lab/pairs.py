"""Two peers of accounts that trust each other, behind boxes of any kinds: for tests and benchmarks of NATs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.lab.caller import Caller, Outcome
from tests.support.lab.lab import Lab
from tests.support.lab.modules import COUNT, COUNT_MODULE
from tests.support.lab.rules import Kind
from tests.support.lab.turn import Coturn

__all__ = ["Pair", "acquaint", "pair_behind"]


def acquaint(lab: Lab, **keys: Any) -> Coturn:
    """
    Give a lab all that pairs need: coturn, and a discovery server with two accounts that trust each other.

    The server answers STUN and hands out credentials for coturn; the peers' files say nothing of either.

    Args:
        keys: further ones of the section ``discovery:``.
    """
    turn = lab.coturn()
    lab.discovery("alice", "bob", turn=turn.role(), **keys)
    one, other = lab.host("alice", "open"), lab.host("bob", "open")
    one.write()
    other.write()
    lab.befriend(one, other)
    return turn


@dataclass(frozen=True)
class Pair:
    """A caller of alice's; a daemon of bob's is somewhere else."""

    alice: Caller

    def first_calls(self, count: int) -> list[float]:
        """Seconds that each of so many calls took; every one needs a new link, for no link is kept."""
        options: dict[str, Any] = {"keep_alive": False, "timeout": 30}
        outcomes = [self.alice.call("bob", COUNT_MODULE, {"n": n}, **options) for n in range(count)]
        assert [outcome.succeeded() for outcome in outcomes] == [{"n": n, "for": "alice"} for n in range(count)]
        return [outcome.seconds for outcome in outcomes]

    def path(self) -> dict[str, str]:
        """The way from alice to bob."""
        path = self.alice.ping("bob").succeeded()["path"]
        assert isinstance(path, dict)
        return path

    def failure(self) -> Outcome:
        """How a call goes for which there is no way."""
        outcome = self.alice.call("bob", COUNT_MODULE, {"n": 0}, timeout=60)
        assert outcome.code == "connect_failed", outcome
        return outcome


@contextmanager
def pair_behind(lab: Lab, one: Kind, other: Kind, **sections: Any) -> Iterator[Pair]:
    """
    Two peers behind boxes of their own.

    Args:
        one: kind of the caller's box.
        other: kind of the other one's.
        sections: further ones of both settings files.
    """
    number = len(list(lab.folder.iterdir()))
    bob = lab.host(f"b{number}", other, account="bob")
    daemon = bob.daemon(modules=[bob.module("count", COUNT) + ".Count"], **sections)
    try:
        alice = lab.host(f"a{number}", one, account="alice").caller(**sections)
        try:
            yield Pair(alice)
        finally:
            alice.close()
    finally:
        daemon.stop()
