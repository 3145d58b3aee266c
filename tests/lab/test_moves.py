"""
Hosts that move to other networks while calls are under way (R20).

Two peers live through all of it, each with two routers to move between: the 18 moves are one walk of each side from
any family of addresses to any, and the other side has both families meanwhile. Where a test is run alone, it goes to
the beginning of its step first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.lab import DUAL, V4, V6, Box, Caller, Family, Host, Lab, Outcome
from tests.support.lab.modules import COUNT, COUNT_MODULE

pytestmark = pytest.mark.timeout(180)

#: Seconds within which calls flow again where the system has told that the network changed, and where it has not.
SEEN, UNSEEN = 10.0, 25.0
#: Seconds that each call takes at the other end, so that some are always under way, and seconds between two of them.
PAUSE, EVERY = 0.2, 0.05

Families = tuple[Family, ...]
#: Each pair of neighbours once, and each begins where the one before ends.
WALK: tuple[Families, ...] = (V4, V4, V6, V6, DUAL, DUAL, V4, DUAL, V6, V4)
NAMES = {V4: "v4", V6: "v6", DUAL: "dual"}


@dataclass
class Side:
    """A host and the places that it moves between."""

    host: Host
    boxes: Iterator[Box]
    families: Families = DUAL

    def move(self, families: Families) -> float:
        """To the other place, where it gets addresses of these families; gives when, by the monotonic clock."""
        self.families = families
        moved = time.monotonic()
        self.host.move(next(self.boxes), families)
        return moved


@dataclass
class World:
    """The two sides, and what calls."""

    alice: Side
    bob: Side
    caller: Caller
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1_000_000))

    def settled(self) -> None:
        """Wait until a call goes through; whatever was lost before is known by then."""
        until = time.monotonic() + 60
        while (outcome := self.call(timeout=30)).code:
            assert time.monotonic() < until, outcome

    def call(self, *, timeout: float) -> Outcome:
        """One call that may be made twice."""
        request = {"n": next(self.numbers)}
        return self.caller.call("bob", COUNT_MODULE, request, timeout=timeout, idempotent=True)

    def start(self) -> None:
        """Begin to call all the time, in two ways: such that may be repeated, and such that must not."""
        for name in ("repeatable", "once"):
            self.caller.start(
                name,
                "bob",
                COUNT_MODULE,
                every=EVERY,
                first=next(self.numbers) * 1000,
                request={"pause": PAUSE},
                idempotent=name == "repeatable",
                timeout=40,
            )
        time.sleep(4 * PAUSE)

    def stop(self) -> tuple[list[Outcome], list[Outcome]]:
        """End it; gives how both kinds of calls went."""
        return self.caller.stop("repeatable"), self.caller.stop("once")

    def repeated(self) -> set[int]:
        """The numbers of all calls that were ever made more than once."""
        return set(self.caller.call("bob", COUNT_MODULE, "repeated", timeout=30).succeeded())


@pytest.fixture(scope="module")
def world(lab: Lab) -> World:
    turn = lab.coturn()
    lab.discovery("alice", "bob", turn=turn.role())
    sides = []
    for name in ("alice", "bob"):
        boxes = itertools.cycle((lab.box("cone"), lab.box("cone")))
        sides.append(Side(lab.host(name, next(boxes), DUAL), boxes))
    alice, bob = sides
    alice.host.write()
    bob.host.write(modules=[bob.host.module("count", COUNT) + ".Count"])
    lab.befriend(alice.host, bob.host)
    bob.host.start()
    return World(alice, bob, alice.host.caller())


#: All moves, in an order in which each begins where the one before ended.
STEPS = [
    pytest.param(side, before, after, id=f"{side}-{NAMES[before]}-{NAMES[after]}")
    for side in ("alice", "bob")
    for before, after in itertools.pairwise(WALK)
]


@pytest.mark.parametrize(("who", "before", "after"), STEPS)
def test_calls_flow_again_after_a_move(
    world: World, who: str, before: Families, after: Families, record_property: Callable[[str, object], None]
) -> None:
    side, other = (world.alice, world.bob) if who == "alice" else (world.bob, world.alice)
    if other.families != DUAL:
        other.move(DUAL)
    if side.families != before:
        side.move(before)
    world.settled()

    world.start()
    moved = side.move(after)
    again = world.call(timeout=2 * SEEN)
    repeatable, once = world.stop()

    record_property("seconds", round(again.ended - moved, 2))
    record_property("lost", sum(outcome.code != "" for outcome in once))
    assert again.code == ""
    assert again.ended - moved <= SEEN
    check(repeatable, once, moved)
    assert world.repeated().isdisjoint({outcome.n for outcome in once})
    path = world.caller.ping("bob").succeeded()["path"]
    assert path["family"] in {f"IPv{family}" for family in after}


def check(repeatable: list[Outcome], once: list[Outcome], moved: float) -> None:
    """How calls may end: all that may be repeated are answered; others under way at the move may be lost."""
    assert [outcome for outcome in repeatable if outcome.code and outcome.begun < moved] == []
    assert {outcome.code for outcome in once if outcome.begun < moved} <= {"", "link_lost"}
    later = [outcome for outcome in (*repeatable, *once) if outcome.begun > moved + SEEN]
    assert [outcome for outcome in later if outcome.code] == []


@pytest.mark.parametrize(
    ("who", "families"),
    [
        pytest.param("alice", V4, id="alice-v4"),
        pytest.param("alice", V6, id="alice-v6"),
        pytest.param("alice", DUAL, id="alice-dual"),
        pytest.param("bob", V4, id="bob-v4"),
    ],
)
def test_two_networks_at_once(
    world: World, who: str, families: Families, record_property: Callable[[str, object], None]
) -> None:
    """
    As a telephone that comes home: what is new is used before the old one is gone.

    From then on, what the link sends leaves by the new network, with the address of the old one. Through a NAT it comes
    from somebody whom the other side does not know, and nothing of it arrives, while the other side is heard as before.
    Without one, as with IPv6 here, the link goes on until its address is gone.
    """
    side, other = (world.alice, world.bob) if who == "alice" else (world.bob, world.alice)
    if other.families != DUAL:
        other.move(DUAL)
    if side.families != families:
        side.move(families)
    host = side.host
    world.settled()
    world.start()
    moved = time.monotonic()
    host.plug(next(side.boxes), families)
    again = world.call(timeout=2 * SEEN)
    time.sleep(2)
    gone = time.monotonic()
    host.unplug_old()
    once_more = world.call(timeout=2 * SEEN)
    repeatable, once = world.stop()
    record_property("seconds", round(again.ended - moved, 2))
    assert again.code == once_more.code == ""
    assert again.ended - moved <= SEEN
    assert once_more.ended - gone <= SEEN
    check(repeatable, once, gone)
    assert world.repeated().isdisjoint({outcome.n for outcome in once})


def test_a_network_that_is_gone_for_a_while(world: World, record_property: Callable[[str, object], None]) -> None:
    host = world.bob.host
    world.settled()
    world.start()
    host.leave()
    time.sleep(20)
    moved = world.bob.move(DUAL)
    again = world.call(timeout=2 * SEEN)
    _, once = world.stop()
    record_property("seconds", round(again.ended - moved, 2))
    assert again.code == ""
    assert again.ended - moved <= SEEN
    assert world.repeated().isdisjoint({outcome.n for outcome in once})


def test_a_router_that_gets_another_address(world: World, record_property: Callable[[str, object], None]) -> None:
    """Which nobody tells the host behind it."""
    for side in (world.alice, world.bob):
        side.move(V4)
    world.settled()
    box = world.bob.host.box
    assert box is not None
    world.start()
    changed = time.monotonic()
    box.renumber()
    again = world.call(timeout=2 * UNSEEN)
    repeatable, once = world.stop()
    record_property("seconds", round(again.ended - changed, 2))
    assert again.code == ""
    assert again.ended - changed <= UNSEEN
    assert [outcome for outcome in repeatable if outcome.code and outcome.begun < changed] == []
    assert world.repeated().isdisjoint({outcome.n for outcome in once})
