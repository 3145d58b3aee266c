"""
What clients ask of the database: accounts, tokens, contacts, removal, another password.

Each request is checked here (who signed it, for whom, when, how often) before the store decides what only it can
know. Who else has to hear of it is not known here: a handler gives the reply and the :data:`News`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from msgspec import Struct

from bonevalue.errors import NotTrusted, RateLimited, RegistrationClosed, TokenInvalid, TooLarge
from bonevalue.wire.blobs import Invite, Redeem
from bonevalue.wire.contacts import check_invite, check_pin, check_redeem, check_remove, check_rotate
from bonevalue.wire.pacing import Buckets
from bonevalue.wire.signals import (
    Binary,
    ChangePassword,
    ClaimToken,
    Done,
    Register,
    Registered,
    RemoveUser,
    RequestToken,
    SignedBlob,
    StagePins,
    TokenClaimed,
    TokenResponse,
    UpdateContact,
)
from bonevalue_server.auth import Auth
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.directory import Directory
from bonevalue_server.networks import network_of
from bonevalue_server.records import Account, AccountId, Edge, Redemption, Rotated
from bonevalue_server.sessions import Session
from bonevalue_server.store import Store

__all__ = ["EdgeChanged", "KeyChanged", "News", "Outcome", "Requests", "TrustEnded", "TrustMade"]

Key = TypeVar("Key", AccountId, str)


@dataclass(frozen=True, slots=True)
class TrustMade:
    """Two accounts trust each other from now on."""

    redemption: Redemption


@dataclass(frozen=True, slots=True)
class TrustEnded:
    """Two accounts do not trust each other any more."""

    remover_id: AccountId
    alias: str
    removed_id: AccountId
    removed_alias: str
    remove: SignedBlob


@dataclass(frozen=True, slots=True)
class EdgeChanged:
    """One direction of trust is proved by other certificates."""

    edge: Edge


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """An account has another key, with proof."""

    rotated: Rotated


News = TrustMade | TrustEnded | EdgeChanged | KeyChanged


@dataclass(frozen=True, slots=True)
class Outcome:
    """The reply to a request, and what others have to hear of it."""

    reply: Struct
    news: News | None = None


class Requests:
    """
    The handlers, one for each type of request; all raise what the client is told.

    Args:
        store: the database.
        auth: registration, and the login secret once more.
        directory: the certificates that are at hand.
        settings: realm, lifetimes, limits.
        clock: monotonic seconds.
        wall_ms: ms since 1970.
    """

    def __init__(
        self,
        store: Store,
        auth: Auth,
        directory: Directory,
        *,
        settings: DiscoverySettings,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        limits = settings.limits
        self._store = store
        self._auth = auth
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._wall_ms = wall_ms
        self._tokens_created: Buckets[AccountId] = Buckets(limits.tokens_created)
        self._tokens_claimed: Buckets[AccountId] = Buckets(limits.tokens_claimed)
        self._tokens_claimed_per_ip: Buckets[str] = Buckets(limits.tokens_claimed_per_ip)

    async def register(self, session: Session, data: Register) -> Outcome:
        """Make an account; the socket is not logged in by it."""
        if self._settings.registration != "open":
            raise RegistrationClosed("this server takes no new accounts over the network: ask its operator")
        new = await self._auth.register(data, challenge=session.challenge, address=session.client.address)
        account = await self._store.add_account(new.username, new.public_key, new.login_hash)
        return Outcome(Registered(account.username))

    async def request_token(self, session: Session, data: RequestToken) -> Outcome:
        """Keep the invite of a token."""
        account = _account(session)
        self._limit(self._tokens_created, account.id, "tokens made")
        now = self._wall_ms()
        invite = check_invite(data.invite, data.signature, inviter_key=account.public_key, alias=data.name, now_ms=now)
        longest = self._settings.limits.token_lifetime_max
        if invite.expires - invite.issued > longest * 1000:
            raise TokenInvalid(f"a token may live {longest:.0f} seconds on this server")
        await self._store.add_invite(
            account.id,
            inviter_key=account.public_key,
            token_key=invite.token_key,
            alias=invite.alias,
            invite=_signed(data.invite, [data.signature]),
            issued=invite.issued,
            expires=invite.expires,
        )
        return Outcome(TokenResponse(invite.expires))

    async def claim_token(self, session: Session, data: ClaimToken) -> Outcome:
        """Make trust with whoever made a token."""
        account = _account(session)
        self._limit(self._tokens_claimed, account.id, "tokens claimed")
        self._limit(self._tokens_claimed_per_ip, network_of(session.client.address), "tokens claimed")
        stored = await self._store.invite(Redeem.decode(data.redeem).token_key)
        if stored is None:
            raise TokenInvalid("there is no such token: mistyped, withdrawn, or long expired")
        redeem = check_redeem(
            data.redeem,
            data.signatures,
            invite=Invite.decode(stored.blob),
            claimer_key=account.public_key,
            username=account.username,
            now_ms=self._wall_ms(),
        )
        pin = check_pin(
            data.pin, data.signature, owner_key=account.public_key, contact_key=redeem.inviter_key, alias=data.name
        )
        redemption = await self._store.redeem(
            account.id,
            claimer_key=account.public_key,
            inviter_key=redeem.inviter_key,
            token_key=redeem.token_key,
            alias=pin.alias,
            redeem=_signed(data.redeem, data.signatures),
            issued=redeem.issued,
            pin=_signed(data.pin, [data.signature]),
        )
        return Outcome(TokenClaimed(pin.alias), TrustMade(redemption))

    async def update_contact(self, session: Session, data: UpdateContact) -> Outcome:
        """Put a pin in the place of a contact's certificates."""
        account = _account(session)
        pin = check_pin(data.pin, data.signature, owner_key=account.public_key)
        edge = await self._store.update_pin(
            account.id, contact_key=pin.contact_key, alias=pin.alias, pin=_signed(data.pin, [data.signature])
        )
        return Outcome(Done(), EdgeChanged(edge))

    async def remove_user(self, session: Session, data: RemoveUser) -> Outcome:
        """End trust."""
        account = _account(session)
        with self._directory.watch() as watch:
            edges = await self._directory.edges(account, watch)
        edge = next((edge for edge in edges if edge.alias == data.name), None)
        if edge is None:
            raise NotTrusted(f"you have no contact {data.name[:32]!r}")
        check_remove(
            data.remove,
            data.signature,
            remover_key=account.public_key,
            removed_key=edge.contact_key,
            now_ms=self._wall_ms(),
        )
        remove = _signed(data.remove, [data.signature])
        removed = await self._store.remove_edge(account.id, edge.alias, remove)
        ended = TrustEnded(account.id, edge.alias, removed.contact_id, removed.contact_alias, remove)
        return Outcome(Done(), ended)

    async def stage_pins(self, session: Session, data: StagePins) -> Outcome:
        """Keep pins for the ``changePassword`` that follows on the same socket."""
        pins = [*(session.pins or ()), *data.pins]
        if len(pins) > self._settings.limits.trusted:
            raise TooLarge(f"an account has at most {self._settings.limits.trusted} contacts to pin")
        session.pins = pins
        return Outcome(Done())

    async def change_password(self, session: Session, data: ChangePassword) -> Outcome:
        """Another key and login secret for the account."""
        account = _account(session)
        staged, session.pins = session.pins or [], None
        rotate = check_rotate(data.rotate, data.signatures, old_key=account.public_key, now_ms=self._wall_ms())
        pins = await asyncio.to_thread(_pins, [*staged, *data.pins], rotate.new_key)
        await self._auth.confirm(account, data.login, address=session.client.address)
        rotated = await self._store.rotate(
            account.id,
            old_key=account.public_key,
            new_key=rotate.new_key,
            login_hash=await self._auth.hash(data.new_login),
            rotate=_signed(data.rotate, data.signatures),
            pins=pins,
        )
        return Outcome(Done(), KeyChanged(rotated))

    def _limit(self, buckets: Buckets[Key], key: Key, what: str) -> None:
        wait = buckets.take(key, self._clock())
        if wait:
            raise RateLimited(f"too many {what}", retry_after=wait)


def _account(session: Session) -> Account:
    if session.account is None:
        raise RuntimeError("a request of a session that is not logged in got past the hub")
    return session.account


def _signed(blob: bytes, signatures: Iterable[bytes]) -> SignedBlob:
    return SignedBlob(Binary(blob), [Binary(signature) for signature in signatures])


def _pins(signed: list[SignedBlob], owner_key: bytes) -> dict[bytes, SignedBlob]:
    """Check many pins: about 0.1 ms each, so not in the event loop."""
    return {check_pin(pin.blob, pin.signatures[0], owner_key=owner_key).contact_key: pin for pin in signed}
