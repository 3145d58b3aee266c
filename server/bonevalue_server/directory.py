"""
What this node knows of accounts and trust without asking the database.

Of every account that has a peer online, :class:`Directory` holds whom it trusts: that is all the hub needs to route.
Of accounts seen lately it also remembers the account and the certificates of its contacts, so that they can come back
while the database is away. What is remembered is dropped as soon as it changes, and a :class:`Watch` tells those who
were just reading that what they read is old.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from bonevalue.errors import SessionEnded
from bonevalue_server.records import Account, AccountId, Edge
from bonevalue_server.store import Store

__all__ = ["Directory", "Watch"]

_NOBODY: Mapping[AccountId, str] = MappingProxyType({})


class Watch:
    """Notices changes from one moment on, for whoever reads from the database meanwhile."""

    __slots__ = ("_directory", "_since")

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._since = 0
        self.renew()

    def renew(self) -> None:
        """Watch from now on."""
        self._since = self._directory.sequence

    def touched(self, account_id: AccountId) -> bool:
        """Whether the account or its trust changed since."""
        return self._directory.touched_at(account_id) > self._since


class Directory:
    """
    Accounts and trust, as far as this node needs them now.

    Args:
        store: where they come from.
        max_accounts: how many accounts are remembered.
        max_edges: how many contacts, with their certificates, are remembered (about 1 KiB each).
    """

    def __init__(self, store: Store, *, max_accounts: int = 16_384, max_edges: int = 16_384) -> None:
        self._store = store
        self._max_accounts = max_accounts
        self._max_edges = max_edges
        self._aliases: dict[AccountId, dict[AccountId, str]] = {}
        # Both in the order of use, the latest at the end.
        self._accounts: dict[str, Account] = {}
        self._edges: dict[AccountId, tuple[Edge, ...]] = {}
        self._edge_count = 0
        self.sequence = 0
        self._watches = 0
        self._touched: dict[AccountId, int] = {}
        self._all_touched = 0

    # -- trust of those who are online -----------------------------------------------------------------------------

    def hold(self, account_id: AccountId, edges: tuple[Edge, ...]) -> None:
        """The account has a peer online, and these are its contacts."""
        self._aliases[account_id] = {edge.contact_id: edge.alias for edge in edges}

    def release(self, account_id: AccountId) -> None:
        """The account has no peer online any more."""
        self._aliases.pop(account_id, None)

    def held(self) -> list[AccountId]:
        """The accounts with a peer online."""
        return list(self._aliases)

    def aliases(self, account_id: AccountId) -> Mapping[AccountId, str]:
        """Whom an account knows by which name, whether or not the trust is mutual; empty if it is not held."""
        return self._aliases.get(account_id, _NOBODY)

    def name_for(self, owner_id: AccountId, other_id: AccountId) -> str | None:
        """What one account calls another if both are held and each trusts the other; ``Us`` for itself."""
        name = self._aliases.get(owner_id, _NOBODY).get(other_id)
        back = self._aliases.get(other_id, _NOBODY).get(owner_id)
        if owner_id == other_id:
            return "Us"
        return name if back is not None else None

    def trusted(self, edge: Edge) -> None:
        """One direction of trust was made, or its certificates changed."""
        self.touch(edge.owner_id)
        if edge.owner_id in self._aliases:
            self._aliases[edge.owner_id][edge.contact_id] = edge.alias

    def untrusted(self, owner_id: AccountId, contact_id: AccountId) -> None:
        """One direction of trust has ended."""
        self.touch(owner_id)
        self._aliases.get(owner_id, {}).pop(contact_id, None)

    # -- what is remembered ----------------------------------------------------------------------------------------

    async def account(self, username: str) -> Account | None:
        """The account of that name."""
        account = self._accounts.pop(username, None)
        if account is None:
            with self.watch() as watch:
                account = await self._store.account(username)
                if account is None or watch.touched(account.id):
                    return account
        self._accounts[username] = account
        if len(self._accounts) > self._max_accounts:
            del self._accounts[next(iter(self._accounts))]
        return account

    async def edges(self, account: Account, watch: Watch) -> tuple[Edge, ...]:
        """
        The contacts of an account with their certificates, as they are at the moment of return.

        Args:
            account: as it was when the watch began.
            watch: renewed if something changed meanwhile.

        Raises:
            SessionEnded: the account was removed meanwhile, or has another key now.
            Unavailable: the database does not answer.
        """
        while True:
            edges = self._edges.pop(account.id, None)
            if edges is None:
                edges = tuple(await self._store.edges(account.id))
            else:
                self._edge_count -= len(edges) + 1
            if not watch.touched(account.id):
                self._remember(account.id, edges)
                return edges
            watch.renew()
            current = await self._store.account_by_id(account.id)
            if current is None or current.public_key != account.public_key:
                raise SessionEnded("the account was removed or its password changed: log in anew")

    def _remember(self, account_id: AccountId, edges: tuple[Edge, ...]) -> None:
        self._edges[account_id] = edges
        self._edge_count += len(edges) + 1
        while self._edge_count > self._max_edges:
            self._edge_count -= len(self._edges.pop(next(iter(self._edges)))) + 1

    # -- changes ---------------------------------------------------------------------------------------------------

    def touch(self, account_id: AccountId) -> None:
        """The trust of an account changed: forget what is remembered of it."""
        self.sequence += 1
        if self._watches:
            self._touched[account_id] = self.sequence
        edges = self._edges.pop(account_id, None)
        if edges is not None:
            self._edge_count -= len(edges) + 1

    def forget(self, account_id: AccountId) -> None:
        """The account itself changed: forget all that is remembered of it."""
        self.touch(account_id)
        for username in [name for name, account in self._accounts.items() if account.id == account_id]:
            del self._accounts[username]

    def forget_all(self) -> None:
        """Anything may have changed."""
        self.sequence += 1
        self._all_touched = self.sequence
        self._accounts.clear()
        self._edges.clear()
        self._edge_count = 0

    def touched_at(self, account_id: AccountId) -> int:
        """When, in the count of ``sequence``, something of the account changed; 0 for not since anybody watches."""
        return max(self._all_touched, self._touched.get(account_id, 0))

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """A watch over all changes while the block runs."""
        self._watches += 1
        try:
            yield Watch(self)
        finally:
            self._watches -= 1
            if not self._watches:
                self._touched.clear()
