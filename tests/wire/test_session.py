"""The session with the discovery server, on a false clock: states, login, requests, pace, farewells."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs

from bonevalue.errors import (
    BoneValueError,
    Busy,
    DiscoveryError,
    GoingAway,
    LocalProtocolError,
    LoginRefused,
    RealmMismatch,
    RemoteProtocolError,
    Replaced,
    ServerUnreachable,
    SessionEnded,
    TooManyPeers,
    Unavailable,
)
from bonevalue.wire.blobs import LoginBlob
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import from_base64url
from bonevalue.wire.session import ESTABLISH_TIMEOUT, LASTING, MAX_BACKLOG, Session
from bonevalue.wire.session_events import (
    AttemptFailed,
    Ended,
    IceServersChanged,
    NoticeReceived,
    PeerConnected,
    Refused,
    UserAdded,
    WentOffline,
    WentOnline,
)
from bonevalue.wire.session_states import ACCEPTED, TRANSITIONS, Fact, State
from bonevalue.wire.signals import (
    SIGNALS,
    Binary,
    Contacts,
    Done,
    Failure,
    Goodbye,
    IceServer,
    IceServers,
    PeerCandidate,
    PeerConnect,
    PeerDisconnect,
    PeerEntry,
    PeerList,
    PeerRequest,
    PeerResponse,
    Registered,
    RequestToken,
    SetPeerId,
    TokenClaimed,
    TokenResponse,
    UserAdd,
    UserList,
    UserRemove,
    encode,
)
from tests.support.sessions import ALICE, BOB, CHALLENGE, NOW_MS, REALM, Talk, contact, hello, lists, make_session

# -- states ------------------------------------------------------------------------------------------------------------


def _connecting() -> Talk:
    talk = Talk()
    talk.session.start()
    return talk


def _greeting() -> Talk:
    talk = Talk()
    talk.connect()
    return talk


def _logging_in() -> Talk:
    talk = _greeting()
    talk.tell(hello())
    return talk


def _syncing() -> Talk:
    talk = _logging_in()
    talk.tell(SetPeerId("100", "ticket"), UserList(["Us"]))
    return talk


def _online() -> Talk:
    talk = Talk()
    talk.log_in()
    return talk


def _waiting() -> Talk:
    talk = _online()
    talk.lose()
    return talk


def _closed() -> Talk:
    talk = _online()
    talk.session.stop()
    talk.session.events()
    return talk


IN_STATE: dict[State, Callable[[], Talk]] = {
    State.OFFLINE: Talk,
    State.CONNECTING: _connecting,
    State.GREETING: _greeting,
    State.LOGGING_IN: _logging_in,
    State.SYNCING: _syncing,
    State.ONLINE: _online,
    State.WAITING: _waiting,
    State.CLOSED: _closed,
}

#: One well-formed message of every type that a server can send, and the state that it leads to if it is in turn.
SAMPLES: dict[type[Struct], tuple[Struct, State | None]] = {
    type(message): (message, state)
    for message, state in [
        (hello(), State.LOGGING_IN),
        (Registered("alice"), None),
        (SetPeerId("100", "ticket"), State.SYNCING),
        (IceServers([]), None),
        (UserList(["Us"]), None),
        (Contacts([]), None),
        (PeerList([]), State.ONLINE),
        (UserAdd("bob", contact("bob", BOB)), None),
        (UserRemove("bob"), None),
        (PeerConnect("Us", "7"), None),
        (PeerDisconnect("7"), None),
        (Goodbye("going_away", 1.0), None),
        (TokenResponse(NOW_MS), None),
        (TokenClaimed("bob"), None),
        (Done(), None),
        (PeerRequest("100", "7", Binary(b"o"), Binary(b"s")), None),
        (PeerResponse("100", "7", Binary(b"a"), Binary(b"s")), None),
        (PeerCandidate("100", "7", Binary(bytes(16)), "candidate"), None),
    ]
}
FAILURE = Failure("unavailable", "not now")


def test_the_samples_are_all_that_a_server_can_send() -> None:
    from_server = {row.kind for row in SIGNALS.values() if row.sender != "client"}
    assert SAMPLES.keys() | {Failure} == from_server


@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_message_in_every_state(state: State, kind: type[Struct]) -> None:
    talk = IN_STATE[state]()
    assert talk.session.state is state
    message, led_to = SAMPLES[kind]
    events = talk.tell(message)
    if state not in ACCEPTED:  # there is no socket: at most a late message from one that was given up
        assert talk.session.state is state and not events
    elif kind in ACCEPTED[state]:
        assert talk.session.state is (led_to or state)
    else:
        assert talk.session.state is State.WAITING
        report = events[0]
        reason = report.error.message if isinstance(report, AttemptFailed) else str(getattr(report, "reason", ""))
        assert "broke the protocol" in reason


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_a_refusal_in_every_state(state: State) -> None:
    talk = IN_STATE[state]()
    events = talk.tell(FAILURE)
    expected = {State.GREETING: State.WAITING, State.LOGGING_IN: State.WAITING}
    assert talk.session.state is expected.get(state, state)
    if state in (State.SYNCING, State.ONLINE):
        assert events == [NoticeReceived("unavailable", "not now")]


@pytest.mark.parametrize("fact", Fact, ids=lambda fact: fact.name)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_fact_in_every_state(state: State, fact: Fact) -> None:
    session = IN_STATE[state]().session
    if fact in TRANSITIONS[state]:
        session._step(fact)
        assert session.state is TRANSITIONS[state][fact]
    else:
        with pytest.raises(LocalProtocolError, match=fact.name):
            session._step(fact)
        assert session.state is state


@pytest.mark.parametrize("state", [state for state in State if state is not State.ONLINE], ids=lambda state: state.name)
def test_nothing_can_be_asked_unless_online(state: State) -> None:
    session = IN_STATE[state]().session
    with pytest.raises(Unavailable):
        session.request(PeerRequest("7"))
    with pytest.raises(Unavailable):
        session.send(PeerRequest("7"))
    assert session.events() == []


def test_every_state_can_be_reached_and_left_but_the_last() -> None:
    reached = {new for row in TRANSITIONS.values() for new in row.values()}
    assert reached | {State.OFFLINE} == set(State) == set(TRANSITIONS)
    assert set(TRANSITIONS[State.CLOSED].values()) == {State.CLOSED}


def test_each_change_of_state_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "bonevalue.wire.session"):
        Talk().log_in()
    steps = [record.getMessage() for record in caplog.records]
    assert len(steps) == 5
    assert steps[0] == "session of alice: OFFLINE -> CONNECTING (started)"
    assert steps[-1] == "session of alice: SYNCING -> ONLINE (synced)"
    assert ALICE.login not in caplog.text


@given(st.lists(st.one_of(st.text(max_size=40), st.binary(max_size=40), st.sampled_from(sorted(SIGNALS))), max_size=6))
def test_garbage_costs_the_socket_and_nothing_else(frames: list[str | bytes]) -> None:
    for state in ACCEPTED:
        talk = IN_STATE[state]()
        for frame in frames:
            text = json.dumps({"type": frame, "data": {}}) if frame in SIGNALS else frame
            talk.session.receive(text, talk.now, NOW_MS)
            assert talk.session.state in (*ACCEPTED, State.WAITING, State.CLOSED)
        talk.lose()
        assert talk.session.state in (State.WAITING, State.CLOSED)


def test_an_unknown_type_is_ignored() -> None:
    talk = _online()
    assert talk.tell('{"type": "weather", "data": {"sun": true}}') == []
    assert talk.session.state is State.ONLINE


def test_a_binary_frame_ends_the_socket() -> None:
    talk = _online()
    talk.session.receive(encode(Done()).encode(), talk.now, NOW_MS)
    assert talk.session.state is State.WAITING


# -- login -------------------------------------------------------------------------------------------------------------


def test_login_by_key() -> None:
    talk = Talk(make_session(agent="test/1", visible=False))
    talk.connect()
    assert talk.sent() == []  # the server speaks first
    talk.tell(hello())
    (login,) = talk.sent()
    assert login["type"] == "login"
    data = login["data"]
    assert data.keys() == {"username", "blob", "signature", "visible", "agent"}
    assert (data["username"], data["visible"], data["agent"]) == ("alice", False, "test/1")
    blob = LoginBlob.open(from_base64url(data["blob"]), from_base64url(data["signature"]), ALICE.public)
    assert blob == LoginBlob(REALM, CHALLENGE, "alice", ALICE.public)
    servers = [IceServer(["stun:192.0.2.1"])]
    assert talk.tell(SetPeerId("100", "t"), IceServers(servers), UserList(["Us", "bob"])) == [
        IceServersChanged(tuple(servers), (None,))
    ]
    assert talk.session.state is State.SYNCING
    events = talk.tell(Contacts([contact("bob", BOB)]), PeerList([PeerEntry("bob", "7")]))
    assert events == [WentOnline("100", resumed=False), PeerConnected("bob", "7")]
    assert talk.session.aliases == ("Us", "bob")
    assert talk.session.peers == {"7": "bob"}
    assert talk.session.peer_id == "100"


def test_login_by_secret() -> None:
    talk = Talk(make_session(login=ALICE.login))
    talk.connect()
    talk.tell(hello())
    (login,) = talk.sent()
    assert login["data"] == {"username": "alice", "login": ALICE.login}
    events = talk.tell(SetPeerId("100", "t"), UserList(["Us", "bob"]), PeerList([PeerEntry("bob", "7")]))
    assert events == [WentOnline("100", resumed=False), PeerConnected("bob", "7")]
    assert talk.tell(UserAdd("carol", contact("carol", BOB))) == [UserAdded("carol")]


def test_a_session_has_keys_or_a_secret() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {},
        {"keys": ALICE},
        {"contacts": ContactBook(ALICE)},
        {"keys": ALICE, "contacts": ContactBook(ALICE), "login": ALICE.login},
        {"contacts": ContactBook(ALICE), "login": ALICE.login},
    )
    for wrong in wrongs:
        with pytest.raises(LocalProtocolError):
            Session("alice", REALM, jitter=lambda: 0.5, **wrong)


@pytest.mark.parametrize("realm", ["evil.example", "EXAMPLE.org", "example.org.", "", "example.org\x1b[2J"])
def test_a_server_of_another_realm_gets_nothing(realm: str) -> None:
    talk = Talk()
    talk.connect()
    (ended,) = talk.tell(hello(realm))
    assert isinstance(ended, Ended) and isinstance(ended.error, RealmMismatch)
    assert "server.realm" in ended.error.message and repr(REALM) in ended.error.message
    assert "\x1b" not in ended.error.message
    assert talk.session.state is State.CLOSED and not talk.session.wants_socket
    assert talk.sent() == []


@pytest.mark.parametrize("wrong", [hello(version=2), hello(version=0), hello(challenge=bytes(31))])
def test_a_greeting_that_we_do_not_understand_gets_nothing(wrong: Struct) -> None:
    talk = Talk()
    talk.connect()
    (ended,) = talk.tell(wrong)
    assert isinstance(ended, Ended) and isinstance(ended.error, RemoteProtocolError)
    assert talk.sent() == []


@pytest.mark.parametrize("lifetime", [-1, 31_536_001, 2**62])
def test_a_server_cannot_let_tokens_live_as_long_as_it_likes(lifetime: int) -> None:
    talk = Talk()
    talk.connect()
    (failed,) = talk.tell(structs.replace(hello(), token_lifetime=lifetime))
    assert isinstance(failed, AttemptFailed) and isinstance(failed.error, RemoteProtocolError)
    assert talk.sent() == []


def test_the_ticket_is_given_back() -> None:
    talk = Talk()
    assert talk.log_in(peer_id="100")[-1] == WentOnline("100", resumed=False)
    talk.lose()
    talk.connect()
    talk.tell(hello())
    (login,) = talk.sent()
    assert login["data"]["resume"] == {"peerId": "100", "ticket": "ticket-of-100"}
    assert talk.tell(SetPeerId("100", "another"), *lists())[-1] == WentOnline("100", resumed=True)
    talk.lose()
    assert talk.log_in(peer_id="200") == [WentOnline("200", resumed=False)]
    assert talk.session.peer_id == "200"


def test_a_ticket_that_could_not_be_given_back_is_refused() -> None:
    talk = _logging_in()
    talk.tell(SetPeerId("100", "t" * 129))
    assert talk.session.state is State.WAITING


def test_refused_logins() -> None:
    for code, kind, retry_after, state in [
        ("login_refused", LoginRefused, None, State.CLOSED),
        ("bad_message", BoneValueError, None, State.CLOSED),
        ("too_many_peers", TooManyPeers, None, State.WAITING),
        ("busy", Busy, 30.0, State.WAITING),
        ("unavailable", Unavailable, None, State.WAITING),
    ]:
        talk = _logging_in()
        (event,) = talk.tell(Failure(code, "no", retry_after))
        assert talk.session.state is state, code
        assert isinstance(event, Ended if state is State.CLOSED else AttemptFailed)
        assert isinstance(event.error, kind) and event.error.message == "no"
        if retry_after:
            assert talk.session.timer() == talk.now + retry_after + 1.0  # of two seconds, half: the chance is 0.5


def test_a_refusal_that_we_do_not_know_is_judged_by_the_close_code() -> None:
    for close, state in [(4510, State.CLOSED), (4010, State.WAITING), (None, State.WAITING)]:
        talk = _logging_in()
        assert talk.tell(Failure("too_sunny", "go outside")) == []
        assert talk.session.state is State.LOGGING_IN
        (event,) = talk.lose(close)
        assert talk.session.state is state
        assert isinstance(event, Ended | AttemptFailed)
        assert (event.error.code, event.error.message) == ("too_sunny", "too_sunny: go outside")


@pytest.mark.parametrize("state", [State.GREETING, State.LOGGING_IN, State.SYNCING])
def test_a_server_that_does_not_go_on_is_left(state: State) -> None:
    talk = IN_STATE[state]()
    talk.wait(ESTABLISH_TIMEOUT - 0.1)
    assert talk.session.state is state
    (event,) = talk.wait()
    assert isinstance(event, AttemptFailed) and isinstance(event.error, ServerUnreachable)
    assert state.value in event.error.message
    assert talk.session.state is State.WAITING


def test_what_comes_before_the_lists_are_complete_waits() -> None:
    talk = _syncing()
    request = PeerRequest("100", "7", Binary(b"o"), Binary(b"s"))
    early = [UserAdd("bob", contact("bob", BOB)), PeerConnect("bob", "7"), request, PeerDisconnect("7")]
    assert talk.tell(*early) == []
    events = talk.tell(PeerList([]))
    assert [type(event).__name__ for event in events] == [
        "WentOnline",
        "UserAdded",
        "PeerConnected",
        "RequestReceived",
        "PeerDisconnected",
    ]


def test_what_waits_is_bounded() -> None:
    talk = _syncing()
    assert talk.tell(*[PeerDisconnect("7")] * MAX_BACKLOG) == []
    (event,) = talk.tell(PeerDisconnect("7"))
    assert isinstance(event, AttemptFailed) and "broke the protocol" in event.error.message


def test_ice_servers_are_reported_when_they_change() -> None:
    talk = _online()
    servers = [IceServer(["turn:192.0.2.1"], "user", "credential", NOW_MS + 3_600_000)]
    assert talk.tell(IceServers(servers)) == [IceServersChanged(tuple(servers), (3600.0,))]
    assert talk.tell(IceServers(servers)) == []


def test_lifetimes_are_reckoned_by_the_server_s_clock() -> None:
    talk = _online()  # greeted at NOW_MS
    talk.wait(600)
    expiries = (None, NOW_MS + 3_600_500, NOW_MS + 600_000, 0)
    servers = [IceServer(["turn:192.0.2.1"], "user", "credential", expires) for expires in expiries]
    assert talk.tell(IceServers(servers)) == [IceServersChanged(tuple(servers), (None, 3000.5, 0.0, 0.0))]


def test_the_clock_is_that_of_the_latest_greeting() -> None:
    talk = _online()
    talk.wait(600)
    talk.lose()
    talk.connect()
    talk.tell(structs.replace(hello(), time=NOW_MS + 5_000))
    server = IceServer(["turn:192.0.2.1"], "user", "credential", NOW_MS + 65_000)
    (event,) = talk.tell(SetPeerId("100", "ticket"), IceServers([server]))
    assert event == IceServersChanged((server,), (60.0,))


def test_a_credential_shows_in_no_repr() -> None:
    server = IceServer(["turn:192.0.2.1"], "user", "a secret", NOW_MS)
    assert "turn:192.0.2.1" in repr(server)
    for shown in (server, IceServers([server]), IceServersChanged((server,), (1.0,))):
        assert "a secret" not in repr(shown)


@pytest.mark.parametrize(
    "data",
    [
        {},
        [{"urls": "stun:192.0.2.1"}],
        [{"urls": ["stun:192.0.2.1"] * 17}],
        [{"urls": ["s" * 513]}],
        [{"urls": []}] * 33,
        [{"urls": [], "username": "u" * 513}],
        [{"urls": [], "credential": "c" * 4097}],
        [{"urls": [], "expires": -1}],
        [{"urls": [], "expires": 2**53 + 1}],
        [{"urls": [], "expires": 10**400}],
    ],
)
def test_wrong_ice_servers(data: Any) -> None:
    talk = _online()
    (event,) = talk.tell(json.dumps({"type": "iceServers", "data": data}))
    assert isinstance(event, WentOffline) and "broke the protocol" in event.reason


# -- farewells ---------------------------------------------------------------------------------------------------------


@given(st.integers(1000, 4999))
def test_the_close_code_decides_whether_to_come_back(code: int) -> None:
    talk = _online()
    events = talk.lose(code, "because")
    if code >= 4500:
        assert talk.session.state is State.CLOSED
        offline, ended = events
        assert isinstance(offline, WentOffline) and offline.retry_in is None
        assert isinstance(ended, Ended) and "because" in ended.error.message
    else:
        assert talk.session.state is State.WAITING
        assert [type(event) for event in events] == [WentOffline]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(4503, Replaced), (4504, SessionEnded), (4501, LoginRefused), (4500, RemoteProtocolError), (4999, DiscoveryError)],
)
def test_a_final_close_code_has_its_error(code: int, kind: type[BoneValueError]) -> None:
    ended = _online().lose(code)[-1]
    assert isinstance(ended, Ended) and type(ended.error) is kind


def test_a_goodbye_names_the_time() -> None:
    talk = _online()
    assert talk.tell(Goodbye("going_away", 20.0)) == []
    (event,) = talk.lose(1012, "")
    assert isinstance(event, WentOffline)
    assert event.retry_in == 21.0
    assert "going_away" in event.reason
    assert talk.session.timer() == talk.now + 21.0


def test_a_goodbye_without_a_time_is_final() -> None:
    talk = _online()
    talk.tell(Goodbye("session_ended"))
    ended = talk.lose(1000)[-1]
    assert isinstance(ended, Ended) and isinstance(ended.error, SessionEnded)
    talk = _online()
    talk.tell(Goodbye("the end of the world"))
    ended = talk.lose()[-1]
    assert isinstance(ended, Ended) and isinstance(ended.error, GoingAway)


def test_the_time_that_a_server_asks_for_is_bounded() -> None:
    talk = _online()
    talk.tell('{"type": "goodbye", "data": {"reason": "going_away", "reconnectAfter": 1e999}}')
    (event,) = talk.lose(1012)
    assert isinstance(event, WentOffline) and event.retry_in is not None and event.retry_in <= 3602


def test_the_first_retry_comes_within_two_seconds_again_after_a_session_that_lasted() -> None:
    talk = Talk(make_session(chance=0.999))
    talk.session.start()
    delays = []
    for _ in range(20):
        talk.session.unreachable("nobody there", talk.now)
        (event,) = talk.session.events()
        assert isinstance(event, AttemptFailed)
        delays.append(event.retry_in)
        talk.wait()
        assert talk.session.state is State.CONNECTING
    assert delays[0] < 2 and delays[-1] > 59 and max(delays) <= 60
    talk.log_in()
    talk.now += LASTING
    (event,) = talk.lose()
    assert isinstance(event, WentOffline) and event.retry_in is not None and event.retry_in < 2


def test_a_server_that_drops_us_at_once_is_not_hammered() -> None:
    talk = Talk()
    delays = []
    for _ in range(20):
        talk.log_in()
        talk.now += 0.1
        (event,) = talk.lose()
        assert isinstance(event, WentOffline) and event.retry_in is not None
        delays.append(event.retry_in)
    assert delays[0] == 1.0 and delays[-1] == 40.0


def test_stopping_is_reported_and_final() -> None:
    talk = _online()
    ref = talk.session.request(RequestToken("bob", Binary(b"i"), Binary(b"s")))
    talk.session.stop()
    offline, refused = talk.session.events()
    assert offline == WentOffline("we logged off", None)
    assert isinstance(refused, Refused) and refused.ref == ref
    talk.session.stop()
    assert talk.session.events() == [] and not talk.session.wants_socket and talk.session.timer() is None
