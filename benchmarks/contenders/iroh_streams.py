"""
iroh: a stream a call, JSON each way, on one QUIC connection between two endpoints. Relays and look-up are off.

It takes part in a network namespace only, so that it cannot even try to reach anybody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from typing import Any

import msgspec

from benchmarks.calling import REQUEST, CallerRole
from benchmarks.children import Role, run
from benchmarks.contenders.contender import Contender, Pair

__all__ = ["Iroh"]

PROTOCOL = b"bench/echo"
#: Longest request and response in bytes.
MAX_BODY = 65_536


class Iroh(Contender):
    """The Python package of iroh."""

    name = "iroh"
    needs = "iroh"

    def absent(self, isolated: bool) -> str | None:
        """Only where it is alone."""
        return super().absent(isolated) or (None if isolated else "no network namespace could be made for it")

    @asynccontextmanager
    async def meet(self) -> AsyncIterator[Pair]:
        """Two endpoints, one connection."""
        async with self.two() as pair:
            where = await pair.callee.ask("listen")
            await pair.caller.ask("connect", **where)
            yield pair


class _Endpoint(Role):
    _endpoint: Any = None

    async def bind(self) -> Any:
        """Make the endpoint; gives the package."""
        iroh = import_module("iroh")
        options = iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            bind_addr="127.0.0.1:0",
            alpns=[PROTOCOL],
            relay_mode=iroh.RelayMode.disabled(),
        )
        self._endpoint = await iroh.Endpoint.bind(options)
        return iroh

    async def stop(self) -> None:
        """Close it."""
        if self._endpoint is not None:
            await self._endpoint.close()


class Callee(_Endpoint):
    """Answers streams."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> dict[str, Any]:
        """Accept one connection; gives what the caller must know."""
        iroh = await self.bind()
        self._spawn(self._accept(iroh.IrohError))
        return {"key": self._endpoint.id().to_bytes().hex(), "addresses": self._endpoint.bound_sockets()}

    async def _accept(self, error: type[Exception]) -> None:
        incoming = await self._endpoint.accept_next()
        connection = await (await incoming.accept()).connect()
        with suppress(error):  # which is how it learns that the caller has left
            while True:
                self._spawn(self._echo(await connection.accept_bi()))

    async def _echo(self, stream: Any) -> None:
        request = msgspec.json.decode(await stream.recv().read_to_end(MAX_BODY))
        send = stream.send()
        await send.write_all(msgspec.json.encode(request))
        await send.finish()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Close the endpoint, which ends all that waits on it."""
        await super().stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Caller(_Endpoint, CallerRole):
    """Opens streams."""

    async def connect(self, key: str, addresses: list[str]) -> None:
        """Connect to the other endpoint."""
        iroh = await self.bind()
        where = iroh.EndpointAddr(iroh.EndpointId.from_bytes(bytes.fromhex(key)), None, addresses)
        self._connection = await self._endpoint.connect(where, PROTOCOL)

    def one_call(self) -> Awaitable[Any]:
        """A stream there and back."""
        return self._stream()

    async def _stream(self) -> Any:
        stream = await self._connection.open_bi()
        send = stream.send()
        await send.write_all(msgspec.json.encode(REQUEST))
        await send.finish()
        return msgspec.json.decode(await stream.recv().read_to_end(MAX_BODY))


if __name__ == "__main__":
    run({"callee": Callee, "caller": Caller})
