"""
What signatures cost a connection, on each side: making and checking offer, answer and the two confirms.

``cpu_ms_caller`` and ``cpu_ms_callee`` are all that :class:`~bonevalue.wire.introductions.Introductions` does for one
connection; without signatures there would be none of it. They are measured twice in one run: by themselves
(``introduction``), and where they happen, in connections over aiortc from nothing until both sides are proved
(``connection``). Such connections are made in three ways by turns: with signatures, without, and without but with the
limit spent on each side in their place. The last is what the first must not exceed: with both sides in one event loop,
whatever keeps it busy costs more than its own time. CPU time, medians. Prints one JSON object a line::

    python benchmarks/connection_signatures.py
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import random
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

import uvloop

from bonevalue.host import Host
from bonevalue.life import LinkLife, State
from bonevalue.link import IceConfig
from bonevalue.module import Caller
from bonevalue.peer_link import PeerLink
from bonevalue.rtc import RtcEngine
from bonevalue.wire.blobs import Pin
from bonevalue.wire.calls import LinkSettings, Proof
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.introductions import Introductions
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.signals import Binary, Contact, SignedBlob

#: Introductions, connections of each kind, and what is done before it counts. A key has 2048 in ten minutes.
ROUNDS, CONNECTIONS, WARM_UP = 1000, 100, 20
#: The most that signatures may cost one side, in ms of CPU time.
LIMIT_MS = 1.0
#: Contacts of each side.
CONTACTS = 100

Result = TypeVar("Result")
Describe: TypeAlias = Callable[[], Awaitable[str]]
Answer: TypeAlias = Callable[[str], Awaitable[str]]


def keys_of(name: str) -> AccountKeys:
    """The keys of an account, without a password."""
    return AccountKeys.from_stretched(hashlib.sha256(name.encode()).digest())


def now_ms() -> int:
    """The time of day."""
    return time.time_ns() // 1_000_000


@dataclass
class Side:
    """One of the two peers, and the seconds of CPU time that each introduction cost it."""

    peer_id: str
    other: str
    introductions: Introductions
    costs: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, peer_id: str, other: str) -> Side:
        """A peer of an account that trusts the other and many more."""
        keys = keys_of(name)
        contacts = []
        for alias in (other, *(f"contact{number}" for number in range(CONTACTS - 1))):
            key = keys_of(alias).public
            pin = Pin(keys.public, key, alias, now_ms()).encode()
            contacts.append(Contact(alias, Binary(key), [SignedBlob(Binary(pin), [Binary(keys.sign(pin))])]))
        book = ContactBook(keys)
        book.replace(contacts, now_ms())
        introductions = Introductions(keys, book, secrets.token_bytes(16))
        introductions.peer_id = peer_id
        return cls(peer_id, other, introductions)

    def begin(self) -> None:
        """Another introduction."""
        self.costs.append(0.0)

    def does(self, step: Callable[[], Result]) -> Result:
        """Take a step of the introduction."""
        before = time.process_time()
        result = step()
        self.costs[-1] += time.process_time() - before
        return result

    @property
    def cost_ms(self) -> float:
        """The median of what it cost, the warm-up left out."""
        return statistics.median(self.costs[WARM_UP:]) * 1000


@dataclass
class Sides:
    """Caller and callee."""

    caller: Side
    callee: Side

    @classmethod
    def make(cls) -> Sides:
        """Two peers that trust each other."""
        return cls(Side.of("alice", "1", "bob"), Side.of("bob", "2", "alice"))

    async def introduce(self, offer: Describe, answer: Answer) -> tuple[str, Proof, Proof]:
        """
        All of it but that the two check each other's proof.

        Args:
            offer: gives the caller's description.
            answer: gives the callee's, of the caller's.

        Returns:
            The callee's description, and the proofs of caller and callee.
        """
        caller, callee = self.caller, self.callee
        caller.begin()
        callee.begin()
        session, sdp, now = secrets.token_bytes(16), await offer(), now_ms()
        outgoing = caller.does(lambda: caller.introductions.make_offer(session, callee.peer_id, caller.other, sdp, now))
        incoming = callee.does(
            lambda: callee.introductions.receive_offer(
                caller.peer_id, callee.other, outgoing.blob, outgoing.signature, now
            )
        )
        theirs = await answer(incoming.sdp)
        blob, signature, their_proof = callee.does(lambda: callee.introductions.make_answer(incoming, theirs, now))
        answered, our_proof = caller.does(
            lambda: caller.introductions.receive_answer(outgoing, callee.peer_id, blob, signature, now)
        )
        return answered, Measured(caller, our_proof), Measured(callee, their_proof)

    def costs(self) -> dict[str, float]:
        """What it cost the two, in ms."""
        return {"cpu_ms_caller": round(self.caller.cost_ms, 3), "cpu_ms_callee": round(self.callee.cost_ms, 3)}


class Measured:
    """A proof whose check is counted as its side's."""

    def __init__(self, side: Side, proof: Proof) -> None:
        self.mine = proof.mine
        self._side = side
        self._proof = proof

    def accepts(self, signature: bytes) -> bool:
        """Whether the other side's signature is right."""
        return self._side.does(lambda: self._proof.accepts(signature))


class Unsigned:
    """The proof of a connection without signatures."""

    mine = bytes(64)

    def accepts(self, signature: bytes) -> bool:
        """Whether the other side sent anything."""
        return signature == self.mine


def spend(seconds: float) -> None:
    """Do nothing, busily."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


async def connect(sides: Sides | None, *, limit: float = 0.0) -> float:
    """
    A connection from nothing until both sides are proved; gives the CPU time of both together, in ms.

    Args:
        sides: who sign; None for a connection without signatures.
        limit: seconds that each side then spends in their place.
    """
    engine, host = RtcEngine(), Host(LinkSettings())
    before = time.process_time()
    ours, theirs = engine.connection(IceConfig()), engine.connection(IceConfig())
    proofs: list[Proof] = [Unsigned(), Unsigned()]
    if sides is None:
        offer = await ours.create_offer()
        spend(limit)
        answer = await theirs.accept_offer(offer)
        spend(limit)
    else:
        answer, *proofs = await sides.introduce(ours.create_offer, theirs.accept_offer)
    await ours.accept_answer(answer)
    links = [
        PeerLink(
            await connection.opened(),
            connection,
            Caller(name="", id=str(number), key=bytes(32), fingerprint=""),
            proof,
            LinkLife(str(number), dialled=connection is ours, state=State.PROOF),
            offerer=connection is ours,
            host=host,
            idle_timeout=60,
            on_closed=lambda _: None,
            on_idle=lambda _: None,
        )
        for number, (connection, proof) in enumerate(zip((ours, theirs), proofs, strict=True))
    ]
    await asyncio.gather(*(link.prove() for link in links))
    cost = time.process_time() - before
    for link in links:
        link.close()
    await asyncio.gather(ours.close(), theirs.close())
    return cost * 1000


def report(what: str, *, met: bool, **values: float) -> None:
    """Print one line."""
    line = {"benchmark": f"connection_signatures.{what}", **values, "limit_ms": LIMIT_MS, "met": met}
    print(json.dumps({**line, "python": platform.python_version(), "machine": platform.machine()}), flush=True)  # noqa: T201


async def run() -> None:
    """Measure, and print the lines."""
    ours, theirs = RtcEngine().connection(IceConfig()), RtcEngine().connection(IceConfig())
    offer = await ours.create_offer()
    answer = await theirs.accept_offer(offer)
    await asyncio.gather(ours.close(), theirs.close())

    async def make_offer() -> str:
        return offer

    async def make_answer(_: str) -> str:
        return answer

    sides = Sides.make()
    for _ in range(WARM_UP + ROUNDS):
        _, one, other = await sides.introduce(make_offer, make_answer)
        if not (one.accepts(other.mine) and other.accepts(one.mine)):
            raise RuntimeError("the proofs do not fit")
    costs = sides.costs()
    report("introduction", met=max(costs.values()) <= LIMIT_MS, rounds=ROUNDS, sdp_bytes=len(offer), **costs)

    sides = Sides.make()
    kinds = {
        "with": partial(connect, sides),
        "without": partial(connect, None),
        "limit": partial(connect, None, limit=LIMIT_MS / 1000),
    }
    totals: dict[str, list[float]] = {kind: [] for kind in kinds}
    order = list(kinds)
    for _ in range(WARM_UP + CONNECTIONS):
        random.shuffle(order)  # what one leaves to be tidied up is paid by the next
        for kind in order:
            totals[kind].append(await kinds[kind]())
    medians = {kind: statistics.median(values[WARM_UP:]) / 2 for kind, values in totals.items()}
    report(
        "connection",
        met=medians["with"] <= medians["limit"],
        connections=CONNECTIONS,
        **sides.costs(),
        **{f"cpu_ms_a_side_{kind}": round(median, 2) for kind, median in medians.items()},
    )


if __name__ == "__main__":
    uvloop.run(run())
