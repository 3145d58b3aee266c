"""
What the certificates that a server shows really prove, and what was ever proved in the life of this process.

A :class:`Ledger` reads entries: it checks signatures, keeps the facts, and says nothing about who is trusted. Facts
only add up, so it does not matter in what order they come, how often, or spread over how many messages. What
follows from them is :mod:`bonevalue.wire.contacts`, whose head tells the whole reasoning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from bonevalue.errors import (
    BoneValueError,
    ContactConflict,
    IdentityConflict,
    IdentityMismatch,
    RemoteProtocolError,
)
from bonevalue.wire.blobs import Blob, Invite, Pin, Redeem, Remove, Rotate, decode_any
from bonevalue.wire.signals import Contact, SignedBlob

__all__ = ["MAX_ROTATIONS", "Evidence", "Ledger", "Newest", "Removal", "Statement", "Void"]

#: Most key changes that are remembered; those beyond prove nothing.
MAX_ROTATIONS = 16_384

_Blobs: TypeAlias = Sequence[tuple[Blob, SignedBlob]]
_Subject = TypeVar("_Subject", bytes, str)


class Statement(NamedTuple):
    """Our own word: since ``issued`` this key has this alias."""

    alias: str
    key: bytes
    issued: int
    #: Whether it is a pin; else an invite and its redeem, which tells the username.
    pin: bool = True
    username: str | None = None


class Evidence(NamedTuple):
    """What one entry shows, once its signatures are checked: statements, or what is wrong with it."""

    name: str
    public_key: bytes
    statements: tuple[Statement, ...] = ()
    problem: BoneValueError | None = None


class Removal(NamedTuple):
    """A valid removal: the account that it parts from ours, and until when it voids statements about it."""

    other: bytes
    until: int


class Void(NamedTuple):
    """Statements about a key up to this time count no more, and why."""

    until: int
    kind: type[BoneValueError]
    why: str


class Newest(NamedTuple):
    """When we last said something of an alias (or key), and which keys (or aliases) we said then."""

    issued: int
    said: frozenset[bytes | str]


class Ledger:
    """
    The facts of one account's contacts.

    Args:
        own_key: the account's own public key; only what it signed begins trust.
    """

    def __init__(self, own_key: bytes) -> None:
        self._own_key = own_key
        self._statements: set[Statement] = set()
        self._successor: dict[bytes, bytes] = {}
        self._forked: set[bytes] = set()
        self._claimer: dict[bytes, bytes] = {}
        self._voids: dict[bytes, Void] = {}

    # -- asking ------------------------------------------------------------------------------------------------------

    def lineage(self, key: bytes) -> list[bytes]:
        """The key and those that it was changed to, in order, each once."""
        line = [key]
        while (later := self._successor.get(line[-1])) is not None and later not in line:
            line.append(later)
        return line

    def checked_lineage(self, key: bytes) -> list[bytes]:
        """
        The same, for a key that shall be used.

        Raises:
            IdentityConflict: its changes fork or run in a circle.
        """
        line = self.lineage(key)
        if self._forked.intersection(line):
            raise IdentityConflict("its key was changed to two different ones, and nobody knows which is theirs")
        if line[-1] in self._successor:
            raise IdentityConflict("its key changes run in a circle: was an old password used again?")
        return line

    def void_of(self, statement: Statement) -> Void | None:
        """Why a statement counts no more, if so: something speaks against any key that it leads to."""
        voids = (self._voids.get(key) for key in self.lineage(statement.key))
        return next((void for void in voids if void is not None and void.until >= statement.issued), None)

    def mentions(self, key: bytes) -> bool:
        """Whether a statement ever led to this key or to one that it was changed to."""
        line = set(self.lineage(key))
        return any(not line.isdisjoint(self.lineage(statement.key)) for statement in self._statements)

    def newest_of_aliases(self) -> dict[str, Newest]:
        """Our newest word on each alias: the keys that it had, as they are now."""
        return _newest((word.alias, word.issued, self.lineage(word.key)[-1]) for word in self._statements)

    def newest_of_keys(self) -> dict[bytes, Newest]:
        """Our newest word on each key, as it is now: the aliases that it had."""
        return _newest((self.lineage(word.key)[-1], word.issued, word.alias) for word in self._statements)

    # -- reading: signatures -----------------------------------------------------------------------------------------

    def read(self, entry: Contact, now_ms: int) -> Evidence:
        """Check what one entry shows, and learn what it proves. Never raises: the evidence tells the problem."""
        key = bytes(entry.public_key)
        try:
            blobs = [(decode_any(signed.blob), signed) for signed in entry.certificates]
            statements = (*self._read_pins(blobs), *self._read_redeems(blobs, now_ms))
            self._statements.update(statements)
            self._read_rotates({statement.key for statement in statements}, blobs, now_ms)
        except (IdentityMismatch, RemoteProtocolError) as error:
            return Evidence(entry.name, key, problem=IdentityMismatch(f"a certificate is forged: {error.message}"))
        return Evidence(entry.name, key, statements)

    def read_removal(self, remove: SignedBlob, now_ms: int) -> Removal:
        """
        Check a removal. One by somebody else is dated no later than now: nobody can end trust that is yet to be made.

        Raises:
            IdentityMismatch: malformed, not signed by who it says, or not between this account and another.
        """
        try:
            value = Remove.decode(remove.blob)
            Remove.open(remove.blob, remove.signatures, value.remover_key)
        except RemoteProtocolError as error:
            raise IdentityMismatch(f"a removal is malformed: {error.message}") from error
        if value.remover_key == value.removed_key:
            raise IdentityMismatch("the removal is of an account by itself")
        if value.remover_key == self._own_key:
            return Removal(value.removed_key, value.issued)
        if value.removed_key == self._own_key:
            return Removal(value.remover_key, min(value.issued, now_ms))
        raise IdentityMismatch("the removal is not of this account")

    def _read_pins(self, blobs: _Blobs) -> Iterator[Statement]:
        for blob, signed in blobs:
            if isinstance(blob, Pin) and blob.owner_key == self._own_key:
                Pin.open(signed.blob, signed.signatures, self._own_key)
                yield Statement(blob.alias, blob.contact_key, blob.issued)

    def _read_redeems(self, blobs: _Blobs, now_ms: int) -> Iterator[Statement]:
        invites: dict[bytes, Invite] = {}
        for blob, signed in blobs:
            if isinstance(blob, Invite) and blob.inviter_key == self._own_key:
                invites[blob.token_key] = Invite.open(signed.blob, signed.signatures, self._own_key)
        for blob, signed in blobs:
            if not isinstance(blob, Redeem) or blob.token_key not in invites:
                continue
            Redeem.open(signed.blob, signed.signatures, blob.token_key, blob.claimer_key)
            invite = invites[blob.token_key]
            if blob.inviter_key != self._own_key or blob.issued >= invite.expires:
                raise IdentityMismatch("the token was claimed from another inviter, or after its time")
            self._learn_claim(invite, blob.claimer_key, now_ms)
            yield Statement(invite.alias, blob.claimer_key, invite.issued, False, blob.claimer_username)

    def _read_rotates(self, keys: set[bytes], blobs: _Blobs, now_ms: int) -> None:
        """Learn the key changes that lead on from these keys; others prove nothing and cost nothing."""
        reached = {later for key in keys for later in self.lineage(key)}
        waiting = [(blob, signed) for blob, signed in blobs if isinstance(blob, Rotate)]
        while ready := [item for item in waiting if item[0].old_key in reached]:
            waiting = [item for item in waiting if item[0].old_key not in reached]
            for blob, signed in ready:
                Rotate.open(signed.blob, signed.signatures, blob.old_key, blob.new_key)
                self._learn_rotation(blob.old_key, blob.new_key, now_ms)
                reached.update(self.lineage(blob.new_key))

    # -- learning: facts that only add up ----------------------------------------------------------------------------

    def void(self, key: bytes, void: Void) -> None:
        """Let statements about a key, and the keys that it was changed to, count no more up to a time."""
        for later in self.lineage(key):
            known = self._voids.get(later)
            if known is None or known.until < void.until:
                self._voids[later] = void

    def _learn_claim(self, invite: Invite, claimer: bytes, now_ms: int) -> None:
        first = self._claimer.setdefault(invite.token_key, claimer)
        if first != claimer:
            why = "two accounts claimed its token, so somebody else read it: remove the contact, give a new token"
            self._disown([first, claimer], ContactConflict, why, max(now_ms, invite.issued))

    def _learn_rotation(self, old: bytes, new: bytes, now_ms: int) -> None:
        known = self._successor.get(old)
        if known is None:
            if len(self._successor) < MAX_ROTATIONS:
                self._successor[old] = new
                if old in self._voids:
                    self.void(new, self._voids[old])
        elif known != new and old not in self._forked:
            self._forked.add(old)
            why = "its key was changed to two different ones: ask which is theirs, remove the contact, trust anew"
            self._disown([old, new], IdentityConflict, why, now_ms)

    def _disown(self, keys: list[bytes], kind: type[BoneValueError], why: str, now_ms: int) -> None:
        """Void all that was said of these keys so far, also what a process of ours said whose clock is ahead."""
        lines = {later for key in keys for later in self.lineage(key)}
        until = max([now_ms, *(statement.issued for statement in self._statements if statement.key in lines)])
        for key in keys:
            self.void(key, Void(until, kind, why))


def _newest(words: Iterable[tuple[_Subject, int, bytes | str]]) -> dict[_Subject, Newest]:
    result: dict[_Subject, Newest] = {}
    for subject, issued, said in words:
        known = result.get(subject)
        if known is None or known.issued < issued:
            result[subject] = Newest(issued, frozenset({said}))
        elif known.issued == issued and said not in known.said:
            result[subject] = Newest(issued, known.said | {said})
    return result
