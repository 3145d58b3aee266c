"""
One client's session on this node, and the peer that it is to others.

A session goes one way. ``GREETED``: the socket is open and has been sent the challenge. ``LOGGING_IN``: a login is
being checked; there is one a socket. ``ONLINE``: the client has a peer id. ``CLOSED``: whatever still comes from it is
dropped. Nothing leads back: who is refused comes again on another socket, with another challenge.
"""

from __future__ import annotations

from asyncio import Task
from collections import deque
from collections.abc import Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Protocol

from bonevalue.errors import LocalProtocolError
from bonevalue.wire.pacing import Bucket
from bonevalue.wire.signals import Signal, SignedBlob
from bonevalue_server.records import Account, AccountId

__all__ = ["TRANSITIONS", "Client", "Peer", "Session", "State"]


class Client(Protocol):
    """The socket of a session, as the hub sees it."""

    @property
    def address(self) -> str:
        """The IP address that limits are counted for."""
        ...

    @property
    def dialled(self) -> str:
        """The host that the client dialled, as it says; "" if unknown."""
        ...

    def send(self, text: str) -> None:
        """Send a message; a client that does not read is closed, sooner or later."""

    def send_all(self, texts: Iterator[str]) -> None:
        """Send many messages, each made only when there is room for it, before whatever is sent later."""

    def logged_in(self) -> None:
        """The client is no stranger any more."""

    def close(self, code: int, reason: str) -> None:
        """Close the socket, after what was sent before."""


class State(Enum):
    """Where a session stands."""

    GREETED = "greeted"
    LOGGING_IN = "logging in"
    ONLINE = "online"
    CLOSED = "closed"


#: Every transition that there is.
TRANSITIONS: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        State.GREETED: frozenset({State.LOGGING_IN, State.CLOSED}),
        State.LOGGING_IN: frozenset({State.ONLINE, State.CLOSED}),
        State.ONLINE: frozenset({State.CLOSED}),
        State.CLOSED: frozenset(),
    }
)


class Session:
    """The state of one socket."""

    __slots__ = (
        "_state",
        "account",
        "by_key",
        "challenge",
        "client",
        "messages",
        "peer",
        "pins",
        "requests",
        "strikes",
        "task",
    )

    def __init__(self, client: Client, challenge: bytes, messages: Bucket) -> None:
        self._state = State.GREETED
        self.client = client
        self.challenge = challenge
        self.messages = messages
        #: Moments of the latest violations.
        self.strikes: tuple[float, ...] = ()
        #: What waits for the database, in order, and the task that works it off.
        self.requests: deque[Signal] | None = None
        self.task: Task[None] | None = None
        #: Set while ONLINE.
        self.account: Account | None = None
        self.peer: Peer | None = None
        #: Whether the login was by key; by the login secret alone one sees presence and does nothing.
        self.by_key = False
        #: Pins that wait for ``changePassword``.
        self.pins: list[SignedBlob] | None = None

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @state.setter
    def state(self, new: State) -> None:
        if new not in TRANSITIONS[self._state]:
            raise LocalProtocolError(f"a session cannot go from {self._state.value} to {new.value}")
        self._state = new


class Peer:
    """A live instance of an account: online, or lost so recently that nobody is told yet."""

    __slots__ = ("account_id", "id", "session", "visible")

    def __init__(self, peer_id: str, account_id: AccountId, session: Session, *, visible: bool) -> None:
        self.id = peer_id
        self.account_id = account_id
        #: None while its socket is lost and may come back.
        self.session: Session | None = session
        #: Whether others are told of it.
        self.visible = visible
