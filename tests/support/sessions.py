"""What a discovery server says to one client, for the tests of the client's side."""

from __future__ import annotations

import json
from typing import Any

from msgspec import Struct

from bonevalue.wire.blobs import Pin
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.session import Session, State
from bonevalue.wire.session_events import Event
from bonevalue.wire.signals import (
    Binary,
    Contact,
    Contacts,
    Hello,
    IceServers,
    PeerEntry,
    PeerList,
    SetPeerId,
    SignedBlob,
    UserList,
    encode,
)

__all__ = ["ALICE", "BOB", "CAROL", "CHALLENGE", "NOW_MS", "REALM", "Talk", "contact", "hello", "lists", "make_session"]

REALM = "example.org"
CHALLENGE = bytes(range(32))
#: The time of day of all these tests.
NOW_MS = 1_800_000_000_000
ALICE, BOB, CAROL = (AccountKeys.from_stretched(bytes([number]) * 32) for number in (1, 2, 3))


def hello(realm: str = REALM, *, version: int = 1, challenge: bytes = CHALLENGE) -> Hello:
    """The greeting."""
    return Hello(version, realm, Binary(challenge), NOW_MS, "open", 86_400)


def contact(name: str, keys: AccountKeys, *, owner: AccountKeys = ALICE, issued: int = NOW_MS - 1000) -> Contact:
    """A contact of the owner, proved by a pin."""
    pin = Pin(owner.public, keys.public, name, issued).encode()
    return Contact(name, Binary(keys.public), [SignedBlob(Binary(pin), [Binary(owner.sign(pin))])])


def lists(contacts: list[Contact] | None = None, peers: dict[str, str] | None = None) -> list[Struct]:
    """The lists after a login: contacts, and peers from id to alias."""
    entries = contacts or []
    return [
        IceServers([]),
        UserList(["Us", *(entry.name for entry in entries)]),
        Contacts(entries),
        PeerList([PeerEntry(name, peer_id) for peer_id, name in (peers or {}).items()]),
    ]


def make_session(*, chance: float = 0.5, **others: Any) -> Session:
    """A session of Alice, whose random numbers are all the same."""
    by_key: dict[str, Any] = {} if "login" in others else {"keys": ALICE, "contacts": ContactBook(ALICE)}
    return Session("alice", REALM, jitter=lambda: chance, **by_key, **others)


class Talk:
    """A session, a clock that only moves when told, and short words for what happens between session and server."""

    def __init__(self, session: Session | None = None) -> None:
        self.session = session or make_session()
        self.now = 1000.0

    def tell(self, *messages: Struct | str, ref: str | None = None) -> list[Event]:
        """The server says this; what the session reports."""
        for message in messages:
            text = message if isinstance(message, str) else encode(message, ref)
            self.session.receive(text, self.now, NOW_MS)
        return self.session.events()

    def sent(self) -> list[dict[str, Any]]:
        """What the session sends now, parsed."""
        return [json.loads(text) for text in self.session.data_to_send(self.now)]

    def connect(self) -> None:
        """A socket opens, now or when the session next wants one."""
        if self.session.state is State.OFFLINE:
            self.session.start()
        if self.session.state is State.WAITING:
            self.wait()
        self.session.opened(self.now)

    def wait(self, seconds: float | None = None) -> list[Event]:
        """Time passes, until the timer if not told how much; what the session reports."""
        if seconds is None:
            moment = self.session.timer()
            assert moment is not None
            seconds = max(0.0, moment - self.now)
        self.now += seconds
        self.session.handle_timer(self.now)
        return self.session.events()

    def log_in(
        self, contacts: list[Contact] | None = None, peers: dict[str, str] | None = None, *, peer_id: str = "100"
    ) -> list[Event]:
        """The whole of a login; what the session reports."""
        self.connect()
        self.tell(hello())
        self.sent()
        return self.tell(SetPeerId(peer_id, f"ticket-of-{peer_id}"), *lists(contacts, peers))

    def lose(self, code: int | None = None, reason: str = "") -> list[Event]:
        """The socket closes; what the session reports."""
        self.session.closed(code, reason, self.now)
        return self.session.events()
