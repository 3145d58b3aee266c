"""Pings and silence, on a clock of the test's own."""

from __future__ import annotations

import pytest

from bonevalue.errors import LinkLost, RemoteProtocolError
from bonevalue.wire.heartbeat import Heartbeat


def test_the_side_that_answered_pings_later() -> None:
    first, second = Heartbeat(interval=5, now=0), Heartbeat(interval=5, now=0, second=True)
    assert (first.due(), second.due()) == (5, 7.5)
    assert not second.beat(7) and second.beat(7.5)


@pytest.mark.parametrize("second", [False, True])
def test_three_beats_of_silence_are_the_end(second: bool) -> None:
    heartbeat = Heartbeat(interval=5, now=0, second=second)
    while heartbeat.due() < 15:
        assert heartbeat.beat(heartbeat.due())
        heartbeat.ping(heartbeat.due())
    with pytest.raises(LinkLost, match="15 s"):
        heartbeat.beat(15)


@pytest.mark.parametrize("stopped_at", [0.1, 4.9, 9.9, 14.9])
def test_a_process_that_stood_still_gives_the_link_another_round(stopped_at: float) -> None:
    heartbeat = Heartbeat(interval=5, now=0)
    while heartbeat.due() <= stopped_at:
        heartbeat.ping(heartbeat.due())
    assert heartbeat.beat(stopped_at + 30)
    heartbeat.ping(stopped_at + 30)
    assert heartbeat.due() == stopped_at + 35


def test_a_pong_is_for_a_ping_and_counts_once() -> None:
    heartbeat = Heartbeat(interval=5, now=0)
    number = heartbeat.ping(1)
    assert heartbeat.pong(number, 1.5) == 0.5 and heartbeat.round_trip == 0.5
    assert heartbeat.pong(number, 2) is None and heartbeat.round_trip == 0.5
    for unknown in (0, number + 1):
        with pytest.raises(RemoteProtocolError, match="without its ping"):
            heartbeat.pong(unknown, 2)


def test_pings_that_are_never_answered_are_forgotten() -> None:
    heartbeat = Heartbeat(interval=5, now=0)
    numbers = [heartbeat.ping(float(at)) for at in range(100)]
    assert heartbeat.pong(numbers[0], 100) is None
    assert heartbeat.pong(numbers[-1], 100) == 1
