"""
Everything that is signed, to the byte (docs/protocol-identity.md, "Blobs").

A blob is a sequence of fields, each behind its length in 4 bytes; the first is the domain string of its kind, so
that a signature over one kind never passes for another. One frozen dataclass a kind, and beside each field the
codec that packs and checks it. There is exactly one encoding of a value, and nothing else decodes.

:meth:`Blob.open` is the way in for what came from outside: it verifies the raw bytes under a key that the caller
knows, and only then interprets them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

from bonevalue.errors import BadName, ClockSkew, IdentityMismatch, LocalProtocolError, RemoteProtocolError
from bonevalue.wire.keys import alias_of, public_key_ok, realm_of, verify

__all__ = [
    "CLOCK_WINDOW",
    "KINDS",
    "MAX_SDP",
    "Answer",
    "Blob",
    "Confirm",
    "Invite",
    "LoginBlob",
    "Offer",
    "Pin",
    "Redeem",
    "RegisterBlob",
    "Remove",
    "Rotate",
    "check_clock",
    "decode_any",
    "digest",
    "split",
]

#: Longest session description, in bytes.
MAX_SDP = 16 * 1024
#: How far two clocks may differ, in ms.
CLOCK_WINDOW = 5 * 60 * 1000
#: Latest time, in ms since 1970: what every language counts exactly. It is 285 000 years away.
MAX_TIME = 2**53 - 1
#: More fields than any kind has.
MAX_FIELDS = 16


class Codec(NamedTuple):
    """How one field stands in a blob. Both ways raise ValueError for what the field does not take."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def _same(check: Callable[[bytes], bool], what: str) -> Codec:
    def passed(value: bytes) -> bytes:
        if not check(value):
            raise ValueError(f"not {what}")
        return bytes(value)

    return Codec(passed, passed)


def _text(canonical: Callable[[str], str], limit: int) -> Codec:
    def unpack(raw: bytes) -> str:
        if len(raw) > limit:
            raise ValueError(f"longer than {limit} bytes")
        text = raw.decode("utf-8")
        if canonical(text) != text:
            raise ValueError("not in its canonical form")
        return text

    def pack(text: str) -> bytes:
        raw = text.encode("utf-8")
        unpack(raw)
        return raw

    return Codec(pack, unpack)


def _unpack_time(raw: bytes) -> int:
    value = int.from_bytes(raw, "big")
    if len(raw) != 8 or value > MAX_TIME:
        raise ValueError("not 8 bytes below 2^53")
    return value


def _pack_time(value: int) -> bytes:
    if not 0 <= value <= MAX_TIME:
        raise ValueError("not a number below 2^53")
    return value.to_bytes(8, "big")


_PEER_ID = re.compile(r"[0-9]{1,15}\Z")


def _peer_id(text: str) -> str:
    if not _PEER_ID.match(text):
        raise ValueError("not a peer id")
    return text


def _role(text: str) -> str:
    if text not in ("caller", "callee"):
        raise ValueError("not a role")
    return text


def _as_it_is(text: str) -> str:
    return text


def _metadata(codec: Codec) -> MappingProxyType[str, Codec]:
    return MappingProxyType({"codec": codec})


_KEY = _metadata(_same(public_key_ok, "an Ed25519 public key"))
_HASH = _metadata(_same(lambda raw: len(raw) == 32, "32 bytes"))
_ID = _metadata(_same(lambda raw: len(raw) == 16, "16 bytes"))
_TIME = _metadata(Codec(_pack_time, _unpack_time))
_NAME = _metadata(_text(alias_of, 32))
_REALM = _metadata(_text(realm_of, 253))
_PEER = _metadata(_text(_peer_id, 15))
_ROLE = _metadata(_text(_role, 6))
_SDP = _metadata(_text(_as_it_is, MAX_SDP))


def _lp(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def split(blob: bytes) -> list[bytes]:
    """
    The fields of a blob, the domain string first.

    Raises:
        RemoteProtocolError: a length runs past the end, or there are too many fields.
    """
    parts: list[bytes] = []
    start = 0
    while start < len(blob):
        end = start + 4 + int.from_bytes(blob[start : start + 4], "big")
        if end > len(blob) or len(parts) == MAX_FIELDS:
            raise RemoteProtocolError("a signed blob is cut short, or has something behind it")
        parts.append(bytes(blob[start + 4 : end]))
        start = end
    return parts


class Blob:
    """What all kinds have; not used itself."""

    __slots__ = ()

    #: The last part of the domain string.
    domain: ClassVar[str]
    #: The fields that hold the keys of those who sign, in the order of the signatures; none if the blob does not say.
    signers: ClassVar[tuple[str, ...]]

    def encode(self) -> bytes:
        """
        The bytes that are signed.

        Raises:
            LocalProtocolError: a field holds what it may not.
        """
        domain, codecs = _LAYOUTS[self.domain]
        raw = _lp(domain)
        for name, codec in codecs:
            try:
                raw += _lp(codec.pack(getattr(self, name)))
            except (ValueError, BadName) as error:
                raise LocalProtocolError(f"{self.domain}.{name}: {error}") from error
        return raw

    @classmethod
    def decode(cls, blob: bytes) -> Self:
        """
        The value of a blob. It says nothing about who signed it: see :meth:`open`.

        Raises:
            RemoteProtocolError: it is not exactly a blob of this kind.
        """
        domain, *parts = split(blob) or [b""]
        wanted, codecs = _LAYOUTS[cls.domain]
        if domain != wanted or len(parts) != len(codecs):
            raise RemoteProtocolError(f"not a {cls.domain} blob")
        values = {}
        for (name, codec), part in zip(codecs, parts, strict=True):
            try:
                values[name] = codec.unpack(part)
            except (ValueError, BadName) as error:
                raise RemoteProtocolError(f"{cls.domain}.{name}: {error}") from error
        return cls(**values)

    @classmethod
    def open(cls, blob: bytes, signatures: bytes | Sequence[bytes], *keys: bytes) -> Self:
        """
        Verify, then decode.

        Args:
            blob: the bytes as they came.
            signatures: the signature, or all of them in their order.
            keys: who must have signed, known from elsewhere, in the same order.

        Raises:
            IdentityMismatch: a signature is not that key's, or the blob names another signer.
            RemoteProtocolError: it is not exactly a blob of this kind.
        """
        given = [signatures] if isinstance(signatures, bytes) else list(signatures)
        if len(given) != len(keys) or not all(
            verify(key, signature, blob) for key, signature in zip(keys, given, strict=True)
        ):
            raise IdentityMismatch(f"the signature of the {cls.domain} is not that of the key it should be from")
        value = cls.decode(blob)
        if cls.signers and tuple(getattr(value, name) for name in cls.signers) != keys:
            raise IdentityMismatch(f"a {cls.domain} blob is signed by another key than the one it names")
        return value


@dataclass(frozen=True, slots=True)
class LoginBlob(Blob):
    """The account logs in on the socket whose greeting had this challenge."""

    domain: ClassVar[str] = "login"
    signers: ClassVar[tuple[str, ...]] = ("public_key",)
    realm: str = field(metadata=_REALM)
    challenge: bytes = field(metadata=_HASH)
    username: str = field(metadata=_NAME)
    public_key: bytes = field(metadata=_KEY)


@dataclass(frozen=True, slots=True)
class RegisterBlob(Blob):
    """A new account proves that it holds its key, and binds its login secret to it."""

    domain: ClassVar[str] = "register"
    signers: ClassVar[tuple[str, ...]] = ("public_key",)
    realm: str = field(metadata=_REALM)
    challenge: bytes = field(metadata=_HASH)
    username: str = field(metadata=_NAME)
    public_key: bytes = field(metadata=_KEY)
    login_digest: bytes = field(metadata=_HASH)


@dataclass(frozen=True, slots=True)
class Invite(Blob):
    """Whoever proves to hold the token key shall be trusted under this alias."""

    domain: ClassVar[str] = "invite"
    signers: ClassVar[tuple[str, ...]] = ("inviter_key",)
    inviter_key: bytes = field(metadata=_KEY)
    token_key: bytes = field(metadata=_KEY)
    alias: str = field(metadata=_NAME)
    issued: int = field(metadata=_TIME)
    expires: int = field(metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Redeem(Blob):
    """The holder of the token key is the claimer; signed by both keys."""

    domain: ClassVar[str] = "redeem"
    signers: ClassVar[tuple[str, ...]] = ("token_key", "claimer_key")
    token_key: bytes = field(metadata=_KEY)
    inviter_key: bytes = field(metadata=_KEY)
    claimer_key: bytes = field(metadata=_KEY)
    claimer_username: str = field(metadata=_NAME)
    issued: int = field(metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Pin(Blob):
    """The owner trusts this key under this alias. ``issued`` is when the trust was made, also in a pin made later."""

    domain: ClassVar[str] = "pin"
    signers: ClassVar[tuple[str, ...]] = ("owner_key",)
    owner_key: bytes = field(metadata=_KEY)
    contact_key: bytes = field(metadata=_KEY)
    alias: str = field(metadata=_NAME)
    issued: int = field(metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Remove(Blob):
    """Trust between the two ends; certificates issued until then are void."""

    domain: ClassVar[str] = "remove"
    signers: ClassVar[tuple[str, ...]] = ("remover_key",)
    remover_key: bytes = field(metadata=_KEY)
    removed_key: bytes = field(metadata=_KEY)
    issued: int = field(metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Rotate(Blob):
    """The account of the old key goes on with the new one; signed by both."""

    domain: ClassVar[str] = "rotate"
    signers: ClassVar[tuple[str, ...]] = ("old_key", "new_key")
    old_key: bytes = field(metadata=_KEY)
    new_key: bytes = field(metadata=_KEY)
    issued: int = field(metadata=_TIME)


@dataclass(frozen=True, slots=True)
class Offer(Blob):
    """A connection request from one peer to one peer."""

    domain: ClassVar[str] = "offer"
    signers: ClassVar[tuple[str, ...]] = ("from_key",)
    session: bytes = field(metadata=_ID)
    issued: int = field(metadata=_TIME)
    from_key: bytes = field(metadata=_KEY)
    to_key: bytes = field(metadata=_KEY)
    from_peer: str = field(metadata=_PEER)
    to_peer: str = field(metadata=_PEER)
    from_instance: bytes = field(metadata=_ID)
    sdp: str = field(metadata=_SDP)


@dataclass(frozen=True, slots=True)
class Answer(Blob):
    """The answer to one offer."""

    domain: ClassVar[str] = "answer"
    signers: ClassVar[tuple[str, ...]] = ("from_key",)
    session: bytes = field(metadata=_ID)
    offer_hash: bytes = field(metadata=_HASH)
    issued: int = field(metadata=_TIME)
    from_key: bytes = field(metadata=_KEY)
    to_key: bytes = field(metadata=_KEY)
    from_peer: str = field(metadata=_PEER)
    to_peer: str = field(metadata=_PEER)
    from_instance: bytes = field(metadata=_ID)
    sdp: str = field(metadata=_SDP)


@dataclass(frozen=True, slots=True)
class Confirm(Blob):
    """Inside the channel: this side saw that offer and that answer. Both sides can make the bytes, so none travel."""

    domain: ClassVar[str] = "confirm"
    signers: ClassVar[tuple[str, ...]] = ()
    role: str = field(metadata=_ROLE)
    offer_hash: bytes = field(metadata=_HASH)
    answer_hash: bytes = field(metadata=_HASH)


_ALL: tuple[type[Blob], ...] = (
    LoginBlob,
    RegisterBlob,
    Invite,
    Redeem,
    Pin,
    Remove,
    Rotate,
    Offer,
    Answer,
    Confirm,
)
#: Domain to kind: every blob that there is.
KINDS: dict[str, type[Blob]] = {kind.domain: kind for kind in _ALL}
#: The domain string of each kind, and its fields in their order.
_LAYOUTS: dict[str, tuple[bytes, list[tuple[str, Codec]]]] = {
    domain: (
        f"bonevalue/1/{domain}".encode("ascii"),
        [(entry.name, entry.metadata["codec"]) for entry in fields(kind)],  # type: ignore[arg-type]
    )
    for domain, kind in KINDS.items()
}
_KIND_OF_DOMAIN = {f"bonevalue/1/{domain}".encode("ascii"): kind for domain, kind in KINDS.items()}


def decode_any(blob: bytes) -> Blob:
    """
    The value of a blob of any kind. It says nothing about who signed it.

    Raises:
        RemoteProtocolError: it is not exactly a blob of the kind that its domain string says.
    """
    kind = _KIND_OF_DOMAIN.get((split(blob) or [b""])[0])
    if kind is None:
        raise RemoteProtocolError("not a blob of a known kind")
    return kind.decode(blob)


def digest(blob: bytes) -> bytes:
    """SHA-256 of a blob, as answers and confirms name it."""
    return hashlib.sha256(blob).digest()


def _moment(ms: int) -> str:
    try:
        return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms):%Y-%m-%d %H:%M:%S} UTC"
    except OverflowError:
        return f"{ms} ms after 1970"


def check_clock(issued: int, now_ms: int, *, what: str) -> None:
    """
    Refuse what was not signed within five minutes of our clock.

    Raises:
        ClockSkew: naming both times.
    """
    if abs(issued - now_ms) > CLOCK_WINDOW:
        raise ClockSkew(
            f"{what} was signed at {_moment(issued)}, and this clock says {_moment(now_ms)}: set the clocks"
        )
