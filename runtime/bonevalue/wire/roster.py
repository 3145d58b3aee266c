"""
Whom an account may talk to, and which of their peers are online: aliases, contacts and presence kept together.

The server's word makes an alias and its peers *known*; only certificates make it *proved* (the contact book's part).
What is known but not proved is shown, with what is wrong with it, and gets no connection.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bonevalue.errors import BadMessage, BadName, BoneValueError
from bonevalue.wire.contacts import ContactBook, Verdict
from bonevalue.wire.keys import alias_of
from bonevalue.wire.presence import Presence
from bonevalue.wire.session_events import ContactRefused, Event, KeyChanged, UserAdded, UserRemoved
from bonevalue.wire.signals import (
    Binary,
    Contact,
    Contacts,
    PeerConnect,
    PeerList,
    SignedBlob,
    UpdateContact,
    UserAdd,
    UserList,
    UserRemove,
)

__all__ = ["MAX_ALIASES", "MAX_PEERS", "Roster", "Snapshot"]

logger = logging.getLogger(__name__)

#: Most aliases of an account, ``Us`` included.
MAX_ALIASES = 10_001
#: Most online peers of all aliases.
MAX_PEERS = 262_144


def _check_alias(name: str) -> str:
    # Digits would pass for a peer id and `*` for everyone, and this goes to terminals: the server may not invent names.
    try:
        canonical = name if name == "Us" else alias_of(name)
    except BadName as error:
        raise BadMessage(error.message) from error
    if canonical != name:
        raise BadMessage(f"the alias {name!r} is not in lower case")
    return name


@dataclass(slots=True)
class Snapshot:
    """The server's lists, as far as their pages have come. Every method raises BadMessage for what cannot be."""

    names: dict[str, None] = field(default_factory=dict)  # a dictionary for its order
    contacts: list[Contact] = field(default_factory=list)
    peers: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    _contacts_follow: bool = False

    def add_names(self, page: UserList) -> None:
        """Take aliases."""
        self.names.update(dict.fromkeys(("Us", *map(_check_alias, page.names))))
        if len(self.names) > MAX_ALIASES:
            raise BadMessage(f"more than {MAX_ALIASES} aliases")

    def add_contacts(self, page: Contacts) -> None:
        """Take a page of what the server knows of the aliases' accounts."""
        self.contacts += page.contacts
        self._contacts_follow = page.more
        if len(self.contacts) > MAX_ALIASES:
            raise BadMessage(f"more than {MAX_ALIASES} contacts")

    def add_peers(self, page: PeerList) -> None:
        """Take a page of online peers; the last one completes the snapshot."""
        if not self.names or self._contacts_follow:
            raise BadMessage("peerList before userList and contacts are complete")
        self.peers.update((entry.id, entry.name) for entry in page.peers)
        if len(self.peers) > MAX_PEERS:
            raise BadMessage(f"more than {MAX_PEERS} peers")
        self.complete = not page.more


class Roster:
    """
    Everybody whom one account may talk to.

    Args:
        contacts: the account's contact book, kept up to date from here; without one (a login that has no keys) the
            server's word is all there is.
    """

    def __init__(self, contacts: ContactBook | None) -> None:
        self.refused: dict[str, BoneValueError] = {}
        """The aliases of which the server says something that does not hold, and what is wrong with it."""
        self._contacts = contacts
        self._names: dict[str, None] = {}
        self._presence = Presence()
        self._events: list[Event] = []
        self._pins: list[UpdateContact] = []
        self._unproven: dict[bytes, str] = {}  # who went without proof, so that a later proof still cuts the links

    @property
    def aliases(self) -> tuple[str, ...]:
        """All aliases, in the server's order."""
        return tuple(self._names)

    @property
    def peers(self) -> Mapping[str, str]:
        """Online peers, id to alias."""
        return self._presence.peers

    def events(self) -> list[Event]:
        """What there is to report, once."""
        events, self._events = self._events, []
        return events

    def pins(self) -> list[UpdateContact]:
        """What there is to send to the server, once: our signature in place of longer chains."""
        pins, self._pins = self._pins, []
        return pins

    def timer(self) -> float | None:
        """When to call :meth:`handle_timer`, or None."""
        return self._presence.timer()

    def handle_timer(self, now: float) -> None:
        """It may be time to give somebody up."""
        self._events += self._presence.handle_timer(now)

    def freeze(self) -> None:
        """The server is away: everything stays known until its next lists have come."""
        self._presence.freeze()

    # -- what the server says ----------------------------------------------------------------------------------------

    def replace(self, snapshot: Snapshot, now: float, now_ms: int) -> None:
        """Take complete lists. What differs from what was known is reported; a first list of aliases is no news."""
        known, self._names = self._names, snapshot.names
        before = {name: self._key_of(name) for name in known}
        fresh = [name for name in self._names if name not in known] if known else []
        if self._contacts is not None:
            entries = [entry for entry in snapshot.contacts if entry.name in self._names]
            self._review(self._contacts, self._contacts.replace(entries, now_ms))
        for name, key in before.items():
            if name in self._names:
                self._compare(name, key)
            else:
                self._forget(name, key, proven=False)
        self._events += [UserAdded(name) for name in fresh if self._is_proved(name)]
        peers = {peer_id: name for peer_id, name in snapshot.peers.items() if name in self._names}
        self._events += self._presence.replace(peers, now)

    def add(self, added: UserAdd, now_ms: int) -> None:
        """An account trusts us, or a contact's certificates changed."""
        name = _check_alias(added.name)
        if name == "Us" or added.contact.name != name:
            raise BadMessage("userAdd of one alias with the contact of another")
        if name not in self._names and len(self._names) >= MAX_ALIASES:
            raise BadMessage(f"more than {MAX_ALIASES} aliases")
        was_proved = name in self._names and self._is_proved(name)
        old_key = self._key_of(name)
        self._names[name] = None
        if self._contacts is not None:
            self._review(self._contacts, [self._contacts.receive(added.contact, now_ms)])
        self._compare(name, old_key)
        if not was_proved and self._is_proved(name):
            self._events.append(UserAdded(name))

    def remove(self, removed: UserRemove, now_ms: int) -> None:
        """Trust with an account has ended, proven or not."""
        name = removed.name
        if name == "Us":
            raise BadMessage("userRemove of our own account")
        if name not in self._names:
            if removed.remove is not None:
                self.take_removal(removed.remove, now_ms)
            return
        del self._names[name]
        key, proven = None, False
        if self._contacts is not None:
            key, proven = self._end_trust(self._contacts, removed, now_ms)
            self._review(self._contacts)
        self._forget(name, key, proven=proven)

    def take_removal(self, remove: SignedBlob, now_ms: int) -> bytes | None:
        """
        Trust with somebody has ended, whom only the proof names: another process of ours knows of it, or the server
        tells it late, or of an alias that we do not have.

        Returns:
            The key that links must not have any more; None if it proves nothing.
        """
        book = self._contacts
        if book is None:
            return None
        before = {name: book.key_of(name) for name in self._names}
        try:
            key = book.remove(None, remove, now_ms)
        except BoneValueError as error:
            logger.debug("a removal that proves nothing: %s", error.message)
            return None
        ended = [name for name, known in before.items() if known == key and book.key_of(name) is None]
        for name in ended:
            del self._names[name]
            book.discard(name)
        self._review(book)
        late = self._unproven.pop(key, None)
        if late is not None and book.name_of(key) is None:  # trusted again since, it has nothing to fear
            self._events.append(UserRemoved(late, key, proven=True))
        for name in ended:
            self._forget(name, key, proven=True)
        return key

    def appear(self, peer: PeerConnect) -> None:
        """A peer is online. One of an alias that is not known is nobody to us."""
        if peer.name in self._names:
            if len(self.peers) >= MAX_PEERS:
                raise BadMessage(f"more than {MAX_PEERS} peers")
            self._events += self._presence.appear(peer.name, peer.id)

    def vanish(self, peer_id: str) -> None:
        """A peer has gone."""
        self._events += self._presence.vanish(peer_id)

    # -- contacts ----------------------------------------------------------------------------------------------------

    def _key_of(self, name: str) -> bytes | None:
        return None if self._contacts is None else self._contacts.key_of(name)

    def _is_proved(self, name: str) -> bool:
        return self._contacts is None or self._contacts.key_of(name) is not None

    def _review(self, book: ContactBook, verdicts: Iterable[Verdict] = ()) -> None:
        """
        The book has changed: report what is newly wrong, and pass on the pins that it made.

        What was shown of one contact may speak against others too, so all are looked at.
        """
        before, self.refused = self.refused, {}
        for verdict in (*book.verdicts(), *verdicts):
            name, problem = verdict.name, verdict.problem
            if problem is not None and name not in self.refused:
                self.refused[name] = problem
                known = before.get(name)
                if known is None or (known.code, known.message) != (problem.code, problem.message):
                    self._events.append(ContactRefused(name, problem))
            if verdict.pin is not None:
                blob, signature = verdict.pin
                self._pins.append(UpdateContact(pin=Binary(blob), signature=Binary(signature)))

    def _compare(self, name: str, old_key: bytes | None) -> None:
        """Report it if the alias had a key, and now has another."""
        if old_key is not None and self._key_of(name) not in (None, old_key):
            self._events.append(KeyChanged(name, old_key))

    def _end_trust(self, book: ContactBook, removed: UserRemove, now_ms: int) -> tuple[bytes | None, bool]:
        """The key of the account that is removed, and whether that is proved."""
        key = book.key_of(removed.name)
        if removed.remove is not None:
            try:
                return book.remove(removed.name, removed.remove, now_ms), True
            except BoneValueError as error:
                self._events.append(ContactRefused(removed.name, error))
        book.discard(removed.name)
        return key, False

    def _forget(self, name: str, key: bytes | None, *, proven: bool) -> None:
        self._events += self._presence.vanish_all(name)
        self._events.append(UserRemoved(name, key, proven))
        if key is not None and not proven:
            self._unproven[key] = name
            if len(self._unproven) > MAX_ALIASES:
                del self._unproven[next(iter(self._unproven))]
