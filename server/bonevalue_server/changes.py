"""What other processes (``bv account ...``) write in the database while this node runs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from bonevalue.errors import Unavailable
from bonevalue_server.announcer import Announcer
from bonevalue_server.directory import Directory
from bonevalue_server.records import AccountId, Change
from bonevalue_server.store import Store

__all__ = ["Changes"]

logger = logging.getLogger(__name__)


class Changes:
    """
    Follows the journal of the database.

    Args:
        store: the database.
        directory: what is to be forgotten or loaded anew.
        announcer: who has to hear of it.
        end_sessions: ends the sessions of an account that logged in with another key than this; None for all.
    """

    def __init__(
        self,
        store: Store,
        directory: Directory,
        announcer: Announcer,
        end_sessions: Callable[[AccountId, bytes | None], None],
    ) -> None:
        self._store = store
        self._directory = directory
        self._announcer = announcer
        self._end_sessions = end_sessions
        self._pending: deque[Change] = deque()
        self.is_database_well = True
        """Whether the database answered when it was last asked."""

    async def poll(self) -> None:
        """Take over what is new; if the database is away, the next call goes on where this one stopped."""
        try:
            self._pending.extend(await self._store.changes())
            while self._pending:
                await self._take_over(self._pending[0])
                self._pending.popleft()
        except Unavailable as error:
            if self.is_database_well:
                logger.warning("the database does not answer: %s", error.message)
            self.is_database_well = False
        else:
            if not self.is_database_well:
                logger.warning("the database answers again")
            self.is_database_well = True

    async def _take_over(self, change: Change) -> None:
        if change.what == "account":
            await self._reload_account(change.account_id)
            await self._reload_trust(change.account_id)  # a reset ends it; with the same key, sessions go on
        elif change.what == "trust":
            await self._reload_trust(change.account_id)
        else:
            self._directory.forget_all()
            for account_id in self._directory.held():
                await self._reload_account(account_id)
                await self._reload_trust(account_id)

    async def _reload_account(self, account_id: AccountId) -> None:
        self._directory.forget(account_id)
        current = await self._store.account_by_id(account_id)
        self._end_sessions(account_id, None if current is None else current.public_key)

    async def _reload_trust(self, account_id: AccountId) -> None:
        self._directory.touch(account_id)
        with self._directory.watch() as watch:
            while True:
                edges = await self._store.edges(account_id)
                if not watch.touched(account_id):
                    break
                watch.renew()
        self._announcer.reloaded(account_id, edges)
