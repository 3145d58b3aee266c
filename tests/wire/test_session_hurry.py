"""What a session makes of a change of its own network: it does not wait, unless it was asked to."""

from __future__ import annotations

from typing import Any

import pytest

from bonevalue.errors import ServerUnreachable, Unavailable
from bonevalue.wire.session_events import AttemptFailed, Refused, WentOffline
from bonevalue.wire.session_states import State
from bonevalue.wire.signals import Binary, Goodbye, RequestToken
from tests.support.sessions import Talk, hello


def test_whoever_waits_for_the_next_attempt_makes_it_now() -> None:
    talk = Talk()
    talk.session.start()
    for _ in range(6):
        talk.session.unreachable("no way", talk.now)
        talk.wait()
    talk.session.unreachable("no way", talk.now)
    due = talk.session.timer()
    assert due is not None and due > talk.now + 20
    assert talk.session.hurry(talk.now)
    assert talk.session.timer() == talk.now
    talk.wait()
    assert talk.session.state is State.CONNECTING
    talk.session.events()
    talk.session.unreachable("still no way", talk.now)
    (failed,) = talk.session.events()
    assert isinstance(failed, AttemptFailed) and failed.retry_in == 1.0  # the first delay again


def test_a_server_that_asked_for_patience_gets_it() -> None:
    talk = Talk()
    talk.log_in()
    talk.tell(Goodbye("going_away", 30.0))
    talk.lose(1012)
    due = talk.session.timer()
    assert not talk.session.hurry(talk.now)
    assert talk.session.timer() == due
    talk.wait()
    talk.session.unreachable("it answers HTTP 503", talk.now, retry_after=77.0)
    assert not talk.session.hurry(talk.now)


def test_an_attempt_under_way_may_begin_anew() -> None:
    talk = Talk()
    talk.session.start()
    assert talk.session.hurry(talk.now)
    assert talk.session.state is State.CONNECTING


@pytest.mark.parametrize("state", [State.OFFLINE, State.GREETING, State.ONLINE, State.CLOSED])
def test_in_other_states_there_is_nothing_to_hurry(state: State) -> None:
    talk = Talk()
    match state:
        case State.GREETING:
            talk.connect()
        case State.ONLINE:
            talk.log_in()
        case State.CLOSED:
            talk.session.stop()
        case _:
            pass
    timer = talk.session.timer()
    assert talk.session.state is state
    assert not talk.session.hurry(talk.now)
    assert talk.session.state is state and talk.session.timer() == timer


def test_a_socket_that_is_of_no_use_is_replaced_at_once() -> None:
    talk = Talk()
    talk.log_in()
    ref = talk.session.request(RequestToken("bob", Binary(b"invite"), Binary(b"signature")))
    talk.session.abandoned("10.0.0.7 is gone", talk.now, hurry=True)
    went, refused = talk.session.events()
    assert went == WentOffline("10.0.0.7 is gone", 0.0)
    assert isinstance(refused, Refused) and refused.ref == ref and isinstance(refused.error, Unavailable)
    assert not talk.session.wants_socket
    talk.session.closed(None, "the connection broke", talk.now)  # the pump tells of it, too late
    assert talk.session.events() == []
    talk.wait()
    assert talk.session.state is State.CONNECTING
    (login,) = _login(talk)
    assert login["data"]["resume"]["peerId"] == "100"


def _login(talk: Talk) -> list[dict[str, Any]]:
    talk.connect()
    talk.tell(hello())
    return talk.sent()


def test_a_server_that_fell_silent_is_not_rushed() -> None:
    talk = Talk()
    talk.log_in()
    talk.session.abandoned("the server does not answer any more", talk.now)
    assert talk.session.events() == [WentOffline("the server does not answer any more", 1.0)]


def test_a_login_on_a_socket_that_is_of_no_use_begins_anew() -> None:
    talk = Talk()
    talk.connect()
    talk.session.abandoned("10.0.0.7 is gone", talk.now, hurry=True)
    (failed,) = talk.session.events()
    assert isinstance(failed, AttemptFailed) and isinstance(failed.error, ServerUnreachable)
    assert failed.retry_in == 0.0
    talk.wait()
    assert talk.session.state is State.CONNECTING


def test_a_network_that_changes_all_the_time_is_no_reason_for_a_flood_of_logins() -> None:
    talk = Talk()
    delays = []
    for _ in range(20):
        talk.log_in()
        talk.session.events()
        talk.session.abandoned("gone", talk.now, hurry=True)
        delays += [event.retry_in for event in talk.session.events() if isinstance(event, WentOffline)]
    assert delays[:4] == [0.0] * 4
    assert sum(delay == 0.0 for delay in delays) <= 4 + (talk.now - 1000.0) * 0.2
    assert talk.now - 1000.0 > 25
