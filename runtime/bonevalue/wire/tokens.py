"""
Tokens: one-time text by which two accounts come to trust each other (docs/protocol-identity.md, "Tokens").

The inviter's client makes the token and gives the server only the public half of the token key, inside a signed
invite. So the server can neither redeem a token nor change who made it, and whoever claims it learns the
inviter's key from the text itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from bonevalue.errors import AlreadyTrusted, TokenExpired, TokenInvalid
from bonevalue.wire.blobs import Invite, Pin, Redeem
from bonevalue.wire.keys import SigningKey, expand, from_base64url, public_key_ok, to_base64url

__all__ = ["TOKEN_SIZE", "Redemption", "Token", "invite", "redeem"]

_PREFIX = "bv1_"
_VERSION = 1
#: version 1, inviter key 32, seed 16, expiry 4, check 4
_RAW_SIZE = 57
#: Characters of a token's text.
TOKEN_SIZE = len(_PREFIX) + _RAW_SIZE * 4 // 3


@dataclass(frozen=True, slots=True)
class Token:
    """What the text of a token says. The seed is the secret; it does not show."""

    inviter_key: bytes
    seed: bytes = field(repr=False)
    #: Seconds since 1970.
    expires: int

    @classmethod
    def make(cls, inviter_key: bytes, seed: bytes, expires: int) -> Token:
        """
        A new token.

        Args:
            inviter_key: public key of the account that gives it.
            seed: 16 random bytes.
            expires: seconds since 1970.

        Raises:
            ValueError: a key, seed or time that a token cannot hold.
        """
        if not public_key_ok(inviter_key) or len(seed) != 16 or not 0 <= expires < 2**32:
            raise ValueError("a token holds a public key, a seed of 16 bytes and a time of 32 bits")
        return cls(inviter_key, seed, expires)

    @classmethod
    def parse(cls, text: str) -> Token:
        """
        The token of a text, with white space round it or not.

        Raises:
            TokenInvalid: it is not one, or mistyped; the message says which.
        """
        plain = text.strip()
        if not plain.startswith(_PREFIX):
            raise TokenInvalid(f"this is not a token: a token begins with {_PREFIX}")
        if len(plain) != TOKEN_SIZE:
            raise TokenInvalid(f"the token has {len(plain)} characters instead of {TOKEN_SIZE}: copy all of it")
        try:
            raw = from_base64url(plain.removeprefix(_PREFIX))
        except ValueError as error:
            raise TokenInvalid("the token is mistyped: it has a character that no token has") from error
        if _check(raw[:-4]) != raw[-4:]:
            raise TokenInvalid("the token is mistyped: its last characters do not fit the others")
        if raw[0] != _VERSION:
            raise TokenInvalid(f"the token is of version {raw[0]}: this program knows version {_VERSION}")
        if not public_key_ok(raw[1:33]):
            raise TokenInvalid("the token holds no usable key")
        return cls(raw[1:33], raw[33:49], int.from_bytes(raw[49:53], "big"))

    @property
    def text(self) -> str:
        """What one gives to the other, over a channel that nobody else reads or edits."""
        raw = bytes([_VERSION]) + self.inviter_key + self.seed + self.expires.to_bytes(4, "big")
        return _PREFIX + to_base64url(raw + _check(raw))

    @property
    def keys(self) -> SigningKey:
        """The token key: whoever holds the text can sign with it."""
        return SigningKey.from_seed(expand(self.seed, "bonevalue/1/token"))


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:4]


def invite(keys: SigningKey, token: Token, alias: str, issued_ms: int) -> tuple[bytes, bytes]:
    """The invite blob that the server keeps until the token is claimed, and its signature."""
    blob = Invite(keys.public, token.keys.public, alias, issued_ms, token.expires * 1000).encode()
    return blob, keys.sign(blob)


class Redemption(NamedTuple):
    """What the claimer sends: the redeem blob signed by token and claimer, and the pin of the inviter."""

    redeem: bytes
    signatures: list[bytes]
    pin: bytes
    signature: bytes


def redeem(keys: SigningKey, username: str, token: Token, alias: str, now_ms: int) -> Redemption:
    """
    Claim a token: prove to hold it, and trust its inviter under an alias.

    Raises:
        AlreadyTrusted: the token is of one's own account.
        TokenExpired: its time is over, by this clock.
    """
    if token.inviter_key == keys.public:
        raise AlreadyTrusted("this token is of one's own account: its peers trust each other anyway")
    if now_ms >= token.expires * 1000:
        raise TokenExpired("the time of this token is over: ask for a new one")
    token_keys = token.keys
    blob = Redeem(token_keys.public, token.inviter_key, keys.public, username, now_ms).encode()
    pin = Pin(keys.public, token.inviter_key, alias, now_ms).encode()
    return Redemption(blob, [token_keys.sign(blob), keys.sign(blob)], pin, keys.sign(pin))
