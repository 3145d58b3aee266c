"""Calls over a proved link: handlers, errors, cancelling, holds, and what a failing handler must not harm."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel

from bonevalue import Context
from bonevalue.errors import (
    BadRequest,
    BoneValueError,
    Busy,
    Cancelled,
    Deadline,
    Denied,
    HandlerFailed,
    LinkLost,
    NoModule,
    NoTarget,
    TooLarge,
)
from bonevalue.link_calls import CallMoved
from bonevalue.link_memory import MemoryEngine, MemoryNetwork
from bonevalue.serving import ServedModule
from bonevalue.wire import frames
from bonevalue.wire.calls import LinkSettings
from tests.support.meeting import Meeting, meet
from tests.support.waiting import UNIT, until


class Order(BaseModel):
    item: str
    count: int = 1


@pytest.fixture
async def meeting() -> AsyncIterator[Meeting]:
    meeting = await meet()
    yield meeting
    await meeting.close()


async def echo(request: Any) -> Any:
    return request


@pytest.mark.parametrize("value", [None, 0, "text", [1, {"a": [True, 2.5]}], {}, b"", b"\x00\xff" * 50_000])
async def test_json_and_bytes_go_there_and_back(meeting: Meeting, value: Any) -> None:
    meeting.serve("Echo", echo)
    assert await meeting.ours.call("Echo", value, 5) == value


async def test_calls_in_one_turn_of_the_loop_share_messages(meeting: Meeting) -> None:
    meeting.serve("Echo", echo)
    sent: list[bytes] = []
    send = meeting.ends.ours.send

    def record(message: bytes) -> None:
        sent.append(message)
        send(message)

    meeting.ends.ours.send = record  # type: ignore[method-assign]
    await asyncio.gather(*(meeting.ours.call("Echo", number, 5) for number in range(100)))
    requests = [frame for message in sent for frame in frames.decode(message)]
    assert len(requests) >= 100 and len(sent) <= 5


async def test_the_context_names_the_caller_as_verified(meeting: Meeting) -> None:
    seen: list[Context] = []

    async def who(request: Any, context: Context) -> str:
        seen.append(context)
        return context.caller.name

    meeting.serve("Who", who)
    assert await meeting.ours.call("Who", {"caller": "somebody else"}, 5) == "alice"
    assert seen[0].caller.id == "1" and 4 < seen[0].time_left <= 5


async def test_both_sides_call_each_other_while_they_are_called(meeting: Meeting) -> None:
    async def ping(request: int) -> int:
        return request if request == 0 else int(await meeting.theirs.call("Pong", request - 1, 5))

    async def pong(request: int) -> int:
        return request if request == 0 else int(await meeting.ours.call("Ping", request - 1, 5))

    meeting.serve("Ping", ping)
    meeting.our_host.modules["Pong"] = ServedModule("Pong", pong)
    assert await meeting.ours.call("Ping", 9, 5) == 0


async def test_a_module_that_is_not_there(meeting: Meeting) -> None:
    with pytest.raises(NoModule, match="'Nobody'") as caught:
        await meeting.ours.call("Nobody", 1, 5)
    assert caught.value.peer == "2"


async def test_a_thousand_failing_handlers_leave_the_link_alive(
    meeting: Meeting, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: Any) -> None:
        raise ValueError("a secret of the handler")

    meeting.serve("Fail", fail)
    meeting.serve("Echo", echo)
    results = await asyncio.gather(
        *(meeting.ours.call("Fail", number, 30) for number in range(1000)), return_exceptions=True
    )
    assert {type(result) for result in results} == {HandlerFailed}
    assert not any("secret" in str(result) for result in results)
    first = results[0]
    assert isinstance(first, HandlerFailed) and first.call_id and first.call_id in caplog.text
    assert await meeting.ours.call("Echo", 1, 5) == 1
    failures = [record for record in caplog.records if "module Fail failed" in record.message]
    assert 10 <= len(failures) < 200


@pytest.mark.parametrize("junk", [object(), {1, 2}.__iter__(), {"a": object()}, "\ud800"])
async def test_a_response_that_is_neither_json_nor_bytes(meeting: Meeting, junk: Any) -> None:
    async def answer(request: Any) -> Any:
        return junk

    meeting.serve("Junk", answer)
    with pytest.raises(HandlerFailed):
        await meeting.ours.call("Junk", 1, 5)


@pytest.mark.parametrize("error", [BadRequest("no"), Busy("no", retry_after=3), Denied("no"), TooLarge("no")])
async def test_a_handler_may_speak_to_its_caller(meeting: Meeting, error: BoneValueError) -> None:
    async def refuse(request: Any) -> None:
        raise error

    meeting.serve("Refuse", refuse)
    with pytest.raises(type(error), match="no") as caught:
        await meeting.ours.call("Refuse", 1, 5)
    assert caught.value.retry_after == error.retry_after and caught.value.call_id


@pytest.mark.parametrize("error", [NoTarget("nobody"), LinkLost("elsewhere"), KeyError("x"), SystemError("y")])
async def test_other_errors_of_a_handler_are_its_own_affair(meeting: Meeting, error: Exception) -> None:
    async def fail(request: Any) -> None:
        raise error

    meeting.serve("Fail", fail)
    with pytest.raises(HandlerFailed):
        await meeting.ours.call("Fail", 1, 5)


async def test_an_error_of_a_call_further_on_is_not_passed_off_as_ones_own(meeting: Meeting) -> None:
    async def forward(request: Any) -> Any:
        return await meeting.theirs.call("Refuse", 1, 5)

    async def refuse(request: Any) -> None:
        raise Denied("only for kings")

    meeting.serve("Forward", forward)
    meeting.our_host.modules["Refuse"] = ServedModule("Refuse", refuse)
    with pytest.raises(HandlerFailed):
        await meeting.ours.call("Forward", 1, 5)


# -- cancelling and deadlines ----------------------------------------------------------------------------------------


class Slow:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.running = 0
        self.cancelled = 0
        self.go = asyncio.Event()

    async def handle(self, request: Any) -> str:
        self.running += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "done"


async def test_cancelling_reaches_the_handler(meeting: Meeting) -> None:
    slow = Slow()
    meeting.serve("Slow", slow.handle)
    task = asyncio.create_task(meeting.ours.call("Slow", 1, 30))
    await until(lambda: slow.running)
    task.cancel()
    await until(lambda: slow.cancelled)
    assert meeting.ours.active == 0
    await until(lambda: meeting.theirs.active == 0)


async def test_the_deadline_reaches_caller_and_handler(meeting: Meeting) -> None:
    slow = Slow()
    meeting.serve("Slow", slow.handle)
    with pytest.raises(Deadline):
        await meeting.ours.call("Slow", 1, UNIT)
    await until(lambda: slow.cancelled)


async def test_a_lost_link_fails_our_calls_and_cancels_theirs(meeting: Meeting) -> None:
    slow = Slow()
    meeting.serve("Slow", slow.handle, concurrency=128)
    tasks = [asyncio.create_task(meeting.ours.call("Slow", 1, 30)) for _ in range(100)]
    await until(lambda: slow.running == 100)
    meeting.ends.theirs.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {LinkLost}
    assert len({id(result) for result in results}) == 100
    await until(lambda: slow.cancelled == 100)
    assert set(meeting.closed) == {meeting.ours, meeting.theirs}


async def test_a_handler_that_is_cancelled_from_inside_answers(meeting: Meeting) -> None:
    async def give_up(request: Any) -> None:
        raise asyncio.CancelledError

    meeting.serve("GiveUp", give_up)
    with pytest.raises(Cancelled):
        await meeting.ours.call("GiveUp", 1, 5)


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_handler_that_wants_to_exit_does_not_end_the_process(meeting: Meeting, blocking: bool) -> None:
    async def leave(request: Any) -> None:
        raise SystemExit(3)

    def leave_the_thread(request: Any) -> None:
        raise SystemExit(3)

    meeting.serve("Leave", leave_the_thread if blocking else leave)
    with pytest.raises(HandlerFailed):
        await meeting.ours.call("Leave", 1, 5)


async def test_a_request_that_is_refused_here_leaves_no_hold_behind(meeting: Meeting) -> None:
    with pytest.raises(TooLarge) as caught:
        await meeting.theirs.call("Echo", b"x" * 9_000_000, 5)
    assert caught.value.peer == "1"
    meeting.serve("Echo", echo)
    await meeting.ours.call("Echo", 1, 5, keep_alive=False)
    await until(lambda: len(meeting.closed) == 2)


# -- modules in threads, validation, concurrency ---------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread_and_blocks_nobody(meeting: Meeting) -> None:
    go = threading.Event()

    def block(request: Any) -> str:
        go.wait(20)
        return threading.current_thread().name

    meeting.serve("Block", block)
    meeting.serve("Echo", echo)
    blocked = asyncio.create_task(meeting.ours.call("Block", 1, 20))
    assert await meeting.ours.call("Echo", 1, 5) == 1
    assert not blocked.done()
    go.set()
    assert await blocked == "bonevalue-handler"


async def test_a_thread_keeps_its_slot_until_it_returns(meeting: Meeting) -> None:
    go = threading.Event()

    def block(request: Any) -> str:
        go.wait(20)
        return "done"

    meeting.serve("Block", block, concurrency=1)
    with pytest.raises(Deadline):
        await meeting.ours.call("Block", 1, UNIT)
    second = asyncio.create_task(meeting.ours.call("Block", 2, 20))
    await until(lambda: meeting.theirs.active == 1)
    assert not second.done()
    go.set()
    assert await second == "done"


async def test_errors_of_a_thread_are_errors_of_the_handler(meeting: Meeting) -> None:
    def stop(request: Any) -> None:
        raise StopIteration

    meeting.serve("Stop", stop)
    with pytest.raises(HandlerFailed):
        await meeting.ours.call("Stop", 1, 5)


async def test_a_typed_request_is_validated_before_the_handler_runs(meeting: Meeting) -> None:
    ran: list[Order] = []

    async def order(request: Order) -> int:
        ran.append(request)
        return request.count

    meeting.serve("Order", order)
    assert await meeting.ours.call("Order", {"item": "bone", "count": "3"}, 5) == 3
    with pytest.raises(BadRequest, match=r"item: Field required; count: Input should be a valid integer"):
        await meeting.ours.call("Order", {"count": "many"}, 5)
    with pytest.raises(BadRequest, match="takes JSON"):
        await meeting.ours.call("Order", b"bytes", 5)
    assert len(ran) == 1


async def test_a_handler_of_bytes_takes_no_json(meeting: Meeting) -> None:
    async def size(request: bytes) -> int:
        return len(request)

    meeting.serve("Size", size)
    assert await meeting.ours.call("Size", b"12345", 5) == 5
    with pytest.raises(BadRequest, match="takes bytes"):
        await meeting.ours.call("Size", "12345", 5)


async def test_only_those_allowed_may_call(meeting: Meeting) -> None:
    meeting.serve("Private", echo, allow=["Us", "carol"])
    meeting.serve("ForAlice", echo, allow=["alice"])
    with pytest.raises(Denied):
        await meeting.ours.call("Private", 1, 5)
    assert await meeting.ours.call("ForAlice", 1, 5) == 1


async def test_calls_over_the_concurrency_wait_and_then_too_many_are_busy(
    meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bonevalue.serving.MAX_WAITING", 3)
    slow = Slow()
    meeting.serve("Slow", slow.handle, concurrency=2)
    tasks = [asyncio.create_task(meeting.ours.call("Slow", 1, 20)) for _ in range(6)]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.exception()) for task in done] == [Busy]
    assert slow.running == 2
    slow.go.set()
    await asyncio.wait(tasks)
    assert sum(task.exception() is None for task in tasks) == 5


async def test_a_request_over_the_limit_is_not_sent(meeting: Meeting) -> None:
    small = await meet(theirs=LinkSettings(max_body=1000))
    try:
        with pytest.raises(TooLarge):
            await small.ours.call("Echo", b"x" * 1001, 5)
        assert small.ours.active == 0
    finally:
        await small.close()


# -- the life of a link ----------------------------------------------------------------------------------------------


async def test_a_link_that_no_call_has_used_yet_can_be_told_apart() -> None:
    """The pool leaves it alone for a moment: whoever asked for it has not called yet."""
    meeting = await meet()
    meeting.serve("Echo", echo)
    links = (meeting.ours, meeting.theirs)
    assert all(link.used_at == link.opened_at for link in links)
    await meeting.ours.call("Echo", 1, 5)
    assert all(link.used_at > link.opened_at for link in links)
    await meeting.close()


async def test_a_link_that_no_call_wants_kept_is_closed_at_once() -> None:
    meeting = await meet()
    meeting.serve("Echo", echo)
    assert await meeting.ours.call("Echo", 1, 5, keep_alive=False) == 1
    await until(lambda: len(meeting.closed) == 2)
    await meeting.close()


async def test_a_link_is_held_for_the_idle_timeout_after_its_last_use() -> None:
    meeting = await meet(idle_timeout=4 * UNIT)
    meeting.serve("Echo", echo)
    await meeting.ours.call("Echo", 1, 5)
    await meeting.ours.call("Echo", 1, 5, keep_alive=False)
    assert meeting.ours.usable
    await until(lambda: len(meeting.closed) == 2)
    assert asyncio.get_running_loop().time() - meeting.ours.opened_at >= 4 * UNIT
    await meeting.close()


async def test_the_side_that_is_dialled_may_hold_the_link() -> None:
    meeting = await meet(idle_timeout=60)
    meeting.serve("Echo", echo)
    meeting.our_host.modules["Echo"] = ServedModule("Echo", echo)
    await meeting.theirs.call("Echo", 1, 5)
    await meeting.ours.call("Echo", 1, 5, keep_alive=False)
    await meeting.ours.ping(5)
    assert meeting.ours.usable and meeting.theirs.usable
    await meeting.close()


async def test_draining_lets_calls_finish_and_moves_later_ones() -> None:
    meeting = await meet()
    slow = Slow()
    meeting.serve("Slow", slow.handle)
    running = asyncio.create_task(meeting.ours.call("Slow", 1, 20))
    await until(lambda: slow.running)
    meeting.theirs.drain("stopping")
    with pytest.raises(CallMoved):
        await meeting.ours.call("Slow", 2, 20)
    slow.go.set()
    assert await running == "done"
    await until(lambda: len(meeting.closed) == 2)
    assert slow.running == 1
    await meeting.close()


async def test_a_long_answer_arrives_whole_although_its_sender_drains() -> None:
    meeting = await meet()

    async def long(request: Any) -> bytes:
        meeting.theirs.drain("stopping")
        return bytes(2_000_000)

    meeting.serve("Long", long)
    assert len(await meeting.ours.call("Long", 1, 20)) == 2_000_000
    await until(lambda: len(meeting.closed) == 2)
    await meeting.close()


async def test_a_silent_network_is_noticed_by_the_heartbeat() -> None:
    network = MemoryNetwork()
    settings = LinkSettings(heartbeat=2 * UNIT)
    meeting = await meet(MemoryEngine(network), ours=settings, theirs=settings)
    meeting.serve("Slow", Slow().handle)
    task = asyncio.create_task(meeting.ours.call("Slow", 1, 20))
    await until(lambda: meeting.theirs.active)
    network.silent = True
    with pytest.raises(LinkLost, match="nothing was heard"):
        await task
    await until(lambda: len(meeting.closed) == 2)
    await meeting.close()


async def test_a_message_that_breaks_the_rules_closes_the_link(
    meeting: Meeting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    meeting.ends.ours.send(b"\x7f garbage")
    await until(lambda: meeting.theirs in meeting.closed)
    assert "protocol_error" in caplog.text
    assert meeting.theirs.gone.result().code == "protocol_error"


async def test_a_ping_measures_the_round_trip() -> None:
    meeting = await meet(MemoryEngine(MemoryNetwork(delay=UNIT)))
    assert 2 * UNIT <= await meeting.ours.ping(5) < 20 * UNIT
    with pytest.raises(Deadline):
        await meeting.ours.ping(UNIT / 10)
    await meeting.close()


async def test_peers_that_flood_each_other_with_long_requests_answer_them() -> None:
    """Were the requests that wait here counted as answers that are not read, neither would answer."""
    meeting = await meet()

    async def length(request: bytes) -> int:
        return len(request)

    for host in (meeting.our_host, meeting.their_host):
        host.modules["Length"] = ServedModule("Length", length)
    calls = [link.call("Length", bytes(2**22), 60) for link in (meeting.ours, meeting.theirs) for _ in range(12)]
    assert await asyncio.gather(*calls) == [2**22] * 24
    await meeting.close()
