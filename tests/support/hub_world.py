"""A hub with a real database, clients without sockets, and a clock that only moves when told."""

from __future__ import annotations

import atexit
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import Struct

from bonevalue.settings_fields import Endpoint
from bonevalue.wire.blobs import LoginBlob, RegisterBlob
from bonevalue.wire.keys import AccountKeys, login_digest
from bonevalue.wire.signals import (
    Binary,
    ClaimToken,
    Contact,
    Contacts,
    Login,
    PeerRequest,
    Register,
    RemoveUser,
    RequestToken,
    Resume,
    Signal,
    UserAdd,
    decode,
    encode,
)
from bonevalue_server.auth import Auth
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.directory import Directory
from bonevalue_server.hub import Hub
from bonevalue_server.sessions import Session
from bonevalue_server.store import Store
from tests.support import identity
from tests.support.accounts import CHEAPEST, Person, enrol

__all__ = [
    "REALM",
    "Client",
    "Clock",
    "World",
    "claim_of",
    "lay_database",
    "login_of",
    "open_world",
    "register_of",
    "removal_of",
    "request",
    "settings_of",
    "token_request",
]

REALM = "example.org"
_folders: list[TemporaryDirectory[str]] = []
_BULK = frozenset({"setPeerId", "iceServers", "userList", "contacts", "peerList"})


class Clock:
    """Seconds since some moment, and the time of day that goes with it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self.now

    def wall_ms(self) -> int:
        """Ms since 1970."""
        return identity.NOW + int((self.now - 1000.0) * 1000)


class Client:
    """A client as the hub sees it; it reads everything at once."""

    def __init__(self, world: World, address: str = "192.0.2.1", dialled: str = REALM) -> None:
        self._world = world
        self._address = address
        self._dialled = dialled
        self._refs = count(1)
        self.received: list[Any] = []
        """Every message as it came, parsed."""
        self.signals: list[Signal] = []
        """The same, decoded as clients do it."""
        self.closed_with: tuple[int, str] | None = None
        self.is_logged_in = False
        self.peer_id = ""
        self.ticket = ""
        self.session: Session = world.hub.connected(self)

    # -- as the hub sees it ----------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The IP address."""
        return self._address

    @property
    def dialled(self) -> str:
        """The host that it dialled."""
        return self._dialled

    def send(self, text: str) -> None:
        """A message from the hub."""
        self.signals.append(decode(text, "server"))  # it must be one that clients take
        self.received.append(json.loads(text))

    def send_all(self, texts: Iterator[str]) -> None:
        """Many messages from the hub."""
        for text in texts:
            self.send(text)

    def logged_in(self) -> None:
        """The hub says that the login was right."""
        self.is_logged_in = True

    def close(self, code: int, reason: str) -> None:
        """The hub closes."""
        self.closed_with = self.closed_with or (code, reason)

    # -- what it does ----------------------------------------------------------------------------------------------

    @property
    def challenge(self) -> bytes:
        """What the greeting asked to sign."""
        return self.session.challenge

    def tell(self, message: Struct | str, ref: str | None = None) -> None:
        """Send something."""
        self._world.hub.receive(self.session, message if isinstance(message, str) else encode(message, ref))

    async def ask(self, message: Struct) -> Any:
        """Send something with a ref; gives the reply, or the error."""
        ref = str(next(self._refs))
        self.tell(message, ref)
        await self._world.hub.idle(10)
        replies = [message for message in self.received if message.get("ref") == ref]
        assert len(replies) <= 1, replies
        return replies[0] if replies else None

    async def code_of(self, message: Struct) -> str:
        """Send something; gives the code of the error, or the type of the reply."""
        reply = await self.ask(message)
        assert reply is not None, "no reply"
        code: str = reply["data"]["code"] if reply["type"] == "error" else reply["type"]
        return code

    async def log_in(self, person: Person, **options: Any) -> Client:
        """Log in by key, or with ``password=True`` by the login secret."""
        self.tell(login_of(person, self.challenge, **options))
        await self._world.hub.idle(10)
        for message in self.received:
            if message["type"] == "setPeerId":
                self.peer_id, self.ticket = message["data"]["peerId"], message["data"]["ticket"]
        return self

    def leave(self, *, may_return: bool = False) -> None:
        """The socket closes."""
        self._world.hub.closed(self.session, may_return=may_return)

    # -- what it was told ------------------------------------------------------------------------------------------

    def of(self, kind: str) -> list[Any]:
        """The data of all messages of a type."""
        return [message.get("data") for message in self.received if message["type"] == kind]

    def types(self) -> list[str]:
        """The types of all messages."""
        return [message["type"] for message in self.received]

    def news(self) -> list[tuple[str, Any]]:
        """What came since the last call, without the lists of a login."""
        news = [(m["type"], m.get("data")) for m in self.received if m["type"] not in _BULK | {"hello"}]
        self.received.clear()
        return news

    def contacts(self) -> list[Contact]:
        """The contacts of the lists, and those that came later."""
        pages = [signal.data for signal in self.signals]
        return [
            *(contact for page in pages if isinstance(page, Contacts) for contact in page.contacts),
            *(page.contact for page in pages if isinstance(page, UserAdd)),
        ]

    def peers(self) -> set[tuple[str, str]]:
        """The online peers of the list, each with its name."""
        return {(entry["name"], entry["id"]) for page in self.of("peerList") for entry in page["peers"]}


class World:
    """A hub and all around it."""

    def __init__(self, store: Store, hub: Hub, directory: Directory, clock: Clock) -> None:
        self.store = store
        self.hub = hub
        self.directory = directory
        self.clock = clock

    async def person(self, name: str) -> Person:
        """Somebody with an account."""
        return await enrol(self.store, name)

    def client(self, address: str = "192.0.2.1", dialled: str = REALM) -> Client:
        """A socket that is not logged in."""
        return Client(self, address, dialled)

    async def enter(self, person: Person, **options: Any) -> Client:
        """Somebody logs in on another socket; what they were told so far is not kept."""
        client = await self.client().log_in(person, **options)
        assert client.is_logged_in, client.received
        return client

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.now += seconds
        self.hub.handle_timer()


def settings_of(tmp_path: Path, **options: Any) -> DiscoverySettings:
    """Settings for tests: open registration, everything else as it comes."""
    return DiscoverySettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "realm": REALM,
            "database": f"sqlite:///{tmp_path}/server.db",
            "registration": "open",
            **options,
        }
    )


async def lay_database(folder: Path) -> None:
    """
    Put a database with nothing in it into a folder, unless there is one.

    It is made once a process: most of the time that a store takes to open is its schema.
    """
    if not _folders:
        _folders.append(TemporaryDirectory())
        atexit.register(_folders[0].cleanup)
        store = await Store.open(f"sqlite:///{_folders[0].name}/server.db", realm=REALM)
        await store.close()
    if not (folder / "server.db").exists():
        shutil.copy(Path(_folders[0].name, "server.db"), folder / "server.db")


@asynccontextmanager
async def open_world(
    tmp_path: Path,
    *,
    hub_type: type[Hub] = Hub,
    clock: Clock | None = None,
    stun: Sequence[Endpoint] = (),
    **options: Any,
) -> AsyncIterator[World]:
    """A hub over a database in a folder; twice over the same folder is a restart."""
    settings = settings_of(tmp_path, **options)
    clock = clock or Clock()
    await lay_database(tmp_path)
    store = await Store.open(
        settings.database.get_secret_value(),
        realm=REALM,
        max_tokens=settings.limits.tokens,
        max_trusted=settings.limits.trusted,
        clock=clock.wall_ms,
    )
    directory = Directory(store)
    auth = Auth(directory, realm=REALM, limits=settings.limits, cost=CHEAPEST, clock=clock)
    hub = hub_type(store, auth, directory, settings=settings, stun=stun, clock=clock, wall_ms=clock.wall_ms)
    try:
        yield World(store, hub, directory, clock)
    finally:
        await hub.stop()
        await auth.close()
        await store.close()


def login_of(
    person: Person,
    challenge: bytes,
    *,
    password: bool = False,
    resume: tuple[str, str] | None = None,
    visible: bool = True,
    keys: AccountKeys | None = None,
    realm: str = REALM,
) -> Login:
    """A login, right unless told otherwise."""
    keys = keys or person.keys
    back = None if resume is None else Resume(*resume)
    if password:
        return Login(username=person.name, login=keys.login, resume=back, visible=visible)
    blob = LoginBlob(realm, challenge, person.name, keys.public).encode()
    return Login(
        username=person.name,
        blob=Binary(blob),
        signature=Binary(keys.sign(blob)),
        resume=back,
        visible=visible,
    )


def register_of(name: str, challenge: bytes, keys: AccountKeys | None = None) -> Register:
    """A registration."""
    keys = keys or identity.account(name)
    blob = RegisterBlob(REALM, challenge, name, keys.public, login_digest(keys.login)).encode()
    return Register(name, keys.login, Binary(keys.public), Binary(blob), Binary(keys.sign(blob)))


def request(to: str, from_: str | None = None) -> PeerRequest:
    """A connection request, of which the server cannot tell that nothing is in it."""
    return PeerRequest(to, from_, Binary(b"an offer"), Binary(bytes(64)))


def token_request(person: Person, alias: str, text: str, now_ms: int = identity.NOW) -> RequestToken:
    """A request to keep the invite of a token that the same words make again in :func:`claim_of`."""
    token = identity.token_of(person.keys, text)
    signed = identity.invite(person.keys, token, alias, now_ms)
    return RequestToken(alias, signed.blob, signed.signatures[0])


def claim_of(claimer: Person, inviter: AccountKeys, alias: str, text: str, now_ms: int = identity.NOW) -> ClaimToken:
    """A claim of a token."""
    token = identity.token_of(inviter, text)
    redeem = identity.redeem(claimer.keys, token, claimer.name, now_ms)
    pin = identity.pin(claimer.keys, inviter, alias, now_ms)
    return ClaimToken(alias, redeem.blob, redeem.signatures, pin.blob, pin.signatures[0])


def removal_of(remover: Person, removed: AccountKeys, alias: str, now_ms: int = identity.NOW) -> RemoveUser:
    """A request to end trust."""
    signed = identity.remove(remover.keys, removed, now_ms)
    return RemoveUser(alias, signed.blob, signed.signatures[0])
