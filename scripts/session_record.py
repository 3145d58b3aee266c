"""A session of Alice with a discovery server, and all that happens to it written down as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import msgspec
from msgspec import Struct

from bonevalue.errors import BoneValueError
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys, from_base64url, to_base64url
from bonevalue.wire.session import Session, State
from bonevalue.wire.session_events import Event
from bonevalue.wire.signals import (
    SIGNALS,
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

REALM = "example.org"
#: The time of day of all transcripts, in ms since 1970.
NOW_MS = 1_800_000_000_000
#: What PBKDF2 gives for each person's password.
PEOPLE = {name: bytes([number]) * 32 for number, name in enumerate(("alice", "bob", "carol", "dave"), start=1)}
KEYS = {name: AccountKeys.from_stretched(stretched) for name, stretched in PEOPLE.items()}
ALICE = KEYS["alice"]

Step = dict[str, Any]


def hello(realm: str = REALM, version: int = 1, size: int = 32, time: int = NOW_MS) -> Hello:
    """The greeting."""
    return Hello(version, realm, Binary(bytes(range(size))), time, "open", 86_400)


def lists(*contacts: Contact, peers: dict[str, str] | None = None) -> list[Struct]:
    """What follows a login, each list in one page."""
    return [
        IceServers([]),
        UserList(["Us", *(entry.name for entry in contacts)]),
        Contacts(list(contacts)),
        PeerList([PeerEntry(name, peer_id) for peer_id, name in (peers or {}).items()]),
    ]


def plain(value: Any) -> Any:
    """A value of a session as JSON."""
    if isinstance(value, BoneValueError):
        return {"code": value.code, **({} if value.retry_after is None else {"retryAfter": value.retry_after})}
    if isinstance(value, bytes):
        return to_base64url(value) if isinstance(value, Binary) else value.hex()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Struct):
        row = next(row for row in SIGNALS.values() if row.kind is type(value)) if type(value) in _TOP else None
        if row is not None and row.bare is not None:
            return plain(getattr(value, row.bare))
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        found = {name: plain(getattr(value, own)) for own, name in names}
        return {name: item for name, item in found.items() if item is not None}
    return value


_TOP = {row.kind for row in SIGNALS.values()}


def camel(name: str) -> str:
    """``peer_id`` as ``peerId``."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def described(event: Event) -> Step:
    """An event, without texts for people."""
    kind = type(event).__name__
    values = {camel(each.name): plain(getattr(event, each.name)) for each in fields(event)}
    values.pop("reason", None)
    return {"type": kind[0].lower() + kind[1:], **values}


def message(kind: str, data: Step) -> Struct:
    """What a client says, from its JSON."""
    made: Struct = msgspec.convert(data, SIGNALS[kind].kind, dec_hook=lambda _, text: Binary(from_base64url(text)))
    return made


class Record:
    """A session, a clock that only moves when told, and all that happens."""

    def __init__(self, *, chance: float = 0.5, visible: bool = True) -> None:
        self.now = 1000.0
        self.chance = chance
        self.visible = visible
        self.session = Session(
            "alice",
            REALM,
            keys=ALICE,
            contacts=ContactBook(ALICE),
            jitter=lambda: chance,
            visible=visible,
            agent="vectors",
        )
        self.steps: list[Step] = []
        self._shown: Step = {"state": "offline", "peers": {}, "aliases": [], "refused": {}, "timer": None}

    def did(self, what: str, action: Callable[[], Any], **arguments: Any) -> Any:
        """Do something, and write down what came of it."""
        step: Step = {"now": self.now, "do": what, **arguments}
        given = None
        try:
            given = action()
        except BoneValueError as error:
            step["fails"] = error.code
        if given is not None:
            step["gives"] = plain(given)
        session = self.session
        sent = [json.loads(text) for text in session.data_to_send(self.now)]
        events = [described(event) for event in session.events()]
        step |= {name: found for name, found in (("sent", sent), ("events", events)) if found}
        shown = {
            "state": camel(session.state.name.lower()),
            "peers": dict(session.peers),
            "aliases": list(session.aliases),
            "refused": {name: error.code for name, error in session.refused.items()},
            "timer": session.timer(),
        }
        step |= {name: value for name, value in shown.items() if value != self._shown[name]}
        if (moment := session.send_timer()) is not None:
            step["sendTimer"] = moment
        self._shown = shown
        self.steps.append(step)
        return given

    def start(self) -> None:
        """Come online."""
        self.did("start", self.session.start)

    def stop(self) -> None:
        """Go offline for good."""
        self.did("stop", self.session.stop)

    def opened(self) -> None:
        """The socket is open."""
        self.did("opened", lambda: self.session.opened(self.now))

    def unreachable(self) -> None:
        """The socket cannot be opened."""
        self.did("unreachable", lambda: self.session.unreachable("no route", self.now))

    def closed(self, code: int | None = None, reason: str = "") -> None:
        """The socket was closed."""
        self.did("closed", lambda: self.session.closed(code, reason, self.now), code=code, reason=reason)

    def abandoned(self, *, hurry: bool) -> None:
        """The socket is dead."""
        self.did("abandoned", lambda: self.session.abandoned("silent", self.now, hurry=hurry), hurry=hurry)

    def hurry(self) -> None:
        """The network is another."""
        self.did("hurry", lambda: self.session.hurry(self.now))

    def tell(self, *messages: Struct | str, ref: str | None = None) -> None:
        """The server says this."""
        for message in messages:
            text = message if isinstance(message, str) else encode(message, ref)
            self.did("receive", lambda text=text: self.session.receive(text, self.now, NOW_MS), text=text)  # type: ignore[misc]

    def wait(self, seconds: float | None = None) -> None:
        """Time passes, until the timer if not told how much."""
        if seconds is None:
            seconds = max(0.0, (self.session.timer() or self.now) - self.now)
        self.now += seconds
        self.did("timer", lambda: self.session.handle_timer(self.now))

    def request(self, kind: str, data: Step) -> str | None:
        """Ask the server for something; the ref."""
        given: str | None = self.did("request", lambda: self.session.request(message(kind, data)), type=kind, data=data)
        return given

    def send(self, kind: str, data: Step) -> None:
        """Say something to the server that wants no answer."""
        self.did("send", lambda: self.session.send(message(kind, data)), type=kind, data=data)

    def removed(self, name: str | None, remove: SignedBlob) -> None:
        """Trust has ended, not by the server's word."""
        shown = {"name": name, "remove": plain(remove)}
        self.did("removed", lambda: self.session.removed(name, remove, NOW_MS), **shown)

    def connect(self) -> None:
        """A socket opens, as soon as the session wants one."""
        if self.session.state is State.OFFLINE:
            self.start()
        if self.session.state is State.WAITING:
            self.wait()
        self.opened()

    def log_in(self, *contacts: Contact, peers: dict[str, str] | None = None, peer_id: str = "100") -> None:
        """The whole of a login."""
        self.connect()
        self.tell(hello(), SetPeerId(peer_id, f"ticket-of-{peer_id}"), *lists(*contacts, peers=peers))
