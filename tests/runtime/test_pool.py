"""The pool: one link a peer, limits, the queue, eviction, and both sides dialling at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from bonevalue.admission import MAX_UNPROVED
from bonevalue.counters import Counters
from bonevalue.errors import BoneValueError, ConnectFailed, LinkLimit, NotTrusted, RateLimited, Unavailable
from bonevalue.life import LinkLife, State
from bonevalue.module import Caller
from bonevalue.peer_link import PeerLink
from bonevalue.pool import MAX_DIALLING, Pool
from tests.support.waiting import until


class FakeLink:
    """A link as the pool sees it."""

    def __init__(self, pool: Pool, peer_id: str, *, offerer: bool = True, account: str | None = None) -> None:
        self.remote = Caller("bob", peer_id, (account or peer_id).encode().ljust(32), "")
        self.offerer = offerer
        self.usable = True
        self.doubted = False
        #: Whether the other side answers when it is told of the end.
        self.confirms = True
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
            if not self.active and self.confirms:
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

    def __init__(self, max_outgoing: int = 2, max_incoming: int = 3, patience: float = 20.0) -> None:
        self.counters = Counters()
        self.kept_away: set[str] = set()
        self.pool = Pool(
            self._dial,
            max_outgoing=max_outgoing,
            max_incoming=max_incoming,
            patience=patience,
            check=self._check,
            counters=self.counters,
        )
        self.dialled: list[str] = []
        #: Seconds that each of them was given.
        self.given: list[float] = []
        self.cancelled: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: BoneValueError | None = None
        self.made: list[FakeLink] = []

    def _check(self, peer_id: str) -> None:
        if peer_id in self.kept_away:
            raise RateLimited("not now", retry_after=5.0)

    async def _dial(self, peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
        self.dialled.append(peer_id)
        self.given.append(timeout)
        life.to(State.GATHERING)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(peer_id)
            raise
        if self.error is not None:
            raise self.error
        life.state = State.OPEN
        return self.link(peer_id)

    async def reserve(self, peer_id: str, account: str | None = None) -> LinkLife:
        return await self.pool.reserve(peer_id, "bob", (account or peer_id).encode().ljust(32))

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
    two.used_at += 1
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

    async def dial(peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
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
    async def dial(peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
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
    life = await network.reserve("2")
    theirs = network.link("2", offerer=False)
    network.pool.add(theirs)
    network.pool.release(life)
    assert await second is theirs
    theirs_too = network.link("1", offerer=False)
    network.pool.add(theirs_too)
    assert await first is theirs_too
    await until(lambda: network.cancelled == ["1"])


async def test_incoming_links_have_a_limit_of_their_own() -> None:
    network = Network(max_incoming=2)
    for peer_id in "12":
        life = await network.reserve(peer_id)
        network.pool.add(network.link(peer_id, offerer=False))
        network.pool.release(life)
    for link in network.made:
        link.active = 1
    with pytest.raises(LinkLimit, match="holds 2"):
        await network.reserve("3")
    network.made[0].close()
    await network.reserve("3")
    assert (await network.pool.link("9")).usable
    assert network.counters.limited["max_incoming"] == 1


async def test_a_link_that_nothing_uses_makes_room_for_another_peer(unit: float) -> None:
    network = Network(max_incoming=3)
    for peer_id in "123":
        network.pool.add(network.link(peer_id, offerer=False))
    idle, used, just_used = network.made
    idle.used_at -= 10
    used.used_at -= 20
    used.active = 1
    waiting = asyncio.ensure_future(network.reserve("4"))
    await until(lambda: idle.reason == "evicted")
    await asyncio.wait_for(waiting, 5)
    assert used.usable and just_used.usable


async def test_the_account_with_the_most_links_makes_room_first() -> None:
    network = Network(max_incoming=3)
    for peer_id, account in (("1", "alice"), ("2", "mallory"), ("3", "mallory")):
        network.pool.add(network.link(peer_id, offerer=False, account=account))
    for age, link in zip((30, 20, 10), network.made, strict=True):
        link.used_at -= age
    await asyncio.wait_for(network.reserve("4"), 5)
    assert [link.reason for link in network.made] == ["", "evicted", ""]


async def test_what_comes_while_many_are_being_set_up_waits_for_its_turn() -> None:
    network = Network(max_incoming=100)
    lives = [await network.reserve(str(number)) for number in range(MAX_UNPROVED)]
    waiting = asyncio.ensure_future(network.reserve("99"))
    await settle()
    assert not waiting.done()
    assert sorted(life.state for life in network.pool.setting_up()) == [State.QUEUE] * (MAX_UNPROVED + 1)
    network.pool.release(lives[0])
    assert (await asyncio.wait_for(waiting, 5)).peer_id == "99"
    assert network.pool.pending == MAX_UNPROVED


async def test_accounts_that_wait_for_a_place_are_served_in_turn() -> None:
    network = Network(max_incoming=100)
    lives = [await network.reserve(str(number), f"account {number % 4}") for number in range(MAX_UNPROVED)]
    served: list[str] = []

    async def wait(peer_id: str, account: str) -> None:
        await network.reserve(peer_id, account)
        served.append(account)

    tasks = []
    for peer_id, account in (*((str(100 + number), "mallory") for number in range(6)), ("200", "alice")):
        tasks.append(asyncio.ensure_future(wait(peer_id, account)))
        await settle()
    for life in lives[:3]:
        network.pool.release(life)
        await settle()
    assert served == ["mallory", "alice", "mallory"]
    for task in tasks:
        task.cancel()


async def test_one_account_cannot_take_all_places_for_links_that_are_being_set_up() -> None:
    network = Network(max_incoming=100)
    for number in range(8):
        await network.reserve(str(number), "mallory")
    waiting = asyncio.ensure_future(network.reserve("8", "mallory"))
    await asyncio.wait_for(network.reserve("9", "alice"), 5)
    assert not waiting.done()
    waiting.cancel()
    await settle()
    assert network.pool.pending == 9


async def test_a_place_granted_to_somebody_who_just_left_is_not_lost() -> None:
    network = Network(max_incoming=100)
    lives = [await network.reserve(str(number)) for number in range(MAX_UNPROVED)]
    first = asyncio.ensure_future(network.reserve("98"))
    second = asyncio.ensure_future(network.reserve("99"))
    await settle()
    network.pool.release(lives[0])
    first.cancel()
    assert (await asyncio.wait_for(second, 5)).peer_id == "99"


async def test_nobody_waits_for_a_place_for_ever(monkeypatch: pytest.MonkeyPatch, unit: float) -> None:
    monkeypatch.setattr("bonevalue.admission.PATIENCE", unit)
    network = Network(max_incoming=100)
    for number in range(MAX_UNPROVED):
        await network.reserve(str(number))
    with pytest.raises(LinkLimit, match="being set up") as caught:
        await network.reserve("99")
    assert caught.value.retry_after == 1.0 and network.counters.limited["setting_up"] == 1
    assert len(network.pool.setting_up()) == MAX_UNPROVED


async def test_only_so_many_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.admission.MAX_WAITING_PER_ACCOUNT", 2)
    network = Network(max_incoming=100)
    for number in range(8):
        await network.reserve(str(number), "mallory")
    waiting = [asyncio.ensure_future(network.reserve(str(number), "mallory")) for number in (10, 11)]
    await settle()
    with pytest.raises(LinkLimit, match="being set up"):
        await network.reserve("12", "mallory")
    await network.pool.stop(0)
    for task in waiting:
        with pytest.raises(Unavailable):
            await task


async def test_one_account_opens_only_so_many_links_in_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bonevalue.admission.time.monotonic", lambda: now)
    network = Network()

    async def open_one(account: str) -> None:
        network.pool.release(await network.reserve("1", account))

    for _ in range(64):
        await open_one("mallory")
    with pytest.raises(LinkLimit, match="too many links") as caught:
        await open_one("mallory")
    assert caught.value.retry_after == pytest.approx(0.2)
    await open_one("alice")
    now += 0.2
    await open_one("mallory")
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
    await asyncio.wait_for(network.reserve("2"), 5)
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
        await network.reserve("5")


async def test_stopping_does_not_wait_long_for_a_side_that_is_not_there_any_more(
    monkeypatch: pytest.MonkeyPatch, unit: float
) -> None:
    monkeypatch.setattr("bonevalue.pool.LAST_WORD", unit)
    network = Network()
    silent, busy = [cast(FakeLink, await network.pool.link(peer_id)) for peer_id in "12"]
    silent.confirms = busy.confirms = False
    busy.active = 1
    stopping = asyncio.ensure_future(network.pool.stop(60))
    await until(lambda: silent.gone.done())
    assert not busy.gone.done()
    busy.close()
    await asyncio.wait_for(stopping, 5)


# -- attempts ----------------------------------------------------------------------------------------------------------


async def test_only_so_many_links_are_set_up_at_once() -> None:
    network = Network(max_outgoing=100)
    network.open.clear()
    tasks = network.want(*map(str, range(20)))
    await settle()
    assert len(network.dialled) == MAX_DIALLING == network.pool.pending
    assert sorted({life.state for life in network.pool.setting_up()}) == [State.GATHERING, State.QUEUE]
    network.open.set()
    assert len(await asyncio.gather(*tasks)) == 20 and network.pool.setting_up() == []


async def test_a_peer_that_could_not_be_reached_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.pool.random.random", lambda: 1.0)
    network = Network()
    network.error = ConnectFailed("no way")
    with pytest.raises(ConnectFailed):
        await network.pool.link("1")
    (task,) = network.want("1")
    await settle()
    assert network.dialled == ["1"] and not task.done()
    assert "waiting for its turn" in network.pool.progress("1")
    network.error = None
    assert (await network.pool.link("2")).usable  # others need not wait
    network.pool.retry_now("1")
    assert (await asyncio.wait_for(task, 5)).usable


async def test_a_link_from_the_other_side_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.pool.random.random", lambda: 1.0)
    network = Network()
    network.error = ConnectFailed("no way")
    with pytest.raises(ConnectFailed):
        await network.pool.link("1")
    (task,) = network.want("1")
    await settle()
    network.pool.add(theirs := network.link("1", offerer=False))
    assert await asyncio.wait_for(task, 5) is theirs


async def test_whoever_is_too_busy_just_now_is_asked_again(unit: float) -> None:
    network = Network()
    network.error = LinkLimit("later", retry_after=unit / 10)
    (task,) = network.want("1")
    await until(lambda: len(network.dialled) >= 3)
    assert "later" in network.pool.progress("1")
    network.error = None
    assert (await asyncio.wait_for(task, 5)).usable


async def test_that_is_not_repeated_beyond_the_time_of_an_attempt() -> None:
    network = Network()
    network.error = LinkLimit("later", retry_after=21.0)
    with pytest.raises(LinkLimit, match="later"):
        await network.pool.link("1")
    assert network.dialled == ["1"]


async def test_pauses_are_part_of_the_time_for_a_link(monkeypatch: pytest.MonkeyPatch, unit: float) -> None:
    """However often a peer could not be reached: the next error comes in time, and its try had some."""
    monkeypatch.setattr("bonevalue.pool.random.random", lambda: 1.0)
    network = Network(patience=8 * unit)
    network.error = ConnectFailed("no way")
    for _ in range(4):
        with pytest.raises(ConnectFailed):
            await network.pool.link("1")
    assert network.given[0] == pytest.approx(8 * unit, rel=0.1)
    # The pauses are longer than all of it by now.
    assert all(0 < given <= 2.1 * unit for given in network.given[1:])


async def test_the_wait_for_a_slot_is_not(unit: float) -> None:
    network = Network(max_outgoing=1, patience=4 * unit)
    network.open.clear()
    first, second = network.want("1", "2")
    await asyncio.sleep(3 * unit)
    assert network.dialled == ["1"]
    first.cancel()
    network.open.set()
    assert (await second).usable
    assert network.given[1] > 3 * unit


async def test_what_is_put_off_is_tried_for_the_last_time_while_there_is_time(
    monkeypatch: pytest.MonkeyPatch, unit: float
) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(f"bonevalue.pool.{name}", unit / 2)
    network = Network(patience=16 * unit)
    network.error = LinkLimit("later", retry_after=unit / 2)
    with pytest.raises(LinkLimit, match="later"):
        await network.pool.link("1")
    assert len(network.given) > 2
    assert min(network.given) > 2 * unit


async def test_an_attempt_waits_until_the_server_can_be_asked() -> None:
    ready = asyncio.Event()
    given = []

    async def wait(peer_id: str, seconds: float) -> None:
        given.append((peer_id, seconds))
        await ready.wait()

    async def dial(peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
        return cast(PeerLink, FakeLink(pool, peer_id))

    pool = Pool(dial, max_outgoing=1, max_incoming=1, patience=8.0, ready=wait)
    task = asyncio.create_task(pool.link("1"))
    await settle()
    assert not task.done() and pool.pending == 0
    [(peer_id, seconds)] = given
    assert peer_id == "1" and 5 < seconds <= 6, "a quarter is left for the try"
    ready.set()
    assert (await asyncio.wait_for(task, 5)).usable


# -- links that are doubted ----------------------------------------------------------------------------------------


async def test_a_doubted_link_gets_no_new_calls_and_stays_until_another_is_proved() -> None:
    network = Network()
    old = cast(FakeLink, await network.pool.link("1"))
    old.doubted = True
    assert network.pool.current("1") is None
    network.open.clear()
    (task,) = network.want("1")
    await settle()
    assert old.usable
    network.open.set()
    new = await task
    assert network.pool.current("1") is new and old.reason == "replaced"


async def test_a_doubted_link_does_not_win_over_one_from_the_other_side() -> None:
    network = Network()
    network.pool.own_id = "3"
    network.pool.add(ours := network.link("5"))
    cast(FakeLink, ours).doubted = True
    network.pool.add(theirs := network.link("5", offerer=False))
    assert network.pool.current("5") is theirs


async def test_a_link_that_is_heard_again_is_used_again() -> None:
    network = Network()
    link = await network.pool.link("1")
    cast(FakeLink, link).doubted = True
    network.open.clear()
    (task,) = network.want("1")
    await settle()
    cast(FakeLink, link).doubted = False
    assert await network.pool.link("1") is link
    task.cancel()


async def test_a_doubted_link_leaves_its_slot_to_its_successor() -> None:
    network = Network(max_outgoing=1)
    old = cast(FakeLink, await network.pool.link("1"))
    old.active = 1
    old.doubted = True
    assert await asyncio.wait_for(network.pool.link("1"), 5) is not cast(PeerLink, old)


async def test_a_full_peer_has_a_place_for_the_successor_of_a_link() -> None:
    network = Network(max_incoming=1)
    network.pool.add(old := network.link("1", offerer=False))
    cast(FakeLink, old).active = 1
    await asyncio.wait_for(network.reserve("1"), 5)
    with pytest.raises(LinkLimit):
        await network.reserve("2")


# -- under pressure ------------------------------------------------------------------------------------------------


async def test_links_that_nothing_uses_go_also_when_the_pool_gets_full_later() -> None:
    network = Network(max_outgoing=MAX_DIALLING + 6)
    idle = [cast(FakeLink, await network.pool.link(f"1{number}")) for number in range(4)]
    for link in idle:
        link.used_at -= 1  # it was used, and is not any more
    network.open.clear()

    async def use(peer_id: str) -> None:
        cast(FakeLink, await network.pool.link(peer_id)).active = 1

    tasks = [asyncio.create_task(use(str(100 + number))) for number in range(MAX_DIALLING + 4)]
    await settle()
    network.open.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert sum(link.reason == "evicted" for link in idle) == 2


async def test_each_newcomer_gets_room_as_long_as_there_are_links_that_nothing_uses() -> None:
    network = Network(max_incoming=3)
    for peer_id in "123":
        network.pool.add(network.link(peer_id, offerer=False))
    for link in network.made:
        link.used_at -= 10

    async def come(peer_id: str) -> None:
        life = await network.reserve(peer_id)
        network.pool.add(network.link(peer_id, offerer=False))
        network.pool.release(life)

    await asyncio.wait_for(asyncio.gather(come("8"), come("9")), 5)


async def test_a_link_that_drains_for_as_long_as_a_stream_lasts_makes_no_room() -> None:
    network = Network(max_incoming=3)
    for peer_id in "123":
        network.pool.add(network.link(peer_id, offerer=False))
    for link in network.made:
        link.used_at -= 10
    streaming, other = network.made[:2]
    streaming.active = 1
    streaming.drain("by the other side")
    await asyncio.wait_for(network.reserve("9"), 5)
    assert other.reason == "evicted"


async def test_peers_that_do_not_answer_do_not_keep_the_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bonevalue.pool.STALLED", 0.1)
    frozen = asyncio.Event()

    async def dial(peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
        for state in (State.GATHERING, State.RELAY, State.ANSWER):
            life.to(state)
        if int(peer_id) < 100:
            await frozen.wait()
        return cast(PeerLink, FakeLink(pool, peer_id))

    pool = Pool(dial, max_outgoing=64, max_incoming=2)
    waiting = [asyncio.create_task(pool.link(str(number))) for number in range(MAX_DIALLING)]
    await settle()
    assert (await asyncio.wait_for(pool.link("100"), 5)).usable
    for task in waiting:
        task.cancel()


async def test_a_waiter_that_gives_up_as_a_place_gets_free_takes_none() -> None:
    network = Network(max_incoming=100)
    lives = [await network.reserve(str(number)) for number in range(MAX_UNPROVED)]
    waiting = asyncio.ensure_future(network.reserve("98"))
    await settle()
    waiting.cancel()
    network.pool.release(lives[0])
    await settle()
    assert network.pool.pending == MAX_UNPROVED - 1
    again = [asyncio.ensure_future(network.reserve(peer_id)) for peer_id in ("98", "99")]
    await settle()
    again[1].cancel()
    await network.pool.stop(0)
    assert again[0].done() and network.pool.pending == MAX_UNPROVED


async def test_many_requests_of_some_accounts_keep_no_other_account_from_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bonevalue.admission.MAX_WAITING", 4)
    network = Network(max_incoming=100)
    lives = [await network.reserve(str(number), f"mallory {number % 2}") for number in range(MAX_UNPROVED)]
    tasks = [asyncio.ensure_future(network.reserve(str(100 + number), "mallory 0")) for number in range(4)]
    await settle()
    with pytest.raises(LinkLimit):
        await network.reserve("200", "mallory 0")
    alice = asyncio.ensure_future(network.reserve("300", "alice"))
    await settle()
    network.pool.release(lives[1])
    network.pool.release(lives[0])
    assert (await asyncio.wait_for(alice, 5)).peer_id == "300"
    for task in tasks:
        task.cancel()


async def test_who_asks_to_be_asked_again_at_once_is_not_asked_all_the_time() -> None:
    network = Network()
    network.error = LinkLimit("full", retry_after=0.0)
    (task,) = network.want("5")
    await asyncio.sleep(0.5)
    task.cancel()
    assert len(network.dialled) < 10


# -- both sides dial at once ---------------------------------------------------------------------------------------


async def test_a_link_that_the_other_side_let_go_of_at_once_gives_way_to_its_own() -> None:
    async def dial(peer_id: str, life: LinkLife, timeout: float) -> PeerLink:
        link = FakeLink(pool, peer_id)
        link.active = 1
        link.drain("duplicate, says the other side")
        return cast(PeerLink, link)

    pool = Pool(dial, max_outgoing=2, max_incoming=2)
    pool.own_id = "9"
    task = asyncio.create_task(pool.link("5"))
    await settle()
    assert not task.done()
    pool.add(theirs := cast(PeerLink, FakeLink(pool, "5", offerer=False)))
    assert await asyncio.wait_for(task, 5) is theirs


async def test_whoever_wants_to_know_hears_of_the_link_that_lost_too() -> None:
    added: list[PeerLink] = []
    network = Network()
    network.pool._on_added = added.append
    network.pool.own_id = "3"
    ours, theirs = network.link("5"), network.link("5", offerer=False)
    network.pool.add(ours)
    network.pool.add(theirs)
    assert added == [ours, theirs]


async def test_a_stream_on_an_earlier_link_outlives_two_later_ones() -> None:
    network = Network()
    network.pool.own_id = "3"
    network.pool.add(first := network.link("5", offerer=False))
    cast(FakeLink, first).active = 1
    network.pool.add(second := network.link("5"))
    second.close()
    network.pool.add(network.link("5"))
    assert not first.gone.done()


async def test_one_peer_cannot_keep_many_links_by_a_stream_on_each() -> None:
    network = Network(max_outgoing=20)
    for _ in range(10):
        network.pool.add(link := network.link("5"))
        cast(FakeLink, link).active = 1
    assert len(network.pool.links()) == 4
