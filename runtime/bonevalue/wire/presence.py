"""
Which peers are online, as far as the server tells (docs/protocol.md, "Discovery").

The server's lists are snapshots. :class:`Presence` compares each of them with what it knew, and reports the
differences and nothing else. A known peer that is missing after a reconnect may only not be back yet, because it
was the server that restarted: it is held for :data:`HOLD` seconds before it counts as gone.
"""

from __future__ import annotations

from collections.abc import Mapping

from bonevalue.wire.session_events import PeerConnected, PeerDisconnected, PeerReturned

__all__ = ["HOLD", "Presence"]

#: Seconds for which a known peer may be missing from the list after a reconnect before it counts as gone.
HOLD = 15.0

Change = PeerConnected | PeerDisconnected | PeerReturned


class Presence:
    """The online peers, each under the alias of its account. Every method gives the changes that it made."""

    def __init__(self) -> None:
        self.peers: dict[str, str] = {}
        """Peer id to alias, held ones included."""
        self._held: set[str] = set()
        self._held_until = 0.0

    def replace(self, listed: Mapping[str, str], now: float) -> list[Change]:
        """Take a whole list (peer id to alias): who is new appears, who is missing is held."""
        changes = [
            change
            for peer_id, name in listed.items()
            if self.peers.get(peer_id) != name
            for change in self.appear(name, peer_id)
        ]
        self._held = self.peers.keys() - listed.keys()
        self._held_until = now + HOLD
        return changes

    def appear(self, name: str, peer_id: str) -> list[Change]:
        """A peer is online: new, or, if it was known under this alias, on another socket."""
        self._held.discard(peer_id)
        if self.peers.get(peer_id) == name:
            return [PeerReturned(peer_id)]
        changes = self.vanish(peer_id)
        self.peers[peer_id] = name
        return [*changes, PeerConnected(name, peer_id)]

    def vanish(self, peer_id: str) -> list[Change]:
        """A peer has gone; news only if it was known."""
        self._held.discard(peer_id)
        name = self.peers.pop(peer_id, None)
        return [] if name is None else [PeerDisconnected(peer_id, name)]

    def vanish_all(self, name: str) -> list[Change]:
        """An alias has gone, and its peers with it."""
        gone = [peer_id for peer_id, known in self.peers.items() if known == name]
        return [change for peer_id in gone for change in self.vanish(peer_id)]

    def freeze(self) -> None:
        """The server is away: whoever was known stays known until its next list has come."""
        self._held.clear()

    def timer(self) -> float | None:
        """When the held count as gone; None if nobody is held."""
        return self._held_until if self._held else None

    def handle_timer(self, now: float) -> list[Change]:
        """The held have gone, if their time is over."""
        if now < self._held_until:
            return []
        return [change for peer_id in sorted(self._held) for change in self.vanish(peer_id)]
