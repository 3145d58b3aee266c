"""The lists after a login, in pages."""

from __future__ import annotations

import pytest

from bonevalue.wire.signals import MAX_MESSAGE, Contacts, PeerEntry, PeerList, UserList, encode
from bonevalue_server.records import AccountId, Edge
from bonevalue_server.welcome import lists
from tests.support import identity

ALICE, BOB, LATER = (identity.account(name) for name in ("alice", "bob", "bob, later"))
LONGEST = "x" * 32


def edges(number: int, certificates: int = 1) -> list[Edge]:
    """Contacts with names of the greatest length, each with so many certificates of the longest kind."""
    token = identity.token_of(ALICE)
    chain = (identity.invite(ALICE, token, LONGEST), identity.redeem(BOB, token, LONGEST)) * (certificates // 2 + 1)
    return [
        Edge(AccountId(1), f"{index:032}", AccountId(2 + index), BOB.public, "bob", chain[:certificates])
        for index in range(number)
    ]


@pytest.mark.parametrize("certificates", [1, 2, 64])
@pytest.mark.parametrize("number", [0, 1, 150, 1000])
def test_every_page_fits_a_message(number: int, certificates: int) -> None:
    contacts = edges(number, certificates)
    pages = list(lists(contacts, [], with_certificates=True))
    assert all(len(encode(page)) < MAX_MESSAGE for page in pages)
    listed = [contact for page in pages if isinstance(page, Contacts) for contact in page.contacts]
    assert [contact.name for contact in listed] == [edge.alias for edge in contacts]
    assert all(len(contact.certificates) == certificates for contact in listed)


def test_the_last_page_of_each_list_says_so() -> None:
    peers = [PeerEntry(LONGEST, f"{index:015}") for index in range(1200)]
    pages = list(lists(edges(1000), peers, with_certificates=True))
    order = [UserList, Contacts, PeerList]
    turns = [order.index(type(page)) for page in pages]
    assert turns == sorted(turns)
    for kind in (Contacts, PeerList):
        of_kind = [page for page in pages if isinstance(page, kind)]
        assert [page.more for page in of_kind] == [True] * (len(of_kind) - 1) + [False]
        assert len(of_kind) > 1
    assert [entry for page in pages if isinstance(page, PeerList) for entry in page.peers] == peers
    assert all(len(encode(page)) < MAX_MESSAGE for page in pages)


def test_aliases_begin_with_us() -> None:
    (names, *others) = lists(edges(2000), [], with_certificates=False)
    assert isinstance(names, UserList) and names.names[0] == "Us" and len(names.names) == 1000
    assert [len(page.names) for page in others if isinstance(page, UserList)] == [1000, 1]
    assert [page.contacts for page in others if isinstance(page, Contacts)] == [[]]
