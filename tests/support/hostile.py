"""
A peer that means harm: a real account, trusted, with a signed offer and a true proof, and then anything it likes.

::

    async with open_siege(folder) as siege:
        intruder = await siege.intruder("mallory")
        intruder.link.send(b"\\x7f garbage")
        await siege.cut(intruder, "protocol_error")

Its victim is a ``bv-run`` in a process of its own, so that what it does to the victim shows in that process's memory,
and its honest neighbour a peer of the victim's own account, which calls all the time and asks for ``bv.stats``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from aiortc import RTCSctpTransport

from bonevalue.errors import BoneValueError, RateLimited
from bonevalue.life import LinkLife
from bonevalue.link import Connection, Link
from bonevalue.module import Caller
from bonevalue.peer import Peer
from bonevalue.rtc import RtcLink
from bonevalue.wire import frames
from bonevalue.wire.calls import Proof
from bonevalue.wire.frames import ErrorBody, Frame, FrameType, HelloBody, HelloLimits
from bonevalue.wire.keys import AccountKeys, to_base64url
from bonevalue_server.passwords import hash_login
from tests.support import identity
from tests.support.accounts import CHEAPEST
from tests.support.chunks import Chunks
from tests.support.processes import PASSWORD, Daemon, both_roles, discovery_role, free_port, write_module, write_yaml
from tests.support.waiting import until

__all__ = ["STALL", "WITHIN", "Fortress", "Intruder", "Siege", "break_in", "keys_of", "open_siege"]

#: Seconds in which a link must be cut after the rules were broken.
WITHIN = 5.0
#: Seconds without any acknowledgement that the victim's settings allow.
STALL = 3.0

MODULES = """\
import asyncio

from bonevalue import Module
from bonevalue.errors import BoneValueError


class Echo(Module):
    async def handle(self, request):
        return request


class Raise(Module):
    async def handle(self, request):
        raise RuntimeError("as always")


class Sleep(Module):
    async def handle(self, request):
        await asyncio.sleep(request)


class Blob(Module):
    async def handle(self, request):
        return bytes(request)


class Count(Module):
    async def handle(self, request):
        for number in range(request):
            yield number


class Flood(Module):
    async def handle(self, request):
        while True:
            yield bytes(request)


class Sum(Module):
    async def handle(self, request, context):
        return sum([len(item) async for item in context.items])


class Ask(Module):
    async def handle(self, request):
        try:
            return await self.peer.get(request).call("Anything", 1, timeout=5)
        except BoneValueError as error:
            return [error.code, error.message]


class CallBack(Module):
    async def handle(self, request, context):
        return await self.peer.get(context.caller.id).call("Anything", request, timeout=5)
"""


class RawLink:
    """
    A proved link on which nothing happens but what its owner does; in place of a
    :class:`~bonevalue.peer_link.PeerLink`.
    """

    def __init__(
        self, link: Link, connection: Connection, remote: Caller, proof: Proof, life: LinkLife, *, offerer: bool
    ) -> None:
        assert isinstance(link, RtcLink)
        self.remote = remote
        self.connection = connection
        self.rtc = link
        self.frames: list[Frame] = []
        #: Why the link ended, as the engine of this side has it.
        self.closed = ""
        self._proved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        limits = HelloLimits(
            body=2**31, calls=2**20, incomplete=2**31, stream=frames.MIN_CREDIT, link=frames.MIN_CREDIT
        )
        link.on_closed = self._ended
        link.on_message = self._receive
        link.send(frames.encode_hello(proof.mine, HelloBody(version=frames.VERSION, limits=limits)))

    async def prove(self) -> None:
        """Wait for the other side's proof, which is taken for right."""
        await self._proved

    def close(self) -> None:
        """End it."""
        self.rtc.close()

    def _receive(self, message: bytes) -> None:
        if not self._proved.done():
            self._proved.set_result(None)
        for frame in frames.decode(message):
            if frame.type is FrameType.PING:  # or it would be taken for gone
                self.rtc.send(frames.encode(FrameType.PONG, 0, bytes(frame.payload)))
            else:  # copied: a frame is a view of its message
                self.frames.append(frame._replace(payload=memoryview(bytes(frame.payload))))

    def _ended(self, reason: str) -> None:
        self.closed = reason
        if not self._proved.done():
            self._proved.set_exception(ConnectionError(reason))


class Intruder:
    """A trusted account's peer whose link is in the hands of the test."""

    def __init__(self, peer: Peer, link: RawLink) -> None:
        self.peer = peer
        self._link = link
        self.chunks = Chunks(link.rtc.sctp)
        self._next_call = 1

    @property
    def link(self) -> RtcLink:
        """The channel."""
        return self._link.rtc

    @property
    def sctp(self) -> RTCSctpTransport:
        """What is below the channel."""
        return self._link.rtc.sctp

    @property
    def closed(self) -> str:
        """Why the link has ended; empty while it has not."""
        return self._link.closed

    def new_call(self) -> int:
        """An id that the victim has not seen."""
        self._next_call += 2
        return self._next_call - 2

    def request(
        self,
        module: str,
        body: bytes = b"null",
        *,
        length: int | None = None,
        time_left: float = 60.0,
        flags: int = 0,
    ) -> int:
        """Send the beginning of a call; gives its id. ``length`` is the declared one, if that is to differ."""
        call = self.new_call()
        size = len(body) if length is None else length
        self.link.send(frames.encode_request(call, module.encode(), time_left, size, body, flags))
        return call

    def send(self, kind: FrameType, call: int = 0, payload: bytes = b"", flags: int = 0) -> None:
        """Send one frame."""
        self.link.send(frames.encode(kind, call, payload, flags))

    async def receives(self, *kinds: FrameType, call: int | None = None, within: float = 10.0) -> Frame:
        """Wait for a frame of one of these kinds, of that call if one is given; what came before stays to be found."""
        names = " or ".join(kind.name for kind in kinds)

        def found() -> Frame | None:
            fitting = (f for f in self._link.frames if f.type in kinds and call in (None, f.call))
            return next(fitting, None)

        await until(lambda: found() or self.closed, within, what=f"a frame {names}")
        frame = found()
        assert frame is not None, f"the link ended ({self.closed}) without {names}"
        return frame

    async def refused(self, call: int) -> ErrorBody:
        """Wait for the error that a call gets."""
        return frames.decode_error((await self.receives(FrameType.ERROR, call=call)).payload)

    def count(self, kind: FrameType) -> int:
        """How many frames of a kind have come."""
        return sum(frame.type is kind for frame in self._link.frames)

    def forget(self) -> None:
        """Forget the frames that have come."""
        self._link.frames.clear()

    async def leave(self) -> None:
        """End the link and give everything back."""
        await self._link.connection.close()

    async def room(self, most: int = 262_144) -> None:
        """Wait until no more than so much waits to be acknowledged, or the link has ended."""
        await until(lambda: self.link.buffered <= most or self.closed, timeout=30)


async def break_in(peer: Peer, victim: str) -> Intruder:
    """
    Make a link to a peer of an account that is trusted as `admin`.

    Raises:
        BoneValueError: what the victim answers.
    """
    made: list[RawLink] = []

    def make_link(*args: Any, **options: Any) -> RawLink:
        made.append(RawLink(*args, **options))
        return made[-1]

    with mock.patch.object(peer._links._dialler, "_make_link", make_link):
        await peer._links._dialler.dial(victim, "admin", LinkLife(victim, dialled=True), 20)
    return Intruder(peer, made[-1])


class Siege:
    """A daemon, its honest neighbour, and those who attack it."""

    def __init__(self, daemon: Daemon, port: int, victim: str, honest: Peer) -> None:
        self.daemon = daemon
        self.victim = victim
        self.honest = honest
        #: Calls of the honest neighbour that were answered, and what became of the others.
        self.answered = 0
        self.failed: list[str] = []
        self._port = port
        self._peers: list[Peer] = []
        self._intruders: list[Intruder] = []
        self._before: dict[str, Any] = {}
        self._rss = 0

    async def intruder(self, name: str) -> Intruder:
        """A peer of that account, trusted and linked."""
        return await self.come_in(await self.stranger(name))

    async def stranger(self, name: str) -> Peer:
        """A peer of that account, trusted and not linked."""
        peer = Peer(f"ws://127.0.0.1:{self._port}", name, PASSWORD)
        self._peers.append(peer)
        await peer.start()
        await peer.claim_token("admin", await self.honest.request_token(name))
        await until(lambda: self.victim in peer._session.peers, what="the victim is seen")
        return peer

    async def come_in(self, peer: Peer) -> Intruder:
        """Make a link; raises what the victim answers."""
        intruder = await break_in(peer, self.victim)
        self._intruders.append(intruder)
        return intruder

    async def call(self, module: str, request: Any = None, **options: Any) -> Any:
        """A call of the honest neighbour."""
        return await self.honest.get(self.victim).call(module, request, **options)

    async def stats(self) -> dict[str, Any]:
        """What the victim has counted, and what it is at."""
        stats: dict[str, Any] = await self.call("bv.stats")
        return stats

    async def counted(self, tally: str, reason: str) -> int:
        """How often something was counted since the siege of this test began."""
        now = (await self.stats())["counters"][tally].get(reason, 0)
        before = self._before["counters"][tally].get(reason, 0)
        assert isinstance(now, int) and isinstance(before, int)
        return now - before

    async def cut(self, intruder: Intruder, reason: str, *, within: float = WITHIN) -> None:
        """
        The victim cuts the link in time, counts why, and does not let the account back at once.

        Args:
            within: seconds, from now.
        """
        async with asyncio.timeout(within):
            while not await self.counted("links_closed", reason):
                await asyncio.sleep(0.01)
        try:
            await self.come_in(intruder.peer)
        except RateLimited as error:
            assert error.retry_after is not None and error.retry_after > 0
            assert reason in error.message
        else:
            raise AssertionError("the account was let back at once")
        assert await self.counted("limited", "penalty") == 1

    @asynccontextmanager
    async def quiet_neighbourhood(self, most_memory: int) -> AsyncIterator[None]:
        """
        Meanwhile the honest neighbour calls all the time and is answered, and the victim grows by so much at most.

        Args:
            most_memory: bytes.
        """
        self._before = await self.stats()
        before = self._reset_peak()
        self.answered, self.failed = 0, []
        calling = asyncio.create_task(self._call_on())
        try:
            yield
            assert self.daemon.running, self.daemon.output
            begun = self.answered
            await until(lambda: self.answered > begun + 3 or self.failed)
        finally:
            calling.cancel()
            await asyncio.wait({calling})
        assert self.failed == []
        grown = self._memory("VmHWM") - before
        assert grown <= most_memory, f"{grown / 2**20:.1f} MiB"

    async def _call_on(self) -> None:
        while True:
            try:
                assert await self.call("Echo", "still there?", timeout=30) == "still there?"
                self.answered += 1
            except BoneValueError as error:
                self.failed.append(f"{error.code}: {error.message}")
            await asyncio.sleep(0.005)

    def _reset_peak(self) -> int:
        """Let the kernel find the victim's largest size anew; gives its size now."""
        Path(f"/proc/{self.daemon.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def _memory(self, key: str) -> int:
        status = Path(f"/proc/{self.daemon.pid}/status").read_text()
        return int(status.split(f"{key}:")[1].split()[0]) * 1024

    async def leave(self) -> None:
        """Everyone but the victim goes."""
        await asyncio.gather(*(intruder.leave() for intruder in self._intruders))
        await asyncio.gather(*(peer.stop(0.0) for peer in [*self._peers, self.honest]))


_derive = AccountKeys.derive


def keys_of(password: str, *, realm: str, username: str) -> AccountKeys:
    """
    Takes the place of :meth:`AccountKeys.derive`.

    The daemon derives the keys of its account itself, so they are the right ones; those of all others are made up.
    """
    if username == "admin":
        return _derive(password, realm=realm, username=username)
    return identity.account(username)


def _account(username: str) -> dict[str, str]:
    keys = identity.account(username)
    return {
        "username": username,
        "public_key": to_base64url(keys.public),
        "login_hash": hash_login(keys.login, cost=CHEAPEST),
    }


class Fortress:
    """A daemon for many sieges: the process, and the accounts that may attack it."""

    def __init__(self, folder: Path, intruders: list[str]) -> None:
        self.port = free_port()
        write_module(folder, "parts", MODULES)
        limits = {"tokens_created": "1000/s", "tokens_claimed_per_ip": "1000/s", "requests": "1000/s"}
        server = discovery_role(self.port, {"admin": PASSWORD}, limits=limits)
        server["discovery"]["accounts"] += [_account(name) for name in intruders]
        settings = {
            **both_roles(self.port, modules=[{"folder": "modules"}]),
            **server,
            "rpc": {"stall_timeout": STALL},
        }
        self.daemon = Daemon(write_yaml(folder / "bonevalue.yaml", settings))
        self.victim = self.daemon.wait_for(r"online as admin, peer ([0-9]+)")[1]


@asynccontextmanager
async def open_siege(fortress: Fortress) -> AsyncIterator[Siege]:
    """An honest neighbour in front of a fortress; whoever comes later goes at the end."""
    with mock.patch.object(AccountKeys, "derive", keys_of):
        honest = Peer(f"ws://127.0.0.1:{fortress.port}", "admin", PASSWORD)
        siege = Siege(fortress.daemon, fortress.port, fortress.victim, honest)
        try:
            await honest.start()
            await until(lambda: fortress.victim in honest._session.peers)
            await siege.call("Echo", 1)
            yield siege
        finally:
            await siege.leave()
