"""Looking up names: each once at a time, answers kept for a while."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from bonevalue.names import KEPT, Names, family


class Resolver:
    """What stands in place of the system's."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known: dict[str, list[str]] = {}
        self.answers = asyncio.Event()
        self.answers.set()

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        await self.answers.wait()
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(None, None, None, "", (address, port)) for address in self.known[host]]


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    resolver = Resolver()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver.getaddrinfo)
    return resolver


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
    await asyncio.sleep(0)
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
