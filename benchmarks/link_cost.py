"""
What a link over aiortc costs: to open, to keep, to close, and for each message, without anything of ours above it.

Both ends are in this process, on the interfaces of this machine. Prints one JSON object a line::

    python benchmarks/link_cost.py [--pairs 20]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from bonevalue.link import LOW_WATER, MAX_SENT, Connection, IceConfig, Link
from bonevalue.rtc import RtcEngine

#: Seconds over which idle links are watched: a round of consent checks and a little more.
IDLE = 8.0
ROUND_TRIPS = 2_000
#: Bytes of one bulk transfer, and how many of them are under way at once.
BULK, WINDOW = 16 * 1_048_576, 131_072

Pair = tuple[Connection, Connection, Link, Link]


def report(what: str, loop: str, **numbers: Any) -> None:
    """Print one result."""
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in numbers.items()}
    line = {"benchmark": "link_cost", "what": what, "loop": loop, **rounded, "python": platform.python_version()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def resident_kib() -> int:
    """Memory of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


async def open_pair(engine: RtcEngine) -> Pair:
    """Two connections that have reached each other."""
    caller, callee = engine.connection(IceConfig()), engine.connection(IceConfig())
    await caller.accept_answer(await callee.accept_offer(await caller.create_offer()))
    return caller, callee, *await asyncio.gather(caller.opened(), callee.opened())


async def measure_open(engine: RtcEngine, loop: str, count: int) -> list[Pair]:
    """Open pairs one after the other."""
    pairs, times = [await open_pair(engine)], []
    gc.collect()
    memory, cpu = resident_kib(), time.process_time()
    for _ in range(count):
        start = time.perf_counter()
        pairs.append(await open_pair(engine))
        times.append((time.perf_counter() - start) * 1e3)
    cpu = time.process_time() - cpu
    gc.collect()
    report(
        "open",
        loop,
        pairs=count,
        median_ms=statistics.median(times),
        worst_ms=max(times),
        cpu_ms_per_pair=cpu / count * 1e3,
        kib_per_connection=(resident_kib() - memory) / count / 2,
    )
    return pairs


async def measure_idle(loop: str, pairs: list[Pair]) -> None:
    """Leave links alone."""
    cpu = time.process_time()
    await asyncio.sleep(IDLE)
    report("idle", loop, pairs=len(pairs), percent_of_a_core=(time.process_time() - cpu) / IDLE * 100)


async def measure_round_trips(loop: str, pair: Pair) -> None:
    """Send a small message there and back, one at a time."""
    _, _, ours, theirs = pair
    times: list[float] = []
    back = asyncio.Event()
    theirs.on_message = theirs.send
    ours.on_message = lambda _: back.set()
    cpu = time.process_time()
    for _ in range(ROUND_TRIPS):
        back.clear()
        start = time.perf_counter()
        ours.send(bytes(50))
        await back.wait()
        times.append((time.perf_counter() - start) * 1e3)
    cpu = time.process_time() - cpu
    times.sort()
    p99 = times[len(times) * 99 // 100]
    report("round_trip", loop, median_ms=statistics.median(times), p99_ms=p99, cpu_us=cpu / ROUND_TRIPS * 1e6)


async def measure_bulk(loop: str, pair: Pair) -> None:
    """Send much, with so much under way at once as the platform has."""
    _, _, ours, theirs = pair
    left, arrived = BULK, 0
    done = asyncio.Event()

    def send() -> None:
        nonlocal left
        while left and ours.buffered < WINDOW:
            ours.send(bytes(MAX_SENT))
            left -= MAX_SENT

    def receive(message: bytes) -> None:
        nonlocal arrived
        arrived += len(message)
        if arrived == BULK:
            done.set()

    ours.low_water = WINDOW - MAX_SENT
    ours.on_drained, theirs.on_message = send, receive
    start, cpu = time.perf_counter(), time.process_time()
    send()
    await done.wait()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    ours.low_water = LOW_WATER
    report("bulk", loop, mb_per_second=BULK / seconds / 1e6, cpu_ms_per_mb=cpu / BULK * 1e9)


async def measure_close(loop: str, pairs: list[Pair]) -> None:
    """Close all links at once."""
    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(connection.close() for pair in pairs for connection in pair[:2]))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    gc.collect()
    report("close", loop, pairs=len(pairs), seconds=seconds, cpu_ms_per_pair=cpu / len(pairs) * 1e3)


async def measure(loop: str, count: int) -> None:
    """Everything, on one loop."""
    pairs = await measure_open(RtcEngine(), loop, count)
    await measure_idle(loop, pairs)
    await measure_round_trips(loop, pairs[0])
    await measure_bulk(loop, pairs[0])
    await measure_close(loop, pairs)


def main() -> None:
    """Measure on both event loops."""
    parser = argparse.ArgumentParser(description="what a link over aiortc costs")
    parser.add_argument("--pairs", type=int, default=20)
    count: int = parser.parse_args().pairs
    asyncio.run(measure("asyncio", count))
    uvloop.run(measure("uvloop", count))


if __name__ == "__main__":
    main()
