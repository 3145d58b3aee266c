"""What a client may send, and when; with which code a socket is closed."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct

from bonevalue.errors import BoneValueError, Denied, KeyRequired
from bonevalue.wire import signals
from bonevalue_server.sessions import Session, State

__all__ = ["RELAYED", "RULES", "Rule", "close_code", "permit"]

#: Close codes for errors that have none of their own.
_COME_BACK, _STAY_AWAY = 4003, 4501


class Rule(NamedTuple):
    """Who may send a type of message."""

    state: State
    #: Whether the login must have been by key.
    by_key: bool


#: Every type of message that a client may send.
RULES: Mapping[type[Struct], Rule] = MappingProxyType(
    {
        signals.Register: Rule(State.GREETED, by_key=False),
        signals.Login: Rule(State.GREETED, by_key=False),
        signals.Ping: Rule(State.ONLINE, by_key=False),
        signals.RequestIceServers: Rule(State.ONLINE, by_key=True),
        signals.RequestToken: Rule(State.ONLINE, by_key=True),
        signals.ClaimToken: Rule(State.ONLINE, by_key=True),
        signals.UpdateContact: Rule(State.ONLINE, by_key=True),
        signals.RemoveUser: Rule(State.ONLINE, by_key=True),
        signals.StagePins: Rule(State.ONLINE, by_key=True),
        signals.ChangePassword: Rule(State.ONLINE, by_key=True),
        signals.PeerRequest: Rule(State.ONLINE, by_key=True),
        signals.PeerResponse: Rule(State.ONLINE, by_key=True),
        signals.PeerCandidate: Rule(State.ONLINE, by_key=True),
    }
)

#: The types that are passed on to other peers.
RELAYED = (signals.PeerRequest, signals.PeerResponse, signals.PeerCandidate)


def permit(session: Session, kind: type[Struct]) -> None:
    """
    Let a session send a type of message.

    Raises:
        Denied: not before the login, or not after it.
        KeyRequired: not after a login by password.
    """
    rule = RULES[kind]
    if session.state is not rule.state:
        raise Denied("log in first" if rule.state is State.ONLINE else "this socket is logged in, or about to be")
    if rule.by_key and not session.by_key:
        raise KeyRequired("this needs a login by key; a login by password only sees who is there")


def close_code(error: BoneValueError) -> int:
    """The close code for an error; if it has none of its own, one that says whether to come back."""
    return error.close or (_COME_BACK if error.retry else _STAY_AWAY)
