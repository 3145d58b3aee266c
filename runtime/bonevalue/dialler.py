"""
From a connection request to a proved link, on both sides.

Who dials signs an offer, sends it through the discovery server, checks the signed answer, waits for the channel and
for the other side's proof inside it. Who is dialled checks the offer, signs an answer, and waits likewise. The server
between them can delay or drop any of it, and change none of it unnoticed.

When both dial at once, the offer of the numerically smaller peer id wins: its sender does not take the other's offer,
and the other answers it. The attempt that loses ends when the winner's link is proved (see :mod:`bonevalue.pool`).

Whatever becomes of an offer that was taken in, it is answered or refused: until then the server counts it, and lets few
such offers pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from bonevalue.advice import report_of
from bonevalue.counters import Counters
from bonevalue.errors import (
    BoneValueError,
    ConnectFailed,
    Deadline,
    IdentityMismatch,
    LinkError,
    LinkLost,
    PeerOffline,
    ProtocolError,
    RateLimited,
    Unavailable,
    error_of,
)
from bonevalue.life import DOING, LinkLife, State
from bonevalue.link import Connection, IceConfig, Link, LinkEngine, Stage
from bonevalue.log_limit import LogLimit
from bonevalue.module import Caller
from bonevalue.peer_link import PeerLink
from bonevalue.penalties import Penalties
from bonevalue.sdp import MAX_CANDIDATES
from bonevalue.wire.calls import Proof
from bonevalue.wire.introductions import IncomingOffer, Introductions, OutgoingOffer
from bonevalue.wire.keys import fingerprint
from bonevalue.wire.pacing import MAX_HINT
from bonevalue.wire.refusals import plain
from bonevalue.wire.signals import Binary, Failure, PeerCandidate, PeerRequest, PeerResponse

__all__ = ["Dialler", "MakeLink", "Places", "Signalling"]

logger = logging.getLogger(__name__)

#: Length of the random bytes that name one connection being set up.
SESSION_SIZE = 16
#: Seconds for which the side whose offer wins waits for what becomes of it: had it arrived, there would be an answer.
GLARE_TIME = 2.0
#: Seconds that a proof has to come when the attempt is over.
LAST_CHANCE = 1.0
#: Seconds after which to dial anew when the other side let go of a link that was all but made.
LET_GO = 0.5
MOVED = "the network of this machine changed meanwhile"
#: Longest text of another peer's refusal that is passed on.
MAX_REASON = 500
#: Offers of ours whose answers may come late: so many are remembered after we gave them up.
MAX_GIVEN_UP = 1024


class Signalling(Protocol):
    """The way through the discovery server."""

    async def request(self, message: Struct, *, timeout: float = 10) -> Any:
        """Send and wait for the reply; raises the typed error."""

    def send(self, message: Struct) -> None:
        """Send; raises ``Unavailable`` when offline."""


class Places(Protocol):
    """Room for the links that others dial."""

    def is_dialling(self, peer_id: str) -> bool:
        """Whether this side is dialling that peer."""
        ...

    async def dialled(self, peer_id: str, timeout: float) -> bool:
        """Wait for the end of that, or for so many seconds; whether a link came of it."""
        ...

    def current(self, peer_id: str) -> PeerLink | None:
        """The link to that peer, if there is one."""
        ...

    async def reserve(self, peer_id: str, name: str, key: bytes) -> LinkLife:
        """Take a place for a link of that account; raises ``LinkLimit``."""
        ...

    def release(self, life: LinkLife) -> None:
        """Give it back."""

    def add(self, link: PeerLink) -> None:
        """A link has been proved."""


class MakeLink(Protocol):
    """Puts calls on an open channel."""

    def __call__(
        self, link: Link, connection: Connection, remote: Caller, proof: Proof, life: LinkLife, *, offerer: bool
    ) -> PeerLink: ...


class _Dial:
    """One attempt of ours: what is offered to whom, and the answer it waits for."""

    def __init__(self, outgoing: OutgoingOffer, sdp: str, connection: Connection) -> None:
        #: The offer that counts: if it was made anew, an answer to an earlier one is too late.
        self.outgoing = outgoing
        self.sdp = sdp
        self.connection = connection
        self.response: asyncio.Future[PeerResponse] = asyncio.get_running_loop().create_future()


class Dialler:
    """
    Makes links.

    Args:
        engine: makes connections.
        introductions: signs and checks offers and answers.
        signalling: sends through the discovery server.
        ice: the servers and policy to use for the next connection.
        make_link: puts calls on an open channel.
        report: told of every refusal that concerns identity, for the log and the API.
        timeout: seconds in which a link that others dial must come about.
        penalties: the accounts that are kept away.
        counters: where attempts that fail and requests that are refused are counted.
    """

    def __init__(
        self,
        engine: LinkEngine,
        introductions: Introductions,
        signalling: Signalling,
        *,
        ice: Callable[[], Awaitable[IceConfig]],
        make_link: MakeLink,
        report: Callable[[BoneValueError, str], None],
        timeout: float,
        penalties: Penalties,
        counters: Counters,
    ) -> None:
        self._engine = engine
        self._introductions = introductions
        self._signalling = signalling
        self._ice = ice
        self._make_link = make_link
        self._report = report
        self._timeout = timeout
        self._penalties = penalties
        self._counters = counters
        self._dials: dict[bytes, _Dial] = {}
        #: What is being set up, and what of it the network has left behind.
        self._connections: set[Connection] = set()
        self._left_behind: set[Connection] = set()
        self._closings: set[asyncio.Future[None]] = set()
        #: The peers that have answered us, whose links are not there yet.
        self._answered: set[str] = set()
        self._given_up: OrderedDict[bytes, str] = OrderedDict()
        self._answering: dict[tuple[str, bytes], Connection] = {}
        #: What has been answered and is being set up: candidates may come behind the answer.
        self._accepted: dict[tuple[str, bytes], Connection] = {}
        #: Candidates of those who dial, for connections that are not begun yet.
        self._early: dict[tuple[str, bytes], list[str]] = {}
        #: The offers, by sender and session, to which nothing has been said yet.
        self._unanswered: set[tuple[str, bytes]] = set()
        #: The peers that we are answering just now.
        self._answers: dict[str, asyncio.Task[Any] | None] = {}
        self._log_limit = LogLimit(counters)

    # -- dialling ------------------------------------------------------------------------------------------------------

    async def dial(self, peer_id: str, name: str, life: LinkLife, timeout: float) -> PeerLink:
        """
        A proved link to a peer.

        Args:
            peer_id: whom to dial.
            name: our alias for its account, as presence has it.
            life: is told how far it has come.
            timeout: seconds in which it must come about.

        Raises:
            LinkError: none came about; ``connect_failed`` tells the phase, what was tried, and what to do.
            PeerOffline: the server knows no such peer, or it does not trust this account.
            RateLimited: that peer keeps this account away for a while.
            Unavailable: the discovery server cannot be reached.
        """
        life.name = name
        try:
            return await self._attempt(peer_id, name, life, timeout)
        except BoneValueError as error:
            self._counters.dials_failed[error.code] += 1
            raise

    async def _attempt(self, peer_id: str, name: str, life: LinkLife, timeout: float) -> PeerLink:
        life.to(State.GATHERING)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout):
                connection = self._connection(await self._ice())
                return await self._dial(peer_id, name, connection, life, timeout)
        except BaseException as error:
            failed = await self._failure(error, f"no link to {name}/{peer_id}", life, connection, timeout)
            if failed is not None:
                if failed.retry_after is None:
                    # A time that is over says nothing about anybody; what broke may be somebody's work.
                    (self._note if type(error) is ConnectFailed else self._log)(failed, peer_id)
                raise failed from error
            if isinstance(error, LinkError):
                self._note(error, peer_id)
            raise
        finally:
            self._forget(connection)

    async def _dial(self, peer_id: str, name: str, connection: Connection, life: LinkLife, timeout: float) -> PeerLink:
        sdp = await connection.create_offer()
        dial = _Dial(self._offer(peer_id, name, sdp), sdp, connection)
        self._dials[dial.outgoing.session] = dial
        try:
            life.to(State.RELAY)
            response = await self._ask(dial, life, timeout)
        except BaseException:
            self._give_up(dial.outgoing)
            raise
        finally:
            del self._dials[dial.outgoing.session]
        outgoing = dial.outgoing
        if response.error is not None:
            raise _refusal(response.error, f"{name}/{peer_id}")
        sdp, proof = self._introductions.receive_answer(
            outgoing, response.from_ or "", response.answer or b"", response.signature or b"", _now_ms()
        )
        remote = Caller(name, peer_id, outgoing.to_key, fingerprint(outgoing.to_key))
        life.to(State.CHECKING)
        connection.on_stage = partial(_follow, life)
        self._answered.add(peer_id)
        self._accepted[peer_id, outgoing.session] = connection
        try:
            await connection.accept_answer(sdp)
            return await self._prove(await connection.opened(), connection, remote, proof, life, offerer=True)
        finally:
            self._answered.discard(peer_id)
            del self._accepted[peer_id, outgoing.session]

    def _offer(self, peer_id: str, name: str, sdp: str) -> OutgoingOffer:
        return self._introductions.make_offer(secrets.token_bytes(SESSION_SIZE), peer_id, name, sdp, _now_ms())

    def _give_up(self, outgoing: OutgoingOffer) -> None:
        self._given_up[outgoing.session] = outgoing.to_peer
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.popitem(last=False)

    async def _ask(self, dial: _Dial, life: LinkLife, timeout: float) -> PeerResponse:
        """Send the offer; the answer comes as a message of its own, what the server says of the offer as a reply."""
        relay = asyncio.ensure_future(self._signalling.request(_request(dial.outgoing), timeout=timeout))
        try:
            await asyncio.wait((relay, dial.response), return_when=asyncio.FIRST_COMPLETED)
            if relay.done() and not dial.response.done():
                # No word of it, or the connection to the server was lost: once that is back, it is asked again.
                with contextlib.suppress(Deadline, Unavailable):
                    relay.result()
                    life.to(State.ANSWER)
            return await dial.response
        finally:
            relay.cancel()
            await asyncio.wait({relay})
            if not relay.cancelled():
                relay.exception()  # looked at above, if it was of interest

    def ask_again(self, peer_id: str | None = None) -> None:
        """
        A peer may not have got what it was asked: whoever waits for its answer makes another offer, of the same.

        Another, because it takes each offer once. If it has the earlier one as well, it gives that one up.

        Args:
            peer_id: the peer; None for all, because their answers may be lost.
        """
        for dial in list(self._dials.values()):
            if dial.response.done() or peer_id not in (None, dial.outgoing.to_peer):
                continue
            earlier = dial.outgoing
            with contextlib.suppress(BoneValueError):  # offline again, or not trusted any more: time will tell
                outgoing = self._offer(earlier.to_peer, earlier.name, dial.sdp)
                self._signalling.send(_request(outgoing))
                del self._dials[earlier.session]
                self._give_up(earlier)
                self._dials[outgoing.session] = dial
                dial.outgoing = outgoing

    def receive_response(self, response: PeerResponse) -> None:
        """
        An answer or refusal came for an offer of ours.

        A late one is passed over. An answer to an offer that we never made, made to somebody else, or had answered
        already, is reported: no honest server brings such a thing.
        """
        session = self._introductions.session_of(response)
        sender = response.from_ or ""
        dial = self._dials.get(session) if session is not None else None
        if dial is not None and sender == dial.outgoing.to_peer and not dial.response.done():
            dial.response.set_result(response)
        elif dial is not None and dial.response.cancelled():
            pass  # we gave it up in this very moment
        elif response.answer is not None and (session is None or self._given_up.get(session) != sender):
            self._note(
                IdentityMismatch("an answer came to nothing that this peer asked: somebody misdirects it"), sender
            )

    # -- being dialled -------------------------------------------------------------------------------------------------

    async def answer(self, request: PeerRequest, presence_name: str | None, own_id: str, places: Places) -> None:
        """
        Answer a connection request, or refuse it. The proved link is added to ``places``.

        Whatever goes wrong is reported and told to the other side; nothing is raised.

        Args:
            presence_name: alias of the sender as presence has it, None if presence does not know the peer.
            own_id: our own peer id, which settles simultaneous dialling.
        """
        sender = request.from_ or ""
        try:
            incoming = self._introductions.receive_offer(
                sender, presence_name, request.offer, request.signature, _now_ms()
            )
        except BoneValueError as error:
            self._note(error, sender)
            self._turned_away(sender, self._introductions.session_of(request), error)
            return
        try:
            self._penalties.check(incoming.key)  # before anything is done for it
        except RateLimited as error:
            self._counters.limited["penalty"] += 1
            self._turned_away(sender, incoming.session, error)
            return
        self._unanswered.add((sender, incoming.session))
        task = asyncio.current_task()
        earlier = self._answers.get(sender)
        self._answers[sender] = task
        try:
            if earlier is not None:
                # A peer makes one attempt at a time: it has given up the one before, whatever became of it.
                earlier.cancel()
                await asyncio.wait({earlier})
            ours_wins = int(own_id) < int(sender) and self._is_unanswered(sender, places)
            if ours_wins and await places.dialled(sender, GLARE_TIME):
                return  # else the other side has not got it
            await self._accept(incoming, sender, places)
        finally:
            if self._answers.get(sender) is task:
                del self._answers[sender]
            if (sender, incoming.session) in self._unanswered:
                self._refuse(sender, incoming.session, ConnectFailed("another attempt came first", retry_after=LET_GO))

    async def _accept(self, incoming: IncomingOffer, sender: str, places: Places) -> None:
        self._early[sender, incoming.session] = []
        try:
            life = await places.reserve(sender, incoming.name, incoming.key)
        except BaseException as error:
            del self._early[sender, incoming.session]
            if not isinstance(error, BoneValueError):
                raise
            self._turned_away(sender, incoming.session, error)
            return
        try:
            places.add(await self._answer(incoming, sender, life))
        except BoneValueError as error:
            self._counters.offers_refused[error.code] += 1
            if (sender, incoming.session) in self._unanswered:
                self._refuse(sender, incoming.session, error)
            # What both sides dialled at once is no news if the other link won.
            is_benign = type(error) is ConnectFailed and (error.retry_after is not None or places.current(sender))
            if not is_benign:
                self._note(error, sender)
        finally:
            del self._early[sender, incoming.session]
            places.release(life)

    def _is_unanswered(self, peer_id: str, places: Places) -> bool:
        """
        Whether we dial a peer, and it has not answered yet.

        If it dials us after it has answered, it has given that up: the network may have changed under it.
        """
        return places.is_dialling(peer_id) and peer_id not in self._answered

    async def _answer(self, incoming: IncomingOffer, sender: str, life: LinkLife) -> PeerLink:
        life.to(State.GATHERING)
        connection: Connection | None = None
        key = (sender, incoming.session)
        try:
            async with asyncio.timeout(self._timeout):
                connection = self._answering[key] = self._connection(await self._ice())
                connection.on_stage = partial(_follow, life)
                for text in self._early[key]:
                    _add_candidate(connection, text)
                sdp = await connection.accept_offer(incoming.sdp)
                blob, signature, proof = self._introductions.make_answer(incoming, sdp, _now_ms())
                self._signalling.send(PeerResponse(to=sender, answer=Binary(blob), signature=Binary(signature)))
                self._unanswered.discard(key)
                if life.state is State.GATHERING:  # the checks may have begun already
                    life.to(State.CHECKING)
                channel = await connection.opened()
                remote = Caller(incoming.name, sender, incoming.key, fingerprint(incoming.key))
                return await self._prove(channel, connection, remote, proof, life, offerer=False)
        except BaseException as error:
            what = f"no link from {incoming.name}/{sender}"
            failed = await self._failure(error, what, life, connection, self._timeout)
            if failed is None:
                raise
            if key in self._unanswered:
                told = ConnectFailed(f"the other side failed: {failed.message}", retry_after=failed.retry_after)
                self._refuse(sender, incoming.session, told)
            raise failed from error
        finally:
            self._answering.pop(key, None)
            self._forget(connection)

    def linked(self, peer_id: str) -> None:
        """There is a link with a peer: what else it has asked for at the same time leads nowhere any more."""
        task = self._answers.get(peer_id)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def receive_candidate(self, candidate: PeerCandidate) -> None:
        """A further way to reach the peer of a connection that is being set up; one that fits none is passed over."""
        dial = self._dials.get(candidate.session)
        connection: Connection | None
        if dial is not None and dial.outgoing.to_peer == candidate.from_:
            connection = dial.connection
        else:
            of = (candidate.from_ or "", candidate.session)
            connection = self._accepted.get(of) or self._answering.get(of)
            early = self._early.get(of)
            if connection is None and early is not None and len(early) < MAX_CANDIDATES:
                early.append(candidate.candidate)
        if connection is not None:
            _add_candidate(connection, candidate.candidate)

    # -- both ----------------------------------------------------------------------------------------------------------

    def network_changed(self) -> list[str]:
        """
        Addresses of this host are gone, and with them what was to be made of them: end all that is being set up.

        What we dial is tried anew by whoever wants it. Gives the peers that were dialling us: they have our answers
        and would wait in vain.
        """
        for dial in self._dials.values():
            if not dial.response.done():
                dial.response.set_exception(ConnectFailed(MOVED))
        for connection in self._connections:
            self._left_behind.add(connection)
            closing = asyncio.ensure_future(connection.close())
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)
        return [peer_id for peer_id, _ in self._answering]

    def _connection(self, ice: IceConfig) -> Connection:
        connection = self._engine.connection(ice)
        self._connections.add(connection)
        return connection

    def _forget(self, connection: Connection | None) -> None:
        if connection is not None:
            self._connections.discard(connection)
            self._left_behind.discard(connection)

    async def _failure(
        self, error: BaseException, what: str, life: LinkLife, connection: Connection | None, timeout: float
    ) -> ConnectFailed | None:
        """
        Close the connection of an attempt that failed. What to raise in place of the error, None if that stands for
        itself.

        Whatever broke on the way is a ``connect_failed`` that says how far it came, what was tried, and what to do. It
        may be repeated at once if only the network has changed, and soon if the other side let go of the link when it
        was all but made: that happens when both dial at once.
        """
        tried = None if connection is None else connection.tried()
        if connection is not None:
            await _close(connection)
        if isinstance(error, TimeoutError):
            why = f"{what} within {timeout:.3g} s; it was {DOING[life.phase]}"
        elif isinstance(error, (LinkLost, ProtocolError)) or type(error) is ConnectFailed:
            why = f"{what} while {DOING[life.phase]}: {error.message}"
        else:
            return None
        if connection in self._left_behind:
            return ConnectFailed(f"{what}: {MOVED}", retry_after=0.0)
        let_go = life.phase is State.PROOF and isinstance(error, LinkLost)
        return ConnectFailed(
            why,
            report=report_of(life.phase, tried),
            retry_after=LET_GO if let_go else getattr(error, "retry_after", None),
        )

    async def _prove(
        self, channel: Link, connection: Connection, remote: Caller, proof: Proof, life: LinkLife, *, offerer: bool
    ) -> PeerLink:
        life.to(State.PROOF)
        link = self._make_link(channel, connection, remote, proof, life, offerer=offerer)
        proved = asyncio.ensure_future(link.prove())
        try:
            await asyncio.shield(proved)
        except asyncio.CancelledError:
            # Our hello is out, and the other side may be calling already: the pool settles which link stays.
            await asyncio.wait({proved}, timeout=LAST_CHANCE)
            if not proved.done():
                link.close()
                await asyncio.wait({proved})
                raise
        except BaseException:
            link.close()
            raise
        proved.result()
        return link

    def _turned_away(self, sender: str, session: bytes | None, error: BoneValueError) -> None:
        self._counters.offers_refused[error.code] += 1
        self._refuse(sender, session, error)

    def _refuse(self, to: str, session: bytes | None, error: BoneValueError) -> None:
        if session is None or not to:
            return
        self._unanswered.discard((to, session))
        failure = Failure(code=error.code, message=error.message[:MAX_REASON], retry_after=error.retry_after)
        with contextlib.suppress(Unavailable):
            self._signalling.send(PeerResponse(to=to, session=Binary(session), error=failure))

    def _note(self, error: BoneValueError, peer_id: str) -> None:
        """Somebody refused, or was refused."""
        self._log(error, peer_id)
        self._report(error, peer_id)

    def _log(self, error: BoneValueError, peer_id: str) -> None:
        passes, left_out = self._log_limit.passes((peer_id, error.code))
        if passes:
            more = f" ({left_out} such lines left out)" if left_out else ""
            logger.warning("no link with %s: %s: %s%s", peer_id or "an unnamed peer", error.code, error.message, more)


def _request(outgoing: OutgoingOffer) -> PeerRequest:
    return PeerRequest(to=outgoing.to_peer, offer=Binary(outgoing.blob), signature=Binary(outgoing.signature))


def _follow(life: LinkLife, stage: Stage) -> None:
    """The engine has come further; what else it tells of, the dialler knows from what it does itself."""
    if stage in (Stage.CHECKING, Stage.DTLS) and life.is_setting_up:
        life.to(State(stage.value))


def _refusal(failure: Failure, peer: str) -> BoneValueError:
    """The error for a refusal that came, unsigned, through the server: never one that accuses anybody."""
    code = plain(failure.code)[:64]
    wait = None if failure.retry_after is None else min(max(failure.retry_after, 0.0), MAX_HINT)
    error = error_of(code, f"{peer} refused: {plain(failure.message) or code}", retry_after=wait)
    passed_on = (LinkError, PeerOffline, RateLimited, Unavailable)
    if isinstance(error, passed_on) and not isinstance(error, IdentityMismatch):
        return error
    return ConnectFailed(error.message, retry_after=wait)


def _now_ms() -> int:
    return int(time.time() * 1000)


def _add_candidate(connection: Connection, text: str) -> None:
    with contextlib.suppress(ProtocolError):
        connection.add_candidate(text)


async def _close(connection: Connection) -> None:
    """Close to the end, also when this task is being cancelled."""
    await asyncio.shield(asyncio.ensure_future(connection.close()))
