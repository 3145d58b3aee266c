"""What passes from peer to peer: to whom, how often, for how long."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest
from msgspec import Struct

from bonevalue.errors import Busy, Expired, RateLimited
from bonevalue.wire.signals import Binary, Failure, PeerCandidate, PeerRequest, PeerResponse
from bonevalue_server.hub import Hub
from bonevalue_server.limits import Limits
from bonevalue_server.relay import PendingRequests
from bonevalue_server.relayed import MAX_BLOB
from bonevalue_server.sessions import Session
from tests.support.accounts import Person, befriend
from tests.support.hub_world import Client, World, open_world, request

SESSION = Binary(bytes(16))
SIGNATURE = Binary(bytes(64))


class Watched(Hub):
    """A hub that looks at everything, and so takes no short cut."""

    def outgoing(self, session: Session, message: Struct) -> Iterable[Struct]:
        return super().outgoing(session, message)


@pytest.fixture(params=[Hub, Watched])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path, hub_type=request.param) as opened:
        yield opened


@pytest.fixture
async def friends(world: World) -> tuple[Person, Person]:
    alice, bob = await world.person("alice"), await world.person("bob")
    await befriend(world.store, alice, bob)
    return alice, bob


@pytest.fixture
async def pair(world: World, friends: tuple[Person, Person]) -> tuple[Client, Client]:
    """A peer of Alice and one of Bob."""
    alice, bob = friends
    callee = await world.enter(bob)
    caller = await world.enter(alice)
    for client in (caller, callee):
        client.news()
    return caller, callee


def answer(to: str) -> PeerResponse:
    return PeerResponse(to, None, Binary(b"an answer"), SIGNATURE)


def candidate(to: str) -> PeerCandidate:
    return PeerCandidate(to, None, SESSION, "candidate:1 1 udp 1 192.0.2.7 9 typ host")


# -- on the way ------------------------------------------------------------------------------------------------------


async def test_a_connection_is_negotiated(pair: tuple[Client, Client]) -> None:
    caller, callee = pair
    caller.tell(request(callee.peer_id, from_="12345"))
    callee.tell(answer(caller.peer_id))
    callee.tell(candidate(caller.peer_id))
    caller.tell(candidate(callee.peer_id))
    assert callee.received[0] == {
        "type": "peerRequest",
        "data": {"to": callee.peer_id, "from": caller.peer_id, "offer": "YW4gb2ZmZXI", "signature": "A" * 86},
    }
    assert caller.types() == ["peerResponse", "peerCandidate"]
    assert callee.types() == ["peerRequest", "peerCandidate"]
    assert {message["data"]["from"] for message in caller.received} == {callee.peer_id}


async def test_a_ref_is_for_the_sender_alone(pair: tuple[Client, Client]) -> None:
    caller, callee = pair
    caller.tell(request(callee.peer_id), "mine")
    assert caller.received == [{"type": "done", "data": {}, "ref": "mine"}]
    assert "ref" not in callee.received[0]


async def test_an_invisible_peer_asks_and_is_answered_but_cannot_be_asked(
    world: World, friends: tuple[Person, Person], pair: tuple[Client, Client]
) -> None:
    _, callee = pair
    hidden = await world.enter(friends[0], visible=False)
    for unasked in (request(hidden.peer_id), answer(hidden.peer_id), candidate(hidden.peer_id)):
        assert await callee.code_of(unasked) == "peer_offline"
    assert await hidden.code_of(request(callee.peer_id)) == "done"
    for expected in (candidate(hidden.peer_id), answer(hidden.peer_id), candidate(hidden.peer_id)):
        assert await callee.code_of(expected) == "done"
    assert await callee.code_of(request(hidden.peer_id)) == "peer_offline"
    assert hidden.types()[-3:] == ["peerCandidate", "peerResponse", "peerCandidate"]


async def test_nobody_reaches_oneself(pair: tuple[Client, Client]) -> None:
    caller, _ = pair
    assert await caller.code_of(request(caller.peer_id)) == "peer_offline"


async def test_answers_and_candidates_have_their_time(world: World, pair: tuple[Client, Client]) -> None:
    caller, callee = pair
    for early in (answer(caller.peer_id), candidate(caller.peer_id)):
        assert await callee.code_of(early) == "expired"
    caller.tell(request(callee.peer_id))
    assert await callee.code_of(answer(caller.peer_id)) == "done"
    assert await callee.code_of(answer(caller.peer_id)) == "expired"
    world.wait(29)
    assert await caller.code_of(candidate(callee.peer_id)) == "done"
    world.wait(2)
    assert await caller.code_of(candidate(callee.peer_id)) == "expired"
    caller.tell(request(callee.peer_id))
    world.wait(31)
    assert await callee.code_of(answer(caller.peer_id)) == "expired"


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda to: PeerRequest(to, None, Binary(bytes(MAX_BLOB)), SIGNATURE), "done"),
        (lambda to: PeerRequest(to, None, Binary(bytes(MAX_BLOB + 1)), SIGNATURE), "too_large"),
        (lambda to: PeerRequest(to, None, Binary(), SIGNATURE), "bad_message"),
        (lambda to: PeerRequest(to, None, Binary(b"an offer"), Binary(bytes(63))), "bad_message"),
        (lambda to: PeerResponse(to, None, Binary(bytes(MAX_BLOB + 1)), SIGNATURE), "too_large"),
        (lambda to: PeerResponse(to), "bad_message"),
        (lambda to: PeerResponse(to, None, Binary(b"x"), SIGNATURE, error=Failure("busy")), "bad_message"),
        (lambda to: PeerResponse(to, None, Binary(b"x"), SIGNATURE, session=SESSION), "bad_message"),
        (lambda to: PeerResponse(to, None, error=Failure("busy")), "bad_message"),
        (lambda to: PeerResponse(to, None, session=SESSION, error=Failure("busy", "x" * 2000)), "too_large"),
        (lambda to: PeerCandidate(to, None, Binary(bytes(15)), "candidate:1"), "bad_message"),
        (lambda to: PeerCandidate(to, None, SESSION, "x" * 1024), "done"),
        (lambda to: PeerCandidate(to, None, SESSION, "x" * 1025), "bad_message"),
    ],
)
async def test_only_what_a_peer_could_use_passes(
    pair: tuple[Client, Client], make: Callable[[str], PeerRequest], code: str
) -> None:
    caller, callee = pair
    callee.tell(request(caller.peer_id))
    caller.news()
    reply = await caller.ask(make(callee.peer_id)) or caller.received[-1]
    assert (reply["data"].get("code") or reply["type"]) == code


async def test_unknown_untrusting_and_absent_peers_are_one_answer_in_one_time(
    world: World, pair: tuple[Client, Client]
) -> None:
    caller, callee = pair
    stranger = await world.enter(await world.person("stranger"))
    callee.leave(may_return=True)
    targets = {"unknown": "999", "untrusting": stranger.peer_id, "absent": callee.peer_id}
    times: dict[str, list[float]] = {kind: [] for kind in targets}
    answers = set()
    for _ in range(200):
        world.wait(2)
        for kind, target in targets.items():
            began = time.perf_counter()
            caller.tell(request(target))
            times[kind].append(time.perf_counter() - began)
            answers.add(repr(caller.received[-1]))
    assert len(answers) == 1 and "peer_offline" in answers.pop()
    medians = [statistics.median(taken) for taken in times.values()]
    assert max(medians) - min(medians) < 0.005


# -- limits ----------------------------------------------------------------------------------------------------------


async def test_requests_to_one_peer_are_limited(world: World, pair: tuple[Client, Client]) -> None:
    caller, callee = pair
    codes = []
    for _ in range(22):
        codes.append(await caller.code_of(request(callee.peer_id)))
        callee.tell(answer(caller.peer_id))
    assert codes == [*["done"] * 20, *["rate_limited"] * 2]
    world.wait(1)
    assert await caller.code_of(request(callee.peer_id)) == "done"


async def test_requests_to_nobody_are_limited_too(pair: tuple[Client, Client]) -> None:
    caller, _ = pair
    codes = [await caller.code_of(request("999")) for _ in range(21)]
    assert codes == [*["peer_offline"] * 20, "rate_limited"]


async def test_unanswered_requests_are_limited(pair: tuple[Client, Client]) -> None:
    caller, callee = pair
    codes = [await caller.code_of(request(callee.peer_id)) for _ in range(5)]
    assert codes == [*["done"] * 4, "rate_limited"]
    assert caller.received[-1]["data"]["retryAfter"] == 30
    callee.tell(answer(caller.peer_id))
    assert await caller.code_of(request(callee.peer_id)) == "done"


async def test_candidates_are_limited(pair: tuple[Client, Client]) -> None:
    caller, callee = pair
    caller.tell(request(callee.peer_id))
    codes = [await caller.code_of(candidate(callee.peer_id)) for _ in range(33)]
    assert codes == [*["done"] * 32, "rate_limited"]
    assert await callee.code_of(candidate(caller.peer_id)) == "done"


def test_a_peer_has_only_so_many_requests_to_answer() -> None:
    pending = PendingRequests(Limits(pending_requests_per_target=3))
    for caller in ("1", "2", "3"):
        pending.open(caller, "9", 0.0)
    with pytest.raises(Busy):
        pending.open("4", "9", 1.0)
    pending.answer("2", "9", 2.0)
    pending.open("4", "9", 3.0)
    with pytest.raises(Busy):
        pending.open("5", "9", 4.0)
    pending.open("5", "9", 30.5)


def test_nothing_is_remembered_of_what_is_over() -> None:
    pending = PendingRequests(Limits())
    for number in range(100):
        pending.open(str(number), "9" if number < 50 else str(number + 1), float(number) / 100)
    pending.answer("7", "9", 2.0)
    with pytest.raises(Expired):
        pending.answer("7", "9", 2.0)
    pending.expire(30.4)
    assert 0 < len(pending) < 100
    pending.expire(31.0)
    assert len(pending) == 0
    assert not pending._open_to


def test_a_sender_is_limited_whoever_is_asked() -> None:
    pending = PendingRequests(Limits())
    for number in range(256):
        pending.check_rate("1", str(number), 0.0)
    with pytest.raises(RateLimited) as caught:
        pending.check_rate("1", "1000", 0.0)
    assert caught.value.retry_after == pytest.approx(0.05)
    pending.check_rate("2", "1000", 0.0)
