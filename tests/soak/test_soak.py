"""Links that come and go by the hundred leave nothing behind: no task, no descriptor, no memory."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import pytest

from bonevalue import admission
from bonevalue.wire.pacing import Pace
from tests.support.evil import Actor, open_stage
from tests.support.waiting import other_tasks, until

CYCLES = 500
#: Blocks of Python's memory that a cycle may leave. A session that was seen is remembered for ten minutes, which takes
#: six of them; one object of a link that is not let go of holds hundreds.
KEPT_BLOCKS = 12
#: Bytes that a cycle may leave in this process. A link takes some 280 KiB on each side, much of it not Python's.
KEPT_BYTES = 16 * 1024


@dataclass(frozen=True)
class Census:
    """What this process holds."""

    tasks: Counter[str]
    descriptors: Counter[str]
    blocks: int
    resident: int

    @classmethod
    def take(cls) -> Census:
        """Of this moment, without what could be collected."""
        gc.collect()
        return cls(
            Counter(str(task.get_coro()).split(" at ")[0] for task in other_tasks()),
            Counter(map(_kind, Path("/proc/self/fd").iterdir())),
            sys.getallocatedblocks(),
            int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
        )


def _kind(descriptor: Path) -> str:
    """What a descriptor is of, without its number: ``socket``, ``pipe``, a path. The one that lists them is gone."""
    try:
        return os.readlink(descriptor).split(":[")[0]
    except FileNotFoundError:
        return "the listing"


async def _connect_and_close(caller: Actor, callee: Actor) -> None:
    """One call to a peer without a link, and back to where it began."""
    request = {"from": caller.id, "key": caller.peer.fingerprint, "to": callee.username}
    target = caller.peer.get(callee.username)
    assert await target.call("Who", request, timeout=20, keep_alive=False) == callee.username
    await until(lambda: not any(_busy(each) for each in (caller, callee)), what="both sides have let go of the link")


def _busy(actor: Actor) -> bool:
    gauges = actor.peer.gauges()
    return any(gauges[name] for name in ("links", "links_pending", "calls", "handlers", "send_buffer_bytes"))


@pytest.mark.timeout(300)
async def test_links_that_are_made_and_closed_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "NEW_LINKS_PER_ACCOUNT", Pace(per_second=1000.0, burst=1000.0))
    unhandled: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with open_stage(tmp_path, "alice", "bob", limits={"messages": "1000/s", "requests": "1000/s"}) as stage:
        alice, bob = await stage.join("alice"), await stage.join("bob")
        await stage.befriend(alice, bob)
        pairs = cycle([(alice, bob), (bob, alice)])
        counts = [Census.take()]
        for _ in range(2):
            for caller, callee in islice(pairs, CYCLES // 2):
                await _connect_and_close(caller, callee)
            await until(lambda: len(other_tasks()) <= counts[0].tasks.total(), what="no task is left of any link")
            stage.hub.forget()
            counts.append(Census.take())

    start, half, end = counts
    assert not end.tasks - start.tasks
    assert not end.descriptors - start.descriptors
    assert end.blocks - half.blocks <= KEPT_BLOCKS * CYCLES // 2
    assert end.resident - half.resident <= KEPT_BYTES * CYCLES // 2
    gc.collect()
    assert not unhandled
