"""The pool: one link a peer, limits, the queue, eviction, and both sides dialling at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bonevalue.counters import Counters
from bonevalue.errors import BoneValueError, ConnectFailed, LinkLimit, NotTrusted, RateLimited, Unavailable
from bonevalue.module import Caller
from bonevalue.peer_link import PeerLink
from bonevalue.pool import MAX_UNPROVED, Pool
from tests.support.waiting import until


class FakeLink:
    """A link as the pool sees it."""

    def __init__(self, pool: Pool, peer_id: str, *, offerer: bool = True) -> None:
        self.remote = Caller("bob", peer_id, peer_id.encode().ljust(32), "")
        self.offerer = offerer
        self.usable = True
        self.active = 0
        self.opened_at = self.used_at = asyncio.get_running_loop().time()
        self.gone: asyncio.Future[BoneValueError] = asyncio.get_running_loop().create_future()
        self.reason = ""
        self._pool = pool

    def drain(self, reason: str) -> None:
        """Ends at once if nothing is under way."""
        if self.usable:
            self.usable = False
            self.reason = reason
            if not self.active:
                asyncio.get_running_loop().call_soon(self.close)

    def close(self, error: BoneValueError | None = None) -> None:
        """Gone."""
        if not self.gone.done():
            self.usable = False
            self.reason = self.reason or (error.code if error else "closed")
            self.gone.set_result(error or BoneValueError())
            self._pool.remove(cast(PeerLink, self))


class Network:
    """Dials fake links, each when the test says so."""

    def __init__(self, max_outgoing: int = 2, max_incoming: int = 3) -> None:
        self.counters = Counters()
        self.kept_away: set[str] = set()
        self.pool = Pool(
            self._dial,
            max_outgoing=max_outgoing,
            max_incoming=max_incoming,
            check=self._check,
            counters=self.counters,
        )
        self.dialled: list[str] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: BoneValueError | None = None
        self.made: list[FakeLink] = []

    def _check(self, peer_id: str) -> None:
        if peer_id in self.kept_away:
            raise RateLimited("not now", retry_after=5.0)

    async def _dial(self, peer_id: str) -> PeerLink:
        self.dialled.append(peer_id)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(peer_id)
            raise
        if self.error is not None:
            raise self.error
        return self.link(peer_id)

    def link(self, peer_id: str, **options: Any) -> PeerLink:
        link = FakeLink(self.pool, peer_id, **options)
        self.made.append(link)
        return cast(PeerLink, link)

    def want(self, *peer_ids: str) -> list[asyncio.Task[PeerLink]]:
        return [asyncio.create_task(self.pool.link(peer_id)) for peer_id in peer_ids]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_link_is_made_once_and_shared() -> None:
    network = Network()
    network.open.clear()
    tasks = network.want("5", "5", "5")
    await settle()
    network.open.set()
    links = await asyncio.gather(*tasks)
    assert len(set(links)) == 1 and network.dialled == ["5"]
    assert await network.pool.link("5") is links[0] and network.pool.current("5") is links[0]


async def test_a_failure_reaches_all_who_wait_and_the_next_tries_anew() -> None:
    network = Network()
    network.error = ConnectFailed("no way")
    results = await asyncio.gather(*network.want("5", "5"), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectFailed, ConnectFailed]
    network.error = None
    assert (await network.pool.link("5")).usable


async def test_no_more_than_max_outgoing_at_once_and_first_come_first_served() -> None:
    network = Network(max_outgoing=2)
    network.open.clear()
    tasks = network.want(*"123456")
    await settle()
    assert network.dialled == ["1", "2"]
    network.open.set()
    for number, task in enumerate(tasks):
        link = cast(FakeLink, await task)
        assert len([made for made in network.made if not made.gone.done()]) <= 2
        link.active = 1
        await settle()
        link.active = 0
        if number < 4:
            link.close()
    assert network.dialled == list("123456")


async def test_idle_links_make_room_the_longest_unused_first() -> None:
    network = Network(max_outgoing=2)
    one, two = [cast(FakeLink, await network.pool.link(peer_id)) for peer_id in "12"]
    one.used_at += 100
    await network.pool.link("3")
    assert (one.usable, two.usable, two.reason) == (True, False, "evicted")


async def test_busy_links_are_not_evicted_until_they_are_idle() -> None:
    network = Network(max_outgoing=1)
    busy = cast(FakeLink, await network.pool.link("1"))
    busy.active = 1
    (waiting,) = network.want("2")
    await settle()
    assert busy.usable and not waiting.done()
    busy.active = 0
    network.pool.idle(cast(PeerLink, busy))
    assert (await waiting).usable and not busy.usable


async def test_who_gives_up_in_the_queue_leaves_it() -> None:
    network = Network(max_outgoing=1)
    network.open.clear()
    first, second, third = network.want("1", "2", "3")
    await settle()
    second.cancel()
    await settle()
    network.open.set()
    cast(FakeLink, await first).close()
    await third
    assert network.dialled == ["1", "3"]


async def test_an_attempt_that_nobody_waits_for_is_given_up() -> None:
    network = Network(max_outgoing=1)
    network.open.clear()
    first, again = network.want("1", "1")
    (other,) = network.want("2")
    await settle()
    first.cancel()
    await settle()
    assert network.cancelled == []
    again.cancel()
    await until(lambda: network.cancelled == ["1"])
    network.open.set()
    assert (await other).usable


@pytest.mark.parametrize("end", ["given up", "with a link that is dead already"])
async def test_nobody_joins_an_attempt_that_is_over(end: str) -> None:
    tidied = asyncio.Event()

    async def dial(peer_id: str) -> PeerLink:
        dialled.append(peer_id)
        if len(dialled) > 1:
            return cast(PeerLink, FakeLink(pool, peer_id))
        try:
            await asyncio.Event().wait()
        finally:
            await tidied.wait()
        raise AssertionError

    dialled: list[str] = []
    pool = Pool(dial, max_outgoing=2, max_incoming=2)
    first = asyncio.create_task(pool.link("5"))
    await settle()
    if end == "given up":
        first.cancel()
    else:
        theirs = FakeLink(pool, "5", offerer=False)
        pool.add(cast(PeerLink, theirs))
        assert await first is cast(PeerLink, theirs)
        theirs.close()
    await settle()
    second = asyncio.create_task(pool.link("5"))
    await settle()
    assert not second.done() and dialled == ["5"]
    tidied.set()
    assert (await second).usable and dialled == ["5", "5"]


async def test_whoever_wants_to_know_is_told_of_each_link_that_is_proved() -> None:
    async def dial(peer_id: str) -> PeerLink:
        return cast(PeerLink, FakeLink(pool, peer_id))

    added: list[PeerLink] = []
    pool = Pool(dial, max_outgoing=2, max_incoming=2, on_added=added.append)
    ours = await pool.link("5")
    pool.add(theirs := cast(PeerLink, FakeLink(pool, "6", offerer=False)))
    assert added == [ours, theirs]


async def test_a_slot_granted_to_somebody_who_just_left_is_not_lost() -> None:
    network = Network(max_outgoing=1)
    link = cast(FakeLink, await network.pool.link("1"))
    link.active = 1
    second, third = network.want("2", "3")
    await settle()
    link.close()
    second.cancel()
    assert (await third).usable


async def test_an_incoming_link_ends_the_attempt_that_waits() -> None:
    network = Network(max_outgoing=1)
    network.open.clear()
    first, second = network.want("1", "2")
    await settle()
    network.pool.reserve("2", b"2")
    theirs = network.link("2", offerer=False)
    network.pool.add(theirs)
    network.pool.release("2")
    assert await second is theirs
    theirs_too = network.link("1", offerer=False)
    network.pool.add(theirs_too)
    assert await first is theirs_too
    await until(lambda: network.cancelled == ["1"])


async def test_incoming_links_have_a_limit_of_their_own() -> None:
    network = Network(max_incoming=2)
    for peer_id in "12":
        network.pool.reserve(peer_id, peer_id.encode())
        network.pool.add(network.link(peer_id, offerer=False))
        network.pool.release(peer_id)
    with pytest.raises(LinkLimit, match="holds 2"):
        network.pool.reserve("3", b"3")
    network.made[0].close()
    network.pool.reserve("3", b"3")
    assert (await network.pool.link("9")).usable
    assert network.counters.limited["max_incoming"] == 1


async def test_links_that_are_being_set_up_have_a_limit() -> None:
    network = Network(max_incoming=100)
    for number in range(MAX_UNPROVED):
        network.pool.reserve(str(number), str(number).encode())
    with pytest.raises(LinkLimit, match="being set up"):
        network.pool.reserve("99", b"99")
    network.pool.release("0")
    network.pool.reserve("99", b"99")


async def test_one_account_cannot_take_all_places_for_links_that_are_being_set_up() -> None:
    network = Network(max_incoming=100)
    for number in range(8):
        network.pool.reserve(str(number), b"mallory")
    with pytest.raises(LinkLimit, match="8 links of this account"):
        network.pool.reserve("8", b"mallory")
    network.pool.reserve("9", b"alice")
    assert network.counters.limited["setting_up"] == 1


async def test_one_account_opens_only_so_many_links_in_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bonevalue.pool.time.monotonic", lambda: now)
    network = Network()

    def open_one(key: bytes) -> None:
        network.pool.reserve("1", key)
        network.pool.release("1")

    for _ in range(64):
        open_one(b"mallory")
    with pytest.raises(LinkLimit, match="too many links") as caught:
        open_one(b"mallory")
    assert caught.value.retry_after == pytest.approx(0.2)
    open_one(b"alice")
    now += 0.2
    open_one(b"mallory")
    assert network.counters.limited["new_links"] == 1


async def test_who_is_kept_away_is_not_dialled_and_waits_for_no_slot() -> None:
    network = Network(max_outgoing=1)
    link = await network.pool.link("1")
    network.kept_away = {"1", "2"}
    with pytest.raises(RateLimited, match="not now"):
        await network.pool.link("2")
    assert await network.pool.link("1") is link  # one that is there stays
    assert network.dialled == ["1"] and link.usable and network.pool.pending == 0


async def test_an_offer_that_meets_our_attempt_needs_no_place_of_its_own() -> None:
    network = Network(max_incoming=1)
    network.pool.add(network.link("1", offerer=False))
    network.open.clear()
    (task,) = network.want("2")
    await settle()
    assert network.pool.is_dialling("2")
    network.pool.reserve("2", b"2")
    task.cancel()


async def test_a_proved_link_replaces_the_one_before() -> None:
    network = Network()
    old = cast(FakeLink, await network.pool.link("1"))
    new = network.link("1")
    network.pool.add(new)
    assert network.pool.current("1") is new and old.reason == "replaced"


@pytest.mark.parametrize(("own_id", "ours_stays"), [("3", True), ("8", False)])
@pytest.mark.parametrize("ours_first", [True, False])
async def test_when_both_dialled_at_once_both_sides_keep_the_same_link(
    own_id: str, ours_stays: bool, ours_first: bool
) -> None:
    network = Network()
    network.pool.own_id = own_id
    ours, theirs = network.link("5"), network.link("5", offerer=False)
    for link in (ours, theirs) if ours_first else (theirs, ours):
        network.pool.add(link)
    assert network.pool.current("5") is (ours if ours_stays else theirs)
    await settle()
    assert len(network.pool.links()) == 1


async def test_removed_trust_cuts_all_links_of_that_account() -> None:
    network = Network()
    one, other = await network.pool.link("1"), await network.pool.link("2")
    error = NotTrusted("over")
    assert network.pool.cut("nobody", one.remote.key, error) == 1
    assert one.gone.result() is error and other.usable


async def test_stopping_drains_and_then_closes() -> None:
    network = Network(max_outgoing=3)
    idle, busy = [cast(FakeLink, await network.pool.link(peer_id)) for peer_id in "12"]
    busy.active = 1
    network.open.clear()
    (waiting,) = network.want("3")
    await settle()
    await network.pool.stop(0.05)
    assert idle.reason == "stopping" and busy.gone.done()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await network.pool.link("4")
    with pytest.raises(Unavailable):
        network.pool.reserve("5", b"5")
