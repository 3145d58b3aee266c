"""
The pump between a :class:`~bonevalue.wire.session.Session` and a WebSocket to the discovery server.

All decisions are the session's: what to send, whether to keep the socket, when to come back. Here are the socket, the
clock and the tasks. After whatever happens the order is the same: hand out the events, send, arm the timer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from bonevalue.config import Address
from bonevalue.errors import (
    BadMessage,
    BoneValueError,
    ConfigError,
    Deadline,
    RegistrationClosed,
    RemoteProtocolError,
    ServerUnreachable,
    UnknownType,
)
from bonevalue.wire.blobs import RegisterBlob
from bonevalue.wire.keys import AccountKeys, login_digest
from bonevalue.wire.refusals import check_greeting, failure_error, parting_of, plain
from bonevalue.wire.session import Session, State
from bonevalue.wire.session_events import Ended, Event, Refused, Replied
from bonevalue.wire.signals import (
    MAX_MESSAGE,
    Binary,
    Failure,
    Hello,
    Register,
    Registered,
    SignedBlob,
    decode,
    encode,
)

__all__ = ["Address", "DiscoveryClient", "parse_address", "register_account", "tls_context"]

#: Seconds between pings, and for the answer to one.
PING_INTERVAL = PING_TIMEOUT = 20.0
#: Seconds for the closing handshake; with the pings, a dead connection is noticed within 45 s.
CLOSE_TIMEOUT = 3.0
#: Seconds for one message to go; a ping would wait behind it, so that pings alone do not notice a dead connection.
SEND_TIMEOUT = 40.0
#: How a socket is closed that we gave up but will replace: not a log-off, so that nobody is told of it meanwhile.
GIVEN_UP, LOGGED_OFF = 1002, 1000

logger = logging.getLogger(__name__)


# -- addresses -----------------------------------------------------------------------------------------------------


def parse_address(text: str, *, insecure: bool = False) -> Address:
    """
    Where a discovery server is.

    Args:
        text: ``wss://host[:port][/path]``; a bare host means ``wss://``, a bare loopback host ``ws://``.
        insecure: whether ``ws://`` may leave this machine.

    Raises:
        ConfigError: it is no address, or would be unencrypted.
    """
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise ConfigError(f"{plain(text)!r} {error}") from error
    if not (address.secure or address.is_loopback or insecure):
        raise ConfigError(
            f"{address.url} would leave this machine unencrypted: use wss://, or allow it with `insecure`"
        )
    return address


def tls_context(ca_file: str | None = None) -> ssl.SSLContext:
    """
    How the server's certificate is checked.

    Args:
        ca_file: PEM file of the only authorities to trust; None for those of the system.

    Raises:
        ConfigError: the file is none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"{ca_file}: no authorities can be read from it: {_why(error)}") from error


# -- sockets -------------------------------------------------------------------------------------------------------


class _Connect(connect):
    """A connection to where we were told, and nowhere else: a redirect could lead out of this machine or of TLS."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


def _connect(address: Address, tls: ssl.SSLContext | None, open_timeout: float) -> _Connect:
    return _Connect(
        address.url,
        ssl=(tls or tls_context()) if address.secure else None,
        proxy=None,
        compression=None,
        user_agent_header=None,
        open_timeout=open_timeout,
        ping_interval=PING_INTERVAL,
        ping_timeout=PING_TIMEOUT,
        close_timeout=CLOSE_TIMEOUT,
        max_size=MAX_MESSAGE,
    )


def _why(error: Exception) -> str:
    """Why a socket could not be opened, in a few words for people."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted ({error.verify_message})"
        case ssl.SSLError():
            return f"TLS failed ({(error.reason or 'unknown reason').lower().replace('_', ' ')})"
        case TimeoutError():
            return "it does not answer"
        case InvalidStatus():
            return f"it answers HTTP {error.response.status_code}"
        case InvalidHandshake() | EOFError():
            return "what answers there is no WebSocket server"
        case socket.gaierror():
            return f"its host name is not known ({plain(error.strerror or str(error)).lower()})"
        case OSError():
            # A host with several addresses gives one error without a number, which quotes those of all addresses.
            numbers = [error.errno] if error.errno else map(int, re.findall(r"\[Errno (\d+)\]", str(error)))
            reasons = dict.fromkeys(os.strerror(number).lower() for number in numbers)
            return ", ".join(reasons) or plain(str(error)) or "it broke the connection off"
    return plain(str(error)) or type(error).__name__


def _retry_after(error: Exception) -> float | None:
    """What an HTTP answer says about coming back."""
    text = error.response.headers.get("Retry-After", "") if isinstance(error, InvalidStatus) else ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


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
    try:
        async with asyncio.timeout(timeout), _connect(address, tls, timeout) as websocket:
            hello = await _receive(websocket, Hello)
            check_greeting(hello, realm)
            if hello.registration == "closed":
                raise RegistrationClosed("this server takes no new accounts over the network: ask its operator for one")
            digest = login_digest(keys.login)
            blob = RegisterBlob(realm, hello.challenge, username, keys.public, digest).encode()
            register = Register(username, keys.login, Binary(keys.public), Binary(blob), Binary(keys.sign(blob)))
            await websocket.send(encode(register, ref="register"))
            await _receive(websocket, Registered)
    except ConnectionClosed as closed:
        code, reason = _farewell(closed)
        raise parting_of(code, reason, None, None).error from closed
    except (OSError, EOFError, InvalidHandshake) as error:
        raise ServerUnreachable(f"cannot reach the discovery server at {address.url}: {_why(error)}") from error


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
        self._idle = asyncio.Event()
        self._idle.set()
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
        connection: asyncio.Task[None] | None = None
        try:
            while self.session.state is not State.CLOSED:
                if connection is not None and (connection.done() or not self.session.wants_socket):
                    await self._end_connection(connection)
                    connection = None
                elif connection is None and self.session.wants_socket:
                    connection = asyncio.create_task(self._use_connection(), name="discovery socket")
                    connection.add_done_callback(lambda _: self._changed.set())
                else:
                    await self._wait_for_change()
        finally:
            self.session.stop()
            self._pump()
            try:
                if connection is not None:
                    await self._end_connection(connection)
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
            websocket = await _connect(self.address, self._tls, self._open_timeout)
        except (OSError, EOFError, InvalidHandshake) as error:
            reason = f"cannot reach the discovery server at {self.address.url}: {_why(error)}"
            self.session.unreachable(reason, time.monotonic(), retry_after=_retry_after(error))
            self._pump()
            return
        self._websocket = websocket
        self.session.opened(time.monotonic())
        self._pump()
        writer = asyncio.create_task(self._write(websocket), name="discovery writer")
        try:
            await self._read(websocket)
        finally:
            writer.cancel()
            await asyncio.wait([writer])

    async def _end_connection(self, connection: asyncio.Task[None]) -> None:
        """The session does not want the socket any more, or it is gone."""
        connection.cancel()
        await asyncio.wait([connection])
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):  # its own does not count if the server reads nothing
                    await websocket.close(LOGGED_OFF if self.session.state is State.CLOSED else GIVEN_UP)
            except TimeoutError:
                pass
            finally:
                websocket.transport.abort()
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
        try:
            while True:
                self._outgoing.clear()
                for text in self.session.data_to_send(time.monotonic()):
                    async with asyncio.timeout(SEND_TIMEOUT):
                        await websocket.send(text)
                await _set_before(self._outgoing, self.session.send_timer())
        except ConnectionClosed:
            pass  # the reader tells the session
        except TimeoutError:
            logger.debug("the discovery server has read nothing for %g s", SEND_TIMEOUT)
            websocket.transport.abort()


async def _set_before(event: asyncio.Event, moment: float | None) -> bool:
    """Wait until the event is set, or the moment has come; whether it was the event."""
    try:
        async with asyncio.timeout(None if moment is None else max(0.0, moment - time.monotonic())):
            await event.wait()
    except TimeoutError:
        return False
    return True
