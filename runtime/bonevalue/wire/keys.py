"""
Who somebody is: realm, name, and the keys that come out of a password (docs/protocol-identity.md, "Keys").

One password gives two secrets. The *login secret* is shown to the server, which keeps only a hash of it; the
*identity seed* never leaves the process and is the seed of the account's Ed25519 key. Both hang on realm and
username, so that the same password elsewhere gives other keys.

Ed25519 is taken strictly. A public key or the point of a signature must be the one canonical encoding of a point
that is not of small order, and the scalar of a signature must be reduced; otherwise two encodings, or a key that
"verifies" everything, could stand for one identity.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from bonevalue.errors import BadName, WeakPassword

__all__ = [
    "KEY_SIZE",
    "LOGIN_SIZE",
    "ROUNDS",
    "SIGNATURE_SIZE",
    "AccountKeys",
    "SigningKey",
    "alias_of",
    "check_password",
    "expand",
    "fingerprint",
    "fingerprint_of",
    "from_base64url",
    "login_digest",
    "public_key_ok",
    "realm_of",
    "to_base64url",
    "username_of",
    "verify",
]

#: Bytes of a public key, and of every seed and secret that a password gives.
KEY_SIZE = 32
#: Bytes of a signature.
SIGNATURE_SIZE = 64
#: Rounds of PBKDF2.
ROUNDS = 600_000
#: Characters of the login secret.
LOGIN_SIZE = 43
#: Shortest new password, and longest password at all, in characters.
MIN_PASSWORD, MAX_PASSWORD = 10, 1024


# -- text of bytes -----------------------------------------------------------------------------------------------


def to_base64url(data: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """
    The bytes of canonical base64url text without padding.

    Raises:
        ValueError: a character is not of the alphabet, or the text is not the one that its bytes give.
    """
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError) as error:
        raise ValueError("not base64url") from error
    if to_base64url(data) != text:
        raise ValueError("not canonical base64url")
    return data


# -- names ---------------------------------------------------------------------------------------------------------

_NAME = re.compile(r"[a-z0-9_.-]{1,32}\Z")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_PORT = re.compile(r":[0-9]{1,5}\Z")
#: IDNA 2003 and what browsers do differ on these four: nobody could tell which realm is meant.
_DEVIATING = frozenset("\u00df\u03c2\u200c\u200d")


def _name(text: str, what: str) -> str:
    # ASCII first: lower() would turn a Kelvin sign into a plain k.
    name = text.lower() if text.isascii() else ""
    if not _NAME.match(name):
        raise BadName(f"{what} {text[:64]!r}: 1 to 32 characters of a-z 0-9 _ . -")
    if name.isdigit():
        raise BadName(f"{what} {name!r}: only digits would look like a peer id")
    if name == "us":
        raise BadName(f"{what} {name!r}: this name always means one's own account")
    return name


def username_of(text: str) -> str:
    """
    The canonical form of a username.

    Raises:
        BadName: it is not 1 to 32 of ``a-z 0-9 _ . -``, or all digits, or ``us``.
    """
    return _name(text, "username")


def alias_of(text: str) -> str:
    """
    The canonical form of an alias; the rule is that of usernames.

    Raises:
        BadName: it breaks the rule.
    """
    return _name(text, "alias")


def realm_of(host_or_realm: str) -> str:
    """
    The realm of a host as typed: ``Example.COM.:8008`` gives ``example.com``, any loopback address ``localhost``.

    Nothing is resolved. A realm gives itself.

    Args:
        host_or_realm: host, ``host:port``, IPv6 address, or ``[IPv6 address]:port``.

    Raises:
        ValueError: it is not a host.
    """
    host = host_or_realm
    if host.startswith("["):
        host, bracket, port = host[1:].partition("]")
        if not bracket or (port and not _PORT.match(port)):
            raise ValueError(f"not a host: {host_or_realm[:64]!r}")
        return _realm_of_ipv6(host)
    if host.count(":") > 1:
        return _realm_of_ipv6(host)
    return _realm_of_name(_PORT.sub("", host))


def _realm_of_ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except AddressValueError as error:
        raise ValueError(f"not an IPv6 address: {host[:64]!r}") from error
    if address.scope_id is not None:
        raise ValueError(f"an address with a zone is of this machine only: {host[:64]!r}")
    if int(address) == 1:
        return "localhost"
    if address.ipv4_mapped is None:
        return address.compressed
    # Python 3.13 began to write these with dots; a realm must be the same for ever.
    low = int(address) & 0xFFFF_FFFF
    return f"::ffff:{low >> 16:x}:{low & 0xFFFF:x}"


def _realm_of_name(host: str) -> str:
    name = _to_ascii(host).lower().removesuffix(".")
    labels = name.split(".")
    if labels[-1].isdigit() or labels[-1].startswith("0x"):  # what browsers take as an IPv4 address, or refuse
        try:
            address = IPv4Address(name)
        except AddressValueError as error:
            raise ValueError(f"not an IPv4 address: {host[:64]!r}") from error
        return "localhost" if address.is_loopback else str(address)
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels):
        raise ValueError(f"not a host: {host[:64]!r}")
    return name


def _to_ascii(host: str) -> str:
    if host.isascii():
        return host
    if len(host) > 253 or _DEVIATING.intersection(host):
        raise ValueError(f"write this host in its xn-- form: {host[:64]!r}")
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"not a host: {host[:64]!r}") from error


# -- passwords -----------------------------------------------------------------------------------------------------

#: Words that common passwords are made of: one or two of them, with digits and signs round them or for letters of
#: them, are no password.
_COMMON = """
access admin administrator amigos america angel apple arsenal asdf asdfgh asdfghjkl baby babygirl bailey banana
barcelona baseball basketball batman bitcoin blink bonevalue butterfly changeme charlie cheese chelsea chocolate
computer cookie correcthorsebatterystaple dallas daniel database default demo dragon eagle eminem enter facebook
family flower football forever freedom friend friends fuckyou ginger google guest hallo hannah harley hello hockey
hunter internet iloveyou jennifer jessica jordan joshua killer letmein linkedin liverpool login london love lovely
loveyou maggie manager manchester maple master matrix matthew merlin michael michelle microsoft monkey mustang my
mynameis naruto nicole ninja orange pass passw passwd password passwort pepper pokemon princess private purple qazwsx
qazwsxedc qwer qwert qwerty qwertyuiop qwertz qwertzuiop raspberry robert root samantha samsung secret security server
service shadow soccer spiderman startrek starwars summer sunshine super superman superuser support system temp temporary
test tester testing the this thomas tigger trustno ubuntu user username vagrant welcome whatever william winter wireless
yellow you your zaq zaqxsw zxcvbn zxcvbnm
"""
_COMMON_WORDS = frozenset(_COMMON.split())
#: What stands round a word, and what stands for letters of it.
_TRIMMINGS = string.digits + string.punctuation + " "
_LEET = str.maketrans("01345789@$!|", "oieastbgasil")
_RUNS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890123456789",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
    "1a2b3c4d5e6f7g8h9i0j",
)


def _normal(password: str) -> str:
    if not 1 <= len(password) <= MAX_PASSWORD:
        raise WeakPassword(f"a password has 1 to {MAX_PASSWORD} characters")
    for character in password:
        if unicodedata.category(character) in ("Cn", "Cs"):
            # NFKC of what is not assigned yet changes the day it is: the key would be lost.
            raise WeakPassword(f"the password has a character that is no Unicode character: U+{ord(character):04X}")
    return unicodedata.normalize("NFKC", password)


def check_password(password: str) -> None:
    """
    Refuse what is too weak for a new password.

    The server never sees a password, so this runs where it is typed. It stops the first million guesses, no more;
    docs/security.md says why more is wanted.

    Raises:
        WeakPassword: under 10 characters, over 1024, of few different ones, or a common one.
    """
    plain = _normal(password).lower()
    if len(plain) < MIN_PASSWORD:
        raise WeakPassword(f"a password needs at least {MIN_PASSWORD} characters")
    if len(set(plain)) < 5:
        raise WeakPassword("the password has too few different characters")
    core = plain.strip(_TRIMMINGS)
    if any(word in run or word[::-1] in run for run in _RUNS for word in (plain, core)):
        raise WeakPassword("the password is a run of neighbouring keys")
    if (plain + plain).find(plain, 1) < len(plain):
        raise WeakPassword("the password is a repetition")
    if _is_common(core) or _is_common(core.translate(_LEET)):
        raise WeakPassword("the password is among the common ones")


def _is_common(core: str) -> bool:
    letters = "".join(character for character in core if character not in _TRIMMINGS)
    cuts = ((letters[:cut], letters[cut:]) for cut in range(1, len(letters) + 1))
    return any(head in _COMMON_WORDS and (not tail or tail in _COMMON_WORDS) for head, tail in cuts)


# -- Ed25519 -------------------------------------------------------------------------------------------------------

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
#: The y of the four points of order 8; with 0, 1 and -1 these are all points of small order (x only chooses the sign).
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


def public_key_ok(raw: bytes) -> bool:
    """Whether these are 32 bytes that encode y canonically, and no point of small order."""
    if len(raw) != KEY_SIZE:
        return False
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    return y < _P and y not in _SMALL_ORDER_Y


def verify(public_key: bytes, signature: bytes, blob: bytes) -> bool:
    """Whether the signature over the blob is the key's; False for anything wrong with any of them."""
    if len(signature) != SIGNATURE_SIZE or not public_key_ok(public_key) or not public_key_ok(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= _L:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, blob)
    except (InvalidSignature, ValueError):
        return False
    return True


_FINGERPRINT = re.compile(r"[a-z2-7]{24}\Z")


def fingerprint(public_key: bytes) -> str:
    """The key for people to compare: 120 bits in six groups, ``abcd-efgh-ijkl-mnop-qrst-uvwx``."""
    text = b32encode(hashlib.sha256(b"bonevalue/1/fingerprint" + public_key).digest()[:15]).decode("ascii").lower()
    return "-".join(text[start : start + 4] for start in range(0, 24, 4))


def fingerprint_of(text: str) -> str:
    """
    The canonical form of a fingerprint that somebody typed; case, spaces and dashes do not matter.

    Raises:
        ValueError: it is not a fingerprint.
    """
    plain = re.sub(r"[\s-]", "", text).lower()
    if not _FINGERPRINT.match(plain):
        raise ValueError(f"not a key fingerprint (six groups of four of a-z 2-7): {text[:64]!r}")
    return "-".join(plain[start : start + 4] for start in range(0, 24, 4))


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """An Ed25519 key pair; it shows only the fingerprint of the public half."""

    public: bytes
    _private: Ed25519PrivateKey

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key pair of a 32-byte seed."""
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return SigningKey(private.public_key().public_bytes_raw(), private)

    def sign(self, blob: bytes) -> bytes:
        """The 64-byte signature over a blob."""
        return self._private.sign(blob)

    @property
    def fingerprint(self) -> str:
        """The public key for people to compare."""
        return fingerprint(self.public)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.fingerprint}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AccountKeys(SigningKey):
    """What the password of an account gives: the signing key, and the secret for the server."""

    #: The login secret, 43 characters of base64url.
    login: str

    @classmethod
    def derive(cls, password: str, *, realm: str, username: str) -> Self:
        """
        The keys of an account. Takes about a quarter of a second on purpose: call it in a thread.

        Raises:
            WeakPassword: the password is empty, over 1024 characters, or has unassigned code points.
            BadName: the username breaks its rule.
            ValueError: the realm is not one.
        """
        salt = f"bonevalue/1/{realm_of(realm)}/{username_of(username)}"
        kdf = PBKDF2HMAC(SHA256(), KEY_SIZE, salt.encode("ascii"), ROUNDS)
        return cls.from_stretched(kdf.derive(_normal(password).encode("utf-8")))

    @classmethod
    def from_stretched(cls, stretched: bytes) -> Self:
        """The keys of what PBKDF2 gave: 32 bytes, as secret as the password."""
        pair = SigningKey.from_seed(expand(stretched, "bonevalue/1/identity"))
        return cls(pair.public, pair._private, to_base64url(expand(stretched, "bonevalue/1/login")))


def expand(secret: bytes, info: str) -> bytes:
    """HKDF-SHA-256 without salt: another secret of 32 bytes for another purpose."""
    return HKDF(SHA256(), KEY_SIZE, None, info.encode("ascii")).derive(secret)


def login_digest(login: str) -> bytes:
    """
    What a ``register`` blob says of the login secret: SHA-256 of its 43 characters.

    Raises:
        ValueError: it is not base64url of 32 bytes.
    """
    if len(from_base64url(login)) != KEY_SIZE:
        raise ValueError("a login secret has 32 bytes")
    return hashlib.sha256(login.encode("ascii")).digest()
