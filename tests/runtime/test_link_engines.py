"""The contract of a link engine, held over memory and over aiortc alike."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import uvloop

from bonevalue.errors import ConnectFailed, LinkLost, LocalProtocolError, RemoteProtocolError
from bonevalue.link import LOW_WATER, MAX_SENT, CloseReason, Connection, IceConfig, LinkEngine
from bonevalue.link_memory import MemoryEngine, MemoryNetwork
from bonevalue.rtc import RtcEngine
from tests.support.links import NO_SERVERS, Ends, connect, listen
from tests.support.waiting import other_tasks, until

ENGINES: dict[str, Callable[[], LinkEngine]] = {
    "memory": lambda: MemoryEngine(MemoryNetwork(delay=0.002)),
    "aiortc": RtcEngine,
}
RELAY_ONLY = IceConfig(relay_only=True)


@pytest.fixture(params=sorted(ENGINES))
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[LinkEngine]:
    """Each engine in turn. Afterwards nothing may be left, and nothing may have been raised where nobody looks."""
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    before = asyncio.all_tasks()
    yield ENGINES[request.param]()
    await until(lambda: other_tasks() <= before, what="tasks are left")
    gc.collect()
    assert unhandled == []


@pytest.fixture
async def ends(engine: LinkEngine) -> AsyncIterator[Ends]:
    """A link that is open, closed afterwards."""
    ends = await connect(engine)
    yield ends
    await ends.close()


@pytest.fixture
async def connection(engine: LinkEngine) -> AsyncIterator[Connection]:
    """A connection that has not begun, closed afterwards."""
    connection = engine.connection(NO_SERVERS)
    yield connection
    await connection.close()


async def test_messages_arrive_whole_and_in_order_both_ways(ends: Ends) -> None:
    numbers = random.Random(8)
    there = [numbers.randbytes(numbers.choice((1, 20, 1_160, 1_161, 5_000, MAX_SENT))) for _ in range(300)]
    back = [numbers.randbytes(numbers.choice((1, 20, 1_160, 1_161, 5_000, MAX_SENT))) for _ in range(300)]
    ours, theirs = listen(ends.ours), listen(ends.theirs)
    for message, answer in zip(there, back, strict=True):
        ends.ours.send(message)
        ends.theirs.send(answer)
    await until(lambda: len(theirs.messages) == 300 and len(ours.messages) == 300)
    assert theirs.messages == there
    assert ours.messages == back


@pytest.mark.parametrize("size", [0, MAX_SENT + 1])
async def test_a_message_of_a_wrong_size_is_our_own_fault(ends: Ends, size: int) -> None:
    heard = listen(ends.theirs)
    with pytest.raises(LocalProtocolError):
        ends.ours.send(bytes(size))
    ends.ours.send(b"still there")
    await until(lambda: heard.messages == [b"still there"])


async def test_messages_that_come_before_the_handler_are_kept(ends: Ends) -> None:
    ends.ours.send(b"one")
    ends.ours.send(b"two")
    assert await ends.ours.flush(5)
    heard: list[bytes] = []
    ends.theirs.on_message = heard.append
    assert heard == []  # setting a handler never runs it
    ends.ours.send(b"three")
    await until(lambda: len(heard) == 3)
    assert heard == [b"one", b"two", b"three"]


async def test_what_a_handler_raises_does_no_harm(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    seen = 0

    def raising(_: bytes) -> None:
        nonlocal seen
        seen += 1
        raise ValueError("a bug of ours")

    ends.theirs.on_message = raising
    for _ in range(100):
        ends.ours.send(b"boo")
    await until(lambda: seen == 100)
    heard = listen(ends.theirs)
    ends.ours.send(b"fine")
    await until(lambda: heard.messages == [b"fine"])
    assert ends.theirs.closed is None
    assert "a bug of ours" in caplog.text


async def test_closing_tells_both_sides_once(ends: Ends) -> None:
    ours, theirs = listen(ends.ours), listen(ends.theirs)
    ends.ours.close()
    ends.ours.close()
    assert ends.ours.closed == CloseReason.LOCAL
    assert ours.closed == []  # not from inside a method
    await until(lambda: ours.closed and theirs.closed)
    await ends.close()
    ends.theirs.close()
    await asyncio.sleep(0)
    assert (ours.closed, theirs.closed) == ([CloseReason.LOCAL], [CloseReason.REMOTE])
    assert ends.theirs.closed == CloseReason.REMOTE
    for link in (ends.ours, ends.theirs):
        with pytest.raises(LinkLost):
            link.send(b"too late")
        assert not await link.flush(1)


async def test_a_link_that_ended_early_says_so_when_asked(ends: Ends) -> None:
    ends.ours.send(b"last words")
    assert await ends.ours.flush(5)
    ends.ours.close()
    await until(lambda: ends.theirs.closed)
    heard = listen(ends.theirs)
    await until(lambda: heard.closed)
    assert heard.messages == [b"last words"]
    assert heard.closed == [CloseReason.REMOTE]


async def test_nothing_is_heard_after_the_end(ends: Ends) -> None:
    heard = listen(ends.theirs)
    for _ in range(50):
        ends.ours.send(b"x" * 1_000)
    await until(lambda: heard.messages)
    ends.theirs.close()
    count = len(heard.messages)
    await until(lambda: heard.closed)
    await until(lambda: ends.ours.closed)
    assert len(heard.messages) == count


async def test_flush_means_that_the_other_side_has_it(ends: Ends) -> None:
    heard = listen(ends.theirs)
    assert await ends.ours.flush(0.1)  # nothing sent yet
    for _ in range(64):
        ends.ours.send(bytes(MAX_SENT))
    assert not await ends.ours.flush(0)
    assert await ends.ours.flush(10)
    ends.ours.close()
    await until(lambda: heard.closed)
    assert sum(map(len, heard.messages)) == 64 * MAX_SENT


async def test_a_waiting_flush_ends_with_the_link(ends: Ends) -> None:
    for _ in range(64):
        ends.ours.send(bytes(MAX_SENT))
    flushing = asyncio.create_task(ends.ours.flush(10))
    await asyncio.sleep(0)
    ends.ours.close()
    assert not await flushing


async def test_what_waits_is_counted_and_its_end_is_told(ends: Ends) -> None:
    ours, theirs = listen(ends.ours), listen(ends.theirs)
    assert ends.ours.buffered == 0
    assert ends.ours.low_water == LOW_WATER
    ends.ours.low_water = 100_000
    for _ in range(128):
        ends.ours.send(bytes(MAX_SENT))
    assert ends.ours.buffered == 128 * MAX_SENT
    await until(lambda: ours.drained)
    assert ends.ours.buffered <= 100_000
    await until(lambda: sum(map(len, theirs.messages)) == 128 * MAX_SENT)
    await until(lambda: ends.ours.buffered == 0)
    assert ours.drained == 1


async def test_more_can_be_sent_from_the_drained_handler(ends: Ends) -> None:
    heard = listen(ends.theirs)
    left = 20

    def refill() -> None:
        nonlocal left
        if left:
            left -= 1
            for _ in range(10):
                ends.ours.send(bytes(MAX_SENT))

    ends.ours.on_drained = refill
    refill()
    await until(lambda: len(heard.messages) == 200)


async def test_the_path_is_known_while_open(engine: LinkEngine) -> None:
    idle = engine.connection(NO_SERVERS)
    assert idle.path() is None
    await idle.close()
    ends = await connect(engine)
    assert str(ends.caller.path()) == "host/host"
    await ends.close()
    assert ends.caller.path() is None


async def test_without_a_relay_relay_only_fails(engine: LinkEngine) -> None:
    caller, callee, helper = engine.connection(RELAY_ONLY), engine.connection(RELAY_ONLY), engine.connection(NO_SERVERS)
    with pytest.raises(ConnectFailed, match="only a relay may be used"):
        await caller.create_offer()
    with pytest.raises(ConnectFailed, match="only a relay may be used"):
        await caller.opened()
    with pytest.raises(ConnectFailed, match="only a relay may be used"):
        await callee.accept_offer(await helper.create_offer())
    await asyncio.gather(caller.close(), callee.close(), helper.close())


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda sdp: "",
    "garbage": lambda sdp: "\0\1\2" * 100,
    "only a version": lambda sdp: "v=0\r\n",
    "too long": lambda sdp: sdp + "a=x:" + "y" * 16_384 + "\r\n",
    "two media": lambda sdp: sdp + sdp[sdp.index("m=") :],
    "sound": lambda sdp: sdp.replace("m=application", "m=audio"),
    "no credentials": lambda sdp: re.sub("a=ice-ufrag.*\r\n", "", sdp),
    "a broken candidate": lambda sdp: sdp + "a=candidate:1 1 udp x\r\n",
    "takes no messages": lambda sdp: re.sub("max-message-size:.*\r\n", "max-message-size:1000\r\n", sdp),
}


@pytest.mark.parametrize("broken", sorted(BROKEN))
async def test_a_broken_description_is_refused(engine: LinkEngine, broken: str) -> None:
    caller, callee, victim = (engine.connection(NO_SERVERS) for _ in range(3))
    offer = await caller.create_offer()
    with pytest.raises(RemoteProtocolError):
        await victim.accept_offer(BROKEN[broken](offer))
    with pytest.raises(RemoteProtocolError):
        await caller.accept_answer(BROKEN[broken](await callee.accept_offer(offer)))
    await asyncio.gather(caller.close(), callee.close(), victim.close())


async def test_a_wrong_fingerprint_never_opens(engine: LinkEngine) -> None:
    caller, callee, other = (engine.connection(NO_SERVERS) for _ in range(3))
    answer = await callee.accept_offer(await caller.create_offer())
    theirs = re.findall("a=fingerprint:.*", answer)
    for line, foreign in zip(theirs, re.findall("a=fingerprint:.*", await other.create_offer()), strict=True):
        answer = answer.replace(line, foreign)
    await caller.accept_answer(answer)
    with pytest.raises(ConnectFailed, match="certificate"):
        await asyncio.wait_for(caller.opened(), 10)
    await asyncio.gather(caller.close(), callee.close(), other.close())


async def test_steps_out_of_order_are_our_own_fault(engine: LinkEngine) -> None:
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    with pytest.raises(LocalProtocolError):
        await caller.accept_answer("v=0")
    offer = await caller.create_offer()
    with pytest.raises(LocalProtocolError):
        await caller.create_offer()
    answer = await callee.accept_offer(offer)
    with pytest.raises(LocalProtocolError):
        await callee.accept_answer(answer)
    await asyncio.gather(caller.close(), callee.close())


async def test_closing_ends_the_wait_in_every_phase(engine: LinkEngine) -> None:
    async def wait_while(stage: int) -> None:
        caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
        opened = asyncio.create_task(caller.opened())
        await asyncio.sleep(0)
        offer = await caller.create_offer() if stage > 0 else ""
        answer = await callee.accept_offer(offer) if stage > 1 else ""
        if stage > 2:
            await caller.accept_answer(answer)
        assert caller.stage == ("idle", "waiting", "waiting", "checking")[stage]
        await asyncio.gather(caller.close(), callee.close())
        assert caller.stage == callee.stage == "ended"
        with pytest.raises(ConnectFailed):
            await opened
        with pytest.raises(ConnectFailed):
            await caller.opened()

    for stage in range(4):
        await wait_while(stage)


async def test_a_cancelled_offer_leaves_nothing(engine: LinkEngine) -> None:
    connection = engine.connection(NO_SERVERS)
    offering = asyncio.create_task(connection.create_offer())
    await asyncio.sleep(0)
    offering.cancel()
    await asyncio.gather(offering, return_exceptions=True)
    await connection.close()
    await connection.close()


CANDIDATE = "candidate:1 1 udp 2130706431 {} 40000 typ host"


@pytest.mark.parametrize("text", ["", "candidate:", "candidate:1 1 udp", CANDIDATE + " x" * 300, "a=" + CANDIDATE])
async def test_what_is_no_candidate_is_refused(connection: Connection, text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        connection.add_candidate(text.format("192.0.2.7"))


async def test_candidates_are_taken_at_any_time(engine: LinkEngine) -> None:
    caller, callee = engine.connection(NO_SERVERS), engine.connection(NO_SERVERS)
    offer = await caller.create_offer()
    for address in ("192.0.2.7", "fe80::1", "224.0.0.251", "::ffff:127.0.0.1", "12345678-90ab.local", "example.org"):
        caller.add_candidate(CANDIDATE.format(address))
        callee.add_candidate(CANDIDATE.format(address))
    await caller.accept_answer(await callee.accept_offer(offer))
    caller.add_candidate(CANDIDATE.format("192.0.2.8"))
    await asyncio.wait_for(asyncio.gather(caller.opened(), callee.opened()), 10)
    await asyncio.gather(caller.close(), callee.close())
    caller.add_candidate(CANDIDATE.format("192.0.2.9"))


async def test_thirty_links_leave_nothing_behind(engine: LinkEngine) -> None:
    before = other_tasks()
    files = set(os.listdir("/proc/self/fd"))
    for number in range(30):
        ends = await connect(engine)
        heard = listen(ends.theirs)
        ends.ours.send(b"hello")
        await until(partial(len, heard.messages))
        # By turns: both sides close, one side and the link notices, in the middle of a bulk.
        if number % 3 == 0:
            ends.ours.close()
            await until(partial(len, heard.closed))
        elif number % 3 == 1:
            for _ in range(64):
                ends.ours.send(bytes(MAX_SENT))
        await ends.close()
    await until(lambda: other_tasks() <= before)
    await until(lambda: set(os.listdir("/proc/self/fd")) <= files)


def test_the_engine_runs_on_uvloop_too() -> None:
    async def talk() -> None:
        for make in ENGINES.values():
            ends = await connect(make())
            heard = listen(ends.theirs)
            ends.ours.send(b"hello")
            await until(partial(len, heard.messages))
            await ends.close()

    uvloop.run(talk())
