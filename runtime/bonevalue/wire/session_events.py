"""What a :class:`~bonevalue.wire.session.Session` reports: one frozen class a fact."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from bonevalue.errors import BoneValueError
from bonevalue.wire.signals import IceServer, PeerCandidate, PeerRequest, PeerResponse

__all__ = [
    "AttemptFailed",
    "CandidateReceived",
    "ContactRefused",
    "Ended",
    "Event",
    "IceServersChanged",
    "KeyChanged",
    "NoticeReceived",
    "PeerConnected",
    "PeerDisconnected",
    "PeerReturned",
    "Refused",
    "Replied",
    "RequestReceived",
    "ResponseReceived",
    "UserAdded",
    "UserRemoved",
    "WentOffline",
    "WentOnline",
]


# -- the connection to the server ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WentOnline:
    """We are logged in and all lists are there; the differences to what was known follow."""

    peer_id: str
    resumed: bool
    """Whether it is the id that we had before."""


@dataclass(frozen=True, slots=True)
class WentOffline:
    """We were online and no longer are. Live links are not touched."""

    reason: str
    retry_in: float | None
    """Seconds; None if there is no retry: :class:`Ended` follows."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """We were not online, tried to be, and failed; another attempt follows."""

    error: BoneValueError
    retry_in: float


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over for good (login refused, wrong realm, replaced, ...). The last event there is."""

    error: BoneValueError


@dataclass(frozen=True, slots=True)
class IceServersChanged:
    """
    The ICE servers to use from now on: until the first, none. Those of a login come before :class:`WentOnline`, those
    that were asked for before the :class:`Replied`.
    """

    servers: tuple[IceServer, ...]
    lifetimes: tuple[float | None, ...]
    """For each server the seconds from now for which its credential holds, by the server's clock; None for ever."""


@dataclass(frozen=True, slots=True)
class NoticeReceived:
    """The server has something to tell a person: an `error` that answers no request."""

    code: str
    message: str


# -- who is there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer came online, or was there already when we came."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class PeerReturned:
    """A peer that was online all the time has another socket: what it was asked on the old one may be lost."""

    id: str


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """A peer has gone, or its account no longer trusts us."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class UserAdded:
    """Another account now trusts us, and proves it (the API's event `newuser`)."""

    name: str


@dataclass(frozen=True, slots=True)
class UserRemoved:
    """The trust with an account has ended, says the server; it may say so first, and prove it in a second event."""

    name: str
    key: bytes | None
    """The account's key, None if it never was a verified contact."""
    proven: bool
    """Whether a valid `remove` blob came along: only then are live links to `key` cut."""


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """An alias stands for another key from now on, and that is proved: links to the old one are to be cut."""

    name: str
    old_key: bytes


@dataclass(frozen=True, slots=True)
class ContactRefused:
    """What the server says about a contact does not hold; nothing of it is used."""

    name: str
    error: BoneValueError


# -- relayed, and answers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A peer wants a connection. Its `from_` is set, by the server: nothing is proved yet."""

    request: PeerRequest


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A peer answers our request for a connection. Its `from_` is set, by the server: nothing is proved yet."""

    response: PeerResponse


@dataclass(frozen=True, slots=True)
class CandidateReceived:
    """One more ICE candidate of a peer. Its `from_` is set, by the server: nothing is proved yet."""

    candidate: PeerCandidate


@dataclass(frozen=True, slots=True)
class Replied:
    """The server carried out a request of ours."""

    ref: str
    data: Struct


@dataclass(frozen=True, slots=True)
class Refused:
    """The server did not carry out a request, or the connection was lost before it said so (`unavailable`)."""

    ref: str
    error: BoneValueError


Event = (
    WentOnline
    | WentOffline
    | AttemptFailed
    | Ended
    | IceServersChanged
    | NoticeReceived
    | PeerConnected
    | PeerDisconnected
    | PeerReturned
    | UserAdded
    | UserRemoved
    | KeyChanged
    | ContactRefused
    | RequestReceived
    | ResponseReceived
    | CandidateReceived
    | Replied
    | Refused
)
