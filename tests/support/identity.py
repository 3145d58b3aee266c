"""People with keys, and everything that they can sign: the raw material of identity tests."""

from __future__ import annotations

import hashlib

from bonevalue.wire.blobs import Blob, Invite, Pin, Redeem, Remove, Rotate
from bonevalue.wire.contacts import ContactBook, Verdict
from bonevalue.wire.keys import AccountKeys, SigningKey
from bonevalue.wire.signals import Binary, Contact, SignedBlob
from bonevalue.wire.tokens import Token

#: The time at which tests begin, in ms since 1970.
NOW = 1_800_000_000_000
MINUTE = 60_000
#: A session description of the form that engines make, less what does not matter here.
SDP = (
    "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\na=setup:actpass\r\n"
)


def seed(text: str, size: int = 32) -> bytes:
    """Bytes that look random and are always the same."""
    return hashlib.sha512(text.encode()).digest()[:size]


def account(name: str) -> AccountKeys:
    """The keys of an account, without the quarter of a second that a password takes."""
    return AccountKeys.from_stretched(seed(name))


class Friends:
    """Contacts of one account: everybody that the test knows."""

    def __init__(self, own: str, others: dict[str, bytes]) -> None:
        self._keys = {**others, "Us": account(own).public}

    def key_of(self, name: str) -> bytes | None:
        """The key behind an alias."""
        return self._keys.get(name)

    def name_of(self, key: bytes) -> str | None:
        """The alias of a key."""
        return next((name for name, known in self._keys.items() if known == key), None)


def signed(blob: Blob, *keys: SigningKey) -> SignedBlob:
    """A blob with the signatures of these keys."""
    raw = blob.encode()
    return SignedBlob(Binary(raw), [Binary(key.sign(raw)) for key in keys])


def pin(owner: SigningKey, contact: SigningKey, alias: str, issued: int = NOW) -> SignedBlob:
    """The owner trusts a contact."""
    return signed(Pin(owner.public, contact.public, alias, issued), owner)


def remove(remover: SigningKey, removed: SigningKey, issued: int = NOW) -> SignedBlob:
    """Somebody ends trust."""
    return signed(Remove(remover.public, removed.public, issued), remover)


def rotate(old: SigningKey, new: SigningKey, issued: int = NOW) -> SignedBlob:
    """Somebody changes their key."""
    return signed(Rotate(old.public, new.public, issued), old, new)


def token_of(inviter: SigningKey, text: str = "token", expires: int = NOW + 24 * 60 * MINUTE) -> Token:
    """A token; other text, other token."""
    return Token.make(inviter.public, seed(text, 16), expires // 1000)


def invite(inviter: SigningKey, token: Token, alias: str, issued: int = NOW) -> SignedBlob:
    """The invite that goes with a token."""
    return signed(Invite(inviter.public, token.keys.public, alias, issued, token.expires * 1000), inviter)


def redeem(claimer: SigningKey, token: Token, username: str = "someone", issued: int = NOW) -> SignedBlob:
    """Somebody claims a token."""
    blob = Redeem(token.keys.public, token.inviter_key, claimer.public, username, issued)
    return signed(blob, token.keys, claimer)


def entry(name: str, contact: SigningKey | bytes, *certificates: SignedBlob) -> Contact:
    """What the server says of a contact."""
    key = contact if isinstance(contact, bytes) else contact.public
    return Contact(name, Binary(key), list(certificates))


ALICE, BOB, CAROL, MALLORY = (account(name) for name in ("alice", "bob", "carol", "mallory"))
BOB2, BOB3, MALLORY2 = account("bob, later"), account("bob, much later"), account("mallory, later")
#: A token of alice's.
TOKEN = token_of(ALICE)


def claimed(
    claimer: AccountKeys = BOB, alias: str = "bob", issued: int = NOW, token: str = "token"
) -> tuple[SignedBlob, SignedBlob]:
    """An invite of alice's and its redeem."""
    return invite(ALICE, token_of(ALICE, token), alias, issued), redeem(
        claimer, token_of(ALICE, token), "robert", issued + MINUTE
    )


def code(verdict: Verdict) -> str | None:
    """The code of a verdict's problem."""
    return verdict.problem.code if verdict.problem else None


def assert_trusts(book: ContactBook, **keys: AccountKeys) -> None:
    """The book holds exactly these contacts, seen from all sides."""
    assert book.names() == sorted(keys)
    for name, key in keys.items():
        contact = book.contact(name)
        assert contact is not None
        assert contact.key == key.public == book.key_of(name)
        assert book.name_of(key.public) == name


def forged_redeem() -> SignedBlob:
    """Mallory in the place of bob, with the token's signature from bob's redeem."""
    true = redeem(BOB, TOKEN)
    blob = Redeem(TOKEN.keys.public, ALICE.public, MALLORY.public, "robert", NOW).encode()
    return SignedBlob(Binary(blob), [true.signatures[0], Binary(MALLORY.sign(blob))])
