"""
The ICE servers that clients are told of: our own STUN, those of the settings, and TURN with a credential.

A credential is made by the rule of coturn's ``use-auth-secret`` (draft-uberti-behave-turn-rest): the TURN server knows
the secret and nothing else, so nothing is stored and nothing passes between it and us. The username is the moment at
which the credential expires and a name for the account that tells who it is to nobody but us. coturn counts its quotas
by that name, whatever the moment before it; so they are per account, however many credentials it was handed.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Sequence

from bonevalue.settings_fields import Endpoint, is_loopback
from bonevalue.wire.keys import to_base64url
from bonevalue.wire.signals import IceServer, IceServers
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.records import AccountId

__all__ = ["IceHandout"]

#: Bytes of an account's name in a credential.
_NAME_SIZE = 12


class IceHandout:
    """
    What to tell whom.

    Args:
        settings: realm, TURN, further servers.
        stun: where this server answers STUN itself, with the ports that it got.
        secret: the server's key, from which the names of accounts are made.
    """

    def __init__(self, settings: DiscoverySettings, *, stun: Sequence[Endpoint], secret: bytes) -> None:
        self._realm = settings.realm
        self._stun = tuple(stun)
        self._further = [IceServer(list(server.urls)) for server in settings.ice_servers]
        self._turn = settings.turn
        self._turn_secret = b"" if settings.turn.secret is None else settings.turn.secret.get_secret_value().encode()
        self._secret = secret

    @property
    def expires(self) -> bool:
        """Whether what peers are told must be told anew after a while."""
        return bool(self._turn.urls)

    def without_credentials(self, dialled: str) -> IceServers:
        """
        The STUN servers.

        Args:
            dialled: the host that the client dialled; "" if unknown.
        """
        urls = [url for endpoint in self._stun if (url := self._url(endpoint, dialled)) is not None]
        return IceServers([IceServer(urls), *self._further] if urls else list(self._further))

    def for_account(self, account_id: AccountId, dialled: str, now_ms: int) -> IceServers:
        """
        STUN and TURN servers, with a credential made now.

        Args:
            account_id: of the client.
            dialled: the host that it dialled; "" if unknown.
            now_ms: the time of day, in ms since 1970.
        """
        servers = self.without_credentials(dialled).servers
        return IceServers([*servers, self._turn_server(account_id, now_ms)] if self._turn.urls else servers)

    def _url(self, endpoint: Endpoint, dialled: str) -> str | None:
        """Where a client finds our own STUN, as far as we can tell: where it found us."""
        if endpoint.is_wildcard:
            return f"stun:{dialled or self._realm}:{endpoint.port}"
        if endpoint.is_loopback and not is_loopback(dialled):
            return None  # it came through a proxy, which UDP does not
        return f"stun:{endpoint}"

    def _turn_server(self, account_id: AccountId, now_ms: int) -> IceServer:
        expires = -(-(now_ms + round(self._turn.lifetime * 1000)) // 1000)
        username = f"{expires}:{self._name(account_id)}"
        credential = b64encode(hmac.digest(self._turn_secret, username.encode(), hashlib.sha1)).decode()
        return IceServer(list(self._turn.urls), username, credential, expires * 1000)

    def _name(self, account_id: AccountId) -> str:
        text = f"bonevalue/1/turn/{account_id}"
        return to_base64url(hmac.digest(self._secret, text.encode(), hashlib.sha256)[:_NAME_SIZE])
