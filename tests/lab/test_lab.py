"""The lab is what it says: its NATs are of their kinds, its wires are slow and lossy, and nothing of it stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import conftest
from tests.support.lab import DUAL, KINDS, V6, Box, Host, Kind, Lab, LabUnavailable, spaces, why_not
from tests.support.lab.rules import Passing, rules
from tests.support.processes import clean_environment

ROOT = Path(__file__).parents[2]

# A port that answers each datagram with the address that it came from, from itself and from two other sockets, as a
# server for finding out the kind of a NAT does.
MIRROR = """\
import json, selectors, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
def bound(host, port):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock
main, other_port, other_host = (bound(h, p) for h, p in zip(sys.argv[1:], (9000, 9001, 9000)))
selector = selectors.DefaultSelector()
selector.register(main, selectors.EVENT_READ)
selector.register(other_host, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        data, source = key.fileobj.recvfrom(100)
        other = main if key.fileobj is other_host else other_host
        for name, sock in ("same", key.fileobj), ("port", other_port), ("host", other):
            sock.sendto(json.dumps([data.decode(), name, source[0], source[1]]).encode(), source)
"""

# Sends one datagram to each of the addresses from one socket, and prints all answers of a second.
ASK = """\
import json, socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
sock.settimeout(0.05)
for host in sys.argv[1:]:
    sock.sendto(host.encode(), (host, 9000))
until = time.monotonic() + 0.4
while time.monotonic() < until:
    try:
        print(sock.recv(1000).decode(), flush=True)
    except TimeoutError:
        pass
"""

# Sends datagrams one after the other to a mirror, and prints the round trip of each that came back soon.
ECHO = """\
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((sys.argv[1], 9000))
sock.settimeout(float(sys.argv[3]))
for n in range(int(sys.argv[2])):
    sock.send(str(n).encode())
    begun = time.monotonic()
    try:
        while not sock.recv(100).startswith(b'["%d",' % n):
            pass
        print(time.monotonic() - begun, flush=True)
    except TimeoutError:
        pass
"""

LISTENER = """\
import signal, socket, sys
listeners = [socket.create_server(("", int(port))) for port in sys.argv[1:]]
print("ready", flush=True)
signal.pause()
"""

# Prints the ports that take a connection.
KNOCK = """\
import socket, sys
for port in sys.argv[2:]:
    try:
        socket.create_connection((sys.argv[1], int(port)), 0.5).close()
        print(port)
    except TimeoutError:
        pass
"""

PORTS = (8008, 3478, 5349)
SERVERS = ("203.0.113.1", "203.0.113.2")
SERVER6 = "2001:db8::1"


@pytest.fixture(scope="module")
def mirror(lab: Lab) -> Iterator[Lab]:
    """A lab with mirrors on its public addresses."""
    started = []
    for hosts in (("203.0.113.1", "203.0.113.1", "203.0.113.2"), (SERVER6, SERVER6, "2001:db8::3")):
        command = [*lab.internet.prefix, sys.executable, "-c", MIRROR, *hosts]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    yield lab
    for process in started:
        process.kill()
        process.communicate()


def heard(host: Host, *servers: str) -> dict[tuple[str, str], tuple[str, int]]:
    """What came back to a host that asked these servers: by server and by what answered, its address as they see it."""
    answers = [json.loads(line) for line in host.space.run(sys.executable, "-c", ASK, *servers).splitlines()]
    return {(asked, answered): (source, port) for asked, answered, source, port in answers}


def mapping(lab: Lab, kind: Kind) -> tuple[Box, dict[tuple[str, str], tuple[str, int]]]:
    box = lab.box(kind)
    return box, heard(lab.host(f"host-{kind}", box), *SERVERS)


# -- kinds of NAT ------------------------------------------------------------------------------------------------------


def test_open_changes_nothing_and_lets_everything_in(mirror: Lab) -> None:
    box, answers = mapping(mirror, "open")
    assert len(answers) == 6
    assert {host for host, _ in answers.values()} == {str(box.inside.ip + 1)}


def test_full_cone_has_one_outside_and_lets_everything_in(mirror: Lab) -> None:
    box, answers = mapping(mirror, "full_cone")
    assert {way for _, way in answers} == {"same", "port", "host"}
    assert len(set(answers.values())) == 1
    assert {host for host, _ in answers.values()} == {box.outside}


def test_cone_has_one_outside_and_lets_in_only_who_was_asked(mirror: Lab) -> None:
    box, answers = mapping(mirror, "cone")
    # The second server was asked, too, so that its answer to the first question comes in.
    assert {way for _, way in answers} == {"same", "host"}
    assert len(set(answers.values())) == 1
    assert {host for host, _ in answers.values()} == {box.outside}


def test_symmetric_has_an_outside_for_each_and_lets_in_only_who_was_asked(mirror: Lab) -> None:
    box, answers = mapping(mirror, "symmetric")
    assert answers.keys() == {(server, "same") for server in SERVERS}
    assert len(set(answers.values())) == 2
    assert {host for host, _ in answers.values()} == {box.outside}


@pytest.mark.parametrize("kind", ["udp_blocked", "tls_only", "all_blocked"])
def test_blocked_lets_no_datagram_through(mirror: Lab, kind: Kind) -> None:
    _, answers = mapping(mirror, kind)
    assert answers == {}


@pytest.fixture(scope="module")
def listening(mirror: Lab) -> Iterator[Lab]:
    """A lab where somebody listens on the ports of the discovery server, of TURN, and of TURN over TLS."""
    process = subprocess.Popen(
        [*mirror.internet.prefix, sys.executable, "-c", LISTENER, *map(str, PORTS)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield mirror
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("kind", "reached"),
    [
        ("cone", {8008, 3478, 5349}),
        ("udp_blocked", {8008, 3478, 5349}),
        ("tls_only", {8008, 5349}),
        ("all_blocked", {8008}),
    ],
)
def test_what_boxes_let_out_of_tcp(listening: Lab, kind: Kind, reached: set[int]) -> None:
    host = listening.host(f"tcp-{kind}", kind)
    found = host.space.run(sys.executable, "-c", KNOCK, SERVERS[0], *map(str, PORTS))
    assert {int(port) for port in found.split()} == reached


def test_ipv6_goes_out_and_only_answers_come_in(mirror: Lab) -> None:
    """There is no NAT of IPv6, but the firewall of a home router."""
    guarded = heard(mirror.host("guarded", "cone", V6), SERVER6)
    open_to_all = heard(mirror.host("open-to-all", "open", V6), SERVER6)
    assert {way for _, way in guarded} == {"same"}
    assert {way for _, way in open_to_all} == {"same", "port", "host"}


# -- moving ------------------------------------------------------------------------------------------------------------


def addresses(host: Host) -> set[str]:
    """Of the host's network cards, without those of the link."""
    shown = host.space.run("ip", "-brief", "address", "show", "scope", "global")
    return {text.partition("/")[0] for line in shown.splitlines() for text in line.split()[2:] if "/" in text}


def test_a_host_that_moves_has_new_addresses_and_a_way_out(mirror: Lab) -> None:
    first, second = mirror.box("cone"), mirror.box("symmetric")
    host = mirror.host("mover", first, DUAL)
    seen = [addresses(host)]
    for box, families in ((first, DUAL), (second, V6), (second, DUAL)):
        host.move(box, families)
        seen.append(addresses(host))
        assert seen[-1] == {str(each) for each in host.addresses}
        assert heard(host, SERVER6).keys() == {(SERVER6, "same")}
    assert sum(map(len, seen)) == len(set().union(*seen)) == 7
    host.leave()
    assert addresses(host) == set()


def test_a_host_may_have_two_cards_for_a_while_and_uses_the_new_one(mirror: Lab) -> None:
    first, second = mirror.box("cone"), mirror.box("cone")
    host = mirror.host("roamer", first)
    before = addresses(host)
    host.plug(second)
    assert addresses(host) == before | {str(each) for each in host.addresses}
    assert {source for source, _ in heard(host, SERVERS[0]).values()} == {second.outside}
    host.unplug_old()
    assert addresses(host) == {str(each) for each in host.addresses}


def test_a_box_gets_another_address(mirror: Lab) -> None:
    box = mirror.box("cone")
    host = mirror.host("unmoved", box)
    before = box.outside
    assert {source for source, _ in heard(host, SERVERS[0]).values()} == {before}
    box.renumber()
    assert {source for source, _ in heard(host, SERVERS[0]).values()} == {box.outside} != {before}


def test_a_silenced_box_lets_nothing_through_until_it_is_lifted(mirror: Lab) -> None:
    box = mirror.box("open")
    host = mirror.host("silent", box)
    box.silence("in", "out")
    assert heard(host, SERVERS[0]) == {}
    box.silence()
    assert len(heard(host, SERVERS[0])) == 3


# -- wires -------------------------------------------------------------------------------------------------------------


def test_a_slow_wire_takes_its_time_both_ways(mirror: Lab) -> None:
    host = mirror.host("slow", mirror.box("open", delay=0.05))
    trips = [float(line) for line in host.space.run(sys.executable, "-c", ECHO, SERVERS[0], "20", "10").splitlines()]
    assert len(trips) == 20
    # What a busy machine adds is not the wire's: the quickest of them shows that.
    assert 0.1 <= min(trips) < 0.15


def test_a_lossy_box_loses_about_as_much_as_it_is_told(mirror: Lab) -> None:
    host = mirror.host("lossy", mirror.box("open", loss=0.3))
    trips = host.space.run(sys.executable, "-c", ECHO, SERVERS[0], "60", "0.15").splitlines()
    # 0.7 * 0.7 of sixty, within six standard deviations.
    assert 6 <= len(trips) <= 53


# -- the end -----------------------------------------------------------------------------------------------------------


LEFT_ALONE = """\
import os, signal, sys, tempfile
from pathlib import Path
from tests.support.lab import Lab
lab = Lab(Path(sys.argv[1]))
host = lab.host("host", lab.box("cone", delay=0.01))
lab.coturn()
host.daemon(online=False)
print(*(host.space.run("ps", "-o", "pid=", "--ppid", str(os.getpid())).split()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_stays_when_the_tests_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEFT_ALONE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {int(pid) for pid in done.stdout.split()}
    assert len(left) >= 6  # internet, box, host, wire, coturn, daemon
    until = time.monotonic() + 10
    while left := {pid for pid in left if is_alive(pid)}:
        assert time.monotonic() < until, subprocess.check_output(["ps", "-fp", ",".join(map(str, left))], text=True)
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_closed_lab_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    with Lab(tmp_path) as made:
        made.host("host", "cone")
        made.coturn()
        assert len(children() - before) >= 4
    assert children() - before == set()


def children() -> set[int]:
    """All processes that descend from this one."""
    pids = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for file in pids for pid in file.read_text().split()}


# -- where it cannot be ------------------------------------------------------------------------------------------------


def test_the_header_tells_the_truth() -> None:
    """Where this test runs there is a lab, or all others of this file have failed and said why."""
    why = why_not()
    line = conftest.pytest_report_header().splitlines()[1]
    assert line == ("lab: works" if why is None else f"lab: NOT possible, its tests will fail: {why}")


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spaces, "find_program", lambda name: None if name == "turnserver" else f"/bin/{name}")
    why = why_not()
    assert why is not None
    assert re.search(r"needs what Debian calls coturn; `make test` installs it", why)
    with pytest.raises(LabUnavailable, match="coturn"):
        Lab(tmp_path)


def test_a_forbidden_namespace_is_one_sentence() -> None:
    """As on a machine where nobody may have a network of his own."""
    ask = "from tests.support.lab import why_not; print(why_not())"
    forbid = 'echo 0 >/proc/sys/user/max_net_namespaces; exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh", sys.executable, "-c", ask]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"network namespaces are not allowed here: unshare: .*\n", done.stdout)


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_rules_of_ipv6_have_no_nat(kind: Kind) -> None:
    text = rules(kind, Passing(server_port=8008, tls_port=5349, forward="192.168.1.2"), version=6)
    assert "MASQUERADE" not in text
    assert "DNAT" not in text


def test_silence_comes_before_what_is_let_through() -> None:
    lines = rules("cone", Passing(server_port=8008, tls_port=5349, silent=frozenset({"in"})), version=4).splitlines()
    forward = [line for line in lines if "-A FORWARD" in line]
    assert forward[0] == "-A FORWARD -i wan -j DROP"
