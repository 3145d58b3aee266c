"""
What happened to an account while it had nobody online: trust that ended, and things its people have to be told.

A notice is told to whoever is online by key, and forgotten only when one of those was still there a moment later: a
socket that was dead already has told nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msgspec import Struct

from bonevalue.errors import Unavailable
from bonevalue.wire.signals import Failure, UserRemove
from bonevalue_server.records import AccountId, Notice, Removal
from bonevalue_server.sessions import Session, State
from bonevalue_server.store import Store

__all__ = ["Missed", "Notices"]


@dataclass(frozen=True, slots=True)
class Missed:
    """What a client may not have heard of."""

    removals: tuple[Removal, ...] = ()
    notices: tuple[Notice, ...] = ()

    def messages(self) -> Iterator[Struct]:
        """How the client is told."""
        for removal in self.removals:
            yield UserRemove(removal.name, removal.remove)
        for notice in self.notices:
            yield Failure(notice.code, notice.message)


class Notices:
    """
    Keeps book of who was told what.

    Args:
        store: where the notices wait.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: list[tuple[Session, AccountId, int]] = []

    async def load(self, account_id: AccountId) -> Missed:
        """What an account has to be told; nothing, if the database is away."""
        try:
            removals, notices = await self._store.missed(account_id)
        except Unavailable:
            return Missed()
        return Missed(tuple(removals), tuple(notices))

    def told(self, session: Session, account_id: AccountId, missed: Missed) -> None:
        """A session was told."""
        if missed.notices:
            self._told.append((session, account_id, missed.notices[-1].id))

    async def settle(self) -> None:
        """Forget what was told to sessions that are still there; to be called every few seconds."""
        self._told = [entry for entry in self._told if entry[0].state is State.ONLINE]
        try:
            while self._told:
                _, account_id, last_id = self._told[0]
                await self._store.clear_notices(account_id, last_id)
                self._told.pop(0)
        except Unavailable:
            return  # the database is away: later
