"""
How two peers make sure of each other over a server that neither believes (docs/protocol-identity.md, "Connections").

Three steps. The caller signs an *offer*, the callee an *answer*; each names both keys, both peer ids and the
session description, so neither can be delivered to somebody else, mixed with another, or changed. These two alone do
not stop a third account, trusted by both, that passes one's session description off as its own. So each side sends,
first thing inside the encrypted channel, a signature over its role and both hashes, the *confirm*. The third account
can sign one, but is not in the channel to send it; whoever is in the channel signed another offer or answer.

Checks are made in this order, and only what passes all of them is remembered or handed to the engine: form, a
contact's key, signature, keys, peer ids, instance, clock, replay, what is known of the peer id, the session
description.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from bonevalue.errors import Busy, IdentityMismatch, LocalProtocolError, NotTrusted, RemoteProtocolError
from bonevalue.wire.blobs import CLOCK_WINDOW, Answer, Confirm, Offer, check_clock, digest
from bonevalue.wire.keys import SigningKey, verify
from bonevalue.wire.signals import PeerRequest, PeerResponse

__all__ = [
    "MAX_PEERS",
    "MAX_SESSIONS",
    "MAX_SESSIONS_PER_KEY",
    "IncomingOffer",
    "Introductions",
    "KnownKeys",
    "OutgoingOffer",
    "Proof",
    "check_sdp",
]

#: How long a session is remembered, in ms: an offer passes the clock check for no longer.
MEMORY = 2 * CLOCK_WINDOW
#: Most sessions remembered, in all and of one key; a full memory refuses.
MAX_SESSIONS, MAX_SESSIONS_PER_KEY = 65_536, 4_096
#: Seconds after which to ask a full memory again.
FULL = 10.0
#: Most peer ids whose key and instance are remembered; the one not heard of for longest goes first.
MAX_PEERS = 16_384


class KnownKeys(Protocol):
    """What must be known of contacts here; :class:`~bonevalue.wire.contacts.ContactBook` is one."""

    def key_of(self, name: str) -> bytes | None:
        """The key of a verified contact, one's own for ``Us``."""

    def name_of(self, key: bytes) -> str | None:
        """The alias of a verified contact's key, ``Us`` for one's own."""


@dataclass(frozen=True, slots=True)
class OutgoingOffer:
    """An offer that we made. It takes one answer: forget it with the first that verifies."""

    session: bytes
    blob: bytes
    signature: bytes
    offer_hash: bytes
    #: Alias and key of whom we call.
    name: str
    to_key: bytes
    from_peer: str
    to_peer: str


@dataclass(frozen=True, slots=True)
class IncomingOffer:
    """An offer that was verified; ``sdp`` may go to the engine."""

    session: bytes
    offer_hash: bytes
    #: Alias and key of who calls.
    name: str
    key: bytes
    from_peer: str
    to_peer: str
    from_instance: bytes
    sdp: str


@dataclass(frozen=True, slots=True)
class Proof:
    """What makes a channel authenticated: our ``confirm``, and the check of theirs."""

    #: Alias and key of the other side; certain only once :meth:`accepts` said yes.
    name: str
    key: bytes
    #: Our signature, to send as the first thing in the channel.
    mine: bytes
    _theirs: bytes = field(repr=False)
    _contacts: KnownKeys = field(repr=False)

    def accepts(self, signature: bytes) -> bool:
        """
        Whether this, the first thing that came through the channel, is the other side's signature.

        Also no if trust ended, or the alias changed, since the offer.
        """
        return self._contacts.name_of(self.key) == self.name and verify(self.key, signature, self._theirs)


_PRINTABLE = re.compile(r"(?:[ -~]*\r?\n)+\Z")
_FINGERPRINT = re.compile(r"^a=fingerprint:sha-(256|384|512) ([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})*)$", re.MULTILINE)


def check_sdp(sdp: str) -> None:
    """
    Whether a session description is of the one form that we use: data only, bound to one certificate by SHA-256.

    Only printable ASCII in lines, so that every parser sees the same lines in it.

    Raises:
        RemoteProtocolError: it is not.
    """
    if not _PRINTABLE.match(sdp):
        raise RemoteProtocolError("the session description is not lines of printable ASCII")
    text = "\n" + sdp.replace("\r\n", "\n")
    # Parsers differ in what they make of spaces and capitals: what looks like one of these lines must be one.
    loose = text.replace(" ", "").lower()
    if loose.count("\nm=") != 1 or text.count("\nm=application ") != 1:
        raise RemoteProtocolError("the session description is not of exactly one data section")
    fingerprints: list[tuple[str, str]] = _FINGERPRINT.findall(text)
    if loose.count("\na=fingerprint") != len(fingerprints) or any(
        len(digits) != int(bits) // 8 * 3 - 1 for bits, digits in fingerprints
    ):
        raise RemoteProtocolError("the session description has a fingerprint that is none of SHA-2")
    if [bits for bits, _ in fingerprints].count("256") != 1:
        raise RemoteProtocolError("the session description has not exactly one SHA-256 fingerprint")


class Introductions:
    """
    The signing side of making connections; one object a process.

    Args:
        keys: one's own.
        contacts: who else may be talked to.
        instance: 16 random bytes, new in each process.
    """

    def __init__(self, keys: SigningKey, contacts: KnownKeys, instance: bytes) -> None:
        self._keys = keys
        self._contacts = contacts
        self._instance = instance
        #: Our peer id, as soon as the server gave one.
        self.peer_id: str = ""
        self._sessions: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()
        self._sessions_of: dict[bytes, int] = {}
        self._peers: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    # -- calling -------------------------------------------------------------------------------------------------

    def make_offer(self, session: bytes, to_peer: str, name: str, sdp: str, now_ms: int) -> OutgoingOffer:
        """
        Sign an offer.

        Args:
            session: 16 random bytes.
            to_peer: the peer id to call.
            name: the alias that it belongs to, or ``Us``.
            sdp: our session description, gathered.
            now_ms: the time, in ms since 1970.

        Raises:
            NotTrusted: the alias is no verified contact.
            IdentityMismatch: the peer id is known to be of another account.
        """
        key = self._contacts.key_of(name)
        if key is None:
            raise NotTrusted(f"{name} is not a verified contact")
        known = self._peers.get(to_peer)
        if known is not None and known[0] != key:
            raise IdentityMismatch(f"the server says that peer {to_peer} is {name}, and it is not")
        _check_own(sdp)
        blob = Offer(session, now_ms, self._keys.public, key, self.peer_id, to_peer, self._instance, sdp).encode()
        return OutgoingOffer(session, blob, self._keys.sign(blob), digest(blob), name, key, self.peer_id, to_peer)

    def receive_answer(
        self, outgoing: OutgoingOffer, from_peer: str, blob: bytes, signature: bytes, now_ms: int
    ) -> tuple[str, Proof]:
        """
        Check the answer to an offer of ours.

        Returns:
            The session description for the engine, and the proof to exchange in the channel.

        Raises:
            IdentityMismatch: it is not the callee's answer to this offer.
            NotTrusted: trust with the callee ended meanwhile.
            ClockSkew: the clocks differ by more than five minutes.
            RemoteProtocolError: it is malformed.
        """
        self._check_trust(outgoing.name, outgoing.to_key)
        answer = Answer.open(blob, signature, outgoing.to_key)
        same = (
            answer.session == outgoing.session
            and answer.offer_hash == outgoing.offer_hash
            and answer.to_key == self._keys.public
            and answer.from_peer == from_peer == outgoing.to_peer
            and answer.to_peer == outgoing.from_peer
        )
        if not same or answer.from_instance == self._instance:
            raise IdentityMismatch(f"the answer of {outgoing.name} is not to this offer")
        check_clock(answer.issued, now_ms, what=f"the answer of {outgoing.name}")
        self._check_peer(from_peer, outgoing.to_key, answer.from_instance)
        check_sdp(answer.sdp)
        self._remember_peer(from_peer, outgoing.to_key, answer.from_instance)
        return answer.sdp, self._proof("caller", outgoing.name, outgoing.to_key, outgoing.offer_hash, digest(blob))

    # -- being called --------------------------------------------------------------------------------------------

    def receive_offer(
        self, from_peer: str, presence_name: str | None, blob: bytes, signature: bytes, now_ms: int
    ) -> IncomingOffer:
        """
        Check an offer.

        Args:
            from_peer: the peer id that the server says it is from.
            presence_name: the alias that the server gave for that id; None for a peer that it never showed.
            blob: the offer as it came.
            signature: its signature.
            now_ms: the time, in ms since 1970.

        Raises:
            NotTrusted: the key that it names is no verified contact's.
            IdentityMismatch: it is not that contact's offer to this peer, or was seen before.
            ClockSkew: the clocks differ by more than five minutes.
            Busy: too many offers in ten minutes to remember them.
            RemoteProtocolError: it is malformed.
        """
        claimed = Offer.decode(blob).from_key
        name = self._contacts.name_of(claimed)
        if name is None:
            raise NotTrusted(f"peer {from_peer} is not of a verified contact")
        offer = Offer.open(blob, signature, claimed)
        if presence_name not in (None, name):
            raise IdentityMismatch(f"the server says that peer {from_peer} is {presence_name}, and it is {name}")
        if offer.to_key != self._keys.public or offer.to_peer != self.peer_id or offer.from_peer != from_peer:
            raise IdentityMismatch(f"the offer of {name} is from or to another peer")
        if offer.from_instance == self._instance:
            raise IdentityMismatch("the offer is our own")
        check_clock(offer.issued, now_ms, what=f"the offer of {name}")
        self._check_session(claimed, offer.session, now_ms)
        self._check_peer(from_peer, claimed, offer.from_instance)
        check_sdp(offer.sdp)
        self._remember_session(claimed, offer.session, now_ms)
        self._remember_peer(from_peer, claimed, offer.from_instance)
        return IncomingOffer(
            offer.session, digest(blob), name, claimed, from_peer, offer.to_peer, offer.from_instance, offer.sdp
        )

    def make_answer(self, incoming: IncomingOffer, sdp: str, now_ms: int) -> tuple[bytes, bytes, Proof]:
        """
        Sign the answer to a verified offer.

        Returns:
            The answer, its signature, and the proof to exchange in the channel.

        Raises:
            NotTrusted: trust with the caller ended meanwhile.
        """
        self._check_trust(incoming.name, incoming.key)
        _check_own(sdp)
        blob = Answer(
            incoming.session,
            incoming.offer_hash,
            now_ms,
            self._keys.public,
            incoming.key,
            incoming.to_peer,
            incoming.from_peer,
            self._instance,
            sdp,
        ).encode()
        proof = self._proof("callee", incoming.name, incoming.key, incoming.offer_hash, digest(blob))
        return blob, self._keys.sign(blob), proof

    @staticmethod
    def session_of(message: PeerRequest | PeerResponse) -> bytes | None:
        """The session that a message says it is of, to find its place or to refuse it; nothing is verified."""
        try:
            if isinstance(message, PeerRequest):
                return Offer.decode(message.offer).session
            if message.answer is not None:
                return Answer.decode(message.answer).session
        except RemoteProtocolError:
            return None
        return bytes(message.session) if message.session is not None and len(message.session) == 16 else None

    # -- parts ---------------------------------------------------------------------------------------------------

    def _proof(self, role: str, name: str, key: bytes, offer_hash: bytes, answer_hash: bytes) -> Proof:
        other = "callee" if role == "caller" else "caller"
        mine = Confirm(role, offer_hash, answer_hash).encode()
        theirs = Confirm(other, offer_hash, answer_hash).encode()
        return Proof(name, key, self._keys.sign(mine), theirs, self._contacts)

    def _check_trust(self, name: str, key: bytes) -> None:
        if self._contacts.name_of(key) != name:
            raise NotTrusted(f"{name} is not a verified contact any more")

    def _check_session(self, key: bytes, session: bytes, now_ms: int) -> None:
        while self._sessions and next(iter(self._sessions.values())) < now_ms:
            (old_key, _), _ = self._sessions.popitem(last=False)
            self._sessions_of[old_key] -= 1
            if not self._sessions_of[old_key]:
                del self._sessions_of[old_key]
        if (key, session) in self._sessions:
            raise IdentityMismatch("the offer was seen before: somebody repeats it")
        if len(self._sessions) >= MAX_SESSIONS or self._sessions_of.get(key, 0) >= MAX_SESSIONS_PER_KEY:
            raise Busy("too many offers in ten minutes", retry_after=FULL)

    def _remember_session(self, key: bytes, session: bytes, now_ms: int) -> None:
        self._sessions[key, session] = now_ms + MEMORY
        self._sessions_of[key] = self._sessions_of.get(key, 0) + 1

    def _check_peer(self, peer: str, key: bytes, instance: bytes) -> None:
        if self._peers.get(peer, (key, instance)) != (key, instance):
            raise IdentityMismatch(f"peer {peer} was another one before")

    def _remember_peer(self, peer: str, key: bytes, instance: bytes) -> None:
        self._peers[peer] = (key, instance)
        self._peers.move_to_end(peer)
        if len(self._peers) > MAX_PEERS:
            self._peers.popitem(last=False)


def _check_own(sdp: str) -> None:
    try:
        check_sdp(sdp)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"our own {error.message.removeprefix('the ')}") from error
