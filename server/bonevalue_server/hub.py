"""
The discovery server without its sockets: who is logged in, what each client may do, who hears of it.

What comes in is judged by :mod:`bonevalue_server.rules`, what goes out passes :meth:`Hub.outgoing`, and what peers send
each other passes :meth:`Hub.relay`: three places to read, and for tests to turn an honest server into a dishonest one.
Relayed messages are passed on at once, also while the database is away; what needs the database runs in one task a
session, request after request. docs/protocol-discovery.md says what a client may rely on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from bonevalue.errors import (
    BadMessage,
    BoneValueError,
    Busy,
    GoingAway,
    LoginTimeout,
    RateLimited,
    Replaced,
    SessionEnded,
    TooManyPeers,
    Unavailable,
    UnknownType,
)
from bonevalue.settings_fields import Endpoint
from bonevalue.wire import signals
from bonevalue.wire.pacing import Bucket, Buckets
from bonevalue.wire.signals import (
    Binary,
    Done,
    Failure,
    Goodbye,
    Hello,
    IceServers,
    Login,
    PeerConnect,
    RequestIceServers,
    SetPeerId,
    Signal,
)
from bonevalue_server.announcer import Announcer
from bonevalue_server.auth import Auth, Tickets
from bonevalue_server.changes import Changes
from bonevalue_server.config import DiscoverySettings
from bonevalue_server.counters import Counters
from bonevalue_server.directory import Directory
from bonevalue_server.due import Due
from bonevalue_server.ice import IceHandout
from bonevalue_server.notices import Missed, Notices
from bonevalue_server.presence import Presence
from bonevalue_server.records import Account, AccountId, Edge, SecondRedemption
from bonevalue_server.relay import Relay
from bonevalue_server.relayed import Plain, Relayed, message_of, parse, plain_of, to_text
from bonevalue_server.requests import KeyChanged, Outcome, Requests
from bonevalue_server.rules import RELAYED, close_code, permit
from bonevalue_server.sessions import Client, Peer, Session, State
from bonevalue_server.store import Store
from bonevalue_server.welcome import lists

__all__ = ["SERVICE_RESTART", "VERSION", "Hub"]

logger = logging.getLogger(__name__)

#: The version of the discovery protocol.
VERSION = 1
#: Close code of a planned stop (RFC 6455 registry, "Service Restart").
SERVICE_RESTART = 1012
#: Within how many seconds clients come back after a planned stop, each at its own moment.
_SPREAD = 15.0
#: How many requests of one session wait for the database.
_WAITING = 16
#: How long a stop waits for what is being written, in seconds.
_STOP_TIMEOUT = 6.0


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class Hub:
    """
    All sessions of this node.

    Args:
        store: the database.
        auth: who may log in.
        directory: accounts and trust at hand; the same that ``auth`` asks.
        settings: realm, lifetimes, limits, ICE servers.
        stun: where this server answers STUN itself.
        counters: where logins, relayed messages and refusals are counted.
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
        stun: Sequence[Endpoint] = (),
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = _wall_clock,
    ) -> None:
        limits = settings.limits
        self._store = store
        self._auth = auth
        self._directory = directory
        self._settings = settings
        self._limits = limits
        self._clock = clock
        self._wall_ms = wall_ms
        self._tickets = Tickets(store.secret)
        requests = Requests(store, auth, directory, settings=settings, clock=clock, wall_ms=wall_ms)
        self._handlers: dict[type[Struct], Callable[[Session, Any], Awaitable[Outcome]]] = {
            signals.Register: requests.register,
            signals.RequestIceServers: self._renew_ice,
            signals.RequestToken: requests.request_token,
            signals.ClaimToken: requests.claim_token,
            signals.UpdateContact: requests.update_contact,
            signals.RemoveUser: requests.remove_user,
            signals.StagePins: requests.stage_pins,
            signals.ChangePassword: requests.change_password,
        }
        self._presence = Presence(directory, grace_time=limits.grace_time, random_below=secrets.randbelow)
        self._announcer = Announcer(self._presence, directory, self.deliver)
        self._relay = Relay(self._presence, directory, limits)
        self._notices = Notices(store)
        self._counters = counters or Counters()
        self._ice = IceHandout(settings, stun=stun, secret=store.secret)
        self._ice_requests: Buckets[str] = Buckets(limits.ice_requests)
        #: Whose credentials are at half their life.
        self._ice_due: Due[Session] = Due(settings.turn.lifetime / 2)
        self._sessions: set[Session] = set()
        self._newcomers: Due[Session] = Due(limits.login_timeout)
        self._tasks: set[asyncio.Task[None]] = set()
        # Nobody looks at what peers send each other: it need not be made into messages for them.
        self._takes_shortcut = type(self).relay is Hub.relay and type(self).outgoing is Hub.outgoing
        self._changes = Changes(store, directory, self._announcer, self._end_account)

    # -- what the sockets tell -------------------------------------------------------------------------------------

    def connected(self, client: Client) -> Session:
        """A socket is open: greet it."""
        now = self._clock()
        session = Session(client, secrets.token_bytes(32), Bucket(self._limits.messages, now))
        self._sessions.add(session)
        self._newcomers.put(session, now)
        self.deliver(
            session,
            Hello(
                version=VERSION,
                realm=self._settings.realm,
                challenge=Binary(session.challenge),
                time=self._wall_ms(),
                registration="open" if self._settings.registration == "open" else "closed",
                token_lifetime=int(self._settings.token_lifetime),
            ),
        )
        return session

    def receive(self, session: Session, text: str) -> None:
        """A message came."""
        if session.state is State.CLOSED:
            return
        problem: BoneValueError | None = None
        message: Plain | Signal | None = parse(text) if self._takes_shortcut else None
        if message is None:
            try:
                message = signals.decode(text, "client")
            except (BadMessage, UnknownType) as error:
                problem = error
        ref = None if message is None else message.ref
        wait = session.messages.take(self._clock())
        if wait:
            self._strike(session, RateLimited("too many messages", retry_after=wait), ref)
        elif isinstance(problem, BadMessage):
            self._strike(session, problem, None)
        elif message is None:
            self._refuse(session, problem or UnknownType(), None)
        elif not isinstance(message, Signal):
            self._pass_on(session, message, ref)
        elif isinstance(message.data, RELAYED):
            self._pass_on(session, message.data, ref)
        elif isinstance(message.data, signals.Ping):
            self._pong(session, message.data, ref)
        else:
            self._queue(session, message)

    def count(self, session: Session) -> None:
        """A control frame came, which counts like a message."""
        wait = session.messages.take(self._clock())
        if wait and session.state is not State.CLOSED:
            self._strike(session, RateLimited("too many frames", retry_after=wait), None)

    def closed(self, session: Session, *, may_return: bool) -> None:
        """
        The socket is closed, or as good as closed.

        Args:
            session: whose.
            may_return: whether its peer may be back in a moment, so that nobody need be told yet.
        """
        if session.state is State.CLOSED:
            return
        peer = self._forget(session)
        if peer is not None and may_return:
            self._presence.lose(peer, self._clock())
        elif peer is not None:
            self._depart(peer)

    def handle_timer(self) -> None:
        """Some time has passed; to be called several times a second."""
        now = self._clock()
        for session in self._newcomers.take(now):
            if session.state is State.GREETED:
                self._end(session, LoginTimeout())
        for peer in self._presence.overdue(now):
            self._depart(peer)
        for session in self._ice_due.take(now):
            self.deliver(session, self._ice_servers(session))
        self._relay.pending.expire(now)

    def counts(self) -> dict[str, int]:
        """How many sockets there are, how many peers (lost ones included), and accounts held for them."""
        held = len(self._directory.held())
        return {"sessions": len(self._sessions), "peers": len(self._presence), "held": held}

    @property
    def is_database_well(self) -> bool:
        """Whether the database answered when it was last asked for changes."""
        return self._changes.is_database_well

    @property
    def online(self) -> int:
        """How many peers are online on this node, those in their grace time too."""
        return len(self._presence)

    async def poll(self) -> None:
        """Take over what other processes changed in the database; to be called every few seconds."""
        await self._changes.poll()
        await self._notices.settle()

    async def stop(self) -> None:
        """Say goodbye to everyone, each with another moment to come back, and wait for what is being written."""
        for session in list(self._sessions):
            after = secrets.randbelow(int(_SPREAD * 1000)) / 1000
            self.deliver(session, Goodbye(GoingAway.code, after))
            self._forget(session)
            session.client.close(SERVICE_RESTART, GoingAway.code)
        await self.idle(_STOP_TIMEOUT)
        for task in self._tasks:
            task.cancel()

    async def idle(self, timeout: float) -> None:
        """Wait until no request is under way, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while self._tasks and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

    # -- what the clients are told ---------------------------------------------------------------------------------

    def outgoing(self, session: Session, message: Struct) -> Iterable[Struct]:
        """What is sent instead of a message: the message. Every one passes here, so that tests can change them."""
        return (message,)

    def deliver(self, session: Session, message: Struct, ref: str | None = None) -> None:
        """Send a message to a client, as the reply to the request ``ref`` if it is one."""
        for each in self.outgoing(session, message):
            session.client.send(signals.encode(each, ref))

    def _deliver_all(self, session: Session, messages: Iterator[Struct]) -> None:
        """Send many messages, made as fast as the client reads them."""
        session.client.send_all(
            signals.encode(each) for message in messages for each in self.outgoing(session, message)
        )

    def _refuse(self, session: Session, error: BoneValueError, ref: str | None) -> None:
        retry_after = None if error.retry_after is None else round(error.retry_after, 3)
        self._counters.refused[error.code] += 1
        self.deliver(session, Failure(error.code, error.message, retry_after), ref)

    def _strike(self, session: Session, error: BoneValueError, ref: str | None) -> None:
        """Refuse what no well-behaved client does; close the socket if it goes on like that."""
        self._refuse(session, error, ref)
        now = self._clock()
        recent = (moment for moment in session.strikes if moment > now - self._limits.message_strike_window)
        session.strikes = (*recent, now)
        if len(session.strikes) >= self._limits.message_strikes:
            logger.info("closed a socket of %s: %s", session.client.address, error.code)
            self._end(session, error)

    def _end(self, session: Session, error: BoneValueError) -> None:
        """Close a socket for a reason; its peer may be back in a moment."""
        if session.state is not State.CLOSED:
            self._counters.sockets_closed[error.code] += 1
            self.closed(session, may_return=True)
            session.client.close(close_code(error), error.code)

    def _forget(self, session: Session) -> Peer | None:
        """The session is over; gives its peer, which is left without a session."""
        session.state = State.CLOSED
        session.requests = None
        self._sessions.discard(session)
        self._newcomers.discard(session)
        self._ice_due.discard(session)
        peer, session.peer = session.peer, None
        if peer is not None:
            peer.session = None
        return peer

    # -- requests --------------------------------------------------------------------------------------------------

    def relay(self, session: Session, message: Relayed) -> None:
        """
        Pass a message on to another peer; every one passes here, so that tests can misroute them.

        Raises:
            BoneValueError: see :meth:`Relay.route`.
        """
        target, plain = self._route(session, plain_of(message))
        self.deliver(target, message_of(plain))

    def _route(self, session: Session, plain: Plain) -> tuple[Session, Plain]:
        if session.peer is None:
            raise Unavailable("this session has no peer")
        return self._relay.route(session.peer, plain, self._clock())

    def _pass_on(self, session: Session, message: Plain | Relayed, ref: str | None) -> None:
        try:
            permit(session, signals.PeerRequest)  # one rule for all that is relayed
            if isinstance(message, RELAYED):
                self.relay(session, message)
            else:
                target, plain = self._route(session, message)
                target.client.send(to_text(plain))
        except BoneValueError as error:
            self._refuse(session, error, ref)
        else:
            self._counters.relayed += 1
            if ref is not None:
                self.deliver(session, Done(), ref)

    def _pong(self, session: Session, ping: signals.Ping, ref: str | None) -> None:
        """Answer at once: whoever asks whether we are there does not ask how the database is."""
        try:
            permit(session, type(ping))
        except BoneValueError as error:
            self._refuse(session, error, ref)
        else:
            self.deliver(session, Done(), ref)

    def _queue(self, session: Session, signal: Signal) -> None:
        if session.requests is None:
            session.requests = deque()
        if len(session.requests) >= _WAITING:
            self._refuse(session, Busy(f"{_WAITING} requests of this socket are waiting", retry_after=1.0), signal.ref)
            return
        session.requests.append(signal)
        if session.task is None:
            session.task = self._spawn(self._work(session))

    async def _work(self, session: Session) -> None:
        """Serve the requests of a session, one after the other, until there are none."""
        try:
            while session.requests:
                await self._serve(session, session.requests.popleft())
        finally:
            session.requests = session.task = None

    async def _serve(self, session: Session, signal: Signal) -> None:
        try:
            permit(session, type(signal.data))
            if isinstance(signal.data, Login):
                await self._log_in(session, signal.data, signal.ref)
                return
            outcome = await self._handlers[type(signal.data)](session, signal.data)
        except BoneValueError as error:
            self._refuse(session, error, signal.ref)
            if isinstance(error, SecondRedemption):
                for account_id in error.told:
                    await self._notify(account_id)
        except Exception:
            logger.exception("a request of type %s failed", signal.type)
            failure = Unavailable("the server failed; its log says how")
            self._refuse(session, failure, signal.ref)
            if session.state is State.LOGGING_IN:
                self._end(session, failure)
        else:
            if outcome.news is not None or isinstance(signal.data, signals.Register):
                logger.info("%s from %s", signal.type, session.client.address)
            if outcome.news is not None:
                self._announcer.spread(outcome.news)
            self.deliver(session, outcome.reply, signal.ref)
            if isinstance(outcome.news, KeyChanged):
                self._end_account(outcome.news.rotated.account.id)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- login -----------------------------------------------------------------------------------------------------

    async def _log_in(self, session: Session, login: Login, ref: str | None) -> None:
        session.state = State.LOGGING_IN
        try:
            with self._directory.watch() as watch:
                account = await self._authenticate(session, login)
                missed = await self._notices.load(account.id) if session.by_key else Missed()
                edges = await self._directory.edges(account, watch)
                if session.state is State.LOGGING_IN:
                    self._admit(session, login, account, edges, missed)
        except BoneValueError as error:
            if session.state is State.LOGGING_IN:
                self._refuse(session, error, ref)
                self._end(session, error)

    async def _authenticate(self, session: Session, login: Login) -> Account:
        if (login.login is None) == (login.blob is None):
            raise BadMessage("login: either blob and signature, or the login secret")
        session.by_key = login.login is None
        if not session.by_key:
            return await self._auth.password_login(login, address=session.client.address)
        return await self._auth.key_login(login, challenge=session.challenge)

    def _admit(self, session: Session, login: Login, account: Account, edges: tuple[Edge, ...], missed: Missed) -> None:
        """The login was right: give the session a peer, tell it everything, and tell of it."""
        visible = login.visible and session.by_key
        peer_id = self._resumed(login, account)
        peer = None if peer_id is None else self._presence.get(peer_id)
        if peer is None and len(self._presence.of(account.id)) >= self._limits.peers:
            raise TooManyPeers(f"an account may have {self._limits.peers} peers online")
        self._directory.hold(account.id, edges)
        if peer is None:
            peer = Peer(peer_id or self._presence.new_id(), account.id, session, visible=visible)
            self._presence.add(peer)
            is_news = visible
        else:
            self._take_over(peer, session)
            is_news = visible and not peer.visible
            if peer.visible and not visible:
                self._announcer.gone(peer)
            peer.visible = visible
        session.state, session.account, session.peer = State.ONLINE, account, peer
        self._newcomers.discard(session)
        session.client.logged_in()
        if session.by_key:
            self._counters.logins_by_key += 1
        else:
            self._counters.logins_by_password += 1
        logger.debug("peer %s of %s logged in from %s", peer.id, account.username, session.client.address)
        self.deliver(session, SetPeerId(peer.id, self._tickets.issue(account.id, peer.id)))
        self.deliver(session, self._ice_servers(session))
        peers = list(self._presence.list_for(peer))
        self._deliver_all(session, lists(edges, peers, with_certificates=session.by_key))
        self._deliver_all(session, missed.messages())
        self._notices.told(session, account.id, missed)
        if is_news:
            self._announcer.online(peer)

    def _resumed(self, login: Login, account: Account) -> str | None:
        """The peer id that the client had before, if it has the ticket for it."""
        resume = login.resume
        if resume is None or not self._tickets.valid(account.id, resume.peer_id, resume.ticket):
            return None
        holder = self._presence.get(resume.peer_id)
        return resume.peer_id if holder is None or holder.account_id == account.id else None

    def _take_over(self, peer: Peer, session: Session) -> None:
        """The newest socket of a peer wins."""
        old = peer.session
        if old is not None:
            self._forget(old)
            old.client.close(close_code(Replaced()), Replaced.code)
        self._presence.regain(peer, session)
        for caller_id in self._relay.pending.callers_of(peer.id, self._clock()):
            # What they asked may have gone to the old socket, when nobody read there any more.
            caller = self._presence.get(caller_id)
            name = None if caller is None else self._directory.name_for(caller.account_id, peer.account_id)
            if caller is not None and caller.session is not None and name is not None:
                self.deliver(caller.session, PeerConnect(name, peer.id))

    def _depart(self, peer: Peer) -> None:
        """A peer has gone for good."""
        if peer.visible:
            self._announcer.gone(peer)
        self._presence.remove(peer)
        if not self._presence.of(peer.account_id):
            self._directory.release(peer.account_id)

    # -- ICE servers -----------------------------------------------------------------------------------------------

    def _ice_servers(self, session: Session) -> IceServers:
        """What a client is told of; a credential in it is followed by another before it expires."""
        if session.peer is None or not session.by_key:  # it can make no links
            return self._ice.without_credentials(session.client.dialled)
        if self._ice.expires:
            self._ice_due.put(session, self._clock())
        return self._ice.for_account(session.peer.account_id, session.client.dialled, self._wall_ms())

    async def _renew_ice(self, session: Session, _: RequestIceServers) -> Outcome:
        wait = 0.0 if session.peer is None else self._ice_requests.take(session.peer.id, self._clock())
        if wait:
            raise RateLimited("too many requests for ICE servers", retry_after=wait)
        return Outcome(self._ice_servers(session))

    # -- news ------------------------------------------------------------------------------------------------------

    async def _notify(self, account_id: AccountId) -> None:
        """Something waits to be told to an account: tell whoever is online."""
        missed = await self._notices.load(account_id)
        for session in self._presence.sessions(account_id):
            if session.by_key:
                for notice in missed.notices:
                    self.deliver(session, Failure(notice.code, notice.message))
                self._notices.told(session, account_id, missed)

    def _end_account(self, account_id: AccountId, unless_key: bytes | None = None) -> None:
        """The account has another key, or is gone: end the sessions that logged in before."""
        for peer in list(self._presence.of(account_id)):
            session = peer.session
            if session is not None and session.account is not None and session.account.public_key == unless_key:
                continue
            if session is not None:
                self._forget(session)
                session.client.close(close_code(SessionEnded()), SessionEnded.code)
            self._depart(peer)
