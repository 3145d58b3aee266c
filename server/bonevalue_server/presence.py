"""
Who is online on this node, and who is to know.

A peer whose socket is lost stays here for a grace time: it is still in everyone's list, and nobody hears of a loss
that is over before the grace time is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from bonevalue.wire.signals import PeerEntry
from bonevalue_server.directory import Directory
from bonevalue_server.due import Due
from bonevalue_server.records import AccountId
from bonevalue_server.sessions import Peer, Session

__all__ = ["PEER_IDS", "Presence"]

#: One more than the largest peer id.
PEER_IDS = 10**15


class Presence:
    """
    The online peers, by id and by account.

    Args:
        directory: who trusts whom.
        grace_time: seconds for which a lost peer may come back before it is missed.
        random_below: gives a random number from 0 up to its argument, not to be guessed.
    """

    def __init__(self, directory: Directory, *, grace_time: float, random_below: Callable[[int], int]) -> None:
        self._directory = directory
        self._random_below = random_below
        self._peers: dict[str, Peer] = {}
        self._accounts: dict[AccountId, dict[str, Peer]] = {}
        self._lost: Due[Peer] = Due(grace_time)

    def __len__(self) -> int:
        return len(self._peers)

    def get(self, peer_id: str) -> Peer | None:
        """The peer of an id, lost ones included."""
        return self._peers.get(peer_id)

    def of(self, account_id: AccountId) -> Collection[Peer]:
        """All peers of an account, lost and invisible ones included."""
        return self._accounts.get(account_id, {}).values()

    def new_id(self) -> str:
        """A random peer id that nobody has."""
        while (peer_id := str(self._random_below(PEER_IDS))) in self._peers:
            pass
        return peer_id

    def add(self, peer: Peer) -> None:
        """A peer came online."""
        self._peers[peer.id] = peer
        self._accounts.setdefault(peer.account_id, {})[peer.id] = peer

    def remove(self, peer: Peer) -> None:
        """A peer has gone."""
        self._lost.discard(peer)
        del self._peers[peer.id]
        others = self._accounts[peer.account_id]
        del others[peer.id]
        if not others:
            del self._accounts[peer.account_id]

    # -- grace -----------------------------------------------------------------------------------------------------

    def lose(self, peer: Peer, now: float) -> None:
        """The peer's socket is lost; it may come back for a while."""
        peer.session = None
        self._lost.put(peer, now)

    def regain(self, peer: Peer, session: Session) -> None:
        """The peer has a socket again."""
        peer.session = session
        self._lost.discard(peer)

    def overdue(self, now: float) -> Iterator[Peer]:
        """The lost peers that did not come back in time; they are to be removed."""
        return self._lost.take(now)

    # -- who sees whom ---------------------------------------------------------------------------------------------

    def sessions(self, account_id: AccountId) -> list[Session]:
        """The sessions of an account."""
        return [peer.session for peer in self.of(account_id) if peer.session is not None]

    def audience(self, peer: Peer) -> Iterator[tuple[Session, str]]:
        """Everyone who is to know of a visible peer, and by which name they know its account."""
        directory = self._directory
        for other in list(self.of(peer.account_id)):
            if other is not peer and other.session is not None:
                yield other.session, "Us"
        for contact_id in list(directory.aliases(peer.account_id)):
            if contact_id in self._accounts and (name := directory.name_for(contact_id, peer.account_id)) is not None:
                for session in self.sessions(contact_id):
                    yield session, name

    def visible(self, account_id: AccountId, name: str) -> Iterator[PeerEntry]:
        """The visible peers of an account, under the name that somebody knows it by."""
        for peer in self.of(account_id):
            if peer.visible:
                yield PeerEntry(name, peer.id)

    def list_for(self, peer: Peer) -> Iterator[PeerEntry]:
        """Every peer that a peer is to know of."""
        for entry in self.visible(peer.account_id, "Us"):
            if entry.id != peer.id:
                yield entry
        for contact_id in self._directory.aliases(peer.account_id):
            if contact_id in self._accounts and (name := self._directory.name_for(peer.account_id, contact_id)):
                yield from self.visible(contact_id, name)
