"""
The states of a session with the discovery server, every way from one to the next, and what may come in each.

::

                                    +-----------------------------------------------------+
                                    v                                                     |
    OFFLINE --started--> CONNECTING --opened--> GREETING --greeted--> LOGGING_IN          | retry due
                             |                     |                     | admitted       |
                             |                     |                     v                |
                             |                     |                  SYNCING             |
                             |                     |                     | synced         |
                             |                     |                     v                |
                             +------- lost --------+------- lost ----- ONLINE --lost--> WAITING

``ended`` (by the server, for good) and ``stopped`` (by us) lead to CLOSED, which nothing leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType

from msgspec import Struct

from bonevalue.wire.signals import (
    ChangePassword,
    ClaimToken,
    Contacts,
    Done,
    Failure,
    Goodbye,
    Hello,
    IceServers,
    PeerCandidate,
    PeerConnect,
    PeerDisconnect,
    PeerList,
    PeerRequest,
    PeerResponse,
    Ping,
    RemoveUser,
    RequestIceServers,
    RequestToken,
    SetPeerId,
    StagePins,
    TokenClaimed,
    TokenResponse,
    UpdateContact,
    UserAdd,
    UserList,
    UserRemove,
)

__all__ = ["ACCEPTED", "LIVE", "REPLIES", "TRANSITIONS", "Fact", "State"]


class State(Enum):
    """Where a session stands."""

    OFFLINE = "offline"
    CONNECTING = "connecting"
    GREETING = "waiting for the greeting"
    LOGGING_IN = "logging in"
    SYNCING = "taking in the lists"
    ONLINE = "online"
    WAITING = "waiting for the next attempt"
    CLOSED = "closed"


class Fact(Enum):
    """What moves a session from one state to the next."""

    STARTED = "started"
    OPENED = "opened"
    GREETED = "greeted"
    ADMITTED = "admitted"
    SYNCED = "synced"
    LOST = "lost"
    RETRY_DUE = "retry due"
    ENDED = "ended"
    STOPPED = "stopped"


_LEAVING = {Fact.LOST: State.WAITING, Fact.ENDED: State.CLOSED, Fact.STOPPED: State.CLOSED}

#: Every transition that there is. A fact that is not in its state's row is a fault of ours.
TRANSITIONS: Mapping[State, Mapping[Fact, State]] = MappingProxyType(
    {
        State.OFFLINE: {Fact.STARTED: State.CONNECTING, Fact.STOPPED: State.CLOSED},
        State.CONNECTING: {Fact.OPENED: State.GREETING, Fact.LOST: State.WAITING, Fact.STOPPED: State.CLOSED},
        State.GREETING: {Fact.GREETED: State.LOGGING_IN, **_LEAVING},
        State.LOGGING_IN: {Fact.ADMITTED: State.SYNCING, **_LEAVING},
        State.SYNCING: {Fact.SYNCED: State.ONLINE, **_LEAVING},
        State.ONLINE: _LEAVING,
        State.WAITING: {Fact.RETRY_DUE: State.CONNECTING, Fact.STOPPED: State.CLOSED},
        State.CLOSED: {Fact.STOPPED: State.CLOSED},
    }
)

#: What is about the world as it changes; it makes sense only beside complete lists.
LIVE: frozenset[type[Struct]] = frozenset(
    {UserAdd, UserRemove, PeerConnect, PeerDisconnect, PeerRequest, PeerResponse, PeerCandidate}
)

_ANY_TIME: frozenset[type[Struct]] = frozenset({Failure, Goodbye})
_LISTS: frozenset[type[Struct]] = frozenset({UserList, Contacts, PeerList})
_REPLIES: frozenset[type[Struct]] = frozenset({Done, TokenResponse, TokenClaimed})

#: What the server may send in each state; in the states that are not here there is no socket.
ACCEPTED: Mapping[State, frozenset[type[Struct]]] = MappingProxyType(
    {
        State.GREETING: _ANY_TIME | {Hello},
        State.LOGGING_IN: _ANY_TIME | {SetPeerId},
        State.SYNCING: _ANY_TIME | _LISTS | LIVE | {IceServers},
        State.ONLINE: _ANY_TIME | LIVE | _REPLIES | {IceServers},
    }
)

#: What the server replies to each of our requests, if it does not refuse.
REPLIES: Mapping[type[Struct], type[Struct]] = MappingProxyType(
    {
        Ping: Done,
        RequestIceServers: IceServers,
        RequestToken: TokenResponse,
        ClaimToken: TokenClaimed,
        UpdateContact: Done,
        RemoveUser: Done,
        StagePins: Done,
        ChangePassword: Done,
        PeerRequest: Done,
        PeerResponse: Done,
        PeerCandidate: Done,
    }
)
