"""
How much a hostile peer that is trusted slows others: an honest peer's calls to a daemon, with each attack and without.

Three processes: the daemon (``bv-run``), the honest peer, which makes one call after the other, and the attacker, which
logs in, proves itself, and then does its worst. For each attack, quiet and attacked spells take turns; the medians of
the spells are compared. Prints one JSON object a line::

    python -m benchmarks.hostile [--rounds 3] [--seconds 3] [ATTACK ...]

On a machine with fewer cores than processes, the attacker takes part of the others' time, too: ``core_percent`` says
how much of a core each used.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, USERDATA_MAX_LENGTH

from benchmarks.calling import REQUEST, CallerRole
from benchmarks.children import Child, Role, run
from benchmarks.figures import Round, median
from benchmarks.machine import describe
from bonevalue.errors import BoneValueError, LinkLost, RateLimited
from bonevalue.peer import Peer, Target
from bonevalue.wire import frames
from bonevalue.wire.frames import FLAG_TAKES_STREAM, FrameType
from bonevalue.wire.keys import AccountKeys
from tests.support import netns
from tests.support.hostile import Fortress, Intruder, break_in, keys_of
from tests.support.processes import PASSWORD
from tests.support.waiting import until

#: What the design allows: how much longer the honest calls may take, and bytes that the attacker may cost the daemon.
MOST_RATIO, MOST_MEMORY = 1.25, 24 * 2**20
#: Seconds between two calls of the honest peer.
PAUSE = 0.005
#: Seconds in which an attack takes hold before it counts.
WARM_UP = 0.5


async def flood(intruder: Intruder) -> None:
    """Calls, 10,000 a second if the path carries so many."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not intruder.closed:
        calls = (intruder.new_call() for _ in range(100))
        intruder.link.send(b"".join(frames.encode_request(call, b"Echo", 30, 4, b"null") for call in calls))
        intruder.forget()
        due = max(due + 0.01, loop.time())
        await asyncio.sleep(due - loop.time())
        await intruder.room(131_072)


async def cancel(intruder: Intruder) -> None:
    """Calls that are cancelled in the same message, 10,000 a second."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not intruder.closed:
        calls = [intruder.new_call() for _ in range(100)]
        pairs = (frames.encode_request(c, b"Sleep", 30, 2, b"60") + frames.encode(FrameType.CANCEL, c) for c in calls)
        intruder.link.send(b"".join(pairs))
        intruder.forget()
        due = max(due + 0.01, loop.time())
        await asyncio.sleep(due - loop.time())
        await intruder.room(131_072)


async def trickle(intruder: Intruder) -> None:
    """A thousand calls whose bodies come by one byte a second."""
    calls = [intruder.request("Blob", b"1", length=16_000, time_left=600) for _ in range(1000)]
    while not intruder.closed:
        for call in calls:
            intruder.send(FrameType.BODY, call, b"1")
        await intruder.room(0)
        await asyncio.sleep(1)


async def crumbs(intruder: Intruder) -> None:
    """A body in messages of one byte each, as fast as it goes."""
    call = intruder.request("Blob", b"1", length=8_000_000, time_left=600)
    while not intruder.closed:
        for _ in range(100):
            intruder.send(FrameType.BODY, call, b"1")
        await intruder.room(32_768)


async def unread_streams(intruder: Intruder) -> None:
    """Two hundred endless streams; what comes is acknowledged, and no credit given."""
    for _ in range(200):
        intruder.request("Flood", b"100000", flags=FLAG_TAKES_STREAM)
    await until(lambda: intruder.closed, timeout=3600)


async def deaf(intruder: Intruder) -> None:
    """Long answers of which nothing is acknowledged; the link is cut, and made anew as soon as it may be."""
    intruder.chunks.acknowledge(None)
    for _ in range(64):
        intruder.request("Blob", b"1000000")
    await until(lambda: intruder.closed, timeout=3600)


async def fragments(intruder: Intruder) -> None:
    """A message that never ends, behind a gap; the same."""
    intruder.chunks.skip(1)
    while not intruder.closed:
        for _ in range(10):
            await intruder.chunks.data(bytes(USERDATA_MAX_LENGTH), order=1000, flags=SCTP_DATA_FIRST_FRAG)
        await asyncio.sleep(0.01)


async def garbage(intruder: Intruder) -> None:
    """A frame that makes no sense; the same."""
    intruder.link.send(b"\x7f")
    await until(lambda: intruder.closed)


ATTACKS: dict[str, Callable[[Intruder], Awaitable[None]]] = {
    attack.__name__: attack for attack in (flood, cancel, trickle, crumbs, unread_streams, deaf, fragments, garbage)
}


class Honest(CallerRole):
    """A peer of the daemon's own account."""

    _peer: Peer
    _target: Target

    async def enter(self, port: int, victim: str) -> None:
        """Log in, and make a link."""
        self._peer = Peer(f"ws://127.0.0.1:{port}", "admin", PASSWORD)
        await self._peer.start()
        await until(lambda: self._peer.get(victim))
        self._target = self._peer.get(victim)
        await until(lambda: victim in {peer.id for peer in self._peer.peers()})
        await self.one_call()

    def one_call(self) -> Awaitable[Any]:
        """Echo the request once."""
        return self._target.call("Echo", REQUEST)

    async def token(self, alias: str) -> str:
        """Let somebody in."""
        return await self._peer.request_token(alias)

    async def stats(self) -> Any:
        """What the daemon has counted."""
        return await self._target.call("bv.stats")

    async def stop(self) -> None:
        """Leave."""
        await self._peer.stop(0.0)


class Attacker(Role):
    """A peer of a trusted account."""

    _peer: Peer
    _victim: str
    _attacking: asyncio.Task[None]
    _links = 0

    async def enter(self, port: int, victim: str, name: str, token: str) -> None:
        """Log in, and be trusted."""
        self._victim = victim
        self._peer = Peer(f"ws://127.0.0.1:{port}", name, PASSWORD)
        with mock.patch.object(AccountKeys, "derive", keys_of):
            await self._peer.start()
        await self._peer.claim_token("admin", token)
        await until(lambda: victim in {peer.id for peer in self._peer.peers()})

    async def begin(self, attack: str) -> None:
        """Attack from now on."""
        self._links = 0
        self._attacking = asyncio.create_task(self._attack(ATTACKS[attack]))

    async def end(self) -> int:
        """Let go; gives how many links it took."""
        self._attacking.cancel()
        await asyncio.wait({self._attacking})
        if not self._attacking.cancelled():
            self._attacking.result()
        return self._links

    async def _attack(self, attack: Callable[[Intruder], Awaitable[None]]) -> None:
        while True:
            try:
                intruder = await break_in(self._peer, self._victim)
            except RateLimited as error:
                await asyncio.sleep(min(error.retry_after or 0.1, 0.1))  # it asks again and again
                continue
            except BoneValueError:
                continue
            self._links += 1
            try:
                with suppress(LinkLost):
                    await attack(intruder)
            finally:
                await intruder.leave()

    async def stop(self) -> None:
        """Leave."""
        await self._peer.stop(0.0)


class Victim:
    """The daemon, from outside."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def memory(self, key: str = "VmRSS") -> int:
        """Bytes."""
        return int((self._folder / "status").read_text().split(f"{key}:")[1].split()[0]) * 1024

    def forget_peak(self) -> None:
        """Let the kernel find the largest size anew."""
        (self._folder / "clear_refs").write_text("5")

    def cpu(self) -> float:
        """Seconds so far."""
        user, system = (self._folder / "stat").read_text().rpartition(") ")[2].split()[11:13]
        return (int(user) + int(system)) / 100


def show(**values: Any) -> None:
    """Print one line."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def spell(honest: Child, attacker: Child, victim: Victim, attack: str | None, seconds: float) -> dict[str, float]:
    """The honest peer's calls for some time, attacked or in peace."""
    if attack is not None:
        await attacker.ask("begin", attack=attack)
        await asyncio.sleep(WARM_UP)
    before = victim.memory()
    victim.forget_peak()
    used, others, begun = victim.cpu(), await attacker.ask("cpu"), time.perf_counter()
    figures: dict[str, float] = await honest.ask("paced", pause=PAUSE, seconds=seconds)
    took = time.perf_counter() - begun
    figures["core_percent_daemon"] = round((victim.cpu() - used) / took * 100)
    figures["core_percent_attacker"] = round((await attacker.ask("cpu") - others) / took * 100)
    figures["grown_mib"] = round((victim.memory("VmHWM") - before) / 2**20, 1)
    if attack is not None:
        figures["links"] = await attacker.ask("end")
    return figures


async def measure(attacks: list[str], rounds: int, seconds: float) -> None:
    """All of them."""
    names = [f"mallory-{attack}".replace("_", "-") for attack in attacks]
    fortress = Fortress(Path(tempfile.mkdtemp(prefix="hostile-")), names)
    victim = Victim(fortress.daemon.pid)
    try:
        async with Child.running("benchmarks.hostile", "honest") as honest:
            await honest.ask("enter", port=fortress.port, victim=fortress.victim)
            await honest.ask("paced", pause=0.0, seconds=2.0)
            for attack, name in zip(attacks, names, strict=True):
                async with Child.running("benchmarks.hostile", "attacker") as attacker:
                    token = await honest.ask("token", alias=name)
                    await attacker.ask("enter", port=fortress.port, victim=fortress.victim, name=name, token=token)
                    quiet: list[Round] = []
                    attacked: list[Round] = []
                    floor = victim.memory()
                    victim.forget_peak()
                    for number in range(rounds):
                        quiet.append(await spell(honest, attacker, victim, None, seconds))
                        attacked.append(await spell(honest, attacker, victim, attack, seconds))
                        for what, figures in (("quiet", quiet[-1]), (attack, attacked[-1])):
                            show(line="round", benchmark="hostile", contender=what, round=number + 1, **figures)
                    ratio = median(attacked, "p99_ms") / median(quiet, "p99_ms")
                    grown = victim.memory("VmHWM") - floor
                    stats = await honest.ask("stats")
                    show(
                        line="result",
                        benchmark="hostile",
                        attack=attack,
                        quiet_p99_ms=round(median(quiet, "p99_ms"), 3),
                        p99_ms=round(median(attacked, "p99_ms"), 3),
                        ratio=round(ratio, 2),
                        grown_mib=round(grown / 2**20, 1),
                        links_closed=stats["counters"]["links_closed"],
                        met=ratio <= MOST_RATIO and grown <= MOST_MEMORY,
                    )
    finally:
        fortress.daemon.kill()


def main() -> None:
    """Run as a program, or as one of its processes."""
    roles: dict[str, type[Role]] = {"honest": Honest, "attacker": Attacker}
    if len(sys.argv) == 2 and sys.argv[1] in roles:
        run(roles)
        return
    parser = argparse.ArgumentParser(description="how much a hostile peer slows others")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a spell")
    arguments = parser.parse_args()
    network = netns.enter()
    show(line="run", **describe(), network=network, rounds=arguments.rounds, seconds=arguments.seconds)
    uvloop.run(measure(arguments.attacks or list(ATTACKS), arguments.rounds, arguments.seconds))


if __name__ == "__main__":
    main()
