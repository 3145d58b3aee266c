"""
A day in two minutes: six daemons that call each other, while everything happens to them that happens on the internet.

They are of two accounts, behind routers of several kinds, with STUN and TURN. They are killed and started again,
frozen and thawed, and moved to other networks; the discovery server is killed and started again. What they called, and
what they ran, is in their journals (:mod:`tests.support.day_module`), which are compared when it is over.

Each day is another one; a failure says which, and ``DAY=number`` makes its accidents happen again, about when they did.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import Any

import pytest

from tests.support import day_module
from tests.support.lab import Box, Host, Lab, LabUnavailable
from tests.support.processes import Daemon

logger = logging.getLogger(__name__)

#: So many calls make a day.
CALLS = 2000
#: Seconds that each call has; how late its end may come on a busy machine; seconds after which a day must be over.
TIMEOUT, LATE, LONGEST = 10.0, 1.5, 120.0
#: Seconds after the last accident until every daemon gets answers from every other one.
HEALED = 40.0
#: Seconds from one accident to the next; how many daemons have one at a time, at most; how long those of daemons last,
#: which is longer than a heartbeat is waited for, and those of the server.
EVERY, MOST_AT_ONCE, LASTS, SERVER_LASTS = (1.0, 3.0), 3, (0.5, 18.0), (0.5, 8.0)

HOSTS = {"east": ("adam", "beth", "cleo"), "west": ("dirk", "enid", "fred")}
NAMES = [name for names in HOSTS.values() for name in names]
ROUTERS: tuple[Any, ...] = ("cone", "cone", "symmetric", "symmetric", "udp_blocked")
#: What may become of a call on such a day: whatever else it were would be a fault of ours. The last one comes from the
#: server, for those who go on asking for a peer that died while it was away itself.
TYPED = {
    *("link_lost", "connect_failed", "deadline", "no_target"),
    *("peer_offline", "unavailable", "link_limit", "rate_limited"),
}


@dataclass
class Call:
    """What all journals know of one call."""

    caller: str
    pid: int
    begun: float
    idempotent: bool
    ended: float | None = None
    outcome: str = ""
    by: str = ""


@dataclass
class Village:
    """The hosts, and what has happened to them."""

    lab: Lab
    hosts: dict[str, Host]
    boxes: list[Box]
    #: Starts the discovery server again.
    serve: Callable[[], Daemon]
    chance: random.Random
    daemons: dict[str, Daemon] = field(default_factory=dict)
    #: Every daemon that there was, for what it printed.
    all_daemons: list[Daemon] = field(default_factory=list)
    #: Processes that were killed: what they had under way has no end.
    killed: set[int] = field(default_factory=set)
    #: By process: when it was frozen, from and to.
    frozen: dict[int, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    #: What goes on: the moment at which it ends, who has it, and what ends it.
    accidents: list[tuple[float, str, Callable[[], None]]] = field(default_factory=list)
    accidents_counted: Counter[str] = field(default_factory=Counter)

    # -- daemons -----------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Start a daemon, for the first time or again; nobody waits for it."""
        daemon = self.daemons[name] = self.hosts[name].start(online=False)
        self.all_daemons.append(daemon)

    @property
    def calls(self) -> int:
        """How many calls were begun so far."""
        return sum(text.count('"what": "begin"') for text in self._journals().values())

    def _journals(self) -> dict[str, str]:
        files = {name: host.folder / "journal" for name, host in self.hosts.items()}
        return {name: file.read_text() for name, file in files.items() if file.exists()}

    def journal(self) -> dict[str, Call]:
        """What became of them."""
        calls: dict[str, Call] = {}
        for caller, text in self._journals().items():
            for line in map(json.loads, text.splitlines()):
                if line["what"] == "begin":
                    calls[line["call"]] = Call(caller, line["pid"], line["at"], line["idempotent"])
                elif line["what"] == "end":
                    call = calls[line["call"]]
                    call.ended, call.outcome, call.by = line["at"], line["outcome"], line["by"]
        return calls

    def runs(self) -> Counter[str]:
        """How often each call was run, by anybody."""
        lines = [json.loads(line) for text in self._journals().values() for line in text.splitlines()]
        return Counter(line["call"] for line in lines if line["what"] == "run")

    # -- accidents ---------------------------------------------------------------------------------------------------

    def accident(self) -> None:
        """Something happens to somebody who is well."""
        ill = {name for _, name, _ in self.accidents}
        well = [name for name in NAMES if name not in ill] if len(ill) < MOST_AT_ONCE else []
        happen = self.chance.choices((self._kill, self._freeze, self._move, self._lose_server), (3, 3, 3, 1))[0]
        victims = well if happen != self._lose_server else list({"server"} - ill)
        if victims:
            victim = self.chance.choice(victims)
            logger.info("%.1f: %s %s", time.monotonic(), happen.__name__.strip("_"), victim)
            self.accidents_counted[happen.__name__.strip("_")] += 1
            happen(victim)

    def _lasting(self, name: str, end: Callable[[], None], seconds: tuple[float, float] = LASTS) -> None:
        self.accidents.append((time.monotonic() + self.chance.uniform(*seconds), name, end))

    def _kill(self, name: str) -> None:
        daemon = self.daemons[name]
        self.killed.add(daemon.pid)
        daemon.kill()
        self._lasting(name, lambda: self.start(name))

    def _freeze(self, name: str) -> None:
        daemon, since = self.daemons[name], time.monotonic()

        def thaw() -> None:
            daemon.signal(SIGCONT)
            self.frozen[daemon.pid].append((since, time.monotonic()))

        daemon.signal(SIGSTOP)
        self._lasting(name, thaw)

    def _move(self, name: str) -> None:
        host = self.hosts[name]
        host.move(self.chance.choice([box for box in self.boxes if box is not host.box]))

    def _lose_server(self, name: str) -> None:
        assert self.lab.server is not None
        self.lab.server.kill()
        self._lasting(name, lambda: self.all_daemons.append(self.serve()), SERVER_LASTS)

    def heal(self, now: float) -> None:
        """End the accidents that have lasted until now."""
        over = [accident for accident in self.accidents if accident[0] <= now]
        self.accidents = [accident for accident in self.accidents if accident[0] > now]
        for _, victim, end in over:
            logger.info("%.1f: %s recovers", time.monotonic(), victim)
            end()

    # -- the day -----------------------------------------------------------------------------------------------------

    def morning(self) -> None:
        """All are online and have been answered by all others."""
        for name in NAMES:
            self.start(name)
        self.await_answers(0.0)

    def await_answers(self, since: float) -> None:
        """Wait until everybody has been answered by everybody else, in a call that began after that moment."""
        missing = set(permutations(NAMES, 2))
        began = time.monotonic()
        while missing:
            assert time.monotonic() < began + HEALED, f"after {HEALED:g} s no answer for {sorted(missing)}"
            time.sleep(0.25)
            missing -= {(call.caller, call.by) for call in self.journal().values() if call.by and call.begun > since}
        logger.info("all were answered by all after %.1f s", time.monotonic() - began)

    def day(self) -> None:
        """Accidents, until there were enough calls, and some time of quiet."""
        end = time.monotonic() + LONGEST
        next_one = time.monotonic()
        while self.calls < CALLS:
            assert time.monotonic() < end, f"only {self.calls} calls in {LONGEST:g} s"
            self.heal(time.monotonic())
            if time.monotonic() >= next_one:
                self.accident()
                next_one = time.monotonic() + self.chance.uniform(*EVERY)
            time.sleep(0.1)
        self.heal(float("inf"))
        self.await_answers(time.monotonic())

    def evening(self) -> dict[str, Call]:
        """Let them finish what they have under way; gives all calls of the day."""
        for host in self.hosts.values():
            (host.folder / "evening").touch()
        end = time.monotonic() + TIMEOUT + LATE
        while open_calls := [call for call in self.journal().values() if call.ended is None and self.is_alive(call)]:
            assert time.monotonic() < end, f"calls without an end: {open_calls}"
            time.sleep(0.25)
        assert all(daemon.running for daemon in self.daemons.values())
        return self.journal()

    def is_alive(self, call: Call) -> bool:
        """Whether who made a call was not killed."""
        return call.pid not in self.killed

    def duration(self, call: Call) -> float:
        """How long a call took, without the time for which its caller was frozen."""
        assert call.ended is not None
        spells = self.frozen[call.pid]
        return (
            call.ended
            - call.begun
            - sum(max(0.0, min(to, call.ended) - max(since, call.begun)) for since, to in spells)
        )


@contextmanager
def village(folder: Path, chance: random.Random) -> Iterator[Village]:
    """Six hosts and the servers that they need; no daemon runs yet."""
    try:
        lab = Lab(folder)
    except LabUnavailable as error:
        pytest.fail(str(error), pytrace=False)
    with lab:
        turn = lab.coturn()

        def serve() -> Daemon:
            return lab.discovery(*HOSTS, turn=turn.role())

        serve()
        boxes = [lab.box(kind) for kind in ROUTERS]
        hosts = {
            name: lab.host(name, chance.choice(boxes), account=account)
            for account, names in HOSTS.items()
            for name in names
        }
        source = Path(day_module.__file__).read_text()
        for name, host in hosts.items():
            path = host.module("day", source)
            config = {"name": name, "journal": str(host.folder / "journal")}
            host.write(
                modules=[
                    {"class": f"{path}.Worker", "config": config, "concurrency": 256},
                    {"class": f"{path}.Employer", "config": {**config, "timeout": TIMEOUT}},
                ]
            )
        lab.befriend(hosts[HOSTS["east"][0]], hosts[HOSTS["west"][0]])
        here = Village(lab, hosts, boxes, serve, chance)
        try:
            yield here
        finally:
            for number, daemon in enumerate(here.all_daemons):
                daemon.file.with_name(f"log{number}").write_text(daemon.output)


@pytest.mark.timeout(300)
def test_every_call_of_a_day_ends_as_it_should_and_every_link_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger.name)
    number = int(os.environ.get("DAY", 0)) or random.randrange(1, 10**6)
    logger.info("this was DAY=%d", number)
    with village(tmp_path, random.Random(number)) as here:
        here.morning()
        here.day()
        calls, runs = here.evening(), here.runs()
        output = {daemon.file.parent.name: daemon.output for daemon in here.all_daemons}
    ended = [call for call in calls.values() if call.ended is not None]
    outcomes = Counter(call.outcome for call in ended)
    logger.info("%d calls; of those that ended: %s; accidents: %s", len(calls), outcomes, here.accidents_counted)

    # Each ends, with an answer or an error of ours, when it should.
    assert outcomes.keys() <= TYPED | {"answered"}
    assert all(call.ended is not None for call in calls.values() if here.is_alive(call))
    assert max(map(here.duration, ended)) < TIMEOUT + LATE
    # Nothing is run twice that must not be, and what was answered was run.
    assert runs.keys() <= calls.keys()
    assert all(times <= (2 if calls[number].idempotent else 1) for number, times in runs.items())
    assert all(runs[number] for number, call in calls.items() if call.outcome == "answered")
    # There was a day at all.
    assert outcomes["answered"] > len(calls) / 2 and len(here.accidents_counted) >= 3
    for name, text in output.items():
        assert "Traceback" not in text, f"{name}:\n{text[-5000:]}"
