"""Looking up names: each once at a time, in threads of their own, answers kept for a while."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bonevalue.names import KEPT, MAX_LOOKUPS, Names, family
from tests.support.waiting import until


class Resolver:
    """What stands in place of the system's."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: dict[str, list[str]] = {}
        self.answers = threading.Event()
        self.answers.set()

    def getaddrinfo(self, host: str, port: int, *_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        assert self.answers.wait(20)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(None, None, None, "", (address, port)) for address in self.known[host]]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver.getaddrinfo)
    yield resolver
    resolver.answers.set()


async def test_an_address_is_its_own(resolver: Resolver) -> None:
    names = Names()
    assert await names.addresses("192.0.2.1") == ("192.0.2.1",)
    assert await names.addresses("2001:DB8::1") == ("2001:db8::1",)
    assert resolver.asked == []
    assert (family("192.0.2.1"), family("::1")) == ("IPv4", "IPv6")


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ("4a", "4a"),
        ("4a 4a", "4a"),
        ("6a 4a", "6a 4a"),
        ("6a 6b 6c 4a 4b", "6a 4a 6b 4b"),
        ("4a 4b 4c 4d 4e 6a", "4a 6a 4b 4c"),
        ("6a 6b 6c 6d 6e", "6a 6b 6c 6d"),
    ],
)
async def test_families_take_turns(found: str, order: str, resolver: Resolver) -> None:
    def addresses(text: str) -> list[str]:
        return [f"2001:db8::{each[1]}" if each[0] == "6" else f"192.0.2.{ord(each[1])}" for each in text.split()]

    resolver.known["a"] = addresses(found)
    assert await Names().addresses("a") == tuple(addresses(order))


async def test_whoever_asks_meanwhile_waits_for_the_same_answer(resolver: Resolver) -> None:
    names = Names()
    resolver.known["a"] = ["192.0.2.1"]
    resolver.answers.clear()
    waiting = [asyncio.ensure_future(names.addresses("a")) for _ in range(3)]
    await until(lambda: resolver.asked == ["a"])
    waiting[0].cancel()
    resolver.answers.set()
    assert await asyncio.gather(*waiting[1:]) == [("192.0.2.1",)] * 2
    assert waiting[0].cancelled() and resolver.asked == ["a"]


async def test_answers_are_kept_for_a_while(resolver: Resolver) -> None:
    now = 0.0
    names = Names(clock=lambda: now)
    resolver.known["a"] = ["192.0.2.1"]
    await names.addresses("a")
    now = KEPT - 1
    assert await names.addresses("a") == ("192.0.2.1",)
    assert len(resolver.asked) == 1
    now = KEPT
    resolver.known["a"] = ["192.0.2.2"]
    assert await names.addresses("a") == ("192.0.2.2",)
    names.forget()
    await names.addresses("a")
    assert len(resolver.asked) == 3


async def test_a_name_that_is_not_known_is_asked_for_again(resolver: Resolver) -> None:
    names = Names()
    for _ in range(2):
        with pytest.raises(OSError):
            await names.addresses("a")
    assert len(resolver.asked) == 2


async def test_a_label_that_cannot_be_one() -> None:
    with pytest.raises(OSError):
        await Names().addresses("a" * 64 + ".example")


async def test_slow_names_keep_nobody_waiting_but_names(resolver: Resolver) -> None:
    names = Names()
    resolver.answers.clear()
    resolver.known["b"] = ["192.0.2.2"]
    slow = [asyncio.ensure_future(names.addresses(f"slow{number}")) for number in range(40)]
    await until(lambda: len(resolver.asked) == MAX_LOOKUPS)
    assert await asyncio.to_thread(threading.current_thread)  # the threads that all the process shares are free
    for each in slow:
        each.cancel()
    await asyncio.wait(slow)
    late = asyncio.ensure_future(names.addresses("b"))
    resolver.answers.set()
    assert await late == ("192.0.2.2",)
    assert sorted(resolver.asked) == ["b", *(f"slow{number}" for number in range(MAX_LOOKUPS))]  # who gave up left


async def test_who_waits_for_a_slot_takes_what_others_found_meanwhile(resolver: Resolver) -> None:
    names = Names()
    resolver.answers.clear()
    resolver.known["b"] = ["192.0.2.2"]
    slow = [asyncio.ensure_future(names.addresses(f"slow{number}")) for number in range(MAX_LOOKUPS)]
    waiting = [asyncio.ensure_future(names.addresses("b")) for _ in range(9)]
    await until(lambda: len(resolver.asked) == MAX_LOOKUPS)
    resolver.answers.set()
    assert await asyncio.gather(*waiting) == [("192.0.2.2",)] * 9
    await asyncio.gather(*slow, return_exceptions=True)
    assert resolver.asked.count("b") == 1


async def test_where_there_are_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = Names()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MAX_LOOKUPS + 1):
            with pytest.raises(OSError, match="can't start new thread"):
                await names.addresses("localhost")
    assert await names.addresses("localhost")


NEVER_ANSWERED = """
import asyncio, socket, threading
from bonevalue.names import Names

asked = threading.Event()
socket.getaddrinfo = lambda *_: asked.set() or threading.Event().wait()

async def main():
    names = Names()
    lookup = asyncio.create_task(names.addresses("slow.example"))
    while not asked.is_set():
        await asyncio.sleep(0.01)
    lookup.cancel()

asyncio.run(main())
print("ended")
"""


def test_a_process_ends_while_a_lookup_does_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NEVER_ANSWERED], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")
