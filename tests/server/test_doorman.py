"""Who may come in: sockets counted per address and for the node."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from bonevalue.errors import BoneValueError, Busy, OriginRefused, RateLimited, Unavailable
from bonevalue_server.doorman import Doorman, Visitor, status_of
from bonevalue_server.limits import Limits
from bonevalue_server.origins import Origins


class Forwarded:
    """The headers that a proxy sends for a client."""

    def __init__(self, address: str = "") -> None:
        self._address = address

    def get_all(self, key: str, /) -> Sequence[str]:
        return [self._address] if key.lower() == "x-forwarded-for" and self._address else []


def doorman(**limits: Any) -> Doorman:
    return Doorman(Limits.model_validate(limits), Origins(allowed=[], trusted_proxies=[ip_network("10.0.0.0/8")]), 0.0)


def come(door: Doorman, address: str = "192.0.2.1", now: float = 0.0) -> Visitor:
    """Somebody comes, and may stay."""
    visitor = door.arrived(address)
    try:
        door.check_arrival(visitor, now)
    except BoneValueError:
        door.left(visitor)
        raise
    return visitor


def test_strangers_of_one_address_are_limited() -> None:
    door = doorman()
    visitors = [come(door) for _ in range(64)]
    with pytest.raises(RateLimited):
        come(door)
    come(door, "192.0.2.2")
    door.logged_in(visitors[0])
    come(door)
    door.left(visitors[1])
    come(door)
    with pytest.raises(RateLimited):
        come(door)


def test_strangers_of_one_ipv6_network_are_one_address() -> None:
    door = doorman(pending_sockets_per_ip=2)
    come(door, "2001:db8::1")
    come(door, "2001:db8::2")
    with pytest.raises(RateLimited):
        come(door, "2001:db8::3")
    come(door, "2001:db8:0:1::1")


def test_strangers_of_the_node_are_limited() -> None:
    door = doorman(pending_sockets=3)
    visitors = [come(door, f"192.0.2.{n}") for n in range(3)]
    with pytest.raises(Busy):
        come(door)
    door.logged_in(visitors[0])
    door.logged_in(visitors[0])  # once is enough
    come(door)
    with pytest.raises(Busy):
        come(door)


def test_sockets_of_the_node_are_limited() -> None:
    door = doorman(sockets=2)
    for visitor in [come(door) for _ in range(2)]:
        door.logged_in(visitor)
    assert len(door) == 2
    with pytest.raises(Busy) as caught:
        come(door)
    assert caught.value.retry_after == 30 and status_of(caught.value) == 503
    assert len(door) == 2


def test_new_sockets_are_limited_in_time() -> None:
    door = doorman()
    for _ in range(200):
        door.left(come(door))
    with pytest.raises(RateLimited):
        come(door)
    for _ in range(50):
        door.left(come(door, now=1.0))
    with pytest.raises(RateLimited) as caught:
        come(door, now=1.0)
    assert status_of(caught.value) == 429
    crowded = doorman(sockets_opened="5/s")
    for number in range(5):
        come(crowded, f"192.0.2.{number}")
    with pytest.raises(Busy):
        come(crowded, "192.0.2.9")


def test_behind_a_proxy_its_clients_are_counted() -> None:
    door = doorman(pending_sockets_per_ip=2)
    visitors = [come(door, "10.0.0.1") for _ in range(5)]
    for visitor, address in zip(visitors, ("192.0.2.1", "192.0.2.1", "192.0.2.2"), strict=False):
        door.check_upgrade(visitor, Forwarded(address), 0.0, is_tls=False)
        assert visitor.address == address
    with pytest.raises(RateLimited):
        door.check_upgrade(visitors[3], Forwarded("192.0.2.1"), 0.0, is_tls=False)


def test_nobody_comes_in_while_we_close() -> None:
    door = doorman()
    door.is_closing = True
    with pytest.raises(Unavailable):
        come(door)


def test_a_foreign_page_is_forbidden() -> None:
    assert status_of(OriginRefused("no")) == 403
