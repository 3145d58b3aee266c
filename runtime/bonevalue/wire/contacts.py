"""
Whom an account trusts, proved from its own key (docs/protocol-identity.md, "Contacts").

The discovery server keeps all certificates and hands them out. It is believed in nothing: :class:`ContactBook`
takes what it shows as evidence and asks what follows from one's own signatures.

*Statements.* Trust begins with a statement of one's own key: a pin (this key is bob), or an invite (whoever holds
this token is bob) with the redeem of the one who held it. From its key, ``rotate`` blobs lead on to the key that
the contact has now; they are signed by the contact itself, old key and new. A contact is usable if such a chain
exists, ends in the key that the server names, bears the name that the server gives it, and nothing else that was
ever proved in this process speaks against it.

*What the server can do with that.* It can withhold, repeat, reorder and mix what was really signed. The rules:

- It can add nobody: a redeem needs the token's seed, which it never had; a pin needs our key; a rotate both keys.
- Facts only add up. Rotations, removals, redemptions and statements once proved are remembered while the process
  lives, whatever is shown later and in whatever order; what is shown in two steps counts as if shown together.
- Our newest word counts. A statement that a newer one (or one of the same moment) contradicts, the same alias with
  another key or the same key under another alias, is not used: an old alias with its old rights does not come back.
  If the server shows both at once, neither is used.
- A pin that stands for an older statement (the redeem it replaces, the key before a rotation) bears the time of
  that statement. So a process that has not heard of a removal cannot be made to freshen what the removal voided.
- For an invite its own time counts, not that of the redeem, which the claimer chose: a contact that was removed
  cannot claim its old token again at a later date.
- Two claimers of one token, two successors of one key: somebody is lying and we cannot know who. All that was said
  so far about the keys on either branch is void. Trust made anew by hand counts again, as after a removal.
- A removal is dated no later than when it came in, so that nobody can date it into the future.

What is left to it: to show nothing (denial), and after a restart of the process to show an old state that was
once true. ``trust.refuse`` is the remedy that needs no memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bonevalue.errors import (
    AlreadyTrusted,
    BoneValueError,
    Busy,
    ContactConflict,
    IdentityMismatch,
    NotTrusted,
    RemoteProtocolError,
    TokenExpired,
    TokenInvalid,
    TooManyTrusted,
)
from bonevalue.wire.blobs import Invite, Pin, Redeem, Remove, Rotate, check_clock
from bonevalue.wire.evidence import Evidence, Ledger, Newest, Removal, Statement, Void
from bonevalue.wire.keys import SigningKey, fingerprint, verify
from bonevalue.wire.signals import Binary, Contact, SignedBlob

__all__ = [
    "MAX_CONTACTS",
    "MAX_REMOVALS",
    "OWN_NAME",
    "ContactBook",
    "Verdict",
    "VerifiedContact",
    "check_invite",
    "check_pin",
    "check_redeem",
    "check_remove",
    "check_rotate",
]

#: The alias of one's own account.
OWN_NAME = "Us"
#: Most contacts that a book holds.
MAX_CONTACTS = 10_000
#: Most removals by keys that were never contacts in this process that a book remembers.
MAX_REMOVALS = 4_096


@dataclass(frozen=True, slots=True)
class VerifiedContact:
    """A contact that is proved."""

    name: str
    key: bytes
    #: What the contact called itself when it claimed our token; None if we claimed its token, or it is long ago.
    username: str | None
    #: When we trusted it, in ms since 1970.
    since: int

    @property
    def fingerprint(self) -> str:
        """The key for people to compare."""
        return fingerprint(self.key)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one entry of the server came to: a contact, or the problem with it."""

    name: str
    contact: VerifiedContact | None = None
    problem: BoneValueError | None = None
    #: A pin and its signature, to send as ``updateContact``: it replaces a longer chain.
    pin: tuple[bytes, bytes] | None = None


class ContactBook:
    """
    The verified contacts of one account, in memory.

    Args:
        keys: the account's own.
        refuse: fingerprints never to talk to, in canonical form.
    """

    def __init__(self, keys: SigningKey, *, refuse: frozenset[str] = frozenset()) -> None:
        self._keys = keys
        self._refuse = refuse
        self._ledger = Ledger(keys.public)
        # What the server shows now, and what follows from it.
        self._shown: list[Evidence] = []
        self._verdicts: dict[str, Verdict] = {}
        self._name_of: dict[bytes, str] = {}
        self._removals: dict[bytes, tuple[Removal, SignedBlob]] = {}

    # -- asking --------------------------------------------------------------------------------------------------

    @property
    def public_key(self) -> bytes:
        """One's own public key."""
        return self._keys.public

    def contact(self, name: str) -> VerifiedContact | None:
        """The verified contact of that alias."""
        verdict = self._verdicts.get(name)
        return verdict.contact if verdict else None

    def name_of(self, key: bytes) -> str | None:
        """The alias of a verified contact's key; ``Us`` for one's own."""
        return OWN_NAME if key == self._keys.public else self._name_of.get(key)

    def key_of(self, name: str) -> bytes | None:
        """The key of a verified contact; one's own for ``Us``."""
        if name == OWN_NAME:
            return self._keys.public
        contact = self.contact(name)
        return contact.key if contact else None

    def names(self) -> list[str]:
        """The aliases of all verified contacts, sorted, without ``Us``."""
        return sorted(self._name_of.values())

    def verdicts(self) -> list[Verdict]:
        """What there is to say of each alias that the server names now, sorted; without pins to send."""
        return [self._verdicts[name] for name in sorted(self._verdicts)]

    def removals(self) -> list[SignedBlob]:
        """The removals in force, to be passed on to other processes of one's own account."""
        return [remove for removal, remove in self._removals.values() if not self._is_over(removal)]

    # -- what the server shows -------------------------------------------------------------------------------------

    def replace(self, entries: list[Contact], now_ms: int) -> list[Verdict]:
        """Take the server's whole list, after a login. One verdict an entry; what is not in it is gone."""
        self._shown = [self._ledger.read(entry, now_ms) for entry in entries[:MAX_CONTACTS]]
        self._settle()
        surplus = [_surplus(entry.name) for entry in entries[MAX_CONTACTS:]]
        return [self._told(evidence) for evidence in self._shown] + surplus

    def receive(self, entry: Contact, now_ms: int) -> Verdict:
        """
        Take one entry, of a ``userAdd``; it replaces what was shown under its name.

        It may speak against other contacts too: these are then not usable either, see :meth:`verdicts`.
        """
        others = [evidence for evidence in self._shown if evidence.name != entry.name]
        if len(others) >= MAX_CONTACTS:
            return _surplus(entry.name)
        evidence = self._ledger.read(entry, now_ms)
        self._shown = [*others, evidence]
        self._settle()
        return self._told(evidence)

    def discard(self, name: str) -> None:
        """The server says that the contact is gone, without proof: it is not usable, and its live links stay."""
        self._shown = [evidence for evidence in self._shown if evidence.name != name]
        self._settle()

    def remove(self, name: str | None, remove: SignedBlob, now_ms: int) -> bytes:
        """
        Take a removal: by a contact, or by another process of one's own account.

        Args:
            name: the alias that the server says it is about; None if it came from a process of one's own.
            remove: the blob and its signature.
            now_ms: the time, in ms since 1970.

        Returns:
            The key of the account with which trust ended, as it is now.

        Raises:
            IdentityMismatch: it is not a valid removal of that contact, or trust was made anew since; live links stay.
            Busy: it is valid, but of nobody known, and no more of these are remembered.
        """
        removal = self._ledger.read_removal(remove, now_ms)
        key = self._ledger.lineage(removal.other)[-1]
        if name is not None and self.key_of(name) not in (None, key):
            raise IdentityMismatch(f"{name}: the removal is of somebody else")
        known = self._removals.get(removal.other)
        if known is None and len(self._removals) >= MAX_REMOVALS and not self._ledger.mentions(removal.other):
            raise Busy("too many removals of unknown accounts")
        if known is None or known[0].until < removal.until:
            self._removals[removal.other] = (removal, remove)
        self._ledger.void(removal.other, Void(removal.until, NotTrusted, "trust with this account was ended"))
        is_over = self._is_over(removal)
        if not is_over:
            self._shown = [evidence for evidence in self._shown if evidence.name != name]
        self._settle()
        if is_over:
            raise IdentityMismatch("the removal is older than the trust: somebody repeats it")
        return key

    def _is_over(self, removal: Removal) -> bool:
        """Whether trust was made anew since a removal."""
        newest = self._ledger.newest_of_keys().get(self._ledger.lineage(removal.other)[-1])
        return newest is not None and newest.issued > removal.until

    # -- what follows ------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Judge everything that is shown now by everything that was ever proved."""
        proved: list[VerifiedContact] = []
        problems: dict[str, BoneValueError] = {}
        for evidence in self._shown:
            try:
                proved.append(self._prove(evidence))
            except BoneValueError as error:
                problems[evidence.name] = error
        times = Counter(evidence.name for evidence in self._shown)
        owners: dict[bytes, list[str]] = {}
        for contact in proved:
            owners.setdefault(contact.key, []).append(contact.name)
        aliases, keys = self._ledger.newest_of_aliases(), self._ledger.newest_of_keys()
        for contact in proved:
            name, others = contact.name, set(owners[contact.key])
            if times[name] > 1:
                problems[name] = ContactConflict("the server shows it twice")
            elif len(others) > 1:
                problems[name] = ContactConflict(
                    f"{' and '.join(sorted(others))} are one account: remove it, trust anew"
                )
            elif _contradicts(aliases[name], contact.since, contact.key) or _contradicts(
                keys[contact.key], contact.since, name
            ):
                problems[name] = ContactConflict("this account signed something newer that says otherwise")
        self._verdicts = {contact.name: Verdict(contact.name, contact) for contact in proved}
        for name, problem in problems.items():
            # The name is the server's word, and this text goes to terminals.
            text = f"{ascii(name)[1:-1]}: {problem.message}"
            self._verdicts[name] = Verdict(name, problem=type(problem)(text))
        self._name_of = {contact.key: contact.name for contact in proved if contact.name not in problems}

    def _prove(self, evidence: Evidence) -> VerifiedContact:
        """The contact that an entry proves by itself; raises what is wrong with it."""
        if evidence.problem is not None:
            raise type(evidence.problem)(evidence.problem.message)
        voids = {word: self._ledger.void_of(word) for word in evidence.statements}
        live = [word for word, void in voids.items() if void is None]
        if not live:
            void = next(iter(voids.values()), None)
            if void is not None:
                raise void.kind(void.why)
            raise IdentityMismatch("nothing that this account signed proves its key, so it is not adopted")
        lines = [self._ledger.checked_lineage(word.key) for word in live]
        aliases, ends = {word.alias for word in live}, {line[-1] for line in lines}
        keys = {key for line in lines for key in line}
        if aliases != {evidence.name}:
            raise ContactConflict(f"its certificates are for {', '.join(sorted(aliases))}")
        if len(ends) > 1:
            raise ContactConflict("its certificates are for different keys")
        if self._keys.public in keys:
            raise ContactConflict("its key is that of this account itself")
        if self._refuse and not self._refuse.isdisjoint(map(fingerprint, keys)):
            raise NotTrusted("its key is refused by trust.refuse")
        if ends != {evidence.public_key}:
            raise IdentityMismatch(
                f"the server says its key is {fingerprint(evidence.public_key)}, and what this account signed leads to "
                f"{fingerprint(ends.pop())}; the key is not adopted. If they made a new one, trust them anew"
            )
        username = next((word.username for word in live if word.username), None)
        return VerifiedContact(evidence.name, evidence.public_key, username, max(word.issued for word in live))

    def _told(self, evidence: Evidence) -> Verdict:
        """The verdict on an entry, with the pin that shall replace its chain."""
        verdict = self._verdicts[evidence.name]
        contact = verdict.contact
        if contact is None or any(
            word.pin and word.key == contact.key and word.issued == contact.since for word in evidence.statements
        ):
            return verdict
        return replace(verdict, pin=_pin(contact, self._keys))

    # -- signing -----------------------------------------------------------------------------------------------------

    def make_pin(self, name: str) -> tuple[bytes, bytes]:
        """
        A pin of a contact as it is now, and its signature.

        Raises:
            NotTrusted: the alias is no verified contact.
        """
        contact = self.contact(name)
        if contact is None:
            raise NotTrusted(f"{name} is not a verified contact")
        return _pin(contact, self._keys)

    def make_remove(self, name: str, now_ms: int) -> tuple[bytes, bytes]:
        """
        The blob that ends trust with a contact, and its signature; also with one that was trusted and has a problem.

        Raises:
            NotTrusted: this account signed nothing for that alias.
        """
        contact = self.contact(name)
        if contact is not None:
            key, since = contact.key, contact.since
        else:
            words = [
                word for evidence in self._shown for word in evidence.statements if evidence.name == name == word.alias
            ]
            if not words:
                raise NotTrusted(f"{name} is no contact of this account")
            since = max(word.issued for word in words)
            key = self._key_to_remove(name, words)
        blob = Remove(self._keys.public, key, max(now_ms, since)).encode()
        return blob, self._keys.sign(blob)

    def _key_to_remove(self, name: str, words: list[Statement]) -> bytes:
        # What the server says, if our own word leads there: else it could have us part with somebody else.
        reached = [key for word in words for key in self._ledger.lineage(word.key)]
        shown = (evidence.public_key for evidence in self._shown if evidence.name == name)
        return next((key for key in shown if key in reached), reached[0])

    def rotate(self, new_keys: SigningKey, now_ms: int) -> tuple[bytes, list[bytes], list[SignedBlob]]:
        """
        Change one's own key.

        Returns:
            The ``rotate`` blob, its signatures by old and new key, and a pin of every verified contact, signed by the
            new key. Whoever is not a verified contact now is none afterwards.
        """
        blob = Rotate(self._keys.public, new_keys.public, now_ms).encode()
        pins = []
        for verdict in self.verdicts():
            if verdict.contact is not None:
                pin, signature = _pin(verdict.contact, new_keys)
                pins.append(SignedBlob(Binary(pin), [Binary(signature)]))
        return blob, [self._keys.sign(blob), new_keys.sign(blob)], pins


def _contradicts(newest: Newest, since: int, said: bytes | str) -> bool:
    return newest.issued >= since and newest.said != {said}


def _pin(contact: VerifiedContact, keys: SigningKey) -> tuple[bytes, bytes]:
    # Dated like the trust, not like this pin: it must not outlive a removal that came in between.
    blob = Pin(keys.public, contact.key, contact.name, contact.since).encode()
    return blob, keys.sign(blob)


def _surplus(name: str) -> Verdict:
    return Verdict(name, problem=TooManyTrusted(f"{ascii(name)[1:-1]}: more than {MAX_CONTACTS} contacts"))


# -- what the server checks before it stores ---------------------------------------------------------------------------


def check_invite(blob: bytes, signature: bytes, *, inviter_key: bytes, alias: str, now_ms: int) -> Invite:
    """
    An invite as the inviter's own server takes it.

    Raises:
        IdentityMismatch: not signed by that key.
        RemoteProtocolError: malformed, or for another alias.
        TokenExpired: it has no time left.
        ClockSkew: it was not made now.
    """
    invite = Invite.open(blob, signature, inviter_key)
    if invite.alias != alias:
        raise RemoteProtocolError("the invite is for another alias")
    check_clock(invite.issued, now_ms, what="the invite")
    if invite.expires <= now_ms:
        raise TokenExpired("the token would be over before it begins")
    return invite


def check_redeem(
    blob: bytes, signatures: Sequence[bytes], *, invite: Invite, claimer_key: bytes, username: str, now_ms: int
) -> Redeem:
    """
    A redeem as the server takes it, for the stored invite with the token key that it names.

    Raises:
        AlreadyTrusted: inviter and claimer are the same account.
        TokenInvalid: the claimer does not hold the token, or it is of another inviter.
        IdentityMismatch: it is not signed by the claimer, or names another account.
        TokenExpired: too late.
        ClockSkew: it was not made now.
        RemoteProtocolError: malformed.
    """
    redeem = Redeem.decode(blob)
    if len(signatures) != 2 or redeem.token_key != invite.token_key or redeem.inviter_key != invite.inviter_key:
        raise TokenInvalid("the token is not the one of this invite")
    if not verify(invite.token_key, signatures[0], blob):
        raise TokenInvalid("whoever claims this token does not hold it")
    Redeem.open(blob, signatures, invite.token_key, claimer_key)
    if redeem.claimer_username != username:
        raise IdentityMismatch("the redeem names another account")
    if claimer_key == invite.inviter_key:
        raise AlreadyTrusted("a token of one's own account makes no trust")
    check_clock(redeem.issued, now_ms, what="the redeem")
    if max(redeem.issued, now_ms) >= invite.expires:
        raise TokenExpired("the time of this token is over: ask for a new one")
    return redeem


def check_pin(
    blob: bytes, signature: bytes, *, owner_key: bytes, contact_key: bytes | None = None, alias: str | None = None
) -> Pin:
    """
    A pin as the server takes it; key and alias are compared where they are known.

    Raises:
        IdentityMismatch: not signed by the owner, or of another key.
        RemoteProtocolError: malformed, or for another alias.
    """
    pin = Pin.open(blob, signature, owner_key)
    if contact_key is not None and pin.contact_key != contact_key:
        raise IdentityMismatch("the pin is of another key")
    if alias is not None and pin.alias != alias:
        raise RemoteProtocolError("the pin is for another alias")
    return pin


def check_remove(blob: bytes, signature: bytes, *, remover_key: bytes, removed_key: bytes, now_ms: int) -> Remove:
    """
    A removal as the server takes it.

    Raises:
        IdentityMismatch: not signed by the remover, or of another key.
        ClockSkew: it was not made now.
        RemoteProtocolError: malformed.
    """
    remove = Remove.open(blob, signature, remover_key)
    if remove.removed_key != removed_key:
        raise IdentityMismatch("the removal is of another key")
    check_clock(remove.issued, now_ms, what="the removal")
    return remove


def check_rotate(blob: bytes, signatures: Sequence[bytes], *, old_key: bytes, now_ms: int) -> Rotate:
    """
    A change of key as the server takes it.

    Raises:
        IdentityMismatch: not signed by the account's key and the new one, or they are the same.
        ClockSkew: it was not made now.
        RemoteProtocolError: malformed.
    """
    rotate = Rotate.decode(blob)
    Rotate.open(blob, signatures, old_key, rotate.new_key)
    if rotate.new_key == old_key:
        raise IdentityMismatch("the new key is the old one")
    check_clock(rotate.issued, now_ms, what="the change of key")
    return rotate
