"""
The pump between a :class:`~bonevalue.wire.session.Session` and a WebSocket to the discovery server.

All decisions are the session's: what to send, whether to keep the socket, when to come back. Here are the socket, the
clock and the tasks. After whatever happens the order is the same: hand out the events, send, arm the timer.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from msgspec import Struct
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from bonevalue.config import Address
from bonevalue.errors import (
    BadMessage,
    BoneValueError,
    Deadline,
    RegistrationClosed,
    RemoteProtocolError,
    ServerUnreachable,
    UnknownType,
)
from bonevalue.network import NetworkChange
from bonevalue.sockets import CLOSE_TIMEOUT, open_websocket, retry_after, tls_context, why
from bonevalue.wire.blobs import RegisterBlob
from bonevalue.wire.keys import AccountKeys, login_digest
from bonevalue.wire.refusals import check_greeting, failure_error, parting_of, plain
from bonevalue.wire.session import Session, State
from bonevalue.wire.session_events import Ended, Event, Refused, Replied
from bonevalue.wire.signals import (
    Binary,
    Failure,
    Hello,
    Register,
    Registered,
    SignedBlob,
    decode,
    encode,
)

__all__ = ["DiscoveryClient", "greeting", "register_account"]

#: Seconds between pings, and for the answer to one: a dead connection is noticed within 35 s. If only what the server
#: sends is lost, the server learns of it by our reset, so that it can tell others within 45 s, its grace time included.
PING_INTERVAL, PING_TIMEOUT = 20.0, 15.0
#: Seconds for the answer to a ping that is sent because the network may have changed.
PROBE_TIMEOUT = 3.0
#: How a socket is closed that we gave up but will replace: not a log-off, so that nobody is told of it meanwhile.
GIVEN_UP, LOGGED_OFF = 1002, 1000

logger = logging.getLogger(__name__)


def _farewell(error: ConnectionClosed) -> tuple[int | None, str]:
    """The server's close code, and its reason or ours."""
    if error.rcvd is not None:
        return error.rcvd.code, error.rcvd.reason
    return None, error.sent.reason if error.sent is not None else "the connection broke"


async def register_account(
    address: Address,
    keys: AccountKeys,
    *,
    username: str,
    realm: str,
    tls: ssl.SSLContext | None = None,
    timeout: float = 20.0,
) -> None:
    """
    Make an account over the network. The password stays here; the server gets login secret and public key.

    Args:
        address: where the server is.
        keys: what the password gives for this realm and username.
        username: the account's name, in lower case.
        realm: the realm that the password is bound to; a server of another one is shown nothing.
        tls: how to check the server's certificate; None for :func:`tls_context`.
        timeout: seconds for all of it.

    Raises:
        ServerUnreachable: no connection, or no answer in time.
        RealmMismatch: the server is of another realm.
        RegistrationClosed: it takes no accounts over the network.
        BoneValueError: it refused for another reason; the class says why.
    """
    with _our_errors(address):
        async with asyncio.timeout(timeout), await open_websocket(address, tls, timeout) as websocket:
            hello = await _receive(websocket, Hello)
            check_greeting(hello, realm)
            if hello.registration == "closed":
                raise RegistrationClosed("this server takes no new accounts over the network: ask its operator for one")
            digest = login_digest(keys.login)
            blob = RegisterBlob(realm, hello.challenge, username, keys.public, digest).encode()
            register = Register(username, keys.login, Binary(keys.public), Binary(blob), Binary(keys.sign(blob)))
            await websocket.send(encode(register, ref="register"))
            await _receive(websocket, Registered)


async def greeting(address: Address, *, tls: ssl.SSLContext | None = None, timeout: float = 10.0) -> Hello:
    """
    What a server says of itself; nothing is sent to it, and whether it is the right one is for the caller to see.

    Args:
        address: where the server is.
        tls: how to check its certificate; None for :func:`tls_context`.
        timeout: seconds for all of it.

    Raises:
        ServerUnreachable: no connection, or no greeting in time.
        RemoteProtocolError: what it says first is no greeting.
        BoneValueError: it sent us away; the class says why.
    """
    with _our_errors(address):
        async with asyncio.timeout(timeout), await open_websocket(address, tls, timeout) as websocket:
            return await _receive(websocket, Hello)


@contextmanager
def _our_errors(address: Address) -> Iterator[None]:
    """Whatever goes wrong with a socket, as an error of ours."""
    try:
        yield
    except ConnectionClosed as closed:
        code, reason = _farewell(closed)
        raise parting_of(code, reason, None, None).error from closed
    except (OSError, EOFError, InvalidHandshake) as error:
        raise ServerUnreachable(f"cannot reach the discovery server at {address.url}: {why(error)}") from error


async def _discard(websocket: ClientConnection) -> None:
    """Read what still comes: the library keeps few messages, and behind those it would not see the server's close."""
    with suppress(ConnectionClosed):
        while True:
            await websocket.recv()


_Kind = TypeVar("_Kind", bound=Struct)


async def _receive(websocket: ClientConnection, kind: type[_Kind]) -> _Kind:
    """The next message, which must be of this kind; a refusal is raised."""
    text = await websocket.recv()
    try:
        data = decode(text, "server").data
    except (BadMessage, UnknownType) as error:
        raise RemoteProtocolError(f"the discovery server broke the protocol: {plain(error.message)}") from error
    if isinstance(data, Failure):
        raise failure_error(data)
    if not isinstance(data, kind):
        raise RemoteProtocolError(f"the discovery server sent {type(data).__name__} instead of {kind.__name__}")
    return data


# -- the client ----------------------------------------------------------------------------------------------------


class DiscoveryClient:
    """
    Keeps a session connected.

    Args:
        address: where the server is.
        session: a new session.
        on_event: is given every event but the answers to :meth:`request`, in order, from within the event loop; it
            must not block.
        tls: how to check the server's certificate; None for :func:`tls_context`.
        open_timeout: seconds for opening a socket.
    """

    def __init__(
        self,
        address: Address,
        session: Session,
        *,
        on_event: Callable[[Event], None],
        tls: ssl.SSLContext | None = None,
        open_timeout: float = 10.0,
    ) -> None:
        self.address = address
        self.session = session
        self._on_event = on_event
        self._tls = tls or (tls_context() if address.secure else None)  # once: reading the authorities takes a while
        self._open_timeout = open_timeout
        self._answers: dict[str, asyncio.Future[Struct]] = {}
        self._events: deque[Event] = deque()
        self._handing_out = False
        self._changed = asyncio.Event()  # for the loop in run(): the session may have another state or timer
        self._outgoing = asyncio.Event()  # for the writer: there may be something to send
        self._doubted = asyncio.Event()  # for the prober: the socket may be dead
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: asyncio.Task[None] | None = None
        self._websocket: ClientConnection | None = None
        self._error: BoneValueError | None = None

    async def run(self) -> None:
        """
        Connect, and reconnect, until :meth:`close`. Once only.

        Raises:
            BoneValueError: there is no coming back; it is the error of :class:`~bonevalue.wire.session_events.Ended`.
        """
        if self.session.state is State.OFFLINE:
            self.session.start()
        self._idle.clear()
        try:
            while self.session.state is not State.CLOSED:
                if self._connection is not None and (self._connection.done() or not self.session.wants_socket):
                    await self._end_connection(self._connection)
                    self._connection = None
                elif self._connection is None and self.session.wants_socket:
                    self._connection = asyncio.create_task(self._use_connection(), name="discovery socket")
                    self._connection.add_done_callback(lambda _: self._changed.set())
                else:
                    await self._wait_for_change()
        finally:
            self.session.stop()
            self._pump()
            try:
                if self._connection is not None:
                    await self._end_connection(self._connection)
            finally:
                self._idle.set()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Log off, and wait until :meth:`run` has returned. More than one call does no harm."""
        self.session.stop()
        self._pump()
        await self._idle.wait()

    async def request(self, message: Struct, *, timeout: float = 10.0) -> Any:
        """
        Ask the server for something.

        Returns:
            The struct of its reply.

        Raises:
            Unavailable: we are offline, or the connection was lost before the answer came.
            Deadline: no answer in time.
            BoneValueError: the server refused; the class says why.
        """
        ref = self.session.request(message)
        answer: asyncio.Future[Struct] = asyncio.get_running_loop().create_future()
        self._answers[ref] = answer
        self._pump()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise Deadline(f"the discovery server did not answer within {timeout:g} s") from None
        finally:
            del self._answers[ref]
            self.session.forget(ref)

    def send(self, message: Struct) -> None:
        """
        Send something whose answer is of no interest.

        Raises:
            Unavailable: we are offline.
        """
        self.session.send(message)
        self._pump()

    def network_changed(self, change: NetworkChange) -> None:
        """Our own network is another: try again at once, replace what is dead, and ask where that is not known."""
        websocket = self._websocket
        if websocket is None or not self.session.wants_socket:
            if self.session.hurry(time.monotonic()) and self._connection is not None:
                self._connection.cancel()  # it may wait for what went with the old network; run() begins anew
        elif change.resumed:
            self._abandon(websocket, "this machine was asleep", hurry=True)
        elif (address := websocket.local_address[0]) in change.removed:
            self._abandon(websocket, f"{address} is no address of this machine any more", hurry=True)
        else:
            self.doubt()
        self._pump()

    def doubt(self) -> None:
        """Something suggests that we are cut off: ask at once whether the server is still there."""
        self._doubted.set()

    def removed(self, name: str | None, remove: SignedBlob) -> bytes | None:
        """Trust has ended, not by the server's word: see :meth:`~bonevalue.wire.session.Session.removed`."""
        key = self.session.removed(name, remove, time.time_ns() // 1_000_000)
        self._pump()
        return key

    # -- the pump ----------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Something happened: hand out the events, and wake whoever acts upon the session's new state."""
        self._events += self.session.events()
        if not self._handing_out:  # else who is told of an event caused others: they come after those before them
            self._handing_out = True
            try:
                while self._events:
                    self._hand_out(self._events.popleft())
            finally:
                self._handing_out = False
        self._outgoing.set()
        self._changed.set()

    def _hand_out(self, event: Event) -> None:
        match event:
            case Replied(ref=ref, data=data) if ref in self._answers:
                if not self._answers[ref].done():
                    self._answers[ref].set_result(data)
                return
            case Refused(ref=ref, error=error) if ref in self._answers:
                if not self._answers[ref].done():
                    self._answers[ref].set_exception(error)
                return
            case Ended(error=error):
                self._error = error
            case _:
                pass
        try:
            self._on_event(event)
        except Exception:
            logger.exception("whoever was told of %s failed", type(event).__name__)

    async def _wait_for_change(self) -> None:
        """Until something happened, or the session's time has come."""
        self._changed.clear()
        if not await _set_before(self._changed, self.session.timer()):
            self.session.handle_timer(time.monotonic())
            self._pump()

    # -- one connection ------------------------------------------------------------------------------------------------

    async def _use_connection(self) -> None:
        """One connection, from opening it to its end; :meth:`_end_connection` tidies up after it."""
        try:
            websocket = await open_websocket(self.address, self._tls, self._open_timeout)
        except (OSError, EOFError, InvalidHandshake) as error:
            reason = f"cannot reach the discovery server at {self.address.url}: {why(error)}"
            self.session.unreachable(reason, time.monotonic(), retry_after=retry_after(error))
            self._pump()
            return
        self._websocket = websocket
        self.session.opened(time.monotonic())
        self._pump()
        self._doubted.clear()
        helpers = [
            asyncio.create_task(self._write(websocket), name="discovery writer"),
            asyncio.create_task(self._keep_alive(websocket), name="discovery pings"),
            asyncio.create_task(self._probe(websocket), name="discovery prober"),
        ]
        try:
            await self._read(websocket)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.wait(helpers)

    async def _end_connection(self, connection: asyncio.Task[None]) -> None:
        """The session does not want the socket any more, or it is gone."""
        connection.cancel()
        await asyncio.wait([connection])
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            discarding = asyncio.create_task(_discard(websocket), name="discovery remains")
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):  # its own does not count if the server reads nothing
                    await websocket.close(LOGGED_OFF if self.session.state is State.CLOSED else GIVEN_UP)
            except TimeoutError:
                pass
            finally:
                websocket.transport.abort()
                discarding.cancel()
                await asyncio.wait([discarding])
        if not connection.cancelled():
            connection.result()  # a fault of ours is not to be lost

    async def _read(self, websocket: ClientConnection) -> None:
        """Feed the session with what comes, for as long as it wants it."""
        try:
            while self.session.wants_socket:
                text = await websocket.recv()
                self.session.receive(text, time.monotonic(), time.time_ns() // 1_000_000)
                self._pump()
        except ConnectionClosed as closed:
            code, reason = _farewell(closed)
            self.session.closed(code, reason, time.monotonic())
            self._pump()

    async def _write(self, websocket: ClientConnection) -> None:
        """Send what the session has to send. A server that reads slowly is waited for here, and nowhere else."""
        with suppress(ConnectionClosed):  # the reader tells the session
            while True:
                self._outgoing.clear()
                for text in self.session.data_to_send(time.monotonic()):
                    await websocket.send(text)
                await _set_before(self._outgoing, self.session.send_timer())

    async def _keep_alive(self, websocket: ClientConnection) -> None:
        """Ask now and then whether the server is still there."""
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(PING_INTERVAL)
                if not await _answers_ping(websocket, PING_TIMEOUT):
                    self._abandon(websocket, "the server does not answer any more")

    async def _probe(self, websocket: ClientConnection) -> None:
        """Ask the same, in less time, whenever it is in doubt."""
        with suppress(ConnectionClosed):
            while True:
                await self._doubted.wait()
                self._doubted.clear()
                if not await _answers_ping(websocket, PROBE_TIMEOUT):
                    self._abandon(websocket, "the server does not answer, the network may have changed", hurry=True)

    def _abandon(self, websocket: ClientConnection, reason: str, *, hurry: bool = False) -> None:
        """Leave a socket that is dead, without a closing handshake."""
        self.session.abandoned(reason, time.monotonic(), hurry=hurry)
        websocket.transport.abort()
        self._pump()


async def _answers_ping(websocket: ClientConnection, seconds: float) -> bool:
    """Whether an answer comes in time; that to send the ping is counted, as it waits behind what is not read."""
    try:
        async with asyncio.timeout(seconds):
            await (await websocket.ping())
    except TimeoutError:
        return False
    return True


async def _set_before(event: asyncio.Event, moment: float | None) -> bool:
    """Wait until the event is set, or the moment has come; whether it was the event."""
    try:
        async with asyncio.timeout(None if moment is None else max(0.0, moment - time.monotonic())):
            await event.wait()
    except TimeoutError:
        return False
    return True
