"""The states of a link: one table, walked only along it, logged at each step."""

from __future__ import annotations

import logging

import pytest

from bonevalue.errors import LocalProtocolError
from bonevalue.life import DOING, TRANSITIONS, LinkLife, State

ENDS = {State.FAILED, State.LOST, State.CLOSED}


def test_every_state_stands_in_the_table_and_only_the_ends_lead_nowhere() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state, following in TRANSITIONS.items() if not following} == ENDS


def test_every_state_can_be_reached() -> None:
    reached, edge = {State.QUEUE}, {State.QUEUE}
    while edge:
        edge = {following for state in edge for following in TRANSITIONS[state]} - reached
        reached |= edge
    assert reached == set(State)


def test_an_attempt_can_fail_in_every_phase_and_nowhere_else() -> None:
    assert {state for state, following in TRANSITIONS.items() if State.FAILED in following} == set(DOING)


@pytest.mark.parametrize("state", State)
def test_only_the_transitions_of_the_table_are_made(state: State) -> None:
    for following in State:
        life = LinkLife("7", "bob", dialled=True, state=state)
        if following is state or following in TRANSITIONS[state]:
            life.to(following)
            assert life.state is following
        else:
            with pytest.raises(LocalProtocolError, match=f"{state} cannot go to {following}"):
                life.to(following)
            assert life.state is state


def test_each_step_is_logged_with_what_there_is_to_say(caplog: pytest.LogCaptureFixture) -> None:
    now = 10.0
    life = LinkLife("7", "bob", dialled=False, clock=lambda: now)
    with caplog.at_level(logging.DEBUG):
        now += 1.25
        life.to(State.GATHERING)
        life.to(State.GATHERING)
        life.end(State.CLOSED, "no answer")
    assert [record.getMessage() for record in caplog.records] == [
        "link from bob/7: queue -> gathering after 1.25 s",
        "link from bob/7: gathering -> failed after 0.00 s: no answer",
    ]


def test_a_link_that_is_lost_is_worth_a_line_at_the_usual_level(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        LinkLife("7", "bob", dialled=True, state=State.PROOF).to(State.OPEN)
        LinkLife("7", "bob", dialled=True, state=State.OPEN).end(State.LOST, "nothing was heard")
    assert [record.getMessage() for record in caplog.records] == [
        "link to bob/7: open -> lost after 0.00 s: nothing was heard"
    ]


def test_whoever_wants_to_know_is_told_of_the_end_once() -> None:
    ended: list[State] = []
    life = LinkLife("7", dialled=True, state=State.OPEN, on_end=lambda life: ended.append(life.state))
    life.to(State.DRAINING)
    assert not life.is_over and not ended
    life.end(State.CLOSED)
    life.end(State.LOST)
    assert life.is_over and ended == [State.CLOSED]


def test_what_failed_still_knows_how_far_it_came() -> None:
    life = LinkLife("7", dialled=True)
    life.to(State.GATHERING)
    life.to(State.CHECKING)
    assert life.phase is State.CHECKING
    life.end(State.CLOSED)
    assert life.state is State.FAILED and life.phase is State.CHECKING
