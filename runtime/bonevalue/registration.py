"""Making an account over the network, for programs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bonevalue.config import Address
from bonevalue.discovery import register_account
from bonevalue.sockets import tls_context
from bonevalue.wire.keys import AccountKeys, realm_of

__all__ = ["register"]


async def register(
    address: str,
    username: str,
    password: str,
    *,
    realm: str | None = None,
    ca_file: Path | str | None = None,
) -> None:
    """
    Make an account on a discovery server that takes new ones.

    Raises:
        DiscoveryError: registration is closed, the name is taken or bad, the realm is another.
        WeakPassword: the password is too short or too common.
    """
    where = Address.parse(address)
    realm = realm_of(realm or where.host)
    keys = await asyncio.to_thread(AccountKeys.derive, password, realm=realm, username=username)
    tls = tls_context(str(ca_file) if ca_file else None) if where.secure else None
    await register_account(where, keys, username=username, realm=realm, tls=tls)
