"""Calls over a long and lossy way."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.lab import Caller, Host, Lab
from tests.support.lab.modules import COUNT, COUNT_MODULE

#: Seconds that a packet takes from one peer to the other, half of it at each, and the part that is lost at one of them.
ONE_WAY = 0.1
LOSS = 0.05

# Sends datagrams to a host that sends them back, one after the other, and prints the round trips in seconds.
ECHO = """\
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((sys.argv[1], 9000))
sock.settimeout(2)
for n in range(10):
    begun = time.monotonic()
    sock.send(b"x")
    sock.recv(10)
    print(time.monotonic() - begun, flush=True)
"""
MIRROR = """\
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 9000))
print("ready", flush=True)
while True:
    data, source = sock.recvfrom(10)
    sock.sendto(data, source)
"""


def round_trip(one: Host, other: Host) -> float:
    """Seconds that a datagram takes to the other host and back: the least of some, for a busy machine adds its own."""
    with other.popen(sys.executable, "-c", MIRROR, stdout=-1) as mirror:
        assert mirror.stdout is not None
        assert mirror.stdout.readline() == "ready\n"
        trips = one.space.run(sys.executable, "-c", ECHO, str(other.addresses[0])).split()
        mirror.kill()
    return min(map(float, trips))


@dataclass
class World:
    """A caller behind a slow and lossy wire, and what a datagram takes to the other peer and back."""

    caller: Caller
    trip: float


@pytest.fixture(scope="module")
def world(lab: Lab) -> World:
    near, far = lab.box("open", delay=ONE_WAY / 2), lab.box("open", delay=ONE_WAY / 2)
    lab.discovery("alice")
    alice, bob = lab.host("alice", near), lab.host("bob", far, account="alice")
    trip = round_trip(alice, bob)
    assert 2 * ONE_WAY <= trip < 2.5 * ONE_WAY
    near.lose(LOSS)
    bob.daemon(modules=[bob.module("count", COUNT) + ".Count"])
    return World(alice.caller(), trip)


def test_half_of_the_calls_take_less_than_1_3_round_trips(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    """One after the other; whichever loses a packet waits for it a second or more."""
    numbers = itertools.count(1000)
    world.caller.call("Us", COUNT_MODULE, {"n": next(numbers)}).succeeded()
    outcomes = [world.caller.call("Us", COUNT_MODULE, {"n": next(numbers)}, timeout=20) for _ in range(40)]
    assert [outcome for outcome in outcomes if outcome.code] == []
    trips = statistics.median(outcome.seconds for outcome in outcomes) / world.trip
    record_property("round trips", round(trips, 3))
    assert trips <= 1.3


def test_all_calls_complete_once(world: World) -> None:
    """A new one twenty times a second, while those before are under way."""
    outcomes = world.caller.flow("Us", COUNT_MODULE, every=0.05, count=200, timeout=20)
    assert [outcome for outcome in outcomes if outcome.code] == []
    assert [outcome.response["n"] for outcome in outcomes] == list(range(200))
    assert world.caller.call("Us", COUNT_MODULE, "repeated").succeeded() == []


def test_links_come_about_over_it_behind_a_nat(lab: Lab, world: World) -> None:
    """Every one of several dials, each of a score of packets of which some are lost."""
    box = lab.box("cone", delay=ONE_WAY / 2, loss=LOSS)
    caller = lab.host("eve", box, account="alice").caller()
    # Not the other caller of the account, which serves nothing.
    (bob,) = {peer for peer in caller.peers("Us") if peer != world.caller.id}
    for n in range(2000, 2004):
        assert caller.call(bob, COUNT_MODULE, {"n": n}, keep_alive=False).succeeded()["n"] == n
