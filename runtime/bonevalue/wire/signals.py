"""
The JSON messages between a peer and the discovery server (docs/protocol.md, "Discovery").

One frozen struct a type; :data:`SIGNALS` is the table of all of them: tag, class, and who sends it. A message
is a text frame ``{"type": tag, "data": {...}, "ref": "..."}``. :func:`decode` takes anything from outside and gives
a :class:`Signal` or raises :class:`~bonevalue.errors.BadMessage` or :class:`~bonevalue.errors.UnknownType`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from bonevalue.errors import BadMessage, UnknownType
from bonevalue.wire.keys import from_base64url, to_base64url

__all__ = [
    "MAX_MESSAGE",
    "SIGNALS",
    "Binary",
    "ChangePassword",
    "ClaimToken",
    "Contact",
    "Contacts",
    "Done",
    "Failure",
    "Goodbye",
    "Hello",
    "IceServer",
    "IceServers",
    "Login",
    "PeerCandidate",
    "PeerConnect",
    "PeerDisconnect",
    "PeerEntry",
    "PeerList",
    "PeerRequest",
    "PeerResponse",
    "Ping",
    "Register",
    "Registered",
    "RemoveUser",
    "RequestIceServers",
    "RequestToken",
    "Resume",
    "SetPeerId",
    "Signal",
    "SignedBlob",
    "StagePins",
    "TokenClaimed",
    "TokenResponse",
    "UpdateContact",
    "UserAdd",
    "UserList",
    "UserRemove",
    "decode",
    "encode",
]

#: Longest message in bytes, in either direction.
MAX_MESSAGE = 65_536
#: Deepest nesting of a message.
MAX_DEPTH = 8
#: Most keys of one object.
MAX_KEYS = 64


_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


class Binary(bytes):
    """Bytes that stand in JSON as base64url."""


Name = Annotated[str, Meta(max_length=64)]
PeerId = Annotated[str, Meta(min_length=1, max_length=15, pattern=r"^[0-9]+\Z")]
Ref = Annotated[str, Meta(max_length=64)]
#: Ms since 1970; as far as JSON numbers are exact everywhere.
Moment = Annotated[int, Meta(ge=0, le=2**53)]


class _Base(Struct, frozen=True, rename="camel", omit_defaults=True):
    pass


class SignedBlob(_Base, frozen=True):
    """A blob of design "Identity" and its signatures, in the order that its kind fixes."""

    blob: Binary
    signatures: Annotated[list[Binary], Meta(min_length=1, max_length=2)]


class Contact(_Base, frozen=True):
    """What the server knows of one contact: to be proved by the client from its own key."""

    name: Name
    public_key: Binary
    certificates: Annotated[list[SignedBlob], Meta(max_length=64)]


class PeerEntry(_Base, frozen=True):
    """One online peer: the alias of its account, and its id."""

    name: Name
    id: PeerId


# -- sent by the server ------------------------------------------------------------------------------------------


class Hello(_Base, frozen=True):
    """First message on every socket. ``time`` in ms since 1970, ``token_lifetime`` in seconds, a year at most."""

    version: int
    realm: str
    challenge: Binary
    time: Moment
    registration: Literal["open", "closed"]
    token_lifetime: Annotated[int, Meta(ge=0, le=31_536_000)]


class Registered(_Base, frozen=True):
    """The account was made; the socket is not logged in by it."""

    username: str


class SetPeerId(_Base, frozen=True):
    """The socket is logged in. ``ticket`` brings the same id back later."""

    peer_id: PeerId
    ticket: str


class IceServer(_Base, frozen=True):
    """An entry of RTCIceServer; ``expires`` in ms since 1970 by the server's clock, None for never."""

    urls: Annotated[list[Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]
    username: Annotated[str, Meta(max_length=512)] | None = None
    credential: Annotated[str, Meta(max_length=4096)] | None = None
    expires: Moment | None = None

    def __repr__(self) -> str:
        return f"IceServer({self.urls!r}, expires={self.expires!r})"  # a credential is for nobody's log


class IceServers(_Base, frozen=True):
    """All servers to use from now on: told unasked, and the reply to ``requestIceServers``."""

    servers: Annotated[list[IceServer], Meta(max_length=32)]


class UserList(_Base, frozen=True):
    """All aliases, ``Us`` first. Data on the wire is the bare list."""

    names: list[str]


class Contacts(_Base, frozen=True):
    """A page of contacts; ``more`` tells that another page follows."""

    contacts: list[Contact]
    more: bool = False


class PeerList(_Base, frozen=True):
    """A page of the online peers; ``more`` tells that another page follows."""

    peers: list[PeerEntry]
    more: bool = False


class UserAdd(_Base, frozen=True):
    """Trust was made (or a contact changed its key); comes before any ``peerConnect`` of that alias."""

    name: Name
    contact: Contact


class UserRemove(_Base, frozen=True):
    """Trust has ended; without a valid ``remove`` blob live links stay."""

    name: Name
    remove: SignedBlob | None = None


class PeerConnect(_Base, frozen=True):
    """A peer came online."""

    name: Name
    id: PeerId


class PeerDisconnect(_Base, frozen=True):
    """A peer went. Data on the wire is the bare id."""

    id: PeerId


class Failure(_Base, frozen=True):
    """Type ``error``: a request failed (``ref`` names it), or something to tell a person."""

    code: str
    message: str = ""
    retry_after: float | None = None


class Goodbye(_Base, frozen=True):
    """The server closes on purpose; ``reconnect_after`` in seconds, None for do not."""

    reason: str
    reconnect_after: float | None = None


class TokenResponse(_Base, frozen=True):
    """The invite is stored; ``expires`` in ms since 1970."""

    expires: int


class TokenClaimed(_Base, frozen=True):
    """Trust is made; ``name`` is the alias that the claimer chose."""

    name: Name


class Done(_Base, frozen=True):
    """The request that ``ref`` names was carried out; answers those that have no reply of their own."""


# -- sent by the client ------------------------------------------------------------------------------------------


class Register(_Base, frozen=True):
    """A new account: the login secret, the key, and a signed ``register`` blob that proves the key is theirs."""

    username: Name
    login: Annotated[str, Meta(min_length=43, max_length=43)]
    public_key: Binary
    blob: Binary
    signature: Binary


class Resume(_Base, frozen=True):
    """The peer id to come back with, and the ticket that came with it."""

    peer_id: PeerId
    ticket: Annotated[str, Meta(max_length=128)]


class Login(_Base, frozen=True):
    """By key (``blob``, ``signature``) or by the login secret (``login``), which sees presence only."""

    username: Name
    blob: Binary | None = None
    signature: Binary | None = None
    login: Annotated[str, Meta(max_length=64)] | None = None
    resume: Resume | None = None
    visible: bool = True
    features: Annotated[list[Annotated[str, Meta(max_length=32)]], Meta(max_length=16)] = []
    agent: Annotated[str, Meta(max_length=128)] = ""


class Ping(_Base, frozen=True):
    """Are you there: for clients that cannot send the pings of WebSocket, as browsers cannot."""


class RequestIceServers(_Base, frozen=True):
    """Ask for the ICE servers anew, with credentials made now."""


class RequestToken(_Base, frozen=True):
    """Store an ``invite`` blob; ``name`` is the alias that the other account shall have."""

    name: Name
    invite: Binary
    signature: Binary


class ClaimToken(_Base, frozen=True):
    """Redeem a token: ``signatures`` over ``redeem`` by token key and claimer, ``signature`` over ``pin``."""

    name: Name
    redeem: Binary
    signatures: Annotated[list[Binary], Meta(min_length=2, max_length=2)]
    pin: Binary
    signature: Binary


class UpdateContact(_Base, frozen=True):
    """Replace the chain of one contact by a ``pin``."""

    pin: Binary
    signature: Binary


class RemoveUser(_Base, frozen=True):
    """End the trust with one alias."""

    name: Name
    remove: Binary
    signature: Binary


class StagePins(_Base, frozen=True):
    """A page of pins for the ``changePassword`` that follows on the same socket."""

    pins: Annotated[list[SignedBlob], Meta(max_length=128)]


class ChangePassword(_Base, frozen=True):
    """
    Old and new login secret, the ``rotate`` blob signed by old and new key, and every pin signed by the new one.

    Pins that do not fit one message are sent before, as ``stagePins``.
    """

    login: Annotated[str, Meta(max_length=64)]
    new_login: Annotated[str, Meta(min_length=43, max_length=43)]
    rotate: Binary
    signatures: Annotated[list[Binary], Meta(min_length=2, max_length=2)]
    pins: Annotated[list[SignedBlob], Meta(max_length=128)]


# -- relayed from peer to peer; the server sets ``from_`` ------------------------------------------------------------


class _Relayed(_Base, frozen=True, rename={"from_": "from"}):
    to: PeerId
    from_: PeerId | None = None


class PeerRequest(_Relayed, frozen=True):
    """A connection request: a signed ``offer`` blob."""

    offer: Binary = Binary()
    signature: Binary = Binary()


class PeerResponse(_Relayed, frozen=True):
    """The answer to a connection request: a signed ``answer`` blob, or the ``session`` and why not."""

    answer: Binary | None = None
    signature: Binary | None = None
    session: Binary | None = None
    error: Failure | None = None


class PeerCandidate(_Relayed, frozen=True):
    """One more ICE candidate of a pending session."""

    session: Binary = Binary()
    candidate: Annotated[str, Meta(max_length=1024)] = ""


class Row(NamedTuple):
    """One type of message."""

    kind: type[Struct]
    #: ``server`` or ``client`` sends it, or ``both`` (relayed).
    sender: Literal["server", "client", "both"]
    #: Name of the only field if the data on the wire is its bare value.
    bare: str | None = None


#: Tag to row: every message that there is.
SIGNALS: dict[str, Row] = {
    "hello": Row(Hello, "server"),
    "registered": Row(Registered, "server"),
    "setPeerId": Row(SetPeerId, "server"),
    "iceServers": Row(IceServers, "server", bare="servers"),
    "userList": Row(UserList, "server", bare="names"),
    "contacts": Row(Contacts, "server"),
    "peerList": Row(PeerList, "server"),
    "userAdd": Row(UserAdd, "server"),
    "userRemove": Row(UserRemove, "server"),
    "peerConnect": Row(PeerConnect, "server"),
    "peerDisconnect": Row(PeerDisconnect, "server", bare="id"),
    "error": Row(Failure, "server"),
    "goodbye": Row(Goodbye, "server"),
    "tokenResponse": Row(TokenResponse, "server"),
    "tokenClaimed": Row(TokenClaimed, "server"),
    "done": Row(Done, "server"),
    "register": Row(Register, "client"),
    "login": Row(Login, "client"),
    "ping": Row(Ping, "client"),
    "requestIceServers": Row(RequestIceServers, "client"),
    "requestToken": Row(RequestToken, "client"),
    "claimToken": Row(ClaimToken, "client"),
    "updateContact": Row(UpdateContact, "client"),
    "removeUser": Row(RemoveUser, "client"),
    "stagePins": Row(StagePins, "client"),
    "changePassword": Row(ChangePassword, "client"),
    "peerRequest": Row(PeerRequest, "both"),
    "peerResponse": Row(PeerResponse, "both"),
    "peerCandidate": Row(PeerCandidate, "both"),
}

_TAGS: dict[type[Struct], str] = {row.kind: tag for tag, row in SIGNALS.items()}


class Signal(NamedTuple):
    """A decoded message: its struct, its tag, and the ``ref`` that a reply repeats."""

    data: Any
    type: str
    ref: str | None = None


class _Envelope(Struct, frozen=True):
    type: str
    data: Any = None
    ref: Ref | None = None


def _to_text(value: Any) -> Any:
    if isinstance(value, Binary):
        return to_base64url(value)
    raise NotImplementedError(type(value))


def _from_text(kind: type, value: Any) -> Any:
    if kind is Binary:
        if not isinstance(value, str):
            raise ValueError("expected base64url text")
        return Binary(from_base64url(value))
    raise NotImplementedError(kind)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check(value: Any, left: int) -> None:
    """Refuse what is nested too deep, and text with half a surrogate pair, which could not be sent on."""
    if left < 0:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for item in value.values():
            _check(item, left - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, left - 1)
    elif isinstance(value, str) and not value.isascii():
        value.encode()


_ENCODER = msgspec.json.Encoder(enc_hook=_to_text)
_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)


def encode(data: Struct, ref: str | None = None) -> str:
    """The text frame of a message; ``ref`` is the request that it answers, or that wants an answer."""
    tag = _TAGS[type(data)]
    bare = SIGNALS[tag].bare
    envelope: dict[str, Any] = {"type": tag, "data": data if bare is None else getattr(data, bare)}
    if ref is not None:
        envelope["ref"] = ref
    return _ENCODER.encode(envelope).decode()


def decode(text: str | bytes, sender: Literal["server", "client"]) -> Signal:
    """
    Check and take apart one text frame.

    Args:
        text: the frame as it came.
        sender: who sent it; a type that this side may not send is refused like an unknown one.

    Raises:
        BadMessage: not JSON, too large or deep, a key twice, or not of the form of its type.
        UnknownType: well-formed, but of a type that this side does not send.
    """
    if len(text) > MAX_MESSAGE:
        raise BadMessage(f"a message may have {MAX_MESSAGE} bytes")
    try:
        value = _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))
        _check(value, MAX_DEPTH)
        envelope = msgspec.convert(value, _Envelope)
    except (ValueError, RecursionError) as error:  # msgspec.ValidationError is a ValueError
        raise BadMessage(f"not a message: {error}") from error
    row = SIGNALS.get(envelope.type)
    if row is None or row.sender not in (sender, "both"):
        raise UnknownType(f"unknown type {envelope.type[:32]!r}")
    content = envelope.data if row.bare is None else {row.bare: envelope.data}
    try:
        data = msgspec.convert(content if content is not None else {}, row.kind, dec_hook=_from_text)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"{envelope.type}: {error}") from error
    return Signal(data, envelope.type, envelope.ref)
