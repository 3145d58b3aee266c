"""
Who hears of what: peers that come and go, trust that begins and ends, keys that change.

Two orders are kept for every client: an alias is told before the first peer under it, and its peers are taken away
before it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from bonevalue.wire.signals import PeerConnect, PeerDisconnect, UserAdd, UserRemove
from bonevalue_server.directory import Directory
from bonevalue_server.presence import Presence
from bonevalue_server.records import AccountId, Edge
from bonevalue_server.requests import EdgeChanged, KeyChanged, News, TrustEnded, TrustMade
from bonevalue_server.sessions import Peer, Session
from bonevalue_server.welcome import contact_of

__all__ = ["Announcer"]


class Announcer:
    """
    Brings the directory up to date and tells the sessions concerned.

    Args:
        presence: who is online.
        directory: who trusts whom.
        deliver: sends a message to a session.
    """

    def __init__(self, presence: Presence, directory: Directory, deliver: Callable[[Session, Struct], None]) -> None:
        self._presence = presence
        self._directory = directory
        self._deliver = deliver

    def online(self, peer: Peer) -> None:
        """A visible peer is there."""
        for session, name in self._presence.audience(peer):
            self._deliver(session, PeerConnect(name, peer.id))

    def gone(self, peer: Peer) -> None:
        """A visible peer is there no more."""
        for session, _ in self._presence.audience(peer):
            self._deliver(session, PeerDisconnect(peer.id))

    def spread(self, news: News) -> None:
        """Something was written to the database."""
        match news:
            case TrustMade(redemption):
                edges = (redemption.inviter, redemption.claimer)
                for edge in edges:
                    self._directory.trusted(edge)
                for edge in edges:
                    self._tell(edge.owner_id, UserAdd(edge.alias, contact_of(edge)))
                self._meet(redemption.inviter.owner_id, redemption.claimer.owner_id)
            case TrustEnded(remover_id, alias, removed_id, removed_alias, remove):
                self._part(remover_id, removed_id)
                self._directory.untrusted(remover_id, removed_id)
                self._directory.untrusted(removed_id, remover_id)
                self._tell(remover_id, UserRemove(alias, remove))
                self._tell(removed_id, UserRemove(removed_alias, remove))
            case EdgeChanged(edge):
                self._directory.trusted(edge)
            case KeyChanged(rotated):
                self._directory.forget(rotated.account.id)
                for edge in rotated.contacts:
                    self._directory.trusted(edge)
                    self._tell(edge.owner_id, UserAdd(edge.alias, contact_of(edge)))

    def reloaded(self, account_id: AccountId, edges: Collection[Edge]) -> None:
        """Another process changed the trust of an account: these are its contacts now."""
        if not self._presence.of(account_id):
            return
        known = dict(self._directory.aliases(account_id))
        aliases = {edge.contact_id: edge.alias for edge in edges}
        for contact_id, alias in known.items():
            if aliases.get(contact_id) != alias:
                self._part(account_id, contact_id)
                self._directory.untrusted(account_id, contact_id)
                self._tell(account_id, UserRemove(alias))
        for edge in edges:
            if known.get(edge.contact_id) != edge.alias:
                self._directory.trusted(edge)
                self._tell(account_id, UserAdd(edge.alias, contact_of(edge)))
                self._meet(account_id, edge.contact_id)

    def _tell(self, account_id: AccountId, message: Struct) -> None:
        """Tell all sessions of an account."""
        for session in self._presence.sessions(account_id):
            self._deliver(session, message)

    def _meet(self, one: AccountId, other: AccountId) -> None:
        """The peers of two accounts see each other from now on, if both trust."""
        for owner_id, contact_id in ((one, other), (other, one)):
            name = self._directory.name_for(owner_id, contact_id)
            if name is not None:
                for entry in list(self._presence.visible(contact_id, name)):
                    self._tell(owner_id, PeerConnect(name, entry.id))

    def _part(self, one: AccountId, other: AccountId) -> None:
        """The peers of two accounts see each other no more, if they did."""
        for owner_id, contact_id in ((one, other), (other, one)):
            name = self._directory.name_for(owner_id, contact_id)
            if name is not None:
                for entry in list(self._presence.visible(contact_id, name)):
                    self._tell(owner_id, PeerDisconnect(entry.id))
