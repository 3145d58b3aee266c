"""
A peer's session with the discovery server: login, presence, relayed messages, and when to come back.

Sans-I/O: a :class:`Session` is told what happened and what time it is, and is asked what to send, what to report and
when it wants to be woken. :mod:`bonevalue.discovery` pumps one over a WebSocket.

One life goes like this. ``CONNECTING``: the pump opens a socket. ``GREETING``: the server speaks first; if its realm
is not the one that our password is bound to, this is the end, and nothing derived from the password has been sent.
``LOGGING_IN``: we signed the greeting's challenge. ``SYNCING``: we have a peer id, and the lists come in, in pages;
what else the server sends meanwhile waits until they are complete. ``ONLINE``: only now may anything be asked.
A lost socket or a failed attempt leads to ``WAITING`` and from there to the next attempt: being away is a state
like the others, in which presence stays as it was. ``CLOSED`` is left by nothing.

Whatever the server sends out of turn or malformed costs it the socket, never the process: the lists of the next
connection put things right.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import Any, ClassVar

from msgspec import Struct

from bonevalue.errors import (
    ERRORS,
    BadMessage,
    BoneValueError,
    Busy,
    LocalProtocolError,
    RemoteProtocolError,
    ServerUnreachable,
    TooLarge,
    Unavailable,
    UnknownType,
)
from bonevalue.wire.blobs import LoginBlob
from bonevalue.wire.contacts import ContactBook
from bonevalue.wire.keys import AccountKeys
from bonevalue.wire.pacing import Bucket, Pace, Retry
from bonevalue.wire.refusals import check_greeting, failure_error, parting_of, plain
from bonevalue.wire.roster import Roster, Snapshot
from bonevalue.wire.session_events import (
    AttemptFailed,
    CandidateReceived,
    Ended,
    Event,
    IceServersChanged,
    NoticeReceived,
    Refused,
    Replied,
    RequestReceived,
    ResponseReceived,
    WentOffline,
    WentOnline,
)
from bonevalue.wire.session_states import ACCEPTED, LIVE, REPLIES, TRANSITIONS, Fact, State
from bonevalue.wire.signals import (
    MAX_MESSAGE,
    Binary,
    Contacts,
    Done,
    Failure,
    Goodbye,
    Hello,
    IceServer,
    IceServers,
    Login,
    PeerCandidate,
    PeerConnect,
    PeerDisconnect,
    PeerList,
    PeerRequest,
    PeerResponse,
    Resume,
    SetPeerId,
    Signal,
    SignedBlob,
    TokenClaimed,
    TokenResponse,
    UserAdd,
    UserList,
    UserRemove,
    decode,
    encode,
)

__all__ = ["Event", "Session", "State"]

logger = logging.getLogger(__name__)

#: Seconds from an open socket to being online.
ESTABLISH_TIMEOUT = 30.0
#: Seconds that a session must have lasted for the next retry to be a first one again: a server that takes us in only
#: to drop us is not hammered.
LASTING = 10.0
#: Most requests whose answers are awaited, and most messages that wait to be sent.
MAX_PENDING = 1024
#: Most messages that wait for the lists to be complete.
MAX_BACKLOG = 1024
#: Longest ticket that we give back.
MAX_TICKET = 128
#: Our messages a second, and at once; a server begins to refuse at 20 and 256.
SEND_RATE, SEND_BURST = 16, 200


@dataclass(slots=True)
class _Connection:
    """What belongs to one connection to the server and is forgotten with it."""

    deadline: float = 0.0
    #: When the greeting came, whose time of day it tells.
    greeted_at: float = 0.0
    resumed: bool = False
    snapshot: Snapshot = field(default_factory=Snapshot)
    #: What came before the snapshot was complete and makes sense only beside it.
    backlog: list[Signal] = field(default_factory=list)
    #: The requests that await an answer: ref to the type of their reply.
    pending: dict[str, type[Struct]] = field(default_factory=dict)
    outbox: deque[str] = field(default_factory=deque)
    #: Pins for the server to keep; whatever else we have to send goes first.
    pins: deque[str] = field(default_factory=deque)
    pace: Bucket = field(default_factory=lambda: Bucket(Pace(SEND_RATE, SEND_BURST)))
    goodbye: Goodbye | None = None
    #: Why the login failed, if only the close code can tell whether to come back.
    failure: BoneValueError | None = None


class Session:
    """
    One account's session with one discovery server, over any number of connections.

    Give either `keys` and `contacts`, to log in by key, or `login`, for a session that sees presence and may do
    nothing else.

    Args:
        username: the account, in lower case.
        realm: the realm that the password was bound to.
        keys: the account's keys.
        contacts: the account's contacts; the session keeps them up to date.
        login: the login secret.
        jitter: gives a random number from 0 up to 1, for the delays between attempts.
        visible: whether others are told of this peer.
        agent: name and version of the program, for the operator.
    """

    def __init__(
        self,
        username: str,
        realm: str,
        *,
        keys: AccountKeys | None = None,
        contacts: ContactBook | None = None,
        login: str | None = None,
        jitter: Callable[[], float],
        visible: bool = True,
        agent: str = "",
    ) -> None:
        if (keys is None) == (login is None) or (keys is None) != (contacts is None):
            raise LocalProtocolError("a session has either keys and contacts, or a login secret")
        self.username = username
        self.realm = realm
        self.peer_id: str | None = None
        """Our own id; while we are offline the last one, which we ask for again."""
        self.greeting: Hello | None = None
        """What the server last said of itself."""
        self._keys = keys
        self._login = login
        self._visible = visible
        self._agent = agent
        self._state = State.OFFLINE
        self._connection = _Connection()
        self._roster = Roster(contacts)
        self._retry = Retry(jitter)
        self._events: list[Event] = []
        self._refs = count(1)
        self._ice_servers: list[IceServer] = []
        self._ticket = ""
        self._online_since = 0.0

    # -- what is so ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._state

    @property
    def wants_socket(self) -> bool:
        """Whether the pump should open a socket, or keep the one that it has."""
        return self._state is State.CONNECTING or self._state in ACCEPTED

    @property
    def aliases(self) -> tuple[str, ...]:
        """All aliases, ``Us`` first; they stay while we are offline."""
        return self._roster.aliases

    @property
    def refused(self) -> Mapping[str, BoneValueError]:
        """The aliases of which the server says something that does not hold, and what is wrong with it."""
        return MappingProxyType(self._roster.refused)

    @property
    def peers(self) -> Mapping[str, str]:
        """The online peers, id to alias, without ourselves; they stay while we are offline."""
        return MappingProxyType(self._roster.peers)

    # -- what the user wants ---------------------------------------------------------------------------------------

    def request(self, message: Struct) -> str:
        """
        Ask the server for something.

        Returns:
            The ref with which :class:`Replied` or :class:`Refused` will come, one of them for certain.

        Raises:
            Unavailable: we are not online.
            Busy: too much is waiting already.
            TooLarge: the message is longer than a server takes.
        """
        pending = self._connection.pending
        if len(pending) >= MAX_PENDING:
            raise Busy(f"{MAX_PENDING} requests to the discovery server are unanswered")
        reply = REPLIES.get(type(message))
        if reply is None:
            raise LocalProtocolError(f"nothing answers a {type(message).__name__}")
        ref = str(next(self._refs))
        self._post(message, ref)
        pending[ref] = reply
        return ref

    def forget(self, ref: str) -> None:
        """Nobody waits for this answer any more."""
        self._connection.pending.pop(ref, None)

    def send(self, message: Struct) -> None:
        """
        Send something whose answer is of no interest.

        Raises:
            Unavailable: we are not online.
            Busy: too much is waiting already.
            TooLarge: the message is longer than a server takes.
        """
        self._post(message, None)

    def removed(self, name: str | None, remove: SignedBlob, now_ms: int) -> bytes | None:
        """
        Trust has ended here, whatever the server makes of it.

        Args:
            name: the alias with which we ended it; None if another process of our account did.
            remove: the proof.
            now_ms: the time of day, in milliseconds since 1970.

        Returns:
            The key that links must not have any more, if it was another process and the proof is one.
        """
        key = None
        if name is None:
            key = self._roster.take_removal(remove, now_ms)
        else:
            self._roster.remove(UserRemove(name, remove), now_ms)
        self._collect()
        return key

    # -- what happened ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Come online."""
        self._step(Fact.STARTED)

    def stop(self) -> None:
        """Go offline for good."""
        if self._state is State.ONLINE:
            self._events.append(WentOffline("we logged off", None))
        self._step(Fact.STOPPED)
        self._refuse_pending()

    def opened(self, now: float) -> None:
        """The socket that we wanted is open."""
        self._step(Fact.OPENED)
        self._connection = _Connection(deadline=now + ESTABLISH_TIMEOUT)

    def unreachable(self, reason: str, now: float, *, retry_after: float | None = None) -> None:
        """The socket that we wanted could not be opened."""
        self._lost(ServerUnreachable(reason), now, retry_after)

    def closed(self, code: int | None, reason: str, now: float) -> None:
        """
        The socket is closed.

        Args:
            code: the server's close code, None if it sent none.
            reason: the text that came with it, or why the socket broke.
            now: the time.
        """
        if self._state not in ACCEPTED:
            return  # it was us who gave it up
        parting = parting_of(code, reason, self._connection.goodbye, self._connection.failure)
        if parting.final:
            self._end(parting.error)
        else:
            self._lost(parting.error, now, parting.retry_after)

    def abandoned(self, reason: str, now: float, *, hurry: bool = False) -> None:
        """The socket is of no use any more; `hurry` if that is a matter of our own network: the next comes at once."""
        if self._state in ACCEPTED:
            self._lost(ServerUnreachable(reason), now, hurry=hurry)

    def hurry(self, now: float) -> bool:
        """What kept us from the server may be gone. Whether an attempt that is to come, or under way, begins now."""
        return self._state in (State.WAITING, State.CONNECTING) and self._retry.hurry(now)

    def receive(self, text: str | bytes, now: float, now_ms: int) -> None:
        """
        A message came.

        Args:
            text: the frame, as it came.
            now: the time that the timer uses, in seconds.
            now_ms: the time of day, in milliseconds since 1970, for certificates.
        """
        if self._state not in ACCEPTED:
            return  # from a socket that we have given up
        try:
            if isinstance(text, bytes):
                raise BadMessage("a binary frame")
            self._take(decode(text, "server"), now, now_ms)
        except UnknownType as error:
            logger.debug("ignored what a newer server says: %s", error)
        except BadMessage as error:
            reason = f"the discovery server broke the protocol: {plain(error.message)}"
            self._lost(RemoteProtocolError(reason), now)

    # -- what follows ----------------------------------------------------------------------------------------------

    def data_to_send(self, now: float) -> list[str]:
        """What to send now; :meth:`send_timer` tells when there will be more."""
        connection = self._connection
        messages: list[str] = []
        while (queue := connection.outbox or connection.pins) and not connection.pace.take(now):
            messages.append(queue.popleft())
        return messages

    def events(self) -> list[Event]:
        """What there is to report, once."""
        events, self._events = self._events, []
        return events

    def send_timer(self) -> float | None:
        """When :meth:`data_to_send` will have more, as of its last call; None for not before something happens."""
        connection = self._connection
        return connection.pace.moment() if connection.outbox or connection.pins else None

    def timer(self) -> float | None:
        """When to call :meth:`handle_timer`, or None."""
        if self._state is State.WAITING:
            return self._retry.at
        if self._state is State.ONLINE:
            return self._roster.timer()
        return self._connection.deadline if self._state in ACCEPTED else None

    def handle_timer(self, now: float) -> None:
        """It may be time for something."""
        if self._state is State.WAITING:
            if now >= self._retry.at:
                self._step(Fact.RETRY_DUE)
        elif self._state is State.ONLINE:
            self._roster.handle_timer(now)
            self._collect()
        elif self._state in ACCEPTED and now >= self._connection.deadline:
            reason = f"the discovery server let {ESTABLISH_TIMEOUT:.0f} s pass ({self._state.value})"
            self._lost(ServerUnreachable(reason), now)

    # -- states ----------------------------------------------------------------------------------------------------

    def _step(self, fact: Fact) -> None:
        """The only place where the state changes."""
        new = TRANSITIONS[self._state].get(fact)
        if new is None:
            raise LocalProtocolError(f"a session cannot be told {fact.name} while it is {self._state.name}")
        logger.debug("session of %s: %s -> %s (%s)", self.username, self._state.name, new.name, fact.value)
        self._state = new

    def _lost(self, error: BoneValueError, now: float, hint: float | None = None, *, hurry: bool = False) -> None:
        """The attempt or the connection is over, and there will be another."""
        was_online = self._state is State.ONLINE
        if was_online and now - self._online_since >= LASTING:
            self._retry.reset()
        self._step(Fact.LOST)
        delay = self._retry.after(now, hint, hurry=hurry)
        self._roster.freeze()
        self._events.append(WentOffline(error.message, delay) if was_online else AttemptFailed(error, delay))
        self._refuse_pending()

    def _end(self, error: BoneValueError) -> None:
        """The connection is over, and there will be no other."""
        if self._state is State.ONLINE:
            self._events.append(WentOffline(error.message, None))
        self._step(Fact.ENDED)
        self._refuse_pending()
        self._events.append(Ended(error))

    def _refuse_pending(self) -> None:
        """The connection is gone, and whatever belonged to it."""
        lost, self._connection = self._connection, _Connection()
        text = "the connection to the discovery server was lost; whether it did what was asked is not known"
        self._events += [Refused(ref, Unavailable(text)) for ref in lost.pending]

    # -- messages: arriving ----------------------------------------------------------------------------------------

    def _take(self, signal: Signal, now: float, now_ms: int) -> None:
        kind = type(signal.data)
        if kind not in ACCEPTED[self._state]:
            raise BadMessage(f"{signal.type} while {self._state.value}")
        if self._state is State.SYNCING and kind in LIVE:
            backlog = self._connection.backlog
            if len(backlog) >= MAX_BACKLOG:
                raise BadMessage(f"more than {MAX_BACKLOG} messages before the lists are complete")
            backlog.append(signal)
        else:
            self._HANDLERS[kind](self, signal, now, now_ms)
            self._collect()

    def _collect(self) -> None:
        """Take over what the roster has to report and to send."""
        self._events += self._roster.events()
        self._connection.pins += map(encode, self._roster.pins())

    def _on_failure(self, signal: Signal, now: float, now_ms: int) -> None:
        error = failure_error(signal.data)
        if self._state in (State.SYNCING, State.ONLINE):
            if signal.ref is None:
                self._events.append(NoticeReceived(error.code, error.message))
            elif self._connection.pending.pop(signal.ref, None) is not None:
                self._events.append(Refused(signal.ref, error))
        elif error.code not in ERRORS:
            self._connection.failure = error
        elif error.retry:
            self._lost(error, now, error.retry_after)
        else:
            self._end(error)

    def _on_goodbye(self, signal: Signal, now: float, now_ms: int) -> None:
        self._connection.goodbye = signal.data

    def _on_hello(self, signal: Signal, now: float, now_ms: int) -> None:
        hello: Hello = signal.data
        self.greeting, self._connection.greeted_at = hello, now
        try:
            check_greeting(hello, self.realm)
        except BoneValueError as error:
            self._end(error)
            return
        self._step(Fact.GREETED)
        self._connection.outbox.append(encode(self._login_message(hello)))

    def _login_message(self, hello: Hello) -> Login:
        resume = None if self.peer_id is None else Resume(peer_id=self.peer_id, ticket=self._ticket)
        common: dict[str, Any] = {"resume": resume, "visible": self._visible, "agent": self._agent}
        if self._keys is None:
            return Login(username=self.username, login=self._login, **common)
        blob = LoginBlob(
            realm=self.realm,
            challenge=hello.challenge,
            username=self.username,
            public_key=self._keys.public,
        ).encode()
        return Login(username=self.username, blob=Binary(blob), signature=Binary(self._keys.sign(blob)), **common)

    def _on_set_peer_id(self, signal: Signal, now: float, now_ms: int) -> None:
        admitted: SetPeerId = signal.data
        if len(admitted.ticket) > MAX_TICKET:
            raise BadMessage(f"a ticket of more than {MAX_TICKET} characters")
        self._connection.resumed = admitted.peer_id == self.peer_id
        self.peer_id, self._ticket = admitted.peer_id, admitted.ticket
        self._step(Fact.ADMITTED)

    def _on_ice_servers(self, signal: Signal, now: float, now_ms: int) -> None:
        servers: list[IceServer] = signal.data.servers
        if servers != self._ice_servers:
            self._ice_servers = servers
            lifetimes = tuple(self._lifetime(server, now) for server in servers)
            self._events.append(IceServersChanged(tuple(servers), lifetimes))
        self._on_reply(signal, now, now_ms)

    def _lifetime(self, server: IceServer, now: float) -> float | None:
        """For how many seconds a credential holds: by the clock that it was made by, not by ours, which may be off."""
        if server.expires is None or self.greeting is None:
            return None
        server_time = self.greeting.time / 1000 + now - self._connection.greeted_at
        return max(0.0, server.expires / 1000 - server_time)

    # -- messages: the lists ---------------------------------------------------------------------------------------

    def _on_user_list(self, signal: Signal, now: float, now_ms: int) -> None:
        self._connection.snapshot.add_names(signal.data)

    def _on_contacts(self, signal: Signal, now: float, now_ms: int) -> None:
        self._connection.snapshot.add_contacts(signal.data)

    def _on_peer_list(self, signal: Signal, now: float, now_ms: int) -> None:
        connection = self._connection
        connection.snapshot.add_peers(signal.data)
        if not connection.snapshot.complete:
            return
        self._step(Fact.SYNCED)
        self._online_since = now
        self._events.append(WentOnline(self.peer_id or "", connection.resumed))
        snapshot, connection.snapshot = connection.snapshot, Snapshot()
        snapshot.peers.pop(self.peer_id or "", None)
        self._roster.replace(snapshot, now, now_ms)
        self._collect()
        backlog, connection.backlog = connection.backlog, []
        for waiting in backlog:
            self._take(waiting, now, now_ms)

    def _on_user_add(self, signal: Signal, now: float, now_ms: int) -> None:
        self._roster.add(signal.data, now_ms)

    def _on_user_remove(self, signal: Signal, now: float, now_ms: int) -> None:
        self._roster.remove(signal.data, now_ms)

    def _on_peer_connect(self, signal: Signal, now: float, now_ms: int) -> None:
        if signal.data.id != self.peer_id:
            self._roster.appear(signal.data)

    def _on_peer_disconnect(self, signal: Signal, now: float, now_ms: int) -> None:
        self._roster.vanish(signal.data.id)

    # -- messages: relayed, and replies ------------------------------------------------------------------------------

    def _on_relayed(self, signal: Signal, now: float, now_ms: int) -> None:
        if signal.data.from_ is None:
            raise BadMessage(f"{signal.type} from nobody")
        match signal.data:
            case PeerRequest() as request:
                self._events.append(RequestReceived(request))
            case PeerResponse() as response:
                self._events.append(ResponseReceived(response))
            case PeerCandidate() as candidate:
                self._events.append(CandidateReceived(candidate))

    def _on_reply(self, signal: Signal, now: float, now_ms: int) -> None:
        expected = self._connection.pending.get(signal.ref or "")
        if signal.ref is None or expected is None:
            return  # nobody waits for it any more
        if type(signal.data) is not expected:
            raise BadMessage(f"{signal.type} in reply to what {expected.__name__} replies to")
        del self._connection.pending[signal.ref]
        self._events.append(Replied(signal.ref, signal.data))

    _HANDLERS: ClassVar[Mapping[type[Struct], Callable[[Session, Signal, float, int], None]]] = MappingProxyType(
        {
            Failure: _on_failure,
            Goodbye: _on_goodbye,
            Hello: _on_hello,
            SetPeerId: _on_set_peer_id,
            IceServers: _on_ice_servers,
            UserList: _on_user_list,
            Contacts: _on_contacts,
            PeerList: _on_peer_list,
            UserAdd: _on_user_add,
            UserRemove: _on_user_remove,
            PeerConnect: _on_peer_connect,
            PeerDisconnect: _on_peer_disconnect,
            PeerRequest: _on_relayed,
            PeerResponse: _on_relayed,
            PeerCandidate: _on_relayed,
            Done: _on_reply,
            TokenResponse: _on_reply,
            TokenClaimed: _on_reply,
        }
    )

    # -- sending ---------------------------------------------------------------------------------------------------

    def _post(self, message: Struct, ref: str | None) -> None:
        if self._state is not State.ONLINE:
            raise Unavailable("not connected to the discovery server")
        outbox = self._connection.outbox
        if len(outbox) >= MAX_PENDING:
            raise Busy(f"{MAX_PENDING} messages wait for the discovery server already")
        text = encode(message, ref)
        if len(text.encode()) > MAX_MESSAGE:
            raise TooLarge(f"a message to the discovery server may have {MAX_MESSAGE} bytes")
        outbox.append(text)
