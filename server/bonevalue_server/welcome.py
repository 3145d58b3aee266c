"""
The lists that a client is told once it is logged in: aliases, contacts, online peers.

They are cut into pages that fit a message, and made only when they are about to be sent: those of an account with a
thousand contacts fill a megabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec import Struct

from bonevalue.wire.signals import (
    Binary,
    Contact,
    Contacts,
    PeerEntry,
    PeerList,
    UserList,
)
from bonevalue_server.records import Edge

__all__ = ["contact_of", "lists"]

Item = TypeVar("Item")

#: Bytes of a page of contacts, a quarter below what a message may have; a single one has at most some 45 KiB.
_CONTACTS_PAGE = 48 * 1024
#: Aliases have at most 35 bytes each, peers at most 75.
_NAMES_PAGE = 1_000
_PEERS_PAGE = 500


def contact_of(edge: Edge) -> Contact:
    """What one account is told of another."""
    return Contact(edge.alias, Binary(edge.contact_key), list(edge.certificates))


def lists(edges: Sequence[Edge], peers: Sequence[PeerEntry], *, with_certificates: bool) -> Iterator[Struct]:
    """
    Aliases, contacts and online peers, in pages.

    Args:
        edges: the account's contacts.
        peers: whoever is online of them.
        with_certificates: whether the client can make use of contacts; if not, it gets an empty list of them.
    """
    names = ["Us", *(edge.alias for edge in edges)]
    for start in range(0, len(names), _NAMES_PAGE):
        yield UserList(names[start : start + _NAMES_PAGE])
    contacts = map(contact_of, edges) if with_certificates else iter(())
    for page, more in _pages(contacts, size_of=_size, page_size=_CONTACTS_PAGE):
        yield Contacts(page, more)
    for entries, more in _pages(peers, size_of=lambda entry: 1, page_size=_PEERS_PAGE):
        yield PeerList(entries, more)


def _pages(
    items: Iterable[Item], *, size_of: Callable[[Item], int], page_size: int
) -> Iterator[tuple[list[Item], bool]]:
    """Items in pages of a size, each with whether another follows; one empty page if there is nothing."""
    page: list[Item] = []
    size = 0
    for item in items:
        item_size = size_of(item)
        if page and size + item_size > page_size:
            yield page, True
            page, size = [], 0
        page.append(item)
        size += item_size
    yield page, False


def _size(contact: Contact) -> int:
    """Rather more than the length of a contact in JSON: base64url makes four characters of three bytes."""
    blobs = sum(len(signed.blob) + 70 * len(signed.signatures) + 40 for signed in contact.certificates)
    return 200 + blobs * 4 // 3
