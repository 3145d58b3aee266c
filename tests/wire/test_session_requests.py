"""What a session asks, sends and passes on while it is online."""

from __future__ import annotations

import pytest

from bonevalue.errors import Busy, LocalProtocolError, PeerOffline, TooLarge, Unavailable
from bonevalue.wire.session import MAX_PENDING, SEND_BURST
from bonevalue.wire.session_events import (
    CandidateReceived,
    Event,
    IceServersChanged,
    NoticeReceived,
    Refused,
    Replied,
    RequestReceived,
    ResponseReceived,
    WentOffline,
)
from bonevalue.wire.session_states import REPLIES, State
from bonevalue.wire.signals import (
    Binary,
    ClaimToken,
    Done,
    Failure,
    IceServer,
    IceServers,
    PeerCandidate,
    PeerRequest,
    PeerResponse,
    RequestIceServers,
    RequestToken,
    TokenClaimed,
    TokenResponse,
    UpdateContact,
    encode,
)
from tests.support.sessions import NOW_MS, Talk, hello


def online() -> Talk:
    """A session that is online and has nothing to report."""
    talk = Talk()
    talk.log_in()
    return talk


REQUEST = RequestToken("bob", Binary(b"invite"), Binary(b"signature"))


def test_a_request_and_its_reply() -> None:
    talk = online()
    ref = talk.session.request(REQUEST)
    (sent,) = talk.sent()
    assert sent["type"] == "requestToken" and sent["ref"] == ref
    assert talk.tell(TokenResponse(NOW_MS), ref=ref) == [Replied(ref, TokenResponse(NOW_MS))]
    assert talk.tell(TokenResponse(NOW_MS), ref=ref) == []  # only once


def test_ice_servers_that_were_asked_for() -> None:
    talk = online()
    ref = talk.session.request(RequestIceServers())
    (sent,) = talk.sent()
    assert sent == {"type": "requestIceServers", "data": {}, "ref": ref}
    server = IceServer(["turn:192.0.2.1"], "user", "credential", NOW_MS + 60_000)
    reply = IceServers([server])
    # Whoever waits for the reply finds them in use already.
    assert talk.tell(reply, ref=ref) == [IceServersChanged((server,), (60.0,)), Replied(ref, reply)]
    ref = talk.session.request(RequestIceServers())
    assert talk.tell(IceServers([])) == [IceServersChanged((), ())]  # unasked, and no reply
    assert talk.tell(IceServers([]), ref=ref) == [Replied(ref, IceServers([]))]


def test_a_request_and_its_refusal() -> None:
    talk = online()
    ref = talk.session.request(PeerRequest("7", None, Binary(b"o"), Binary(b"s")))
    (refused,) = talk.tell(Failure("peer_offline", "no\x07 such peer", 3.0), ref=ref)
    assert isinstance(refused, Refused) and isinstance(refused.error, PeerOffline)
    assert (refused.ref, refused.error.message, refused.error.retry_after) == (ref, "no? such peer", 3.0)


def test_each_request_takes_its_own_reply_only() -> None:
    for kind, reply in REPLIES.items():
        for message in (Done(), TokenResponse(NOW_MS), TokenClaimed("bob"), IceServers([])):
            talk = online()
            talk.session._connection.pending["1"] = reply
            events = talk.tell(message, ref="1")
            assert (events[0] == Replied("1", message)) == (type(message) is reply), kind
            assert (talk.session.state is State.ONLINE) == (type(message) is reply)


def test_a_reply_for_which_nobody_waits_is_ignored() -> None:
    talk = online()
    ref = talk.session.request(REQUEST)
    talk.session.forget(ref)
    assert talk.tell(TokenResponse(1), ref=ref) == []
    assert talk.tell(Failure("denied", "no"), ref=ref) == []
    assert talk.tell(Done()) == []
    assert talk.tell(Done(), ref="never") == []
    assert talk.session.state is State.ONLINE


def test_a_lost_connection_answers_every_request() -> None:
    talk = online()
    refs = [talk.session.request(REQUEST) for _ in range(3)]
    events = talk.lose()
    assert isinstance(events[0], WentOffline)
    refused = [event for event in events[1:] if isinstance(event, Refused)]
    assert [event.ref for event in refused] == refs
    assert all(isinstance(event.error, Unavailable) for event in refused)
    talk.log_in()
    assert talk.sent() == []  # nothing of the old connection goes over the new one


def test_what_can_be_asked_at_once_is_bounded() -> None:
    talk = online()
    for _ in range(MAX_PENDING):
        talk.session.request(REQUEST)
    with pytest.raises(Busy):
        talk.session.request(REQUEST)
    with pytest.raises(Busy):
        talk.session.send(REQUEST)
    for ref in list(talk.session._connection.pending):
        talk.session.forget(ref)
    with pytest.raises(Busy):  # nobody waits, but they are still to be sent
        talk.session.request(REQUEST)


def test_a_message_that_no_server_takes_is_refused_here() -> None:
    talk = online()
    with pytest.raises(TooLarge):
        talk.session.send(PeerRequest("7", None, Binary(bytes(50_000)), Binary(b"s")))
    with pytest.raises(LocalProtocolError):
        talk.session.request(hello())


def test_messages_are_paced() -> None:
    talk = online()
    talk.now += 60  # the login is a message too
    for number in range(SEND_BURST + 20):
        talk.session.send(ClaimToken(f"n{number}", Binary(), [Binary()] * 2, Binary(), Binary()))
    talk.session._connection.pins.append(encode(UpdateContact(Binary(), Binary())))
    at_once = talk.sent()
    assert len(at_once) == SEND_BURST
    later = []
    start = talk.now
    while (moment := talk.session.send_timer()) is not None:
        assert moment > talk.now
        talk.now = moment
        later += talk.sent()
    names = [message["data"].get("name") for message in at_once + later]
    assert names == [f"n{number}" for number in range(SEND_BURST + 20)] + [None]  # pins come last
    assert 1.0 < talk.now - start < 2.0


# -- relayed -----------------------------------------------------------------------------------------------------------


def test_relayed_messages_are_reported() -> None:
    talk = online()
    request = PeerRequest("100", "7", Binary(b"o"), Binary(b"s"))
    response = PeerResponse("100", "7", None, None, Binary(bytes(16)), Failure("busy", "no"))
    candidate = PeerCandidate("100", "7", Binary(bytes(16)), "candidate")
    expected: list[Event] = [RequestReceived(request), ResponseReceived(response), CandidateReceived(candidate)]
    assert talk.tell(request, response, candidate) == expected


@pytest.mark.parametrize("kind", [PeerRequest, PeerResponse, PeerCandidate])
def test_a_relayed_message_has_a_sender(kind: type[PeerRequest | PeerResponse | PeerCandidate]) -> None:
    talk = online()
    talk.tell(kind("100"))
    assert talk.session.state is State.WAITING


def test_a_notice_is_reported_in_plain_text() -> None:
    talk = online()
    assert talk.tell(Failure("token_used", "twice\n" + "x" * 1000)) == [
        NoticeReceived("token_used", "twice?" + "x" * 294)
    ]
