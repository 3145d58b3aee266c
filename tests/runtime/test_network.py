"""The watch over this host's network, against the kernel's own: in the namespace of the tests, where nobody minds."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from bonevalue import netlink, network
from bonevalue.network import NetworkChange, NetworkWatch, own_addresses
from tests.support.waiting import UNIT, other_tasks, until

FIRST, SECOND, THIRD = "10.99.0.1", "10.99.0.2", "2001:db8:99::3"

Run = Callable[[Coroutine[Any, Any, None]], None]


def ip(*words: str, batch: str | None = None) -> None:
    """Change the network of the tests."""
    subprocess.run(["ip", *words], input=batch, text=True, check=True, capture_output=True, timeout=20)


def add(address: str) -> None:
    """Give an address to `lo`."""
    ip("address", "add", address, "dev", "lo")


def remove(address: str) -> None:
    """Take it away."""
    ip("address", "del", address, "dev", "lo")


@pytest.fixture(autouse=True)
def network_restored() -> Iterator[None]:
    """Nothing is left of what a test did to the network; whoever is not alone on one must not try."""
    names = [name for _, name in socket.if_nameindex()]
    if names != ["lo"]:
        pytest.fail(f"these tests change the network, and this is the one of the machine: {', '.join(names)}")
    yield
    if "v0" in [name for _, name in socket.if_nameindex()]:
        ip("link", "del", "v0")
    for scope in ("global", "link"):  # that of 127.0.0.1 and ::1 is "host"
        ip("address", "flush", "dev", "lo", "scope", scope)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine in one of the two event loops."""
    loop_run: Run = request.param
    return loop_run


@asynccontextmanager
async def watching() -> AsyncIterator[list[NetworkChange]]:
    """What a watch reports for the length of a block."""
    changes: list[NetworkChange] = []
    watch = NetworkWatch(changes.append)
    watch.start()
    try:
        yield changes
    finally:
        watch.stop()
        watch.stop()


async def first_of(changes: list[NetworkChange]) -> NetworkChange:
    """The next report, taken off the list."""
    await until(lambda: changes, what="a report")
    return changes.pop(0)


# -- addresses ---------------------------------------------------------------------------------------------------------


def test_addresses_that_come_and_go(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "INTERVAL", 3600.0)  # so that the kernel has to tell

    async def main() -> None:
        async with watching() as changes:
            add(f"{FIRST}/32")
            assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}))
            add(f"{THIRD}/128")
            assert await first_of(changes) == NetworkChange(added=frozenset({THIRD}))
            remove(f"{FIRST}/32")
            assert await first_of(changes) == NetworkChange(removed=frozenset({FIRST}))
            remove(f"{THIRD}/128")
            assert await first_of(changes) == NetworkChange(removed=frozenset({THIRD}))
            assert not other_tasks()

    run(main())


def test_where_the_system_tells_nothing_changes_are_looked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> Any:
        raise PermissionError("no rtnetlink for you")

    monkeypatch.setattr(netlink, "_open", refuse)
    monkeypatch.setattr(network, "INTERVAL", UNIT)

    async def main() -> None:
        add(f"{FIRST}/32")
        async with watching() as changes:
            add(f"{THIRD}/128")
            assert await first_of(changes) == NetworkChange(added=frozenset({THIRD}))
            remove(f"{FIRST}/32")
            assert await first_of(changes) == NetworkChange(removed=frozenset({FIRST}))

    run(main())


async def test_a_flurry_is_one_report(monkeypatch: pytest.MonkeyPatch) -> None:
    add(f"{FIRST}/32")
    async with watching() as changes:
        remove(f"{FIRST}/32")
        add(f"{SECOND}/32")
        add(f"{THIRD}/128")
        change = await first_of(changes)
        assert change == NetworkChange(added=frozenset({SECOND, THIRD}), removed=frozenset({FIRST}))
        assert str(change) == f"gone: {FIRST}; new: {SECOND}, {THIRD}"
        await asyncio.sleep(2 * network.FLURRY)
        assert changes == []


async def test_an_address_that_was_away_for_a_moment_is_both_gone_and_new() -> None:
    add(f"{FIRST}/32")
    async with watching() as changes:
        remove(f"{FIRST}/32")
        add(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}), removed=frozenset({FIRST}))


async def test_an_address_that_was_there_for_a_moment_is_none() -> None:
    async with watching() as changes:
        add(f"{FIRST}/32")
        remove(f"{FIRST}/32")
        add(f"{SECOND}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({SECOND}))


async def test_loopback_and_link_local_addresses_are_of_no_use() -> None:
    async with watching() as changes:
        for address in ("127.0.0.9/8", "169.254.9.9/16", "fe80::9/64"):
            add(address)
        add(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}))
        assert own_addresses() == {FIRST}
    remove("127.0.0.9/8")


async def test_a_cable_that_is_pulled_takes_its_addresses_with_it() -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v1", "up")
    ip("link", "set", "v0", "up")
    ip("address", "add", "10.99.1.1/24", "dev", "v0")
    async with watching() as changes:
        ip("link", "set", "v1", "down")
        assert (await first_of(changes)).removed == {"10.99.1.1"}
        ip("link", "set", "v1", "up")
        assert (await first_of(changes)).added == {"10.99.1.1"}
        ip("link", "set", "v0", "down")
        assert (await first_of(changes)).removed == {"10.99.1.1"}


async def test_an_ipv6_address_is_new_when_it_can_be_used() -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v1", "up")
    ip("link", "set", "v0", "up")
    async with watching() as changes:
        ip("address", "add", "2001:db8:98::1/64", "dev", "v0")  # the kernel now asks whether anybody else has it
        assert (await first_of(changes)).added == {"2001:db8:98::1"}
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("2001:db8:98::1", 0))


async def test_another_way_out_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "INTERVAL", UNIT)
    for number in (0, 1):
        add(f"10.99.{number}.1/24")
    ip("route", "add", "default", "dev", "lo", "src", "10.99.0.1")
    async with watching() as changes:
        ip("route", "change", "default", "dev", "lo", "src", "10.99.1.1")
        assert await first_of(changes) == NetworkChange(rerouted=True)
        ip("route", "del", "default")
        assert await first_of(changes) == NetworkChange(rerouted=True)


async def test_what_the_kernel_could_not_tell_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def subscribe() -> socket.socket:
        subscription = netlink._open(0x111)
        subscription.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        return subscription

    monkeypatch.setattr(network, "INTERVAL", 3600.0)
    monkeypatch.setattr(netlink, "subscribe", subscribe)
    batch = "".join(f"address add 10.99.7.{number}/32 dev lo\n" for number in range(1, 100))
    async with watching() as changes:
        ip("-batch", "-", batch=batch)
        assert len((await first_of(changes)).added) == 99
        add(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}))


# -- sleep -------------------------------------------------------------------------------------------------------------


async def test_a_machine_that_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = [1000.0]
    monkeypatch.setattr(network, "INTERVAL", UNIT)
    monkeypatch.setattr(network, "_slept", lambda: slept[0])
    async with watching() as changes:
        slept[0] += network.LEAST_SLEEP - 0.1  # a pause of no account
        add(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}))
        slept[0] += network.LEAST_SLEEP
        remove(f"{FIRST}/32")
        change = await first_of(changes)
        assert change == NetworkChange(removed=frozenset({FIRST}), resumed=True)
        assert str(change) == f"the machine was asleep; gone: {FIRST}"
        slept[0] += 3600.0
        assert await first_of(changes) == NetworkChange(resumed=True)
        slept[0] -= 3600.0  # where it is reckoned by the time of day
        add(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}))


@pytest.mark.parametrize("has_clock", [True, False])
def test_how_long_it_slept_stands_still_while_it_is_awake(has_clock: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_clock:
        monkeypatch.delattr("time.CLOCK_BOOTTIME")
    assert abs(network._slept() - network._slept()) < network.LEAST_SLEEP


async def test_a_process_that_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "INTERVAL", UNIT)
    monkeypatch.setattr(network, "LEAST_PAUSE", 40 * UNIT)
    async with watching() as changes:
        time.sleep(5 * UNIT)  # noqa: ASYNC251 - not long enough
        add(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(added=frozenset({FIRST}))
        time.sleep(45 * UNIT)  # noqa: ASYNC251
        change = await first_of(changes)
        assert change == NetworkChange(paused=True)
        assert str(change) == "this process stood still"
        remove(f"{FIRST}/32")
        assert await first_of(changes) == NetworkChange(removed=frozenset({FIRST}))


# -- faults ------------------------------------------------------------------------------------------------------------


async def test_whoever_fails_when_told_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    told: list[NetworkChange] = []

    def fail(change: NetworkChange) -> None:
        told.append(change)
        raise RuntimeError("no, thanks")

    watch = NetworkWatch(fail)
    watch.start()
    with caplog.at_level(logging.ERROR, "bonevalue.network"):
        add(f"{FIRST}/32")
        await until(lambda: len(told) == 1)
        add(f"{SECOND}/32")
        await until(lambda: len(told) == 2)
    watch.stop()
    assert "whoever was told of a network change failed" in caplog.text


async def test_addresses_that_cannot_be_read_have_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(network, "INTERVAL", UNIT)
    add(f"{FIRST}/32")
    async with watching() as changes:
        with monkeypatch.context() as broken:
            broken.setattr(network, "own_addresses", refuse)
            remove(f"{FIRST}/32")
            await asyncio.sleep(2 * network.FLURRY)
            assert changes == []
        assert await first_of(changes) == NetworkChange(removed=frozenset({FIRST}))


async def test_a_watch_that_was_stopped_is_silent_and_leaves_nothing_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    async with watching() as changes:
        assert descriptors() > before
        add(f"{FIRST}/32")
    assert descriptors() == before
    await asyncio.sleep(2 * network.FLURRY)
    assert changes == []


@pytest.mark.parametrize("length", range(0, 76, 7))
def test_messages_that_are_cut_off_say_nothing(length: int) -> None:
    with netlink.subscribe() as subscription:
        add(f"{FIRST}/32")
        remove(f"{FIRST}/32")
        subscription.recv(65_536)
        message = subscription.recv(65_536)
    assert netlink.removed_addresses(message) == {FIRST}
    assert netlink.removed_addresses(message + message[:length]) == {FIRST}
    assert netlink.removed_addresses(message[:length]) == frozenset()
