"""
Messages from peer to peer, taken apart no further than the server reads them.

Most of what a busy server does is passing these on, so they have a short way of their own: the blobs inside stay the
text that they came as, checked to be base64url and nothing else. :func:`parse` takes what is written plainly: only the
fields that the type has, each once, without escapes. Whatever else is allowed goes the long way through
:func:`bonevalue.wire.signals.decode`, and is written plainly then. Both ways give the same, which a test makes sure of.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from bonevalue.errors import BadMessage, TooLarge
from bonevalue.wire.blobs import MAX_SDP
from bonevalue.wire.signals import MAX_MESSAGE, Failure, PeerCandidate, PeerRequest, PeerResponse, Ref, decode, encode

__all__ = [
    "MAX_BLOB",
    "Candidate",
    "CandidateData",
    "Plain",
    "Relayed",
    "Request",
    "RequestData",
    "Response",
    "ResponseData",
    "message_of",
    "parse",
    "plain_of",
    "to_text",
]

#: Longest blob of an offer or answer: the session description, and room for the other fields.
MAX_BLOB = MAX_SDP + 1024
#: Longest text of an error in a response.
MAX_ERROR = 1024

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#: What the last character may be, by how many there are beyond a multiple of four: its lowest bits are no data.
_LAST = {0: frozenset(_ALPHABET.decode()), 2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}
_SIGNATURE_LENGTH, _SESSION_LENGTH = 86, 22
_MAX_BLOB_LENGTH = -(-MAX_BLOB * 4 // 3)

PeerId = Annotated[str, Meta(min_length=1, max_length=15, pattern=r"^[0-9]+\Z")]


class _Data(Struct, frozen=True, kw_only=True, rename={"from_": "from"}, omit_defaults=True):
    to: PeerId
    from_: PeerId | None = None


class RequestData(_Data, frozen=True, kw_only=True):
    """The data of ``peerRequest``."""

    offer: str
    signature: str


class ResponseData(_Data, frozen=True, kw_only=True):
    """The data of ``peerResponse``."""

    answer: str | None = None
    signature: str | None = None
    session: str | None = None
    error: Failure | None = None


class CandidateData(_Data, frozen=True, kw_only=True):
    """The data of ``peerCandidate``."""

    session: str
    candidate: Annotated[str, Meta(max_length=1024)]


class _Message(Struct, frozen=True, tag_field="type", omit_defaults=True):
    pass


class Request(_Message, frozen=True, tag="peerRequest"):
    """``peerRequest``."""

    data: RequestData
    ref: Ref | None = None

    def check(self) -> None:
        """Refuse what no peer could use."""
        _check_blob(self.data.offer, self.data.signature)


class Response(_Message, frozen=True, tag="peerResponse"):
    """``peerResponse``."""

    data: ResponseData
    ref: Ref | None = None

    def check(self) -> None:
        """Refuse what no peer could use."""
        data = self.data
        if data.error is None:
            if data.session is not None:
                raise BadMessage("peerResponse: the session stands in the answer; beside it only with an error")
            _check_blob(data.answer or "", data.signature or "")
        elif data.answer is not None or data.signature is not None:
            raise BadMessage("peerResponse: an error comes without an answer")
        elif len(data.error.code) + len(data.error.message) > MAX_ERROR:
            raise TooLarge(f"the text of an error may have {MAX_ERROR} characters")
        else:
            _check_base64url(data.session or "", _SESSION_LENGTH, "a session has 16 bytes")


class Candidate(_Message, frozen=True, tag="peerCandidate"):
    """``peerCandidate``."""

    data: CandidateData
    ref: Ref | None = None

    def check(self) -> None:
        """Refuse what no peer could use."""
        _check_base64url(self.data.session, _SESSION_LENGTH, "a session has 16 bytes")


#: The messages as everybody knows them, and as they are here.
Relayed = PeerRequest | PeerResponse | PeerCandidate
Plain = Request | Response | Candidate

_DECODER: msgspec.json.Decoder[Plain] = msgspec.json.Decoder(Plain)
_ENCODER = msgspec.json.Encoder()


def parse(text: str) -> Plain | None:
    """
    A relayed message that is written plainly; None for everything else, good or bad.

    Without a backslash, each quotation mark belongs to a key or to a whole string. A message of its type that has no
    more of them than its fields need has nothing besides, and nothing twice.
    """
    if "\\" in text or len(text) > MAX_MESSAGE:
        return None
    try:
        message = _DECODER.decode(text)
    except msgspec.MsgspecError:
        return None
    return message if text.count('"') == _quotation_marks(message) else None


def plain_of(message: Relayed) -> Plain:
    """
    A message that went the long way, written plainly.

    Raises:
        BadMessage: one of its fields is missing.
    """
    try:
        return _DECODER.decode(encode(message))
    except msgspec.ValidationError as error:
        raise BadMessage(str(error)) from None


def message_of(plain: Plain) -> Relayed:
    """The message that is written plainly."""
    message: Relayed = decode(to_text(plain), "server").data
    return message


def to_text(plain: Plain) -> str:
    """The message as it is sent on."""
    return _ENCODER.encode(plain).decode()


def _quotation_marks(message: Plain) -> int:
    """How many a plain message has: two for each key, and two for each string."""
    marks = 14 if message.ref is None else 18  # type, its value, data, to, its value, and two more fields
    marks += 0 if message.data.from_ is None else 4
    match message:
        case Response(data=ResponseData(answer=str(), signature=str(), session=None, error=None)):
            return marks + 4
        case Request() | Candidate():
            return marks + 4
    return 0  # an error in a response: rare enough for the long way


def _check_blob(blob: str, signature: str) -> None:
    if len(blob) > _MAX_BLOB_LENGTH:
        raise TooLarge(f"a session description may have {MAX_SDP} bytes")
    if not blob:
        raise BadMessage("the offer or answer is missing")
    _check_base64url(blob, len(blob), "")
    _check_base64url(signature, _SIGNATURE_LENGTH, "a signature has 64 bytes")


def _check_base64url(text: str, length: int, what: str) -> None:
    """Whether this is the text of some bytes, and as long as it should be; what is inside is for the receiver."""
    if len(text) != length:
        raise BadMessage(what)
    last = _LAST.get(length % 4)
    if last is None or text[-1:] not in last or text.encode().translate(None, _ALPHABET):
        raise BadMessage("not canonical base64url")
