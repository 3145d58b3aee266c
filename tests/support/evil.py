"""
The real discovery server, dishonest on demand, and real peers that write down what becomes of them.

::

    async with open_stage(tmp_path, "alice", "bob") as stage:
        alice, bob = await stage.join("alice"), await stage.join("bob")
        await stage.befriend(alice, bob)
        stage.attack(tamper=in_offers(lambda offer: structs.replace(offer, signature=Binary())))
        async with alice.trying("bob", bob):
            await bob.reports("identity_mismatch")
        stage.relent()
        await alice.calls("bob", bob)

Every peer serves ``Who``. A call that is run by anybody but the account it was meant for, or for a caller that is not
the account that made it, is a breach; a stage that ends with one fails its test, whatever else the test looked at.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast
from unittest import mock

import pytest
from msgspec import Struct, structs

from bonevalue.errors import BadMessage, BoneValueError, UnknownType
from bonevalue.module import Context
from bonevalue.peer import Peer
from bonevalue.peer_link import PeerLink
from bonevalue.wire.blobs import decode_any
from bonevalue.wire.keys import AccountKeys, to_base64url
from bonevalue.wire.signals import (
    Binary,
    Contact,
    Contacts,
    Done,
    Failure,
    Goodbye,
    PeerConnect,
    PeerRequest,
    PeerResponse,
    UserAdd,
    decode,
    encode,
)
from bonevalue_server.app import DiscoveryServer
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.hub import SERVICE_RESTART, Hub
from bonevalue_server.passwords import hash_login
from bonevalue_server.relayed import Relayed
from bonevalue_server.sessions import Session
from tests.support import identity
from tests.support.accounts import CHEAPEST
from tests.support.waiting import until

__all__ = [
    "MALLORY",
    "REALM",
    "STANDING",
    "WITHIN",
    "Actor",
    "Cast",
    "EvilHub",
    "Lie",
    "Refusal",
    "Stage",
    "Tamper",
    "added",
    "flipped",
    "foreign_fingerprint",
    "held",
    "in_answers",
    "in_offers",
    "open_stage",
    "password_of",
    "retouched",
]

#: The server's own keys: it may sign what it likes, with these.
MALLORY = identity.account("mallory")
#: Seconds in which whoever is attacked must have reported it.
WITHIN = 5.0
#: Seconds for which a call that nobody refuses is left to itself: several times what a connection takes.
HOPELESS = 0.6
#: The realm of a server on loopback.
REALM = "localhost"
#: The mark of tests that use one cast, and so one event loop, after each other.
STANDING = pytest.mark.asyncio(loop_scope="module")

_Kind = TypeVar("_Kind", PeerRequest, PeerResponse)

#: What is delivered instead of a message on its way from peer to peer.
Tamper = Callable[[Relayed], Iterable[Relayed]]
#: What an account is told instead of a message of the server's own; the name is empty before the login.
Lie = Callable[[str, Struct], Iterable[Struct]]


# -- keys --------------------------------------------------------------------------------------------------------

_derive = AccountKeys.derive
_derived: dict[tuple[str, str, str], AccountKeys] = {}


def _derive_once(password: str, *, realm: str, username: str) -> AccountKeys:
    """The keys of an account. They take a quarter of a second, so each is made once in a test run."""
    what = (password, realm, username)
    if what not in _derived:
        _derived[what] = _derive(password, realm=realm, username=username)
    return _derived[what]


def password_of(username: str) -> str:
    """The password with which an account begins."""
    return f"{username} plays the violin"


# -- the server --------------------------------------------------------------------------------------------------


class EvilHub(Hub):
    """The real hub. It keeps what it hears and says, and changes it if a test wants."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.tamper: Tamper | None = None
        self.lie: Lie | None = None
        #: The types of request that it refuses to carry out, and those that it says it has and has not.
        self.refused: tuple[type[Struct], ...] = ()
        self.pretended: tuple[type[Struct], ...] = ()
        self.heard: list[Struct] = []
        self.said: list[tuple[str, Struct]] = []
        self.relayed: list[Relayed] = []
        super().__init__(*args, **options)

    def receive(self, session: Session, text: str) -> None:
        """Keep what came."""
        try:
            signal = decode(text, "client")
        except (BadMessage, UnknownType):
            signal = None
        if signal is not None:
            self.heard.append(signal.data)
            if isinstance(signal.data, self.refused):
                self.deliver(session, Failure("unavailable", "not now"), signal.ref)
                return
            if isinstance(signal.data, self.pretended):
                self.deliver(session, Done(), signal.ref)
                return
        super().receive(session, text)

    def outgoing(self, session: Session, message: Struct) -> Iterable[Struct]:
        """Lie."""
        username = "" if session.account is None else session.account.username
        self.said.append((username, message))
        return (message,) if self.lie is None else self.lie(username, message)

    def relay(self, session: Session, message: Relayed) -> None:
        """Keep what peers send each other, and pass on something else, checking nothing."""
        if session.peer is None:
            raise BadMessage("from nobody")
        sent = structs.replace(message, from_=session.peer.id)
        self.relayed.append(sent)
        if self.tamper is None:
            super().relay(session, message)
            return
        for each in self.tamper(sent):
            self.post(each)

    def post(self, message: Relayed) -> None:
        """Bring a message to the peer that it is for."""
        peer = self._presence.get(message.to)
        if peer is not None and peer.session is not None:
            peer.session.client.send(encode(message))

    def tell(self, peer_id: str, message: Struct) -> None:
        """Say something to a peer, which need not be true."""
        peer = self._presence.get(peer_id)
        assert peer is not None and peer.session is not None
        peer.session.client.send(encode(message))

    def drop(self, peer_id: str) -> None:
        """Send a peer away, which comes back at once."""
        peer = self._presence.get(peer_id)
        assert peer is not None and peer.session is not None
        self.tell(peer_id, Goodbye("going_away", 0.0))
        peer.session.client.close(SERVICE_RESTART, "going_away")

    def forget(self) -> None:
        """Let go of what it has kept of all that it heard and said."""
        for kept in (self.heard, self.said, self.relayed):
            kept.clear()

    def offers(self) -> list[PeerRequest]:
        """The offers that came so far, with the sender's id."""
        return [message for message in self.relayed if isinstance(message, PeerRequest)]

    def answers(self) -> list[PeerResponse]:
        """The answers that came so far, refusals not among them."""
        return [message for message in self.relayed if isinstance(message, PeerResponse) and message.answer]

    def contact(self, username: str, alias: str) -> Contact:
        """What an account was last shown, in truth, of its contact with that alias."""
        for told, message in reversed(self.said):
            entries: Sequence[Contact] = ()
            if isinstance(message, Contacts):
                entries = message.contacts
            elif isinstance(message, UserAdd):
                entries = (message.contact,)
            for entry in entries:
                if told == username and entry.name == alias:
                    return entry
        raise LookupError(f"{username} was never shown {alias}")


# -- what it can do to messages ----------------------------------------------------------------------------------


def retouched(blob: bytes, **changes: Any) -> Binary:
    """A blob with other values in some fields. Whoever signed it did not sign this."""
    return Binary(replace(cast(Any, decode_any(blob)), **changes).encode())


def flipped(data: bytes) -> Binary:
    """The same with its last bit flipped."""
    return Binary(data[:-1] + bytes([data[-1] ^ 1]))


def foreign_fingerprint(blob: bytes) -> Binary:
    """An offer or answer with the fingerprint of another certificate in its session description."""
    sdp: str = cast(Any, decode_any(blob)).sdp
    other = ":".join(["AB"] * 32)
    return retouched(blob, sdp=re.sub(r"(a=fingerprint:sha-256 )\S+", rf"\g<1>{other}", sdp))


def in_offers(change: Callable[[PeerRequest], Relayed]) -> Tamper:
    """Change every offer on its way."""
    return lambda message: [change(message) if isinstance(message, PeerRequest) else message]


def in_answers(change: Callable[[PeerResponse], Relayed]) -> Tamper:
    """Change every answer on its way; refusals pass."""

    def tamper(message: Relayed) -> Iterable[Relayed]:
        is_answer = isinstance(message, PeerResponse) and message.answer is not None
        return [change(cast(PeerResponse, message)) if is_answer else message]

    return tamper


def held(kept: list[_Kind], kind: type[_Kind]) -> Tamper:
    """Keep what is of a kind; the rest passes."""

    def tamper(message: Relayed) -> Iterable[Relayed]:
        if not isinstance(message, kind):
            return [message]
        kept.append(message)
        return ()

    return tamper


def added(username: str, change: Callable[[Contact], Contact]) -> Lie:
    """Change every contact that is added to an account's."""

    def lie(told: str, message: Struct) -> Iterable[Struct]:
        is_lie = told == username and isinstance(message, UserAdd)
        return [structs.replace(message, contact=change(cast(UserAdd, message).contact)) if is_lie else message]

    return lie


# -- the peers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a peer reported."""

    error: BoneValueError
    about: str
    #: When, in seconds of the event loop.
    moment: float


class Actor:
    """A real peer of an account, and what it reported."""

    def __init__(self, stage: Stage, username: str, peer: Peer) -> None:
        self.stage = stage
        self.username = username
        self.peer = peer
        self.refusals: list[Refusal] = []
        self.new_users: list[str] = []
        loop = asyncio.get_running_loop()
        peer.on("refused", lambda error, about: self.refusals.append(Refusal(error, about, loop.time())))
        peer.on("newuser", self.new_users.append)
        peer.module("Who", self._who)

    @property
    def id(self) -> str:
        """Its peer id."""
        return self.peer.id

    @property
    def keys(self) -> AccountKeys:
        """The keys of its account, as this process has them."""
        return self.peer._trusting._keys

    @property
    def links(self) -> list[PeerLink]:
        """Its links."""
        return self.peer._links.pool.links()

    async def _who(self, request: Any, context: Context) -> str:
        right = (request["from"], request["key"]) == (context.caller.id, context.caller.fingerprint)
        if not right or request["to"] != self.username:
            self.stage.breaches.append(f"{self.username} ran {request} for {context.caller}")
        return self.username

    async def calls(self, query: str, whom: Actor) -> None:
        """Call somebody, who must answer."""
        answer = await self._call(query, whom)
        assert answer == whom.username, f"{self.username} called {query} and {answer} answered"

    async def fails(self, query: str, whom: Actor) -> BoneValueError:
        """Call somebody, and get no answer from anybody; gives the error."""
        try:
            answer = await self._call(query, whom)
        except BoneValueError as error:
            return error
        raise AssertionError(f"{self.username} called {query} and {answer} answered")

    @asynccontextmanager
    async def trying(self, query: str, whom: Actor) -> AsyncIterator[None]:
        """Call somebody meanwhile and get no answer from anybody; a call that is not even refused is given up."""
        call = asyncio.create_task(self.fails(query, whom))
        try:
            yield
            await asyncio.wait({call}, timeout=HOPELESS)
        finally:
            call.cancel()
            await asyncio.wait({call})
        if not call.cancelled():
            call.result()

    async def _call(self, query: str, whom: Actor) -> Any:
        request = {"from": self.id, "key": self.peer.fingerprint, "to": whom.username}
        return await self.peer.get(query).call("Who", request, timeout=10)

    async def reports(self, code: str, *, about: str | None = None) -> BoneValueError:
        """Wait until it has reported the attack under way with that code; it has five seconds."""
        began = self.stage.began

        def found() -> Refusal | None:
            return next((each for each in self.refusals if self._fits(each, began, code, about)), None)

        await until(found, timeout=WITHIN, what=f"{code} by {self.username}; it reported {self.refusals}")
        refusal = found()
        assert refusal is not None
        took = refusal.moment - began
        assert took < WITHIN
        self.stage.reported.append((self.username, code, took))
        return refusal.error

    @staticmethod
    def _fits(refusal: Refusal, began: float, code: str, about: str | None) -> bool:
        return refusal.moment >= began and refusal.error.code == code and about in (None, refusal.about)

    def problem(self, alias: str) -> str | None:
        """The code of what is wrong with a contact, as `bv trust list` shows it; None for nothing."""
        shown = {contact.name: contact for contact in self.peer.contacts()}[alias]
        assert (shown.problem is None) is (shown.fingerprint is not None)
        return None if shown.problem is None else shown.problem.code

    async def unlinked(self) -> None:
        """Close all links, and wait until the others have noticed."""
        others = {link.remote.id for link in self.links}
        for link in self.links:
            link.close()
        around = [self, *(actor for actor in self.stage.actors if actor.id in others)]
        await until(lambda: not any(self.id in (actor.id, link.remote.id) for actor in around for link in actor.links))

    async def sees(self, other: Actor) -> None:
        """Wait until a peer of another account is online here under its username, with its key."""

        def so() -> bool:
            is_online = self.peer._session.peers.get(other.id) == other.username
            return is_online and self.peer._contacts.key_of(other.username) == other.keys.public

        await until(so, what=f"{self.username} sees {other.username}")

    async def leave(self) -> None:
        """Stop."""
        self.stage.actors.remove(self)
        await self.peer.stop(0.0)


class Stage:
    """A dishonest server and its peers."""

    def __init__(self, server: DiscoveryServer, hub: EvilHub, settings: DiscoverySettings) -> None:
        self.server = server
        self.hub = hub
        self.settings = settings
        self.actors: list[Actor] = []
        #: Calls that were run by, or for, the wrong account. There must be none.
        self.breaches: list[str] = []
        #: Who reported which attack, and after how many seconds.
        self.reported: list[tuple[str, str, float]] = []
        self.began = 0.0

    @property
    def address(self) -> str:
        """Where the server listens."""
        return f"ws://127.0.0.1:{self.server.port}"

    def actor(self, username: str, password: str | None = None, **settings: Any) -> Actor:
        """A peer that is not started."""
        peer = Peer(self.address, username, password or password_of(username), settings=settings)
        actor = Actor(self, username, peer)
        self.actors.append(actor)
        return actor

    async def join(self, username: str, password: str | None = None, **settings: Any) -> Actor:
        """A peer that is online."""
        actor = self.actor(username, password, **settings)
        await actor.peer.start()
        actor.peer._session._retry._backoff._jitter = lambda: 0.0
        return actor

    async def befriend(self, one: Actor, other: Actor, *, token: str | None = None) -> str:
        """Let two accounts trust each other, each under the other's username; gives the token."""
        text = token or await one.peer.request_token(other.username)
        await other.peer.claim_token(one.username, text)
        await self.acquainted(one, other)
        return text

    async def acquainted(self, one: Actor, other: Actor) -> None:
        """Wait until two peers of different accounts see each other."""
        await one.sees(other)
        await other.sees(one)

    def attack(self, *, tamper: Tamper | None = None, lie: Lie | None = None) -> None:
        """From now on the server is dishonest, and the time runs."""
        self.began = asyncio.get_running_loop().time()
        self.hub.tamper, self.hub.lie = tamper, lie

    def relent(self) -> None:
        """From now on the server is honest."""
        self.hub.tamper = self.hub.lie = None
        self.hub.refused = self.hub.pretended = ()

    def show(self, actor: Actor, contact: Contact) -> None:
        """Show a contact to a peer."""
        self.hub.tell(actor.id, UserAdd(contact.name, contact))

    async def make_good(self, actor: Actor, other: Actor) -> None:
        """Show the truth about a contact again, and that it is online."""
        self.relent()
        self.show(actor, self.hub.contact(actor.username, other.username))
        self.hub.tell(actor.id, PeerConnect(other.username, other.id))
        await self.acquainted(actor, other)


@dataclass(frozen=True, slots=True)
class Cast:
    """Three accounts, and the stage that they are on."""

    stage: Stage
    alice: Actor
    bob: Actor
    carol: Actor

    @property
    def hub(self) -> EvilHub:
        """The server."""
        return self.stage.hub


def _account(username: str) -> dict[str, str]:
    keys = _derive_once(password_of(username), realm=REALM, username=username)
    login_hash = hash_login(keys.login, cost=CHEAPEST)
    return {"username": username, "public_key": to_base64url(keys.public), "login_hash": login_hash}


@asynccontextmanager
async def open_stage(folder: Path, *usernames: str, limits: Mapping[str, str] | None = None) -> AsyncIterator[Stage]:
    """
    A server with these accounts, on a port of its own; whoever is still on stage at the end is stopped.

    Args:
        folder: for its database.
        usernames: of its accounts.
        limits: those of the server that are not what they usually are.
    """
    accounts = [_account(username) for username in usernames]
    settings = DiscoverySettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database": f"sqlite:///{folder}/server.db",
            "accounts": accounts,
            "limits": {"requests_per_pair": "1000/s", **(limits or {})},
        }
    )
    server = DiscoveryServer(settings, hub_type=EvilHub)
    with mock.patch.object(AccountKeys, "derive", _derive_once):
        await server.start()
        assert isinstance(server.hub, EvilHub)
        server.hub._auth._passwords._cost = CHEAPEST
        stage = Stage(server, server.hub, settings)
        try:
            yield stage
        finally:
            stage.relent()
            await asyncio.gather(*(actor.peer.stop(0.0) for actor in stage.actors))
            await server.stop()
    assert not stage.breaches, stage.breaches
