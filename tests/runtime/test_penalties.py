"""How long an account is kept away after it broke the rules, and when that is forgotten."""

from __future__ import annotations

import pytest

from bonevalue.errors import RateLimited
from bonevalue.penalties import BACK_OFF, FORGIVEN_AFTER, MAX_ACCOUNTS, Penalties

BOB, CAROL = b"b" * 32, b"c" * 32


class Clock:
    """Time that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused_for(penalties: Penalties, key: bytes) -> float:
    with pytest.raises(RateLimited) as caught:
        penalties.check(key)
    assert caught.value.retry_after is not None
    return caught.value.retry_after


def test_each_offence_keeps_an_account_away_for_longer_up_to_a_limit() -> None:
    clock = Clock()
    penalties = Penalties(clock)
    for seconds in (*BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]):
        penalties.check(BOB)
        assert penalties.punish(BOB, "abuse") == seconds == refused_for(penalties, BOB)
        assert len(penalties) == 1
        penalties.check(CAROL)
        clock.now += seconds - 0.25
        assert refused_for(penalties, BOB) == 0.25
        clock.now += 0.25
        assert len(penalties) == 0


def test_a_refusal_says_why() -> None:
    penalties = Penalties(Clock())
    penalties.punish(BOB, "protocol_error")
    with pytest.raises(RateLimited, match=r"by its fault \(protocol_error\): no new one for 1.0 s"):
        penalties.check(BOB)


def test_an_account_that_behaves_is_forgiven() -> None:
    clock = Clock()
    penalties = Penalties(clock)
    for _ in range(3):
        penalties.punish(BOB, "slow")
    clock.now += FORGIVEN_AFTER - 1
    assert penalties.punish(BOB, "slow") == BACK_OFF[-1]
    clock.now += FORGIVEN_AFTER
    penalties.check(BOB)
    assert penalties.punish(BOB, "slow") == BACK_OFF[0]


def test_no_more_than_so_many_accounts_are_remembered() -> None:
    penalties = Penalties(Clock())
    keys = [number.to_bytes(32, "big") for number in range(MAX_ACCOUNTS + 10)]
    for key in keys:
        penalties.punish(key, "abuse")
        penalties.punish(keys[0], "abuse")
    assert len(penalties) == MAX_ACCOUNTS
    assert refused_for(penalties, keys[0]) == BACK_OFF[-1]
    penalties.check(keys[1])
    refused_for(penalties, keys[-1])
