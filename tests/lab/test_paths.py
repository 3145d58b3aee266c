"""Calls over a long and lossy way."""

from __future__ import annotations

import statistics
import sys

from tests.support.lab import Host, Lab
from tests.support.lab.modules import COUNT, COUNT_MODULE

#: Seconds that a packet takes from one peer to the other, half of it at each, and the part that is lost at one of them.
ONE_WAY = 0.1
LOSS = 0.05
CALLS = 300

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
    """Seconds that a datagram takes to the other host and back, the middle of some."""
    with other.popen(sys.executable, "-c", MIRROR, stdout=-1) as mirror:
        assert mirror.stdout is not None
        assert mirror.stdout.readline() == "ready\n"
        trips = one.space.run(sys.executable, "-c", ECHO, str(other.addresses[0])).split()
        mirror.kill()
    return statistics.median(map(float, trips))


def test_calls_complete_and_are_nearly_as_fast_as_the_way(lab: Lab) -> None:
    """5 % loss and 100 ms each way: half of the small calls take less than 1.3 round trips, and none is lost."""
    near, far = lab.box("open", delay=ONE_WAY / 2), lab.box("open", delay=ONE_WAY / 2)
    lab.discovery("alice")
    alice, bob = lab.host("alice", near), lab.host("bob", far, account="alice")
    trip = round_trip(alice, bob)
    assert 2 * ONE_WAY <= trip < 2.5 * ONE_WAY

    near.lose(LOSS)
    bob.daemon(modules=[bob.module("count", COUNT) + ".Count"])
    caller = alice.caller()
    outcomes = caller.flow("Us", COUNT_MODULE, every=0.05, count=CALLS, timeout=20)

    assert [outcome for outcome in outcomes if outcome.code] == []
    assert [outcome.response["n"] for outcome in outcomes] == list(range(CALLS))
    # The first ones wait for the link.
    steady = [outcome.seconds for outcome in outcomes if outcome.begun > outcomes[0].ended]
    assert statistics.median(steady) <= 1.3 * trip
    assert caller.call("Us", COUNT_MODULE, "repeated").succeeded() == []


def test_a_link_comes_about_over_it_behind_nats(lab: Lab) -> None:
    """Every one of several dials, each of a score of packets of which some are lost."""
    alice = lab.host("alice2", lab.box("cone", delay=ONE_WAY / 2, loss=LOSS), account="alice").caller()
    for n in range(6):
        assert alice.call("Us", COUNT_MODULE, {"n": -1 - n}, keep_alive=False).succeeded()["n"] == -1 - n
