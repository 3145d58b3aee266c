"""Aliases, contacts and presence together, through a session: what is news, what is proved, what is refused."""

from __future__ import annotations

import pytest

from bonevalue.errors import ContactConflict, IdentityMismatch
from bonevalue.wire.blobs import Pin, Remove, Rotate
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys, from_base64url
from bonevalue.wire.presence import HOLD
from bonevalue.wire.session import Session
from bonevalue.wire.session_events import (
    ContactRefused,
    KeyChanged,
    PeerConnected,
    PeerDisconnected,
    PeerReturned,
    UserAdded,
    UserRemoved,
    WentOnline,
)
from bonevalue.wire.session_states import State
from bonevalue.wire.signals import (
    Binary,
    Contact,
    Contacts,
    PeerConnect,
    PeerDisconnect,
    PeerEntry,
    PeerList,
    SetPeerId,
    SignedBlob,
    UserAdd,
    UserList,
    UserRemove,
)
from bonevalue.wire.tokens import Token, invite, redeem
from tests.support.sessions import ALICE, BOB, CAROL, NOW_MS, REALM, Talk, contact, hello

BOB_ENTRY, CAROL_ENTRY = contact("bob", BOB), contact("carol", CAROL)
#: What the server says of bob is signed by somebody else.
FORGED = contact("bob", BOB, owner=CAROL)


def _removal(remover: AccountKeys, removed: AccountKeys) -> SignedBlob:
    blob = Remove(remover.public, removed.public, NOW_MS).encode()
    return SignedBlob(Binary(blob), [Binary(remover.sign(blob))])


# -- lists ----------------------------------------------------------------------------------------------


def test_the_first_lists_raise_peers_and_no_users() -> None:
    events = Talk().log_in([BOB_ENTRY], {"7": "bob", "8": "Us"})
    assert events == [WentOnline("100", resumed=False), PeerConnected("bob", "7"), PeerConnected("Us", "8")]


def test_a_reconnect_raises_only_differences() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY], {"7": "bob", "8": "bob"})
    talk.lose()
    assert talk.session.peers == {"7": "bob", "8": "bob"} and talk.session.aliases == ("Us", "bob")
    events = talk.log_in([BOB_ENTRY, CAROL_ENTRY], {"7": "bob", "9": "carol"})
    assert events == [WentOnline("100", resumed=True), UserAdded("carol"), PeerConnected("carol", "9")]
    assert talk.wait() == [PeerDisconnected("8", "bob")]
    talk.lose()
    assert talk.log_in([CAROL_ENTRY], {"9": "carol"}) == [
        WentOnline("100", resumed=True),
        PeerDisconnected("7", "bob"),
        UserRemoved("bob", BOB.public, proven=False),
    ]


def test_peers_of_a_restarted_server_have_fifteen_seconds() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY], {"7": "bob", "8": "bob"})
    talk.lose()
    assert talk.log_in([BOB_ENTRY], {}) == [WentOnline("100", resumed=True)]
    assert talk.wait(HOLD - 1) == []
    assert talk.tell(PeerConnect("bob", "7")) == [PeerReturned("7")]
    assert talk.wait(1) == [PeerDisconnected("8", "bob")]
    assert talk.session.peers == {"7": "bob"} and talk.session.timer() is None


def test_time_does_not_run_while_the_server_is_away() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY], {"7": "bob"})
    talk.lose()
    talk.log_in([BOB_ENTRY], {})
    talk.lose()
    talk.now += 3600
    assert talk.log_in([BOB_ENTRY], {"7": "bob"}) == [WentOnline("100", resumed=True)]


def test_our_own_peer_is_nobody() -> None:
    talk = Talk()
    assert talk.log_in([], {"100": "Us"}) == [WentOnline("100", resumed=False)]
    assert talk.tell(PeerConnect("Us", "100"), PeerDisconnect("100")) == []
    assert talk.session.peers == {}


def test_a_peer_of_an_unknown_alias_is_nobody() -> None:
    talk = Talk()
    talk.log_in([], {"7": "bob"})
    assert talk.tell(PeerConnect("bob", "8")) == []
    assert talk.session.peers == {}


def test_lists_come_in_pages() -> None:
    talk = Talk()
    talk.connect()
    events = talk.tell(
        hello(),
        SetPeerId("100", "t"),
        UserList(["Us", "bob"]),
        UserList(["carol"]),
        Contacts([BOB_ENTRY], more=True),
        Contacts([CAROL_ENTRY]),
        PeerList([PeerEntry("bob", "7")], more=True),
        PeerList([PeerEntry("carol", "8")]),
    )
    assert events[1:] == [PeerConnected("bob", "7"), PeerConnected("carol", "8")]
    assert talk.session.aliases == ("Us", "bob", "carol") and not talk.session.refused


@pytest.mark.parametrize("early", [[], [UserList(["Us"]), Contacts([], more=True)]])
def test_peers_come_after_users_and_contacts(early: list[UserList | Contacts]) -> None:
    talk = Talk()
    talk.connect()
    talk.tell(hello(), SetPeerId("100", "t"), *early, PeerList([]))
    assert talk.session.state is State.WAITING


@pytest.mark.parametrize("name", ["", "*", "123", "us", "Bob", "bob\x1b[2J", "ｂob", "b" * 33, "K"])
def test_a_server_may_not_invent_names(name: str) -> None:
    talk = Talk()
    talk.connect()
    talk.tell(hello(), SetPeerId("100", "t"), UserList(["Us", name]))
    assert talk.session.state is State.WAITING
    talk.log_in()
    talk.tell(UserAdd(name, Contact(name, Binary(BOB.public), [])))
    assert talk.session.state is State.WAITING


# -- users come ----------------------------------------------------------------------------------------------


def test_a_new_user_is_news_once() -> None:
    talk = Talk()
    talk.log_in()
    assert talk.tell(UserAdd("bob", BOB_ENTRY), PeerConnect("bob", "7")) == [
        UserAdded("bob"),
        PeerConnected("bob", "7"),
    ]
    assert talk.tell(UserAdd("bob", BOB_ENTRY)) == []
    assert talk.session.aliases == ("Us", "bob")


def test_a_new_user_that_is_not_proved_is_refused_and_shown() -> None:
    talk = Talk()
    talk.log_in()
    (refused,) = talk.tell(UserAdd("bob", FORGED))
    assert isinstance(refused, ContactRefused) and refused.name == "bob"
    assert talk.session.refused == {"bob": refused.error} and talk.session.aliases == ("Us", "bob")
    assert talk.tell(UserAdd("bob", FORGED)) == []  # the same again is no news
    assert talk.tell(UserAdd("bob", BOB_ENTRY)) == [UserAdded("bob")]
    assert talk.session.refused == {}


def test_a_refused_contact_is_reported_once_however_often_we_reconnect() -> None:
    talk = Talk()
    events = talk.log_in([FORGED, CAROL_ENTRY], {"7": "bob"})
    assert [type(event) for event in events] == [WentOnline, ContactRefused, PeerConnected]
    talk.lose()
    assert talk.log_in([FORGED, CAROL_ENTRY], {"7": "bob"}) == [WentOnline("100", resumed=True)]
    talk.lose()
    assert talk.log_in([BOB_ENTRY, CAROL_ENTRY], {"7": "bob"}) == [WentOnline("100", resumed=True)]
    assert talk.session.refused == {}


def test_one_contact_may_speak_against_another() -> None:
    """The same key under a second alias, at the same moment: then neither is used."""
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    events = talk.tell(UserAdd("robert", contact("robert", BOB)))
    assert {event.name for event in events if isinstance(event, ContactRefused)} == {"bob", "robert"}
    assert all(isinstance(error, ContactConflict) for error in talk.session.refused.values())
    talk.tell(UserRemove("robert"))
    assert "robert" not in talk.session.refused


def test_an_entry_must_be_of_the_alias_that_it_is_sent_for() -> None:
    for added in (UserAdd("carol", BOB_ENTRY), UserAdd("Us", Contact("Us", Binary(ALICE.public), []))):
        talk = Talk()
        talk.log_in()
        talk.tell(added)
        assert talk.session.state is State.WAITING


def test_a_claimed_token_becomes_a_pin() -> None:
    """The inviter replaces invite and redeem by its own pin, and the server is told."""
    token = Token.make(ALICE.public, bytes(16), NOW_MS // 1000 + 60)
    invite_blob, invite_signature = invite(ALICE, token, "bob", NOW_MS)
    claim = redeem(BOB, "bobby", token, "alice", NOW_MS)
    chain = [
        SignedBlob(Binary(invite_blob), [Binary(invite_signature)]),
        SignedBlob(Binary(claim.redeem), [Binary(signature) for signature in claim.signatures]),
    ]
    talk = Talk()
    talk.log_in()
    assert talk.tell(UserAdd("bob", Contact("bob", Binary(BOB.public), chain))) == [UserAdded("bob")]
    (sent,) = talk.sent()
    assert sent["type"] == "updateContact" and "ref" not in sent
    pin = Pin.open(from_base64url(sent["data"]["pin"]), from_base64url(sent["data"]["signature"]), ALICE.public)
    assert (pin.contact_key, pin.alias) == (BOB.public, "bob")


# -- users go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("removal", [_removal(BOB, ALICE), _removal(ALICE, BOB)], ids=["by them", "by us"])
def test_a_proven_removal(removal: SignedBlob) -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY], {"7": "bob"})
    events = talk.tell(UserRemove("bob", removal))
    assert events == [PeerDisconnected("7", "bob"), UserRemoved("bob", BOB.public, proven=True)]
    assert talk.session.aliases == ("Us",) and talk.session.peers == {}
    (refused,) = talk.tell(UserAdd("bob", BOB_ENTRY))  # what was signed before the removal is void
    assert isinstance(refused, ContactRefused)


def test_a_removal_without_proof() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    assert talk.tell(UserRemove("bob")) == [UserRemoved("bob", BOB.public, proven=False)]
    assert talk.tell(UserAdd("bob", BOB_ENTRY)) == [UserAdded("bob")]


@pytest.mark.parametrize("removal", [_removal(CAROL, ALICE), _removal(BOB, CAROL)], ids=["of another", "not of us"])
def test_a_forged_removal(removal: SignedBlob) -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    refused, removed = talk.tell(UserRemove("bob", removal))
    assert isinstance(refused, ContactRefused) and isinstance(refused.error, IdentityMismatch)
    assert removed == UserRemoved("bob", BOB.public, proven=False)


def test_a_removal_while_we_were_away_is_proved_after_the_lists() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY], {"7": "bob"})
    talk.lose()
    assert talk.log_in([])[1:] == [PeerDisconnected("7", "bob"), UserRemoved("bob", BOB.public, proven=False)]
    proof = UserRemove("bob", _removal(BOB, ALICE))
    assert talk.tell(proof) == [UserRemoved("bob", BOB.public, proven=True)]
    assert talk.tell(proof) == []
    assert isinstance(talk.tell(UserAdd("bob", BOB_ENTRY))[0], ContactRefused)


def test_an_old_removal_does_not_cut_who_is_trusted_again() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    talk.tell(UserRemove("bob"))
    assert talk.tell(UserAdd("robert", contact("robert", BOB, issued=NOW_MS + 1))) == [UserAdded("robert")]
    assert talk.tell(UserRemove("bob", _removal(BOB, ALICE))) == []
    assert talk.session.aliases == ("Us", "robert") and not talk.session.refused


def test_a_removal_from_before_our_time_is_remembered() -> None:
    talk = Talk()
    talk.log_in([])
    assert talk.tell(UserRemove("bob", _removal(BOB, ALICE)), UserRemove("carol", _removal(CAROL, BOB))) == []
    assert isinstance(talk.tell(UserAdd("bob", BOB_ENTRY))[0], ContactRefused)
    assert talk.tell(UserAdd("carol", CAROL_ENTRY)) == [UserAdded("carol")]


def test_removals_of_nobody_and_of_ourselves() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    assert talk.tell(UserRemove("carol")) == []
    talk.tell(UserRemove("Us"))
    assert talk.session.state is State.WAITING


@pytest.mark.parametrize("removal", [_removal(BOB, ALICE), _removal(ALICE, BOB)], ids=["by them", "by us"])
def test_a_removal_that_another_process_of_ours_knows_of(removal: SignedBlob) -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY, CAROL_ENTRY], {"7": "bob"})
    assert talk.session.removed(None, removal, NOW_MS) == BOB.public
    ended = [PeerDisconnected("7", "bob"), UserRemoved("bob", BOB.public, proven=True)]
    assert talk.session.events() == ended and talk.session.aliases == ("Us", "carol")
    assert talk.session.removed(None, removal, NOW_MS) == BOB.public
    assert talk.session.events() == [] and not talk.session.refused
    assert isinstance(talk.tell(UserAdd("bob", BOB_ENTRY))[0], ContactRefused)


def test_a_removal_of_another_process_that_proves_nothing() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    assert talk.session.removed(None, _removal(BOB, CAROL), NOW_MS) is None
    assert talk.session.events() == [] and talk.session.aliases == ("Us", "bob")


def test_a_removal_counts_under_whatever_name_the_server_tells_it() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    assert talk.tell(UserRemove("dave", _removal(BOB, ALICE))) == [UserRemoved("bob", BOB.public, proven=True)]
    assert talk.session.aliases == ("Us",)


def test_what_we_end_ourselves_has_ended_whatever_the_server_says() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY], {"7": "bob"})
    talk.session.removed("bob", _removal(ALICE, BOB), NOW_MS)
    assert talk.session.events() == [PeerDisconnected("7", "bob"), UserRemoved("bob", BOB.public, proven=True)]
    assert talk.tell(UserRemove("bob", _removal(ALICE, BOB))) == []
    (refused,) = talk.tell(UserAdd("bob", BOB_ENTRY))
    assert isinstance(refused, ContactRefused)


# -- users change their keys --------------------------------------------------------------------------------


def _rotated(old: AccountKeys, new: AccountKeys) -> Contact:
    """Bob as the server shows him when he has another key."""
    blob = Rotate(old.public, new.public, NOW_MS).encode()
    rotate = SignedBlob(Binary(blob), [Binary(old.sign(blob)), Binary(new.sign(blob))])
    return Contact("bob", Binary(new.public), [*BOB_ENTRY.certificates, rotate])


def test_another_key_of_an_alias_is_news() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    assert talk.tell(UserAdd("bob", _rotated(BOB, CAROL))) == [KeyChanged("bob", BOB.public)]
    assert talk.tell(UserAdd("bob", _rotated(BOB, CAROL))) == []


def test_another_key_while_we_were_away_is_news() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    talk.lose()
    assert talk.log_in([_rotated(BOB, CAROL)])[1:] == [KeyChanged("bob", BOB.public)]


def test_another_key_without_proof_is_refused_and_cuts_nothing() -> None:
    talk = Talk()
    talk.log_in([BOB_ENTRY])
    (refused,) = talk.tell(UserAdd("bob", Contact("bob", Binary(CAROL.public), BOB_ENTRY.certificates)))
    assert isinstance(refused, ContactRefused) and isinstance(refused.error, IdentityMismatch)
    assert talk.tell(UserAdd("bob", BOB_ENTRY)) == [UserAdded("bob")]


def test_without_keys_the_server_is_believed() -> None:
    talk = Talk(Session("alice", REALM, login=ALICE.login, jitter=lambda: 0.5))
    assert talk.log_in([FORGED], {"7": "bob"})[1:] == [PeerConnected("bob", "7")]
    assert talk.tell(UserRemove("bob", _removal(BOB, ALICE))) == [
        PeerDisconnected("7", "bob"),
        UserRemoved("bob", None, proven=False),
    ]


def test_the_contact_book_is_kept_up_to_date() -> None:
    book = ContactBook(ALICE)
    talk = Talk(Session("alice", REALM, keys=ALICE, contacts=book, jitter=lambda: 0.5))
    talk.log_in([BOB_ENTRY])
    assert book.names() == ["bob"]
    talk.tell(UserAdd("carol", CAROL_ENTRY), UserRemove("bob"))
    assert book.names() == ["carol"]
    talk.lose()
    assert book.names() == ["carol"]  # links go on while the server is away
    talk.log_in([])
    assert book.names() == []
